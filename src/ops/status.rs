//! `status`: what a target holds, table by table, how fresh it is, and how its runs ended. It draws nothing; text, JSON and the
//! page are made from the same values.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use super::runs::{Failure, RunHistory, RunLog, RunRecord, TableRun, rows_over_time};
use crate::error::{ErrorContext, Result};
use crate::model::{Namespace, TableRef, Timestamp};
use crate::sink::Sink;

/// Data of this age are still current: the service refreshes every four hours, so two refreshes may be missed.
const CURRENT_FOR: Duration = Duration::from_secs(12 * 3600);
/// Tables that are asked for at once.
const TABLES_AT_ONCE: usize = 4;
/// Counts are noted again after so long.
const NOTE_COUNTS_EVERY_MICROS: i64 = 3600 * 1_000_000;

/// How a table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Freshness {
    /// Its data are young enough.
    Current,
    /// Its data are older than they should be.
    Behind,
    /// The last run that tried it failed; it is as it was before.
    Failing,
}

impl Freshness {
    /// One word for people.
    pub fn word(self) -> &'static str {
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
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub table: String,
    /// How it stands.
    pub state: Freshness,
    /// Rows, where the target knows.
    pub rows: Option<u64>,
    /// Data as of, RFC 3339.
    pub data_as_of: String,
    /// Age of the data in seconds, by the local clock.
    pub age_seconds: i64,
    /// Version of the table schema.
    pub schema_version: i64,
    /// Data files.
    pub files: Option<u64>,
    /// Bytes of these.
    pub bytes: Option<u64>,
    /// When it was last committed, by the target's clock.
    pub last_run: Option<String>,
    /// Version of the target's own log.
    pub version: Option<i64>,
    /// Reader and writer version of the Delta protocol and its features, such as `3/7: deletionVectors`.
    pub protocol: Option<String>,
    /// Mode of the table, what deletes do, partitions: `current`, `current, deletes marked`, `history by day(timestamp)`.
    pub kept_as: Option<String>,
    /// Why the last run failed for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The table over time, oldest first; empty unless it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Point>,
}

/// A table at a moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Data as of, RFC 3339.
    pub at: String,
    /// Rows.
    pub rows: Option<u64>,
    /// Bytes of data files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Upserts of the load that led there, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upserted: Option<u64>,
    /// Deletes of the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<u64>,
}

/// What to find out.
#[derive(Debug, Clone)]
pub struct OverviewRequest {
    /// The target.
    pub sink: Arc<dyn Sink>,
    /// Only these; all when empty.
    pub namespaces: Vec<String>,
    /// The history of runs. Counts that the target does not remember by itself are noted there.
    pub runs: Option<RunLog>,
    /// So many runs, newest first.
    pub run_limit: usize,
    /// Older data count as behind.
    pub current_for: Duration,
    /// So many loads of each table's past; 0: none.
    pub past_limit: usize,
}

impl OverviewRequest {
    /// Of all tables, without their past.
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink, namespaces: Vec::new(), runs: None, run_limit: 10, current_for: CURRENT_FOR, past_limit: 0 }
    }
}

/// A whole target.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overview {
    /// When this was found out, RFC 3339.
    pub made: String,
    /// Program and version.
    pub program: &'static str,
    /// Where the tables are kept, fit for messages.
    pub target: String,
    /// Older data count as behind, seconds.
    pub current_for_seconds: u64,
    /// All tables, sorted.
    pub tables: Vec<StatusLine>,
    /// Tables that failed whenever they were tried, so that the target has nothing of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub never_loaded: Vec<TableRun>,
    /// Runs from this machine, newest first.
    pub runs: Vec<RunRecord>,
}

/// All tables of a target, sorted; of the given namespaces or of all. Without the history of runs none is failing.
pub async fn status(sink: &dyn Sink, namespaces: &[String]) -> Result<Vec<StatusLine>> {
    let tables = listed(sink, namespaces).await?;
    lines(sink, tables, CURRENT_FOR).await
}

/// A target as a whole: its tables, their past, the runs.
pub async fn overview(request: &OverviewRequest) -> Result<Overview> {
    let sink = request.sink.as_ref();
    let tables = listed(sink, &request.namespaces).await?;
    let mut lines = lines(sink, tables, request.current_for).await?;
    let history = request.runs.as_ref().map(RunLog::read).transpose()?.unwrap_or_default();
    let mut never_loaded = Vec::new();
    for (name, run) in last_tries(&history) {
        let Some(failure) = &run.failure else { continue };
        match lines.iter_mut().find(|line| line.name() == name) {
            Some(line) => {
                line.state = Freshness::Failing;
                line.failure = Some(failure.clone());
            }
            None if request.namespaces.is_empty() => never_loaded.push(run.clone()),
            None => {}
        }
    }
    if request.past_limit > 0 {
        let pasts: Vec<Vec<Point>> = futures::stream::iter(lines.iter().map(StatusLine::table_ref))
            .map(|table| {
                let history = &history;
                async move { past_of(sink, history, &table, request.past_limit).await.with_field("table", &table) }
            })
            .buffered(TABLES_AT_ONCE)
            .try_collect()
            .await?;
        for (line, past) in lines.iter_mut().zip(pasts) {
            line.past = past;
        }
    }
    if let Some(log) = &request.runs {
        note_counts(log, &history, &lines);
    }
    let mut runs = history.runs;
    runs.truncate(request.run_limit);
    Ok(Overview {
        made: Timestamp::from_micros(Timestamp::now().micros() / 1_000_000 * 1_000_000).to_string(),
        program: concat!("daplake ", env!("CARGO_PKG_VERSION")),
        target: sink.location().to_string(),
        current_for_seconds: request.current_for.as_secs(),
        tables: lines,
        never_loaded,
        runs,
    })
}

impl StatusLine {
    /// `namespace.table`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.namespace, self.table)
    }

    fn table_ref(&self) -> TableRef {
        TableRef::new(self.namespace.as_str(), self.table.as_str())
    }
}

async fn listed(sink: &dyn Sink, namespaces: &[String]) -> Result<Vec<TableRef>> {
    if namespaces.is_empty() {
        return sink.list(None).await;
    }
    let mut tables = Vec::new();
    for namespace in namespaces {
        tables.extend(sink.list(Some(&Namespace::new(namespace))).await?);
    }
    Ok(tables)
}

async fn lines(sink: &dyn Sink, tables: Vec<TableRef>, current_for: Duration) -> Result<Vec<StatusLine>> {
    let now = Timestamp::now();
    let of_one = |table: TableRef| async move {
        let status = sink.status(&table).await.with_field("table", &table)?;
        Ok::<_, crate::error::Error>(status.map(|status| {
            let age_seconds = (now.micros() - status.bookmark.at.micros()) / 1_000_000;
            let is_current = u64::try_from(age_seconds).unwrap_or(0) <= current_for.as_secs();
            StatusLine {
                namespace: table.namespace.to_string(),
                table: table.table.clone(),
                state: if is_current { Freshness::Current } else { Freshness::Behind },
                rows: status.rows,
                data_as_of: status.bookmark.at.to_string(),
                age_seconds,
                schema_version: status.bookmark.schema_version,
                files: status.files,
                bytes: status.bytes,
                last_run: status.last_commit.map(|time| time.to_string()),
                version: status.version,
                protocol: status.protocol,
                kept_as: status.kept_as,
                failure: None,
                past: Vec::new(),
            }
        }))
    };
    let found: Vec<Option<StatusLine>> =
        futures::stream::iter(tables).map(of_one).buffered(TABLES_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// For each table the newest run that tried it.
fn last_tries(history: &RunHistory) -> BTreeMap<&str, &TableRun> {
    let mut tries = BTreeMap::new();
    for run in &history.runs {
        for table in run.tables.iter().filter(|table| !matches!(table.outcome.as_str(), "skipped" | "put_off")) {
            tries.entry(table.table.as_str()).or_insert(table);
        }
    }
    tries
}

/// From the target itself where it remembers, else from the runs.
async fn past_of(sink: &dyn Sink, history: &RunHistory, table: &TableRef, limit: usize) -> Result<Vec<Point>> {
    let past = sink.past(table, limit).await?;
    if !past.is_empty() {
        let point = |past: crate::sink::Past| Point {
            at: past.at.to_string(),
            rows: past.rows,
            bytes: past.bytes,
            upserted: Some(past.upserted),
            deleted: Some(past.deleted),
        };
        return Ok(past.into_iter().map(point).collect());
    }
    let points = rows_over_time(history, table);
    let newest = points.len().saturating_sub(limit);
    let point = |(at, rows): &(Timestamp, u64)| Point {
        at: at.to_string(),
        rows: Some(*rows),
        bytes: None,
        upserted: None,
        deleted: None,
    };
    Ok(points[newest..].iter().map(point).collect())
}

/// Databases do not remember how many rows there were: whoever looks leaves a note, now and then.
fn note_counts(log: &RunLog, history: &RunHistory, lines: &[StatusLine]) {
    let remembers_itself = lines.iter().any(|line| line.version.is_some());
    let last = history.counted.last().and_then(|counted| counted.at.parse::<Timestamp>().ok());
    let is_due = last.is_none_or(|last| Timestamp::now().micros() - last.micros() > NOTE_COUNTS_EVERY_MICROS);
    let rows: BTreeMap<String, u64> = lines.iter().filter_map(|line| Some((line.name(), line.rows?))).collect();
    if !remembers_itself && is_due && !rows.is_empty() {
        log.counted(rows);
    }
}
