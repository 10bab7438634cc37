//! RTCP compounds: every packet of every kind is walked to its end.

#![no_main]

use headwater_rtp::rtcp::{Compound, RtcpPacket};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut packets = 0;
    for packet in Compound::new(bytes) {
        packets += 1;
        let Ok(packet) = packet else { continue };
        match packet {
            RtcpPacket::SenderReport(report) => assert!(report.blocks().count() <= 31),
            RtcpPacket::ReceiverReport(report) => assert!(report.blocks().count() <= 31),
            RtcpPacket::SourceDescription(names) => assert!(names.cnames().count() <= 31),
            RtcpPacket::Goodbye(goodbye) => assert!(goodbye.sources().count() <= 31),
            RtcpPacket::Nack(nack) => assert!(nack.lost().count() <= bytes.len() / 4 * 17),
            RtcpPacket::PictureLossIndication(_) | RtcpPacket::Other { .. } => {}
            RtcpPacket::FullIntraRequest(fir) => assert!(fir.entries().count() <= bytes.len() / 8),
            RtcpPacket::Remb(remb) => assert!(remb.sources().count() <= 255),
            RtcpPacket::TransportFeedback(feedback) => {
                assert_eq!(
                    feedback.packets().count(),
                    usize::from(feedback.status_count)
                );
            }
        }
    }
    assert!(packets <= bytes.len() / 4 + 1);
});
