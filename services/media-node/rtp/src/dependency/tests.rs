//! Dependency descriptors written and read again.

use proptest::prelude::*;

use super::*;
use crate::WriteError;

fn indications(codes: &str) -> Indications {
    let mut list = Indications::default();
    for code in codes.chars() {
        list.push(match code {
            '-' => DecodeTargetIndication::NotPresent,
            'D' => DecodeTargetIndication::Discardable,
            'S' => DecodeTargetIndication::Switch,
            'R' => DecodeTargetIndication::Required,
            other => panic!("no indication has the code {other}"),
        });
    }
    list
}

fn frame_diffs(values: &[u16]) -> FrameDiffs {
    let mut list = FrameDiffs::default();
    values.iter().for_each(|value| list.push(*value).unwrap());
    list
}

fn chain_diffs(values: &[u8]) -> ChainDiffs {
    let mut list = ChainDiffs::default();
    values.iter().for_each(|value| list.push(*value));
    list
}

fn template(spatial: u8, temporal: u8, dtis: &str, frames: &[u16], chains: &[u8]) -> Template {
    Template {
        spatial,
        temporal,
        indications: indications(dtis),
        frame_diffs: frame_diffs(frames),
        chain_diffs: chain_diffs(chains),
    }
}

/// Two spatial and two temporal layers, four decode targets (S1T1, S1T0, S0T1, S0T0),
/// two chains, as in the example "L2T2" of the specification, section A.4.2.
fn structure() -> TemplateStructure {
    let templates = [
        template(0, 0, "SSSS", &[], &[0, 0]),
        template(0, 0, "SSRR", &[4], &[4, 3]),
        template(0, 1, "D-D-", &[2], &[2, 3]),
        template(1, 0, "SS--", &[1], &[1, 1]),
        template(1, 0, "RR--", &[4, 1], &[1, 1]),
        template(1, 1, "D---", &[2, 1], &[3, 2]),
    ];
    let mut structure = TemplateStructure {
        template_id_offset: 60,
        decode_targets: 4,
        chains: 2,
        template_count: templates.len() as u8,
        resolutions: Some([(320, 180), (640, 360), (0, 0), (0, 0)]),
        ..TemplateStructure::default()
    };
    structure.templates[..templates.len()].copy_from_slice(&templates);
    structure.protected_by[..4].copy_from_slice(&[1, 1, 0, 0]);
    structure
}

fn descriptor(structure: &TemplateStructure, template_id: u8) -> DependencyDescriptor {
    let template = structure.template(template_id).unwrap();
    DependencyDescriptor {
        mandatory: MandatoryFields {
            start_of_frame: true,
            end_of_frame: false,
            template_id,
            frame_number: 0x1234,
        },
        spatial: template.spatial,
        temporal: template.temporal,
        attached_structure: false,
        active_decode_targets: None,
        indications: template.indications,
        frame_diffs: template.frame_diffs,
        chain_diffs: template.chain_diffs,
        resolution: structure.resolution(template.spatial),
    }
}

#[test]
fn a_keyframe_brings_the_structure_and_later_frames_use_it() {
    let sent = structure();
    let mut out = [0; 255];
    let key = DependencyDescriptor { attached_structure: true, ..descriptor(&sent, 60) };
    let len = key.write(&sent, &mut out).unwrap();

    let mut known = TemplateStructure::default();
    let read = DependencyDescriptor::parse(&out[..len], &mut known).unwrap();
    assert_eq!(read, key);
    assert!(read.is_keyframe_start());
    assert_eq!(read.resolution, Some((320, 180)));
    assert_eq!(known, sent);

    // 60 + 5 wraps to 1: the template of S1T1.
    let last = descriptor(&sent, 1);
    let len = last.write(&sent, &mut out).unwrap();
    assert_eq!(len, MANDATORY_LEN);
    assert_eq!(out[..len], [0x81, 0x12, 0x34]);
    let read = DependencyDescriptor::parse(&out[..len], &mut known).unwrap();
    assert_eq!(read, last);
    assert_eq!((read.spatial, read.temporal), (1, 1));
    assert_eq!(read.frame_diffs.as_slice(), [2, 1]);
    assert_eq!(read.chain_diffs.as_slice(), [3, 2]);
}

#[test]
fn the_smallest_structure_has_the_bits_of_the_specification() {
    // One target, one template, no chain, no resolution. Mandatory: 1 1 000000, frame 5.
    // Flags 1 0 0 0 0, offset 000000, targets-1 00000, next layer 11, dti 10, no
    // reference 0, chains ns(2) = 0, resolutions 0: 10000000 00000000 11100000.
    let value = [0xc0, 0, 5, 0b1000_0000, 0b0000_0000, 0b1110_0000];
    let mut known = TemplateStructure::default();
    let read = DependencyDescriptor::parse(&value, &mut known).unwrap();
    assert!(read.is_keyframe_start() && read.mandatory.end_of_frame);
    assert_eq!(read.indications, indications("S"));
    assert_eq!((known.decode_target_count(), known.chain_count()), (1, 0));
    assert_eq!(known.all_decode_targets(), 1);
    let mut out = [0; 16];
    let len = read.write(&known, &mut out).unwrap();
    assert_eq!(out[..len], value);
}

#[test]
fn custom_fields_replace_those_of_the_template() {
    let mut known = structure();
    let custom = DependencyDescriptor {
        active_decode_targets: Some(0b0110),
        indications: indications("-DRS"),
        frame_diffs: frame_diffs(&[1, 16, 17, 256, 257, 4_096]),
        chain_diffs: chain_diffs(&[255, 0]),
        ..descriptor(&known, 61)
    };
    let mut out = [0; 255];
    let len = custom.write(&known, &mut out).unwrap();
    assert_eq!(DependencyDescriptor::parse(&out[..len], &mut known).unwrap(), custom);
    assert_eq!(known, structure());
}

#[test]
fn without_the_structure_a_frame_is_unknown() {
    let mut empty = TemplateStructure::default();
    for value in [&[0x80, 0, 1][..], &[0x80, 0, 1, 0x40]] {
        assert_eq!(
            DependencyDescriptor::parse(value, &mut empty),
            Err(DescriptorError::UnknownTemplate)
        );
    }
    // An id behind the last template belongs to another structure.
    let mut known = structure();
    assert_eq!(
        DependencyDescriptor::parse(&[0x80 | 2, 0, 1], &mut known),
        Err(DescriptorError::UnknownTemplate)
    );
}

#[test]
fn a_bad_descriptor_leaves_the_structure() {
    let sent = structure();
    let mut out = [0; 255];
    let key = DependencyDescriptor { attached_structure: true, ..descriptor(&sent, 60) };
    let len = key.write(&sent, &mut out).unwrap();
    for cut in 0..len {
        let mut known = TemplateStructure::default();
        assert!(DependencyDescriptor::parse(&out[..cut], &mut known).is_err());
        assert!(known.is_empty());
    }
    // A structure that does not have the frame's own template.
    out[0] = 0x80 | 30;
    let mut known = TemplateStructure::default();
    assert!(DependencyDescriptor::parse(&out[..len], &mut known).is_err());
    assert!(known.is_empty());
}

#[test]
fn decode_targets_are_chosen_by_layer() {
    let structure = structure();
    let layers: Vec<_> =
        (0..4).map(|target| structure.decode_target_layers(target).unwrap()).collect();
    assert_eq!(layers, [(1, 1), (1, 0), (0, 1), (0, 0)]);
    let all = structure.all_decode_targets();
    assert_eq!(all, 0b1111);
    assert_eq!(structure.decode_target_up_to(3, 7, all), Some(0));
    assert_eq!(structure.decode_target_up_to(1, 0, all), Some(1));
    assert_eq!(structure.decode_target_up_to(0, 7, all), Some(2));
    assert_eq!(structure.decode_target_up_to(1, 1, 0b1100), Some(2));
    assert_eq!(structure.decode_target_up_to(1, 1, 0), None);
    assert_eq!(structure.protecting_chain(0), Some(1));
    assert_eq!(structure.protecting_chain(4), None);
    assert_eq!((structure.max_spatial(), structure.max_temporal()), (1, 1));
}

#[test]
fn layers_beyond_those_of_av1_are_invalid() {
    // Four times "next spatial layer" after the first template.
    let mut value = [0; 16];
    let mut writer = crate::bits::BitWriter::new(&mut value);
    for (bits, width) in [(0, 24), (0b10000, 5), (0, 6), (0, 5), (2, 2), (2, 2), (2, 2), (2, 2)] {
        writer.bits(bits, width).unwrap();
    }
    let mut known = TemplateStructure::default();
    assert_eq!(DependencyDescriptor::parse(&value, &mut known), Err(DescriptorError::Invalid));
}

#[test]
fn a_frame_number_is_replaced_in_place() {
    let mut value = [0x81, 0x12, 0x34];
    rewrite_frame_number(&mut value, 0xabcd).unwrap();
    assert_eq!(value, [0x81, 0xab, 0xcd]);
    assert_eq!(MandatoryFields::parse(&value).unwrap().frame_number, 0xabcd);
    assert!(rewrite_frame_number(&mut value[..2], 1).is_err());
}

#[test]
fn a_descriptor_of_another_structure_is_not_written() {
    let small = TemplateStructure {
        decode_targets: 1,
        template_count: 1,
        template_id_offset: 60,
        ..TemplateStructure::default()
    };
    let of_other = descriptor(&structure(), 60);
    assert_eq!(of_other.write(&small, &mut [0; 64]), Err(WriteError::Unrepresentable));
    assert_eq!(of_other.write(&structure(), &mut [0; 2]), Err(WriteError::NoRoom));
}

proptest! {
    #[test]
    fn what_is_read_is_written_and_read_again(
        value in proptest::collection::vec(any::<u8>(), 0..255),
        flips in proptest::collection::vec((0_usize..60, any::<u8>()), 0..4),
    ) {
        // Arbitrary bytes, and a good structure with some bytes changed.
        let sent = structure();
        let mut good = [0; 255];
        let key = DependencyDescriptor { attached_structure: true, ..descriptor(&sent, 60) };
        let len = key.write(&sent, &mut good).unwrap();
        for (at, byte) in flips {
            good[at % len] = byte;
        }
        for value in [value.as_slice(), &good[..len]] {
            let mut known = sent.clone();
            let Ok(read) = DependencyDescriptor::parse(value, &mut known) else { continue };
            let mut out = [0; 1_024];
            let len = read.write(&known, &mut out).unwrap();
            let mut again = known.clone();
            prop_assert_eq!(DependencyDescriptor::parse(&out[..len], &mut again).unwrap(), read);
            prop_assert_eq!(again, known);
        }
    }
}
