//! The batch under construction: rows are begun, filled, committed or taken back; full batches become record batches. Here
//! live the rules that hold for every format: keys, deletes, counts, what happens to a row that cannot be read.

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
use crate::schema::{self, ColumnType, Nested, TableSchema};

/// Offsets of text in a batch have 31 bits; with these bounds no batch can reach them.
pub(super) const MAX_BATCH_BYTES: usize = 256 << 20;
/// Likewise for one record.
pub(super) const MAX_RECORD_BYTES: usize = 256 << 20;
/// Rows that a first batch has room for; it grows by doubling.
const FIRST_ROWS: usize = 256;
/// Bits of the row number in `_seq`.
const ROW_BITS: u32 = 40;

/// Rows of one object on their way into batches.
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
    /// Rows there is room for.
    capacity: usize,
    /// Rows of the last batch, as a guess for the next.
    last: usize,
    row_bytes: usize,
    /// Bytes of text before the row that is being filled.
    bytes_before: usize,
    /// Records seen so far, unreadable ones included.
    records: u64,
    counts: DecodeCounts,
}

impl Rows {
    pub(super) fn new(table: Arc<TableSchema>, options: DecodeOptions) -> Result<Self> {
        if options.object_number >= 1 << (u64::BITS - ROW_BITS) {
            return Err(Error::new(Kind::Unsupported, "A job has more objects than can be numbered")
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

    /// Bytes of a row besides its text.
    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Number of the record begun last, from 1.
    pub(super) fn record(&self) -> u64 {
        self.records
    }

    /// Counts as of the last commit, unknown columns included.
    pub(super) fn counts(&self) -> &DecodeCounts {
        &self.counts
    }

    /// A record begins; gives the number of its row in this batch.
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

    /// The record begun last is complete. `has_values`: it has the group of values at all, be they null.
    #[inline]
    pub(super) fn commit(&mut self, op: Op, ts: i64, has_values: bool) -> Read<()> {
        let row = self.ts.len();
        if let Some(number) = self.key.columns.iter().position(|column| !column.is_set(row)) {
            return Err(Fault::new("the key is missing or null").inside(self.key.label(number)).inside("key"));
        }
        match op {
            // It would empty a row that is there.
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

    /// The record begun last cannot be read: nothing of it stays, and the policy decides. `raw` is the record as it stood.
    #[cold]
    pub(super) fn reject(&mut self, fault: &Fault, line: u64, raw: &[u8]) -> Result<()> {
        let row = self.ts.len();
        let key = self.key_words(row);
        self.key.truncate(row);
        self.value.truncate(row);
        self.tally.bytes = self.bytes_before;
        match &self.options.bad_rows {
            BadRows::Fail => {
                let error = Error::new(Kind::Data, "A row of the result cannot be read")
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
                let hint = match fault.is_out_of_range() {
                    true => "`--out-of-range-times null` makes such times null; `sync --bad-rows FILE` puts such rows aside",
                    false => "`--bad-rows FILE` puts such rows aside and goes on with the others",
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

    /// The key of a row as far as it was read, where errors may name it.
    fn key_words(&self, row: usize) -> Option<String> {
        if row >= self.capacity || !self.options.names_keys || matches!(self.options.bad_rows, BadRows::SetAside(_)) {
            return None;
        }
        let word = |(number, column): (usize, &Column)| Some(format!("{}={}", self.key.label(number), column.text(row)?));
        let words: Vec<String> = self.key.columns.iter().enumerate().filter_map(word).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// An error that ends the whole object.
    #[cold]
    pub(super) fn broken(&self, message: &'static str) -> Error {
        Error::new(Kind::Data, message).with_field("table", &self.table.table).with_field("object", &self.options.object_name)
    }

    /// Whether the batch has its rows or bytes.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        let rows = self.ts.len();
        rows >= self.options.batch_rows || rows * self.row_bytes + self.tally.bytes >= self.options.batch_bytes
    }

    /// Takes the batch if there are rows. Also brings the counts up to date.
    pub(super) fn take(&mut self) -> Result<Option<RecordBatch>> {
        if self.tally.unknown_columns.len() != self.counts.unknown_columns.len() {
            self.counts.unknown_columns.clone_from(&self.tally.unknown_columns);
        }
        let rows = self.ts.len();
        if rows == 0 {
            return Ok(None);
        }
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
                // Deletes have no values, so their nulls say nothing.
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

/// Nested columns as JSON text, when they are wanted so.
fn shaped(array: ArrayRef, column_type: &ColumnType, nested: Nested) -> Result<ArrayRef> {
    match column_type {
        ColumnType::Struct(_) | ColumnType::List(_) if nested == Nested::Json => render::json_column(&array, column_type),
        _ => Ok(array),
    }
}
