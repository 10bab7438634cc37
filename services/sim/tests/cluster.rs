//! Whole clusters from seeds: nothing that must hold may break, and the same seed is the
//! same run.

use std::time::Instant;

use headwater_sim::cluster::{self, Outcome, Settings};

/// Seeds of one test. There are four, so that several cores are used.
const SEEDS: u64 = 60;

/// Seeds that show something that is not mended yet: a room that nobody is in and that
/// does not end; a participant that comes back by a cut-off node and is taken for the
/// older one of two.
const OPEN: [u64; 2] = [148, 170];

#[expect(clippy::disallowed_methods, reason = "the origin of virtual time")]
fn origin() -> Instant {
    Instant::now()
}

fn run(seed: u64) -> Outcome {
    cluster::run(&Settings::of_seed(seed), seed, origin(), false)
}

fn run_part(part: u64) {
    for seed in (part * SEEDS + 1..=(part + 1) * SEEDS).filter(|seed| !OPEN.contains(seed)) {
        let outcome = run(seed);
        assert!(
            outcome.violations.is_empty(),
            "seed {seed} broke {:#?}\nat the end of\n{}\nreplay: cargo run -p headwater-sim -- \
             cluster --seed {seed}",
            outcome.violations,
            outcome.lines.join("\n"),
        );
    }
}

#[test]
fn a_cluster_in_peace_has_everybody_see_and_hear_everybody() {
    let outcome = cluster::run(&Settings::calm(), 1, origin(), false);
    assert_eq!(outcome.violations, [""; 0], "{}", outcome.lines.join("\n"));
    assert!(outcome.received > 100 && outcome.relayed > 100, "{outcome:?}");
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for seed in [3, 22, 47] {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first, second, "seed {seed}");
        assert_ne!(first.trace, run(seed + 1).trace);
    }
}

#[test]
fn nothing_that_must_hold_breaks_first_part() {
    run_part(0);
}

#[test]
fn nothing_that_must_hold_breaks_second_part() {
    run_part(1);
}

#[test]
fn nothing_that_must_hold_breaks_third_part() {
    run_part(2);
}

#[test]
fn nothing_that_must_hold_breaks_fourth_part() {
    run_part(3);
}
