//! State that the streams of a scan share: its description, and the objects read so far.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;

use crate::api::{FinishedJob, ObjectId};
use crate::decode::{BadRows, DecodeCounts, OutOfRange};
use crate::fetch::{ObjectUrls, UnpackLimits};
use crate::schema::{ColumnChoice, Nested};

/// How objects are read.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Number of streams, and so of objects that are read at the same time.
    pub partitions: usize,
    /// Maximum number of rows of a batch.
    pub batch_rows: usize,
    /// Target size of a batch, bytes.
    pub batch_bytes: usize,
    /// Longest line of a text format, bytes.
    pub max_line: usize,
    /// The memory limit of the engine, bytes.
    pub memory_limit: usize,
    /// Limits of the decompressed size of an object.
    pub unpack: UnpackLimits,
    /// How nested columns are decoded.
    pub nested: Nested,
    /// What to do with times and dates outside the years 1 to 9999.
    pub out_of_range: OutOfRange,
    /// Private folder for Parquet objects while they are read, such as that of the engine.
    pub temp_dir: PathBuf,
}

/// What to do with unreadable rows, by object.
pub type BadRowPolicy = Arc<dyn Fn(&ObjectId) -> BadRows + Send + Sync>;

/// A scan, shared by its streams.
pub(super) struct ScanState {
    pub(super) urls: ObjectUrls,
    pub(super) job: FinishedJob,
    pub(super) choice: ColumnChoice,
    pub(super) schema: SchemaRef,
    pub(super) options: ScanOptions,
    pub(super) bad_rows: BadRowPolicy,
    counts: Mutex<DecodeCounts>,
    /// Numbers of the objects that were read to their end.
    finished: Mutex<BTreeSet<usize>>,
}

impl ScanState {
    pub(super) fn new(
        urls: ObjectUrls,
        job: FinishedJob,
        choice: ColumnChoice,
        options: ScanOptions,
        bad_rows: BadRowPolicy,
    ) -> Self {
        let schema = choice.change_schema(options.nested);
        Self { urls, job, choice, schema, options, bad_rows, counts: Mutex::default(), finished: Mutex::default() }
    }

    pub(super) fn add_counts(&self, seen: &DecodeCounts) {
        self.counts.lock().add(seen);
    }

    pub(super) fn counts(&self) -> DecodeCounts {
        self.counts.lock().clone()
    }

    /// The object was read to its end.
    pub(super) fn finish(&self, number: usize) {
        self.finished.lock().insert(number);
    }

    /// Numbers of the objects that were read to their end, ascending.
    pub(super) fn finished(&self) -> Vec<usize> {
        self.finished.lock().iter().copied().collect()
    }
}
