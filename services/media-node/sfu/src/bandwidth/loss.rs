//! The rate that loss allows. A radio loses packets whatever is sent over it; a full
//! queue or a policer loses more the more is sent. draft-ietf-rmcat-gcc-02 section 6
//! treats both alike and gives way at ten per cent. Here loss that is there anyway is
//! learned, and only loss above it makes the rate smaller (the reasoning of libwebrtc's
//! second loss-based estimator, with one candidate instead of a search):
//!
//! - Loss up to a fifth without a growing queue is taken for the network's own: it is
//!   learned, unless it came with a rise of ours, which makes it ours.
//! - Loss above what was learned takes half of itself off the rate that is sent, as
//!   section 6 does.
//! - If loss then stays although a third less is sent, it was not ours: it is learned and
//!   the bound goes.

use crate::clock::Micros;

/// Loss is looked at over this time and at least so many packets, so that chance does not
/// decide; a thin stream is looked at after two seconds with what there is.
const WINDOW: Micros = Micros::from_millis(500);
const WINDOW_MAX: Micros = Micros::from_millis(2_000);
const PACKETS_MIN: u32 = 50;
/// Fewer say nothing even then.
const PACKETS_FEW: u32 = 10;
/// Loss above the network's own that is ours: with a growing queue or after a rise of
/// ours, and without.
const EXCESS_PLAIN: f64 = 0.08;
const EXCESS_ALONE: f64 = 0.2;
/// Loss above the network's own below which the bound rises (section 6).
const EXCESS_NONE: f64 = 0.02;
/// Loss that is never taken for the network's own.
const INHERENT_MAX: f64 = 0.4;
/// What a test leaves of the rate; below [`TESTED`] it is over.
const TEST_CUT: f64 = 0.6;
const TESTED: f64 = 0.75;
/// Windows over which the network's own loss is averaged.
const MEMORY: f64 = 12.0;
/// More than this above the rate at which loss was learned is a rise of ours.
const RISE: f64 = 1.2;
/// Section 6: growth without loss, for each half second here.
const GROWTH: f64 = 1.05;
/// Above this part of the sent rate a bound bounds nothing.
const IDLE_FACTOR: f64 = 2.5;

/// A cut, and what it was meant to cure.
#[derive(Debug, Clone, Copy)]
struct Cut {
    loss: f64,
    sent_bps: f64,
}

/// Bound of one transport's rate by loss.
#[derive(Debug, Default)]
pub(crate) struct LossBound {
    since: Option<Micros>,
    arrived: u32,
    lost: u32,
    /// Bytes of what arrived or was lost.
    bytes: u64,
    overused: bool,
    inherent: f64,
    windows: f64,
    /// Rate at which the network's own loss was learned.
    learned_bps: f64,
    bound_bps: Option<f64>,
    cut: Option<Cut>,
}

impl LossBound {
    /// Packets arrived or were lost.
    pub(crate) fn count(&mut self, arrived: u32, lost: u32) {
        self.arrived += arrived;
        self.lost += lost;
    }

    /// A packet that had been called lost came after all.
    pub(crate) fn recount(&mut self) {
        self.lost = self.lost.saturating_sub(1);
        self.arrived += 1;
    }

    /// Bits per second that loss allows; `None` if it bounds nothing.
    pub(crate) fn bps(&self) -> Option<u64> {
        self.bound_bps.map(|bps| bps as u64)
    }

    /// Part of what is sent that gets lost whatever is sent, as far as it was learned.
    pub(crate) fn inherent(&self) -> f64 {
        self.inherent
    }

    /// The rate was proved to be higher.
    pub(crate) fn lift(&mut self, bps: u64) {
        if self.bound_bps.is_some_and(|bound| bound < bps as f64) {
            self.bound_bps = Some(bps as f64);
        }
    }

    /// They had so many bytes.
    pub(crate) fn count_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Time passes; `overuse` says whether a queue grows now.
    pub(crate) fn update(&mut self, now: Micros, overuse: bool) {
        self.overused |= overuse;
        let Some(since) = self.since else {
            self.open(now);
            return;
        };
        let span = now.since(since);
        let count = self.arrived + self.lost;
        let enough = if span >= WINDOW_MAX { PACKETS_FEW } else { PACKETS_MIN };
        if span >= WINDOW && count >= enough {
            let loss = f64::from(self.lost) / f64::from(count);
            let sent_bps = self.bytes as f64 * 8e6 / span.0 as f64;
            self.judge(loss, sent_bps, f64::from(count));
            self.open(now);
        } else if span >= WINDOW_MAX {
            self.open(now);
        }
    }

    fn open(&mut self, now: Micros) {
        self.since = Some(now);
        self.arrived = 0;
        self.lost = 0;
        self.bytes = 0;
        self.overused = false;
    }

    fn judge(&mut self, loss: f64, sent_bps: f64, count: f64) {
        self.check_cut(loss, sent_bps);
        let excess = (loss - self.inherent) / (1.0 - self.inherent);
        let rose = self.windows > 2.0 && sent_bps > RISE * self.learned_bps;
        let is_ours = self.overused || rose || self.cut.is_some();
        // Chance alone makes this much of it, twenty windows out of twenty-one.
        let chance = 2.0 * (self.inherent / (1.0 - self.inherent) / count).sqrt();
        let bearable = chance + if is_ours { EXCESS_PLAIN } else { EXCESS_ALONE };
        if excess > bearable {
            let base = self.bound_bps.map_or(sent_bps, |bound| bound.min(sent_bps));
            let kept = 1.0 - 0.5 * excess;
            // Without a sign of a queue the cut is a test, and made to be one.
            let kept = if is_ours { kept } else { kept.min(TEST_CUT) };
            self.bound_bps = Some(base * kept);
            if self.cut.is_none() {
                self.cut = Some(Cut { loss, sent_bps });
            }
            return;
        }
        if !self.overused {
            self.learn(loss, sent_bps);
        }
        if excess < EXCESS_NONE + chance {
            self.rise(sent_bps);
        }
    }

    /// Loss that stays although much less is sent was not ours.
    fn check_cut(&mut self, loss: f64, sent_bps: f64) {
        let Some(cut) = self.cut.filter(|cut| sent_bps < TESTED * cut.sent_bps) else {
            return;
        };
        self.cut = None;
        if loss > 0.7 * cut.loss && !self.overused {
            self.inherent = loss.min(cut.loss).min(INHERENT_MAX);
            self.windows = MEMORY / 2.0;
            self.learned_bps = cut.sent_bps;
            self.bound_bps = None;
        }
    }

    fn learn(&mut self, loss: f64, sent_bps: f64) {
        self.windows = (self.windows + 1.0).min(MEMORY);
        self.inherent += (loss.min(INHERENT_MAX) - self.inherent) / self.windows;
        self.learned_bps += (sent_bps - self.learned_bps) / self.windows;
    }

    fn rise(&mut self, sent_bps: f64) {
        let Some(bound) = self.bound_bps else { return };
        let risen = bound * GROWTH;
        let is_idle = risen > IDLE_FACTOR * sent_bps;
        self.bound_bps = (!is_idle).then_some(risen);
        if is_idle {
            self.cut = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    /// Sends at the bound or `wanted`, in steps of 100 ms, through a policer of `capacity`
    /// that also loses a part at random. Returns the rate of the last second.
    struct Way {
        bound: LossBound,
        random: Random,
        now: Micros,
    }

    impl Way {
        fn new(seed: u64) -> Self {
            let now = Micros::from_millis(1_000);
            Self { bound: LossBound::default(), random: Random::new(seed), now }
        }

        fn run(&mut self, seconds: u32, wanted: u64, capacity: u64, random_loss: f64) -> u64 {
            let mut rate = wanted;
            for _ in 0..seconds * 10 {
                rate = wanted.min(self.bound.bps().unwrap_or(u64::MAX)).max(50_000);
                let packets = (rate / 10 / 8 / 1_000).max(1) as u32;
                let policed = 1.0 - (capacity as f64 / rate as f64).min(1.0);
                for _ in 0..packets {
                    let chance = (self.random.next_u32() % 10_000) as f64 / 10_000.0;
                    let kept = (1.0 - policed) * (1.0 - random_loss);
                    self.bound.count(u32::from(chance < kept), u32::from(chance >= kept));
                }
                self.bound.count_bytes(rate / 80);
                self.now = self.now.plus(Micros::from_millis(100));
                self.bound.update(self.now, false);
            }
            rate
        }
    }

    #[test]
    fn a_policer_brings_the_rate_near_its_own() {
        let mut way = Way::new(1);
        way.run(10, 400_000, 500_000, 0.0);
        let rate = way.run(20, 2_000_000, 500_000, 0.0);
        assert!((300_000..700_000).contains(&rate), "{rate}");
        assert_eq!(way.run(60, 2_000_000, 10_000_000, 0.0), 2_000_000, "it is gone");
    }

    #[test]
    fn heavy_loss_that_less_sending_does_not_cure_is_learned() {
        let mut way = Way::new(2);
        way.run(30, 2_000_000, 100_000_000, 0.3);
        assert_eq!(way.run(10, 2_000_000, 100_000_000, 0.3), 2_000_000);
    }

    proptest! {
        #[test]
        fn random_loss_up_to_a_tenth_costs_nothing(seed in any::<u64>(), loss in 0.0_f64..0.1) {
            let mut way = Way::new(seed);
            for _ in 0..30 {
                prop_assert_eq!(way.run(1, 1_700_000, 100_000_000, loss), 1_700_000);
            }
        }
    }
}
