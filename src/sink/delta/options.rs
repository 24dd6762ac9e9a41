//! How Delta tables are written.

use std::time::Duration;

use crate::engine::Engine;

/// How Delta tables are written.
#[derive(Debug, Clone)]
pub struct DeltaOptions {
    /// Memory pool and spill folder of the run.
    pub engine: Engine,
    /// Size in bytes at which a data file is closed, approximately.
    pub target_file_bytes: u64,
    /// zstd level of data files.
    pub compression_level: i32,
    /// Number of commits between two checkpoints of the log; applies to new tables.
    pub checkpoint_interval: u32,
    /// Whether increments write deletion vectors instead of rewriting files.
    pub deletion_vectors: DeletionVectors,
    /// Whether commits write a change data feed.
    pub change_data_feed: ChangeDataFeed,
    /// Whether commits are also published as Iceberg snapshots.
    pub iceberg: IcebergView,
    /// Whether the table is the version log of a folder of plain Parquet files rather than a table for Delta readers.
    pub is_parquet_folder: bool,
    /// What a load does if another program changed rows since the last load.
    pub on_foreign_changes: OnForeignChanges,
    /// Number of small files from which a load compacts some of them in a separate commit; 0 means never.
    pub compact_after: u32,
    /// Retention of the vacuum that follows a load, at least [`MIN_RETENTION`](crate::sink::delta::MIN_RETENTION); `None` means no vacuum. A
    /// table is vacuumed when its last such vacuum is a tenth of the retention ago, and at most once a day.
    pub vacuum_after: Option<Duration>,
}

impl DeltaOptions {
    /// The defaults: files of 128 MiB, zstd level 1, a checkpoint every 10 commits, compaction from 20 small files.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            target_file_bytes: 128 << 20,
            compression_level: 1,
            checkpoint_interval: 10,
            deletion_vectors: DeletionVectors::Auto,
            change_data_feed: ChangeDataFeed::Unchanged,
            iceberg: IcebergView::Unchanged,
            is_parquet_folder: false,
            on_foreign_changes: OnForeignChanges::Fail,
            compact_after: 20,
            vacuum_after: None,
        }
    }

    /// Size in bytes below which a load counts a file as small.
    pub(crate) fn small_file_bytes(&self) -> u64 {
        self.target_file_bytes / 8
    }
}

/// Whether increments write deletion vectors instead of rewriting files.
///
/// A table with deletion vectors requires reader version 3 and writer version 7 of the Delta protocol. Existing deletion vectors
/// are respected with every choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeletionVectors {
    /// In files that are not small, as long as few of their rows are deleted. A table without such files keeps its protocol
    /// version. A table whose property `delta.enableDeletionVectors` is `false` gets none.
    #[default]
    Auto,
    /// In files of any size, as long as few of their rows are deleted.
    On,
    /// Never.
    Off,
}

/// Whether commits write a change data feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChangeDataFeed {
    /// The setting of the existing table; new tables have none.
    #[default]
    Unchanged,
    /// From the next commit on.
    On,
    /// Not from the next commit on.
    Off,
}

/// Whether commits are also published as Iceberg snapshots over the same data files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IcebergView {
    /// Existing tables keep their setting; new tables have none.
    #[default]
    Unchanged,
    /// From the next commit on.
    On,
    /// Not from the next commit on, which removes the Iceberg metadata.
    Off,
}

/// What a load does if another program changed rows since the last load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnForeignChanges {
    /// Refuses an increment.
    #[default]
    Fail,
    /// Loads the increment and adds a warning.
    Warn,
}
