//! Progress of a run as trace spans and events with the target [`TARGET`].
//!
//! The library opens a span per step and emits events in it; a subscriber adds up their numbers. Spawned tasks must carry the span
//! (`.in_current_span()`), and a span is never entered across an await (use `.instrument`).

use std::fmt::Display;
use std::time::Duration;

use tracing::Span;
use tracing::field::Empty;

/// Target of all progress spans and events.
pub const TARGET: &str = "daplake::progress";

/// The span of a run; the steps of its tables are inside.
pub fn run(id: &str) -> Span {
    tracing::info_span!(target: TARGET, "run", run_id = id)
}

/// The span of a step of one table: `table` (all steps), `job`, `load`, `download`, `commit`.
pub fn step(name: &'static str, table: &dyn Display) -> Span {
    tracing::info_span!(
        target: TARGET,
        "step",
        step = name,
        table = %table,
        // For OpenTelemetry: name and status of the span.
        otel.name = name,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// The span of the download of one object.
pub fn download(object: &dyn Display) -> Span {
    tracing::info_span!(target: TARGET, "download", object = %object)
}

/// Number of parts (objects) of the current step.
pub fn expect(parts: u64) {
    tracing::info!(target: TARGET, parts);
}

/// One part of the current step is done.
pub fn part_done() {
    tracing::info!(target: TARGET, part_done = 1_u64);
}

/// Bytes received in the current step.
pub fn moved_bytes(bytes: u64) {
    tracing::info!(target: TARGET, bytes);
}

/// Rows decoded or written in the current step.
pub fn moved_rows(rows: u64) {
    tracing::info!(target: TARGET, rows);
}

/// A job was started or resumed.
pub fn job_started() {
    tracing::info!(name: "job started", target: TARGET, job_started = 1_u64);
}

/// A call waits for the pacing.
pub fn paced(wait: Duration) {
    tracing::info!(target: TARGET, paced_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
}

/// A call or a download is retried.
pub fn retried() {
    tracing::info!(name: "retry", target: TARGET, retried = 1_u64);
}

/// The current table is done; `text` describes the result.
pub fn table_done(text: &str) {
    tracing::info!(name: "done", target: TARGET, done = text);
}

/// The current table failed; `text` describes the failure.
pub fn table_failed(text: &str) {
    let table = Span::current();
    table.record("otel.status_code", "error").record("otel.status_description", text);
    tracing::info!(name: "failure", target: TARGET, failed = text);
}
