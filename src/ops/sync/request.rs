//! The request of a `sync`: resolved options, ready to use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::events::SyncObserver;
use super::executors::ExecutorProvider;
use super::option_names::NameOptions;
use crate::api::Client;
use crate::decode::OutOfRange;
use crate::engine::Engine;
use crate::fetch::UnpackLimits;
use crate::model::{Format, Mode, TableRef};
use crate::ops::cancellation::Cancellation;
use crate::ops::journal::Journal;
use crate::ops::selection::Selection;
use crate::schema::{Nested, TableRules};
use crate::sink::Sink;

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

/// Everything a sync needs.
///
/// ```no_run
/// # async fn example(client: daplake::api::Client) -> daplake::Result<()> {
/// use daplake::engine::{Engine, EngineOptions};
/// use daplake::ops::{Selection, SyncRequest, Target, open_sink, sync};
///
/// let engine = Engine::new(EngineOptions::default())?;
/// let sink = open_sink(&"./lake".parse::<Target>()?, &engine)?;
/// let report = sync(SyncRequest::new(client, sink, engine, Selection::all_of("canvas"))).await?;
/// for table in &report.tables {
///     println!("{}: {:?}", table.table, table.outcome);
/// }
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
    pub mode: Option<Mode>,
    /// Load new snapshots even if increments are possible.
    pub resnapshot: bool,
    /// See [`OnSnapshotRequired`].
    pub on_snapshot_required: OnSnapshotRequired,
    /// See [`Precondition`].
    pub precondition: Precondition,
    /// See [`UnknownTables`].
    pub unknown_tables: UnknownTables,
    /// How nested columns are stored.
    pub nested: Nested,
    /// Columns, deletes, modes and partitions per table.
    pub rules: TableRules,
    /// How table names in `rules` and in the exclusions are checked.
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
    pub max_line: usize,
    /// Limits of the decompressed size of an object.
    pub unpack: UnpackLimits,
    /// What to do with times and dates outside the years 1 to 9999.
    pub out_of_range: OutOfRange,
    /// Records the jobs of a run, so that the next run can resume them; `None`: jobs are not resumed. Two concurrent runs with the same
    /// journal do not work on the same table at the same time: the second one waits.
    pub journal: Option<Journal>,
    /// Ignore the jobs of earlier runs.
    pub fresh: bool,
    /// Time after which the run ends. No table starts shortly before; the least recently synced tables start first.
    pub time_budget: Option<Duration>,
    /// Skip tables whose data are younger than the refresh interval of the service.
    pub skip_recent: Option<Refresh>,
    /// Ends the run early.
    pub cancellation: Cancellation,
    /// Executors in other processes; `None`: this process loads all tables.
    pub executors: Option<Arc<dyn ExecutorProvider>>,
    /// Called when tables start and end.
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
            fresh: false,
            time_budget: None,
            skip_recent: None,
            cancellation: Cancellation::default(),
            executors: None,
            observer: None,
        }
    }
}
