//! A run of `sync`: prepares it, works on all tables concurrently, and reports.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Mutex, Semaphore, watch};
use tracing::Instrument;

use super::bad_rows::BadRowFile;
use super::events::EventReporter;
use super::option_names::Names;
use super::outcome::TableOutcome;
use super::pipeline::Pipeline;
use super::queue::{QueueSlot, StartQueue};
use super::replicate::Replicator;
use super::request::{SyncRequest, UnknownTables};
use super::time_budget::{RunState, TimeBudget};
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::{TableRef, Timestamp};
use crate::ops::cancellation::DeferReason;
use crate::ops::catalog::{Registrar, require_delta_tables};
use crate::ops::journal::Journal;
use crate::ops::runs::{Outcome, Phases, Report, TableReport};
use crate::ops::selection::Resolved;
use crate::panics;
use crate::scan::ScanOptions;

/// Maximum number of tables that are active at the same time, including those that wait for their jobs; each keeps a file open. The
/// service's limit of 5 job starts a minute keeps the number lower.
const MAX_ACTIVE: usize = 64;
/// Maximum number of tables whose state at the target is read at the same time; each opens files or connections.
const MAX_STATE_READS: usize = 16;

/// Brings the selected tables up to date at the same time: a table without a bookmark by a snapshot, the others by the increment since their
/// bookmark.
///
/// Safe to cancel by dropping the future: every table has its old or its new bookmark, with the rows that belong to it.
///
/// # Errors
/// An error means that no table was tried: kind `Auth`, `Account` or `Unavailable` if the login failed, `Target` if the target cannot be
/// used, `NotFound` if no selected table exists. The failure of a single table is in the report.
///
/// ```no_run
/// # async fn example(client: daplake::Client) -> daplake::Result<()> {
/// use daplake::ops::{Outcome, Selection, SyncRequest, Target, open_sink, sync};
/// use daplake::{Engine, EngineOptions};
///
/// let engine = Engine::new(EngineOptions::default())?;
/// let sink = open_sink(&"./lake".parse::<Target>()?, &engine)?;
/// let report = sync(SyncRequest::new(client, sink, engine, Selection::all_of("canvas"))).await?;
/// for table in &report.tables {
///     match &table.outcome {
///         Outcome::Loaded { upserted, deleted, .. } => println!("{}: {upserted} upserted, {deleted} deleted", table.table),
///         other => println!("{}: {other:?}", table.table),
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub async fn sync(request: SyncRequest) -> Result<Report> {
    let span = crate::progress::run(&request.run_id);
    Box::pin(run(request)).instrument(span).await
}

async fn run(request: SyncRequest) -> Result<Report> {
    let (clock, started) = (Instant::now(), Timestamp::now());
    let budget = TimeBudget::new(request.time_budget);
    let location = request.sink.location().to_string();
    request.rules.check()?;
    let prepared = tokio::select! {
        biased;
        () = request.cancellation.requested() => Err(Error::new(Kind::Cancelled, "The run was cancelled before a table was started")),
        prepared = prepare(&request, &location, budget.patience()) => prepared,
        () = budget.overrun() => Err(Error::new(Kind::Unavailable, "The time budget was used up before a table was started")
            .hint("run the command again; the target or the service answers slowly")),
    };
    let (bad_rows, Resolved { tables, failed, vanished, .. }) = prepared?;
    let warnings: Vec<String> = vanished
        .iter()
        .map(|table| format!("{table} is no longer listed by the service; the target keeps its last state"))
        .collect();
    for warning in &warnings {
        tracing::warn!("{warning}");
    }

    let all_tables = tables.iter().chain(failed.iter().map(|(table, _)| table));
    let events = EventReporter::new(request.observer.clone(), all_tables);
    let request = Arc::new(request);
    let replicator = Replicator {
        pipeline: Pipeline { request: Arc::clone(&request), scan: scan_options(&request), bad_rows },
        loads: Semaphore::new(request.concurrency.max(1)),
        active: Semaphore::new(MAX_ACTIVE),
        state_reads: Semaphore::new(MAX_STATE_READS),
        location: location.clone(),
        journal_missed: AtomicBool::new(false),
        state: watch::Sender::new(RunState::Running),
        budget,
        events,
        registrar: registrar(&request, &location),
        lists: Mutex::default(),
        request: Arc::clone(&request),
    };
    let (tables, queue) = match request.time_budget {
        Some(_) => {
            let queue = StartQueue::ordered(tables.len());
            (least_recently_synced_first(&replicator, tables).await, queue)
        }
        None => (tables, StartQueue::unordered()),
    };
    let unknown = failed.into_iter().map(|(table, error)| {
        let _span = crate::progress::step("table", &table).entered();
        let report = failure(table, error);
        replicator.events.ended(&report);
        report
    });
    let unknown: Vec<TableReport> = unknown.collect();
    let mut tables = until_end(&replicator, sync_tables(&replicator, tables, &queue)).await;
    tables.extend(unknown);
    if tables.iter().any(|table| matches!(table.outcome, Outcome::Loaded { .. }))
        && let Some(lake) = request.sink.capabilities().lake
        && let Err(error) = lake.write_views().await
    {
        tracing::warn!(%error, "Cannot write the file of views; the tables are up to date");
    }
    let ended_early = tables.iter().find_map(|table| match table.outcome {
        Outcome::Deferred { reason } => Some(reason),
        _ => None,
    });
    Ok(Report {
        run_id: request.run_id.clone(),
        started: started.to_string(),
        seconds: clock.elapsed().as_secs_f64(),
        target: location,
        failure: None,
        tables,
        warnings,
        ended_early,
    })
}

fn registrar(request: &SyncRequest, location: &str) -> Option<Registrar> {
    let catalog = Arc::clone(request.catalog.as_ref()?);
    Some(Registrar::new(catalog, request.journal.as_ref().map(Journal::folder), location))
}

fn scan_options(request: &SyncRequest) -> ScanOptions {
    ScanOptions {
        partitions: request.object_concurrency.max(1),
        batch_rows: request.engine.batch_rows(1),
        batch_bytes: request.engine.batch_bytes(),
        memory_limit: request.engine.memory_limit(),
        max_line: request.max_line,
        unpack: request.unpack.clone(),
        nested: request.nested,
        out_of_range: request.out_of_range,
        temp_dir: request.engine.folder().to_owned(),
    }
}

/// Checks target, tables and names before any job starts.
async fn prepare(request: &SyncRequest, location: &str, patience: Option<Duration>) -> Result<(Option<BadRowFile>, Resolved)> {
    if request.catalog.is_some() {
        require_delta_tables(request.sink.as_ref())?;
    }
    request.sink.check().await.with_field("target", location)?;
    let bad_rows = request.bad_rows.as_deref().map(BadRowFile::open).transpose()?;
    let selection = &request.selection;
    let (resolved, listing) = match request.unknown_tables {
        UnknownTables::Refuse => {
            let kept = if selection.needs_kept_tables() {
                request.sink.list(None).await.with_field("target", location)?
            } else {
                Vec::new()
            };
            let mut resolved = selection.resolve(&request.client, &kept, patience).await?;
            let listing = std::mem::take(&mut resolved.listing);
            (resolved, Some(listing))
        }
        UnknownTables::Try => {
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

/// With a time budget, the tables that were synced longest ago start first; otherwise the same tables would be deferred in every run.
async fn least_recently_synced_first(replicator: &Replicator, tables: Vec<TableRef>) -> Vec<TableRef> {
    let Some(journal) = replicator.request.journal.clone() else { return tables };
    let keys: Vec<String> = tables.iter().map(|table| replicator.journal_key(table)).collect();
    let sorting = tokio::task::spawn_blocking(move || {
        let mut dated: Vec<(Option<i64>, TableRef)> =
            tables.into_iter().zip(keys).map(|(table, key)| (journal.last_done(&table, &key), table)).collect();
        dated.sort_by_key(|(done, _)| *done);
        dated.into_iter().map(|(_, table)| table).collect()
    });
    // The task fails only if it panics, which is a bug to report.
    sorting.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// Runs `work`, and ends the run early when its time budget is nearly used up or it is cancelled.
async fn until_end<T>(replicator: &Replicator, work: impl Future<Output = T>) -> T {
    let ending = async {
        let reason = tokio::select! {
            () = replicator.budget.nearly_over() => DeferReason::TimeBudget,
            () = replicator.request.cancellation.requested() => DeferReason::Stopped,
        };
        replicator.end(RunState::Ending(reason));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        done = work => done,
        () = ending => unreachable!("it stays pending"),
    }
}

/// Works on all tables concurrently: the client paces their job starts, and the loads share permits.
async fn sync_tables(replicator: &Replicator, tables: Vec<TableRef>, queue: &StartQueue) -> Vec<TableReport> {
    let total = tables.len();
    let mut running: FuturesUnordered<_> = tables
        .into_iter()
        .enumerate()
        .map(|(place, table)| async move {
            let span = crate::progress::step("table", &table);
            (place, sync_table(replicator, table, queue.slot(place)).instrument(span).await)
        })
        .collect();
    let mut reports: Vec<Option<TableReport>> = Vec::new();
    reports.resize_with(total, || None);
    while let Some((place, report)) = running.next().await {
        reports[place] = Some(report);
    }
    reports.into_iter().flatten().collect()
}

/// Registers the table in the catalog, if there is one. If the run ends meanwhile, the next one does.
async fn register(replicator: &Replicator, table: &TableRef, mut outcome: TableOutcome) -> TableOutcome {
    let Some(registrar) = &replicator.registrar else { return outcome };
    let sink = replicator.request.sink.as_ref();
    let warning = tokio::select! {
        warning = registrar.register(sink, table, &outcome.outcome) => warning,
        () = replicator.request.cancellation.aborted() => None,
        () = replicator.budget.over() => None,
    };
    outcome.warnings.extend(warning);
    outcome
}

async fn sync_table(replicator: &Replicator, table: TableRef, slot: QueueSlot<'_>) -> TableReport {
    // Dropping this future at an await is safe: the table has its old or its new state, and the journal knows the job.
    // A panic in one table does not stop the others.
    let working = async {
        let outcome = Box::pin(replicator.replicate(&table, slot)).await?;
        Ok::<_, Error>(register(replicator, &table, outcome).await)
    };
    let replicating = Box::pin(panics::caught_async(working));
    let ended = tokio::select! {
        biased;
        ended = replicating => {
            ended.unwrap_or_else(|panicked| Err(panicked.into_error(Kind::Bug, "The sync of the table stopped unexpectedly")))
        }
        () = replicator.request.cancellation.aborted() => Ok(TableOutcome::of(Outcome::Deferred { reason: DeferReason::Stopped })),
        () = replicator.budget.over() => Ok(TableOutcome::of(Outcome::Deferred { reason: DeferReason::TimeBudget })),
    };
    let report = match ended {
        Ok(TableOutcome { outcome, job_id, phases, warnings }) => {
            if !matches!(outcome, Outcome::Skipped | Outcome::Deferred { .. }) {
                crate::progress::table_done(&described(&outcome));
            }
            TableReport { table, outcome, job_id, phases, warnings, error: None }
        }
        Err(error) => {
            let error = replicator.with_nearest_name(error, &table).await.with_field("table", &table);
            if error.kind().is_fatal_for_run() {
                // Other tables would fail alike; running loads finish.
                replicator.end(RunState::Failed);
            }
            failure(table, error)
        }
    };
    replicator.events.ended(&report);
    report
}

fn failure(table: TableRef, error: Error) -> TableReport {
    crate::progress::table_failed(error.message());
    let outcome = Outcome::failed(&error);
    TableReport { table, outcome, job_id: None, phases: Phases::default(), warnings: Vec::new(), error: Some(error) }
}

/// An outcome in one line.
fn described(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Loaded { query, upserted, deleted, bookmark, schema_changes, .. } => {
            let schema =
                if schema_changes.is_empty() { String::new() } else { format!(", schema: {}", schema_changes.join("; ")) };
            format!("{query}: {upserted} upserted, {deleted} deleted, data as of {bookmark}{schema}")
        }
        Outcome::Unchanged { bookmark, by_another_run: false } => format!("unchanged, data as of {bookmark}"),
        Outcome::Unchanged { bookmark, by_another_run: true } => format!("up to date by another run, data as of {bookmark}"),
        Outcome::Recent { bookmark } => format!("too recent to have changed, data as of {bookmark}"),
        Outcome::Deferred { .. } => "deferred".to_owned(),
        Outcome::Failed { message, .. } => message.clone(),
        Outcome::Skipped => "skipped".to_owned(),
    }
}
