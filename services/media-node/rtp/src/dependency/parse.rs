//! Packet path: no allocation. Reading of dependency descriptors.

use super::{
    ChainDiffs, DecodeTargetIndication, DependencyDescriptor, FrameDiffs, Indications,
    MANDATORY_LEN, MAX_SPATIAL_LAYERS, MAX_TEMPLATES, MAX_TEMPORAL_LAYERS, MandatoryFields,
    Template, TemplateStructure,
};
use crate::DescriptorError;
use crate::bits::BitReader;

#[derive(Default)]
struct ExtendedFields {
    attached_structure: bool,
    active_decode_targets: Option<u32>,
    custom_indications: bool,
    custom_frame_diffs: bool,
    custom_chain_diffs: bool,
}

impl DependencyDescriptor {
    /// Reads an extension value. `structure` is the last structure of the stream; a
    /// structure in the value replaces it, unless there is an error.
    ///
    /// # Errors
    /// [`DescriptorError`] if the value is truncated or invalid, or names a template
    /// that the structure does not have: the packet belongs to a structure that was
    /// lost, or to an older one.
    pub fn parse(value: &[u8], structure: &mut TemplateStructure) -> Result<Self, DescriptorError> {
        let mut reader = BitReader::new(value);
        let mandatory = MandatoryFields::read(&mut reader)?;
        if value.len() == MANDATORY_LEN {
            return frame(&mut reader, mandatory, &ExtendedFields::default(), structure);
        }
        let attached_structure = reader.flag()?;
        let active_present = reader.flag()?;
        let mut extended = ExtendedFields {
            attached_structure,
            active_decode_targets: None,
            custom_indications: reader.flag()?,
            custom_frame_diffs: reader.flag()?,
            custom_chain_diffs: reader.flag()?,
        };
        let fresh = if attached_structure { Some(read_structure(&mut reader)?) } else { None };
        let current = fresh.as_ref().unwrap_or(structure);
        if current.is_empty() {
            return Err(DescriptorError::UnknownTemplate);
        }
        if active_present {
            extended.active_decode_targets = Some(reader.bits(u32::from(current.decode_targets))?);
        }
        let descriptor = frame(&mut reader, mandatory, &extended, current)?;
        if let Some(fresh) = fresh {
            *structure = fresh;
        }
        Ok(descriptor)
    }
}

fn frame(
    reader: &mut BitReader<'_>,
    mandatory: MandatoryFields,
    extended: &ExtendedFields,
    structure: &TemplateStructure,
) -> Result<DependencyDescriptor, DescriptorError> {
    let template =
        structure.template(mandatory.template_id).ok_or(DescriptorError::UnknownTemplate)?;
    let indications = if extended.custom_indications {
        read_indications(reader, structure.decode_targets)?
    } else {
        template.indications
    };
    let frame_diffs = if extended.custom_frame_diffs {
        read_custom_frame_diffs(reader)?
    } else {
        template.frame_diffs
    };
    let chain_diffs = if extended.custom_chain_diffs {
        read_chain_diffs(reader, structure.chains, 8)?
    } else {
        template.chain_diffs
    };
    Ok(DependencyDescriptor {
        mandatory,
        spatial: template.spatial,
        temporal: template.temporal,
        attached_structure: extended.attached_structure,
        active_decode_targets: extended.active_decode_targets,
        indications,
        frame_diffs,
        chain_diffs,
        resolution: structure.resolution(template.spatial),
    })
}

fn read_structure(reader: &mut BitReader<'_>) -> Result<TemplateStructure, DescriptorError> {
    let mut structure = TemplateStructure {
        template_id_offset: reader.bits(6)? as u8,
        decode_targets: reader.bits(5)? as u8 + 1,
        ..TemplateStructure::default()
    };
    read_layers(reader, &mut structure)?;
    let count = usize::from(structure.template_count);
    for template in &mut structure.templates[..count] {
        template.indications = read_indications(reader, structure.decode_targets)?;
    }
    for template in &mut structure.templates[..count] {
        template.frame_diffs = read_template_frame_diffs(reader)?;
    }
    read_chains(reader, &mut structure)?;
    if reader.flag()? {
        let mut resolutions = [(0, 0); MAX_SPATIAL_LAYERS];
        for size in resolutions.iter_mut().take(usize::from(structure.max_spatial()) + 1) {
            *size = (reader.bits(16)? + 1, reader.bits(16)? + 1);
        }
        structure.resolutions = Some(resolutions);
    }
    Ok(structure)
}

fn read_layers(
    reader: &mut BitReader<'_>,
    structure: &mut TemplateStructure,
) -> Result<(), DescriptorError> {
    let (mut spatial, mut temporal) = (0_u8, 0_u8);
    for slot in 0..MAX_TEMPLATES {
        structure.templates[slot] = Template { spatial, temporal, ..Template::default() };
        structure.template_count = slot as u8 + 1;
        match reader.bits(2)? {
            0 => {}
            1 => temporal += 1,
            2 => (spatial, temporal) = (spatial + 1, 0),
            _ => return Ok(()),
        }
        let in_range = usize::from(spatial) < MAX_SPATIAL_LAYERS
            && usize::from(temporal) < MAX_TEMPORAL_LAYERS;
        if !in_range {
            return Err(DescriptorError::Invalid);
        }
    }
    // A 65th template was announced.
    Err(DescriptorError::Invalid)
}

fn read_indications(
    reader: &mut BitReader<'_>,
    decode_targets: u8,
) -> Result<Indications, DescriptorError> {
    let mut indications = Indications::default();
    for _ in 0..decode_targets {
        indications.push(DecodeTargetIndication::from_bits(reader.bits(2)?));
    }
    Ok(indications)
}

fn read_template_frame_diffs(reader: &mut BitReader<'_>) -> Result<FrameDiffs, DescriptorError> {
    let mut diffs = FrameDiffs::default();
    while reader.flag()? {
        diffs.push(reader.bits(4)? as u16 + 1)?;
    }
    Ok(diffs)
}

fn read_custom_frame_diffs(reader: &mut BitReader<'_>) -> Result<FrameDiffs, DescriptorError> {
    let mut diffs = FrameDiffs::default();
    loop {
        let size = reader.bits(2)?;
        if size == 0 {
            return Ok(diffs);
        }
        diffs.push(reader.bits(4 * size)? as u16 + 1)?;
    }
}

fn read_chain_diffs(
    reader: &mut BitReader<'_>,
    chains: u8,
    width: u32,
) -> Result<ChainDiffs, DescriptorError> {
    let mut diffs = ChainDiffs::default();
    for _ in 0..chains {
        diffs.push(reader.bits(width)? as u8);
    }
    Ok(diffs)
}

fn read_chains(
    reader: &mut BitReader<'_>,
    structure: &mut TemplateStructure,
) -> Result<(), DescriptorError> {
    let chains = reader.non_symmetric(u32::from(structure.decode_targets) + 1)?;
    structure.chains = chains as u8;
    if chains == 0 {
        return Ok(());
    }
    let targets = usize::from(structure.decode_targets);
    for protected_by in &mut structure.protected_by[..targets] {
        *protected_by = reader.non_symmetric(chains)? as u8;
    }
    let count = usize::from(structure.template_count);
    for template in &mut structure.templates[..count] {
        template.chain_diffs = read_chain_diffs(reader, structure.chains, 4)?;
    }
    Ok(())
}
