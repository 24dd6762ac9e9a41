//! Routes the rows of several streams to the writers of their partitions.
//!
//! A writer encodes well if it gets many rows of one partition, and every open file takes memory. Therefore rows are split by partition
//! in large groups. Partitions that have a large share of a group go to their writers at once: this is all of them if rows arrive in
//! order of their partitions. The rows of all other partitions wait on disk for the end of the input; then each writer gets one
//! partition after the other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::StreamExt;
use parking_lot::Mutex;
use tracing::Span;

use crate::channel::Items;
use crate::engine::{BatchSender, Engine, SegmentEncoder, streams_from_tasks};
use crate::error::Result;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partition_spill::{PartitionRows, PartitionSpill};
use crate::sink::delta::write::partitioning::{PartitionNumber, Partitioning};

/// Maximum size in bytes of the rows that are split by partition together.
const MAX_SHUFFLE_BYTES: usize = 32 << 20;
/// Share of a group of rows with which a partition goes to its writer at once, as a divisor.
const LARGE_SHARE: usize = 4;
/// Maximum size in bytes of the rows that each writer buffers.
const MAX_BUFFER_BYTES: usize = 64 << 20;
/// Minimum of the same: with less, row groups would have few rows. The memory pool may still grant less.
const MIN_BUFFER_BYTES: usize = 8 << 20;

/// Routes rows to the writers of their partitions.
#[derive(Debug, Clone)]
pub(crate) struct PartitionRouter {
    partitioning: Partitioning,
    /// Name of the partition source in the batches. Rows of batches without it have no partition value.
    source: String,
    engine: Engine,
    /// Bytes of rows that each task splits together.
    shuffle_bytes: usize,
    /// Bytes of rows that each writer buffers.
    buffer_bytes: usize,
}

impl PartitionRouter {
    /// For files of a format with `writers` concurrent writers; `None` if the table has no partitions.
    pub(crate) fn new(format: &FileFormat, engine: &Engine, writers: usize) -> Option<Self> {
        format.partitioning.as_ref().map(|partitioning| Self {
            partitioning: partitioning.clone(),
            source: format.columns[partitioning.source()].name.clone(),
            engine: engine.clone(),
            shuffle_bytes: (engine.memory_limit() / 8 / writers).min(MAX_SHUFFLE_BYTES),
            buffer_bytes: (engine.memory_limit() / 4 / writers).clamp(MIN_BUFFER_BYTES, MAX_BUFFER_BYTES),
        })
    }

    /// Redistributes all rows of `streams` to `outputs` outputs. All rows of a partition are in the same output. An error reaches all
    /// outputs. Must be called within a tokio runtime.
    pub(crate) fn route(&self, schema: &SchemaRef, streams: Vec<SendableRecordBatchStream>, outputs: usize) -> Vec<RoutedRows> {
        let queue = Arc::new(Mutex::new(VecDeque::from(streams)));
        let count = outputs.max(1);
        let spill = SharedSpill::default();
        let streams = streams_from_tasks(schema, count, |channel| {
            for _ in 0..count {
                let (router, queue, spill) = (self.clone(), Arc::clone(&queue), Arc::clone(&spill));
                channel.spawn(Span::current(), move |sender| router.run(queue, Outputs { sender, count }, spill));
            }
        });
        let routed =
            |(output, stream)| RoutedRows { stream, router: self.clone(), output, outputs: count, spill: Arc::clone(&spill) };
        streams.into_iter().enumerate().map(routed).collect()
    }

    async fn run(
        self,
        queue: Arc<Mutex<VecDeque<SendableRecordBatchStream>>>,
        outputs: Outputs,
        spill: SharedSpill,
    ) -> PlanResult<()> {
        let mut shuffle = Shuffle::new(self.engine.memory_pool());
        let mut encoder = SegmentEncoder::default();
        loop {
            let next = queue.lock().pop_front();
            let Some(mut stream) = next else { break };
            while let Some(batch) = stream.next().await.transpose()? {
                let numbers = self.numbers(&batch)?;
                let Some(first) = numbers.first() else { continue };
                if numbers.iter().all(|number| number == first) {
                    outputs.send(*first, batch).await?;
                    continue;
                }
                shuffle.push(batch, numbers);
                if shuffle.bytes >= self.shuffle_bytes || !shuffle.has_memory() {
                    let is_large = |rows: usize, all: usize| rows >= all / LARGE_SHARE;
                    self.split(&mut shuffle, &outputs, &spill, &mut encoder, |_, rows, all| is_large(rows, all)).await?;
                }
            }
        }
        // The last rows need no file unless their partitions are in it.
        let spilled = spill.lock().clone();
        let is_spilled = |number| spilled.as_ref().is_some_and(|spill| spill.has(number));
        self.split(&mut shuffle, &outputs, &spill, &mut encoder, |number, _, _| !is_spilled(number)).await
    }

    fn numbers(&self, batch: &RecordBatch) -> Result<Vec<PartitionNumber>> {
        match batch.column_by_name(&self.source) {
            Some(column) => self.partitioning.numbers(column),
            None => Ok(vec![None; batch.num_rows()]),
        }
    }

    /// Splits the rows of a shuffle by partition. Rows of partitions for which `is_direct` (number, rows, rows of all partitions) are
    /// sent, all others spilled.
    async fn split(
        &self,
        shuffle: &mut Shuffle,
        outputs: &Outputs,
        spill: &SharedSpill,
        encoder: &mut SegmentEncoder,
        is_direct: impl Fn(PartitionNumber, usize, usize) -> bool,
    ) -> PlanResult<()> {
        let (batches, rows, bytes) = shuffle.take();
        let all: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let step = (self.engine.batch_bytes() / bytes.div_ceil(all.max(1)).max(1)).max(1);
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        let (direct, waiting): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|(number, rows)| is_direct(*number, rows.len(), all));
        for (number, rows) in direct {
            for rows in rows.chunks(step) {
                outputs.send(number, interleave_record_batch(&batches, rows)?).await?;
            }
        }
        let Some(first) = batches.first().filter(|_| !waiting.is_empty()) else { return Ok(()) };
        let spill = match &mut *spill.lock() {
            Some(spill) => Arc::clone(spill),
            empty => Arc::clone(empty.insert(Arc::new(PartitionSpill::new(&self.engine, first.schema_ref())?))),
        };
        // Copies the rows of many partitions with one call, because each call has a cost per column.
        let numbered: Vec<(PartitionNumber, RowPosition)> =
            waiting.into_iter().flat_map(|(number, rows)| rows.into_iter().map(move |row| (number, row))).collect();
        for chunk in numbered.chunks(step) {
            let rows: Vec<RowPosition> = chunk.iter().map(|(_, row)| *row).collect();
            let copied = interleave_record_batch(&batches, &rows)?;
            let mut start = 0;
            for same in chunk.chunk_by(|one, next| one.0 == next.0) {
                spill.push(same[0].0, &copied.slice(start, same.len()), encoder)?;
                start += same.len();
            }
        }
        Ok(())
    }
}

/// Position of a row: batch, and row in the batch.
type RowPosition = (usize, usize);

/// The rows of each partition.
type RowsByPartition = BTreeMap<PartitionNumber, Vec<RowPosition>>;

/// The spill of all tasks of a router, created when it is needed.
type SharedSpill = Arc<Mutex<Option<Arc<PartitionSpill>>>>;

/// The rows of one output of a router.
pub(crate) struct RoutedRows {
    /// The rows that are written as they arrive. Each batch has rows of one partition.
    pub(crate) stream: SendableRecordBatchStream,
    router: PartitionRouter,
    output: usize,
    outputs: usize,
    spill: SharedSpill,
}

impl RoutedRows {
    /// The partition of a batch.
    pub(crate) fn number(&self, batch: &RecordBatch) -> Result<PartitionNumber> {
        Ok(self.router.numbers(&batch.slice(0, batch.num_rows().min(1)))?.first().copied().flatten())
    }

    /// A buffer for the batches.
    pub(crate) fn buffer(&self) -> FanOutBuffer {
        FanOutBuffer::new(self.router.buffer_bytes, self.router.engine.memory_pool())
    }

    /// The other rows, one partition after the other. Must be called after the end of the stream; `None` if there are none.
    pub(crate) fn spilled(&self) -> Option<Items<PartitionRows, DataFusionError>> {
        let spill = Arc::clone(self.spill.lock().as_ref()?);
        let (output, outputs) = (self.output, self.outputs);
        Some(spill.take(|number| output_of(number, outputs) == output, self.router.engine.batch_bytes()))
    }
}

fn output_of(number: PartitionNumber, outputs: usize) -> usize {
    number.unwrap_or(0).rem_euclid(outputs as i32) as usize
}

/// The outputs of a router.
struct Outputs {
    sender: BatchSender,
    count: usize,
}

impl Outputs {
    async fn send(&self, number: PartitionNumber, batch: RecordBatch) -> PlanResult<()> {
        self.sender.send_to(output_of(number, self.count), batch).await
    }
}

/// Buffers batches per partition, up to a total size.
#[derive(Debug)]
pub(crate) struct FanOutBuffer {
    partitions: BTreeMap<PartitionNumber, BufferedPartition>,
    bytes: usize,
    max_bytes: usize,
    reservation: MemoryReservation,
}

#[derive(Debug, Default)]
struct BufferedPartition {
    batches: Vec<RecordBatch>,
    bytes: usize,
}

impl FanOutBuffer {
    fn new(max_bytes: usize, pool: &Arc<dyn MemoryPool>) -> Self {
        let reservation = MemoryConsumer::new("FanOutBuffer").register(pool);
        Self { partitions: BTreeMap::new(), bytes: 0, max_bytes, reservation }
    }

    /// Adds rows of one partition. If the buffer is full then, returns all rows of the largest partition.
    pub(crate) fn push(&mut self, number: PartitionNumber, batch: RecordBatch) -> Option<(PartitionNumber, Vec<RecordBatch>)> {
        let bytes = batch.get_array_memory_size();
        let partition = self.partitions.entry(number).or_default();
        partition.batches.push(batch);
        partition.bytes += bytes;
        self.bytes += bytes;
        let fits = self.bytes <= self.max_bytes && self.reservation.try_resize(self.bytes).is_ok();
        if fits { None } else { self.pop() }
    }

    /// Removes and returns the rows of the largest partition; `None` if the buffer is empty.
    pub(crate) fn pop(&mut self) -> Option<(PartitionNumber, Vec<RecordBatch>)> {
        let number = *self.partitions.iter().max_by_key(|(_, partition)| partition.bytes)?.0;
        Some((number, self.remove(number)))
    }

    /// Removes and returns the rows of a partition.
    pub(crate) fn remove(&mut self, number: PartitionNumber) -> Vec<RecordBatch> {
        let partition = self.partitions.remove(&number).unwrap_or_default();
        self.bytes -= partition.bytes;
        self.reservation.resize(self.bytes);
        partition.batches
    }
}

/// Batches to be split together, and their rows by partition.
#[derive(Debug)]
struct Shuffle {
    batches: Vec<RecordBatch>,
    rows: RowsByPartition,
    bytes: usize,
    reservation: MemoryReservation,
}

impl Shuffle {
    fn new(pool: &Arc<dyn MemoryPool>) -> Self {
        let reservation = MemoryConsumer::new("PartitionRouter").register(pool);
        Self { batches: Vec::new(), rows: BTreeMap::new(), bytes: 0, reservation }
    }

    fn push(&mut self, batch: RecordBatch, numbers: Vec<PartitionNumber>) {
        let position = self.batches.len();
        for (row, number) in numbers.into_iter().enumerate() {
            self.rows.entry(number).or_default().push((position, row));
        }
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
    }

    /// Whether the memory pool has room for the batches.
    fn has_memory(&mut self) -> bool {
        self.reservation.try_resize(self.bytes).is_ok()
    }

    /// Removes and returns batches, rows and the size in bytes.
    fn take(&mut self) -> (Vec<RecordBatch>, RowsByPartition, usize) {
        self.reservation.free();
        (std::mem::take(&mut self.batches), std::mem::take(&mut self.rows), std::mem::take(&mut self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, AsArray, Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
    use proptest::prelude::*;

    use super::*;
    use crate::engine::{EngineOptions, batch_stream};
    use crate::schema::PartitionUnit;
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use futures::TryStreamExt;

    const DAY: i64 = 86_400_000_000;

    #[test]
    fn a_full_buffer_returns_its_largest_partition_and_accounts_for_its_memory() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(10_000));
        let mut buffer = FanOutBuffer::new(5_000, &pool);
        let batch = |rows: i64| {
            RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef)]).unwrap()
        };
        assert!(buffer.push(Some(1), batch(100)).is_none());
        assert!(buffer.push(None, batch(300)).is_none());
        assert!(buffer.push(Some(1), batch(90)).is_none());
        assert!(pool.reserved() >= 8 * 490);
        let (number, batches) = buffer.push(Some(2), batch(150)).unwrap();
        assert_eq!((number, batches.len()), (None, 1));
        let rest: Vec<PartitionNumber> = std::iter::from_fn(|| buffer.pop()).map(|popped| popped.0).collect();
        assert_eq!((rest, pool.reserved()), (vec![Some(1), Some(2)], 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_row_is_in_one_output_with_its_partition(
            days in prop::collection::vec(prop::option::of(0_i64..7), 0..200),
            size in 1_usize..40,
            outputs in 1_usize..4,
            shuffle_bytes in 1_usize..10_000,
        ) {
            let rows: Vec<(i64, Option<i64>)> = days.iter().enumerate().map(|(n, day)| (n as i64, *day)).collect();
            let batches: Vec<RecordBatch> = rows.chunks(size).map(|rows| {
                let times = TimestampMicrosecondArray::from_iter(rows.iter().map(|row| row.1.map(|day| day * DAY)));
                let numbers = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
                let columns: [(_, ArrayRef, _); 2] = [("n", Arc::new(numbers), false), ("t", Arc::new(times), true)];
                RecordBatch::try_from_iter_with_nullable(columns).unwrap()
            }).collect();
            let Some(schema) = batches.first().map(RecordBatch::schema) else { return Ok(()) };
            let streams = batches.into_iter().map(|batch| batch_stream(Arc::clone(&schema), vec![batch])).collect();
            let partitioning = Partitioning::new("_day", PartitionUnit::Day);
            let engine = Engine::new(EngineOptions { memory_limit: 64 << 10, ..EngineOptions::default() }).unwrap();
            let router = PartitionRouter { partitioning, source: "t".into(), engine, shuffle_bytes, buffer_bytes: 0 };
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
            let mut routed: Vec<Vec<(i64, Option<i64>)>> = Vec::new();
            runtime.block_on(async {
                let outputs = router.route(&schema, streams, outputs);
                let read = outputs.into_iter().map(|mut output| async move {
                    let mut batches: Vec<RecordBatch> = output.stream.by_ref().try_collect().await.unwrap();
                    let Some(spilled) = output.spilled() else { return batches };
                    let spilled: Vec<PartitionRows> = spilled.try_collect().await.unwrap();
                    assert!(spilled.is_sorted_by_key(|(number, _)| *number), "one partition after the other");
                    for (number, batch) in spilled {
                        assert_eq!(output.number(&batch).unwrap(), number);
                        batches.push(batch);
                    }
                    batches
                });
                for batches in futures::future::join_all(read).await {
                    let mut rows = Vec::new();
                    for batch in batches {
                        let numbers = batch.column(0).as_primitive::<Int64Type>();
                        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
                        let day = |row: usize| times.is_valid(row).then(|| times.value(row) / DAY);
                        assert!((0..batch.num_rows()).all(|row| day(row) == day(0)), "a batch has rows of one partition");
                        rows.extend((0..batch.num_rows()).map(|row| (numbers.value(row), day(row))));
                    }
                    routed.push(rows);
                }
            });
            for day in (0..7).map(Some).chain([None]) {
                let with = routed.iter().filter(|rows| rows.iter().any(|row| row.1 == day)).count();
                prop_assert!(with <= 1, "a partition is in one output");
            }
            let mut all: Vec<_> = routed.into_iter().flatten().collect();
            all.sort_unstable();
            prop_assert_eq!(all, rows);
        }
    }
}
