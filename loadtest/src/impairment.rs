//! A bad link in front of a client: datagrams are lost, delayed and queued before
//! the client sees them. Seeded; the same datagrams at the same times fare the same.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::scenario::Impairment;

/// Datagrams on the way to one client; more are dropped like those of a full queue.
const IN_FLIGHT_MAX: usize = 8_192;

/// A datagram that is on its way.
#[derive(Debug)]
pub struct Delayed {
    due: Instant,
    /// Who sent it.
    pub from: SocketAddr,
    /// Its bytes.
    pub datagram: Vec<u8>,
}

/// The link of one client.
#[derive(Debug)]
pub struct Link {
    settings: Impairment,
    random: SmallRng,
    begun: Instant,
    /// When the rate limit has sent everything that it took.
    busy_until: Instant,
    /// Packets keep their order, so none is due before the one in front of it.
    last_due: Instant,
    in_flight: VecDeque<Delayed>,
    /// Datagrams lost on purpose: by chance, and in the queue.
    pub lost: (u64, u64),
}

impl Link {
    /// A link from now on.
    #[must_use]
    pub fn new(settings: Impairment, seed: u64, now: Instant) -> Self {
        Self {
            settings,
            random: SmallRng::seed_from_u64(seed),
            begun: now,
            busy_until: now,
            last_due: now,
            in_flight: VecDeque::new(),
            lost: (0, 0),
        }
    }

    /// Takes a datagram that arrived.
    pub fn push(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if self.random.random_bool(self.settings.loss_percent / 100.0) {
            self.lost.0 += 1;
            return;
        }
        let Some(sent) = self.through_queue(now, datagram.len()) else {
            self.lost.1 += 1;
            return;
        };
        let jitter = self.settings.jitter_ms * self.random.random::<f64>();
        let delay = Duration::from_secs_f64((self.settings.delay_ms + jitter) / 1000.0);
        let due = (sent + delay).max(self.last_due);
        self.last_due = due;
        self.in_flight.push_back(Delayed { due, from, datagram: datagram.to_vec() });
    }

    /// When the datagram has passed the rate limit; `None` if the queue is full.
    fn through_queue(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return None;
        }
        let Some(bits_per_second) = self.rate(now) else { return Some(now) };
        let begin = self.busy_until.max(now);
        if begin - now > Duration::from_secs_f64(self.settings.queue_ms / 1000.0) {
            return None;
        }
        // IPv4 and UDP headers take room on the link too.
        self.busy_until =
            begin + Duration::from_secs_f64((bytes + 28) as f64 * 8.0 / bits_per_second);
        Some(self.busy_until)
    }

    fn rate(&self, now: Instant) -> Option<f64> {
        let at = (now - self.begun).as_secs_f64();
        let step = self.settings.rate.iter().rev().find(|step| step.at_seconds <= at)?;
        (step.kbps > 0.0).then_some(step.kbps * 1000.0)
    }

    /// The next datagram that has come through by now.
    pub fn pop(&mut self, now: Instant) -> Option<Delayed> {
        if self.in_flight.front()?.due > now {
            return None;
        }
        self.in_flight.pop_front()
    }

    /// When the next one comes through.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.in_flight.front().map(|first| first.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::RateStep;

    const FROM: &str = "127.0.0.1:9";

    fn through(settings: Impairment, count: usize, gap: Duration) -> (Vec<Duration>, Link) {
        let begun = Instant::now();
        let mut link = Link::new(settings, 7, begun);
        for index in 0..count {
            link.push(begun + gap * index as u32, FROM.parse().unwrap(), &[0; 972]);
        }
        let mut times = Vec::new();
        while let Some(due) = link.poll_timeout() {
            assert!(link.pop(due).is_some());
            times.push(due - begun);
        }
        (times, link)
    }

    #[test]
    fn a_perfect_link_changes_nothing() {
        let (times, _) = through(Impairment::default(), 3, Duration::from_millis(1));
        assert_eq!(times, [0, 1, 2].map(Duration::from_millis));
    }

    #[test]
    fn loss_is_about_what_was_asked_and_the_same_each_time() {
        let lossy = Impairment { loss_percent: 10.0, ..Impairment::default() };
        let (first, link) = through(lossy.clone(), 5_000, Duration::from_micros(10));
        assert!((400..600).contains(&link.lost.0), "{} lost", link.lost.0);
        assert_eq!(first, through(lossy, 5_000, Duration::from_micros(10)).0);
    }

    #[test]
    fn jitter_keeps_the_order() {
        let wild = Impairment { delay_ms: 50.0, jitter_ms: 30.0, ..Impairment::default() };
        let (times, _) = through(wild, 500, Duration::from_millis(1));
        assert!(times.is_sorted());
        assert!(times[0] >= Duration::from_millis(50));
        assert!(*times.last().unwrap() <= Duration::from_millis(499 + 80));
    }

    #[test]
    fn a_rate_limit_spaces_packets_and_drops_beyond_its_queue() {
        let step = RateStep { at_seconds: 0.0, kbps: 800.0 };
        let narrow = Impairment { rate: vec![step], queue_ms: 100.0, ..Impairment::default() };
        // 1,000 bytes with headers take 10 ms: one in service and ten of queue.
        let (times, link) = through(narrow, 50, Duration::ZERO);
        assert_eq!(times[0], Duration::from_millis(10));
        assert_eq!(times[1] - times[0], Duration::from_millis(10));
        assert_eq!((times.len() as u64, link.lost.1), (11, 39));
    }

    #[test]
    fn a_rate_of_zero_lifts_the_limit() {
        let rate =
            vec![RateStep { at_seconds: 0.0, kbps: 8.0 }, RateStep { at_seconds: 0.5, kbps: 0.0 }];
        let link = Link::new(Impairment { rate, ..Impairment::default() }, 1, Instant::now());
        assert_eq!(link.rate(link.begun), Some(8_000.0));
        assert_eq!(link.rate(link.begun + Duration::from_secs(1)), None);
    }
}
