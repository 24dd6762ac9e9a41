//! Writes streams of changes as rows of new files, and does on the way what is done about repeated keys. It looks into no old file.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, not};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use futures::StreamExt;

use crate::engine::{Engine, combine_streams, engine_error, split_batch};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::reduce::{ChangeSet, deletes};
use crate::schema::TS;
use crate::sink::delta::distributed::Teller;
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::system_columns::Role;
use crate::sink::delta::merge::dedup::Notes;
use crate::sink::delta::merge::key_set::{Unique, key_columns};
use crate::sink::delta::write::parquet_writer::{FileFormat, NewFile, Placed};
use crate::sink::delta::write::partition_router::{Routing, Waiting};
use crate::sink::delta::write::partitioned_writer::{Number, TableWriter};
use crate::sink::delta::write::schema_cast::{Names, conform};

/// Batches between two looks at the memory of the check for repeated keys, which takes time to measure.
const UNIQUE_CHECK_BATCHES: usize = 64;
/// Bytes of rows gathered before they are parted.
const MOST_GATHERED: usize = 4 << 20;
/// Bytes of rows that wait for others of their partition, in each worker.
const MOST_WAITING: usize = 64 << 20;
/// With less, row groups would be of few rows, whatever the limit; the pool may give less all the same.
const LEAST_WAITING: usize = 16 << 20;

/// How rows are brought to the writers of their partitions, if the table has any.
pub(in crate::sink::delta) fn routing(format: &FileFormat, engine: &Engine, workers: usize) -> Option<Routing> {
    format.partition.as_ref().map(|partition| Routing {
        partition: partition.clone(),
        column: format.columns[partition.source()].name.clone(),
        gathered: (engine.memory_limit() / 64).min(MOST_GATHERED),
        held: (engine.memory_limit() / 4 / workers).clamp(LEAST_WAITING, MOST_WAITING),
        batch_bytes: engine.batch_bytes(),
    })
}

/// Writes the rows of a change batch that are not deletes, and says how many there were.
pub(in crate::sink::delta) async fn write_upserts(
    writer: &mut TableWriter,
    batch: &RecordBatch,
    deletes: &BooleanArray,
    format: &FileFormat,
    batch_bytes: usize,
) -> Result<u64> {
    let upserts = upserts_of(batch, deletes)?;
    write_rows(writer, &upserts, format, batch_bytes).await?;
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

/// Writes the rows of a batch of upserts, and says where each part of them went: the rows of a part, counted in the batch.
async fn write_rows(
    writer: &mut TableWriter,
    upserts: &RecordBatch,
    format: &FileFormat,
    batch_bytes: usize,
) -> Result<Vec<(Range<usize>, Vec<Placed>)>> {
    let rows = conform(&with_roles(upserts, &format.columns)?, &format.columns, &format.schema, Names::Logical)?;
    let (mut start, mut parts) = (0, Vec::new());
    // An object may come as few large batches; what is encoded at once has to stay small.
    for part in split_batch(&rows, batch_bytes.saturating_mul(2), usize::MAX).map_err(engine_error)? {
        let end = start + part.num_rows();
        parts.push((start..end, writer.write(part).await?));
        start = end;
    }
    Ok(parts)
}

/// A batch of upserts with the columns of ours that it lacks, for a table with these columns.
pub(in crate::sink::delta) fn with_roles(batch: &RecordBatch, columns: &[LakeColumn]) -> Result<RecordBatch> {
    let mut fields: Vec<FieldRef> = batch.schema().fields().to_vec();
    let mut arrays = batch.columns().to_vec();
    let mut add = |role: Role, array: ArrayRef| {
        fields.push(Arc::new(Field::new(role.name(), array.data_type().clone(), true)));
        arrays.push(array);
    };
    if Role::ValidFrom.find(columns).is_some() {
        let since = batch.column_by_name(TS).ok_or_else(|| Error::new(Kind::Bug, "Changes without a needed column"))?;
        add(Role::ValidFrom, Arc::clone(since));
        add(Role::Current, Arc::new(BooleanArray::from(vec![true; batch.num_rows()])));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).context(Kind::Bug, "Changes do not have their schema")
}

/// The check for repeated keys, shared by workers and accounted.
#[derive(Debug, Clone)]
pub(in crate::sink::delta) struct SharedUnique(Arc<Mutex<(Unique, MemoryReservation, usize)>>);

impl SharedUnique {
    pub(in crate::sink::delta) fn new(types: &[DataType], engine: &Engine) -> Result<Self> {
        let reservation = MemoryConsumer::new("UniqueKeys").register(engine.memory_pool());
        Ok(Self(Arc::new(Mutex::new((Unique::new(types)?, reservation, 0)))))
    }

    pub(in crate::sink::delta) fn insert(&self, key: &arrow::array::ArrayRef) -> Result<()> {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (unique, reservation, batches) = &mut *guard;
        unique.insert(key)?;
        *batches += 1;
        if batches.is_multiple_of(UNIQUE_CHECK_BATCHES) {
            reservation.try_resize(unique.memory_size()).map_err(engine_error)?;
        }
        Ok(())
    }
}

/// What is done about the promise of unique keys.
#[derive(Debug, Clone)]
pub(in crate::sink::delta) enum Check {
    /// The set was reduced.
    Nothing,
    /// A key that comes again ends the load.
    Unique(SharedUnique),
    /// Of the rows of a key, the newest is found when all are written.
    Settled(Notes),
    /// The same, by others who are told where rows went.
    Told(Teller),
}

/// Writes streams of a whole table, one after the other.
pub(in crate::sink::delta) struct ReplaceWorker {
    pub(in crate::sink::delta) streams: Arc<Mutex<VecDeque<SendableRecordBatchStream>>>,
    pub(in crate::sink::delta) format: Arc<FileFormat>,
    pub(in crate::sink::delta) keys: Vec<String>,
    pub(in crate::sink::delta) check: Check,
    pub(in crate::sink::delta) routing: Option<Routing>,
    pub(in crate::sink::delta) batch_bytes: usize,
}

impl ReplaceWorker {
    pub(in crate::sink::delta) async fn run(self, mut writer: TableWriter) -> Result<(Vec<NewFile>, u64)> {
        let mut upserted = 0;
        let held = self.routing.as_ref().map_or(0, |routing| routing.held);
        let mut waiting = Waiting::new(held, &self.format.pool);
        loop {
            let next = self.streams.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(stream) = next else { break };
            let mut stream = combine_streams(stream.schema(), vec![stream], 1);
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(engine_error)?;
                let Some(routing) = &self.routing else {
                    upserted += self.write(&mut writer, batch).await?;
                    continue;
                };
                let number = routing.number(&batch)?;
                if let Some((number, batches)) = waiting.push(number, batch) {
                    upserted += self.write_row_group(&mut writer, number, batches).await?;
                }
            }
        }
        while let Some((number, batches)) = waiting.pop() {
            upserted += self.write_row_group(&mut writer, number, batches).await?;
        }
        Ok((writer.finish().await?, upserted))
    }

    async fn write_row_group(&self, writer: &mut TableWriter, number: Number, batches: Vec<RecordBatch>) -> Result<u64> {
        let mut upserted = 0;
        for batch in batches {
            upserted += self.write(writer, batch).await?;
        }
        writer.end_row_group(number).await?;
        Ok(upserted)
    }

    async fn write(&self, writer: &mut TableWriter, batch: RecordBatch) -> Result<u64> {
        let keys = key_columns(&batch, &self.keys)?;
        let deletes = deletes(&batch)?;
        match &self.check {
            Check::Nothing => {}
            Check::Unique(unique) => unique.insert(&keys[0])?,
            Check::Settled(notes) => {
                // Whether a delete is newer than an upsert of its key cannot be told from files.
                if deletes.true_count() > 0 {
                    return Err(ChangeSet::duplicate_key());
                }
                for (rows, keys, placed) in self.write_noted(writer, &batch, &keys).await? {
                    notes.push(&rows, &keys, &placed)?;
                }
                return Ok(batch.num_rows() as u64);
            }
            Check::Told(teller) => {
                if deletes.true_count() > 0 {
                    let gone = filtered(&batch, &deletes)?;
                    teller.deleted(&gone, &key_columns(&gone, &self.keys)?).await?;
                }
                let upserts = upserts_of(&batch, &deletes)?;
                let keys = key_columns(&upserts, &self.keys)?;
                for (rows, keys, placed) in self.write_noted(writer, &upserts, &keys).await? {
                    teller.wrote(&rows, &keys, &placed).await?;
                }
                return Ok(upserts.num_rows() as u64);
            }
        }
        write_upserts(writer, &batch, &deletes, &self.format, self.batch_bytes).await
    }

    /// Writes upserts with these keys, and gives them in the parts in which they were written, each with where it went.
    async fn write_noted(
        &self,
        writer: &mut TableWriter,
        upserts: &RecordBatch,
        keys: &[ArrayRef],
    ) -> Result<Vec<(RecordBatch, Vec<ArrayRef>, Vec<Placed>)>> {
        let parts = write_rows(writer, upserts, &self.format, self.batch_bytes).await?;
        let noted = |(rows, placed): (Range<usize>, Vec<Placed>)| {
            let keys = keys.iter().map(|key| key.slice(rows.start, rows.len())).collect();
            (upserts.slice(rows.start, rows.len()), keys, placed)
        };
        Ok(parts.into_iter().map(noted).collect())
    }
}
