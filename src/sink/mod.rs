//! Places where tables are kept, behind one trait. A sink never calls the API.

#[cfg(all(feature = "lake", any(test, feature = "testing")))]
pub mod conformance;
#[cfg(feature = "lake")]
pub mod delta;
#[cfg(feature = "lake")]
mod lake;
#[cfg(feature = "lake")]
mod load;
#[cfg(feature = "lake")]
pub mod parquet_folder;
#[cfg(feature = "lake")]
mod parts;
#[cfg(feature = "sql")]
pub mod sql;

#[cfg(feature = "lake")]
pub use lake::{Lake, LakeFormats, detect_formats};
#[cfg(feature = "lake")]
pub(crate) use load::way_out;
#[cfg(feature = "lake")]
pub use load::{ForeignChanges, Held, Layout, Load, LoadKind, LoadPlan, Loaded, Past, Sink, TableStatus};
#[cfg(feature = "lake")]
pub use parts::{Done, Source, Step, Work, Worker, Workers};
