//! One load of one table in one transaction, written once for all databases. It knows no SQL and no server.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use async_trait::async_trait;
use futures::StreamExt;

use super::connection::{Connection, CopyColumn, CopyInto};
use super::dialect::{LiveColumn, SqlTable};
use super::{Shared, gone_by_hand, meta};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::Bookmark;
use crate::schema::ACTION;
use crate::sink::{Load, LoadKind, LoadPlan, Loaded};
use crate::stage::{ChangeSet, deletes, engine_error, pull_together};

/// Objects of one table that are decoded at once, ahead of the server.
const STREAMS_AT_ONCE: usize = 2;

/// See [`Load`].
///
/// A table that does not exist yet gets its rows directly; all else goes through a staging table of the session, so that readers
/// of the table are not disturbed before the commit.
pub(super) struct SqlLoad {
    shared: Arc<Shared>,
    session: Box<dyn Connection>,
    plan: LoadPlan,
    table: SqlTable,
    way: Way,
    locked: bool,
    loaded: Loaded,
    /// For each column, whether an upsert had a null in it.
    nulls: Vec<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// No changes were given yet.
    Open,
    /// The plan was for another state; what the changes were does not matter.
    Dropped,
    /// The table was made in this transaction and has its rows.
    Direct,
    /// The changes are in the staging table.
    Staged,
}

impl SqlLoad {
    /// Connects and makes sure that there is book-keeping. Kind `Schema` for a change that cannot be followed.
    pub(super) async fn begin(shared: Arc<Shared>, plan: LoadPlan) -> Result<Self> {
        let table = shared.dialect().table_of(&plan.schema)?;
        let mut session = shared.session().await?;
        shared.make_room(session.as_mut(), &plan.table.namespace).await?;
        let nulls = vec![false; table.columns.len()];
        let loaded = Loaded::default();
        let mut load = Self { shared, session, plan, table, way: Way::Open, locked: false, loaded, nulls };
        // What cannot be done is said before anything is downloaded.
        let entry = load.entry().await?;
        let live = load.live().await?;
        if !live.is_empty() && entry.as_ref().map(|entry| entry.bookmark) == load.plan.expects {
            load.change(&live, entry.as_ref())?;
        }
        Ok(load)
    }

    async fn entry(&mut self) -> Result<Option<meta::Entry>> {
        let entry = meta::entry(self.session.as_mut(), self.shared.dialect(), &self.plan.table, true).await?;
        match entry {
            Some(entry) if !entry.exists => Err(gone_by_hand(&self.plan.table)),
            entry => Ok(entry),
        }
    }

    async fn live(&mut self) -> Result<Vec<LiveColumn>> {
        let dialect = self.shared.dialect();
        let rows = self.session.rows(&dialect.live_columns(&self.plan.table)).await?;
        let live: Option<Vec<LiveColumn>> = rows.iter().map(|row| dialect.read_live(row)).collect();
        live.ok_or_else(|| Error::new(Kind::Bug, "The database's catalogue cannot be read"))
    }

    fn change(&self, live: &[LiveColumn], entry: Option<&meta::Entry>) -> Result<super::dialect::Change> {
        let ours = entry.map(meta::Entry::columns).unwrap_or_default();
        self.shared.dialect().change_table(&self.table, live, &ours, self.plan.kind)
    }

    async fn run(&mut self, statements: &[super::Statement]) -> Result<()> {
        for statement in statements {
            self.session.execute(statement).await?;
        }
        Ok(())
    }

    async fn live_enumerations(&mut self) -> Result<Vec<(String, String)>> {
        if self.table.columns.iter().all(|column| column.enumeration.is_none()) {
            return Ok(Vec::new());
        }
        let dialect = self.shared.dialect();
        let rows = self.session.rows(&dialect.live_enumerations(&self.plan.table.namespace)).await?;
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let mut cells = row.into_iter().flatten();
                Some((cells.next()?, cells.next()?))
            })
            .collect())
    }

    /// A word that was just added may not be used in the same transaction, so this comes before it. It can be repeated, and a
    /// word too many does no harm.
    async fn widen_enumerations(&mut self) -> Result<()> {
        let live = self.live_enumerations().await?;
        for (statement, note) in self.shared.clone().dialect().widen_enumerations(&self.table, &live) {
            self.session.execute(&statement).await?;
            self.loaded.schema_changes.push(note);
        }
        Ok(())
    }

    async fn create_enumerations(&mut self) -> Result<()> {
        let live = self.live_enumerations().await?;
        let statements = self.shared.dialect().create_enumerations(&self.table, &live);
        self.run(&statements).await
    }

    async fn create_table(&mut self) -> Result<()> {
        self.create_enumerations().await?;
        let shared = self.shared.clone();
        self.run(&shared.dialect().create_lookups(&self.table)).await?;
        self.run(&shared.dialect().create_table(&self.table)).await
    }

    /// Begins the transaction, decides how the rows go, and sends them.
    async fn take(&mut self, changes: ChangeSet) -> Result<()> {
        let shared = self.shared.clone();
        let dialect = shared.dialect();
        self.widen_enumerations().await?;
        self.session.execute(&dialect.begin()).await?;
        self.locked = meta::is_true(&self.session.rows(&dialect.try_lock(&self.plan.table.to_string())).await?);
        let entry = self.entry().await?;
        if entry.as_ref().map(|entry| entry.bookmark) != self.plan.expects {
            self.way = Way::Dropped;
            return Ok(());
        }
        let reduced = changes.reduced;
        // Without the lock somebody else may be about to make the table. Of a set that may hold a key twice, as an upsert and as
        // a delete, only the staging table can tell.
        let direct = self.locked && entry.is_none() && !self.table.needs_stage();
        if direct && (reduced || self.plan.kind == LoadKind::Replace) && self.live().await?.is_empty() {
            self.way = Way::Direct;
            self.create_table().await?;
            self.copy(changes).await?;
            let keyed = self.session.execute(&dialect.add_key(&self.table)).await;
            keyed.map_err(|error| if dialect.is_duplicate(&error) && !reduced { ChangeSet::duplicate_key() } else { error })?;
        } else {
            self.way = Way::Staged;
            self.session.execute(&dialect.create_stage(&self.table)).await?;
            self.copy(changes).await?;
            if !reduced {
                let unique = self.session.execute(&dialect.unique_stage(&self.table)).await;
                unique.map_err(|error| if dialect.is_duplicate(&error) { ChangeSet::duplicate_key() } else { error })?;
            }
            self.session.execute(&dialect.analyze_stage()).await?;
        }
        Ok(())
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
            members: column.enumeration.as_ref().map(|enumeration| enumeration.members.clone()),
        });
        CopyInto {
            table: if direct { dialect.table_name(&self.plan.table) } else { dialect.stage() },
            columns: (!direct).then_some(action).into_iter().chain(columns).collect(),
        }
    }

    async fn copy(&mut self, changes: ChangeSet) -> Result<()> {
        let into = self.copy_into();
        // Deletes mean nothing to a table that is empty or about to be.
        let only_upserts = self.way == Way::Direct || self.plan.kind == LoadKind::Replace;
        let mut stream = pull_together(changes.schema, changes.streams, STREAMS_AT_ONCE);
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(engine_error)?;
            let upserts = not(&deletes(&batch)?).or_fail(Kind::Bug, "Rows cannot be filtered")?;
            self.loaded.upserted += upserts.true_count() as u64;
            let kept = filter_record_batch(&batch, &upserts).or_fail(Kind::Bug, "Rows cannot be filtered")?;
            self.note_nulls(&kept).await?;
            let sent = if only_upserts { &kept } else { &batch };
            if sent.num_rows() > 0 {
                self.loaded.bytes_written += self.session.copy_in(&into, sent).await?;
            }
        }
        Ok(())
    }

    /// A null in a required column relaxes it, and no row is lost.
    async fn note_nulls(&mut self, upserts: &RecordBatch) -> Result<()> {
        let shared = self.shared.clone();
        for (index, column) in self.table.columns.iter().enumerate() {
            let has_nulls = upserts.column_by_name(&column.source).is_some_and(|array| array.null_count() > 0);
            if !has_nulls || self.nulls[index] {
                continue;
            }
            if column.key {
                return Err(Error::new(Kind::Data, "A row has no value in a key column").with("column", &column.name));
            }
            self.nulls[index] = true;
            if column.required && self.way == Way::Direct {
                self.session.execute(&shared.dialect().relax(&self.table, column)).await?;
                self.loaded.schema_changes.push(relaxed(&column.name));
            }
        }
        Ok(())
    }

    /// Brings table and rows together, from the staging table.
    async fn merge(&mut self, entry: Option<&meta::Entry>) -> Result<()> {
        let shared = self.shared.clone();
        let dialect = shared.dialect();
        let live = self.live().await?;
        let replace = self.plan.kind == LoadKind::Replace;
        let mut is_new = live.is_empty();
        if is_new {
            self.create_table().await?;
            self.session.execute(&dialect.add_key(&self.table)).await?;
        } else {
            let change = self.change(&live, entry)?;
            if replace {
                self.session.execute(&dialect.clear(&self.table)).await?;
                is_new = true;
            }
            self.create_enumerations().await?;
            self.run(&dialect.create_lookups(&self.table)).await?;
            self.run(&change.statements).await?;
            self.loaded.schema_changes.extend(change.notes);
        }
        for (column, has_nulls) in self.table.columns.iter().zip(&self.nulls) {
            if !*has_nulls || !column.required {
                continue;
            }
            self.session.execute(&dialect.relax(&self.table, column)).await?;
            if live.iter().find(|live| live.name == column.name).is_none_or(|live| live.not_null) {
                self.loaded.schema_changes.push(relaxed(&column.name));
            }
        }
        self.run(&dialect.fill_lookups(&self.table)).await?;
        if is_new {
            self.session.execute(&dialect.insert(&self.table)).await?;
            return Ok(());
        }
        self.loaded.deleted = self.session.execute(&dialect.delete(&self.table)).await?;
        self.session.execute(&dialect.upsert(&self.table)).await?;
        Ok(())
    }

    fn conflict(&self) -> Error {
        Error::new(Kind::Conflict, "Another run got in between").hint("run it again; it goes on from where the table is now")
    }

    async fn finish(&mut self, reached: Bookmark) -> Result<()> {
        let shared = self.shared.clone();
        let dialect = shared.dialect();
        if !self.locked {
            self.session.execute(&dialect.lock(&self.plan.table.to_string())).await?;
        }
        let entry = self.entry().await?;
        let held = entry.as_ref().map(|entry| entry.bookmark);
        let anew = self.plan.kind == LoadKind::Replace && self.plan.expects == Some(reached);
        if held == Some(reached) && !anew {
            self.session.execute(&dialect.rollback()).await?;
            self.loaded = Loaded { repeated: true, ..Loaded::default() };
            return Ok(());
        }
        if held != self.plan.expects || self.way == Way::Dropped || held.is_some_and(|held| held.at > reached.at) {
            return Err(self.conflict());
        }
        if self.way == Way::Staged {
            self.merge(entry.as_ref()).await?;
        }
        if self.plan.kind == LoadKind::Replace || self.way == Way::Direct {
            self.loaded.rows = Some(self.loaded.upserted);
        }
        self.session.execute(&meta::reach(dialect, &self.plan.schema, entry.as_ref(), reached)).await?;
        self.session.execute(&dialect.commit()).await?;
        Ok(())
    }
}

fn relaxed(column: &str) -> String {
    format!("`{column}` has nulls although it is required, and may be null from now on")
}

#[async_trait]
impl Load for SqlLoad {
    async fn write(&mut self, changes: ChangeSet) -> Result<()> {
        let table = self.plan.table.clone();
        self.take(changes).await.with("table", table)
    }

    async fn commit(mut self: Box<Self>, reached: Bookmark) -> Result<Loaded> {
        if self.way == Way::Open {
            return Err(Error::new(Kind::Bug, "A load was committed before its changes were written"));
        }
        self.finish(reached).await.with("table", &self.plan.table)?;
        let Self { shared, session, loaded, .. } = *self;
        shared.give_back(session);
        Ok(loaded)
    }

    /// The session ends, and the server undoes what it did.
    async fn abort(mut self: Box<Self>) -> Result<()> {
        let rollback = self.shared.dialect().rollback();
        // A session in the middle of something is ended by dropping it.
        if self.session.execute(&rollback).await.is_ok() {
            self.shared.give_back(self.session);
        }
        Ok(())
    }
}
