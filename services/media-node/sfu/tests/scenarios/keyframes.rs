//! How subscribers come to their first picture.

use headwater_model::media::{Codec, SubscriptionTarget, TransportKey};
use headwater_rtp::rtcp::{Compound, RtcpPacket};

use crate::harness::publisher::{Encoder, delta, key};
use crate::harness::subscriber::Receiver;
use crate::harness::{World, publication, subscription};

const PUBLISHER: TransportKey = TransportKey(1);

fn requests(world: &mut World) -> usize {
    let compounds = world.take_rtcp(PUBLISHER);
    let packets = compounds.iter().flat_map(|compound| Compound::new(compound));
    packets.filter(|packet| matches!(packet, Ok(RtcpPacket::PictureLossIndication(_)))).count()
}

fn stage() -> (World, Encoder, headwater_model::media::TrackKey) {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    let track = world.publish(PUBLISHER, 1, &publication(Codec::Vp8, "0", &[]));
    (world, Encoder::new(Codec::Vp8, 0).with_mid("0"), track)
}

#[test]
fn a_late_joiner_asks_for_a_keyframe_at_once() {
    let (mut world, mut encoder, track) = stage();
    world.batch(PUBLISHER, &encoder.picture(key(3), 3_000));
    for _ in 0..100 {
        world.pass(33);
        world.batch(PUBLISHER, &encoder.picture(delta(2, 0), 3_000));
    }
    requests(&mut world);
    let subscriber = world.transport(2);
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, subscriber, &wanted);
    world.drain();
    assert_eq!(requests(&mut world), 1);
    world.batch(PUBLISHER, &encoder.picture(delta(2, 0), 3_000));
    assert_eq!(world.take_rtp(subscriber).len(), 0, "nothing that it cannot decode");
    world.batch(PUBLISHER, &encoder.picture(key(4), 3_000));
    world.batch(PUBLISHER, &encoder.picture(delta(2, 0), 3_000));
    let mut receiver = Receiver::new(&wanted);
    receiver.take_all(world.take_rtp(subscriber));
    receiver.check();
    assert_eq!(receiver.len(), 6);
}

#[test]
fn many_joiners_are_one_request_a_half_second() {
    let (mut world, mut encoder, track) = stage();
    world.batch(PUBLISHER, &encoder.picture(delta(2, 0), 3_000));
    requests(&mut world);
    for key in 0..200 {
        let subscriber = world.transport(100 + key);
        world.subscribe(key, track, subscriber, &subscription(Codec::Vp8, 5_000));
        world.batch(PUBLISHER, &encoder.picture(delta(2, 0), 300));
        world.pass(10);
    }
    // Two seconds, and the lowest encoding may be asked every half second.
    let asked = requests(&mut world);
    assert!((4..=5).contains(&asked), "{asked}");
}

#[test]
fn a_joiner_shortly_behind_a_keyframe_gets_it_from_the_ring() {
    let (mut world, mut encoder, track) = stage();
    let first = world.transport(2);
    world.subscribe(1, track, first, &subscription(Codec::Vp8, 4_000));
    world.batch(PUBLISHER, &encoder.picture(key(5), 3_000));
    for _ in 0..20 {
        world.pass(33);
        world.batch(PUBLISHER, &encoder.picture(delta(2, 0), 2_970));
    }
    requests(&mut world);
    let second = world.transport(3);
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(2, track, second, &wanted);
    world.drain();
    let mut receiver = Receiver::new(&wanted);
    receiver.take_all(world.take_rtp(second));
    assert_eq!(receiver.len(), 5 + 20 * 2);
    assert_eq!(requests(&mut world), 0, "no keyframe is needed");
    assert_eq!(world.sfu.stats().keyframes_replayed, 1);
    // Old pictures lie close together, so that they do not count as late.
    let span = receiver.last().unwrap().timestamp - receiver.packets().next().unwrap().timestamp;
    assert!(span < 90_000 / 10, "{span}");
    for _ in 0..20 {
        world.pass(33);
        world.batch(PUBLISHER, &encoder.picture(delta(2, 0), 2_970));
    }
    receiver.take_all(world.take_rtp(second));
    receiver.check();
    assert_eq!(receiver.len(), 5 + 40 * 2);
}

#[test]
fn a_keyframe_with_a_hole_is_not_replayed() {
    let (mut world, mut encoder, track) = stage();
    let mut keyframe = encoder.picture(key(5), 3_000);
    keyframe.remove(2);
    world.batch(PUBLISHER, &keyframe);
    world.pass(500);
    world.batch(PUBLISHER, &encoder.picture(delta(2, 0), 45_000));
    let subscriber = world.transport(2);
    world.subscribe(1, track, subscriber, &subscription(Codec::Vp8, 5_000));
    requests(&mut world);
    world.drain();
    assert_eq!(world.take_rtp(subscriber).len(), 0);
    assert_eq!(requests(&mut world), 1);
}

#[test]
fn a_keyframe_that_is_about_to_be_whole_is_waited_for() {
    let (mut world, mut encoder, track) = stage();
    let mut keyframe = encoder.picture(key(5), 3_000);
    let lost = keyframe.remove(2);
    world.batch(PUBLISHER, &keyframe);
    for _ in 0..5 {
        world.pass(30);
        world.batch(PUBLISHER, &encoder.picture(delta(2, 0), 2_700));
    }
    let subscriber = world.transport(2);
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, subscriber, &wanted);
    world.drain();
    assert_eq!(world.take_rtp(subscriber).len(), 0, "nothing that it cannot decode");
    world.batch(PUBLISHER, &[lost]);
    let mut receiver = Receiver::new(&wanted);
    receiver.take_all(world.take_rtp(subscriber));
    receiver.check();
    assert_eq!(receiver.len(), 5 + 5 * 2);
    assert_eq!(requests(&mut world), 0, "nobody had to make another one");
}

#[test]
fn who_lost_its_first_picture_gets_it_again_without_asking_the_publisher() {
    let (mut world, mut encoder, track) = stage();
    world.batch(PUBLISHER, &encoder.picture(key(5), 3_000));
    let subscriber = world.transport(2);
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, subscriber, &wanted);
    for _ in 0..10 {
        world.pass(33);
        world.batch(PUBLISHER, &encoder.picture(delta(2, 0), 2_970));
    }
    let mut receiver = Receiver::new(&wanted);
    // The network lost the beginning: nobody can ask for packets of which nothing is known.
    let sent = world.take_rtp(subscriber);
    receiver.take_all(sent.into_iter().skip(5).collect());
    requests(&mut world);
    let pli = receiver.pli();
    for _ in 0..3 {
        world.rtcp(subscriber, &pli);
        world.drain();
        world.pass(20);
    }
    let again = world.take_rtp(subscriber);
    assert_eq!(again.len(), 5 + 10 * 2, "once for three requests");
    receiver.take_all(again);
    world.batch(PUBLISHER, &encoder.picture(delta(2, 0), 2_970));
    receiver.take_all(world.take_rtp(subscriber));
    receiver.check();
    assert_eq!(requests(&mut world), 0, "it had been kept");
    // If that does not help, another one is needed.
    world.pass(300);
    world.rtcp(subscriber, &pli);
    world.drain();
    assert_eq!(requests(&mut world), 1);
}

#[test]
fn a_flood_of_picture_loss_reaches_the_publisher_once_a_half_second() {
    let (mut world, mut encoder, track) = stage();
    let subscriber = world.transport(2);
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, subscriber, &wanted);
    world.batch(PUBLISHER, &encoder.picture(key(5), 3_000));
    requests(&mut world);
    let pli = Receiver::new(&wanted).pli();
    for _ in 0..2_000 {
        for _ in 0..10 {
            world.rtcp(subscriber, &pli);
        }
        world.drain();
        world.pass(1);
    }
    let asked = requests(&mut world);
    assert!((3..=5).contains(&asked), "{asked}");
    assert_eq!(world.sfu.stats().keyframe_requests_in, 20_000);
}

#[test]
fn pause_and_mute_leave_no_gap() {
    let (mut world, mut encoder, track) = stage();
    let subscriber = world.transport(2);
    let wanted = subscription(Codec::Vp8, 5_000);
    let subscription = world.subscribe(1, track, subscriber, &wanted);
    let mut receiver = Receiver::new(&wanted);
    for round in 0..6_u32 {
        let still = round % 3;
        match still {
            1 => world.sfu.set_target(world.now, subscription, SubscriptionTarget::Paused).unwrap(),
            2 => world.sfu.set_muted(world.now, track, true),
            _ => {}
        }
        world.take_rtp(subscriber);
        let before = receiver.len();
        for _ in 0..30 {
            let asked = requests(&mut world) > 0 || encoder.frame == 0;
            let picture = if asked { key(3) } else { delta(2, 0) };
            world.batch(PUBLISHER, &encoder.picture(picture, 2_970));
            world.pass(33);
        }
        receiver.take_all(world.take_rtp(subscriber));
        assert_eq!(receiver.len() == before, still != 0, "round {round}");
        world.sfu.set_target(world.now, subscription, SubscriptionTarget::BEST).unwrap();
        world.sfu.set_muted(world.now, track, false);
        world.drain();
    }
    receiver.check();
    assert!(receiver.len() > 50);
}

#[test]
fn what_was_shown_while_muted_is_not_replayed() {
    let (mut world, mut encoder, track) = stage();
    let subscriber = world.transport(2);
    world.subscribe(1, track, subscriber, &subscription(Codec::Vp8, 5_000));
    world.sfu.set_muted(world.now, track, true);
    world.batch(PUBLISHER, &encoder.picture(key(3), 3_000));
    world.batch(PUBLISHER, &encoder.picture(delta(2, 0), 3_000));
    assert_eq!(world.sfu.stats().drops.muted, 5);
    world.sfu.set_muted(world.now, track, false);
    world.drain();
    assert_eq!(world.take_rtp(subscriber).len(), 0);
    assert_eq!(requests(&mut world), 1);
}

#[test]
fn nothing_is_sent_before_a_transport_is_connected() {
    let (mut world, mut encoder, track) = stage();
    let subscriber = TransportKey(2);
    world.sfu.add_transport(subscriber).unwrap();
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, subscriber, &wanted);
    world.batch(PUBLISHER, &encoder.picture(key(3), 3_000));
    world.pass(4_000);
    assert_eq!(world.take_rtp(subscriber).len(), 0);
    requests(&mut world);
    world.sfu.set_connected(world.now, subscriber, true);
    world.drain();
    assert_eq!(requests(&mut world), 1);
    world.batch(PUBLISHER, &encoder.picture(key(3), 3_000));
    assert_eq!(world.take_rtp(subscriber).len(), 3);
}
