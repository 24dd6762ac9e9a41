//! `status`: the tables of a target, the age of their data, and the last runs. Text, JSON and the status page show the same values.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use super::runs::{Failure, RunHistory, RunLog, RunRecord, TableRun, rows_over_time};
use crate::error::{ErrorContext, Result};
use crate::model::{Namespace, TableRef, Timestamp};
use crate::sink::Sink;

/// Data up to this age count as current: the service refreshes every four hours, so two refreshes may be missed.
const CURRENT_FOR: Duration = Duration::from_secs(12 * 3600);
/// Tables that are read at the same time.
const TABLES_AT_ONCE: usize = 4;
/// Interval at which row counts are recorded, microseconds.
const COUNT_INTERVAL_MICROS: i64 = 3600 * 1_000_000;

/// State of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
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
    /// Rows, if the target knows.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The table over time, oldest first; empty unless requested.
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

/// Request for an [`overview`].
#[derive(Debug, Clone)]
pub struct OverviewRequest {
    /// The target.
    pub sink: Arc<dyn Sink>,
    /// Namespaces; empty: all.
    pub namespaces: Vec<String>,
    /// The run history. Row counts of targets without a load history are recorded there.
    pub runs: Option<RunLog>,
    /// Most runs to return.
    pub run_limit: usize,
    /// Age up to which data count as current.
    pub current_for: Duration,
    /// Most earlier loads to return per table; 0: none.
    pub past_limit: usize,
}

impl OverviewRequest {
    /// A request for all tables, without earlier loads.
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink, namespaces: Vec::new(), runs: None, run_limit: 10, current_for: CURRENT_FOR, past_limit: 0 }
    }
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
    /// All tables, sorted.
    pub tables: Vec<StatusLine>,
    /// Tables that have failed in every run, so that the target does not have them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub never_loaded: Vec<TableRun>,
    /// Runs of this machine, newest first.
    pub runs: Vec<RunRecord>,
}

/// The tables of a target in some or all namespaces, sorted. Without the run history, no table is [`Freshness::Failing`].
pub async fn status(sink: &dyn Sink, namespaces: &[String]) -> Result<Vec<StatusLine>> {
    let tables = listed(sink, namespaces).await?;
    lines(sink, tables, CURRENT_FOR).await
}

/// A target with its tables, their earlier loads, and its runs.
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
        record_counts(log, &history, &lines);
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

/// The newest run that tried each table.
fn last_tries(history: &RunHistory) -> BTreeMap<&str, &TableRun> {
    let mut tries = BTreeMap::new();
    for run in &history.runs {
        for table in run.tables.iter().filter(|table| !matches!(table.outcome.as_str(), "skipped" | "put_off")) {
            tries.entry(table.table.as_str()).or_insert(table);
        }
    }
    tries
}

/// Earlier loads of a table, from the target if it records them, else from the run history.
async fn past_of(sink: &dyn Sink, history: &RunHistory, table: &TableRef, limit: usize) -> Result<Vec<Point>> {
    let past = match sink.capabilities().lake {
        Some(lake) => lake.load_history(table, limit).await?,
        None => Vec::new(),
    };
    if !past.is_empty() {
        let point = |past: crate::sink::LoadRecord| Point {
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

/// Records the rows of databases, which have no load history, at most once per interval.
fn record_counts(log: &RunLog, history: &RunHistory, lines: &[StatusLine]) {
    let has_history = lines.iter().any(|line| line.version.is_some());
    let last = history.counted.last().and_then(|counted| counted.at.parse::<Timestamp>().ok());
    let is_due = last.is_none_or(|last| Timestamp::now().micros() - last.micros() > COUNT_INTERVAL_MICROS);
    let rows: BTreeMap<String, u64> = lines.iter().filter_map(|line| Some((line.name(), line.rows?))).collect();
    if !has_history && is_due && !rows.is_empty() {
        log.counted(rows);
    }
}
