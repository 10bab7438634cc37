//! No packet costs an allocation once streams run: a large room forwards, repeats and
//! reports for many seconds, and nothing is allocated.

#![expect(clippy::unwrap_used, reason = "a story that cannot go on has failed")]

mod harness;

use std::time::Duration;

use headwater_model::media::{Codec, Publication, TransportKey};
use headwater_rtp::rtcp::{CompoundWriter, ReportBlock};
use headwater_sfu::{Egress, OutgoingRtp};

use harness::microphone::{Microphone, PACKET, publication_with_red, subscription_with_red};
use harness::publisher::{Encoder, delta, key};
use harness::{World, mapping, publication, subscription};

const SUBSCRIBERS: u32 = 50;
/// Pictures of 20 ms; the warm-up is longer than every ring and every timer.
const WARM_UP: usize = 800;
const MEASURED: usize = 600;

/// Takes packets as a shell does, into one buffer that is used again, and remembers
/// the last sequence number of each subscriber's video.
struct Scratch {
    buffer: Vec<u8>,
    newest: [u16; SUBSCRIBERS as usize],
    packets: usize,
    compounds: usize,
}

impl Egress for Scratch {
    fn rtp(&mut self, to: TransportKey, packet: OutgoingRtp<'_>) {
        packet.copy_into(&mut self.buffer).unwrap();
        self.packets += 1;
        let subscriber = (to.0 - 100) as usize;
        if self.buffer[8..12] == video_ssrc(subscriber).to_be_bytes() {
            self.newest[subscriber] = u16::from_be_bytes([self.buffer[2], self.buffer[3]]);
        }
    }

    fn rtcp(&mut self, _: TransportKey, compound: &[u8]) {
        self.buffer[..compound.len()].copy_from_slice(compound);
        self.compounds += 1;
    }
}

fn video_ssrc(subscriber: usize) -> u32 {
    5_000 + subscriber as u32
}

/// Twenty milliseconds: packets of the publisher, feedback of one subscriber, timers.
fn step(world: &mut World, scratch: &mut Scratch, index: usize, packets: &[Vec<u8>]) {
    for packet in packets {
        world.sfu.handle_rtp(world.now, TransportKey(1), packet);
    }
    let subscriber = index % SUBSCRIBERS as usize;
    let mut buffer = [0; 256];
    let len = feedback(&mut buffer, subscriber, scratch.newest[subscriber]);
    world.sfu.handle_rtcp(world.now, TransportKey(100 + subscriber as u32), &buffer[..len]);
    world.sfu.drain(world.now, scratch);
    let end = world.now + Duration::from_millis(20);
    while let Some(due) = world.sfu.poll_timeout().filter(|due| *due <= end) {
        world.now = world.now.max(due);
        world.sfu.handle_timeout(world.now);
        world.sfu.drain(world.now, scratch);
    }
    world.now = end;
    while world.sfu.poll_event().is_some() {}
}

/// A subscriber reports and asks for the last ten packets again.
fn feedback(buffer: &mut [u8], subscriber: usize, newest: u16) -> usize {
    let mut writer = CompoundWriter::new(buffer);
    let block = ReportBlock {
        ssrc: video_ssrc(subscriber),
        highest_sequence: u32::from(newest),
        ..ReportBlock::default()
    };
    writer.receiver_report(1, &[block]).unwrap();
    let wanted = (0..10).map(|back| newest.wrapping_sub(9 - back));
    writer.nack(1, video_ssrc(subscriber), wanted).unwrap();
    writer.finish()
}

/// Video with three temporal layers and some loss, and sound.
fn media(count: usize) -> Vec<Vec<Vec<u8>>> {
    let mut camera = Encoder::new(Codec::Vp8, 0).with_mid("0");
    let mut microphone = Encoder::new(Codec::Opus, 1).with_mid("1");
    microphone.payload_type = 109;
    microphone.level = Some(20);
    let step = |index: usize| {
        let mut picture = if index == 0 { key(3) } else { delta(3, [0, 2, 1, 2][index % 4]) };
        picture.size = 1_100;
        let mut packets = camera.picture(picture, 1_800);
        if index % 25 == 7 {
            packets.remove(1);
        }
        packets.extend(microphone.picture(delta(1, 0), 960));
        packets
    };
    (0..count).map(step).collect()
}

#[test]
fn forwarding_allocates_nothing_in_steady_state() {
    let mut world = World::new();
    let publisher = world.transport(1);
    let video = world.publish(publisher, 1, &publication(Codec::Vp8, "0", &[]));
    let mut sound = publication(Codec::Opus, "1", &[]);
    sound.codecs = vec![mapping(Codec::Opus, 109)];
    let sound = world.publish(publisher, 2, &sound);
    let redundant = Publication { mid: "2".to_owned(), ..publication_with_red() };
    let redundant = world.publish(publisher, 3, &redundant);
    for index in 0..SUBSCRIBERS {
        let subscriber = world.transport(100 + index);
        let wanted = match index % 2 {
            0 => subscription_with_red(7_000 + index),
            _ => subscription(Codec::Opus, 7_000 + index),
        };
        world.subscribe(2_000 + index, redundant, subscriber, &wanted);
        let wanted = subscription(Codec::Vp8, 5_000 + index);
        let subscription_key = world.subscribe(index, video, subscriber, &wanted);
        world.subscribe(
            1_000 + index,
            sound,
            subscriber,
            &subscription(Codec::Opus, 6_000 + index),
        );
        let temporal = (index % 3) as u8;
        let target =
            headwater_model::media::SubscriptionTarget::UpTo { spatial: u8::MAX, temporal };
        world.sfu.set_target(world.now, subscription_key, target).unwrap();
    }
    let newest = [0; SUBSCRIBERS as usize];
    let mut scratch = Scratch { buffer: vec![0; 2_048], newest, packets: 0, compounds: 0 };
    let mut media = media(WARM_UP + MEASURED);
    let mut microphone = Microphone::new(1);
    microphone.encoder = Encoder::new(Codec::Opus, 2).with_mid("2");
    for (index, packets) in media.iter_mut().enumerate() {
        let packet = microphone.packet(PACKET);
        if index % 10 != 3 {
            packets.push(packet);
        }
    }
    for (index, packets) in media[..WARM_UP].iter().enumerate() {
        step(&mut world, &mut scratch, index, packets);
    }
    (scratch.packets, scratch.compounds) = (0, 0);
    let before = *world.sfu.stats();
    let allocations = allocation_counter::measure(|| {
        for (index, packets) in media[WARM_UP..].iter().enumerate() {
            step(&mut world, &mut scratch, index, packets);
        }
    });
    let after = *world.sfu.stats();
    assert!(scratch.packets > 80_000, "{} packets", scratch.packets);
    assert!(scratch.compounds > 150, "{} compounds", scratch.compounds);
    assert!(after.retransmissions_out > before.retransmissions_out + 1_000, "{after:?}");
    assert!(after.nacks_out > before.nacks_out);
    assert!(after.recovered > before.recovered + 10, "{after:?}");
    assert_eq!(allocations.count_total, 0, "for {} packets", scratch.packets);
}
