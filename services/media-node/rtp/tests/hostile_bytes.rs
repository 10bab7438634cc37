//! Arbitrary and damaged bytes: every parser answers, none panics, and what is
//! accepted holds together.

#![expect(clippy::unwrap_used, reason = "a failed step of a test may end it")]

use headwater_rtp::dependency::{DependencyDescriptor, MandatoryFields, TemplateStructure};
use headwater_rtp::extension::{
    AbsSendTime, AudioLevel, PlayoutDelay, parse_token, parse_transport_cc,
};
use headwater_rtp::rtcp::{Compound, CompoundWriter, ReportBlock, RtcpPacket, SenderInfo};
use headwater_rtp::{RtpHeader, RtpView, append_padding, av1, h264, red, rtx, vp8, vp9};
use proptest::prelude::*;

/// Touches everything that a packet can be asked.
fn read_rtp(bytes: &[u8]) {
    let Ok(view) = RtpView::parse(bytes) else {
        return;
    };
    assert!(view.csrcs().count() <= 15);
    assert_eq!(view.header_len() + view.payload().len() + view.padding_len(), bytes.len());
    assert_eq!(&bytes[view.payload_range()], view.payload());
    for (id, value) in view.extensions() {
        assert_ne!(id, 0);
        let first = view.extension_range(id).unwrap();
        assert_eq!(view.extension(id), Some(&bytes[first]));
        read_extension(value);
    }
    read_payload(view.payload());
}

fn read_extension(value: &[u8]) {
    let _ = (AudioLevel::parse(value), AbsSendTime::parse(value), PlayoutDelay::parse(value));
    let _ = (parse_token(value), parse_transport_cc(value), MandatoryFields::parse(value));
    let mut structure = TemplateStructure::default();
    if DependencyDescriptor::parse(value, &mut structure).is_ok() {
        assert!(!structure.is_empty());
    }
}

fn read_payload(payload: &[u8]) {
    let _ = (rtx::parse(payload), vp9::Vp9Descriptor::parse(payload));
    let _ = (h264::is_keyframe_start(payload), h264::has_keyframe_part(payload));
    let _ = (av1::is_keyframe_start(payload), av1::has_sequence_header(payload));
    if let Ok(descriptor) = vp8::Vp8Descriptor::parse(payload) {
        assert!(descriptor.len < payload.len());
        let _ = descriptor.frame_header(payload);
        let _ = descriptor.is_keyframe_start(payload);
    }
    read_red(payload);
}

/// What is read has all its bytes in the payload, and is written back alike.
fn read_red(payload: &[u8]) {
    let Ok(parsed) = red::RedPayload::parse(payload) else {
        return;
    };
    let blocks: Vec<_> = parsed.redundant().collect();
    assert!(blocks.len() <= red::REDUNDANT_MAX && !parsed.primary().is_empty());
    assert!(payload.ends_with(parsed.primary()));
    let mut copy = vec![0; payload.len()];
    let primary = (parsed.primary_type(), parsed.primary());
    assert_eq!(red::write(&blocks, primary, &mut copy), Ok(payload.len()));
    assert_eq!(copy, payload);
}

fn good_red() -> Vec<u8> {
    let block = |timestamp_offset, payload| red::RedundantBlock {
        payload_type: 111,
        timestamp_offset,
        payload,
    };
    let mut bytes = vec![0; 100];
    let blocks = [block(1_920, &[1; 20][..]), block(960, &[2; 30])];
    let len = red::write(&blocks, (111, &[3; 25]), &mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

/// Touches everything that a compound can be asked.
fn read_rtcp(bytes: &[u8]) {
    let mut packets = 0;
    for packet in Compound::new(bytes) {
        packets += 1;
        let Ok(packet) = packet else { continue };
        match packet {
            RtcpPacket::SenderReport(report) => assert!(report.blocks().count() <= 31),
            RtcpPacket::ReceiverReport(report) => assert!(report.blocks().count() <= 31),
            RtcpPacket::SourceDescription(description) => {
                assert!(description.cnames().count() <= 31);
            }
            RtcpPacket::Goodbye(goodbye) => assert!(goodbye.sources().count() <= 31),
            RtcpPacket::Nack(nack) => assert!(nack.lost().count() <= bytes.len() / 4 * 17),
            RtcpPacket::PictureLossIndication(_) | RtcpPacket::Other { .. } => {}
            RtcpPacket::FullIntraRequest(fir) => assert!(fir.entries().count() <= bytes.len() / 8),
            RtcpPacket::Remb(remb) => assert!(remb.sources().count() <= 255),
            RtcpPacket::TransportFeedback(feedback) => {
                assert_eq!(feedback.packets().count(), usize::from(feedback.status_count));
            }
        }
    }
    assert!(packets <= bytes.len() / 4 + 1);
}

fn good_rtp() -> Vec<u8> {
    let header = RtpHeader { payload_type: 96, marker: true, sequence: 7, timestamp: 8, ssrc: 9 };
    let mut bytes = vec![0; 120];
    let extensions =
        [(1, &b"q"[..]), (2, &[0x9e]), (3, &[1, 2]), (4, &[0xc0, 0, 5, 0x80, 0, 0xe0])];
    let len = header.write(&extensions, &mut bytes).unwrap();
    bytes[len..len + 16].copy_from_slice(&[
        0x90, 0xf0, 0x92, 0x67, 0x05, 0x67, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68,
        0x01,
    ]);
    let len = append_padding(&mut bytes, len + 16, 4).unwrap();
    bytes.truncate(len);
    bytes
}

fn good_rtcp() -> Vec<u8> {
    let mut buffer = [0; 600];
    let mut writer = CompoundWriter::new(&mut buffer);
    writer.sender_report(&SenderInfo::default(), &[ReportBlock::default()]).unwrap();
    writer.cname(1, "name").unwrap();
    writer.nack(1, 2, [1, 5, 90]).unwrap();
    writer.remb(1, 500_000, &[2]).unwrap();
    writer.goodbye(&[3]).unwrap();
    let head = headwater_rtp::rtcp::TransportFeedbackHead {
        sender_ssrc: 1,
        media_ssrc: 2,
        feedback_count: 0,
        base_sequence: 10,
    };
    let arrivals = [12, 13, 20].map(|sequence| headwater_rtp::rtcp::Arrival {
        sequence,
        at: std::time::Duration::from_millis(sequence),
    });
    writer.transport_feedback(&head, &arrivals).unwrap();
    writer.as_bytes().to_vec()
}

/// Overwrites, cuts and extends.
fn damage(mut bytes: Vec<u8>, edits: &[(usize, u8)], cut: usize) -> Vec<u8> {
    for (at, byte) in edits {
        let at = at % bytes.len();
        bytes[at] = *byte;
    }
    bytes.truncate(bytes.len() - cut % bytes.len());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_rtp(&bytes);
        read_rtcp(&bytes);
        read_extension(&bytes);
        read_payload(&bytes);
    }

    #[test]
    fn damaged_packets_are_answered(
        edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        cut in prop_oneof![Just(0), any::<usize>()],
    ) {
        read_rtp(&damage(good_rtp(), &edits, cut));
        read_rtcp(&damage(good_rtcp(), &edits, cut));
        read_red(&damage(good_red(), &edits, cut));
    }
}

#[test]
fn the_undamaged_packets_are_good() {
    let rtp = good_rtp();
    let view = RtpView::parse(&rtp).unwrap();
    assert_eq!(view.extensions().count(), 4);
    assert!(vp8::Vp8Descriptor::parse(view.payload()).unwrap().is_keyframe_start(view.payload()));
    assert_eq!(red::RedPayload::parse(&good_red()).unwrap().redundant().len(), 2);
    let rtcp = good_rtcp();
    assert_eq!(Compound::new(&rtcp).filter(Result::is_ok).count(), 6);
}
