//! `sync`: creates what is missing at a target and updates what is there, many tables at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Mutex, Semaphore, watch};
use tracing::Instrument;

use super::bad_rows::BadRowFile;
use super::budget::{Budget, Halt};
use super::names::{NameOptions, Names};
use super::order::{Order, Turn};
use super::replicate::{Done, Replicator};
use super::report::{Outcome, Phases, Report, TableReport};
use super::select::Resolved;
use super::steps::{Steps, SyncObserver};
use super::stop::Reason;
use super::{Helpers, Journal, Selection, Stop};
use crate::api::Client;
use crate::decode::OutOfRange;
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::fetch::UnpackLimits;
use crate::model::{Format, Mode, TableRef, Timestamp};
use crate::panics;
use crate::scan::ScanOptions;
use crate::schema::{Nested, TableRules};
use crate::sink::Sink;
use crate::stage::Engine;

/// What to do when the service gives no increments since the bookmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSnapshotRequired {
    /// The table fails with kind `SnapshotRequired` (or `OutOfRange`) and stays as it is.
    Fail,
    /// A new snapshot replaces the table in one step; `web_logs` is merged.
    Resnapshot,
}

/// What has to be known of a table before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Demand {
    /// Nothing: new tables are made, others brought up to date.
    #[default]
    Nothing,
    /// It must not be there yet, as for `initdb`.
    Absent,
    /// It must be there, as for `syncdb`.
    Present,
}

/// What to do about names that the service does not list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unlisted {
    /// They fail without being tried.
    #[default]
    Refuse,
    /// They are tried all the same. Without patterns the list is not asked for.
    Try,
}

/// Everything a sync needs, ready to use.
#[derive(Clone)]
pub struct SyncRequest {
    /// The service.
    pub client: Client,
    /// Where the tables are kept.
    pub sink: Arc<dyn Sink>,
    /// Memory and spill.
    pub engine: Engine,
    /// Which tables.
    pub selection: Selection,
    /// Format of the downloaded objects.
    pub format: Format,
    /// Mode of tabular formats; `None` leaves it to the server.
    pub mode: Option<Mode>,
    /// Take new snapshots even where increments would do.
    pub resnapshot: bool,
    /// See [`OnSnapshotRequired`].
    pub on_snapshot_required: OnSnapshotRequired,
    /// See [`Demand`].
    pub demand: Demand,
    /// See [`Unlisted`].
    pub unlisted: Unlisted,
    /// Form of nested columns.
    pub nested: Nested,
    /// Columns, deletes, modes and partitions of single tables.
    pub rules: TableRules,
    /// How names of tables in `rules` and in the selection's exclusions are checked.
    pub names: NameOptions,
    /// Where unreadable rows are set aside; `None`: such a row fails its table.
    pub bad_rows: Option<PathBuf>,
    /// Tables that load at once, at least 1.
    pub concurrency: usize,
    /// Objects of one table that are read at once, at least 1.
    pub object_concurrency: usize,
    /// Id of the run, in the report and in the target's history. A request that is used again needs a new one.
    pub run_id: String,
    /// Longest line of an object, bytes.
    pub max_line: usize,
    /// What an object may unpack to.
    pub unpack: UnpackLimits,
    /// What to do with times and dates outside the years 1 to 9999.
    pub out_of_range: OutOfRange,
    /// Where the jobs of a run are noted, so that the next one re-attaches to those that live; `None`: nowhere. Of two runs at once
    /// with the same journal, the second waits for each table that the first is at work on.
    pub journal: Option<Journal>,
    /// Forget what an earlier run noted.
    pub fresh: bool,
    /// Time after which the run has ended, with what it has done by then; nothing is begun shortly before. Tables that were done
    /// longest ago come first then.
    pub time_budget: Option<Duration>,
    /// Leave tables alone whose data are younger than what lies between two refreshes of the service.
    pub skip_recent: Option<Refresh>,
    /// A wish to stop.
    pub stop: Stop,
    /// Other processes that do the work of loads where they can; `None`: this one does all.
    pub helpers: Option<Arc<dyn Helpers>>,
    /// Told when tables start and end.
    pub observer: Option<SyncObserver>,
}

/// How often the service refreshes its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Every 4 hours, `new_quizzes` every 8.
    AsDocumented,
    /// So often.
    Every(Duration),
}

impl Refresh {
    /// Time between two refreshes of a table.
    pub fn interval(self, table: &TableRef) -> Duration {
        const HOUR: Duration = Duration::from_secs(3600);
        match self {
            Refresh::Every(interval) => interval,
            Refresh::AsDocumented if table.namespace.as_str() == "new_quizzes" => 8 * HOUR,
            Refresh::AsDocumented => 4 * HOUR,
        }
    }
}

impl SyncRequest {
    /// With the defaults of the command line: JSONL, typed nested columns, two tables at once, a new snapshot when the service
    /// demands one.
    pub fn new(client: Client, sink: Arc<dyn Sink>, engine: Engine, selection: Selection) -> Self {
        Self {
            client,
            sink,
            engine,
            selection,
            format: Format::Jsonl,
            mode: None,
            resnapshot: false,
            on_snapshot_required: OnSnapshotRequired::Resnapshot,
            demand: Demand::Nothing,
            unlisted: Unlisted::Refuse,
            nested: Nested::Typed,
            rules: TableRules::default(),
            names: NameOptions::default(),
            bad_rows: None,
            concurrency: 2,
            object_concurrency: 2,
            run_id: uuid::Uuid::new_v4().to_string(),
            max_line: 256 << 20,
            unpack: UnpackLimits::default(),
            out_of_range: OutOfRange::Fail,
            journal: None,
            fresh: false,
            time_budget: None,
            skip_recent: None,
            stop: Stop::default(),
            helpers: None,
            observer: None,
        }
    }
}

/// Tables at work in any way at once, such as waiting for their jobs: a file is open for each. At the service's pace of 5 job starts a
/// minute, fewer are.
const MAX_ACTIVE: usize = 64;
/// Tables at once whose state at the target is read, for which files or connections are opened.
const MAX_LOOKING: usize = 16;

/// Brings all chosen tables up to date. Single tables may fail: see the report. An error means that nothing was tried (target,
/// login, none of the tables exists). Safe to drop at any await: every table is at its old or its new bookmark.
pub async fn sync(request: SyncRequest) -> Result<Report> {
    let span = crate::progress::run(&request.run_id);
    Box::pin(bring_up_to_date(request)).instrument(span).await
}

async fn bring_up_to_date(request: SyncRequest) -> Result<Report> {
    let begun = Instant::now();
    let started = Timestamp::now();
    let budget = Budget::new(request.time_budget);
    let location = request.sink.location().to_string();
    request.rules.check()?;
    let stop = request.stop.clone();
    let prepared = tokio::select! {
        biased;
        () = stop.asked() => Err(Error::new(Kind::Cancelled, "Interrupted before anything was begun")),
        prepared = prepare(&request, &location) => prepared,
    };
    let (bad_rows, Resolved { tables, failed, vanished, .. }) = prepared?;
    let warnings: Vec<String> = vanished
        .iter()
        .map(|table| format!("{table} is no longer listed by the service; the target keeps it as it was"))
        .collect();
    for warning in &warnings {
        tracing::warn!("{warning}");
    }

    let run_id = request.run_id;
    let (batch_rows, batch_bytes) = (request.engine.batch_rows(1), request.engine.batch_bytes());
    let temp_dir = request.engine.folder().to_owned();
    let replicator = Replicator {
        client: request.client,
        sink: request.sink,
        engine: request.engine,
        format: request.format,
        mode: request.mode,
        resnapshot: request.resnapshot,
        on_snapshot_required: request.on_snapshot_required,
        demand: request.demand,
        scan: ScanOptions {
            partitions: request.object_concurrency.max(1),
            batch_rows,
            batch_bytes,
            max_line: request.max_line,
            unpack: request.unpack,
            nested: request.nested,
            out_of_range: request.out_of_range,
            temp_dir,
        },
        rules: request.rules,
        bad_rows,
        loads: Semaphore::new(request.concurrency.max(1)),
        active: Semaphore::new(MAX_ACTIVE),
        looking: Semaphore::new(MAX_LOOKING),
        run_id: run_id.clone(),
        journal: request.journal,
        fresh: request.fresh,
        skip_recent: request.skip_recent,
        location: location.clone(),
        halt: watch::Sender::new(Halt::No),
        budget,
        helpers: request.helpers,
        steps: Steps::new(request.observer, tables.iter().chain(failed.iter().map(|(table, _)| table))),
        lists: Mutex::default(),
    };
    let (tables, order) = match request.time_budget {
        Some(_) => {
            let order = Order::of(tables.len());
            (longest_ago_first(&replicator, tables).await, order)
        }
        None => (tables, Order::any()),
    };
    let unknown = failed.into_iter().map(|(table, error)| {
        let _span = crate::progress::step("table", &table).entered();
        let report = failure(table, error);
        replicator.steps.ended(&report);
        report
    });
    let unknown: Vec<TableReport> = unknown.collect();
    let mut tables = watched(&replicator, &stop, run(&replicator, &stop, tables, &order)).await;
    tables.extend(unknown);
    if tables.iter().any(|line| matches!(line.outcome, Outcome::Loaded { .. }))
        && let Err(error) = replicator.sink.write_views().await
    {
        tracing::warn!(error = %error, "The file of views could not be written; the tables are right");
    }
    let ended_early = tables.iter().find_map(|table| match table.outcome {
        Outcome::PutOff { reason } => Some(reason),
        _ => None,
    });
    Ok(Report {
        run_id,
        started: started.to_string(),
        seconds: begun.elapsed().as_secs_f64(),
        target: location,
        failure: None,
        tables,
        warnings,
        ended_early,
    })
}

async fn prepare(request: &SyncRequest, location: &str) -> Result<(Option<BadRowFile>, Resolved)> {
    request.sink.check().await.with_field("target", location)?;
    let bad_rows = request.bad_rows.as_deref().map(BadRowFile::open).transpose()?;
    let selection = &request.selection;
    let (resolved, listing) = match request.unlisted {
        Unlisted::Refuse => {
            let held = match selection.looks_at_held() {
                true => request.sink.list(None).await.with_field("target", location)?,
                false => Vec::new(),
            };
            let mut resolved = selection.resolve(&request.client, &held).await?;
            let listing = std::mem::take(&mut resolved.listing);
            (resolved, Some(listing))
        }
        Unlisted::Try => {
            let resolved = selection.resolve_all(&request.client).await?;
            (resolved, selection.listing_for_exclusions(&request.client).await?)
        }
    };
    if let Some(listing) = &listing {
        let mut names = Names::new(&request.client, request.sink.as_ref(), listing, &request.names);
        names.check(&request.rules, &selection.exclude).await?;
    }
    Ok((bad_rows, resolved))
}

/// With little time the same tables would always be the ones that are left over; so those come first whose turn is longest ago.
async fn longest_ago_first(replicator: &Replicator, tables: Vec<TableRef>) -> Vec<TableRef> {
    let Some(journal) = replicator.journal.clone() else { return tables };
    let questions: Vec<String> = tables.iter().map(|table| replicator.page_key(table)).collect();
    let sorting = tokio::task::spawn_blocking(move || {
        let mut dated: Vec<(Option<i64>, TableRef)> =
            tables.into_iter().zip(questions).map(|(table, question)| (journal.last_done(&table, &question), table)).collect();
        dated.sort_by_key(|(done, _)| *done);
        dated.into_iter().map(|(_, table)| table).collect()
    });
    // It reads small files and cannot fail but by a panic, which is a bug to be seen.
    sorting.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Raises the halt when it is time, or when somebody wants it.
async fn watched<T>(replicator: &Replicator, stop: &Stop, work: impl Future<Output = T>) -> T {
    let raising = async {
        let reason = tokio::select! {
            () = replicator.budget.nearly_over() => Reason::TimeBudget,
            () = stop.asked() => Reason::Stopped,
        };
        replicator.raise(Halt::For(reason));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        done = work => done,
        () = raising => unreachable!("it never ends"),
    }
}

/// All tables at once: the client paces their job starts, the loads share permits.
async fn run(replicator: &Replicator, stop: &Stop, tables: Vec<TableRef>, order: &Order) -> Vec<TableReport> {
    let total = tables.len();
    let mut running: FuturesUnordered<_> = tables
        .into_iter()
        .enumerate()
        .map(|(place, table)| async move {
            let span = crate::progress::step("table", &table);
            (place, one(replicator, stop, table, order.turn(place)).instrument(span).await)
        })
        .collect();
    let mut reports: Vec<Option<TableReport>> = Vec::new();
    reports.resize_with(total, || None);
    while let Some((place, report)) = running.next().await {
        reports[place] = Some(report);
    }
    reports.into_iter().flatten().collect()
}

async fn one(replicator: &Replicator, stop: &Stop, table: TableRef, turn: Turn<'_>) -> TableReport {
    let report = tried(replicator, stop, table, turn).await;
    replicator.steps.ended(&report);
    report
}

async fn tried(replicator: &Replicator, stop: &Stop, table: TableRef, turn: Turn<'_>) -> TableReport {
    // Dropping the work at an await is safe: the table is as it was or up to date, and the journal knows the job.
    // A defect that shows in one table is no reason to stop the others.
    let replicating = Box::pin(panics::caught_async(replicator.replicate(&table, turn)));
    let ended = tokio::select! {
        biased;
        ended = replicating => {
            ended.unwrap_or_else(|panicked| Err(panicked.into_error(Kind::Bug, "The work on the table stopped unexpectedly")))
        }
        () = stop.abandoned() => Ok(Done::of(Outcome::PutOff { reason: Reason::Stopped })),
        () = replicator.budget.over() => Ok(Done::of(Outcome::PutOff { reason: Reason::TimeBudget })),
    };
    match ended {
        Ok(Done { outcome, job_id, phases, warnings }) => {
            if !matches!(outcome, Outcome::Skipped | Outcome::PutOff { .. }) {
                crate::progress::table_done(&outcome_words(&outcome));
            }
            TableReport { table, outcome, job_id, phases, warnings, error: None }
        }
        Err(error) => {
            let error = replicator.named(error, &table).await.with_field("table", &table);
            if error.kind().is_fatal_for_run() {
                // The others would meet the same; those that are loading go on.
                replicator.raise(Halt::Failed);
            }
            failure(table, error)
        }
    }
}

fn failure(table: TableRef, error: Error) -> TableReport {
    crate::progress::table_failed(error.message());
    let outcome = Outcome::failed(&error);
    TableReport { table, outcome, job_id: None, phases: Phases::default(), warnings: Vec::new(), error: Some(error) }
}

fn outcome_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Loaded { query, upserted, deleted, bookmark, schema_changes, .. } => {
            let schema =
                if schema_changes.is_empty() { String::new() } else { format!(", schema: {}", schema_changes.join("; ")) };
            format!("{query}: {upserted} upserted, {deleted} deleted, data as of {bookmark}{schema}")
        }
        Outcome::Unchanged { bookmark } => format!("unchanged, data as of {bookmark}"),
        Outcome::Recent { bookmark } => format!("too recent to have changed, data as of {bookmark}"),
        Outcome::PutOff { .. } => "put off".to_owned(),
        Outcome::Failed { message, .. } => message.clone(),
        Outcome::Skipped => "skipped".to_owned(),
    }
}
