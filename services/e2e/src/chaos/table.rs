//! The runs as a table.

use std::fmt::Write as _;

use super::{Fault, Run};

/// A table in Markdown: for each fault, for those it touches and for everybody
/// else, how many silences were measured and their p50, p99 and longest. Faults
/// without runs are left out.
#[must_use]
pub fn markdown(faults: &[&Fault], runs: &[Run]) -> String {
    let mut text = String::from(
        "| What breaks | Whose media | People × runs | Silence p50 | p99 | Longest | Target | Met |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for fault in faults {
        let of = |group: fn(&Run) -> &Vec<u64>| -> Vec<u64> {
            let of = runs.iter().filter(|run| run.fault == fault.id);
            of.flat_map(|run| group(run).iter().copied()).collect()
        };
        let title = fault.title;
        row(&mut text, title, "who join again", of(|run| &run.hit), fault.hit_target);
        let listeners = of(|run| &run.listeners);
        row(&mut text, title, "who stay, in rooms on it", listeners, fault.listeners_target);
        row(&mut text, title, "everybody else", of(|run| &run.others), fault.others_target);
    }
    text
}

fn row(text: &mut String, title: &str, whose: &str, mut silences: Vec<u64>, target: u64) {
    silences.sort_unstable();
    let Some(longest) = silences.last().copied() else { return };
    let met = if longest <= target { "yes" } else { "**no**" };
    let _ = writeln!(
        text,
        "| {title} | {whose} | {} | {} ms | {} ms | {longest} ms | {target} ms | {met} |",
        silences.len(),
        percentile(&silences, 50),
        percentile(&silences, 99),
    );
}

/// The nearest-rank percentile of sorted figures.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::FAULTS;

    #[test]
    fn a_table_has_a_line_for_each_group_that_was_measured() {
        let run = Run {
            fault: "node-killed".to_owned(),
            run: 1,
            hit: vec![1_500, 2_500],
            listeners: vec![500],
            others: (1..=100).collect(),
            calm_after: 3_000,
            ..Run::default()
        };
        let table = markdown(&[&FAULTS[0], &FAULTS[1]], &[run]);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| media node, kill -9 | who join again | 2 | 1500 ms | 2500 ms | 2500 ms | 2000 ms | **no** |",
                "| media node, kill -9 | who stay, in rooms on it | 1 | 500 ms | 500 ms | 500 ms | 2000 ms | yes |",
                "| media node, kill -9 | everybody else | 100 | 50 ms | 99 ms | 100 ms | 200 ms | yes |",
            ]
        );
    }
}
