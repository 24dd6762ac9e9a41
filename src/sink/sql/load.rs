//! One load of one table, written once for all databases. It knows no SQL and no server.
//!
//! Where a rollback undoes definitions, all is one transaction: table or staging table, rows, schema change, bookmark. Elsewhere
//! definitions come first and can be repeated (`shape.rs`), and what follows is one transaction: merge and bookmark.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use async_trait::async_trait;
use futures::StreamExt;

use super::connection::{Connection, CopyColumn, CopyInto};
use super::dialect::{LiveColumn, SqlTable};
use super::lookups::Ids;
use super::shape::Findings;
use super::{NonFinite, Shared, Statement, definition, meta, place, values};
use crate::engine::{combine_streams, engine_error};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::Bookmark;
use crate::reduce::{ChangeSet, deletes};
use crate::schema::{ACTION, TableSchema};
use crate::sink::{Load, LoadKind, LoadPlan, LoadSummary, WriteError};

/// Objects of one table that are decoded at once, ahead of the server.
const STREAMS_AT_ONCE: usize = 2;

/// See [`Load`].
///
/// A table that does not exist yet gets its rows directly; all else goes through a staging table of the session, so that readers
/// of the table are not disturbed before the commit.
pub(super) struct SqlLoad {
    pub(super) shared: Arc<Shared>,
    pub(super) session: Box<dyn Connection>,
    pub(super) plan: LoadPlan,
    pub(super) table: SqlTable,
    way: Way,
    locked: bool,
    /// The staging table is there.
    staged: bool,
    /// This load made the table, and no rollback takes it away.
    pub(super) made: bool,
    /// All old rows are gone already.
    pub(super) cleared: bool,
    /// NaN and infinities that became null.
    non_finite: u64,
    /// Names of enumerations that this transaction made; nobody else sees them yet.
    pub(super) made_enumerations: Vec<String>,
    pub(super) loaded: LoadSummary,
    /// What the rows hold beyond the declared, by column.
    pub(super) findings: Vec<Findings>,
    /// Ids of the words of lookup tables, by column.
    pub(super) ids: HashMap<String, Ids>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// No changes were given yet.
    Open,
    /// The plan was for another state; what the changes were does not matter.
    Dropped,
    /// The table was made by this load and has its rows.
    Direct,
    /// The changes are in the staging table.
    Staged,
}

impl SqlLoad {
    /// Connects and makes sure that there is book-keeping. Kind `Schema` for a change that cannot be followed.
    pub(super) async fn begin(shared: Arc<Shared>, plan: LoadPlan) -> Result<Self> {
        plan.layout.require_default()?;
        let table = shared.dialect().table_of(&plan.schema)?;
        let mut session = shared.session().await?;
        shared.make_room(session.as_mut(), &plan.table.namespace).await?;
        let findings = table.columns.iter().map(Findings::of).collect();
        let mut load = Self {
            shared,
            session,
            plan,
            table,
            way: Way::Open,
            locked: false,
            staged: false,
            made: false,
            cleared: false,
            non_finite: 0,
            made_enumerations: Vec::new(),
            loaded: LoadSummary::default(),
            findings,
            ids: HashMap::new(),
        };
        // What cannot be done is said before anything is downloaded.
        let entry = load.entry().await?;
        let mut live = load.live().await?;
        load.check_place(entry.as_ref(), &live).await?;
        if !live.is_empty() && entry.as_ref().map(|entry| entry.bookmark) == load.plan.expected {
            let renamed = load.respell(&mut live, entry.as_ref())?;
            load.follow_columns(&live, entry.as_ref(), &renamed)?;
            load.change(&live, entry.as_ref())?;
        }
        Ok(load)
    }

    /// Values and hashes, or hashes of two keys, may not stand in one column.
    fn follow_columns(&mut self, live: &[LiveColumn], entry: Option<&meta::Entry>, renamed: &[(String, String)]) -> Result<()> {
        if self.plan.kind == LoadKind::Replace {
            return Ok(());
        }
        let before = entry.map(meta::Entry::columns).unwrap_or_default().renamed(renamed);
        let has = |name: &str| {
            let column = self.table.columns.iter().find(|column| column.source == name);
            let name = column.map_or(name, |column| column.name.as_str());
            live.iter().any(|column| column.name == name)
        };
        let comes = |name: &str| self.plan.schema.columns().any(|column| column.name == name);
        let followed = before.follow(&self.plan.layout.columns, has, comes)?;
        self.loaded.warnings.extend(followed.notes);
        if followed.record != self.plan.layout.columns {
            let mut schema = TableSchema::clone(&self.plan.schema);
            schema.source = Arc::new(followed.record.into_source(&schema.source));
            self.plan.schema = Arc::new(schema);
        }
        Ok(())
    }

    async fn entry(&mut self) -> Result<Option<meta::Entry>> {
        let entry = meta::entry(self.session.as_mut(), self.shared.dialect(), &self.plan.table, true).await?;
        match entry {
            Some(entry) if !entry.exists => {
                Err(place::missing(self.session.as_mut(), self.shared.dialect(), &self.plan.table).await)
            }
            entry => Ok(entry),
        }
    }

    /// Refuses what stands in the place of the table or of its parts and is not ours.
    async fn check_place(&mut self, entry: Option<&meta::Entry>, live: &[LiveColumn]) -> Result<()> {
        let ours = if entry.is_some() { live } else { &[] };
        // A column that keeps its type needs no other.
        let settled = self.settled(ours);
        let (session, dialect) = (self.session.as_mut(), self.shared.dialect());
        if entry.is_none() && !self.made {
            place::check_table(session, dialect, &self.plan.table, self.shared.adopts(&self.plan.table)).await?;
        }
        place::check_parts(session, dialect, &settled, ours).await
    }

    /// Runs statements that change what others use; see [`definition`].
    pub(super) async fn define(&mut self, statements: &[Statement]) -> Result<()> {
        definition::define(self.session.as_mut(), self.shared.dialect(), &self.table, statements).await
    }

    pub(super) async fn run(&mut self, statements: &[Statement]) -> Result<()> {
        for statement in statements {
            self.session.execute(statement).await?;
        }
        Ok(())
    }

    /// Takes the lock, decides how the rows go, and sends them.
    async fn take(&mut self, changes: ChangeSet) -> Result<(), WriteError> {
        let shared = self.shared.clone();
        let dialect = shared.dialect();
        self.widen_enumerations().await?;
        if dialect.ddl_is_transactional() {
            self.session.execute(&dialect.begin()).await?;
        }
        self.locked = meta::is_true(&self.session.rows(&dialect.try_lock(&self.plan.table.to_string())).await?);
        let entry = self.entry().await?;
        if entry.as_ref().map(|entry| entry.bookmark) != self.plan.expected {
            self.way = Way::Dropped;
            return Ok(());
        }
        let reduced = changes.reduced;
        // Without the lock somebody else may be about to make the table. Of a set that may hold a key twice, as an upsert and as
        // a delete, only the staging table can tell.
        let direct = self.locked && entry.is_none() && !self.table.needs_stage() && !shared.is_to_be_staged(&self.plan.table);
        let live = self.live().await?;
        self.check_place(entry.as_ref(), &live).await?;
        if direct && (reduced || self.plan.kind == LoadKind::Replace) && self.is_free(&live).await? {
            self.way = Way::Direct;
            if live.is_empty() {
                self.made = !dialect.ddl_is_transactional();
                self.create_table().await?;
            }
            if !dialect.ddl_is_transactional() {
                self.session.execute(&dialect.begin()).await?;
            }
            self.copy(changes).await.map_err(|error| self.or_duplicate(error, reduced))?;
            let keyed = self.run(&dialect.add_key(&self.table)).await;
            keyed.map_err(|error| self.or_duplicate(error.into(), reduced))?;
        } else {
            self.way = Way::Staged;
            self.run(&dialect.create_stage(&self.table)).await?;
            self.staged = true;
            self.copy(changes).await.map_err(|error| self.or_duplicate(error, reduced))?;
            if !reduced {
                let unique = self.session.execute(&dialect.unique_stage(&self.table)).await;
                unique.map_err(|error| self.or_duplicate(error.into(), reduced))?;
            }
            self.run(&dialect.analyze_stage()).await?;
        }
        Ok(())
    }

    /// Whether there is no table, or only the empty one that a killed first load left where definitions do not roll back.
    async fn is_free(&mut self, live: &[LiveColumn]) -> Result<bool> {
        let shared = self.shared.clone();
        let dialect = shared.dialect();
        if live.is_empty() {
            return Ok(true);
        }
        if dialect.ddl_is_transactional() || !self.change(live, None)?.statements.is_empty() {
            return Ok(false);
        }
        place::is_empty(self.session.as_mut(), &dialect.table_name(&self.plan.table)).await
    }

    fn or_duplicate(&self, error: WriteError, reduced: bool) -> WriteError {
        match error {
            WriteError::Failed(error) if !reduced && self.shared.dialect().is_duplicate(&error) => WriteError::DuplicateKey,
            other => other,
        }
    }

    fn copy_into(&self) -> CopyInto {
        let dialect = self.shared.dialect();
        let direct = self.way == Way::Direct;
        let action =
            CopyColumn { name: dialect.quote(ACTION), source: ACTION.to_owned(), sql_type: dialect.text_type(), members: None };
        let columns = self.table.columns.iter().map(|column| CopyColumn {
            name: dialect.quote(&column.name),
            source: column.source.clone(),
            sql_type: if direct { column.sql_type.clone() } else { column.stage_type.clone() },
            members: None,
        });
        CopyInto {
            table: if direct { dialect.table_name(&self.plan.table) } else { dialect.stage() },
            columns: (!direct).then_some(action).into_iter().chain(columns).collect(),
            keys: self.keys(),
        }
    }

    /// Names of the key columns in the batches.
    pub(super) fn keys(&self) -> Vec<String> {
        self.table.columns.iter().filter(|column| column.key).map(|column| column.source.clone()).collect()
    }

    async fn copy(&mut self, changes: ChangeSet) -> Result<(), WriteError> {
        let mut into = self.copy_into();
        // Deletes mean nothing to a table that is empty or about to be.
        let only_upserts = self.way == Way::Direct || self.plan.kind == LoadKind::Replace;
        let mut stream = combine_streams(changes.schema, changes.streams, STREAMS_AT_ONCE);
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(engine_error)?;
            let upserts = not(&deletes(&batch)?).context(Kind::Bug, "Rows cannot be filtered")?;
            self.loaded.upserted += upserts.true_count() as u64;
            let batch = self.finite(batch)?;
            let kept = filter_record_batch(&batch, &upserts).context(Kind::Bug, "Rows cannot be filtered")?;
            self.check_keys(&batch)?;
            if self.look_at(&kept)? && self.way == Way::Direct {
                self.follow_rows().await?;
                into = self.copy_into();
            }
            let sent = match self.way {
                Way::Direct => self.with_ids(kept).await?,
                _ if only_upserts => kept,
                _ => batch,
            };
            if sent.num_rows() > 0 {
                self.loaded.bytes_written += self.session.copy_in(&into, &sent).await?;
            }
        }
        Ok(())
    }

    /// NaN and the infinities, where the database has none, by the policy.
    fn finite(&mut self, mut batch: RecordBatch) -> Result<RecordBatch> {
        if self.shared.dialect().takes_non_finite() {
            return Ok(batch);
        }
        for index in 0..batch.num_columns() {
            if !self.shared.dialect().takes_subnormal()
                && let Some((flushed, count)) = values::without_subnormal(batch.column(index))
            {
                let name = batch.schema().field(index).name().clone();
                let columns = self.table.columns.iter().zip(&mut self.findings);
                columns.filter(|(column, _)| column.source == name).for_each(|(_, findings)| findings.subnormal += count);
                batch = values::replaced(&batch, index, flushed)?;
            }
            let Some(row) = values::first_non_finite(batch.column(index)) else { continue };
            let name = batch.schema().field(index).name().clone();
            match self.shared.options.non_finite {
                NonFinite::Fail => {
                    return Err(Error::new(Kind::Data, "The database has no place for NaN and infinity")
                        .with_field("column", name)
                        .with_field("key", values::key_words(&batch, &self.keys(), row))
                        .hint("let them become null with --non-finite null"));
                }
                NonFinite::Null => {
                    let (kept, count) = values::without_non_finite(batch.column(index));
                    batch = values::replaced(&batch, index, kept)?;
                    self.non_finite += count;
                }
            }
        }
        Ok(batch)
    }

    fn check_keys(&self, batch: &RecordBatch) -> Result<()> {
        for column in self.table.columns.iter().filter(|column| column.key) {
            let array = batch.column_by_name(&column.source).filter(|array| array.null_count() > 0);
            if let Some(row) = array.and_then(|array| (0..array.len()).find(|row| array.is_null(*row))) {
                return Err(values::no_key(&column.name, batch, &self.keys(), row));
            }
        }
        Ok(())
    }

    /// Brings table and rows together, from the staging table.
    async fn merge(&mut self, is_new: bool) -> Result<()> {
        let shared = self.shared.clone();
        let dialect = shared.dialect();
        if self.plan.kind == LoadKind::Replace && !is_new && !self.cleared {
            self.session.execute(&dialect.clear(&self.table)).await?;
        }
        self.run(&dialect.fill_lookups(&self.table)).await?;
        if self.plan.kind == LoadKind::Replace || is_new {
            self.session.execute(&dialect.insert(&self.table)).await?;
            return Ok(());
        }
        self.loaded.deleted = self.session.execute(&dialect.delete(&self.table)).await?;
        self.run(&dialect.upsert(&self.table)).await
    }

    fn conflict(&self) -> Error {
        Error::new(Kind::Conflict, "Another run got in between").hint("run it again; it goes on from where the table is now")
    }

    async fn finish(&mut self, reached: Bookmark) -> Result<()> {
        let shared = self.shared.clone();
        let dialect = shared.dialect();
        if !self.locked {
            meta::wait_for_lock(self.session.as_mut(), dialect, &self.plan.table.to_string()).await?;
            self.locked = true;
        }
        let entry = self.entry().await?;
        let held = entry.as_ref().map(|entry| entry.bookmark);
        let anew = self.plan.kind == LoadKind::Replace && self.plan.expected == Some(reached);
        if held == Some(reached) && !anew {
            self.undo().await?;
            self.loaded = LoadSummary { repeated: true, ..LoadSummary::default() };
            return Ok(());
        }
        // A snapshot may be older than the table: the service keeps giving the one it has. Rows and bookmark then go back together.
        let is_late = !self.plan.is_snapshot && held.is_some_and(|held| held.at > reached.at);
        if held != self.plan.expected || self.way == Way::Dropped || is_late {
            return Err(self.conflict());
        }
        if self.way == Way::Staged {
            if entry.is_none() {
                // It may have come since the changes were taken.
                let adopts = shared.adopts(&self.plan.table);
                place::check_table(self.session.as_mut(), dialect, &self.plan.table, adopts).await?;
            }
            let is_new = self.shape(entry.as_ref()).await?;
            if !dialect.ddl_is_transactional() {
                self.session.execute(&dialect.begin()).await?;
            }
            self.merge(is_new).await?;
        }
        if self.plan.kind == LoadKind::Replace || self.way == Way::Direct {
            self.loaded.rows = Some(self.loaded.upserted);
        }
        self.tell_changed();
        if self.non_finite > 0 {
            let count = self.non_finite;
            self.loaded.warnings.push(format!("{count} numbers were NaN or infinite, and are null in the database"));
        }
        self.session.execute(&meta::reach(dialect, &self.plan.schema, entry.as_ref(), reached)).await?;
        if let Some(keep) = dialect.keep_exact_moment(&self.plan.table, reached.at.micros()) {
            self.session.execute(&keep).await?;
        }
        self.session.execute(&dialect.commit()).await?;
        self.made = false;
        self.tidy().await
    }

    /// Ends the transaction without a trace, even where definitions are not part of it.
    async fn undo(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        let dialect = shared.dialect();
        self.session.execute(&dialect.rollback()).await?;
        if self.made {
            self.session.execute(&dialect.drop_table(&self.plan.table)).await?;
            self.made = false;
        }
        self.tidy().await
    }

    /// What outlives a transaction goes: staging table and lock.
    async fn tidy(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        let dialect = shared.dialect();
        if self.staged {
            self.run(&dialect.drop_stage()).await?;
            self.staged = false;
        }
        if let (true, Some(unlock)) = (self.locked, dialect.unlock(&self.plan.table.to_string())) {
            self.session.execute(&unlock).await?;
        }
        self.locked = false;
        Ok(())
    }

    /// The rows do not fit the table that this load made, and it cannot be changed under them: begin again by way of the stage.
    pub(super) fn begin_again(&self) -> WriteError {
        self.shared.stage_from_now(&self.plan.table);
        WriteError::Restart
    }
}

#[async_trait]
impl Load for SqlLoad {
    async fn write(&mut self, changes: ChangeSet) -> Result<(), WriteError> {
        let table = self.plan.table.clone();
        self.take(changes).await.map_err(|error| error.map(|error| error.with_field("table", table)))
    }

    fn is_superseded(&self) -> bool {
        self.way == Way::Dropped
    }

    async fn commit(mut self: Box<Self>, reached: Bookmark) -> Result<LoadSummary> {
        if self.way == Way::Open {
            return Err(Error::new(Kind::Bug, "A load was committed before its changes were written"));
        }
        if let Err(error) = self.finish(reached).await {
            let table = self.plan.table.clone();
            // A table that was made for nothing would be taken for one that somebody needs.
            if self.made && self.undo().await.is_err() {
                tracing::warn!(table = %table, "The empty table of the failed load could not be removed; the next run uses it");
            }
            return Err(error.with_field("table", table));
        }
        let Self { shared, session, loaded, .. } = *self;
        shared.give_back(session);
        Ok(loaded)
    }

    /// The session ends, and the server undoes what it did.
    async fn abort(mut self: Box<Self>) -> Result<()> {
        // A session in the middle of something is ended by dropping it.
        match self.undo().await {
            Ok(()) => self.shared.give_back(self.session),
            Err(error) if self.made => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }
}
