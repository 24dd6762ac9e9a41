//! The contract of targets, for a target of your own. A sink never calls the service.
//!
//! A target implements two traits: [`Sink`] reports which tables it has and opens loads; [`Load`] writes the changes of one table and commits
//! them together with the bookmark. The program's own targets are sinks, too: [`open_sink`](crate::ops::open_sink) opens them.
//!
//! With the feature `testing`, `daplake::sink::conformance` contains the contract as tests that run against any sink.

#[cfg(all(feature = "lake", any(test, feature = "testing")))]
pub mod conformance;
#[cfg(feature = "lake")]
pub(crate) mod delta;
#[cfg(feature = "lake")]
mod executor;
#[cfg(feature = "lake")]
mod kept_rows;
#[cfg(feature = "lake")]
mod lake;
#[cfg(feature = "lake")]
mod load;
#[cfg(all(test, feature = "sql"))]
mod mode_parity;
#[cfg(feature = "lake")]
pub(crate) mod parquet_folder;
#[cfg(feature = "sql")]
pub(crate) mod sql;
#[cfg(feature = "lake")]
mod target;

#[cfg(feature = "lake")]
pub use load::{Load, LoadKind, LoadPlan, LoadSummary, WriteError};
#[cfg(feature = "lake")]
pub use target::{CommittedState, Sink, TableStatus};

#[cfg(feature = "lake")]
pub use crate::reduce::{ChangeSet, deletes};
#[cfg(feature = "lake")]
pub use crate::schema::ColumnRecord;

#[cfg(feature = "lake")]
pub(crate) use self::internal::*;
#[cfg(feature = "lake")]
pub(crate) use kept_rows::{KeptRows, SystemColumn, reserved_name};
#[cfg(feature = "lake")]
pub(crate) use target::{NEW_TARGET_HINT, reload_hint};

/// For the sinks, `ops`, the cluster and tests; not part of the public API.
#[cfg(feature = "lake")]
pub(crate) mod internal {
    pub use crate::sink::executor::{Executor, Task, TaskChain, TaskInput, TaskOutput, TaskResources};
    pub use crate::sink::lake::{Lake, LakeFormats, detect_formats};
    pub use crate::sink::load::{Layout, OnSchemaChange};
    pub use crate::sink::target::{
        Capabilities, CatalogColumn, CatalogEntry, ColumnStatus, ForeignChanges, LakeFeatures, LoadRecord, ReaderRequirement,
        TableProblems,
    };
}
