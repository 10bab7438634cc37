//! End-to-end encrypted pictures: behind what such encryption leaves plain (descriptors, NAL
//! headers, header extensions) there is noise. They are begun, switched and forwarded alike,
//! and to the byte.

use headwater_model::media::{Codec, TransportKey};
use headwater_rtp::RtpView;

use crate::harness::publisher::{Encoder, delta, key};
use crate::harness::random::Random;
use crate::harness::{World, publication, subscription};

const PUBLISHER: TransportKey = TransportKey(1);

/// Bytes of a payload of the harness that stay plain.
fn plain(codec: Codec, payload: &[u8]) -> usize {
    match codec {
        // The descriptor and one byte of the ten, or three, that are left plain.
        Codec::Vp8 => 7,
        Codec::Vp9 => 5,
        // Parameter sets are not encrypted; of pictures the header of the fragment is not.
        Codec::H264 if payload[0] == 0x78 => 8,
        Codec::H264 | Codec::Av1 => 2,
        Codec::Opus => 0,
    }
}

fn encrypt(codec: Codec, random: &mut Random, packets: &mut [Vec<u8>]) {
    for packet in packets {
        let view = RtpView::parse(packet).unwrap();
        let from = packet.len() - view.payload().len() + plain(codec, view.payload());
        packet[from..].iter_mut().for_each(|byte| *byte = random.below(256) as u8);
    }
}

fn secrets(codec: Codec, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let payloads = packets.iter().map(|packet| RtpView::parse(packet).unwrap().payload().to_vec());
    payloads.map(|payload| payload[plain(codec, &payload)..].to_vec()).collect()
}

fn encrypted_media_passes(codec: Codec) {
    let mut world = World::new();
    world.transport(PUBLISHER.0);
    let track = world.publish(PUBLISHER, 1, &publication(codec, "0", &[]));
    let mut encoder = Encoder::new(codec, 0).with_mid("0");
    let mut random = Random::new(11);
    let mut send = |world: &mut World, picture| {
        let mut packets = encoder.picture(picture, 3_000);
        encrypt(codec, &mut random, &mut packets);
        world.batch(PUBLISHER, &packets);
        world.pass(33);
        secrets(codec, &packets)
    };
    send(&mut world, key(3));
    for _ in 0..60 {
        send(&mut world, delta(2, 0));
    }
    let subscriber = world.transport(2);
    world.subscribe(1, track, subscriber, &subscription(codec, 5_000));
    world.drain();
    send(&mut world, delta(2, 0));
    assert_eq!(world.take_rtp(subscriber).len(), 0, "{codec:?}: noise was taken for a keyframe");
    let mut sent = send(&mut world, key(3));
    for _ in 0..30 {
        sent.extend(send(&mut world, delta(2, 0)));
    }
    assert_eq!(secrets(codec, &world.take_rtp(subscriber)), sent, "{codec:?}");
}

#[test]
fn encrypted_pictures_of_every_codec_begin_with_a_keyframe_and_pass_to_the_byte() {
    [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1].into_iter().for_each(encrypted_media_passes);
}
