//! Packet path: no allocation. A view of one RTP packet (RFC 3550 section 5.1) with
//! its header extensions (RFC 8285). It borrows the bytes and copies none.

use core::ops::Range;

use crate::{RTP_HEADER_LEN, RtpError};

const EXTENSION_FLAG: u8 = 0x10;
const PADDING_FLAG: u8 = 0x20;
const ONE_BYTE_PROFILE: u16 = 0xbede;
/// The low four bits are "appbits" and mean nothing (RFC 8285 section 4.3).
const TWO_BYTE_PROFILE: u16 = 0x1000;

/// A packet that was checked: the header, the CSRC list and the extension block lie
/// within the bytes and the padding within the payload.
#[derive(Debug, Clone, Copy)]
pub struct RtpView<'a> {
    bytes: &'a [u8],
    extensions: Extensions<'a>,
    payload_start: usize,
    payload_end: usize,
}

impl<'a> RtpView<'a> {
    /// Parses a plain (not encrypted) packet.
    ///
    /// What is inside the extension block is not checked here: an element that
    /// overruns the block ends [`RtpView::extensions`], as it does in libwebrtc.
    ///
    /// # Errors
    /// [`RtpError`] if it is truncated, of another version, or its padding is wrong.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtpError> {
        let mut view = Self::parse_protected(bytes)?;
        view.payload_end -= padding_len(bytes, view.payload_start)?;
        Ok(view)
    }

    /// Parses a packet of SRTP. Its header is plain (RFC 3711 section 3.1); the payload is
    /// all that follows, for how much of it is padding is encrypted.
    ///
    /// # Errors
    /// [`RtpError`] if it is truncated or of another version.
    pub fn parse_protected(bytes: &'a [u8]) -> Result<Self, RtpError> {
        let fixed: &[u8; RTP_HEADER_LEN] = bytes.first_chunk().ok_or(RtpError::Truncated)?;
        if fixed[0] >> 6 != 2 {
            return Err(RtpError::Version);
        }
        let csrc_end = RTP_HEADER_LEN + 4 * usize::from(fixed[0] & 0x0f);
        let (extensions, payload_start) = if fixed[0] & EXTENSION_FLAG == 0 {
            (Extensions::EMPTY, csrc_end)
        } else {
            Extensions::parse(bytes, csrc_end)?
        };
        if payload_start > bytes.len() {
            return Err(RtpError::Truncated);
        }
        Ok(Self { bytes, extensions, payload_start, payload_end: bytes.len() })
    }

    /// Marker bit: last packet of a video frame, first of a talkspurt.
    #[must_use]
    pub fn marker(&self) -> bool {
        self.bytes[1] & 0x80 != 0
    }

    /// Payload type, 0 to 127.
    #[must_use]
    pub fn payload_type(&self) -> u8 {
        self.bytes[1] & 0x7f
    }

    /// Sequence number.
    #[must_use]
    pub fn sequence(&self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    /// Timestamp in units of the codec's clock.
    #[must_use]
    pub fn timestamp(&self) -> u32 {
        u32::from_be_bytes([self.bytes[4], self.bytes[5], self.bytes[6], self.bytes[7]])
    }

    /// Synchronisation source.
    #[must_use]
    pub fn ssrc(&self) -> u32 {
        u32::from_be_bytes([self.bytes[8], self.bytes[9], self.bytes[10], self.bytes[11]])
    }

    /// Contributing sources, at most 15.
    pub fn csrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        let count = usize::from(self.bytes[0] & 0x0f);
        self.bytes[RTP_HEADER_LEN..RTP_HEADER_LEN + 4 * count]
            .chunks_exact(4)
            .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
    }

    /// Length of everything before the payload, in bytes.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.payload_start
    }

    /// The payload without padding. Empty in a packet that is only padding.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.payload_start..self.payload_end]
    }

    /// Where the payload without padding lies in the packet.
    #[must_use]
    pub fn payload_range(&self) -> Range<usize> {
        self.payload_start..self.payload_end
    }

    /// Bytes of padding, the count byte included; 0 if there is none.
    #[must_use]
    pub fn padding_len(&self) -> usize {
        self.bytes.len() - self.payload_end
    }

    /// It carries padding and nothing else: a bandwidth probe of libwebrtc.
    #[must_use]
    pub fn is_padding_only(&self) -> bool {
        self.payload_start == self.payload_end && self.payload_end < self.bytes.len()
    }

    /// Header extensions in the order of the packet, as (id, value).
    #[must_use]
    pub fn extensions(&self) -> Extensions<'a> {
        self.extensions
    }

    /// The value of the first extension with this id.
    #[must_use]
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        self.extensions.into_iter().find_map(|(found, value)| (found == id).then_some(value))
    }

    /// Where the value of the first extension with this id lies in the packet, for
    /// patching it in place.
    #[must_use]
    pub fn extension_range(&self, id: u8) -> Option<Range<usize>> {
        let mut extensions = self.extensions;
        while let Some((found, range)) = extensions.next_range() {
            if found == id {
                return Some(range);
            }
        }
        None
    }

    /// The whole packet.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

fn padding_len(bytes: &[u8], payload_start: usize) -> Result<usize, RtpError> {
    if bytes[0] & PADDING_FLAG == 0 {
        return Ok(0);
    }
    let count = usize::from(*bytes.last().ok_or(RtpError::Padding)?);
    if count == 0 || count > bytes.len() - payload_start {
        return Err(RtpError::Padding);
    }
    Ok(count)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    OneByte,
    TwoByte,
    /// Neither profile of RFC 8285: no element can be told.
    Unknown,
}

/// Iterates over the header extensions of a packet as (id, value). Ids are 1 to 255.
/// Stops at the first element that overruns the block.
#[derive(Debug, Clone, Copy)]
pub struct Extensions<'a> {
    form: Form,
    bytes: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Extensions<'a> {
    const EMPTY: Self = Self { form: Form::Unknown, bytes: &[], at: 0, end: 0 };

    /// The extension block at `start` and where it ends.
    fn parse(bytes: &'a [u8], start: usize) -> Result<(Self, usize), RtpError> {
        let head = bytes.get(start..start + 4).ok_or(RtpError::Truncated)?;
        let profile = u16::from_be_bytes([head[0], head[1]]);
        let words = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let at = start + 4;
        let end = at + 4 * words;
        if end > bytes.len() {
            return Err(RtpError::Truncated);
        }
        let form = match profile {
            ONE_BYTE_PROFILE => Form::OneByte,
            profile if profile & 0xfff0 == TWO_BYTE_PROFILE => Form::TwoByte,
            _ => Form::Unknown,
        };
        Ok((Self { form, bytes, at, end }, end))
    }

    fn next_range(&mut self) -> Option<(u8, Range<usize>)> {
        while self.at < self.end {
            let head = self.bytes[self.at];
            if head == 0 {
                self.at += 1;
                continue;
            }
            let (id, len, head_len) = match self.form {
                Form::OneByte => (head >> 4, usize::from(head & 0x0f) + 1, 1),
                Form::TwoByte if self.at + 1 < self.end => {
                    (head, usize::from(self.bytes[self.at + 1]), 2)
                }
                Form::TwoByte | Form::Unknown => break,
            };
            let value = self.at + head_len..self.at + head_len + len;
            // Id 15 of the one-byte form ends the block (RFC 8285 section 4.2).
            let reserved = self.form == Form::OneByte && id == 15;
            if reserved || value.end > self.end {
                break;
            }
            self.at = value.end;
            // Id 0 with a length is padding of a careless sender: skipped.
            if id != 0 {
                return Some((id, value));
            }
        }
        self.at = self.end;
        None
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.next_range().map(|(id, range)| (id, &self.bytes[range]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// X, two CSRCs; one-byte extensions 3 (two bytes) and 5 (one byte); payload.
    const PACKET: [u8; 34] = [
        0x92, 0xe0, 0x12, 0x34, 0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0xbe, 0xde, 0, 2,
        0x31, 0xaa, 0xbb, 0x00, 0x50, 0xcc, 0x00, 0x00, 0x80, 0x81,
    ];

    #[test]
    fn all_fields_are_where_rfc_3550_has_them() {
        let view = RtpView::parse(&PACKET).unwrap();
        assert!(view.marker());
        assert_eq!(view.payload_type(), 96);
        assert_eq!(view.sequence(), 0x1234);
        assert_eq!(view.timestamp(), 9);
        assert_eq!(view.ssrc(), 7);
        assert_eq!(view.csrcs().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(view.payload(), [0x80, 0x81]);
        assert_eq!(view.payload_range(), 32..34);
        assert_eq!(view.padding_len(), 0);
    }

    #[test]
    fn the_last_byte_of_an_encrypted_packet_counts_no_padding() {
        let mut packet = PACKET;
        packet[0] |= PADDING_FLAG;
        for last in [0, 1, 2, 255] {
            packet[33] = last;
            let view = RtpView::parse_protected(&packet).unwrap();
            assert_eq!((view.sequence(), view.header_len(), view.payload().len()), (0x1234, 32, 2));
        }
        assert!(RtpView::parse(&packet).is_err());
        assert!(RtpView::parse_protected(&packet[..30]).is_err());
    }

    #[test]
    fn one_byte_extensions_are_found_between_padding() {
        let view = RtpView::parse(&PACKET).unwrap();
        let all: Vec<_> = view.extensions().collect();
        assert_eq!(all, [(3, &[0xaa, 0xbb][..]), (5, &[0xcc][..])]);
        assert_eq!(view.extension(5), Some(&[0xcc][..]));
        assert_eq!(view.extension_range(5), Some(29..30));
        assert_eq!(view.extension(4), None);
    }

    #[test]
    fn two_byte_extensions_may_be_empty_and_have_any_id() {
        let packet =
            [0x90, 0x60, 0, 1, 0, 0, 0, 9, 0, 0, 0, 7, 0x10, 0x05, 0, 2, 200, 2, 1, 2, 15, 0, 0, 0];
        let view = RtpView::parse(&packet).unwrap();
        assert_eq!(view.extensions().collect::<Vec<_>>(), [(200, &[1, 2][..]), (15, &[][..])]);
    }

    #[test]
    fn an_overrunning_element_and_id_fifteen_end_the_list() {
        let mut packet = PACKET;
        packet[28] = 0x5f;
        assert_eq!(RtpView::parse(&packet).unwrap().extensions().count(), 1);
        packet[28] = 0xf0;
        assert_eq!(RtpView::parse(&packet).unwrap().extensions().count(), 1);
    }

    #[test]
    fn an_unknown_profile_has_no_extensions_but_its_length_counts() {
        let mut packet = PACKET;
        packet[20] = 0x77;
        let view = RtpView::parse(&packet).unwrap();
        assert_eq!(view.extensions().count(), 0);
        assert_eq!(view.payload(), [0x80, 0x81]);
    }

    #[test]
    fn padding_is_cut_from_the_payload() {
        let mut packet = PACKET;
        packet[0] |= 0x20;
        packet[33] = 1;
        let view = RtpView::parse(&packet).unwrap();
        assert_eq!((view.payload(), view.padding_len()), (&[0x80][..], 1));
        packet[33] = 2;
        let view = RtpView::parse(&packet).unwrap();
        assert!(view.is_padding_only());
        for wrong in [0, 3, 255] {
            packet[33] = wrong;
            assert_eq!(RtpView::parse(&packet).unwrap_err(), RtpError::Padding);
        }
    }

    #[test]
    fn what_is_cut_short_is_truncated() {
        for len in 0..32 {
            assert_eq!(RtpView::parse(&PACKET[..len]).unwrap_err(), RtpError::Truncated);
        }
        assert!(RtpView::parse(&PACKET[..32]).unwrap().payload().is_empty());
    }

    #[test]
    fn another_version_is_refused() {
        let mut packet = PACKET;
        packet[0] = 0x52;
        assert_eq!(RtpView::parse(&packet).unwrap_err(), RtpError::Version);
    }
}
