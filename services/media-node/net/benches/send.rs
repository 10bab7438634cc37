//! Sending a frame of three 1,200-byte datagrams to each of 50 peers over loopback:
//! one `sendto` each, against the batch. Both take turns within one run, so that the
//! ratio stands even where the machine is noisy; it is the last line.

use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use headwater_net::{SendBatch, UdpOptions, UdpSocket, thread};

const PEERS: usize = 50;
const PACKETS: usize = 3;
const LEN: usize = 1_200;

/// Peers that never read: the kernel delivers into their buffers and then drops, at a
/// cost that is the same for both.
struct Fixture {
    sender: UdpSocket,
    plain: StdSocket,
    _peers: Vec<StdSocket>,
    addresses: Vec<SocketAddr>,
    payload: [u8; LEN],
    batch: SendBatch,
}

impl Fixture {
    fn new() -> Self {
        let any = "127.0.0.1:0";
        let sender = UdpSocket::bind(any.parse().expect("an address"), &UdpOptions::default())
            .expect("a socket");
        let plain = StdSocket::bind(any).expect("a socket");
        let peers: Vec<StdSocket> =
            (0..PEERS).map(|_| StdSocket::bind(any).expect("a socket")).collect();
        let addresses =
            peers.iter().map(|peer| peer.local_addr().expect("a bound socket")).collect();
        let batch = SendBatch::new(&sender);
        Self { sender, plain, _peers: peers, addresses, payload: [7; LEN], batch }
    }

    fn one_by_one(&mut self) {
        for address in &self.addresses {
            for _ in 0..PACKETS {
                let _ = self.plain.send_to(black_box(&self.payload), address);
            }
        }
    }

    fn batched(&mut self) {
        for address in &self.addresses {
            for _ in 0..PACKETS {
                let slot = self.batch.begin(&self.sender, *address, LEN).expect("a short datagram");
                slot.copy_from_slice(black_box(&self.payload));
                self.batch.commit(LEN);
            }
        }
        self.batch.flush(&self.sender);
    }
}

/// Processor time of a slice of work, per datagram.
fn per_datagram(rounds: u32, mut work: impl FnMut()) -> Duration {
    let before = thread::cpu_time();
    (0..rounds).for_each(|_| work());
    (thread::cpu_time() - before) / (rounds * (PEERS * PACKETS) as u32)
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values[values.len() / 2]
}

fn ratio(fixture: &mut Fixture) {
    let mut plain = Vec::new();
    let mut batched = Vec::new();
    for _ in 0..31 {
        plain.push(per_datagram(20, || fixture.one_by_one()));
        batched.push(per_datagram(20, || fixture.batched()));
    }
    let (plain, batched) = (median(plain), median(batched));
    let ratio = plain.as_secs_f64() / batched.as_secs_f64();
    let counters = fixture.batch.counters();
    #[expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]
    {
        println!(
            "processor time per datagram, median of 31: sendto {plain:?}, batch {batched:?}, \
             ratio {ratio:.2}; trains {}, {:.2} datagrams per message",
            fixture.batch.sends_trains(),
            counters.datagrams as f64 / counters.messages as f64,
        );
    }
}

fn benches(criterion: &mut Criterion) {
    let mut fixture = Fixture::new();
    let mut group = criterion.benchmark_group("send 3 x 1200 B to 50 peers");
    group.throughput(Throughput::Elements((PEERS * PACKETS) as u64));
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.bench_function("sendto", |bencher| bencher.iter(|| fixture.one_by_one()));
    group.bench_function("batch", |bencher| {
        bencher.iter_custom(|rounds| {
            let start = Instant::now();
            (0..rounds).for_each(|_| fixture.batched());
            start.elapsed()
        });
    });
    group.finish();
    ratio(&mut fixture);
}

criterion_group!(send, benches);
criterion_main!(send);
