//! Packet path: no allocation. Redundant audio (RFC 2198): a payload of several blocks,
//! the newest of which (the primary) is what the packet would carry alone, the others
//! what earlier packets carried.

use crate::{DescriptorError, WriteError};

/// Redundant blocks that are read. Libwebrtc sends one unless told otherwise, nine at
/// most; a payload with more is refused.
pub const REDUNDANT_MAX: usize = 9;

/// A block before the primary has a timestamp offset of 14 bits, in clock units.
pub const OFFSET_MAX: u16 = (1 << 14) - 1;

/// Header of a redundant block, and of the primary.
const HEADER_LEN: usize = 4;
const PRIMARY_HEADER_LEN: usize = 1;
/// Set in headers that another one follows.
const FOLLOWED: u8 = 0x80;
/// Length of a redundant block has 10 bits.
const LENGTH_MASK: u16 = (1 << 10) - 1;

/// A block of an earlier packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedundantBlock<'a> {
    /// Payload type of its content.
    pub payload_type: u8,
    /// How much its timestamp lies before that of the packet, in clock units.
    pub timestamp_offset: u16,
    /// Its content; may be empty.
    pub payload: &'a [u8],
}

/// A payload whose headers hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedPayload<'a> {
    /// Headers of redundant blocks, a multiple of four bytes.
    headers: &'a [u8],
    /// Content of redundant blocks, oldest first.
    contents: &'a [u8],
    primary_type: u8,
    primary: &'a [u8],
}

impl<'a> RedPayload<'a> {
    /// Reads the headers and checks that the blocks are there.
    ///
    /// # Errors
    /// If it ends before them or behind them, so that there is no primary, or has more
    /// blocks than [`REDUNDANT_MAX`].
    pub fn parse(payload: &'a [u8]) -> Result<Self, DescriptorError> {
        let mut contents_len = 0;
        let mut count = 0;
        while *payload.get(count * HEADER_LEN).ok_or(DescriptorError::Truncated)? & FOLLOWED != 0 {
            if count == REDUNDANT_MAX {
                return Err(DescriptorError::Invalid);
            }
            let header = payload.get(count * HEADER_LEN..).and_then(<[u8]>::first_chunk);
            contents_len += length(header.ok_or(DescriptorError::Truncated)?);
            count += 1;
        }
        let (headers, rest) = payload.split_at(count * HEADER_LEN);
        let (primary_type, rest) = rest.split_first().ok_or(DescriptorError::Truncated)?;
        let (contents, primary) =
            rest.split_at_checked(contents_len).ok_or(DescriptorError::Truncated)?;
        if primary.is_empty() {
            return Err(DescriptorError::Invalid);
        }
        Ok(Self { headers, contents, primary_type: *primary_type, primary })
    }

    /// Payload type of the primary block.
    #[must_use]
    pub const fn primary_type(&self) -> u8 {
        self.primary_type
    }

    /// Content of the primary block; never empty. It ends where the payload ends.
    #[must_use]
    pub const fn primary(&self) -> &'a [u8] {
        self.primary
    }

    /// The blocks of earlier packets, oldest first.
    pub fn redundant(&self) -> impl ExactSizeIterator<Item = RedundantBlock<'a>> + use<'a> {
        let mut contents = self.contents;
        let (headers, _) = self.headers.as_chunks::<HEADER_LEN>();
        headers.iter().map(move |header| {
            // The sum of lengths was checked.
            let (payload, rest) = contents.split_at(length(header).min(contents.len()));
            contents = rest;
            RedundantBlock {
                payload_type: header[0] & !FOLLOWED,
                timestamp_offset: u16::from_be_bytes([header[1], header[2]]) >> 2,
                payload,
            }
        })
    }
}

fn length(header: &[u8; HEADER_LEN]) -> usize {
    usize::from(u16::from_be_bytes([header[2], header[3]]) & LENGTH_MASK)
}

/// Writes a payload of redundant blocks, oldest first, and the primary. Returns its
/// length.
///
/// # Errors
/// If the buffer is too short, or a block has no place in the format.
pub fn write(
    redundant: &[RedundantBlock<'_>],
    (primary_type, primary): (u8, &[u8]),
    buffer: &mut [u8],
) -> Result<usize, WriteError> {
    let contents_len: usize = redundant.iter().map(|block| block.payload.len()).sum();
    let headers_len = redundant.len() * HEADER_LEN + PRIMARY_HEADER_LEN;
    let len = headers_len + contents_len + primary.len();
    let (headers, mut contents) =
        buffer.get_mut(..len).ok_or(WriteError::NoRoom)?.split_at_mut(headers_len);
    let fits = |block: &RedundantBlock<'_>| {
        block.payload_type < FOLLOWED
            && block.timestamp_offset <= OFFSET_MAX
            && block.payload.len() <= usize::from(LENGTH_MASK)
    };
    let few = redundant.len() <= REDUNDANT_MAX;
    if !few || !redundant.iter().all(fits) || primary_type >= FOLLOWED || primary.is_empty() {
        return Err(WriteError::Unrepresentable);
    }
    let (chunks, last) = headers.as_chunks_mut::<HEADER_LEN>();
    for (header, block) in chunks.iter_mut().zip(redundant) {
        let [high, low] = (block.timestamp_offset << 2).to_be_bytes();
        let [upper, lower] = (block.payload.len() as u16).to_be_bytes();
        *header = [FOLLOWED | block.payload_type, high, low | upper, lower];
        let (content, rest) = contents.split_at_mut(block.payload.len());
        content.copy_from_slice(block.payload);
        contents = rest;
    }
    last.copy_from_slice(&[primary_type]);
    contents.copy_from_slice(primary);
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(timestamp_offset: u16, payload: &[u8]) -> RedundantBlock<'_> {
        RedundantBlock { payload_type: 111, timestamp_offset, payload }
    }

    #[test]
    fn a_payload_of_chromium_is_read() {
        // One block of three bytes from 20 ms before, and a primary of two.
        let payload = [0x80 | 111, 0x0f, 0x00, 3, 111, 1, 2, 3, 8, 9];
        let red = RedPayload::parse(&payload).unwrap();
        assert_eq!((red.primary_type(), red.primary()), (111, &[8, 9][..]));
        assert_eq!(red.redundant().collect::<Vec<_>>(), [block(960, &[1, 2, 3])]);
    }

    #[test]
    fn a_first_packet_has_a_primary_only() {
        let red = RedPayload::parse(&[111, 5]).unwrap();
        assert_eq!((red.primary_type(), red.primary(), red.redundant().len()), (111, &[5][..], 0));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let blocks = [block(OFFSET_MAX, &[1; 1_023]), block(1_920, &[]), block(960, &[2; 40])];
        let mut buffer = [0; 1_400];
        let len = write(&blocks, (111, &[3; 60]), &mut buffer).unwrap();
        let red = RedPayload::parse(&buffer[..len]).unwrap();
        assert_eq!(red.redundant().collect::<Vec<_>>(), blocks);
        assert_eq!(red.primary(), [3; 60]);
        assert_eq!(write(&blocks, (111, &[3; 60]), &mut buffer[..50]), Err(WriteError::NoRoom));
        let long = [block(960, &[0; 1_024])];
        let mut buffer = [0; 1_400];
        assert_eq!(write(&long, (111, &[3]), &mut buffer), Err(WriteError::Unrepresentable));
    }

    #[test]
    fn what_does_not_hold_together_is_refused() {
        let refused = |payload: &[u8]| RedPayload::parse(payload).unwrap_err();
        assert_eq!(refused(&[]), DescriptorError::Truncated);
        assert_eq!(refused(&[0x80 | 111, 0, 0]), DescriptorError::Truncated);
        assert_eq!(refused(&[0x80 | 111, 0, 0, 3, 111, 1, 2]), DescriptorError::Truncated);
        assert_eq!(refused(&[0x80 | 111, 0, 0, 3, 111, 1, 2, 3]), DescriptorError::Invalid);
        assert_eq!(refused(&[111]), DescriptorError::Invalid);
        let many = [0x80; 4 * (REDUNDANT_MAX + 1) + 2];
        assert_eq!(refused(&many), DescriptorError::Invalid);
    }
}
