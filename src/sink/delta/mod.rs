//! Delta Lake tables in a local folder or an object store: one folder per table, rows and bookmark in one commit.
//!
//! A table is at `<root>/<namespace>/<table>/`. Its bookmark is a `txn` action (application `daplake/<namespace>.<table>`, version
//! in microseconds since the epoch); what else a later load has to know is in table properties named `daplake.*`. A table uses the
//! lowest protocol version that its options allow (`log/protocol.rs`).
//!
//! Modules import only from modules above them in this list; nothing here calls the service or retries a request:
//!
//! - `log`: the Delta log of a table and its actions; no rows.
//! - `write`: data files, deletion vectors and uploads; commits nothing.
//! - `iceberg`: the read-only Iceberg view of a table, from the actions of its log.
//! - `read`: rows of data files.
//! - `merge`: keys, the merge probe, file rewrites, deduplication, the change data feed; commits nothing.
//! - `modes`: what a load writes in each table mode.
//! - `maintenance`: optimize, vacuum, verify, commit history, time travel.
//! - `distributed`: tasks of a load that run on executors.
//! - `load`, `sink`: the implementations of [`Load`](crate::sink::Load) and [`Sink`](crate::sink::Sink).

mod distributed;
mod iceberg;
mod load;
pub(super) mod log;
pub(super) mod maintenance;
mod merge;
mod modes;
mod options;
mod read;
mod sink;
#[cfg(test)]
pub(super) mod tests;
mod write;

#[cfg(feature = "cluster")]
pub(crate) use self::distributed::run_task;
pub use self::maintenance::commit_history::Commit;
pub use self::maintenance::optimize::{Optimized, Scope};
pub use self::maintenance::time_travel::At;
pub use self::maintenance::vacuum::{MIN_RETENTION, Vacuumed};
pub use self::maintenance::verify::{Differences, DifferingKey};
pub use self::options::{ChangeDataFeed, DeletionVectors, DeltaOptions, IcebergView, OnForeignChanges};
pub use self::sink::DeltaSink;
pub(crate) use self::sink::check_each;
