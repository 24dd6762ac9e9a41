//! The interface to executors that read a job's objects in other processes.

use crate::api::{Client, FinishedJob};
use crate::decode::DecodeCounts;
use crate::scan::ScanOptions;
use crate::schema::ColumnChoice;
use crate::sink::Executor;

/// Provides executors for loads.
pub trait ExecutorProvider: std::fmt::Debug + Send + Sync {
    /// An executor that reads the objects of `job`; it requests only their URLs from this process. `None`: this process loads the job itself.
    fn executor_for(
        &self,
        client: &Client,
        job: &FinishedJob,
        choice: &ColumnChoice,
        options: &ScanOptions,
    ) -> Option<Box<dyn ScanExecutor>>;
}

/// An executor that reads the objects of one job.
pub trait ScanExecutor: Executor {
    /// Counts of the decoders.
    fn counts(&self) -> DecodeCounts;

    /// Numbers of the objects that were read to their end, ascending.
    fn finished(&self) -> Vec<usize>;
}
