//! Packet path: no allocation. The dependency descriptor (AV1 RTP specification,
//! appendix A): which frame a packet belongs to, what it needs and which decode
//! targets need it, for any codec and also when the payload is encrypted.
//!
//! [`DependencyDescriptor::parse`] takes the last [`TemplateStructure`] of the stream
//! and replaces it when the packet brings a new one, on keyframes.

mod parse;
mod structure;
#[cfg(test)]
mod tests;
mod write;

pub use structure::{Template, TemplateStructure};

use crate::DescriptorError;
use crate::bits::BitReader;

/// Decode targets of a structure at most.
pub const MAX_DECODE_TARGETS: usize = 32;
/// Chains of a structure at most: one for each decode target.
pub const MAX_CHAINS: usize = 32;
/// Templates of a structure at most.
pub const MAX_TEMPLATES: usize = 64;
/// Spatial layers at most, as in AV1.
pub const MAX_SPATIAL_LAYERS: usize = 4;
/// Temporal layers at most, as in AV1.
pub const MAX_TEMPORAL_LAYERS: usize = 8;
/// References of one frame that we keep. The format has no limit; AV1 allows 7. A
/// descriptor with more is invalid.
pub const MAX_FRAME_DIFFS: usize = 8;
/// Length of a descriptor that has only the mandatory fields.
pub const MANDATORY_LEN: usize = 3;

/// What a frame is to one decode target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeTargetIndication {
    /// The target does not have it.
    NotPresent,
    /// No other frame of the target needs it.
    Discardable,
    /// Whoever has this frame can step to the target here.
    Switch,
    /// Other frames of the target need it.
    Required,
}

impl DecodeTargetIndication {
    fn from_bits(bits: u32) -> Self {
        match bits & 0x03 {
            0 => Self::NotPresent,
            1 => Self::Discardable,
            2 => Self::Switch,
            _ => Self::Required,
        }
    }
}

/// The indication of each decode target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Indications {
    /// Two bits each, the first target lowest.
    packed: u64,
    len: u8,
}

impl Indications {
    /// What the frame is to a target; `None` beyond the last.
    #[must_use]
    pub fn get(&self, target: u8) -> Option<DecodeTargetIndication> {
        (target < self.len)
            .then(|| DecodeTargetIndication::from_bits((self.packed >> (2 * target)) as u32))
    }

    /// All, by target.
    pub fn iter(&self) -> impl Iterator<Item = DecodeTargetIndication> + use<> {
        let copy = *self;
        (0..self.len).filter_map(move |target| copy.get(target))
    }

    fn push(&mut self, indication: DecodeTargetIndication) {
        debug_assert!(usize::from(self.len) < MAX_DECODE_TARGETS);
        self.packed |= (indication as u64) << (2 * self.len);
        self.len += 1;
    }
}

/// Distances to the frames that a frame needs, in frame numbers, 1 to 4,096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameDiffs {
    diffs: [u16; MAX_FRAME_DIFFS],
    len: u8,
}

impl FrameDiffs {
    /// The distances. Empty for a frame that needs no other.
    #[must_use]
    pub fn as_slice(&self) -> &[u16] {
        &self.diffs[..usize::from(self.len)]
    }

    fn push(&mut self, diff: u16) -> Result<(), DescriptorError> {
        let slot = self.diffs.get_mut(usize::from(self.len)).ok_or(DescriptorError::Invalid)?;
        *slot = diff;
        self.len += 1;
        Ok(())
    }
}

/// Distance to the previous frame of each chain, in frame numbers; 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChainDiffs {
    diffs: [u8; MAX_CHAINS],
    len: u8,
}

impl ChainDiffs {
    /// The distances, by chain.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.diffs[..usize::from(self.len)]
    }

    fn push(&mut self, diff: u8) {
        self.diffs[usize::from(self.len)] = diff;
        self.len += 1;
    }
}

/// The fields that every descriptor has. They need no structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MandatoryFields {
    /// First packet of its frame.
    pub start_of_frame: bool,
    /// Last packet of its frame.
    pub end_of_frame: bool,
    /// Template of the frame, 0 to 63.
    pub template_id: u8,
    /// Counts frames of all layers and wraps.
    pub frame_number: u16,
}

impl MandatoryFields {
    /// Reads the first three bytes of an extension value.
    ///
    /// # Errors
    /// [`DescriptorError::Truncated`] if there are fewer.
    pub fn parse(value: &[u8]) -> Result<Self, DescriptorError> {
        Self::read(&mut BitReader::new(value))
    }

    fn read(reader: &mut BitReader<'_>) -> Result<Self, DescriptorError> {
        Ok(Self {
            start_of_frame: reader.flag()?,
            end_of_frame: reader.flag()?,
            template_id: reader.bits(6)? as u8,
            frame_number: reader.bits(16)? as u16,
        })
    }
}

/// A whole descriptor, with what its template says filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DependencyDescriptor {
    /// Place in the frame, template and frame number.
    pub mandatory: MandatoryFields,
    /// Spatial layer, 0 to 3.
    pub spatial: u8,
    /// Temporal layer, 0 to 7.
    pub temporal: u8,
    /// The packet brought a new structure: the frame starts a coded video sequence.
    pub attached_structure: bool,
    /// Which decode targets are produced, lowest bit first, if the packet says so. If
    /// it does not, what was said last holds; a new structure makes all active.
    pub active_decode_targets: Option<u32>,
    /// What the frame is to each decode target.
    pub indications: Indications,
    /// Frames that the frame needs.
    pub frame_diffs: FrameDiffs,
    /// Previous frame of each chain.
    pub chain_diffs: ChainDiffs,
    /// Width and height in pixels of its spatial layer, if the structure tells.
    pub resolution: Option<(u32, u32)>,
}

impl DependencyDescriptor {
    /// The packet starts a frame that needs no other.
    #[must_use]
    pub fn is_keyframe_start(&self) -> bool {
        self.mandatory.start_of_frame
            && self.attached_structure
            && self.frame_diffs.as_slice().is_empty()
    }
}

/// Replaces the frame number of an extension value in place.
///
/// # Errors
/// [`DescriptorError::Truncated`] if the value has not the mandatory fields; it is
/// unchanged then.
pub fn rewrite_frame_number(value: &mut [u8], frame_number: u16) -> Result<(), DescriptorError> {
    let field = value.get_mut(1..3).ok_or(DescriptorError::Truncated)?;
    field.copy_from_slice(&frame_number.to_be_bytes());
    Ok(())
}
