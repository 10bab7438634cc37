//! Audio: forwarded as it is, and who speaks.

use headwater_model::media::{Codec, SubscriptionTarget, TransportKey};
use headwater_sfu::SfuEvent;

use crate::harness::publisher::{Encoder, delta};
use crate::harness::subscriber::Receiver;
use crate::harness::{World, publication, subscription};

const PUBLISHER: TransportKey = TransportKey(1);

fn talk(world: &mut World, encoder: &mut Encoder, millis: u64, level: u8) {
    encoder.level = Some(level);
    for _ in 0..millis / 20 {
        let packet = encoder.picture(delta(1, 0), 960);
        world.batch(PUBLISHER, &packet);
        world.pass(20);
    }
}

fn levels(world: &World) -> Vec<(f32, bool)> {
    let level = |event: &SfuEvent| match event {
        SfuEvent::SpeakerLevel { level, active, .. } => Some((*level, *active)),
        _ => None,
    };
    world.events.iter().filter_map(level).collect()
}

#[test]
fn a_speaker_is_told_when_he_begins_and_when_he_ends() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.publish(PUBLISHER, 1, &publication(Codec::Opus, "0", &[]));
    let mut encoder = Encoder::new(Codec::Opus, 0).with_mid("0");
    talk(&mut world, &mut encoder, 3_000, 100);
    assert_eq!(levels(&world), []);
    talk(&mut world, &mut encoder, 3_000, 20);
    assert_eq!(levels(&world), [(0.125, true)]);
    talk(&mut world, &mut encoder, 3_000, 100);
    assert_eq!(levels(&world), [(0.125, true), (0.0, false)]);
}

#[test]
fn a_speaker_who_falls_silent_without_a_word_is_told() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    let track = world.publish(PUBLISHER, 1, &publication(Codec::Opus, "0", &[]));
    let mut encoder = Encoder::new(Codec::Opus, 0).with_mid("0");
    talk(&mut world, &mut encoder, 3_000, 20);
    world.pass(5_000);
    assert_eq!(levels(&world), [(0.125, true), (0.0, false)]);
    talk(&mut world, &mut encoder, 3_000, 20);
    world.sfu.set_muted(world.now, track, true);
    world.drain();
    assert_eq!(levels(&world).len(), 4);
    talk(&mut world, &mut encoder, 3_000, 20);
    assert_eq!(levels(&world).len(), 4, "a muted speaker is silent");
}

#[test]
fn audio_goes_on_without_a_gap_after_mute_and_pause() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    let subscriber = world.transport(2);
    let track = world.publish(PUBLISHER, 1, &publication(Codec::Opus, "0", &[]));
    let wanted = subscription(Codec::Opus, 5_000);
    let subscription = world.subscribe(1, track, subscriber, &wanted);
    let mut encoder = Encoder::new(Codec::Opus, 0).with_mid("0");
    let mut receiver = Receiver::new(&wanted);
    for _ in 0..3 {
        talk(&mut world, &mut encoder, 1_000, 20);
        world.sfu.set_muted(world.now, track, true);
        talk(&mut world, &mut encoder, 1_000, 20);
        world.sfu.set_muted(world.now, track, false);
        talk(&mut world, &mut encoder, 1_000, 20);
        let paused = SubscriptionTarget::Paused;
        world.sfu.set_target(world.now, subscription, paused).unwrap();
        talk(&mut world, &mut encoder, 1_000, 20);
        world.sfu.set_target(world.now, subscription, SubscriptionTarget::BEST).unwrap();
    }
    receiver.take_all(world.take_rtp(subscriber));
    assert_eq!(receiver.missing(), Vec::<u16>::new());
    assert_eq!(receiver.len(), 3 * 100);
    let packets: Vec<_> = receiver.packets().collect();
    for pair in packets.windows(2) {
        let frames = pair[1].mark.unwrap().frame - pair[0].mark.unwrap().frame;
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert_eq!(step, 960 * frames, "silence takes as long as it took");
    }
}

#[test]
fn audio_begins_with_whatever_comes_first() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    let track = world.publish(PUBLISHER, 1, &publication(Codec::Opus, "0", &[]));
    let mut encoder = Encoder::new(Codec::Opus, 0).with_mid("0");
    talk(&mut world, &mut encoder, 1_000, 20);
    let subscriber = world.transport(2);
    world.subscribe(1, track, subscriber, &subscription(Codec::Opus, 5_000));
    talk(&mut world, &mut encoder, 200, 20);
    assert_eq!(world.take_rtp(subscriber).len(), 10);
    assert_eq!(world.sfu.stats().keyframe_requests_out, 0);
}
