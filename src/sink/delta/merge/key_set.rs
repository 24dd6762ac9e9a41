//! Keys of a change set: collected compactly, asked which rows of old files they hit. No I/O.

use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::row::{RowConverter, SortField};
use roaring::{RoaringBitmap, RoaringTreemap};

use crate::error::{Error, Kind, Result, ResultExt};
use crate::reduce::ChangeSet;

/// Whether the key is one integer column, the normal case.
pub(in crate::sink::delta) fn is_integer(types: &[DataType]) -> bool {
    matches!(types, [DataType::Int16 | DataType::Int32 | DataType::Int64])
}

fn as_integers(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Int64 => Ok(Arc::clone(array)),
        _ => cast(array, &DataType::Int64).context(Kind::Bug, "Keys cannot be read"),
    }
}

/// Turns key columns into bytes that sort as the keys do; the bytes of the first column are a prefix.
#[derive(Debug)]
pub(in crate::sink::delta) struct KeyBytes {
    types: Vec<DataType>,
    all: RowConverter,
    first: RowConverter,
}

impl KeyBytes {
    pub(in crate::sink::delta) fn new(types: &[DataType]) -> Result<Self> {
        let converter = |types: &[DataType]| {
            RowConverter::new(types.iter().cloned().map(SortField::new).collect()).context(Kind::Bug, "Keys cannot be compared")
        };
        Ok(Self { types: types.to_vec(), all: converter(types)?, first: converter(&types[..1])? })
    }

    pub(in crate::sink::delta) fn rows(&self, columns: &[ArrayRef]) -> Result<arrow::row::Rows> {
        let columns = self
            .types
            .iter()
            .zip(columns)
            .map(|(wanted, array)| if array.data_type() == wanted { Ok(Arc::clone(array)) } else { cast(array, wanted) })
            .collect::<std::result::Result<Vec<_>, _>>()
            .context(Kind::Bug, "Keys cannot be read")?;
        self.all.convert_columns(&columns).context(Kind::Bug, "Keys cannot be compared")
    }

    fn first(&self, bound: &ArrayRef) -> Option<Vec<u8>> {
        let bound = cast(bound, &self.types[0]).ok()?;
        Some(self.first.convert_columns(&[bound]).ok()?.row(0).as_ref().to_vec())
    }
}

/// Smallest and greatest value of a file's first key column, as its statistics say; arrays of one value.
#[derive(Debug, Clone)]
pub(in crate::sink::delta) struct KeyBounds {
    /// Not above any key of the file.
    pub(in crate::sink::delta) min: ArrayRef,
    /// Not below any key of the file.
    pub(in crate::sink::delta) max: ArrayRef,
}

/// Collects keys until they are taken for a probe.
#[derive(Debug)]
pub(in crate::sink::delta) struct KeyCollector {
    bytes: Option<Arc<KeyBytes>>,
    whole: Vec<i64>,
    deleted: Vec<i64>,
    arena: Vec<u8>,
    ends: Vec<usize>,
    deleted_rows: RoaringBitmap,
}

impl KeyCollector {
    /// For key columns of these types.
    pub(in crate::sink::delta) fn new(types: &[DataType]) -> Result<Self> {
        let bytes = if is_integer(types) { None } else { Some(Arc::new(KeyBytes::new(types)?)) };
        Ok(Self {
            bytes,
            whole: Vec::new(),
            deleted: Vec::new(),
            arena: Vec::new(),
            ends: Vec::new(),
            deleted_rows: RoaringBitmap::new(),
        })
    }

    /// Takes the keys of a batch; `deletes` says which of them are deleted.
    pub(in crate::sink::delta) fn push(&mut self, columns: &[ArrayRef], deletes: &BooleanArray) -> Result<()> {
        match &self.bytes {
            None => {
                let keys = as_integers(&columns[0])?;
                let keys = keys.as_primitive::<Int64Type>();
                self.whole.extend_from_slice(keys.values());
                self.deleted.extend((0..keys.len()).filter(|row| deletes.value(*row)).map(|row| keys.value(row)));
            }
            Some(bytes) => {
                let rows = bytes.rows(columns)?;
                for (row, key) in rows.iter().enumerate() {
                    if deletes.value(row) {
                        self.deleted_rows.insert(self.ends.len() as u32);
                    }
                    self.arena.extend_from_slice(key.as_ref());
                    self.ends.push(self.arena.len());
                }
            }
        }
        Ok(())
    }

    /// Whether nothing was collected.
    pub(in crate::sink::delta) fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.ends.is_empty()
    }

    /// Memory that the set made of this will take, about.
    pub(in crate::sink::delta) fn memory_size(&self) -> usize {
        // Per key of bytes: its end, its place in the order, and two places in the table of hashes.
        (self.whole.capacity() + self.deleted.capacity()) * size_of::<i64>()
            + self.arena.capacity()
            + self.ends.capacity() * (size_of::<usize>() + 3 * size_of::<u32>())
            + self.deleted_rows.serialized_size()
    }

    /// The set of what was collected so far; the collector is empty afterwards.
    pub(in crate::sink::delta) fn take(&mut self) -> KeySet {
        let Some(bytes) = &self.bytes else {
            let (mut all, mut deleted) = (std::mem::take(&mut self.whole), std::mem::take(&mut self.deleted));
            all.sort_unstable();
            deleted.sort_unstable();
            return KeySet::Whole { all, deleted };
        };
        let arena = std::mem::take(&mut self.arena);
        let ends = std::mem::take(&mut self.ends);
        let deleted = std::mem::take(&mut self.deleted_rows);
        KeySet::Bytes(Box::new(ByteKeys::new(Arc::clone(bytes), arena, ends, deleted)))
    }
}

/// Keys to look for.
#[derive(Debug)]
pub(in crate::sink::delta) enum KeySet {
    /// Sorted integers, and those of them that are deleted.
    Whole {
        /// All.
        all: Vec<i64>,
        /// Deleted ones.
        deleted: Vec<i64>,
    },
    /// Any other key.
    Bytes(Box<ByteKeys>),
}

impl KeySet {
    /// Whether a file with these bounds can hold any of the keys.
    pub(in crate::sink::delta) fn touches(&self, bounds: Option<&KeyBounds>) -> bool {
        let Some(bounds) = bounds else { return true };
        match self {
            KeySet::Whole { all, .. } => {
                let (Ok(min), Ok(max)) = (as_integers(&bounds.min), as_integers(&bounds.max)) else { return true };
                let (min, max) = (min.as_primitive::<Int64Type>().value(0), max.as_primitive::<Int64Type>().value(0));
                let first = all.partition_point(|key| *key < min);
                all.get(first).is_some_and(|key| *key <= max)
            }
            KeySet::Bytes(keys) => {
                let (Some(min), Some(max)) = (keys.bytes.first(&bounds.min), keys.bytes.first(&bounds.max)) else {
                    return true;
                };
                let first = keys.order.partition_point(|key| keys.get(*key) < min.as_slice());
                keys.order.get(first).is_some_and(|key| {
                    // Only the first column is bounded: compare as much of the key as the bound has.
                    let key = keys.get(*key);
                    key[..key.len().min(max.len())] <= max[..]
                })
            }
        }
    }

    /// How many of the keys are within bounds, as far as that is cheap to say; else more than there are.
    pub(in crate::sink::delta) fn count_in(&self, bounds: &KeyBounds) -> usize {
        let KeySet::Whole { all, .. } = self else { return usize::MAX };
        let (Ok(min), Ok(max)) = (as_integers(&bounds.min), as_integers(&bounds.max)) else { return usize::MAX };
        let (min, max) = (min.as_primitive::<Int64Type>().value(0), max.as_primitive::<Int64Type>().value(0));
        all.partition_point(|key| *key <= max).saturating_sub(all.partition_point(|key| *key < min))
    }

    /// The first column of the keys, if they are texts.
    pub(in crate::sink::delta) fn texts(&self) -> Option<&StringArray> {
        match self {
            KeySet::Whole { .. } => None,
            KeySet::Bytes(keys) => keys.texts.get_or_init(|| keys.first_column()).as_ref(),
        }
    }

    /// Calls `hit` with the number of each row whose key is in the set, and whether that key is deleted.
    pub(in crate::sink::delta) fn matches(&self, columns: &[ArrayRef], mut hit: impl FnMut(usize, bool)) -> Result<()> {
        match self {
            KeySet::Whole { all, deleted } => {
                let keys = as_integers(&columns[0])?;
                let keys = keys.as_primitive::<Int64Type>();
                // Files are often sorted: the place of the last key is a good guess for the next.
                let mut from = 0;
                for (row, key) in keys.values().iter().enumerate() {
                    if all.get(from).is_none_or(|at| at > key) && (from == 0 || all[from - 1] < *key) {
                        continue;
                    }
                    match all.binary_search(key) {
                        Ok(place) => {
                            from = place;
                            hit(row, !deleted.is_empty() && deleted.binary_search(key).is_ok());
                        }
                        Err(place) => from = place,
                    }
                }
            }
            KeySet::Bytes(keys) => {
                let rows = keys.bytes.rows(columns)?;
                for (row, key) in rows.iter().enumerate() {
                    if let Some(found) = keys.find(key.as_ref()) {
                        hit(row, keys.deleted.contains(found));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Keys as bytes in one arena, with their order and a table of hashes.
#[derive(Debug)]
pub(in crate::sink::delta) struct ByteKeys {
    bytes: Arc<KeyBytes>,
    arena: Vec<u8>,
    ends: Vec<usize>,
    order: Vec<u32>,
    slots: Vec<u32>,
    deleted: RoaringBitmap,
    texts: OnceLock<Option<StringArray>>,
}

const FREE: u32 = u32::MAX;

impl ByteKeys {
    fn new(bytes: Arc<KeyBytes>, arena: Vec<u8>, ends: Vec<usize>, deleted: RoaringBitmap) -> Self {
        let count = ends.len();
        let slots = vec![FREE; (count * 2).next_power_of_two().max(2)];
        let mut keys = Self { bytes, arena, ends, order: (0..count as u32).collect(), slots, deleted, texts: OnceLock::new() };
        let mut order = std::mem::take(&mut keys.order);
        if !order.is_sorted_by_key(|key| keys.get(*key)) {
            order.sort_unstable_by(|a, b| keys.get(*a).cmp(keys.get(*b)));
        }
        keys.order = order;
        for key in 0..count as u32 {
            let slot = keys.slot_of(keys.get(key));
            keys.slots[slot] = key;
        }
        keys
    }

    fn get(&self, key: u32) -> &[u8] {
        let key = key as usize;
        let start = if key == 0 { 0 } else { self.ends[key - 1] };
        &self.arena[start..self.ends[key]]
    }

    fn first_column(&self) -> Option<StringArray> {
        if self.bytes.types[0] != DataType::Utf8 {
            return None;
        }
        let parser = self.bytes.all.parser();
        let rows = (0..self.ends.len() as u32).map(|key| parser.parse(self.get(key)));
        let columns = self.bytes.all.convert_rows(rows).ok()?;
        columns[0].as_string_opt::<i32>().cloned()
    }

    /// The slot that holds `key`, or the free one where it would go.
    fn slot_of(&self, key: &[u8]) -> usize {
        let mut hasher = DefaultHasher::new();
        hasher.write(key);
        let mask = self.slots.len() - 1;
        let mut slot = hasher.finish() as usize & mask;
        while self.slots[slot] != FREE && self.get(self.slots[slot]) != key {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        Some(self.slots[self.slot_of(key)]).filter(|found| *found != FREE)
    }
}

/// Checks the promise of a set that was not reduced: no key twice. Only for a single integer key, which is what snapshots of
/// the service have; callers reduce sets with any other key.
#[derive(Debug, Default)]
pub(in crate::sink::delta) struct Unique {
    seen: RoaringTreemap,
}

impl Unique {
    /// Kind `Bug` if the keys cannot be checked this way.
    pub(in crate::sink::delta) fn new(types: &[DataType]) -> Result<Self> {
        if is_integer(types) {
            return Ok(Self::default());
        }
        Err(Error::new(Kind::Bug, "A set of changes with a key that is not one integer must be reduced before a load"))
    }

    /// Takes the keys of a batch; the error is [`ChangeSet::duplicate_key`].
    pub(in crate::sink::delta) fn insert(&mut self, key: &ArrayRef) -> Result<()> {
        let keys = as_integers(key)?;
        for key in keys.as_primitive::<Int64Type>().values() {
            // Keeps the order, so that close keys stay close in the bitmap.
            if !self.seen.insert(*key as u64 ^ (1 << 63)) {
                return Err(ChangeSet::duplicate_key());
            }
        }
        Ok(())
    }

    /// Bytes held, about.
    pub(in crate::sink::delta) fn memory_size(&self) -> usize {
        self.seen.serialized_size()
    }
}

/// The key columns of a batch by name.
pub(in crate::sink::delta) fn key_columns(batch: &RecordBatch, names: &[String]) -> Result<Vec<ArrayRef>> {
    names
        .iter()
        .map(|name| {
            let array = batch.column_by_name(name);
            let array = array.ok_or_else(|| Error::new(Kind::Bug, "A key column is missing").with_field("column", name))?;
            if array.null_count() > 0 {
                return Err(Error::new(Kind::Data, "A row has no value in a key column").with_field("column", name));
            }
            Ok(Arc::clone(array))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, Int64Array};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn hits(set: &KeySet, columns: &[ArrayRef]) -> Vec<(usize, bool)> {
        let mut hits = Vec::new();
        set.matches(columns, |row, deleted| hits.push((row, deleted))).unwrap();
        hits
    }

    proptest! {
        #[test]
        fn integers_are_found_as_in_a_map(
            keys in prop::collection::btree_map(-30_i64..30, any::<bool>(), 0..40),
            rows in prop::collection::vec(-35_i64..35, 0..60),
            (min, max) in (-40_i64..40, -40_i64..40),
        ) {
            let mut collector = KeyCollector::new(&[DataType::Int64]).unwrap();
            let array: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.keys().rev().copied()));
            collector.push(&[array], &BooleanArray::from_iter(keys.values().rev().map(|deleted| Some(*deleted)))).unwrap();
            let set = collector.take();
            prop_assert!(collector.is_empty());
            let array: ArrayRef = Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| *row as i32)));
            let expected: Vec<(usize, bool)> =
                rows.iter().enumerate().filter_map(|(row, key)| keys.get(key).map(|deleted| (row, *deleted))).collect();
            prop_assert_eq!(hits(&set, &[array]), expected);
            let bounds = KeyBounds { min: Arc::new(Int64Array::from(vec![min])), max: Arc::new(Int64Array::from(vec![max])) };
            prop_assert_eq!(set.touches(Some(&bounds)), min <= max && keys.range(min..=max).next().is_some());
            prop_assert_eq!(set.count_in(&bounds), if min <= max { keys.range(min..=max).count() } else { 0 });
        }

        #[test]
        fn composite_keys_are_found_as_in_a_map(
            keys in prop::collection::btree_map(("[ab]{0,3}", -3_i32..3), any::<bool>(), 0..30),
            rows in prop::collection::vec(("[ab]{0,3}", -3_i32..3), 0..40),
            (min, max) in ("[ab]{0,2}", "[ab]{0,2}"),
        ) {
            let mut collector = KeyCollector::new(&[DataType::Utf8, DataType::Int32]).unwrap();
            let columns = |rows: &[(String, i32)]| -> Vec<ArrayRef> {
                vec![
                    Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0.as_str()))),
                    Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.1))),
                ]
            };
            let reversed: Vec<_> = keys.keys().rev().cloned().collect();
            collector.push(&columns(&reversed), &BooleanArray::from_iter(keys.values().rev().map(|deleted| Some(*deleted)))).unwrap();
            let set = collector.take();
            let expected: Vec<(usize, bool)> =
                rows.iter().enumerate().filter_map(|(row, key)| keys.get(key).map(|deleted| (row, *deleted))).collect();
            prop_assert_eq!(hits(&set, &columns(&rows)), expected);
            let bounds = KeyBounds {
                min: Arc::new(StringArray::from(vec![min.clone()])),
                max: Arc::new(StringArray::from(vec![max.clone()])),
            };
            let within = keys.keys().any(|(first, _)| *first >= min && *first <= max);
            prop_assert!(set.touches(Some(&bounds)) || !within, "a file that holds a key is never skipped");
            if min <= max && !within {
                prop_assert!(!set.touches(Some(&bounds)), "exact as long as bounds are exact");
            }
        }

        #[test]
        fn a_repeated_key_is_noticed(keys in prop::collection::vec(any::<i64>(), 0..50), again in any::<prop::sample::Index>()) {
            let mut unique = Unique::new(&[DataType::Int64]).unwrap();
            let distinct: BTreeSet<i64> = keys.iter().copied().collect();
            let array: ArrayRef = Arc::new(Int64Array::from_iter_values(distinct.iter().copied()));
            unique.insert(&array).unwrap();
            if !distinct.is_empty() {
                let key: ArrayRef = Arc::new(Int64Array::from(vec![*again.get(&distinct.iter().copied().collect::<Vec<_>>())]));
                prop_assert!(ChangeSet::is_duplicate_key(&unique.insert(&key).unwrap_err()));
            }
        }
    }

    #[test]
    fn other_keys_must_come_reduced() {
        assert_eq!(Unique::new(&[DataType::Utf8]).unwrap_err().kind(), Kind::Bug);
    }
}
