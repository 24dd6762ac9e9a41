//! Targets behind one trait. A sink never calls the service.

#[cfg(all(feature = "lake", any(test, feature = "testing")))]
pub mod conformance;
#[cfg(feature = "lake")]
pub mod delta;
#[cfg(feature = "lake")]
mod executor;
#[cfg(feature = "lake")]
mod lake;
#[cfg(feature = "lake")]
mod load;
#[cfg(feature = "lake")]
pub mod parquet_folder;
#[cfg(feature = "sql")]
pub mod sql;
#[cfg(feature = "lake")]
mod target;

#[cfg(feature = "lake")]
pub use executor::{Executor, Task, TaskChain, TaskInput, TaskOutput, TaskResources};
#[cfg(feature = "lake")]
pub use lake::{Lake, LakeFormats, detect_formats};
#[cfg(feature = "lake")]
pub use load::{Layout, Load, LoadKind, LoadPlan, LoadSummary, WriteError};
#[cfg(feature = "lake")]
pub use target::{
    Capabilities, ColumnStatus, CommittedState, ForeignChanges, LakeFeatures, LoadRecord, ReaderRequirement, Sink, TableStatus,
};
#[cfg(feature = "lake")]
pub(crate) use target::{NEW_TARGET_HINT, reload_hint};
