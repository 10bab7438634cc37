//! RTCP in both directions: reports, feedback, quality.

use std::time::Duration;

use headwater_model::media::{Codec, HeaderExtension, TransportKey};
use headwater_rtp::rtcp::{
    Compound, CompoundWriter, ReportBlock, RtcpPacket, SenderInfo, TransportFeedback,
};
use headwater_rtp::sequence::timestamp_distance;
use headwater_rtp::{NtpTime, RtpHeader, RtpView};
use headwater_sfu::{Quality, QualitySubject, SfuEvent};

use crate::harness::publisher::{Encoder, delta, key};
use crate::harness::{World, ids, mapping, publication, subscription};

const PUBLISHER: TransportKey = TransportKey(1);
const SUBSCRIBER: TransportKey = TransportKey(2);

fn write(with: impl FnOnce(&mut CompoundWriter<'_>)) -> Vec<u8> {
    let mut buffer = vec![0; 1_200];
    let mut writer = CompoundWriter::new(&mut buffer);
    with(&mut writer);
    let len = writer.finish();
    buffer.truncate(len);
    buffer
}

fn sender_report(ssrc: u32, at: Duration, rtp_timestamp: u32) -> Vec<u8> {
    let info =
        SenderInfo { ssrc, ntp: NtpTime::from_unix(at), rtp_timestamp, packets: 1, bytes: 1 };
    write(|writer| writer.sender_report(&info, &[]).unwrap())
}

#[test]
fn a_publisher_hears_how_its_packets_arrive() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.publish(PUBLISHER, 1, &publication(Codec::Vp8, "0", &[]));
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    world.batch(PUBLISHER, &encoder.picture(key(4), 3_000));
    world.pass(500);
    world.take_rtcp(PUBLISHER);
    let at = Duration::from_secs(1_000);
    world.rtcp(PUBLISHER, &sender_report(encoder.ssrc, at, encoder.timestamp));
    for frame in 0..30 {
        let mut packets = encoder.picture(delta(4, 0), 3_000);
        if frame % 2 == 0 {
            packets.remove(1);
        }
        world.batch(PUBLISHER, &packets);
        world.pass(20);
    }
    world.pass(400);
    let blocks: Vec<ReportBlock> = world
        .take_rtcp(PUBLISHER)
        .iter()
        .flat_map(|compound| {
            Compound::new(compound)
                .collect::<Vec<_>>()
                .into_iter()
                .filter_map(|packet| match packet {
                    Ok(RtcpPacket::ReceiverReport(report)) => {
                        Some(report.blocks().collect::<Vec<_>>())
                    }
                    _ => None,
                })
                .collect::<Vec<_>>()
        })
        .flatten()
        .collect();
    assert_eq!(blocks.len(), 1, "one second, one report");
    let block = blocks[0];
    assert_eq!(block.ssrc, encoder.ssrc);
    assert_eq!(block.cumulative_lost, 15);
    assert!((28..=36).contains(&block.fraction_lost), "{}", block.fraction_lost);
    assert_eq!(block.highest_sequence as u16, encoder.sequence.wrapping_sub(1));
    assert_eq!(block.last_sender_report, NtpTime::from_unix(at).compact());
    let delay = f64::from(block.delay_since_last_sender_report) / 65_536.0;
    assert!((0.6..=1.1).contains(&delay), "{delay}");
}

fn with_transport_sequence(sequence: u16, encoder: &mut Encoder) -> Vec<u8> {
    let packet = encoder.picture(delta(1, 0), 300).remove(0);
    let view = RtpView::parse(&packet).unwrap();
    let header = RtpHeader {
        payload_type: view.payload_type(),
        marker: view.marker(),
        sequence: view.sequence(),
        timestamp: view.timestamp(),
        ssrc: view.ssrc(),
    };
    let mut bytes = vec![0; 64];
    let len = header.write(&[(4, b"0"), (5, &sequence.to_be_bytes())], &mut bytes).unwrap();
    bytes.truncate(len);
    bytes.extend(view.payload());
    bytes
}

#[test]
fn transport_wide_feedback_tells_every_arrival_and_every_loss() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.publish(PUBLISHER, 1, &publication(Codec::Vp8, "0", &[]));
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    let lost = |number: u16| number % 10 == 3;
    let mut statuses: Vec<(u16, Option<i64>)> = Vec::new();
    let mut messages = 0;
    let mut counts = Vec::new();
    // From before the wrap to behind it, one packet a millisecond.
    let numbers: Vec<u16> = (0..1_000_u16).map(|n| n.wrapping_sub(500)).collect();
    for number in &numbers {
        let packet = with_transport_sequence(*number, &mut encoder);
        if !lost(*number) {
            world.rtp(PUBLISHER, &packet);
            world.drain();
        }
        world.pass(1);
    }
    world.pass(200);
    for compound in world.take_rtcp(PUBLISHER) {
        for packet in Compound::new(&compound) {
            if let Ok(RtcpPacket::TransportFeedback(feedback)) = packet {
                messages += 1;
                counts.push(feedback.feedback_count);
                statuses.extend(list(&feedback));
            }
        }
    }
    // The first number sent is lost or not; the list begins with the first arrival.
    let told: Vec<u16> = statuses.iter().map(|(number, _)| *number).collect();
    let skip = usize::from(lost(numbers[0]));
    let last = numbers.iter().rposition(|number| !lost(*number)).unwrap();
    assert_eq!(told, numbers[skip..=last]);
    assert!(statuses.iter().all(|(number, arrival)| lost(*number) != arrival.is_some()));
    let arrivals: Vec<_> = statuses.iter().filter_map(|(n, a)| a.map(|a| (*n, a))).collect();
    for pair in arrivals.windows(2) {
        let millis = i64::from(pair[1].0.wrapping_sub(pair[0].0));
        assert_eq!(pair[1].1 - pair[0].1, millis * 4, "quarters of a millisecond");
    }
    assert!((9..=13).contains(&messages), "{messages} in one second");
    assert_eq!(counts, (0..messages as u8).collect::<Vec<_>>());
}

fn list(feedback: &TransportFeedback<'_>) -> Vec<(u16, Option<i64>)> {
    feedback.packets().map(|status| (status.sequence, status.arrival)).collect()
}

#[test]
fn a_burst_gets_its_feedback_at_once() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.publish(PUBLISHER, 1, &publication(Codec::Vp8, "0", &[]));
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    for number in 0..120 {
        let packet = with_transport_sequence(number, &mut encoder);
        world.rtp(PUBLISHER, &packet);
    }
    world.drain();
    let compounds = world.take_rtcp(PUBLISHER);
    let told: usize = compounds
        .iter()
        .flat_map(|compound| Compound::new(compound))
        .filter_map(|packet| match packet {
            Ok(RtcpPacket::TransportFeedback(feedback)) => Some(list(&feedback).len()),
            _ => None,
        })
        .sum();
    assert_eq!(told, 120);
}

#[test]
fn a_publisher_without_transport_wide_feedback_gets_remb() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    let mut published = publication(Codec::Vp8, "0", &[]);
    published.codecs[0].transport_cc = false;
    world.publish(PUBLISHER, 1, &published);
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    let mut rates = Vec::new();
    for frame in 0..600 {
        let mut packets = encoder.picture(delta(4, 0), 3_000);
        // From the tenth second on every fourth packet is lost.
        if frame >= 300 {
            packets.remove(1);
        }
        world.batch(PUBLISHER, &packets);
        world.pass(33);
        for compound in world.take_rtcp(PUBLISHER) {
            for packet in Compound::new(&compound) {
                if let Ok(RtcpPacket::Remb(remb)) = packet {
                    assert_eq!(remb.sources().collect::<Vec<_>>(), [encoder.ssrc]);
                    rates.push(remb.bitrate);
                }
            }
        }
    }
    assert!((18..=21).contains(&rates.len()), "{}", rates.len());
    let top = *rates.iter().max().unwrap();
    assert!(top > 4_500_000, "{rates:?}");
    assert!(*rates.last().unwrap() < top / 2, "{rates:?}");
}

/// What a subscriber's last sender reports said, by SSRC.
fn clocks(world: &mut World) -> Vec<(u32, NtpTime, u32)> {
    let mut list = Vec::new();
    for compound in world.take_rtcp(SUBSCRIBER) {
        let mut named = Vec::new();
        let mut reported = Vec::new();
        for packet in Compound::new(&compound) {
            match packet.unwrap() {
                RtcpPacket::SenderReport(report) => {
                    let info = report.info;
                    reported.push(info.ssrc);
                    list.push((info.ssrc, info.ntp, info.rtp_timestamp));
                }
                RtcpPacket::SourceDescription(description) => {
                    named.extend(description.cnames().map(|(ssrc, _)| ssrc));
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(reported, named, "every report comes with a name");
    }
    list
}

#[test]
fn sender_reports_keep_sound_and_pictures_together() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.transport(SUBSCRIBER.0);
    let video = world.publish(PUBLISHER, 1, &publication(Codec::Vp8, "0", &[]));
    let mut sound = publication(Codec::Opus, "1", &[]);
    sound.codecs = vec![mapping(Codec::Opus, 111)];
    let sound = world.publish(PUBLISHER, 2, &sound);
    world.subscribe(1, video, SUBSCRIBER, &subscription(Codec::Vp8, 5_000));
    world.subscribe(2, sound, SUBSCRIBER, &subscription(Codec::Opus, 6_000));
    let mut camera = Encoder::new(Codec::Vp8, 0).with_mid("0");
    let mut microphone = Encoder::new(Codec::Opus, 1).with_mid("1");
    microphone.payload_type = 111;
    let epoch = Duration::from_secs(5_000);
    let (video_zero, sound_zero) = (camera.timestamp, microphone.timestamp);
    for tick in 0..500_u32 {
        let at = epoch + Duration::from_millis(u64::from(tick) * 20);
        let picture = if tick == 0 { key(2) } else { delta(2, 0) };
        // Pictures arrive 100 ms later than sound; reports of video another 40.
        world.batch(PUBLISHER, &microphone.picture(delta(1, 0), 960));
        if tick >= 5 {
            world
                .batch(PUBLISHER, &camera.picture(if tick == 5 { key(2) } else { picture }, 1_800));
        }
        if tick == 100 {
            world.rtcp(PUBLISHER, &sender_report(microphone.ssrc, at, sound_zero + 960 * tick));
        }
        if tick == 107 {
            let then = at - Duration::from_millis(140);
            let rtp = video_zero.wrapping_add(1_800 * 100);
            world.rtcp(PUBLISHER, &sender_report(camera.ssrc, then, rtp));
        }
        world.pass(20);
    }
    let list = clocks(&mut world);
    assert!((6..=10).contains(&list.len()), "every three seconds: {}", list.len());
    let last = |ssrc| *list.iter().rfind(|(found, _, _)| *found == ssrc).unwrap();
    let (_, video_ntp, video_rtp) = last(5_000);
    let (_, sound_ntp, sound_rtp) = last(6_000);
    assert_eq!(video_ntp, sound_ntp, "one compound, one time");
    // Where each stream stands at its beginning, seen through its report.
    let packets = world.take_rtp(SUBSCRIBER);
    let first = |ssrc: u32| {
        let views = packets.iter().map(|packet| RtpView::parse(packet).unwrap());
        views.into_iter().find(|view| view.ssrc() == ssrc).unwrap().timestamp()
    };
    let video_age = f64::from(timestamp_distance(video_rtp, first(5_000))) / 90.0;
    let sound_age = f64::from(timestamp_distance(sound_rtp, first(6_000))) / 48.0;
    // Both began at the same time of the publisher.
    assert!((video_age - sound_age).abs() < 5.0, "{video_age} ms, {sound_age} ms");
}

#[test]
fn quality_is_told_every_five_seconds_and_not_of_silence() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.transport(SUBSCRIBER.0);
    let track = world.publish(PUBLISHER, 1, &publication(Codec::Vp8, "0", &[]));
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, SUBSCRIBER, &wanted);
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    let mut sent = 0_u32;
    let mut last_report = 0;
    for frame in 0..460 {
        let picture = if frame == 0 { key(4) } else { delta(4, 0) };
        let mut packets = encoder.picture(picture, 2_970);
        if frame > 0 && frame % 4 == 0 {
            packets.remove(1);
        }
        world.batch(PUBLISHER, &packets);
        world.pass(33);
        sent += world.take_rtp(SUBSCRIBER).len() as u32;
        for (_, ntp, _) in clocks(&mut world) {
            last_report = ntp.compact();
        }
        if frame % 30 == 29 {
            // A tenth of what is sent gets lost behind us; the report comes 50 ms later.
            let block = ReportBlock {
                ssrc: 5_000,
                fraction_lost: 25,
                cumulative_lost: (sent / 10).cast_signed(),
                highest_sequence: sent,
                jitter: 900,
                last_sender_report: last_report,
                delay_since_last_sender_report: 0,
            };
            let report = write(|writer| writer.receiver_report(9, &[block]).unwrap());
            world.rtcp(SUBSCRIBER, &report);
        }
    }
    let qualities = |world: &World| -> Vec<Quality> {
        let quality = |event: &SfuEvent| match event {
            SfuEvent::Quality(quality) => Some(*quality),
            _ => None,
        };
        world.events.iter().filter_map(quality).collect()
    };
    let list = qualities(&world);
    let of = |subject| list.iter().filter(move |quality| quality.subject == subject);
    let published: Vec<_> = of(QualitySubject::Published(track)).collect();
    assert_eq!(published.len(), 3);
    for quality in published {
        assert!((0.05..0.075).contains(&quality.loss_ratio), "{quality:?}");
    }
    let received: Vec<_> = of(QualitySubject::Subscriber(SUBSCRIBER)).collect();
    assert!(received.len() >= 2, "{}", received.len());
    for quality in received {
        assert!((0.09..0.11).contains(&quality.loss_ratio), "{quality:?}");
        assert_eq!(quality.jitter, Duration::from_millis(10));
        assert!(quality.rtt.is_some());
    }
    let count = list.len();
    // Silence: one more look at the rest of the last interval, then nothing.
    world.pass(5_000);
    let settled = qualities(&world).len();
    assert!(settled <= count + 2);
    world.pass(60_000);
    assert_eq!(qualities(&world).len(), settled);
}

#[test]
fn an_idle_core_needs_no_timer() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.transport(SUBSCRIBER.0);
    let track = world.publish(PUBLISHER, 1, &publication(Codec::Vp8, "0", &["q", "h"]));
    world.subscribe(1, track, SUBSCRIBER, &subscription(Codec::Vp8, 5_000));
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0").with_rid("q");
    encoder.ids = ids(&[
        (HeaderExtension::Mid, 4),
        (HeaderExtension::Rid, 10),
        (HeaderExtension::RepairedRid, 11),
        (HeaderExtension::DependencyDescriptor, 13),
    ]);
    for frame in 0..50 {
        let picture = if frame == 0 { key(3) } else { delta(3, 0) };
        world.batch(PUBLISHER, &encoder.picture(picture, 3_000));
        world.pass(33);
    }
    world.pass(60_000);
    assert_eq!(world.sfu.poll_timeout(), None);
}
