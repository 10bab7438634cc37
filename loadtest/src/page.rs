//! The report of a run as one HTML page that needs nothing else.

use std::fmt::Write;

use crate::crowd::{Moment, Phase};
use crate::outcome::{Media, Outcome, Percentiles};
use crate::plot::{Line, Plot};
use crate::text::{escape, number};

const STYLE: &str = include_str!("page.css");

/// Writes the page.
#[must_use]
pub fn render(outcome: &Outcome) -> String {
    let name = escape(&outcome.scenario.name);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{name} - load test</title><style>{STYLE}</style></head><body><main>"
    );
    head(&mut page, outcome);
    tiles(&mut page, outcome);
    plots(&mut page, outcome);
    tables(&mut page, outcome);
    let scenario = serde_json::to_string_pretty(&outcome.scenario).unwrap_or_default();
    let _ = writeln!(
        page,
        "<details><summary>Scenario</summary><pre>{}</pre></details></main></body></html>",
        escape(&scenario)
    );
    page
}

fn head(page: &mut String, outcome: &Outcome) {
    let (class, verdict) = match (outcome.valid, outcome.passed, outcome.checks.is_empty()) {
        (false, _, _) => ("bad", "invalid"),
        (true, false, _) => ("bad", "failed"),
        (true, true, true) => ("plain", "measured"),
        (true, true, false) => ("good", "passed"),
    };
    let _ = write!(
        page,
        "<header><h1>{} <span class=\"badge {class}\">{verdict}</span></h1><p>{}</p></header>",
        escape(&outcome.scenario.name),
        escape(&outcome.scenario.description)
    );
    if !outcome.invalid_because.is_empty() {
        let reasons = outcome.invalid_because.join("; ");
        let _ = write!(
            page,
            "<p class=\"warning\">The load generator fell behind, so these figures say nothing \
             of the server: {}.</p>",
            escape(&reasons)
        );
    }
}

fn tiles(page: &mut String, outcome: &Outcome) {
    let mut tiles: Vec<(String, &str, &str)> = Vec::new();
    if let Some(server) = &outcome.server {
        let packets = number(server.packets_per_cpu_second);
        tiles.push((packets, "", "packets per server CPU-second"));
    }
    tiles.push((number(outcome.packets_per_second), "/s", "packets received"));
    tiles.push((format!("{:.3}", outcome.lost_percent()), " %", "lost"));
    if let Some(latency) = outcome.video.latency.or(outcome.audio.latency) {
        tiles.push((number(latency.p50), " ms", "latency, p50"));
        tiles.push((number(latency.p99), " ms", "latency, p99"));
    }
    if let Some(first) = outcome.joins.first_keyframe {
        tiles.push((number(first.p95), " ms", "join to first keyframe, p95"));
    }
    if let Some(memory) = outcome.server.as_ref().and_then(|server| server.memory_per_client_kib) {
        tiles.push((number(memory), " KiB", "server memory per client"));
    }
    page.push_str("<section class=\"tiles\">");
    for (value, unit, label) in tiles {
        let _ = write!(
            page,
            "<div class=\"tile\"><b>{value}<i>{unit}</i></b><span>{label}</span></div>"
        );
    }
    page.push_str("</section>");
}

/// The plots of a run, in the order of the page.
#[must_use]
pub fn plots_of(outcome: &Outcome) -> Vec<Plot> {
    let mut plots = vec![joins(outcome), latencies(outcome), interruptions(outcome)];
    plots.extend(over_time(outcome));
    plots.retain(|plot| !plot.is_empty());
    plots
}

fn plots(page: &mut String, outcome: &Outcome) {
    page.push_str("<section class=\"plots\">");
    for plot in plots_of(outcome) {
        let _ = write!(page, "<figure>{}</figure>", plot.render());
    }
    page.push_str("</section>");
}

/// Sorted values as a curve: value, share of all in percent.
fn distribution(name: &str, sorted: &[f64]) -> Line {
    let count = sorted.len().max(1) as f64;
    let points = sorted
        .iter()
        .enumerate()
        .map(|(index, value)| (*value, (index + 1) as f64 * 100.0 / count));
    Line::new(name, points.collect())
}

fn joins(outcome: &Outcome) -> Plot {
    let names = ["connected", "first packet", "first keyframe"];
    let curves = names.iter().zip(&outcome.joins.curves);
    let lines = curves.map(|(name, values)| distribution(name, values)).collect();
    Plot::new("Joins: share of clients done", "ms since the join began", "%", lines)
}

fn latencies(outcome: &Outcome) -> Plot {
    let line = |name: &str, media: &Media| {
        Line::new(name, media.latency_curve.iter().map(|(share, ms)| (*share, *ms)).collect())
    };
    let lines = vec![line("video", &outcome.video), line("audio", &outcome.audio)];
    Plot::new("One-way latency by percentile", "percentile", "ms", lines)
}

fn interruptions(outcome: &Outcome) -> Plot {
    let lines = vec![
        distribution("picture stands still", &outcome.video.interruption_curve),
        distribution("gap in audio", &outcome.audio.interruption_curve),
    ];
    Plot::new("Longest interruption of each client", "ms", "% of clients", lines)
}

fn over_time(outcome: &Outcome) -> Vec<Plot> {
    let line = |name: &str, value: fn(&Moment) -> Option<f64>| {
        let points =
            outcome.timeline.iter().filter_map(|moment| Some((moment.at_seconds, value(moment)?)));
        Line::new(name, points.collect())
    };
    let layers = vec![
        line("smallest", |moment| Some(moment.layer_packets_per_second[0])),
        line("middle", |moment| Some(moment.layer_packets_per_second[1])),
        line("largest", |moment| Some(moment.layer_packets_per_second[2])),
    ];
    let seconds = "seconds";
    let several = outcome.groups.iter().any(|group| group.layers[1] + group.layers[2] > 0);
    let mut plots = vec![
        Plot::new(
            "Clients",
            seconds,
            "clients",
            vec![
                line("connected", |moment| Some(moment.connected as f64)),
                line("ended early", |moment| Some(moment.ended as f64)),
            ],
        ),
        Plot::new(
            "Media received",
            seconds,
            "packets/s",
            vec![line("packets", |moment| Some(moment.packets_per_second))],
        ),
        Plot::new(
            "Packets per server CPU-second",
            seconds,
            "packets",
            vec![Line::new("packets", per_cpu_second(&outcome.timeline))],
        ),
        Plot::new(
            "Processor",
            seconds,
            "% of a core",
            vec![
                line("server", |moment| moment.server_cpu.map(|cpu| cpu * 100.0)),
                line("load generator", |moment| Some(moment.own_cpu * 100.0)),
            ],
        ),
        Plot::new(
            "Server memory",
            seconds,
            "MiB resident",
            vec![line("memory", |moment| moment.server_memory_kib.map(|kib| kib as f64 / 1024.0))],
        ),
        Plot::new(
            "Server descriptors and threads",
            seconds,
            "count",
            vec![
                line("descriptors", |moment| moment.server_descriptors.map(|count| count as f64)),
                line("threads", |moment| moment.server_threads.map(|count| count as f64)),
            ],
        ),
        Plot::new(
            "Server tasks and metric series",
            seconds,
            "count",
            vec![
                line("tasks", |moment| moment.server_tasks.map(|count| count as f64)),
                line("series", |moment| moment.server_series.map(|count| count as f64)),
            ],
        ),
    ];
    if several {
        plots.push(Plot::new("Video received by encoding", seconds, "packets/s", layers));
    }
    plots
}

/// Over five moments each: the kernel counts processor time in steps of 10 ms.
fn per_cpu_second(timeline: &[Moment]) -> Vec<(f64, f64)> {
    let measured: Vec<&Moment> =
        timeline.iter().filter(|moment| moment.phase == Phase::Measured).collect();
    let quotient = |moments: &[&Moment]| {
        let packets: f64 = moments.iter().map(|moment| moment.packets_per_second).sum();
        let cpu: f64 = moments.iter().filter_map(|moment| moment.server_cpu).sum();
        let middle = moments.get(moments.len() / 2)?;
        (cpu > 0.02).then(|| (middle.at_seconds, packets / cpu))
    };
    measured.windows(5).filter_map(quotient).collect()
}

fn tables(page: &mut String, outcome: &Outcome) {
    if !outcome.checks.is_empty() {
        page.push_str("<h2>Criteria</h2>");
        let rows = outcome.checks.iter().map(|check| {
            let value = check.value.map_or("not measured".to_owned(), number);
            let verdict = if check.passed { "holds" } else { "broken" };
            vec![check.name.to_owned(), number(check.limit), value, verdict.to_owned()]
        });
        table(page, &["criterion", "limit", "measured", ""], rows.collect());
    }
    page.push_str("<h2>Media</h2>");
    table(
        page,
        &[
            "",
            "received",
            "lost",
            "recovered",
            "p50 ms",
            "p99 ms",
            "max ms",
            "NACKs",
            "PLIs",
            "freezes > 0.5 s",
        ],
        vec![media_row("video", &outcome.video), media_row("audio", &outcome.audio)],
    );
    page.push_str("<h2>Clients</h2>");
    let rows = outcome.groups.iter().map(|group| {
        vec![
            group.label.clone(),
            group.clients.to_string(),
            group.receiving.to_string(),
            number(group.kbps_per_client),
            format!("{:.2} / {:.2}", group.video_lost_percent, group.audio_lost_percent),
            number(group.freeze_max_ms),
            group.layers.map(|packets| number(packets as f64)).join(" / "),
            group.layer_switches.to_string(),
        ]
    });
    table(
        page,
        &[
            "kind",
            "clients",
            "receiving",
            "kbit/s each",
            "% lost, video / audio",
            "longest freeze ms",
            "packets by encoding",
            "switches",
        ],
        rows.collect(),
    );
    own_table(page, outcome);
}

fn media_row(name: &str, media: &Media) -> Vec<String> {
    let latency = |value: fn(&Percentiles) -> f64| {
        media.latency.as_ref().map_or("-".to_owned(), |latency| number(value(latency)))
    };
    vec![
        name.to_owned(),
        number(media.received as f64),
        format!("{} ({:.3} %)", number(media.lost as f64), media.lost_percent),
        number(media.recovered as f64),
        latency(|latency| latency.p50),
        latency(|latency| latency.p99),
        latency(|latency| latency.max),
        number(media.nacks as f64),
        number(media.plis as f64),
        media.freeze_max.map_or("-".to_owned(), |_| number(media.freezes as f64)),
    ]
}

fn own_table(page: &mut String, outcome: &Outcome) {
    let load = &outcome.load;
    page.push_str("<h2>Load generator and server</h2>");
    let mut rows = vec![
        ("measured time", format!("{:.1} s", outcome.seconds)),
        ("joins begun, failed", format!("{}, {}", outcome.joins.begun, outcome.joins.failures)),
        ("keyframe requests that reached publishers", outcome.keyframe_requests.to_string()),
        ("own processor time", format!("{:.2} s of {} cores", load.cpu_seconds, load.cores)),
        ("busiest own thread", format!("{:.0} % of a core", load.busiest_thread * 100.0)),
        ("frames due, late", format!("{}, {}", number(load.frames as f64), load.late_frames)),
        ("datagrams clients had no room for", load.socket_drops.to_string()),
        ("media packets decrypted", format!("{:.1} %", load.decrypted_percent)),
    ];
    if let Some(server) = &outcome.server {
        rows.push(("server processor time", format!("{:.2} s", server.cpu_seconds)));
        rows.push((
            "server memory at the end",
            format!("{} KiB", number(server.end.memory_kib as f64)),
        ));
    }
    if let Some((begin, end)) = outcome.server.as_ref().and_then(|server| server.scrapes) {
        let tasks = |tasks: Option<u64>| tasks.map_or("-".to_owned(), |tasks| tasks.to_string());
        rows.push((
            "server tasks, begin and end",
            format!("{}, {}", tasks(begin.tasks), tasks(end.tasks)),
        ));
        rows.push(("server metric series", format!("{}, {}", begin.series, end.series)));
    }
    if let Some(flood) = &outcome.flood {
        rows.push(("datagrams of strangers", format!("{}/s", number(flood.per_second))));
    }
    let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]);
    table(page, &["", ""], rows.collect());
    if !outcome.joins.failure_reasons.is_empty() {
        page.push_str("<h2>Failures</h2><ul>");
        for reason in &outcome.joins.failure_reasons {
            let _ = write!(page, "<li>{}</li>", escape(reason));
        }
        page.push_str("</ul>");
    }
}

fn table(page: &mut String, heads: &[&str], rows: Vec<Vec<String>>) {
    page.push_str("<table>");
    if heads.iter().any(|head| !head.is_empty()) {
        page.push_str("<tr>");
        for head in heads {
            let _ = write!(page, "<th>{}</th>", escape(head));
        }
        page.push_str("</tr>");
    }
    for row in rows {
        page.push_str("<tr>");
        for cell in row {
            let _ = write!(page, "<td>{}</td>", escape(&cell));
        }
        page.push_str("</tr>");
    }
    page.push_str("</table>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Measured;
    use crate::scenario::Scenario;

    #[test]
    fn nothing_foreign_gets_into_the_page_as_markup() {
        let mut scenario = Scenario::parse(
            "name = \"x\"\nduration_seconds = 1\n[[subscribers]]\ncount = 1\nlabel = \"<b>\"\n",
        )
        .unwrap();
        scenario.description = "<script>alert(1)</script> & \"more\"".to_owned();
        let measured = Measured {
            failures: 1,
            failure_reasons: vec!["<img src=x onerror=alert(1)>".to_owned()],
            labels: vec!["<b>bold</b>".to_owned()],
            ..Measured::default()
        };
        let page = render(&Outcome::new(scenario, measured, Vec::new()));
        for markup in ["<script", "<img", "<b>bold"] {
            assert!(!page.contains(markup), "{markup} is in the page");
        }
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;more&quot;"));
        for fetched in ["src=\"", "href=\"", "url("] {
            assert!(!page.contains(fetched), "the page fetches something by {fetched}");
        }
    }
}
