//! The report: tables in Markdown, and a plot in SVG.

use std::fmt::Write as _;
use std::time::Duration;

use crate::Assumptions;
use crate::simulation::Room;

const TITLE: &str = "# Capacity

What rooms of a thousand to a million viewers take. Made by `cargo xtask capacity`, which runs the planner of the control plane
on paper nodes: the trees, the plan sizes and the times are those of the real code, the load of a shard is calculated from a
measured figure. No million viewers were connected to anything.
";

/// The report.
pub fn text(assumptions: &Assumptions, rooms: &[Room]) -> String {
    let mut text = TITLE.to_owned();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\n{}\n{}\n{}\n{}",
        given(assumptions),
        trees(assumptions, rooms),
        planner(rooms),
        rates(assumptions, rooms)
    );
    text
}

fn given(it: &Assumptions) -> String {
    format!(
        "## What it is calculated from

| What | Figure | From |
|---|---|---|
| packets a shard sends per processor second | {} | `docs/benchmarks.md`, 200 subscribers, development build on a shared machine |
| packets a second for a viewer | {} | 50 % 720p, 35 % 360p, 15 % 180p, three thumbnails, live audio |
| kbit/s for a viewer | {} | the same mix |
| viewers that would take all of a shard's time | {} | quotient of the first two |
| share that a shard is planned for | 60 % | the planner adds shards above 75 % and takes them away below 35 % |
| kbit/s on a relay link | {} | every layer of eight speakers |
| shards of a node | {} | |
| zones | {} | nodes and viewers spread evenly |

Another machine gives other figures: `cargo xtask capacity -- --packets-per-cpu-second 500000 --shards-per-node 16`.
",
        it.packets_per_cpu_second,
        it.viewer_packets,
        it.viewer_kbps,
        it.shard_viewers(),
        it.link_kbps,
        it.shards_per_node,
        it.zones,
    )
}

fn trees(assumptions: &Assumptions, rooms: &[Room]) -> String {
    let mut text = "## Trees

Depth is the number of relay links between the home and the farthest shard. Relay overhead is what the links between nodes carry,
in per cent of what viewers get; links between shards of one node cost no network.

![nodes and planning time by viewers](images/capacity.svg)

| viewers | egress | nodes | shards | depth | links between nodes | of them between zones | relay overhead | shards without a backup |
|---|---|---|---|---|---|---|---|---|
"
    .to_owned();
    for room in rooms {
        let egress = f64::from(room.viewers) * f64::from(assumptions.viewer_kbps) / 1e6;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let relayed = room.links as f64 * f64::from(assumptions.link_kbps) / 1e6;
        let _ = writeln!(
            text,
            "| {} | {egress:.1} Gbit/s | {} | {} | {} | {} | {} | {:.2} % | {} |",
            room.viewers,
            room.nodes,
            room.shards,
            room.depth,
            room.links,
            room.zone_links,
            relayed / egress * 100.0,
            room.unbacked,
        );
    }
    text.push_str("
A shard has no backup if nothing of lower rank stands on another node than its parent: the first shards of a room.
");
    text
}

fn planner(rooms: &[Room]) -> String {
    let mut text = "## The planner

One run each on this machine: the plan made from nothing, planned again when nothing has changed, and repaired after a node was
lost; and the slowest of the plans that followed the wave of joins. A stored plan may have 1.5 MiB in etcd.

| viewers | from nothing | again | repair | slowest while growing | plan as stored | plans while growing |
|---|---|---|---|---|---|---|
"
    .to_owned();
    for room in rooms {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.1} KiB | {} |",
            room.viewers,
            millis(room.from_nothing),
            millis(room.again),
            millis(room.repair),
            millis(room.slowest),
            kibibytes(room.plan_bytes),
            room.plans,
        );
    }
    text
}

fn rates(assumptions: &Assumptions, rooms: &[Room]) -> String {
    let mut text = format!(
        "## Rates of the control plane

While everybody joins within {} s, with {} replicas. A join writes nothing to the registry; plans are at least 2 s apart. A lease
renewal is a message to etcd and no write. Choosing one's shard is measured with everybody there: of a large room 32 shards are
looked at and not all of them. Reports come once a second from every node to every replica; a plan sends a slice of at most some
hundred peers to each of its shards.

| viewers | joins/s | joins/s per node | choosing one's shard | processors that takes | plan writes/s | bytes written/s | lease renewals/s | load reports/s | slices/s |
|---|---|---|---|---|---|---|---|---|---|
",
        assumptions.join_seconds, assumptions.replicas,
    );
    for room in rooms {
        let seconds = f64::from(assumptions.join_seconds.max(1));
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let (nodes, shards, bytes) =
            (room.nodes as f64, room.shards as f64, room.plan_bytes as f64);
        let joins = f64::from(room.viewers) / seconds;
        let plans = f64::from(room.plans) / seconds;
        let _ = writeln!(
            text,
            "| {} | {joins:.0} | {:.0} | {} | {:.2} | {plans:.2} | at most {:.1} KiB | {:.1} | {:.0} | at most {:.0} |",
            room.viewers,
            joins / nodes,
            micros(room.placing),
            joins * room.placing.as_secs_f64(),
            plans * bytes / 1024.0,
            nodes / 3.0,
            nodes * f64::from(assumptions.replicas),
            plans * shards,
        );
    }
    text
}

fn micros(time: Duration) -> String {
    format!("{:.0} µs", time.as_secs_f64() * 1e6)
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn kibibytes(bytes: usize) -> f64 {
    bytes as f64 / 1024.0
}

/// Nodes and planning time against viewers, both axes logarithmic.
pub fn plot(rooms: &[Room]) -> String {
    let x = |viewers: u32| 60.0 + (f64::from(viewers).log10() - 3.0) * 160.0;
    let y = |value: f64| 280.0 - (value.max(0.01).log10() + 2.0) * 48.0;
    let mut svg = String::from(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 640 330' font-family='sans-serif' font-size='12'>\n\
         <rect width='640' height='330' fill='white'/>\n",
    );
    for power in -2..=3_i32 {
        let value = 10_f64.powi(power);
        let at = y(value);
        let _ = writeln!(
            svg,
            "<line x1='60' x2='560' y1='{at:.0}' y2='{at:.0}' stroke='#ddd'/><text x='52' y='{:.0}' text-anchor='end'>{value}</text>",
            at + 4.0
        );
    }
    for room in rooms {
        let _ = writeln!(
            svg,
            "<text x='{:.0}' y='300' text-anchor='middle'>{}</text>",
            x(room.viewers),
            room.viewers
        );
    }
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let nodes: Vec<_> = rooms.iter().map(|room| (x(room.viewers), y(room.nodes as f64))).collect();
    let times: Vec<_> = rooms
        .iter()
        .map(|room| (x(room.viewers), y(room.from_nothing.as_secs_f64() * 1000.0)))
        .collect();
    for (points, colour, name) in [(nodes, "#1f6feb", "nodes"), (times, "#d1242f", "planning, ms")]
    {
        let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.0},{y:.0}")).collect();
        let _ = writeln!(
            svg,
            "<polyline points='{}' fill='none' stroke='{colour}' stroke-width='2'/>",
            line.join(" ")
        );
        for (x, y) in &points {
            let _ = writeln!(svg, "<circle cx='{x:.0}' cy='{y:.0}' r='3' fill='{colour}'/>");
        }
        if let Some((x, y)) = points.last() {
            let _ = writeln!(
                svg,
                "<text x='{:.0}' y='{:.0}' fill='{colour}'>{name}</text>",
                x + 8.0,
                y + 4.0
            );
        }
    }
    svg.push_str("<text x='310' y='322' text-anchor='middle'>viewers of one room</text>\n</svg>\n");
    svg
}
