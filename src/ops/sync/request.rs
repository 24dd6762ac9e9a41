//! The request of a `sync`: resolved options, ready to use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::events::SyncObserver;
use super::executors::ExecutorProvider;
use super::option_names::NameOptions;
use crate::api::Client;
use crate::catalog::Catalog;
use crate::decode::OutOfRange;
use crate::engine::Engine;
use crate::error::Result;
use crate::fetch::UnpackLimits;
use crate::model::{Format, Mode, TableRef};
use crate::ops::cancellation::Cancellation;
use crate::ops::journal::Journal;
use crate::ops::selection::Selection;
use crate::redact::Secret;
use crate::schema::{HashKey, Nested, TableRules};
use crate::sink::{OnSchemaChange, Sink};

/// What to do if the service has no increments since the bookmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSnapshotRequired {
    /// The table fails with kind `SnapshotRequired` or `OutOfRange` and is not changed.
    Fail,
    /// A new snapshot replaces the rows in one commit; `web_logs` is merged.
    Resnapshot,
}

/// Whether a table must exist at the target before the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precondition {
    /// No condition: missing tables are created, others updated.
    #[default]
    Nothing,
    /// It must not exist, as for `initdb`.
    Absent,
    /// It must exist, as for `syncdb`.
    Present,
}

/// What to do with selected tables that the service does not list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownTables {
    /// They fail without a job.
    #[default]
    Refuse,
    /// They are tried. Without patterns in the selection, the list is not requested.
    Try,
}

/// Everything a [`sync`](crate::ops::sync()) needs. [`SyncRequest::new`] sets the defaults of the command line.
///
/// ```no_run
/// # fn example(request: daplake::ops::SyncRequest) -> daplake::Result<()> {
/// use std::time::Duration;
///
/// use daplake::Secret;
/// use daplake::ops::{Journal, SyncRequest};
///
/// let request = SyncRequest {
///     // The next run resumes the jobs of an interrupted one.
///     journal: Some(Journal::new("state", "my account")),
///     time_budget: Some(Duration::from_secs(3600)),
///     ..request
/// };
/// let key = Secret::new(std::fs::read_to_string("hash-key").unwrap_or_default());
/// let request = request.drop_column("users.email")?.hash_column("*.user_id")?.hash_key(&key)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SyncRequest {
    /// The service.
    pub client: Client,
    /// The target.
    pub sink: Arc<dyn Sink>,
    /// Memory limit and spill folder.
    pub engine: Engine,
    /// The tables.
    pub selection: Selection,
    /// Format of the downloaded objects.
    pub format: Format,
    /// Mode of tabular formats; `None`: the default of the service.
    #[doc(hidden)]
    pub mode: Option<Mode>,
    /// Load new snapshots even if increments are possible.
    pub resnapshot: bool,
    /// See [`OnSnapshotRequired`].
    pub on_snapshot_required: OnSnapshotRequired,
    /// What to do when the columns of an existing table would change.
    #[doc(hidden)]
    pub on_schema_change: OnSchemaChange,
    /// See [`Precondition`].
    #[doc(hidden)]
    pub precondition: Precondition,
    /// See [`UnknownTables`].
    #[doc(hidden)]
    pub unknown_tables: UnknownTables,
    /// How nested columns are stored.
    #[doc(hidden)]
    pub nested: Nested,
    /// Columns, deletes, modes and partitions per table.
    #[doc(hidden)]
    pub rules: TableRules,
    /// How table names in `rules` and in the exclusions are checked.
    #[doc(hidden)]
    pub names: NameOptions,
    /// File for unreadable rows; `None`: an unreadable row fails its table.
    pub bad_rows: Option<PathBuf>,
    /// Tables that load at the same time, at least 1.
    pub concurrency: usize,
    /// Objects of one table that are read at the same time, at least 1.
    pub object_concurrency: usize,
    /// Id of the run, in the report and in the history of the target. Each run needs a new one.
    pub run_id: String,
    /// Longest line of an object, bytes.
    #[doc(hidden)]
    pub max_line: usize,
    /// Limits of the decompressed size of an object.
    #[doc(hidden)]
    pub unpack: UnpackLimits,
    /// What to do with times and dates outside the years 1 to 9999.
    #[doc(hidden)]
    pub out_of_range: OutOfRange,
    /// Records the jobs of a run, so that the next run can resume them; `None`: jobs are not resumed. Two concurrent runs with the same
    /// journal do not work on the same table at the same time: the second one waits.
    pub journal: Option<Journal>,
    /// Catalog in which tables are registered after their loads.
    #[doc(hidden)]
    pub catalog: Option<Arc<Catalog>>,
    /// Ignore the jobs of earlier runs.
    pub fresh: bool,
    /// Time after which the run ends. No table starts shortly before; the least recently synced tables start first.
    pub time_budget: Option<Duration>,
    /// Skip tables whose data are younger than the refresh interval of the service.
    #[doc(hidden)]
    pub skip_recent: Option<Refresh>,
    /// Ends the run early.
    pub cancellation: Cancellation,
    /// Executors in other processes; `None`: this process loads all tables.
    #[doc(hidden)]
    pub executors: Option<Arc<dyn ExecutorProvider>>,
    /// Called when tables start and end.
    #[doc(hidden)]
    pub observer: Option<SyncObserver>,
}

/// How often the service refreshes its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Every 4 hours, `new_quizzes` every 8.
    AsDocumented,
    /// Every so often.
    Every(Duration),
}

impl Refresh {
    /// Time between two refreshes of a table.
    pub fn interval(self, table: &TableRef) -> Duration {
        const HOUR: Duration = Duration::from_secs(3600);
        match self {
            Refresh::Every(interval) => interval,
            Refresh::AsDocumented if table.namespace.as_str() == "new_quizzes" => 8 * HOUR,
            Refresh::AsDocumented => 4 * HOUR,
        }
    }
}

impl SyncRequest {
    /// A request with the defaults of the command line: JSONL, typed nested columns, two loads at the same time, a new snapshot if the service
    /// requires one.
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
            on_schema_change: OnSchemaChange::Apply,
            precondition: Precondition::Nothing,
            unknown_tables: UnknownTables::Refuse,
            nested: Nested::Typed,
            rules: TableRules::default(),
            names: NameOptions::default(),
            bad_rows: None,
            concurrency: 2,
            object_concurrency: 2,
            run_id: uuid::Uuid::new_v4().to_string(),
            max_line: 256 << 20,
            unpack: UnpackLimits::default(),
            out_of_range: OutOfRange::Fail,
            journal: None,
            catalog: None,
            fresh: false,
            time_budget: None,
            skip_recent: None,
            cancellation: Cancellation::default(),
            executors: None,
            observer: None,
        }
    }

    /// Leaves a column out, given as `table.column` or `namespace.table.column`. Patterns such as `*.email` match several.
    ///
    /// # Errors
    /// Kind `Usage` if `column` has no table.
    pub fn drop_column(mut self, column: &str) -> Result<Self> {
        self.rules.add_column(column, |columns| &mut columns.drop)?;
        Ok(self)
    }

    /// Stores a column, given as for [`SyncRequest::drop_column`], as keyed hashes. Equal values have equal hashes in all tables. Requires
    /// [`SyncRequest::hash_key`].
    ///
    /// # Errors
    /// Kind `Usage` if `column` has no table.
    pub fn hash_column(mut self, column: &str) -> Result<Self> {
        self.rules.add_column(column, |columns| &mut columns.hash)?;
        Ok(self)
    }

    /// Sets the key of hashed columns, at least 16 bytes. It must be the same in every run.
    ///
    /// # Errors
    /// Kind `Usage` if the key is too short.
    pub fn hash_key(mut self, key: &Secret) -> Result<Self> {
        self.rules.set_hash_key(HashKey::new(key)?);
        Ok(self)
    }
}
