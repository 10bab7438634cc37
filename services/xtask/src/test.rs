//! `cargo xtask test`: everything that CI runs.

use std::path::Path;

use crate::run::{cargo, is_installed, step};
use crate::{check, tools};

/// Install what the tests need, then run the checks and every test.
#[derive(clap::Args)]
pub struct Test {
    /// Leave out formatting, lints and tidy rules.
    #[arg(long)]
    no_check: bool,
    /// Leave out the whole-cluster tests, which start processes and browsers.
    #[arg(long)]
    no_e2e: bool,
}

impl Test {
    pub fn run(self, root: &Path) -> anyhow::Result<()> {
        tools::install_for_tests(root)?;
        if !self.no_check {
            check::all(root)?;
        }
        step(
            "build the binary the whole-cluster tests run",
            cargo(root).args(["build", "--locked", "--package", "headwater"]),
        )?;
        unit_tests(root)?;
        if !self.no_e2e {
            end_to_end(root)?;
        }
        println!("\nEverything passed.");
        Ok(())
    }
}

fn unit_tests(root: &Path) -> anyhow::Result<()> {
    let mut tests = cargo(root);
    if is_installed("cargo-nextest") {
        tests.args(["nextest", "run", "--locked", "--no-fail-fast"]);
    } else {
        tests.args(["test", "--locked", "--no-fail-fast", "--lib", "--bins", "--tests"]);
    }
    step(
        "unit, property and adapter tests",
        tests.args(["--workspace", "--exclude", "headwater-e2e"]),
    )
}

/// One after another: each starts a cluster of its own and needs the machine.
fn end_to_end(root: &Path) -> anyhow::Result<()> {
    step(
        "whole-cluster tests",
        cargo(root).args([
            "test",
            "--locked",
            "--no-fail-fast",
            "--package",
            "headwater-e2e",
            "--",
            "--test-threads=1",
        ]),
    )
}
