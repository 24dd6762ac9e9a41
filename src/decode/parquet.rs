//! Decodes Parquet objects. Their physical layout is not documented, so nested groups, dotted names, expanded and condensed objects, and all
//! widths and units are accepted; the table's schema decides. Row groups are read one by one, in bounded batches.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{Encoding, Type as PhysicalType};
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::SchemaDescriptor;

use super::column::Source;
use super::fault::{Fault, Read};
use super::page_sizes::check_sizes;
use super::pages::check_chunk;
use super::render;
use super::rows::Rows;
use super::target::{self, Target};
use super::{DecodeCounts, DecodeOptions};
use crate::error::{BoxError, Error, Kind, Result};
use crate::model::Op;
use crate::panics::{self, Panicked};
use crate::schema::TableSchema;

/// Minimum number of rows to read at once if they fit, also while their size is unknown.
const MIN_READ_ROWS: usize = 16;
/// Maximum size of a batch that is read from the file, in output batches.
const READ_BATCHES: u64 = 8;
/// Maximum number of rows to read at once while their size is unknown.
const MOST_GUESSED_ROWS: usize = 256;
/// By how much more rows are read at once, step by step.
const GROWTH: usize = 8;
/// Maximum number of times that a row group is reopened to read more rows at once.
const MOST_REOPENED: u32 = 16;

/// Batches of one Parquet object, read as they are pulled.
///
/// Rows come in the file's order. Values that do not fit the schema are unreadable rows, as in the text formats; their raw form
/// is the row as JSON and their line the row's number. Nothing follows an error.
pub fn parquet<R: ChunkReader + 'static>(file: R, schema: Arc<TableSchema>, options: DecodeOptions) -> Result<ParquetBatches> {
    let (table, object) = (schema.table.clone(), options.object_name.clone());
    let begun = panics::caught(move || begin(file, schema, options));
    begun.unwrap_or_else(|panicked| Err(damaged(panicked).with_field("table", table).with_field("object", object)))
}

fn begin<R: ChunkReader + 'static>(file: R, schema: Arc<TableSchema>, options: DecodeOptions) -> Result<ParquetBatches> {
    let mut rows = Rows::new(schema, options)?;
    let file = Shared(Arc::new(file));
    let metadata = open(&file).map_err(|error| unreadable(&rows, error))?;
    let mut wanted = Wanted::default();
    for field in metadata.schema().fields() {
        wanted.walk(field, "", &mut Vec::new(), &mut rows);
    }
    let has_values = metadata.schema().fields().iter().any(|field| target::is_value(field.name()));
    let targets: Vec<Target> = wanted.columns.iter().map(|(target, _)| target.clone()).collect();
    target::check(&targets, &mut rows)?;
    let groups = metadata.metadata().row_groups();
    let promised = groups.iter().map(RowGroupMetaData::num_rows).sum::<i64>();
    if promised != metadata.metadata().file_metadata().num_rows() || groups.iter().any(|group| group.num_rows() < 0) {
        return Err(rows.broken("The Parquet file is damaged: its footer contradicts itself about the number of rows"));
    }
    let (next_group, group_count) = (0, groups.len());
    let groups = Box::new(FileGroups { file, metadata, leaves: wanted.leaves });
    Ok(ParquetBatches {
        groups,
        columns: wanted.columns,
        has_values,
        next_group,
        group_count,
        open: None,
        largest_read: 0,
        ready: VecDeque::new(),
        rows,
        promised: promised as u64,
        ended: false,
    })
}

/// The row groups of a file, whatever it is read from.
trait Groups: Send {
    /// A reader of the rows of a group from `first` on, in batches of `rows_at_once`.
    fn open(&self, group: usize, first: usize, rows_at_once: usize) -> parquet::errors::Result<ParquetRecordBatchReader>;

    /// Checks the pages of a group, and estimates how many rows to read at once.
    fn estimate(&self, group: usize, rows: &Rows) -> parquet::errors::Result<Estimate>;
}

struct FileGroups<R> {
    file: Shared<R>,
    metadata: ArrowReaderMetadata,
    /// Numbers of the leaf columns that are read.
    leaves: Vec<usize>,
}

impl<R: ChunkReader + 'static> Groups for FileGroups<R> {
    fn open(&self, group: usize, first: usize, rows_at_once: usize) -> parquet::errors::Result<ParquetRecordBatchReader> {
        let mask = ProjectionMask::leaves(self.metadata.parquet_schema(), self.leaves.iter().copied());
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone());
        let builder = builder.with_projection(mask).with_row_groups(vec![group]).with_batch_size(rows_at_once);
        // An offset of zero would still cost a selection.
        if first == 0 { builder.build() } else { builder.with_offset(first).build() }
    }

    fn estimate(&self, group: usize, rows: &Rows) -> parquet::errors::Result<Estimate> {
        let group = self.metadata.metadata().row_group(group);
        let chunks = self.leaves.iter().filter_map(|leaf| group.columns().get(*leaf));
        for chunk in chunks.clone() {
            check_sizes(&self.file.0, chunk, rows.options().max_page)?;
            check_chunk(&self.file.0, chunk, usize::try_from(group.num_rows()).unwrap_or(0))?;
        }
        let longest = |chunk: &ColumnChunkMetaData| longest_in_dictionary(&self.file.0, chunk, group.num_rows());
        Estimate::of(group.num_rows().max(1) as u64, chunks, rows, longest)
    }
}

/// How many rows of a row group to read at once. The size of a file says little about the size of its rows, since dictionaries and
/// shared prefixes can make it much smaller.
struct Estimate {
    rows_at_once: usize,
    /// The size of a column is unknown, so the first read must have few rows.
    is_guess: bool,
}

impl Estimate {
    fn of<'c>(
        group_rows: u64,
        chunks: impl Iterator<Item = &'c ColumnChunkMetaData>,
        rows: &Rows,
        longest: impl Fn(&ColumnChunkMetaData) -> parquet::errors::Result<u64>,
    ) -> parquet::errors::Result<Self> {
        let window = window_bytes(rows.options());
        // Average size of a row, and the known maximum, in bytes.
        let (mut usual, mut most, mut is_guess) = (0, 0, false);
        for chunk in chunks {
            let encoded = u64::try_from(chunk.uncompressed_size()).unwrap_or(0);
            let values = u64::try_from(chunk.num_values()).unwrap_or(0).div_ceil(group_rows);
            let has = |encodings: &[Encoding]| chunk.encodings().any(|encoding| encodings.contains(&encoding));
            if chunk.column_type() != PhysicalType::BYTE_ARRAY {
                let width = u64::try_from(chunk.column_descr().type_length()).unwrap_or(0).max(8);
                usual += (encoded / group_rows).max(width * values);
                most += width * values;
                continue;
            }
            let decoded = chunk.unencoded_byte_array_data_bytes().and_then(|bytes| u64::try_from(bytes).ok());
            let all = decoded.unwrap_or(0).max(encoded);
            usual += all / group_rows;
            most += match decoded {
                Some(_) if all <= window => all / group_rows,
                _ if has(&[Encoding::PLAIN_DICTIONARY, Encoding::RLE_DICTIONARY]) => {
                    longest(chunk)?.saturating_mul(values).max(all / group_rows)
                }
                Some(_) => all / group_rows,
                None => {
                    is_guess |= has(&[Encoding::DELTA_BYTE_ARRAY]);
                    all / group_rows
                }
            };
        }
        let options = rows.options();
        let usual = (options.batch_bytes as u64 / usual.max(rows.row_bytes() as u64).max(1)).max(MIN_READ_ROWS as u64);
        let most = window / most.max(1);
        let rows_at_once = usize::try_from(usual.min(most)).unwrap_or(usize::MAX).clamp(1, options.batch_rows);
        let rows_at_once = if is_guess { rows_at_once.min(MIN_READ_ROWS) } else { rows_at_once };
        Ok(Self { rows_at_once, is_guess })
    }
}

/// Bytes that a batch of the file may take before its rows are moved to batches of the output.
fn window_bytes(options: &DecodeOptions) -> u64 {
    (options.batch_bytes as u64).saturating_mul(READ_BATCHES)
}

/// Length of the longest text in the dictionary of a column chunk, if it has one.
fn longest_in_dictionary<R: ChunkReader + 'static>(
    file: &Arc<R>,
    chunk: &ColumnChunkMetaData,
    group_rows: i64,
) -> parquet::errors::Result<u64> {
    let total = usize::try_from(group_rows).unwrap_or(0);
    let Some(Page::DictionaryPage { buf, .. }) =
        SerializedPageReader::new(file.clone(), chunk, total, None)?.get_next_page()?
    else {
        return Ok(0);
    };
    let (mut rest, mut longest) = (&buf[..], 0);
    // Each text after its length.
    while let Some((length, text)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length);
        longest = longest.max(u64::from(length));
        rest = text.get(length as usize..).unwrap_or_default();
    }
    Ok(longest)
}

/// The row group that is being read.
struct OpenGroup {
    number: usize,
    reader: ParquetRecordBatchReader,
    rows_at_once: usize,
    is_guess: bool,
    /// Rows that were read.
    read: usize,
    /// How often it was opened again for another number of rows.
    reopened: u32,
}

/// See [`parquet()`].
pub struct ParquetBatches {
    groups: Box<dyn Groups>,
    /// The columns that are read, with the names that lead to each.
    columns: Vec<(Target, Vec<String>)>,
    /// Whether the file has a column or group of values, known or not.
    has_values: bool,
    next_group: usize,
    group_count: usize,
    open: Option<OpenGroup>,
    /// Bytes of the largest batch of the file.
    largest_read: usize,
    ready: VecDeque<RecordBatch>,
    rows: Rows,
    /// Rows that the footer promises.
    promised: u64,
    ended: bool,
}

impl ParquetBatches {
    /// Counts so far, as of the last returned batch.
    pub fn counts(&self) -> &DecodeCounts {
        self.rows.counts()
    }

    /// Bytes of the largest batch that was read from the file at once.
    #[cfg(test)]
    pub(super) fn largest_read(&self) -> usize {
        self.largest_read
    }

    fn advance(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if self.ended {
                return Ok(None);
            }
            match self.open.as_mut().map(|open| open.reader.next()) {
                Some(Some(Ok(batch))) => {
                    self.read(&batch)?;
                    self.adapt(&batch)?;
                }
                Some(Some(Err(error))) if is_overflow(&error) && self.read_fewer()? => {}
                Some(Some(Err(error))) => return Err(unreadable(&self.rows, error)),
                Some(None) => self.open = None,
                None => match (self.next_group..self.group_count).next() {
                    Some(number) => {
                        self.next_group += 1;
                        let estimate = self.groups.estimate(number, &self.rows);
                        let Estimate { rows_at_once, is_guess } = estimate.map_err(|error| unreadable(&self.rows, error))?;
                        self.open_group(number, 0, rows_at_once, is_guess, 0)?;
                    }
                    None => {
                        let read = self.rows.record();
                        if read != self.promised {
                            let broken =
                                self.rows.broken("The Parquet file is damaged: it has other rows than its footer promises");
                            return Err(broken.with_field("promised", self.promised).with_field("read", read));
                        }
                        self.ended = true;
                        return self.rows.take();
                    }
                },
            }
        }
    }

    fn open_group(&mut self, number: usize, read: usize, rows_at_once: usize, is_guess: bool, reopened: u32) -> Result<()> {
        let reader = self.groups.open(number, read, rows_at_once).map_err(|error| unreadable(&self.rows, error))?;
        self.open = Some(OpenGroup { number, reader, rows_at_once, is_guess, read, reopened });
        Ok(())
    }

    /// Reads fewer rows at once when they turn out to be large, and more where their size was not known.
    fn adapt(&mut self, batch: &RecordBatch) -> Result<()> {
        let bytes = batch.get_array_memory_size().max(1);
        self.largest_read = self.largest_read.max(bytes);
        let window = usize::try_from(window_bytes(self.rows.options())).unwrap_or(usize::MAX);
        let most = self.rows.options().batch_rows.min(MOST_GUESSED_ROWS);
        let Some(open) = &mut self.open else { return Ok(()) };
        open.read += batch.num_rows();
        let fitting = (batch.num_rows() as u128 * window as u128 / bytes as u128).clamp(1, most as u128) as usize;
        let is_too_large = bytes > 2 * window && open.rows_at_once > 1;
        let may_grow = open.is_guess && open.reopened < MOST_REOPENED && batch.num_rows() == open.rows_at_once;
        let rows_at_once = match may_grow && fitting / 2 > open.rows_at_once {
            _ if is_too_large => fitting.min(open.rows_at_once / 2).max(1),
            true => (fitting / 2).min(open.rows_at_once * GROWTH),
            false => return Ok(()),
        };
        let (number, read, is_guess, reopened) = (open.number, open.read, open.is_guess, open.reopened + 1);
        self.open_group(number, read, rows_at_once, is_guess, reopened)
    }

    /// Reads fewer rows at once after the offsets of a batch overflowed. Returns `false` if the batch had one row.
    fn read_fewer(&mut self) -> Result<bool> {
        let Some(open) = self.open.as_ref().filter(|open| open.rows_at_once > 1) else { return Ok(false) };
        let (number, read, rows_at_once) = (open.number, open.read, (open.rows_at_once / GROWTH).max(1));
        self.open_group(number, read, rows_at_once, open.is_guess, open.reopened + 1)?;
        Ok(true)
    }

    /// Moves all rows of a batch of the file.
    fn read(&mut self, batch: &RecordBatch) -> Result<()> {
        let values = batch.column_by_name("value").filter(|array| array.as_struct_opt().is_some()).map(AsRef::as_ref);
        let mut record = Record { values, has_values: self.has_values, ..Record::default() };
        for (target, names) in &self.columns {
            let Some(array) = find(batch, names) else {
                return Err(self.rows.broken("A column of the Parquet file is gone").with_field("column", names.join(".")));
            };
            let rows = &mut self.rows;
            match target {
                Target::Ts => record.ts = Some(Source::new(array, None, "", &mut rows.tally)),
                Target::Action => record.action = Some(Source::new(array, None, "", &mut rows.tally)),
                Target::Key(number, way) => {
                    let column = rows.key.columns.get(*number).and_then(|column| column.leaf_column(way));
                    let path = format!("key.{}", rows.key.label(*number));
                    record.key.push((*number, way, Source::new(array, column, &path, &mut rows.tally)));
                }
                Target::Value(number, way) => {
                    let column = rows.value.columns.get(*number).and_then(|column| column.leaf_column(way));
                    let path = format!("value.{}", rows.value.label(*number));
                    record.value.push((*number, way, Source::new(array, column, &path, &mut rows.tally)));
                }
                Target::Ignore => {}
            }
        }
        for index in 0..batch.num_rows() {
            if let Err(fault) = record.read(index, &mut self.rows) {
                let mut raw = Vec::new();
                render::json(&StructArray::from(batch.clone()), index, None, &mut raw);
                let number = self.rows.record();
                self.rows.reject(&fault, number, &raw)?;
            }
            if self.rows.is_full() {
                self.ready.extend(self.rows.take()?);
            }
        }
        Ok(())
    }
}

impl Iterator for ParquetBatches {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = panics::caught(|| self.advance()).unwrap_or_else(|panicked| {
            let rows = &self.rows;
            Err(damaged(panicked).with_field("table", &rows.table().table).with_field("object", &rows.options().object_name))
        });
        if next.is_err() {
            self.ended = true;
            self.ready.clear();
        }
        next.transpose()
    }
}

impl fmt::Debug for ParquetBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParquetBatches").field("table", &self.rows.table().table).field("counts", self.counts()).finish()
    }
}

/// The columns of one batch of the file.
#[derive(Default)]
struct Record<'a> {
    ts: Option<Source<'a>>,
    action: Option<Source<'a>>,
    key: Vec<(usize, &'a [usize], Source<'a>)>,
    /// The group of values, if the file has groups.
    values: Option<&'a dyn Array>,
    has_values: bool,
    value: Vec<(usize, &'a [usize], Source<'a>)>,
}

impl Record<'_> {
    fn read(&self, index: usize, rows: &mut Rows) -> Read<()> {
        let row = rows.begin();
        let op = self.op(index).map_err(|fault| fault.inside("action").inside("meta"))?;
        let (ts, cut) = self.moment(index).map_err(|fault| fault.inside("ts").inside("meta"))?;
        rows.tally.cut_fractions += u64::from(cut);
        for (number, way, source) in &self.key {
            if let Err(fault) = rows.key.columns[*number].put_leaf(way, source, index, row, &mut rows.tally) {
                return Err(fault.inside(rows.key.label(*number)).inside("key"));
            }
        }
        if op == Op::Upsert {
            for (number, way, source) in &self.value {
                if let Err(fault) = rows.value.columns[*number].put_leaf(way, source, index, row, &mut rows.tally) {
                    return Err(fault.inside(rows.value.label(*number)).inside("value"));
                }
            }
        }
        rows.commit(op, ts, self.has_values && self.values.is_none_or(|values| values.is_valid(index)))
    }

    fn op(&self, index: usize) -> Read<Op> {
        match &self.action {
            None => Ok(Op::Upsert),
            Some(source) if source.is_null(index) => Ok(Op::Upsert),
            Some(source) => source.text(index).and_then(Op::from_letter).ok_or_else(|| Fault::new("neither U nor D")),
        }
    }

    fn moment(&self, index: usize) -> Read<(i64, bool)> {
        match &self.ts {
            Some(source) if !source.is_null(index) => source.moment(index).unwrap_or_else(|| Err(Fault::new("not a time"))),
            _ => Err(Fault::new("the commit time is null")),
        }
    }
}

fn find<'b>(batch: &'b RecordBatch, names: &[String]) -> Option<&'b ArrayRef> {
    let (first, rest) = names.split_first()?;
    rest.iter().try_fold(batch.column_by_name(first)?, |array, name| array.as_struct_opt()?.column_by_name(name))
}

/// The columns of a file that the schema asks for.
#[derive(Default)]
struct Wanted {
    columns: Vec<(Target, Vec<String>)>,
    /// Indexes of their leaf columns in the file, and the index of the next one.
    leaves: Vec<usize>,
    next_leaf: usize,
}

impl Wanted {
    fn walk(&mut self, field: &Field, prefix: &str, names: &mut Vec<String>, rows: &mut Rows) {
        let name = format!("{prefix}{}", field.name());
        let target = Target::of(&name, rows);
        names.push(field.name().clone());
        match field.data_type() {
            DataType::Struct(members) if target == Target::Ignore && matches!(name.as_str(), "meta" | "key" | "value") => {
                for member in members {
                    self.walk(member, &format!("{name}."), names, rows);
                }
            }
            kind => {
                let leaves = self.next_leaf..self.next_leaf + leaf_count(kind);
                self.next_leaf = leaves.end;
                if target == Target::Ignore {
                    rows.tally.unknown_column(name);
                } else {
                    self.leaves.extend(leaves);
                    self.columns.push((target, names.clone()));
                }
            }
        }
        names.pop();
    }
}

fn leaf_count(kind: &DataType) -> usize {
    match kind {
        DataType::Struct(members) => members.iter().map(|member| leaf_count(member.data_type())).sum(),
        DataType::List(item) | DataType::Map(item, _) => leaf_count(item.data_type()),
        _ => 1,
    }
}

/// More text than the offsets of one batch can count.
fn is_overflow(error: &ArrowError) -> bool {
    matches!(error, ArrowError::ParquetError(text) if text.contains("index overflow"))
}

/// Types come from the Parquet schema alone: an embedded Arrow schema would only add variants of the same types. INT96 timestamps are
/// read as microseconds, because nanoseconds end in the year 2262.
fn open<R: ChunkReader>(file: &R) -> parquet::errors::Result<ArrowReaderMetadata> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load(file, options.clone())?;
    let mut next_leaf = 0;
    let fields = metadata.schema().fields().iter();
    let hinted: Fields = fields.map(|field| with_micros(field, metadata.parquet_schema(), &mut next_leaf)).collect();
    if hinted == *metadata.schema().fields() {
        return Ok(metadata);
    }
    ArrowReaderMetadata::try_new(metadata.metadata().clone(), options.with_schema(Arc::new(Schema::new(hinted))))
}

fn with_micros(field: &FieldRef, schema: &SchemaDescriptor, next_leaf: &mut usize) -> FieldRef {
    let kind = match field.data_type() {
        DataType::Struct(members) => {
            DataType::Struct(members.iter().map(|member| with_micros(member, schema, next_leaf)).collect())
        }
        DataType::List(item) => DataType::List(with_micros(item, schema, next_leaf)),
        DataType::Map(item, sorted) => DataType::Map(with_micros(item, schema, next_leaf), *sorted),
        kind => {
            let leaf = *next_leaf;
            *next_leaf += 1;
            let int96 = leaf < schema.num_columns() && schema.column(leaf).physical_type() == PhysicalType::INT96;
            if int96 { DataType::Timestamp(TimeUnit::Microsecond, None) } else { kind.clone() }
        }
    };
    Arc::new(field.as_ref().clone().with_data_type(kind))
}

/// The library that reads Parquet panics on some damaged files.
fn damaged(panicked: Panicked) -> Error {
    panicked.into_error(Kind::Data, "The Parquet file cannot be read; it is probably damaged")
}

fn unreadable(rows: &Rows, error: impl Into<BoxError>) -> Error {
    let error: BoxError = error.into();
    let is_io = matches!(error.downcast_ref::<ArrowError>(), Some(ArrowError::IoError(..)));
    let broken = rows.broken("The Parquet file cannot be read");
    let broken = if is_io { broken.with_kind(Kind::Io) } else { broken };
    broken.caused_by(error)
}

/// One file for the readers of all row groups.
struct Shared<R>(Arc<R>);

impl<R> Clone for Shared<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: ChunkReader> Length for Shared<R> {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl<R: ChunkReader> ChunkReader for Shared<R> {
    type T = R::T;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        self.0.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.0.get_bytes(start, length)
    }
}
