//! What forwarding costs: one publisher, 50, 200 and 1,000 subscribers, pictures of three
//! packets of 1,200 bytes. The yardstick is a bare loop that copies the same packets and
//! patches their numbers, which no forwarder can beat. Prints both, and their ratio.

#[path = "../tests/harness/mod.rs"]
mod harness;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use headwater_model::media::{Codec, TransportKey};
use headwater_sfu::{Egress, OutgoingRtp};

use harness::publisher::{Encoder, delta, key};
use harness::{World, publication, subscription};

const SUBSCRIBERS: [u32; 3] = [50, 200, 1_000];
const PACKETS: u8 = 3;
const PAYLOAD: usize = 1_176;
/// Pictures that are made beforehand and sent again with new numbers.
const PICTURES: usize = 32;

/// Takes packets as a shell does before it encrypts: into a buffer that stays in cache.
struct Scratch {
    buffer: Vec<u8>,
    at: usize,
}

impl Scratch {
    fn new() -> Self {
        Self { buffer: vec![0; 64 * 2_048], at: 0 }
    }

    fn slot(&mut self) -> &mut [u8] {
        self.at = (self.at + 1) % 64;
        &mut self.buffer[self.at * 2_048..(self.at + 1) * 2_048]
    }
}

impl Egress for Scratch {
    fn rtp(&mut self, _: TransportKey, packet: OutgoingRtp<'_>) {
        black_box(packet.copy_into(self.slot()));
    }

    fn rtcp(&mut self, _: TransportKey, compound: &[u8]) {
        black_box(compound);
    }
}

/// One publisher whose pictures go on for ever.
struct Room {
    world: World,
    pictures: Vec<Vec<Vec<u8>>>,
    next: usize,
    sequence: u16,
    timestamp: u32,
    scratch: Scratch,
}

impl Room {
    fn new(codec: Codec, subscribers: u32) -> Self {
        let mut world = World::new();
        let publisher = world.transport(1);
        let track = world.publish(publisher, 1, &publication(codec, "0", &[]));
        for index in 0..subscribers {
            let subscriber = world.transport(100 + index);
            world.subscribe(index, track, subscriber, &subscription(codec, 5_000 + index));
        }
        let mut encoder = Encoder::new(codec, 0).with_mid("0");
        let sized = |mut picture: harness::publisher::Picture| {
            picture.size = PAYLOAD;
            picture
        };
        world.batch(publisher, &encoder.picture(sized(key(PACKETS)), 3_000));
        world.sent.rtp.clear();
        let (sequence, timestamp) = (encoder.sequence, encoder.timestamp);
        let pictures =
            (0..PICTURES).map(|_| encoder.picture(sized(delta(PACKETS, 0)), 3_000)).collect();
        Self { world, pictures, next: 0, sequence, timestamp, scratch: Scratch::new() }
    }

    /// One picture in, and out to everybody.
    fn picture(&mut self) {
        let picture = &mut self.pictures[self.next];
        self.next = (self.next + 1) % PICTURES;
        for packet in picture {
            packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
            packet[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
            self.sequence = self.sequence.wrapping_add(1);
            self.world.sfu.handle_rtp(self.world.now, TransportKey(1), packet);
        }
        self.timestamp = self.timestamp.wrapping_add(3_000);
        self.world.sfu.drain(self.world.now, &mut self.scratch);
        self.world.now += Duration::from_millis(33);
        if self.world.sfu.poll_timeout().is_some_and(|due| due <= self.world.now) {
            self.world.sfu.handle_timeout(self.world.now);
        }
        while self.world.sfu.poll_event().is_some() {}
    }
}

/// The yardstick: copies each packet for each subscriber and patches its numbers.
struct Bare {
    packets: Vec<Vec<u8>>,
    numbers: Vec<(u32, u16, u32)>,
    scratch: Scratch,
}

impl Bare {
    fn new(subscribers: u32) -> Self {
        Self {
            packets: vec![vec![7; 24 + PAYLOAD]; usize::from(PACKETS)],
            numbers: (0..subscribers).map(|index| (index, index as u16, index)).collect(),
            scratch: Scratch::new(),
        }
    }

    fn picture(&mut self) {
        for (ssrc, sequence, timestamp) in &mut self.numbers {
            *timestamp = timestamp.wrapping_add(3_000);
            for packet in &self.packets {
                *sequence = sequence.wrapping_add(1);
                let slot = self.scratch.slot();
                slot[..packet.len()].copy_from_slice(packet);
                slot[2..4].copy_from_slice(&sequence.to_be_bytes());
                slot[4..8].copy_from_slice(&timestamp.to_be_bytes());
                slot[8..12].copy_from_slice(&ssrc.to_be_bytes());
                black_box(slot);
            }
        }
    }
}

fn forward(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("forward");
    for subscribers in SUBSCRIBERS {
        group.throughput(Throughput::Elements(u64::from(subscribers) * u64::from(PACKETS)));
        for codec in [Codec::Vp8, Codec::H264] {
            let mut room = Room::new(codec, subscribers);
            let id = BenchmarkId::new(codec.mime_type(), subscribers);
            group.bench_function(id, |bencher| bencher.iter(|| room.picture()));
        }
        let mut bare = Bare::new(subscribers);
        let id = BenchmarkId::new("bare copy", subscribers);
        group.bench_function(id, |bencher| bencher.iter(|| bare.picture()));
    }
    group.finish();
}

/// Median of slices that are measured in turn, so that both see the same machine.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
#[expect(clippy::print_stdout, reason = "a benchmark prints its result")]
fn ratio(_: &mut Criterion) {
    for subscribers in SUBSCRIBERS {
        let mut room = Room::new(Codec::Vp8, subscribers);
        let mut bare = Bare::new(subscribers);
        let packets = f64::from(subscribers) * f64::from(PACKETS);
        let rounds = 40_000 / subscribers;
        let time = |work: &mut dyn FnMut()| {
            let start = Instant::now();
            (0..rounds).for_each(|_| work());
            start.elapsed().as_nanos() as f64 / f64::from(rounds) / packets
        };
        let mut slices: Vec<(f64, f64)> =
            (0..31).map(|_| (time(&mut || room.picture()), time(&mut || bare.picture()))).collect();
        slices.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        let (forward, copy) = slices[slices.len() / 2];
        println!(
            "{subscribers} subscribers: {forward:.0} ns a forwarded packet, {copy:.0} ns bare copy, ratio {:.2}",
            forward / copy
        );
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30);
    targets = forward, ratio
}
criterion_main!(benches);
