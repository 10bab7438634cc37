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
    /// Only this fault, as in `--only node-killed`. Can be repeated; writes nothing
    /// unless it is told to merge.
    #[arg(long)]
    only: Vec<String>,
    /// With `--only`: put the rows of these faults in the place of their old ones.
    #[arg(long, requires = "only")]
    merge: bool,
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
        if self.only.is_empty() || self.merge {
            let file = root.join("docs/reliability.md");
            let page = std::fs::read_to_string(&file).context("read docs/reliability.md")?;
            let table = std::fs::read_to_string(table)?;
            std::fs::write(
                &file,
                with_block(&page, |old| match self.merge {
                    true => merged(old, &table),
                    false => table.clone(),
                })?,
            )?;
        }
        Ok(())
    }
}

/// The page with what is between the marks replaced.
fn with_block(page: &str, replace: impl FnOnce(&str) -> String) -> anyhow::Result<String> {
    let (before, rest) = page.split_once(BEGIN).context("the page has no mark to begin at")?;
    let (old, after) = rest.split_once(END).context("the page has no mark to end at")?;
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", replace(old).trim()))
}

/// The old block with the rows of each fault of a new table in the place of its old
/// ones; faults that were not there come last.
fn merged(old: &str, table: &str) -> String {
    let mut new: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in table.lines().skip(2) {
        match new.iter_mut().find(|(fault, _)| *fault == fault_of(row)) {
            Some((_, rows)) => rows.push(row),
            None => new.push((fault_of(row), vec![row])),
        }
    }
    let mut lines: Vec<&str> = Vec::new();
    for line in old.trim().lines() {
        match new.iter_mut().find(|(fault, _)| line.starts_with('|') && *fault == fault_of(line)) {
            // Its first old row makes way for all new ones, the others just go.
            Some((_, rows)) => lines.append(rows),
            None => lines.push(line),
        }
    }
    lines.extend(new.into_iter().flat_map(|(_, rows)| rows));
    lines.join("\n")
}

/// What a row is about: its first cell.
fn fault_of(row: &str) -> &str {
    row.trim_start_matches('|').split('|').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let expected = format!("above\n{BEGIN}\n\nnew\n\n{END}\nbelow\n");
        assert_eq!(with_block(&page, |_| "new\n".to_owned()).unwrap(), expected);
        assert!(with_block("no marks", str::to_owned).is_err());
    }

    #[test]
    fn rows_of_faults_that_were_played_take_the_place_of_their_old_ones() {
        let old = "\nToday.\n\n| What |\n|---|\n| a | 1 |\n| b | 1 |\n| b | 2 |\n| c | 1 |\n";
        let table = "| What |\n|---|\n| b | 3 |\n| d | 1 |\n| d | 2 |\n";
        let expected =
            "Today.\n\n| What |\n|---|\n| a | 1 |\n| b | 3 |\n| c | 1 |\n| d | 1 |\n| d | 2 |";
        assert_eq!(merged(old, table), expected);
    }
}
