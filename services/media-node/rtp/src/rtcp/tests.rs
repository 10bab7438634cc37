//! RTCP written and read again, and refused when it is malformed.

use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{NtpTime, WriteError};

fn block(ssrc: u32) -> ReportBlock {
    ReportBlock {
        ssrc,
        fraction_lost: 64,
        cumulative_lost: -3,
        highest_sequence: 0x0001_8000,
        jitter: 77,
        last_sender_report: 0x1122_3344,
        delay_since_last_sender_report: 65_536,
    }
}

fn one(bytes: &[u8]) -> RtcpPacket<'_> {
    let mut packets: Vec<_> = Compound::new(bytes).collect();
    assert_eq!(packets.len(), 1);
    packets.remove(0).unwrap()
}

#[test]
fn a_compound_of_everything_is_read_in_order() {
    let info = SenderInfo {
        ssrc: 1,
        ntp: NtpTime(0x0102_0304_0506_0708),
        rtp_timestamp: 9,
        packets: 10,
        bytes: 11,
    };
    let mut buffer = [0; 512];
    let mut writer = CompoundWriter::new(&mut buffer);
    writer.sender_report(&info, &[block(2), block(3)]).unwrap();
    writer.cname(1, "node").unwrap();
    writer.nack(1, 2, [10, 11, 26, 27]).unwrap();
    writer.picture_loss_indication(1, 2).unwrap();
    writer.full_intra_request(1, &[FirEntry { ssrc: 2, sequence: 5 }]).unwrap();
    writer.remb(1, 1_000_000, &[2, 3]).unwrap();
    writer.goodbye(&[1, 2]).unwrap();
    let len = writer.finish();

    let packets: Vec<_> = Compound::new(&buffer[..len]).map(Result::unwrap).collect();
    let [
        RtcpPacket::SenderReport(report),
        RtcpPacket::SourceDescription(description),
        RtcpPacket::Nack(nack),
        RtcpPacket::PictureLossIndication(pli),
        RtcpPacket::FullIntraRequest(fir),
        RtcpPacket::Remb(remb),
        RtcpPacket::Goodbye(goodbye),
    ] = packets[..]
    else {
        panic!("other packets: {packets:?}");
    };
    assert_eq!(report.info, info);
    assert_eq!(report.blocks().collect::<Vec<_>>(), [block(2), block(3)]);
    assert_eq!(description.cnames().collect::<Vec<_>>(), [(1, &b"node"[..])]);
    assert_eq!((nack.sender_ssrc, nack.media_ssrc), (1, 2));
    assert_eq!(nack.lost().collect::<Vec<_>>(), [10, 11, 26, 27]);
    assert_eq!(pli, PictureLossIndication { sender_ssrc: 1, media_ssrc: 2 });
    assert_eq!(fir.entries().collect::<Vec<_>>(), [FirEntry { ssrc: 2, sequence: 5 }]);
    assert_eq!((remb.bitrate, remb.sources().collect::<Vec<_>>()), (1_000_000, vec![2, 3]));
    assert_eq!(goodbye.sources().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_lost_packet_and_the_sixteen_behind_it_share_an_entry() {
    let mut buffer = [0; 64];
    let mut writer = CompoundWriter::new(&mut buffer);
    writer.nack(1, 2, [65_530, 65_531, 10, 11]).unwrap();
    let len = writer.finish();
    // 65,530 and 65,531 and 10 (16 behind) share one; 11 needs its own.
    assert_eq!(len, 12 + 2 * 4);
    let RtcpPacket::Nack(nack) = one(&buffer[..len]) else { panic!("no NACK") };
    assert_eq!(nack.lost().collect::<Vec<_>>(), [65_530, 65_531, 10, 11]);
}

#[test]
fn no_lost_packets_make_no_nack() {
    let mut buffer = [0; 64];
    let mut writer = CompoundWriter::new(&mut buffer);
    writer.nack(1, 2, []).unwrap();
    assert!(writer.is_empty());
}

#[test]
fn a_packet_that_does_not_fit_leaves_those_before() {
    let mut buffer = [0; 20];
    let mut writer = CompoundWriter::new(&mut buffer);
    writer.picture_loss_indication(1, 2).unwrap();
    assert_eq!(writer.picture_loss_indication(3, 4), Err(WriteError::NoRoom));
    assert_eq!(writer.receiver_report(1, &[block(1); 32]), Err(WriteError::Unrepresentable));
    assert_eq!(writer.len(), 12);
    assert_eq!(Compound::new(writer.as_bytes()).count(), 1);
}

#[test]
fn a_malformed_body_does_not_hide_what_follows() {
    // A receiver report that claims a block it has not; then a PLI.
    let mut bytes = vec![0x81, 201, 0, 1, 0, 0, 0, 1];
    bytes.extend([0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
    let packets: Vec<_> = Compound::new(&bytes).collect();
    assert!(matches!(packets[0], Err(RtcpError::Malformed { packet_type: 201, count: 1 })));
    assert!(matches!(packets[1], Ok(RtcpPacket::PictureLossIndication(_))));
    assert_eq!(packets.len(), 2);
}

#[test]
fn extended_reports_and_unknown_packets_are_passed_over() {
    let bytes = [0x80, 207, 0, 1, 0, 0, 0, 1, 0x8b, 205, 0, 1, 0, 0, 0, 1];
    let packets: Vec<_> = Compound::new(&bytes).map(Result::unwrap).collect();
    assert!(matches!(packets[0], RtcpPacket::Other { packet_type: 207, count: 0 }));
    assert!(matches!(packets[1], RtcpPacket::Other { packet_type: 205, count: 11 }));
}

#[test]
fn a_broken_header_ends_the_compound() {
    assert_eq!(Compound::new(&[0x80, 201]).next().unwrap().unwrap_err(), RtcpError::Truncated);
    let beyond = [0x80, 201, 0, 9, 0, 0, 0, 1];
    let mut compound = Compound::new(&beyond);
    assert_eq!(compound.next().unwrap().unwrap_err(), RtcpError::Truncated);
    assert!(compound.next().is_none());
    assert_eq!(Compound::new(&[0x40, 201, 0, 0]).next().unwrap().unwrap_err(), RtcpError::Version);
    assert!(Compound::new(&[]).next().is_none());
}

#[test]
fn padding_is_cut_and_checked() {
    let mut bytes = vec![0xa1, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4];
    assert!(matches!(one(&bytes), RtcpPacket::PictureLossIndication(_)));
    for wrong in [0, 13, 255] {
        *bytes.last_mut().unwrap() = wrong;
        assert_eq!(Compound::new(&bytes).next().unwrap().unwrap_err(), RtcpError::Padding);
    }
}

#[test]
fn a_remb_beyond_all_numbers_is_the_highest() {
    let bytes =
        [0x8f, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 0, 0xff, 0xff, 0xff];
    let RtcpPacket::Remb(remb) = one(&bytes) else { panic!("no REMB") };
    assert_eq!(remb.bitrate, u64::MAX);
}

fn head(base_sequence: u64) -> TransportFeedbackHead {
    TransportFeedbackHead { sender_ssrc: 1, media_ssrc: 2, feedback_count: 3, base_sequence }
}

fn feedback_of(bytes: &[u8]) -> TransportFeedback<'_> {
    let RtcpPacket::TransportFeedback(feedback) = one(bytes) else { panic!("no feedback") };
    feedback
}

#[test]
fn feedback_tells_what_came_when_and_what_did_not() {
    let at = |milliseconds| Duration::from_millis(milliseconds);
    let arrivals = [
        Arrival { sequence: 65_535, at: at(100) },
        Arrival { sequence: 65_536, at: at(101) },
        // A late packet: a negative delta. And a long pause.
        Arrival { sequence: 65_539, at: at(90) },
        Arrival { sequence: 65_540, at: at(290) },
    ];
    let mut buffer = [0; 64];
    let mut writer = CompoundWriter::new(&mut buffer);
    assert_eq!(writer.transport_feedback(&head(65_534), &arrivals), Ok(4));
    let len = writer.finish();
    assert_eq!(len % 4, 0);
    let feedback = feedback_of(&buffer[..len]);
    assert_eq!((feedback.base_sequence, feedback.status_count), (65_534, 7));
    assert_eq!((feedback.reference_time, feedback.feedback_count), (1, 3));
    let packets: Vec<_> =
        feedback.packets().map(|status| (status.sequence, status.arrival)).collect();
    assert_eq!(
        packets,
        [
            (65_534, None),
            (65_535, Some(400)),
            (0, Some(404)),
            (1, None),
            (2, None),
            (3, Some(360)),
            (4, Some(1_160)),
        ]
    );
}

#[test]
fn feedback_ends_where_the_room_or_the_clock_does() {
    let steady: Vec<Arrival> = (0..1_000)
        .map(|sequence| Arrival { sequence, at: Duration::from_millis(sequence) })
        .collect();
    let mut buffer = [0; 100];
    let mut writer = CompoundWriter::new(&mut buffer);
    let held = writer.transport_feedback(&head(0), &steady).unwrap();
    assert!((70..=80).contains(&held), "{held} arrivals in 80 bytes");
    let len = writer.finish();
    assert_eq!(feedback_of(&buffer[..len]).packets().count(), held);

    let pause = [steady[0], Arrival { sequence: 1, at: Duration::from_secs(9) }];
    let mut buffer = [0; 100];
    let mut writer = CompoundWriter::new(&mut buffer);
    assert_eq!(writer.transport_feedback(&head(0), &pause), Ok(1));
    assert_eq!(writer.transport_feedback(&head(5), &steady[..1]), Err(WriteError::Unrepresentable));
    assert_eq!(writer.transport_feedback(&head(0), &[]), Err(WriteError::Unrepresentable));
    let mut small = [0; 22];
    let mut writer = CompoundWriter::new(&mut small);
    assert_eq!(writer.transport_feedback(&head(0), &steady), Err(WriteError::NoRoom));
}

#[test]
fn feedback_with_a_reserved_symbol_or_missing_deltas_is_malformed() {
    let mut bytes = vec![0x8f, 205, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 1, 0];
    bytes.extend([0x20, 0x01, 0x10, 0x00]);
    assert_eq!(feedback_of(&bytes).packets().count(), 1);
    let run_of_two = [&bytes[..20], &[0x20, 0x02, 0x10, 0x00]].concat();
    assert_eq!(feedback_of(&run_of_two).packets().count(), 1, "the count field limits a run");
    let mut short = bytes.clone();
    short[15] = 3;
    short[21] = 3;
    assert!(Compound::new(&short).next().unwrap().is_err(), "two deltas for three packets");
    bytes[20] = 0x60;
    assert!(Compound::new(&bytes).next().unwrap().is_err());
}

#[test]
fn empty_runs_in_feedback_do_not_stop_the_reader() {
    let mut bytes = vec![0x8f, 205, 0, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 1, 0];
    bytes.extend([0x00, 0x00, 0x00, 0x00, 0x20, 0x01, 0x10, 0x00]);
    assert_eq!(feedback_of(&bytes).packets().count(), 1);
}

proptest! {
    #[test]
    fn nacks_survive(mut lost in proptest::collection::vec(any::<u16>(), 1..60)) {
        lost.sort_unstable();
        lost.dedup();
        let mut buffer = [0; 1_200];
        let mut writer = CompoundWriter::new(&mut buffer);
        writer.nack(1, 2, lost.iter().copied()).unwrap();
        let RtcpPacket::Nack(nack) = one(writer.as_bytes()) else { panic!("no NACK") };
        prop_assert_eq!(nack.lost().collect::<Vec<_>>(), lost);
    }

    #[test]
    fn remb_rounds_down_to_eighteen_bits(bitrate: u64) {
        let mut buffer = [0; 64];
        let mut writer = CompoundWriter::new(&mut buffer);
        writer.remb(1, bitrate, &[]).unwrap();
        let RtcpPacket::Remb(remb) = one(writer.as_bytes()) else { panic!("no REMB") };
        prop_assert!(remb.bitrate <= bitrate);
        prop_assert!(bitrate - remb.bitrate <= bitrate >> 17);
    }

    #[test]
    fn feedback_survives_any_arrivals(
        base in 0_u64..200_000,
        steps in proptest::collection::vec((1_u64..40, prop_oneof![0_i64..64, -300_i64..3_000]), 1..400),
        room in 40_usize..1_200,
    ) {
        let mut sequence = base;
        let mut tick = 1_000_000_i64;
        let arrivals: Vec<(u64, i64)> = steps
            .into_iter()
            .map(|(gap, delta)| {
                sequence += gap;
                tick += delta;
                (sequence, tick)
            })
            .collect();
        let input: Vec<Arrival> = arrivals
            .iter()
            .map(|(sequence, tick)| Arrival { sequence: *sequence, at: DELTA_TICK * (*tick as u32) })
            .collect();
        let mut buffer = vec![0; room];
        let mut writer = CompoundWriter::new(&mut buffer);
        let held = writer.transport_feedback(&head(base), &input).unwrap();
        prop_assert!(held >= 1);
        let feedback = feedback_of(writer.as_bytes());
        let mut read = Vec::new();
        for (unwrapped, status) in (base..).zip(feedback.packets()) {
            prop_assert_eq!(status.sequence, unwrapped as u16);
            if let Some(arrival) = status.arrival {
                read.push((unwrapped, arrival));
            }
        }
        prop_assert_eq!(read, arrivals[..held].to_vec());
    }
}
