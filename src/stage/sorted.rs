//! Sorts many small entries of numbers: in memory within a share of the engine's limit, beyond it by runs on disk. It does not know
//! what they mean.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::StreamExt;

use super::Engine;
use super::spill::Spilling;

/// Entries by which the space in memory grows, and by which runs are written and read.
const STEP: usize = 4096;

/// Takes entries of `N` numbers in any order; [`Sorted::finish`] gives them back in theirs.
#[derive(Debug)]
pub struct Sorted<const N: usize> {
    entries: Vec<[u64; N]>,
    reservation: MemoryReservation,
    /// Entries that may be held.
    share: usize,
    runtime: Arc<RuntimeEnv>,
    schema: SchemaRef,
    runs: Vec<Run<N>>,
}

impl<const N: usize> Sorted<N> {
    /// Nothing yet. `name` is what an error calls the holder of the memory.
    pub fn new(engine: &Engine, name: &str) -> Self {
        let fields: Vec<Field> = (0..N).map(|number| Field::new(number.to_string(), DataType::UInt64, false)).collect();
        Self {
            entries: Vec::new(),
            reservation: MemoryConsumer::new(name).register(engine.memory_pool()),
            share: (engine.memory_limit() / 8 / size_of::<[u64; N]>()).max(STEP),
            runtime: Arc::clone(engine.runtime()),
            schema: Arc::new(Schema::new(fields)),
            runs: Vec::new(),
        }
    }

    /// Takes an entry.
    pub fn push(&mut self, entry: [u64; N]) -> PlanResult<()> {
        if self.entries.len() == self.entries.capacity() {
            self.make_room()?;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Grows in memory, or writes what is held to disk as a run.
    fn make_room(&mut self) -> PlanResult<()> {
        let more = self.entries.capacity().clamp(STEP, self.share);
        let wanted = self.entries.capacity() + more;
        if wanted <= self.share && self.reservation.try_resize(wanted * size_of::<[u64; N]>()).is_ok() {
            self.entries.reserve_exact(more);
            return Ok(());
        }
        if self.entries.is_empty() {
            // The least that it can do with, whatever the pool says.
            self.entries.reserve_exact(STEP);
            return Ok(());
        }
        self.entries.sort_unstable();
        let mut run = Spilling::new(&self.runtime, &self.schema, None)?;
        for step in self.entries.chunks(STEP) {
            let column =
                |number: usize| -> ArrayRef { Arc::new(UInt64Array::from_iter_values(step.iter().map(|entry| entry[number]))) };
            run.put(&RecordBatch::try_new(Arc::clone(&self.schema), (0..N).map(column).collect())?)?;
        }
        self.entries.clear();
        self.runs.push(Run { stream: run.finish()?, columns: Vec::new(), rows: 0, at: 0 });
        Ok(())
    }

    /// All entries, ascending. Memory and disk are given up with the result.
    pub async fn finish(mut self) -> PlanResult<Merged<N>> {
        self.entries.sort_unstable();
        let mut heap = BinaryHeap::with_capacity(self.runs.len());
        for (number, run) in self.runs.iter_mut().enumerate() {
            heap.extend(run.next().await?.map(|entry| Reverse((entry, number))));
        }
        Ok(Merged { held: self.entries, at: 0, runs: self.runs, heap, _reservation: self.reservation })
    }
}

/// What is held in memory and the runs on disk, as one.
#[derive(Debug)]
pub struct Merged<const N: usize> {
    held: Vec<[u64; N]>,
    at: usize,
    runs: Vec<Run<N>>,
    heap: BinaryHeap<Reverse<([u64; N], usize)>>,
    _reservation: MemoryReservation,
}

impl<const N: usize> Merged<N> {
    /// The next entry.
    pub async fn next(&mut self) -> PlanResult<Option<[u64; N]>> {
        let held = self.held.get(self.at);
        let on_disk = self.heap.peek().map(|Reverse((entry, number))| (entry, *number));
        match (held, on_disk) {
            (Some(held), on_disk) if on_disk.is_none_or(|(entry, _)| held <= entry) => {
                self.at += 1;
                Ok(Some(*held))
            }
            (_, Some((entry, number))) => {
                let entry = *entry;
                self.heap.pop();
                self.heap.extend(self.runs[number].next().await?.map(|next| Reverse((next, number))));
                Ok(Some(entry))
            }
            (_, None) => Ok(None),
        }
    }
}

/// A sorted run on disk.
struct Run<const N: usize> {
    stream: SendableRecordBatchStream,
    columns: Vec<UInt64Array>,
    rows: usize,
    at: usize,
}

impl<const N: usize> std::fmt::Debug for Run<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("at", &self.at).finish_non_exhaustive()
    }
}

impl<const N: usize> Run<N> {
    async fn next(&mut self) -> PlanResult<Option<[u64; N]>> {
        while self.at == self.rows {
            let Some(batch) = self.stream.next().await.transpose()? else { return Ok(None) };
            let column = |column: &ArrayRef| {
                let column = column.as_primitive_opt::<UInt64Type>().cloned();
                column.ok_or_else(|| DataFusionError::Internal("a run of numbers has other columns".into()))
            };
            self.columns = batch.columns().iter().map(column).collect::<PlanResult<_>>()?;
            self.rows = batch.num_rows();
            self.at = 0;
        }
        self.at += 1;
        Ok(Some(std::array::from_fn(|number| self.columns[number].value(self.at - 1))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stage::EngineOptions;

    fn all(sorted: Sorted<3>) -> Vec<[u64; 3]> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut merged = sorted.finish().await.unwrap();
            let mut all = Vec::new();
            while let Some(entry) = merged.next().await.unwrap() {
                all.push(entry);
            }
            all
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn entries_come_back_in_order(count in 0_u64..20_000, factor in any::<u64>()) {
            let folder = tempfile::tempdir().unwrap();
            // Some five thousand entries may be held.
            let options = EngineOptions { memory_limit: 1 << 20, temp_dir: Some(folder.path().to_owned()), partitions: 1 };
            let engine = Engine::new(options).unwrap();
            let mut sorted = Sorted::new(&engine, "Test");
            let mut expected: Vec<[u64; 3]> = (0..count).map(|n| [n.wrapping_mul(factor) % 1_000, n % 7, n]).collect();
            expected.iter().for_each(|entry| sorted.push(*entry).unwrap());
            prop_assert_eq!(engine.spilled_bytes() > 0, count > 4096);
            expected.sort_unstable();
            prop_assert_eq!(all(sorted), expected);
            prop_assert_eq!((engine.spilled_bytes(), engine.memory_pool().reserved()), (0, 0));
        }
    }
}
