//! A read-only Iceberg view of a Delta table: metadata of the Iceberg table format, version 3, over the same data files.
//!
//! The view follows the Delta log: each commit of daplake becomes an Iceberg snapshot, whose summary names the Delta version. It is
//! written after the Delta commit. If that fails, the next run writes it from the log, so nothing here is needed to restore a table.
//! Knows the actions of the log, and nothing of loads and merges.
//!
//! - `avro`, `puffin`: container files.
//! - `schema`, `partition`, `bounds`: schema, partitions and statistics, from the form of Delta to that of Iceberg.
//! - `manifest`, `manifest_list`, `table_metadata`: the files of the Iceberg format.
//! - `delta_commit`, `source`: what is read from the Delta table.
//! - `metadata_folder`: the files of the folder `metadata`.
//! - `publish`: new snapshots; `vacuum`: old ones.

mod avro;
mod bounds;
mod delta_commit;
mod manifest;
mod manifest_list;
mod metadata_folder;
mod partition;
mod publish;
mod puffin;
mod schema;
mod source;
mod table_metadata;
#[cfg(test)]
pub(crate) mod tests;
mod vacuum;

pub(crate) use self::publish::{publish, withdraw};
pub(crate) use self::vacuum::{expire, expired_view};
