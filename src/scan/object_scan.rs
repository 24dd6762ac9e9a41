//! The scan of one job.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;

use super::read;
use super::state::{BadRowPolicy, ScanOptions, ScanState};
use crate::api::{Client, FinishedJob};
use crate::decode::DecodeCounts;
use crate::error::{Error, Kind, Result};
use crate::fetch::ObjectUrls;
use crate::schema::ColumnChoice;

/// The objects of one finished job as streams of changes (schema: [`ColumnChoice::change_schema`]). Clones are the same scan.
#[derive(Clone)]
pub struct ObjectScan {
    state: Arc<ScanState>,
}

impl std::fmt::Debug for ObjectScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectScan")
            .field("table", &self.state.choice.kept().table.to_string())
            .field("job", &self.state.job.id)
            .field("objects", &self.state.job.objects.len())
            .finish()
    }
}

impl ObjectScan {
    /// A scan of the columns in `choice`. Dropped columns are not decoded; hashed columns contain hashes. Nothing is downloaded before a stream
    /// is read.
    pub fn new(client: &Client, job: FinishedJob, choice: ColumnChoice, options: ScanOptions, bad_rows: BadRowPolicy) -> Self {
        let urls = ObjectUrls::new(client, &job);
        Self { state: Arc::new(ScanState::new(urls, job, choice, options, bad_rows)) }
    }

    /// The schema of the streams.
    pub fn schema(&self) -> SchemaRef {
        self.state.schema.clone()
    }

    /// One stream per partition; stream `i` of `n` reads the objects `i, i + n, i + 2n, ...` in this order. There are never more streams than
    /// objects, and at least one.
    pub fn streams(&self) -> Vec<SendableRecordBatchStream> {
        let objects = self.state.job.objects.len();
        let partitions = self.state.options.partitions.min(objects).max(1);
        let stream = |partition| read::objects(self.state.clone(), (partition..objects).step_by(partitions));
        (0..partitions).map(stream).collect()
    }

    /// A stream of the objects with these numbers in the job, in this order. Numbers beyond the last object are ignored.
    pub fn stream_of(&self, numbers: Vec<usize>) -> SendableRecordBatchStream {
        let count = self.state.job.objects.len();
        read::objects(self.state.clone(), numbers.into_iter().filter(move |number| *number < count))
    }

    /// Counts of the decoders of all streams so far.
    pub fn counts(&self) -> DecodeCounts {
        let mut counts = self.state.counts();
        // Decoders report dropped columns as unknown.
        let dropped = &self.state.choice.record().dropped;
        counts.unknown_columns.retain(|name| {
            let name = name.strip_prefix("value.").unwrap_or(name);
            !dropped
                .iter()
                .any(|column| name.strip_prefix(column.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
        });
        counts
    }

    /// Numbers of the objects that were read to their end, ascending.
    pub fn finished(&self) -> Vec<usize> {
        self.state.finished()
    }

    /// Checks that all objects of the job were read to their end, so that their changes may be committed.
    ///
    /// # Errors
    /// Kind `Bug` if an object is missing.
    pub fn check_finished(&self) -> Result<()> {
        check_finished(&self.state.job, &self.finished())
    }
}

/// Checks that `finished`, ascending, are all objects of `job`.
///
/// # Errors
/// Kind `Bug` if an object is missing.
pub fn check_finished(job: &FinishedJob, finished: &[usize]) -> Result<()> {
    if finished.iter().copied().eq(0..job.objects.len()) {
        return Ok(());
    }
    let missing = (0..job.objects.len()).find(|number| finished.binary_search(number).is_err());
    let error = Error::new(Kind::Bug, "Not all objects of the job were read to their end")
        .with_field("job", &job.id)
        .with_field("objects", job.objects.len())
        .with_field("read", finished.len());
    let error = match missing {
        Some(number) => error.with_field("object", &job.objects[number].0),
        None => error,
    };
    Err(error.hint("the table was not changed; run the command again, and please report the error if it returns"))
}
