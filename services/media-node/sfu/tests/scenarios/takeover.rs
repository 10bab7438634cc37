//! An SSRC that carries one track after another, as WHEP viewers are sent them.

use headwater_model::media::{Codec, SubscriptionKey, TransportKey};

use crate::harness::publisher::{Encoder, delta, key};
use crate::harness::subscriber::Receiver;
use crate::harness::{World, publication, subscription};

const FIRST: TransportKey = TransportKey(1);
const SECOND: TransportKey = TransportKey(2);

/// Numbers, times and picture ids go on over the change, and the new track begins
/// with a keyframe; half a minute without any track lies between.
#[test]
fn the_next_track_under_an_ssrc_goes_on_where_the_last_one_ended() {
    let mut world = World::new();
    for transport in [FIRST, SECOND] {
        world.transport(transport.0);
    }
    let subscriber = world.transport(3);
    let wanted = subscription(Codec::Vp8, 5_000);
    let mut receiver = Receiver::new(&wanted);

    let track = world.publish(FIRST, 1, &publication(Codec::Vp8, "0", &[]));
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    world.subscribe(1, track, subscriber, &wanted);
    world.batch(FIRST, &encoder.picture(key(3), 3_000));
    for _ in 0..10 {
        world.pass(33);
        world.batch(FIRST, &encoder.picture(delta(2, 0), 2_970));
    }
    receiver.take_all(world.take_rtp(subscriber));
    let last = receiver.last().unwrap();
    let (sequence, timestamp, picture) = (last.sequence, last.timestamp, last.picture.unwrap());
    let count = receiver.len();
    world.sfu.unsubscribe(SubscriptionKey(1));
    world.sfu.unpublish(track);
    world.drain();
    world.pass(30_000);

    let track = world.publish(SECOND, 2, &publication(Codec::Vp8, "0", &[]));
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    // Another publisher counts from elsewhere.
    (encoder.sequence, encoder.timestamp, encoder.picture) = (9, 77, 1_234);
    world.batch(SECOND, &encoder.picture(delta(2, 0), 2_970));
    world.subscribe(2, track, subscriber, &wanted);
    world.drain();
    assert_eq!(world.take_rtp(subscriber).len(), 0, "nothing that it cannot decode");
    for picture in [key(3), delta(2, 0), delta(2, 0)] {
        world.pass(33);
        world.batch(SECOND, &encoder.picture(picture, 2_970));
    }
    receiver.take_all(world.take_rtp(subscriber));
    assert_eq!(receiver.len(), count + 7);
    let next = receiver.packets().find(|packet| packet.sequence > sequence).unwrap();
    assert_eq!(next.sequence, sequence + 1);
    assert_eq!(next.picture, Some(picture.wrapping_add(1) & 0x7fff));
    let apart = next.timestamp.wrapping_sub(timestamp);
    assert!((2_700_000..2_730_000).contains(&apart), "thirty seconds passed: {apart}");
}

#[test]
fn an_ssrc_of_another_transport_is_not_gone_on_with() {
    let mut world = World::new();
    world.transport(FIRST.0);
    let track = world.publish(FIRST, 1, &publication(Codec::Opus, "0", &[]));
    let mut encoder = Encoder::new(Codec::Opus, 0).with_mid("0");
    let wanted = subscription(Codec::Opus, 5_000);
    let mut firsts = Vec::new();
    for number in 0..2 {
        let subscriber = world.transport(10 + number);
        world.subscribe(number, track, subscriber, &wanted);
        world.pass(20);
        world.batch(FIRST, &encoder.picture(delta(1, 0), 960));
        let sent = world.take_rtp(subscriber);
        firsts.push(u16::from_be_bytes([sent[0][2], sent[0][3]]));
        world.sfu.unsubscribe(SubscriptionKey(number));
    }
    assert_ne!(firsts[1], firsts[0].wrapping_add(1), "each begins anywhere");
}
