//! The status of a target as a page for people without database knowledge: whether the data is up to date, what needs attention, how it grew,
//! how the last runs ended, and a part of its own for each table. With scripts, one part is shown at a time.

mod charts;
mod parts;
mod table;

use std::collections::BTreeSet;

use maud::{Markup, html};

use self::charts::{charts, rows_of};
use self::parts::{
    UNKNOWN, cell, clock, failure_text, feature_notes, figures, heads, needs, rows_since, size_parts, table_link, when,
};
use super::figures::{age, grouped, signed, size};
use super::{chart, document};
use crate::ops::{Counts, Failure, Freshness, JobStarts, Overview, ReaderGroup, RunRecord, StatusLine};

const STYLE: &str = include_str!("status.css");
const SCRIPT: &str = include_str!("status.js");
/// Maximum number of tables that one problem names.
const MAX_NAMES: usize = 12;

/// The page of a target's status, as a complete HTML document.
pub fn status_page(overview: &Overview) -> String {
    let current_for = i64::try_from(overview.current_for_seconds).unwrap_or(i64::MAX);
    let body = html! {
        a class="skip" href="#tables" { "Skip to the tables" }
        main {
            header class="top" {
                div {
                    h1 id="overview" tabindex="-1" { "Is our data copy up to date?" }
                    p { (overview.target) }
                }
                p { "As of " (when(&overview.made)) " UTC" }
            }
            div id="all" {
                (verdict(overview))
                (cards(overview))
                (problems(overview))
                (charts(overview))
                (runs(&overview.runs))
                (tables(overview))
                (readers(&overview.readers))
            }
            div id="pages" {
                @for line in by_urgency(overview) { (table::part(overview, line)) }
            }
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

/// The tables: failing ones first, then those that are behind.
fn by_urgency(overview: &Overview) -> Vec<&StatusLine> {
    let mut lines: Vec<&StatusLine> = overview.tables.iter().collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.state));
    lines
}

fn verdict(overview: &Overview) -> Markup {
    let Counts { behind, failing, .. } = overview.counts;
    let all = overview.counts.all();
    let (class, mark, title, text) = match (all, failing, behind) {
        _ if overview.failure_of_last_run().is_some() => (
            "bad",
            "!",
            "The last run could not start".to_owned(),
            "The rows that were loaded before are still there and correct, but fall behind while runs keep failing.".to_owned(),
        ),
        (0, ..) => ("warn", "?", "There are no tables yet".to_owned(), "Nothing has been loaded into this target.".to_owned()),
        (1, 0, 0) => ("good", "\u{2713}", "Yes: the table is up to date".to_owned(), youngest_and_oldest(overview)),
        (_, 0, 0) => ("good", "\u{2713}", format!("Yes: all {all} tables are up to date"), youngest_and_oldest(overview)),
        (_, 0, _) if behind == all => {
            let title = if all == 1 { "The table is behind".to_owned() } else { format!("All {all} tables are behind") };
            ("warn", "!", title, youngest_and_oldest(overview))
        }
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
    let mut cards = vec![("Tables", grouped(overview.counts.all() as u64), html! { (namespaces) })];
    let growth = overview.disk.growth.as_ref();
    if let Some(rows) = StatusLine::total(&overview.tables, |line| line.rows) {
        let more = growth.and_then(rows_since).unwrap_or("in all tables".to_owned());
        cards.push(("Rows", grouped(rows), html! { (more) }));
    }
    if let Some(bytes) = overview.disk.bytes {
        let files = StatusLine::total(&overview.tables, |line| line.files);
        let free = overview.disk.free_bytes.map(|bytes| format!("{} free on the disk", size(bytes)));
        let parts = size_parts(files, growth, overview.disk.stored_bytes).into_iter().chain(free);
        cards.push(("Size", size(bytes), html! { (parts.collect::<Vec<_>>().join("; ")) }));
    }
    if let Some(newest) = overview.tables.iter().min_by_key(|line| line.age_seconds) {
        let old = format!("{} old", age(newest.age_seconds));
        cards.push(("Newest data", old, html! { "as of " (when(&newest.data_as_of)) }));
    }
    if let Some(run) = overview.runs.first() {
        cards.push(("Last run", result_of(run).1.to_owned(), html! { "started " (when(&run.started)) }));
    }
    if overview.counts.all() > 0 {
        cards.push(next_job(overview));
    }
    figures(&cards)
}

fn next_job(overview: &Overview) -> (&'static str, String, Markup) {
    let JobStarts { per_minute, next_at, seconds_for_all, .. } = &overview.job_starts;
    let resumed = overview.resumed_jobs();
    let is_now = *next_at <= overview.made;
    let figure = if is_now { "can start now".to_owned() } else { format!("from {}", clock(next_at)) };
    let more = html! {
        @if let Some(newer) = overview.waits_for_newer_data() {
            "The service has no newer data before " (when(newer)) ". "
        }
        @if *seconds_for_all > 0 {
            "A run of all tables takes at least " (age(i64::try_from(*seconds_for_all).unwrap_or(i64::MAX)))
            " (" (per_minute) " job starts per minute). "
        }
        @if resumed > 0 { "Unfinished jobs that the next run resumes: " (resumed) "." }
    };
    ("Next job", figure, more)
}

/// Tables with the same failure, or the same reason why they are behind.
struct Problem<'a> {
    failure: Option<&'a Failure>,
    reason: &'a str,
    names: Vec<String>,
    note: &'static str,
}

impl Problem<'_> {
    fn is_like(&self, other: &Self) -> bool {
        (self.failure, self.reason, self.note) == (other.failure, other.reason, other.note)
    }
}

fn problems(overview: &Overview) -> Markup {
    let mut problems: Vec<Problem<'_>> = Vec::new();
    if let Some(failure) = overview.failure_of_last_run() {
        let names = vec!["The whole run".to_owned()];
        problems.push(Problem { failure: Some(failure), reason: "", names, note: "" });
    }
    let never = overview.never_loaded.iter().map(|run| Problem {
        failure: run.failure.as_ref(),
        reason: "",
        names: vec![run.table.clone()],
        note: "Never loaded.",
    });
    let of_tables = overview.tables.iter().filter(|line| line.state != Freshness::Current).map(|line| Problem {
        failure: line.failure.as_ref(),
        reason: line.reason.as_deref().filter(|_| line.failure.is_none()).unwrap_or_default(),
        names: vec![line.name()],
        note: "",
    });
    for problem in never.chain(of_tables) {
        match problems.iter_mut().find(|known| known.is_like(&problem)) {
            Some(known) => known.names.extend(problem.names),
            None => problems.push(problem),
        }
    }
    problems.sort_by_key(|problem| problem.failure.is_none());
    html! {
        @if !problems.is_empty() {
            section {
                h2 { "What needs attention" }
                ul class="problems" { @for problem in &problems { (problem_item(overview, problem)) } }
            }
        }
    }
}

fn problem_item(overview: &Overview, problem: &Problem<'_>) -> Markup {
    let more = problem.names.len().saturating_sub(MAX_NAMES);
    let class = if problem.failure.is_some() { "failing" } else { "behind" };
    html! {
        li class=(class) {
            strong {
                @for (place, name) in problem.names.iter().take(MAX_NAMES).enumerate() {
                    @if place > 0 { ", " }
                    @if overview.tables.iter().any(|line| line.name() == *name) { (table_link(name)) } @else { (name) }
                }
                @if more > 0 { " and " (more) " more tables" }
            }
            @match problem.failure {
                Some(failure) => { (failure_text(failure, problem.note)) }
                None => { p { "Behind: " (problem.reason) "." } }
            }
        }
    }
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
                        (heads(&[("Started", ""), ("Result", ""), ("Tables", ""), ("Added or changed", "n"), ("Deleted", "n"),
                            ("Written", "n"), ("Duration", "n")]))
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
    let tables = html! {
        @match (run.seconds, &run.failure) {
            (None, _) => { "The run is in progress, or was stopped." }
            (_, Some(failure)) => { (failure.message) }
            _ => {
                (totals.loaded) " loaded, " (totals.unchanged) " unchanged"
                @if totals.failed > 0 { ", " strong { (totals.failed) " failed" } }
                @if totals.skipped > 0 { ", " (totals.skipped) " not tried" }
            }
        }
    };
    html! {
        tr {
            (cell("Started", "", &when(&run.started)))
            (cell("Result", "", &html! { span class={ "state " (class) } { (word) } }))
            (cell("Tables", "text", &tables))
            (cell("Added or changed", "n", &html! { (grouped(totals.upserted)) }))
            (cell("Deleted", "n", &html! { (grouped(totals.deleted)) }))
            (cell("Written", "n", &html! { (size(totals.bytes_written)) }))
            (cell("Duration", "n", &html! { (run.seconds.map_or(UNKNOWN.to_owned(), |seconds| age(seconds.ceil() as i64))) }))
        }
    }
}

fn tables(overview: &Overview) -> Markup {
    let has_past = overview.tables.iter().any(|line| line.past.len() > 1);
    let has_files = overview.tables.iter().any(|line| line.files.is_some());
    let has_bytes = overview.tables.iter().any(|line| line.bytes.is_some());
    let mut heads = vec![("Table", ""), ("State", ""), ("Data as of", ""), ("Age", "n"), ("Rows", "n")];
    if has_past {
        heads.push(("Growth", ""));
    }
    if has_files {
        heads.push(("Files", "n"));
    }
    if has_bytes {
        heads.push(("Size", "n"));
    }
    heads.push(("Schema", "n"));
    html! {
        section class="long" id="tables" tabindex="-1" {
            h2 { "Tables" }
            @if overview.tables.len() + overview.never_loaded.len() < overview.counts.all() {
                p class="note" { "Only tables in the chosen states." }
            }
            @if !overview.tables.is_empty() {
                div class="bar needs-script" {
                    label class="hidden-label" for="filter" { "Show tables whose name contains" }
                    input id="filter" type="search" placeholder="Find a table" autocomplete="off";
                    label { input id="only" type="checkbox"; " only tables that are behind or failing" }
                    span id="shown" class="quiet" role="status" {}
                }
                div class="wide" {
                    table id="list" {
                        thead {
                            tr {
                                @for (name, class) in heads {
                                    th scope="col" class=(class) { button type="button" { (name) } }
                                }
                            }
                        }
                        tbody { @for line in by_urgency(overview) { (table_row(line, has_past, has_files, has_bytes)) } }
                    }
                }
            }
        }
    }
}

fn table_row(line: &StatusLine, has_past: bool, has_files: bool, has_bytes: bool) -> Markup {
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
            th scope="row" data-sort=(name) { (table_link(&name)) }
            td data-label="State" { span class={ "state " (word) } { (word) } }
            td data-label="Data as of" data-sort=(line.data_as_of) { (when(&line.data_as_of)) }
            td class="n" data-label="Age" data-sort=(line.age_seconds) { (age(line.age_seconds)) }
            td class="n" data-label="Rows" data-sort=(sort(line.rows)) { (known(line.rows)) }
            @if has_past {
                td data-label="Growth" data-sort=(change) {
                    (chart::spark(&series, &format!("Rows of {name} over time: {words}"))) " " (words)
                }
            }
            @if has_files { td class="n" data-label="Files" data-sort=(sort(line.files)) { (known(line.files)) } }
            @if has_bytes {
                td class="n" data-label="Size" data-sort=(sort(line.bytes)) { (line.bytes.map_or(UNKNOWN.to_owned(), size)) }
            }
            td class="n" data-label="Schema" { (line.schema_version) }
        }
    }
}

/// `+1,234`, `-3`, `same`.
fn growth_words(before: f64, after: f64) -> String {
    match after - before {
        0.0 => "same".to_owned(),
        change => signed(change as i64, grouped),
    }
}

fn readers(groups: &[ReaderGroup]) -> Markup {
    html! {
        @if !groups.is_empty() {
            section {
                h2 { "Which programs can read the tables" }
                ul class="readers" {
                    @for group in groups {
                        li {
                            strong { (needs(&group.reader)) } ": "
                            @if group.tables.len() <= MAX_NAMES {
                                @for (place, name) in group.tables.iter().enumerate() { @if place > 0 { ", " } (table_link(name)) }
                            } @else {
                                (group.tables.len()) " tables"
                            }
                            (feature_notes(&group.reader))
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parts::example as overview;
    use super::*;
    use crate::ops::{LastFailure, TableRun};

    #[track_caller]
    fn says(overview: &Overview, words: &str) {
        let page = status_page(overview);
        assert!(page.contains(words), "{words} is not in {page}");
    }

    #[test]
    fn the_first_sentence_gives_the_state() {
        let mut overview = overview();
        says(&overview, "Yes: all 2 tables are up to date");
        overview.counts = Counts { current: 1, behind: 1, failing: 0 };
        says(&overview, "1 of 2 tables is behind");
        overview.counts = Counts { current: 0, behind: 2, failing: 0 };
        says(&overview, "All 2 tables are behind");
        overview.counts = Counts { current: 0, behind: 1, failing: 1 };
        says(&overview, "1 of 2 tables could not be updated");
        let failure = Failure { message: "The login failed".into(), ..Failure::default() };
        let failed = LastFailure { at: overview.made.clone(), table: None, is_over: false, failure };
        overview.last_failure = Some(failed);
        says(&overview, "class=\"verdict bad\"");
        says(&overview, "The last run could not start");
        overview.last_failure = None;
        overview.counts = Counts::default();
        overview.tables.clear();
        says(&overview, "There are no tables yet");
    }

    #[test]
    fn problems_are_grouped_and_escaped() {
        let mut overview = overview();
        let failure =
            Failure { message: "A <script>alert(1)</script> came".into(), hint: Some("wait".into()), ..Failure::default() };
        for line in &mut overview.tables {
            (line.state, line.failure) = (Freshness::Failing, Some(failure.clone()));
        }
        let never = TableRun { table: "canvas.x".into(), failure: Some(failure), ..TableRun::default() };
        overview.never_loaded.push(never);
        says(&overview, "What to do: wait");
        says(&overview, "A &lt;script&gt;alert(1)&lt;/script&gt; came");
        says(&overview, "Never loaded.");
        let page = status_page(&overview);
        let problems = page.split("class=\"problems\"").nth(1).unwrap().split("</ul>").next().unwrap();
        assert_eq!(problems.matches("<li").count(), 2, "{problems}");
        for line in &mut overview.tables {
            (line.state, line.failure, line.reason) = (Freshness::Behind, None, Some("no run since yesterday".into()));
        }
        says(&overview, "Behind: no run since yesterday.");
    }

    #[test]
    fn each_table_has_a_part() {
        let overview = overview();
        says(&overview, "<article class=\"page\" id=\"canvas.users\"");
        says(&overview, "href=\"#canvas.users\"");
        says(&overview, "The &lt;id&gt; of the row");
        says(&overview, "Any reader of Delta Lake");
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let page = status_page(&overview());
        for word in ["http://", "https://", " src=", "@import", "url("] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
