//! Mode `changes`: a log of every change that was seen, to which rows are only ever added. Of an increment all changes are added,
//! also several of a key, but each only once: a change that is delivered again, with all its values, is left out. A new snapshot
//! is compared with the log, and only what the log does not have yet is added: rows that are newer, and deletes of keys that are
//! gone.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
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
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::system_columns::Role;
use crate::sink::delta::maintenance::optimize::rows_of;
use crate::sink::delta::merge::key_set::key_columns;
use crate::sink::delta::modes::load::{DeltaLoad, Written};
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::delta::write::schema_cast::{Names, conform};

/// The newest that the log says of a key: twice its time, and one more for a delete.
const STAMP: &str = "stamp";

impl DeltaLoad {
    /// Adds the changes to the log.
    pub(in crate::sink::delta) async fn append(&self, changes: ChangeSet) -> Result<Written> {
        let engine = &self.options.engine;
        let format = self.format(1);
        let mut writer = TableWriter::new(Arc::clone(&format), self.uncommitted.names());
        let mut written = Written { removed: vec![false; self.files().len()], ..Written::default() };
        if !self.plan.is_snapshot {
            self.append_increment(changes, &format, &mut writer, &mut written).await?;
            written.added.extend(writer.finish().await?);
            if self.design.rewrites {
                self.rewrite_all(&format, &mut written).await?;
            }
            return Ok(written);
        }
        let unique = self.unique(&changes)?;
        let keys = self.keys.clone();
        let schema = Arc::clone(&changes.schema);
        let all = combine_streams(changes.schema, changes.streams, engine.partitions());
        let checked = all.map(move |batch| {
            let batch = batch?;
            let check = || match &unique {
                Some(unique) => unique.insert(&key_columns(&batch, &keys)?[0]),
                None => Ok(()),
            };
            check().map_err(|error| datafusion::error::DataFusionError::External(Box::new(error)))?;
            Ok(batch)
        });
        let mut stream: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(schema, checked));
        if !self.files().is_empty() {
            self.catch_up(stream, &format, &mut writer, &mut written).await?;
        } else {
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(engine_error)?;
                let deletes = deletes(&batch)?;
                written.upserted += deletes.false_count() as u64;
                written.deleted += deletes.true_count() as u64;
                let rows = conform(&batch, &format.columns, &format.schema, Names::Logical)?;
                put(&mut writer, &rows, engine.batch_bytes()).await?;
            }
        }
        written.added.extend(writer.finish().await?);
        if self.design.rewrites {
            self.rewrite_all(&format, &mut written).await?;
        }
        Ok(written)
    }

    /// Adds the changes of an increment that the log does not have yet.
    async fn append_increment(
        &self,
        changes: ChangeSet,
        format: &Arc<FileFormat>,
        writer: &mut TableWriter,
        written: &mut Written,
    ) -> Result<()> {
        let engine = &self.options.engine;
        let digests = Arc::new(Digests::new(self.identity(&format.columns), self.place_of(Role::Ts, format)?, format)?);
        let mut fields = digest_fields().to_vec();
        fields.extend(format.schema.fields().iter().map(|field| field.as_ref().clone()));
        let wide: SchemaRef = Arc::new(Schema::new(fields));
        let oldest = Arc::new(AtomicI64::new(i64::MAX));
        let all = combine_streams(changes.schema, changes.streams, engine.partitions());
        let rows = {
            let (target, wide, digests, oldest) =
                (Arc::clone(format), Arc::clone(&wide), Arc::clone(&digests), Arc::clone(&oldest));
            all.map(move |batch| {
                let rows = conform(&batch?, &target.columns, &target.schema, Names::Logical).map_err(external)?;
                oldest.fetch_min(digests.oldest(&rows), Ordering::Relaxed);
                let columns = digests.of(&rows).map_err(external)?.into_iter().chain(rows.columns().iter().cloned());
                Ok(RecordBatch::try_new(Arc::clone(&wide), columns.collect())?)
            })
        };
        let rows: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(wide, rows));
        let known = || self.known_digests(oldest.load(Ordering::Relaxed), format);
        let mut fresh = unseen(engine, rows, known).await?;
        let action = self.place_of(Role::Action, format)?;
        while let Some(batch) = fresh.next().await {
            let batch = batch.map_err(engine_error)?;
            let rows = RecordBatch::try_new(Arc::clone(&format.schema), batch.columns()[DIGEST.len()..].to_vec())
                .context(Kind::Bug, "Changes do not have the schema of their file")?;
            let actions = rows.column(action).as_string::<i32>();
            let deleted = actions.iter().filter(|action| *action == Some("D")).count() as u64;
            written.deleted += deleted;
            written.upserted += rows.num_rows() as u64 - deleted;
            put(writer, &rows, engine.batch_bytes()).await?;
        }
        Ok(())
    }

    /// What makes a change the same as another: key, action, time, and all values that the schema has now.
    fn identity(&self, columns: &[LakeColumn]) -> Vec<LakeColumn> {
        let is_known = |column: &&LakeColumn| {
            Role::of(column).is_some() || self.plan.schema.columns().any(|known| known.name == column.name)
        };
        columns.iter().filter(is_known).cloned().collect()
    }

    /// Digests of the changes in the log that may be as young as `oldest`. As a rule no file has any: an increment begins where
    /// the one before it ended.
    fn known_digests(&self, oldest: i64, format: &Arc<FileFormat>) -> SendableRecordBatchStream {
        let schema: SchemaRef = Arc::new(Schema::new(digest_fields().to_vec()));
        let ts = Role::Ts.find(&format.columns);
        let may_hold = |file: &&Arc<crate::sink::delta::log::table_log::ActiveFile>| {
            ts.and_then(|ts| file.newest(ts)).is_none_or(|newest| newest >= oldest)
        };
        let files: Vec<_> = self.files().iter().filter(may_hold).cloned().collect();
        let columns = self.identity(&format.columns);
        let narrow = Arc::new(FileFormat::new(&self.options, self.log.outbox(&self.options.engine), &columns, &self.keys, 1));
        let digests = ts
            .and_then(|ts| narrow.columns.iter().position(|column| column.name == ts.name))
            .ok_or_else(|| Error::new(Kind::Target, "The table lacks a column of its mode"))
            .and_then(|ts| Digests::new(columns, ts, &narrow));
        let rows = rows_of(&narrow, &files, &self.options.engine);
        let out = Arc::clone(&schema);
        let digested = rows.map(move |batch| {
            let digests = digests.as_ref().map_err(|error| DataFusionError::Execution(error.message().to_owned()))?;
            Ok(RecordBatch::try_new(Arc::clone(&out), digests.of(&batch?).map_err(external)?)?)
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, digested))
    }

    fn place_of(&self, role: Role, format: &FileFormat) -> Result<usize> {
        let place = role.place(&format.columns);
        place.ok_or_else(|| Error::new(Kind::Target, "The table lacks a column of its mode").with_field("column", role.name()))
    }

    /// Adds what a snapshot has and the log has not. Keys that are gone are deletes as of the snapshot, but for logs, of which the
    /// service keeps the last days only.
    async fn catch_up(
        &self,
        snapshot: SendableRecordBatchStream,
        format: &Arc<FileFormat>,
        writer: &mut TableWriter,
        written: &mut Written,
    ) -> Result<()> {
        let engine = &self.options.engine;
        let (action, ts) = (self.place_of(Role::Action, format)?, self.place_of(Role::Ts, format)?);
        let keys: Vec<usize> =
            self.keys.iter().filter_map(|key| format.columns.iter().position(|column| column.name == *key)).collect();
        let fields = format.schema.fields();
        let renamed = |prefix: &'static str, place: usize| {
            fields[place].as_ref().clone().with_name(format!("{prefix}{place}")).with_nullable(true)
        };
        let new_side: SchemaRef = Arc::new(Schema::new((0..fields.len()).map(|place| renamed("n", place)).collect::<Vec<_>>()));
        let mut old_fields: Vec<Field> = keys.iter().map(|place| renamed("o", *place)).collect();
        old_fields.push(Field::new(STAMP, DataType::Int64, false));
        let old_side: SchemaRef = Arc::new(Schema::new(old_fields));

        let (target, side) = (Arc::clone(format), Arc::clone(&new_side));
        let new = snapshot.map(move |batch| {
            let rows = conform(&batch?, &target.columns, &target.schema, Names::Logical).map_err(external)?;
            Ok(RecordBatch::try_new(Arc::clone(&side), rows.columns().to_vec())?)
        });
        let new: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&new_side), new));
        let old = self.stamps(format, &keys, action, ts, &old_side);

        let base = engine.session();
        // One partition is what keeps within the limit, see `Engine`.
        let config = base.copied_config().with_target_partitions(1).with_batch_size(engine.batch_rows(1024));
        let session = SessionContext::new_with_config_rt(config, base.runtime_env());
        let new = session.read_table(streaming_table(new_side, vec![new])?).map_err(engine_error)?;
        let old = session.read_table(streaming_table(old_side, vec![old])?).map_err(engine_error)?;
        let names = |prefix: &str| -> Vec<String> { keys.iter().map(|key| format!("{prefix}{key}")).collect() };
        let column = |name: &str| Expr::Column(Column::new_unqualified(name));
        let (left, right) = (names("n"), names("o"));
        let newest = max(column(STAMP)).alias(STAMP);
        let old = old.aggregate(right.iter().map(|name| column(name)).collect(), vec![newest]).map_err(engine_error)?;
        let left: Vec<&str> = left.iter().map(String::as_str).collect();
        let right: Vec<&str> = right.iter().map(String::as_str).collect();
        let joined = new.join(old, JoinType::Full, &left, &right, None).map_err(engine_error)?;
        let mut joined = joined.execute_stream().await.map_err(engine_error)?;

        let tells_deletes = self.plan.kind == LoadKind::Replace;
        while let Some(batch) = joined.next().await {
            let batch = batch.map_err(engine_error)?;
            let (new, old) = batch.columns().split_at(fields.len());
            let (times, stamps) =
                (new[ts].as_primitive::<TimestampMicrosecondType>(), old[keys.len()].as_primitive::<Int64Type>());
            // A snapshot may be older than the log. Of what happened after it, it knows nothing.
            let is_covered = |row: usize| stamps.value(row) >> 1 <= self.plan.as_of.micros();
            let is_newer = |row: usize| {
                let is_back = || stamps.value(row) & 1 == 1 && is_covered(row);
                times.is_valid(row) && (stamps.is_null(row) || times.value(row) > stamps.value(row) >> 1 || is_back())
            };
            let is_gone = |row: usize| tells_deletes && times.is_null(row) && stamps.value(row) & 1 == 0 && is_covered(row);
            let newer: BooleanArray = (0..batch.num_rows()).map(|row| Some(is_newer(row))).collect();
            let gone: BooleanArray = (0..batch.num_rows()).map(|row| Some(is_gone(row))).collect();
            written.upserted += newer.true_count() as u64;
            written.deleted += gone.true_count() as u64;
            let rows = self.chosen(format, |place| filter(&new[place], &newer))?;
            put(writer, &rows, engine.batch_bytes()).await?;
            let count = gone.true_count();
            let rows = self.chosen(format, |place| {
                Ok(match keys.iter().position(|key| *key == place) {
                    Some(key) => filter(&old[key], &gone)?,
                    None if place == action => Arc::new(StringArray::from(vec!["D"; count])) as ArrayRef,
                    None if place == ts => {
                        Arc::new(TimestampMicrosecondArray::from(vec![self.plan.as_of.micros(); count]).with_timezone("UTC"))
                    }
                    None => new_null_array(fields[place].data_type(), count),
                })
            })?;
            put(writer, &rows, engine.batch_bytes()).await?;
        }
        Ok(())
    }

    /// Key and stamp of every change in the log.
    fn stamps(
        &self,
        format: &Arc<FileFormat>,
        keys: &[usize],
        action: usize,
        ts: usize,
        schema: &SchemaRef,
    ) -> SendableRecordBatchStream {
        let columns: Vec<_> = keys.iter().chain([&action, &ts]).map(|place| format.columns[*place].clone()).collect();
        let narrow = Arc::new(FileFormat::new(&self.options, self.log.outbox(&self.options.engine), &columns, &self.keys, 1));
        let count = keys.len();
        let out = Arc::clone(schema);
        let rows = rows_of(&narrow, self.files(), &self.options.engine).map(move |batch| {
            let batch = batch?;
            let actions = batch.column(count).as_string::<i32>();
            let times = batch.column(count + 1).as_primitive::<TimestampMicrosecondType>();
            let stamps = (0..batch.num_rows()).map(|row| (times.value(row) << 1) | i64::from(actions.value(row) == "D"));
            let stamps: ArrayRef = Arc::new(Int64Array::from_iter_values(stamps));
            let columns = batch.columns()[..count].iter().cloned().chain([stamps]).collect();
            Ok(RecordBatch::try_new(Arc::clone(&out), columns)?)
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), rows))
    }

    fn chosen(
        &self,
        format: &FileFormat,
        column: impl Fn(usize) -> std::result::Result<ArrayRef, arrow::error::ArrowError>,
    ) -> Result<RecordBatch> {
        let columns = (0..format.columns.len()).map(column).collect::<std::result::Result<Vec<_>, _>>();
        let columns = columns.context(Kind::Bug, "Changes cannot be chosen")?;
        RecordBatch::try_new(Arc::clone(&format.schema), columns)
            .context(Kind::Bug, "Changes do not have the schema of their file")
    }
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Digests of changes, by which equal ones are found: 128 bits, so that no two others meet.
struct Digests {
    places: Vec<usize>,
    ts: usize,
    rows: RowConverter,
}

impl Digests {
    /// Over these columns, in the batches of a format.
    fn new(columns: Vec<LakeColumn>, ts: usize, format: &FileFormat) -> Result<Self> {
        let place = |column: &LakeColumn| format.columns.iter().position(|known| known.name == column.name);
        let places: Vec<usize> = columns.iter().filter_map(place).collect();
        let sorts = places.iter().map(|place| SortField::new(format.schema.field(*place).data_type().clone())).collect();
        let rows = RowConverter::new(sorts).context(Kind::Bug, "Changes cannot be compared")?;
        Ok(Self { places, ts, rows })
    }

    fn of(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let columns: Vec<ArrayRef> = self.places.iter().map(|place| Arc::clone(batch.column(*place))).collect();
        let rows = self.rows.convert_columns(&columns).context(Kind::Bug, "Changes cannot be compared")?;
        let digest = |number: u8| -> ArrayRef {
            let hash = |row: arrow::row::Row<'_>| {
                let mut hasher = DefaultHasher::new();
                hasher.write_u8(number);
                hasher.write(row.as_ref());
                hasher.finish() as i64
            };
            Arc::new(Int64Array::from_iter_values(rows.iter().map(hash)))
        };
        Ok(vec![digest(0), digest(1)])
    }

    /// The time of the oldest change of a batch.
    fn oldest(&self, batch: &RecordBatch) -> i64 {
        let times = batch.column(self.ts).as_primitive::<TimestampMicrosecondType>();
        if times.null_count() > 0 { i64::MIN } else { times.values().iter().copied().min().unwrap_or(i64::MAX) }
    }
}

async fn put(writer: &mut TableWriter, rows: &RecordBatch, batch_bytes: usize) -> Result<()> {
    for part in split_batch(rows, batch_bytes.saturating_mul(2), usize::MAX).map_err(engine_error)? {
        writer.write(part).await?;
    }
    Ok(())
}
