//! The scan of a job's objects as a DataFusion table: each partition downloads, unpacks and decodes its objects as it is
//! pulled. It composes `fetch` and `decode`; it does not reduce or write.
//!
//! The node keeps no state but descriptions (object ids, schema, options), so that it can be serialised later.

mod ahead;
mod exec;
mod read;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DfResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

pub use exec::ObjectScanExec;

use crate::api::{Client, FinishedJob, ObjectId};
use crate::decode::{BadRows, DecodeCounts, OutOfRange};
use crate::error::{Error, Kind, Result};
use crate::fetch::{ObjectUrls, UnpackLimits};
use crate::schema::{ColumnChoice, Nested, TableSchema};

/// How objects are read.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Objects read at once; the rest wait.
    pub partitions: usize,
    /// Rows of a batch at most.
    pub batch_rows: usize,
    /// Bytes of a batch, about.
    pub batch_bytes: usize,
    /// Longest line.
    pub max_line: usize,
    /// What an object may unpack to.
    pub unpack: UnpackLimits,
    /// Form of nested columns.
    pub nested: Nested,
    /// What to do with times and dates outside the years 1 to 9999.
    pub out_of_range: OutOfRange,
    /// Private folder for Parquet objects while they are read, such as that of the engine.
    pub temp_dir: PathBuf,
}

/// What to do with rows that cannot be read, by object.
pub type BadRowPolicy = Arc<dyn Fn(&ObjectId) -> BadRows + Send + Sync>;

/// The objects of one finished job as a table of changes (schema: [`ColumnChoice::change_schema`]).
#[derive(Clone)]
pub struct ObjectScan {
    inner: Arc<Inner>,
}

struct Inner {
    urls: ObjectUrls,
    job: FinishedJob,
    choice: ColumnChoice,
    arrow: SchemaRef,
    options: ScanOptions,
    bad_rows: BadRowPolicy,
    counts: Mutex<DecodeCounts>,
    /// Numbers of the objects whose end was reached by the reader.
    passed: Mutex<BTreeSet<usize>>,
}

impl Inner {
    fn passed(&self, number: usize) {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
    }
}

impl std::fmt::Debug for ObjectScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectScan")
            .field("table", &self.inner.choice.kept().table.to_string())
            .field("job", &self.inner.job.id)
            .field("objects", &self.inner.job.objects.len())
            .finish()
    }
}

impl ObjectScan {
    /// Nothing is downloaded until a partition is pulled.
    pub fn new(
        client: &Client,
        job: FinishedJob,
        schema: Arc<TableSchema>,
        options: ScanOptions,
        bad_rows: BadRowPolicy,
    ) -> Self {
        Self::choosing(client, job, ColumnChoice::all(schema), options, bad_rows)
    }

    /// The same without the columns that are left out, which are not even decoded, and with hashes in place of values.
    pub fn choosing(
        client: &Client,
        job: FinishedJob,
        choice: ColumnChoice,
        options: ScanOptions,
        bad_rows: BadRowPolicy,
    ) -> Self {
        let arrow = choice.change_schema(options.nested);
        let urls = ObjectUrls::new(client, &job);
        Self {
            inner: Arc::new(Inner {
                urls,
                job,
                choice,
                arrow,
                options,
                bad_rows,
                counts: Mutex::default(),
                passed: Mutex::default(),
            }),
        }
    }

    /// What the decoders saw in all streams that were pulled so far.
    pub fn counts(&self) -> DecodeCounts {
        let mut counts = self.inner.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // What is left out is unknown to the decoders, not to us.
        let dropped = &self.inner.choice.record().dropped;
        counts.unknown_columns.retain(|name| {
            let name = name.strip_prefix("value.").unwrap_or(name);
            !dropped
                .iter()
                .any(|column| name.strip_prefix(column.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
        });
        counts
    }

    /// Numbers of the objects that were read to their ends, ascending.
    pub fn finished(&self) -> Vec<usize> {
        self.inner.passed.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Kind `Bug` unless all objects of the job were read to their ends: their changes may be committed then.
    pub fn check_finished(&self) -> Result<()> {
        check_finished(&self.inner.job, &self.finished())
    }

    /// Partitions of the scan: never more than objects, at least one.
    pub fn partition_count(&self) -> usize {
        self.inner.options.partitions.min(self.inner.job.objects.len()).max(1)
    }

    /// The stream of one partition: its objects one after the other.
    pub fn stream(&self, partition: usize) -> SendableRecordBatchStream {
        let numbers = (partition..self.inner.job.objects.len()).step_by(self.partition_count());
        read::objects(self.inner.clone(), numbers)
    }

    /// The stream of the objects with these numbers in the job, one after the other.
    pub fn stream_of(&self, numbers: Vec<usize>) -> SendableRecordBatchStream {
        let count = self.inner.job.objects.len();
        read::objects(self.inner.clone(), numbers.into_iter().filter(move |number| *number < count))
    }
}

/// Whether `finished`, ascending, are all the objects of `job`. Kind `Bug` if not.
pub fn check_finished(job: &FinishedJob, finished: &[usize]) -> Result<()> {
    if finished.iter().copied().eq(0..job.objects.len()) {
        return Ok(());
    }
    let missing = (0..job.objects.len()).find(|number| finished.binary_search(number).is_err());
    let error = Error::new(Kind::Bug, "Not all objects of the job were read to their ends")
        .with_field("job", &job.id)
        .with_field("objects", job.objects.len())
        .with_field("read", finished.len());
    let error = match missing {
        Some(number) => error.with_field("object", &job.objects[number].0),
        None => error,
    };
    Err(error.hint("nothing of the table was changed; run it again, and please report it if it comes back"))
}

#[async_trait]
impl TableProvider for ObjectScan {
    fn schema(&self) -> SchemaRef {
        self.inner.arrow.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(ObjectScanExec::new(self.clone(), projection.cloned())?))
    }
}
