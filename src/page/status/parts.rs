//! Shared parts of the status page and its table sections: times, figures, failures, reader requirements.

use maud::{Markup, html};

use crate::model::Timestamp;
#[cfg(test)]
use crate::ops::{ColumnStatus, Counts, Freshness, NextJob, Overview, Point, RunRecord, StatusLine};
use crate::ops::{Failure, Growth, ReaderRequirement};
use crate::page::figures::{counted, grouped, signed, size};

/// Shown for an unknown number.
pub(super) const UNKNOWN: &str = "\u{2013}";

/// Figures with a name and a note each.
pub(super) fn figures(cards: &[(&str, String, Markup)]) -> Markup {
    html! {
        dl class="cards" {
            @for (name, figure, more) in cards {
                div class="card" { dt { (name) } dd { (figure) small { (more) } } }
            }
        }
    }
}

/// `+1,234 since 3 Jan 2026`.
pub(super) fn rows_since(growth: &Growth) -> Option<String> {
    Some(format!("{} since {}", signed(growth.rows?, grouped), day(&growth.since)))
}

/// Details of a size: files, growth, older versions.
pub(super) fn size_parts(files: Option<u64>, growth: Option<&Growth>, stored: Option<u64>) -> Vec<String> {
    let mut parts = Vec::new();
    parts.extend(files.map(|files| format!("in {}", counted(files, "file"))));
    let since = |growth: &Growth| Some(format!("{} since {}", signed(growth.bytes?, size), day(&growth.since)));
    parts.extend(growth.and_then(since));
    parts.extend(stored.map(|bytes| format!("{} with older versions", size(bytes))));
    parts
}

/// The first row of a table: names and classes of its columns.
pub(super) fn heads(names: &[(&str, &str)]) -> Markup {
    html! { thead { tr { @for (name, class) in names { th scope="col" class=(class) { (name) } } } } }
}

/// Message, hint and context of a failure.
pub(super) fn failure_text(failure: &Failure, note: &str) -> Markup {
    let context = failure.context.iter().filter(|(name, _)| *name != "table");
    let context: Vec<String> = context.map(|(name, value)| format!("{name}: {value}")).collect();
    html! {
        p { (failure.message) ". " (note) }
        @if let Some(hint) = &failure.hint { p class="hint" { "What to do: " (hint) } }
        @if !context.is_empty() { p class="hint mono" { (context.join(" \u{b7} ")) } }
    }
}

/// A link to the part of a table. The name can break after the namespace.
pub(super) fn table_link(name: &str) -> Markup {
    let (namespace, table) = name.split_once('.').unwrap_or(("", name));
    html! {
        a href={ "#" (name) } { @if !namespace.is_empty() { span class="ns" { (namespace) "." } wbr; } (table) }
    }
}

pub(super) fn micros(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::micros)
}

/// A cell with a label for narrow screens, where each row is a card.
pub(super) fn cell(label: &str, class: &str, content: &Markup) -> Markup {
    html! { td class=[(!class.is_empty()).then_some(class)] data-label=(label) { (content) } }
}

/// Requirements of a reader, such as `Delta reader version 3 with deletionVectors`.
pub(super) fn needs(reader: &ReaderRequirement) -> String {
    match (&reader.features[..], reader.version) {
        ([], ..=1) => "Any reader of Delta Lake".to_owned(),
        ([], version) => format!("Delta reader version {version}"),
        (features, version) => format!("Delta reader version {version} with {}", features.join(", ")),
    }
}

/// Programs that are known not to support a feature.
pub(super) fn feature_notes(reader: &ReaderRequirement) -> Markup {
    let notes = [
        (
            "deletionVectors",
            "Deletion vectors: the Python package deltalake reads them by QueryBuilder, not by to_pandas, and programs that read the \
             Parquet files without the log show deleted rows.",
        ),
        ("columnMapping", "Column mapping: polars does not support it."),
    ];
    html! {
        @for (feature, note) in notes {
            @if reader.features.iter().any(|needed| needed == feature) { p class="hint" { (note) } }
        }
    }
}

pub(super) fn when_micros(at: i64) -> String {
    formatted(at, "%-d %b %Y, %H:%M")
}

fn formatted(at: i64, form: &str) -> String {
    chrono::DateTime::from_timestamp_micros(at).unwrap_or_default().format(form).to_string()
}

/// The day of an RFC 3339 time, such as `3 Jan 2026`.
pub(super) fn day(text: &str) -> String {
    micros(text).map_or_else(|| text.to_owned(), |at| formatted(at, "%-d %b %Y"))
}

/// The time of day of an RFC 3339 time, such as `14:03:20`.
pub(super) fn clock(text: &str) -> String {
    micros(text).map_or_else(|| text.to_owned(), |at| formatted(at, "%H:%M:%S"))
}

/// An RFC 3339 time in a form for people, with the original in `datetime`.
pub(super) fn when(text: &str) -> Markup {
    html! {
        @match micros(text) {
            Some(at) => { time datetime=(text) { (when_micros(at)) } }
            None => { (text) }
        }
    }
}

#[cfg(test)]
fn point(at: &str, rows: u64, upserted: u64, deleted: u64) -> Point {
    Point { at: at.into(), rows: Some(rows), bytes: None, upserted: Some(upserted), deleted: Some(deleted) }
}

#[cfg(test)]
pub(super) fn example() -> Overview {
    let column = ColumnStatus {
        name: "id".into(),
        column_type: "long".into(),
        is_key: true,
        nullable: false,
        description: Some("The <id> of the row".into()),
    };
    let line = |table: &str, past: Vec<Point>| StatusLine {
        state: Freshness::Current,
        rows: past.last().and_then(|point| point.rows),
        data_as_of: "2026-01-02T00:00:00Z".into(),
        age_seconds: 7200,
        files: Some(3),
        bytes: Some(5000),
        version: Some(4),
        reader: Some(ReaderRequirement { version: 1, features: Vec::new() }),
        next_job: Some(NextJob { at: "2026-01-02T04:00:00Z".into(), resumes: None }),
        columns: vec![column.clone()],
        past,
        ..StatusLine::example(table)
    };
    let users = vec![point("2026-01-01T00:00:00Z", 100, 100, 0), point("2026-01-01T12:00:00Z", 130, 40, 5)];
    let courses = vec![point("2026-01-01T06:00:00Z", 10, 10, 0)];
    Overview {
        counts: Counts { current: 2, ..Counts::default() },
        tables: vec![line("courses", courses), line("users", users)],
        runs: vec![RunRecord { seconds: Some(3.0), ..RunRecord::default() }],
        ..Overview::example("2026-01-02T02:00:00Z")
    }
}
