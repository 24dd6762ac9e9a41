//! Checks that no key occurs twice in a change set that was not deduplicated.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use parking_lot::Mutex;
use roaring::RoaringTreemap;

use crate::engine::{Engine, engine_error};
use crate::error::{Error, Kind, Result};
use crate::sink::WriteError;
use crate::sink::delta::merge::key_set::{as_integers, is_integer};

/// Batches between two measurements of the bitmap, which take time.
const MEASURE_EVERY: usize = 64;

/// Checks that no key occurs twice. Clones share one bitmap of keys, so that several writers can check together.
///
/// Supports keys of one integer column, as most snapshots have; change sets with other keys are deduplicated first.
#[derive(Debug, Clone)]
pub(crate) struct UniqueKeyCheck(Arc<Mutex<SeenKeys>>);

#[derive(Debug)]
struct SeenKeys {
    keys: RoaringTreemap,
    has_duplicate: bool,
    batches: usize,
    memory: MemoryReservation,
}

impl UniqueKeyCheck {
    /// For key columns of these types. Kind `Bug` if the key is not one integer column.
    pub(crate) fn new(types: &[DataType], engine: &Engine) -> Result<Self> {
        if !is_integer(types) {
            let message = "A change set must be deduplicated before the load, unless its key is one integer column";
            return Err(Error::new(Kind::Bug, message));
        }
        let memory = MemoryConsumer::new("UniqueKeys").register(engine.memory_pool());
        Ok(Self(Arc::new(Mutex::new(SeenKeys { keys: RoaringTreemap::new(), has_duplicate: false, batches: 0, memory }))))
    }

    /// Whether a key was added twice.
    pub(crate) fn has_duplicate(&self) -> bool {
        self.0.lock().has_duplicate
    }

    /// Adds the keys of a batch. Fails with [`WriteError::DuplicateKey`] if a key was added before.
    pub(crate) fn insert(&self, key: &ArrayRef) -> Result<(), WriteError> {
        let keys = as_integers(key)?;
        let mut seen = self.0.lock();
        for key in keys.as_primitive::<Int64Type>().values() {
            // An order-preserving cast: close keys are close in the bitmap.
            if !seen.keys.insert(*key as u64 ^ (1 << 63)) {
                seen.has_duplicate = true;
                return Err(WriteError::DuplicateKey);
            }
        }
        seen.batches += 1;
        if seen.batches.is_multiple_of(MEASURE_EVERY) {
            let bytes = seen.keys.serialized_size();
            seen.memory.try_resize(bytes).map_err(engine_error)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use arrow::array::Int64Array;
    use proptest::prelude::*;

    use super::*;
    use crate::sink::delta::tests::engine;

    proptest! {
        #[test]
        fn a_repeated_key_is_detected(keys in prop::collection::vec(any::<i64>(), 0..50), again in any::<prop::sample::Index>()) {
            let folder = tempfile::tempdir().unwrap();
            let unique = UniqueKeyCheck::new(&[DataType::Int64], &engine(folder.path(), 1 << 20)).unwrap();
            let distinct: BTreeSet<i64> = keys.iter().copied().collect();
            let array: ArrayRef = Arc::new(Int64Array::from_iter_values(distinct.iter().copied()));
            unique.insert(&array).unwrap();
            if !distinct.is_empty() {
                let key: ArrayRef = Arc::new(Int64Array::from(vec![*again.get(&distinct.iter().copied().collect::<Vec<_>>())]));
                prop_assert!(matches!(unique.insert(&key), Err(WriteError::DuplicateKey)));
                prop_assert!(unique.has_duplicate());
            }
        }
    }

    #[test]
    fn only_keys_of_one_integer_column_can_be_checked() {
        let folder = tempfile::tempdir().unwrap();
        let error = UniqueKeyCheck::new(&[DataType::Utf8], &engine(folder.path(), 1 << 20)).unwrap_err();
        assert_eq!(error.kind(), Kind::Bug);
    }
}
