//! Data Channel Establishment Protocol (RFC 8832): two messages.

use std::time::Duration;

/// The longest label taken or sent.
pub const LABEL_MAX: usize = 1024;

const ACK: u8 = 0x02;
const OPEN: u8 = 0x03;
const UNORDERED: u8 = 0x80;
const OPEN_HEADER: usize = 12;

/// What a channel does about order and loss (RFC 8832 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelReliability {
    /// Messages arrive in the order they were sent.
    pub ordered: bool,
    /// How long a message is sent again.
    pub retransmission: Retransmission,
}

/// When a lost message is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retransmission {
    /// Never.
    Unlimited,
    /// After this many repeats; 0 sends once.
    AtMost(u32),
    /// This long after it was handed in. Whole milliseconds on the wire.
    For(Duration),
}

impl ChannelReliability {
    /// Ordered, nothing given up.
    pub const RELIABLE: Self = Self { ordered: true, retransmission: Retransmission::Unlimited };
    /// Unordered, sent once.
    pub const LOSSY: Self = Self { ordered: false, retransmission: Retransmission::AtMost(0) };
}

/// A DCEP message, borrowed from the packet it came in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DcepMessage<'a> {
    Open { label: &'a str, reliability: ChannelReliability },
    Ack,
}

impl<'a> DcepMessage<'a> {
    /// `None` for anything malformed, of unknown type, or with a label beyond
    /// [`LABEL_MAX`]. The protocol string is accepted and ignored.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        match *bytes.first()? {
            ACK => Some(Self::Ack),
            OPEN => parse_open(bytes),
            _ => None,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ack => vec![ACK],
            Self::Open { label, reliability } => encode_open(label, *reliability),
        }
    }
}

fn parse_open(bytes: &[u8]) -> Option<DcepMessage<'_>> {
    let (header, strings) = bytes.split_at_checked(OPEN_HEADER)?;
    let parameter = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let label_len = usize::from(u16::from_be_bytes([header[8], header[9]]));
    let protocol_len = usize::from(u16::from_be_bytes([header[10], header[11]]));
    if label_len > LABEL_MAX || label_len + protocol_len > strings.len() {
        return None;
    }
    let retransmission = match header[1] & !UNORDERED {
        0 => Retransmission::Unlimited,
        1 => Retransmission::AtMost(parameter),
        2 => Retransmission::For(Duration::from_millis(u64::from(parameter))),
        _ => return None,
    };
    Some(DcepMessage::Open {
        label: std::str::from_utf8(&strings[..label_len]).ok()?,
        reliability: ChannelReliability { ordered: header[1] & UNORDERED == 0, retransmission },
    })
}

fn encode_open(label: &str, reliability: ChannelReliability) -> Vec<u8> {
    let (kind, parameter) = match reliability.retransmission {
        Retransmission::Unlimited => (0, 0),
        Retransmission::AtMost(repeats) => (1, repeats),
        Retransmission::For(lifetime) => {
            (2, u32::try_from(lifetime.as_millis()).unwrap_or(u32::MAX))
        }
    };
    let order = if reliability.ordered { 0 } else { UNORDERED };
    let mut bytes = vec![OPEN, kind | order, 0, 0];
    bytes.extend_from_slice(&parameter.to_be_bytes());
    // The label was checked against LABEL_MAX when the channel was opened.
    bytes.extend_from_slice(&(label.len() as u16).to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(label.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_open_of_a_browser_is_read() {
        // Chromium: createDataChannel("_lossy", {ordered: false, maxRetransmits: 0})
        let bytes = [&[0x03, 0x81, 0x01, 0x00, 0, 0, 0, 0, 0, 6, 0, 0][..], b"_lossy"].concat();
        let expected =
            DcepMessage::Open { label: "_lossy", reliability: ChannelReliability::LOSSY };
        assert_eq!(DcepMessage::parse(&bytes), Some(expected));
        assert_eq!(DcepMessage::parse(&[2]), Some(DcepMessage::Ack));
    }

    #[test]
    fn truncated_and_malformed_opens_are_refused() {
        let bytes =
            DcepMessage::Open { label: "chat", reliability: ChannelReliability::RELIABLE }.encode();
        for length in 0..bytes.len() {
            assert_eq!(DcepMessage::parse(&bytes[..length]), None, "{length}");
        }
        let mut unknown_type = bytes.clone();
        unknown_type[1] = 3;
        assert_eq!(DcepMessage::parse(&unknown_type), None);
        let mut not_utf8 = bytes;
        not_utf8[12] = 0xff;
        assert_eq!(DcepMessage::parse(&not_utf8), None);
    }

    proptest! {
        #[test]
        fn every_open_reads_back(label in ".{0,40}", ordered: bool, kind in 0..3, parameter: u32) {
            let retransmission = match kind {
                0 => Retransmission::Unlimited,
                1 => Retransmission::AtMost(parameter),
                _ => Retransmission::For(Duration::from_millis(u64::from(parameter))),
            };
            let open = DcepMessage::Open { label: &label, reliability: ChannelReliability { ordered, retransmission } };
            let bytes = open.encode();
            prop_assert_eq!(DcepMessage::parse(&bytes), Some(open));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = DcepMessage::parse(&bytes);
        }
    }
}
