//! Finds the rows whose keys may occur more than once, by 64-bit hashes of the keys: 16 bytes a row, sorted within a share of the memory
//! limit and merged from disk beyond it. A row that is not reported has a unique key; a reported row may have one, if hashes collide.

use datafusion::arrow::array::ArrayRef;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::error::{DataFusionError, Result as PlanResult};
use roaring::RoaringTreemap;

use crate::engine::{Engine, ExternalSorter};

/// Takes the keys of all rows in order; [`DuplicateKeys::finish`] returns the rows with duplicates.
pub(super) struct DuplicateKeys {
    /// Hash of a key and row number.
    entries: ExternalSorter<2>,
    rows: u64,
}

impl DuplicateKeys {
    /// A detector without rows.
    pub(super) fn new(engine: &Engine) -> Self {
        Self { entries: ExternalSorter::new(engine, "DuplicateKeys"), rows: 0 }
    }

    /// Adds rows by their key columns.
    pub(super) fn push(&mut self, keys: &[ArrayRef], rows: usize) -> PlanResult<()> {
        let mut hashes = vec![0; rows];
        create_hashes(keys, &RandomState::with_seed(0), &mut hashes)?;
        for hash in hashes {
            self.entries.push([hash, self.rows])?;
            self.rows += 1;
        }
        Ok(())
    }

    /// Numbers of the rows whose hash occurs more than once.
    pub(super) async fn finish(self) -> PlanResult<RoaringTreemap> {
        // It may read from disk.
        tokio::task::spawn_blocking(move || self.find())
            .await
            .map_err(|error| DataFusionError::ExecutionJoin(Box::new(error)))?
    }

    fn find(self) -> PlanResult<RoaringTreemap> {
        let mut found = RoaringTreemap::new();
        let mut last: Option<[u64; 2]> = None;
        for entry in self.entries.finish()? {
            let entry = entry?;
            if let Some(last) = last.replace(entry)
                && last[0] == entry[0]
            {
                found.extend([last[1], entry[1]]);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Int64Array, StringArray};
    use proptest::prelude::*;

    use super::*;
    use crate::engine::EngineOptions;

    fn found(engine: &Engine, batches: &[Vec<ArrayRef>]) -> PlanResult<Vec<u64>> {
        let mut hashes = DuplicateKeys::new(engine);
        for keys in batches {
            hashes.push(keys, keys[0].len())?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Ok(runtime.block_on(hashes.finish())?.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_row_of_a_duplicate_key_is_found(keys in prop::collection::vec((-9_i64..60, "[ab]?"), 0..150), size in 1_usize..40) {
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
            // Hashes of so few keys do not collide.
            prop_assert_eq!(found(&Engine::new(options).unwrap(), &batches).unwrap(), expected);
        }
    }

    #[test]
    fn keys_beyond_the_share_are_merged_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        let options = EngineOptions { memory_limit: 1 << 20, temp_dir: Some(folder.path().to_owned()), partitions: 1 };
        let engine = Engine::new(options).unwrap();
        let mut hashes = DuplicateKeys::new(&engine);
        // 16 bytes each: about ten times its share of 128 KiB.
        for start in (0..90_000_i64).step_by(3_000) {
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((start..start + 3_000).map(|n| n % 89_990)));
            hashes.push(&[keys], 3_000).unwrap();
        }
        assert!(hashes.entries.runs() > 0);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found: Vec<u64> = runtime.block_on(hashes.finish()).unwrap().into_iter().collect();
        assert_eq!(found, (0..10).chain(89_990..90_000).collect::<Vec<_>>());
        assert_eq!(engine.memory_pool().reserved(), 0);
    }
}
