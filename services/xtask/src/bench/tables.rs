//! Results as Markdown.

use std::fmt::Write;

use super::machine::Machine;
use super::suite::{Peers, Result};

/// What a row shows of a result.
type Cell<'a> = &'a dyn Fn(&Result) -> String;

const PER_CPU: &str = "/server/packets_per_cpu_second";

/// Everything that goes between the markers.
pub fn write(results: &[Result], machine: &Machine, repeats: usize) -> String {
    let mut text = format!(
        "{machine} Release build, server and load on one core each, clients and server on the \
         same loopback; median of {repeats} run(s), each against a fresh `headwater dev` with one \
         shard. Processor time is that of the whole server process. \"Share\" is of the bare loop \
         in the same shape, mean of before and after. The clients take datagrams one by one, \
         without receive offload, so that cutting the server's trains is on the server's \
         account.\n\n"
    );
    text += &columns(results);
    text += "\n";
    text += &forwarding(results);
    text += "\n![Packets per CPU-second beside other servers](benchmarks/forwarding.svg)\n\n";
    text += "![Share of the bare loop](benchmarks/share.svg)\n\n";
    text += "Latency is one-way, from the publisher's send call to the subscriber's read, with \
             both clients on the load's core. Loss is what never came.\n\n";
    text += &latency(results);
    text += "\n![Latency](benchmarks/latency.svg)\n\n";
    text += &joins(results);
    text
}

/// Thousands, with as many digits as mean something.
fn thousands(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < 100_000.0 => format!("{:.1}", value / 1000.0),
        Some(value) => format!("{:.0}", value / 1000.0),
    }
}

fn decimals(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

fn title(result: &Result) -> String {
    let (invalid, all) = result.invalid();
    if invalid == 0 {
        return result.case.title.to_owned();
    }
    format!("{} (load behind in {invalid} of {all})", result.case.title)
}

/// Share of the bare loop, in percent.
pub fn share(result: &Result) -> Option<f64> {
    Some(result.median(PER_CPU)? * 100.0 / result.yardstick()?)
}

/// Thousand packets per CPU-second.
pub fn per_cpu(result: &Result) -> Option<f64> {
    result.median(PER_CPU).map(|value| value / 1000.0)
}

/// The cases in which other servers were measured, one column each.
pub fn columns(results: &[Result]) -> String {
    let compared: Vec<&Result> =
        results.iter().filter(|result| result.case.peers.is_some()).collect();
    let mut text = "Thousand packets per CPU-second in the shape in which other servers were \
        measured: one publisher, three packets of 1,160 bytes a frame, no audio. Those had other \
        clients and another machine, on which a bare loop made 285 thousand in the first column: \
        compare shares of a bare loop, not absolute figures.\n\n| |"
        .to_owned();
    for result in &compared {
        let _ = write!(text, " {} |", result.case.title);
    }
    text += "\n|---|";
    text += &"---|".repeat(compared.len());
    let peer = |value: fn(&Peers) -> f64| {
        move |result: &Result| decimals(result.case.peers.as_ref().map(value), 1)
    };
    let measured = |result: &Result| format!("**{}**", decimals(per_cpu(result), 1));
    let percent = |result: &Result| format!("{} %", decimals(share(result), 0));
    let bare = |result: &Result| thousands(result.yardstick());
    let (goal, mediasoup, janus) =
        (peer(|peers| peers.goal), peer(|peers| peers.mediasoup), peer(|peers| peers.janus));
    let rows: [(&str, Cell<'_>); 6] = [
        ("Headwater", &measured),
        ("goal", &goal),
        ("bare loop on this machine", &bare),
        ("share of the bare loop", &percent),
        ("mediasoup 3.27.1, one thread", &mediasoup),
        ("Janus 1.1.2, one event loop", &janus),
    ];
    for (name, value) in rows {
        let cells: Vec<String> = compared.iter().map(|result| value(result)).collect();
        let _ = write!(text, "\n| {name} | {} |", cells.join(" | "));
    }
    text.push('\n');
    text
}

/// Thousand packets per CPU-second of each case, beside what there is to compare with.
pub fn forwarding(results: &[Result]) -> String {
    let mut text = "Thousand packets per CPU-second of the server:\n\n\
        | | Headwater | range | bare loop | share | goal | mediasoup | Janus | packets/s out |\n\
        |---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for result in results {
        let range = result.range(PER_CPU).map_or("-".to_owned(), |(low, high)| {
            format!("{} to {}", thousands(Some(low)), thousands(Some(high)))
        });
        let peers = result.case.peers;
        let peer = |value: Option<f64>| decimals(value, 1);
        let _ = writeln!(
            text,
            "| {} | **{}** | {range} | {} | {} % | {} | {} | {} | {} |",
            title(result),
            thousands(result.median(PER_CPU)),
            thousands(result.yardstick()),
            decimals(share(result), 0),
            decimals(peers.map(|peers| peers.goal), 0),
            peer(peers.map(|peers| peers.mediasoup)),
            peer(peers.map(|peers| peers.janus)),
            decimals(result.median("/packets_per_second"), 0),
        );
    }
    text
}

fn latency(results: &[Result]) -> String {
    let mut text = "| | video p50 / p99 ms | audio p50 / p99 ms | lost | server memory per \
        client KiB | load's own core |\n|---|---|---|---|---|---|\n"
        .to_owned();
    for result in results {
        let pair = |kind: &str| {
            let at = |share| decimals(result.median(&format!("/{kind}/latency/{share}")), 2);
            format!("{} / {}", at("p50"), at("p99"))
        };
        let lost = result.median("/video/lost_percent").into_iter();
        let lost = lost.chain(result.median("/audio/lost_percent")).fold(0.0, f64::max);
        let busy = result.median("/load/cpu_seconds").zip(result.median("/seconds"));
        let busy = busy.map(|(cpu, seconds)| cpu * 100.0 / seconds);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {lost:.3} % | {} | {} % |",
            title(result),
            pair("video"),
            pair("audio"),
            decimals(result.median("/server/memory_per_client_kib"), 0),
            decimals(busy, 0),
        );
    }
    text
}

fn joins(results: &[Result]) -> String {
    let mut text = "Joins, from their start to the first packet of a keyframe, and what reached \
        the publishers meanwhile:\n\n| | joins | failed | connected p50 / p95 ms | first keyframe \
        p50 / p95 ms | the same, joining late | keyframe requests at publishers |\n\
        |---|---|---|---|---|---|---|\n"
        .to_owned();
    for result in results {
        let pair = |what: &str| {
            let at = |share| decimals(result.median(&format!("/joins/{what}/{share}")), 0);
            format!("{} / {}", at("p50"), at("p95"))
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            title(result),
            decimals(result.median("/joins/begun"), 0),
            decimals(result.median("/joins/failures"), 0),
            pair("connected"),
            pair("first_keyframe"),
            pair("late_first_keyframe"),
            decimals(result.median("/keyframe_requests"), 0),
        );
    }
    text
}

/// One line for the terminal.
pub fn one_line(result: &Result) -> String {
    format!(
        "{}: {} thousand packets per CPU-second, {} % of the bare loop",
        title(result),
        thousands(result.median(PER_CPU)),
        decimals(share(result), 0)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::suite::CASES;
    use super::*;

    #[test]
    fn a_case_is_a_row_with_its_share_and_its_peers() {
        let run = json!({
            "valid": true, "packets_per_second": 4500.0,
            "server": {"packets_per_cpu_second": 150_000.0}
        });
        let result = Result { case: &CASES[0], runs: vec![run], yardsticks: vec![200_000.0] };
        let table = forwarding(&[result]);
        let row = table.lines().last().unwrap();
        assert_eq!(
            row,
            "| 50 subscribers, 30 f/s | **150** | 150 to 150 | 200 | 75 % | 160 | 32.1 | 26.1 | 4500 |"
        );
    }

    #[test]
    fn servers_are_rows_and_shapes_are_columns() {
        let run = |value: f64| json!({"valid": true, "server": {"packets_per_cpu_second": value}});
        let results: Vec<Result> = [(0, 150_000.0), (1, 300_000.0)]
            .into_iter()
            .map(|(case, value)| Result {
                case: &CASES[case],
                runs: vec![run(value)],
                yardsticks: vec![400_000.0],
            })
            .collect();
        let table = columns(&results);
        let row = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap();
        assert_eq!(row("| Headwater"), "| Headwater | **150.0** | **300.0** |");
        assert_eq!(row("| share"), "| share of the bare loop | 38 % | 75 % |");
        assert_eq!(row("| Janus"), "| Janus 1.1.2, one event loop | 26.1 | 43.1 |");
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let result = Result { case: &CASES[0], runs: Vec::new(), yardsticks: Vec::new() };
        let table = forwarding(&[result]);
        assert!(table.lines().last().unwrap().contains("| **-** | - | - | - % |"));
    }
}
