//! External sort of fixed-size entries of integers. It works on the calling thread, including disk I/O.
//!
//! Entries are sorted in memory within a share of the memory limit; beyond it, sorted runs go to disk. The runs of one level share a file,
//! and when a level has enough runs they are merged into one run of the next level. So neither the number of open files nor the memory
//! for read buffers grows with the number of entries.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Result as IoResult, Seek, SeekFrom, Write};
use std::ops::Range;
use std::sync::Arc;

use datafusion::error::Result as PlanResult;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};

use super::session::Engine;

/// Smallest growth of the memory buffer, entries.
const STEP: usize = 4096;
/// Runs of one level that are merged into one run of the next.
const MOST_RUNS: usize = 32;
/// Size of a read or write buffer, bytes.
const BUFFER_BYTES: usize = 32 << 10;

/// Takes entries of `N` integers in any order; [`ExternalSorter::finish`] returns them in ascending order.
#[derive(Debug)]
pub struct ExternalSorter<const N: usize> {
    entries: Vec<[u64; N]>,
    reservation: MemoryReservation,
    /// Maximum number of entries in memory.
    share: usize,
    engine: Engine,
    levels: Vec<Level>,
}

/// Sorted runs in one unnamed temporary file, as byte ranges.
#[derive(Debug)]
struct Level {
    file: Arc<File>,
    runs: Vec<Range<u64>>,
}

impl<const N: usize> ExternalSorter<N> {
    /// An empty sorter. `name` identifies its memory in errors of the pool.
    pub fn new(engine: &Engine, name: &str) -> Self {
        Self {
            entries: Vec::new(),
            reservation: MemoryConsumer::new(name).register(engine.memory_pool()),
            share: (engine.memory_limit() / 8 / size_of::<[u64; N]>()).max(STEP),
            engine: engine.clone(),
            levels: Vec::new(),
        }
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: [u64; N]) -> PlanResult<()> {
        if self.entries.len() == self.entries.capacity() {
            self.make_room()?;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Number of runs on disk.
    #[cfg(test)]
    pub(crate) fn runs(&self) -> usize {
        self.levels.iter().map(|level| level.runs.len()).sum()
    }

    /// Grows the memory buffer, or writes it to disk as a run.
    fn make_room(&mut self) -> PlanResult<()> {
        let more = self.entries.capacity().clamp(STEP, self.share);
        let wanted = self.entries.capacity() + more;
        if wanted <= self.share && self.reservation.try_resize(wanted * size_of::<[u64; N]>()).is_ok() {
            self.entries.reserve_exact(more);
            return Ok(());
        }
        if self.entries.is_empty() {
            // The minimum, even if the pool is exhausted.
            self.entries.reserve_exact(STEP);
            return Ok(());
        }
        self.entries.sort_unstable();
        let entries = std::mem::take(&mut self.entries);
        self.level(0)?.write(entries.iter().map(|entry| Ok(*entry)))?;
        self.entries = entries;
        self.entries.clear();
        for number in 0.. {
            if self.levels[number].runs.len() < MOST_RUNS {
                break;
            }
            let mut merged = Merged::<N>::new(Vec::new(), std::slice::from_ref(&self.levels[number]))?;
            self.level(number + 1)?.write(std::iter::from_fn(|| merged.next().transpose()))?;
            self.levels[number] = Level::new(&self.engine)?;
        }
        Ok(())
    }

    fn level(&mut self, number: usize) -> IoResult<&mut Level> {
        if self.levels.len() == number {
            self.levels.push(Level::new(&self.engine)?);
        }
        Ok(&mut self.levels[number])
    }

    /// All entries in ascending order. Memory and disk are released when the iterator is dropped.
    pub fn finish(mut self) -> PlanResult<impl Iterator<Item = PlanResult<[u64; N]>>> {
        self.entries.sort_unstable();
        let mut merged = Merged::new(self.entries, &self.levels)?;
        let reservation = self.reservation;
        reservation.grow(merged.runs.len() * BUFFER_BYTES);
        Ok(std::iter::from_fn(move || {
            let _reserved = &reservation;
            merged.next().map_err(Into::into).transpose()
        }))
    }
}

impl Level {
    fn new(engine: &Engine) -> IoResult<Self> {
        Ok(Self { file: Arc::new(tempfile::tempfile_in(engine.folder())?), runs: Vec::new() })
    }

    /// Appends a run.
    fn write<const N: usize>(&mut self, entries: impl Iterator<Item = IoResult<[u64; N]>>) -> IoResult<()> {
        let start = self.file.seek(SeekFrom::End(0))?;
        let mut file = std::io::BufWriter::with_capacity(BUFFER_BYTES, &*self.file);
        for entry in entries {
            for number in entry? {
                file.write_all(&number.to_le_bytes())?;
            }
        }
        file.flush()?;
        drop(file);
        let end = self.file.stream_position()?;
        self.runs.push(start..end);
        Ok(())
    }
}

/// A merge of the entries in memory and the runs on disk.
struct Merged<const N: usize> {
    in_memory: std::vec::IntoIter<[u64; N]>,
    runs: Vec<Run<N>>,
    /// The next entry of each run, and its number.
    heap: BinaryHeap<Reverse<([u64; N], usize)>>,
}

impl<const N: usize> Merged<N> {
    fn new(in_memory: Vec<[u64; N]>, levels: &[Level]) -> IoResult<Self> {
        let mut runs = Vec::new();
        for level in levels {
            for bytes in &level.runs {
                runs.push(Run { file: Arc::clone(&level.file), bytes: bytes.clone(), buffer: Vec::new(), at: 0 });
            }
        }
        let mut heap = BinaryHeap::with_capacity(runs.len());
        for (number, run) in runs.iter_mut().enumerate() {
            heap.extend(run.next()?.map(|entry| Reverse((entry, number))));
        }
        Ok(Self { in_memory: in_memory.into_iter(), runs, heap })
    }

    fn next(&mut self) -> IoResult<Option<[u64; N]>> {
        let first = self.in_memory.as_slice().first();
        let Some(Reverse((entry, number))) = self.heap.peek() else { return Ok(self.in_memory.next()) };
        if first.is_some_and(|first| first <= entry) {
            return Ok(self.in_memory.next());
        }
        let (entry, number) = (*entry, *number);
        match self.runs[number].next()? {
            Some(next) => {
                if let Some(mut top) = self.heap.peek_mut() {
                    *top = Reverse((next, number));
                }
            }
            None => drop(self.heap.pop()),
        }
        Ok(Some(entry))
    }
}

/// A sorted run on disk with its read buffer.
struct Run<const N: usize> {
    file: Arc<File>,
    /// Bytes that were not read yet.
    bytes: Range<u64>,
    buffer: Vec<u8>,
    at: usize,
}

impl<const N: usize> Run<N> {
    fn next(&mut self) -> IoResult<Option<[u64; N]>> {
        let size = size_of::<[u64; N]>();
        if self.at == self.buffer.len() {
            let left = usize::try_from(self.bytes.end - self.bytes.start).unwrap_or(usize::MAX);
            self.buffer.resize(left.min(BUFFER_BYTES / size * size), 0);
            self.at = 0;
            if self.buffer.is_empty() {
                return Ok(None);
            }
            // All runs of a file share its position.
            self.file.seek(SeekFrom::Start(self.bytes.start))?;
            self.file.read_exact(&mut self.buffer)?;
            self.bytes.start += self.buffer.len() as u64;
        }
        let mut entry = [0; N];
        for (number, bytes) in entry.iter_mut().zip(self.buffer[self.at..].as_chunks().0) {
            *number = u64::from_le_bytes(*bytes);
        }
        self.at += size;
        Ok(Some(entry))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::EngineOptions;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn entries_are_returned_in_order(count in 0_u64..20_000, factor in any::<u64>()) {
            let folder = tempfile::tempdir().unwrap();
            // About five thousand entries fit into its share.
            let options = EngineOptions { memory_limit: 1 << 20, temp_dir: Some(folder.path().to_owned()), partitions: 1 };
            let engine = Engine::new(options).unwrap();
            let mut sorted = ExternalSorter::new(&engine, "Test");
            let mut expected: Vec<[u64; 3]> = (0..count).map(|n| [n.wrapping_mul(factor) % 1_000, n % 7, n]).collect();
            expected.iter().for_each(|entry| sorted.push(*entry).unwrap());
            prop_assert_eq!(sorted.runs() > 0, count > 4096);
            expected.sort_unstable();
            prop_assert_eq!(sorted.finish().unwrap().collect::<PlanResult<Vec<_>>>().unwrap(), expected);
            prop_assert_eq!(engine.memory_pool().reserved(), 0);
        }
    }

    #[test]
    fn runs_are_merged_by_level() {
        let folder = tempfile::tempdir().unwrap();
        let options = EngineOptions { memory_limit: 1 << 20, temp_dir: Some(folder.path().to_owned()), partitions: 1 };
        let engine = Engine::new(options).unwrap();
        let mut sorted = ExternalSorter::<1>::new(&engine, "Test");
        // Hundreds of times the share in memory, unordered.
        let count = 400 * 16_384_u64;
        for n in 0..count {
            sorted.push([n.wrapping_mul(0x9E37_79B9_7F4A_7C15)]).unwrap();
            assert!(sorted.runs() < 2 * MOST_RUNS);
        }
        assert_eq!(sorted.levels.len(), 2);
        assert!(engine.memory_pool().reserved() <= 1 << 17);
        let (mut seen, mut last, mut sum) = (0, None, 0_u64);
        for entry in sorted.finish().unwrap() {
            let [value] = entry.unwrap();
            assert!(last.replace(value) < Some(value));
            (seen, sum) = (seen + 1, sum.wrapping_add(value));
        }
        let expected = (0..count).fold(0_u64, |sum, n| sum.wrapping_add(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        assert_eq!((seen, sum), (count, expected));
    }
}
