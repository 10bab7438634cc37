//! `cargo xtask check`: everything that can be said of the code without running it.

use std::path::Path;

use crate::run::{cargo, is_installed, step};
use crate::{direction, tidy};

/// Formatting, lints, dependency direction and tidy rules.
#[derive(clap::Args)]
pub struct Check {}

impl Check {
    pub fn run(self, root: &Path) -> anyhow::Result<()> {
        all(root)
    }
}

/// Runs every check; the cheap ones first.
pub fn all(root: &Path) -> anyhow::Result<()> {
    println!("\n=== tidy rules");
    tidy::check(root)?;
    println!("=== dependency direction");
    direction::check(root)?;
    step("formatting", cargo(root).args(["fmt", "--all", "--check"]))?;
    step(
        "lints",
        cargo(root).args([
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    if is_installed("cargo-deny") {
        step(
            "licences, bans and sources",
            cargo(root).args(["deny", "--offline", "check", "bans", "licenses", "sources"]),
        )?;
    } else {
        println!("\n=== licences, bans and sources: skipped, cargo-deny is not installed");
    }
    Ok(())
}
