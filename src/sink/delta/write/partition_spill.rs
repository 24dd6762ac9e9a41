//! Rows that wait on disk for the end of the input, by partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result as PlanResult};
use parking_lot::Mutex;
use tracing::Span;

use crate::channel::{Items, from_thread};
use crate::engine::{Engine, Segment, SegmentEncoder, SegmentFile};
use crate::sink::delta::write::partitioning::PartitionNumber;

/// Rows of one partition, read from a spill.
pub(crate) type PartitionRows = (PartitionNumber, RecordBatch);

/// A temporary file of rows, with the places of the rows of each partition. Several tasks write to it at the same time.
#[derive(Debug)]
pub(crate) struct PartitionSpill {
    file: SegmentFile,
    partitions: Mutex<BTreeMap<PartitionNumber, Vec<Segment>>>,
}

impl PartitionSpill {
    /// An empty spill for batches of `schema`.
    pub(crate) fn new(engine: &Engine, schema: &SchemaRef) -> PlanResult<Self> {
        Ok(Self { file: SegmentFile::new(engine, Arc::clone(schema))?, partitions: Mutex::default() })
    }

    /// Appends rows of one partition.
    pub(crate) fn push(&self, number: PartitionNumber, rows: &RecordBatch, encoder: &mut SegmentEncoder) -> PlanResult<()> {
        let segment = self.file.append(rows, encoder)?;
        self.partitions.lock().entry(number).or_default().push(segment);
        Ok(())
    }

    /// Whether rows of the partition were spilled.
    pub(crate) fn has(&self, number: PartitionNumber) -> bool {
        self.partitions.lock().contains_key(&number)
    }

    /// Reads and removes the rows of all partitions for which `is_wanted`, one partition after the other, in batches of about
    /// `batch_bytes` bytes. Must be called within a tokio runtime, and after all rows were pushed.
    pub(crate) fn take(
        self: Arc<Self>,
        is_wanted: impl Fn(PartitionNumber) -> bool,
        batch_bytes: usize,
    ) -> Items<PartitionRows, DataFusionError> {
        let mut partitions = self.partitions.lock();
        let numbers: Vec<PartitionNumber> = partitions.keys().copied().filter(|number| is_wanted(*number)).collect();
        let taken: Vec<_> = numbers.iter().filter_map(|number| partitions.remove_entry(number)).collect();
        drop(partitions);
        from_thread(1, Span::current(), move |sender| {
            for (number, segments) in taken {
                for group in groups(&segments, batch_bytes) {
                    sender.send_blocking((number, self.file.read(group)?))?;
                }
            }
            Ok(())
        })
    }
}

/// Cuts segments into groups of about `batch_bytes` bytes.
fn groups(segments: &[Segment], batch_bytes: usize) -> impl Iterator<Item = &[Segment]> {
    let mut rest = segments;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |segment: &&Segment| {
            bytes += segment.memory_bytes;
            bytes <= batch_bytes
        };
        let end = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (group, after) = rest.split_at(end);
        rest = after;
        Some(group).filter(|group| !group.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use futures::TryStreamExt;

    use super::*;
    use crate::engine::EngineOptions;

    #[tokio::test]
    async fn rows_are_read_one_partition_after_the_other_in_the_order_of_their_arrival() {
        let folder = tempfile::tempdir().unwrap();
        let options = EngineOptions { memory_limit: 1 << 20, temp_dir: Some(folder.path().to_owned()), partitions: 1 };
        let engine = Engine::new(options).unwrap();
        let batch = |from: i64, rows: i64| {
            RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(from..from + rows)) as ArrayRef)]).unwrap()
        };
        let spill = Arc::new(PartitionSpill::new(&engine, &batch(0, 0).schema()).unwrap());
        let mut encoder = SegmentEncoder::default();
        for (number, from, rows) in
            [(Some(2), 0, 3), (None, 3, 1), (Some(1), 4, 1), (Some(2), 5, 4), (Some(2), 9, 40), (Some(2), 49, 1)]
        {
            spill.push(number, &batch(from, rows), &mut encoder).unwrap();
        }
        assert!(spill.has(Some(1)) && !spill.has(Some(3)));
        let read: Vec<PartitionRows> = spill.clone().take(|number| number != Some(1), 8 * 8).try_collect().await.unwrap();
        let read: Vec<(PartitionNumber, Vec<i64>)> = read
            .into_iter()
            .map(|(number, rows)| (number, rows.column(0).as_primitive::<Int64Type>().values().to_vec()))
            .collect();
        let expected =
            [(None, vec![3]), (Some(2), vec![0, 1, 2, 5, 6, 7, 8]), (Some(2), (9..49).collect()), (Some(2), vec![49])];
        assert_eq!(read, expected);
        let rest: Vec<PartitionRows> = spill.take(|_| true, 8 * 8).try_collect().await.unwrap();
        assert_eq!(rest.len(), 1);
    }
}
