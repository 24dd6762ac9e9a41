//! The commands as functions that another program can call. They print nothing and read no environment variables.
//!
//! | command | function | takes | returns |
//! | --- | --- | --- | --- |
//! | `sync` | [`sync()`] | [`SyncRequest`] with a [`Selection`] of tables and a [`Sink`](crate::sink::Sink) | [`Report`] with the [`Outcome`] of each table |
//! | `status` | [`status()`] | a [`Sink`](crate::sink::Sink) | one [`StatusLine`] per table |
//! | `query` | [`query()`] | a [`Lake`] and a statement | [`Answer`], a stream of Arrow record batches |
//! | `optimize` | [`optimize()`] | a [`Lake`], a [`Selection`] and a [`Scope`] | [`Optimized`] per table |
//! | `vacuum` | [`vacuum()`] | a [`Lake`], a [`Selection`] and an age | [`Vacuumed`] per table |
//! | `snapshot`, `incremental` | [`download()`] | [`DownloadRequest`] | [`FilesReport`] |
//!
//! [`open_sink`] opens any [`Target`] (a folder, an object store, a database), [`open_lake`] one with lake tables.

mod cancellation;
#[cfg(feature = "lake")]
mod catalog;
#[cfg(feature = "lake")]
mod check;
#[cfg(feature = "sql")]
pub(crate) mod databases;
mod ddl;
mod diagram;
#[cfg(feature = "lake")]
mod disk_space;
pub(crate) mod files;
mod journal;
#[cfg(feature = "lake")]
mod maintenance;
#[cfg(feature = "lake")]
mod query;
mod runs;
mod selection;
#[cfg(feature = "lake")]
mod state_file;
#[cfg(feature = "lake")]
mod status;
#[cfg(feature = "lake")]
mod sync;
mod table_lists;
mod target;

pub use cancellation::{Cancellation, DeferReason};
pub use files::{DownloadRequest, FilesOutcome, FilesReport, Shape, TableChoice, download};
pub use journal::Journal;
#[cfg(feature = "lake")]
pub use maintenance::{Removal, TableResult, optimize, vacuum};
#[cfg(feature = "lake")]
pub use query::{Answer, query};
pub use runs::{Outcome, Report, TableReport};
pub use selection::Selection;
#[cfg(feature = "lake")]
pub use status::{Freshness, StatusLine, status};
#[cfg(feature = "lake")]
pub use sync::{OnSnapshotRequired, SyncRequest, sync};
#[cfg(feature = "lake")]
pub use target::{Target, open_lake, open_sink};

#[cfg(feature = "lake")]
pub use crate::sink::delta::{Optimized, Scope, Vacuumed};
#[cfg(feature = "lake")]
pub use crate::sink::internal::Lake;

pub(crate) use self::internal::*;
#[cfg(feature = "lake")]
pub(crate) use journal::make_private;

/// For the command line, pages, the cluster and tests; not part of the public API.
pub(crate) mod internal {
    #[cfg(feature = "lake")]
    pub(crate) use crate::catalog::LEAVE_OUT_HINT;
    #[cfg(feature = "lake")]
    pub use crate::catalog::{Catalog, CatalogKind, CatalogOptions, NameTemplate, Registered};
    #[cfg(feature = "lake")]
    pub use crate::decode::OutOfRange;
    #[cfg(feature = "lake")]
    pub use crate::fetch::UnpackLimits;
    pub use crate::model::KNOWN_NAMESPACES;
    #[cfg(feature = "lake")]
    pub use crate::ops::check::{
        Finding, OptionsCheck, Verdict, check_catalog, check_folder, check_options, check_service, check_target,
    };
    pub use crate::ops::ddl::{DdlFor, ddl};
    pub use crate::ops::diagram::{diagram, diagram_among};
    #[cfg(feature = "lake")]
    pub use crate::ops::maintenance::{VerifyRequest, verify};
    #[cfg(feature = "lake")]
    pub use crate::ops::query::Querier;
    #[cfg(feature = "lake")]
    pub use crate::ops::runs::{
        Counted, Mail, MailOptions, Notifier, NotifyForm, NotifyOn, RunHistory, RunLog, RunRecord, TableRun, Totals,
    };
    pub use crate::ops::runs::{Failure, Phases};
    pub use crate::ops::selection::{Listing, Resolved, WHOLE_NAMESPACE};
    #[cfg(feature = "lake")]
    pub use crate::ops::status::{
        Counts, DiskUse, Growth, JobStarts, LastFailure, NextJob, Overview, OverviewRequest, Point, ReaderGroup, overview,
    };
    #[cfg(feature = "lake")]
    pub use crate::ops::sync::{
        ExecutorProvider, NameOptions, Precondition, Refresh, ScanExecutor, SyncEvent, SyncObserver, SyncStep, UnknownTables,
    };
    pub use crate::ops::target::Address;
    #[cfg(feature = "lake")]
    pub use crate::ops::target::open_lake_with;
    #[cfg(feature = "sql")]
    pub use crate::ops::target::open_sink_with;
    #[cfg(feature = "lake")]
    pub use crate::sink::internal::{ColumnStatus, ReaderRequirement};
}
