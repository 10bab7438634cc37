//! Line and bar plots as SVG that stands alone: no scripts, no fonts, both themes.

use std::fmt::Write;

use crate::text::{escape, number};

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 42.0;
/// Points drawn of a line; more are thinned out.
const POINTS_MAX: usize = 400;
/// Fall back to these where no style sheet says otherwise.
const COLOURS: [&str; 4] =
    ["var(--a,#1668c7)", "var(--b,#d9730d)", "var(--c,#0b8a6f)", "var(--d,#8146b8)"];

/// A line of a plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Line {
    /// A line through these points, in order.
    #[must_use]
    pub fn new(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), points }
    }
}

/// A plot of lines over one axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    title: String,
    x_label: String,
    y_label: String,
    lines: Vec<Line>,
}

struct Scale {
    max: f64,
    step: f64,
}

impl Scale {
    /// From 0 to a round number above the largest value, in about five steps.
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let largest = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let largest = if largest > 0.0 { largest } else { 1.0 };
        let rough = largest / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step * 5.0 >= largest * 0.999)
            .unwrap_or(power * 10.0);
        Self { max: (largest / step).ceil().max(1.0) * step, step }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + '_ {
        (0..).map(|index| f64::from(index) * self.step).take_while(|tick| *tick <= self.max * 1.001)
    }
}

impl Plot {
    /// A plot; lines without points are left out.
    #[must_use]
    pub fn new(title: &str, x_label: &str, y_label: &str, lines: Vec<Line>) -> Self {
        let lines = lines.into_iter().filter(|line| !line.points.is_empty()).collect();
        Self {
            title: title.to_owned(),
            x_label: x_label.to_owned(),
            y_label: y_label.to_owned(),
            lines,
        }
    }

    /// Nothing to draw.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Draws it.
    #[must_use]
    pub fn render(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = Scale::of(points().map(|point| point.0));
        let y = Scale::of(points().map(|point| point.1));
        let mut svg = open(&self.title);
        axes(&mut svg, &x, &y);
        let (middle, bottom) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0);
        let _ = write!(
            svg,
            "<text x=\"{middle}\" y=\"{bottom}\" text-anchor=\"middle\" opacity=\".65\">{}</text>",
            escape(&self.x_label)
        );
        for (index, line) in self.lines.iter().enumerate() {
            draw(&mut svg, line, COLOURS[index % COLOURS.len()], &x, &y);
        }
        legend(&mut svg, &self.lines, &self.y_label);
        svg.push_str("</svg>");
        svg
    }
}

fn open(title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"system-ui,sans-serif\" font-size=\"11\" fill=\"currentColor\" role=\"img\" \
         aria-label=\"{0}\"><text x=\"{LEFT}\" y=\"16\" font-size=\"13\" font-weight=\"600\">{0}</text>",
        escape(title)
    )
}

fn at(x: &Scale, y: &Scale, point: (f64, f64)) -> (f64, f64) {
    let across = LEFT + point.0 / x.max * (WIDTH - LEFT - RIGHT);
    let down = HEIGHT - BOTTOM - point.1 / y.max * (HEIGHT - TOP - BOTTOM);
    (across, down)
}

fn axes(svg: &mut String, x: &Scale, y: &Scale) {
    for tick in y.ticks() {
        let (left, down) = at(x, y, (0.0, tick));
        let right = WIDTH - RIGHT;
        let _ = write!(
            svg,
            "<path d=\"M{left:.1} {down:.1}H{right}\" stroke=\"currentColor\" opacity=\".12\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" opacity=\".65\">{}</text>",
            left - 6.0,
            down + 4.0,
            tick_text(tick)
        );
    }
    for tick in x.ticks() {
        let (across, down) = at(x, y, (tick, 0.0));
        let _ = write!(
            svg,
            "<text x=\"{across:.1}\" y=\"{:.1}\" text-anchor=\"middle\" opacity=\".65\">{}</text>",
            down + 15.0,
            tick_text(tick)
        );
    }
}

/// A tick without the zeros that [`number`] keeps for columns.
fn tick_text(tick: f64) -> String {
    let text = number(tick);
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

fn draw(svg: &mut String, line: &Line, colour: &str, x: &Scale, y: &Scale) {
    let every = line.points.len().div_ceil(POINTS_MAX).max(1);
    let last = line.points.len() - 1;
    let kept = line.points.iter().enumerate();
    let kept = kept.filter(|(index, _)| index.is_multiple_of(every) || *index == last);
    let places: Vec<(f64, f64)> = kept.map(|(_, point)| at(x, y, *point)).collect();
    if let [(across, down)] = places.as_slice() {
        let _ =
            write!(svg, "<circle cx=\"{across:.1}\" cy=\"{down:.1}\" r=\"3\" fill=\"{colour}\"/>");
        return;
    }
    let mut path = String::new();
    for (index, (across, down)) in places.iter().enumerate() {
        let _ = write!(path, "{}{across:.1} {down:.1}", if index == 0 { 'M' } else { 'L' });
    }
    let _ = write!(
        svg,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\" \
         stroke-linejoin=\"round\"/>"
    );
}

fn legend(svg: &mut String, lines: &[Line], unit: &str) {
    let mut across = LEFT;
    let down = TOP - 13.0;
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"16\" text-anchor=\"end\" opacity=\".65\">{}</text>",
        WIDTH - RIGHT,
        escape(unit)
    );
    if lines.len() < 2 {
        return;
    }
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let _ = write!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{down:.1}\">{}</text>",
            across + 4.0,
            down - 4.0,
            across + 12.0,
            escape(&line.name)
        );
        across += 26.0 + line.name.chars().count() as f64 * 6.2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        for (largest, max, step) in
            [(0.0, 1.0, 0.2), (97.0, 100.0, 20.0), (0.23, 0.25, 0.05), (1_001.0, 1_200.0, 200.0)]
        {
            let scale = Scale::of([largest].into_iter());
            let near = |a: f64, b: f64| (a - b).abs() < 1e-9 * b.max(1.0);
            assert!(near(scale.max, max) || scale.max >= largest, "{largest}: {}", scale.max);
            assert!(near(scale.step, step) || scale.max / scale.step <= 6.0, "{largest}");
        }
    }

    #[test]
    fn names_are_escaped_and_every_line_is_drawn() {
        let lines = vec![
            Line::new("<a>", vec![(0.0, 1.0), (1.0, 2.0)]),
            Line::new("b", vec![(0.5, 0.5)]),
            Line::new("nothing", Vec::new()),
        ];
        let svg = Plot::new("t & u", "x", "y", lines).render();
        assert!(svg.contains("t &amp; u") && svg.contains("&lt;a&gt;") && !svg.contains("nothing"));
        assert_eq!(svg.matches("stroke-width=\"1.8\"").count(), 1);
    }

    #[test]
    fn a_long_line_is_thinned_out() {
        let points = (0..100_000).map(|index| (f64::from(index), 1.0)).collect();
        let svg = Plot::new("t", "x", "y", vec![Line::new("a", points)]).render();
        assert!(svg.len() < 20_000, "{} bytes", svg.len());
    }
}
