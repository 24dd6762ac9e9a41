//! Mode `history`: all versions of all rows (SCD type 2). A change closes the current version of its row and opens another one; rows
//! that do not change are not written.
//!
//! The merge probe finds the current versions whose keys are in the change set (for a snapshot: all current versions). They are
//! read and joined with the changes by a sort that spills. Closed versions go to files of their own, which later loads skip.
//!
//! A change that is older than the current version has no effect. A change without a current version may belong to a row that was
//! deleted later: if it is older than the newest known end of a version, the closed versions of its key are checked.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType, UInt32Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{Column, JoinType};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{DataFrame, SessionContext};
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringBitmap;

use crate::engine::{Engine, SpillBuffer, engine_error, split_batch, streaming_table};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::reduce::{ChangeSet, deletes};
use crate::sink::delta::log::active_file::ActiveFile;
use crate::sink::delta::log::file_actions::FileChanges;
use crate::sink::delta::log::system_columns::SystemColumn;
use crate::sink::delta::merge::key_probe::{LookupOptions, MergeProbe, TrackedMatches};
use crate::sink::delta::merge::probe_buffer::ProbeBuffer;
use crate::sink::delta::merge::snapshot_writer::with_system_columns;
use crate::sink::delta::modes::context::{LoadContext, position_of};
use crate::sink::delta::modes::local_executor::LocalExecutor;
use crate::sink::delta::modes::upsert::replace;
use crate::sink::delta::read::row_reader::RowReader;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::delta::write::schema_cast::{ColumnNames, cast_to_file_schema};
use crate::sink::{LoadKind, WriteError};

/// Whether a change is a delete, in the join.
const DELETE: &str = "nd";
/// Number of the file of an old version, in the join.
const FILE: &str = "of";
/// Position of the old version in its file, in the join.
const ROW: &str = "or";
/// When the last closed version of a key ended, in the join.
const ENDED: &str = "ended";

/// Closes and opens versions according to the change set.
pub(crate) async fn apply(load: &LoadContext, changes: ChangeSet) -> Result<FileChanges, WriteError> {
    if load.files().is_empty() {
        return replace(load, &mut LocalExecutor::new(load, changes)).await;
    }
    let engine = &load.options.engine;
    let format = load.format(2);
    let sides = JoinSides::new(&format, &load.keys, load.plan.schema.value.iter().map(|column| column.name.as_str()))?;
    let mut probe = load.probe(LookupOptions {
        only: SystemColumn::Current.find(&format.columns).cloned(),
        skip_without_nulls: SystemColumn::ValidTo.find(&format.columns).cloned(),
        track: TrackedMatches::All,
    });
    let buffered = buffer_and_probe(load, changes, &format, &sides, &mut probe).await?;

    let found = probe.take_tracked();
    let reader = RowReader::for_format(&format, engine);
    let old = old_versions(&reader, load.files(), &found, &sides.old);
    let mut joined = sides.join(engine, buffered.changes, old, buffered.row_bytes).await?;
    let mut writers = VersionWriters {
        open: load.writer(&format),
        closed: load.writer(&format),
        replaced: vec![RoaringBitmap::new(); load.files().len()],
        deleted: 0,
        as_of: load.plan.as_of.micros(),
        newest_end: newest_end(load, &format),
        late: SpillBuffer::new(engine, Arc::clone(&sides.new)),
    };
    let mut late_keys = ProbeBuffer::new(&load.key_types(), engine)?;
    let mut all_versions = load.probe(LookupOptions { track: TrackedMatches::All, ..LookupOptions::default() });
    while let Some(batch) = joined.next().await {
        if let Some(late) = writers.write(&sides, &batch.map_err(engine_error)?, &format, engine).await? {
            let keys: Vec<ArrayRef> = sides.keys.iter().map(|position| Arc::clone(late.column(*position))).collect();
            let deletes = BooleanArray::from(vec![false; late.num_rows()]);
            late_keys.push(&mut all_versions, &keys, &deletes).await?;
        }
    }
    drop(joined);
    late_keys.finish(&mut all_versions).await?;
    let VersionWriters { mut open, closed, replaced, deleted, late, .. } = writers;
    let ended = all_versions.take_tracked();
    drop(all_versions);
    let ended = old_versions(&reader, load.files(), &ended, &sides.old);
    open_late_versions(load, late.finish().map_err(engine_error)?, ended, &sides, &format, &mut open).await?;
    // The probe has matched versions that stay, too.
    let kept = found.into_iter().zip(replaced).map(|(found, replaced)| found - replaced).collect();
    probe.unmatch(kept);

    let upserted = buffered.upserted;
    let mut written = FileChanges { upserted, deleted, ..FileChanges::keep_all(load.files().len()) };
    let rule = load.deletion_vector_rule();
    load.existing_files(&format).delete_matches(probe, load.design.rewrites, rule, open, &mut written).await?;
    written.added.extend(closed.finish().await?);
    Ok(written)
}

/// The changes of a load, spilled beyond a share of the memory limit.
struct BufferedChanges {
    /// The changes as their side of the join.
    changes: SendableRecordBatchStream,
    upserted: u64,
    /// Average size of a row in bytes.
    row_bytes: usize,
}

/// Buffers the changes and finds the current versions that they can replace.
async fn buffer_and_probe(
    load: &LoadContext,
    changes: ChangeSet,
    format: &FileFormat,
    sides: &JoinSides,
    probe: &mut MergeProbe,
) -> Result<BufferedChanges, WriteError> {
    let engine = &load.options.engine;
    let is_whole = load.plan.kind == LoadKind::Replace;
    let mut keys = ProbeBuffer::new(&load.key_types(), engine)?;
    let mut batches = load.batches(changes)?;
    let mut buffer = SpillBuffer::new(engine, Arc::clone(&sides.new));
    let (mut upserted, mut rows, mut bytes) = (0, 0_usize, 0_usize);
    while let Some(batch) = batches.next().await? {
        if !is_whole {
            keys.push(probe, &batch.keys, &batch.deletes).await?;
        }
        upserted += batch.deletes.false_count() as u64;
        for part in split_batch(&batch.rows, engine.batch_bytes(), usize::MAX).map_err(engine_error)? {
            let part = sides.changes(&part, format)?;
            rows += part.num_rows();
            bytes += part.get_array_memory_size();
            buffer.push(part).map_err(engine_error)?;
        }
    }
    if is_whole {
        probe.match_flagged(&load.system_column(SystemColumn::Current)?).await?;
    } else {
        keys.finish(probe).await?;
    }
    let changes = buffer.finish().map_err(engine_error)?;
    Ok(BufferedChanges { changes, upserted, row_bytes: bytes.div_ceil(rows.max(1)).max(1) })
}

/// Opens versions for late upserts (see [`Decisions`]), unless their keys were deleted later.
async fn open_late_versions(
    load: &LoadContext,
    late: SendableRecordBatchStream,
    ended: SendableRecordBatchStream,
    sides: &JoinSides,
    format: &FileFormat,
    open: &mut TableWriter,
) -> Result<()> {
    let engine = &load.options.engine;
    let Some(late) = not_empty(late).await.map_err(engine_error)? else { return Ok(()) };
    let mut joined = sides.last_ends(engine, late, ended).await?;
    while let Some(batch) = joined.next().await {
        let batch = batch.map_err(engine_error)?;
        let times = batch.column(sides.valid_from).as_primitive::<TimestampMicrosecondType>();
        let ended = batch.column_by_name(ENDED).map(|ended| ended.as_primitive::<TimestampMicrosecondType>());
        let ended = ended.ok_or_else(|| Error::new(Kind::Bug, "Versions cannot be compared"))?;
        let opens: Vec<bool> = (0..batch.num_rows())
            .map(|row| match (ended.is_valid(row), load.plan.is_snapshot) {
                (false, _) => true,
                // The row existed again when the snapshot was taken.
                (true, true) => ended.value(row) <= load.plan.as_of.micros(),
                (true, false) => ended.value(row) <= times.value(row),
            })
            .collect();
        let rows = select_versions(&batch.columns()[..sides.width], &opens, &format.schema, |_| None)?;
        write_parts(open, &rows, engine).await?;
    }
    Ok(())
}

async fn write_parts(writer: &mut TableWriter, rows: &RecordBatch, engine: &Engine) -> Result<()> {
    for part in split_batch(rows, engine.batch_bytes() * 2, usize::MAX).map_err(engine_error)? {
        writer.write(part).await?;
    }
    Ok(())
}

/// An upper bound of the time in microseconds at which any closed version ended, from the statistics of the files.
fn newest_end(load: &LoadContext, format: &FileFormat) -> i64 {
    let Some(column) = SystemColumn::ValidTo.find(&format.columns) else { return i64::MAX };
    let newest = |file: &Arc<ActiveFile>| match file.max_timestamp(column) {
        Some(newest) => newest,
        None if file.null_count(column).is_some_and(|nulls| file.rows == Some(nulls)) => i64::MIN,
        None => i64::MAX,
    };
    load.files().iter().map(newest).max().unwrap_or(i64::MIN)
}

/// Both sides of the join, in the order of the table's columns: changes as `n0`, `n1`, ... and [`DELETE`]; old versions as `o0`,
/// `o1`, ..., [`FILE`] and [`ROW`].
struct JoinSides {
    new: SchemaRef,
    old: SchemaRef,
    /// Number of columns in the file schema.
    width: usize,
    /// Positions of the key columns.
    keys: Vec<usize>,
    valid_from: usize,
    valid_to: usize,
    current: usize,
    /// Positions of the columns by which versions differ.
    compared: Vec<usize>,
    /// Compares these columns.
    rows: RowConverter,
}

impl JoinSides {
    fn new<'n>(format: &FileFormat, keys: &[String], values: impl Iterator<Item = &'n str>) -> Result<Self> {
        let fields = format.schema.fields();
        let side = |prefix: &str, more: Vec<Field>| -> SchemaRef {
            let numbered = fields
                .iter()
                .enumerate()
                .map(|(position, field)| field.as_ref().clone().with_name(format!("{prefix}{position}")));
            Arc::new(Schema::new(numbered.map(|field| field.with_nullable(true)).chain(more).collect::<Vec<_>>()))
        };
        let position = |name: &str| format.columns.iter().position(|column| column.name == name);
        // Columns that the schema no longer has do not make a version.
        let compared: Vec<usize> = values.filter_map(position).collect();
        let sorts = compared.iter().map(|position| SortField::new(fields[*position].data_type().clone())).collect();
        Ok(Self {
            new: side("n", vec![Field::new(DELETE, DataType::Boolean, true)]),
            old: side("o", vec![Field::new(FILE, DataType::UInt32, true), Field::new(ROW, DataType::UInt32, true)]),
            width: fields.len(),
            keys: keys.iter().filter_map(|key| position(key)).collect(),
            valid_from: position_of(SystemColumn::ValidFrom, format)?,
            valid_to: position_of(SystemColumn::ValidTo, format)?,
            current: position_of(SystemColumn::Current, format)?,
            compared,
            rows: RowConverter::new(sorts).context(Kind::Bug, "Versions cannot be compared")?,
        })
    }

    /// A batch of changes as its side of the join.
    fn changes(&self, batch: &RecordBatch, format: &FileFormat) -> Result<RecordBatch> {
        let deletes: ArrayRef = Arc::new(deletes(batch)?);
        let rows = with_system_columns(batch, &format.columns)?;
        let rows = cast_to_file_schema(&rows, &format.columns, &format.schema, ColumnNames::Logical)?;
        let columns = rows.columns().iter().cloned().chain([deletes]).collect();
        RecordBatch::try_new(Arc::clone(&self.new), columns).context(Kind::Bug, "Changes do not match their schema")
    }

    /// A full join of changes and old versions by key. The sort spills.
    async fn join(
        &self,
        engine: &Engine,
        new: SendableRecordBatchStream,
        old: SendableRecordBatchStream,
        row_bytes: usize,
    ) -> Result<SendableRecordBatchStream> {
        let (new, old) = self.tables(engine, new, old, row_bytes)?;
        let (left, right) = (self.key_names("n"), self.key_names("o"));
        let joined = new.join(old, JoinType::Full, &names_of(&left), &names_of(&right), None).map_err(engine_error)?;
        joined.execute_stream().await.map_err(engine_error)
    }

    /// The changes with [`ENDED`], the time at which the last closed version of their key ended.
    async fn last_ends(
        &self,
        engine: &Engine,
        new: SendableRecordBatchStream,
        old: SendableRecordBatchStream,
    ) -> Result<SendableRecordBatchStream> {
        let (new, old) = self.tables(engine, new, old, 1024)?;
        let (left, right) = (self.key_names("n"), self.key_names("o"));
        let column = |name: &str| Expr::Column(Column::new_unqualified(name));
        let ended = max(column(&format!("o{}", self.valid_to))).alias(ENDED);
        let ends = old.aggregate(right.iter().map(|name| column(name)).collect(), vec![ended]).map_err(engine_error)?;
        let joined = new.join(ends, JoinType::Left, &names_of(&left), &names_of(&right), None).map_err(engine_error)?;
        joined.execute_stream().await.map_err(engine_error)
    }

    /// Both sides as tables of one session.
    fn tables(
        &self,
        engine: &Engine,
        new: SendableRecordBatchStream,
        old: SendableRecordBatchStream,
        row_bytes: usize,
    ) -> Result<(DataFrame, DataFrame)> {
        let base = engine.session();
        // With one partition, the sort stays within the memory limit; see `Engine`.
        let config = base.copied_config().with_target_partitions(1).with_batch_size(engine.batch_rows(row_bytes));
        let session = SessionContext::new_with_config_rt(config, base.runtime_env());
        let new = session.read_table(streaming_table(Arc::clone(&self.new), vec![new])?).map_err(engine_error)?;
        let old = session.read_table(streaming_table(Arc::clone(&self.old), vec![old])?).map_err(engine_error)?;
        Ok((new, old))
    }

    fn key_names(&self, prefix: &str) -> Vec<String> {
        self.keys.iter().map(|key| format!("{prefix}{key}")).collect()
    }
}

fn names_of(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// The stream; `None` if it is empty.
async fn not_empty(
    mut rows: SendableRecordBatchStream,
) -> std::result::Result<Option<SendableRecordBatchStream>, DataFusionError> {
    let Some(first) = rows.next().await.transpose()? else { return Ok(None) };
    let schema = rows.schema();
    let all = futures::stream::once(std::future::ready(Ok(first))).chain(rows);
    Ok(Some(Box::pin(RecordBatchStreamAdapter::new(schema, all))))
}

/// The old versions at the positions `found` of each file, as their side of the join.
fn old_versions(
    reader: &RowReader,
    files: &[Arc<ActiveFile>],
    found: &[RoaringBitmap],
    schema: &SchemaRef,
) -> SendableRecordBatchStream {
    let found: Vec<(u32, Arc<ActiveFile>, RoaringBitmap)> = files
        .iter()
        .zip(found)
        .enumerate()
        .filter(|(_, (_, rows))| !rows.is_empty())
        .map(|(number, (file, rows))| (number as u32, Arc::clone(file), rows.clone()))
        .collect();
    let (reader, out) = (reader.clone(), Arc::clone(schema));
    let stream = futures::stream::iter(found).then(move |(number, file, rows)| {
        let (reader, out) = (reader.clone(), Arc::clone(&out));
        async move {
            let read = reader.rows_at(&file.location(), &rows).await?;
            let mut positions = rows.into_iter();
            Ok::<_, DataFusionError>(read.map(move |batch| {
                let batch = batch?;
                let positions: ArrayRef = Arc::new(UInt32Array::from_iter_values(positions.by_ref().take(batch.num_rows())));
                let file: ArrayRef = Arc::new(UInt32Array::from(vec![number; batch.num_rows()]));
                let columns = batch.columns().iter().cloned().chain([file, positions]).collect();
                Ok(RecordBatch::try_new(Arc::clone(&out), columns)?)
            }))
        }
    });
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), stream.try_flatten()))
}

/// Writes the versions that follow from joined rows.
struct VersionWriters {
    open: TableWriter,
    closed: TableWriter,
    /// For each file, the positions of the versions that are replaced.
    replaced: Vec<RoaringBitmap>,
    /// Number of rows that were deleted.
    deleted: u64,
    /// Time of the result in microseconds: the end of versions that a snapshot does not have.
    as_of: i64,
    /// Upper bound of the time at which any closed version ended.
    newest_end: i64,
    /// Late upserts, as their side of the join.
    late: SpillBuffer,
}

/// For each joined row, which versions it opens and closes.
#[derive(Default)]
struct Decisions {
    opens: Vec<bool>,
    /// Start of the version that is opened.
    from: Vec<Option<i64>>,
    closes: Vec<bool>,
    /// End of the version that is closed.
    to: Vec<Option<i64>>,
    /// Whether it is a late upsert: it has no current version and is older than the newest end of a version.
    late: Vec<bool>,
}

impl VersionWriters {
    /// Writes the versions that follow from a joined batch. Returns its late upserts, if there are any.
    async fn write(
        &mut self,
        sides: &JoinSides,
        batch: &RecordBatch,
        format: &FileFormat,
        engine: &Engine,
    ) -> Result<Option<RecordBatch>> {
        let columns = batch.columns();
        let (new, old) = (&columns[..sides.width], &columns[sides.width + 1..][..sides.width]);
        let decisions = self.decide(sides, batch, new, old)?;
        let opened = select_versions(new, &decisions.opens, &format.schema, |position| {
            (position == sides.valid_from).then(|| timestamps(&decisions.from))
        })?;
        let closed = select_versions(old, &decisions.closes, &format.schema, |position| match position {
            _ if position == sides.valid_to => Some(timestamps(&decisions.to)),
            _ if position == sides.current => Some(Arc::new(BooleanArray::from(vec![false; batch.num_rows()])) as ArrayRef),
            _ => None,
        })?;
        write_parts(&mut self.open, &opened, engine).await?;
        write_parts(&mut self.closed, &closed, engine).await?;
        if !decisions.late.contains(&true) {
            return Ok(None);
        }
        let late = select_versions(&columns[..=sides.width], &decisions.late, &sides.new, |_| None)?;
        self.late.push(late.clone()).map_err(engine_error)?;
        Ok(Some(late))
    }

    fn decide(&mut self, sides: &JoinSides, batch: &RecordBatch, new: &[ArrayRef], old: &[ArrayRef]) -> Result<Decisions> {
        let rows = batch.num_rows();
        let deletes = batch.column(sides.width).as_boolean();
        let files = batch.column(2 * sides.width + 1).as_primitive::<UInt32Type>();
        let positions = batch.column(2 * sides.width + 2).as_primitive::<UInt32Type>();
        let (new_from, old_from) = (
            new[sides.valid_from].as_primitive::<TimestampMicrosecondType>(),
            old[sides.valid_from].as_primitive::<TimestampMicrosecondType>(),
        );
        let comparable = |side: &[ArrayRef]| {
            if sides.compared.is_empty() {
                return Ok(None);
            }
            let values: Vec<ArrayRef> = sides.compared.iter().map(|position| Arc::clone(&side[*position])).collect();
            sides.rows.convert_columns(&values).map(Some).context(Kind::Bug, "Versions cannot be compared")
        };
        let (new_rows, old_rows) = (comparable(new)?, comparable(old)?);
        let is_same = |row: usize| match (&new_rows, &old_rows) {
            (Some(new), Some(old)) => new.row(row) == old.row(row),
            _ => true,
        };
        let mut decisions = Decisions::default();
        for row in 0..rows {
            let is_delete = deletes.is_valid(row).then(|| deletes.value(row));
            let since = files.is_valid(row).then(|| old_from.value(row));
            let at = is_delete.map(|_| new_from.value(row));
            let is_late = is_delete == Some(false) && since.is_none() && at < Some(self.newest_end);
            let (opens, closes) = match (is_delete, since) {
                (Some(false), None) => (at.filter(|_| !is_late), None),
                (Some(_), Some(since)) if at < Some(since) => (None, None),
                (Some(false), Some(_)) if is_same(row) => (None, None),
                (Some(false), Some(since)) => match at {
                    Some(at) if at > since => (Some(at), Some(at)),
                    // The same version with other values: the version is corrected.
                    _ => (Some(since), None),
                },
                (Some(true), Some(_)) => (None, at),
                // The snapshot does not have the row, and the version is not newer than the snapshot.
                (None, Some(since)) if since <= self.as_of => (None, Some(self.as_of)),
                _ => (None, None),
            };
            self.deleted += u64::from(opens.is_none() && closes.is_some());
            if opens.is_some() && since.is_some() || closes.is_some() {
                self.replaced[files.value(row) as usize].insert(positions.value(row));
            }
            decisions.opens.push(opens.is_some());
            decisions.from.push(opens);
            decisions.closes.push(closes.is_some());
            decisions.to.push(closes);
            decisions.late.push(is_late);
        }
        Ok(decisions)
    }
}

fn timestamps(micros: &[Option<i64>]) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter(micros.iter().copied()).with_timezone("UTC"))
}

/// The selected rows of one side of the join. `other` returns the values of columns that change.
fn select_versions(
    side: &[ArrayRef],
    selected: &[bool],
    schema: &SchemaRef,
    other: impl Fn(usize) -> Option<ArrayRef>,
) -> Result<RecordBatch> {
    let selected = BooleanArray::from(selected.to_vec());
    let columns = side.iter().enumerate().map(|(position, array)| match other(position) {
        Some(array) => filter(&array, &selected),
        None => filter(array, &selected),
    });
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>().context(Kind::Bug, "Versions cannot be selected")?;
    let options = RecordBatchOptions::new().with_row_count(Some(selected.true_count()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .context(Kind::Bug, "Versions do not match the schema of their file")
}
