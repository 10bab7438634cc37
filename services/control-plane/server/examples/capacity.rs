//! Plans rooms of a thousand to a million viewers with the real planner, on
//! paper nodes, and writes what that takes. Run by `cargo xtask capacity`.

#![expect(clippy::print_stdout, reason = "a tool for the terminal")]

#[path = "capacity/report.rs"]
mod report;
#[path = "capacity/simulation.rs"]
mod simulation;

use std::path::PathBuf;

use clap::Parser;

/// What one shard can do, and what viewers want of it.
#[derive(Debug, Clone, Parser)]
pub struct Assumptions {
    /// Packets that one shard sends in a second of processor time. The default is
    /// the row of 200 subscribers in docs/benchmarks.md, the lowest that was
    /// repeated: a development build on a shared virtual machine.
    #[arg(long, default_value_t = 203_800)]
    pub packets_per_cpu_second: u32,
    /// Packets a second that a viewer gets: half of them 720p, a third 360p, the
    /// others 180p, with three thumbnails and the live audio.
    #[arg(long, default_value_t = 228)]
    pub viewer_packets: u32,
    /// What that is in kbit/s.
    #[arg(long, default_value_t = 1560)]
    pub viewer_kbps: u32,
    /// Kbit/s on one relay link: every layer of eight speakers.
    #[arg(long, default_value_t = 18_300)]
    pub link_kbps: u32,
    /// Shards of a node.
    #[arg(long, default_value_t = 8)]
    pub shards_per_node: u16,
    /// Zones, among which nodes and viewers are spread evenly.
    #[arg(long, default_value_t = 3)]
    pub zones: u16,
    /// Seconds within which everybody joins.
    #[arg(long, default_value_t = 60)]
    pub join_seconds: u32,
    /// Control-plane replicas.
    #[arg(long, default_value_t = 2)]
    pub replicas: u32,
    /// Where to write the report; nowhere if absent.
    #[arg(long)]
    pub write: Option<PathBuf>,
    /// Where to write the plot; nowhere if absent.
    #[arg(long)]
    pub plot: Option<PathBuf>,
}

impl Assumptions {
    /// Viewers that would take all of a shard's time.
    pub fn shard_viewers(&self) -> u32 {
        (self.packets_per_cpu_second / self.viewer_packets.max(1)).max(1)
    }
}

fn main() -> std::io::Result<()> {
    let assumptions = Assumptions::parse();
    let sizes = [1_000, 10_000, 100_000, 1_000_000];
    let rooms: Vec<_> =
        sizes.into_iter().map(|viewers| simulation::run(viewers, &assumptions)).collect();
    let text = report::text(&assumptions, &rooms);
    println!("{text}");
    if let Some(path) = &assumptions.write {
        std::fs::write(path, &text)?;
    }
    if let Some(path) = &assumptions.plot {
        std::fs::write(path, report::plot(&rooms))?;
    }
    Ok(())
}
