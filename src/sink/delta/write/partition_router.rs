//! Routes the rows of several streams to the writers of their partitions. Batches are split by partition in large groups and buffered
//! until a partition has enough rows for a row group; otherwise each writer would encode few rows at a time into many open files.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::error::Result as PlanResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::StreamExt;
use parking_lot::Mutex;
use tracing::Span;

use crate::engine::{BatchSender, Engine, streams_from_tasks};
use crate::error::Result;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partitioning::{PartitionNumber, Partitioning};

/// Maximum size in bytes of the rows that are split by partition together.
const MAX_SHUFFLE_BYTES: usize = 4 << 20;
/// Maximum size in bytes of the rows that each writer buffers.
const MAX_BUFFER_BYTES: usize = 64 << 20;
/// Minimum of the same: with less, row groups would have few rows. The memory pool may grant less nevertheless.
const MIN_BUFFER_BYTES: usize = 16 << 20;

/// Routes rows to the writers of their partitions.
#[derive(Debug, Clone)]
pub(crate) struct PartitionRouter {
    partitioning: Partitioning,
    /// Name of the partition source in the batches. Rows of batches without it have no partition value.
    source: String,
    /// Bytes of rows that each task splits together.
    shuffle_bytes: usize,
    /// Bytes of rows that each writer buffers.
    buffer_bytes: usize,
    /// Bytes of an output batch.
    batch_bytes: usize,
}

impl PartitionRouter {
    /// For files of a format with `writers` concurrent writers; `None` if the table has no partitions.
    pub(crate) fn new(format: &FileFormat, engine: &Engine, writers: usize) -> Option<Self> {
        format.partitioning.as_ref().map(|partitioning| Self {
            partitioning: partitioning.clone(),
            source: format.columns[partitioning.source()].name.clone(),
            shuffle_bytes: (engine.memory_limit() / 64).min(MAX_SHUFFLE_BYTES),
            buffer_bytes: (engine.memory_limit() / 4 / writers).clamp(MIN_BUFFER_BYTES, MAX_BUFFER_BYTES),
            batch_bytes: engine.batch_bytes(),
        })
    }

    /// Redistributes all rows of `streams` to `outputs` streams. Each batch has rows of one partition, and all rows of a partition
    /// are in the same output. An error reaches all outputs. Must be called within a tokio runtime.
    pub(crate) fn route(
        &self,
        schema: &SchemaRef,
        streams: Vec<SendableRecordBatchStream>,
        outputs: usize,
    ) -> Vec<SendableRecordBatchStream> {
        let queue = Arc::new(Mutex::new(VecDeque::from(streams)));
        let outputs = outputs.max(1);
        streams_from_tasks(schema, outputs, |channel| {
            for _ in 0..outputs {
                let (router, queue) = (self.clone(), Arc::clone(&queue));
                channel.spawn(Span::current(), move |sender| router.run(queue, Outputs { sender, count: outputs }));
            }
        })
    }

    /// A buffer for the batches of one output.
    pub(crate) fn buffer(&self, pool: &Arc<dyn MemoryPool>) -> FanOutBuffer {
        FanOutBuffer::new(self.buffer_bytes, pool)
    }

    async fn run(self, queue: Arc<Mutex<VecDeque<SendableRecordBatchStream>>>, outputs: Outputs) -> PlanResult<()> {
        let mut shuffle = Shuffle::default();
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
                if shuffle.bytes >= self.shuffle_bytes {
                    self.send_split(&mut shuffle, &outputs).await?;
                }
            }
        }
        self.send_split(&mut shuffle, &outputs).await
    }

    /// The partition of an output batch.
    pub(crate) fn number(&self, batch: &RecordBatch) -> Result<PartitionNumber> {
        Ok(self.numbers(&batch.slice(0, batch.num_rows().min(1)))?.first().copied().flatten())
    }

    fn numbers(&self, batch: &RecordBatch) -> Result<Vec<PartitionNumber>> {
        match batch.column_by_name(&self.source) {
            Some(column) => self.partitioning.numbers(column),
            None => Ok(vec![None; batch.num_rows()]),
        }
    }

    /// Splits the rows of a shuffle by partition and sends them.
    async fn send_split(&self, shuffle: &mut Shuffle, outputs: &Outputs) -> PlanResult<()> {
        let Shuffle { batches, rows, bytes } = std::mem::take(shuffle);
        let all: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let step = (self.batch_bytes / bytes.div_ceil(all.max(1)).max(1)).max(1);
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        for (number, rows) in rows {
            for rows in rows.chunks(step) {
                outputs.send(number, interleave_record_batch(&batches, rows)?).await?;
            }
        }
        Ok(())
    }
}

/// The outputs of a router.
struct Outputs {
    sender: BatchSender,
    count: usize,
}

impl Outputs {
    async fn send(&self, number: PartitionNumber, batch: RecordBatch) -> PlanResult<()> {
        let output = number.unwrap_or(0).rem_euclid(self.count as i32) as usize;
        self.sender.send_to(output, batch).await
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
        let partition = self.partitions.remove(&number)?;
        self.bytes -= partition.bytes;
        self.reservation.resize(self.bytes);
        Some((number, partition.batches))
    }
}

/// Batches to be split together, and the rows (batch, row) of each partition.
#[derive(Debug, Default)]
struct Shuffle {
    batches: Vec<RecordBatch>,
    rows: BTreeMap<PartitionNumber, Vec<(usize, usize)>>,
    bytes: usize,
}

impl Shuffle {
    fn push(&mut self, batch: RecordBatch, numbers: Vec<PartitionNumber>) {
        let position = self.batches.len();
        for (row, number) in numbers.into_iter().enumerate() {
            self.rows.entry(number).or_default().push((position, row));
        }
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, AsArray, Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
    use proptest::prelude::*;

    use super::*;
    use crate::engine::batch_stream;
    use crate::schema::PartitionUnit;
    use datafusion::execution::memory_pool::GreedyMemoryPool;

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
            days in prop::collection::vec(prop::option::of(0_i64..5), 0..200),
            size in 1_usize..40,
            outputs in 1_usize..4,
            shuffle_bytes in 1_usize..4_000,
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
            let router = PartitionRouter { partitioning, source: "t".into(), shuffle_bytes, buffer_bytes: 0, batch_bytes: 500 };
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
            let mut routed: Vec<Vec<(i64, Option<i64>)>> = Vec::new();
            runtime.block_on(async {
                let outputs = router.route(&schema, streams, outputs);
                let read = outputs.into_iter().map(|output| output.collect::<Vec<_>>());
                for batches in futures::future::join_all(read).await {
                    let mut rows = Vec::new();
                    for batch in batches {
                        let batch = batch.unwrap();
                        let numbers = batch.column(0).as_primitive::<Int64Type>();
                        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
                        let day = |row: usize| times.is_valid(row).then(|| times.value(row) / DAY);
                        assert!((0..batch.num_rows()).all(|row| day(row) == day(0)), "a batch has rows of one partition");
                        rows.extend((0..batch.num_rows()).map(|row| (numbers.value(row), day(row))));
                    }
                    routed.push(rows);
                }
            });
            for day in (0..5).map(Some).chain([None]) {
                let with = routed.iter().filter(|rows| rows.iter().any(|row| row.1 == day)).count();
                prop_assert!(with <= 1, "a partition is in one output");
            }
            let mut all: Vec<_> = routed.into_iter().flatten().collect();
            all.sort_unstable();
            prop_assert_eq!(all, rows);
        }
    }
}
