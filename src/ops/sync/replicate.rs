//! One table of a run: from its committed state to the newest data of the service. Requests the job, loads its changes
//! (`pipeline.rs`) and keeps the journal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, OnceCell, Semaphore, watch};
use tracing::Instrument;

use super::events::EventReporter;
use super::layout::{choose, layout};
use super::outcome::{TableOutcome, warnings};
use super::pipeline::{Committed, LoadFailure, Overtaken, Pipeline, Source};
use super::queue::QueueSlot;
use super::request::{OnSnapshotRequired, Precondition, SyncRequest};
use super::time_budget::{RunState, TimeBudget};
use crate::api::{FinishedJob, Job, Query, RunOptions, VersionedSchema};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::{KNOWN_NAMESPACES, Mode, Namespace, TableRef, Timestamp, Window};
use crate::ops::catalog::Registrar;
use crate::ops::journal::{JournalEntry, sync_key, window_text};
use crate::ops::runs::{Outcome, Phases};
use crate::ops::selection::{Holder, unknown_table};
use crate::progress;
use crate::schema::{ColumnChoice, ColumnRecord, TableSchema};
use crate::sink::{CommittedState, OnSchemaChange};

/// State that all tables of a run share.
pub(super) struct Replicator {
    pub(super) request: Arc<SyncRequest>,
    pub(super) pipeline: Pipeline,
    /// Permits for concurrent loads. Jobs of other tables start and run meanwhile.
    pub(super) loads: Semaphore,
    /// Permits for active tables, each of which keeps its journal open.
    pub(super) active: Semaphore,
    /// Permits for reading the state of a table at the target.
    pub(super) state_reads: Semaphore,
    /// Location of the target, for the journal.
    pub(super) location: String,
    /// Whether a warning was logged that the journal cannot be used.
    pub(super) journal_missed: AtomicBool,
    pub(super) state: watch::Sender<RunState>,
    pub(super) budget: TimeBudget,
    pub(super) events: EventReporter,
    /// Registers tables in the catalog, if there is one.
    pub(super) registrar: Option<Registrar>,
    /// Tables of each namespace, listed when a table is not found.
    pub(super) lists: Mutex<BTreeMap<Namespace, Arc<OnceCell<Vec<TableRef>>>>>,
}

impl RunState {
    /// The outcome of a table that is not started in this state.
    fn outcome(self) -> Outcome {
        match self {
            RunState::Ending(reason) => Outcome::Deferred { reason },
            RunState::Failed | RunState::Running => Outcome::Skipped,
        }
    }
}

/// A resumed job that is older is loaded, followed by the increment since then in the same run.
const STALE_JOB: Duration = Duration::from_secs(3600);
/// Maximum number of loads of one table that other runs may overtake.
const MAX_ROUNDS: u32 = 6;
/// Runs in which the result of one job may fail before the query uses another mode: the service answers equal queries with the same job.
const MAX_USES: u32 = 2;

/// A finished job with the schema of its rows.
struct Answer {
    job: FinishedJob,
    schema: Arc<TableSchema>,
    choice: ColumnChoice,
    /// When an earlier run requested the job, if it was resumed.
    requested_before: Option<Timestamp>,
}

/// A result that may be followed by newer data in the same run.
struct Step {
    outcome: TableOutcome,
    /// The job was requested by an earlier run, more than [`STALE_JOB`] ago.
    is_stale: bool,
}

impl Step {
    fn not_started(state: RunState) -> Self {
        Self { outcome: TableOutcome::of(state.outcome()), is_stale: false }
    }
}

/// How the attempt to load one job ended.
enum Attempt {
    Ended(Step),
    Overtaken(Overtaken),
}

/// State of a table before its job.
#[derive(Clone, Copy)]
struct Table<'a> {
    table: &'a TableRef,
    committed: Option<&'a CommittedState>,
    resnapshot: bool,
    journal: &'a JournalEntry,
}

impl Replicator {
    /// Starts no further work from now on. The first reason stays.
    pub(super) fn end(&self, state: RunState) {
        self.state.send_if_modified(|current| *current == RunState::Running && std::mem::replace(current, state) != state);
    }

    /// Resolves with the first state for which `ends` is true.
    async fn ended(&self, ends: impl FnMut(&RunState) -> bool) -> RunState {
        let mut state = self.state.subscribe();
        // Cannot fail: `self` owns the sender.
        state.wait_for(ends).await.map_or(RunState::Running, |state| *state)
    }

    /// The key of a table in the journal.
    pub(super) fn journal_key(&self, table: &TableRef) -> String {
        sync_key(table, &self.location)
    }

    /// The journal entry of a table, or one in memory if the journal cannot be used.
    async fn journal(&self, table: &TableRef) -> JournalEntry {
        let Some(journal) = &self.request.journal else { return JournalEntry::in_memory() };
        match journal.open(table, &self.journal_key(table)).await {
            Ok(entry) => entry,
            Err(error) => {
                if !self.journal_missed.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "No journal: if this run is interrupted, the next one may start new jobs (see --state-dir)");
                }
                JournalEntry::in_memory()
            }
        }
    }

    /// Adds the nearest table name to the error for a table that the service does not have.
    pub(super) async fn with_nearest_name(&self, error: Error, table: &TableRef) -> Error {
        if error.kind() != Kind::NotFound || !KNOWN_NAMESPACES.contains(&table.namespace.as_str()) {
            return error;
        }
        // One request per namespace.
        let namespace = self.lists.lock().await.entry(table.namespace.clone()).or_default().clone();
        let listed = namespace.get_or_init(async || {
            let tables = self.request.client.tables(&table.namespace).await.unwrap_or_default();
            tables.into_iter().map(|name| TableRef::new(table.namespace.as_str(), name)).collect()
        });
        // The list is only for a hint, and may have to wait for the service's limit.
        let listed: &Vec<TableRef> = tokio::select! {
            biased;
            listed = listed => listed,
            _ = self.ended(|state| *state != RunState::Running) => return error,
        };
        if listed.is_empty() || listed.contains(table) {
            return error;
        }
        match unknown_table(&table.table, listed, Holder::Service).hint_text() {
            Some(hint) => error.hint_instead(hint.to_owned()),
            None => error,
        }
    }

    /// Brings one table up to date; requests its job when `slot` is due. On an error the table is unchanged.
    pub(super) async fn replicate(&self, table: &TableRef, slot: QueueSlot<'_>) -> Result<TableOutcome> {
        let starting = async {
            let active = self.active.acquire().await.context(Kind::Bug, "The run is closing")?;
            // Waits while another run works on the table, and then sees its result.
            Ok::<_, Error>((active, self.journal(table).await))
        };
        let (_active, journal) = tokio::select! {
            biased;
            state = self.ended(|state| *state != RunState::Running) => return Ok(TableOutcome::of(state.outcome())),
            started = starting => started?,
        };
        if self.request.fresh {
            journal.forget();
        }
        let committed = {
            let _permit = self.state_reads.acquire().await.context(Kind::Bug, "The run is closing")?;
            let committed = self.request.sink.committed(table).await?;
            self.validate_layout(table).await?;
            committed
        };
        self.check_precondition(table, committed.as_ref()).await?;
        if let Some(registrar) = &self.registrar {
            registrar.found(table, committed.as_ref());
        }
        if committed.as_ref().is_some_and(|state| state.has_iceberg_view)
            && let Some(lake) = self.request.sink.capabilities().lake
            && let Err(error) = lake.publish_iceberg(table).await
        {
            tracing::warn!(%table, %error, "Could not complete the Iceberg metadata of an earlier run");
        }
        let resnapshot = self.request.resnapshot;
        if let Some(state) = committed.as_ref().filter(|_| !resnapshot) {
            if let Some(foreign) = &state.foreign_changes {
                return Err(foreign.refusal(table));
            }
            if self.is_recent(table, state) {
                return Ok(TableOutcome::of(Outcome::Recent { bookmark: state.bookmark.at }));
            }
        }
        let known = Table { table, committed: committed.as_ref(), resnapshot, journal: &journal };
        let first = self.update_beside_others(known, Some(slot)).await?;
        if !first.is_stale {
            return Ok(first.outcome);
        }
        let committed = self.request.sink.committed(table).await?;
        let known = Table { committed: committed.as_ref(), resnapshot: false, ..known };
        let next = self.update_beside_others(known, None).await?;
        Ok(first.outcome.then(next.outcome))
    }

    /// Checks that the table can be kept as the user chose.
    async fn validate_layout(&self, table: &TableRef) -> Result<()> {
        let wanted = layout(&self.request.rules, table, ColumnRecord::default(), self.request.on_schema_change);
        self.request.sink.validate_layout(table, &wanted).await
    }

    async fn check_precondition(&self, table: &TableRef, committed: Option<&CommittedState>) -> Result<()> {
        match (self.request.precondition, committed) {
            (Precondition::Absent, Some(_)) => {
                Err(Error::new(Kind::Target, "The table is already initialised").hint("use syncdb to bring it up to date"))
            }
            (Precondition::Present, None) => {
                // If the service does not have the table either, its name is misspelt.
                self.request.client.table_schema(table).await?;
                Err(Error::new(Kind::Target, "The table is not initialised").hint("use initdb to load it for the first time"))
            }
            _ => Ok(()),
        }
    }

    /// Whether the service cannot have newer data yet.
    fn is_recent(&self, table: &TableRef, state: &CommittedState) -> bool {
        let Some(refresh) = self.request.skip_recent else { return false };
        // The server's clock is known to the second, so the bookmark may appear to be in the future.
        let age = self.request.client.server_now().micros().saturating_sub(state.bookmark.at.micros()).max(0);
        age < refresh.interval(table).as_micros() as i64
    }

    /// As [`Self::update`], beside runs of other machines. If one of them commits first, all decisions are made again from the state that it
    /// committed, unless the table then has the data of this run's job or newer.
    async fn update_beside_others(&self, known: Table<'_>, mut slot: Option<QueueSlot<'_>>) -> Result<Step> {
        let table = known.table;
        let mut other: Option<Overtaken> = None;
        let mut round = 1;
        loop {
            let committed = other.as_ref().map_or(known.committed, |other| other.committed.as_ref());
            let overtaken = match self.update(Table { committed, ..known }, slot.take()).await? {
                Attempt::Ended(step) => return Ok(step),
                Attempt::Overtaken(overtaken) => overtaken,
            };
            match &overtaken.committed {
                // A new snapshot was asked for; the commit of the other run may have been an increment.
                Some(_) if known.resnapshot => {}
                Some(CommittedState { bookmark, foreign_changes, .. }) => {
                    let Overtaken { reached, .. } = &overtaken;
                    let has_result = bookmark.at >= reached.at && bookmark.schema_version >= reached.schema_version;
                    if has_result || round == MAX_ROUNDS {
                        tracing::info!(%table, data_as_of = %bookmark.at, "Another run has brought the table up to date");
                        let outcome = Outcome::Unchanged { bookmark: bookmark.at, by_another_run: true };
                        return Ok(Step { outcome: TableOutcome::of(outcome), is_stale: false });
                    }
                    if let Some(foreign) = foreign_changes {
                        return Err(foreign.refusal(table));
                    }
                }
                // Another run has dropped the table.
                None => self.check_precondition(table, None).await?,
            }
            if round == MAX_ROUNDS {
                return Err(overtaken.error);
            }
            self.validate_layout(table).await?;
            tracing::info!(%table, error = %overtaken.error, "Another run committed to the table first; continuing from its bookmark");
            round += 1;
            other = Some(overtaken);
        }
    }

    /// Requests and loads one job, and records the result in the journal.
    async fn update(&self, known: Table<'_>, slot: Option<QueueSlot<'_>>) -> Result<Attempt> {
        // An object or job may expire between the answer and the download; the query is then repeated, once.
        let ended = match self.attempt(known, slot).await {
            Err(error) if error.kind() == Kind::Expired => {
                tracing::warn!(table = %known.table, %error, "The job has expired; starting another one");
                known.journal.forget();
                self.attempt(known, None).await
            }
            other => other,
        };
        match &ended {
            Ok(Attempt::Ended(Step { outcome: TableOutcome { outcome, .. }, .. })) => {
                if matches!(outcome, Outcome::Loaded { .. } | Outcome::Unchanged { .. }) {
                    known.journal.done();
                }
            }
            // The job belongs to a bookmark that the table no longer has.
            Ok(Attempt::Overtaken(_)) => known.journal.forget(),
            Err(error) => match error.kind() {
                // The result itself may be damaged: the next run starts another job.
                Kind::Data | Kind::Schema | Kind::Bug => known.journal.unusable(error.get("job")),
                Kind::Expired | Kind::NotFound | Kind::OutOfRange | Kind::SnapshotRequired | Kind::Unsupported => {
                    known.journal.forget();
                }
                // The cause is temporary or elsewhere; the job can be resumed.
                Kind::Usage
                | Kind::Auth
                | Kind::Account
                | Kind::Throttled
                | Kind::Unavailable
                | Kind::Job
                | Kind::Target
                | Kind::Conflict
                | Kind::Io
                | Kind::Cancelled
                | Kind::Resources => {}
            },
        }
        ended
    }

    async fn attempt(&self, known: Table<'_>, slot: Option<QueueSlot<'_>>) -> Result<Attempt> {
        let Table { table, committed, .. } = known;
        let mut phases = Phases::default();
        let started = Instant::now();
        let requesting = self.request_job(known, slot).instrument(progress::step("job", table));
        let Answer { job, schema, choice, requested_before } = tokio::select! {
            biased;
            answer = requesting => answer?,
            state = self.ended(|state| *state != RunState::Running) => return Ok(Attempt::Ended(Step::not_started(state))),
        };
        let now = self.request.client.server_now().micros();
        let age = requested_before.map(|requested| now.saturating_sub(requested.micros()).max(0) as u64);
        let is_stale = age.is_some_and(|micros| Duration::from_micros(micros) > STALE_JOB);
        phases.job = started.elapsed().as_secs_f64();

        let is_snapshot = job.query.window == Window::Snapshot;
        if let (false, Some(state)) = (is_snapshot, committed)
            && job.reached == state.bookmark.at
            && job.objects.is_empty()
            && schema.version == state.bookmark.schema_version
        {
            let outcome = Outcome::Unchanged { bookmark: job.reached, by_another_run: false };
            let outcome = TableOutcome { outcome, job_id: Some(job.id), phases, warnings: Vec::new() };
            return Ok(Attempt::Ended(Step { outcome, is_stale }));
        }

        let permit = tokio::select! {
            biased;
            permit = self.loads.acquire() => permit.context(Kind::Bug, "The run is closing")?,
            // A finished job is loaded even if other tables cannot be; only an early end defers it.
            state = self.ended(|state| matches!(state, RunState::Ending(_))) => return Ok(Attempt::Ended(Step::not_started(state))),
        };
        let started = Instant::now();
        let source = Source { table, committed, job: &job, choice: &choice };
        let loaded = self.pipeline.load(source).instrument(progress::step("load", table)).await;
        let Committed { summary, counts, repeated_keys, commit_seconds } = match loaded {
            Ok(committed) => committed,
            Err(LoadFailure::Overtaken(Overtaken { error, committed, reached })) => {
                return Ok(Attempt::Overtaken(Overtaken { error: error.with_field("job", &job.id), committed, reached }));
            }
            Err(LoadFailure::Failed(error)) => return Err(error.with_field("job", &job.id)),
        };
        drop(permit);
        phases.load = started.elapsed().as_secs_f64() - commit_seconds;
        phases.commit = commit_seconds;
        self.budget.record_load(phases.load + phases.commit);

        // Another run has loaded the same result in the meantime.
        if summary.repeated && committed.map(|state| state.bookmark) != Some(source.reached()) {
            let outcome = Outcome::Unchanged { bookmark: job.reached, by_another_run: true };
            let outcome = TableOutcome { outcome, job_id: Some(job.id), phases, warnings: Vec::new() };
            return Ok(Attempt::Ended(Step { outcome, is_stale }));
        }
        let outcome = Outcome::Loaded {
            query: if is_snapshot { "snapshot" } else { "increment" },
            upserted: summary.upserted,
            deleted: summary.deleted,
            rows: summary.rows,
            objects: job.objects.len() as u64,
            bytes_written: summary.bytes_written,
            bad_rows: counts.bad_rows,
            bookmark: job.reached,
            schema_version: schema.version,
            schema_changes: summary.schema_changes,
        };
        let mut notes = summary.warnings;
        notes.extend(requested_before.filter(|_| !is_stale).map(|requested| {
            format!(
                "loaded the job that an earlier run started at {requested}; the next run loads the changes since {}",
                job.reached
            )
        }));
        if let (true, Some(state)) = (is_snapshot, committed.filter(|state| state.bookmark.at > job.reached)) {
            notes.push(format!(
                "the service returned its snapshot of {}, older than the table was ({}); the next run loads the changes since then",
                job.reached, state.bookmark.at
            ));
        }
        let warnings = warnings(table, committed, &schema, &counts, repeated_keys, notes);
        let outcome = TableOutcome { outcome, job_id: Some(job.id), phases, warnings };
        Ok(Attempt::Ended(Step { outcome, is_stale }))
    }

    /// Runs the query for a table. Falls back to a snapshot if the service requires one and the request allows it.
    async fn request_job(&self, known: Table<'_>, slot: Option<QueueSlot<'_>>) -> Result<Answer> {
        let Table { table, committed, resnapshot, journal } = known;
        let SyncRequest { client, rules, .. } = self.request.as_ref();
        let mut schema = read_schema(table, client.table_schema(table).await?)?;
        // Columns are checked before a job starts.
        let on_change = self.request.on_schema_change;
        let mut choice = choose(rules, table, committed, &schema, on_change)?;
        if let Some(state) = committed.filter(|state| !resnapshot || state.keeps_rows || table.is_log()) {
            state.check_columns(choice.record(), choice.kept())?;
        }
        let window = match committed {
            Some(state) if !resnapshot => Window::Increment { since: state.bookmark.at, until: None },
            _ => Window::Snapshot,
        };
        self.check_schema_changes(known, &choice, window).await?;
        let query = |window| Query { table: table.clone(), format: self.request.format, mode: self.request.mode, window };
        if let Some(slot) = slot {
            slot.wait().await;
            // Dropped here, so that the following call queues for a job start before any other table is polled.
        }
        let (job, requested_before) = match self.run_query(&query(window), journal).await {
            Err(error) if matches!(error.kind(), Kind::SnapshotRequired | Kind::OutOfRange) && window != Window::Snapshot => {
                match self.request.on_snapshot_required {
                    OnSnapshotRequired::Fail => {
                        return Err(error.hint_instead(
                            "run again with --on-snapshot-required resnapshot to replace the table by a new snapshot",
                        ));
                    }
                    OnSnapshotRequired::Resnapshot => {
                        tracing::warn!(%table, %error, "The service requires a new snapshot; loading one");
                        self.run_query(&query(Window::Snapshot), journal).await?
                    }
                }
            }
            other => other?,
        };
        // The schema may have changed between the two calls. With a newer schema than the job's, rows lack its new columns; with an older one,
        // values of new columns would be lost.
        if schema.version < job.schema_version {
            schema = read_schema(table, client.table_schema_from(table, job.schema_version).await?)?;
            choice = choose(rules, table, committed, &schema, on_change)?;
            self.check_schema_changes(known, &choice, job.query.window).await?;
            if let (Some(state), true) = (committed, job.query.window != Window::Snapshot) {
                state.check_columns(choice.record(), choice.kept())?;
            }
        }
        for warning in &schema.warnings {
            tracing::warn!(%table, "Schema of the service: {warning}");
        }
        Ok(Answer { job, schema, choice, requested_before })
    }

    /// Refuses changes of the columns of an existing table, if the user wants that, before a job starts.
    async fn check_schema_changes(&self, known: Table<'_>, choice: &ColumnChoice, window: Window) -> Result<()> {
        let on_change = self.request.on_schema_change;
        let Table { table, committed: Some(_), .. } = known else { return Ok(()) };
        if on_change == OnSchemaChange::Apply {
            return Ok(());
        }
        let plan = self.pipeline.plan_before_job(table, known.committed, choice, window);
        on_change.check(table, &self.request.sink.schema_changes(&plan).await?)
    }

    /// Runs a query, or resumes the job of an earlier run with the same query. Returns the job, and when it was requested if it was resumed.
    async fn run_query(&self, query: &Query, journal: &JournalEntry) -> Result<(FinishedJob, Option<Timestamp>)> {
        let client = &self.request.client;
        let fingerprint = format!("{} as {} {:?}", window_text(query.window), query.format, query.mode);
        let stored = journal.unfinished_job_of(&fingerprint, client.server_now());
        let on_job = |job: &Job| {
            journal.job_of(job, &fingerprint, client.server_now());
            self.events.started(&query.table);
        };
        let resume = stored.as_ref().map(|stored| stored.id.as_str());
        let options = RunOptions { resume, on_job: Some(&on_job), ..RunOptions::default() };
        let answered = client.run_with(query, options).await;
        let (id, is_unusable) = match &answered {
            Ok(job) => (Some(job.id.as_str()), false),
            Err(error) => (error.get("job").filter(|_| error.kind() == Kind::Data), true),
        };
        // A job that does not match its query will not match it the next time.
        let limit = if is_unusable { 1 } else { MAX_USES };
        if id.is_some_and(|id| journal.failures_of(id) >= limit) {
            tracing::warn!(table = %query.table, job = id, "The service returned a job that could not be used before; repeating the query in another mode");
            journal.forget();
            // All formats can be read in both modes.
            let mode = if query.mode == Some(Mode::Condensed) { Mode::Expanded } else { Mode::Condensed };
            let options = RunOptions { on_job: Some(&on_job), ..RunOptions::default() };
            return Ok((client.run_with(&Query { mode: Some(mode), ..query.clone() }, options).await?, None));
        }
        let job = answered?;
        let requested_before = stored.filter(|stored| stored.id == job.id).and_then(|stored| stored.noted);
        Ok((job, requested_before))
    }
}

fn read_schema(table: &TableRef, answer: VersionedSchema) -> Result<Arc<TableSchema>> {
    Ok(Arc::new(TableSchema::read(table, answer.version, answer.schema)?))
}
