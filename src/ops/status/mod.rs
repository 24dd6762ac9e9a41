//! `status`: the tables of a target, the age of their data, why tables are behind, and the last runs. Text, JSON and the status page show the
//! same values.

mod disk;
mod growth;
mod jobs;
mod reason;
mod types;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::jobs::Jobs;
use self::reason::{LastTry, last_tries, why_behind};
pub use self::types::{
    Counts, DiskUse, Freshness, Growth, JobStarts, LastFailure, NextJob, Overview, Point, ReaderGroup, StatusLine,
};
use super::Selection;
use super::catalog::CatalogRecord;
use super::runs::{RunHistory, RunLog};
use crate::error::{ErrorContext, Result};
use crate::model::{Namespace, TableRef, Timestamp};
use crate::sink::{ReaderRequirement, Sink};
use futures::{StreamExt, TryStreamExt};

/// Data up to this age count as current: the service refreshes every four hours, so two refreshes may be missed.
const CURRENT_FOR: Duration = Duration::from_secs(12 * 3600);
/// Tables that are read at the same time.
const TABLES_AT_ONCE: usize = 4;

/// Request for an [`overview`].
#[derive(Debug, Clone)]
pub struct OverviewRequest {
    /// The target.
    pub sink: Arc<dyn Sink>,
    /// Namespaces; empty: all.
    pub namespaces: Vec<String>,
    /// Names and patterns of tables; empty: all.
    pub tables: Vec<String>,
    /// States of the returned tables; empty: all. The totals are of all selected tables.
    pub states: Vec<Freshness>,
    /// The run history. Sizes of tables are recorded there.
    pub runs: Option<RunLog>,
    /// Folder with the journals of jobs.
    pub jobs: Option<PathBuf>,
    /// Maximum number of runs to return.
    pub run_limit: usize,
    /// Age up to which data count as current.
    pub current_for: Duration,
    /// Maximum number of earlier loads to return per table; 0: none.
    pub past_limit: usize,
    /// Whether to return columns and descriptions.
    pub has_columns: bool,
}

impl OverviewRequest {
    /// A request for all tables, without earlier loads and columns.
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self {
            sink,
            namespaces: Vec::new(),
            tables: Vec::new(),
            states: Vec::new(),
            runs: None,
            jobs: None,
            run_limit: 10,
            current_for: CURRENT_FOR,
            past_limit: 0,
            has_columns: false,
        }
    }

    /// The selected tables among those of the target and those that runs could not load.
    async fn selected(&self, tries: &BTreeMap<&str, LastTry<'_>>) -> Result<Vec<TableRef>> {
        let all = |given: &[String]| if given.is_empty() { vec!["all".to_owned()] } else { given.to_vec() };
        let selection = Selection { namespaces: all(&self.namespaces), tables: all(&self.tables), exclude: Vec::new() };
        let mut known = self.sink.list(None).await?;
        for (name, run) in tries {
            let table = name.split_once('.').map(|(namespace, table)| TableRef::new(namespace, table));
            known.extend(table.filter(|table| run.table.failure.is_some() && !known.contains(table)));
        }
        known.sort();
        selection.resolve_among_kept(known)
    }
}

/// The tables of a target in some or all namespaces (empty: all), sorted by name. Reads the state of each table, not its rows.
///
/// The history of runs is not read, so no table is [`Freshness::Failing`], and reasons, jobs and sizes on disk are unknown.
///
/// # Errors
/// Kind `Target` if the target cannot be read.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> daplake::Result<()> {
/// use daplake::ops::{Target, open_sink, status};
/// use daplake::{Engine, EngineOptions};
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let lake = folder.path().to_str().unwrap();
/// let engine = Engine::new(EngineOptions::default())?;
/// let sink = open_sink(&lake.parse::<Target>()?, &engine)?;
/// for table in status(sink.as_ref(), &["canvas".into()]).await? {
///     println!("{} is as of {}, {} seconds old", table.name(), table.data_as_of, table.age_seconds);
/// }
/// # Ok(())
/// # }
/// ```
pub async fn status(sink: &dyn Sink, namespaces: &[String]) -> Result<Vec<StatusLine>> {
    let mut tables = Vec::new();
    if namespaces.is_empty() {
        tables = sink.list(None).await?;
    }
    for namespace in namespaces {
        tables.extend(sink.list(Some(&Namespace::new(namespace))).await?);
    }
    lines(sink, tables, CURRENT_FOR).await
}

/// A target with its tables, their earlier loads, and its runs.
///
/// # Errors
/// Kind `NotFound` for the name of a table that the target does not have.
pub async fn overview(request: &OverviewRequest) -> Result<Overview> {
    let sink = request.sink.as_ref();
    let now = Timestamp::now();
    let history = request.runs.as_ref().map(RunLog::read).transpose()?.unwrap_or_default();
    let tries = last_tries(&history);
    let selected = request.selected(&tries).await?;
    let mut lines = lines(sink, selected.clone(), request.current_for).await?;
    let mut never_loaded = Vec::new();
    for table in &selected {
        let name = table.to_string();
        let Some(tried) = tries.get(name.as_str()) else { continue };
        match lines.iter_mut().find(|line| line.name() == name) {
            Some(line) => {
                line.last_tried = Some(tried.run.start());
                if let Some(failure) = &tried.table.failure {
                    line.state = Freshness::Failing;
                    line.reason = Some(failure.message.clone());
                    line.failure = Some(failure.clone());
                }
            }
            None if tried.table.failure.is_some() => never_loaded.push(tried.table.clone()),
            None => {}
        }
    }
    add_details(request, &history, &mut lines).await?;
    let location = sink.location().to_string();
    let jobs = Jobs::read(request.jobs.as_deref(), &location, now);
    let catalog = request.jobs.as_deref().map(|folder| CatalogRecord::read(folder, &location)).unwrap_or_default();
    for line in &mut lines {
        line.catalog_failure = catalog.failure_of(&line.table_ref()).map(str::to_owned);
        if line.state == Freshness::Behind {
            line.reason = Some(why_behind(line, &history, tries.get(line.name().as_str()).copied(), now));
        }
        line.growth = growth::growth_of(line, &history, now);
        let bookmark = line.data_as_of.parse().unwrap_or(now);
        line.next_job = Some(jobs.next(&line.table_ref(), bookmark));
    }
    if let Some(log) = request.runs.as_ref().filter(|_| request.namespaces.is_empty() && request.tables.is_empty()) {
        growth::record_sizes(log, &history, &lines);
    }
    let mut overview = Overview {
        made: now.whole_seconds().to_string(),
        program: concat!("daplake ", env!("CARGO_PKG_VERSION")),
        target: location,
        current_for_seconds: request.current_for.as_secs(),
        counts: Counts::of(&lines, &never_loaded),
        disk: DiskUse::of(&lines, sink),
        readers: readers(&lines),
        job_starts: jobs.starts(lines.len() + never_loaded.len()),
        last_failure: last_failure(&history, &tries, &selected),
        tables: lines,
        never_loaded,
        runs: history.runs,
    };
    overview.runs.truncate(request.run_limit);
    if !request.states.is_empty() {
        overview.tables.retain(|line| request.states.contains(&line.state));
        overview.never_loaded.retain(|_| request.states.contains(&Freshness::Failing));
    }
    Ok(overview)
}

/// Adds what costs calls to the target: earlier loads and sizes on disk. Removes columns that were not requested.
async fn add_details(request: &OverviewRequest, history: &RunHistory, lines: &mut [StatusLine]) -> Result<()> {
    let sink = request.sink.as_ref();
    let of_one = |table: TableRef| async move {
        let stored = match sink.capabilities().lake {
            Some(lake) => Some(lake.stored_bytes(&table).await.with_field("table", &table)?),
            None => None,
        };
        let past = match request.past_limit {
            0 => Vec::new(),
            limit => growth::past_of(sink, history, &table, limit).await.with_field("table", &table)?,
        };
        Ok::<_, crate::error::Error>((stored, past))
    };
    let tables: Vec<TableRef> = lines.iter().map(StatusLine::table_ref).collect();
    let details: Vec<_> = futures::stream::iter(tables).map(of_one).buffered(TABLES_AT_ONCE).try_collect().await?;
    for (line, (stored, past)) in lines.iter_mut().zip(details) {
        (line.stored_bytes, line.past) = (stored, past);
        if !request.has_columns {
            (line.columns, line.description) = (Vec::new(), None);
        }
    }
    Ok(())
}

/// Requirements of readers, the highest first.
fn readers(lines: &[StatusLine]) -> Vec<ReaderGroup> {
    let mut groups: BTreeMap<&ReaderRequirement, Vec<String>> = BTreeMap::new();
    for line in lines {
        if let Some(reader) = &line.reader {
            groups.entry(reader).or_default().push(line.name());
        }
    }
    groups.into_iter().rev().map(|(reader, tables)| ReaderGroup { reader: reader.clone(), tables }).collect()
}

/// The newest failure of a whole run or of a selected table.
fn last_failure(history: &RunHistory, tries: &BTreeMap<&str, LastTry<'_>>, selected: &[TableRef]) -> Option<LastFailure> {
    let is_selected = |name: &str| selected.iter().any(|table| table.to_string() == name);
    let mut has_succeeded = false;
    for run in &history.runs {
        let at = run.start();
        if let Some(failure) = &run.failure {
            return Some(LastFailure { at, table: None, is_over: has_succeeded, failure: failure.clone() });
        }
        let failed = run.tables.iter().filter_map(|table| Some((table, table.failure.as_ref()?)));
        if let Some((table, failure)) = failed.into_iter().find(|(table, _)| is_selected(&table.table)) {
            let is_over = tries.get(table.table.as_str()).is_some_and(|last| last.table.failure.is_none());
            return Some(LastFailure { at, table: Some(table.table.clone()), is_over, failure: failure.clone() });
        }
        has_succeeded |= run.seconds.is_some();
    }
    None
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
                reason: None,
                catalog_failure: None,
                last_tried: None,
                next_job: None,
                stored_bytes: None,
                growth: None,
                reader: status.reader,
                description: status.description,
                columns: status.columns,
                past: Vec::new(),
            }
        }))
    };
    let found: Vec<Option<StatusLine>> =
        futures::stream::iter(tables).map(of_one).buffered(TABLES_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Failure, RunRecord, TableRun};

    fn failure(message: &str) -> Option<Failure> {
        Some(Failure { message: message.to_owned(), ..Failure::default() })
    }

    #[test]
    fn the_last_failure_is_over_after_a_success() {
        let run = |outcome: &str, message: Option<&str>| RunRecord {
            seconds: Some(1.0),
            tables: vec![TableRun {
                table: "canvas.users".into(),
                outcome: outcome.into(),
                failure: message.and_then(failure),
                ..TableRun::default()
            }],
            ..RunRecord::default()
        };
        let whole = RunRecord { seconds: Some(0.0), failure: failure("no login"), ..RunRecord::default() };
        let users = [TableRef::new("canvas", "users")];
        let found = |runs: Vec<RunRecord>| {
            let history = RunHistory { runs, counted: Vec::new() };
            let found = last_failure(&history, &last_tries(&history), &users)?;
            Some((found.table, found.is_over, found.failure.message))
        };
        let of_users = |is_over, message: &str| Some((Some("canvas.users".to_owned()), is_over, message.to_owned()));
        let (good, bad) = (run("loaded", None), run("failed", Some("bad row")));
        assert_eq!(found(vec![good.clone()]), None);
        assert_eq!(found(vec![bad.clone(), good.clone()]), of_users(false, "bad row"));
        assert_eq!(found(vec![good.clone(), bad.clone()]), of_users(true, "bad row"));
        assert_eq!(found(vec![whole.clone(), bad]), Some((None, false, "no login".to_owned())));
        assert_eq!(found(vec![good, whole]), Some((None, true, "no login".to_owned())));
    }

    #[test]
    fn readers_are_grouped_by_requirement() {
        let with = |table: &str, version, features: &[&str]| StatusLine {
            reader: Some(ReaderRequirement { version, features: features.iter().map(|name| (*name).to_owned()).collect() }),
            ..StatusLine::example(table)
        };
        let groups =
            readers(&[with("a", 1, &[]), with("b", 3, &["deletionVectors"]), with("c", 1, &[]), StatusLine::example("d")]);
        let found: Vec<(i64, usize)> = groups.iter().map(|group| (group.reader.version, group.tables.len())).collect();
        assert_eq!(found, [(3, 1), (1, 2)]);
    }
}
