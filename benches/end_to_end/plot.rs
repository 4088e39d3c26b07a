//! Plots as SVG, by hand: bars of ratios and curves of latencies, both on logarithmic axes. Called by `page`.

use std::fmt::Write;

/// A ratio beside its goal.
pub struct Bar {
    pub label: String,
    pub ratio: f64,
    pub goal: f64,
    pub is_met: bool,
}

/// Latency over the quantile, given as its number of nines: 1 is 90 %, 2 is 99 %.
pub struct Curve {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

const COLOURS: [&str; 4] = ["#2a78d6", "#e07b39", "#5b9e4d", "#8a63c7"];
const REACHED: &str = "#3f9b57";
const MISSED: &str = "#cf4b43";

/// An axis from one power of ten to another, over some pixels.
struct Axis {
    from: f64,
    to: f64,
    start: f64,
    length: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let share = (value.log10() - self.from) / (self.to - self.from);
        self.start + share.clamp(0.0, 1.0) * self.length
    }
}

/// Horizontal bars from 1 to the ratio, with a stroke at the goal.
pub fn bars(bars: &[Bar]) -> String {
    const LINE: f64 = 22.0;
    let axis = Axis { from: -2.0, to: 1.0, start: 300.0, length: 500.0 };
    let bottom = LINE * (bars.len() as f64 + 0.5);
    let mut svg = head(880.0, bottom + LINE);
    for tick in [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0] {
        let x = axis.at(tick);
        svg += &line((x, 0.0), (x, bottom), "#8886", 1.0);
        svg += &text(x, bottom + 15.0, "middle", &tick.to_string());
    }
    for (number, bar) in bars.iter().enumerate() {
        let (y, x) = (LINE * (number as f64 + 0.5), axis.at(bar.ratio));
        let (left, width) = (x.min(axis.at(1.0)), (x - axis.at(1.0)).abs());
        let colour = if bar.is_met { REACHED } else { MISSED };
        svg += &text(axis.start - 8.0, y + 12.0, "end", &bar.label);
        svg += &format!("<rect x='{left:.1}' y='{y:.1}' width='{width:.1}' height='14' fill='{colour}'/>");
        let goal = axis.at(bar.goal);
        svg += &line((goal, y - 3.0), (goal, y + 17.0), "currentColor", 2.0);
        svg += &text(axis.start + axis.length + 8.0, y + 12.0, "start", &format!("{:.2}", bar.ratio));
    }
    svg + "</svg>\n"
}

/// Latency curves in one frame.
pub fn curves(title: &str, curves: &[Curve]) -> String {
    const NINES: [&str; 6] = ["0", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"];
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let nines = points().map(|point| point.0).fold(1.0, f64::max);
    let decade = |value: f64, round: fn(f64) -> f64| round(value.log10());
    let from = decade(points().map(|point| point.1).fold(f64::MAX, f64::min), f64::floor);
    let to = decade(points().map(|point| point.1).fold(1.0, f64::max), f64::ceil).max(from + 1.0);
    // From the bottom to the top, hence a negative length.
    let axis = Axis { from, to, start: 220.0, length: -180.0 };
    let x = |point: f64| 60.0 + point / nines * 300.0;
    let mut svg = head(400.0, 250.0) + &text(60.0, 16.0, "start", title);
    for power in from as i32..=to as i32 {
        let tick = 10_f64.powi(power);
        svg += &line((60.0, axis.at(tick)), (360.0, axis.at(tick)), "#8886", 1.0);
        svg += &text(54.0, axis.at(tick) + 4.0, "end", &duration(tick));
    }
    for (nine, label) in NINES.iter().enumerate().take_while(|(nine, _)| *nine as f64 <= nines) {
        svg += &line((x(nine as f64), 40.0), (x(nine as f64), 220.0), "#8883", 1.0);
        svg += &text(x(nine as f64), 238.0, "middle", label);
    }
    for (number, (curve, colour)) in curves.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let path = curve.points.iter().fold(String::new(), |mut path, (nines, us)| {
            let _ = write!(path, "{:.1},{:.1} ", x(*nines), axis.at(*us));
            path
        });
        svg += &format!("<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>");
        let key = 210.0 + 80.0 * number as f64;
        svg += &line((key, 12.0), (key + 16.0, 12.0), colour, 3.0);
        svg += &text(key + 20.0, 16.0, "start", curve.name);
    }
    svg + "</svg>\n"
}

/// Microseconds in the unit that suits them.
fn duration(us: f64) -> String {
    match us {
        1e6.. => format!("{} s", us / 1e6),
        1e3.. => format!("{} ms", us / 1e3),
        _ => format!("{us} us"),
    }
}

fn head(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}' \
         font-family='system-ui,sans-serif' font-size='12' fill='currentColor'>\n"
    )
}

fn line((x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str, width: f64) -> String {
    format!("<path d='M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}' stroke='{colour}' stroke-width='{width}'/>")
}

fn text(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!("<text x='{x:.1}' y='{y:.1}' text-anchor='{anchor}'>{text}</text>\n")
}
