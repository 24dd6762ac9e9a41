//! Specifications of tasks, as JSON on their way to executors.

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::{Kind, Result, ResultExt};
use crate::sink::Task;
use crate::sink::delta::distributed::location_batch;
use crate::sink::delta::distributed::task_report::{self, KeyFile};
use crate::sink::delta::merge::key_probe::DeletionVectorRule;

/// The work of a task on its part of the rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum TaskSpec {
    /// Writes changes to new files. Output: row locations and reports.
    Write(TableSpec),
    /// Finds the rows that a newer change of the same key replaces. Input: row locations of the same keys, and reports, which it
    /// passes on. Output: reports.
    Dedup,
    /// Deduplicates changes of the same keys and writes them to new files and a key file. Output: reports.
    Merge(TableSpec),
    /// Probes existing files. Input: descriptions of files. Output: reports.
    Probe(ProbeSpec),
}

/// Everything an executor needs to write files of a table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TableSpec {
    pub(super) namespace: String,
    pub(super) table: String,
    /// URL of the target, without credentials.
    pub(super) root: Url,
    /// The `schemaString` of the table.
    pub(super) schema: String,
    /// Names of the key columns.
    pub(super) keys: Vec<String>,
    pub(super) target_file_bytes: u64,
    pub(super) compression_level: i32,
}

/// Everything an executor needs to probe existing files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ProbeSpec {
    pub(super) table: TableSpec,
    pub(super) key_files: Vec<KeyFile>,
    /// Whether all files are rewritten.
    pub(super) rewrite_all: bool,
    /// `None` if the table may not have deletion vectors.
    pub(super) rule: Option<DeletionVectorRule>,
}

impl TaskSpec {
    /// The task for an executor. Rows that are equal in the columns `shuffle_by` go to the same task; if it is empty,
    /// rows are not shuffled.
    pub(super) fn task(&self, shuffle_by: Vec<String>) -> Result<Task> {
        let spec = serde_json::to_string(self).context(Kind::Bug, "A task cannot be encoded")?;
        Ok(Task { shuffle_by, spec, output: self.output() })
    }

    /// Decodes a task. Kind `Bug` if another version of daplake encoded it.
    pub(super) fn decode(text: &str) -> Result<Self> {
        serde_json::from_str(text).context(Kind::Bug, "A task cannot be decoded")
    }

    /// Schema of the output.
    pub(super) fn output(&self) -> SchemaRef {
        match self {
            TaskSpec::Write(_) => location_batch::schema(),
            TaskSpec::Dedup | TaskSpec::Merge(_) | TaskSpec::Probe(_) => task_report::schema(),
        }
    }
}
