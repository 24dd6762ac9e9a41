//! One table, from what the target holds to what the service has: the spine of `sync`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, OnceCell, Semaphore, watch};
use tracing::Instrument;

use super::bad_rows::{BadRowFile, RowContent};
use super::events::Steps;
use super::executors::Helpers;
use super::queue::Turn;
use super::request::{Demand, OnSnapshotRequired, Refresh};
use super::time_budget::{Budget, Halt};
use crate::api::{Client, FinishedJob, Job, Query, RunOptions, VersionedSchema};
use crate::decode::{BadRows, DecodeCounts};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::{Format, KNOWN_NAMESPACES, Mode, Namespace, TableRef, Timestamp, Window, is_pattern, name_matches};
use crate::ops::journal::Journal;
use crate::ops::journal::{Pages, window_words};
use crate::ops::runs::{Outcome, Phases};
use crate::ops::selection::{Holder, unknown_table};
use crate::progress;
use crate::reduce::{ChangeSet, latest_per_key};
use crate::scan::{ObjectScan, ScanOptions, check_finished};
use crate::schema::{ColumnChoice, ColumnRecord, ColumnType, TableMode, TableOptions, TableRules, TableSchema};
use crate::sink::{Held, Layout, LoadKind, LoadPlan, Loaded, Sink, Workers};

/// What all tables of a run share.
pub(super) struct Replicator {
    pub(super) client: Client,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) engine: Engine,
    pub(super) format: Format,
    pub(super) mode: Option<Mode>,
    pub(super) resnapshot: bool,
    pub(super) on_snapshot_required: OnSnapshotRequired,
    pub(super) demand: Demand,
    pub(super) scan: ScanOptions,
    pub(super) rules: TableRules,
    pub(super) bad_rows: Option<BadRowFile>,
    /// Tables that load at once; jobs of the others start and wait meanwhile.
    pub(super) loads: Semaphore,
    /// Tables that are at work in any way: each keeps its journal open.
    pub(super) active: Semaphore,
    /// Tables that look at once into what the target holds.
    pub(super) looking: Semaphore,
    pub(super) run_id: String,
    pub(super) journal: Option<Journal>,
    /// Whether a warning has said that the journal cannot be used.
    pub(super) journal_missed: AtomicBool,
    pub(super) fresh: bool,
    pub(super) skip_recent: Option<Refresh>,
    /// Of the target, for the journal.
    pub(super) location: String,
    /// Raised when nothing new shall be begun.
    pub(super) halt: watch::Sender<Halt>,
    pub(super) budget: Budget,
    pub(super) helpers: Option<Arc<dyn Helpers>>,
    pub(super) steps: Steps,
    /// Tables of namespaces, asked for when one is not found.
    pub(super) lists: Mutex<BTreeMap<Namespace, Arc<OnceCell<Vec<TableRef>>>>>,
}

/// How a table ended that did not fail.
pub(super) struct Done {
    pub(super) outcome: Outcome,
    pub(super) job_id: Option<String>,
    pub(super) phases: Phases,
    pub(super) warnings: Vec<String>,
}

impl Done {
    /// Without any work.
    pub(super) fn of(outcome: Outcome) -> Self {
        Self { outcome, job_id: None, phases: Phases::default(), warnings: Vec::new() }
    }

    /// This and then the next increment, as one.
    fn then(self, next: Done) -> Self {
        let mut warnings = self.warnings;
        warnings.extend(next.warnings.into_iter().filter(|warning| !warnings.contains(warning)).collect::<Vec<_>>());
        let phases = Phases {
            job: self.phases.job + next.phases.job,
            load: self.phases.load + next.phases.load,
            commit: self.phases.commit + next.phases.commit,
        };
        let (outcome, job_id) = match (self.outcome, next.outcome) {
            (
                Outcome::Loaded { query, upserted, deleted, objects, bytes_written, bad_rows, schema_changes, .. },
                Outcome::Loaded {
                    upserted: more_upserted,
                    deleted: more_deleted,
                    rows,
                    objects: more_objects,
                    bytes_written: more_bytes,
                    bad_rows: more_bad_rows,
                    bookmark,
                    schema_version,
                    schema_changes: more_changes,
                    ..
                },
            ) => {
                let outcome = Outcome::Loaded {
                    query,
                    upserted: upserted + more_upserted,
                    deleted: deleted + more_deleted,
                    rows,
                    objects: objects + more_objects,
                    bytes_written: bytes_written + more_bytes,
                    bad_rows: bad_rows + more_bad_rows,
                    bookmark,
                    schema_version,
                    schema_changes: schema_changes.into_iter().chain(more_changes).collect(),
                };
                (outcome, next.job_id)
            }
            (Outcome::Unchanged { .. }, loaded @ Outcome::Loaded { .. }) => (loaded, next.job_id),
            (first, _) => (first, self.job_id),
        };
        Self { outcome, job_id, phases, warnings }
    }
}

/// How often a load is begun whose transaction the target undoes in favour of another one.
const LOAD_ATTEMPTS: u32 = 4;

impl Halt {
    fn outcome(self) -> Outcome {
        match self {
            Halt::For(reason) => Outcome::PutOff { reason },
            Halt::Failed | Halt::No => Outcome::Skipped,
        }
    }
}

/// A stored job that is older is loaded, and then the changes since are asked for in the same run.
const STALE_JOB: Duration = Duration::from_secs(3600);
/// Runs in which a job may fail by its content before the question is asked in another form: the service gives the same job to an
/// equal question.
const MAX_USES: u32 = 2;

/// The answer to what was asked.
struct Answer {
    job: FinishedJob,
    schema: Arc<TableSchema>,
    choice: ColumnChoice,
    /// When an earlier run asked for the job, if one did.
    asked_before: Option<Timestamp>,
}

/// Logs are held for 30 days by the service; say so in time.
const LOG_WARNING_DAYS: i64 = 20;

impl Replicator {
    /// Nothing new is begun from now on. The first reason stays.
    pub(super) fn raise(&self, halt: Halt) {
        self.halt.send_if_modified(|current| *current == Halt::No && std::mem::replace(current, halt) != halt);
    }

    /// What the journal calls a table of this target.
    pub(super) fn page_key(&self, table: &TableRef) -> String {
        format!("sync {table} at {}", self.location)
    }

    /// The journal of a table, or none if it cannot be had.
    async fn pages(&self, table: &TableRef) -> Pages {
        let Some(journal) = &self.journal else { return Pages::in_memory() };
        match journal.open(table, &self.page_key(table)).await {
            Ok(pages) => pages,
            Err(error) => {
                if !self.journal_missed.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "No journal: if this run is interrupted, the next one may start new jobs (see --state-dir)");
                }
                Pages::in_memory()
            }
        }
    }

    /// Tells the nearest name of a table that the service does not know.
    pub(super) async fn named(&self, error: Error, table: &TableRef) -> Error {
        if error.kind() != Kind::NotFound || !KNOWN_NAMESPACES.contains(&table.namespace.as_str()) {
            return error;
        }
        // Once for all of them: lists are dear.
        let namespace = self.lists.lock().await.entry(table.namespace.clone()).or_default().clone();
        let listed = namespace.get_or_init(async || {
            let tables = self.client.tables(&table.namespace).await.unwrap_or_default();
            tables.into_iter().map(|name| TableRef::new(table.namespace.as_str(), name)).collect()
        });
        let listed: &Vec<TableRef> = listed.await;
        if listed.is_empty() || listed.contains(table) {
            return error;
        }
        match unknown_table(&table.table, listed, Holder::Service).hint_text() {
            Some(hint) => error.hint_instead(hint.to_owned()),
            None => error,
        }
    }

    /// Brings one table up to date, and asks for its job when it is its turn. On an error the table is as it was.
    pub(super) async fn replicate(&self, table: &TableRef, turn: Turn<'_>) -> Result<Done> {
        let mut halted = self.halt.subscribe();
        let begin = async {
            let active = self.active.acquire().await.context(Kind::Bug, "The run is closing")?;
            // Waits while another run is at work on the table, and then sees what that one has reached.
            Ok::<_, Error>((active, self.pages(table).await))
        };
        let (_active, pages) = tokio::select! {
            biased;
            halt = halted.wait_for(|halt| *halt != Halt::No) => return Ok(Done::of(halt.map_or(Halt::No, |halt| *halt).outcome())),
            begun = begin => begun?,
        };
        if self.fresh {
            pages.forget();
        }
        let held = {
            let _looking = self.looking.acquire().await.context(Kind::Bug, "The run is closing")?;
            let held = self.sink.held(table).await?;
            self.sink.accepts(table, &layout(&self.rules, table, ColumnRecord::default())).await?;
            held
        };
        match (self.demand, &held) {
            (Demand::Absent, Some(_)) => {
                return Err(
                    Error::new(Kind::Target, "The table is already initialised").hint("use syncdb to bring it up to date")
                );
            }
            (Demand::Present, None) => {
                // A name that the service does not know either is misspelt.
                self.client.table_schema(table).await?;
                return Err(
                    Error::new(Kind::Target, "The table is not initialised").hint("use initdb to load it for the first time")
                );
            }
            _ => {}
        }
        if let (Some(foreign), false) = (held.as_ref().and_then(|held| held.foreign_changes.as_ref()), self.resnapshot) {
            return Err(foreign.refusal(table));
        }
        if let (Some(held), Some(refresh), false) = (&held, self.skip_recent, self.resnapshot) {
            // The server's clock is known to the second: the bookmark may seem to be of the future.
            let age = self.client.server_now().micros().saturating_sub(held.bookmark.at.micros()).max(0);
            if age < refresh.interval(table).as_micros() as i64 {
                return Ok(Done::of(Outcome::Recent { bookmark: held.bookmark.at }));
            }
        }
        let (done, is_stale) = self.bring(table, held.as_ref(), self.resnapshot, &pages, Some(turn)).await?;
        if !is_stale {
            return Ok(done);
        }
        let held = self.sink.held(table).await?;
        let (newer, _) = self.bring(table, held.as_ref(), false, &pages, None).await?;
        Ok(done.then(newer))
    }

    /// Asks and loads once, and keeps the journal. True beside what was done: the job was of an earlier run, so there may be newer data.
    async fn bring(
        &self,
        table: &TableRef,
        held: Option<&Held>,
        resnapshot: bool,
        pages: &Pages,
        turn: Option<Turn<'_>>,
    ) -> Result<(Done, bool)> {
        // An object or job may vanish between the answer and the download; the query is then asked again, once.
        let ended = match self.attempt(table, held, resnapshot, pages, turn).await {
            Err(error) if error.kind() == Kind::Expired => {
                tracing::warn!(table = %table, error = %error, "The job has expired; asking again");
                pages.forget();
                self.attempt(table, held, resnapshot, pages, None).await
            }
            other => other,
        };
        match &ended {
            Ok((Done { outcome: Outcome::Loaded { .. } | Outcome::Unchanged { .. }, .. }, _)) => pages.done(),
            Ok(_) => {}
            Err(error) => match error.kind() {
                // The result itself is at fault, as far as can be told: the next run asks again.
                Kind::Data | Kind::Schema | Kind::Bug => pages.unusable(error.get("job")),
                Kind::Expired | Kind::NotFound | Kind::OutOfRange | Kind::SnapshotRequired | Kind::Unsupported => {
                    pages.forget()
                }
                // These pass, or are mended elsewhere; the job is as good as before.
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

    async fn attempt(
        &self,
        table: &TableRef,
        held: Option<&Held>,
        resnapshot: bool,
        pages: &Pages,
        turn: Option<Turn<'_>>,
    ) -> Result<(Done, bool)> {
        let mut phases = Phases::default();
        let begun = Instant::now();
        let mut halted = self.halt.subscribe();
        let asking = self.ask(table, held, resnapshot, pages, turn).instrument(progress::step("job", table));
        let Answer { job, schema, choice, asked_before } = tokio::select! {
            biased;
            answer = asking => answer?,
            halt = halted.wait_for(|halt| *halt != Halt::No) => {
                return Ok((Done::of(halt.map_or(Halt::No, |halt| *halt).outcome()), false));
            }
        };
        let age = asked_before.map(|asked| self.client.server_now().micros().saturating_sub(asked.micros()).max(0) as u64);
        let is_stale = age.is_some_and(|micros| Duration::from_micros(micros) > STALE_JOB);
        phases.job = begun.elapsed().as_secs_f64();

        let is_snapshot = job.query.window == Window::Snapshot;
        if let (false, Some(held)) = (is_snapshot, held)
            && job.reached == held.bookmark.at
            && job.objects.is_empty()
            && schema.version == held.bookmark.schema_version
        {
            let outcome = Outcome::Unchanged { bookmark: job.reached };
            return Ok((Done { outcome, job_id: Some(job.id), phases, warnings: Vec::new() }, is_stale));
        }

        let permit = tokio::select! {
            biased;
            permit = self.loads.acquire() => permit.context(Kind::Bug, "The run is closing")?,
            // A job that is ready costs no more than its load; only who wants an early end gives it up.
            halt = halted.wait_for(|halt| matches!(halt, Halt::For(_))) => {
                return Ok((Done::of(halt.map_or(Halt::No, |halt| *halt).outcome()), false));
            }
        };
        let loading = Instant::now();
        let load = self.load(table, held, &job, &choice);
        let loaded = load.instrument(progress::step("load", table)).await;
        let (loaded, counts, commit_seconds) = loaded.map_err(|error| error.with_field("job", &job.id))?;
        drop(permit);
        phases.load = loading.elapsed().as_secs_f64() - commit_seconds;
        phases.commit = commit_seconds;
        self.budget.took(phases.load + phases.commit);

        let outcome = Outcome::Loaded {
            query: if is_snapshot { "snapshot" } else { "increment" },
            upserted: loaded.upserted,
            deleted: loaded.deleted,
            rows: loaded.rows,
            objects: job.objects.len() as u64,
            bytes_written: loaded.bytes_written,
            bad_rows: counts.bad_rows,
            bookmark: job.reached,
            schema_version: schema.version,
            schema_changes: loaded.schema_changes,
        };
        let mut of_load = loaded.warnings;
        of_load.extend(asked_before.filter(|_| !is_stale).map(|asked| {
            format!(
                "loaded the job that an earlier run asked for at {asked}; changes since {} come with the next run",
                job.reached
            )
        }));
        if let (true, Some(held)) = (is_snapshot, held.filter(|held| held.bookmark.at > job.reached)) {
            of_load.push(format!(
                "the service gave its snapshot of {}, older than the table was ({}); the next run brings the changes since",
                job.reached, held.bookmark.at
            ));
        }
        let warnings = warnings(table, held, &schema, &counts, of_load);
        Ok((Done { outcome, job_id: Some(job.id), phases, warnings }, is_stale))
    }

    /// Asks for what is missing; falls back to a snapshot when the service demands one and the policy allows it.
    async fn ask(
        &self,
        table: &TableRef,
        held: Option<&Held>,
        resnapshot: bool,
        pages: &Pages,
        turn: Option<Turn<'_>>,
    ) -> Result<Answer> {
        let mut schema = self.read_schema(table, self.client.table_schema(table).await?)?;
        // What cannot be done with the columns is said before a job is paid for.
        let mut choice = choose(&self.rules, table, held, &schema)?;
        if let Some(held) = held.filter(|held| !resnapshot || held.keeps_rows || table.is_log()) {
            held.check_columns(choice.record(), choice.kept())?;
        }
        let window = match held {
            Some(held) if !resnapshot => Window::Increment { since: held.bookmark.at, until: None },
            _ => Window::Snapshot,
        };
        let query = |window| Query { table: table.clone(), format: self.format, mode: self.mode, window };
        if let Some(turn) = turn {
            turn.come().await;
            // Given on at once: what follows queues for a job start before any other table is polled.
        }
        let (job, asked_before) = match self.run(&query(window), pages).await {
            Err(error) if matches!(error.kind(), Kind::SnapshotRequired | Kind::OutOfRange) && window != Window::Snapshot => {
                match self.on_snapshot_required {
                    OnSnapshotRequired::Fail => {
                        return Err(error.hint_instead(
                            "run again with --on-snapshot-required resnapshot to replace the table by a new snapshot",
                        ));
                    }
                    OnSnapshotRequired::Resnapshot => {
                        tracing::warn!(table = %table, error = %error, "The service wants a new snapshot; taking one");
                        self.run(&query(Window::Snapshot), pages).await?
                    }
                }
            }
            other => other?,
        };
        // The schema may have moved between the two calls. A newer one than the job's is fine: rows lack its new columns. With an older
        // one, values of new columns would be lost.
        if schema.version < job.schema_version {
            schema = self.read_schema(table, self.client.table_schema_from(table, job.schema_version).await?)?;
            choice = choose(&self.rules, table, held, &schema)?;
            if let (Some(held), true) = (held, job.query.window != Window::Snapshot) {
                held.check_columns(choice.record(), choice.kept())?;
            }
        }
        for warning in &schema.warnings {
            tracing::warn!(table = %table, "In the schema, {warning}");
        }
        Ok(Answer { job, schema, choice, asked_before })
    }

    fn read_schema(&self, table: &TableRef, answer: VersionedSchema) -> Result<Arc<TableSchema>> {
        Ok(Arc::new(TableSchema::read(table, answer.version, answer.schema)?))
    }

    /// Runs a query; goes on with the job of an earlier run that asked the same. Beside the job, when that run asked.
    async fn run(&self, query: &Query, pages: &Pages) -> Result<(FinishedJob, Option<Timestamp>)> {
        let question = format!("{} as {} {:?}", window_words(query.window), query.format, query.mode);
        let stored = pages.unfinished_job_of(&question, self.client.server_now());
        let on_job = |job: &Job| {
            pages.job_of(job, &question, self.client.server_now());
            self.steps.started(&query.table);
        };
        let resume = stored.as_ref().map(|stored| stored.id.as_str());
        let options = RunOptions { resume, on_job: Some(&on_job), ..RunOptions::default() };
        let asked = self.client.run_with(query, options).await;
        let (id, is_useless) = match &asked {
            Ok(job) => (Some(job.id.as_str()), false),
            Err(error) => (error.get("job").filter(|_| error.kind() == Kind::Data), true),
        };
        // An answer that does not fit the question will not fit it another time.
        let limit = if is_useless { 1 } else { MAX_USES };
        if id.is_some_and(|id| pages.failures_of(id) >= limit) {
            tracing::warn!(table = %query.table, job = id, "The service gives back a job that could not be used; asking in another form");
            pages.forget();
            // All formats are read the same in either mode.
            let mode = if query.mode == Some(Mode::Condensed) { Mode::Expanded } else { Mode::Condensed };
            let options = RunOptions { on_job: Some(&on_job), ..RunOptions::default() };
            return Ok((self.client.run_with(&Query { mode: Some(mode), ..query.clone() }, options).await?, None));
        }
        let job = asked?;
        let asked_before = stored.filter(|stored| stored.id == job.id).and_then(|stored| stored.noted);
        Ok((job, asked_before))
    }

    async fn load(
        &self,
        table: &TableRef,
        held: Option<&Held>,
        job: &FinishedJob,
        choice: &ColumnChoice,
    ) -> Result<(Loaded, DecodeCounts, f64)> {
        progress::expect(job.objects.len() as u64);
        // Results promise unique keys, which the load checks as it writes (integer keys only: a bitmap is cheap). The logs break
        // the promise by design; a load without old rows can settle that afterwards.
        let is_first = held.is_none() && job.query.window == Window::Snapshot;
        let is_usual = self.rules.of(table).mode.is_none_or(|mode| mode == TableMode::Current);
        let mut trust = (self.sink.checks_unique_keys() && !table.is_log() && has_integer_key(choice.kept()))
            || (self.sink.settles_repeated_keys() && is_first && is_usual);
        let mut may_ask_again = true;
        let mut attempts = 1;
        loop {
            match self.load_once(table, held, job, choice, trust).await {
                Err(error) if trust && ChangeSet::is_duplicate_key(&error) => {
                    tracing::warn!(table = %table, "The result holds a key twice; reducing it to the newest row per key");
                    trust = false;
                }
                Err(error) if may_ask_again && ChangeSet::is_again(&error) => {
                    tracing::info!(table = %table, "The rows hold what the schema does not announce; loading them again");
                    may_ask_again = false;
                }
                Err(error) if attempts < LOAD_ATTEMPTS && self.sink.is_passing(&error) => {
                    tracing::warn!(table = %table, %error, attempts, "The target undid the load in favour of another transaction; loading again");
                    // Another pause for each table, so that two that met do not meet again.
                    let share = table.to_string().bytes().map(u64::from).sum::<u64>() % 500;
                    tokio::time::sleep(std::time::Duration::from_millis((500 << attempts) + share)).await;
                    attempts += 1;
                }
                other => return other,
            }
        }
    }

    async fn load_once(
        &self,
        table: &TableRef,
        held: Option<&Held>,
        job: &FinishedJob,
        choice: &ColumnChoice,
        trust_unique: bool,
    ) -> Result<(Loaded, DecodeCounts, f64)> {
        let is_snapshot = job.query.window == Window::Snapshot;
        let kind = if is_snapshot && !(table.is_log() && held.is_some()) { LoadKind::Replace } else { LoadKind::Merge };
        let schema = choice.kept();
        let scan = self.scan(table, job, choice);
        let keys: Vec<String> = schema.key.iter().map(|column| column.name.clone()).collect();
        // A log of changes keeps all of them, and leaves out by itself what comes again.
        let mode = self.rules.of(table).mode.or(held.map(|held| held.mode));
        let takes_all = mode == Some(TableMode::Changes) && !is_snapshot;
        let changes = ChangeSet::unreduced(scan.schema(), &keys, scan.streams());
        let changes = if trust_unique || takes_all { changes } else { latest_per_key(&self.engine, changes)? };
        let plan = LoadPlan {
            table: table.clone(),
            schema: schema.clone(),
            nested: self.scan.nested,
            kind,
            expects: held.map(|held| held.bookmark),
            run_id: self.run_id.clone(),
            job_id: job.id.clone(),
            layout: layout(&self.rules, table, choice.record().clone()),
            is_snapshot,
            as_of: job.reached,
        };
        let mut load = self.sink.begin(plan).await?;
        let helpers = self.helpers.as_ref().filter(|_| self.bad_rows.is_none() && !job.objects.is_empty());
        let workers = helpers.and_then(|helpers| helpers.for_scan(&self.client, job, choice, &self.scan));
        let written = async {
            if let Some(workers) = &workers
                && load.write_by(workers.as_ref() as &dyn Workers).await?
            {
                return Ok(Some(workers.counts()));
            }
            if self.helpers.is_some() {
                tracing::info!(table = %table, "The cluster has no part in this load");
            }
            load.write(changes).await.map(|()| None)
        };
        let counts = match written.await {
            Ok(counts) => counts,
            Err(error) => {
                if let Err(cleaning) = load.abort().await {
                    tracing::warn!(table = %table, error = %cleaning, "Files of the failed load could not be removed");
                }
                return Err(error);
            }
        };
        // The last look before rows and bookmark become visible, for every target and whoever has read the objects.
        if !load.is_superseded() {
            let finished = match (&counts, &workers) {
                (Some(_), Some(workers)) => workers.finished(),
                _ => scan.finished(),
            };
            if let Err(error) = check_finished(job, &finished) {
                if let Err(cleaning) = load.abort().await {
                    tracing::warn!(table = %table, error = %cleaning, "Files of the failed load could not be removed");
                }
                return Err(error);
            }
        }
        drop(workers);
        let committing = Instant::now();
        let mut reached = job.bookmark();
        reached.schema_version = schema.version;
        let loaded = load.commit(reached).instrument(progress::step("commit", table)).await?;
        let counts = counts.unwrap_or_else(|| scan.counts());
        Ok((loaded, counts, committing.elapsed().as_secs_f64()))
    }

    fn scan(&self, table: &TableRef, job: &FinishedJob, choice: &ColumnChoice) -> ObjectScan {
        let (file, table) = (self.bad_rows.clone(), table.clone());
        // The row itself would hold what is to be left out.
        let content = if choice.record().is_empty() { RowContent::Kept } else { RowContent::LeftOut };
        let policy = Arc::new(move |object: &crate::api::ObjectId| match &file {
            Some(file) => file.policy(&table, &object.0, content),
            None => BadRows::Fail,
        });
        ObjectScan::new(&self.client, job.clone(), choice.clone(), self.scan.clone(), policy)
    }
}

/// What the rules mean for the table as it is now. A name that the schema does not have is likely misspelt, and what was to be
/// hidden would come: the table fails before its job. A column that is gone upstream was hidden before, which the table remembers.
pub(in crate::ops) fn choose(
    rules: &TableRules,
    table: &TableRef,
    held: Option<&Held>,
    schema: &Arc<TableSchema>,
) -> Result<ColumnChoice> {
    let choice = ColumnChoice::of(schema, &rules.of(table).columns, rules.hash_key())?;
    let choice = match held {
        Some(held) => choice.remembering(&held.columns),
        None => choice,
    };
    let unknown = choice.unknown().iter().filter(|name| rules.names_column(table, name));
    let (known_once, unknown): (Vec<&String>, Vec<&String>) = unknown.partition(|name| {
        held.is_some_and(|held| {
            let is_remembered = held.columns.hashed.contains(name) || held.columns.dropped.contains(name);
            is_remembered || !rules.hides_column(table, name)
        })
    });
    let listed = |names: Vec<&String>| names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    if !unknown.is_empty() {
        return Err(Error::new(Kind::Schema, "A rule names a column that the table does not have")
            .with_field("column", listed(unknown))
            .hint("see the names with `daplake schema --table ...`; put the namespace in front if only one of several tables is meant, as in canvas.users.email"));
    }
    if !known_once.is_empty() {
        tracing::warn!(table = %table, columns = listed(known_once), "A rule names columns that the table does not have");
    }
    let idle = rules.hidden_columns().filter(|(tables, column)| {
        !is_pattern(tables)
            && is_pattern(column)
            && table.matches(tables)
            && !schema.columns().any(|known| name_matches(column, &known.name))
    });
    for (_, pattern) in idle {
        tracing::warn!(table = %table, pattern, "A pattern of columns to be left out or hashed matches no column of the table");
    }
    Ok(choice)
}

pub(in crate::ops) fn layout(rules: &TableRules, table: &TableRef, columns: ColumnRecord) -> Layout {
    let TableOptions { deletes, mode, partition_by, .. } = rules.of(table);
    Layout { columns, deletes, mode, partition_by }
}

fn has_integer_key(schema: &TableSchema) -> bool {
    matches!(&schema.key[..], [only] if matches!(only.column_type, ColumnType::Int16 | ColumnType::Int32 | ColumnType::Int64))
}

fn warnings(
    table: &TableRef,
    held: Option<&Held>,
    schema: &TableSchema,
    counts: &DecodeCounts,
    of_target: Vec<String>,
) -> Vec<String> {
    let mut warnings = schema.warnings.clone();
    warnings.extend(of_target);
    let mut note = |count: u64, text: &str| {
        if count > 0 {
            warnings.push(format!("{count} {text}"));
        }
    };
    note(counts.bad_rows, "rows could not be read and were set aside");
    note(counts.oversized, "values were too large for the service, which sent a placeholder in their place");
    note(counts.cut_fractions, "times had digits beyond the microsecond, which were cut");
    note(counts.nulled_times, "times or dates were outside the years 1 to 9999, and are null");
    note(counts.required_nulls, "nulls came in required columns; they are kept");
    if !counts.unknown_columns.is_empty() {
        let names: Vec<&str> = counts.unknown_columns.iter().map(String::as_str).take(10).collect();
        warnings.push(format!("columns that the schema does not know were left out: {}", names.join(", ")));
    }
    if let (true, Some(held)) = (table.is_log(), held) {
        let days = (Timestamp::now().micros() - held.bookmark.at.micros()) / 86_400_000_000;
        if days > LOG_WARNING_DAYS {
            warnings.push(format!(
                "the table's data were {days} days old; the service keeps logs for 30 days, so that rows from the time between may be missing"
            ));
        }
    }
    for warning in &warnings {
        tracing::info!(table = %table, warning, "Note");
    }
    warnings
}
