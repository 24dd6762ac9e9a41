//! The changes of a load, batch by batch, with what every mode needs of a batch.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;

use crate::engine::{combine_streams, engine_error};
use crate::reduce::{ChangeSet, deletes};
use crate::sink::WriteError;
use crate::sink::delta::merge::key_set::key_columns;
use crate::sink::delta::merge::probe_buffer::KeySink;
use crate::sink::delta::merge::snapshot_writer::write_upserts;
use crate::sink::delta::merge::unique_keys::UniqueKeyCheck;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partitioned_writer::TableWriter;

/// A batch of changes.
pub(crate) struct ChangeBatch {
    /// All columns of the change set.
    pub(crate) rows: RecordBatch,
    /// The key columns.
    pub(crate) keys: Vec<ArrayRef>,
    /// Which rows are deletes.
    pub(crate) deletes: BooleanArray,
}

/// Reads the batches of a change set from all streams.
pub(crate) struct ChangeBatches {
    stream: SendableRecordBatchStream,
    keys: Vec<String>,
    unique: Option<UniqueKeyCheck>,
}

impl ChangeBatches {
    /// Pulls up to `concurrency` streams at the same time. With `unique`, a repeated key is an error. Must be called within a tokio
    /// runtime.
    pub(crate) fn new(changes: ChangeSet, unique: Option<UniqueKeyCheck>, concurrency: usize) -> Self {
        let stream = combine_streams(changes.schema, changes.streams, concurrency);
        Self { stream, keys: changes.keys, unique }
    }

    /// The next batch; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<ChangeBatch>, WriteError> {
        let Some(rows) = self.stream.next().await else { return Ok(None) };
        let rows = rows.map_err(engine_error)?;
        let keys = key_columns(&rows, &self.keys)?;
        if let Some(unique) = &self.unique {
            unique.insert(&keys[0])?;
        }
        let deletes = deletes(&rows)?;
        Ok(Some(ChangeBatch { rows, keys, deletes }))
    }

    /// Writes the upserts of all batches to `writer` and passes all keys to `keys`. Returns the number of upserts. Batches are encoded in
    /// parts of about `batch_bytes` bytes.
    pub(crate) async fn write(
        mut self,
        writer: &mut TableWriter,
        format: &FileFormat,
        batch_bytes: usize,
        keys: &mut dyn KeySink,
    ) -> Result<u64, WriteError> {
        let mut upserted = 0;
        while let Some(batch) = self.next().await? {
            keys.push(&batch.keys, &batch.deletes).await?;
            upserted += write_upserts(writer, &batch.rows, &batch.deletes, format, batch_bytes).await?;
        }
        Ok(upserted)
    }
}
