//! Descriptors of VP8, VP9, H.264 and AV1 payloads, rewriting of picture ids, and
//! blocks of redundant audio.

#![no_main]

use headwater_rtp::{av1, h264, red, vp8, vp9};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, u8, &[u8])| {
    let (picture_id, tl0, payload) = input;
    let _ = (
        h264::is_keyframe_start(payload),
        h264::has_keyframe_part(payload),
    );
    assert!(h264::nal_units(payload).count() <= payload.len());
    let _ = (
        av1::is_keyframe_start(payload),
        av1::has_sequence_header(payload),
    );
    if let Ok(elements) = av1::obu_elements(payload) {
        assert!(elements.map(|element| element.bytes.len()).sum::<usize>() < payload.len());
    }
    rewrite_vp8(payload, picture_id, tl0);
    rewrite_vp9(payload, picture_id, tl0);
    repeat_red(payload);
});

fn rewrite_vp8(payload: &[u8], picture_id: u16, tl0: u8) {
    let Ok(before) = vp8::Vp8Descriptor::parse(payload) else {
        return;
    };
    let _ = (
        before.frame_header(payload),
        before.is_keyframe_start(payload),
    );
    let mut copy = payload.to_vec();
    assert_eq!(vp8::rewrite(&mut copy, picture_id, tl0), Ok(before.len));
    let after = vp8::Vp8Descriptor::parse(&copy).expect("a descriptor that was good before");
    assert_eq!(
        after.picture_id,
        before.picture_id.map(|id| id.with_value(picture_id))
    );
    assert_eq!(copy[before.len..], payload[before.len..]);
}

fn rewrite_vp9(payload: &[u8], picture_id: u16, tl0: u8) {
    let Ok(before) = vp9::Vp9Descriptor::parse(payload) else {
        return;
    };
    let mut copy = payload.to_vec();
    assert_eq!(vp9::rewrite(&mut copy, picture_id, tl0), Ok(before.len));
    let after = vp9::Vp9Descriptor::parse(&copy).expect("a descriptor that was good before");
    assert_eq!(after.layers, before.layers);
    assert_eq!(copy[before.len..], payload[before.len..]);
}

fn repeat_red(payload: &[u8]) {
    let Ok(parsed) = red::RedPayload::parse(payload) else {
        return;
    };
    let blocks: Vec<_> = parsed.redundant().collect();
    let mut copy = vec![0; payload.len()];
    let primary = (parsed.primary_type(), parsed.primary());
    assert_eq!(red::write(&blocks, primary, &mut copy), Ok(payload.len()));
    assert_eq!(copy, payload);
}
