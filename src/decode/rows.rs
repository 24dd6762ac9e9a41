//! The batch under construction, and the rules that are common to all formats: keys, deletes, counters, unreadable rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatchOptions, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::column::{Builder, Column, Object, Tally};
use super::fault::{Fault, Read};
use super::render;
use super::{BadRows, DecodeCounts, DecodeOptions, OutOfRange, RowError};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::Op;
use crate::redact::shortened;
use crate::schema::{self, ColumnType, Nested, TableSchema};

/// The limit of a batch. Text offsets have 31 bits, which no batch within this limit can exceed.
pub(super) const MAX_BATCH_BYTES: usize = 256 << 20;
/// The limit of a record, for the same reason.
pub(super) const MAX_RECORD_BYTES: usize = 256 << 20;
/// The initial capacity of the first batch in rows. It doubles as needed.
const FIRST_ROWS: usize = 256;
/// The number of bits of the row number in `_seq`.
const ROW_BITS: u32 = 40;
/// Maximum number of characters of a value of the key in an error.
const MAX_KEY_TEXT: usize = 64;

/// The rows of one object.
#[derive(Debug)]
pub(super) struct Rows {
    table: Arc<TableSchema>,
    schema: SchemaRef,
    options: DecodeOptions,
    pub(super) key: Object,
    pub(super) value: Object,
    pub(super) tally: Tally,
    actions: Vec<u8>,
    ts: Vec<i64>,
    seq: Vec<u64>,
    deletes: u64,
    /// The capacity in rows.
    capacity: usize,
    /// The number of rows of the last batch, as an estimate for the next.
    last: usize,
    row_bytes: usize,
    /// The bytes of text before the current row.
    bytes_before: usize,
    /// The number of records so far, including unreadable ones.
    records: u64,
    counts: DecodeCounts,
}

impl Rows {
    pub(super) fn new(table: Arc<TableSchema>, options: DecodeOptions) -> Result<Self> {
        if options.object_number >= 1 << (u64::BITS - ROW_BITS) {
            return Err(Error::new(Kind::Unsupported, "A job has more than 16,777,216 objects")
                .with_field("table", &table.table)
                .with_field("object", &options.object_name));
        }
        let key = Object::key(&table.key);
        let value = Object::new(&table.value, "value.");
        let row_bytes = 17 + key.columns.iter().chain(&value.columns).map(|column| column.row_bytes()).sum::<usize>();
        let nulls_times = options.out_of_range == OutOfRange::Null;
        let options = DecodeOptions {
            batch_rows: options.batch_rows.max(1),
            batch_bytes: options.batch_bytes.min(MAX_BATCH_BYTES),
            max_line: options.max_line.min(MAX_RECORD_BYTES),
            ..options
        };
        Ok(Self {
            schema: schema::change_schema(&table, options.nested),
            table,
            options,
            key,
            value,
            tally: Tally::new(nulls_times),
            actions: Vec::new(),
            ts: Vec::new(),
            seq: Vec::new(),
            deletes: 0,
            capacity: 0,
            last: FIRST_ROWS,
            row_bytes,
            bytes_before: 0,
            records: 0,
            counts: DecodeCounts::default(),
        })
    }

    pub(super) fn options(&self) -> &DecodeOptions {
        &self.options
    }

    pub(super) fn table(&self) -> &TableSchema {
        &self.table
    }

    /// The size of a row without its text, in bytes.
    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The number of the current record, from 1.
    pub(super) fn record(&self) -> u64 {
        self.records
    }

    /// The counters as of the last committed row.
    pub(super) fn counts(&self) -> &DecodeCounts {
        &self.counts
    }

    /// Begins a record and returns its row number in the batch.
    #[inline]
    pub(super) fn begin(&mut self) -> usize {
        let row = self.ts.len();
        self.records += 1;
        self.tally.oversized = 0;
        self.tally.cut_fractions = 0;
        self.tally.nulled_times = 0;
        self.bytes_before = self.tally.bytes;
        if row == self.capacity {
            self.grow();
        }
        row
    }

    #[cold]
    fn grow(&mut self) {
        self.capacity = (2 * self.capacity).max(self.last.max(1)).min(self.options.batch_rows);
        self.key.reserve(self.capacity);
        self.value.reserve(self.capacity);
        self.actions.reserve(self.capacity - self.actions.len());
        self.ts.reserve(self.capacity - self.ts.len());
        self.seq.reserve(self.capacity - self.seq.len());
    }

    /// Commits the current record. `has_values` indicates whether it has the group `value`, even if all values are null.
    #[inline]
    pub(super) fn commit(&mut self, op: Op, ts: i64, has_values: bool) -> Read<()> {
        let row = self.ts.len();
        if let Some(number) = self.key.columns.iter().position(|column| !column.is_set(row)) {
            return Err(Fault::new("the key is missing or null").inside(self.key.label(number)).inside("key"));
        }
        match op {
            // It would set all values of an existing row to null.
            Op::Upsert if !has_values && !self.value.columns.is_empty() => {
                return Err(Fault::new("an upsert without values").inside("value"));
            }
            Op::Upsert => self.actions.push(b'U'),
            Op::Delete => {
                self.value.unset(row);
                self.deletes += 1;
                self.actions.push(b'D');
            }
        }
        self.ts.push(ts);
        self.seq.push(u64::from(self.options.object_number) << ROW_BITS | self.records);
        self.counts.oversized += self.tally.oversized;
        self.counts.cut_fractions += self.tally.cut_fractions;
        self.counts.nulled_times += self.tally.nulled_times;
        Ok(())
    }

    /// Removes the current record, which is unreadable, and fails or sets it aside. `raw` is the original record.
    #[cold]
    pub(super) fn reject(&mut self, fault: &Fault, line: u64, raw: &[u8]) -> Result<()> {
        let row = self.ts.len();
        let key = self.key_text(row);
        self.key.truncate(row);
        self.value.truncate(row);
        self.tally.bytes = self.bytes_before;
        match &self.options.bad_rows {
            BadRows::Fail => {
                let error = Error::new(Kind::Data, "A row cannot be read")
                    .with_field("table", &self.table.table)
                    .with_field("object", &self.options.object_name)
                    .with_field("line", line);
                let error = match fault.column() {
                    Some(column) => error.with_field("column", column),
                    None => error,
                };
                let error = match key {
                    Some(key) => error.with_field("key", key),
                    None => error,
                };
                let hint = if fault.is_out_of_range() {
                    "`--out-of-range-times null` loads such times as null; `sync --bad-rows FILE` writes such rows to a file"
                } else {
                    "`--bad-rows FILE` writes such rows to a file and loads the others"
                };
                Err(error.with_field("reason", fault.reason()).hint(hint))
            }
            BadRows::SetAside(take) => {
                let error = RowError { line, column: fault.column(), reason: fault.reason().to_owned() };
                take.clone()(&error, raw)?;
                self.counts.bad_rows += 1;
                Ok(())
            }
        }
    }

    /// The key of a row as far as it was read, if errors may contain it.
    fn key_text(&self, row: usize) -> Option<String> {
        if row >= self.capacity || !self.options.names_keys || matches!(self.options.bad_rows, BadRows::SetAside(_)) {
            return None;
        }
        let text = |(number, column): (usize, &Column)| {
            Some(format!("{}={}", self.key.label(number), shortened(&column.text(row)?, MAX_KEY_TEXT)))
        };
        let texts: Vec<String> = self.key.columns.iter().enumerate().filter_map(text).collect();
        (!texts.is_empty()).then(|| texts.join(", "))
    }

    /// An error that makes the whole object unusable.
    #[cold]
    pub(super) fn broken(&self, message: &'static str) -> Error {
        Error::new(Kind::Data, message).with_field("table", &self.table.table).with_field("object", &self.options.object_name)
    }

    /// Whether the batch is full.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        let rows = self.ts.len();
        rows >= self.options.batch_rows || rows * self.row_bytes + self.tally.bytes >= self.options.batch_bytes
    }

    /// Takes the batch, if it has rows, and updates the counters.
    pub(super) fn take(&mut self) -> Result<Option<RecordBatch>> {
        if self.tally.unknown_columns.len() != self.counts.unknown_columns.len() {
            self.counts.unknown_columns.clone_from(&self.tally.unknown_columns);
        }
        let rows = self.ts.len();
        if rows == 0 {
            return Ok(None);
        }
        self.counts.absent_columns.append(&mut self.tally.absent_columns);
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        let ends = OffsetBuffer::from_lengths(std::iter::repeat_n(1, rows));
        let actions = StringArray::try_new(ends, std::mem::take(&mut self.actions).into(), None);
        columns.push(Arc::new(actions.context(Kind::Bug, "Actions are not text")?) as ArrayRef);
        let ts: ScalarBuffer<i64> = std::mem::take(&mut self.ts).into();
        columns.push(Arc::new(TimestampMicrosecondArray::new(ts, None).with_timezone("UTC")));
        columns.push(Arc::new(UInt64Array::new(std::mem::take(&mut self.seq).into(), None)));
        let finished = self.key.finish(rows)?;
        for (column, array) in self.table.key.iter().zip(finished) {
            columns.push(shaped(array, &column.column_type, self.options.nested)?);
        }
        let finished = self.value.finish(rows)?;
        for (column, array) in self.table.value.iter().zip(finished) {
            if column.required {
                // The values of deletes are always null.
                self.counts.required_nulls += array.null_count() as u64 - self.deletes;
            }
            columns.push(shaped(array, &column.column_type, self.options.nested)?);
        }
        self.counts.rows += rows as u64;
        self.counts.deletes += self.deletes;
        self.deletes = 0;
        self.tally.bytes = 0;
        self.capacity = 0;
        self.last = rows;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options);
        batch.map(Some).context(Kind::Bug, "Decoded columns do not fit the schema")
    }
}

/// Converts nested columns to JSON text if requested.
fn shaped(array: ArrayRef, column_type: &ColumnType, nested: Nested) -> Result<ArrayRef> {
    match column_type {
        ColumnType::Struct(_) | ColumnType::List(_) if nested == Nested::Json => render::json_column(&array, column_type),
        _ => Ok(array),
    }
}
