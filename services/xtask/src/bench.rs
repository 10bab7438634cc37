//! `cargo xtask bench`: builds everything with full optimisation, drives a fresh
//! server with each scenario of the suite, and writes tables and plots into the
//! documentation. Numbers that nobody measured are not in it.

mod chart;
mod machine;
mod suite;
mod tables;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::run::{cargo, is_installed, step};
use machine::Machine;
use suite::{CASES, Case, Result, Yardstick};

/// Build everything with full optimisation and measure it.
#[derive(clap::Args)]
pub struct Bench {
    /// One short run of each instead of three.
    #[arg(long)]
    quick: bool,
    /// Run these cases only, by name. Can be repeated. The documentation is left alone.
    #[arg(long = "only", value_name = "CASE")]
    only: Vec<String>,
    /// Measure the binaries that are there.
    #[arg(long)]
    no_build: bool,
    /// Processor of the server.
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Processor of the load.
    #[arg(long, default_value_t = 1)]
    load_core: usize,
}

/// Programs and processors of a run.
struct Setup {
    root: PathBuf,
    headwater: PathBuf,
    loadtest: PathBuf,
    server_core: usize,
    load_core: usize,
    repeats: usize,
    seconds: Option<f64>,
}

impl Bench {
    pub fn run(self, root: &Path) -> anyhow::Result<()> {
        let cases = self.cases()?;
        if !is_installed("taskset") {
            bail!("taskset (package util-linux) is needed to keep server and load apart");
        }
        if !self.no_build {
            let mut build = cargo(root);
            build.args(["build", "--locked", "--release", "-p", "headwater"]);
            build.args(["-p", "headwater-loadtest"]);
            step("build headwater and loadtest with full optimisation", &mut build)?;
        }
        let setup = self.setup(root);
        let machine = Machine::look();
        println!("\n{machine}");
        let mut results = Vec::new();
        for case in cases {
            println!("\n=== {}: {}", case.name, case.title);
            results.push(measure(&setup, case).with_context(|| case.name.to_owned())?);
        }
        println!("\n{}", tables::forwarding(&results));
        if !self.only.is_empty() {
            println!("Only a part was run: docs/benchmarks.md is left as it is.");
            return Ok(());
        }
        let text = tables::write(&results, &machine, setup.repeats);
        write_between_markers(&root.join("docs/benchmarks.md"), &text)?;
        let folder = root.join("docs/benchmarks");
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        for (name, svg) in chart::all(&results) {
            let file = folder.join(name);
            std::fs::write(&file, svg).with_context(|| file.display().to_string())?;
        }
        println!("\nWritten into docs/benchmarks.md and docs/benchmarks.");
        Ok(())
    }

    fn cases(&self) -> anyhow::Result<Vec<&'static Case>> {
        for name in &self.only {
            if !CASES.iter().any(|case| case.name == name) {
                let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
                bail!("no case is named {name}; there are {}", known.join(", "));
            }
        }
        let wanted =
            |case: &&Case| self.only.is_empty() || self.only.iter().any(|name| name == case.name);
        Ok(CASES.iter().filter(wanted).collect())
    }

    fn setup(&self, root: &Path) -> Setup {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), PathBuf::from)
            .join("release");
        Setup {
            root: root.to_owned(),
            headwater: target.join("headwater"),
            loadtest: target.join("loadtest"),
            server_core: self.server_core,
            load_core: self.load_core,
            repeats: if self.quick { 1 } else { 3 },
            seconds: self.quick.then_some(4.0),
        }
    }
}

/// The bare loop, the scenario some times on fresh servers, the bare loop again.
fn measure(setup: &Setup, case: &'static Case) -> anyhow::Result<Result> {
    let mut yardsticks = Vec::new();
    let mut runs = Vec::new();
    yardsticks.extend(case.yardstick.map(|shape| yardstick(setup, shape)).transpose()?);
    for _ in 0..setup.repeats {
        runs.push(suite::run_once(setup, case)?);
    }
    yardsticks.extend(case.yardstick.map(|shape| yardstick(setup, shape)).transpose()?);
    let result = Result { case, runs, yardsticks };
    println!("{}", tables::one_line(&result));
    Ok(result)
}

fn yardstick(setup: &Setup, shape: Yardstick) -> anyhow::Result<f64> {
    let value = suite::yardstick(setup, shape)?;
    println!("bare loop: {value:.0} packets per CPU-second");
    Ok(value)
}

const BEGIN: &str = "<!-- written by cargo xtask bench: begin -->";
const END: &str = "<!-- written by cargo xtask bench: end -->";

/// What people wrote around the markers stays.
fn write_between_markers(file: &Path, text: &str) -> anyhow::Result<()> {
    let old = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let new = replace_between_markers(&old, text)
        .with_context(|| format!("{} has no markers {BEGIN} and {END}", file.display()))?;
    std::fs::write(file, new).with_context(|| file.display().to_string())
}

fn replace_between_markers(old: &str, text: &str) -> Option<String> {
    let (before, rest) = old.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_stays() {
        let old = format!("# A\n\n{BEGIN}\nold\n{END}\n\nmine\n");
        let new = replace_between_markers(&old, "new").unwrap();
        assert!(new.starts_with("# A\n") && new.ends_with("\n\nmine\n"), "{new}");
        assert!(new.contains("new") && !new.contains("old"));
        assert_eq!(replace_between_markers(&new, "new").unwrap(), new);
        assert_eq!(replace_between_markers("no markers", "new"), None);
    }

    #[test]
    fn every_case_has_its_scenario() {
        let folder = crate::run::workspace_root().join("loadtest/scenarios");
        for case in CASES {
            assert!(folder.join(format!("{}.toml", case.name)).is_file(), "{}", case.name);
        }
    }
}
