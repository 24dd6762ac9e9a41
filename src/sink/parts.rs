//! Work of a load that other processes do: how it is described, who has it done, and what a process needs that does it. What the
//! steps are is the business of each target; how they come to be run is that of whoever implements [`Workers`].

use std::fmt::Debug;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;

use crate::engine::Engine;
use crate::error::Result;
use crate::store::StoreOptions;

/// Has work done by other processes.
#[async_trait]
pub trait Workers: Debug + Send + Sync {
    /// Into how many parts work should be cut.
    fn parts(&self) -> usize;

    /// Runs work to its end. A part may be begun more than once when a process is lost; what it gives counts once, what it wrote
    /// before it was lost is in nobody's hands. Errors are those of the steps, or kind `Unavailable` when there is nobody to do them.
    async fn run(&self, work: Work) -> Result<Done>;
}

/// Rows, and what is done with them one after the other.
#[derive(Debug, Clone)]
pub struct Work {
    /// Where the rows come from.
    pub source: Source,
    /// What is done with them; each step gets what the one before gave.
    pub steps: Vec<Step>,
}

/// Where rows come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The changes that the load is about, as they are read.
    Changes,
    /// These; each batch is a part.
    Rows(Vec<RecordBatch>),
}

/// What is done with each part of some rows.
#[derive(Debug, Clone)]
pub struct Step {
    /// Rows that are equal in these columns come to the same part. None: the parts stay as they are.
    pub by: Vec<String>,
    /// What is done, in words that the same version of this program understands (`delta::run_step`). They hold no secret.
    pub order: String,
    /// Schema of what it gives.
    pub output: SchemaRef,
}

/// What work gave.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// Rows of the last step.
    pub batches: Vec<RecordBatch>,
    /// Changes that were read, with [`Source::Changes`].
    pub changes: u64,
}

/// What a process has that does a step.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Its memory and disk.
    pub engine: Engine,
    /// Its own way to the store, and its own credentials.
    pub store: StoreOptions,
}
