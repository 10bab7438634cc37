//! The command line of the load generator.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use headwater_loadtest::client::Video;
use headwater_loadtest::outcome::Outcome;
use headwater_loadtest::progress::Display;
use headwater_loadtest::run::{Broadcast, Server, broadcast, churn};
use headwater_loadtest::scenario::Scenario;
use headwater_loadtest::{crowd, page, process, text, yardstick};
use headwater_rpc::token::KeyRing;

/// Drives a server that speaks LiveKit signalling with many native clients, and
/// prints what they measured as JSON.
#[derive(Parser)]
#[command(name = "loadtest", version, about)]
struct Arguments {
    #[command(flatten)]
    server: ServerArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct ServerArguments {
    /// Signalling address of the server.
    #[arg(long, env = "LIVEKIT_URL", default_value = "ws://127.0.0.1:7880")]
    url: String,
    /// API key to sign with.
    #[arg(long, env = "LIVEKIT_API_KEY", default_value = "devkey")]
    key: String,
    /// Secret of the API key.
    #[arg(long, env = "LIVEKIT_API_SECRET", default_value = "secret", hide_env_values = true)]
    secret: String,
    /// Process id of the server, if it runs on this machine: its processor time
    /// and memory are then part of the report.
    #[arg(long)]
    server_pid: Option<u32>,
    /// Instead of its id: the name of the server's process.
    #[arg(long, conflicts_with = "server_pid")]
    server_name: Option<String>,
    /// Prometheus page of the server, such as `http://127.0.0.1:7891/metrics`: its number
    /// of series and tasks is then part of the report.
    #[arg(long)]
    server_metrics: Option<String>,
}

impl ServerArguments {
    fn server(&self) -> anyhow::Result<Server> {
        let named = self.server_name.as_deref().map(process::find).transpose()?;
        Ok(Server {
            url: self.url.clone(),
            keys: KeyRing::single(&self.key, &self.secret)?,
            pid: self.server_pid.or(named),
            metrics: self.server_metrics.clone(),
        })
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario file; writes a result as JSON and a report as HTML.
    Run {
        /// Scenario, such as `loadtest/scenarios/broadcast-50.toml`.
        scenario: PathBuf,
        /// Where result and report go: `<name>.json` and `<name>.html`.
        #[arg(long, default_value = "target/loadtest")]
        out: PathBuf,
        /// Measure this many seconds instead of what the scenario says.
        #[arg(long)]
        seconds: Option<f64>,
        /// Threads that receive, instead of what the scenario says.
        #[arg(long)]
        workers: Option<usize>,
        /// Decrypt one packet of this many, instead of what the scenario says.
        #[arg(long)]
        decrypt_every: Option<u32>,
        /// Let the kernel hand over trains of the server as one (UDP_GRO).
        #[arg(long)]
        receive_offload: bool,
    },
    /// The limit of this machine: a bare loop that decrypts once and encrypts for many.
    Yardstick {
        /// Receivers.
        #[arg(long, default_value_t = 50)]
        subscribers: usize,
        /// Frames per second; 0 is as fast as the loop goes.
        #[arg(long, default_value_t = 30.0)]
        frame_rate: f64,
        /// Packets of each frame.
        #[arg(long, default_value_t = 3)]
        packets_per_frame: usize,
        /// Payload bytes of each packet.
        #[arg(long, default_value_t = 1160)]
        payload_bytes: usize,
        /// Seconds to measure.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Processor of the loop.
        #[arg(long)]
        loop_core: Option<usize>,
        /// Processor of sender and sinks.
        #[arg(long)]
        load_core: Option<usize>,
        /// Let the sinks take trains as one (UDP_GRO).
        #[arg(long)]
        receive_offload: bool,
    },
    /// One publisher, many subscribers, a socket and a task for each.
    Broadcast {
        /// Subscribers.
        #[arg(long, default_value_t = 50)]
        subscribers: usize,
        /// Frames per second.
        #[arg(long, default_value_t = 30.0)]
        frame_rate: f64,
        /// Packets of each frame.
        #[arg(long, default_value_t = 3)]
        packets: usize,
        /// Payload bytes of each packet.
        #[arg(long, default_value_t = 1160)]
        payload_bytes: usize,
        /// Encodings: 1, or 3 for simulcast.
        #[arg(long, default_value_t = 1)]
        layers: usize,
        /// Audio too.
        #[arg(long)]
        audio: bool,
        /// Seconds to measure.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Joins begun per second.
        #[arg(long, default_value_t = 25.0)]
        join_rate: f64,
    },
    /// Joins and leaves in a row.
    Churn {
        /// Joins in all.
        #[arg(long, default_value_t = 1000)]
        joins: usize,
        /// Clients at once.
        #[arg(long, default_value_t = 10)]
        at_once: usize,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let server = arguments.server.server()?;
    let room = format!("loadtest-{}", std::process::id());
    match arguments.command {
        Command::Run { scenario, out, seconds, workers, decrypt_every, receive_offload } => {
            let mut scenario = Scenario::read(&scenario)?;
            scenario.duration_seconds = seconds.unwrap_or(scenario.duration_seconds);
            scenario.load.workers = workers.unwrap_or(scenario.load.workers).clamp(1, 64);
            scenario.load.decrypt_every =
                decrypt_every.unwrap_or(scenario.load.decrypt_every).max(1);
            scenario.load.receive_offload |= receive_offload;
            return run_scenario(&server, &scenario, &out).await;
        }
        Command::Yardstick {
            subscribers,
            frame_rate,
            packets_per_frame,
            payload_bytes,
            seconds,
            loop_core,
            load_core,
            receive_offload,
        } => {
            let plan = yardstick::Plan {
                subscribers,
                frame_rate,
                packets_per_frame,
                payload_bytes: payload_bytes.clamp(1, 1400),
                seconds: seconds.clamp(0.1, 3600.0),
                loop_core,
                load_core,
                receive_offload,
            };
            let reached = tokio::task::spawn_blocking(move || yardstick::run(&plan)).await??;
            println!("{}", serde_json::to_string_pretty(&reached)?);
            return Ok(if reached.valid { ExitCode::SUCCESS } else { ExitCode::from(2) });
        }
        Command::Broadcast {
            subscribers,
            frame_rate,
            packets,
            payload_bytes,
            layers,
            audio,
            seconds,
            join_rate,
        } => {
            eprintln!("{subscribers} subscribers join {room}, then {seconds} s are measured");
            let plan = Broadcast {
                room,
                subscribers,
                video: Video { frame_rate, packets_per_frame: packets, payload_bytes, layers },
                audio,
                duration: Duration::from_secs(seconds),
                joins_per_second: join_rate,
            };
            let report = broadcast(&server, &plan).await?;
            println!("{:#}", report.to_json());
        }
        Command::Churn { joins, at_once } => {
            let before = server.memory_kib();
            let seconds = churn(&server, &room, joins, at_once).await?;
            println!(
                "{:#}",
                serde_json::json!({
                    "scenario": format!("{joins} joins and leaves, {at_once} at once"),
                    "seconds": seconds,
                    "joins_per_second": joins as f64 / seconds,
                    "server_memory_before_kib": before,
                    "server_memory_after_kib": server.memory_kib(),
                })
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Exit code 0: valid and passed; 1: a criterion is broken; 2: the load fell behind.
async fn run_scenario(
    server: &Server,
    scenario: &Scenario,
    out: &Path,
) -> anyhow::Result<ExitCode> {
    let mut display = Display::default();
    let outcome = crowd::run(server, scenario, |moment| display.show(moment)).await;
    display.end();
    let outcome = outcome?;
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let json = out.join(format!("{}.json", scenario.name));
    let html = out.join(format!("{}.html", scenario.name));
    std::fs::write(&json, serde_json::to_string_pretty(&outcome)?)
        .with_context(|| json.display().to_string())?;
    std::fs::write(&html, page::render(&outcome)).with_context(|| html.display().to_string())?;
    summarize(&outcome);
    println!("{}\n{}", json.display(), html.display());
    Ok(match (outcome.valid, outcome.passed) {
        (false, _) => ExitCode::from(2),
        (true, false) => ExitCode::from(1),
        (true, true) => ExitCode::SUCCESS,
    })
}

fn summarize(outcome: &Outcome) {
    println!(
        "{} packets in {:.1} s ({}/s), {:.3} % lost, {} failures",
        text::number(outcome.packets as f64),
        outcome.seconds,
        text::number(outcome.packets_per_second),
        outcome.lost_percent(),
        outcome.joins.failures,
    );
    for (name, media) in [("video", &outcome.video), ("audio", &outcome.audio)] {
        if let Some(latency) = media.latency {
            println!("{name} latency p50 {:.2} ms, p99 {:.2} ms", latency.p50, latency.p99);
        }
    }
    if let Some(server) = &outcome.server {
        let packets = text::number(server.packets_per_cpu_second);
        println!("{packets} packets per CPU-second of the server");
    }
    for reason in &outcome.invalid_because {
        println!("INVALID: {reason}");
    }
    for check in &outcome.checks {
        let value = check.value.map_or("not measured".to_owned(), text::number);
        let verdict = if check.passed { "holds" } else { "BROKEN" };
        println!("{verdict}: {} = {value}, limit {}", check.name, text::number(check.limit));
    }
    for reason in &outcome.joins.failure_reasons {
        println!("failure: {reason}");
    }
}
