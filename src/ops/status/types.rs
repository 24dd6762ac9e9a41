//! The data of `status`, for JSON and for pages.

use serde::Serialize;

use crate::model::TableRef;
use crate::ops::runs::{Failure, RunRecord, TableRun};
use crate::sink::{ColumnStatus, ReaderRequirement};

/// State of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Freshness {
    /// The data are recent.
    Current,
    /// The data are older than expected.
    Behind,
    /// The last run that tried the table failed.
    Failing,
}

impl Freshness {
    /// The name for people.
    pub fn name(self) -> &'static str {
        match self {
            Freshness::Current => "current",
            Freshness::Behind => "behind",
            Freshness::Failing => "failing",
        }
    }
}

/// One table of a target.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatusLine {
    /// The namespace.
    pub namespace: String,
    /// The name without the namespace.
    pub table: String,
    /// The state.
    pub state: Freshness,
    /// Rows, if the target counts them.
    pub rows: Option<u64>,
    /// Data as of, RFC 3339.
    pub data_as_of: String,
    /// Age of the data in seconds, by the local clock.
    pub age_seconds: i64,
    /// Version of the table schema.
    pub schema_version: i64,
    /// Number of data files.
    pub files: Option<u64>,
    /// Bytes of data files.
    pub bytes: Option<u64>,
    /// Time of the last commit, by the target's clock.
    pub last_run: Option<String>,
    /// Version of the target's log.
    pub version: Option<i64>,
    /// Reader and writer version of the Delta protocol and its features, such as `3/7: deletionVectors`.
    pub protocol: Option<String>,
    /// Mode of the table, what deletes do, partitions: `current`, `current, deletes marked`, `history by day(timestamp)`.
    pub kept_as: Option<String>,
    /// The failure of the last run.
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Why the table is behind or failing: a sentence without a full stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why the last registration in the catalog failed: a sentence without a full stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog_failure: Option<String>,
    /// When the last run of this machine that tried the table started, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_tried: Option<String>,
    /// The next job.
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_job: Option<NextJob>,
    /// Bytes of all files, with those of older versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// The growth within the last 7 days.
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
    /// Requirements of readers of the Delta log.
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader: Option<ReaderRequirement>,
    /// The description of the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The columns; empty unless requested.
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnStatus>,
    /// The table over time, oldest first; empty unless requested.
    #[doc(hidden)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Point>,
}

/// A table at one time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Data as of, RFC 3339.
    pub at: String,
    /// Rows.
    pub rows: Option<u64>,
    /// Bytes of data files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Upserts of the load, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upserted: Option<u64>,
    /// Deletes of the load, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<u64>,
}

/// State of a target.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overview {
    /// When the overview was made, RFC 3339.
    pub made: String,
    /// Program and version.
    pub program: &'static str,
    /// Location of the target, without secrets.
    pub target: String,
    /// Age up to which data count as current, seconds.
    pub current_for_seconds: u64,
    /// Number of selected tables by state.
    pub counts: Counts,
    /// Disk space of the selected tables.
    pub disk: DiskUse,
    /// Requirements of readers with the selected tables that have them; the highest requirement first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub readers: Vec<ReaderGroup>,
    /// The job starts that the service allows.
    pub job_starts: JobStarts,
    /// The newest failure of a run or a selected table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    /// The selected tables, sorted by name.
    pub tables: Vec<StatusLine>,
    /// Tables that have failed in every run, so that the target does not have them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub never_loaded: Vec<TableRun>,
    /// Runs of this machine, newest first.
    pub runs: Vec<RunRecord>,
}

impl Overview {
    /// Whether a table is failing, or the last run could not start.
    pub fn is_failing(&self) -> bool {
        self.counts.failing > 0 || self.failure_of_last_run().is_some()
    }

    /// Whether a table is behind, or there are no tables.
    pub fn is_behind(&self) -> bool {
        let Counts { current, behind, failing } = self.counts;
        behind > 0 || current + failing == 0
    }

    /// When a new job can bring newer data to the first table, RFC 3339; `None` if all jobs are resumed.
    pub fn newer_data_at(&self) -> Option<&str> {
        let jobs = self.tables.iter().filter_map(|line| line.next_job.as_ref());
        jobs.filter(|job| job.resumes.is_none()).map(|job| job.at.as_str()).min()
    }

    /// The same time, if the next job can start earlier.
    pub fn waits_for_newer_data(&self) -> Option<&str> {
        self.newer_data_at().filter(|at| *at > self.made.as_str() && *at > self.job_starts.next_at.as_str())
    }

    /// Number of unfinished jobs that the next run resumes.
    pub fn resumed_jobs(&self) -> usize {
        let jobs = self.tables.iter().filter_map(|line| line.next_job.as_ref());
        jobs.filter(|job| job.resumes.is_some()).count()
    }

    /// The reason why the last run could not start.
    pub fn failure_of_last_run(&self) -> Option<&Failure> {
        self.last_failure.as_ref().filter(|last| last.table.is_none() && !last.is_over).map(|last| &last.failure)
    }
}

/// Number of tables by state. Tables that were never loaded are failing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Current tables.
    pub current: usize,
    /// Tables that are behind.
    pub behind: usize,
    /// Failing tables.
    pub failing: usize,
}

impl Counts {
    /// All tables.
    pub fn all(self) -> usize {
        self.current + self.behind + self.failing
    }

    pub(super) fn of(lines: &[StatusLine], never_loaded: &[TableRun]) -> Self {
        let count = |state| lines.iter().filter(|line| line.state == state).count();
        Self {
            current: count(Freshness::Current),
            behind: count(Freshness::Behind),
            failing: count(Freshness::Failing) + never_loaded.len(),
        }
    }
}

/// Tables with the same requirement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReaderGroup {
    /// Requirements of readers.
    #[serde(flatten)]
    pub reader: ReaderRequirement,
    /// The tables.
    pub tables: Vec<String>,
}

/// A failure in the run history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LastFailure {
    /// When the run started, RFC 3339.
    pub at: String,
    /// The table; `None` if the run could not start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Whether a later run succeeded.
    pub is_over: bool,
    /// The failure.
    pub failure: Failure,
}

impl StatusLine {
    /// `namespace.table`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.namespace, self.table)
    }

    /// The sum over all tables whose value is known; `None` if there are none.
    pub(crate) fn total(lines: &[StatusLine], of: fn(&StatusLine) -> Option<u64>) -> Option<u64> {
        lines.iter().filter_map(of).reduce(|one, other| one + other)
    }

    pub(in crate::ops) fn table_ref(&self) -> TableRef {
        TableRef::new(self.namespace.as_str(), self.table.as_str())
    }
}

#[cfg(test)]
impl StatusLine {
    /// A table of `canvas` that is behind.
    pub(crate) fn example(table: &str) -> Self {
        Self {
            namespace: "canvas".into(),
            table: table.into(),
            state: Freshness::Behind,
            rows: None,
            data_as_of: "2026-01-01T00:00:00Z".into(),
            age_seconds: 0,
            schema_version: 1,
            files: None,
            bytes: None,
            last_run: None,
            version: None,
            protocol: None,
            kept_as: None,
            failure: None,
            reason: None,
            catalog_failure: None,
            last_tried: None,
            next_job: None,
            stored_bytes: None,
            growth: None,
            reader: None,
            description: None,
            columns: Vec::new(),
            past: Vec::new(),
        }
    }
}

#[cfg(test)]
impl Overview {
    /// An overview without tables and runs.
    pub(crate) fn example(made: &str) -> Self {
        Self {
            made: made.into(),
            program: "daplake",
            target: "file:///lake/".into(),
            current_for_seconds: 43_200,
            counts: Counts::default(),
            disk: DiskUse::default(),
            readers: Vec::new(),
            job_starts: JobStarts { per_minute: 5, recent: 0, next_at: made.into(), seconds_for_all: 0 },
            last_failure: None,
            tables: Vec::new(),
            never_loaded: Vec::new(),
            runs: Vec::new(),
        }
    }
}

/// The growth within the last 7 days, or since the first known size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Growth {
    /// Since when, RFC 3339.
    pub since: String,
    /// Rows more than then; negative if there are fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    /// Bytes more than then; negative if there are fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
}

impl Growth {
    /// The sum; since the earliest time.
    pub(in crate::ops) fn sum<'a>(all: impl Iterator<Item = &'a Growth>) -> Option<Growth> {
        let add = |one: Option<i64>, other: Option<i64>| match (one, other) {
            (None, None) => None,
            (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
        };
        all.cloned().reduce(|one, other| Growth {
            since: one.since.min(other.since),
            rows: add(one.rows, other.rows),
            bytes: add(one.bytes, other.bytes),
        })
    }
}

/// The job starts that the service allows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobStarts {
    /// Job starts per minute that the service allows.
    pub per_minute: u32,
    /// Jobs that this machine started within the last minute.
    pub recent: usize,
    /// When the next job may start, RFC 3339.
    pub next_at: String,
    /// Shortest time in which the jobs of all tables can start, seconds.
    pub seconds_for_all: u64,
}

/// The next job of a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NextJob {
    /// When a job may start and can bring newer data, RFC 3339.
    pub at: String,
    /// Id of an unfinished job that the next run of this machine resumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumes: Option<String>,
}

/// Disk space that the tables of a target take.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DiskUse {
    /// Bytes of the current data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Bytes of all files, with those of older versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// Free bytes of the disk, for local folders on Linux and macOS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// The growth of the current data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
}
