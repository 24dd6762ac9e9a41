//! The path of one job's changes into its table: scan, deduplicate, write, commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::bad_rows::{BadRowFile, RowContent};
use super::executors::ScanExecutor;
use super::layout::layout;
use super::request::SyncRequest;
use crate::api::FinishedJob;
use crate::decode::{BadRows, DecodeCounts};
use crate::engine::count_rows;
use crate::error::{Error, Kind, Result};
use crate::model::{Bookmark, TableRef, Timestamp, Window};
use crate::progress;
use crate::reduce::{ChangeSet, latest_in_key_order, latest_per_key};
use crate::scan::{ObjectScan, ScanOptions, check_finished};
use crate::schema::{ColumnChoice, ColumnType, TableMode, TableSchema};
use crate::sink::{CommittedState, Load, LoadKind, LoadPlan, LoadSummary, WriteError};

/// Attempts at a load that the target rolls back in favour of another transaction.
const LOAD_ATTEMPTS: u32 = 4;

/// Time limit for reading the state of a table after a failed load.
const STATE_TIMEOUT: Duration = Duration::from_secs(30);

/// State that the loads of a run share.
pub(super) struct Pipeline {
    pub(super) request: Arc<SyncRequest>,
    pub(super) scan: ScanOptions,
    pub(super) bad_rows: Option<BadRowFile>,
}

/// A finished job and the table that it is for.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) table: &'a TableRef,
    /// State of the table when the job was requested.
    pub(super) committed: Option<&'a CommittedState>,
    pub(super) job: &'a FinishedJob,
    pub(super) choice: &'a ColumnChoice,
}

/// A committed load.
pub(super) struct Committed {
    pub(super) summary: LoadSummary,
    pub(super) counts: DecodeCounts,
    /// Rows of a snapshot whose key another row has, and which were not loaded.
    pub(super) repeated_keys: u64,
    /// Duration of the commit.
    pub(super) commit_seconds: f64,
}

/// Why a load was not committed.
pub(super) enum LoadFailure {
    /// Another run has committed to the table since the job was requested.
    Overtaken(Overtaken),
    /// Any other failure.
    Failed(Error),
}

/// A load that another run has made obsolete.
pub(super) struct Overtaken {
    /// State of the table after the commit of the other run.
    pub(super) committed: Option<CommittedState>,
    /// The bookmark that the load would have reached.
    pub(super) reached: Bookmark,
    /// The error of the load.
    pub(super) error: Error,
}

/// Whether a load receives all changes, or only the latest change per key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reduction {
    /// The load checks unique keys, or deduplicates after writing.
    Load,
    LatestPerKey,
}

impl Source<'_> {
    fn is_snapshot(&self) -> bool {
        self.job.query.window == Window::Snapshot
    }

    /// The bookmark of the table before the load.
    fn expected(&self) -> Option<Bookmark> {
        self.committed.map(|state| state.bookmark)
    }

    /// The bookmark of the table after the load.
    pub(super) fn reached(&self) -> Bookmark {
        Bookmark { schema_version: self.choice.kept().version, ..self.job.bookmark() }
    }

    /// Whether the result is an increment that ends before the bookmark of the table. Repeating its load does not help.
    fn is_older_than_table(&self) -> bool {
        !self.is_snapshot() && self.expected().is_some_and(|expected| self.reached().at < expected.at)
    }
}

impl Pipeline {
    /// Loads the changes of a job and commits them. Repeats the load if it turns out that keys must be deduplicated, if the target has to use
    /// another way, or if the target rolled it back.
    pub(super) async fn load(&self, source: Source<'_>) -> Result<Committed, LoadFailure> {
        progress::expect(source.job.objects.len() as u64);
        let table = source.table;
        let mut reduction = self.reduction(source);
        let mut may_restart = true;
        let mut attempts = 1;
        loop {
            match self.run(source, reduction).await {
                Err(WriteError::DuplicateKey) if reduction == Reduction::Load => {
                    tracing::warn!(%table, "The result contains a key twice; loading it again with the latest change of each key");
                    reduction = Reduction::LatestPerKey;
                }
                Err(WriteError::Restart) if may_restart => {
                    tracing::info!(%table, "The rows do not fit the new table; loading them again through a staging table");
                    may_restart = false;
                }
                Err(WriteError::Failed(error)) => {
                    let error = match self.overtaken(source, error).await {
                        LoadFailure::Failed(error) => error,
                        overtaken @ LoadFailure::Overtaken(_) => return Err(overtaken),
                    };
                    let is_retryable = self.request.sink.is_retryable(&error) && !source.is_older_than_table();
                    if attempts == LOAD_ATTEMPTS || !is_retryable {
                        return Err(LoadFailure::Failed(error));
                    }
                    tracing::info!(%table, %error, attempts, "The target rolled the load back in favour of another transaction; loading again");
                    // A different pause for each table, so that two loads that collided do not collide again.
                    let offset = table.to_string().bytes().map(u64::from).sum::<u64>() % 500;
                    tokio::time::sleep(Duration::from_millis((500 << attempts) + offset)).await;
                    attempts += 1;
                }
                other => return other.map_err(|error| LoadFailure::Failed(error.into_error())),
            }
        }
    }

    /// Finds out whether a load failed because another run has committed to the table. A conflict is not the only sign of that: the two first
    /// loads of a table may also meet at the objects that they create.
    async fn overtaken(&self, source: Source<'_>, error: Error) -> LoadFailure {
        if !matches!(error.kind(), Kind::Conflict | Kind::Data | Kind::Schema | Kind::Target) {
            return LoadFailure::Failed(error);
        }
        let reading = tokio::time::timeout(STATE_TIMEOUT, self.request.sink.committed(source.table));
        match reading.await {
            Ok(Ok(committed)) if committed.as_ref().map(|state| state.bookmark) != source.expected() => {
                LoadFailure::Overtaken(Overtaken { committed, reached: source.reached(), error })
            }
            Ok(Ok(_)) => LoadFailure::Failed(error),
            // The error of the load is more helpful than the one of the attempt to explain it.
            Ok(Err(unread)) => {
                tracing::debug!(table = %source.table, error = %unread, "The table cannot be read after a failed load");
                LoadFailure::Failed(error)
            }
            Err(_) => LoadFailure::Failed(error),
        }
    }

    /// The pipeline: objects of a job, change set, latest change per key, load, commit.
    async fn run(&self, source: Source<'_>, reduction: Reduction) -> Result<Committed, WriteError> {
        let scan = self.scan(source);
        let keys: Vec<String> = source.choice.kept().key.iter().map(|column| column.name.clone()).collect();
        let changes = ChangeSet::unreduced(scan.schema(), &keys, scan.streams());
        let reduced_rows = Arc::new(AtomicU64::new(0));
        let changes = match reduction {
            Reduction::Load => changes,
            Reduction::LatestPerKey => counted(self.latest_per_key(changes)?, &reduced_rows),
        };
        let mut load = self.request.sink.begin(self.plan(source)).await?;
        let executor = self.executor(source, load.as_ref());
        let written = match &executor {
            Some(executor) => load.write_distributed(executor.as_ref()).await.map_err(WriteError::from),
            None => load.write(changes).await,
        };
        let finished = || executor.as_ref().map_or_else(|| scan.finished(), |executor| executor.finished());
        // Before rows and bookmark become visible: every object of the job must have been read to its end.
        let checked = written.and_then(|()| match load.is_superseded() {
            true => Ok(()),
            false => Ok(check_finished(source.job, &finished())?),
        });
        if let Err(error) = checked {
            abort(load, source.table).await;
            return Err(error);
        }
        let counts = executor.as_ref().map_or_else(|| scan.counts(), |executor| executor.counts());
        let (is_superseded, is_distributed) = (load.is_superseded(), executor.is_some());
        drop(executor);
        let started = Instant::now();
        let summary = load.commit(source.reached()).instrument(progress::step("commit", source.table)).await?;
        let kept = match reduction {
            Reduction::LatestPerKey if !is_distributed => reduced_rows.load(Ordering::Relaxed),
            // The load itself keeps the latest row of each key.
            Reduction::LatestPerKey => summary.upserted + counts.deletes,
            Reduction::Load if self.is_first_load(source) => summary.upserted + counts.deletes,
            // It has checked that keys are unique.
            Reduction::Load => counts.rows,
        };
        let is_complete = source.is_snapshot() && !is_superseded && !summary.repeated;
        let repeated_keys = if is_complete { counts.rows.saturating_sub(kept) } else { 0 };
        Ok(Committed { summary, counts, repeated_keys, commit_seconds: started.elapsed().as_secs_f64() })
    }

    fn latest_per_key(&self, changes: ChangeSet) -> Result<ChangeSet> {
        match self.request.sink.capabilities().stores_in_key_order {
            true => latest_in_key_order(&self.request.engine, changes),
            false => latest_per_key(&self.request.engine, changes),
        }
    }

    /// Results promise unique keys. A load can check integer keys while it writes (a bitmap is cheap). Logs break the promise by design; a
    /// first load of them can be deduplicated after writing. Tables in the mode `changes` keep all changes of an increment.
    fn reduction(&self, source: Source<'_>) -> Reduction {
        let Source { table, committed, choice, .. } = source;
        let chosen = self.request.rules.of(table).mode;
        if chosen.or(committed.map(|state| state.mode)) == Some(TableMode::Changes) && !source.is_snapshot() {
            return Reduction::Load;
        }
        let capabilities = self.request.sink.capabilities();
        // Sorting by key finds repeated keys anyway.
        let is_checked = capabilities.checks_unique_keys
            && !capabilities.stores_in_key_order
            && !table.is_log()
            && has_integer_key(choice.kept());
        if is_checked || (capabilities.deduplicates_first_load && self.is_first_load(source)) {
            Reduction::Load
        } else {
            Reduction::LatestPerKey
        }
    }

    /// Whether this is the first load of a table of current rows.
    fn is_first_load(&self, source: Source<'_>) -> bool {
        let mode = self.request.rules.of(source.table).mode;
        source.committed.is_none() && source.is_snapshot() && mode.is_none_or(|mode| mode == TableMode::Current)
    }

    fn plan(&self, source: Source<'_>) -> LoadPlan {
        let Source { table, committed, job, choice } = source;
        let plan = self.plan_before_job(table, committed, choice, job.query.window);
        LoadPlan { job_id: job.id.clone(), as_of: job.reached, ..plan }
    }

    /// The plan of a load without what only its job knows.
    pub(super) fn plan_before_job(
        &self,
        table: &TableRef,
        committed: Option<&CommittedState>,
        choice: &ColumnChoice,
        window: Window,
    ) -> LoadPlan {
        let is_snapshot = window == Window::Snapshot;
        let layout = layout(&self.request.rules, table, choice.record().clone(), self.request.on_schema_change);
        LoadPlan {
            table: table.clone(),
            schema: choice.kept().clone(),
            nested: self.request.nested,
            kind: if is_snapshot && !(table.is_log() && committed.is_some()) { LoadKind::Replace } else { LoadKind::Merge },
            expected: committed.map(|state| state.bookmark),
            run_id: self.request.run_id.clone(),
            job_id: String::new(),
            layout,
            is_snapshot,
            as_of: Timestamp::from_micros(0),
        }
    }

    fn executor(&self, source: Source<'_>, load: &dyn Load) -> Option<Box<dyn ScanExecutor>> {
        let provider = self.request.executors.as_ref()?;
        // Bad rows are written to a file of this process.
        let can_distribute = self.bad_rows.is_none() && !source.job.objects.is_empty() && load.can_distribute();
        let executor = if can_distribute {
            provider.executor_for(&self.request.client, source.job, source.choice, &self.scan)
        } else {
            None
        };
        if executor.is_none() {
            tracing::info!(table = %source.table, "This load does not use the cluster");
        }
        executor
    }

    fn scan(&self, source: Source<'_>) -> ObjectScan {
        let Source { table, job, choice, .. } = source;
        let (file, table) = (self.bad_rows.clone(), table.clone());
        // A row would contain the columns that are dropped or hashed.
        let content = if choice.record().is_empty() { RowContent::Kept } else { RowContent::LeftOut };
        let policy = Arc::new(move |object: &crate::api::ObjectId| match &file {
            Some(file) => file.policy(&table, &object.0, content),
            None => BadRows::Fail,
        });
        ObjectScan::new(&self.request.client, job.clone(), choice.clone(), self.scan.clone(), policy)
    }
}

/// The change set, whose rows are counted in `rows` while they are read.
fn counted(changes: ChangeSet, rows: &Arc<AtomicU64>) -> ChangeSet {
    let streams = changes.streams.into_iter().map(|stream| count_rows(stream, rows)).collect();
    ChangeSet { streams, ..changes }
}

async fn abort(load: Box<dyn Load>, table: &TableRef) {
    if let Err(error) = load.abort().await {
        tracing::warn!(%table, %error, "Cannot remove the files of a failed load");
    }
}

fn has_integer_key(schema: &TableSchema) -> bool {
    matches!(&schema.key[..], [only] if matches!(only.column_type, ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64))
}
