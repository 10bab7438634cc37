//! The rate that the delay allows: up a little while nothing queues, down at once below
//! what arrives when something does (draft-ietf-rmcat-gcc-02 section 5.5).

use super::acked::Sample;
use super::delay::Usage;
use crate::clock::Micros;

/// Section 5.5: what is kept of the arriving rate when the queue grows.
const BACK_OFF: f64 = 0.85;
/// A queue longer than [`QUEUE_BORNE`] is drained: a second of it would take all of the
/// rate, and [`BACK_OFF_MOST`] is taken at most.
const QUEUE_BORNE: Micros = Micros::from_millis(100);
const BACK_OFF_MOST: f64 = 0.25;
/// More than this times what arrives was sent: the network is full.
const FULL: f64 = 1.06;
/// Time between reductions while it is not.
const CAUTION: Micros = Micros::from_millis(500);
/// Section 5.5: growth in a second while the capacity is not known.
const GROWTH: f64 = 1.08;
/// Growth near the capacity: about one packet in a response time.
const STEP_BITS: f64 = 1_200.0 * 8.0;
/// Weight of a new observation of the capacity.
const CAPACITY_WEIGHT: f64 = 0.05;
/// Nothing is ever estimated below this: sound alone, and enough to be told otherwise.
pub(crate) const RATE_MIN: u64 = 30_000;
/// Nor above this.
pub(crate) const RATE_MAX: u64 = 200_000_000;

/// What is known when a rate is updated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RateInput {
    pub(crate) now: Micros,
    pub(crate) usage: Usage,
    /// Arriving bits per second, if known.
    pub(crate) acked: Option<u64>,
    /// The same for the last moment, with what was sent for it.
    pub(crate) sample: Sample,
    pub(crate) rtt: Micros,
    /// How long packets wait on the way.
    pub(crate) queue: Micros,
    /// Part of what is sent that gets lost whatever is sent, 0 to 1.
    pub(crate) inherent_loss: f64,
    /// The rate does not grow by itself beyond this: what is not used is not proved.
    pub(crate) growth_max: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    Hold,
    Increase,
}

/// The capacity as seen when queues grew, in kbit/s.
#[derive(Debug, Clone, Copy, Default)]
struct Capacity {
    mean: Option<f64>,
    variance: f64,
}

impl Capacity {
    fn observe(&mut self, kbps: f64) {
        let Some(mean) = self.mean else {
            self.mean = Some(kbps);
            self.variance = 0.4;
            return;
        };
        let error = mean - kbps;
        let next = mean - CAPACITY_WEIGHT * error;
        self.mean = Some(next);
        let scaled = error * error / next.max(1.0);
        self.variance =
            ((1.0 - CAPACITY_WEIGHT) * self.variance + CAPACITY_WEIGHT * scaled).clamp(0.4, 2.5);
    }

    fn spread(&self) -> f64 {
        (self.variance * self.mean.unwrap_or(0.0)).sqrt()
    }

    fn is_near(&self, kbps: f64) -> bool {
        self.mean.is_some_and(|mean| kbps > mean - 3.0 * self.spread())
    }

    fn is_below(&self, kbps: f64) -> bool {
        self.mean.is_some_and(|mean| kbps < mean - 3.0 * self.spread())
    }

    fn is_above(&self, kbps: f64) -> bool {
        self.mean.is_some_and(|mean| kbps > mean + 3.0 * self.spread())
    }
}

/// Additive increase, multiplicative decrease.
#[derive(Debug)]
pub(crate) struct RateControl {
    bps: f64,
    course: Course,
    capacity: Capacity,
    updated: Option<Micros>,
    reduced: Option<Micros>,
}

impl RateControl {
    pub(crate) fn new(start_bps: u64) -> Self {
        Self {
            bps: start_bps as f64,
            course: Course::Hold,
            capacity: Capacity::default(),
            updated: None,
            reduced: None,
        }
    }

    pub(crate) fn bps(&self) -> u64 {
        (self.bps as u64).clamp(RATE_MIN, RATE_MAX)
    }

    /// When it last fell.
    pub(crate) fn reduced(&self) -> Option<Micros> {
        self.reduced
    }

    /// Feedback came.
    pub(crate) fn update(&mut self, input: &RateInput) {
        let elapsed = self.updated.replace(input.now).map_or(0, |at| input.now.since(at).0);
        let seconds = (elapsed as f64 / 1e6).min(1.0);
        match input.usage {
            Usage::Over => self.reduce(input),
            Usage::Under => self.course = Course::Hold,
            Usage::Normal if self.course == Course::Hold => self.course = Course::Increase,
            Usage::Normal => self.increase(input, seconds),
        }
    }

    /// A probe, or the owner, knows better.
    pub(crate) fn set(&mut self, bps: u64) {
        self.bps = bps as f64;
        if self.capacity.is_above(self.bps / 1_000.0) {
            self.capacity = Capacity::default();
        }
    }

    /// Nothing is heard from the other side: less is sent until it is.
    pub(crate) fn halve(&mut self, now: Micros) {
        self.reduce_to(now, (self.bps / 2.0) as u64);
    }

    /// The rate falls for a reason that is not seen in delays.
    pub(crate) fn reduce_to(&mut self, now: Micros, bps: u64) {
        self.bps = self.bps.min(bps as f64).max(RATE_MIN as f64);
        self.reduced = Some(now);
        self.course = Course::Hold;
    }

    fn increase(&mut self, input: &RateInput, seconds: f64) {
        if let Some(acked) = input.acked
            && self.capacity.is_above(acked as f64 / 1_000.0)
        {
            self.capacity = Capacity::default();
        }
        let grown = if self.capacity.is_near(self.bps / 1_000.0) {
            let response = input.rtt.0 as f64 / 1e6 + 0.1;
            self.bps + (STEP_BITS / response).max(4_000.0) * seconds
        } else {
            self.bps * GROWTH.powf(seconds) + 1_000.0 * seconds
        };
        let bound = (input.growth_max as f64).max(self.bps);
        self.bps = grown.min(bound).min(RATE_MAX as f64);
    }

    fn reduce(&mut self, input: &RateInput) {
        // One queue is answered once: what was sent before the answer is still in it.
        let wait = input.rtt.plus(Micros::from_millis(100));
        if self.reduced.is_some_and(|at| input.now.since(at) < wait) {
            return;
        }
        let Sample { offered, arrived } = input.sample;
        if offered * (1.0 - input.inherent_loss) <= FULL * arrived || arrived == 0.0 {
            // All that was sent arrived, so the bound is somewhere above it: others share
            // the way, or it was a false alarm.
            if self.reduced.is_none_or(|at| input.now.since(at) >= CAUTION) {
                self.bps = (self.bps * BACK_OFF).max(RATE_MIN as f64);
                self.course = Course::Hold;
                self.reduced = Some(input.now);
            }
            return;
        }
        let acked = input.acked.map_or(arrived, |acked| arrived.min(acked as f64));
        if self.capacity.is_below(acked / 1_000.0) {
            self.capacity = Capacity::default();
        }
        self.capacity.observe(acked / 1_000.0);
        let queue = input.queue.since(QUEUE_BORNE).0 as f64 / 1e6;
        let kept = BACK_OFF - queue.min(BACK_OFF_MOST);
        self.bps = self.bps.min(kept * acked).max(RATE_MIN as f64);
        self.course = Course::Hold;
        self.reduced = Some(input.now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn input(millis: u64, usage: Usage, acked: u64) -> RateInput {
        RateInput {
            now: Micros::from_millis(1_000 + millis),
            usage,
            acked: Some(acked),
            sample: Sample { offered: acked as f64 * 1.5, arrived: acked as f64 },
            queue: Micros::ZERO,
            inherent_loss: 0.0,
            rtt: Micros::from_millis(50),
            growth_max: acked * 3 / 2,
        }
    }

    #[test]
    fn a_growing_queue_brings_the_rate_below_what_arrives_once() {
        let mut rate = RateControl::new(3_000_000);
        rate.update(&input(0, Usage::Over, 500_000));
        assert_eq!(rate.bps(), 425_000);
        rate.update(&input(50, Usage::Over, 300_000));
        assert_eq!(rate.bps(), 425_000, "the same queue");
        rate.update(&input(300, Usage::Over, 300_000));
        assert_eq!(rate.bps(), 255_000);
    }

    #[test]
    fn a_queue_that_is_not_ours_costs_little() {
        let mut rate = RateControl::new(2_000_000);
        let sample = Sample { offered: 300_000.0, arrived: 300_000.0 };
        for step in 0..5 {
            rate.update(&RateInput { sample, ..input(step * 100, Usage::Over, 300_000) });
        }
        assert_eq!(rate.bps(), 1_700_000);
    }

    #[test]
    fn what_is_not_used_neither_grows_nor_shrinks_the_rate() {
        let mut rate = RateControl::new(2_000_000);
        for step in 0..600 {
            rate.update(&input(step * 100, Usage::Normal, 150_000));
        }
        assert_eq!(rate.bps(), 2_000_000);
    }

    #[test]
    fn a_free_way_is_used_more_by_eight_per_cent_a_second() {
        let mut rate = RateControl::new(1_000_000);
        for step in 0..=50 {
            rate.update(&input(step * 100, Usage::Normal, 10_000_000));
        }
        assert!((1_400_000..1_520_000).contains(&rate.bps()), "{}", rate.bps());
    }

    #[test]
    fn near_the_capacity_the_rate_grows_in_small_steps() {
        let mut rate = RateControl::new(1_000_000);
        rate.update(&input(0, Usage::Over, 1_000_000));
        let after = rate.bps();
        for step in 1..=50 {
            rate.update(&input(step * 100, Usage::Normal, 1_000_000));
        }
        assert!(rate.bps() > after + 50_000, "{after} {}", rate.bps());
        assert!(rate.bps() < after + 600_000, "{after} {}", rate.bps());
    }

    proptest! {
        #[test]
        fn the_rate_stays_within_its_bounds(
            steps in proptest::collection::vec((0_u64..500, 0_u8..3, 0_u64..1_000_000_000), 1..200),
        ) {
            let mut rate = RateControl::new(1_000_000);
            let mut at = 0;
            for (wait, usage, acked) in steps {
                at += wait;
                let usage = [Usage::Normal, Usage::Over, Usage::Under][usize::from(usage)];
                rate.update(&input(at, usage, acked));
                prop_assert!((RATE_MIN..=RATE_MAX).contains(&rate.bps()));
            }
        }
    }
}
