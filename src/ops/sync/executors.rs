//! The seam to other processes that read and write in place of this one. Who they are is not known here.

use crate::api::{Client, FinishedJob};
use crate::decode::DecodeCounts;
use crate::scan::ScanOptions;
use crate::schema::ColumnChoice;
use crate::sink::Workers;

/// Finds workers for loads.
pub trait Helpers: std::fmt::Debug + Send + Sync {
    /// Those who read the objects of `job` themselves, asking this process for no more than addresses. `None`: they cannot, and this
    /// process does the work.
    fn for_scan(
        &self,
        client: &Client,
        job: &FinishedJob,
        choice: &ColumnChoice,
        options: &ScanOptions,
    ) -> Option<Box<dyn ScanWorkers>>;
}

/// Workers who read a job's objects.
pub trait ScanWorkers: Workers {
    /// What their decoders saw.
    fn counts(&self) -> DecodeCounts;

    /// Numbers of the objects that they have read to their ends, ascending.
    fn finished(&self) -> Vec<usize>;
}
