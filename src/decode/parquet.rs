//! Parquet results. The physical layout is not documented, so nested groups and dotted names, expanded and condensed objects,
//! any width and unit are taken; what the schema says decides. Row groups are read one by one in bounded batches.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Type as PhysicalType;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::SchemaDescriptor;

use super::column::Source;
use super::fault::{Fault, Read};
use super::render;
use super::rows::Rows;
use super::target::{self, Target};
use super::{DecodeCounts, DecodeOptions};
use crate::error::{BoxError, Error, Kind, Result};
use crate::model::Op;
use crate::schema::TableSchema;

/// Rows that are read at once even from row groups of enormous rows.
const MIN_READ_ROWS: usize = 16;

/// Batches of one Parquet object, read as they are pulled.
///
/// Rows come in the file's order. Values that do not fit the schema are unreadable rows, as in the text formats; their raw form
/// is the row as JSON and their line the row's number. After an error nothing more comes.
pub fn parquet<R: ChunkReader + 'static>(file: R, schema: Arc<TableSchema>, options: DecodeOptions) -> Result<ParquetBatches> {
    let mut rows = Rows::new(schema, options)?;
    let file = Shared(Arc::new(file));
    let metadata = open(&file).map_err(|error| unreadable(&rows, error))?;
    let mut wanted = Wanted::default();
    for field in metadata.schema().fields() {
        wanted.walk(field, "", &mut Vec::new(), &mut rows);
    }
    let targets: Vec<Target> = wanted.columns.iter().map(|(target, _)| target.clone()).collect();
    target::check(&targets, &rows)?;
    let groups = metadata.metadata().row_groups();
    let reads = groups.iter().map(|group| rows_at_once(group, &wanted.leaves, &rows)).collect();
    let leaves = wanted.leaves;
    let open_group = move |group: usize, batch_rows: usize| {
        let mask = ProjectionMask::leaves(metadata.parquet_schema(), leaves.iter().copied());
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), metadata.clone());
        builder.with_projection(mask).with_row_groups(vec![group]).with_batch_size(batch_rows).build()
    };
    Ok(ParquetBatches {
        open_group: Box::new(open_group),
        columns: wanted.columns,
        reads,
        next_group: 0,
        reader: None,
        ready: VecDeque::new(),
        rows,
        ended: false,
    })
}

type OpenGroup = Box<dyn Fn(usize, usize) -> parquet::errors::Result<ParquetRecordBatchReader> + Send>;

/// See [`parquet()`].
pub struct ParquetBatches {
    open_group: OpenGroup,
    /// The columns that are read, with the names that lead to each.
    columns: Vec<(Target, Vec<String>)>,
    /// For each row group that is not open yet how many rows to read at once.
    reads: VecDeque<usize>,
    next_group: usize,
    /// The open row group.
    reader: Option<ParquetRecordBatchReader>,
    ready: VecDeque<RecordBatch>,
    rows: Rows,
    ended: bool,
}

impl ParquetBatches {
    /// What was seen so far, as of the last batch given out.
    pub fn counts(&self) -> &DecodeCounts {
        self.rows.counts()
    }

    fn advance(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if self.ended {
                return Ok(None);
            }
            match self.reader.as_mut().map(Iterator::next) {
                Some(Some(Ok(batch))) => self.read(&batch)?,
                Some(Some(Err(error))) => return Err(unreadable(&self.rows, error)),
                Some(None) => self.reader = None,
                None => match self.reads.pop_front() {
                    Some(batch_rows) => {
                        let group = self.next_group;
                        self.next_group += 1;
                        let reader = (self.open_group)(group, batch_rows);
                        self.reader = Some(reader.map_err(|error| unreadable(&self.rows, error))?);
                    }
                    None => {
                        self.ended = true;
                        return self.rows.take();
                    }
                },
            }
        }
    }

    /// Moves all rows of a batch of the file.
    fn read(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut record = Record::default();
        for (target, names) in &self.columns {
            let Some(array) = find(batch, names) else {
                return Err(self.rows.broken("A column of the Parquet file is gone").with("column", names.join(".")));
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
        let next = self.advance();
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
        rows.commit(op, ts)
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
    /// Numbers of their leaves in the file, and of the next one to be seen.
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

/// Rows to read at once, by the group's own sizes: a row may be many times larger than a batch can bear.
fn rows_at_once(group: &RowGroupMetaData, leaves: &[usize], rows: &Rows) -> usize {
    let bytes: i64 = leaves
        .iter()
        .filter_map(|leaf| group.columns().get(*leaf))
        .map(|column| column.uncompressed_size().max(column.unencoded_byte_array_data_bytes().unwrap_or(0)))
        .sum();
    let per_row = usize::try_from(bytes / group.num_rows().max(1)).unwrap_or(0).max(rows.row_bytes());
    let options = rows.options();
    (options.batch_bytes / per_row).clamp(MIN_READ_ROWS.min(options.batch_rows), options.batch_rows)
}

/// Types come from the Parquet schema alone: an Arrow schema inside the file would only add more forms of the same. Times of the
/// old 96-bit form are read as microseconds, because nanoseconds reach no further than the year 2262.
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

fn unreadable(rows: &Rows, error: impl Into<BoxError>) -> Error {
    let error: BoxError = error.into();
    let is_io = matches!(error.downcast_ref::<ArrowError>(), Some(ArrowError::IoError(..)));
    let broken = rows.broken("The Parquet file cannot be read");
    let broken = if is_io { broken.of_kind(Kind::Io) } else { broken };
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
