//! `cargo xtask chaos`: breaks parts of real clusters and writes what the people
//! in them noticed into `docs/reliability.md`.

use std::path::Path;

use anyhow::Context;

use crate::run::{cargo, step};
use crate::tools;

const BEGIN: &str = "<!-- written by cargo xtask chaos: begin -->";
const END: &str = "<!-- written by cargo xtask chaos: end -->";

/// Break parts of real clusters and write docs/reliability.md.
#[derive(clap::Args)]
pub struct Chaos {
    /// Times that each fault is played.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Only this fault, as in `--only node-killed`. Can be repeated; writes nothing.
    #[arg(long)]
    only: Vec<String>,
}

impl Chaos {
    pub fn run(self, root: &Path) -> anyhow::Result<()> {
        tools::install_for_tests(root)?;
        step(
            "build the binary that is broken",
            cargo(root).args(["build", "--locked", "--package", "headwater"]),
        )?;
        let folder = root.join("target/chaos");
        std::fs::create_dir_all(&folder)?;
        let table = folder.join("table.md");
        let mut command = cargo(root);
        command.args(["run", "--locked", "--package", "headwater-e2e", "--example", "chaos", "--"]);
        command.args(["--runs", &self.runs.to_string()]);
        command.arg("--history").arg(folder.join("history.jsonl"));
        command.arg("--table").arg(&table);
        for fault in &self.only {
            command.args(["--only", fault]);
        }
        step("chaos", &mut command)?;
        if self.only.is_empty() {
            let file = root.join("docs/reliability.md");
            let page = std::fs::read_to_string(&file).context("read docs/reliability.md")?;
            std::fs::write(&file, with_block(&page, &std::fs::read_to_string(table)?)?)?;
        }
        Ok(())
    }
}

/// The page with what is between the marks replaced.
fn with_block(page: &str, block: &str) -> anyhow::Result<String> {
    let (before, rest) = page.split_once(BEGIN).context("the page has no mark to begin at")?;
    let (_, after) = rest.split_once(END).context("the page has no mark to end at")?;
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", block.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let expected = format!("above\n{BEGIN}\n\nnew\n\n{END}\nbelow\n");
        assert_eq!(with_block(&page, "new\n").unwrap(), expected);
        assert!(with_block("no marks", "new").is_err());
    }
}
