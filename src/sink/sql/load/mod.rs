//! One load of one table, written once for all databases.
//!
//! Where a rollback undoes schema statements, all is one transaction: table or staging table, rows, schema change, bookmark. Elsewhere the
//! schema statements come first and can be repeated (`schema_change.rs`), and the transaction has the merge and the bookmark.

mod after_sql;
mod definition;
mod dependents;
mod findings;
mod lookup_ids;
mod schema_change;
mod state;
#[cfg(all(test, any(feature = "mysql", feature = "postgres")))]
pub(super) mod unusual_values;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use async_trait::async_trait;
use futures::StreamExt;

pub(super) use self::definition::define;
use self::findings::{Findings, inspect};
use self::schema_change::Existing;
pub(super) use self::state::SqlLoad;
use self::state::{KEPT_ROWS_HINT, State};
use super::connection::{Answer, CopyColumn, CopyTarget};
use super::database::Database;
use super::dialect::{LiveColumn, SqlTable, Statement};
use super::options::NonFinite;
use super::{encoding, occupants, sync_state};
use crate::engine::{combine_streams, engine_error};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::{Bookmark, counted};
use crate::reduce::{ChangeSet, deletes};
use crate::schema::{ACTION, TableSchema};
use crate::sink::{KeptRows, Layout, Load, LoadKind, LoadPlan, LoadSummary, WriteError};

/// How to keep a table in another mode.
const TO_CHANGE_MODE: &str = "load the table in the other mode into another database, or remove this one with dropdb first";

/// Which rows a table will keep. `present`: which it keeps now. Kind `Unsupported` for a choice that no database has, `Schema` for one that
/// the existing table rules out.
pub(super) fn kept_rows(layout: &Layout, present: Option<KeptRows>) -> Result<KeptRows> {
    layout.require_rows_of_database()?;
    KeptRows::resolve(present, layout, TO_CHANGE_MODE)
}

/// The table of a plan. `present`: which rows the existing table keeps.
pub(super) fn wanted_table(database: &Database, plan: &LoadPlan, present: Option<KeptRows>) -> Result<SqlTable> {
    database.dialect().table_keeping(&plan.schema, kept_rows(&plan.layout, present)?)
}

/// Rows changed by the statements at these places.
fn changed_by(places: &[usize], answers: &[Answer]) -> u64 {
    places.iter().filter_map(|place| answers.get(*place)).map(|answer| answer.changed).sum()
}

/// Objects of one table that are decoded at once, ahead of the server.
const STREAMS_AT_ONCE: usize = 2;

impl SqlLoad {
    /// Opens a session and makes sure that the sync state exists. Kind `Schema` for a change that the load cannot make.
    pub(super) async fn begin(database: Arc<Database>, plan: LoadPlan) -> Result<Self> {
        let mut load = Self::open(database, plan).await?;
        load.check_statements_of_user()?;
        load.database.prepare_namespace(load.session.as_mut(), &load.plan.table.namespace).await?;
        // A change that cannot be made is reported before anything is downloaded.
        let (Existing { entry, mut live, enumerations }, _) = load.look(Vec::new()).await?;
        load.enumerations = enumerations;
        load.keep_rows_of(entry.as_ref())?;
        load.check_occupants(entry.as_ref(), &live).await?;
        if !live.is_empty() && entry.as_ref().map(|entry| entry.bookmark) == load.plan.expected {
            let renamed = load.match_case(&mut live, entry.as_ref())?;
            load.check_column_choice(&live, entry.as_ref(), &renamed)?;
            load.change(&live, entry.as_ref())?;
        }
        Ok(load)
    }

    async fn open(database: Arc<Database>, plan: LoadPlan) -> Result<Self> {
        let table = wanted_table(&database, &plan, None)?;
        let session = database.session().await?;
        let findings = table.columns.iter().map(Findings::of).collect();
        Ok(Self {
            database,
            session,
            plan,
            table,
            state: State::Planned,
            has_stage: false,
            enumerations: Vec::new(),
            holds_lock: false,
            created_table: false,
            keeps_rows: false,
            is_frozen: false,
            created_enumerations: Vec::new(),
            non_finite: 0,
            loaded: LoadSummary::default(),
            findings,
            to_populate: Vec::new(),
            ran_statements_of_user: false,
            ids: HashMap::new(),
        })
    }

    /// Takes over from the existing table which rows it keeps, as far as the user chose nothing else.
    fn keep_rows_of(&mut self, entry: Option<&sync_state::Entry>) -> Result<()> {
        let Some(entry) = entry else { return Ok(()) };
        self.table = wanted_table(&self.database, &self.plan, Some(entry.kept))?;
        self.findings = self.table.columns.iter().map(Findings::of).collect();
        self.keeps_rows = self.table.kept.keeps_rows();
        Ok(())
    }

    /// The changes that a load would make to the columns of the existing table, one sentence each. Changes nothing.
    pub(super) async fn schema_changes(database: Arc<Database>, plan: LoadPlan) -> Result<Vec<String>> {
        let mut load = Self::open(database, plan).await?;
        let changes = load.pending_changes().await?;
        load.database.give_back(load.session);
        Ok(changes)
    }

    /// Checks what can be checked before the rows are known. Changes nothing.
    pub(super) async fn check(database: Arc<Database>, plan: LoadPlan) -> Result<()> {
        let mut load = Self::open(database, plan).await?;
        if !load.database.has_sync_state(load.session.as_mut()).await?
            && load.database.has_old_sync_state(load.session.as_mut()).await?
        {
            load.database.give_back(load.session);
            return Ok(());
        }
        let live = load.live().await?;
        let known = if load.plan.expected.is_some() { &live[..] } else { &[] };
        let settled = load.settled(known);
        occupants::check_parts(load.session.as_mut(), load.database.dialect(), &settled, known).await?;
        load.database.give_back(load.session);
        Ok(())
    }

    /// Values and hashes, or hashes with two keys, must not be mixed in one column.
    fn check_column_choice(
        &mut self,
        live: &[LiveColumn],
        entry: Option<&sync_state::Entry>,
        renamed: &[(String, String)],
    ) -> Result<()> {
        if self.row_kind() == LoadKind::Replace {
            return Ok(());
        }
        let before = entry.map(sync_state::Entry::columns).unwrap_or_default().renamed(renamed);
        let exists = |name: &str| {
            let column = self.table.columns.iter().find(|column| column.source == name);
            let name = column.map_or(name, |column| column.name.as_str());
            live.iter().any(|column| column.name == name)
        };
        let arrives = |name: &str| self.plan.schema.columns().any(|column| column.name == name);
        let followed = before.follow(&self.plan.layout.columns, exists, arrives);
        let followed = followed.map_err(|error| if self.keeps_rows { error.hint_instead(KEPT_ROWS_HINT) } else { error })?;
        self.loaded.warnings.extend(followed.notes);
        if followed.record != self.plan.layout.columns {
            let mut schema = TableSchema::clone(&self.plan.schema);
            schema.source = Arc::new(followed.record.stored_in(&schema.source));
            self.plan.schema = Arc::new(schema);
        }
        Ok(())
    }

    /// Refuses objects of others that have the names of the table or its parts.
    async fn check_occupants(&mut self, entry: Option<&sync_state::Entry>, live: &[LiveColumn]) -> Result<()> {
        let known = if entry.is_some() { live } else { &[] };
        // A column that keeps its type needs no other type.
        let settled = self.settled(known);
        let (session, dialect) = (self.session.as_mut(), self.database.dialect());
        if entry.is_none() && !self.created_table {
            let is_adopted = self.database.is_adopted(&self.plan.table);
            occupants::check_table(session, dialect, &self.plan.table, is_adopted).await?;
        }
        occupants::check_parts(session, dialect, &settled, known).await
    }

    /// Takes the lock, decides between the direct way and staging, and sends the rows.
    async fn take(&mut self, changes: ChangeSet) -> Result<(), WriteError> {
        let database = Arc::clone(&self.database);
        let dialect = database.dialect();
        let enumerations = std::mem::take(&mut self.enumerations);
        self.widen_enumerations(&enumerations).await?;
        let mut begin = if dialect.ddl_is_transactional() { vec![dialect.begin()] } else { Vec::new() };
        begin.push(dialect.try_lock(&self.plan.table.to_string()));
        let (existing, begun) = self.look(begin).await?;
        self.holds_lock = begun.last().is_some_and(|lock| sync_state::is_true(&lock.rows));
        if existing.bookmark() != self.plan.expected {
            self.state = State::Superseded;
            return Ok(());
        }
        self.check_occupants(existing.entry.as_ref(), &existing.live).await?;
        let reduced = changes.reduced;
        let is_direct = existing.entry.is_none() && self.can_be_direct(&changes) && self.is_free(&existing.live).await?;
        let taken = if is_direct { self.take_direct(changes, &existing).await } else { self.take_staged(changes).await };
        taken.map_err(|error| match error {
            WriteError::Failed(error) if !reduced && dialect.is_duplicate(&error) => WriteError::DuplicateKey,
            other => other,
        })
    }

    /// Whether rows can be copied into a new table. Without the lock, another session may be about to create it. A set that may hold a key
    /// twice needs the staging table if it has deletes, or if the primary key of the table does not refuse it.
    fn can_be_direct(&self, changes: &ChangeSet) -> bool {
        let refuses_duplicates = self.table.primary_key().all(|column| column.key);
        self.holds_lock
            && !self.table.needs_stage()
            && !self.database.must_be_staged(&self.plan.table)
            && (changes.reduced || self.plan.kind == LoadKind::Replace && refuses_duplicates)
    }

    /// Whether there is no table, or only the empty one of a killed first load, where schema statements do not roll back.
    async fn is_free(&mut self, live: &[LiveColumn]) -> Result<bool> {
        if live.is_empty() {
            return Ok(true);
        }
        let database = Arc::clone(&self.database);
        let dialect = database.dialect();
        if dialect.ddl_is_transactional() || !self.change(live, None)?.statements.is_empty() {
            return Ok(false);
        }
        occupants::is_empty(self.session.as_mut(), &dialect.table_name(&self.plan.table)).await
    }

    /// Creates the table and copies the rows into it.
    async fn take_direct(&mut self, changes: ChangeSet, existing: &Existing) -> Result<(), WriteError> {
        let database = Arc::clone(&self.database);
        let dialect = database.dialect();
        self.state = State::Direct;
        let mut statements = Vec::new();
        if existing.live.is_empty() {
            self.created_table = !dialect.ddl_is_transactional();
            statements = self.create_table(&existing.enumerations);
        }
        if !dialect.ddl_is_transactional() {
            statements.push(dialect.begin());
        }
        self.session.prepare_copy(&statements, &self.copy_target()).await?;
        self.copy(changes).await?;
        Ok(self.run(&dialect.add_key(&self.table)).await?)
    }

    /// Copies the changes into a staging table.
    async fn take_staged(&mut self, changes: ChangeSet) -> Result<(), WriteError> {
        let database = Arc::clone(&self.database);
        let dialect = database.dialect();
        let reduced = changes.reduced;
        self.state = State::Staged { is_cleared: false };
        self.copy(changes).await?;
        if !self.has_stage && self.keeps_rows && self.plan.kind == LoadKind::Replace {
            // All rows of the table are missing from an empty snapshot.
            self.has_stage = true;
            self.run(&dialect.create_stage(&self.table)).await?;
        }
        if !self.has_stage {
            return Ok(());
        }
        let mut statements = if reduced { Vec::new() } else { dialect.unique_stage(&self.table) };
        statements.extend(dialect.analyze_stage());
        Ok(self.run(&statements).await?)
    }

    fn copy_target(&self) -> CopyTarget {
        let dialect = self.database.dialect();
        let is_direct = self.state == State::Direct;
        let action = CopyColumn { name: dialect.quote(ACTION), source: ACTION.to_owned(), sql_type: dialect.action_type() };
        let columns = self.table.staged_columns().map(|column| CopyColumn {
            name: dialect.quote(&column.name),
            source: column.source.clone(),
            sql_type: if is_direct { column.sql_type.clone() } else { column.stage_type.clone() },
        });
        CopyTarget {
            table: if is_direct { dialect.table_name(&self.plan.table) } else { dialect.stage() },
            columns: (!is_direct).then_some(action).into_iter().chain(columns).collect(),
            keys: self.keys(),
        }
    }

    async fn copy(&mut self, changes: ChangeSet) -> Result<(), WriteError> {
        let mut target = self.copy_target();
        let is_direct = self.state == State::Direct;
        // Deletes have no effect on a table that is empty, or will be.
        let only_upserts = is_direct || self.plan.kind == LoadKind::Replace;
        let mut stream = combine_streams(changes.schema, changes.streams, STREAMS_AT_ONCE);
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(engine_error)?;
            let upserts = not(&deletes(&batch)?).context(Kind::Bug, "Rows cannot be filtered")?;
            self.loaded.upserted += upserts.true_count() as u64;
            let batch = self.replace_numbers(batch)?;
            let kept = filter_record_batch(&batch, &upserts).context(Kind::Bug, "Rows cannot be filtered")?;
            self.check_keys(&batch)?;
            let needs_change = inspect(self.database.dialect(), &self.table, &mut self.findings, &kept);
            if needs_change && is_direct {
                self.fit_new_table().await?;
                target = self.copy_target();
            }
            let sent = if is_direct {
                self.with_ids(kept).await?
            } else if only_upserts {
                kept
            } else {
                batch
            };
            if sent.num_rows() > 0 {
                if !is_direct && !self.has_stage {
                    let create = self.database.dialect().create_stage(&self.table);
                    self.has_stage = true;
                    self.session.prepare_copy(&create, &target).await?;
                }
                self.loaded.bytes_written += self.session.copy_in(&target, &sent).await?;
            }
        }
        Ok(())
    }

    /// Replaces numbers that the database cannot hold, or fails, as the options say.
    fn replace_numbers(&mut self, mut batch: RecordBatch) -> Result<RecordBatch> {
        let database = Arc::clone(&self.database);
        let dialect = database.dialect();
        if dialect.holds_non_finite() && dialect.holds_subnormal() {
            return Ok(batch);
        }
        for index in 0..batch.num_columns() {
            let name = batch.schema_ref().field(index).name().clone();
            if !dialect.holds_subnormal()
                && let Some((flushed, count)) = encoding::flush_subnormal(batch.column(index))
            {
                batch = encoding::replace_column(&batch, index, flushed)?;
                let columns = self.table.columns.iter().zip(&mut self.findings);
                columns.filter(|(column, _)| column.source == name).for_each(|(_, findings)| findings.subnormal += count);
            }
            let row = encoding::first_non_finite(batch.column(index));
            let Some(row) = row.filter(|_| !dialect.holds_non_finite()) else { continue };
            match database.options.non_finite {
                NonFinite::Fail => {
                    return Err(Error::new(Kind::Data, "The database cannot hold NaN and infinity")
                        .with_field("column", name)
                        .with_field("key", encoding::key_of(&batch, &self.keys(), row))
                        .hint("write null for such numbers with --non-finite null"));
                }
                NonFinite::Null => {
                    let (kept, count) = encoding::nullify_non_finite(batch.column(index));
                    batch = encoding::replace_column(&batch, index, kept)?;
                    self.non_finite += count;
                }
            }
        }
        Ok(batch)
    }

    fn check_keys(&self, batch: &RecordBatch) -> Result<()> {
        for column in self.table.keys() {
            let array = batch.column_by_name(&column.source).filter(|array| array.null_count() > 0);
            if let Some(row) = array.and_then(|array| (0..array.len()).find(|row| array.is_null(*row))) {
                return Err(encoding::missing_key(&column.name, batch, &self.keys(), row));
            }
        }
        Ok(())
    }

    /// The statements that bring the staged changes into the table, and the places of those that delete rows.
    fn merge(&self, is_new: bool) -> (Vec<Statement>, Vec<usize>) {
        let dialect = self.database.dialect();
        let mut statements = Vec::new();
        let is_cleared = self.state == State::Staged { is_cleared: true };
        if self.row_kind() == LoadKind::Replace && !is_new && !is_cleared {
            statements.push(dialect.clear(&self.table));
        }
        if !self.has_stage {
            return (statements, Vec::new());
        }
        statements.extend(dialect.fill_lookups(&self.table));
        if self.row_kind() == LoadKind::Replace || is_new {
            statements.push(dialect.insert(&self.table));
            return (statements, Vec::new());
        }
        let as_of = self.plan.as_of.to_datetime().map(|time| time.format("%Y-%m-%d %H:%M:%S%.6f").to_string());
        let as_of = as_of.unwrap_or_default();
        statements.extend(dialect.replace_versions(&self.table, self.plan.is_snapshot.then_some(as_of.as_str())));
        let mut deletes = vec![statements.len()];
        statements.push(dialect.delete(&self.table));
        if self.plan.kind == LoadKind::Replace {
            deletes.push(statements.len());
            statements.push(dialect.delete_missing(&self.table, &as_of));
        }
        statements.extend(dialect.upsert(&self.table));
        (statements, deletes)
    }

    async fn finish(&mut self, reached: Bookmark) -> Result<()> {
        let database = Arc::clone(&self.database);
        let dialect = database.dialect();
        if !self.holds_lock {
            sync_state::wait_for_lock(self.session.as_mut(), dialect, &self.plan.table.to_string()).await?;
            self.holds_lock = true;
        }
        let (existing, _) = self.look(Vec::new()).await?;
        let entry = existing.entry.as_ref();
        let held = existing.bookmark();
        let reloads = self.plan.kind == LoadKind::Replace && self.plan.expected == Some(reached);
        if held == Some(reached) && !reloads {
            self.undo().await?;
            self.loaded = LoadSummary { repeated: true, ..LoadSummary::default() };
            return Ok(());
        }
        // A snapshot may be older than the table, because the service keeps returning the same one. Rows and bookmark then go back together.
        let is_late = !self.plan.is_snapshot && held.is_some_and(|held| held.at > reached.at);
        if held != self.plan.expected || self.state == State::Superseded || is_late {
            return Err(sync_state::loaded_meanwhile());
        }
        let (mut statements, mut deletes) = (Vec::new(), Vec::new());
        if let State::Staged { .. } = self.state {
            if entry.is_none() {
                // It may have appeared since the changes were taken.
                let is_adopted = database.is_adopted(&self.plan.table);
                occupants::check_table(self.session.as_mut(), dialect, &self.plan.table, is_adopted).await?;
            }
            let is_new = self.change_schema(&existing).await?;
            (statements, deletes) = self.merge(is_new);
            if !dialect.ddl_is_transactional() {
                statements.insert(0, dialect.begin());
                deletes.iter_mut().for_each(|place| *place += 1);
            }
        }
        if self.row_kind() == LoadKind::Replace || self.state == State::Direct {
            self.loaded.rows = Some(self.loaded.upserted);
        }
        for (column, findings) in self.table.columns.iter().zip(&self.findings) {
            self.loaded.warnings.extend(findings.warnings(&column.name));
        }
        if self.non_finite > 0 {
            self.loaded.warnings.push(format!("stored null for {}", counted(self.non_finite, "NaN or infinite number")));
        }
        if !self.to_populate.is_empty() || self.has_statements_of_user() {
            let merged = self.session.run_all(&std::mem::take(&mut statements)).await?;
            self.loaded.deleted = changed_by(&std::mem::take(&mut deletes), &merged);
            self.populate_views().await?;
            self.run_statements_of_user().await?;
        }
        statements.push(sync_state::store_bookmark(dialect, &self.plan.schema, self.table.kept, entry, reached));
        statements.extend(dialect.store_exact_bookmark(&self.plan.table, reached.at.micros()));
        // After an error the transaction cannot commit.
        statements.push(dialect.commit());
        let answers = self.session.run_all(&statements).await?;
        self.created_table = false;
        self.loaded.deleted += changed_by(&deletes, &answers);
        self.release().await
    }

    /// Rolls back, and removes what a rollback leaves behind.
    async fn undo(&mut self) -> Result<()> {
        let database = Arc::clone(&self.database);
        let dialect = database.dialect();
        self.session.execute(&dialect.rollback()).await?;
        if self.created_table {
            self.session.execute(&dialect.drop_table(&self.plan.table)).await?;
            self.created_table = false;
        }
        self.release().await
    }

    /// Releases what outlives the transaction: staging table and lock.
    async fn release(&mut self) -> Result<()> {
        let database = Arc::clone(&self.database);
        let dialect = database.dialect();
        let mut statements = if self.has_stage { dialect.drop_stage() } else { Vec::new() };
        if self.holds_lock {
            statements.extend(dialect.unlock(&self.plan.table.to_string()));
        }
        if !statements.is_empty() {
            self.run(&statements).await?;
        }
        (self.has_stage, self.holds_lock) = (false, false);
        Ok(())
    }
}

#[async_trait]
impl Load for SqlLoad {
    async fn write(&mut self, changes: ChangeSet) -> Result<(), WriteError> {
        let table = self.plan.table.clone();
        self.take(changes).await.map_err(|error| error.map(|error| error.with_field("table", table)))
    }

    fn is_superseded(&self) -> bool {
        self.state == State::Superseded
    }

    async fn commit(mut self: Box<Self>, reached: Bookmark) -> Result<LoadSummary> {
        if self.state == State::Planned {
            return Err(Error::new(Kind::Bug, "A load was committed before its changes were written"));
        }
        if let Err(error) = self.finish(reached).await {
            let table = self.plan.table.clone();
            // An empty table that remains would look like one of the user.
            if self.created_table && self.undo().await.is_err() {
                tracing::warn!(table = %table, "The empty table of the failed load could not be dropped; the next run uses it");
            }
            return Err(error.with_field("table", table));
        }
        let Self { database, session, loaded, ran_statements_of_user, .. } = *self;
        // Statements of users can change settings of their session.
        if !ran_statements_of_user {
            database.give_back(session);
        }
        Ok(loaded)
    }

    /// Ends the transaction; the server rolls back.
    async fn abort(mut self: Box<Self>) -> Result<()> {
        // A session in the middle of something ends when it is dropped.
        match self.undo().await {
            Ok(()) => self.database.give_back(self.session),
            Err(error) if self.created_table => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }
}
