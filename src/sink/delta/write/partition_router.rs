//! Brings rows of several streams to the writers of their partitions, and holds them there until a partition has enough for a row
//! group. Without it, each writer would encode few rows at once in a file of each partition, all with buffers of their own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use futures::StreamExt;
use tracing::Span;

use crate::engine::{BatchSender, streams_from_tasks};
use crate::error::Result;
use crate::sink::delta::write::partitioned_writer::{Number, Partition};

/// How rows are brought.
#[derive(Debug, Clone)]
pub(in crate::sink::delta) struct Routing {
    /// How they are partitioned.
    pub(in crate::sink::delta) partition: Partition,
    /// Name of the column that says to which partition a row belongs; without it, all belong to that of no value.
    pub(in crate::sink::delta) column: String,
    /// Bytes of rows that are gathered before they are parted, in each of as many tasks as there are outputs.
    pub(in crate::sink::delta) gathered: usize,
    /// Bytes of rows that are held at each output.
    pub(in crate::sink::delta) held: usize,
    /// Bytes of a batch that comes out.
    pub(in crate::sink::delta) batch_bytes: usize,
}

impl Routing {
    /// `shares` streams over all rows of `streams`, each of batches of one partition; all of a partition come out of the same one.
    /// An error is given to all of them.
    pub(in crate::sink::delta) fn route(
        &self,
        schema: &SchemaRef,
        streams: Vec<SendableRecordBatchStream>,
        shares: usize,
    ) -> Vec<SendableRecordBatchStream> {
        let queue = Arc::new(Mutex::new(VecDeque::from(streams)));
        let shares = shares.max(1);
        streams_from_tasks(schema, shares, |channel| {
            for _ in 0..shares {
                let (routing, queue) = (self.clone(), Arc::clone(&queue));
                channel.spawn(Span::current(), move |sender| routing.run(queue, sender, shares));
            }
        })
    }

    async fn run(
        self,
        queue: Arc<Mutex<VecDeque<SendableRecordBatchStream>>>,
        sender: BatchSender,
        shares: usize,
    ) -> PlanResult<()> {
        let to = Outputs { sender, shares };
        let mut gathered = Gathered::default();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(mut stream) = next else { break };
            while let Some(batch) = stream.next().await.transpose()? {
                let numbers = self.numbers(&batch).map_err(|error| DataFusionError::External(Box::new(error)))?;
                let Some(first) = numbers.first() else { continue };
                if numbers.iter().all(|number| number == first) {
                    to.send(*first, batch).await?;
                    continue;
                }
                gathered.push(batch, numbers);
                if gathered.bytes >= self.gathered {
                    self.give(&mut gathered, &to).await?;
                }
            }
        }
        self.give(&mut gathered, &to).await
    }

    /// The partition of a batch that came out.
    pub(in crate::sink::delta) fn number(&self, batch: &RecordBatch) -> Result<Number> {
        Ok(self.numbers(&batch.slice(0, batch.num_rows().min(1)))?.first().copied().flatten())
    }

    fn numbers(&self, batch: &RecordBatch) -> Result<Vec<Number>> {
        match batch.column_by_name(&self.column) {
            Some(column) => self.partition.numbers(column),
            None => Ok(vec![None; batch.num_rows()]),
        }
    }

    /// Parts what was gathered.
    async fn give(&self, gathered: &mut Gathered, to: &Outputs) -> PlanResult<()> {
        let Gathered { batches, rows, bytes } = std::mem::take(gathered);
        let all: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let step = (self.batch_bytes / bytes.div_ceil(all.max(1)).max(1)).max(1);
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        for (number, rows) in rows {
            for rows in rows.chunks(step) {
                to.send(number, interleave_record_batch(&batches, rows)?).await?;
            }
        }
        Ok(())
    }
}

/// Where a task sends rows.
struct Outputs {
    sender: BatchSender,
    shares: usize,
}

impl Outputs {
    async fn send(&self, number: Number, batch: RecordBatch) -> PlanResult<()> {
        let share = number.unwrap_or(0).rem_euclid(self.shares as i32) as usize;
        self.sender.send_to(share, batch).await
    }
}

/// Rows that wait for others of their partition.
#[derive(Debug)]
pub(in crate::sink::delta) struct Waiting {
    rows: BTreeMap<Number, (Vec<RecordBatch>, usize)>,
    bytes: usize,
    most: usize,
    reservation: MemoryReservation,
}

impl Waiting {
    /// None yet; so many bytes may wait.
    pub(in crate::sink::delta) fn new(most: usize, pool: &Arc<dyn MemoryPool>) -> Self {
        let reservation = MemoryConsumer::new("WaitingRows").register(pool);
        Self { rows: BTreeMap::new(), bytes: 0, most, reservation }
    }

    /// Takes rows of one partition. If there are too many then, gives back all of the partition that has most.
    pub(in crate::sink::delta) fn push(&mut self, number: Number, batch: RecordBatch) -> Option<(Number, Vec<RecordBatch>)> {
        let bytes = batch.get_array_memory_size();
        let of_partition = self.rows.entry(number).or_default();
        of_partition.0.push(batch);
        of_partition.1 += bytes;
        self.bytes += bytes;
        let fits = self.bytes <= self.most && self.reservation.try_resize(self.bytes).is_ok();
        if fits { None } else { self.pop() }
    }

    /// All of the partition that has most, as long as there is any.
    pub(in crate::sink::delta) fn pop(&mut self) -> Option<(Number, Vec<RecordBatch>)> {
        let number = *self.rows.iter().max_by_key(|(_, (_, bytes))| *bytes)?.0;
        let (batches, bytes) = self.rows.remove(&number)?;
        self.bytes -= bytes;
        self.reservation.resize(self.bytes);
        Some((number, batches))
    }
}

/// Batches, and of which partition their rows are.
#[derive(Debug, Default)]
struct Gathered {
    batches: Vec<RecordBatch>,
    rows: BTreeMap<Number, Vec<(usize, usize)>>,
    bytes: usize,
}

impl Gathered {
    fn push(&mut self, batch: RecordBatch, numbers: Vec<Number>) {
        let place = self.batches.len();
        for (row, number) in numbers.into_iter().enumerate() {
            self.rows.entry(number).or_default().push((place, row));
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
    fn what_waits_goes_by_size_and_is_accounted() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(10_000));
        let mut waiting = Waiting::new(5_000, &pool);
        let batch = |rows: i64| {
            RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef)]).unwrap()
        };
        assert!(waiting.push(Some(1), batch(100)).is_none());
        assert!(waiting.push(None, batch(300)).is_none());
        assert!(waiting.push(Some(1), batch(90)).is_none());
        assert!(pool.reserved() >= 8 * 490);
        let (number, batches) = waiting.push(Some(2), batch(150)).unwrap();
        assert_eq!((number, batches.len()), (None, 1));
        let rest: Vec<Number> = std::iter::from_fn(|| waiting.pop()).map(|popped| popped.0).collect();
        assert_eq!((rest, pool.reserved()), (vec![Some(1), Some(2)], 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_row_comes_out_once_with_its_partition(
            days in prop::collection::vec(prop::option::of(0_i64..5), 0..200),
            size in 1_usize..40,
            shares in 1_usize..4,
            gathered in 1_usize..4_000,
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
            let partition = Partition::new("_day", PartitionUnit::Day);
            let routing = Routing { partition, column: "t".into(), gathered, held: 0, batch_bytes: 500 };
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
            let mut came: Vec<Vec<(i64, Option<i64>)>> = Vec::new();
            runtime.block_on(async {
                let outputs = routing.route(&schema, streams, shares);
                let read = outputs.into_iter().map(|output| output.collect::<Vec<_>>());
                for batches in futures::future::join_all(read).await {
                    let mut rows = Vec::new();
                    for batch in batches {
                        let batch = batch.unwrap();
                        let numbers = batch.column(0).as_primitive::<Int64Type>();
                        let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
                        let day = |row: usize| times.is_valid(row).then(|| times.value(row) / DAY);
                        assert!((0..batch.num_rows()).all(|row| day(row) == day(0)), "a batch is of one partition");
                        rows.extend((0..batch.num_rows()).map(|row| (numbers.value(row), day(row))));
                    }
                    came.push(rows);
                }
            });
            for day in (0..5).map(Some).chain([None]) {
                let with = came.iter().filter(|rows| rows.iter().any(|row| row.1 == day)).count();
                prop_assert!(with <= 1, "a partition has one writer");
            }
            let mut all: Vec<_> = came.into_iter().flatten().collect();
            all.sort_unstable();
            prop_assert_eq!(all, rows);
        }
    }
}
