//! Writes streams of changes as rows of new files and enforces unique keys on the way. Reads no existing file.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::{Field, FieldRef, Schema};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use parking_lot::Mutex;

use crate::engine::{combine_streams, engine_error, split_batch};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::reduce::deletes;
use crate::schema::TS;
use crate::sink::WriteError;
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::file_actions::NewFile;
use crate::sink::delta::log::system_columns::SystemColumn;
use crate::sink::delta::merge::key_set::key_columns;
use crate::sink::delta::merge::row_location::{RowLocationSink, RowLocator};
use crate::sink::delta::merge::unique_keys::UniqueKeyCheck;
use crate::sink::delta::write::parquet_writer::{BatchLocation, FileFormat};
use crate::sink::delta::write::partition_router::RoutedRows;
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::delta::write::partitioning::PartitionNumber;
use crate::sink::delta::write::schema_cast::{ColumnNames, cast_to_file_schema};

/// Writes the upserts of a change batch and returns their number.
pub(crate) async fn write_upserts(
    writer: &mut TableWriter,
    batch: &RecordBatch,
    deletes: &BooleanArray,
    format: &FileFormat,
    batch_bytes: usize,
) -> Result<u64> {
    let upserts = upserts_of(batch, deletes)?;
    write_rows(writer, &upserts, None, format, batch_bytes).await?;
    Ok(upserts.num_rows() as u64)
}

fn upserts_of(batch: &RecordBatch, deletes: &BooleanArray) -> Result<RecordBatch> {
    match deletes.true_count() {
        0 => Ok(batch.clone()),
        _ => filtered(batch, &not(deletes).context(Kind::Bug, "Rows cannot be filtered")?),
    }
}

fn filtered(batch: &RecordBatch, rows: &BooleanArray) -> Result<RecordBatch> {
    filter_record_batch(batch, rows).context(Kind::Bug, "Rows cannot be filtered")
}

/// A part of a batch that was written.
struct WrittenPart {
    /// First row of the part in the batch.
    start: usize,
    rows: usize,
    locations: Vec<BatchLocation>,
}

/// Writes a batch of upserts in parts of bounded size. `partition` is set if all rows are in the same partition.
async fn write_rows(
    writer: &mut TableWriter,
    upserts: &RecordBatch,
    partition: Option<PartitionNumber>,
    format: &FileFormat,
    batch_bytes: usize,
) -> Result<Vec<WrittenPart>> {
    let rows = with_system_columns(upserts, &format.columns)?;
    let rows = cast_to_file_schema(&rows, &format.columns, &format.schema, ColumnNames::Logical)?;
    let (mut start, mut parts) = (0, Vec::new());
    // An object may arrive as few large batches, but a batch is encoded as a whole.
    for part in split_batch(&rows, batch_bytes.saturating_mul(2), usize::MAX).map_err(engine_error)? {
        let rows = part.num_rows();
        let locations = match partition {
            Some(number) => writer.write_partition(number, part).await?,
            None => writer.write(part).await?,
        };
        parts.push(WrittenPart { start, rows, locations });
        start += rows;
    }
    Ok(parts)
}

/// A batch of upserts with the system columns of the table that it lacks.
pub(crate) fn with_system_columns(batch: &RecordBatch, columns: &[LakeColumn]) -> Result<RecordBatch> {
    if SystemColumn::ValidFrom.find(columns).is_none() {
        return Ok(batch.clone());
    }
    let mut fields: Vec<FieldRef> = batch.schema().fields().to_vec();
    let mut arrays = batch.columns().to_vec();
    let mut add = |column: SystemColumn, array: ArrayRef| {
        fields.push(Arc::new(Field::new(column.name(), array.data_type().clone(), true)));
        arrays.push(array);
    };
    let since = batch.column_by_name(TS).ok_or_else(|| Error::new(Kind::Bug, "A change batch lacks a column"))?;
    add(SystemColumn::ValidFrom, Arc::clone(since));
    add(SystemColumn::Current, Arc::new(BooleanArray::from(vec![true; batch.num_rows()])));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).context(Kind::Bug, "Changes do not match their schema")
}

/// How a writer makes sure that each key has one row.
#[derive(Debug, Clone)]
pub(crate) enum KeyPolicy {
    /// The change set was deduplicated.
    Deduplicated,
    /// A repeated key is an error, upon which the caller deduplicates the change set and repeats the load.
    Unique(UniqueKeyCheck),
    /// Repeated keys are written; their locations are passed on for a deduplication afterwards.
    Locate(RowLocator, Arc<dyn RowLocationSink>),
}

/// The rows that a writer of a snapshot gets.
pub(crate) enum SnapshotRows {
    /// For a table without partitions: streams that are read one after the other and shared with other writers.
    Streams(Arc<Mutex<VecDeque<SendableRecordBatchStream>>>),
    /// For a table with partitions.
    Routed(RoutedRows),
}

/// Writes rows of a snapshot.
pub(crate) struct SnapshotWriter {
    pub(crate) format: Arc<FileFormat>,
    /// Names of the key columns.
    pub(crate) keys: Vec<String>,
    pub(crate) policy: KeyPolicy,
    /// Size in bytes of the batches to encode, approximately.
    pub(crate) batch_bytes: usize,
}

impl SnapshotWriter {
    /// Writes all rows to `writer`. Returns the files and the number of upserts.
    pub(crate) async fn run(self, rows: SnapshotRows, mut writer: TableWriter) -> Result<(Vec<NewFile>, u64), WriteError> {
        let upserted = match rows {
            SnapshotRows::Streams(streams) => self.write_streams(streams, &mut writer).await?,
            SnapshotRows::Routed(rows) => self.write_routed(rows, &mut writer).await?,
        };
        Ok((writer.finish().await?, upserted))
    }

    async fn write_streams(
        &self,
        streams: Arc<Mutex<VecDeque<SendableRecordBatchStream>>>,
        writer: &mut TableWriter,
    ) -> Result<u64, WriteError> {
        let mut upserted = 0;
        loop {
            let next = streams.lock().pop_front();
            let Some(stream) = next else { return Ok(upserted) };
            // Reads the next batch while this one is encoded.
            let mut stream = combine_streams(stream.schema(), vec![stream], 1);
            while let Some(batch) = stream.next().await {
                upserted += self.write(writer, batch.map_err(engine_error)?, None).await?;
            }
        }
    }

    async fn write_routed(&self, mut rows: RoutedRows, writer: &mut TableWriter) -> Result<u64, WriteError> {
        let mut upserted = 0;
        let mut buffer = rows.buffer();
        // The router runs ahead by itself.
        while let Some(batch) = rows.stream.next().await {
            let batch = batch.map_err(engine_error)?;
            let number = rows.number(&batch)?;
            if let Some((number, batches)) = buffer.push(number, batch) {
                upserted += self.write_row_group(writer, number, batches).await?;
            }
        }
        let mut last = None;
        if let Some(mut spilled) = rows.spilled() {
            while let Some(read) = spilled.next().await {
                let (number, batch) = read.map_err(engine_error)?;
                if let Some(last) = last.replace(number).filter(|last| *last != number) {
                    writer.close_partition(last).await?;
                }
                upserted += self.write(writer, batch, Some(number)).await?;
                for batch in buffer.remove(number) {
                    upserted += self.write(writer, batch, Some(number)).await?;
                }
            }
        }
        if let Some(last) = last {
            writer.close_partition(last).await?;
        }
        while let Some((number, batches)) = buffer.pop() {
            upserted += self.write_row_group(writer, number, batches).await?;
            writer.close_partition(number).await?;
        }
        Ok(upserted)
    }

    async fn write_row_group(
        &self,
        writer: &mut TableWriter,
        number: PartitionNumber,
        batches: Vec<RecordBatch>,
    ) -> Result<u64, WriteError> {
        let mut upserted = 0;
        for batch in batches {
            upserted += self.write(writer, batch, Some(number)).await?;
        }
        writer.end_row_group(number).await?;
        Ok(upserted)
    }

    /// Writes a change batch and returns the number of upserts in it.
    async fn write(
        &self,
        writer: &mut TableWriter,
        batch: RecordBatch,
        partition: Option<PartitionNumber>,
    ) -> Result<u64, WriteError> {
        let keys = key_columns(&batch, &self.keys)?;
        let deletes = deletes(&batch)?;
        if let KeyPolicy::Unique(unique) = &self.policy {
            unique.insert(&keys[0])?;
        }
        let upserts = upserts_of(&batch, &deletes)?;
        let parts = if let KeyPolicy::Locate(locator, sink) = &self.policy {
            if deletes.true_count() > 0 {
                if !sink.accepts_deletes() {
                    return Err(WriteError::DuplicateKey);
                }
                let deleted = filtered(&batch, &deletes)?;
                sink.push(locator.locate_deletes(&deleted, &key_columns(&deleted, &self.keys)?)?).await?;
            }
            let parts = write_rows(writer, &upserts, partition, &self.format, self.batch_bytes).await?;
            let keys = key_columns(&upserts, &self.keys)?;
            for part in &parts {
                let keys: Vec<ArrayRef> = keys.iter().map(|key| key.slice(part.start, part.rows)).collect();
                let rows = upserts.slice(part.start, part.rows);
                sink.push(locator.locate(&rows, &keys, &part.locations)?).await?;
            }
            parts
        } else {
            write_rows(writer, &upserts, partition, &self.format, self.batch_bytes).await?
        };
        Ok(parts.iter().map(|part| part.rows as u64).sum())
    }
}
