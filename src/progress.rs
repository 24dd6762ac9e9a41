//! What a run is doing, as trace spans and events on one target of their own. It draws nothing; whoever listens does.
//!
//! The library opens a span per step and says what moved inside it; a layer that listens to [`TARGET`] adds the numbers up.
//! Spawned tasks must carry the span (`.in_current_span()`), and a span is never held entered across an await (`.instrument`).

use std::fmt::Display;
use std::time::Duration;

use tracing::Span;
use tracing::field::Empty;

/// Target of all progress spans and events.
pub const TARGET: &str = "daplake::progress";

/// A whole run; the steps of its tables are within it.
pub fn run(id: &str) -> Span {
    tracing::info_span!(target: TARGET, "run", run_id = id)
}

/// A step of the work on one table: `table` (all of it), `job`, `load`, `download`, `commit`.
pub fn step(name: &'static str, table: &dyn Display) -> Span {
    tracing::info_span!(
        target: TARGET,
        "step",
        step = name,
        table = %table,
        // For traces: the name they show, and what becomes of it.
        otel.name = name,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

/// The download of one object, while its rows are loaded.
pub fn download(object: &dyn Display) -> Span {
    tracing::info_span!(target: TARGET, "download", object = %object)
}

/// How many parts (objects) the current step has.
pub fn expect(parts: u64) {
    tracing::info!(target: TARGET, parts);
}

/// One part of the current step is done.
pub fn part_done() {
    tracing::info!(target: TARGET, part_done = 1_u64);
}

/// Bytes that came over the network in the current step.
pub fn moved_bytes(bytes: u64) {
    tracing::info!(target: TARGET, bytes);
}

/// Rows that were decoded or written in the current step.
pub fn moved_rows(rows: u64) {
    tracing::info!(target: TARGET, rows);
}

/// A job was started at the service, or found alive.
pub fn job_started() {
    tracing::info!(name: "job started", target: TARGET, job_started = 1_u64);
}

/// A call waits so long for our own pace.
pub fn paced(wait: Duration) {
    tracing::info!(target: TARGET, paced_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
}

/// A call or a download is going to be tried again.
pub fn retried() {
    tracing::info!(name: "retry", target: TARGET, retried = 1_u64);
}

/// The current table is done; `words` say how, for people.
pub fn table_done(words: &str) {
    tracing::info!(name: "done", target: TARGET, done = words);
}

/// The current table failed; `words` say what, for people.
pub fn table_failed(words: &str) {
    let table = Span::current();
    table.record("otel.status_code", "error").record("otel.status_description", words);
    tracing::info!(name: "failure", target: TARGET, failed = words);
}
