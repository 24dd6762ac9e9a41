//! Mode `changes`: an append-only log of all changes.
//!
//! All changes of an increment are appended, also several of one key. A change that is in the log already, with the same values, is
//! not appended again. A new snapshot is compared with the log, and only the difference is appended: rows that are newer, and deletes
//! of keys that no longer exist.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use datafusion::common::{Column, JoinType};
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use futures::StreamExt;

use crate::engine::{combine_streams, engine_error, split_batch, streaming_table};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::reduce::{ChangeSet, DIGEST, deletes, digest_fields, unseen};
use crate::sink::LoadKind;
use crate::sink::WriteError;
use crate::sink::delta::log::active_file::ActiveFile;
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::file_actions::FileChanges;
use crate::sink::delta::log::system_columns::SystemColumn;
use crate::sink::delta::merge::key_probe::LookupOptions;
use crate::sink::delta::merge::key_set::key_columns;
use crate::sink::delta::merge::unique_keys::UniqueKeyCheck;
use crate::sink::delta::modes::context::{LoadContext, position_of};
use crate::sink::delta::read::row_reader::RowReader;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::delta::write::schema_cast::{ColumnNames, cast_to_file_schema};

/// The newest change of a key in the log: twice its time in microseconds, plus one for a delete.
const STAMP: &str = "stamp";

/// Appends a change set to the log.
pub(crate) async fn append(load: &LoadContext, changes: ChangeSet) -> Result<FileChanges, WriteError> {
    let unique = if load.plan.is_snapshot { load.unique_keys(&changes)? } else { None };
    let written = append_changes(load, changes, unique.clone()).await;
    match unique {
        Some(unique) if unique.has_duplicate() => Err(WriteError::DuplicateKey),
        _ => Ok(written?),
    }
}

async fn append_changes(load: &LoadContext, changes: ChangeSet, unique: Option<UniqueKeyCheck>) -> Result<FileChanges> {
    let engine = &load.options.engine;
    let format = load.format(1);
    let mut appender = Appender {
        writer: load.writer(&format),
        batch_bytes: engine.batch_bytes(),
        written: FileChanges::keep_all(load.files().len()),
    };
    if !load.plan.is_snapshot {
        append_increment(load, changes, &format, &mut appender).await?;
    } else {
        let rows = checked_stream(load, changes, unique);
        if load.files().is_empty() {
            append_all(rows, &format, &mut appender).await?;
        } else {
            append_difference(load, rows, &format, &mut appender).await?;
        }
    }
    let Appender { writer, mut written, .. } = appender;
    written.added.extend(writer.finish().await?);
    if load.design.rewrites {
        let all = load.probe(LookupOptions::default());
        load.existing_files(&format).delete_matches(all, true, None, load.writer(&format), &mut written).await?;
    }
    Ok(written)
}

/// Writes rows of the file schema and counts them.
struct Appender {
    writer: TableWriter,
    batch_bytes: usize,
    written: FileChanges,
}

impl Appender {
    async fn write(&mut self, rows: &RecordBatch, upserted: u64, deleted: u64) -> Result<()> {
        self.written.upserted += upserted;
        self.written.deleted += deleted;
        for part in split_batch(rows, self.batch_bytes.saturating_mul(2), usize::MAX).map_err(engine_error)? {
            self.writer.write(part).await?;
        }
        Ok(())
    }
}

/// The changes of a snapshot as one stream, which fails on a repeated key unless the change set was deduplicated.
fn checked_stream(load: &LoadContext, changes: ChangeSet, unique: Option<UniqueKeyCheck>) -> SendableRecordBatchStream {
    let (keys, schema) = (load.keys.clone(), Arc::clone(&changes.schema));
    let all = combine_streams(changes.schema, changes.streams, load.options.engine.partitions());
    let checked = all.map(move |batch| {
        let batch = batch?;
        if let Some(unique) = &unique {
            let keys = key_columns(&batch, &keys)?;
            unique.insert(&keys[0]).map_err(WriteError::into_error)?;
        }
        Ok(batch)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, checked))
}

/// Appends all changes of a first load.
async fn append_all(mut changes: SendableRecordBatchStream, format: &FileFormat, appender: &mut Appender) -> Result<()> {
    while let Some(batch) = changes.next().await {
        let batch = batch.map_err(engine_error)?;
        let deletes = deletes(&batch)?;
        let rows = cast_to_file_schema(&batch, &format.columns, &format.schema, ColumnNames::Logical)?;
        appender.write(&rows, deletes.false_count() as u64, deletes.true_count() as u64).await?;
    }
    Ok(())
}

/// Appends the changes of an increment that the log does not have.
async fn append_increment(
    load: &LoadContext,
    changes: ChangeSet,
    format: &Arc<FileFormat>,
    appender: &mut Appender,
) -> Result<()> {
    let engine = &load.options.engine;
    let identity = identity(load, &format.columns);
    let digests = Arc::new(ChangeDigests::new(&identity, &format.columns, &format.schema)?);
    let mut fields = digest_fields().to_vec();
    fields.extend(format.schema.fields().iter().map(|field| field.as_ref().clone()));
    let with_digests: SchemaRef = Arc::new(Schema::new(fields));
    let oldest = Arc::new(AtomicI64::new(i64::MAX));
    let all = combine_streams(changes.schema, changes.streams, engine.partitions());
    let rows = {
        let (format, schema, digests, oldest) =
            (Arc::clone(format), Arc::clone(&with_digests), Arc::clone(&digests), Arc::clone(&oldest));
        all.map(move |batch| {
            let rows = cast_to_file_schema(&batch?, &format.columns, &format.schema, ColumnNames::Logical)
                .map_err(DataFusionError::from)?;
            oldest.fetch_min(digests.oldest(&rows), Ordering::Relaxed);
            let columns = digests.of(&rows).map_err(DataFusionError::from)?.into_iter().chain(rows.columns().iter().cloned());
            Ok(RecordBatch::try_new(Arc::clone(&schema), columns.collect())?)
        })
    };
    let rows: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(with_digests, rows));
    let reader = RowReader::new(load.log.store(), &identity, &load.keys, engine);
    let in_log = Arc::new(ChangeDigests::new(&identity, reader.columns(), reader.schema())?);
    let known = || known_digests(load, oldest.load(Ordering::Relaxed), &reader, &in_log);
    let mut fresh = unseen(engine, rows, known).await?;
    let action = position_of(SystemColumn::Action, format)?;
    while let Some(batch) = fresh.next().await {
        let batch = batch.map_err(engine_error)?;
        let rows = RecordBatch::try_new(Arc::clone(&format.schema), batch.columns()[DIGEST.len()..].to_vec())
            .context(Kind::Bug, "Changes do not match the schema of their file")?;
        let actions = rows.column(action).as_string::<i32>();
        let deleted = actions.iter().filter(|action| *action == Some("D")).count() as u64;
        appender.write(&rows, rows.num_rows() as u64 - deleted, deleted).await?;
    }
    Ok(())
}

/// The columns that identify a change: key, action, time and all values that the schema has now.
fn identity(load: &LoadContext, columns: &[LakeColumn]) -> Vec<LakeColumn> {
    let is_known = |column: &&LakeColumn| {
        SystemColumn::of(column).is_some() || load.plan.schema.columns().any(|known| known.name == column.name)
    };
    columns.iter().filter(is_known).cloned().collect()
}

/// Digests of the changes in the log that can be as new as `oldest`. Usually no file has any, because an increment begins where the
/// one before it ended.
fn known_digests(
    load: &LoadContext,
    oldest: i64,
    reader: &RowReader,
    digests: &Arc<ChangeDigests>,
) -> SendableRecordBatchStream {
    let ts = SystemColumn::Ts.find(reader.columns());
    let can_have = |file: &&Arc<ActiveFile>| ts.and_then(|ts| file.max_timestamp(ts)).is_none_or(|newest| newest >= oldest);
    let files: Vec<_> = load.files().iter().filter(can_have).cloned().collect();
    let schema: SchemaRef = Arc::new(Schema::new(digest_fields().to_vec()));
    let (out, digests) = (Arc::clone(&schema), Arc::clone(digests));
    let known = reader
        .live_rows_of(&files)
        .map(move |batch| Ok(RecordBatch::try_new(Arc::clone(&out), digests.of(&batch?).map_err(DataFusionError::from)?)?));
    Box::pin(RecordBatchStreamAdapter::new(schema, known))
}

/// Appends the rows of a snapshot that the log does not have. Keys that the snapshot lacks are deletes as of its time, except in
/// logs, of which the service keeps only the last days.
async fn append_difference(
    load: &LoadContext,
    snapshot: SendableRecordBatchStream,
    format: &Arc<FileFormat>,
    appender: &mut Appender,
) -> Result<()> {
    let comparison = SnapshotComparison::new(load, format)?;
    let mut joined = comparison.join(snapshot).await?;
    while let Some(batch) = joined.next().await {
        let batch = batch.map_err(engine_error)?;
        let (rows, count) = comparison.newer_rows(&batch)?;
        appender.write(&rows, count, 0).await?;
        let (rows, count) = comparison.deletes(&batch)?;
        appender.write(&rows, 0, count).await?;
    }
    Ok(())
}

/// The comparison of a snapshot with the log, by key. Columns of the snapshot are `n0`, `n1`, ..., in the order of the file schema;
/// keys of the log are `o` with the same positions, and [`STAMP`].
struct SnapshotComparison<'a> {
    load: &'a LoadContext,
    format: &'a Arc<FileFormat>,
    /// Positions of the key columns.
    keys: Vec<usize>,
    action: usize,
    ts: usize,
    snapshot_side: SchemaRef,
    log_side: SchemaRef,
}

impl<'a> SnapshotComparison<'a> {
    fn new(load: &'a LoadContext, format: &'a Arc<FileFormat>) -> Result<Self> {
        let keys: Vec<usize> =
            load.keys.iter().filter_map(|key| format.columns.iter().position(|column| column.name == *key)).collect();
        let fields = format.schema.fields();
        let renamed = |prefix: &'static str, position: usize| {
            fields[position].as_ref().clone().with_name(format!("{prefix}{position}")).with_nullable(true)
        };
        let all: Vec<Field> = (0..fields.len()).map(|position| renamed("n", position)).collect();
        let mut of_log: Vec<Field> = keys.iter().map(|position| renamed("o", *position)).collect();
        of_log.push(Field::new(STAMP, DataType::Int64, false));
        Ok(Self {
            load,
            format,
            action: position_of(SystemColumn::Action, format)?,
            ts: position_of(SystemColumn::Ts, format)?,
            keys,
            snapshot_side: Arc::new(Schema::new(all)),
            log_side: Arc::new(Schema::new(of_log)),
        })
    }

    /// A full join by key of the snapshot and the newest change of each key in the log. The sort spills.
    async fn join(&self, snapshot: SendableRecordBatchStream) -> Result<SendableRecordBatchStream> {
        let (format, side) = (Arc::clone(self.format), Arc::clone(&self.snapshot_side));
        let new = snapshot.map(move |batch| {
            let rows = cast_to_file_schema(&batch?, &format.columns, &format.schema, ColumnNames::Logical)
                .map_err(DataFusionError::from)?;
            Ok(RecordBatch::try_new(Arc::clone(&side), rows.columns().to_vec())?)
        });
        let new = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.snapshot_side), new));
        let engine = &self.load.options.engine;
        let base = engine.session();
        // With one partition, the sort stays within the memory limit; see `Engine`.
        let config = base.copied_config().with_target_partitions(1).with_batch_size(engine.batch_rows(1024));
        let session = SessionContext::new_with_config_rt(config, base.runtime_env());
        let new = session.read_table(streaming_table(Arc::clone(&self.snapshot_side), vec![new])?).map_err(engine_error)?;
        let old = streaming_table(Arc::clone(&self.log_side), vec![self.stamps()])?;
        let old = session.read_table(old).map_err(engine_error)?;
        let names = |prefix: &str| -> Vec<String> { self.keys.iter().map(|key| format!("{prefix}{key}")).collect() };
        let column = |name: &str| Expr::Column(Column::new_unqualified(name));
        let (left, right) = (names("n"), names("o"));
        let newest = max(column(STAMP)).alias(STAMP);
        let old = old.aggregate(right.iter().map(|name| column(name)).collect(), vec![newest]).map_err(engine_error)?;
        let left: Vec<&str> = left.iter().map(String::as_str).collect();
        let right: Vec<&str> = right.iter().map(String::as_str).collect();
        let joined = new.join(old, JoinType::Full, &left, &right, None).map_err(engine_error)?;
        joined.execute_stream().await.map_err(engine_error)
    }

    /// Key and timestamp of every change in the log.
    fn stamps(&self) -> SendableRecordBatchStream {
        let positions = self.keys.iter().chain([&self.action, &self.ts]);
        let columns: Vec<_> = positions.map(|position| self.format.columns[*position].clone()).collect();
        let reader = RowReader::new(self.load.log.store(), &columns, &self.load.keys, &self.load.options.engine);
        let (count, out) = (self.keys.len(), Arc::clone(&self.log_side));
        let rows = reader.live_rows_of(self.load.files()).map(move |batch| {
            let batch = batch?;
            let actions = batch.column(count).as_string::<i32>();
            let times = batch.column(count + 1).as_primitive::<TimestampMicrosecondType>();
            let stamps = (0..batch.num_rows()).map(|row| (times.value(row) << 1) | i64::from(actions.value(row) == "D"));
            let stamps: ArrayRef = Arc::new(Int64Array::from_iter_values(stamps));
            let columns = batch.columns()[..count].iter().cloned().chain([stamps]).collect();
            Ok(RecordBatch::try_new(Arc::clone(&out), columns)?)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.log_side), rows))
    }

    /// The columns of the snapshot and those of the log in a joined batch.
    fn sides<'b>(&self, batch: &'b RecordBatch) -> (&'b [ArrayRef], &'b [ArrayRef]) {
        batch.columns().split_at(self.format.schema.fields().len())
    }

    /// Whether the time of a stamp is not after the snapshot: a snapshot may be older than the log, and says nothing about later
    /// changes.
    fn is_covered(&self, stamp: i64) -> bool {
        stamp >> 1 <= self.load.plan.as_of.micros()
    }

    /// The rows of the snapshot that are newer than the log, or whose key the log has as deleted; and their number.
    fn newer_rows(&self, batch: &RecordBatch) -> Result<(RecordBatch, u64)> {
        let (new, old) = self.sides(batch);
        let times = new[self.ts].as_primitive::<TimestampMicrosecondType>();
        let stamps = old[self.keys.len()].as_primitive::<Int64Type>();
        let is_newer = |row: usize| {
            let exists_again = || stamps.value(row) & 1 == 1 && self.is_covered(stamps.value(row));
            times.is_valid(row) && (stamps.is_null(row) || times.value(row) > stamps.value(row) >> 1 || exists_again())
        };
        let newer: BooleanArray = (0..batch.num_rows()).map(|row| Some(is_newer(row))).collect();
        Ok((self.batch(|position| filter(&new[position], &newer))?, newer.true_count() as u64))
    }

    /// Deletes for the keys that the log has and the snapshot lacks; and their number.
    fn deletes(&self, batch: &RecordBatch) -> Result<(RecordBatch, u64)> {
        let (new, old) = self.sides(batch);
        let times = new[self.ts].as_primitive::<TimestampMicrosecondType>();
        let stamps = old[self.keys.len()].as_primitive::<Int64Type>();
        let is_complete = self.load.plan.kind == LoadKind::Replace;
        let is_missing =
            |row: usize| is_complete && times.is_null(row) && stamps.value(row) & 1 == 0 && self.is_covered(stamps.value(row));
        let missing: BooleanArray = (0..batch.num_rows()).map(|row| Some(is_missing(row))).collect();
        let count = missing.true_count();
        let fields = self.format.schema.fields();
        let rows = self.batch(|position| {
            Ok(match self.keys.iter().position(|key| *key == position) {
                Some(key) => filter(&old[key], &missing)?,
                None if position == self.action => Arc::new(StringArray::from(vec!["D"; count])) as ArrayRef,
                None if position == self.ts => {
                    let as_of = vec![self.load.plan.as_of.micros(); count];
                    Arc::new(TimestampMicrosecondArray::from(as_of).with_timezone("UTC"))
                }
                None => new_null_array(fields[position].data_type(), count),
            })
        })?;
        Ok((rows, count as u64))
    }

    /// A batch of the file schema from the columns that `column` returns for each position.
    fn batch(&self, column: impl Fn(usize) -> Result<ArrayRef, ArrowError>) -> Result<RecordBatch> {
        let columns = (0..self.format.columns.len()).map(column).collect::<Result<Vec<_>, _>>();
        let columns = columns.context(Kind::Bug, "Changes cannot be selected")?;
        RecordBatch::try_new(Arc::clone(&self.format.schema), columns)
            .context(Kind::Bug, "Changes do not match the schema of their file")
    }
}

/// Computes digests of 128 bits by which equal changes are found.
struct ChangeDigests {
    /// Positions of the columns that identify a change.
    positions: Vec<usize>,
    ts: usize,
    rows: RowConverter,
}

impl ChangeDigests {
    /// Digests over the columns `identity` of batches with the columns `columns` and the schema `schema`.
    fn new(identity: &[LakeColumn], columns: &[LakeColumn], schema: &SchemaRef) -> Result<Self> {
        let position = |column: &LakeColumn| columns.iter().position(|known| known.name == column.name);
        let positions: Vec<usize> = identity.iter().filter_map(position).collect();
        let sorts = positions.iter().map(|position| SortField::new(schema.field(*position).data_type().clone())).collect();
        let rows = RowConverter::new(sorts).context(Kind::Bug, "Changes cannot be compared")?;
        let ts = SystemColumn::Ts.position(columns).ok_or_else(|| {
            let missing = Error::new(Kind::Target, "The table lacks a column that its mode requires");
            missing.with_field("column", SystemColumn::Ts.name())
        })?;
        Ok(Self { positions, ts, rows })
    }

    fn of(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let columns: Vec<ArrayRef> = self.positions.iter().map(|position| Arc::clone(batch.column(*position))).collect();
        let rows = self.rows.convert_columns(&columns).context(Kind::Bug, "Changes cannot be compared")?;
        let digest = |seed: u8| -> ArrayRef {
            let hash = |row: arrow::row::Row<'_>| {
                let mut hasher = DefaultHasher::new();
                hasher.write_u8(seed);
                hasher.write(row.as_ref());
                hasher.finish() as i64
            };
            Arc::new(Int64Array::from_iter_values(rows.iter().map(hash)))
        };
        Ok(vec![digest(0), digest(1)])
    }

    /// The time of the oldest change of a batch in microseconds; `i64::MIN` if a change has no time.
    fn oldest(&self, batch: &RecordBatch) -> i64 {
        let times = batch.column(self.ts).as_primitive::<TimestampMicrosecondType>();
        if times.null_count() > 0 { i64::MIN } else { times.values().iter().copied().min().unwrap_or(i64::MAX) }
    }
}
