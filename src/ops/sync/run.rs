//! `sync`: creates what is missing at a target and updates what is there, many tables at once.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Mutex, Semaphore, watch};
use tracing::Instrument;

use super::bad_rows::BadRowFile;
use super::events::Steps;
use super::option_names::Names;
use super::queue::{Order, Turn};
use super::replicate::{Done, Replicator};
use super::request::{SyncRequest, Unlisted};
use super::time_budget::{Budget, Halt};
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::{TableRef, Timestamp};
use crate::ops::cancellation::{Reason, Stop};
use crate::ops::runs::{Outcome, Phases, Report, TableReport};
use crate::ops::selection::Resolved;
use crate::panics;
use crate::scan::ScanOptions;

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
        journal_missed: AtomicBool::new(false),
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
