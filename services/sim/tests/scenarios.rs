//! What must hold in each scenario, for several seeds: `HEADWATER_SIM_SEEDS` says how many.
//! A failure prints the command that shows the run.

#![allow(clippy::print_stdout, reason = "what a test prints is shown if it fails")]

use std::time::{Duration, Instant};

use headwater_model::media::SubscriptionTarget;
use headwater_sim::scenario::{self, Figures, Run, Scenario};
use headwater_sim::{Random, Time};

const SEEDS: u64 = 3;

fn seeds() -> std::ops::RangeInclusive<u64> {
    let count = std::env::var("HEADWATER_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    1..=count.unwrap_or(SEEDS)
}

#[expect(clippy::disallowed_methods, reason = "the origin of virtual time")]
fn origin() -> Instant {
    Instant::now()
}

fn named(name: &str) -> Scenario {
    let found = scenario::all().into_iter().find(|scenario| scenario.name == name);
    found.unwrap_or_else(|| panic!("no scenario {name}"))
}

/// Runs scenarios from every seed. What must hold of every run is looked at, too.
fn each(names: &[&str], check: impl Fn(&Run, &Figures)) {
    for name in names {
        for seed in seeds() {
            let run = named(name).run(seed, origin());
            let figures = run.figures();
            println!("{}\n{figures:#?}", run.replay());
            sound(&run);
            check(&run, &figures);
            println!("passed");
        }
    }
}

/// What must hold of every run, whatever the network does.
fn sound(run: &Run) {
    let node = run.world.node(run.node);
    assert_eq!(node.violations(), Vec::<String>::new());
    let lost_up = run.world.up(run.publisher).lost;
    assert!(node.holes() as u64 <= lost_up * (run.others.len() as u64 + 1), "{}", node.holes());
    let stats = node.sfu().stats();
    assert!(stats.retransmissions_out <= stats.nacks_in, "{stats:?}");
    assert_eq!(stats.events_dropped, 0);
    // At most two keyframe requests a second for the lowest encoding and one for others.
    let seconds = run.scenario.ends.elapsed().as_secs_f64();
    assert!(stats.keyframe_requests_out as f64 <= 4.0 * seconds + 3.0, "{stats:?}");
    // The publisher is asked for what it lost, at most six times each.
    assert!(stats.nacks_out <= 6 * lost_up, "{stats:?}");
}

#[test]
fn the_same_seed_gives_the_same_world_to_the_bit() {
    for name in ["loss-5-delay-100", "reorder-30", "cut", "slow-among-fast"] {
        let scenario = Scenario { ends: Time::from_secs(40), ..named(name) };
        let traces = [5, 5, 6].map(|seed| scenario.run(seed, origin()).world.trace());
        assert_eq!(traces[0], traces[1], "{name}");
        assert_ne!(traces[0], traces[2], "{name}");
    }
}

#[test]
fn up_to_ten_percent_loss_no_picture_freezes_for_half_a_second() {
    let names = ["loss-1", "loss-2", "loss-5", "loss-10", "uplink-loss-5"];
    each(&names, |_, figures| {
        assert_eq!(figures.long_freezes, 0);
        assert!(figures.frame_rate > 20.0);
        assert_eq!(figures.layer, Some(2));
    });
}

#[test]
fn bursts_of_five_lost_packets_freeze_a_picture_once_a_minute_at_most() {
    each(&["bursts-2", "bursts-5"], |_, figures| {
        assert!(figures.long_freezes <= 1);
        assert!(figures.longest_gap < Duration::from_millis(800));
    });
}

#[test]
fn two_percent_loss_over_a_hundred_milliseconds_freezes_no_picture_for_half_a_second() {
    each(&["loss-2-delay-100"], |_, figures| {
        assert_eq!(figures.long_freezes, 0);
        assert!(figures.longest_gap < Duration::from_millis(500));
        assert_eq!(figures.layer, Some(2));
    });
}

#[test]
fn at_five_percent_loss_less_than_a_percent_of_the_sound_is_missing() {
    each(&["loss-5", "bursts-5", "loss-5-delay-100", "loss-5-delay-200"], |_, figures| {
        assert!(figures.audio_lost <= 1.0);
    });
}

#[test]
fn redundancy_makes_sound_from_far_away_whole_where_repetition_comes_too_late() {
    let concealed = |name: &str, seed: u64| {
        let run = named(name).run(seed, origin());
        let figures = run.figures();
        println!("{}\n{figures:#?}", run.replay());
        sound(&run);
        figures.audio_concealed
    };
    for seed in seeds() {
        for (without, with) in [
            ("loss-5-delay-100", "red-5"),
            ("loss-10-delay-100", "red-10"),
            ("uplink-loss-5-far", "uplink-red-5-far"),
        ] {
            let (without, with) = (concealed(without, seed), concealed(with, seed));
            assert!(with < without / 3.0, "{with} % is made up, {without} % without redundancy");
        }
    }
}

#[test]
fn twenty_and_thirty_percent_loss_are_lived_through() {
    each(&["loss-20", "loss-30", "uplink-loss-20"], |_, figures| {
        assert!(figures.frame_rate > 5.0);
        assert!(figures.audio_lost <= 1.0);
    });
}

#[test]
fn distance_alone_costs_nothing_but_time() {
    each(&["clear", "delay-100", "delay-200"], |_, figures| {
        assert_eq!(figures.freezes, 0);
        assert!(figures.audio_concealed < 0.1);
        assert!(figures.frame_rate > 29.5);
        assert!(figures.keyframe_requests == 0);
    });
}

#[test]
fn jitter_and_disorder_freeze_no_picture() {
    each(&["jitter-30", "reorder-30", "jitter-30-loss-2", "duplicates"], |_, figures| {
        assert_eq!(figures.long_freezes, 0);
        assert_eq!(figures.layer, Some(2));
        assert!(figures.audio_lost <= 0.1);
    });
}

#[test]
fn nobody_asks_again_more_than_a_few_times_for_what_was_lost() {
    let names = ["loss-1", "loss-5", "loss-10", "bursts-5", "uplink-loss-5", "jitter-30-loss-2"];
    each(&names, |_, figures| {
        assert!(figures.nacks_per_loss < 3.0);
        assert!(figures.keyframe_requests <= 2);
        assert!(figures.keyframe_requests_up <= 6);
    });
}

#[test]
fn a_capped_link_is_not_overshot_once_the_estimate_has_converged() {
    each(&["cap-3000", "cap-1000", "cap-500", "cap-250"], |run, figures| {
        assert!(figures.overshoot.unwrap() <= 5.0);
        assert!(figures.long_freezes <= 4);
        assert!(figures.audio_lost <= 1.0);
        // It is not served by hardly using the link either.
        let rate = run.scenario.watched.down.rate.unwrap() as f64 / 1_000.0;
        let least = rate.min(1_600.0) * 0.4;
        assert!(figures.received_kbps > least, "less than {least}");
    });
}

#[test]
fn a_cut_lowers_the_layer_within_two_seconds_and_its_end_raises_it_within_ten() {
    each(&["cut"], |_, figures| {
        assert!(figures.layer_down.unwrap() <= Duration::from_secs(2));
        assert!(figures.layer_up.unwrap() <= Duration::from_secs(10));
        assert!(figures.long_freezes <= 3);
        assert!(figures.overshoot.unwrap() <= 5.0);
    });
}

#[test]
fn a_slow_subscriber_harms_nobody_else() {
    each(&["slow-among-fast"], |run, _| {
        for other in &run.others {
            let report = run.world.subscriber(*other).unwrap().report();
            let video = &report.video[0];
            assert_eq!(video.long_freezes, vec![]);
            assert_eq!(video.freezes, 0);
            assert!(video.frames > 59 * 29, "{}", video.frames);
            assert_eq!(video.layers.last().unwrap().1, 2);
            assert!(video.layers.iter().skip(3).count() == 0, "{:?}", video.layers);
            assert_eq!(report.audio[0].concealed, 0);
        }
    });
}

#[test]
fn a_slow_subscriber_gets_the_layer_that_fits() {
    each(&["slow-among-fast"], |_, figures| {
        assert!(figures.layer.unwrap() < 2);
        assert!(figures.overshoot.unwrap() <= 5.0);
        assert!(figures.frame_rate > 10.0);
    });
}

#[test]
fn a_late_joiner_among_a_hundred_sees_the_cached_keyframe_and_asks_nobody() {
    each(&["late-joiner"], |run, figures| {
        assert!(figures.first_frame.unwrap() < Duration::from_millis(300));
        assert_eq!(run.keyframe_requests_since_join(), 0);
    });
}

#[test]
fn a_latecomer_among_a_hundred_sees_a_picture_soon_and_costs_one_keyframe_at_most() {
    each(&["latecomer"], |run, figures| {
        assert!(figures.first_frame.unwrap() < Duration::from_millis(300));
        assert!(run.keyframe_requests_since_join() <= 3);
        for other in &run.others {
            let video = &run.world.subscriber(*other).unwrap().report().video[0];
            assert_eq!(video.freezes, 0);
        }
    });
}

#[test]
fn no_packet_above_its_target_is_sent_whatever_the_targets_do() {
    for seed in seeds() {
        let scenario = Scenario { ends: Time::from_secs(60), ..named("loss-2") };
        let mut random = Random::new(seed);
        let mut run = scenario.set_up(seed, origin());
        println!("seed {seed}");
        let video = run.subscriptions[1];
        while run.world.now() < run.scenario.ends {
            let target = match random.below(5) {
                0 => SubscriptionTarget::Paused,
                _ => SubscriptionTarget::UpTo {
                    spatial: random.below(3) as u8,
                    temporal: random.below(3) as u8,
                },
            };
            run.world.set_target(run.watched, video, target);
            let next = run.world.now().plus(Duration::from_millis(random.below(4_000)));
            run.pass(next);
        }
        sound(&run);
        assert!(run.figures().frame_rate > 1.0);
    }
}
