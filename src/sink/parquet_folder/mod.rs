//! Folders of plain Parquet files: a reader of `*.parquet` sees one version of a table, never a mixture of two.
//!
//! The versions of such a table are kept in a Delta log that readers need not know. On a local disk, log and data files are in
//! `<root>/.daplake/<namespace>/<table>/`, and `<root>/<namespace>/<table>/` has hard links to the files of one version and the
//! manifest `_daplake.json`, which names the version. After each commit the folder is swapped as a whole. If a run is killed in
//! between, readers see the old version, and the next run swaps the folder before it does anything else. An object store cannot swap
//! folders; there readers use views, which name the files of a version.
//!
//! Files that a version replaced stay for an hour, for readers that still use them.

mod folder_swap;
mod manifest;
mod sink;
#[cfg(test)]
mod tests;
pub(super) mod views;

pub use self::sink::ParquetSink;

/// Folder of the logs and data files, below the root of a target.
pub(super) const HIDDEN: &str = ".daplake";
