//! The objects of a finished job as streams of changes: each stream downloads, decompresses and decodes its objects while it is read. It
//! combines `fetch` and `decode`; it neither deduplicates nor writes.

mod object_scan;
mod prefetch;
mod read;
mod state;

pub use object_scan::{ObjectScan, check_finished};
pub use state::{BadRowPolicy, ScanOptions};
