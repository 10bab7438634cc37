//! Packet path: no allocation. The payload of retransmissions (RFC 4588 section 4).

/// Bytes in front of the original payload.
pub const RTX_PREFIX_LEN: usize = 2;

/// The original sequence number and the original payload. `None` if the payload is
/// too short to hold the number.
#[must_use]
pub fn parse(payload: &[u8]) -> Option<(u16, &[u8])> {
    let (number, original) = payload.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), original))
}

/// What goes in front of the original payload.
#[must_use]
pub fn prefix(original_sequence: u16) -> [u8; RTX_PREFIX_LEN] {
    original_sequence.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_number_is_in_front() {
        assert_eq!(parse(&[0x12, 0x34, 9]), Some((0x1234, &[9][..])));
        assert_eq!(parse(&[0x12]), None);
        assert_eq!(prefix(0x1234), [0x12, 0x34]);
    }
}
