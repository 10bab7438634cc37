//! Plays every fault several times and prints the table; `cargo xtask chaos`
//! writes it into the docs.

#![expect(clippy::print_stdout, reason = "a tool for the terminal")]

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use headwater_e2e::chaos::{FAULTS, Fault, Run, Scene, markdown};

/// Breaks parts of a real cluster and measures how long its audience hears nothing.
#[derive(Parser)]
struct Arguments {
    /// Times that each fault is played.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Only these faults; all if none is named.
    #[arg(long)]
    only: Vec<String>,
    /// File that gets one JSON object a line for each run.
    #[arg(long)]
    history: Option<PathBuf>,
    /// File that gets the table.
    #[arg(long)]
    table: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let faults = chosen(&arguments.only)?;
    let mut history = arguments.history.as_ref().map(std::fs::File::create).transpose()?;
    let mut runs: Vec<Run> = Vec::new();
    for fault in &faults {
        println!("=== {} ({})", fault.title, fault.id);
        if let Some(obstacle) = fault.stage.obstacle() {
            println!("skipped: {obstacle}");
            continue;
        }
        let mut scene = Some(Scene::start(fault.stage)?);
        for number in 1..=arguments.runs {
            let mut playing = match scene.take() {
                Some(scene) => scene,
                None => Scene::start(fault.stage)?,
            };
            let run = playing.play(fault, number).with_context(|| fault.id)?;
            show(&run);
            if let Some(file) = &mut history {
                writeln!(file, "{}", serde_json::to_string(&run)?)?;
            }
            runs.push(run);
            let complaints = playing.complaints();
            ensure!(complaints.is_empty(), "the logs tell of errors: {complaints:?}");
            scene = (!fault.stage.is_used_up()).then_some(playing);
        }
    }
    let table = markdown(&faults, &runs);
    println!("\n{table}");
    if let Some(file) = &arguments.table {
        std::fs::write(file, table)?;
    }
    Ok(())
}

fn show(run: &Run) {
    let replanned =
        run.replanned_after.map_or(String::new(), |it| format!("; replanned after {it} ms"));
    println!(
        "run {}: silence of those who joined again {:?} ms, of those who stayed {:?} ms, of the \
         others at most {} ms; without messages {:?} ms; calm after {} ms{replanned}; {} hold",
        run.run,
        run.hit,
        run.listeners,
        run.others.iter().max().unwrap_or(&0),
        run.messages,
        run.calm_after,
        run.invariants.join(", "),
    );
}

fn chosen(only: &[String]) -> Result<Vec<&'static Fault>> {
    let known: Vec<&str> = FAULTS.iter().map(|fault| fault.id).collect();
    for name in only {
        ensure!(known.contains(&name.as_str()), "{name} is none of {}", known.join(", "));
    }
    let wanted = |fault: &&Fault| only.is_empty() || only.iter().any(|name| name == fault.id);
    Ok(FAULTS.iter().filter(wanted).collect())
}
