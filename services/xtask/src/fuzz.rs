//! `cargo xtask fuzz`: runs the fuzz targets of `services/fuzz` one after the
//! other and says how many executions each made. Needs a nightly toolchain and
//! cargo-fuzz.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::run::is_installed;

/// Run every fuzz target for a while.
#[derive(clap::Args)]
pub struct Fuzz {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only these targets.
    targets: Vec<String>,
}

impl Fuzz {
    pub fn run(self, root: &Path) -> anyhow::Result<()> {
        if !is_installed("cargo-fuzz") {
            bail!("cargo-fuzz is missing: cargo install cargo-fuzz --locked");
        }
        let targets = if self.targets.is_empty() { list(root)? } else { self.targets };
        let mut failed = Vec::new();
        println!("| target | executions | result |\n|---|---|---|");
        for target in targets {
            let (executions, clean) = fuzz(root, &target, self.seconds)?;
            println!("| {target} | {executions} | {} |", if clean { "clean" } else { "CRASH" });
            if !clean {
                failed.push(target);
            }
        }
        if failed.is_empty() { Ok(()) } else { bail!("crashes in: {}", failed.join(", ")) }
    }
}

fn cargo_fuzz(root: &Path, verb: &str) -> Command {
    let mut command = Command::new("cargo");
    // The workspace's cargo sets these for us; the nightly one must find its own.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO");
    command.args(["+nightly", "fuzz", verb, "--fuzz-dir", "services/fuzz"]).current_dir(root);
    command
}

fn list(root: &Path) -> anyhow::Result<Vec<String>> {
    let output = cargo_fuzz(root, "list").output().context("cargo fuzz list")?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Runs one target; answers with the executions it made and whether it stayed clean.
fn fuzz(root: &Path, target: &str, seconds: u64) -> anyhow::Result<(u64, bool)> {
    let mut command = cargo_fuzz(root, "run");
    command
        .arg(target)
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .args(["-rss_limit_mb=4096", "-print_final_stats=1"]);
    let mut child = command.stderr(Stdio::piped()).spawn().context("cargo fuzz run")?;
    let mut executions = 0;
    let mut tail = std::collections::VecDeque::new();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
                executions = count.trim().parse().unwrap_or(0);
            }
            tail.push_back(line);
            if tail.len() > 40 {
                tail.pop_front();
            }
        }
    }
    let clean = child.wait()?.success();
    if !clean {
        for line in tail {
            eprintln!("{line}");
        }
    }
    Ok((executions, clean))
}
