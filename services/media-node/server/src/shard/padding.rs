//! Packet path: makes the packets of a frame equally long, so that they leave as one
//! train. Encoders cut a frame into packets that differ by a byte; the kernel wants all
//! datagrams of a train but the last to be of one length.

use headwater_sfu::OutgoingRtp;

/// Shorter packets are sound, or the only one of their frame.
const PADDED_FROM: usize = 400;
/// The first packet of a train is padded beyond the next multiple of this, so that one
/// that is a little longer still fits. Costs half of it in the mean, 0.7 % of a packet.
const STEP: usize = 16;
/// What a packet is padded with at most to be as long as the train's first.
pub const PADDING_MAX: usize = 32;

/// Bytes of padding for a packet, 0 for none. `overhead` is what SRTP adds; `train` is the
/// length of the datagrams of the train that it may join.
pub fn padding_of(packet: &OutgoingRtp<'_>, overhead: usize, train: Option<usize>) -> u8 {
    let len = packet.len();
    // The last of a frame may be shorter than the others, and nothing follows it.
    if !packet.may_pad || len < PADDED_FROM || is_last_of_frame(packet.header) {
        return 0;
    }
    let gap = train.and_then(|segment| segment.checked_sub(len + overhead));
    match gap {
        Some(gap) if gap <= PADDING_MAX => gap as u8,
        _ => (STEP - len % STEP) as u8,
    }
}

/// The marker of a video packet (RFC 3550 section 5.1).
fn is_last_of_frame(header: &[u8]) -> bool {
    header.get(1).is_some_and(|byte| byte & 0x80 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame's datagrams with their padding, as trains see them.
    fn lengths(payloads: &[usize], overhead: usize) -> Vec<usize> {
        let bytes = [0; 1_400];
        let mut first = None;
        let sealed = payloads.iter().enumerate().map(|(index, payload)| {
            let mut header = [0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            header[1] |= u8::from(index + 1 == payloads.len()) << 7;
            let payload = &bytes[..*payload];
            let packet = OutgoingRtp { header: &header, prefix: &[], payload, may_pad: true };
            let sealed =
                packet.len() + usize::from(padding_of(&packet, overhead, first)) + overhead;
            first = first.filter(|first| sealed <= *first).or(Some(sealed));
            sealed
        });
        sealed.collect()
    }

    #[test]
    fn packets_that_differ_by_a_byte_become_equal() {
        for longest in 1_000..1_040 {
            for frame in
                [[longest - 1, longest, longest, longest], [longest, longest - 1, longest, 900]]
            {
                let lengths = lengths(&frame, 16);
                assert!(lengths[..3].iter().all(|len| *len == lengths[0]), "{frame:?} {lengths:?}");
                assert!(lengths[3] <= lengths[0], "the last may be shorter: {lengths:?}");
                assert!(lengths[0] - 16 - 12 - longest <= STEP + 1);
            }
        }
    }

    #[test]
    fn what_cannot_join_is_not_blown_up() {
        assert_eq!(lengths(&[120], 16), [148], "sound");
        assert_eq!(lengths(&[1_000], 16), [1_028], "alone in its frame");
        let apart = lengths(&[1_100, 500, 1_000], 10);
        assert!(apart[1] < 12 + 500 + 10 + STEP + 1, "{apart:?}");
    }
}
