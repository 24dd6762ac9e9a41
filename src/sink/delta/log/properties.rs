//! Names of the table properties that daplake reads and writes.

/// Name of the table, `namespace.table`. A Delta table without it was not made by daplake.
pub(crate) const TABLE: &str = "daplake.table";
/// Key columns, a JSON list.
pub(crate) const KEY: &str = "daplake.key";
/// Schema version of the bookmark.
pub(crate) const SCHEMA_VERSION: &str = "daplake.schemaVersion";
/// [`PARQUET`] for the version log of a folder of plain Parquet files; absent otherwise.
pub(crate) const FORMAT: &str = "daplake.format";
/// Value of [`FORMAT`].
pub(crate) const PARQUET: &str = "parquet";
/// `typed` or `json`.
pub(crate) const NESTED: &str = "daplake.nested";
/// Columns that were dropped or hashed, as JSON; absent if there are none.
pub(crate) const COLUMNS: &str = "daplake.columns";
/// `changes` or `history`; absent for `current`.
pub(crate) const MODE: &str = "daplake.mode";
/// `mark` if deletes are soft deletes; absent otherwise.
pub(crate) const DELETES: &str = "daplake.deletes";
/// How the table is partitioned, such as `day(timestamp)`; absent if it is not.
pub(crate) const PARTITION: &str = "daplake.partition";
/// `true` while files still have deletion vectors, but no new ones may be written.
pub(crate) const NO_DELETION_VECTORS: &str = "daplake.noDeletionVectors";
/// `true` if the table has a read-only Iceberg view; absent otherwise.
pub(crate) const ICEBERG: &str = "daplake.iceberg";

/// Delta property: whether columns are mapped.
pub(crate) const MAPPING_MODE: &str = "delta.columnMapping.mode";
/// Delta property: the highest column id in use.
pub(crate) const MAPPING_MAX_ID: &str = "delta.columnMapping.maxColumnId";
/// Delta property: whether files may have deletion vectors.
pub(crate) const DELETION_VECTORS: &str = "delta.enableDeletionVectors";
/// Delta property: whether commits write a change data feed.
pub(crate) const CHANGE_DATA_FEED: &str = "delta.enableChangeDataFeed";
/// Delta property: number of commits between two checkpoints.
pub(crate) const CHECKPOINT_INTERVAL: &str = "delta.checkpointInterval";
