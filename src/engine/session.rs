//! The DataFusion runtime of a process: memory pool, spill folder, number of partitions.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::common::config::SpillCompression;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::spill::SpillFolder;
use crate::error::{Error, Kind, Result, ResultExt};

/// Maximum number of rows of a batch.
const MAX_BATCH_ROWS: usize = 8192;
/// Maximum number of bytes of a batch with several rows: large enough to amortise calls, small enough for the cache of a core.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// Fewest rows of a batch, even if rows are wide.
const MIN_BATCH_ROWS: usize = 16;

/// Limits of the engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Bytes that operators may use before they spill.
    pub memory_limit: usize,
    /// Folder for spill files, created if absent. `None`: the system's folder for temporary files.
    pub temp_dir: Option<PathBuf>,
    /// Partitions of plans, and streams that are read at the same time.
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

/// DataFusion with a memory limit; one per process, shared by all tables.
///
/// Clones share the memory pool and the spill folder. The folder is removed with the last clone; streams of this module keep a clone.
///
/// ```
/// use daplake::{Engine, EngineOptions};
///
/// # fn main() -> daplake::Result<()> {
/// let engine = Engine::new(EngineOptions { memory_limit: 256 << 20, ..EngineOptions::default() })?;
/// assert_eq!(engine.spilled_bytes(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    options: EngineOptions,
    // Declared before the folder: spill files are closed before the folder is removed.
    runtime: Arc<RuntimeEnv>,
    spill: SpillFolder,
    /// One permit, for [`Engine::whole_pool`].
    whole_pool: Arc<Semaphore>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl Engine {
    /// Builds the runtime.
    ///
    /// # Errors
    /// Kind `Io` if the folder for temporary files cannot be used.
    pub fn new(options: EngineOptions) -> Result<Self> {
        let parent = options.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
        let spill = SpillFolder::create(&parent)?;
        const REPORTED_CONSUMERS: NonZeroUsize = NonZeroUsize::new(5).unwrap();
        let pool = TrackConsumersPool::new(FairSpillPool::new(options.memory_limit), REPORTED_CONSUMERS);
        // The size of the disk is the only limit.
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![spill.path().to_owned()]))
            .with_max_temp_directory_size(u64::MAX);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(disk)
            .build_arc()
            .context(Kind::Io, "Cannot use the folder for temporary files")?;
        Ok(Self { inner: Arc::new(Inner { options, runtime, spill, whole_pool: Arc::new(Semaphore::new(1)) }) })
    }

    /// A new session on the shared runtime.
    pub(crate) fn session(&self) -> SessionContext {
        SessionContext::new_with_config_rt(self.config(self.partitions(), MAX_BATCH_ROWS), Arc::clone(&self.inner.runtime))
    }

    /// A session for sorting rows of about `row_bytes` each.
    ///
    /// It has one partition: several sorts in one pool leave each too little memory for its merge.
    pub(super) fn sort_session(&self, row_bytes: usize) -> SessionContext {
        let config = self.config(1, self.batch_rows(row_bytes));
        SessionContext::new_with_config_rt(config, Arc::clone(&self.inner.runtime))
    }

    /// Waits for the turn of a sort of a whole table. Two of them in one pool leave the second too little memory even for its merge.
    pub(crate) async fn whole_pool(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.inner.whole_pool).acquire_owned().await.context(Kind::Bug, "The engine is closed")
    }

    fn config(&self, partitions: usize, batch_rows: usize) -> SessionConfig {
        let mut config = SessionConfig::new().with_target_partitions(partitions.max(1)).with_batch_size(batch_rows);
        let options = config.options_mut();
        // Hash joins do not spill; sort-merge joins do.
        options.optimizer.prefer_hash_join = false;
        options.execution.spill_compression = SpillCompression::Lz4Frame;
        // Reserved for merging sorted runs when the rest of the pool is in use; a low limit must leave most of it to the sort.
        options.execution.sort_spill_reservation_bytes = (self.memory_limit() / 8).min(32 << 20);
        config
    }

    /// A private folder for temporary files, removed with the engine.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.inner.spill.path()
    }

    /// Target size of a batch for sorts and writers, bytes.
    pub(crate) fn batch_bytes(&self) -> usize {
        (self.memory_limit() / 128).clamp(64 << 10, MAX_BATCH_BYTES)
    }

    /// Rows of a batch if a row takes about `row_bytes`.
    pub(crate) fn batch_rows(&self, row_bytes: usize) -> usize {
        (self.batch_bytes() / row_bytes.max(1)).clamp(MIN_BATCH_ROWS, MAX_BATCH_ROWS)
    }

    /// Bytes that operators may use before they spill.
    pub(crate) fn memory_limit(&self) -> usize {
        self.inner.options.memory_limit
    }

    /// Partitions of plans, at least 1.
    pub(crate) fn partitions(&self) -> usize {
        self.inner.options.partitions.max(1)
    }

    /// The pool that accounts for all memory.
    pub(crate) fn memory_pool(&self) -> &Arc<dyn MemoryPool> {
        &self.inner.runtime.memory_pool
    }

    /// Memory pool and disk manager of all sessions.
    pub(super) fn runtime(&self) -> &Arc<RuntimeEnv> {
        &self.inner.runtime
    }

    /// Size of the present spill files, bytes.
    pub fn spilled_bytes(&self) -> u64 {
        self.inner.runtime.disk_manager.used_disk_space()
    }
}

/// The user-facing error for an error of a plan: an [`Error`] among its causes is returned as it is; an exhausted pool or disk is of kind
/// `Resources`.
pub fn engine_error(error: DataFusionError) -> Error {
    let exhausted = matches!(error.find_root(), DataFusionError::ResourcesExhausted(_));
    let is_full = crate::error::is_disk_full(&error);
    let disk = is_full || (exhausted && error.to_string().contains("disk"));
    Error::recover(error, |source| match (exhausted, disk) {
        (_, true) => Error::new(Kind::Resources, "No space is left for temporary files")
            .hint("choose a folder on a larger disk with --temp-dir")
            .caused_by(source),
        (true, false) => Error::new(Kind::Resources, "The memory limit is too low for this table")
            .hint("raise --memory-limit")
            .caused_by(source),
        (false, false) => Error::new(Kind::Data, "Cannot process the rows").caused_by(source),
    })
}
