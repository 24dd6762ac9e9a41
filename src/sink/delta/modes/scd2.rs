//! Mode `history`: every version of every row. A change closes the version that was the row and opens another; rows that did not
//! change are left alone.
//!
//! Open versions whose keys are in the change set are found by the probe (of a snapshot: all that are open), read back, and
//! joined with the changes by a sort that spills. Closed versions go to files of their own, which later loads pass over.
//!
//! A change that is older than the version that is open is history already and changes nothing. One without an open version may
//! be of a row that was deleted since: if it is older than what the table knows, the closed versions of its key are looked at.

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

use crate::engine::{Engine, SpillBuffer, combine_streams, engine_error, split_batch, streaming_table};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::reduce::{ChangeSet, deletes};
use crate::sink::LoadKind;
use crate::sink::delta::log::system_columns::Role;
use crate::sink::delta::log::table_log::ActiveFile;
use crate::sink::delta::merge::key_probe::{Look, Note, Probe, rows_at};
use crate::sink::delta::merge::key_search::KeySearch;
use crate::sink::delta::merge::key_set::key_columns;
use crate::sink::delta::merge::snapshot_writer::with_roles;
use crate::sink::delta::modes::load::{DeltaLoad, Written};
use crate::sink::delta::write::deletion_vectors::VectorFile;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::delta::write::schema_cast::{Names, conform};

/// Whether a change is a delete, in the join.
const DELETE: &str = "nd";
/// Number of the file of an old version, in the join.
const FILE: &str = "of";
/// Number of its row there.
const ROW: &str = "or";
/// When the last closed version of a key ended, in the join.
const ENDED: &str = "ended";

impl DeltaLoad {
    /// Closes and opens versions as the changes say.
    pub(in crate::sink::delta) async fn versions(&self, changes: ChangeSet) -> Result<Written> {
        if self.files().is_empty() {
            return self.replace(changes).await;
        }
        let engine = &self.options.engine;
        let format = self.format(2);
        let sides = Sides::new(&format, &self.keys, self.plan.schema.value.iter().map(|column| column.name.as_str()))?;
        let is_whole = self.plan.kind == LoadKind::Replace;
        let look = Look {
            only: Role::Current.find(&format.columns).cloned(),
            unless_full: Role::ValidTo.find(&format.columns).cloned(),
            note: Note::All,
        };
        let mut probe = Probe::new(self.log.store(), self.files(), self.key_columns(), look, engine);
        let mut search = KeySearch::new(&self.key_types(), engine)?;
        let unique = self.unique(&changes)?;
        let mut parked = SpillBuffer::new(engine, Arc::clone(&sides.new));
        let (mut upserted, mut rows, mut bytes) = (0, 0, 0);

        let mut stream = combine_streams(changes.schema, changes.streams, engine.partitions());
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(engine_error)?;
            let columns = key_columns(&batch, &self.keys)?;
            if let Some(unique) = &unique {
                unique.insert(&columns[0])?;
            }
            let deletes = deletes(&batch)?;
            if !is_whole {
                search.push(&mut probe, &columns, &deletes).await?;
            }
            upserted += deletes.false_count() as u64;
            for part in split_batch(&batch, engine.batch_bytes(), usize::MAX).map_err(engine_error)? {
                let part = sides.changes(&part, &format)?;
                rows += part.num_rows();
                bytes += part.get_array_memory_size();
                parked.push(part).map_err(engine_error)?;
            }
        }
        match is_whole {
            true => probe.sweep(&self.role_column(Role::Current)?).await?,
            false => _ = search.finish(&mut probe).await?,
        }

        let noted = probe.take_noted();
        let old = old_versions(&format, self.files(), &noted, &sides.old, engine);
        let new = parked.finish().map_err(engine_error)?;
        let row_bytes = bytes.div_ceil(rows.max(1)).max(1);
        let mut joined = sides.join(engine, new, old, row_bytes).await?;
        let mut writers = Writers {
            open: TableWriter::new(Arc::clone(&format), self.uncommitted.names()),
            closed: TableWriter::new(Arc::clone(&format), self.uncommitted.names()),
            going: vec![RoaringBitmap::new(); self.files().len()],
            deleted: 0,
            until: self.plan.as_of.micros(),
            known_until: self.known_until(&format),
            late: SpillBuffer::new(engine, Arc::clone(&sides.new)),
        };
        let mut late_keys = KeySearch::new(&self.key_types(), engine)?;
        let mut all_versions =
            Probe::new(self.log.store(), self.files(), self.key_columns(), Look { note: Note::All, ..Look::default() }, engine);
        while let Some(batch) = joined.next().await {
            if let Some(late) = writers.take(&sides, &batch.map_err(engine_error)?, &format, engine).await? {
                let keys: Vec<ArrayRef> = sides.keys.iter().map(|place| Arc::clone(late.column(*place))).collect();
                let deletes = BooleanArray::from(vec![false; late.num_rows()]);
                late_keys.push(&mut all_versions, &keys, &deletes).await?;
            }
        }
        drop(joined);
        late_keys.finish(&mut all_versions).await?;
        let Writers { mut open, closed, going, deleted, late, .. } = writers;
        let ended = all_versions.take_noted();
        drop(all_versions);
        let ended = old_versions(&format, self.files(), &ended, &sides.old, engine);
        self.open_late(late.finish().map_err(engine_error)?, ended, &sides, &format, &mut open).await?;
        // Versions that stay as they are were found, too.
        let kept = noted.into_iter().zip(going).map(|(noted, going)| noted - going).collect();
        probe.put_back(kept);

        let mut written = Written { removed: vec![false; self.files().len()], upserted, deleted, ..Written::default() };
        let mut vectors = VectorFile::new();
        let fates = probe.into_fates(self.design.rewrites, self.mark_rule()).await?;
        self.apply_fates(fates, &format, &mut open, &mut vectors, &mut written).await?;
        written.added.extend(open.finish().await?);
        written.added.extend(closed.finish().await?);
        written.vector_bytes = vectors.finish(&format.store, &self.uncommitted.names()).await?;
        Ok(written)
    }

    /// Opens versions for rows that have none open and are older than what the table knows, unless their keys were deleted later.
    async fn open_late(
        &self,
        late: SendableRecordBatchStream,
        ended: SendableRecordBatchStream,
        sides: &Sides,
        format: &FileFormat,
        open: &mut TableWriter,
    ) -> Result<()> {
        let engine = &self.options.engine;
        let Some(late) = not_empty(late).await.map_err(engine_error)? else { return Ok(()) };
        let mut joined = sides.last_ends(engine, late, ended).await?;
        while let Some(batch) = joined.next().await {
            let batch = batch.map_err(engine_error)?;
            let times = batch.column(sides.valid_from).as_primitive::<TimestampMicrosecondType>();
            let ended = batch.column_by_name(ENDED).map(|ended| ended.as_primitive::<TimestampMicrosecondType>());
            let ended = ended.ok_or_else(|| Error::new(Kind::Bug, "Versions cannot be compared"))?;
            let opens: Vec<bool> = (0..batch.num_rows())
                .map(|row| match (ended.is_valid(row), self.plan.is_snapshot) {
                    (false, _) => true,
                    // The row was there again when the snapshot was taken.
                    (true, true) => ended.value(row) <= self.plan.as_of.micros(),
                    (true, false) => ended.value(row) <= times.value(row),
                })
                .collect();
            let rows = versions_of(&batch.columns()[..sides.width], &opens, &format.schema, |_| None)?;
            for part in split_batch(&rows, engine.batch_bytes() * 2, usize::MAX).map_err(engine_error)? {
                open.write(part).await?;
            }
        }
        Ok(())
    }

    /// Up to when the table knows of versions that ended, as far as statistics tell.
    fn known_until(&self, format: &FileFormat) -> i64 {
        let Some(column) = Role::ValidTo.find(&format.columns) else { return i64::MAX };
        let ends = |file: &Arc<ActiveFile>| match file.newest(column) {
            Some(newest) => newest,
            None if file.null_count(column).is_some_and(|nulls| file.rows == Some(nulls)) => i64::MIN,
            None => i64::MAX,
        };
        self.files().iter().map(ends).max().unwrap_or(i64::MIN)
    }

    fn role_column(&self, role: Role) -> Result<crate::sink::delta::log::columns::LakeColumn> {
        let column = role.find(&self.design.columns).cloned();
        column.ok_or_else(|| Error::new(Kind::Target, "The table lacks a column of its mode").with_field("column", role.name()))
    }
}

/// Both sides of the join: changes as `n0`, `n1`, ... and [`DELETE`], old versions as `o0`, `o1`, ..., [`FILE`] and [`ROW`], in the
/// order of the table's columns.
struct Sides {
    new: SchemaRef,
    old: SchemaRef,
    width: usize,
    keys: Vec<usize>,
    valid_from: usize,
    valid_to: usize,
    current: usize,
    /// Columns by which versions differ, and what compares them.
    compared: Vec<usize>,
    rows: RowConverter,
}

impl Sides {
    fn new<'n>(format: &FileFormat, keys: &[String], values: impl Iterator<Item = &'n str>) -> Result<Self> {
        let fields = format.schema.fields();
        let side = |prefix: &str, more: Vec<Field>| -> SchemaRef {
            let ours =
                fields.iter().enumerate().map(|(place, field)| field.as_ref().clone().with_name(format!("{prefix}{place}")));
            Arc::new(Schema::new(ours.map(|field| field.with_nullable(true)).chain(more).collect::<Vec<_>>()))
        };
        let place = |name: &str| format.columns.iter().position(|column| column.name == name);
        let role = |role: Role| {
            let place = role.place(&format.columns);
            place.ok_or_else(|| {
                Error::new(Kind::Target, "The table lacks a column of its mode").with_field("column", role.name())
            })
        };
        // What the schema no longer has says nothing of a change.
        let compared: Vec<usize> = values.filter_map(place).collect();
        let sorts = compared.iter().map(|place| SortField::new(fields[*place].data_type().clone())).collect();
        Ok(Self {
            new: side("n", vec![Field::new(DELETE, DataType::Boolean, true)]),
            old: side("o", vec![Field::new(FILE, DataType::UInt32, true), Field::new(ROW, DataType::UInt32, true)]),
            width: fields.len(),
            keys: keys.iter().filter_map(|key| place(key)).collect(),
            valid_from: role(Role::ValidFrom)?,
            valid_to: role(Role::ValidTo)?,
            current: role(Role::Current)?,
            compared,
            rows: RowConverter::new(sorts).context(Kind::Bug, "Versions cannot be compared")?,
        })
    }

    /// A batch of changes as its side of the join.
    fn changes(&self, batch: &RecordBatch, format: &FileFormat) -> Result<RecordBatch> {
        let deletes: ArrayRef = Arc::new(deletes(batch)?);
        let rows = conform(&with_roles(batch, &format.columns)?, &format.columns, &format.schema, Names::Logical)?;
        let columns = rows.columns().iter().cloned().chain([deletes]).collect();
        RecordBatch::try_new(Arc::clone(&self.new), columns).context(Kind::Bug, "Changes do not fit their side")
    }

    /// Changes and old versions by key; a sort that spills.
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

    /// Changes with the time when the last closed version of their key ended, as [`ENDED`].
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

    /// Both sides, for a plan.
    fn tables(
        &self,
        engine: &Engine,
        new: SendableRecordBatchStream,
        old: SendableRecordBatchStream,
        row_bytes: usize,
    ) -> Result<(DataFrame, DataFrame)> {
        let base = engine.session();
        // One partition is what keeps within the limit, see `Engine`.
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

/// The stream, unless it is empty.
async fn not_empty(
    mut rows: SendableRecordBatchStream,
) -> std::result::Result<Option<SendableRecordBatchStream>, DataFusionError> {
    let Some(first) = rows.next().await.transpose()? else { return Ok(None) };
    let schema = rows.schema();
    let all = futures::stream::once(std::future::ready(Ok(first))).chain(rows);
    Ok(Some(Box::pin(RecordBatchStreamAdapter::new(schema, all))))
}

/// The versions that were found, file by file, as their side of the join.
fn old_versions(
    format: &Arc<FileFormat>,
    files: &[Arc<ActiveFile>],
    noted: &[RoaringBitmap],
    schema: &SchemaRef,
    engine: &Engine,
) -> SendableRecordBatchStream {
    let found: Vec<(u32, Arc<ActiveFile>, RoaringBitmap)> = files
        .iter()
        .zip(noted)
        .enumerate()
        .filter(|(_, (_, rows))| !rows.is_empty())
        .map(|(number, (file, rows))| (number as u32, Arc::clone(file), rows.clone()))
        .collect();
    let (format, engine, out) = (Arc::clone(format), engine.clone(), Arc::clone(schema));
    let stream = futures::stream::iter(found).then(move |(number, file, rows)| {
        let (format, engine, out) = (Arc::clone(&format), engine.clone(), Arc::clone(&out));
        async move {
            let read = rows_at(&format, &file, &rows, &engine).await;
            let read = read.map_err(|error| DataFusionError::External(Box::new(error)))?;
            let mut numbers = rows.into_iter();
            Ok::<_, DataFusionError>(read.map(move |batch| {
                let batch = batch?;
                let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(numbers.by_ref().take(batch.num_rows())));
                let file: ArrayRef = Arc::new(UInt32Array::from(vec![number; batch.num_rows()]));
                let columns = batch.columns().iter().cloned().chain([file, numbers]).collect();
                Ok(RecordBatch::try_new(Arc::clone(&out), columns)?)
            }))
        }
    });
    Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), stream.try_flatten()))
}

/// Where versions go.
struct Writers {
    open: TableWriter,
    closed: TableWriter,
    /// Of each file, the rows that are replaced.
    going: Vec<RoaringBitmap>,
    deleted: u64,
    /// When rows ended that a snapshot does not have any more.
    until: i64,
    /// Up to when the table knows of versions that ended.
    known_until: i64,
    /// Changes without an open version that are older than that.
    late: SpillBuffer,
}

/// What becomes of a joined row.
#[derive(Default)]
struct Decisions {
    opens: Vec<bool>,
    from: Vec<Option<i64>>,
    closes: Vec<bool>,
    to: Vec<Option<i64>>,
    late: Vec<bool>,
}

impl Writers {
    /// Gives the changes of a batch that were set down as late, if there are any.
    async fn take(
        &mut self,
        sides: &Sides,
        batch: &RecordBatch,
        format: &FileFormat,
        engine: &Engine,
    ) -> Result<Option<RecordBatch>> {
        let columns = batch.columns();
        let (new, old) = (&columns[..sides.width], &columns[sides.width + 1..][..sides.width]);
        let decisions = self.decide(sides, batch, new, old)?;
        let opened = versions_of(new, &decisions.opens, &format.schema, |place| {
            (place == sides.valid_from).then(|| moments(&decisions.from))
        })?;
        let closed = versions_of(old, &decisions.closes, &format.schema, |place| match place {
            _ if place == sides.valid_to => Some(moments(&decisions.to)),
            _ if place == sides.current => Some(Arc::new(BooleanArray::from(vec![false; batch.num_rows()])) as ArrayRef),
            _ => None,
        })?;
        for (writer, rows) in [(&mut self.open, opened), (&mut self.closed, closed)] {
            for part in split_batch(&rows, engine.batch_bytes() * 2, usize::MAX).map_err(engine_error)? {
                writer.write(part).await?;
            }
        }
        if !decisions.late.contains(&true) {
            return Ok(None);
        }
        let late = versions_of(&columns[..=sides.width], &decisions.late, &sides.new, |_| None)?;
        self.late.push(late.clone()).map_err(engine_error)?;
        Ok(Some(late))
    }

    fn decide(&mut self, sides: &Sides, batch: &RecordBatch, new: &[ArrayRef], old: &[ArrayRef]) -> Result<Decisions> {
        let rows = batch.num_rows();
        let deletes = batch.column(sides.width).as_boolean();
        let files = batch.column(2 * sides.width + 1).as_primitive::<UInt32Type>();
        let numbers = batch.column(2 * sides.width + 2).as_primitive::<UInt32Type>();
        let (new_from, old_from) = (
            new[sides.valid_from].as_primitive::<TimestampMicrosecondType>(),
            old[sides.valid_from].as_primitive::<TimestampMicrosecondType>(),
        );
        let pick =
            |side: &[ArrayRef]| -> Vec<ArrayRef> { sides.compared.iter().map(|place| Arc::clone(&side[*place])).collect() };
        let comparable = |side: &[ArrayRef]| match sides.compared.is_empty() {
            true => Ok(None),
            false => sides.rows.convert_columns(&pick(side)).map(Some).context(Kind::Bug, "Versions cannot be compared"),
        };
        let (new_rows, old_rows) = (comparable(new)?, comparable(old)?);
        let is_same = |row: usize| match (&new_rows, &old_rows) {
            (Some(new), Some(old)) => new.row(row) == old.row(row),
            _ => true,
        };
        let mut made = Decisions::default();
        for row in 0..rows {
            let is_delete = deletes.is_valid(row).then(|| deletes.value(row));
            let since = files.is_valid(row).then(|| old_from.value(row));
            let at = is_delete.map(|_| new_from.value(row));
            let is_late = is_delete == Some(false) && since.is_none() && at < Some(self.known_until);
            let (opens, closes) = match (is_delete, since) {
                (Some(false), None) => (at.filter(|_| !is_late), None),
                (Some(_), Some(since)) if at < Some(since) => (None, None),
                (Some(false), Some(_)) if is_same(row) => (None, None),
                (Some(false), Some(since)) => match at {
                    Some(at) if at > since => (Some(at), Some(at)),
                    // The same version with other values: it is put right.
                    _ => (Some(since), None),
                },
                (Some(true), Some(_)) => (None, at),
                // It was not in the snapshot, and is not younger than that.
                (None, Some(since)) if since <= self.until => (None, Some(self.until)),
                _ => (None, None),
            };
            self.deleted += u64::from(opens.is_none() && closes.is_some());
            if opens.is_some() && since.is_some() || closes.is_some() {
                self.going[files.value(row) as usize].insert(numbers.value(row));
            }
            made.opens.push(opens.is_some());
            made.from.push(opens);
            made.closes.push(closes.is_some());
            made.to.push(closes);
            made.late.push(is_late);
        }
        Ok(made)
    }
}

fn moments(micros: &[Option<i64>]) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter(micros.iter().copied()).with_timezone("UTC"))
}

/// The chosen rows of one side, with other values in some columns.
fn versions_of(
    side: &[ArrayRef],
    chosen: &[bool],
    schema: &SchemaRef,
    other: impl Fn(usize) -> Option<ArrayRef>,
) -> Result<RecordBatch> {
    let chosen = BooleanArray::from(chosen.to_vec());
    let columns = side.iter().enumerate().map(|(place, array)| match other(place) {
        Some(array) => filter(&array, &chosen),
        None => filter(array, &chosen),
    });
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>().context(Kind::Bug, "Versions cannot be chosen")?;
    let options = RecordBatchOptions::new().with_row_count(Some(chosen.true_count()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .context(Kind::Bug, "Versions do not have the schema of their file")
}
