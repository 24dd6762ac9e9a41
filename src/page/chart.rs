//! Small charts as SVG: a line over time, bars over time, and a sparkline for a table cell. Colours come from the style of the
//! page. Each chart has a label for screen readers that summarises its content.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::figures::short_count;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;
const DAY_MICROS: i64 = 86_400_000_000;

/// Times (microseconds) with values, oldest first.
pub(super) type Series = Vec<(i64, f64)>;

/// A step line: each value is valid until the next one. Empty without values.
pub(super) fn line(series: &Series, label: &str) -> Markup {
    let Some(frame) = Frame::over(series.iter().map(|point| point.0), 0.0, series.iter().map(|point| point.1)) else {
        return Markup::default();
    };
    let mut path = String::new();
    for (number, (at, value)) in series.iter().enumerate() {
        let (x, y) = (frame.x(*at), frame.y(*value));
        match number {
            0 => drop(write!(path, "M{x:.1} {y:.1}")),
            _ => drop(write!(path, "H{x:.1}V{y:.1}")),
        }
    }
    let (first, last) = (frame.x(frame.from), frame.x(frame.to));
    let base = HEIGHT - BOTTOM;
    let dot = series.last().map_or((0.0, 0.0), |(at, value)| (frame.x(*at), frame.y(*value)));
    frame.svg(
        label,
        &html! {
            path class="area" d={ (path) (format!("V{base:.1}H{first:.1}Z")) } {}
            path class="stroke" d={ (path) (format!("H{last:.1}")) } {}
            circle class="dot" cx=(fixed(dot.0)) cy=(fixed(dot.1)) r="3.5" {}
        },
    )
}

/// A coordinate with one fraction digit.
fn fixed(value: f64) -> String {
    format!("{value:.1}")
}

/// Stacked bars: start of the span (microseconds), lower and upper part.
pub(super) fn bars(spans: &[(i64, f64, f64)], span_micros: i64, label: &str) -> Markup {
    let ends = spans.iter().flat_map(|span| [span.0, span.0 + span_micros]);
    let Some(frame) = Frame::over(ends, 0.0, spans.iter().map(|span| span.1 + span.2)) else { return Markup::default() };
    let marks = html! {
        @for (at, up, down) in spans {
            @let (from, to) = (frame.x(*at), frame.x(at + span_micros));
            @let width = ((to - from) * 0.8).max(1.0);
            @let x = from + (to - from - width) / 2.0;
            @let (base, middle, top) = (frame.y(0.0), frame.y(*up), frame.y(up + down));
            @for (class, above, below) in [("up", middle, base), ("down", top, middle)] {
                @if below - above > 0.05 {
                    rect class=(class) x=(fixed(x)) y=(fixed(above)) width=(fixed(width)) height=(fixed(below - above)) {}
                }
            }
        }
    };
    frame.svg(label, &marks)
}

/// A sparkline for a table cell. Empty if all values have the same time.
pub(super) fn spark(series: &Series, label: &str) -> Markup {
    let (Some(first), Some(last)) = (series.first(), series.last()) else { return Markup::default() };
    if first.0 == last.0 {
        return Markup::default();
    }
    let (least, most) =
        series.iter().fold((f64::MAX, f64::MIN), |(least, most), point| (least.min(point.1), most.max(point.1)));
    let height = if most > least { most - least } else { 1.0 };
    let mut path = String::new();
    for (number, (at, value)) in series.iter().enumerate() {
        let x = 2.0 + 92.0 * (at - first.0) as f64 / (last.0 - first.0) as f64;
        let y = if most > least { 21.0 - 18.0 * (value - least) / height } else { 12.0 };
        match number {
            0 => drop(write!(path, "M{x:.1} {y:.1}")),
            _ => drop(write!(path, "L{x:.1} {y:.1}")),
        }
    }
    html! {
        svg class="spark" viewBox="0 0 96 24" role="img" aria-label=(label) { path class="stroke" d=(path) {} }
    }
}

/// The area between the axes.
struct Frame {
    from: i64,
    to: i64,
    least: f64,
    most: f64,
    step: f64,
}

impl Frame {
    fn over(times: impl Iterator<Item = i64> + Clone, least: f64, values: impl Iterator<Item = f64>) -> Option<Self> {
        let (from, to) = (times.clone().min()?, times.max()?);
        let most = values.fold(least, f64::max);
        let step = nice_step((most - least) / 4.0);
        let most = least + ((most - least) / step).ceil().max(1.0) * step;
        // A single time also needs some width.
        let to = if to > from { to } else { from + DAY_MICROS };
        Some(Self { from, to, least, most, step })
    }

    fn x(&self, at: i64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (at - self.from) as f64 / (self.to - self.from) as f64
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.least) / (self.most - self.least)
    }

    fn svg(&self, label: &str, marks: &Markup) -> Markup {
        let values = std::iter::successors(Some(self.least), |value| Some(value + self.step));
        html! {
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(label) {
                @for value in values.take_while(|value| *value <= self.most + self.step / 2.0) {
                    @let y = self.y(value);
                    @let class = if value == self.least { "axis" } else { "grid" };
                    path class=(class) d=(format!("M{LEFT} {y:.1}H{:.1}", WIDTH - RIGHT)) {}
                    text x=(fixed(LEFT - 8.0)) y=(fixed(y + 4.0)) text-anchor="end" { (short_count(value)) }
                }
                (marks)
                @for (at, name) in time_marks(self.from, self.to) {
                    @let x = self.x(at).clamp(LEFT + 14.0, WIDTH - RIGHT - 16.0);
                    text x=(fixed(x)) y=(fixed(HEIGHT - 8.0)) text-anchor="middle" { (name) }
                }
            }
        }
    }
}

/// The smallest 1, 2 or 5 times a power of ten that is at least `step`.
fn nice_step(step: f64) -> f64 {
    if step <= 1.0 || !step.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= step * 0.999).unwrap_or(10.0);
    factor * power
}

/// At most seven round times with names.
fn time_marks(from: i64, to: i64) -> Vec<(i64, String)> {
    const HOUR: i64 = 3_600_000_000;
    let steps = [
        HOUR / 12,
        HOUR / 4,
        HOUR,
        4 * HOUR,
        12 * HOUR,
        DAY_MICROS,
        2 * DAY_MICROS,
        7 * DAY_MICROS,
        14 * DAY_MICROS,
        30 * DAY_MICROS,
        90 * DAY_MICROS,
        365 * DAY_MICROS,
    ];
    let step = steps.into_iter().find(|step| (to - from) / step <= 6).unwrap_or((to - from) / 6);
    let first = from.div_euclid(step) * step;
    let marks = (0..9).map(|number| first + number * step).filter(|at| (from..=to).contains(at));
    let name = |at: i64| {
        let time = chrono::DateTime::from_timestamp_micros(at).unwrap_or_default();
        let form = if step < DAY_MICROS && at % DAY_MICROS != 0 { "%H:%M" } else { "%-d %b" };
        time.format(form).to_string()
    };
    marks.map(|at| (at, name(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_an_axis_are_round_and_few() {
        assert_eq!([0.3, 3.0, 12.0, 230.0, 5_000_000.0].map(nice_step), [1.0, 5.0, 20.0, 500.0, 5_000_000.0]);
        for span in [60_000_000, DAY_MICROS, 3 * DAY_MICROS, 40 * DAY_MICROS, 4000 * DAY_MICROS] {
            let marks = time_marks(1_767_225_600_000_001, 1_767_225_600_000_001 + span);
            assert!((1..=7).contains(&marks.len()) || span < DAY_MICROS, "{span}: {marks:?}");
            assert!(marks.len() <= 7, "{span}: {marks:?}");
        }
    }

    #[test]
    fn charts_stay_inside_their_frame() {
        let series = vec![(0, 0.0), (DAY_MICROS, 1e9), (2 * DAY_MICROS, 5e8)];
        for chart in [line(&series, "rows"), bars(&[(0, 5.0, 2.0), (DAY_MICROS, 0.0, 0.0)], DAY_MICROS, "changes")] {
            let chart = chart.into_string();
            assert!(chart.starts_with("<svg") && chart.ends_with("</svg>"));
            assert!(!chart.contains("NaN") && !chart.contains("inf"), "{chart}");
        }
        assert_eq!(spark(&vec![(5, 1.0)], "one point").into_string(), "");
        assert!(!line(&vec![(5, 1.0)], "one point").into_string().contains("NaN"));
        assert_eq!(line(&Vec::new(), "nothing").into_string(), "");
    }
}
