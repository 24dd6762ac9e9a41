//! What a `sync` is asked to do: options that are read, checked and ready to use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::events::SyncObserver;
use super::executors::Helpers;
use super::option_names::NameOptions;
use crate::api::Client;
use crate::decode::OutOfRange;
use crate::engine::Engine;
use crate::fetch::UnpackLimits;
use crate::model::{Format, Mode, TableRef};
use crate::ops::cancellation::Stop;
use crate::ops::journal::Journal;
use crate::ops::selection::Selection;
use crate::schema::{Nested, TableRules};
use crate::sink::Sink;

/// What to do when the service gives no increments since the bookmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSnapshotRequired {
    /// The table fails with kind `SnapshotRequired` (or `OutOfRange`) and stays as it is.
    Fail,
    /// A new snapshot replaces the table in one step; `web_logs` is merged.
    Resnapshot,
}

/// What has to be known of a table before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Demand {
    /// Nothing: new tables are made, others brought up to date.
    #[default]
    Nothing,
    /// It must not be there yet, as for `initdb`.
    Absent,
    /// It must be there, as for `syncdb`.
    Present,
}

/// What to do about names that the service does not list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unlisted {
    /// They fail without being tried.
    #[default]
    Refuse,
    /// They are tried all the same. Without patterns the list is not asked for.
    Try,
}

/// Everything a sync needs, ready to use.
#[derive(Clone)]
pub struct SyncRequest {
    /// The service.
    pub client: Client,
    /// Where the tables are kept.
    pub sink: Arc<dyn Sink>,
    /// Memory and spill.
    pub engine: Engine,
    /// Which tables.
    pub selection: Selection,
    /// Format of the downloaded objects.
    pub format: Format,
    /// Mode of tabular formats; `None` leaves it to the server.
    pub mode: Option<Mode>,
    /// Take new snapshots even where increments would do.
    pub resnapshot: bool,
    /// See [`OnSnapshotRequired`].
    pub on_snapshot_required: OnSnapshotRequired,
    /// See [`Demand`].
    pub demand: Demand,
    /// See [`Unlisted`].
    pub unlisted: Unlisted,
    /// Form of nested columns.
    pub nested: Nested,
    /// Columns, deletes, modes and partitions of single tables.
    pub rules: TableRules,
    /// How names of tables in `rules` and in the selection's exclusions are checked.
    pub names: NameOptions,
    /// Where unreadable rows are set aside; `None`: such a row fails its table.
    pub bad_rows: Option<PathBuf>,
    /// Tables that load at once, at least 1.
    pub concurrency: usize,
    /// Objects of one table that are read at once, at least 1.
    pub object_concurrency: usize,
    /// Id of the run, in the report and in the target's history. A request that is used again needs a new one.
    pub run_id: String,
    /// Longest line of an object, bytes.
    pub max_line: usize,
    /// What an object may unpack to.
    pub unpack: UnpackLimits,
    /// What to do with times and dates outside the years 1 to 9999.
    pub out_of_range: OutOfRange,
    /// Where the jobs of a run are noted, so that the next one re-attaches to those that live; `None`: nowhere. Of two runs at once
    /// with the same journal, the second waits for each table that the first is at work on.
    pub journal: Option<Journal>,
    /// Forget what an earlier run noted.
    pub fresh: bool,
    /// Time after which the run has ended, with what it has done by then; nothing is begun shortly before. Tables that were done
    /// longest ago come first then.
    pub time_budget: Option<Duration>,
    /// Leave tables alone whose data are younger than what lies between two refreshes of the service.
    pub skip_recent: Option<Refresh>,
    /// A wish to stop.
    pub stop: Stop,
    /// Other processes that do the work of loads where they can; `None`: this one does all.
    pub helpers: Option<Arc<dyn Helpers>>,
    /// Told when tables start and end.
    pub observer: Option<SyncObserver>,
}

/// How often the service refreshes its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// Every 4 hours, `new_quizzes` every 8.
    AsDocumented,
    /// So often.
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
    /// With the defaults of the command line: JSONL, typed nested columns, two tables at once, a new snapshot when the service
    /// demands one.
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
            demand: Demand::Nothing,
            unlisted: Unlisted::Refuse,
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
            stop: Stop::default(),
            helpers: None,
            observer: None,
        }
    }
}
