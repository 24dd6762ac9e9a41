//! The commands as functions that another program can call. They print nothing and read no environment variables.

mod cancellation;
#[cfg(feature = "lake")]
mod check;
#[cfg(feature = "sql")]
pub mod databases;
mod ddl;
mod diagram;
#[cfg(feature = "lake")]
mod disk_space;
pub mod files;
mod journal;
#[cfg(feature = "lake")]
mod maintenance;
#[cfg(feature = "lake")]
mod query;
mod runs;
mod selection;
#[cfg(feature = "lake")]
mod status;
#[cfg(feature = "lake")]
mod sync;
mod table_lists;
mod target;

#[cfg(feature = "lake")]
pub use crate::decode::OutOfRange;
#[cfg(feature = "lake")]
pub use crate::fetch::UnpackLimits;
pub use crate::model::KNOWN_NAMESPACES;
#[cfg(feature = "lake")]
pub use crate::sink::{ColumnStatus, ReaderRequirement};
pub use cancellation::{Cancellation, DeferReason};
#[cfg(feature = "lake")]
pub use check::{Finding, OptionsCheck, Verdict, check_folder, check_options, check_service, check_target};
pub use ddl::{DdlFor, ddl};
pub use diagram::{diagram, diagram_among};
pub use journal::Journal;
#[cfg(feature = "lake")]
pub(crate) use journal::make_private;
#[cfg(feature = "lake")]
pub use maintenance::{Removal, TableResult, VerifyRequest, optimize, vacuum, verify};
#[cfg(feature = "lake")]
pub use query::{Answer, Querier, query, query_at};
#[cfg(feature = "lake")]
pub use runs::{Counted, Mail, MailOptions, Notifier, NotifyForm, NotifyOn, RunHistory, RunLog, RunRecord, TableRun, Totals};
pub use runs::{Failure, Outcome, Phases, Report, TableReport};
pub use selection::{Listing, Resolved, Selection, WHOLE_NAMESPACE};
#[cfg(feature = "lake")]
pub use status::{
    Counts, DiskUse, Freshness, Growth, JobStarts, LastFailure, NextJob, Overview, OverviewRequest, Point, ReaderGroup,
    StatusLine, overview, status,
};
#[cfg(feature = "lake")]
pub use sync::{
    ExecutorProvider, NameOptions, OnSnapshotRequired, Precondition, Refresh, ScanExecutor, SyncEvent, SyncObserver,
    SyncRequest, SyncStep, UnknownTables, sync,
};
pub use target::Address;
#[cfg(feature = "sql")]
pub use target::open_sink_with;
#[cfg(feature = "lake")]
pub use target::{Target, open_lake, open_sink, open_tables, open_target, open_target_with};
