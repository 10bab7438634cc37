//! Packet path: no allocation. Writes a complete RTP header with chosen extensions
//! into a buffer, and padding behind a payload.

use crate::{RTP_HEADER_LEN, WriteError};

/// One header extension to write: its negotiated id (1 to 255) and its value.
pub type Extension<'a> = (u8, &'a [u8]);

/// The fixed part of an RTP header to write. No CSRC list is ever written: we
/// forward, we do not mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RtpHeader {
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Marker bit.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in units of the codec's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    None,
    OneByte,
    TwoByte,
}

impl Form {
    /// The one-byte form unless an id or a length needs the other (RFC 8285 4.1.2).
    fn of(extensions: &[Extension<'_>]) -> Self {
        if extensions.is_empty() {
            return Self::None;
        }
        let fits = |(id, value): &Extension<'_>| *id <= 14 && (1..=16).contains(&value.len());
        if extensions.iter().all(fits) { Self::OneByte } else { Self::TwoByte }
    }

    fn element_head_len(self) -> usize {
        match self {
            Self::None => 0,
            Self::OneByte => 1,
            Self::TwoByte => 2,
        }
    }

    /// Length of the block with its head and its padding to a word.
    fn block_len(self, extensions: &[Extension<'_>]) -> usize {
        if self == Self::None {
            return 0;
        }
        let elements: usize =
            extensions.iter().map(|(_, value)| self.element_head_len() + value.len()).sum();
        4 + elements.next_multiple_of(4)
    }
}

impl RtpHeader {
    /// How many bytes [`RtpHeader::write`] would write.
    #[must_use]
    pub fn encoded_len(extensions: &[Extension<'_>]) -> usize {
        RTP_HEADER_LEN + Form::of(extensions).block_len(extensions)
    }

    /// Writes the header and returns its length. The one-byte form of extensions is
    /// used unless an id above 14, an empty value or one above 16 bytes needs the
    /// two-byte form; that one must have been negotiated (`a=extmap-allow-mixed`).
    ///
    /// # Errors
    /// [`WriteError`] if the buffer is too short, an id is 0, a value is longer than
    /// 255 bytes or the payload type is above 127. Nothing is written then.
    pub fn write(&self, extensions: &[Extension<'_>], out: &mut [u8]) -> Result<usize, WriteError> {
        let representable = |(id, value): &Extension<'_>| *id != 0 && value.len() <= 255;
        if self.payload_type > 127 || !extensions.iter().all(representable) {
            return Err(WriteError::Unrepresentable);
        }
        let form = Form::of(extensions);
        let block_len = form.block_len(extensions);
        let words = u16::try_from(block_len.saturating_sub(4) / 4)
            .map_err(|_| WriteError::Unrepresentable)?;
        let len = RTP_HEADER_LEN + block_len;
        let out = out.get_mut(..len).ok_or(WriteError::NoRoom)?;
        out[0] = 0x80 | if form == Form::None { 0 } else { 0x10 };
        out[1] = u8::from(self.marker) << 7 | self.payload_type;
        out[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        out[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        if form != Form::None {
            write_block(form, words, extensions, &mut out[RTP_HEADER_LEN..]);
        }
        Ok(len)
    }
}

fn write_block(form: Form, words: u16, extensions: &[Extension<'_>], out: &mut [u8]) {
    let profile: u16 = if form == Form::TwoByte { 0x1000 } else { 0xbede };
    out[0..2].copy_from_slice(&profile.to_be_bytes());
    out[2..4].copy_from_slice(&words.to_be_bytes());
    let mut at = 4;
    for (id, value) in extensions {
        // Checked by the caller: a value has at most 255 bytes, 16 in the one-byte form.
        let len = value.len() as u8;
        if form == Form::TwoByte {
            out[at] = *id;
            out[at + 1] = len;
        } else {
            out[at] = *id << 4 | (len - 1);
        }
        at += form.element_head_len();
        out[at..at + value.len()].copy_from_slice(value);
        at += value.len();
    }
    out[at..].fill(0);
}

/// Appends `count` bytes of RTP padding (RFC 3550 section 5.1) to the packet of `len`
/// bytes at the start of `buffer`, sets its padding bit and returns its new length.
/// A count of 0 changes nothing. The packet must not have padding yet.
///
/// # Errors
/// [`WriteError::NoRoom`] if the buffer is too short.
pub fn append_padding(buffer: &mut [u8], len: usize, count: u8) -> Result<usize, WriteError> {
    if count == 0 {
        return Ok(len);
    }
    let end = len + usize::from(count);
    if len < RTP_HEADER_LEN {
        return Err(WriteError::NoRoom);
    }
    let padding = buffer.get_mut(len..end).ok_or(WriteError::NoRoom)?;
    padding.fill(0);
    if let Some(last) = padding.last_mut() {
        *last = count;
    }
    buffer[0] |= 0x20;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::RtpView;

    fn header() -> RtpHeader {
        RtpHeader { payload_type: 96, marker: true, sequence: 1, timestamp: 2, ssrc: 3 }
    }

    #[test]
    fn short_extensions_take_the_one_byte_form() {
        let mut out = [0xff; 24];
        let len = header().write(&[(3, &[0xaa, 0xbb]), (5, &[0xcc])], &mut out).unwrap();
        assert_eq!(
            out[..len],
            [
                0x90, 0xe0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0xbe, 0xde, 0, 2, 0x31, 0xaa, 0xbb, 0x50,
                0xcc, 0, 0, 0
            ]
        );
    }

    #[test]
    fn a_high_id_an_empty_value_or_a_long_one_takes_the_two_byte_form() {
        for extension in [(15, &[1][..]), (1, &[][..]), (1, &[0; 17][..])] {
            let mut out = [0; 64];
            let len = header().write(&[extension], &mut out).unwrap();
            assert_eq!(out[12..14], [0x10, 0x00]);
            let view = RtpView::parse(&out[..len]).unwrap();
            assert_eq!(view.extensions().collect::<Vec<_>>(), [extension]);
        }
    }

    #[test]
    fn what_cannot_be_written_is_refused_and_leaves_the_buffer() {
        let mut out = [0xee; 15];
        assert_eq!(header().write(&[(1, &[1])], &mut out), Err(WriteError::NoRoom));
        assert_eq!(header().write(&[(0, &[1])], &mut out), Err(WriteError::Unrepresentable));
        assert_eq!(header().write(&[(1, &[0; 256])], &mut out), Err(WriteError::Unrepresentable));
        let odd = RtpHeader { payload_type: 128, ..header() };
        assert_eq!(odd.write(&[], &mut out), Err(WriteError::Unrepresentable));
        assert_eq!(out, [0xee; 15]);
    }

    #[test]
    fn padding_is_counted_in_its_last_byte() {
        let mut buffer = [0xee; 20];
        let len = header().write(&[], &mut buffer).unwrap();
        assert_eq!(append_padding(&mut buffer, len + 2, 0), Ok(14));
        assert_eq!(append_padding(&mut buffer, len + 2, 3), Ok(17));
        let view = RtpView::parse(&buffer[..17]).unwrap();
        assert_eq!((view.payload().len(), view.padding_len()), (2, 3));
        assert_eq!(append_padding(&mut buffer, 17, 4), Err(WriteError::NoRoom));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            payload_type in 0_u8..128, marker: bool, sequence: u16, timestamp: u32, ssrc: u32,
            extensions in proptest::collection::vec((1_u8..=255, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
            payload in proptest::collection::vec(any::<u8>(), 0..40),
            padding: u8,
        ) {
            let header = RtpHeader { payload_type, marker, sequence, timestamp, ssrc };
            let list: Vec<Extension<'_>> =
                extensions.iter().map(|(id, value)| (*id, value.as_slice())).collect();
            let mut out = [0; 1_000];
            let len = header.write(&list, &mut out).unwrap();
            prop_assert_eq!(len, RtpHeader::encoded_len(&list));
            out[len..len + payload.len()].copy_from_slice(&payload);
            let total = append_padding(&mut out, len + payload.len(), padding).unwrap();
            let view = RtpView::parse(&out[..total]).unwrap();
            let read = RtpHeader {
                payload_type: view.payload_type(),
                marker: view.marker(),
                sequence: view.sequence(),
                timestamp: view.timestamp(),
                ssrc: view.ssrc(),
            };
            prop_assert_eq!(read, header);
            prop_assert_eq!(view.extensions().collect::<Vec<_>>(), list);
            prop_assert_eq!(view.payload(), payload);
            prop_assert_eq!(view.padding_len(), usize::from(padding));
        }
    }
}
