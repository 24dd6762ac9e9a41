//! Errors and run reports as text.

#[cfg(feature = "lake")]
use crate::cli::terminal::output::age;
use crate::cli::terminal::output::{aside, grouped, size};
use crate::error::{Error, Result};
use crate::ops::{Failure, Outcome, Reason, Report, TableReport};
#[cfg(feature = "lake")]
use crate::ops::{Overview, RunRecord, SyncEvent, SyncStep, Totals};
use crate::redact::{visible, visible_lines};

/// Target of the log records of failures. People read failures in another form, so their log lines leave them out.
pub(in crate::cli) const FAILURES: &str = "daplake::failure";

/// An error with its context, causes and hint: an ERROR record in the log, and a text on standard error.
pub(in crate::cli) fn error(error: &Error) {
    log(error);
    aside(&error_text(error));
}

/// An ERROR record. In JSON, its `fields` are kind, message, context, causes and hint.
pub(in crate::cli) fn log(error: &Error) {
    let mut failure = serde_json::json!(Failure::of(error));
    if let Some(table) = error.get("table") {
        failure["table"] = table.into();
    }
    let failure = failure.to_string();
    tracing::error!(target: FAILURES, failure = failure.as_str(), "{}", error_line(error));
}

/// The same in one line and without a mark, for the log.
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

/// An error over several lines, without a mark.
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
    let mut text = format!("error: {}", visible(error.message()));
    if !error.fields().is_empty() {
        let context: Vec<String> = error.fields().iter().map(|(name, value)| format!("{name}: {}", visible(value))).collect();
        text.push_str(&format!("\n  {}", context.join("    ")));
    }
    for cause in error.causes() {
        // Lines of others must not pass for ours.
        text.push_str(&format!("\n  caused by: {}", visible_lines(&cause).replace('\n', "\n    ")));
    }
    if let Some(hint) = error.hint_text() {
        text.push_str(&format!("\n\nhint: {hint}"));
    }
    text
}

#[cfg_attr(not(feature = "lake"), expect(dead_code, reason = "only runs on lakes have such reports"))]
/// All failures of a run, on standard error. The log has them from the moment they happened.
pub(in crate::cli) fn failures(report: &Report) {
    for table in report.failed() {
        if let Some(error) = &table.error {
            aside(&format!("\n{}", error_text(error)));
        }
    }
}

#[cfg_attr(not(feature = "lake"), expect(dead_code, reason = "only runs on lakes have such reports"))]
/// The failures on standard error, and the first one for the exit code.
pub(in crate::cli) fn finish_one(report: Report) -> Result<()> {
    failures(&report);
    let (failed, total) = (report.failed().count(), report.tables.len());
    let Some(first) = report.first_error() else { return Ok(()) };
    let error = Error::new(first.kind(), format!("{failed} of {total} tables failed; see above"));
    // To repeat the command helps against what passes by itself. Anything else has a hint of its own, at its table.
    let all_pass = report.tables.iter().filter_map(|table| table.error.as_ref()).all(|error| error.kind().is_transient());
    Err(if all_pass {
        error.hint("such faults often pass: run the same command again, it continues with these tables")
    } else {
        error
    })
}

/// A step of a table, for the log.
#[cfg(feature = "lake")]
pub(in crate::cli) fn log_step(event: &SyncEvent<'_>) {
    let SyncEvent { table, place, of, step } = event;
    let report = match step {
        SyncStep::Started => {
            tracing::info!(table = %table, place, of, "Table started");
            return;
        }
        SyncStep::Ended(report) => report,
    };
    match (&report.outcome, &report.error) {
        (_, Some(error)) => log(error),
        (Outcome::Loaded { query, upserted, deleted, rows, bytes_written, bookmark, .. }, _) => {
            let seconds = report.phases.load + report.phases.commit;
            tracing::info!(
                table = %table, query, upserted, deleted, rows, bytes_written, data_as_of = %bookmark, seconds, "Table loaded"
            );
        }
        (Outcome::Unchanged { bookmark }, _) => tracing::info!(table = %table, data_as_of = %bookmark, "Table unchanged"),
        (Outcome::Recent { bookmark }, _) => {
            tracing::info!(table = %table, data_as_of = %bookmark, "Table too recent to have changed")
        }
        (Outcome::PutOff { .. }, _) => tracing::info!(table = %table, "Table put off"),
        (Outcome::Skipped | Outcome::Failed { .. }, _) => tracing::info!(table = %table, "Table not tried"),
    }
}

/// The sum of a run, for the log.
#[cfg(feature = "lake")]
pub(in crate::cli) fn log_sum(report: &Report) {
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

#[cfg_attr(not(feature = "lake"), expect(dead_code, reason = "only runs on lakes have such reports"))]
/// What a run did, in a few lines.
pub(in crate::cli) fn summary(report: &Report) -> String {
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
                text.push_str(&format!("schema: {}: {}\n", table.table, visible(change)));
            }
        }
    }
    for warning in &report.warnings {
        text.push_str(&format!("note: {warning}\n"));
    }
    let warned = report.tables.iter().filter(|table| !table.warnings.is_empty());
    for table in warned.take(20) {
        for warning in &table.warnings {
            text.push_str(&format!("note: {}: {}\n", table.table, visible(warning)));
        }
    }
    text
}

/// What is wrong, and the last runs, below the tables of a status.
#[cfg(feature = "lake")]
pub(in crate::cli) fn runs(overview: &Overview) -> String {
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
pub(in crate::cli) fn run_text(run: &RunRecord) -> String {
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
