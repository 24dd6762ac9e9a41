//! Errors and run reports as text.

#[cfg(feature = "lake")]
use crate::cli::terminal::output::age;
use crate::cli::terminal::output::{counted, failure, grouped, size};
use crate::error::{Error, Result};
use crate::ops::{DeferReason, Failure, Outcome, Report, TableReport};
#[cfg(feature = "lake")]
use crate::ops::{Overview, RunRecord, SyncEvent, SyncStep, Totals};
#[cfg(feature = "lake")]
use crate::progress;
use crate::redact::{visible, visible_lines};

/// Target of the log records of failures. Failures are printed in another form for people, so log lines for people omit this target.
pub(in crate::cli) const FAILURES: &str = "daplake::failure";

/// Tables whose warnings are printed in a summary.
const WARNED_TABLES: usize = 20;

/// Most tables that are named with a failure that they share.
const LISTED_TABLES: usize = 20;

/// The field of an error that names its table.
const TABLE: &str = "table";

/// An error with its fields, causes and hint: an ERROR record in the log, and text on standard error.
pub(in crate::cli) fn error(error: &Error) {
    log(error);
    failure(&error_text(error));
}

/// An ERROR record. In JSON, its `fields` are kind, message, context, causes and hint.
pub(in crate::cli) fn log(error: &Error) {
    let mut failure = serde_json::json!(Failure::of(error));
    if let Some(table) = error.get(TABLE) {
        failure[TABLE] = table.into();
    }
    let failure = failure.to_string();
    tracing::error!(target: FAILURES, failure = failure.as_str(), "{}", error_line(error));
}

/// An error on one line, for the log.
fn error_line(error: &Error) -> String {
    let mut text = error.to_string();
    for cause in error.causes() {
        text.push_str(&format!("; caused by: {cause}"));
    }
    if let Some(hint) = error.hint_text() {
        text.push_str(&format!("; hint: {hint}"));
    }
    text.push_str(&format!("; kind: {}", error.kind().name()));
    text
}

/// An error on several lines, for the console of the official client's commands.
pub(in crate::cli) fn error_lines(error: &Error) -> String {
    let mut text = error.to_string();
    for cause in error.causes() {
        text.push_str(&format!("\n  caused by: {cause}"));
    }
    if let Some(hint) = error.hint_text() {
        text.push_str(&format!("\n  hint: {hint}"));
    }
    text
}

fn error_text(error: &Error) -> String {
    error_text_of(error, |_| true, None)
}

/// An error with the fields of these names, and the tables that it concerns.
fn error_text_of(error: &Error, has_field: impl Fn(&str) -> bool, tables: Option<&str>) -> String {
    let mut text = format!("error: {}", visible(error.message()));
    let shown = error.fields().iter().filter(|(name, _)| has_field(name));
    let fields: Vec<String> = shown.map(|(name, value)| format!("{name}: {}", visible(value))).collect();
    if !fields.is_empty() {
        text.push_str(&format!("\n  {}", fields.join("    ")));
    }
    if let Some(tables) = tables {
        text.push_str(&format!("\n  tables: {tables}"));
    }
    for cause in error.causes() {
        // Lines of a cause are indented, so that they cannot be mistaken for lines of daplake.
        text.push_str(&format!("\n  caused by: {}", visible_lines(&cause).replace('\n', "\n    ")));
    }
    if let Some(hint) = error.hint_text() {
        text.push_str(&format!("\n\nhint: {hint}"));
    }
    text
}

/// Prints all failures of a run to standard error, the same failure of several tables once. They were logged when they happened.
fn failures(report: &Report) {
    let mut groups: Vec<(String, &Error, Vec<String>)> = Vec::new();
    for table in report.failed() {
        let Some(error) = &table.error else { continue };
        let text = error_text_of(error, |field| field != TABLE, None);
        match groups.iter_mut().find(|(known, ..)| *known == text) {
            Some((.., tables)) => tables.push(table.table.to_string()),
            None => groups.push((text, error, vec![table.table.to_string()])),
        }
    }
    for (_, error, tables) in groups {
        let text = match tables.as_slice() {
            [_] => error_text(error),
            several => error_text_of(error, |field| field != TABLE, Some(&listed(several))),
        };
        failure(&format!("\n{text}"));
    }
}

/// The first names of a list, and the number of the others.
fn listed(names: &[String]) -> String {
    match names.split_at_checked(LISTED_TABLES) {
        Some((first, rest)) if !rest.is_empty() => format!("{} and {} more", first.join(", "), rest.len()),
        _ => names.join(", "),
    }
}

/// Notes and warnings of a run with failures in one line, for output without notes. `None` if there are none.
#[cfg(feature = "lake")]
pub(in crate::cli) fn summed_notes(report: &Report, warnings: u64) -> Option<String> {
    let of_tables = report.tables.iter().map(|table| (table.warnings.len() + schema_changes(table).len()) as u64);
    let tables = of_tables.clone().filter(|count| *count > 0).count() as u64;
    let notes = of_tables.sum::<u64>() + report.warnings.len() as u64;
    let mut parts = Vec::new();
    if notes > 0 {
        let place = if tables > 0 { format!(" about {}", counted(tables, "table")) } else { String::new() };
        parts.push(format!("{}{place}", counted(notes, "note")));
    }
    if warnings > 0 {
        parts.push(counted(warnings, "warning"));
    }
    (!parts.is_empty()).then(|| format!("\n{}: see --logfile or --report", parts.join(" and ")))
}

/// Prints the failures of a run, and returns an error of the first one's kind.
#[cfg_attr(not(feature = "lake"), expect(dead_code, reason = "only runs on lakes have such reports"))]
pub(in crate::cli) fn finish_one(report: Report) -> Result<()> {
    failures(&report);
    let (failed, total) = (report.failed().count(), report.tables.len());
    let Some(first) = report.first_error() else { return Ok(()) };
    let error = Error::new(first.kind(), format!("{failed} of {total} tables failed; see above"));
    // Running again helps only with transient failures. Others have a hint of their own.
    let all_pass = report.tables.iter().filter_map(|table| table.error.as_ref()).all(|error| error.kind().is_transient());
    Err(if all_pass {
        error.hint("the failures are temporary: run the same command again; it resumes these tables")
    } else {
        error
    })
}

/// Logs a step of a table, and advances the progress line.
#[cfg(feature = "lake")]
pub(in crate::cli) fn log_step(event: &SyncEvent<'_>) {
    let SyncEvent { table, of, step, .. } = event;
    let report = match step {
        SyncStep::Started => {
            tracing::info!(table = %table, "Table started");
            return;
        }
        SyncStep::Ended(report) => report,
    };
    tracing::info!(target: progress::TARGET, tables = *of as u64, tables_done = 1_u64);
    match (&report.outcome, &report.error) {
        (_, Some(error)) => log(error),
        (Outcome::Loaded { query, upserted, deleted, rows, bytes_written, bookmark, .. }, _) => {
            let seconds = report.phases.load + report.phases.commit;
            tracing::info!(
                table = %table, query, upserted, deleted, rows, bytes_written, data_as_of = %bookmark, seconds, "Table loaded"
            );
        }
        (Outcome::Unchanged { bookmark, by_another_run: false }, _) => {
            tracing::info!(table = %table, data_as_of = %bookmark, "Table unchanged")
        }
        (Outcome::Unchanged { bookmark, by_another_run: true }, _) => {
            tracing::info!(table = %table, data_as_of = %bookmark, "Table was brought up to date by another run")
        }
        (Outcome::Recent { bookmark }, _) => {
            tracing::info!(table = %table, data_as_of = %bookmark, "Table skipped, its data is recent")
        }
        (Outcome::Deferred { .. }, _) => tracing::info!(table = %table, "Table deferred to the next run"),
        (Outcome::Skipped | Outcome::Failed { .. }, _) => tracing::info!(table = %table, "Table not tried"),
    }
}

/// Logs the totals of a run.
#[cfg(feature = "lake")]
pub(in crate::cli) fn log_totals(report: &Report) {
    let Totals { tables, loaded, unchanged, failed, skipped, upserted, deleted, bytes_written } = Totals::of(report);
    let Report { target, seconds, .. } = report;
    tracing::info!(
        target_url = target,
        tables,
        loaded,
        unchanged,
        failed,
        skipped,
        upserted,
        deleted,
        bytes_written,
        seconds,
        "Run ended"
    );
}

/// The result of a run: its totals, schema changes and notes.
#[cfg_attr(not(feature = "lake"), expect(dead_code, reason = "only runs on lakes have such reports"))]
pub(in crate::cli) fn summary(report: &Report) -> String {
    let mut text = totals(report);
    for table in &report.tables {
        for change in schema_changes(table) {
            text.push_str(&format!("schema: {}: {}\n", table.table, visible(change)));
        }
    }
    for warning in &report.warnings {
        text.push_str(&format!("note: {warning}\n"));
    }
    let warned = report.tables.iter().filter(|table| !table.warnings.is_empty());
    for table in warned.take(WARNED_TABLES) {
        for warning in &table.warnings {
            text.push_str(&format!("note: {}: {}\n", table.table, visible(warning)));
        }
    }
    text
}

/// The result of a run in two lines: tables by outcome, and rows, bytes and seconds. More lines only if it ended early or set rows
/// aside.
pub(in crate::cli) fn totals(report: &Report) -> String {
    let count = |wanted: fn(&Outcome) -> bool| report.tables.iter().filter(|table| wanted(&table.outcome)).count();
    let loaded = count(|outcome| matches!(outcome, Outcome::Loaded { .. }));
    let unchanged = count(|outcome| matches!(outcome, Outcome::Unchanged { .. }));
    let failed = count(|outcome| matches!(outcome, Outcome::Failed { .. }));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped));
    let (mut up, mut gone, mut bytes, mut bad) = (0, 0, 0, 0);
    for TableReport { outcome, .. } in &report.tables {
        if let Outcome::Loaded { upserted, deleted, bytes_written, bad_rows, .. } = outcome {
            up += upserted;
            gone += deleted;
            bytes += bytes_written;
            bad += bad_rows;
        }
    }
    let tables = counted(report.tables.len() as u64, "table");
    let mut text = format!("{tables}: {loaded} loaded, {unchanged} unchanged, {failed} failed");
    let recent = count(|outcome| matches!(outcome, Outcome::Recent { .. }));
    let deferred = count(|outcome| matches!(outcome, Outcome::Deferred { .. }));
    for (count, what) in [(recent, "too recent to have changed"), (deferred, "deferred"), (skipped, "not tried")] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    match report.ended_early {
        Some(DeferReason::TimeBudget) => {
            text.push_str("\nthe time budget is used up; the next run continues with the deferred tables")
        }
        Some(DeferReason::Stopped) => text.push_str("\nstopped early; the next run continues with the deferred tables"),
        None => {}
    }
    text.push_str(&format!(
        "\n{} upserted, {} deleted, {} written in {:.1} s\n",
        counted(up, "row"),
        grouped(gone),
        size(bytes),
        report.seconds
    ));
    if bad > 0 {
        let were = if bad == 1 { "was" } else { "were" };
        text.push_str(&format!("{} could not be read and {were} set aside\n", counted(bad, "row")));
    }
    text
}

/// The schema changes of a loaded table.
pub(in crate::cli) fn schema_changes(table: &TableReport) -> &[String] {
    match &table.outcome {
        Outcome::Loaded { schema_changes, .. } => schema_changes,
        _ => &[],
    }
}

/// Tables that are failing with their hints, grouped by failure.
#[cfg(feature = "lake")]
pub(in crate::cli) fn failing(overview: &Overview) -> String {
    let failing = overview.tables.iter().filter_map(|line| Some((line.name(), line.failure.as_ref()?)));
    let never = overview.never_loaded.iter().filter_map(|run| Some((run.table.clone(), run.failure.as_ref()?)));
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (table, failure) in failing.chain(never) {
        let text = failure_text(failure);
        match groups.iter_mut().find(|(known, _)| *known == text) {
            Some((_, tables)) => tables.push(table),
            None => groups.push((text, vec![table])),
        }
    }
    groups.into_iter().map(|(failure, tables)| format!("\nfailing: {}: {failure}\n", tables.join(", "))).collect()
}

/// The last failure and the last runs, below the tables of a status.
#[cfg(feature = "lake")]
pub(in crate::cli) fn runs(overview: &Overview) -> String {
    let mut text = String::new();
    if let Some(last) = &overview.last_failure {
        let table = last.table.as_ref().map_or("the run could not start".to_owned(), |table| format!("{table} failed"));
        let over = if last.is_over { " (a later run succeeded)" } else { "" };
        text.push_str(&format!("\nlast failure: {} {table}{over}: {}\n", last.at, failure_text(&last.failure)));
    }
    for (place, run) in overview.runs.iter().enumerate() {
        text.push_str(if place == 0 { "\nlast runs:\n" } else { "" });
        text.push_str(&format!("  {}  {}\n", run.start(), run_text(run)));
    }
    text
}

#[cfg(feature = "lake")]
fn failure_text(failure: &Failure) -> String {
    let hint = failure.hint.as_ref().map(|hint| format!("\n  hint: {hint}"));
    format!("{}{}", failure.message, hint.unwrap_or_default())
}

/// A run on one line.
#[cfg(feature = "lake")]
fn run_text(run: &RunRecord) -> String {
    let Some(seconds) = run.seconds else { return "did not end: it is still running, or was killed".to_owned() };
    if let Some(failure) = &run.failure {
        return format!("could not start: {}", failure.message);
    }
    let totals = run.totals();
    let skipped = if totals.skipped > 0 { format!(", {} not tried", totals.skipped) } else { String::new() };
    format!(
        "{} loaded, {} unchanged, {} failed{skipped}; {} upserted, {} deleted in {}",
        totals.loaded,
        totals.unchanged,
        totals.failed,
        counted(totals.upserted, "row"),
        grouped(totals.deleted),
        age(seconds.ceil() as i64)
    )
}
