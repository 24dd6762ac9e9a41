//! The run history: one file of JSON lines per target in the state folder, with the results of runs, and the sizes of tables. Deleting it loses no
//! rows. It contains names, counts and errors, but no values of rows and no secrets.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::report::{Failure, Outcome, Report, TableReport};
use crate::error::{Kind, Result, ResultExt};
use crate::model::{TableRef, Timestamp};

/// Size at which a file loses its older half, bytes.
const MAX_BYTES: u64 = 16 << 20;
/// How long a reader waits for a lock of another process.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The record of a run, for the history and notifications.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRecord {
    /// Id of the run, also in the history of the target.
    pub run_id: String,
    /// When the run started, by the local clock, RFC 3339.
    pub started: String,
    /// Duration. `None`: the run is still running or was killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Location of the target, without secrets.
    pub target: String,
    /// Why the run could not start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The tables, in the order of the selection.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableRun>,
    /// Warnings about the run as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Whether the run ended before all tables were tried.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ended_early: bool,
}

/// One table of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableRun {
    /// `namespace.table`.
    pub table: String,
    /// `loaded`, `unchanged`, `recent`, `put_off`, `failed` or `skipped`.
    pub outcome: String,
    /// `snapshot` or `increment`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Rows of the table after the run, if the target counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Upserts.
    #[serde(skip_serializing_if = "is_zero")]
    pub upserted: u64,
    /// Rows that deletes removed.
    #[serde(skip_serializing_if = "is_zero")]
    pub deleted: u64,
    /// Bytes of data files written, or sent to the database.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes_written: u64,
    /// Seconds of load and commit.
    pub seconds: f64,
    /// Data as of, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_as_of: Option<String>,
    /// The failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Totals of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Selected tables.
    pub tables: u64,
    /// LoadSummary tables.
    pub loaded: u64,
    /// Tables without newer data, including those that were too recent.
    pub unchanged: u64,
    /// Failed tables.
    pub failed: u64,
    /// Tables that were deferred or not tried.
    pub skipped: u64,
    /// Upserts of all tables.
    pub upserted: u64,
    /// Deletes of all tables.
    pub deleted: u64,
    /// Bytes written of all tables.
    pub bytes_written: u64,
}

impl Totals {
    /// Totals of a finished run.
    pub fn of(report: &Report) -> Self {
        let tables = report.tables.iter().map(TableRun::of).collect();
        RunRecord { tables, ..RunRecord::default() }.totals()
    }
}

impl RunRecord {
    /// When the run started, without fractions of a second, RFC 3339.
    pub fn start(&self) -> String {
        self.started.parse::<Timestamp>().map_or_else(|_| self.started.clone(), |at| at.whole_seconds().to_string())
    }

    /// The record of a run that has started.
    pub fn begun(run_id: &str, started: Timestamp, target: &str) -> Self {
        Self { run_id: run_id.to_owned(), started: started.to_string(), target: target.to_owned(), ..Self::default() }
    }

    /// The record of the run after its end.
    #[must_use]
    pub fn ended(self, seconds: f64, result: &Result<Report>) -> Self {
        let seconds = Some(seconds);
        match result {
            Ok(report) => Self {
                seconds,
                tables: report.tables.iter().map(TableRun::of).collect(),
                warnings: report.warnings.clone(),
                ended_early: report.ended_early.is_some(),
                ..self
            },
            Err(error) => Self { seconds, failure: Some(Failure::of(error)), ..self },
        }
    }

    /// Totals of the tables.
    pub fn totals(&self) -> Totals {
        let count = |outcome: &str| self.tables.iter().filter(|table| table.outcome == outcome).count() as u64;
        let sum = |of: fn(&TableRun) -> u64| self.tables.iter().map(of).sum();
        Totals {
            tables: self.tables.len() as u64,
            loaded: count("loaded"),
            unchanged: count("unchanged") + count("recent"),
            failed: count("failed"),
            skipped: count("skipped") + count("put_off"),
            upserted: sum(|table| table.upserted),
            deleted: sum(|table| table.deleted),
            bytes_written: sum(|table| table.bytes_written),
        }
    }

    /// Whether the run or a table failed. A run that has not ended has not failed.
    pub fn has_failed(&self) -> bool {
        self.failure.is_some() || self.tables.iter().any(|table| table.failure.is_some())
    }
}

impl TableRun {
    fn of(report: &TableReport) -> Self {
        let mut run = Self {
            table: report.table.to_string(),
            seconds: report.phases.load + report.phases.commit,
            failure: report.error.as_ref().map(Failure::of),
            ..Self::default()
        };
        match &report.outcome {
            Outcome::Loaded { query, upserted, deleted, rows, bytes_written, bookmark, .. } => Self {
                outcome: "loaded".into(),
                query: Some((*query).to_owned()),
                rows: *rows,
                upserted: *upserted,
                deleted: *deleted,
                bytes_written: *bytes_written,
                data_as_of: Some(bookmark.to_string()),
                ..run
            },
            Outcome::Unchanged { bookmark, .. } => {
                Self { outcome: "unchanged".into(), data_as_of: Some(bookmark.to_string()), ..run }
            }
            Outcome::Failed { kind, message, hint, .. } => {
                run.failure.get_or_insert_with(|| Failure {
                    kind: (*kind).to_owned(),
                    message: message.clone(),
                    hint: hint.clone(),
                    ..Failure::default()
                });
                Self { outcome: "failed".into(), ..run }
            }
            Outcome::Recent { bookmark } => Self { outcome: "recent".into(), data_as_of: Some(bookmark.to_string()), ..run },
            Outcome::Deferred { .. } => Self { outcome: "put_off".into(), ..run },
            Outcome::Skipped => Self { outcome: "skipped".into(), ..run },
        }
    }
}

/// Rows and bytes of tables at one time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counted {
    /// When they were counted, by the local clock, RFC 3339.
    pub at: String,
    /// Rows by `namespace.table`.
    pub rows: BTreeMap<String, u64>,
    /// Bytes by `namespace.table`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bytes: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Begun(RunRecord),
    Ended(RunRecord),
    Counted(Counted),
}

/// The run history of a target.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunHistory {
    /// Runs, newest first.
    pub runs: Vec<RunRecord>,
    /// Row counts, oldest first.
    pub counted: Vec<Counted>,
}

/// The history file of one target. Several processes may use it: lines are written at once, and under a lock.
#[derive(Debug, Clone)]
pub struct RunLog {
    path: PathBuf,
}

impl RunLog {
    /// The file in `folder`, which is created when needed, for the target at the location `target`.
    pub fn new(folder: &Path, target: &str) -> Self {
        Self { path: crate::ops::state_file::path_of(folder, target, "runs") }
    }

    /// Records the start of a run. A failure to write is only logged, as for all records.
    pub fn begun(&self, run: &RunRecord) {
        self.record(&Line::Begun(run.clone()));
    }

    /// Records the end of a run.
    pub fn ended(&self, run: &RunRecord) {
        self.record(&Line::Ended(run.clone()));
    }

    /// Records rows and bytes of tables.
    pub fn counted(&self, rows: BTreeMap<String, u64>, bytes: BTreeMap<String, u64>) {
        self.record(&Line::Counted(Counted { at: Timestamp::now().to_string(), rows, bytes }));
    }

    /// Reads the history. Unreadable lines are skipped; without a file, the history is empty.
    pub fn read(&self) -> Result<RunHistory> {
        let bytes = match read_file(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(RunHistory::default()),
            Err(error) => {
                return Err(error).context(Kind::Io, format!("Cannot read the run history: {}", self.path.display()));
            }
        };
        let mut history = RunHistory::default();
        for line in bytes.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Line::Begun(run)) => history.runs.push(run),
                Ok(Line::Ended(run)) => match history.runs.iter_mut().rev().find(|begun| begun.run_id == run.run_id) {
                    Some(begun) => *begun = run,
                    None => history.runs.push(run),
                },
                Ok(Line::Counted(counted)) => history.counted.push(counted),
                Err(_) => {}
            }
        }
        history.runs.reverse();
        Ok(history)
    }

    fn record(&self, line: &Line) {
        if let Err(error) = self.append(line) {
            tracing::warn!(file = %self.path.display(), %error, "Cannot write the run history");
        }
    }

    fn append(&self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        if let Some(folder) = self.path.parent() {
            crate::ops::journal::make_private(folder)?;
        }
        let mut options = crate::ops::journal::append_options();
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&self.path)?;
        // Without locks, a line is still written at once.
        let _ = file.lock();
        if file.metadata()?.len() + text.len() as u64 > MAX_BYTES {
            shorten(&mut file)?;
        }
        let is_torn = file.metadata()?.len() > 0 && {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            last != *b"\n"
        };
        if is_torn {
            text.insert(0, b'\n');
        }
        file.seek(SeekFrom::End(0))?;
        file.write_all(&text)
    }
}

/// Reads a file. On Windows a lock also blocks readers, for the milliseconds that another process needs to append a line.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    const LOCK_VIOLATION: i32 = 33;
    let started = Instant::now();
    loop {
        match fs::read(path) {
            Err(error) if cfg!(windows) && error.raw_os_error() == Some(LOCK_VIOLATION) && started.elapsed() < LOCK_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

/// Keeps the newer half, from the start of a line. A concurrent reader may see fewer lines, but no torn ones.
fn shorten(file: &mut File) -> io::Result<()> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    let half = bytes.len() / 2;
    let from = bytes[half..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |place| half + place + 1);
    crate::ops::journal::truncate(file)?;
    file.write_all(&bytes[from..])
}

/// Rows of one table over time, from runs and row counts, oldest first.
pub(in crate::ops) fn rows_over_time(history: &RunHistory, table: &TableRef) -> Vec<(Timestamp, u64)> {
    let name = table.to_string();
    let of_runs = history.runs.iter().filter_map(|run| {
        let table = run.tables.iter().find(|line| line.table == name)?;
        Some((table.data_as_of.as_deref()?.parse().ok()?, table.rows?))
    });
    let of_counts = history.counted.iter().filter_map(|counted| Some((counted.at.parse().ok()?, *counted.rows.get(&name)?)));
    let mut points: Vec<(Timestamp, u64)> = of_runs.chain(of_counts).collect();
    points.sort();
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str, rows: u64) -> RunRecord {
        let table = TableRun {
            table: "canvas.users".into(),
            outcome: "loaded".into(),
            rows: Some(rows),
            data_as_of: Some("2026-01-01T00:00:00Z".into()),
            ..TableRun::default()
        };
        RunRecord {
            seconds: Some(2.0),
            tables: vec![table],
            ..RunRecord::begun(id, Timestamp::from_micros(0), "file:///lake/")
        }
    }

    #[test]
    fn runs_are_kept_by_target_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let log = RunLog::new(&folder.path().join("runs"), "file:///lake/");
        assert_eq!(log.read().unwrap(), RunHistory::default());
        for id in ["a", "b"] {
            log.begun(&RunRecord::begun(id, Timestamp::from_micros(0), "file:///lake/"));
        }
        log.ended(&run("a", 7));
        log.counted(BTreeMap::from([("canvas.users".to_owned(), 9)]), BTreeMap::new());
        let history = log.read().unwrap();
        let ids: Vec<&str> = history.runs.iter().map(|run| run.run_id.as_str()).collect();
        assert_eq!(ids, ["b", "a"]);
        assert_eq!((history.runs[0].seconds, history.runs[1].seconds), (None, Some(2.0)), "one of them did not end");
        let rows: Vec<u64> = rows_over_time(&history, &TableRef::new("canvas", "users")).iter().map(|point| point.1).collect();
        assert_eq!(rows, [7, 9]);
        assert_eq!(RunLog::new(&folder.path().join("runs"), "file:///other/").read().unwrap(), RunHistory::default());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&log.path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_torn_or_foreign_line_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let log = RunLog::new(folder.path(), "t");
        log.ended(&run("a", 1));
        let mut bytes = fs::read(&log.path).unwrap();
        bytes.extend_from_slice(b"nonsense\n{\"ended\":{\"run_id\":\"torn");
        fs::write(&log.path, &bytes).unwrap();
        log.ended(&run("b", 2));
        let ids: Vec<String> = log.read().unwrap().runs.into_iter().map(|run| run.run_id).collect();
        assert_eq!(ids, ["b", "a"]);
    }

    #[test]
    fn a_long_history_loses_its_older_half() {
        let folder = tempfile::tempdir().unwrap();
        let log = RunLog::new(folder.path(), "t");
        let mut line = serde_json::to_vec(&Line::Ended(run("old", 1))).unwrap();
        line.push(b'\n');
        fs::write(&log.path, line.repeat(MAX_BYTES as usize / line.len())).unwrap();
        log.ended(&run("new", 2));
        assert!(fs::metadata(&log.path).unwrap().len() < MAX_BYTES * 6 / 10);
        assert_eq!(log.read().unwrap().runs[0].run_id, "new");
    }
}
