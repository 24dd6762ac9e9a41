//! The DataFusion session of a run: memory pool, spill folder, partitions.

use std::path::PathBuf;

use datafusion::prelude::SessionContext;

use crate::error::Result;

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

/// DataFusion with our limits; one per run, shared by all tables.
#[derive(Clone)]
pub struct Engine {}

impl Engine {
    /// Builds the runtime; kind `Io` if the spill folder cannot be used.
    pub fn new(_options: EngineOptions) -> Result<Self> {
        unimplemented!()
    }

    /// A fresh session on the shared runtime.
    pub fn session(&self) -> SessionContext {
        unimplemented!()
    }
}
