//! Merging changes into files that exist: keys, probes, rewrites, dedup, the change data feed. Commits nothing.

pub(in crate::sink::delta) mod change_feed;
pub(in crate::sink::delta) mod dedup;
pub(in crate::sink::delta) mod file_rewrite;
pub(in crate::sink::delta) mod key_probe;
pub(in crate::sink::delta) mod key_search;
pub(in crate::sink::delta) mod key_set;
pub(in crate::sink::delta) mod snapshot_writer;
