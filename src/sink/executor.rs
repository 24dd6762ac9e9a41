//! Tasks of a load that other processes run. A target defines its tasks; an [`Executor`] runs them without knowing what they do.

use std::fmt::Debug;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;

use crate::engine::Engine;
use crate::error::Result;
use crate::store::StoreOptions;

/// Runs tasks in other processes.
#[async_trait]
pub trait Executor: Debug + Send + Sync {
    /// Number of parts into which input should be divided, at least 1.
    fn parallelism(&self) -> usize;

    /// Runs a chain of tasks to its end. A part may run more than once if a process is lost: its output counts once, and files of the lost
    /// attempt are never committed.
    ///
    /// # Errors
    /// Those of the tasks, or kind `Unavailable` if no process can run them.
    async fn run(&self, chain: TaskChain) -> Result<TaskOutput>;
}

/// Input and the tasks that process it, one after another.
#[derive(Debug, Clone)]
pub struct TaskChain {
    /// Input of the first task.
    pub input: TaskInput,
    /// Each task reads the output of the one before.
    pub tasks: Vec<Task>,
}

/// Input of a chain of tasks.
#[derive(Debug, Clone)]
pub enum TaskInput {
    /// The changes of the load, read by the executor.
    Changes,
    /// These batches; each is a part.
    Batches(Vec<RecordBatch>),
}

/// One step of the processing of every part.
#[derive(Debug, Clone)]
pub struct Task {
    /// Columns to shuffle the input by: rows with equal values come to the same part. Empty: the parts stay as they are.
    pub shuffle_by: Vec<String>,
    /// Description of the task, read by the same version of the program. It contains no secret.
    pub spec: String,
    /// Schema of the output.
    pub output: SchemaRef,
}

/// Output of a chain of tasks.
#[derive(Debug, Clone, Default)]
pub struct TaskOutput {
    /// Batches of the last task, of all parts.
    pub batches: Vec<RecordBatch>,
    /// Number of changes that were read, for [`TaskInput::Changes`].
    pub changes: u64,
}

/// Resources that a process provides to its tasks.
#[derive(Debug, Clone)]
pub struct TaskResources {
    /// Memory and disk.
    pub engine: Engine,
    /// Access to the object store, with the credentials of this process.
    pub store: StoreOptions,
}
