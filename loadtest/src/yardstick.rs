//! The limit of this machine: a bare loop that receives, decrypts once, encrypts for
//! N receivers under their own keys and sends in the same batches as a media node,
//! with nothing else in it. What a server reaches is told as a share of this.

mod keys;
mod sinks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use headwater_net::{
    Interest, Poller, ReadyList, RecvBatch, SendBatch, Token, UdpOptions, UdpSocket, thread,
};
use headwater_rtp::{RtpHeader, RtpView};
use serde::Serialize;
use socket2::SockRef;

use keys::{Receiver, StreamKey, TAG_BYTES};
use sinks::{Sinks, sink};

/// Messages taken at once.
const BATCH: usize = 32;
/// Packets of one batch that are kept for encryption; a batch has no more datagrams
/// unless the kernel joined many.
const KEPT_MAX: usize = 128;
/// At full speed: packets on their way to the loop at any time.
const WINDOW: u64 = 48;
/// Before the measurement.
const WARM_UP: Duration = Duration::from_secs(1);
/// With less than this share of what was due the sender fell behind.
const SENT_SHARE_MIN: f64 = 0.97;
/// With more than this share not received the sinks fell behind.
const LOST_SHARE_MAX: f64 = 0.01;

/// What the loop does.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Plan {
    /// Receivers.
    pub subscribers: usize,
    /// Frames per second; 0 is as fast as the loop goes.
    pub frame_rate: f64,
    /// Packets of each frame.
    pub packets_per_frame: usize,
    /// Payload bytes of each packet.
    pub payload_bytes: usize,
    /// How long is measured.
    pub seconds: f64,
    /// Processor of the loop.
    pub loop_core: Option<usize>,
    /// Processor of sender and sinks.
    pub load_core: Option<usize>,
    /// The sinks take trains as one (`UDP_GRO`).
    pub receive_offload: bool,
}

/// What it reached.
#[derive(Debug, Clone, Serialize)]
pub struct Reached {
    /// What was done.
    pub plan: Plan,
    /// The load was what it should be.
    pub valid: bool,
    /// Why it was not.
    pub invalid_because: Vec<String>,
    /// Packets that the loop sent.
    pub packets: u64,
    /// Packets that the sinks received.
    pub received: u64,
    /// Sampled packets that were not what they should be. Never above 0.
    pub wrong: u64,
    /// Packets decrypted by a sink to look.
    pub sampled: u64,
    /// Processor time of the loop's thread.
    pub cpu_seconds: f64,
    /// Packets sent for each second of it.
    pub packets_per_cpu_second: f64,
}

/// Runs the loop and measures it.
///
/// # Errors
/// If sockets or threads cannot be made, or nothing arrives.
pub fn run(plan: &Plan) -> anyhow::Result<Reached> {
    let options = UdpOptions { receive_offload: plan.receive_offload, ..UdpOptions::default() };
    let sinks = Sinks::bind(plan.subscribers, &options)?;
    let shared = Arc::new(Shared::default());
    let publisher = StreamKey::random()?;
    let socket = UdpSocket::bind(any(), &UdpOptions::default())?;
    let target = SocketAddr::from(([127, 0, 0, 1], socket.local_addr().port()));
    let forward = Forward {
        plan: *plan,
        publisher: publisher.clone(),
        receivers: sinks.receivers(),
        socket,
        shared: Arc::clone(&shared),
    };
    let sending = Sending { plan: *plan, key: publisher, target, shared: Arc::clone(&shared) };
    let threads = [
        spawn("sinks", {
            let shared = Arc::clone(&shared);
            let core = plan.load_core;
            move || {
                pin(core)?;
                sink(sinks, &shared)
            }
        })?,
        spawn("forward", move || forward.run())?,
        spawn("sender", move || sending.run())?,
    ];
    std::thread::sleep(WARM_UP);
    let begin = shared.look();
    std::thread::sleep(Duration::from_secs_f64(plan.seconds));
    let end = shared.look();
    shared.stop.store(true, Ordering::Relaxed);
    for thread in threads {
        let outcome = thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        outcome?;
    }
    let reached = Reached::between(plan, &begin, &end);
    if reached.received == 0 {
        bail!("nothing arrived");
    }
    Ok(reached)
}

/// Counts of all threads.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Packets that the sender sent.
    offered: AtomicU64,
    /// Packets that the loop took.
    taken: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    sampled: AtomicU64,
    wrong: AtomicU64,
    /// Processor time of the loop, in nanoseconds.
    cpu: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    offered: u64,
    sent: u64,
    received: u64,
    sampled: u64,
    wrong: u64,
    cpu: u64,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn look(&self) -> Look {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        Look {
            at: Instant::now(),
            offered: read(&self.offered),
            sent: read(&self.sent),
            received: read(&self.received),
            sampled: read(&self.sampled),
            wrong: read(&self.wrong),
            cpu: read(&self.cpu),
        }
    }
}

impl Reached {
    fn between(plan: &Plan, begin: &Look, end: &Look) -> Self {
        let packets = end.sent - begin.sent;
        let received = end.received - begin.received;
        let cpu_seconds = (end.cpu - begin.cpu) as f64 / 1e9;
        let mut invalid_because = Vec::new();
        let seconds = (end.at - begin.at).as_secs_f64();
        let due = plan.frame_rate * plan.packets_per_frame as f64 * seconds;
        let offered = (end.offered - begin.offered) as f64;
        if offered < due * SENT_SHARE_MIN {
            invalid_because.push(format!("the sender sent {offered} packets of {due:.0}"));
        }
        let lost = packets.saturating_sub(received) as f64 / packets.max(1) as f64;
        // At full speed the sinks may lose: the loop's cost is the same.
        if lost > LOST_SHARE_MAX && plan.frame_rate > 0.0 {
            invalid_because.push(format!("the sinks lost {:.1} %", lost * 100.0));
        }
        if end.wrong > 0 {
            invalid_because.push(format!("{} packets were wrong", end.wrong));
        }
        Self {
            plan: *plan,
            valid: invalid_because.is_empty(),
            invalid_because,
            packets,
            received,
            wrong: end.wrong,
            sampled: end.sampled,
            cpu_seconds,
            packets_per_cpu_second: if cpu_seconds > 0.0 {
                packets as f64 / cpu_seconds
            } else {
                0.0
            },
        }
    }
}

fn any() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 0))
}

fn pin(core: Option<usize>) -> anyhow::Result<()> {
    core.map_or(Ok(()), |core| thread::pin_to_core(core).with_context(|| format!("core {core}")))
}

fn spawn(
    name: &str,
    work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    Ok(std::thread::Builder::new().name(name.to_owned()).spawn(work)?)
}

/// The thread that publishes: each packet by itself, as clients send.
struct Sending {
    plan: Plan,
    key: StreamKey,
    target: SocketAddr,
    shared: Arc<Shared>,
}

impl Sending {
    fn run(self) -> anyhow::Result<()> {
        pin(self.plan.load_core)?;
        let socket = UdpSocket::bind(any(), &UdpOptions::default())?;
        let plan = self.plan;
        let mut header = RtpHeader { payload_type: 96, ssrc: 0x1234_5678, ..RtpHeader::default() };
        let interval =
            (plan.frame_rate > 0.0).then(|| Duration::from_secs_f64(1.0 / plan.frame_rate));
        let mut due = Instant::now();
        let mut packet = [0; 1500];
        let mut index = 0_u64;
        while !self.shared.is_over() {
            for place in 0..plan.packets_per_frame {
                header.sequence = index as u16;
                header.marker = place + 1 == plan.packets_per_frame;
                let extension = header.sequence.to_be_bytes();
                let extensions = [(1, b"0".as_slice()), (3, extension.as_slice())];
                let header_len = header.write(&extensions, &mut packet)?;
                let len = header_len + plan.payload_bytes;
                packet[header_len..len].fill(0x55);
                let len = self.key.seal(&mut packet, header_len, len, index)?;
                let sent = SockRef::from(&socket).send_to(&packet[..len], &self.target.into());
                self.shared.offered.fetch_add(u64::from(sent.is_ok()), Ordering::Relaxed);
                index += 1;
            }
            header.timestamp = header.timestamp.wrapping_add(3_000);
            match interval {
                Some(interval) => {
                    due += interval;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                None => self.wait_for_room(),
            }
        }
        Ok(())
    }
}

impl Sending {
    /// Until the loop has taken most of what is on its way.
    fn wait_for_room(&self) {
        let is_full = || {
            let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
            read(&self.shared.offered).saturating_sub(read(&self.shared.taken)) > WINDOW
        };
        while is_full() && !self.shared.is_over() {
            std::thread::yield_now();
        }
    }
}

/// The loop that is measured.
struct Forward {
    plan: Plan,
    publisher: StreamKey,
    receivers: Vec<Receiver>,
    socket: UdpSocket,
    shared: Arc<Shared>,
}

/// A packet in the clear that waits to be encrypted for each receiver.
#[derive(Clone, Copy)]
struct Kept {
    start: usize,
    header_len: usize,
    len: usize,
    ends_frame: bool,
}

impl Forward {
    fn run(mut self) -> anyhow::Result<()> {
        pin(self.plan.loop_core)?;
        let poller = Poller::new()?;
        poller.add(&self.socket, Token(0), Interest::Read)?;
        let mut ready = ReadyList::new(4);
        let mut batch = RecvBatch::new(&self.socket, BATCH);
        let mut sending = SendBatch::new(&self.socket);
        let mut ring = vec![0; KEPT_MAX * 1500].into_boxed_slice();
        let mut kept = Vec::with_capacity(KEPT_MAX);
        let mut unwrapper = headwater_rtp::SequenceUnwrapper::new();
        while !self.shared.is_over() {
            poller.wait(&mut ready, Some(Duration::from_millis(100)))?;
            batch.receive(&self.socket)?;
            kept.clear();
            let mut taken = 0;
            for (_, datagram) in batch.datagrams() {
                taken += 1;
                if kept.len() >= KEPT_MAX {
                    break;
                }
                let start = kept.len() * 1500;
                let room = &mut ring[start..start + 1500];
                kept.extend(self.open(datagram, room, &mut unwrapper, start));
            }
            for frame in kept.split_inclusive(|packet| packet.ends_frame) {
                self.fan_out(&ring, frame, &mut sending);
            }
            self.shared.taken.fetch_add(taken, Ordering::Relaxed);
            sending.flush(&self.socket);
            self.shared.sent.store(sending.counters().datagrams, Ordering::Relaxed);
            let cpu = u64::try_from(thread::cpu_time().as_nanos()).unwrap_or(u64::MAX);
            self.shared.cpu.store(cpu, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Decrypts in place and copies into the ring, as a media node does.
    fn open(
        &self,
        datagram: &mut [u8],
        room: &mut [u8],
        unwrapper: &mut headwater_rtp::SequenceUnwrapper,
        start: usize,
    ) -> Option<Kept> {
        let view = RtpView::parse_protected(datagram).ok()?;
        let (header_len, ends_frame) = (view.header_len(), view.marker());
        let index = unwrapper.unwrap(view.sequence()) - 0x1_0000;
        let len = self.publisher.open(datagram, header_len, index)?;
        room.get_mut(..len)?.copy_from_slice(&datagram[..len]);
        Some(Kept { start, header_len, len, ends_frame })
    }

    /// For each receiver all packets of a frame, so that they leave as one train.
    fn fan_out(&mut self, ring: &[u8], kept: &[Kept], sending: &mut SendBatch) {
        for receiver in &mut self.receivers {
            for packet in kept {
                let plain = &ring[packet.start..packet.start + packet.len];
                let room = packet.len + TAG_BYTES;
                let Ok(out) = sending.begin(&self.socket, receiver.address, room) else { continue };
                out[..packet.len].copy_from_slice(plain);
                let index = receiver.rewrite(out);
                let sealed = receiver.key.seal(out, packet.header_len, packet.len, index);
                sending.commit(sealed.unwrap_or_default());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(frame_rate: f64, receive_offload: bool) -> Plan {
        Plan {
            subscribers: 7,
            frame_rate,
            packets_per_frame: 3,
            payload_bytes: 1160,
            seconds: 1.0,
            loop_core: None,
            load_core: None,
            receive_offload,
        }
    }

    #[test]
    fn every_receiver_gets_packets_that_its_own_key_opens() {
        for offload in [false, true] {
            let reached = run(&plan(100.0, offload)).unwrap();
            assert_eq!(reached.wrong, 0, "{reached:?}");
            assert!(reached.sampled >= 7, "{reached:?}");
            assert!(reached.packets > 1_000, "{reached:?}");
            assert!(reached.cpu_seconds > 0.0);
        }
    }

    #[test]
    fn at_full_speed_it_goes_as_fast_as_it_can() {
        let reached = run(&plan(0.0, false)).unwrap();
        assert_eq!(reached.wrong, 0);
        assert!(reached.packets > 20_000, "{reached:?}");
    }
}
