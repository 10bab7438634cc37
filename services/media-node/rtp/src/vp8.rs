//! Packet path: no allocation. The VP8 payload descriptor (RFC 7741 section 4.2), the
//! start of the VP8 frame header behind it, and rewriting of picture ids.

use crate::{DescriptorError, WriteError};

/// Longest descriptor: two bytes of flags, a long picture id, TL0PICIDX, TID/KEYIDX.
pub const MAX_DESCRIPTOR_LEN: usize = 6;

/// A picture id in the form in which the sender wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureId {
    /// 7 bits.
    Short(u8),
    /// 15 bits.
    Long(u16),
}

impl PictureId {
    /// The number, whatever the form.
    #[must_use]
    pub fn value(self) -> u16 {
        match self {
            Self::Short(id) => u16::from(id),
            Self::Long(id) => id,
        }
    }

    /// Another number in the same form; the bits that do not fit are cut off.
    #[must_use]
    pub fn with_value(self, value: u16) -> Self {
        match self {
            Self::Short(_) => Self::Short((value & 0x7f) as u8),
            Self::Long(_) => Self::Long(value & 0x7fff),
        }
    }
}

/// The temporal layer of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TemporalLayer {
    /// 0 to 3; 0 is the base.
    pub id: u8,
    /// The frame depends on the base layer only, so a receiver may step up here.
    pub sync: bool,
}

/// A parsed descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp8Descriptor {
    /// The frame can be dropped without harm to any other (N).
    pub non_reference: bool,
    /// The payload starts a partition (S).
    pub start_of_partition: bool,
    /// Index of the partition, 0 to 7.
    pub partition: u8,
    /// Picture id, if there is one.
    pub picture_id: Option<PictureId>,
    /// Running index of base layer frames, if there is one.
    pub tl0_picture_index: Option<u8>,
    /// Temporal layer, if told.
    pub temporal: Option<TemporalLayer>,
    /// Temporal key frame index, 0 to 31, if told.
    pub key_index: Option<u8>,
    /// Its length in bytes: where the VP8 payload begins.
    pub len: usize,
}

/// The start of a VP8 frame (RFC 6386 section 9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameHeader {
    /// A keyframe and its size in pixels, scaling bits removed.
    Key {
        /// Pixels.
        width: u16,
        /// Pixels.
        height: u16,
    },
    /// A frame that needs others.
    Inter,
}

impl Vp8Descriptor {
    /// Reads the descriptor at the start of an RTP payload.
    ///
    /// # Errors
    /// [`DescriptorError::Truncated`] if the payload ends within it or right after it.
    pub fn parse(payload: &[u8]) -> Result<Self, DescriptorError> {
        let mut at = 0;
        let mut byte = || {
            let byte = payload.get(at).copied().ok_or(DescriptorError::Truncated);
            at += 1;
            byte
        };
        let first = byte()?;
        let flags = if first & 0x80 == 0 { 0 } else { byte()? };
        let mut picture_id = None;
        if flags & 0x80 != 0 {
            let high = byte()?;
            picture_id = Some(if high & 0x80 == 0 {
                PictureId::Short(high)
            } else {
                PictureId::Long(u16::from_be_bytes([high & 0x7f, byte()?]))
            });
        }
        let tl0_picture_index = if flags & 0x40 == 0 { None } else { Some(byte()?) };
        let layers = if flags & 0x30 == 0 { 0 } else { byte()? };
        let temporal = (flags & 0x20 != 0)
            .then_some(TemporalLayer { id: layers >> 6, sync: layers & 0x20 != 0 });
        let key_index = (flags & 0x10 != 0).then_some(layers & 0x1f);
        if at >= payload.len() {
            return Err(DescriptorError::Truncated);
        }
        Ok(Self {
            non_reference: first & 0x20 != 0,
            start_of_partition: first & 0x10 != 0,
            partition: first & 0x07,
            picture_id,
            tl0_picture_index,
            temporal,
            key_index,
            len: at,
        })
    }

    /// The payload is the first of its frame.
    #[must_use]
    pub fn is_frame_start(&self) -> bool {
        self.start_of_partition && self.partition == 0
    }

    /// The frame header behind the descriptor of the same payload. `None` if the
    /// payload is not the first of its frame or too short (a keyframe needs 10 bytes).
    #[must_use]
    pub fn frame_header(&self, payload: &[u8]) -> Option<FrameHeader> {
        if !self.is_frame_start() {
            return None;
        }
        let frame = payload.get(self.len..)?;
        if frame.first()? & 0x01 != 0 {
            return Some(FrameHeader::Inter);
        }
        let head: &[u8; 10] = frame.first_chunk()?;
        if head[3..6] != [0x9d, 0x01, 0x2a] {
            return None;
        }
        let size = |low: u8, high: u8| u16::from_le_bytes([low, high]) & 0x3fff;
        Some(FrameHeader::Key { width: size(head[6], head[7]), height: size(head[8], head[9]) })
    }

    /// The payload starts a keyframe. Only the inverted P bit is looked at, which
    /// end-to-end encryption leaves plain.
    #[must_use]
    pub fn is_keyframe_start(&self, payload: &[u8]) -> bool {
        self.is_frame_start() && payload.get(self.len).is_some_and(|byte| byte & 0x01 == 0)
    }

    /// The length [`Vp8Descriptor::write`] needs.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let picture_id = match self.picture_id {
            None => 0,
            Some(PictureId::Short(_)) => 1,
            Some(PictureId::Long(_)) => 2,
        };
        let layers = usize::from(self.temporal.is_some() || self.key_index.is_some());
        let optional = picture_id + usize::from(self.tl0_picture_index.is_some()) + layers;
        1 + if optional == 0 { 0 } else { 1 + optional }
    }

    /// Writes the descriptor with the values it now has and returns its length. The
    /// field `len` is not used.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`] if the buffer is shorter than
    /// [`Vp8Descriptor::encoded_len`]; nothing is written then.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, WriteError> {
        let len = self.encoded_len();
        let out = out.get_mut(..len).ok_or(WriteError::NoRoom)?;
        out[0] = u8::from(len > 1) << 7
            | u8::from(self.non_reference) << 5
            | u8::from(self.start_of_partition) << 4
            | (self.partition & 0x07);
        if len == 1 {
            return Ok(len);
        }
        out[1] = u8::from(self.picture_id.is_some()) << 7
            | u8::from(self.tl0_picture_index.is_some()) << 6
            | u8::from(self.temporal.is_some()) << 5
            | u8::from(self.key_index.is_some()) << 4;
        let mut at = 2;
        match self.picture_id {
            None => {}
            Some(PictureId::Short(id)) => {
                out[at] = id & 0x7f;
                at += 1;
            }
            Some(PictureId::Long(id)) => {
                out[at..at + 2].copy_from_slice(&(id | 0x8000).to_be_bytes());
                at += 2;
            }
        }
        if let Some(index) = self.tl0_picture_index {
            out[at] = index;
            at += 1;
        }
        if self.temporal.is_some() || self.key_index.is_some() {
            let temporal = self.temporal.unwrap_or(TemporalLayer { id: 0, sync: false });
            out[at] = (temporal.id & 0x03) << 6
                | u8::from(temporal.sync) << 5
                | (self.key_index.unwrap_or(0) & 0x1f);
        }
        Ok(len)
    }
}

/// Replaces the picture id and TL0PICIDX of a payload in place, where it has them, and
/// keeps their form: a 7-bit picture id stays one. Returns the length of the
/// descriptor, so that a caller can copy no more than that and rewrite the copy.
///
/// # Errors
/// As [`Vp8Descriptor::parse`]; the payload is unchanged then.
pub fn rewrite(
    payload: &mut [u8],
    picture_id: u16,
    tl0_picture_index: u8,
) -> Result<usize, DescriptorError> {
    let mut descriptor = Vp8Descriptor::parse(payload)?;
    descriptor.picture_id = descriptor.picture_id.map(|id| id.with_value(picture_id));
    descriptor.tl0_picture_index = descriptor.tl0_picture_index.map(|_| tl0_picture_index);
    let mut at = 2;
    match descriptor.picture_id {
        None => {}
        Some(PictureId::Short(id)) => {
            payload[at] = id;
            at += 1;
        }
        Some(PictureId::Long(id)) => {
            payload[at..at + 2].copy_from_slice(&(id | 0x8000).to_be_bytes());
            at += 2;
        }
    }
    if let Some(index) = descriptor.tl0_picture_index {
        payload[at] = index;
    }
    Ok(descriptor.len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// X, S; I, L, T, K; 15-bit picture id 4711; TL0PICIDX 5; TID 1, Y, KEYIDX 7; then
    /// the header of a keyframe of 640 by 360.
    const KEYFRAME: [u8; 16] = [
        0x90, 0xf0, 0x92, 0x67, 0x05, 0x67, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68,
        0x01,
    ];

    #[test]
    fn a_full_descriptor_and_its_keyframe_are_read() {
        let descriptor = Vp8Descriptor::parse(&KEYFRAME).unwrap();
        assert_eq!(
            descriptor,
            Vp8Descriptor {
                non_reference: false,
                start_of_partition: true,
                partition: 0,
                picture_id: Some(PictureId::Long(4711)),
                tl0_picture_index: Some(5),
                temporal: Some(TemporalLayer { id: 1, sync: true }),
                key_index: Some(7),
                len: 6,
            }
        );
        assert_eq!(
            descriptor.frame_header(&KEYFRAME),
            Some(FrameHeader::Key { width: 640, height: 360 })
        );
        assert!(descriptor.is_keyframe_start(&KEYFRAME));
    }

    #[test]
    fn an_inter_frame_and_a_later_packet_are_no_keyframe() {
        let inter = Vp8Descriptor::parse(&[0x10, 0x01]).unwrap();
        assert_eq!(inter.frame_header(&[0x10, 0x01]), Some(FrameHeader::Inter));
        assert!(!inter.is_keyframe_start(&[0x10, 0x01]));
        let later = Vp8Descriptor::parse(&[0x00, 0x00]).unwrap();
        assert_eq!(later.frame_header(&[0x00, 0x00]), None);
        assert!(!later.is_keyframe_start(&[0x00, 0x00]));
    }

    #[test]
    fn rewriting_keeps_the_form_of_the_picture_id() {
        let mut long = KEYFRAME;
        assert_eq!(rewrite(&mut long, 0x8001, 200), Ok(6));
        let descriptor = Vp8Descriptor::parse(&long).unwrap();
        assert_eq!(descriptor.picture_id, Some(PictureId::Long(1)));
        assert_eq!(descriptor.tl0_picture_index, Some(200));
        assert_eq!(descriptor.temporal, Some(TemporalLayer { id: 1, sync: true }));
        assert_eq!(long[6..], KEYFRAME[6..]);

        let mut short = [0x90, 0x80, 0x07, 0x01];
        assert_eq!(rewrite(&mut short, 300, 9), Ok(3));
        assert_eq!(short, [0x90, 0x80, 300_u16 as u8 & 0x7f, 0x01]);
    }

    #[test]
    fn a_descriptor_without_a_payload_is_truncated() {
        for len in 0..=6 {
            assert_eq!(Vp8Descriptor::parse(&KEYFRAME[..len]), Err(DescriptorError::Truncated));
        }
    }

    proptest! {
        #[test]
        fn what_is_parsed_is_written_back(mut payload in proptest::collection::vec(any::<u8>(), 0..24), id: u16, tl0: u8) {
            if let Ok(parsed) = Vp8Descriptor::parse(&payload) {
                let _ = parsed.frame_header(&payload);
                let mut out = [0; MAX_DESCRIPTOR_LEN];
                let len = parsed.write(&mut out).unwrap();
                // Extension flags without any extension may shrink; all else is equal.
                let mut copy = out[..len].to_vec();
                copy.push(0);
                let again = Vp8Descriptor::parse(&copy).unwrap();
                prop_assert_eq!(Vp8Descriptor { len: parsed.len, ..again }, parsed);
                rewrite(&mut payload, id, tl0).unwrap();
                let rewritten = Vp8Descriptor::parse(&payload).unwrap();
                prop_assert_eq!(rewritten.len, parsed.len);
                prop_assert_eq!(rewritten.picture_id, parsed.picture_id.map(|old| old.with_value(id)));
                prop_assert_eq!(rewritten.tl0_picture_index, parsed.tl0_picture_index.map(|_| tl0));
                prop_assert_eq!(rewritten.key_index, parsed.key_index);
            }
        }
    }
}
