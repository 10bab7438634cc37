//! The receiving end of a microphone: a jitter buffer that weighs delay against loss as
//! libwebrtc's does, and counts what it had to make up.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use headwater_rtp::{SequenceUnwrapper, TimestampUnwrapper};

use crate::Time;
use crate::mark::Mark;

/// Packets by which the delay is chosen: ten seconds.
const WINDOW: usize = 500;
/// How often the delay is chosen anew, in packets.
const CHOICE_INTERVAL: u64 = 25;
/// What a percent of lost packets may cost in delay: libwebrtc's weight.
const MILLIS_PER_PERCENT: f64 = 20.0;
/// Delays to choose from, in steps of 10 ms.
const STEPS: usize = 60;

/// What a listener heard.
#[derive(Debug, Clone, Default)]
pub struct AudioReport {
    /// Packets that were to be played.
    pub played: u64,
    /// Those that were not there when their time came, and were made up.
    pub concealed: u64,
    /// Those that never came.
    pub lost: u64,
    /// Sequence numbers asked for again, each time counted.
    pub nacked: u64,
    /// Time between arrival of the quickest packet and playing, now.
    pub delay: Duration,
    /// Longest run of packets made up.
    pub longest_gap: u64,
}

impl AudioReport {
    /// Part of the packets that never came, 0 to 1.
    #[must_use]
    pub fn residual_loss(&self) -> f64 {
        self.lost as f64 / self.played.max(1) as f64
    }

    /// Part of the packets that were made up, late ones included, 0 to 1.
    #[must_use]
    pub fn concealment(&self) -> f64 {
        self.concealed as f64 / self.played.max(1) as f64
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    plays_at: Time,
    arrived: bool,
    concealed: bool,
}

/// Hears one subscription.
#[derive(Debug)]
pub(crate) struct Listener {
    sequences: SequenceUnwrapper,
    timestamps: TimestampUnwrapper,
    /// Packets not settled yet, by number: at most two seconds.
    slots: BTreeMap<u64, Slot>,
    highest: Option<(u64, u64)>,
    base_delay: Option<f64>,
    /// How late the last packets were, in microseconds; infinite ones never came.
    lateness: VecDeque<f64>,
    target: f64,
    since_choice: u64,
    gap: u64,
    pub(crate) report: AudioReport,
}

impl Listener {
    pub(crate) fn new() -> Self {
        Self {
            sequences: SequenceUnwrapper::new(),
            timestamps: TimestampUnwrapper::new(),
            slots: BTreeMap::new(),
            highest: None,
            base_delay: None,
            lateness: VecDeque::new(),
            target: 40_000.0,
            since_choice: 0,
            gap: 0,
            report: AudioReport::default(),
        }
    }

    pub(crate) fn unwrap(&mut self, sequence: u16) -> u64 {
        self.sequences.unwrap(sequence)
    }

    pub(crate) fn handle(&mut self, now: Time, sequence: u64, timestamp: u32, payload: &[u8]) {
        if Mark::read(payload).is_none() {
            return;
        }
        let timestamp = self.timestamps.unwrap(timestamp);
        let captured = timestamp as f64 * 1_000.0 / 48.0;
        let delay = now.0 as f64 - captured;
        let base = self.base_delay.map_or(delay, |base| base.min(delay));
        self.base_delay = Some(base + 2.0);
        self.make_slots(sequence, timestamp);
        if let Some(slot) = self.slots.get_mut(&sequence)
            && !slot.arrived
        {
            slot.arrived = true;
            slot.concealed = slot.plays_at < now;
            self.note_lateness(delay - base);
        }
        self.settle(now);
    }

    /// Times for this packet and those between the last one and it.
    fn make_slots(&mut self, sequence: u64, timestamp: u64) {
        let (from, at) = match self.highest {
            Some((highest, at)) if sequence > highest => (highest + 1, at),
            Some(_) => return,
            None => (sequence, timestamp.saturating_sub(960)),
        };
        self.highest = Some((sequence, timestamp));
        let count = sequence - from + 1;
        let step = timestamp.saturating_sub(at) as f64 / count as f64;
        let base = self.base_delay.unwrap_or(0.0);
        for (position, number) in (from..=sequence).enumerate() {
            let captured = (at as f64 + step * (position + 1) as f64) * 1_000.0 / 48.0;
            let plays_at = Time((captured + base + self.target).max(0.0) as u64);
            self.slots.insert(number, Slot { plays_at, arrived: false, concealed: true });
        }
    }

    fn note_lateness(&mut self, late: f64) {
        self.lateness.push_back(late);
        if self.lateness.len() > WINDOW {
            self.lateness.pop_front();
        }
        self.since_choice += 1;
        if self.since_choice >= CHOICE_INTERVAL {
            self.since_choice = 0;
            self.choose_target();
        }
    }

    /// The delay that costs least: itself, and what would come too late.
    fn choose_target(&mut self) {
        let count = self.lateness.len() as f64;
        let cost = |step: usize| {
            let delay = 10_000.0 * step as f64;
            let late = self.lateness.iter().filter(|late| **late > delay).count() as f64;
            delay / 1_000.0 + MILLIS_PER_PERCENT * 100.0 * late / count
        };
        let best = (2..=STEPS).min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or(2);
        self.target = 10_000.0 * best as f64 + 10_000.0;
        self.report.delay = Duration::from_micros(self.target as u64);
    }

    /// Counts what is two seconds past its time: nothing repairs it any more.
    fn settle(&mut self, now: Time) {
        while let Some((number, slot)) = self.slots.first_key_value().map(|(n, s)| (*n, *s))
            && slot.plays_at.plus(Duration::from_secs(2)) < now
        {
            self.slots.remove(&number);
            self.report.played += 1;
            self.report.lost += u64::from(!slot.arrived);
            self.report.concealed += u64::from(slot.concealed);
            self.gap = if slot.concealed { self.gap + 1 } else { 0 };
            self.report.longest_gap = self.report.longest_gap.max(self.gap);
            if !slot.arrived {
                self.note_lateness(f64::INFINITY);
            }
        }
    }
}
