//! Whatever a peer sends, the core goes on and stays small.

use headwater_model::media::{Codec, SubscriptionTarget, TransportKey};
use proptest::prelude::*;

use crate::harness::publisher::{Encoder, delta, key};
use crate::harness::subscriber::Receiver;
use crate::harness::{World, publication, subscription};

const PUBLISHER: TransportKey = TransportKey(1);
const SUBSCRIBER: TransportKey = TransportKey(2);

#[derive(Debug, Clone)]
enum Act {
    Rtp(Vec<u8>),
    Rtcp(bool, Vec<u8>),
    /// A packet of an encoder with some bytes changed.
    Bent {
        encoder: usize,
        key: bool,
        at: usize,
        byte: u8,
        sequence: u16,
    },
    Target(u8, u8),
    Mute(bool),
    Drain,
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Act::Rtp),
        // Something that looks like RTP.
        4 => (any::<[u8; 11]>(), prop::collection::vec(any::<u8>(), 0..100)).prop_map(|(head, tail)| {
            let mut bytes = vec![0x80 | head[0] & 0x3f];
            bytes.extend(&head[1..]);
            bytes.extend(tail);
            Act::Rtp(bytes)
        }),
        3 => (any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(up, bytes)| Act::Rtcp(up, bytes)),
        // Something that looks like feedback.
        3 => (any::<bool>(), 200_u8..208, 0_u8..16, prop::collection::vec(any::<u32>(), 1..20)).prop_map(|(up, kind, count, words)| {
            let mut bytes = vec![0x80 | count, kind, 0, words.len() as u8];
            bytes.extend(words.iter().flat_map(|word| {
                // Often an SSRC that exists.
                let word = if word % 3 == 0 { 5_000 + word % 10 } else { *word };
                word.to_be_bytes()
            }));
            Act::Rtcp(up, bytes)
        }),
        20 => (0_usize..6, any::<bool>(), 0_usize..60, any::<u8>(), prop_oneof![3 => Just(0_u16), 1 => any::<u16>()])
            .prop_map(|(encoder, key, at, byte, sequence)| Act::Bent { encoder, key, at, byte, sequence }),
        1 => (0_u8..4, 0_u8..4).prop_map(|(spatial, temporal)| Act::Target(spatial, temporal)),
        1 => any::<bool>().prop_map(Act::Mute),
        6 => Just(Act::Drain),
        3 => (0_u64..3_000).prop_map(Act::Pass),
    ]
}

/// Publications of every codec on one transport, each with a subscription.
fn stage() -> (World, Vec<Encoder>) {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.transport(SUBSCRIBER.0);
    let mut encoders = Vec::new();
    for (index, codec) in Codec::ALL.into_iter().enumerate() {
        let mid = index.to_string();
        let rids: &[&str] = if codec == Codec::Vp8 { &["q", "h"] } else { &[] };
        let track = world.publish(PUBLISHER, index as u32, &publication(codec, &mid, rids));
        let wanted = subscription(codec, 5_000 + index as u32);
        world.subscribe(index as u32, track, SUBSCRIBER, &wanted);
        let mut encoder = Encoder::new(codec, index as u8).with_mid(&mid);
        encoder.spatial_layers = match codec {
            Codec::Vp9 => 3,
            Codec::Av1 => 2,
            _ => 1,
        };
        if codec == Codec::Vp8 {
            encoder = encoder.with_rid("q");
            encoders.push(Encoder::new(codec, 9).with_mid(&mid).with_rid("h"));
        }
        encoders.push(encoder);
    }
    (world, encoders)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn hostile_packets_never_stop_the_core(acts in prop::collection::vec(act(), 1..250)) {
        let (mut world, mut encoders) = stage();
        for act in acts {
            match act {
                Act::Rtp(bytes) => world.rtp(PUBLISHER, &bytes),
                Act::Rtcp(true, bytes) => world.rtcp(PUBLISHER, &bytes),
                Act::Rtcp(false, bytes) => world.rtcp(SUBSCRIBER, &bytes),
                Act::Bent { encoder, key: is_key, at, byte, sequence } => {
                    let encoder = &mut encoders[encoder];
                    encoder.sequence = encoder.sequence.wrapping_add(sequence);
                    let temporal = byte % 2;
                    let picture = if is_key { key(2) } else { delta(2, temporal) };
                    for mut packet in encoder.picture(picture, 3_000) {
                        // A part of the packets stays whole, so that streams run.
                        if byte % 3 == 0 && let Some(slot) = packet.get_mut(at) {
                            *slot = byte;
                        }
                        world.rtp(PUBLISHER, &packet);
                    }
                }
                Act::Target(spatial, temporal) => {
                    for index in 0..Codec::ALL.len() {
                        let target = SubscriptionTarget::UpTo { spatial, temporal };
                        let subscription = headwater_model::media::SubscriptionKey(index as u32);
                        world.sfu.set_target(world.now, subscription, target).unwrap();
                    }
                }
                Act::Mute(muted) => {
                    world.sfu.set_muted(world.now, headwater_model::media::TrackKey(1), muted);
                }
                Act::Drain => world.drain(),
                Act::Pass(millis) => world.pass(millis),
            }
        }
        world.drain();
        let stats = *world.sfu.stats();
        prop_assert_eq!(stats.events_dropped, 0);
        // Afterwards an honest stream still passes.
        let track = world.publish(PUBLISHER, 50, &publication(Codec::Vp8, "honest", &[]));
        let wanted = subscription(Codec::Vp8, 7_777);
        world.subscribe(50, track, SUBSCRIBER, &wanted);
        let mut honest = Encoder::new(Codec::Vp8, 40).with_mid("honest");
        world.take_rtp(SUBSCRIBER);
        world.batch(PUBLISHER, &honest.picture(key(4), 3_000));
        for _ in 0..10 {
            world.pass(33);
            world.batch(PUBLISHER, &honest.picture(delta(2, 0), 2_970));
        }
        let mut receiver = Receiver::new(&wanted);
        receiver.take_all(world.take_rtp(SUBSCRIBER));
        // Its SSRC may have been taken by a bent packet; the SDP would name it then.
        if stats.drops.too_many_streams == 0 && receiver.len() > 0 {
            receiver.check();
        }
    }
}

#[test]
fn an_endless_number_of_ssrcs_is_not_learned() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    let rids: Vec<String> = (0..8).map(|n| n.to_string()).collect();
    let rids: Vec<&str> = rids.iter().map(String::as_str).collect();
    for index in 0..32 {
        let mid = index.to_string();
        world.publish(PUBLISHER, index, &publication(Codec::Vp8, &mid, &rids));
    }
    for ssrc in 0..10_000_u32 {
        let mid = (ssrc % 32).to_string();
        let rid = (ssrc / 32 % 8).to_string();
        let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid(&mid).with_rid(&rid);
        encoder.ssrc = ssrc + 100_000;
        if ssrc % 2 == 1 {
            encoder.payload_type = 97;
        }
        world.batch(PUBLISHER, &encoder.picture(key(1), 3_000));
    }
    // 32 tracks of eight encodings with retransmissions would be 512.
    assert!(world.sfu.stats().drops.too_many_streams > 0);
}

#[test]
fn a_batch_that_is_never_drained_is_bounded() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.transport(SUBSCRIBER.0);
    let track = world.publish(PUBLISHER, 1, &publication(Codec::Vp8, "0", &[]));
    world.subscribe(1, track, SUBSCRIBER, &subscription(Codec::Vp8, 5_000));
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    for frame in 0..3_000 {
        let picture = if frame == 0 { key(3) } else { delta(3, 0) };
        for packet in encoder.picture(picture, 3_000) {
            world.rtp(PUBLISHER, &packet);
        }
    }
    assert_eq!(world.sfu.stats().drops.batch_full, 9_000 - 1_024);
    world.drain();
    assert!(world.take_rtp(SUBSCRIBER).len() <= 1_024);
}

#[test]
fn a_restart_of_the_sequence_is_believed_when_it_goes_on() {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    world.transport(SUBSCRIBER.0);
    let track = world.publish(PUBLISHER, 1, &publication(Codec::Vp8, "0", &[]));
    let wanted = subscription(Codec::Vp8, 5_000);
    world.subscribe(1, track, SUBSCRIBER, &wanted);
    let mut encoder = Encoder::new(Codec::Vp8, 0).with_mid("0");
    world.batch(PUBLISHER, &encoder.picture(key(3), 3_000));
    // One packet from nowhere changes nothing.
    let real = encoder.sequence;
    encoder.sequence = real.wrapping_add(20_000);
    world.batch(PUBLISHER, &encoder.picture(delta(1, 0), 0));
    encoder.sequence = real;
    encoder.picture -= 1;
    encoder.tl0 -= 1;
    world.pass(33);
    world.batch(PUBLISHER, &encoder.picture(delta(2, 0), 3_000));
    assert_eq!(world.take_rtp(SUBSCRIBER).len(), 5);
    // Many do: the stream begins anew, with a keyframe.
    encoder.sequence = real.wrapping_add(30_000);
    let before = world.sfu.stats().keyframe_requests_out;
    for _ in 0..5 {
        world.pass(33);
        world.batch(PUBLISHER, &encoder.picture(delta(2, 0), 3_000));
    }
    assert_eq!(world.take_rtp(SUBSCRIBER).len(), 0);
    assert!(world.sfu.stats().keyframe_requests_out > before);
    world.batch(PUBLISHER, &encoder.picture(key(3), 3_000));
    assert_eq!(world.take_rtp(SUBSCRIBER).len(), 3);
}
