//! The scan of a job's objects in an executor: its description, and how the executor gets URLs of objects without credentials for the
//! service.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::broker::{self, Lease, Report};
use crate::api::{Client, ClientOptions, Credentials, FinishedJob, ObjectId, Pacing, Query, RetryPolicy};
use crate::decode::{BadRows, OutOfRange};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::fetch::UnpackLimits;
use crate::model::{TableRef, Timestamp, Window};
use crate::redact::Secret;
use crate::scan::{ObjectScan, ScanOptions};
use crate::schema::{ColumnChoice, ColumnRules, Nested, TableSchema};
use crate::sink::TaskResources;

/// Idle timeout of a connection to the broker.
const IDLE: Duration = Duration::from_secs(60);

/// Description of the scan of one job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ScanSpec {
    namespace: String,
    table: String,
    schema_version: i64,
    /// The schema as the service sent it.
    schema: Value,
    /// Dropped columns.
    dropped: Vec<String>,
    json_nested: bool,
    out_of_range: OutOfRange,
    job: String,
    format: String,
    objects: Vec<ObjectId>,
    max_line: usize,
    unpack: (u64, u64, u64),
    broker: Lease,
}

impl ScanSpec {
    /// The scan of `job`. `None` if columns are hashed: the key stays in this process.
    pub(super) fn of(job: &FinishedJob, choice: &ColumnChoice, options: &ScanOptions, broker: Lease) -> Option<Self> {
        if !choice.record().hashed.is_empty() {
            return None;
        }
        let schema = choice.read();
        let UnpackLimits { max_ratio, free_bytes, max_bytes } = options.unpack;
        Some(Self {
            namespace: schema.table.namespace.as_str().to_owned(),
            table: schema.table.table.clone(),
            schema_version: schema.version,
            schema: Value::clone(&schema.source),
            dropped: choice.record().dropped.clone(),
            json_nested: options.nested == Nested::Json,
            out_of_range: options.out_of_range,
            job: job.id.clone(),
            format: job.query.format.as_str().to_owned(),
            objects: job.objects.clone(),
            max_line: options.max_line,
            unpack: (max_ratio, free_bytes, max_bytes),
            broker,
        })
    }

    pub(super) fn table(&self) -> TableRef {
        TableRef::new(self.namespace.as_str(), self.table.as_str())
    }

    fn nested(&self) -> Nested {
        if self.json_nested { Nested::Json } else { Nested::Typed }
    }

    fn choice(&self) -> Result<ColumnChoice> {
        let schema = TableSchema::read(&self.table(), self.schema_version, self.schema.clone())?;
        ColumnChoice::of(&Arc::new(schema), &ColumnRules { drop: self.dropped.clone(), ..ColumnRules::default() }, None)
    }

    /// Schema of the changes.
    pub(super) fn schema(&self) -> Result<SchemaRef> {
        Ok(self.choice()?.change_schema(self.nested()))
    }

    pub(super) fn object_count(&self) -> usize {
        self.objects.len()
    }

    /// The numbers of the objects in `parts` batches. Neighbours stay together, because their URLs are requested together.
    pub(super) fn shares(&self, parts: usize) -> Result<Vec<RecordBatch>> {
        let count = self.object_count();
        let share = |part: usize| (part * count / parts) as u32..((part + 1) * count / parts) as u32;
        let batch = |part: usize| {
            let numbers = Arc::new(UInt32Array::from_iter_values(share(part)));
            RecordBatch::try_new(share_schema(), vec![numbers]).context(Kind::Bug, "Cannot divide the objects into parts")
        };
        (0..parts).map(batch).collect()
    }

    /// Reads the objects whose numbers are in `input`, and reports to the driver.
    pub(super) fn run(&self, input: SendableRecordBatchStream, resources: &TaskResources) -> Result<SendableRecordBatchStream> {
        let client = client_of(&self.broker)?;
        let choice = self.choice()?;
        let schema = choice.change_schema(self.nested());
        let query = Query {
            table: self.table(),
            format: self.format.parse()?,
            mode: None,
            // The window does not matter for reading objects.
            window: Window::Snapshot,
        };
        let job = FinishedJob {
            id: self.job.clone(),
            query,
            objects: self.objects.clone(),
            schema_version: self.schema_version,
            since: None,
            reached: Timestamp::from_micros(0),
            expires_at: None,
        };
        let (max_ratio, free_bytes, max_bytes) = self.unpack;
        let options = ScanOptions {
            partitions: 1,
            batch_rows: resources.engine.batch_rows(1),
            batch_bytes: resources.engine.batch_bytes(),
            memory_limit: resources.engine.memory_limit(),
            max_line: self.max_line,
            unpack: UnpackLimits { max_ratio, free_bytes, max_bytes },
            nested: self.nested(),
            out_of_range: self.out_of_range,
            temp_dir: resources.engine.folder().to_owned(),
        };
        let scan = ObjectScan::new(&client, job, choice, options, Arc::new(|_| BadRows::Fail));
        let lease = self.broker.clone();
        let reading = async move {
            let numbers: Vec<usize> = numbers(input.try_collect().await?)?;
            let report = Report { part: numbers.first().copied().unwrap_or(0), ..Report::default() };
            let rows = scan.stream_of(numbers);
            let state = (rows, Some(report), scan, client);
            let stream = stream::try_unfold(state, move |(mut rows, mut report, scan, client)| {
                let lease = lease.clone();
                async move {
                    if let Some(batch) = rows.next().await {
                        let batch = batch?;
                        if let Some(report) = &mut report {
                            report.changes += batch.num_rows() as u64;
                        }
                        return Ok(Some((batch, (rows, report, scan, client))));
                    }
                    let Some(mut report) = report.take() else { return Ok(None) };
                    report.counts = scan.counts();
                    report.objects = scan.finished();
                    broker::report(&client, &lease, &report).await?;
                    Ok(None)
                }
            });
            Ok::<_, DataFusionError>(stream)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::once(reading).try_flatten())))
    }
}

/// A client of the broker.
pub(super) fn client_of(Lease { address, load, token }: &Lease) -> Result<Client> {
    let credentials = Credentials { client_id: load.clone(), client_secret: Secret::new(token.as_str()) };
    Client::new(ClientOptions {
        base_url: address.clone(),
        credentials,
        pacing: Pacing::off(),
        retry: RetryPolicy::default(),
        ca_bundle: None,
        poll: (Duration::from_secs(1), Duration::from_secs(1)),
        idle_timeout: IDLE,
    })
}

pub(super) fn share_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("object", DataType::UInt32, false)]))
}

fn numbers(batches: Vec<RecordBatch>) -> PlanResult<Vec<usize>> {
    let mut numbers = Vec::new();
    for batch in batches {
        let column = batch.columns().first().and_then(|column| column.as_primitive_opt::<UInt32Type>());
        let column = column.ok_or_else(|| Error::new(Kind::Bug, "The batch of object numbers has an unexpected type"))?;
        numbers.extend(column.values().iter().map(|number| *number as usize));
    }
    Ok(numbers)
}
