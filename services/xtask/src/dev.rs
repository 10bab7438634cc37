//! `cargo xtask dev`: the whole system in one process, from source.

use std::path::Path;

use crate::run::{cargo, step};
use crate::tools;

/// Build everything and run it in one process, with a page to open.
#[derive(clap::Args)]
pub struct Dev {
    /// Build with full optimisation: slower to build, faster to run.
    #[arg(long)]
    release: bool,
    /// Further arguments for `headwater dev`; see `headwater dev --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Dev {
    pub fn run(self, root: &Path) -> anyhow::Result<()> {
        tools::build_page(root)?;
        let mut build = cargo(root);
        build.args(["build", "--locked", "--package", "headwater"]);
        if self.release {
            build.arg("--release");
        }
        step("build headwater (some minutes the first time)", &mut build)?;
        let profile = if self.release { "release" } else { "debug" };
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), std::path::PathBuf::from);
        let mut headwater = std::process::Command::new(target.join(profile).join("headwater"));
        headwater
            .arg("dev")
            .arg("--web-root")
            .arg(root.join("services/gateway/web/dist"))
            .args(self.arguments);
        replace_with(headwater)
    }
}

/// Becomes the program, so that signals reach it alone.
fn replace_with(mut program: std::process::Command) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    let error = program.exec();
    Err(anyhow::Error::new(error)
        .context(format!("cannot start {}", program.get_program().display())))
}
