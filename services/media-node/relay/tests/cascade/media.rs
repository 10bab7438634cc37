//! Media over A -> B -> C: the same at the end as at the beginning, one copy a link.

use std::collections::BTreeSet;
use std::time::Duration;

use headwater_model::media::{Codec, HeaderExtension, TransportKey};
use headwater_rtp::NtpTime;
use headwater_rtp::rtcp::{Compound, CompoundWriter, RtcpPacket, SenderInfo};
use headwater_sfu::SfuEvent;

use crate::cluster::{Cluster, address};
use crate::harness::microphone::{
    Microphone, PACKET, TAKEN_RED, publication_with_red, subscription_with_red,
};
use crate::harness::publication;
use crate::harness::publisher::{Encoder, Picture, delta, key};
use crate::harness::subscriber::Received;
use crate::wire::Quality;

const CHAIN: &[(&str, Option<&str>, &[&str])] =
    &[("a", None, &[]), ("b", Some("a"), &[]), ("c", Some("b"), &[])];
const RIDS: [&str; 3] = ["q", "h", "f"];

fn encoders() -> Vec<Encoder> {
    let with_rid = |(encoding, rid): (u8, &&str)| {
        Encoder::new(Codec::Vp8, encoding).with_mid("0").with_rid(rid)
    };
    (0..).zip(&RIDS).map(with_rid).collect()
}

/// A picture of every encoding.
fn pictures(encoders: &mut [Encoder], picture: Picture) -> Vec<Vec<u8>> {
    encoders.iter_mut().flat_map(|encoder| encoder.picture(picture, 3_000)).collect()
}

/// Sends pictures for a time, a keyframe first and when one is asked for. Returns how
/// many packets each encoding had, and how many keyframes and packets were asked for.
fn run(
    cluster: &mut Cluster,
    (name, publisher): (&str, TransportKey),
    encoders: &mut [Encoder],
    frames: u32,
) -> (usize, usize, usize) {
    let (mut packets, mut keyframes, mut nacks) = (0, 0, 0);
    let mut wanted = BTreeSet::new();
    for _ in 0..frames {
        for encoder in encoders.iter_mut() {
            let picture = if wanted.remove(&encoder.ssrc) || encoder.frame == 0 {
                Picture { size: 1_000, ..key(4) }
            } else {
                Picture { size: 900, ..delta(3, 0) }
            };
            let made = encoder.picture(picture, 3_000);
            packets += made.len();
            cluster.rtp(name, publisher, &made);
        }
        cluster.pass(33);
        for compound in cluster.rtcp_to(name, publisher) {
            for packet in Compound::new(&compound).flatten() {
                match packet {
                    RtcpPacket::PictureLossIndication(pli) => {
                        keyframes += 1;
                        wanted.insert(pli.media_ssrc);
                    }
                    RtcpPacket::Nack(nack) => nacks += nack.lost().count(),
                    _ => {}
                }
            }
        }
    }
    (packets, keyframes, nacks)
}

fn chain() -> (Cluster, TransportKey, Vec<Encoder>) {
    let mut cluster = Cluster::new(&["a", "b", "c"]);
    cluster.plan(1, CHAIN);
    let now = cluster.now;
    let publication = publication(Codec::Vp8, "0", &RIDS);
    let (publisher, _) = cluster.shard("a").publish(now, "TR_1", 1, &publication);
    cluster.pass(20);
    (cluster, publisher, encoders())
}

#[test]
fn viewers_two_links_away_get_the_media_as_it_was_sent() {
    let (mut cluster, publisher, mut encoders) = chain();
    let now = cluster.now;
    let track = cluster.shard("c").track("TR_1");
    let viewers: Vec<_> = (0..5).map(|_| cluster.shard("c").view(now, track, Codec::Vp8)).collect();
    let near = {
        let track = cluster.shard("b").track("TR_1");
        cluster.shard("b").view(now, track, Codec::Vp8)
    };
    run(&mut cluster, ("a", publisher), &mut encoders, 150);
    let last_frame = encoders[2].frame - 1;
    for (name, viewer) in viewers.iter().map(|viewer| ("c", *viewer)).chain([("b", near)]) {
        let receiver = &cluster.shard(name).viewer(viewer).receiver;
        receiver.check();
        let last = receiver.last().and_then(|packet| packet.mark).unwrap();
        assert_eq!((last.encoding, last.frame), (2, last_frame), "the best layer, to the end");
        assert!(receiver.len() > 300, "{} packets", receiver.len());
    }
    let relayed = cluster.shard("c").report("b").stats;
    println!("one way b -> c: {:?}, rtt {:?}", relayed.one_way, relayed.rtt);
}

#[test]
fn a_link_carries_one_copy_of_the_wanted_layer_whatever_the_number_of_viewers() {
    let mut bytes = Vec::new();
    for viewers in [1, 50] {
        let (mut cluster, publisher, mut encoders) = chain();
        let now = cluster.now;
        let track = cluster.shard("c").track("TR_1");
        for _ in 0..viewers {
            cluster.shard("c").view(now, track, Codec::Vp8);
        }
        // Until the best layer is the only one wanted.
        run(&mut cluster, ("a", publisher), &mut encoders, 150);
        let before = cluster.shard("b").report("c").stats;
        let first = encoders[2].frame;
        run(&mut cluster, ("a", publisher), &mut encoders, 100);
        let after = cluster.shard("b").report("c").stats;
        let frames = after.frames_out - before.frames_out;
        let pictures = encoders[2].frame - first;
        assert_eq!(frames, u64::from(pictures) * 3, "three packets a picture, once");
        bytes.push(after.media_bytes_out - before.media_bytes_out);
        let trains = after.trains_out - before.trains_out;
        println!("{viewers} viewers: {frames} frames in {trains} trains");
        assert_eq!(trains, frames, "packets of 900 bytes do not share a datagram of 1,160");
    }
    println!("bytes on b -> c in 3.3 s: {bytes:?} with 1 and 50 viewers");
    assert_eq!(bytes[0], bytes[1]);
}

#[test]
fn small_packets_share_datagrams() {
    let (mut cluster, publisher, mut encoders) = chain();
    let now = cluster.now;
    let track = cluster.shard("b").track("TR_1");
    cluster.shard("b").view(now, track, Codec::Vp8);
    for index in 0..60 {
        let picture = if index == 0 { key(6) } else { delta(6, 0) };
        let packets = pictures(&mut encoders, picture);
        cluster.rtp("a", publisher, &packets);
        cluster.pass(33);
    }
    let stats = cluster.shard("a").report("b").stats;
    println!("{} frames in {} trains", stats.frames_out, stats.trains_out);
    assert!(stats.frames_out >= stats.trains_out * 4);
}

#[test]
fn many_requests_for_a_keyframe_reach_the_publisher_once() {
    let (mut cluster, publisher, mut encoders) = chain();
    let now = cluster.now;
    let track = cluster.shard("c").track("TR_1");
    let viewers: Vec<_> =
        (0..20).map(|_| cluster.shard("c").view(now, track, Codec::Vp8)).collect();
    run(&mut cluster, ("a", publisher), &mut encoders, 120);
    let now = cluster.now;
    for viewer in viewers {
        let shard = cluster.shard("c");
        let pli = shard.viewer(viewer).receiver.pli();
        shard.sfu.handle_rtcp(now, viewer, &pli);
    }
    let (_, keyframes, _) = run(&mut cluster, ("a", publisher), &mut encoders, 25);
    assert_eq!(keyframes, 1);
}

#[test]
fn a_late_viewer_behind_a_relay_begins_with_the_stored_keyframe() {
    let (mut cluster, publisher, mut encoders) = chain();
    let now = cluster.now;
    let near = cluster.shard("b").track("TR_1");
    cluster.shard("b").view(now, near, Codec::Vp8);
    run(&mut cluster, ("a", publisher), &mut encoders, 120);
    // A keyframe on every layer, and half a second behind it a viewer comes to C.
    let packets = pictures(&mut encoders, key(4));
    cluster.rtp("a", publisher, &packets);
    run(&mut cluster, ("a", publisher), &mut encoders, 15);
    let now = cluster.now;
    let track = cluster.shard("c").track("TR_1");
    let viewer = cluster.shard("c").view(now, track, Codec::Vp8);
    let (_, keyframes, _) = run(&mut cluster, ("a", publisher), &mut encoders, 8);
    let shard = cluster.shard("c");
    let viewer = shard.viewer(viewer);
    let waited = *viewer.arrivals.first().unwrap() - now;
    println!("first packet after {waited:?}, {keyframes} keyframes asked for");
    assert!(waited < Duration::from_millis(150), "{waited:?}");
    viewer.receiver.check();
}

#[test]
fn what_a_link_loses_is_repaired_on_that_link() {
    let (mut cluster, publisher, mut encoders) = chain();
    let quality = Quality { delay: Duration::from_millis(20), loss: 3 };
    cluster.wires.lock().unwrap().quality = quality;
    let now = cluster.now;
    let track = cluster.shard("c").track("TR_1");
    let viewer = cluster.shard("c").view(now, track, Codec::Vp8);
    let (_, _, nacks) = run(&mut cluster, ("a", publisher), &mut encoders, 300);
    cluster.wires.lock().unwrap().quality.loss = 0;
    run(&mut cluster, ("a", publisher), &mut encoders, 30);
    assert_eq!(nacks, 0, "nothing was missing at the first shard");
    cluster.shard("c").viewer(viewer).receiver.check();
    for (parent, child) in [("a", "b"), ("b", "c")] {
        let stats = cluster.shard(parent).report(child).stats;
        let lost = cluster.wires.lock().unwrap();
        let passed = lost.between(&address(child), &address(parent)).passed_down;
        println!("{parent} -> {child}: lost {}, repeated {}", passed.lost, stats.repeated_out);
        assert!(passed.lost > 10 && stats.repeated_out > 10);
        assert!(stats.lost_out > 0, "the parent learns of the loss");
        let rtt = stats.rtt.unwrap();
        assert!((38..60).contains(&rtt.as_millis()), "{rtt:?}");
    }
}

#[test]
fn a_speaker_on_a_leaf_is_seen_on_the_whole_tree() {
    let mut cluster = Cluster::new(&["a", "b", "c", "d"]);
    let plan: [(&str, Option<&str>, &[&str]); 4] =
        [("a", None, &[]), ("b", Some("a"), &[]), ("c", Some("b"), &[]), ("d", Some("a"), &[])];
    cluster.plan(1, &plan);
    cluster.pass(20);
    let now = cluster.now;
    let publication = publication(Codec::Vp8, "0", &RIDS);
    let (publisher, _) = cluster.shard("c").publish(now, "TR_1", 1, &publication);
    cluster.pass(20);
    let mut viewers = Vec::new();
    for name in ["a", "b", "d"] {
        let track = cluster.shard(name).track("TR_1");
        viewers.push((name, cluster.shard(name).view(now, track, Codec::Vp8)));
    }
    let mut encoders = encoders();
    run(&mut cluster, ("c", publisher), &mut encoders, 120);
    for (name, viewer) in viewers {
        let receiver = &cluster.shard(name).viewer(viewer).receiver;
        receiver.check();
        let last = receiver.last().and_then(|packet| packet.mark).unwrap();
        assert_eq!((last.encoding, last.frame), (2, encoders[2].frame - 1), "on {name}");
    }
    let looped: u64 = cluster
        .shards
        .values()
        .flat_map(|shard| shard.relay.reports())
        .map(|report| report.stats.drops.looped_announcements)
        .sum();
    assert_eq!(looped, 0, "nothing was even announced back");
}

#[test]
fn packets_too_long_for_a_datagram_arrive_all_the_same() {
    let (mut cluster, publisher, mut encoders) = chain();
    let now = cluster.now;
    let track = cluster.shard("c").track("TR_1");
    let viewer = cluster.shard("c").view(now, track, Codec::Vp8);
    for index in 0..90 {
        let picture = if index % 30 == 0 { key(3) } else { delta(3, 0) };
        let packets = pictures(&mut encoders, Picture { size: 1_180, ..picture });
        cluster.rtp("a", publisher, &packets);
        cluster.pass(33);
    }
    let stats = cluster.shard("b").report("c").stats;
    assert!(stats.long_frames_out > 100, "{stats:?}");
    let receiver = &cluster.shard("c").viewer(viewer).receiver;
    receiver.check();
    assert_eq!(receiver.last().and_then(|p| p.mark).unwrap().frame, encoders[2].frame - 1);
}

#[test]
fn the_speakers_clock_and_loudness_travel_with_the_sound() {
    let mut cluster = Cluster::new(&["a", "b", "c"]);
    cluster.plan(1, CHAIN);
    let now = cluster.now;
    let (publisher, _) =
        cluster.shard("a").publish(now, "TR_1", 1, &publication(Codec::Opus, "0", &[]));
    cluster.pass(20);
    let now = cluster.now;
    let track = cluster.shard("c").track("TR_1");
    let viewer = cluster.shard("c").view(now, track, Codec::Opus);
    let mut encoder = Encoder::new(Codec::Opus, 0).with_mid("0");
    encoder.level = Some(20);
    let (mut reported, mut told) = (None, None);
    for index in 0..250 {
        let timestamp = encoder.timestamp;
        let packets = encoder.picture(Picture::default(), 960);
        cluster.rtp("a", publisher, &packets);
        if index == 50 {
            let mut report = vec![0; 100];
            let mut writer = CompoundWriter::new(&mut report);
            let ntp = NtpTime::from_unix(Duration::from_secs(1_700_000_000));
            let (ssrc, rtp_timestamp) = (encoder.ssrc, timestamp);
            let info = SenderInfo { ssrc, ntp, rtp_timestamp, packets: 1, bytes: 1 };
            writer.sender_report(&info, &[]).unwrap();
            let len = writer.finish();
            let now = cluster.now;
            cluster.shard("a").sfu.handle_rtcp(now, publisher, &report[..len]);
            reported = Some(cluster.now);
        }
        cluster.pass(20);
        for compound in cluster.rtcp_to("c", viewer) {
            for packet in Compound::new(&compound).flatten() {
                if let RtcpPacket::SenderReport(report) = packet
                    && reported.is_some_and(|at| cluster.now > at + Duration::from_secs(1))
                {
                    told = Some((report.info.rtp_timestamp, report.info.ntp));
                }
            }
        }
    }
    let shard = cluster.shard("c");
    assert!(
        shard
            .sfu_events
            .iter()
            .any(|event| matches!(event, SfuEvent::SpeakerLevel { active: true, .. }))
    );
    assert!(told.is_some(), "a sender report with the publisher's clock");
    let loud = shard.viewer(viewer).receiver.packets().filter(|packet| {
        packet
            .extensions
            .iter()
            .any(|(kind, value)| *kind == HeaderExtension::AudioLevel && value[0] & 0x7f == 20)
    });
    assert!(loud.count() > 200);
}

#[test]
fn redundancy_of_sound_crosses_links_and_makes_up_for_what_was_lost_before_them() {
    let mut cluster = Cluster::new(&["a", "b", "c"]);
    cluster.plan(1, CHAIN);
    let now = cluster.now;
    let (publisher, _) = cluster.shard("a").publish(now, "TR_1", 1, &publication_with_red());
    cluster.pass(20);
    let now = cluster.now;
    let track = cluster.shard("c").track("TR_1");
    let plain = cluster.shard("c").view(now, track, Codec::Opus);
    let capable = cluster.shard("c").view_as(now, track, subscription_with_red(9_000));
    let mut microphone = Microphone::new(1);
    for index in 0..250 {
        let packet = microphone.packet(PACKET);
        if index % 10 != 5 {
            cluster.rtp("a", publisher, &[packet]);
        }
        cluster.pass(20);
    }
    for viewer in [plain, capable] {
        let receiver = &cluster.shard("c").viewer(viewer).receiver;
        assert_eq!(receiver.missing(), Vec::<u16>::new());
        assert!(receiver.len() > 240, "{} packets", receiver.len());
        let places = |packet: &Received| {
            let frame = packet.mark.unwrap().frame;
            (packet.sequence - u64::from(frame), packet.timestamp.wrapping_sub(frame * PACKET))
        };
        let first = receiver.packets().next().map(places);
        assert!(receiver.packets().all(|packet| Some(places(packet)) == first));
    }
    let in_red = |packet: &&Received| packet.payload_type == TAKEN_RED;
    let received = |cluster: &mut Cluster, viewer| {
        cluster.shard("c").viewer(viewer).receiver.packets().filter(in_red).count()
    };
    assert!(received(&mut cluster, capable) > 215);
    assert_eq!(received(&mut cluster, plain), 0);
    assert_eq!(cluster.shard("a").sfu.stats().recovered, 25);
    assert_eq!(cluster.shard("c").sfu.stats().recovered, 0, "nothing was missing any more");
}
