//! What a publisher sends at most, by the transport-wide feedback that it gets: a plain
//! controller in the manner of Google's, for the publisher's side of the world only.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_rtp::SequenceUnwrapper;
use headwater_rtp::rtcp::{DELTA_TICK, TransportFeedback};

use crate::Time;
use crate::time::micros;

/// Packets whose sending time is remembered: some seconds.
const SENT_MAX: usize = 4_096;
/// Delay above the least of the last seconds that means a queue builds up.
const QUEUE: i64 = 100_000;
/// Shortest time between two cuts.
const CUT_SPACING: Duration = Duration::from_millis(500);

/// Rate control of a publisher.
#[derive(Debug)]
pub(crate) struct Estimator {
    rate: f64,
    ceiling: f64,
    sent: BTreeMap<u64, (Time, usize)>,
    unwrapper: SequenceUnwrapper,
    least_delay: Option<i64>,
    last_cut: Option<Time>,
    last_update: Time,
}

impl Estimator {
    /// Begins at its ceiling, in bits per second: what comes before is not of interest.
    pub(crate) fn new(ceiling: u64) -> Self {
        Self {
            rate: ceiling as f64,
            ceiling: ceiling as f64,
            sent: BTreeMap::new(),
            unwrapper: SequenceUnwrapper::new(),
            least_delay: None,
            last_cut: None,
            last_update: Time::ZERO,
        }
    }

    pub(crate) fn rate(&self) -> u64 {
        self.rate as u64
    }

    pub(crate) fn sent(&mut self, now: Time, sequence: u16, size: usize) {
        let sequence = self.unwrapper.unwrap(sequence);
        self.sent.insert(sequence, (now, size));
        while self.sent.len() > SENT_MAX {
            self.sent.pop_first();
        }
    }

    pub(crate) fn feedback(&mut self, now: Time, feedback: &TransportFeedback<'_>) {
        let (mut told, mut lost, mut bytes) = (0_u32, 0_u32, 0_usize);
        let (mut first, mut last, mut nearest) = (i64::MAX, i64::MIN, i64::MAX);
        for packet in feedback.packets() {
            let sequence = self.unwrapper.peek(packet.sequence);
            let Some((sent, size)) = self.sent.get(&sequence).copied() else { continue };
            told += 1;
            let Some(arrival) = packet.arrival else {
                lost += 1;
                continue;
            };
            self.sent.remove(&sequence);
            let arrival = arrival * micros(DELTA_TICK) as i64;
            nearest = nearest.min(arrival - sent.0 as i64);
            (first, last) = (first.min(arrival), last.max(arrival));
            bytes += size;
        }
        if told == 0 || nearest == i64::MAX {
            return;
        }
        let least = self.least_delay.map_or(nearest, |least| least.min(nearest));
        // Clocks may drift: the least delay is forgotten slowly.
        self.least_delay = Some(least + 50);
        let passed = bytes as f64 * 8e6 / (last - first).max(20_000) as f64;
        let may_cut = self.last_cut.is_none_or(|cut| now.since(cut) >= CUT_SPACING);
        let part = f64::from(lost) / f64::from(told);
        let queued = nearest - least > QUEUE;
        if queued || (part > 0.1 && told > 10) {
            if may_cut {
                self.last_cut = Some(now);
                let cut = if queued { passed * 0.85 } else { self.rate * (1.0 - 0.5 * part) };
                self.rate = cut.min(self.rate).max(100_000.0);
            }
        } else {
            let seconds = now.since(self.last_update).as_secs_f64().min(1.0);
            self.rate = (self.rate * 1.08_f64.powf(seconds)).min(self.ceiling);
        }
        self.last_update = now;
    }
}
