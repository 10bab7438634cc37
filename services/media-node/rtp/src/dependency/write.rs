//! Packet path: no allocation. Writing of dependency descriptors, with the structure
//! attached where a receiver needs it again.

use super::{DependencyDescriptor, FrameDiffs, Indications, Template, TemplateStructure};
use crate::WriteError;
use crate::bits::BitWriter;

impl DependencyDescriptor {
    /// Writes an extension value and returns its length (3 bytes if nothing differs
    /// from the template). Spatial and temporal layer and resolution come from the
    /// template and are not written; `attached_structure` decides whether the
    /// structure goes with it.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`] if the buffer is too short (255 bytes are always enough
    /// for what an extension can hold), [`WriteError::Unrepresentable`] if the
    /// structure has not the template or another number of targets or chains. The buffer's content is undefined then.
    pub fn write(
        &self,
        structure: &TemplateStructure,
        out: &mut [u8],
    ) -> Result<usize, WriteError> {
        let template =
            structure.template(self.mandatory.template_id).ok_or(WriteError::Unrepresentable)?;
        let other_structure = self.indications.len != structure.decode_targets
            || self.chain_diffs.len != structure.chains;
        if other_structure {
            return Err(WriteError::Unrepresentable);
        }
        let custom_indications = self.indications != template.indications;
        let custom_frame_diffs = self.frame_diffs != template.frame_diffs;
        let custom_chain_diffs = self.chain_diffs != template.chain_diffs;

        let mut writer = BitWriter::new(out);
        writer.flag(self.mandatory.start_of_frame)?;
        writer.flag(self.mandatory.end_of_frame)?;
        writer.bits(u32::from(self.mandatory.template_id), 6)?;
        writer.bits(u32::from(self.mandatory.frame_number), 16)?;
        let extended = self.attached_structure
            || self.active_decode_targets.is_some()
            || custom_indications
            || custom_frame_diffs
            || custom_chain_diffs;
        if !extended {
            return writer.finish();
        }
        writer.flag(self.attached_structure)?;
        writer.flag(self.active_decode_targets.is_some())?;
        writer.flag(custom_indications)?;
        writer.flag(custom_frame_diffs)?;
        writer.flag(custom_chain_diffs)?;
        if self.attached_structure {
            write_structure(&mut writer, structure)?;
        }
        if let Some(active) = self.active_decode_targets {
            writer.bits(active, u32::from(structure.decode_targets))?;
        }
        if custom_indications {
            write_indications(&mut writer, &self.indications)?;
        }
        if custom_frame_diffs {
            write_custom_frame_diffs(&mut writer, &self.frame_diffs)?;
        }
        if custom_chain_diffs {
            for diff in self.chain_diffs.as_slice() {
                writer.bits(u32::from(*diff), 8)?;
            }
        }
        writer.finish()
    }
}

fn write_structure(
    writer: &mut BitWriter<'_>,
    structure: &TemplateStructure,
) -> Result<(), WriteError> {
    writer.bits(u32::from(structure.template_id_offset), 6)?;
    // A structure with a template has at least one decode target.
    writer.bits(u32::from(structure.decode_targets.saturating_sub(1)), 5)?;
    for pair in structure.templates().windows(2) {
        writer.bits(next_layer(&pair[0], &pair[1]), 2)?;
    }
    writer.bits(3, 2)?;
    for template in structure.templates() {
        write_indications(writer, &template.indications)?;
    }
    for template in structure.templates() {
        for diff in template.frame_diffs.as_slice() {
            writer.flag(true)?;
            writer.bits(u32::from(*diff) - 1, 4)?;
        }
        writer.flag(false)?;
    }
    write_chains(writer, structure)?;
    writer.flag(structure.resolutions.is_some())?;
    for (width, height) in
        structure.resolutions.iter().flatten().take(usize::from(structure.max_spatial()) + 1)
    {
        writer.bits(width - 1, 16)?;
        writer.bits(height - 1, 16)?;
    }
    Ok(())
}

fn next_layer(from: &Template, to: &Template) -> u32 {
    if to.spatial != from.spatial { 2 } else { u32::from(to.temporal != from.temporal) }
}

fn write_chains(
    writer: &mut BitWriter<'_>,
    structure: &TemplateStructure,
) -> Result<(), WriteError> {
    let chains = u32::from(structure.chains);
    writer.non_symmetric(chains, u32::from(structure.decode_targets) + 1)?;
    if chains == 0 {
        return Ok(());
    }
    for target in 0..usize::from(structure.decode_targets) {
        writer.non_symmetric(u32::from(structure.protected_by[target]), chains)?;
    }
    for template in structure.templates() {
        for diff in template.chain_diffs.as_slice() {
            writer.bits(u32::from(*diff), 4)?;
        }
    }
    Ok(())
}

fn write_indications(
    writer: &mut BitWriter<'_>,
    indications: &Indications,
) -> Result<(), WriteError> {
    indications.iter().try_for_each(|indication| writer.bits(indication as u32, 2))
}

fn write_custom_frame_diffs(
    writer: &mut BitWriter<'_>,
    diffs: &FrameDiffs,
) -> Result<(), WriteError> {
    for diff in diffs.as_slice() {
        let value = u32::from(*diff) - 1;
        let size = match value {
            0..=0xf => 1,
            0x10..=0xff => 2,
            _ => 3,
        };
        writer.bits(size, 2)?;
        writer.bits(value, 4 * size)?;
    }
    writer.bits(0, 2)
}
