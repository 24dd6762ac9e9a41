//! Merging changes into existing files: keys, the merge probe, file rewrites, deduplication, the change data feed. Commits nothing.

pub(crate) mod change_feed;
pub(crate) mod file_rewrite;
pub(crate) mod key_probe;
pub(crate) mod key_set;
pub(crate) mod page_pruning;
pub(crate) mod post_write_dedup;
pub(crate) mod probe_buffer;
pub(crate) mod row_location;
pub(crate) mod snapshot_writer;
pub(crate) mod unique_keys;
