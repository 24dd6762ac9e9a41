//! Tables for plans, made of batches or of streams that are pulled once.

use std::fmt;
use std::sync::{Arc, Mutex};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;

use crate::error::{Kind, Result, ResultExt};

/// A table held in memory, one partition per element; it can be scanned any number of times.
pub fn table_of_batches(schema: SchemaRef, partitions: Vec<Vec<RecordBatch>>) -> Result<Arc<dyn TableProvider>> {
    let table = MemTable::try_new(schema, partitions).context(Kind::Bug, "Batches do not have the schema of their table")?;
    Ok(Arc::new(table))
}

/// A table with one partition per stream. Each can be scanned once; a second scan is an error.
pub fn table_of_streams(schema: SchemaRef, streams: Vec<SendableRecordBatchStream>) -> Result<Arc<dyn TableProvider>> {
    let partitions = streams
        .into_iter()
        .map(|stream| {
            Arc::new(Once { schema: Arc::clone(&schema), stream: Mutex::new(Some(stream)) }) as Arc<dyn PartitionStream>
        })
        .collect();
    let table =
        StreamingTable::try_new(schema, partitions).context(Kind::Bug, "Streams do not have the schema of their table")?;
    Ok(Arc::new(table))
}

/// A stream of ready batches.
pub fn batch_stream(schema: SchemaRef, batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches.into_iter().map(Ok))))
}

struct Once {
    schema: SchemaRef,
    stream: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once")
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let taken = self.stream.lock().ok().and_then(|mut stream| stream.take());
        taken.unwrap_or_else(|| {
            let error = DataFusionError::Execution("a stream that can be pulled once was pulled again".into());
            Box::pin(RecordBatchStreamAdapter::new(
                Arc::clone(&self.schema),
                futures::stream::once(std::future::ready(Err(error))),
            ))
        })
    }
}
