//! One file per verb; what a program would call. It prints nothing and reads no environment.

mod address;
#[cfg(feature = "lake")]
mod bad_rows;
#[cfg(feature = "lake")]
mod budget;
#[cfg(feature = "lake")]
mod care;
#[cfg(feature = "lake")]
mod check;
#[cfg(feature = "sql")]
pub mod db;
mod ddl;
mod diagram;
pub mod files;
#[cfg(feature = "lake")]
mod helpers;
mod journal;
#[cfg(feature = "lake")]
mod names;
#[cfg(feature = "lake")]
mod notify;
#[cfg(feature = "lake")]
mod order;
#[cfg(feature = "lake")]
mod query;
#[cfg(feature = "lake")]
mod replicate;
mod report;
#[cfg(feature = "lake")]
mod runs;
mod select;
#[cfg(feature = "lake")]
mod status;
#[cfg(feature = "lake")]
mod steps;
mod stop;
#[cfg(feature = "lake")]
mod sync;
#[cfg(feature = "lake")]
mod target;
#[cfg(feature = "lake")]
mod verify;

#[cfg(feature = "lake")]
pub use crate::decode::OutOfRange;
#[cfg(feature = "lake")]
pub use crate::fetch::UnpackLimits;
pub use crate::model::KNOWN_NAMESPACES;
pub use address::Address;
#[cfg(feature = "lake")]
pub use care::{Cared, Removal, optimize, vacuum};
#[cfg(feature = "lake")]
pub use check::{Finding, OptionsCheck, Verdict, check_folder, check_options, check_service, check_target};
pub use ddl::{DdlFor, ddl};
pub use diagram::{diagram, diagram_among};
#[cfg(feature = "lake")]
pub use helpers::{Helpers, ScanWorkers};
pub use journal::Journal;
#[cfg(feature = "lake")]
pub use names::NameOptions;
#[cfg(feature = "lake")]
pub use notify::{Notifier, NotifyForm, NotifyOn};
#[cfg(feature = "lake")]
pub use query::{Answer, Querier, query, query_at};
pub use report::{Failure, Outcome, Phases, Report, TableReport};
#[cfg(feature = "lake")]
pub use runs::{Counted, RunHistory, RunLog, RunRecord, TableRun, Totals};
pub use select::{Listing, Resolved, Selection, WHOLE_NAMESPACE};
#[cfg(feature = "lake")]
pub use status::{Freshness, Overview, OverviewRequest, Point, StatusLine, overview, status};
#[cfg(feature = "lake")]
pub use steps::{SyncEvent, SyncObserver, SyncStep};
pub use stop::{Reason, Stop};
#[cfg(feature = "lake")]
pub use sync::{Demand, OnSnapshotRequired, Refresh, SyncRequest, Unlisted, sync};
#[cfg(feature = "sql")]
pub use target::open_sink_with;
#[cfg(feature = "lake")]
pub use target::{LakeFormat, Target, open_lake, open_sink, open_tables, open_target, open_target_with};
#[cfg(feature = "lake")]
pub use verify::{VerifyRequest, verify};
