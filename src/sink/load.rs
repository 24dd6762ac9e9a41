//! The contract of all targets.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, Kind, Result};
use crate::model::{Bookmark, Namespace, TableRef, Timestamp};
use crate::redact::SafeUrl;
use crate::reduce::ChangeSet;
use crate::schema::{ColumnRecord, Deletes, Nested, Partitions, TableMode, TableSchema};
use crate::sink::Workers;

/// A place where tables are kept: a lake folder or a database.
///
/// All methods may be called at once for different tables. For one table the first commit wins; the other gets kind `Conflict`.
#[async_trait]
pub trait Sink: Debug + Send + Sync {
    /// Where, fit for messages.
    fn location(&self) -> &SafeUrl;

    /// Does the cheapest part of a real load, so that a wrong password or a read-only folder fails before anything is paid
    /// for. Leaves nothing behind. Kind `Target`.
    async fn check(&self) -> Result<()>;

    /// What was last committed for `table`. `None`: never loaded. Kind `Target` when something foreign is in its place.
    async fn held(&self, table: &TableRef) -> Result<Option<Held>>;

    /// All tables kept here, sorted; of one namespace or of all.
    async fn list(&self, namespace: Option<&Namespace>) -> Result<Vec<TableRef>>;

    /// Figures of one table for `status`.
    async fn status(&self, table: &TableRef) -> Result<Option<TableStatus>>;

    /// The table after each load of the past, oldest first, at most `limit` of the newest. Empty where the target does not remember.
    async fn past(&self, _table: &TableRef, _limit: usize) -> Result<Vec<Past>> {
        Ok(Vec::new())
    }

    /// Whether its loads take sets that were not reduced, if the key is one integer column, and check the promise of unique keys
    /// as they write. Others are always given the latest change per key.
    fn checks_unique_keys(&self) -> bool {
        false
    }

    /// Whether the first load of a table of mode `current` takes a set that was not reduced whatever its key, and leaves only the newest
    /// row of each.
    fn settles_repeated_keys(&self) -> bool {
        false
    }

    /// Brings what stands beside the tables for readers of the whole target, such as a file of views, up to date with them; called
    /// once after a run that changed any. Tables are right without it.
    async fn write_views(&self) -> Result<()> {
        Ok(())
    }

    /// Whether a table can be kept as the user chose, before anything is paid for. Kind `Unsupported` if no table of this target
    /// can, `Schema` if the table that is here cannot.
    async fn accepts(&self, _table: &TableRef, wanted: &Layout) -> Result<()> {
        wanted.check_usual()
    }

    /// Whether a load that failed so may pass when its changes are read and loaded again: the target undid it in favour of another
    /// transaction.
    fn is_passing(&self, _error: &Error) -> bool {
        false
    }

    /// Whether what loads of these namespaces need can be made here, such as schemas and tables. Leaves nothing behind.
    async fn check_rights(&self, _namespaces: &[Namespace]) -> Result<()> {
        Ok(())
    }

    /// Opens a load. Readers of the target see nothing of it until `commit`.
    async fn begin(&self, plan: LoadPlan) -> Result<Box<dyn Load>>;
}

/// What is held of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// How far it has come.
    pub bookmark: Bookmark,
    /// Which columns are left out or hashed.
    pub columns: ColumnRecord,
    /// Which rows are kept.
    pub mode: TableMode,
    /// Whether old rows stay when a new snapshot comes.
    pub keeps_rows: bool,
    /// What other programs did to the rows since the last load, if that is a reason to refuse an increment.
    pub foreign_changes: Option<ForeignChanges>,
}

impl Held {
    /// A table whose rows a new snapshot replaces.
    pub fn new(bookmark: Bookmark, columns: ColumnRecord) -> Self {
        Self { bookmark, columns, mode: TableMode::Current, keeps_rows: false, foreign_changes: None }
    }

    /// Whether rows of an increment with another choice of columns could follow, as far as that is certain before the load looks
    /// at the table itself. `schema` is what the choice leaves of the service's schema. Kind `Schema` if not.
    pub fn check_columns(&self, next: &ColumnRecord, schema: &TableSchema) -> Result<()> {
        // Of a schema that moved on, a column may be new to the table.
        let is_known = schema.version == self.bookmark.schema_version;
        let has = |column: &str| {
            let is = |name: &String| name == column;
            self.columns.hashed.iter().any(is) || (is_known && !self.columns.dropped.iter().any(is))
        };
        let comes = |column: &str| schema.columns().any(|known| known.name == column);
        let keeps_rows = self.keeps_rows || schema.table.is_log();
        self.columns.follow(next, has, comes).map(|_| ()).map_err(|error| error.hint_instead(way_out(keeps_rows)))
    }
}

/// What to do about rows that cannot stand beside those that are there.
pub(crate) fn way_out(keeps_rows: bool) -> &'static str {
    match keeps_rows {
        false => "keep the column rules as they were, or reload the table with --resnapshot",
        true => {
            "keep the choice as it was, or load the table into a new --target: this one keeps its old rows even with --resnapshot"
        }
    }
}

/// What other programs did to the rows of a table since its last load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeignChanges {
    /// Version of the last load; `None` if the log no longer reaches back to it, so that nothing is known for certain.
    pub since: Option<u64>,
    /// Version and operation of each commit that changed rows, oldest first.
    pub commits: Vec<(u64, Option<String>)>,
}

impl ForeignChanges {
    /// Commits that are named in a message.
    const NAMED: usize = 5;

    /// In words.
    pub fn described(&self) -> String {
        match self.since {
            Some(version) => format!("Another program changed rows since version {version}"),
            None => "The log no longer reaches back to the last load: another program may have changed rows".to_owned(),
        }
    }

    /// The commits, such as `3 (RESTORE), 4 (WRITE)`.
    pub fn commits_described(&self) -> String {
        let named = self.commits.iter().take(Self::NAMED).map(|(version, operation)| match operation {
            Some(operation) => format!("{version} ({})", operation.escape_debug()),
            None => version.to_string(),
        });
        let more = self.commits.len().saturating_sub(Self::NAMED);
        let more = (more > 0).then(|| format!("{more} more"));
        named.chain(more).collect::<Vec<_>>().join(", ")
    }

    /// The refusal of an increment. Kind `Target`.
    pub fn refusal(&self, table: &TableRef) -> Error {
        let error = Error::new(Kind::Target, self.described()).with_field("table", table);
        let error = if self.commits.is_empty() { error } else { error.with_field("commits", self.commits_described()) };
        error.hint("reload the table with --resnapshot; to keep what the other program did, add --foreign-changes warn once")
    }
}

/// How the changes are to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadKind {
    /// The set is the whole table: all that was there before goes.
    Replace,
    /// Upsert and delete by key.
    Merge,
}

/// What a load is about to do.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Which table.
    pub table: TableRef,
    /// Its schema, as the rows follow it.
    pub schema: Arc<TableSchema>,
    /// How nested columns are kept.
    pub nested: Nested,
    /// Replace or merge.
    pub kind: LoadKind,
    /// The bookmark the caller saw when it asked for the changes; if the target has another by now, `begin` or `commit` fails
    /// with kind `Conflict`.
    pub expects: Option<Bookmark>,
    /// Id of the run, for the target's history.
    pub run_id: String,
    /// Id of the service's job, for the target's history.
    pub job_id: String,
    /// What the user chose for the table.
    pub layout: Layout,
    /// Whether the set is a snapshot, and not an increment.
    pub is_snapshot: bool,
    /// The service's time of the result.
    pub as_of: Timestamp,
}

/// What a user chose for a table. What is not chosen is as the table is, or as new tables usually are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Columns left out or hashed; the plan's schema and rows are so already.
    pub columns: ColumnRecord,
    /// What a delete does.
    pub deletes: Option<Deletes>,
    /// Which rows are kept.
    pub mode: Option<TableMode>,
    /// Partitions.
    pub partition_by: Option<Partitions>,
}

impl Layout {
    /// Whether something was chosen besides columns.
    pub fn is_chosen(&self) -> bool {
        self.deletes.is_some() || self.mode.is_some() || self.partition_by.is_some()
    }

    /// For targets that have but one form of tables: kind `Unsupported` if another was chosen.
    pub fn check_usual(&self) -> Result<()> {
        let option = match self {
            Self { deletes: Some(Deletes::Mark), .. } => "--deletes mark",
            Self { mode: Some(TableMode::Changes), .. } => "--mode changes",
            Self { mode: Some(TableMode::History), .. } => "--mode history",
            Self { partition_by: Some(_), .. } => "--partition-by",
            _ => return Ok(()),
        };
        Err(Error::new(Kind::Unsupported, "This kind of target has no such tables")
            .with_field("option", option)
            .hint("leave the option out, or name a folder or an object store as --target"))
    }
}

/// One open load of one table. Dropped without `commit`, it leaves the target as it was (files that no commit names may stay).
#[async_trait]
pub trait Load: Send {
    /// Takes the changes; called once. An error may come after rows were already pulled; nothing is visible then.
    async fn write(&mut self, changes: ChangeSet) -> Result<()>;

    /// The same by other processes, which read the changes themselves. `false`: this target, or this table, has no way to; nothing was
    /// done then, and [`Load::write`] is still to be called.
    async fn write_by(&mut self, _workers: &dyn Workers) -> Result<bool> {
        Ok(false)
    }

    /// Whether the target has moved on since the load was begun, so that no changes were taken and [`Load::commit`] will change
    /// nothing.
    fn is_superseded(&self) -> bool {
        false
    }

    /// Makes rows, schema and bookmark visible together, or nothing. Doing it again with the same bookmark changes nothing, but
    /// for a [`LoadKind::Replace`] whose plan expected that very bookmark: its caller wants the rows anew.
    async fn commit(self: Box<Self>, reached: Bookmark) -> Result<Loaded>;

    /// Cleans up at once what a drop would leave behind.
    async fn abort(self: Box<Self>) -> Result<()>;
}

/// What a load did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Rows of the set that were upserts.
    pub upserted: u64,
    /// Keys removed that were really there.
    pub deleted: u64,
    /// Rows in the table now, when the target knows.
    pub rows: Option<u64>,
    /// Bytes of data files written, or sent to the database.
    pub bytes_written: u64,
    /// Schema changes that were applied, one sentence each.
    pub schema_changes: Vec<String>,
    /// Values that are not in the target as they came, one sentence each.
    pub warnings: Vec<String>,
    /// The bookmark was there already; nothing was written.
    pub repeated: bool,
}

/// A table as one load of the past left it.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    /// Data as of.
    pub at: Timestamp,
    /// Run that loaded it.
    pub run_id: Option<String>,
    /// Rows, when they are known.
    pub rows: Option<u64>,
    /// Bytes of data files, when they are known.
    pub bytes: Option<u64>,
    /// Rows of the change set that were upserts.
    pub upserted: u64,
    /// Rows removed because the service deleted them.
    pub deleted: u64,
}

/// Figures of one table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableStatus {
    /// Which.
    pub table: TableRef,
    /// How far it has come.
    pub bookmark: Bookmark,
    /// Rows, when they can be had without a scan.
    pub rows: Option<u64>,
    /// Data files, for lake tables.
    pub files: Option<u64>,
    /// Bytes of these.
    pub bytes: Option<u64>,
    /// When it was last committed, by the target's clock.
    pub last_commit: Option<Timestamp>,
    /// Version of the target's own log.
    pub version: Option<i64>,
    /// What programs must be able to do to read and write the files: versions and features of the Delta protocol.
    pub protocol: Option<String>,
    /// Which rows are kept and what deletes do, in words.
    pub kept_as: Option<String>,
}
