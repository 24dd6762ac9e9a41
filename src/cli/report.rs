//! Errors and run reports as text.

#[cfg(feature = "lake")]
use super::output::age;
use super::output::{grouped, note, size};
use crate::error::Error;
#[cfg(feature = "lake")]
use crate::ops::{Failure, Overview, RunRecord};
use crate::ops::{Outcome, Reason, Report, TableReport};

/// An error with its context, causes and hint, on standard error.
pub(super) fn error(error: &Error) {
    note(&error_text(error));
}

/// The same in one line and without a mark, for the log.
pub(super) fn error_line(error: &Error) -> String {
    let mut text = error.to_string();
    for cause in error.causes() {
        text.push_str(&format!("; caused by: {cause}"));
    }
    if let Some(hint) = error.hint_text() {
        text.push_str(&format!("; hint: {hint}"));
    }
    text
}

/// An error over several lines, without a mark.
pub(super) fn error_lines(error: &Error) -> String {
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
    let mut text = format!("error: {}", error.message());
    if !error.context().is_empty() {
        let context: Vec<String> = error.context().iter().map(|(name, value)| format!("{name}: {value}")).collect();
        text.push_str(&format!("\n  {}", context.join("    ")));
    }
    for cause in error.causes() {
        text.push_str(&format!("\n  caused by: {cause}"));
    }
    if let Some(hint) = error.hint_text() {
        text.push_str(&format!("\n\nhint: {hint}"));
    }
    text
}

#[cfg_attr(not(feature = "lake"), expect(dead_code, reason = "only runs on lakes have such reports"))]
/// All failures of a run, on standard error.
pub(super) fn failures(report: &Report) {
    for table in report.failed() {
        if let Some(error) = &table.error {
            note(&format!("\n{}", error_text(error)));
        }
    }
}

#[cfg_attr(not(feature = "lake"), expect(dead_code, reason = "only runs on lakes have such reports"))]
/// What a run did, in a few lines.
pub(super) fn summary(report: &Report) -> String {
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
    let mut text = format!("{} tables: {loaded} loaded, {unchanged} unchanged, {failed} failed", report.tables.len());
    let recent = count(|outcome| matches!(outcome, Outcome::Recent { .. }));
    let put_off = count(|outcome| matches!(outcome, Outcome::PutOff { .. }));
    for (count, words) in [(recent, "too recent to have changed"), (put_off, "put off"), (skipped, "not tried")] {
        if count > 0 {
            text.push_str(&format!(", {count} {words}"));
        }
    }
    match report.ended_early {
        Some(Reason::TimeBudget) => {
            text.push_str("\nended by the time budget; the next run goes on with the tables that were put off")
        }
        Some(Reason::Stopped) => {
            text.push_str("\nended early as asked; the next run goes on with the tables that were put off")
        }
        None => {}
    }
    text.push_str(&format!(
        "\n{} rows upserted, {} deleted, {} written in {:.1} s\n",
        grouped(up),
        grouped(gone),
        size(bytes),
        report.seconds
    ));
    if bad > 0 {
        text.push_str(&format!("{} rows could not be read and were set aside\n", grouped(bad)));
    }
    for table in &report.tables {
        if let Outcome::Loaded { schema_changes, .. } = &table.outcome {
            for change in schema_changes {
                text.push_str(&format!("schema: {}: {change}\n", table.table));
            }
        }
    }
    for warning in &report.warnings {
        text.push_str(&format!("note: {warning}\n"));
    }
    let warned = report.tables.iter().filter(|table| !table.warnings.is_empty());
    for table in warned.take(20) {
        for warning in &table.warnings {
            text.push_str(&format!("note: {}: {warning}\n", table.table));
        }
    }
    text
}

/// What is wrong, and the last runs, below the tables of a status.
#[cfg(feature = "lake")]
pub(super) fn runs(overview: &Overview) -> String {
    let mut text = String::new();
    let failing = overview.tables.iter().filter_map(|line| Some((line.name(), line.failure.as_ref()?)));
    let never = overview.never_loaded.iter().filter_map(|run| Some((run.table.clone(), run.failure.as_ref()?)));
    for (table, failure) in failing.chain(never) {
        text.push_str(&format!("\nfailing: {table}: {}\n", failure_text(failure)));
    }
    for (place, run) in overview.runs.iter().enumerate() {
        text.push_str(if place == 0 { "\nlast runs:\n" } else { "" });
        text.push_str(&format!("  {}  {}\n", run.started, run_text(run)));
    }
    text
}

#[cfg(feature = "lake")]
fn failure_text(failure: &Failure) -> String {
    let hint = failure.hint.as_ref().map(|hint| format!("\n  hint: {hint}"));
    format!("{}{}", failure.message, hint.unwrap_or_default())
}

/// A run in one line.
#[cfg(feature = "lake")]
pub(super) fn run_text(run: &RunRecord) -> String {
    let Some(seconds) = run.seconds else { return "did not end: it still runs, or was stopped".to_owned() };
    if let Some(failure) = &run.failure {
        return format!("failed before any table: {}", failure.message);
    }
    let totals = run.totals();
    let skipped = if totals.skipped > 0 { format!(", {} not tried", totals.skipped) } else { String::new() };
    format!(
        "{} loaded, {} unchanged, {} failed{skipped}; {} rows upserted, {} deleted in {}",
        totals.loaded,
        totals.unchanged,
        totals.failed,
        grouped(totals.upserted),
        grouped(totals.deleted),
        age(seconds.ceil() as i64)
    )
}
