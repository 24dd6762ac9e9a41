//! Deduplication of change sets: the latest change per key, and rows that were not seen before. It does not know the target.

mod change_set;
mod duplicate_keys;
mod key_order;
mod latest;
#[cfg(test)]
mod tests;
mod unseen;

pub use change_set::{ChangeSet, deletes};
pub use key_order::latest_in_key_order;
pub use latest::latest_per_key;
pub use unseen::{DIGEST, digest_fields, unseen};
