//! The status of a target as a page for people without database knowledge: whether the data is up to date, what needs
//! attention, how it grew, and how the last runs ended.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::chart::{self, Series};
use super::document;
use super::figures::{age, grouped, size};
use crate::model::Timestamp;
use crate::ops::{Failure, Freshness, Overview, Point, RunRecord, StatusLine};

const STYLE: &str = include_str!("status.css");
const SCRIPT: &str = include_str!("status.js");
/// Most problems in the list.
const MAX_PROBLEMS: usize = 30;
/// Most bars of a chart.
const MAX_BARS: i64 = 60;
/// Most points of the chart of all rows.
const MAX_POINTS: usize = 400;
/// Shown for an unknown number.
const UNKNOWN: &str = "\u{2013}";

/// The page of a target's status, as a complete HTML document.
pub fn status_page(overview: &Overview) -> String {
    let current_for = i64::try_from(overview.current_for_seconds).unwrap_or(i64::MAX);
    let body = html! {
        main {
            header class="top" {
                div {
                    h1 { "Is our data copy up to date?" }
                    p { (overview.target) }
                }
                p { "As of " (when(&overview.made)) " UTC" }
            }
            (verdict(overview))
            (cards(overview))
            (problems(overview))
            (charts(overview))
            (runs(&overview.runs))
            (tables(overview))
            footer {
                p {
                    "Created by " (overview.program) " at " (when(&overview.made)) ". Times are in UTC. The service updates its data \
                     about every four hours; a table is behind when its data is older than " (age(current_for)) "."
                }
            }
        }
    };
    document("Status of the data copy", STYLE, &body, SCRIPT)
}

fn verdict(overview: &Overview) -> Markup {
    let count = |state| overview.tables.iter().filter(|line| line.state == state).count();
    let (behind, failing) = (count(Freshness::Behind), count(Freshness::Failing) + overview.never_loaded.len());
    let all = overview.tables.len() + overview.never_loaded.len();
    let last_failed = overview.runs.first().and_then(|run| run.failure.as_ref());
    let (class, mark, title, text) = match (all, failing, behind) {
        (0, ..) => ("warn", "?", "There are no tables yet".to_owned(), "Nothing has been loaded into this target.".to_owned()),
        (_, 0, 0) if last_failed.is_some() => (
            "warn",
            "!",
            "The last run could not start".to_owned(),
            "All tables are still recent enough, but they will fall behind if runs keep failing.".to_owned(),
        ),
        (_, 0, 0) => ("good", "\u{2713}", format!("Yes: all {all} tables are up to date"), youngest_and_oldest(overview)),
        (_, 0, _) => (
            "warn",
            "!",
            format!("{behind} of {all} tables {} behind", if behind == 1 { "is" } else { "are" }),
            format!("The others are up to date. {}", youngest_and_oldest(overview)),
        ),
        _ => (
            "bad",
            "!",
            format!("{failing} of {all} tables could not be updated"),
            "The rows that were loaded before are still there and correct, but older than they should be.".to_owned(),
        ),
    };
    html! {
        div class={ "verdict " (class) } {
            span class="mark" aria-hidden="true" { (mark) }
            p { strong { (title) } br; (text) }
        }
    }
}

fn youngest_and_oldest(overview: &Overview) -> String {
    let ages = || overview.tables.iter().map(|line| line.age_seconds);
    match (ages().min(), ages().max()) {
        (Some(least), Some(most)) if age(least) == age(most) => format!("All data is {} old.", age(most)),
        (Some(least), Some(most)) => format!("The newest data is {} old, the oldest {}.", age(least), age(most)),
        _ => String::new(),
    }
}

fn cards(overview: &Overview) -> Markup {
    let namespaces: BTreeSet<&str> = overview.tables.iter().map(|line| line.namespace.as_str()).collect();
    let namespaces = namespaces.into_iter().collect::<Vec<_>>().join(", ");
    let mut cards = vec![("Tables", grouped(overview.tables.len() as u64), html! { (namespaces) })];
    if let Some(rows) = total(overview, |line| line.rows) {
        cards.push(("Rows", grouped(rows), html! { "in all tables" }));
    }
    if let Some(bytes) = total(overview, |line| line.bytes) {
        let files = total(overview, |line| line.files);
        cards.push(("Size", size(bytes), html! { @if let Some(files) = files { "in " (grouped(files)) " files" } }));
    }
    if let Some(newest) = overview.tables.iter().min_by_key(|line| line.age_seconds) {
        let old = format!("{} old", age(newest.age_seconds));
        cards.push(("Newest data", old, html! { "as of " (when(&newest.data_as_of)) }));
    }
    if let Some(run) = overview.runs.first() {
        cards.push(("Last run", result_of(run).1.to_owned(), html! { "started " (when(&run.started)) }));
    }
    html! {
        dl class="cards" {
            @for (name, figure, more) in cards {
                div class="card" { dt { (name) } dd { (figure) small { (more) } } }
            }
        }
    }
}

/// The sum over all tables whose value is known; `None` if there are none.
fn total(overview: &Overview, of: impl Fn(&StatusLine) -> Option<u64>) -> Option<u64> {
    let known: Vec<u64> = overview.tables.iter().filter_map(of).collect();
    (!known.is_empty()).then(|| known.into_iter().sum())
}

fn problems(overview: &Overview) -> Markup {
    let mut items = Vec::new();
    if let Some(failure) = overview.runs.first().and_then(|run| run.failure.as_ref()) {
        items.push(problem("The whole run", failure, ""));
    }
    for run in &overview.never_loaded {
        if let Some(failure) = &run.failure {
            items.push(problem(&run.table, failure, "The table has never been loaded."));
        }
    }
    for line in &overview.tables {
        if let Some(failure) = &line.failure {
            items.push(problem(&line.name(), failure, &format!("Its data is {} old.", age(line.age_seconds))));
        }
    }
    for line in overview.tables.iter().filter(|line| line.state == Freshness::Behind) {
        items.push(html! {
            li class="behind" {
                strong { (line.name()) }
                p { "Its data is " (age(line.age_seconds)) " old (as of " (when(&line.data_as_of)) ")." }
            }
        });
    }
    let more = items.len().saturating_sub(MAX_PROBLEMS);
    items.truncate(MAX_PROBLEMS);
    html! {
        @if !items.is_empty() {
            section {
                h2 { "What needs attention" }
                ul class="problems" {
                    @for item in items { (item) }
                    @if more > 0 { li class="behind" { "and " (more) " more; see the tables below" } }
                }
            }
        }
    }
}

fn problem(name: &str, failure: &Failure, more: &str) -> Markup {
    let context = failure.context.iter().filter(|(name, _)| *name != "table");
    let context: Vec<String> = context.map(|(name, value)| format!("{name}: {value}")).collect();
    html! {
        li class="failing" {
            strong { (name) }
            p { (failure.message) ". " (more) }
            @if let Some(hint) = &failure.hint { p class="hint" { "What to do: " (hint) } }
            @if !context.is_empty() { p class="hint mono" { (context.join(" \u{b7} ")) } }
        }
    }
}

fn micros(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::micros)
}

fn charts(overview: &Overview) -> Markup {
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
        format!("{} rows added or changed, {} deleted, excluding first loads.", grouped(up as u64), grouped(down as u64));
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

fn rows_of(past: &[Point]) -> Series {
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

/// CSS class and text of a run's result.
fn result_of(run: &RunRecord) -> (&'static str, &'static str) {
    match (run.seconds, run.has_failed()) {
        (None, _) => ("behind", "not finished"),
        (_, true) if run.failure.is_some() => ("failing", "failed"),
        (_, true) => ("failing", "with failures"),
        (_, false) => ("current", "succeeded"),
    }
}

fn runs(runs: &[RunRecord]) -> Markup {
    html! {
        @if !runs.is_empty() {
            section {
                h2 { "Last runs" }
                p class="note" { "Runs that were started on this machine." }
                div class="wide" {
                    table {
                        thead {
                            tr {
                                @for (name, class) in [("Started", ""), ("Result", ""), ("Tables", ""), ("Added or changed", "n"),
                                    ("Deleted", "n"), ("Written", "n"), ("Duration", "n")] {
                                    th scope="col" class=(class) { (name) }
                                }
                            }
                        }
                        tbody { @for run in runs { (run_row(run)) } }
                    }
                }
            }
        }
    }
}

fn run_row(run: &RunRecord) -> Markup {
    let totals = run.totals();
    let (class, word) = result_of(run);
    html! {
        tr {
            td { (when(&run.started)) }
            td { span class={ "state " (class) } { (word) } }
            td class="text" {
                @match (run.seconds, &run.failure) {
                    (None, _) => { "The run is in progress, or was stopped." }
                    (_, Some(failure)) => { (failure.message) }
                    _ => {
                        (totals.loaded) " loaded, " (totals.unchanged) " unchanged"
                        @if totals.failed > 0 { ", " strong { (totals.failed) " failed" } }
                        @if totals.skipped > 0 { ", " (totals.skipped) " not tried" }
                    }
                }
            }
            td class="n" { (grouped(totals.upserted)) }
            td class="n" { (grouped(totals.deleted)) }
            td class="n" { (size(totals.bytes_written)) }
            td class="n" { (run.seconds.map_or(UNKNOWN.to_owned(), |seconds| age(seconds.ceil() as i64))) }
        }
    }
}

fn tables(overview: &Overview) -> Markup {
    let has_past = overview.tables.iter().any(|line| line.past.len() > 1);
    let has_files = overview.tables.iter().any(|line| line.files.is_some());
    let mut heads = vec![("Table", ""), ("State", ""), ("Data as of", ""), ("Age", "n"), ("Rows", "n")];
    if has_past {
        heads.push(("Growth", ""));
    }
    if has_files {
        heads.extend([("Files", "n"), ("Size", "n")]);
    }
    heads.push(("Schema", "n"));
    html! {
        @if !overview.tables.is_empty() {
            section class="long" {
                h2 { "Tables" }
                div class="bar needs-script" {
                    label class="hidden-label" for="filter" { "Show tables whose name contains" }
                    input id="filter" type="search" placeholder="Find a table";
                    label { input id="only" type="checkbox"; " only tables that are behind or failing" }
                    span id="shown" class="quiet" role="status" {}
                }
                div class="wide" {
                    table id="tables" {
                        thead {
                            tr {
                                @for (name, class) in heads {
                                    th scope="col" class=(class) { button type="button" { (name) } }
                                }
                            }
                        }
                        tbody { @for line in &overview.tables { (table_row(line, has_past, has_files)) } }
                    }
                }
            }
        }
    }
}

fn table_row(line: &StatusLine, has_past: bool, has_files: bool) -> Markup {
    let known = |number: Option<u64>| number.map_or(UNKNOWN.to_owned(), grouped);
    let sort = |number: Option<u64>| number.map_or("-1".to_owned(), |number| number.to_string());
    let (name, word) = (line.name(), line.state.name());
    let series = rows_of(&line.past);
    let (words, change) = match (series.first(), series.last()) {
        (Some(first), Some(last)) if series.len() > 1 => (growth_words(first.1, last.1), last.1 - first.1),
        _ => (String::new(), 0.0),
    };
    html! {
        tr data-state=(word) data-words={ (name) " " (word) } {
            td data-sort=(name) { span class="ns" { (line.namespace) "." } wbr; strong { (line.table) } }
            td { span class={ "state " (word) } { (word) } }
            td data-sort=(line.data_as_of) { (when(&line.data_as_of)) }
            td class="n" data-sort=(line.age_seconds) { (age(line.age_seconds)) }
            td class="n" data-sort=(sort(line.rows)) { (known(line.rows)) }
            @if has_past {
                td data-sort=(change) { (chart::spark(&series, &format!("Rows of {name} over time: {words}"))) " " (words) }
            }
            @if has_files {
                td class="n" data-sort=(sort(line.files)) { (known(line.files)) }
                td class="n" data-sort=(sort(line.bytes)) { (line.bytes.map_or(UNKNOWN.to_owned(), size)) }
            }
            td class="n" { (line.schema_version) }
        }
    }
}

/// `+1,234`, `-3`, `same`.
fn growth_words(before: f64, after: f64) -> String {
    match after - before {
        0.0 => "same".to_owned(),
        more if more > 0.0 => format!("+{}", grouped(more as u64)),
        less => format!("\u{2212}{}", grouped(-less as u64)),
    }
}

fn when_micros(at: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(at).unwrap_or_default();
    time.format("%-d %b %Y, %H:%M").to_string()
}

/// An RFC 3339 time in a form for people, with the original in `datetime`.
fn when(text: &str) -> Markup {
    html! {
        @match micros(text) {
            Some(at) => { time datetime=(text) { (when_micros(at)) } }
            None => { (text) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::TableRun;

    fn point(at: &str, rows: u64, upserted: u64, deleted: u64) -> Point {
        Point { at: at.into(), rows: Some(rows), bytes: None, upserted: Some(upserted), deleted: Some(deleted) }
    }

    fn overview() -> Overview {
        let line = |table: &str, state, past: Vec<Point>| StatusLine {
            namespace: "canvas".into(),
            table: table.into(),
            state,
            rows: past.last().and_then(|point| point.rows),
            data_as_of: "2026-01-02T00:00:00Z".into(),
            age_seconds: 7200,
            schema_version: 1,
            files: Some(3),
            bytes: Some(5000),
            last_run: None,
            version: Some(4),
            protocol: None,
            kept_as: None,
            failure: None,
            past,
        };
        let users = vec![point("2026-01-01T00:00:00Z", 100, 100, 0), point("2026-01-01T12:00:00Z", 130, 40, 5)];
        let courses = vec![point("2026-01-01T06:00:00Z", 10, 10, 0)];
        Overview {
            made: "2026-01-02T02:00:00Z".into(),
            program: "daplake",
            target: "file:///lake/".into(),
            current_for_seconds: 43_200,
            tables: vec![line("courses", Freshness::Current, courses), line("users", Freshness::Current, users)],
            never_loaded: Vec::new(),
            runs: vec![RunRecord { seconds: Some(3.0), ..RunRecord::default() }],
        }
    }

    #[test]
    fn growth_is_the_sum_of_known_row_counts() {
        let overview = overview();
        let rows: Vec<f64> = growth(&overview, micros(&overview.made).unwrap()).iter().map(|point| point.1).collect();
        assert_eq!(rows, [100.0, 110.0, 140.0, 140.0]);
        let (changes, _) = changes(&overview, micros(&overview.made).unwrap());
        assert_eq!(changes.iter().map(|bar| (bar.1, bar.2)).collect::<Vec<_>>(), [(40.0, 5.0)], "first loads are not changes");
    }

    #[test]
    fn the_first_sentence_gives_the_state() {
        let mut overview = overview();
        let says = |overview: &Overview, words: &str| {
            let page = status_page(overview);
            assert!(page.contains(words), "{words} is not in {page}");
        };
        says(&overview, "Yes: all 2 tables are up to date");
        overview.tables[0].state = Freshness::Behind;
        says(&overview, "1 of 2 tables is behind");
        overview.tables[1].state = Freshness::Failing;
        overview.tables[1].failure = Some(Failure {
            message: "A <script>alert(1)</script> came".into(),
            hint: Some("wait".into()),
            ..Failure::default()
        });
        says(&overview, "1 of 2 tables could not be updated");
        says(&overview, "What to do: wait");
        says(&overview, "A &lt;script&gt;alert(1)&lt;/script&gt; came");
        overview.never_loaded.push(TableRun {
            table: "canvas.x".into(),
            failure: Some(Failure::default()),
            ..TableRun::default()
        });
        says(&overview, "2 of 3 tables could not be updated");
        overview.tables.clear();
        overview.never_loaded.clear();
        says(&overview, "There are no tables yet");
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let page = status_page(&overview());
        for word in ["http://", "https://", " src=", "@import", "url("] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
