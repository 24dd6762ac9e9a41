//! A load: the changes of one job on their way into one table.

use std::sync::Arc;

use async_trait::async_trait;

use super::executor::Executor;
use crate::error::{Error, Kind, Result};
use crate::model::{Bookmark, TableRef, Timestamp};
use crate::reduce::ChangeSet;
use crate::schema::{ColumnRecord, Deletes, Nested, Partitions, TableMode, TableSchema};

/// How changes are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadKind {
    /// The changes are the whole table and replace all rows.
    Replace,
    /// Upserts and deletes by key.
    Merge,
}

/// Description of a load.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// The table.
    pub table: TableRef,
    /// Schema of the rows.
    #[doc(hidden)]
    pub schema: Arc<TableSchema>,
    /// How nested columns are stored.
    #[doc(hidden)]
    pub nested: Nested,
    /// Replace or merge.
    pub kind: LoadKind,
    /// The committed bookmark when the changes were requested. If the table has another one by now, `begin` or `commit` fails with kind
    /// `Conflict`.
    pub expected: Option<Bookmark>,
    /// Id of the run, for the history of the target.
    pub run_id: String,
    /// Id of the job, for the history of the target.
    pub job_id: String,
    /// The user's options for the table.
    #[doc(hidden)]
    pub layout: Layout,
    /// Whether the changes are a snapshot; otherwise an increment.
    pub is_snapshot: bool,
    /// The time of the result, by the service's clock.
    pub as_of: Timestamp,
}

impl LoadPlan {
    /// The dropped and hashed columns. The changes already follow them. After the commit, [`Sink::committed`](super::Sink::committed) must
    /// return them, so that later loads of the table are checked against them.
    pub fn columns(&self) -> &ColumnRecord {
        &self.layout.columns
    }
}

/// What to do when a load would change the columns of an existing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnSchemaChange {
    /// The columns follow the service.
    #[default]
    Apply,
    /// The table fails and stays as it is.
    Fail,
    /// New columns are left out; any other change is as in [`OnSchemaChange::Fail`].
    IgnoreNewColumns,
}

impl OnSchemaChange {
    /// Refuses `changes` to an existing table unless they are to be applied.
    ///
    /// # Errors
    /// Kind `Schema`, with the changes.
    pub(crate) fn check(self, table: &TableRef, changes: &[String]) -> Result<()> {
        let hint = match self {
            Self::Apply => return Ok(()),
            _ if changes.is_empty() => return Ok(()),
            Self::Fail => "leave new columns out with --schema-changes ignore-new-columns",
            Self::IgnoreNewColumns => "only new columns are ignored",
        };
        Err(Error::new(Kind::Schema, "The columns of the table would change, and --schema-changes forbids it")
            .with_field("changes", changes.join("; "))
            .hint(format!("accept the changes by one run with --schema-changes apply --table {table}; {hint}")))
    }
}

/// The user's options for a table. `None`: the setting of the existing table, or the default for a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// Dropped and hashed columns. Schema and rows of the plan already follow them.
    pub columns: ColumnRecord,
    /// How deletes are applied.
    pub deletes: Option<Deletes>,
    /// Which rows are kept.
    pub mode: Option<TableMode>,
    /// Partitioning.
    pub partition_by: Option<Partitions>,
    /// What to do when the columns of an existing table would change.
    pub on_schema_change: OnSchemaChange,
}

impl Layout {
    /// Whether anything besides columns was chosen.
    pub fn is_chosen(&self) -> bool {
        self.deletes.is_some() || self.mode.is_some() || self.partition_by.is_some()
    }

    /// For targets with one form of tables.
    ///
    /// # Errors
    /// Kind `Unsupported` if another form was chosen.
    pub fn require_default(&self) -> Result<()> {
        match self {
            Self { deletes: Some(Deletes::Mark), .. } => Err(unsupported("--deletes mark")),
            Self { mode: Some(TableMode::History), .. } => Err(unsupported("--mode history")),
            _ => self.require_rows_of_database(),
        }
    }

    /// For databases, which have no log of changes and no partitions.
    ///
    /// # Errors
    /// Kind `Unsupported` if one of them was chosen.
    pub(crate) fn require_rows_of_database(&self) -> Result<()> {
        match self {
            Self { mode: Some(TableMode::Changes), .. } => Err(unsupported("--mode changes")),
            Self { partition_by: Some(_), .. } => Err(unsupported("--partition-by")),
            _ => Ok(()),
        }
    }
}

fn unsupported(option: &str) -> Error {
    Error::new(Kind::Unsupported, "This kind of target does not support the option")
        .with_field("option", option)
        .hint("leave the option out, or use a folder or an object store as --target")
}

/// An open load of one table: `write`, then `commit` or `abort`. A load that is dropped without `commit` leaves the table as it was;
/// uncommitted files may remain.
///
/// A load that counts its changes:
///
/// ```
/// use async_trait::async_trait;
/// use daplake::sink::{ChangeSet, Load, LoadSummary, WriteError, deletes};
/// use daplake::{Bookmark, Result};
/// use futures::TryStreamExt;
///
/// #[derive(Default)]
/// struct Counting(LoadSummary);
///
/// #[async_trait]
/// impl Load for Counting {
///     async fn write(&mut self, changes: ChangeSet) -> Result<(), WriteError> {
///         for mut stream in changes.into_streams() {
///             while let Some(batch) = stream.try_next().await? {
///                 let deleted = deletes(&batch)?.true_count();
///                 self.0.deleted += deleted as u64;
///                 self.0.upserted += (batch.num_rows() - deleted) as u64;
///             }
///         }
///         Ok(())
///     }
///     async fn commit(self: Box<Self>, reached: Bookmark) -> Result<LoadSummary> {
///         // Make rows, schema and `reached` durable together.
///         # let _ = reached;
///         Ok(self.0)
///     }
///     async fn abort(self: Box<Self>) -> Result<()> {
///         Ok(())
///     }
/// }
/// ```
#[async_trait]
pub trait Load: Send {
    /// Writes the changes. Called once. Nothing is visible before [`Load::commit`].
    ///
    /// # Errors
    /// See [`WriteError`]. Rows may have been read from `changes` before the error; the caller aborts the load.
    async fn write(&mut self, changes: ChangeSet) -> Result<(), WriteError>;

    /// Whether an executor can do this load, see [`Load::write_distributed`].
    #[doc(hidden)]
    fn can_distribute(&self) -> bool {
        false
    }

    /// As [`Load::write`], by tasks in other processes, which read the changes themselves. Called once, in place of `write`, if
    /// [`Load::can_distribute`].
    #[doc(hidden)]
    async fn write_distributed(&mut self, _executor: &dyn Executor) -> Result<()> {
        Err(Error::new(Kind::Bug, "This load cannot be distributed"))
    }

    /// Whether the table has changed since the load began, so that [`Load::write`] ignored its changes and [`Load::commit`] changes nothing.
    fn is_superseded(&self) -> bool {
        false
    }

    /// Makes rows, schema and bookmark visible together, or nothing. A repetition with the bookmark that the table already has changes nothing,
    /// except for a [`LoadKind::Replace`] whose plan expected that bookmark.
    ///
    /// # Errors
    /// Kind `Conflict` if another load was committed meanwhile.
    async fn commit(self: Box<Self>, reached: Bookmark) -> Result<LoadSummary>;

    /// Removes at once what a drop would leave behind.
    async fn abort(self: Box<Self>) -> Result<()>;
}

/// Why changes could not be written.
#[derive(Debug)]
pub enum WriteError {
    /// A key occurs twice in changes that promise unique keys. The caller deduplicates them and loads again.
    DuplicateKey,
    /// The rows do not fit the table that the load created. The caller loads the same changes again, once; the target then uses another way.
    Restart,
    /// Any other failure.
    Failed(Error),
}

impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl WriteError {
    /// Applies `change` to the error of [`WriteError::Failed`].
    #[must_use]
    pub fn map(self, change: impl FnOnce(Error) -> Error) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(change(error)),
            other => other,
        }
    }

    /// The error for a caller that does not repeat the load.
    pub fn into_error(self) -> Error {
        match self {
            WriteError::DuplicateKey => Error::new(Kind::Data, "A key occurs twice in a result that promises unique keys"),
            WriteError::Restart => Error::new(Kind::Data, "The rows do not fit the new table, which must be loaded again"),
            WriteError::Failed(error) => error,
        }
    }
}

/// The result of a load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadSummary {
    /// Upserts in the change set.
    pub upserted: u64,
    /// Rows that deletes removed.
    pub deleted: u64,
    /// Rows of the table, if the target counts them.
    pub rows: Option<u64>,
    /// Bytes of data files written, or sent to the database.
    pub bytes_written: u64,
    /// Schema changes, one sentence each.
    pub schema_changes: Vec<String>,
    /// Values that were stored in another form, one sentence each.
    pub warnings: Vec<String>,
    /// The table had the bookmark already; nothing was written.
    pub repeated: bool,
}
