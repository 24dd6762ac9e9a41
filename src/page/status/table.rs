//! The part of one table: its figures, loads, runs and columns.

use maud::{Markup, html};

use super::charts::rows_of;
use super::parts::{UNKNOWN, cell, failure_text, feature_notes, figures, heads, needs, rows_since, size_parts, when};
use crate::ops::{ColumnStatus, Overview, Point, RunRecord, StatusLine, TableRun};
use crate::page::chart;
use crate::page::figures::{age, grouped, size};

/// Loads and runs that are listed, newest first.
const MAX_ROWS: usize = 20;

pub(super) fn part(overview: &Overview, line: &StatusLine) -> Markup {
    let name = line.name();
    let series = rows_of(&line.past);
    let word = line.state.name();
    let chart_label = format!("Rows of {name} over time, {} now.", line.rows.map_or(UNKNOWN.to_owned(), grouped));
    html! {
        article class="page" id=(name) {
            p class="back" { a href="#overview" { "\u{2190} All tables" } }
            h2 tabindex="-1" { (name) " " span class={ "state " (word) } { (word) } }
            @if let Some(description) = &line.description { p { (description) } }
            @match (&line.failure, &line.reason) {
                (Some(failure), _) => { section class="reason failing" { h3 { "Why it is failing" } (failure_text(failure, "")) } }
                (None, Some(reason)) => { section class="reason behind" { h3 { "Why it is behind" } p { (reason) "." } } }
                (None, None) => {}
            }
            (cards(line))
            @if series.len() > 1 {
                section {
                    h3 { "Growth" }
                    figure { (chart::line(&series, &chart_label)) figcaption { (chart_label) } }
                }
            }
            (loads(&line.past))
            (runs(&overview.runs, &name))
            (columns(&line.columns))
        }
    }
}

fn cards(line: &StatusLine) -> Markup {
    let mut cards = vec![("Data as of", format!("{} old", age(line.age_seconds)), when(&line.data_as_of))];
    let growth = line.growth.as_ref();
    if let Some(rows) = line.rows {
        cards.push(("Rows", grouped(rows), html! { (growth.and_then(rows_since).unwrap_or_default()) }));
    }
    if let Some(bytes) = line.bytes {
        let parts = size_parts(line.files, growth, line.stored_bytes);
        cards.push(("Size", size(bytes), html! { (parts.join("; ")) }));
    }
    if let Some(next) = &line.next_job {
        let (figure, more) = match &next.resumes {
            Some(job) => ("resumes a job", html! { span class="mono" { (job) } }),
            None => ("may bring new data", html! { "from " (when(&next.at)) }),
        };
        cards.push(("Next job", figure.to_owned(), more));
    }
    if let Some(tried) = &line.last_tried {
        cards.push(("Last tried", "on this machine".to_owned(), html! { "run of " (when(tried)) }));
    }
    if let Some(reader) = &line.reader {
        cards.push(("Readers", needs(reader), feature_notes(reader)));
    }
    let kept_as = html! { @if let Some(kept_as) = &line.kept_as { "kept as " (kept_as) } };
    cards.push(("Schema version", line.schema_version.to_string(), kept_as));
    figures(&cards)
}

/// The newest loads, as the target records them.
fn loads(past: &[Point]) -> Markup {
    let number = |number: Option<u64>| html! { (number.map_or(UNKNOWN.to_owned(), grouped)) };
    let has_bytes = past.iter().any(|point| point.bytes.is_some());
    let mut names = vec![("Data as of", ""), ("Added or changed", "n"), ("Deleted", "n"), ("Rows", "n")];
    if has_bytes {
        names.push(("Size", "n"));
    }
    html! {
        @if !past.is_empty() {
            section {
                h3 { "Recent loads" }
                div class="wide" {
                    table {
                        (heads(&names))
                        tbody {
                            @for point in past.iter().rev().take(MAX_ROWS) {
                                tr {
                                    (cell("Data as of", "", &when(&point.at)))
                                    (cell("Added or changed", "n", &number(point.upserted)))
                                    (cell("Deleted", "n", &number(point.deleted)))
                                    (cell("Rows", "n", &number(point.rows)))
                                    @if has_bytes {
                                        (cell("Size", "n", &html! { (point.bytes.map_or(UNKNOWN.to_owned(), size)) }))
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The newest runs of this machine that had the table.
fn runs(runs: &[RunRecord], name: &str) -> Markup {
    let of_table = runs.iter().filter_map(|run| Some((run, run.tables.iter().find(|table| table.table == name)?)));
    let found: Vec<(&RunRecord, &TableRun)> = of_table.take(MAX_ROWS).collect();
    html! {
        @if !found.is_empty() {
            section {
                h3 { "Runs of this machine" }
                div class="wide" {
                    table {
                        (heads(&[("Started", ""), ("Result", ""), ("Added or changed", "n"), ("Deleted", "n"), ("Duration", "n")]))
                        tbody {
                            @for (run, table) in found {
                                tr {
                                    (cell("Started", "", &when(&run.started)))
                                    (cell("Result", "text", &result(table)))
                                    (cell("Added or changed", "n", &html! { (grouped(table.upserted)) }))
                                    (cell("Deleted", "n", &html! { (grouped(table.deleted)) }))
                                    (cell("Duration", "n", &html! { (age(table.seconds.ceil() as i64)) }))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn result(table: &TableRun) -> Markup {
    let (class, word) = match table.outcome.as_str() {
        "loaded" => ("current", "loaded"),
        "unchanged" => ("current", "no newer data"),
        "recent" => ("current", "data was recent"),
        "put_off" => ("behind", "deferred"),
        "skipped" => ("behind", "not tried"),
        _ => ("failing", "failed"),
    };
    html! {
        span class={ "state " (class) } { (word) }
        @if let Some(query) = &table.query { " " span class="quiet" { (query) } }
        @if let Some(failure) = &table.failure { " " (failure.message) }
    }
}

fn columns(columns: &[ColumnStatus]) -> Markup {
    html! {
        @if !columns.is_empty() {
            section {
                h3 { "Columns" }
                div class="wide" {
                    table class="columns" {
                        (heads(&[("Column", ""), ("Type", ""), ("Description", "")]))
                        tbody {
                            @for column in columns {
                                tr {
                                    th scope="row" {
                                        code { (column.name) }
                                        @if column.is_key { " " span class="mark" { "key" } }
                                    }
                                    td data-label="Type" class="text" {
                                        code { (column.column_type) }
                                        @if column.nullable { " " span class="quiet" { "or null" } }
                                    }
                                    td data-label="Description" class="text" { (column.description.as_deref().unwrap_or_default()) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
