//! The DataFusion session of a run: memory pool, spill folder, partitions.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::common::config::SpillCompression;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::spill::SpillFolder;
use crate::error::{Error, Kind, Result, ResultExt};

/// Rows of a batch when rows are narrow.
const MAX_BATCH_ROWS: usize = 8192;
/// Bytes of a batch, as far as rows can be parted: enough to be quick, little enough to stay in the caches of a core.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// Rows of a batch, however wide they are.
const MIN_BATCH_ROWS: usize = 16;

/// Limits of the engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Bytes that operators may hold before they spill.
    pub memory_limit: usize,
    /// Where spill files go; made if absent, emptied at the end. `None`: the system's folder for temporary files.
    pub temp_dir: Option<PathBuf>,
    /// Partitions of plans.
    pub partitions: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            memory_limit: 512 * 1024 * 1024,
            temp_dir: None,
            partitions: std::thread::available_parallelism().map_or(2, NonZeroUsize::get),
        }
    }
}

/// DataFusion with our limits; one per run, shared by all tables.
///
/// Clones share one memory pool and one spill folder. The folder goes with the last clone; streams made by this module keep one.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    options: EngineOptions,
    // Before the folder, so that spill files are closed when it is removed.
    runtime: Arc<RuntimeEnv>,
    spill: SpillFolder,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl Engine {
    /// Builds the runtime; kind `Io` if the spill folder cannot be used.
    pub fn new(options: EngineOptions) -> Result<Self> {
        let parent = options.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
        let spill = SpillFolder::create(&parent)?;
        const REPORTED_CONSUMERS: NonZeroUsize = NonZeroUsize::new(5).unwrap();
        let pool = TrackConsumersPool::new(FairSpillPool::new(options.memory_limit), REPORTED_CONSUMERS);
        // The disk is the limit, not a number of ours.
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![spill.path().to_owned()]))
            .with_max_temp_directory_size(u64::MAX);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(disk)
            .build_arc()
            .context(Kind::Io, "The folder for temporary files cannot be used")?;
        Ok(Self { inner: Arc::new(Inner { options, runtime, spill }) })
    }

    /// A fresh session on the shared runtime.
    pub fn session(&self) -> SessionContext {
        SessionContext::new_with_config_rt(self.config(self.partitions(), MAX_BATCH_ROWS), Arc::clone(&self.inner.runtime))
    }

    /// A session for sorting rows of about `row_bytes` each: one partition, batches that stay small however wide the rows are.
    ///
    /// One partition is what was measured to keep within the limit (feasibility, section 7): a pool shared by several sorts
    /// leaves each too little for its merge.
    pub(super) fn sort_session(&self, row_bytes: usize) -> SessionContext {
        let config = self.config(1, self.batch_rows(row_bytes));
        SessionContext::new_with_config_rt(config, Arc::clone(&self.inner.runtime))
    }

    fn config(&self, partitions: usize, batch_rows: usize) -> SessionConfig {
        let mut config = SessionConfig::new().with_target_partitions(partitions.max(1)).with_batch_size(batch_rows);
        let options = config.options_mut();
        // Hash joins do not spill; sort-merge joins do.
        options.optimizer.prefer_hash_join = false;
        options.execution.spill_compression = SpillCompression::Lz4Frame;
        // Needed to merge sorted runs while all the rest is taken; of a low limit it must leave most to the sort.
        options.execution.sort_spill_reservation_bytes = (self.memory_limit() / 8).min(32 << 20);
        config
    }

    /// A private folder for temporary files, which goes with the engine.
    pub fn folder(&self) -> &std::path::Path {
        self.inner.spill.path()
    }

    /// Bytes of a batch that passes through sorts and writers.
    pub fn batch_bytes(&self) -> usize {
        (self.memory_limit() / 128).clamp(64 << 10, MAX_BATCH_BYTES)
    }

    /// Rows of a batch when a row takes about `row_bytes`.
    pub fn batch_rows(&self, row_bytes: usize) -> usize {
        (self.batch_bytes() / row_bytes.max(1)).clamp(MIN_BATCH_ROWS, MAX_BATCH_ROWS)
    }

    /// Bytes that operators may hold.
    pub fn memory_limit(&self) -> usize {
        self.inner.options.memory_limit
    }

    /// How much may run at once.
    pub fn partitions(&self) -> usize {
        self.inner.options.partitions.max(1)
    }

    /// The pool that all memory is accounted against.
    pub fn memory_pool(&self) -> &Arc<dyn MemoryPool> {
        &self.inner.runtime.memory_pool
    }

    /// Memory pool and disk of all sessions.
    pub(super) fn runtime(&self) -> &Arc<RuntimeEnv> {
        &self.inner.runtime
    }

    /// Bytes of spill files that exist now.
    pub fn spilled_bytes(&self) -> u64 {
        self.inner.runtime.disk_manager.used_disk_space()
    }
}

/// What an error of a plan means to the user: one of ours below it wins, a full pool or disk is kind `Resources`.
pub fn engine_error(error: DataFusionError) -> Error {
    let exhausted = matches!(error.find_root(), DataFusionError::ResourcesExhausted(_));
    let is_full = crate::error::is_disk_full(&error);
    let disk = is_full || (exhausted && error.to_string().contains("disk"));
    Error::recover(error, |source| match (exhausted, disk) {
        (_, true) => Error::new(Kind::Resources, "The space for temporary files is used up")
            .hint("name a larger folder with --temp-dir")
            .caused_by(source),
        (true, false) => Error::new(Kind::Resources, "The memory limit is too low for this table")
            .hint("raise --memory-limit")
            .caused_by(source),
        (false, false) => Error::new(Kind::Data, "The rows could not be processed").caused_by(source),
    })
}
