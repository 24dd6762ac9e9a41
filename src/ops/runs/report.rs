//! The report of a run, table by table, as serialisable data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::model::{TableRef, Timestamp};
use crate::ops::cancellation::DeferReason;

/// The report of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Id of the run, also in the history of the target.
    pub run_id: String,
    /// When the run started, by the local clock, RFC 3339.
    pub started: String,
    /// Wall time, seconds.
    pub seconds: f64,
    /// Location of the target; empty if the target could not be opened.
    pub target: String,
    /// Why the run could not start; there are no tables then.
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The tables, in the order of the selection.
    pub tables: Vec<TableReport>,
    /// Warnings about the run as a whole, such as tables that the service no longer lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why the run ended before all tables were tried, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_early: Option<DeferReason>,
}

impl Report {
    /// The report of a run that could not start.
    #[cfg(feature = "lake")]
    pub(crate) fn not_started(run_id: &str, started: Timestamp, target: &str, error: &Error) -> Self {
        Self {
            run_id: run_id.to_owned(),
            started: started.to_string(),
            seconds: ((Timestamp::now().micros() - started.micros()) as f64 / 1e6).max(0.0),
            target: target.to_owned(),
            failure: Some(Failure::of(error)),
            tables: Vec::new(),
            warnings: Vec::new(),
            ended_early: None,
        }
    }

    /// Tables that failed.
    pub fn failed(&self) -> impl Iterator<Item = &TableReport> {
        self.tables.iter().filter(|table| matches!(table.outcome, Outcome::Failed { .. }))
    }

    /// The first failure as an error, for the exit code.
    pub fn first_error(&self) -> Option<&Error> {
        self.tables.iter().find_map(|table| table.error.as_ref())
    }
}

/// A failure as data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// Stable name of the kind of error.
    pub kind: String,
    /// The message.
    pub message: String,
    /// Context: names and values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub context: BTreeMap<String, String>,
    /// Causes, outermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Failure {
    /// An error as data.
    pub fn of(error: &Error) -> Self {
        Self {
            kind: error.kind().name().to_owned(),
            message: error.message().to_owned(),
            context: error.fields().iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            causes: error.causes(),
            hint: error.hint_text().map(str::to_owned),
        }
    }
}

/// One table of a run.
#[derive(Debug, Serialize)]
pub struct TableReport {
    /// `namespace.table`; `namespace.*` for a namespace that could not be listed.
    #[serde(serialize_with = "display")]
    pub table: TableRef,
    /// The result.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Id of the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// Time per phase.
    #[doc(hidden)]
    pub phases: Phases,
    /// Warnings, such as placeholders in place of values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The error.
    #[serde(skip)]
    pub error: Option<Error>,
}

/// The result of a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Changes were loaded and the bookmark was updated.
    Loaded {
        /// `snapshot` or `increment`.
        query: &'static str,
        /// Upserts, after deduplication.
        upserted: u64,
        /// Rows that deletes removed.
        deleted: u64,
        /// Rows of the table.
        rows: Option<u64>,
        /// Objects downloaded.
        objects: u64,
        /// Bytes of data files written.
        bytes_written: u64,
        /// Unreadable rows that were set aside.
        bad_rows: u64,
        /// Data as of.
        #[serde(serialize_with = "display")]
        bookmark: Timestamp,
        /// Version of the table schema.
        schema_version: i64,
        /// Schema changes.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        schema_changes: Vec<String>,
    },
    /// The service has no newer data, or another run loaded them at the same time.
    Unchanged {
        /// Data as of.
        #[serde(serialize_with = "display")]
        bookmark: Timestamp,
        /// Whether another run, such as one on another machine, committed to the table while this one loaded it.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        by_another_run: bool,
    },
    /// The data is so recent that the service cannot have newer data; no job was started.
    Recent {
        /// Data as of.
        #[serde(serialize_with = "display")]
        bookmark: Timestamp,
    },
    /// Not started, or rolled back; the next run continues with it.
    #[serde(rename = "put_off")]
    Deferred {
        /// The reason.
        reason: DeferReason,
    },
    /// The table failed and was not changed.
    Failed {
        /// Kind of the error.
        kind: &'static str,
        /// The message.
        message: String,
        /// Context: names and values.
        context: serde_json::Map<String, serde_json::Value>,
        /// Causes, outermost first.
        causes: Vec<String>,
        /// What to do next.
        hint: Option<String>,
    },
    /// Not tried, because the run had to end.
    Skipped,
}

impl Outcome {
    /// The outcome for an error.
    #[cfg(feature = "lake")]
    pub(crate) fn failed(error: &Error) -> Self {
        Outcome::Failed {
            kind: error.kind().name(),
            message: error.message().to_owned(),
            context: error.fields().iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect(),
            causes: error.causes(),
            hint: error.hint_text().map(str::to_owned),
        }
    }
}

/// Duration of the phases of one table, seconds. Phases of different tables overlap.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Phases {
    /// Schema request and job.
    pub job: f64,
    /// Download, decoding, deduplication, writing.
    pub load: f64,
    /// Commit.
    pub commit: f64,
}

fn display<T: std::fmt::Display, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
