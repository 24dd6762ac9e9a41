//! Rows of all tables and changes over time, from the earlier loads of each table.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::parts::{micros, when_micros};
use crate::ops::{Overview, Point};
use crate::page::chart::{self, Series};
use crate::page::figures::{age, counted, grouped};

/// Maximum number of bars of a chart.
const MAX_BARS: i64 = 60;
/// Maximum number of points of the chart of all rows.
const MAX_POINTS: usize = 400;

/// The two charts, if there is something to show.
pub(super) fn charts(overview: &Overview) -> Markup {
    let made = micros(&overview.made).unwrap_or_default();
    let growth = growth(overview, made);
    let (changes, span) = changes(overview, made);
    let growth_label = match (growth.first(), growth.last()) {
        (Some(first), Some(last)) if growth.len() > 1 => Some(format!(
            "Rows of all tables: {} on {}, {} now.",
            grouped(first.1 as u64),
            when_micros(first.0),
            grouped(last.1 as u64)
        )),
        _ => None,
    };
    let (up, down) = changes.iter().fold((0.0, 0.0), |(up, down), bar| (up + bar.1, down + bar.2));
    let changes_label =
        format!("{} added or changed, {} deleted, excluding first loads.", counted(up as u64, "row"), grouped(down as u64));
    html! {
        @if growth_label.is_some() || !changes.is_empty() {
            div class="pair" {
                @if let Some(label) = growth_label {
                    section {
                        h2 { "Growth" }
                        figure { (chart::line(&growth, &label)) figcaption { (label) } }
                    }
                }
                @if !changes.is_empty() {
                    section {
                        h2 { "Changes" }
                        figure {
                            (chart::bars(&changes, span, &changes_label))
                            figcaption {
                                span class="key up first" {} "added or changed " span class="key down" {} "deleted, per "
                                (age(span / 1_000_000)) ". " (changes_label)
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Rows of a table over time.
pub(super) fn rows_of(past: &[Point]) -> Series {
    past.iter().filter_map(|point| Some((micros(&point.at)?, point.rows? as f64))).collect()
}

/// Rows of all tables over time. A table counts from its first load on; if its history starts later, its first known number of
/// rows counts from the beginning.
fn growth(overview: &Overview, made: i64) -> Series {
    let mut steps: BTreeMap<i64, f64> = BTreeMap::new();
    let mut sum = 0.0;
    for line in &overview.tables {
        let Some(rows) = line.rows else { continue };
        let mut past = rows_of(&line.past);
        past.retain(|point| point.0 <= made);
        past.push((made, rows as f64));
        let is_whole = line.past.first().is_some_and(|first| first.upserted.is_some() && first.upserted == first.rows);
        let mut before = if is_whole { 0.0 } else { past[0].1 };
        sum += before;
        for (at, rows) in past {
            *steps.entry(at).or_default() += rows - before;
            before = rows;
        }
    }
    let mut series: Series = Vec::new();
    for (at, change) in steps {
        sum += change;
        series.push((at, sum));
    }
    if series.len() > MAX_POINTS {
        let every = series.len().div_ceil(MAX_POINTS);
        let last = series.last().copied();
        series = series.into_iter().step_by(every).collect();
        series.extend(last);
    }
    series
}

/// Changes per round span of time, and the span in microseconds. First loads are not changes.
fn changes(overview: &Overview, made: i64) -> (Vec<(i64, f64, f64)>, i64) {
    const HOUR: i64 = 3_600_000_000;
    let loads: Vec<(i64, u64, u64)> = overview
        .tables
        .iter()
        .flat_map(|line| &line.past)
        .filter(|point| point.upserted != point.rows)
        .filter_map(|point| Some((micros(&point.at)?, point.upserted?, point.deleted?)))
        .collect();
    let first = loads.iter().map(|load| load.0).min().unwrap_or(made);
    let spans = [HOUR / 60, HOUR / 12, HOUR, 4 * HOUR, 24 * HOUR, 7 * 24 * HOUR, 28 * 24 * HOUR];
    let span = spans.into_iter().find(|span| (made - first) / span < MAX_BARS).unwrap_or(28 * 24 * HOUR);
    let mut bars: BTreeMap<i64, (f64, f64)> = BTreeMap::new();
    for (at, up, down) in loads {
        let bar = bars.entry(at.div_euclid(span) * span).or_default();
        bar.0 += up as f64;
        bar.1 += down as f64;
    }
    (bars.into_iter().map(|(at, (up, down))| (at, up, down)).collect(), span)
}

#[cfg(test)]
mod tests {
    use super::super::parts::example as overview;
    use super::*;

    #[test]
    fn growth_is_the_sum_of_known_row_counts() {
        let overview = overview();
        let rows: Vec<f64> = growth(&overview, micros(&overview.made).unwrap()).iter().map(|point| point.1).collect();
        assert_eq!(rows, [100.0, 110.0, 140.0, 140.0]);
        let (changes, _) = changes(&overview, micros(&overview.made).unwrap());
        assert_eq!(changes.iter().map(|bar| (bar.1, bar.2)).collect::<Vec<_>>(), [(40.0, 5.0)], "first loads are not changes");
    }
}
