//! No packet costs an allocation once streams run: a large room forwards, repeats and
//! reports for many seconds, and nothing is allocated.

mod harness;

use std::time::Duration;

use headwater_model::media::{Codec, TransportKey};
use headwater_rtp::rtcp::{CompoundWriter, ReportBlock};
use headwater_sfu::{Egress, OutgoingRtp};

use harness::publisher::{Encoder, delta, key};
use harness::subscriber::Receiver;
use harness::{World, mapping, publication, subscription};

const SUBSCRIBERS: u32 = 50;
/// Pictures of 20 ms; the warm-up is longer than every ring and every timer.
const WARM_UP: usize = 800;
const MEASURED: usize = 600;

/// Takes packets as a shell does: into one buffer that is used again.
struct Scratch {
    buffer: Vec<u8>,
    packets: usize,
    compounds: usize,
}

impl Egress for Scratch {
    fn rtp(&mut self, _: TransportKey, packet: OutgoingRtp<'_>) {
        packet.copy_into(&mut self.buffer).unwrap();
        self.packets += 1;
    }

    fn rtcp(&mut self, _: TransportKey, compound: &[u8]) {
        self.buffer[..compound.len()].copy_from_slice(compound);
        self.compounds += 1;
    }
}

/// What peers send in one step of 20 ms.
struct Step {
    publisher: Vec<Vec<u8>>,
    subscribers: Vec<(TransportKey, Vec<u8>)>,
}

fn run(world: &mut World, scratch: &mut Scratch, steps: &[Step]) {
    for step in steps {
        for packet in &step.publisher {
            world.sfu.handle_rtp(world.now, TransportKey(1), packet);
        }
        for (from, compound) in &step.subscribers {
            world.sfu.handle_rtcp(world.now, *from, compound);
        }
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
}

/// Video with three temporal layers and some loss, and sound; every subscriber reports
/// and asks for something again now and then.
fn steps(count: usize) -> Vec<Step> {
    let mut camera = Encoder::new(Codec::Vp8, 0).with_mid("0");
    let mut microphone = Encoder::new(Codec::Opus, 1).with_mid("1");
    microphone.payload_type = 111;
    microphone.level = Some(20);
    (0..count)
        .map(|index| {
            let mut picture = if index == 0 {
                key(3)
            } else {
                delta(3, [0, 2, 1, 2][index % 4])
            };
            picture.size = 1_100;
            let mut publisher = camera.picture(picture, 1_800);
            if index % 25 == 7 {
                publisher.remove(1);
            }
            publisher.extend(microphone.picture(delta(1, 0), 960));
            let subscribers = (0..SUBSCRIBERS)
                .filter(|subscriber| index % 50 == *subscriber as usize)
                .map(|subscriber| (TransportKey(100 + subscriber), feedback(subscriber, index)))
                .collect();
            Step {
                publisher,
                subscribers,
            }
        })
        .collect()
}

fn feedback(subscriber: u32, index: usize) -> Vec<u8> {
    let mut buffer = vec![0; 256];
    let mut writer = CompoundWriter::new(&mut buffer);
    let block = ReportBlock {
        ssrc: 5_000 + subscriber,
        highest_sequence: index as u32 * 3,
        ..ReportBlock::default()
    };
    writer.receiver_report(1, &[block]).unwrap();
    let len = writer.finish();
    buffer.truncate(len);
    let receiver = Receiver::new(&subscription(Codec::Vp8, 5_000 + subscriber));
    // Somewhere: most of it is gone or in the future, some of it is there.
    let wanted: Vec<u16> = (0..8)
        .map(|n| (index as u16).wrapping_mul(3).wrapping_add(n))
        .collect();
    buffer.extend(receiver.nack_for(&wanted));
    buffer
}

#[test]
fn forwarding_allocates_nothing_in_steady_state() {
    let mut world = World::new();
    let publisher = world.transport(1);
    let video = world.publish(publisher, 1, &publication(Codec::Vp8, "0", &[]));
    let mut sound = publication(Codec::Opus, "1", &[]);
    sound.codecs = vec![mapping(Codec::Opus, 111)];
    let sound = world.publish(publisher, 2, &sound);
    for index in 0..SUBSCRIBERS {
        let subscriber = world.transport(100 + index);
        let wanted = subscription(Codec::Vp8, 5_000 + index);
        let subscription_key = world.subscribe(index, video, subscriber, &wanted);
        world.subscribe(
            1_000 + index,
            sound,
            subscriber,
            &subscription(Codec::Opus, 6_000 + index),
        );
        let temporal = (index % 3) as u8;
        let target = headwater_model::media::SubscriptionTarget::UpTo {
            spatial: u8::MAX,
            temporal,
        };
        world
            .sfu
            .set_target(world.now, subscription_key, target)
            .unwrap();
    }
    let mut scratch = Scratch {
        buffer: vec![0; 2_048],
        packets: 0,
        compounds: 0,
    };
    let mut steps = steps(WARM_UP + MEASURED);
    let measured = steps.split_off(WARM_UP);
    run(&mut world, &mut scratch, &steps);
    (scratch.packets, scratch.compounds) = (0, 0);
    let before = *world.sfu.stats();
    let allocations = allocation_counter::measure(|| run(&mut world, &mut scratch, &measured));
    let after = *world.sfu.stats();
    assert!(scratch.packets > 80_000, "{} packets", scratch.packets);
    assert!(scratch.compounds > 150, "{} compounds", scratch.compounds);
    assert!(after.nacks_in > before.nacks_in && after.nacks_out > before.nacks_out);
    assert_eq!(
        allocations.count_total, 0,
        "for {} packets",
        scratch.packets
    );
}
