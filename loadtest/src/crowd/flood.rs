//! Strangers that send what nobody asked for to the media port, from a thread of
//! their own, at a steady rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use headwater_net::{SendBatch, UdpOptions, UdpSocket};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::worker::Capture;
use crate::outcome::FloodResult;
use crate::scenario::{Flood, FloodKind};

/// Addresses that the strangers send from.
const STRANGERS: usize = 16;
/// Datagrams are sent in bursts, this long apart.
const TICK: Duration = Duration::from_millis(1);
/// What could not be sent in time is not made up for beyond this.
const BEHIND_MAX: Duration = Duration::from_millis(100);

/// A flood that goes on until it is stopped.
pub struct Flooding {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<FloodResult>,
}

impl Flooding {
    /// Starts a flood against the address that a publisher sends to.
    ///
    /// # Errors
    /// If no publisher has sent anything yet, or there are no sockets left.
    pub fn start(flood: &Flood, capture: &Arc<Capture>, seed: u64) -> anyhow::Result<Self> {
        let target = capture.packets().first().map(|(to, _)| *to);
        let target = target.context("a flood needs a publisher that sends")?;
        let strangers = (0..STRANGERS)
            .map(|_| {
                let any = SocketAddr::from(([0, 0, 0, 0], 0));
                let socket = UdpSocket::bind(any, &UdpOptions::default())?;
                let batch = SendBatch::new(&socket);
                Ok((socket, batch))
            })
            .collect::<std::io::Result<Vec<_>>>()
            .context("bind the strangers' sockets")?;
        let stop = Arc::new(AtomicBool::new(false));
        let sender = Sender {
            flood: flood.clone(),
            capture: Arc::clone(capture),
            target,
            strangers,
            random: SmallRng::seed_from_u64(seed),
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::Builder::new()
            .name("strangers".to_owned())
            .spawn(move || sender.run())
            .context("start the strangers' thread")?;
        Ok(Self { stop, thread })
    }

    /// Ends it and says how much was sent.
    #[must_use]
    pub fn stop(self) -> FloodResult {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

struct Sender {
    flood: Flood,
    capture: Arc<Capture>,
    target: SocketAddr,
    strangers: Vec<(UdpSocket, SendBatch)>,
    random: SmallRng,
    stop: Arc<AtomicBool>,
}

impl Sender {
    fn run(mut self) -> FloodResult {
        let begun = Instant::now();
        let interval = Duration::from_secs_f64(1.0 / self.flood.packets_per_second);
        let mut due = begun;
        let mut turn = 0;
        let mut known = self.capture.packets();
        let mut looked = begun;
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now - looked > Duration::from_millis(200) {
                known = self.capture.packets();
                looked = now;
            }
            if now.saturating_duration_since(due) > BEHIND_MAX {
                due = now - BEHIND_MAX;
            }
            while due <= now {
                self.send_one(turn, &known);
                turn += 1;
                due += interval;
            }
            for (socket, batch) in &mut self.strangers {
                batch.flush(socket);
            }
            std::thread::sleep(TICK);
        }
        let counters = self.strangers.iter().map(|(_, batch)| batch.counters());
        let (sent, dropped) = counters.fold((0, 0), |(sent, dropped), counters| {
            (sent + counters.datagrams, dropped + counters.dropped)
        });
        let seconds = begun.elapsed().as_secs_f64();
        FloodResult { sent, dropped, per_second: sent as f64 / seconds.max(1e-9) }
    }

    /// Each stranger sends a few in a row, so that the kernel sends them as trains: a
    /// flood must cost the receiver more than the sender.
    fn send_one(&mut self, turn: usize, known: &[(SocketAddr, Vec<u8>)]) {
        let stranger = turn / 32 % self.strangers.len();
        let kind = self.flood.kinds[turn / 32 % self.flood.kinds.len()];
        let mut datagram = [0; 1200];
        let len = make(kind, &mut self.random, known, &mut datagram);
        let (socket, batch) = &mut self.strangers[stranger];
        // None of these is longer than a batch takes.
        let _ = batch.push(socket, self.target, &datagram[..len]);
    }
}

/// Writes a datagram of a kind and returns its length.
fn make(
    kind: FloodKind,
    random: &mut SmallRng,
    known: &[(SocketAddr, Vec<u8>)],
    out: &mut [u8; 1200],
) -> usize {
    let chosen = known.get(random.random_range(0..known.len().max(1)));
    let packet = chosen.map_or(&[][..], |(_, packet)| packet.as_slice());
    let kept = packet.len().min(out.len());
    match kind {
        FloodKind::Malformed => {
            // First bytes of STUN, DTLS, RTP, RTCP and of nothing (RFC 7983).
            let first = [0x00, 0x16, 0x90, 0x80, 0xff][random.random_range(0..5)];
            let len = random.random_range(1..200);
            random.fill(&mut out[..len]);
            out[0] = first;
            len
        }
        FloodKind::Replayed => {
            out[..kept].copy_from_slice(&packet[..kept]);
            kept
        }
        FloodKind::WrongKey => {
            out[..kept].copy_from_slice(&packet[..kept]);
            // The header stays, the ciphertext is noise; the sequence moves on.
            let header = kept.min(12);
            random.fill(&mut out[header..kept]);
            if header == 12 {
                out[3] = out[3].wrapping_add(64);
            }
            kept
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_what_it_says() {
        let known = vec![(SocketAddr::from(([127, 0, 0, 1], 9)), vec![0x90; 300])];
        let mut random = SmallRng::seed_from_u64(1);
        let mut out = [0; 1200];
        assert_eq!(make(FloodKind::Replayed, &mut random, &known, &mut out), 300);
        assert_eq!(out[..300], known[0].1[..]);
        assert_eq!(make(FloodKind::WrongKey, &mut random, &known, &mut out), 300);
        assert_eq!(out[4..12], known[0].1[4..12]);
        assert_ne!(out[12..300], known[0].1[12..300]);
        for _ in 0..100 {
            assert!(make(FloodKind::Malformed, &mut random, &[], &mut out) > 0);
        }
    }
}
