//! Bar charts of the results as SVG files, on white so that they show on any page.

use std::fmt::Write;

use super::suite::Result;
use super::tables::{per_cpu, share};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 330.0;
const RIGHT: f64 = 70.0;
const BAR: f64 = 14.0;
const GAP: f64 = 14.0;
const TOP: f64 = 64.0;
const COLOURS: [&str; 4] = ["#1668c7", "#9bb7d4", "#d9730d", "#8146b8"];

struct Chart {
    title: &'static str,
    unit: &'static str,
    names: Vec<&'static str>,
    /// A title and a value for each name.
    groups: Vec<(String, Vec<Option<f64>>)>,
}

/// File names and contents.
pub fn all(results: &[Result]) -> Vec<(&'static str, String)> {
    vec![
        ("forwarding.svg", forwarding(results).render()),
        ("share.svg", shares(results).render()),
        ("latency.svg", latencies(results).render()),
    ]
}

fn forwarding(results: &[Result]) -> Chart {
    let compared = results.iter().filter(|result| result.case.peers.is_some());
    let groups = compared.map(|result| {
        let peers = result.case.peers;
        let values = vec![
            per_cpu(result),
            peers.map(|peers| peers.goal),
            peers.map(|peers| peers.mediasoup),
            peers.map(|peers| peers.janus),
        ];
        (result.case.title.to_owned(), values)
    });
    Chart {
        title: "Packets per CPU-second of the server",
        unit: "thousand",
        names: vec!["Headwater", "goal", "mediasoup 3.27.1", "Janus 1.1.2"],
        groups: groups.collect(),
    }
}

fn shares(results: &[Result]) -> Chart {
    let groups = results.iter().filter(|result| !result.yardsticks.is_empty());
    let groups = groups.map(|result| (result.case.title.to_owned(), vec![share(result)]));
    Chart {
        title: "Share of a bare receive, decrypt, encrypt, send loop",
        unit: "%",
        names: vec!["share"],
        groups: groups.collect(),
    }
}

fn latencies(results: &[Result]) -> Chart {
    // A case in which the load was behind would dwarf all others and says nothing.
    let sound = results.iter().filter(|result| result.invalid().0 == 0);
    let groups = sound.filter_map(|result| {
        let at = |share: &str| {
            let of = |kind: &str| result.median(&format!("/{kind}/latency/{share}"));
            of("video").or_else(|| of("audio"))
        };
        Some((result.case.title.to_owned(), vec![Some(at("p50")?), at("p99")]))
    });
    Chart {
        title: "One-way latency through the server, two clients included",
        unit: "ms",
        names: vec!["p50", "p99"],
        groups: groups.collect(),
    }
}

impl Chart {
    fn render(&self) -> String {
        let values = self.groups.iter().flat_map(|(_, values)| values.iter().flatten());
        let largest = values.copied().fold(0.0, f64::max).max(1e-9);
        let group = self.names.len() as f64 * BAR + GAP;
        let height = TOP + self.groups.len() as f64 * group + 8.0;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"system-ui,sans-serif\" font-size=\"12\" fill=\"#17212b\" role=\"img\" \
             aria-label=\"{0}\"><rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#fff\"/>\
             <text x=\"16\" y=\"26\" font-size=\"16\" font-weight=\"600\">{0}</text>",
            self.title
        );
        self.legend(&mut svg);
        for (place, (title, values)) in self.groups.iter().enumerate() {
            let top = TOP + place as f64 * group;
            let _ = write!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{title}</text>",
                LEFT - 10.0,
                top + (group - GAP) / 2.0 + 4.0
            );
            for (index, value) in values.iter().enumerate() {
                bar(&mut svg, top + index as f64 * BAR, *value, largest, COLOURS[index % 4]);
            }
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn legend(&self, svg: &mut String) {
        let mut across = 16.0;
        if self.names.len() > 1 {
            for (name, colour) in self.names.iter().zip(COLOURS) {
                let _ = write!(
                    svg,
                    "<rect x=\"{across}\" y=\"38\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
                     <text x=\"{}\" y=\"47\">{name}</text>",
                    across + 15.0
                );
                across += 30.0 + name.len() as f64 * 7.0;
            }
        }
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"26\" text-anchor=\"end\" fill=\"#5c6b7a\">{}</text>",
            WIDTH - 16.0,
            self.unit
        );
    }
}

fn bar(svg: &mut String, top: f64, value: Option<f64>, largest: f64, colour: &str) {
    let Some(value) = value else { return };
    let width = value / largest * (WIDTH - LEFT - RIGHT);
    let text = if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") };
    let _ = write!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{}\" rx=\"2\" \
         fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\">{text}</text>",
        top + 1.0,
        BAR - 2.0,
        LEFT + width + 6.0,
        top + 11.0,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_in_proportion_and_missing_ones_are_left_out() {
        let chart = Chart {
            title: "t",
            unit: "u",
            names: vec!["a", "b"],
            groups: vec![
                ("g".to_owned(), vec![Some(50.0), Some(100.0)]),
                ("h".to_owned(), vec![None, Some(25.0)]),
            ],
        };
        let svg = chart.render();
        let full = WIDTH - LEFT - RIGHT;
        for width in [full / 2.0, full, full / 4.0] {
            assert!(svg.contains(&format!("width=\"{width:.1}\"")), "{width}");
        }
        assert_eq!(svg.matches("rx=\"2\"").count(), 3);
    }
}
