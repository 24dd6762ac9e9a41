//! DataFusion at work: the session with its memory limit and spill, and the latest change per key. It does not know the target.

mod batches;
mod changes;
mod latest;
mod order;
mod parked;
mod repeats;
mod session;
mod sorted;
mod source;
mod spill;
#[cfg(test)]
mod tests;
mod unseen;

pub(crate) use batches::{BatchSender, stream_from_task, streams_from_tasks};
pub use batches::{pull_together, rebatch, split_batch};
pub use changes::{ChangeSet, deletes};
pub use latest::latest_per_key;
pub use order::in_order_of;
pub use parked::Parking;
pub use session::{Engine, EngineOptions, engine_error};
pub use sorted::Sorted;
pub use source::{batch_stream, table_of_batches, table_of_streams};
pub use unseen::{DIGEST, digest_fields, unseen};
