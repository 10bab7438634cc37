//! The chunks of an SCTP packet (RFC 9260 §3) in the one form in which
//! `rtc-sctp` agrees on where each ends: it reads some lengths from the chunk's
//! header, others from what it has parsed, and slices a few without looking.

/// Chunks that the library knows. Packets with others it drops whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkKind {
    Data,
    Init,
    InitAck,
    Sack,
    Heartbeat,
    Abort,
    Shutdown,
    ShutdownAck,
    Error,
    CookieEcho,
    CookieAck,
    ShutdownComplete,
    Reconfig,
    ForwardTsn,
}

/// Outgoing SSN reset request (RFC 6525 §4.1).
pub(super) const PARAMETER_OUTGOING_RESET: u16 = 13;
/// Re-configuration response (RFC 6525 §4.4).
const PARAMETER_RECONFIG_RESPONSE: u16 = 16;

/// A chunk whose value has the form of its kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk<'a> {
    pub kind: ChunkKind,
    pub value: &'a [u8],
}

/// The chunks of a packet's body; `None` for one that is not canonical, which is
/// the last.
pub(super) fn chunks(body: &[u8]) -> impl Iterator<Item = Option<Chunk<'_>>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let chunk = first_chunk(rest);
        rest = chunk.map_or(&[], |(_, behind)| behind);
        Some(chunk.map(|(chunk, _)| chunk))
    })
}

fn first_chunk(bytes: &[u8]) -> Option<(Chunk<'_>, &[u8])> {
    let &[kind, _, high, low, ..] = bytes else {
        return None;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let value = bytes.get(4..length)?;
    let kind = ChunkKind::from_type(kind)?;
    // The last chunk of a packet may come without its padding.
    let behind = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    kind.is_canonical(value).then_some((Chunk { kind, value }, behind))
}

impl ChunkKind {
    const fn from_type(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Data,
            1 => Self::Init,
            2 => Self::InitAck,
            3 => Self::Sack,
            4 => Self::Heartbeat,
            6 => Self::Abort,
            7 => Self::Shutdown,
            8 => Self::ShutdownAck,
            9 => Self::Error,
            10 => Self::CookieEcho,
            11 => Self::CookieAck,
            14 => Self::ShutdownComplete,
            130 => Self::Reconfig,
            192 => Self::ForwardTsn,
            _ => return None,
        })
    }

    fn is_canonical(self, value: &[u8]) -> bool {
        match self {
            // A chunk without data is a protocol violation (RFC 9260 §6.2).
            Self::Data => value.len() > 12,
            Self::Init | Self::InitAck => value
                .get(16..)
                .is_some_and(|rest| parameters(rest).all(|parameter| parameter.is_some())),
            Self::Sack => {
                let blocks = |offset: usize| {
                    value
                        .get(offset..offset + 2)
                        .map(|count| usize::from(u16::from_be_bytes([count[0], count[1]])))
                };
                blocks(8)
                    .zip(blocks(10))
                    .is_some_and(|(gaps, repeats)| value.len() == 12 + 4 * (gaps + repeats))
            }
            Self::Heartbeat => is_one_parameter(value),
            Self::Abort | Self::Error => are_causes(value),
            Self::Shutdown => value.len() == 4,
            Self::ShutdownAck | Self::CookieAck | Self::ShutdownComplete => value.is_empty(),
            Self::CookieEcho => true,
            Self::Reconfig => are_reconfigurations(value),
            Self::ForwardTsn => value.len() >= 4 && value.len().is_multiple_of(4),
        }
    }
}

/// Type and value of each parameter; `None` for a malformed one, which is the
/// last. Padding lies between them.
pub(super) fn parameters(bytes: &[u8]) -> impl Iterator<Item = Option<(u16, &[u8])>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let parameter = match *rest {
            [kind_high, kind_low, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                let kind = u16::from_be_bytes([kind_high, kind_low]);
                rest.get(4..length).map(|value| (kind, value, length))
            }
            _ => None,
        };
        rest = parameter
            .and_then(|(_, _, length)| rest.get(length.next_multiple_of(4)..))
            .unwrap_or(&[]);
        Some(parameter.map(|(kind, value, _)| (kind, value)))
    })
}

fn is_one_parameter(value: &[u8]) -> bool {
    parameters(value).next().flatten().is_some_and(|(_, content)| 4 + content.len() == value.len())
}

/// Error causes, one behind the other without padding, as the library reads
/// them; padding may follow the last.
fn are_causes(value: &[u8]) -> bool {
    let mut offset = 0;
    while let Some(header) = value.get(offset..offset + 4) {
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if length < 4 || offset + length > value.len() {
            return false;
        }
        offset += length;
    }
    offset.next_multiple_of(4) == value.len().next_multiple_of(4)
}

/// One or two parameters that the library reads at their full length.
fn are_reconfigurations(value: &[u8]) -> bool {
    let mut end: usize = 0;
    let mut count = 0;
    for parameter in parameters(value) {
        let Some((kind, content)) = parameter else {
            return false;
        };
        let known = match kind {
            PARAMETER_OUTGOING_RESET => content.len() >= 12 && content.len().is_multiple_of(2),
            PARAMETER_RECONFIG_RESPONSE => content.len() == 8,
            _ => false,
        };
        if !known {
            return false;
        }
        end = end.next_multiple_of(4) + 4 + content.len();
        count += 1;
    }
    (1..=2).contains(&count) && end == value.len()
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(kind: u8, value: &[u8]) -> Vec<u8> {
        let mut chunk = vec![kind, 0];
        chunk.extend_from_slice(&(value.len() as u16 + 4).to_be_bytes());
        chunk.extend_from_slice(value);
        chunk.resize(chunk.len().next_multiple_of(4), 0);
        chunk
    }

    fn is_canonical(kind: u8, value: &[u8]) -> bool {
        chunks(&chunk(kind, value)).all(|chunk| chunk.is_some())
    }

    #[test]
    fn chunks_that_could_hide_another_are_refused() {
        for kind in [8, 11, 14] {
            assert!(is_canonical(kind, &[]));
            assert!(!is_canonical(kind, &chunk(192, &[0x70, 0, 0, 0])), "{kind}");
        }
        assert!(!is_canonical(3, &[&[0; 12][..], &chunk(192, &[0x70, 0, 0, 0])].concat()));
        let heartbeat = [&[0, 1, 0, 8, 1, 2, 3, 4][..], &chunk(192, &[0x70, 0, 0, 0])].concat();
        assert!(is_canonical(4, &heartbeat[..8]));
        assert!(!is_canonical(4, &heartbeat));
        let response = [&[0, 16, 0, 20][..], &[0; 8], &chunk(192, &[0x70, 0, 0, 0])].concat();
        assert!(!is_canonical(130, &response));
        assert!(is_canonical(130, &[&[0, 16, 0, 12][..], &[0; 8]].concat()));
        assert!(!is_canonical(5, &[0, 1, 0, 4]), "HEARTBEAT ACK: none is ever asked for");
    }

    #[test]
    fn causes_beyond_their_chunk_are_refused() {
        assert!(is_canonical(9, &[0, 1, 0, 8, 0, 0, 0, 0]));
        assert!(is_canonical(6, &[]));
        assert!(is_canonical(6, &[0, 12, 0, 7, b'b', b'y', b'e']));
        assert!(!is_canonical(9, &[0, 0, 0, 4, 0, 0, 0, 5]));
        assert!(!is_canonical(9, &[0, 0, 0, 3]));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = chunks(&bytes).count();
        }
    }
}
