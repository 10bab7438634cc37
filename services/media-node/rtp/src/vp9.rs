//! Packet path: no allocation. The VP9 payload descriptor (RFC 9628 section 4.2) in
//! flexible and non-flexible mode, and rewriting of picture ids.

use crate::DescriptorError;
use crate::vp8::PictureId;

/// Frames that one frame may refer to (RFC 9628 section 4.2).
const MAX_REFERENCES: usize = 3;
/// Spatial layers that the scalability structure can tell.
pub const MAX_SPATIAL_LAYERS: usize = 8;

/// Layer indices of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerIndices {
    /// Temporal layer, 0 to 7.
    pub temporal: u8,
    /// A receiver may step up to this temporal layer here (U).
    pub switching_up: bool,
    /// Spatial layer, 0 to 7.
    pub spatial: u8,
    /// The frame needs the lower spatial layer of the same picture (D).
    pub inter_layer: bool,
}

/// What a scalability structure tells of the spatial layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScalabilityStructure {
    /// Number of spatial layers, 1 to 8.
    pub spatial_layers: u8,
    /// Width and height in pixels of each, if told; those above the count are 0.
    pub resolutions: Option<[(u16, u16); MAX_SPATIAL_LAYERS]>,
}

/// A parsed descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp9Descriptor {
    /// Picture id, if there is one.
    pub picture_id: Option<PictureId>,
    /// The picture needs earlier pictures (P).
    pub inter_picture: bool,
    /// References are listed in each packet (F).
    pub flexible: bool,
    /// First packet of a layer frame (B).
    pub start_of_frame: bool,
    /// Last packet of a layer frame (E).
    pub end_of_frame: bool,
    /// No higher spatial layer refers to this frame (Z).
    pub not_a_spatial_reference: bool,
    /// Layers, if told.
    pub layers: Option<LayerIndices>,
    /// Running index of base layer frames; non-flexible mode with layers only.
    pub tl0_picture_index: Option<u8>,
    /// Scalability structure, if there is one.
    pub structure: Option<ScalabilityStructure>,
    /// Its length in bytes: where the VP9 payload begins.
    pub len: usize,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, DescriptorError> {
        let byte = *self.bytes.get(self.at).ok_or(DescriptorError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    fn word(&mut self) -> Result<u16, DescriptorError> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn picture_id(&mut self) -> Result<PictureId, DescriptorError> {
        let high = self.byte()?;
        if high & 0x80 == 0 {
            return Ok(PictureId::Short(high));
        }
        Ok(PictureId::Long(u16::from_be_bytes([high & 0x7f, self.byte()?])))
    }

    fn references(&mut self) -> Result<(), DescriptorError> {
        for _ in 0..MAX_REFERENCES {
            if self.byte()? & 0x01 == 0 {
                return Ok(());
            }
        }
        // The last of three must not announce another.
        Err(DescriptorError::Invalid)
    }

    fn structure(&mut self) -> Result<ScalabilityStructure, DescriptorError> {
        let head = self.byte()?;
        let spatial_layers = (head >> 5) + 1;
        let mut resolutions = None;
        if head & 0x10 != 0 {
            let mut list = [(0, 0); MAX_SPATIAL_LAYERS];
            for size in list.iter_mut().take(usize::from(spatial_layers)) {
                *size = (self.word()?, self.word()?);
            }
            resolutions = Some(list);
        }
        if head & 0x08 != 0 {
            for _ in 0..self.byte()? {
                let references = self.byte()? >> 2 & 0x03;
                for _ in 0..references {
                    self.byte()?;
                }
            }
        }
        Ok(ScalabilityStructure { spatial_layers, resolutions })
    }
}

impl Vp9Descriptor {
    /// Reads the descriptor at the start of an RTP payload.
    ///
    /// # Errors
    /// [`DescriptorError`] if the payload ends within it or right after it, or more
    /// references are announced than the format allows.
    pub fn parse(payload: &[u8]) -> Result<Self, DescriptorError> {
        let mut reader = Reader { bytes: payload, at: 0 };
        let first = reader.byte()?;
        let flexible = first & 0x10 != 0;
        let inter_picture = first & 0x40 != 0;
        let picture_id = if first & 0x80 == 0 { None } else { Some(reader.picture_id()?) };
        let mut layers = None;
        let mut tl0_picture_index = None;
        if first & 0x20 != 0 {
            let byte = reader.byte()?;
            layers = Some(LayerIndices {
                temporal: byte >> 5,
                switching_up: byte & 0x10 != 0,
                spatial: byte >> 1 & 0x07,
                inter_layer: byte & 0x01 != 0,
            });
            if !flexible {
                tl0_picture_index = Some(reader.byte()?);
            }
        }
        if flexible && inter_picture {
            reader.references()?;
        }
        let structure = if first & 0x02 == 0 { None } else { Some(reader.structure()?) };
        if reader.at >= payload.len() {
            return Err(DescriptorError::Truncated);
        }
        Ok(Self {
            picture_id,
            inter_picture,
            flexible,
            start_of_frame: first & 0x08 != 0,
            end_of_frame: first & 0x04 != 0,
            not_a_spatial_reference: first & 0x01 != 0,
            layers,
            tl0_picture_index,
            structure,
            len: reader.at,
        })
    }

    /// Spatial layer, 0 if not told.
    #[must_use]
    pub fn spatial(&self) -> u8 {
        self.layers.map_or(0, |layers| layers.spatial)
    }

    /// Temporal layer, 0 if not told.
    #[must_use]
    pub fn temporal(&self) -> u8 {
        self.layers.map_or(0, |layers| layers.temporal)
    }

    /// First packet of a picture that needs no other: its lowest layer frame, which
    /// uses no earlier picture and no lower layer.
    #[must_use]
    pub fn is_keyframe_start(&self) -> bool {
        let lowest = self.layers.is_none_or(|layers| layers.spatial == 0 && !layers.inter_layer);
        self.start_of_frame && !self.inter_picture && lowest
    }
}

/// Replaces the picture id and TL0PICIDX of a payload in place, where it has them, and
/// keeps their form. Returns the length of the descriptor.
///
/// # Errors
/// As [`Vp9Descriptor::parse`]; the payload is unchanged then.
pub fn rewrite(
    payload: &mut [u8],
    picture_id: u16,
    tl0_picture_index: u8,
) -> Result<usize, DescriptorError> {
    let descriptor = Vp9Descriptor::parse(payload)?;
    let mut at = 1;
    match descriptor.picture_id.map(|id| id.with_value(picture_id)) {
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
    if descriptor.tl0_picture_index.is_some() {
        payload[at + 1] = tl0_picture_index;
    }
    Ok(descriptor.len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn non_flexible_mode_with_layers_is_read() {
        // I, L, B; picture id 0x1234; TID 2, U, SID 1, D; TL0PICIDX 9.
        let payload = [0xa8, 0x92, 0x34, 0x53, 0x09, 0xff];
        let descriptor = Vp9Descriptor::parse(&payload).unwrap();
        assert_eq!(descriptor.picture_id, Some(PictureId::Long(0x1234)));
        assert_eq!(
            descriptor.layers,
            Some(LayerIndices { temporal: 2, switching_up: true, spatial: 1, inter_layer: true })
        );
        assert_eq!(descriptor.tl0_picture_index, Some(9));
        assert!(descriptor.start_of_frame && !descriptor.end_of_frame);
        assert!(!descriptor.is_keyframe_start(), "a higher spatial layer starts no picture");
        assert_eq!(descriptor.len, 5);
    }

    #[test]
    fn flexible_mode_with_references_is_read() {
        // I, P, L, F, E; 7-bit picture id 5; TID 0, SID 0; references 1 and 3.
        let payload = [0xf4, 0x05, 0x00, 0x03, 0x06, 0xff];
        let descriptor = Vp9Descriptor::parse(&payload).unwrap();
        assert!(descriptor.flexible && descriptor.inter_picture && descriptor.end_of_frame);
        assert_eq!(descriptor.tl0_picture_index, None);
        assert_eq!(descriptor.len, 5);
    }

    #[test]
    fn a_fourth_reference_is_invalid() {
        let payload = [0xf0, 0x05, 0x00, 0x03, 0x05, 0x07, 0xff];
        assert_eq!(Vp9Descriptor::parse(&payload), Err(DescriptorError::Invalid));
    }

    #[test]
    fn a_keyframe_carries_the_structure_of_its_layers() {
        // I, L, B, V; picture id 1; TID 0, SID 0; TL0PICIDX 0; two layers with sizes and
        // a group of one picture with one reference.
        let mut payload = vec![0xaa, 0x01, 0x00, 0x00, 0x38];
        for size in [320_u16, 180, 640, 360] {
            payload.extend(size.to_be_bytes());
        }
        payload.extend([1, 0x04, 1, 0xff]);
        let descriptor = Vp9Descriptor::parse(&payload).unwrap();
        assert!(descriptor.is_keyframe_start());
        let structure = descriptor.structure.unwrap();
        assert_eq!(structure.spatial_layers, 2);
        assert_eq!(structure.resolutions.unwrap()[..2], [(320, 180), (640, 360)]);
        assert_eq!(descriptor.len, payload.len() - 1);
    }

    #[test]
    fn rewriting_keeps_everything_else() {
        let mut payload = [0xa8, 0x92, 0x34, 0x53, 0x09, 0xff];
        assert_eq!(rewrite(&mut payload, 0x0102, 77), Ok(5));
        assert_eq!(payload, [0xa8, 0x81, 0x02, 0x53, 77, 0xff]);
    }

    proptest! {
        #[test]
        fn rewriting_changes_only_ids(mut payload in proptest::collection::vec(any::<u8>(), 0..64), id: u16, tl0: u8) {
            let Ok(before) = Vp9Descriptor::parse(&payload) else { return Ok(()) };
            rewrite(&mut payload, id, tl0).unwrap();
            let after = Vp9Descriptor::parse(&payload).unwrap();
            prop_assert_eq!(after.picture_id, before.picture_id.map(|old| old.with_value(id)));
            prop_assert_eq!(after.tl0_picture_index, before.tl0_picture_index.map(|_| tl0));
            let restored = Vp9Descriptor {
                picture_id: before.picture_id,
                tl0_picture_index: before.tl0_picture_index,
                ..after
            };
            prop_assert_eq!(restored, before);
        }
    }
}
