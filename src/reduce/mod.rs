//! Deduplication of change sets: the latest change per key, and rows that were not seen before. It does not know the target.

mod change_set;
mod duplicate_keys;
mod latest;
#[cfg(test)]
mod tests;
mod unseen;

pub use change_set::{ChangeSet, deletes};
pub use latest::latest_per_key;
pub use unseen::{DIGEST, digest_fields, unseen};
