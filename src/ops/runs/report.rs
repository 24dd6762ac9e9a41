//! What a run did, table by table, as plain data that serialises. It does not print.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::model::{TableRef, Timestamp};
use crate::ops::cancellation::Reason;

/// The whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Id of the run, also in the targets' histories.
    pub run_id: String,
    /// Local clock.
    pub started: String,
    /// Wall time, seconds.
    pub seconds: f64,
    /// Where the tables are kept; empty when the target could not be opened.
    pub target: String,
    /// Why the run could not start. Then there are no tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// In the order they were asked for.
    pub tables: Vec<TableReport>,
    /// What concerns the run and no table of it, such as tables that the service no longer lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why it ended before all tables were tried, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_early: Option<Reason>,
}

impl Report {
    /// A run that could not start.
    pub fn not_started(run_id: &str, started: Timestamp, target: &str, error: &Error) -> Self {
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
    /// Stable name of the error's kind.
    pub kind: String,
    /// The sentence.
    pub message: String,
    /// Names and values, such as the server's uuid.
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
    /// The failure that an error stands for.
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
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Job that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
    /// Where the time went.
    pub phases: Phases,
    /// Things a person should know, such as placeholders in place of text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The failure itself.
    #[serde(skip)]
    pub error: Option<Error>,
}

/// How a table ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Rows were loaded and the bookmark moved.
    Loaded {
        /// `snapshot` or `increment`.
        query: &'static str,
        /// Upserts in the result, after reduction.
        upserted: u64,
        /// Keys that were there and are gone.
        deleted: u64,
        /// Rows in the table now.
        rows: Option<u64>,
        /// Objects downloaded.
        objects: u64,
        /// Bytes of data files written.
        bytes_written: u64,
        /// Rows set aside.
        bad_rows: u64,
        /// Data as of.
        #[serde(serialize_with = "display")]
        bookmark: Timestamp,
        /// Version of the table schema.
        schema_version: i64,
        /// What changed in the schema.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        schema_changes: Vec<String>,
    },
    /// The service has nothing newer.
    Unchanged {
        /// Data as of.
        #[serde(serialize_with = "display")]
        bookmark: Timestamp,
    },
    /// The data are so recent that the service cannot have newer ones yet; it was not asked.
    Recent {
        /// Data as of.
        #[serde(serialize_with = "display")]
        bookmark: Timestamp,
    },
    /// Not begun, or abandoned: it is as it was or up to date, and the next run goes on with it.
    PutOff {
        /// Why.
        reason: Reason,
    },
    /// The table is as it was before.
    Failed {
        /// Kind of the error.
        kind: &'static str,
        /// The sentence.
        message: String,
        /// Names and values, such as the server's uuid.
        context: serde_json::Map<String, serde_json::Value>,
        /// Causes, outermost first.
        causes: Vec<String>,
        /// What to do next.
        hint: Option<String>,
    },
    /// Not tried, because the run had to stop.
    Skipped,
}

impl Outcome {
    /// The failure as data.
    pub fn failed(error: &Error) -> Self {
        Outcome::Failed {
            kind: error.kind().name(),
            message: error.message().to_owned(),
            context: error.fields().iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect(),
            causes: error.causes(),
            hint: error.hint_text().map(str::to_owned),
        }
    }
}

/// Seconds spent by one table; phases of different tables overlap.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Phases {
    /// Asking for the schema and waiting for the job.
    pub job: f64,
    /// Download, decode, reduce, write.
    pub load: f64,
    /// Making it visible.
    pub commit: f64,
}

fn display<T: std::fmt::Display, S: serde::Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
