//! Divides a subscriber's rate among its video tracks. First the lowest layers of as many
//! as fit, by priority and then by size; then upgrades, the best benefit for a bit first.
//! Temporal layers are steps between spatial ones. Sound is taken off before and is not
//! the matter here.

use arrayvec::ArrayVec;

/// Steps of one track: four spatial layers with four temporal ones.
pub(crate) const STEPS_MAX: usize = 16;
/// A step above what is sent now has to leave so much room, and what is sent now may be so
/// much too large, in percent: measured rates swing, with each keyframe by a quarter, and
/// pictures should not. Where the network just turned out to be full there is less patience.
const UP_PERCENT: u64 = 112;
const KEEP_PERCENT: u64 = 80;
const KEEP_PERCENT_FULL: u64 = 95;
/// Another picture is begun only if all of its temporal layers cost no more than this part
/// of what it can have, because the keyframe it begins with is as large as that: a larger
/// one when there is room, a smaller one when the network is full and still has a queue.
const KEYFRAME_PERCENT: u64 = 150;
const KEYFRAME_PERCENT_FULL: u64 = 70;

/// Layers of a track up to these, and what they cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    /// Bits per second of all of it.
    pub(crate) bps: u64,
    /// The same with all temporal layers.
    pub(crate) full_bps: u64,
    /// What it is worth to who looks, against other steps.
    pub(crate) value: f32,
}

/// A track that is to be seen.
#[derive(Debug, Clone)]
pub(crate) struct Demand {
    /// Index of the delivery.
    pub(crate) delivery: u32,
    /// Smaller comes first when there is not enough for all.
    pub(crate) rank: (u32, u32, u32),
    /// Rising in cost and worth; at least one.
    pub(crate) steps: ArrayVec<Step, STEPS_MAX>,
    /// What is sent now, if anything.
    pub(crate) current: Option<usize>,
    /// The part of its cost that it counts with, in percent.
    pub(crate) kept_percent: u64,
    /// The outcome; `None` is pause.
    pub(crate) chosen: Option<usize>,
}

impl Demand {
    /// Cost of a step as it counts against the rate.
    fn cost(&self, step: usize) -> u64 {
        let is_up = self.current.is_none_or(|current| step > current);
        self.steps[step].bps * if is_up { UP_PERCENT } else { self.kept_percent } / 100
    }

    fn chosen_cost(&self) -> u64 {
        self.chosen.map_or(0, |step| self.cost(step))
    }
}

/// What came of a division.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Outcome {
    /// Rate at which everything wanted would be sent.
    pub(crate) wanted_bps: u64,
    /// Rate of what was chosen.
    pub(crate) allocated_bps: u64,
    /// Tracks that get nothing.
    pub(crate) paused: u32,
    /// Something gets less than is wanted.
    pub(crate) limited: bool,
    /// The lowest layers do not all fit.
    pub(crate) scarce: bool,
}

/// What there is to divide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Bits per second; `None` is no limit.
    pub(crate) bps: Option<u64>,
    /// What does not fit is paused; else its lowest layer is sent all the same, because
    /// the budget is not sure enough to take a picture away.
    pub(crate) may_pause: bool,
    /// Something may get more than it has.
    pub(crate) may_rise: bool,
    /// The network was full a moment ago.
    pub(crate) is_full: bool,
}

/// Chooses a step for each.
pub(crate) fn allocate(budget: Budget, demands: &mut [Demand]) -> Outcome {
    let top = |demand: &Demand| demand.steps.len().checked_sub(1);
    let wanted_bps: u64 = demands
        .iter()
        .filter_map(|demand| demand.steps.last())
        .map(|step| step.bps * UP_PERCENT / 100)
        .sum();
    for demand in demands.iter_mut() {
        demand.kept_percent = if budget.is_full { KEEP_PERCENT_FULL } else { KEEP_PERCENT };
        demand.chosen = if budget.may_rise { top(demand) } else { top(demand).min(demand.current) };
    }
    let cost: u64 = demands.iter().map(Demand::chosen_cost).sum();
    let Some(bps) = budget.bps.filter(|bps| *bps < cost) else {
        return outcome(wanted_bps, false, demands);
    };
    let lowest: u64 = demands.iter().map(|demand| demand.cost(0)).sum();
    let mut left = admit(bps, budget, demands);
    while let Some((index, step)) = best_upgrade(left, budget.may_rise, demands) {
        let demand = &mut demands[index];
        let more = demand.cost(step).saturating_sub(demand.chosen_cost());
        left = left.saturating_sub(more);
        demand.chosen = Some(step);
    }
    outcome(wanted_bps, lowest > bps, demands)
}

fn outcome(wanted_bps: u64, scarce: bool, demands: &[Demand]) -> Outcome {
    let paused = demands.iter().filter(|demand| demand.chosen.is_none()).count() as u32;
    // What is sent although it does not fit is a limit too: a probe shows whether it is one.
    let below = |demand: &Demand| demand.chosen != demand.steps.len().checked_sub(1);
    let limited = scarce || demands.iter().any(below);
    let chosen = demands.iter().filter_map(|demand| demand.steps.get(demand.chosen?));
    let allocated_bps = chosen.map(|step| step.bps).sum();
    Outcome { wanted_bps, allocated_bps, paused, limited, scarce }
}

/// The lowest step for as many as fit, in their order. Returns what is left.
fn admit(bps: u64, budget: Budget, demands: &mut [Demand]) -> u64 {
    demands.sort_unstable_by_key(|demand| demand.rank);
    let mut left = bps;
    for demand in demands {
        let cost = demand.cost(0);
        let is_held = demand.current.is_none() && !budget.may_rise;
        let fits = cost <= left || !budget.may_pause;
        demand.chosen = (fits && !is_held).then_some(0);
        if demand.chosen.is_some() {
            left = left.saturating_sub(cost);
        }
    }
    left
}

/// The step with the most benefit for its bits among those that fit.
fn best_upgrade(left: u64, may_rise: bool, demands: &[Demand]) -> Option<(usize, usize)> {
    let mut best: Option<(f32, usize, usize)> = None;
    for (index, demand) in demands.iter().enumerate() {
        let Some(chosen) = demand.chosen else { continue };
        let (cost, value) = (demand.cost(chosen), demand.steps[chosen].value);
        for (step, choice) in demand.steps.iter().enumerate().skip(chosen + 1) {
            let more = demand.cost(step).saturating_sub(cost);
            let is_up = demand.current.is_none_or(|current| step > current);
            let from = demand.current.unwrap_or(chosen);
            let spatial = demand.steps[from].spatial;
            let percent = if choice.spatial > spatial && is_up {
                KEYFRAME_PERCENT
            } else if choice.spatial < spatial {
                KEYFRAME_PERCENT_FULL
            } else {
                u64::MAX / 100
            };
            let is_large = choice.full_bps > (left + cost).saturating_mul(percent) / 100;
            if more > left || choice.value <= value || (is_up && !may_rise) || is_large {
                continue;
            }
            let ratio = (choice.value - value) / more.max(1) as f32;
            if best.is_none_or(|(other, ..)| ratio > other) {
                best = Some((ratio, index, step));
            }
        }
    }
    best.map(|(_, index, step)| (index, step))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNLIMITED: Budget = Budget { bps: None, may_pause: true, may_rise: true, is_full: false };

    fn bps(bps: u64) -> Budget {
        Budget { bps: Some(bps), may_pause: true, may_rise: true, is_full: true }
    }

    /// A camera with three layers of three temporal ones.
    fn camera(delivery: u32, priority: u32, current: Option<usize>) -> Demand {
        let mut steps = ArrayVec::new();
        for (spatial, kbps) in [(0_u8, 150_u64), (1, 450), (2, 1_700)] {
            for (temporal, percent, part) in [(0_u8, 55, 0.6), (1, 75, 0.8), (2, 100, 1.0)] {
                let value = f32::from(1_u8 << spatial) * part;
                let bps = kbps * 10 * percent;
                steps.push(Step { spatial, temporal, bps, full_bps: kbps * 1_000, value });
            }
        }
        let rank = (priority, 0, delivery);
        Demand { delivery, rank, steps, current, kept_percent: 100, chosen: None }
    }

    fn layers(demands: &[Demand], delivery: u32) -> Option<(u8, u8)> {
        let demand = demands.iter().find(|demand| demand.delivery == delivery).unwrap();
        demand.chosen.map(|step| (demand.steps[step].spatial, demand.steps[step].temporal))
    }

    #[test]
    fn without_a_limit_everybody_gets_everything() {
        let mut demands = [camera(1, 0, None), camera(2, 0, None)];
        let outcome = allocate(UNLIMITED, &mut demands);
        assert_eq!((outcome.paused, outcome.limited), (0, false));
        assert_eq!(layers(&demands, 2), Some((2, 2)));
    }

    #[test]
    fn everybody_gets_something_before_anybody_gets_more() {
        let mut demands: Vec<Demand> = (0..10).map(|index| camera(index, 0, None)).collect();
        let outcome = allocate(bps(1_000_000), &mut demands);
        assert_eq!(outcome.paused, 0);
        assert!(outcome.limited);
        assert!((0..10).all(|index| layers(&demands, index).is_some_and(|it| it.0 == 0)));
    }

    #[test]
    fn what_does_not_fit_is_paused_from_the_last_in_order() {
        let mut demands: Vec<Demand> = (0..4).map(|index| camera(index, 4 - index, None)).collect();
        let outcome = allocate(bps(200_000), &mut demands);
        assert_eq!(outcome.paused, 2);
        assert_eq!(layers(&demands, 0), None);
        assert!(layers(&demands, 3).is_some());
        assert_eq!(allocate(bps(10_000), &mut demands).paused, 4, "sound alone");
    }

    #[test]
    fn temporal_layers_are_steps_between_spatial_ones() {
        let chosen = |budget| {
            let mut demands = [camera(1, 0, None)];
            allocate(bps(budget), &mut demands);
            layers(&demands, 1).unwrap()
        };
        assert_eq!(chosen(100_000), (0, 0));
        assert_eq!(chosen(300_000), (1, 0));
        assert_eq!(chosen(550_000), (1, 2));
        assert_eq!(chosen(1_200_000), (2, 0));
        assert_eq!(chosen(1_500_000), (2, 1));
    }

    #[test]
    fn what_is_sent_stays_where_it_would_not_be_begun() {
        let mut begun = [camera(1, 0, None)];
        allocate(bps(1_700_000), &mut begun);
        assert_eq!(layers(&begun, 1), Some((2, 1)));
        let top = begun[0].steps.len() - 1;
        let mut kept = [camera(1, 0, Some(top))];
        allocate(bps(1_700_000), &mut kept);
        assert_eq!(layers(&kept, 1), Some((2, 2)));
    }

    #[test]
    fn what_may_not_rise_stays_as_it_is() {
        let mut demands = [camera(1, 0, Some(2)), camera(2, 0, None)];
        for budget in [UNLIMITED, bps(1_000_000)] {
            let outcome = allocate(Budget { may_rise: false, ..budget }, &mut demands);
            assert_eq!((outcome.paused, outcome.limited), (1, true));
            assert_eq!(layers(&demands, 1), Some((0, 2)));
        }
    }

    #[test]
    fn nothing_is_paused_on_a_guess() {
        let mut demands = [camera(1, 0, None), camera(2, 0, None)];
        let outcome = allocate(Budget { may_pause: false, ..bps(90_000) }, &mut demands);
        assert_eq!((outcome.paused, outcome.scarce), (0, true));
        assert_eq!(layers(&demands, 2), Some((0, 0)));
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_there_is(
            budget in 0_u64..20_000_000,
            tracks in proptest::collection::vec((0_u32..4, proptest::option::of(0_usize..5)), 0..30),
        ) {
            let mut demands: Vec<Demand> = tracks
                .iter()
                .enumerate()
                .map(|(index, (priority, current))| camera(index as u32, *priority, *current))
                .collect();
            let outcome = allocate(bps(budget), &mut demands);
            let used: u64 = demands.iter().map(Demand::chosen_cost).sum();
            prop_assert!(used <= budget, "{} of {}", used, budget);
            let paused = demands.iter().filter(|demand| demand.chosen.is_none()).count();
            prop_assert_eq!(outcome.paused as usize, paused);
            // Nobody is paused while somebody after it in order has more than the least.
            let lowest = |demand: &&Demand| demand.chosen.is_some_and(|step| step > 0);
            if let Some(first) = demands.iter().find(|demand| demand.chosen.is_none()) {
                let spare = budget - used;
                prop_assert!(first.cost(0) > spare || demands.iter().all(|one| !lowest(&one)));
            }
        }
    }
}
