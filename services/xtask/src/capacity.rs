//! `cargo xtask capacity`: plans rooms of a thousand to a million viewers with
//! the real planner and writes `docs/capacity.md` with its plot.

use std::path::Path;

use crate::run::{cargo, step};

/// Plan rooms of up to a million viewers and write docs/capacity.md.
#[derive(clap::Args)]
pub struct Capacity {
    /// Only print, write nothing.
    #[arg(long)]
    dry: bool,
    /// Figures to calculate from, such as `--packets-per-cpu-second 500000`.
    #[arg(last = true)]
    figures: Vec<String>,
}

impl Capacity {
    pub fn run(self, root: &Path) -> anyhow::Result<()> {
        let mut command = cargo(root);
        command.args(["run", "--quiet", "-p", "headwater-control-plane", "--example", "capacity"]);
        command.arg("--").args(&self.figures);
        if !self.dry {
            command.arg("--write").arg(root.join("docs/capacity.md"));
            command.arg("--plot").arg(root.join("docs/images/capacity.svg"));
        }
        step("capacity", &mut command)
    }
}
