//! `sync`: creates what is missing at a target and updates what is there, many tables at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Semaphore, watch};
use tracing::Instrument;

use super::Selection;
use super::bad_rows::BadRowFile;
use super::replicate::{Done, Replicator};
use super::report::{Outcome, Phases, Report, TableReport};
use crate::api::Client;
use crate::error::{ErrorContext, Result};
use crate::model::{Format, Mode, TableRef, Timestamp};
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
    /// The run fails before anything is started.
    #[default]
    Refuse,
    /// They are tried all the same, and fail alone. Without patterns the list is not asked for.
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
    /// Where unreadable rows are set aside; `None`: such a row fails its table.
    pub bad_rows: Option<PathBuf>,
    /// Tables that load at once, at least 1.
    pub concurrency: usize,
    /// Objects of one table that are read at once, at least 1.
    pub object_concurrency: usize,
    /// Staging folder for Parquet objects.
    pub temp_dir: PathBuf,
    /// Id of the run, in the report and in the target's history. A request that is used again needs a new one.
    pub run_id: String,
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
            bad_rows: None,
            concurrency: 2,
            object_concurrency: 2,
            temp_dir: std::env::temp_dir(),
            run_id: uuid::Uuid::new_v4().to_string(),
        }
    }
}

/// Brings all chosen tables up to date. Single tables may fail: see the report. An error means that nothing was tried (target,
/// login, unknown table). Safe to drop at any await: every table is at its old or its new bookmark.
pub async fn sync(request: SyncRequest) -> Result<Report> {
    let begun = Instant::now();
    let started = Timestamp::now();
    let location = request.sink.location().to_string();
    request.rules.check()?;
    request.sink.check().await.with("target", &location)?;
    let bad_rows = request.bad_rows.as_deref().map(BadRowFile::open).transpose()?;
    let tables = match request.unlisted {
        Unlisted::Refuse => request.selection.resolve(&request.client).await?,
        Unlisted::Try => request.selection.resolve_all(&request.client).await?,
    };

    for tables_of_rule in request.rules.unused(&tables) {
        tracing::warn!(table = tables_of_rule, "Options for a table that is not part of this run, or misspelt");
    }
    let run_id = request.run_id;
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
            batch_rows: 8192,
            batch_bytes: 4 << 20,
            max_line: 256 << 20,
            nested: request.nested,
            temp_dir: request.temp_dir,
        },
        rules: request.rules,
        bad_rows,
        loads: Semaphore::new(request.concurrency.max(1)),
        run_id: run_id.clone(),
        stop: watch::Sender::new(false),
    };
    let tables = run(&replicator, tables).await;
    Ok(Report { run_id, started: started.to_string(), seconds: begun.elapsed().as_secs_f64(), target: location, tables })
}

/// All tables at once: the client paces their job starts in this order, the loads share permits.
async fn run(replicator: &Replicator, tables: Vec<TableRef>) -> Vec<TableReport> {
    let total = tables.len();
    let mut running: FuturesUnordered<_> = tables
        .into_iter()
        .enumerate()
        .map(|(place, table)| async move {
            let span = crate::progress::step("table", &table);
            (place, one(replicator, table).instrument(span).await)
        })
        .collect();
    let mut reports: Vec<Option<TableReport>> = Vec::new();
    reports.resize_with(total, || None);
    while let Some((place, report)) = running.next().await {
        reports[place] = Some(report);
    }
    reports.into_iter().flatten().collect()
}

async fn one(replicator: &Replicator, table: TableRef) -> TableReport {
    match Box::pin(replicator.replicate(&table)).await {
        Ok(Some(Done { outcome, job_id, phases, warnings })) => {
            crate::progress::table_done(&outcome_words(&outcome));
            TableReport { table, outcome, job_id, phases, warnings, error: None }
        }
        Ok(None) => TableReport {
            table,
            outcome: Outcome::Skipped,
            job_id: None,
            phases: Phases::default(),
            warnings: Vec::new(),
            error: None,
        },
        Err(error) => {
            let error = error.with("table", &table);
            if error.kind().is_fatal_for_run() {
                // The others would meet the same; those that are loading go on.
                replicator.stop.send_replace(true);
            }
            crate::progress::table_failed(error.message());
            let outcome = Outcome::failed(&error);
            TableReport { table, outcome, job_id: None, phases: Phases::default(), warnings: Vec::new(), error: Some(error) }
        }
    }
}

fn outcome_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Loaded { query, upserted, deleted, bookmark, schema_changes, .. } => {
            let schema =
                if schema_changes.is_empty() { String::new() } else { format!(", schema: {}", schema_changes.join("; ")) };
            format!("{query}: {upserted} upserted, {deleted} deleted, data as of {bookmark}{schema}")
        }
        Outcome::Unchanged { bookmark } => format!("unchanged, data as of {bookmark}"),
        Outcome::Failed { message, .. } => message.clone(),
        Outcome::Skipped => "skipped".to_owned(),
    }
}
