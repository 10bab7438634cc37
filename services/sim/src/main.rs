//! Runs scenarios from the command line: a table of all of them, one again from its seed,
//! or a plot of one.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use headwater_sim::cluster::{self, Outcome, Settings};
use headwater_sim::plot;
use headwater_sim::scenario::{self, Figures, Scenario};

const USAGE: &str = "usage: headwater-sim table [--seeds N]
       headwater-sim run NAME [--seed N]
       headwater-sim plot NAME [--seed N]
       headwater-sim list
       headwater-sim cluster --seed N
       headwater-sim cluster --seeds N [--from N]
`plot` writes SVG. `cluster --seed` prints the history of one run, `--seeds` a line for each.";

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut out = io::stdout().lock();
    match words.as_slice() {
        ["table"] => table(&mut out, 5),
        ["table", "--seeds", seeds] => table(&mut out, number(seeds)?),
        ["run", name] => run(&mut out, &named(name)?, 1),
        ["run", name, "--seed", seed] => run(&mut out, &named(name)?, number(seed)?),
        ["plot", name] => plot_of(&mut out, &named(name)?, 1),
        ["plot", name, "--seed", seed] => plot_of(&mut out, &named(name)?, number(seed)?),
        ["list"] => list(&mut out),
        ["cluster", "--seed", seed] => {
            drop(out);
            cluster_run(number(seed)?)
        }
        ["cluster", "--seeds", seeds] => clusters(&mut out, 1, number(seeds)?),
        ["cluster", "--seeds", seeds, "--from", first] => {
            clusters(&mut out, number(first)?, number(seeds)?)
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, USAGE)),
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, USAGE))
}

fn named(name: &str) -> io::Result<Scenario> {
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("no scenario {name}"));
    scenario::all().into_iter().find(|scenario| scenario.name == name).ok_or_else(unknown)
}

#[expect(clippy::disallowed_methods, reason = "the origin of virtual time")]
fn origin() -> Instant {
    Instant::now()
}

fn list(out: &mut impl Write) -> io::Result<()> {
    for scenario in scenario::all() {
        writeln!(out, "{:<20} {}", scenario.name, scenario.about)?;
    }
    Ok(())
}

fn run(out: &mut impl Write, scenario: &Scenario, seed: u64) -> io::Result<()> {
    let run = scenario.run(seed, origin());
    writeln!(out, "{}: {}, seed {seed}", scenario.name, scenario.about)?;
    writeln!(out, "{:#?}", run.figures())?;
    if let Some(report) = run.world.subscriber(run.watched).map(|subscriber| subscriber.report()) {
        for video in &report.video {
            let layers: Vec<_> = video
                .layers
                .iter()
                .map(|(at, layer)| format!("{:.2} s: {layer}", at.elapsed().as_secs_f64()))
                .collect();
            writeln!(out, "layers {}", layers.join(", "))?;
            let freezes: Vec<_> = video
                .long_freezes
                .iter()
                .map(|(at, gap)| format!("{:.2} s: {gap:?}", at.elapsed().as_secs_f64()))
                .collect();
            writeln!(out, "freezes above 500 ms {}", freezes.join(", "))?;
        }
        let down = run.world.down(run.watched);
        writeln!(out, "padding {} of {} packets", report.padding_packets, report.packets)?;
        writeln!(
            out,
            "second: offered, received kbit/s, queue ms, frames, layer, estimate kbit/s"
        )?;
        let seconds = report.video.first().map_or(&[][..], |video| &video.seconds);
        for second in 0..down.offered_bytes.len() {
            let kbps = |list: &[u64]| list.get(second).unwrap_or(&0) * 8 / 1_000;
            let shown = seconds.get(second).copied().unwrap_or_default();
            let estimate = run.samples.iter().find(|sample| sample.at.second() == second);
            writeln!(
                out,
                "{second:>4}: {:>6} {:>6} {:>5} {:>3} {:>2} {:>6}",
                kbps(&down.offered_bytes),
                kbps(&report.received_bytes),
                down.queue_delay.get(second).map_or(0, Duration::as_millis),
                shown.frames,
                shown.encoding.map_or("-".to_owned(), |layer| layer.to_string()),
                estimate
                    .and_then(|sample| sample.estimate)
                    .map_or("-".to_owned(), |rate| (rate / 1_000).to_string()),
            )?;
        }
    }
    writeln!(out, "{:#?}", run.world.node(run.node).sfu().stats())?;
    writeln!(out, "violations {:?}", run.world.node(run.node).violations())?;
    writeln!(out, "trace {:016x}", run.world.trace())
}

/// One whole cluster, with its history as it happens.
fn cluster_run(seed: u64) -> io::Result<()> {
    let settings = Settings::of_seed(seed);
    let outcome = cluster::run(&settings, seed, origin(), true);
    let mut out = io::stdout().lock();
    writeln!(out, "{settings:?}")?;
    say_outcome(&mut out, seed, &outcome)
}

/// Many of them, and an error if anything was wrong in one.
fn clusters(out: &mut impl Write, first: u64, seeds: u64) -> io::Result<()> {
    let mut wrong = 0;
    for seed in first..first.saturating_add(seeds) {
        let outcome = cluster::run(&Settings::of_seed(seed), seed, origin(), false);
        wrong += u64::from(!outcome.violations.is_empty());
        say_outcome(out, seed, &outcome)?;
    }
    writeln!(out, "{wrong} of {seeds} seeds broke something")?;
    if wrong == 0 { Ok(()) } else { Err(io::Error::other("a seed broke something")) }
}

fn say_outcome(out: &mut impl Write, seed: u64, outcome: &Outcome) -> io::Result<()> {
    writeln!(
        out,
        "seed {seed}: {:.1} s, right after {:.1} s of peace, {} packets received, {} relayed, \
         trace {:016x}",
        outcome.lasted.as_secs_f64(),
        outcome.recovered.as_secs_f64(),
        outcome.received,
        outcome.relayed,
        outcome.trace,
    )?;
    outcome.violations.iter().try_for_each(|violation| writeln!(out, "    {violation}"))
}

fn plot_of(out: &mut impl Write, scenario: &Scenario, seed: u64) -> io::Result<()> {
    out.write_all(plot::svg(&scenario.run(seed, origin())).as_bytes())
}

/// The worst of several seeds in each column.
fn table(out: &mut impl Write, seeds: u64) -> io::Result<()> {
    writeln!(
        out,
        "| network | first frame ms | frames/s | layer | freezes > 500 ms | longest gap ms | latency ms | \
         audio lost % | audio made up % | received kbit/s | overshoot % | queue p95 ms | \
         NACK | NACK per loss | PLI | layer down ms | layer up ms |"
    )?;
    writeln!(out, "|{}", "---|".repeat(17))?;
    let origin = origin();
    for scenario in scenario::all() {
        let runs: Vec<Figures> =
            (1..=seeds).map(|seed| scenario.run(seed, origin).figures()).collect();
        let worst = |of: &dyn Fn(&Figures) -> f64| runs.iter().map(of).fold(0.0, f64::max);
        let least = |of: &dyn Fn(&Figures) -> f64| runs.iter().map(of).fold(f64::MAX, f64::min);
        let capped = runs.iter().any(|run| run.overshoot.is_some());
        let overshoot = worst(&|run| run.overshoot.unwrap_or(0.0));
        let lossy = runs.iter().all(|run| run.lost > 0);
        let cut = !scenario.changes.is_empty();
        let millis =
            |time: Option<Duration>| time.map_or(f64::INFINITY, |it| 1e3 * it.as_secs_f64());
        let optional =
            |is_shown: bool, text: String| if is_shown { text } else { "–".to_owned() };
        let layers: Vec<String> = runs
            .iter()
            .filter_map(|run| run.layer)
            .collect::<std::collections::BTreeSet<u8>>()
            .iter()
            .map(u8::to_string)
            .collect();
        writeln!(
            out,
            "| {} | {:.0} | {:.1} | {} | {} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} | {} | {} | {:.0} | {} | {:.0} | {} | {} |",
            scenario.about,
            worst(&|run| millis(run.first_frame)),
            least(&|run| run.frame_rate),
            layers.join(", "),
            worst(&|run| run.long_freezes as f64),
            worst(&|run| run.longest_gap.as_secs_f64() * 1e3),
            worst(&|run| run.latency.as_secs_f64() * 1e3),
            worst(&|run| run.audio_lost),
            worst(&|run| run.audio_concealed),
            least(&|run| run.received_kbps),
            optional(capped, format!("{overshoot:.1}")),
            optional(capped, format!("{:.0}", worst(&|run| run.queue_delay.as_secs_f64() * 1e3))),
            worst(&|run| run.nacks as f64),
            optional(lossy, format!("{:.2}", worst(&|run| run.nacks_per_loss))),
            worst(&|run| run.keyframe_requests as f64),
            optional(cut, format!("{:.0}", worst(&|run| millis(run.layer_down)))),
            optional(cut, format!("{:.0}", worst(&|run| millis(run.layer_up)))),
        )?;
    }
    Ok(())
}
