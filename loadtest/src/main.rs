//! The command line of the load generator.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use headwater_loadtest::client::Video;
use headwater_loadtest::run::{Broadcast, Server, broadcast, churn};
use headwater_rpc::token::KeyRing;

/// Drives a server that speaks LiveKit signalling with many native clients, and
/// prints what they measured as JSON.
#[derive(Parser)]
#[command(name = "loadtest", version, about)]
struct Arguments {
    #[command(flatten)]
    server: ServerArguments,
    #[command(subcommand)]
    scenario: Scenario,
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
}

#[derive(Subcommand)]
enum Scenario {
    /// One publisher, many subscribers.
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
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let server = Server {
        url: arguments.server.url,
        keys: KeyRing::single(&arguments.server.key, &arguments.server.secret)?,
        pid: arguments.server.server_pid,
    };
    let room = format!("loadtest-{}", std::process::id());
    match arguments.scenario {
        Scenario::Broadcast {
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
        Scenario::Churn { joins, at_once } => {
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
    Ok(())
}
