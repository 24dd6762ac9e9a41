//! Finds the rows whose keys may occur more than once, by 64-bit hashes of the keys: 16 bytes a row, sorted in memory within a
//! share of the engine's limit, beyond it merged from disk. A row that is not named has a key of its own for certain; one that
//! is named may have one by an accident of its hash.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::StreamExt;
use roaring::RoaringTreemap;

use super::Engine;
use super::spill::Spilling;

/// Bytes of a hash and its row.
const ENTRY_BYTES: usize = size_of::<Entry>();
/// Entries by which the space in memory grows, and by which runs are written and read.
const STEP: usize = 4096;

/// Hash of a key, and the number of its row.
type Entry = (u64, u64);

/// Takes the keys of all rows in order; [`KeyHashes::finish`] names those that are not alone.
pub(super) struct KeyHashes {
    state: RandomState,
    hashes: Vec<u64>,
    entries: Vec<Entry>,
    rows: u64,
    reservation: MemoryReservation,
    /// Entries that may be held.
    share: usize,
    runtime: Arc<RuntimeEnv>,
    schema: SchemaRef,
    runs: Vec<SendableRecordBatchStream>,
}

impl KeyHashes {
    /// No row was seen yet.
    pub(super) fn new(engine: &Engine) -> Self {
        let fields = ["hash", "row"].map(|name| Field::new(name, DataType::UInt64, false));
        Self {
            state: RandomState::with_seed(0),
            hashes: Vec::new(),
            entries: Vec::new(),
            rows: 0,
            reservation: MemoryConsumer::new("KeyHashes").register(engine.memory_pool()),
            share: (engine.memory_limit() / 8 / ENTRY_BYTES).max(STEP),
            runtime: Arc::clone(engine.runtime()),
            schema: Arc::new(Schema::new(fields.to_vec())),
            runs: Vec::new(),
        }
    }

    /// The next rows, by their key columns.
    pub(super) fn push(&mut self, keys: &[ArrayRef], rows: usize) -> PlanResult<()> {
        self.hashes.clear();
        self.hashes.resize(rows, 0);
        create_hashes(keys, &self.state, &mut self.hashes)?;
        let hashes = std::mem::take(&mut self.hashes);
        for hash in &hashes {
            if self.entries.len() == self.entries.capacity() {
                self.make_room()?;
            }
            self.entries.push((*hash, self.rows));
            self.rows += 1;
        }
        self.hashes = hashes;
        Ok(())
    }

    /// Grows in memory, or writes what is held to disk as a sorted run.
    fn make_room(&mut self) -> PlanResult<()> {
        let more = self.entries.capacity().clamp(STEP, self.share);
        let wanted = self.entries.capacity() + more;
        if wanted <= self.share && self.reservation.try_resize(wanted * ENTRY_BYTES).is_ok() {
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
            let hashes = UInt64Array::from_iter_values(step.iter().map(|entry| entry.0));
            let rows = UInt64Array::from_iter_values(step.iter().map(|entry| entry.1));
            run.put(&RecordBatch::try_new(Arc::clone(&self.schema), vec![Arc::new(hashes), Arc::new(rows)])?)?;
        }
        self.entries.clear();
        self.runs.push(run.finish()?);
        Ok(())
    }

    /// Numbers of the rows whose hashes are not alone.
    pub(super) async fn finish(mut self) -> PlanResult<RoaringTreemap> {
        self.entries.sort_unstable();
        let mut found = Found::default();
        let mut runs: Vec<Run> = self.runs.into_iter().map(Run::new).collect();
        let mut heap = BinaryHeap::with_capacity(runs.len());
        for (number, run) in runs.iter_mut().enumerate() {
            heap.extend(run.next().await?.map(|entry| Reverse((entry, number))));
        }
        let mut held = self.entries.iter().copied().peekable();
        while let Some(Reverse((entry, number))) = heap.pop() {
            while let Some(entry) = held.next_if(|held| *held < entry) {
                found.push(entry);
            }
            found.push(entry);
            heap.extend(runs[number].next().await?.map(|entry| Reverse((entry, number))));
        }
        held.for_each(|entry| found.push(entry));
        Ok(found.rows)
    }
}

/// Takes entries in order.
#[derive(Default)]
struct Found {
    rows: RoaringTreemap,
    last: Option<Entry>,
}

impl Found {
    fn push(&mut self, entry: Entry) {
        if let Some(last) = self.last.replace(entry)
            && last.0 == entry.0
        {
            self.rows.insert(last.1);
            self.rows.insert(entry.1);
        }
    }
}

/// A sorted run on disk.
struct Run {
    stream: SendableRecordBatchStream,
    batch: Option<(UInt64Array, UInt64Array)>,
    at: usize,
}

impl Run {
    fn new(stream: SendableRecordBatchStream) -> Self {
        Self { stream, batch: None, at: 0 }
    }

    async fn next(&mut self) -> PlanResult<Option<Entry>> {
        loop {
            if let Some((hashes, rows)) = &self.batch
                && self.at < hashes.len()
            {
                self.at += 1;
                return Ok(Some((hashes.value(self.at - 1), rows.value(self.at - 1))));
            }
            let Some(batch) = self.stream.next().await.transpose()? else { return Ok(None) };
            let column = |number: usize| {
                let column = batch.column(number).as_primitive_opt::<UInt64Type>().cloned();
                column.ok_or_else(|| DataFusionError::Internal("a run of hashes has other columns".into()))
            };
            self.batch = Some((column(0)?, column(1)?));
            self.at = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;
    use crate::stage::EngineOptions;

    fn named(engine: &Engine, batches: &[Vec<ArrayRef>]) -> PlanResult<Vec<u64>> {
        let mut hashes = KeyHashes::new(engine);
        for keys in batches {
            hashes.push(keys, keys[0].len())?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Ok(runtime.block_on(hashes.finish())?.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_row_of_a_repeated_key_is_named(keys in prop::collection::vec((-9_i64..60, "[ab]?"), 0..150), size in 1_usize..40) {
            let folder = tempfile::tempdir().unwrap();
            let options = EngineOptions { memory_limit: 1 << 20, temp_dir: Some(folder.path().to_owned()), partitions: 1 };
            let batches: Vec<Vec<ArrayRef>> = keys.chunks(size).map(|chunk| vec![
                Arc::new(Int64Array::from_iter_values(chunk.iter().map(|key| key.0))) as ArrayRef,
                Arc::new(StringArray::from_iter_values(chunk.iter().map(|key| key.1.as_str()))),
            ]).collect();
            let expected: Vec<u64> = (0..keys.len())
                .filter(|row| keys.iter().filter(|key| **key == keys[*row]).count() > 1)
                .map(|row| row as u64)
                .collect();
            // Hashes of so few keys do not meet by accident.
            prop_assert_eq!(named(&Engine::new(options).unwrap(), &batches).unwrap(), expected);
        }
    }

    #[test]
    fn keys_beyond_the_share_are_merged_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        let options = EngineOptions { memory_limit: 1 << 20, temp_dir: Some(folder.path().to_owned()), partitions: 1 };
        let engine = Engine::new(options).unwrap();
        let mut hashes = KeyHashes::new(&engine);
        // 16 bytes each: more than the eighth of a MiB that it may hold, some ten times over.
        for start in (0..90_000_i64).step_by(3_000) {
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((start..start + 3_000).map(|n| n % 89_990)));
            hashes.push(&[keys], 3_000).unwrap();
        }
        assert!(engine.spilled_bytes() > 0);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let named: Vec<u64> = runtime.block_on(hashes.finish()).unwrap().into_iter().collect();
        assert_eq!(named, (0..10).chain(89_990..90_000).collect::<Vec<_>>());
        assert_eq!(engine.spilled_bytes(), 0, "runs go when they are read");
    }
}
