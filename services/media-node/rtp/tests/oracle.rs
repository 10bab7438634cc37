//! RTCP of ours against `rtc-rtcp`: what one writes the other reads alike.

#![expect(clippy::unwrap_used, reason = "a failed step of a test may end it")]

use bytes::Bytes;
use headwater_rtp::NtpTime;
use headwater_rtp::rtcp::{
    Arrival, Compound, CompoundWriter, DELTA_TICK, FirEntry, ReportBlock, RtcpPacket, SenderInfo,
    TransportFeedbackHead,
};
use proptest::prelude::*;
use rtc_rtcp::goodbye::Goodbye;
use rtc_rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc_rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc_rtcp::receiver_report::ReceiverReport;
use rtc_rtcp::reception_report::ReceptionReport;
use rtc_rtcp::sender_report::SenderReport;
use rtc_rtcp::source_description::{SdesType, SourceDescription};
use rtc_rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
use rtc_rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use rtc_shared::marshal::{Marshal, Unmarshal};

fn written(write: impl FnOnce(&mut CompoundWriter<'_>)) -> Bytes {
    let mut buffer = [0; 1_400];
    let mut writer = CompoundWriter::new(&mut buffer);
    write(&mut writer);
    Bytes::copy_from_slice(writer.as_bytes())
}

fn only(bytes: &[u8]) -> RtcpPacket<'_> {
    let mut packets = Compound::new(bytes);
    let packet = packets.next().unwrap().unwrap();
    assert!(packets.next().is_none());
    packet
}

fn ours(theirs: &ReceptionReport) -> ReportBlock {
    ReportBlock {
        ssrc: theirs.ssrc,
        fraction_lost: theirs.fraction_lost,
        cumulative_lost: i32::try_from(theirs.total_lost).unwrap(),
        highest_sequence: theirs.last_sequence_number,
        jitter: theirs.jitter,
        last_sender_report: theirs.last_sender_report,
        delay_since_last_sender_report: theirs.delay,
    }
}

prop_compose! {
    fn report_block()(
        ssrc: u32, fraction_lost: u8, total_lost in 0_u32..0x80_0000, last_sequence_number: u32,
        last_sender_report: u32, delay: u32, jitter: u32,
    ) -> ReceptionReport {
        ReceptionReport {
            ssrc, fraction_lost, total_lost, last_sequence_number, last_sender_report, delay, jitter,
        }
    }
}

proptest! {
    #[test]
    fn reports_are_the_same_bytes(
        ssrc: u32, ntp_time: u64, rtp_time: u32, packet_count: u32, octet_count: u32,
        reports in proptest::collection::vec(report_block(), 0..31),
    ) {
        let blocks: Vec<ReportBlock> = reports.iter().map(ours).collect();
        let sender = SenderReport {
            ssrc, ntp_time, rtp_time, packet_count, octet_count,
            reports: reports.clone(), profile_extensions: Bytes::new(),
        };
        let receiver = ReceiverReport { ssrc, reports, profile_extensions: Bytes::new() };
        let info = SenderInfo {
            ssrc, ntp: NtpTime(ntp_time), rtp_timestamp: rtp_time, packets: packet_count, bytes: octet_count,
        };
        prop_assert_eq!(
            written(|writer| writer.sender_report(&info, &blocks).unwrap()),
            sender.marshal().unwrap().freeze()
        );
        prop_assert_eq!(
            written(|writer| writer.receiver_report(ssrc, &blocks).unwrap()),
            receiver.marshal().unwrap().freeze()
        );
        let bytes = receiver.marshal().unwrap();
        let RtcpPacket::ReceiverReport(read) = only(&bytes) else { panic!("no report") };
        prop_assert_eq!(read.blocks().collect::<Vec<_>>(), blocks);
    }

    #[test]
    fn small_packets_are_the_same_bytes(a: u32, b: u32, sequence: u8, sources in proptest::collection::vec(any::<u32>(), 1..31)) {
        let pli = PictureLossIndication { sender_ssrc: a, media_ssrc: b };
        prop_assert_eq!(
            written(|writer| writer.picture_loss_indication(a, b).unwrap()),
            pli.marshal().unwrap().freeze()
        );
        let fir = FullIntraRequest {
            sender_ssrc: a,
            media_ssrc: 0,
            fir: vec![rtc_rtcp::payload_feedbacks::full_intra_request::FirEntry { ssrc: b, sequence_number: sequence }],
        };
        prop_assert_eq!(
            written(|writer| writer.full_intra_request(a, &[FirEntry { ssrc: b, sequence }]).unwrap()),
            fir.marshal().unwrap().freeze()
        );
        // Theirs appends an empty reason and padding, so only the content is compared.
        let bye = Goodbye { sources: sources.clone(), reason: Bytes::new() }.marshal().unwrap();
        let RtcpPacket::Goodbye(read) = only(&bye) else { panic!("no goodbye") };
        prop_assert_eq!(read.sources().collect::<Vec<_>>(), sources.clone());
        let mut ours = written(|writer| writer.goodbye(&sources).unwrap());
        prop_assert_eq!(Goodbye::unmarshal(&mut ours).unwrap().sources, sources);
    }

    #[test]
    fn names_are_read_alike(ssrc: u32, name in "[a-zA-Z0-9@.-]{1,60}") {
        let mut bytes = written(|writer| writer.cname(ssrc, &name).unwrap());
        let read = SourceDescription::unmarshal(&mut bytes).unwrap();
        prop_assert_eq!(read.chunks.len(), 1);
        prop_assert_eq!(read.chunks[0].source, ssrc);
        prop_assert_eq!(read.chunks[0].items[0].sdes_type, SdesType::SdesCname);
        prop_assert_eq!(&read.chunks[0].items[0].text[..], name.as_bytes());
        let theirs = read.marshal().unwrap();
        let RtcpPacket::SourceDescription(description) = only(&theirs) else { panic!("no SDES") };
        prop_assert_eq!(description.cnames().collect::<Vec<_>>(), vec![(ssrc, name.as_bytes())]);
    }

    #[test]
    fn nacks_are_read_alike(a: u32, b: u32, mut lost in proptest::collection::vec(any::<u16>(), 1..60)) {
        lost.sort_unstable();
        lost.dedup();
        let mut bytes = written(|writer| writer.nack(a, b, lost.iter().copied()).unwrap());
        let read = TransportLayerNack::unmarshal(&mut bytes).unwrap();
        prop_assert_eq!((read.sender_ssrc, read.media_ssrc), (a, b));
        let theirs: Vec<u16> = read.nacks.iter().flat_map(|pair| pair.packet_list()).collect();
        prop_assert_eq!(theirs, lost);
    }

    #[test]
    fn bit_rates_are_read_alike(a: u32, bitrate in 0_u32..u32::MAX, ssrcs in proptest::collection::vec(any::<u32>(), 0..20)) {
        let mut bytes = written(|writer| writer.remb(a, u64::from(bitrate), &ssrcs).unwrap());
        let RtcpPacket::Remb(own) = only(&bytes) else { panic!("no REMB") };
        let own_rate = own.bitrate;
        let read = ReceiverEstimatedMaximumBitrate::unmarshal(&mut bytes.split_off(0)).unwrap();
        prop_assert_eq!(read.ssrcs, ssrcs);
        // Theirs is a 32-bit float of the same 18 bits.
        prop_assert_eq!(f64::from(read.bitrate), own_rate as f64);
    }

    #[test]
    fn transport_feedback_is_read_alike(
        base in 0_u64..70_000,
        steps in proptest::collection::vec((1_u64..30, -200_i64..2_000), 1..200),
    ) {
        let mut sequence = base;
        let mut tick = 1_000_000_i64;
        let arrivals: Vec<Arrival> = steps
            .into_iter()
            .map(|(gap, delta)| {
                sequence += gap;
                tick += delta;
                Arrival { sequence, at: DELTA_TICK * u32::try_from(tick).unwrap() }
            })
            .collect();
        let head = TransportFeedbackHead { sender_ssrc: 1, media_ssrc: 2, feedback_count: 9, base_sequence: base };
        let bytes = written(|writer| {
            writer.transport_feedback(&head, &arrivals).unwrap();
        });
        let RtcpPacket::TransportFeedback(own) = only(&bytes) else { panic!("no feedback") };
        let theirs = TransportLayerCc::unmarshal(&mut bytes.clone()).unwrap();
        prop_assert_eq!(theirs.base_sequence_number, own.base_sequence);
        prop_assert_eq!(theirs.packet_status_count, own.status_count);
        prop_assert_eq!(theirs.reference_time, own.reference_time.cast_unsigned());
        prop_assert_eq!(theirs.fb_pkt_count, 9);
        let deltas: Vec<i64> = theirs.recv_deltas.iter().map(|delta| delta.delta / 250).collect();
        let mut time = i64::from(own.reference_time) * 256;
        let own_deltas: Vec<i64> = own
            .packets()
            .filter_map(|status| status.arrival)
            .map(|arrival| arrival - std::mem::replace(&mut time, arrival))
            .collect();
        prop_assert_eq!(deltas, own_deltas);
    }
}
