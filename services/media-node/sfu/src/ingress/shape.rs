//! Packet path: no allocation. What a payload says of itself: keyframe, layers and the
//! counters that have to be rewritten for subscribers.

use headwater_model::media::Codec;
use headwater_rtp::DescriptorError;
use headwater_rtp::av1;
use headwater_rtp::dependency::{
    DecodeTargetIndication, DependencyDescriptor, MandatoryFields, TemplateStructure,
};
use headwater_rtp::h264::{NAL_IDR, NAL_SPS, nal_units};
use headwater_rtp::red::RedPayload;
use headwater_rtp::vp8::{PictureId, Vp8Descriptor};
use headwater_rtp::vp9::Vp9Descriptor;

/// Longest start of a payload that is ever rewritten: a VP8 descriptor.
pub(crate) const HEAD_MAX: usize = 8;

/// Where a frame counter is and how wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum PictureForm {
    /// There is none.
    #[default]
    None,
    /// 7 bits at `picture_at` of the payload.
    Short,
    /// 15 bits at `picture_at` of the payload.
    Long,
    /// 16 bits in the dependency descriptor.
    FrameNumber,
}

/// What a payload says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Shape {
    /// A subscriber can begin at this packet.
    pub(crate) keyframe_start: bool,
    /// Last packet of the frame of its spatial layer, if the format tells layers apart.
    pub(crate) layer_end: bool,
    /// A subscriber that has the temporal layers up to `reach_from` may have those up
    /// to `reaches` from here on.
    pub(crate) reaches: u8,
    pub(crate) reach_from: u8,
    /// Picture ids count every picture, so one that is left out must leave no gap (VP8;
    /// where receivers know references, gaps do no harm).
    pub(crate) contiguous: bool,
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    pub(crate) picture_form: PictureForm,
    pub(crate) picture_at: u8,
    /// Place of TL0PICIDX in the payload; 0 if there is none.
    pub(crate) tl0_at: u8,
    pub(crate) tl0: u8,
    /// Picture id or frame number.
    pub(crate) picture: u16,
    /// Where the payload of the codec begins: behind the redundancy of RED.
    pub(crate) primary_at: u16,
}

impl Shape {
    /// Length of the start of the payload that has the counters in it.
    pub(crate) fn head_len(&self) -> usize {
        let picture_len = match self.picture_form {
            PictureForm::None | PictureForm::FrameNumber => 0,
            PictureForm::Short => 1,
            PictureForm::Long => 2,
        };
        let picture_end =
            if picture_len == 0 { 0 } else { usize::from(self.picture_at) + picture_len };
        let tl0_end = if self.tl0_at == 0 { 0 } else { usize::from(self.tl0_at) + 1 };
        picture_end.max(tl0_end)
    }

    /// Writes other counters into a copy of the start of the payload.
    pub(crate) fn rewrite_head(&self, head: &mut [u8], picture: u16, tl0: u8) {
        let at = usize::from(self.picture_at);
        match self.picture_form {
            PictureForm::None | PictureForm::FrameNumber => {}
            PictureForm::Short => head[at] = (picture & 0x7f) as u8,
            PictureForm::Long => {
                head[at..at + 2].copy_from_slice(&(picture | 0x8000).to_be_bytes());
            }
        }
        if self.tl0_at != 0 {
            head[usize::from(self.tl0_at)] = tl0;
        }
    }
}

/// What of earlier packets of the encoding is needed to read the next one.
#[derive(Debug, Default)]
pub(crate) struct ShapeReader {
    /// Of the last AV1 keyframe; 5 kB, only there for AV1.
    structure: Option<Box<TemplateStructure>>,
    /// Parameter sets come in the stream, so a keyframe begins with them.
    parameter_sets_seen: bool,
}

impl ShapeReader {
    /// Reads a payload and, for AV1, the value of its dependency descriptor.
    pub(crate) fn read(
        &mut self,
        codec: Codec,
        payload: &[u8],
        descriptor: Option<&[u8]>,
    ) -> Result<Shape, DescriptorError> {
        match codec {
            Codec::Opus => Ok(Shape { keyframe_start: true, ..Shape::default() }),
            Codec::Vp8 => read_vp8(payload),
            Codec::Vp9 => read_vp9(payload),
            Codec::H264 => Ok(self.read_h264(payload)),
            Codec::Av1 => match descriptor {
                Some(value) => self.read_dependency(value),
                None => Ok(Shape {
                    keyframe_start: av1::is_keyframe_start(payload),
                    ..Shape::default()
                }),
            },
        }
    }

    fn read_h264(&mut self, payload: &[u8]) -> Shape {
        let mut starts_idr = false;
        let mut starts_parameters = false;
        for unit in nal_units(payload).filter(|unit| unit.starts) {
            starts_idr |= unit.kind == NAL_IDR;
            starts_parameters |= unit.kind == NAL_SPS;
        }
        self.parameter_sets_seen |= starts_parameters;
        let keyframe_start = starts_parameters || (starts_idr && !self.parameter_sets_seen);
        Shape { keyframe_start, ..Shape::default() }
    }

    fn read_dependency(&mut self, value: &[u8]) -> Result<Shape, DescriptorError> {
        let mandatory = MandatoryFields::parse(value)?;
        let fallback = Shape {
            picture_form: PictureForm::FrameNumber,
            picture: mandatory.frame_number,
            layer_end: mandatory.end_of_frame,
            ..Shape::default()
        };
        let structure = self.structure.get_or_insert_default();
        // A packet of a structure that was lost still has a frame number.
        let Ok(read) = DependencyDescriptor::parse(value, structure) else {
            return Ok(fallback);
        };
        Ok(Shape {
            keyframe_start: read.is_keyframe_start(),
            reaches: switch_target(&read, structure),
            reach_from: read.temporal,
            spatial: read.spatial,
            temporal: read.temporal,
            ..fallback
        })
    }
}

/// Highest temporal layer of a decode target that a receiver may switch to here.
fn switch_target(read: &DependencyDescriptor, structure: &TemplateStructure) -> u8 {
    if !read.mandatory.start_of_frame {
        return 0;
    }
    let targets = (0..).zip(read.indications.iter());
    targets
        .filter(|(_, indication)| *indication == DecodeTargetIndication::Switch)
        .filter_map(|(target, _)| structure.decode_target_layers(target))
        .map(|(_, temporal)| temporal)
        .max()
        .unwrap_or(0)
}

fn place_counters(shape: &mut Shape, picture_id: Option<PictureId>, at: u8) -> u8 {
    let (form, len) = match picture_id {
        None => (PictureForm::None, 0),
        Some(PictureId::Short(_)) => (PictureForm::Short, 1),
        Some(PictureId::Long(_)) => (PictureForm::Long, 2),
    };
    shape.picture_form = form;
    shape.picture_at = at;
    shape.picture = picture_id.map_or(0, PictureId::value);
    at + len
}

/// A payload of blocks, the newest of this payload type.
pub(crate) fn read_red(payload: &[u8], block_type: u8) -> Result<Shape, DescriptorError> {
    let red = RedPayload::parse(payload)?;
    if red.primary_type() != block_type {
        return Err(DescriptorError::Invalid);
    }
    // The primary ends where the payload ends, which fits a slot of the ring.
    let primary_at = (payload.len() - red.primary().len()) as u16;
    Ok(Shape { keyframe_start: true, primary_at, ..Shape::default() })
}

fn read_vp8(payload: &[u8]) -> Result<Shape, DescriptorError> {
    let read = Vp8Descriptor::parse(payload)?;
    let temporal = read.temporal.map_or(0, |layer| layer.id);
    let sync = read.temporal.is_some_and(|layer| layer.sync);
    let mut shape = Shape {
        keyframe_start: read.is_keyframe_start(payload),
        temporal,
        // A frame that needs the base layer only: its own layer can be had from here.
        reaches: if sync { temporal } else { 0 },
        reach_from: temporal.saturating_sub(1),
        contiguous: true,
        tl0: read.tl0_picture_index.unwrap_or(0),
        ..Shape::default()
    };
    let end = place_counters(&mut shape, read.picture_id, 2);
    shape.tl0_at = if read.tl0_picture_index.is_some() { end } else { 0 };
    Ok(shape)
}

fn read_vp9(payload: &[u8]) -> Result<Shape, DescriptorError> {
    let read = Vp9Descriptor::parse(payload)?;
    let switching_up = read.layers.is_some_and(|layers| layers.switching_up);
    let mut shape = Shape {
        keyframe_start: read.is_keyframe_start(),
        layer_end: read.end_of_frame,
        spatial: read.spatial(),
        temporal: read.temporal(),
        // Nothing above this layer needs anything above it from before.
        reaches: if switching_up { u8::MAX } else { 0 },
        reach_from: read.temporal(),
        tl0: read.tl0_picture_index.unwrap_or(0),
        ..Shape::default()
    };
    let end = place_counters(&mut shape, read.picture_id, 1);
    // The byte of layer indices is between the two.
    shape.tl0_at = if read.tl0_picture_index.is_some() { end + 1 } else { 0 };
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_vp8_are_found_and_rewritten() {
        let payload = [0x90, 0xf0, 0x92, 0x67, 0x05, 0x67, 0x10, 0x02];
        let shape = ShapeReader::default().read(Codec::Vp8, &payload, None).unwrap();
        assert!(shape.keyframe_start);
        assert_eq!((shape.reach_from, shape.reaches), (0, 1));
        assert_eq!((shape.temporal, shape.picture, shape.tl0), (1, 4711, 5));
        let mut head = payload[..shape.head_len()].to_vec();
        shape.rewrite_head(&mut head, 1, 77);
        assert_eq!(head, [0x90, 0xf0, 0x80, 0x01, 77]);
    }

    #[test]
    fn counters_of_vp9_are_found_and_rewritten() {
        let payload = [0xa8, 0x92, 0x34, 0x53, 0x09, 0xff];
        let shape = ShapeReader::default().read(Codec::Vp9, &payload, None).unwrap();
        assert_eq!((shape.spatial, shape.temporal, shape.picture), (1, 2, 0x1234));
        let mut head = payload[..shape.head_len()].to_vec();
        shape.rewrite_head(&mut head, 2, 3);
        assert_eq!(head, [0xa8, 0x80, 0x02, 0x53, 3]);
    }

    #[test]
    fn the_primary_of_redundant_sound_is_found() {
        let payload = [0x80 | 111, 0x0f, 0x00, 3, 111, 1, 2, 3, 8, 9];
        let shape = read_red(&payload, 111).unwrap();
        assert!(shape.keyframe_start);
        assert_eq!(payload[usize::from(shape.primary_at)..], [8, 9]);
        assert_eq!(read_red(&payload, 109), Err(DescriptorError::Invalid));
        assert_eq!(read_red(&payload[..7], 111), Err(DescriptorError::Truncated));
    }

    #[test]
    fn a_keyframe_of_h264_begins_with_its_parameter_sets_once_those_were_seen() {
        let mut reader = ShapeReader::default();
        let idr = [0x65, 0x88];
        assert!(reader.read(Codec::H264, &idr, None).unwrap().keyframe_start);
        let sets = [0x78, 0, 2, 0x67, 0x42, 0, 1, 0x68];
        assert!(reader.read(Codec::H264, &sets, None).unwrap().keyframe_start);
        assert!(!reader.read(Codec::H264, &idr, None).unwrap().keyframe_start);
    }

    #[test]
    fn a_dependency_descriptor_of_a_lost_structure_still_has_a_frame_number() {
        let shape =
            ShapeReader::default().read(Codec::Av1, &[0, 0], Some(&[0x81, 0x12, 0x34])).unwrap();
        assert_eq!((shape.picture_form, shape.picture), (PictureForm::FrameNumber, 0x1234));
        assert!(!shape.keyframe_start);
    }
}
