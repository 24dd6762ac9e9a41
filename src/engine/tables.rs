//! Streams as tables of a DataFusion plan.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use parking_lot::Mutex;

use crate::error::{Kind, Result, ResultExt};

/// A table with one partition per stream. It can be scanned once; a second scan returns an error.
///
/// # Errors
/// Kind `Bug` if a stream has another schema.
pub fn streaming_table(schema: SchemaRef, streams: Vec<SendableRecordBatchStream>) -> Result<Arc<dyn TableProvider>> {
    let partitions = streams
        .into_iter()
        .map(|stream| {
            Arc::new(SingleScan { schema: Arc::clone(&schema), stream: Mutex::new(Some(stream)) }) as Arc<dyn PartitionStream>
        })
        .collect();
    let table =
        StreamingTable::try_new(schema, partitions).context(Kind::Bug, "A stream does not have the schema of its table")?;
    Ok(Arc::new(table))
}

struct SingleScan {
    schema: SchemaRef,
    stream: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for SingleScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SingleScan")
    }
}

impl PartitionStream for SingleScan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let taken = self.stream.lock().take();
        taken.unwrap_or_else(|| {
            let error = DataFusionError::Execution("a streaming table was scanned twice".into());
            Box::pin(RecordBatchStreamAdapter::new(
                Arc::clone(&self.schema),
                futures::stream::once(std::future::ready(Err(error))),
            ))
        })
    }
}
