//! Switching between encodings of one track.

use headwater_model::media::{Codec, Publication, SubscriptionTarget};
use headwater_sfu::SfuEvent;

use crate::harness::publisher::{Encoder, delta, key};
use crate::harness::random::Random;
use crate::harness::subscriber::Receiver;
use crate::harness::{World, publication, subscription};

const RIDS: [&str; 3] = ["q", "h", "f"];

fn encoders(codec: Codec) -> Vec<Encoder> {
    (0..3)
        .map(|index| Encoder::new(codec, index).with_mid("0").with_rid(RIDS[usize::from(index)]))
        .collect()
}

/// Encodings that all fit what a network is taken for at first.
fn simulcast(codec: Codec) -> Publication {
    let mut publication = publication(codec, "0", &RIDS);
    for encoding in &mut publication.encodings {
        encoding.bitrate = 200_000 * (u32::from(encoding.spatial) + 1);
    }
    publication
}

fn up_to(spatial: u8) -> SubscriptionTarget {
    SubscriptionTarget::UpTo { spatial, temporal: u8::MAX }
}

/// A publisher that answers every request for a keyframe with the next picture.
struct Camera {
    encoders: Vec<Encoder>,
    wants_key: Vec<bool>,
    /// Encodings that are sent.
    live: Vec<bool>,
    /// The highest encoding comes first.
    reversed: bool,
}

impl Camera {
    fn new(codec: Codec) -> Self {
        Self {
            encoders: encoders(codec),
            wants_key: vec![true; 3],
            live: vec![true; 3],
            reversed: false,
        }
    }

    /// One picture of each encoding, 33 ms, with what the core asks of it.
    fn picture(&mut self, world: &mut World) {
        use headwater_rtp::rtcp::{Compound, RtcpPacket};
        let from = headwater_model::media::TransportKey(1);
        for compound in world.take_rtcp(from) {
            for packet in Compound::new(&compound) {
                if let Ok(RtcpPacket::PictureLossIndication(pli)) = packet {
                    let index =
                        self.encoders.iter().position(|e| e.ssrc == pli.media_ssrc).unwrap();
                    self.wants_key[index] = true;
                }
            }
        }
        let mut pictures = Vec::new();
        for (index, encoder) in self.encoders.iter_mut().enumerate() {
            if !self.live[index] {
                encoder.timestamp = encoder.timestamp.wrapping_add(2_970);
                continue;
            }
            let picture =
                if std::mem::take(&mut self.wants_key[index]) { key(4) } else { delta(2, 0) };
            pictures.push(encoder.picture(picture, 2_970));
        }
        if self.reversed {
            pictures.reverse();
        }
        let batch: Vec<_> = pictures.concat();
        world.batch(from, &batch);
        world.pass(33);
    }

    fn pictures(&mut self, world: &mut World, count: usize) {
        for _ in 0..count {
            self.picture(world);
        }
    }
}

fn switching_is_seamless(codec: Codec) {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let track = world.publish(publisher, 1, &simulcast(codec));
    let wanted = subscription(codec, 5_000);
    let subscription = world.subscribe(1, track, subscriber, &wanted);
    let mut camera = Camera::new(codec);
    for spatial in [2, 0, 1, 0, 2] {
        world.sfu.set_target(world.now, subscription, up_to(spatial)).unwrap();
        camera.pictures(&mut world, 60);
    }
    let mut receiver = Receiver::new(&wanted);
    receiver.take_all(world.take_rtp(subscriber));
    receiver.check();
    assert_eq!(receiver.encodings(), [2, 0, 1, 0, 2]);
    let told: Vec<u8> = world
        .events
        .iter()
        .filter_map(|event| match event {
            SfuEvent::LayerForwarded { spatial, .. } => Some(*spatial),
            _ => None,
        })
        .collect();
    assert_eq!(told, [2, 0, 1, 0, 2]);
    // Five targets of 60 pictures: nearly every picture was seen, so nothing froze.
    let pictures = receiver.packets().filter(|packet| packet.marker).count();
    assert!(pictures > 290, "{pictures}");
}

#[test]
fn switching_between_vp8_encodings_is_seamless() {
    switching_is_seamless(Codec::Vp8);
}

#[test]
fn switching_between_h264_encodings_is_seamless() {
    switching_is_seamless(Codec::H264);
}

#[test]
fn switching_between_vp9_encodings_is_seamless() {
    switching_is_seamless(Codec::Vp9);
}

#[test]
fn switching_between_av1_encodings_is_seamless() {
    switching_is_seamless(Codec::Av1);
}

#[test]
fn a_switch_waits_for_a_keyframe_and_asks_for_it() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let track = world.publish(publisher, 1, &simulcast(Codec::Vp8));
    let wanted = subscription(Codec::Vp8, 5_000);
    let subscription = world.subscribe(1, track, subscriber, &wanted);
    world.sfu.set_target(world.now, subscription, up_to(0)).unwrap();
    let mut camera = Camera::new(Codec::Vp8);
    camera.pictures(&mut world, 60);
    world.sfu.set_target(world.now, subscription, up_to(2)).unwrap();
    world.drain();
    let asked = world.sfu.stats().keyframe_requests_out;
    // The publisher does not hear it, and goes on without keyframes.
    world.take_rtcp(publisher);
    for _ in 0..10 {
        world.take_rtcp(publisher);
        camera.picture(&mut world);
    }
    assert!(asked > 0);
    let mut receiver = Receiver::new(&wanted);
    receiver.take_all(world.take_rtp(subscriber));
    assert_eq!(receiver.encodings(), [0]);
    // It is asked again, hears it, and the switch is made.
    camera.pictures(&mut world, 60);
    receiver.take_all(world.take_rtp(subscriber));
    receiver.check();
    assert_eq!(receiver.encodings(), [0, 2]);
}

#[test]
fn an_encoding_that_is_not_sent_any_more_is_replaced_by_a_lower_one() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let track = world.publish(publisher, 1, &simulcast(Codec::Vp8));
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, subscriber, &wanted);
    let mut camera = Camera::new(Codec::Vp8);
    camera.pictures(&mut world, 30);
    camera.live = vec![true, true, false];
    camera.pictures(&mut world, 90);
    camera.live = vec![true, true, true];
    camera.pictures(&mut world, 60);
    let mut receiver = Receiver::new(&wanted);
    receiver.take_all(world.take_rtp(subscriber));
    receiver.check();
    assert_eq!(receiver.encodings(), [2, 1, 2]);
}

#[test]
fn a_wanted_encoding_that_never_came_is_replaced_by_what_there_is() {
    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let track = world.publish(publisher, 1, &simulcast(Codec::Vp8));
    let wanted = subscription(Codec::Vp8, 5_000);
    let subscription = world.subscribe(1, track, subscriber, &wanted);
    world.sfu.set_target(world.now, subscription, up_to(0)).unwrap();
    let mut camera = Camera::new(Codec::Vp8);
    camera.live = vec![false, true, false];
    camera.pictures(&mut world, 30);
    let mut receiver = Receiver::new(&wanted);
    receiver.take_all(world.take_rtp(subscriber));
    receiver.check();
    assert_eq!(receiver.encodings(), [1]);
}

#[test]
fn sender_reports_decide_the_timestamp_of_a_switch() {
    use headwater_rtp::NtpTime;
    use headwater_rtp::rtcp::{CompoundWriter, SenderInfo};
    use std::time::Duration;

    let mut world = World::new();
    let (publisher, subscriber) = (world.transport(1), world.transport(2));
    let track = world.publish(publisher, 1, &simulcast(Codec::Vp8));
    let wanted = subscription(Codec::Vp8, 5_000);
    let subscription = world.subscribe(1, track, subscriber, &wanted);
    world.sfu.set_target(world.now, subscription, up_to(0)).unwrap();
    let mut camera = Camera::new(Codec::Vp8);
    camera.pictures(&mut world, 10);
    // All encodings show one clock: these timestamps are the same moment.
    for encoder in &camera.encoders {
        let mut buffer = [0; 64];
        let mut writer = CompoundWriter::new(&mut buffer);
        let info = SenderInfo {
            ssrc: encoder.ssrc,
            ntp: NtpTime::from_unix(Duration::from_secs(1_000)),
            rtp_timestamp: encoder.timestamp,
            packets: 1,
            bytes: 1,
        };
        writer.sender_report(&info, &[]).unwrap();
        let len = writer.finish();
        world.sfu.handle_rtcp(world.now, publisher, &buffer[..len]);
    }
    camera.pictures(&mut world, 10);
    // The keyframe of the switch comes 20 ms late, which must not move its time.
    camera.reversed = true;
    world.sfu.set_target(world.now, subscription, up_to(2)).unwrap();
    world.drain();
    world.pass(20);
    camera.pictures(&mut world, 60);
    let mut receiver = Receiver::new(&wanted);
    receiver.take_all(world.take_rtp(subscriber));
    receiver.check();
    assert_eq!(receiver.encodings(), [0, 2]);
    let ends: Vec<_> = receiver.packets().filter(|packet| packet.marker).collect();
    let switch = ends
        .windows(2)
        .find(|pair| pair[0].mark.unwrap().encoding != pair[1].mark.unwrap().encoding)
        .unwrap();
    let (before, after) = (switch[0], switch[1]);
    let frames = after.mark.unwrap().frame - before.mark.unwrap().frame;
    assert_eq!(frames, 1);
    assert_eq!(after.timestamp.wrapping_sub(before.timestamp), 2_970);
}

#[test]
fn random_targets_never_break_the_stream() {
    let mut random = Random::new(42);
    for codec in [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1] {
        let mut world = World::new();
        let (publisher, subscriber) = (world.transport(1), world.transport(2));
        let track = world.publish(publisher, 1, &simulcast(codec));
        let wanted = subscription(codec, 5_000);
        let subscription = world.subscribe(1, track, subscriber, &wanted);
        let mut camera = Camera::new(codec);
        for _ in 0..60 {
            match random.below(8) {
                0 => {
                    let paused = SubscriptionTarget::Paused;
                    world.sfu.set_target(world.now, subscription, paused).unwrap();
                }
                1 => camera.live = (0..3).map(|_| random.percent(70)).collect(),
                2 => {
                    let muted = random.percent(50);
                    world.sfu.set_muted(world.now, track, muted);
                }
                _ => {
                    let target = up_to(random.below(4) as u8);
                    world.sfu.set_target(world.now, subscription, target).unwrap();
                }
            }
            let count = random.below(30) as usize;
            camera.pictures(&mut world, count);
        }
        world.sfu.set_muted(world.now, track, false);
        world.sfu.set_target(world.now, subscription, SubscriptionTarget::BEST).unwrap();
        camera.live = vec![true; 3];
        camera.pictures(&mut world, 100);
        let mut receiver = Receiver::new(&wanted);
        receiver.take_all(world.take_rtp(subscriber));
        receiver.check();
        assert_eq!(receiver.last().unwrap().mark.unwrap().encoding, 2);
    }
}
