//! What happened when: a moment for each second of a run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::members::Members;
use super::tally::LAYERS;
use super::worker::{Sums, Worker};
use crate::process::Usage;
use crate::scrape::Scraper;

const INTERVAL: Duration = Duration::from_secs(1);
/// Moments kept; a longer run keeps every second one, then every fourth, and so on.
const MOMENTS_MAX: usize = 4_096;

/// Part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Clients join.
    Joining,
    /// Everybody is there, nothing is measured yet.
    WarmUp,
    /// The measured time.
    Measured,
    /// Clients leave.
    Leaving,
}

/// A second of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Moment {
    /// Since the beginning.
    pub at_seconds: f64,
    /// Part of the run.
    pub phase: Phase,
    /// Clients connected.
    pub connected: usize,
    /// Clients that joined or try to.
    pub clients: usize,
    /// Clients that ended by themselves so far.
    pub ended: usize,
    /// Media packets received per second, by all clients.
    pub packets_per_second: f64,
    /// Payload received and decrypted, by all clients.
    pub megabits_per_second: f64,
    /// Video packets per second by encoding, of those decrypted.
    pub layer_packets_per_second: [f64; LAYERS],
    /// Processor time of the server per second.
    pub server_cpu: Option<f64>,
    /// Resident memory of the server, in KiB.
    pub server_memory_kib: Option<u64>,
    /// Descriptors of the server.
    pub server_descriptors: Option<u64>,
    /// Threads of the server.
    pub server_threads: Option<u64>,
    /// Tasks of the server that have not ended.
    pub server_tasks: Option<u64>,
    /// Series on the server's Prometheus page.
    pub server_series: Option<u64>,
    /// Processor time of this process per second.
    pub own_cpu: f64,
}

/// Writes moments down.
pub struct Timeline {
    /// Part of the run that goes on.
    pub phase: Phase,
    begun: Instant,
    server: Option<u32>,
    scraper: Option<Arc<Scraper>>,
    workers: Vec<Worker>,
    before: Look,
    moments: Vec<Moment>,
    keep_every: u64,
    seen: u64,
}

struct Look {
    at: Instant,
    sums: Sums,
    server: Option<Usage>,
    own: Usage,
}

impl Timeline {
    /// An empty timeline that begins now.
    #[must_use]
    pub fn new(server: Option<u32>, scraper: Option<Arc<Scraper>>, workers: Vec<Worker>) -> Self {
        let before = Look::now(server, &workers);
        Self {
            phase: Phase::Joining,
            begun: before.at,
            server,
            scraper,
            workers,
            before,
            moments: Vec::new(),
            keep_every: 1,
            seen: 0,
        }
    }

    /// Writes a moment down if a second is over.
    pub fn look(&mut self, members: &Members<'_>, watch: &mut impl FnMut(&Moment)) {
        if self.before.at.elapsed() < INTERVAL {
            return;
        }
        let now = Look::now(self.server, &self.workers);
        let moment = self.moment(&now, members);
        self.before = now;
        watch(&moment);
        self.keep(moment);
    }

    /// The moments, in order.
    #[must_use]
    pub fn into_moments(self) -> Vec<Moment> {
        self.moments
    }

    fn keep(&mut self, moment: Moment) {
        self.seen += 1;
        if self.seen.is_multiple_of(self.keep_every) {
            self.moments.push(moment);
        }
        if self.moments.len() >= MOMENTS_MAX {
            let mut index = 0;
            self.moments.retain(|_| {
                index += 1;
                index % 2 == 0
            });
            self.keep_every *= 2;
        }
    }

    fn moment(&self, now: &Look, members: &Members<'_>) -> Moment {
        let before = &self.before;
        let seconds = (now.at - before.at).as_secs_f64();
        let rate = |after: u64, before: u64| after.saturating_sub(before) as f64 / seconds;
        let mut layers = [0.0; LAYERS];
        for (index, layer) in layers.iter_mut().enumerate() {
            *layer = rate(now.sums.layers[index], before.sums.layers[index]);
        }
        let (connected, clients) = members.connected();
        let scrape = self.scraper.as_ref().map(|scraper| scraper.latest());
        let server_cpu = now.server.zip(before.server);
        Moment {
            at_seconds: (now.at - self.begun).as_secs_f64(),
            phase: self.phase,
            connected,
            clients,
            ended: members.ended(),
            packets_per_second: rate(now.sums.packets, before.sums.packets),
            megabits_per_second: rate(now.sums.bytes, before.sums.bytes) * 8e-6,
            layer_packets_per_second: layers,
            server_cpu: server_cpu
                .map(|(now, before)| (now.cpu_seconds - before.cpu_seconds) / seconds),
            server_memory_kib: now.server.map(|usage| usage.memory_kib),
            server_descriptors: now.server.map(|usage| usage.descriptors),
            server_threads: now.server.map(|usage| usage.threads),
            server_tasks: scrape.and_then(|scrape| scrape.tasks),
            server_series: scrape.map(|scrape| scrape.series),
            own_cpu: (now.own.cpu_seconds - before.own.cpu_seconds) / seconds,
        }
    }
}

impl Look {
    fn now(server: Option<u32>, workers: &[Worker]) -> Self {
        let mut sums = Sums::default();
        for part in workers.iter().map(Worker::sums) {
            sums.packets += part.packets;
            sums.bytes += part.bytes;
            for (sum, part) in sums.layers.iter_mut().zip(part.layers) {
                *sum += part;
            }
        }
        Self { at: Instant::now(), sums, server: server.and_then(Usage::of), own: Usage::own() }
    }
}
