//! `sync`: creates missing tables at a target and updates the others, many tables at the same time.

mod bad_rows;
mod events;
mod executors;
mod layout;
mod option_names;
mod outcome;
mod pipeline;
mod queue;
mod replicate;
mod request;
mod run;
mod time_budget;

pub use events::{SyncEvent, SyncObserver, SyncStep};
pub use executors::{ExecutorProvider, ScanExecutor};
pub(super) use layout::{choose, layout};
pub use option_names::NameOptions;
pub(super) use option_names::Names;
pub use request::{OnSnapshotRequired, Precondition, Refresh, SyncRequest, UnknownTables};
pub use run::sync;
