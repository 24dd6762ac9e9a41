//! The size of tables over time: earlier loads of lake tables from the lake, sizes of other tables from the run history.

use std::collections::BTreeMap;

use super::types::{Growth, Point, StatusLine};
use crate::error::Result;
use crate::model::{TableRef, Timestamp};
use crate::ops::runs::{RunHistory, RunLog, rows_over_time};
use crate::sink::Sink;

/// Period over which growth is measured, microseconds.
const PERIOD_MICROS: i64 = 7 * 86_400 * 1_000_000;
/// Interval at which sizes are recorded, microseconds.
const RECORD_INTERVAL_MICROS: i64 = 3600 * 1_000_000;
/// The same for targets that know their earlier sizes.
const RECORD_INTERVAL_OF_LAKES_MICROS: i64 = 6 * RECORD_INTERVAL_MICROS;

/// A known size.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Size {
    at: Timestamp,
    rows: Option<u64>,
    bytes: Option<u64>,
}

/// The growth of a table, from its earlier loads or else from the run history.
pub(super) fn growth_of(line: &StatusLine, history: &RunHistory, now: Timestamp) -> Option<Growth> {
    let of_past =
        line.past.iter().filter_map(|point| Some(Size { at: point.at.parse().ok()?, rows: point.rows, bytes: point.bytes }));
    let mut sizes: Vec<Size> = of_past.collect();
    if !sizes.iter().any(|size| size.bytes.is_some()) {
        let name = line.name();
        sizes.extend(history.counted.iter().filter_map(|counted| {
            let (rows, bytes) = (counted.rows.get(&name).copied(), counted.bytes.get(&name).copied());
            Some(Size { at: counted.at.parse().ok().filter(|_| rows.or(bytes).is_some())?, rows, bytes })
        }));
        sizes.sort_by_key(|size| size.at);
    }
    let start = Timestamp::from_micros(now.micros() - PERIOD_MICROS);
    let before = sizes.iter().rposition(|size| size.at <= start);
    let place = before.unwrap_or(0);
    let base = sizes.get(place).filter(|_| before.is_some() || sizes.len() > 1 || line.past.is_empty())?;
    let change = |now: Option<u64>, then: Option<u64>| i64::try_from(i128::from(now?) - i128::from(then?)).ok();
    let (rows, bytes) = (change(line.rows, base.rows), change(line.bytes, base.bytes));
    let is_known = rows.or(bytes).is_some() && base.at < now;
    is_known.then(|| Growth { since: base.at.max(start).to_string(), rows, bytes })
}

/// Earlier loads of a table, from the target if it records them, else from the run history.
pub(super) async fn past_of(sink: &dyn Sink, history: &RunHistory, table: &TableRef, limit: usize) -> Result<Vec<Point>> {
    let past = match sink.capabilities().lake {
        Some(lake) => lake.load_history(table, limit).await?,
        None => Vec::new(),
    };
    if !past.is_empty() {
        let point = |past: crate::sink::LoadRecord| Point {
            at: past.at.to_string(),
            rows: past.rows,
            bytes: past.bytes,
            upserted: Some(past.upserted),
            deleted: Some(past.deleted),
        };
        return Ok(past.into_iter().map(point).collect());
    }
    let points = rows_over_time(history, table);
    let newest = points.len().saturating_sub(limit);
    let point = |(at, rows): &(Timestamp, u64)| Point {
        at: at.to_string(),
        rows: Some(*rows),
        bytes: None,
        upserted: None,
        deleted: None,
    };
    Ok(points[newest..].iter().map(point).collect())
}

/// Records the sizes of tables, at most once per interval.
pub(super) fn record_sizes(log: &RunLog, history: &RunHistory, lines: &[StatusLine]) {
    let has_history = lines.iter().any(|line| line.version.is_some());
    let interval = if has_history { RECORD_INTERVAL_OF_LAKES_MICROS } else { RECORD_INTERVAL_MICROS };
    let last = history.counted.last().and_then(|counted| counted.at.parse::<Timestamp>().ok());
    let is_due = last.is_none_or(|last| Timestamp::now().micros() - last.micros() > interval);
    let of = |value: fn(&StatusLine) -> Option<u64>| -> BTreeMap<String, u64> {
        lines.iter().filter_map(|line| Some((line.name(), value(line)?))).collect()
    };
    let (rows, bytes) = (of(|line| line.rows), of(|line| line.bytes));
    if is_due && !rows.is_empty() {
        log.counted(rows, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Counted;

    const NOW: &str = "2026-01-20T00:00:00Z";

    fn point(at: &str, rows: u64, bytes: u64) -> Point {
        Point { at: at.to_owned(), rows: Some(rows), bytes: Some(bytes), upserted: None, deleted: None }
    }

    fn growth(past: Vec<Point>, counted: Vec<Counted>) -> Option<Growth> {
        let line = StatusLine { rows: Some(150), bytes: Some(900), past, ..StatusLine::example("users") };
        growth_of(&line, &RunHistory { runs: Vec::new(), counted }, NOW.parse().unwrap())
    }

    #[test]
    fn growth_is_measured_over_seven_days() {
        let week = "2026-01-13T00:00:00Z".to_owned();
        let old = point("2026-01-02T00:00:00Z", 100, 1000);
        let newest = point("2026-01-19T00:00:00Z", 150, 900);
        let expected = Growth { since: week.clone(), rows: Some(50), bytes: Some(-100) };
        assert_eq!(growth(vec![old.clone(), newest.clone()], Vec::new()), Some(expected));
        let expected = Growth { since: "2026-01-18T00:00:00Z".to_owned(), rows: Some(20), bytes: Some(0) };
        assert_eq!(growth(vec![point("2026-01-18T00:00:00Z", 130, 900), newest.clone()], Vec::new()), Some(expected));
        assert_eq!(growth(vec![newest], Vec::new()), None, "the first load is no growth");
        assert_eq!(growth(Vec::new(), Vec::new()), None);
    }

    #[test]
    fn growth_of_other_targets_comes_from_the_run_history() {
        let rows = BTreeMap::from([("canvas.users".to_owned(), 140)]);
        let counted = Counted { at: "2026-01-19T12:00:00Z".to_owned(), rows, bytes: BTreeMap::new() };
        let expected = Growth { since: "2026-01-19T12:00:00Z".to_owned(), rows: Some(10), bytes: None };
        assert_eq!(growth(Vec::new(), vec![counted]), Some(expected.clone()));
        let sum = Growth::sum([&expected, &Growth { since: NOW.to_owned(), rows: None, bytes: Some(5) }].into_iter());
        assert_eq!(sum, Some(Growth { bytes: Some(5), ..expected }));
    }
}
