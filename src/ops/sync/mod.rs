//! `sync`: creates missing tables at a target and updates the others, many tables at the same time.

mod bad_rows;
mod events;
mod executors;
mod option_names;
mod queue;
mod replicate;
mod request;
mod run;
mod time_budget;

pub use events::{SyncEvent, SyncObserver, SyncStep};
pub use executors::{Helpers, ScanWorkers};
pub use option_names::NameOptions;
pub(super) use option_names::Names;
pub(super) use replicate::{choose, layout};
pub use request::{Demand, OnSnapshotRequired, Refresh, SyncRequest, Unlisted};
pub use run::sync;
