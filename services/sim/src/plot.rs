//! A run as a picture: capacity of the link, estimate, what was received and which layer was
//! shown over time, as SVG.

use std::fmt::Write;

use crate::Time;
use crate::scenario::Run;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 40.0;
/// Room for the strip of layers and the axis under the plot.
const BOTTOM: f64 = 92.0;
const RIGHT: f64 = 24.0;
/// Colours of layers, smallest first.
const LAYERS: [&str; 3] = ["#cfd8dc", "#90caf9", "#1e88e5"];

struct Frame {
    seconds: f64,
    kbps: f64,
}

impl Frame {
    fn x(&self, second: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * second / self.seconds
    }

    fn y(&self, kbps: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (kbps / self.kbps).min(1.0)
    }

    fn line(&self, out: &mut String, colour: &str, points: &[(f64, f64)], style: &str) {
        let path: Vec<String> = points
            .iter()
            .map(|(second, kbps)| format!("{:.1},{:.1}", self.x(*second), self.y(*kbps)))
            .collect();
        let _ = writeln!(
            out,
            r#"<polyline fill="none" stroke="{colour}" {style} points="{}"/>"#,
            path.join(" ")
        );
    }
}

/// The picture of a run.
#[must_use]
pub fn svg(run: &Run) -> String {
    let seconds = run.scenario.ends.elapsed().as_secs_f64();
    let capacity = capacity(run, seconds);
    let received = received(run);
    let estimate: Vec<(f64, f64)> = run
        .samples
        .iter()
        .filter_map(|sample| {
            let rate = sample.estimate? as f64 / 1_000.0;
            Some((sample.at.elapsed().as_secs_f64(), rate))
        })
        .collect();
    let lines = [&capacity[..], &received[..], &estimate[..]];
    let highest =
        lines.iter().flat_map(|line| line.iter()).map(|point| point.1).fold(500.0, f64::max);
    let frame = Frame { seconds, kbps: (highest * 1.1 / 500.0).ceil() * 500.0 };
    let mut out = String::new();
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13" fill="#333"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>"##
    );
    axes(&mut out, &frame);
    frame.line(&mut out, "#555", &capacity, r#"stroke-width="2" stroke-dasharray="6 4""#);
    frame.line(&mut out, "#43a047", &received, r#"stroke-width="2""#);
    frame.line(&mut out, "#e53935", &estimate, r#"stroke-width="1.5""#);
    layers(&mut out, &frame, run);
    legend(&mut out, run, !estimate.is_empty());
    out.push_str("</svg>\n");
    out
}

fn capacity(run: &Run, seconds: f64) -> Vec<(f64, f64)> {
    let kbps = |rate: Option<u64>| rate.map(|rate| rate as f64 / 1_000.0);
    let mut points = Vec::new();
    let mut now = kbps(run.scenario.watched.down.rate);
    points.extend(now.map(|rate| (0.0, rate)));
    for (at, weather) in &run.scenario.changes {
        let at = at.elapsed().as_secs_f64();
        points.extend(now.map(|rate| (at, rate)));
        now = kbps(weather.rate);
        points.extend(now.map(|rate| (at, rate)));
    }
    points.extend(now.map(|rate| (seconds, rate)));
    points
}

fn received(run: &Run) -> Vec<(f64, f64)> {
    let report = run.world.subscriber(run.watched).map(crate::Subscriber::report);
    let bytes = report.map(|report| report.received_bytes).unwrap_or_default();
    let whole = run.scenario.ends.second();
    let point = |(second, bytes): (usize, &u64)| (second as f64 + 0.5, *bytes as f64 * 0.008);
    bytes.iter().take(whole).enumerate().map(point).collect()
}

fn axes(out: &mut String, frame: &Frame) {
    let mut kbps = 0.0;
    while kbps <= frame.kbps {
        let y = frame.y(kbps);
        let _ = writeln!(
            out,
            r##"<line x1="{LEFT}" x2="{:.0}" y1="{y:.1}" y2="{y:.1}" stroke="#e5e5e5"/><text x="{:.0}" y="{:.1}" text-anchor="end">{kbps:.0}</text>"##,
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0
        );
        kbps += 500.0;
    }
    let step = if frame.seconds > 30.0 { 10.0 } else { 1.0 };
    let mut second = 0.0;
    while second <= frame.seconds {
        let _ = writeln!(
            out,
            r#"<text x="{:.1}" y="{:.0}" text-anchor="middle">{second:.0} s</text>"#,
            frame.x(second),
            HEIGHT - BOTTOM + 20.0
        );
        second += step;
    }
}

fn layers(out: &mut String, frame: &Frame, run: &Run) {
    let report = run.world.subscriber(run.watched).map(crate::Subscriber::report);
    let video = report.and_then(|report| report.video.first().cloned()).unwrap_or_default();
    let y = HEIGHT - BOTTOM + 34.0;
    for (index, (from, layer)) in video.layers.iter().enumerate() {
        let end = video.layers.get(index + 1).map_or(run.scenario.ends, |(at, _)| *at);
        let (from, to) = (frame.x(seconds(*from)), frame.x(seconds(end)));
        let colour = LAYERS[usize::from(*layer).min(LAYERS.len() - 1)];
        let _ = writeln!(
            out,
            r#"<rect x="{from:.1}" y="{y:.0}" width="{:.1}" height="18" fill="{colour}"/>"#,
            to - from
        );
    }
    let _ = writeln!(
        out,
        r#"<text x="{:.0}" y="{:.0}" text-anchor="end">layer</text>"#,
        LEFT - 8.0,
        y + 14.0
    );
}

fn seconds(at: Time) -> f64 {
    at.elapsed().as_secs_f64()
}

fn legend(out: &mut String, run: &Run, estimate: bool) {
    let _ = writeln!(
        out,
        r#"<text x="{LEFT}" y="22" font-size="15">{}, seed {} (kbit/s)</text>"#,
        run.scenario.about, run.seed
    );
    let mut entries = vec![("#555", "capacity"), ("#43a047", "received")];
    if estimate {
        entries.push(("#e53935", "estimate"));
    }
    entries.extend([(LAYERS[0], "180p"), (LAYERS[1], "360p"), (LAYERS[2], "720p")]);
    for (index, (colour, name)) in entries.iter().enumerate() {
        let x = LEFT + 110.0 * index as f64;
        let y = HEIGHT - 16.0;
        let _ = writeln!(
            out,
            r#"<rect x="{x:.0}" y="{:.0}" width="16" height="10" fill="{colour}"/><text x="{:.0}" y="{y:.0}">{name}</text>"#,
            y - 9.0,
            x + 22.0
        );
    }
}
