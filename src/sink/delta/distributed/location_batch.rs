//! Row locations as batches between tasks. The reports of the tasks that write travel in a column of the same batches.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch, StringArray, UInt32Array, UInt64Array, new_null_array,
};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Schema, SchemaRef, UInt32Type, UInt64Type};
use async_trait::async_trait;
use parking_lot::Mutex;

use crate::engine::{BatchSender, engine_error};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::sink::delta::distributed::task_report::{FileId, REPORT, TaskReport};
use crate::sink::delta::merge::row_location::{RowLocation, RowLocationSink};

/// The column by which locations are shuffled.
pub(super) const KEY_HASH: &str = "key_hash";
/// Number of locations in a batch.
const BATCH_ROWS: usize = 8192;

/// The schema of batches with row locations and reports.
pub(super) fn schema() -> SchemaRef {
    let long = |name: &str| Field::new(name, DataType::UInt64, false);
    let int = |name: &str| Field::new(name, DataType::UInt32, false);
    Arc::new(Schema::new(vec![
        long(KEY_HASH),
        long("key_hash_2"),
        long("changed_at"),
        long("sequence"),
        long("writer"),
        int("file"),
        int("row"),
        Field::new(REPORT, DataType::Utf8, true),
    ]))
}

/// Sends row locations and reports from a task that writes.
#[derive(Debug)]
pub(super) struct LocationSender {
    /// Random, so that no two attempts at a task have the same.
    writer: u64,
    sender: BatchSender,
    buffer: Mutex<Vec<RowLocation>>,
}

impl LocationSender {
    pub(super) fn new(sender: BatchSender) -> Self {
        Self { writer: uuid::Uuid::new_v4().as_u64_pair().0, sender, buffer: Mutex::default() }
    }

    /// Random number of the attempt at the task; see [`FileId`].
    pub(super) fn writer(&self) -> u64 {
        self.writer
    }

    /// Sends the locations that are left.
    pub(super) async fn flush(&self) -> Result<()> {
        self.send_full_batches(1).await
    }

    /// Sends batches as long as at least `min_rows` locations are buffered.
    async fn send_full_batches(&self, min_rows: usize) -> Result<()> {
        loop {
            let locations: Vec<RowLocation> = {
                let mut buffer = self.buffer.lock();
                if buffer.len() < min_rows {
                    return Ok(());
                }
                let rows = buffer.len().min(BATCH_ROWS);
                buffer.drain(..rows).collect()
            };
            let reports = new_null_array(&DataType::Utf8, locations.len());
            self.send(&locations, reports).await?;
        }
    }

    /// Sends a report.
    pub(super) async fn report(&self, report: &TaskReport) -> Result<()> {
        let nothing = RowLocation { key_hash: [0; 2], changed_at: 0, sequence: 0, file: 0, row: 0 };
        self.send(&[nothing], Arc::new(StringArray::from(vec![report.encode()?]))).await
    }

    async fn send(&self, locations: &[RowLocation], reports: ArrayRef) -> Result<()> {
        let long = |value: fn(&RowLocation) -> u64| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(locations.iter().map(value)))
        };
        let int = |value: fn(&RowLocation) -> u32| -> ArrayRef {
            Arc::new(UInt32Array::from_iter_values(locations.iter().map(value)))
        };
        let columns = vec![
            long(|location| location.key_hash[0]),
            long(|location| location.key_hash[1]),
            long(|location| location.changed_at),
            long(|location| location.sequence),
            Arc::new(UInt64Array::from_value(self.writer, locations.len())),
            int(|location| location.file),
            int(|location| location.row),
            reports,
        ];
        let batch = RecordBatch::try_new(schema(), columns).context(Kind::Bug, "Row locations cannot be sent")?;
        self.sender.send(batch).await.map_err(engine_error)
    }
}

#[async_trait]
impl RowLocationSink for LocationSender {
    fn accepts_deletes(&self) -> bool {
        true
    }

    async fn push(&self, locations: Vec<RowLocation>) -> Result<()> {
        self.buffer.lock().extend(locations);
        self.send_full_batches(BATCH_ROWS).await
    }
}

/// Row locations and reports as a task receives them.
pub(super) struct LocationBatch<'a> {
    key_hashes: [&'a UInt64Array; 2],
    changed_at: &'a UInt64Array,
    sequences: &'a UInt64Array,
    writers: &'a UInt64Array,
    files: &'a UInt32Array,
    rows: &'a UInt32Array,
    reports: &'a StringArray,
}

impl<'a> LocationBatch<'a> {
    /// Kind `Bug` if the batch has another schema.
    pub(super) fn new(batch: &'a RecordBatch) -> Result<Self> {
        fn column<T: ArrowPrimitiveType>(batch: &RecordBatch, position: usize) -> Result<&PrimitiveArray<T>> {
            let column = batch.columns().get(position).and_then(|column| column.as_primitive_opt::<T>());
            column.ok_or_else(invalid)
        }
        fn invalid() -> Error {
            Error::new(Kind::Bug, "Row locations have another schema")
        }
        let reports = batch.columns().get(7).and_then(|column| column.as_string_opt::<i32>());
        Ok(Self {
            key_hashes: [column::<UInt64Type>(batch, 0)?, column::<UInt64Type>(batch, 1)?],
            changed_at: column::<UInt64Type>(batch, 2)?,
            sequences: column::<UInt64Type>(batch, 3)?,
            writers: column::<UInt64Type>(batch, 4)?,
            files: column::<UInt32Type>(batch, 5)?,
            rows: column::<UInt32Type>(batch, 6)?,
            reports: reports.ok_or_else(invalid)?,
        })
    }

    /// The report in a row, as JSON; `None` if the row is a location.
    pub(super) fn report(&self, row: usize) -> Option<&'a str> {
        self.reports.is_valid(row).then(|| self.reports.value(row))
    }

    /// The file of the location in a row.
    pub(super) fn file(&self, row: usize) -> FileId {
        FileId { writer: self.writers.value(row), number: self.files.value(row) }
    }

    /// The location in a row, with `file` as the number of the file.
    pub(super) fn location(&self, row: usize, file: u32) -> RowLocation {
        RowLocation {
            key_hash: self.key_hashes.map(|hashes| hashes.value(row)),
            changed_at: self.changed_at.value(row),
            sequence: self.sequences.value(row),
            file,
            row: self.rows.value(row),
        }
    }
}
