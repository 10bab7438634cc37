//! The template structure of a stream: layers, decode targets, chains, resolutions.

use super::{
    ChainDiffs, DecodeTargetIndication, FrameDiffs, Indications, MAX_DECODE_TARGETS,
    MAX_SPATIAL_LAYERS, MAX_TEMPLATES,
};

/// What the frames of one template have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Template {
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// What the frame is to each decode target.
    pub indications: Indications,
    /// Frames that the frame needs.
    pub frame_diffs: FrameDiffs,
    /// Previous frame of each chain.
    pub chain_diffs: ChainDiffs,
}

/// A template structure. The default one is empty: no template is known. It takes
/// about 5 kB and holds no pointers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateStructure {
    pub(super) template_id_offset: u8,
    pub(super) decode_targets: u8,
    pub(super) chains: u8,
    pub(super) protected_by: [u8; MAX_DECODE_TARGETS],
    pub(super) templates: [Template; MAX_TEMPLATES],
    pub(super) template_count: u8,
    /// By spatial layer; empty if not told.
    pub(super) resolutions: Option<[(u32, u32); MAX_SPATIAL_LAYERS]>,
}

impl Default for TemplateStructure {
    fn default() -> Self {
        Self {
            template_id_offset: 0,
            decode_targets: 0,
            chains: 0,
            protected_by: [0; MAX_DECODE_TARGETS],
            templates: [Template::default(); MAX_TEMPLATES],
            template_count: 0,
            resolutions: None,
        }
    }
}

impl TemplateStructure {
    /// No structure was received yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.template_count == 0
    }

    /// The templates, at most 64.
    #[must_use]
    pub fn templates(&self) -> &[Template] {
        &self.templates[..usize::from(self.template_count)]
    }

    /// The template that a descriptor names by its id.
    #[must_use]
    pub fn template(&self, template_id: u8) -> Option<&Template> {
        let index = template_id.wrapping_sub(self.template_id_offset) & 0x3f;
        self.templates().get(usize::from(index))
    }

    /// Number of decode targets, 1 to 32; 0 only in an empty structure.
    #[must_use]
    pub fn decode_target_count(&self) -> u8 {
        self.decode_targets
    }

    /// Number of chains, 0 to 32.
    #[must_use]
    pub fn chain_count(&self) -> u8 {
        self.chains
    }

    /// The chain that protects a decode target: as long as none of its frames is
    /// missing, the target can be decoded.
    #[must_use]
    pub fn protecting_chain(&self, target: u8) -> Option<u8> {
        (self.chains > 0 && target < self.decode_targets)
            .then(|| self.protected_by[usize::from(target)])
    }

    /// Highest spatial and temporal layer that a decode target contains.
    #[must_use]
    pub fn decode_target_layers(&self, target: u8) -> Option<(u8, u8)> {
        if target >= self.decode_targets {
            return None;
        }
        let present = |template: &&Template| {
            template
                .indications
                .get(target)
                .is_some_and(|indication| indication != DecodeTargetIndication::NotPresent)
        };
        let layers = self.templates().iter().filter(present);
        Some(layers.fold((0, 0), |(spatial, temporal), template| {
            (spatial.max(template.spatial), temporal.max(template.temporal))
        }))
    }

    /// The richest decode target with no layer above these: the highest spatial layer
    /// first, then the highest temporal. Only targets of the bitmask `active` count.
    #[must_use]
    pub fn decode_target_up_to(&self, spatial: u8, temporal: u8, active: u32) -> Option<u8> {
        (0..self.decode_targets)
            .filter(|target| active >> target & 1 == 1)
            .filter_map(|target| self.decode_target_layers(target).map(|layers| (layers, target)))
            .filter(|((s, t), _)| *s <= spatial && *t <= temporal)
            .max_by_key(|(layers, target)| (*layers, core::cmp::Reverse(*target)))
            .map(|(_, target)| target)
    }

    /// Highest spatial layer of any template.
    #[must_use]
    pub fn max_spatial(&self) -> u8 {
        self.templates().iter().map(|template| template.spatial).max().unwrap_or(0)
    }

    /// Highest temporal layer of any template.
    #[must_use]
    pub fn max_temporal(&self) -> u8 {
        self.templates().iter().map(|template| template.temporal).max().unwrap_or(0)
    }

    /// Width and height in pixels of a spatial layer, if told.
    #[must_use]
    pub fn resolution(&self, spatial: u8) -> Option<(u32, u32)> {
        if spatial > self.max_spatial() {
            return None;
        }
        self.resolutions?.get(usize::from(spatial)).copied()
    }

    /// A bitmask with all decode targets.
    #[must_use]
    pub fn all_decode_targets(&self) -> u32 {
        u32::MAX.checked_shr(32 - u32::from(self.decode_targets)).unwrap_or(0)
    }
}
