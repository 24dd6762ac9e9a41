//! Sets of keys of a change set, for finding the rows of existing files that have these keys. No I/O.

use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::row::{RowConverter, SortField};
use roaring::RoaringBitmap;

use crate::error::{Error, Kind, Result, ResultExt};
use crate::sink::delta::log::statistics::KeyBounds;

/// Whether the key is one integer column, as in most tables.
pub(crate) fn is_integer(types: &[DataType]) -> bool {
    matches!(types, [DataType::Int16 | DataType::Int32 | DataType::Int64])
}

/// An integer key column as `Int64`.
pub(crate) fn as_integers(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Int64 => Ok(Arc::clone(array)),
        _ => cast(array, &DataType::Int64).context(Kind::Bug, "Keys cannot be read"),
    }
}

/// Converts keys to bytes with the same order. The bytes of the first key column are a prefix.
#[derive(Debug)]
pub(crate) struct KeyBytes {
    types: Vec<DataType>,
    all: RowConverter,
    first: RowConverter,
}

impl KeyBytes {
    /// For key columns of these types.
    pub(crate) fn new(types: &[DataType]) -> Result<Self> {
        let converter = |types: &[DataType]| {
            RowConverter::new(types.iter().cloned().map(SortField::new).collect()).context(Kind::Bug, "Keys cannot be compared")
        };
        Ok(Self { types: types.to_vec(), all: converter(types)?, first: converter(&types[..1])? })
    }

    /// The bytes of the keys in these key columns.
    pub(crate) fn rows(&self, columns: &[ArrayRef]) -> Result<arrow::row::Rows> {
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

/// Collects keys for a [`KeySet`].
#[derive(Debug)]
pub(crate) struct KeyCollector {
    bytes: Option<Arc<KeyBytes>>,
    integers: Vec<i64>,
    deleted_integers: Vec<i64>,
    arena: Vec<u8>,
    ends: Vec<usize>,
    deleted_rows: RoaringBitmap,
}

impl KeyCollector {
    /// For key columns of these types.
    pub(crate) fn new(types: &[DataType]) -> Result<Self> {
        let bytes = if is_integer(types) { None } else { Some(Arc::new(KeyBytes::new(types)?)) };
        Ok(Self {
            bytes,
            integers: Vec::new(),
            deleted_integers: Vec::new(),
            arena: Vec::new(),
            ends: Vec::new(),
            deleted_rows: RoaringBitmap::new(),
        })
    }

    /// Adds the keys of a batch; `deletes` indicates which of them are deleted.
    pub(crate) fn push(&mut self, columns: &[ArrayRef], deletes: &BooleanArray) -> Result<()> {
        match &self.bytes {
            None => {
                let keys = as_integers(&columns[0])?;
                let keys = keys.as_primitive::<Int64Type>();
                self.integers.extend_from_slice(keys.values());
                self.deleted_integers.extend((0..keys.len()).filter(|row| deletes.value(*row)).map(|row| keys.value(row)));
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

    /// Whether there are no keys.
    pub(crate) fn is_empty(&self) -> bool {
        self.integers.is_empty() && self.ends.is_empty()
    }

    /// Approximate size in bytes of the set that [`Self::take`] will return.
    pub(crate) fn memory_size(&self) -> usize {
        // Per byte key: its end, its position in the order, and two slots of the hash table.
        (self.integers.capacity() + self.deleted_integers.capacity()) * size_of::<i64>()
            + self.arena.capacity()
            + self.ends.capacity() * (size_of::<usize>() + 3 * size_of::<u32>())
            + self.deleted_rows.serialized_size()
    }

    /// Removes and returns the collected keys.
    pub(crate) fn take(&mut self) -> KeySet {
        let Some(bytes) = &self.bytes else {
            let (mut all, mut deleted) = (std::mem::take(&mut self.integers), std::mem::take(&mut self.deleted_integers));
            all.sort_unstable();
            deleted.sort_unstable();
            return KeySet::Integers { all, deleted };
        };
        let arena = std::mem::take(&mut self.arena);
        let ends = std::mem::take(&mut self.ends);
        let deleted = std::mem::take(&mut self.deleted_rows);
        KeySet::Bytes(Box::new(ByteKeys::new(Arc::clone(bytes), arena, ends, deleted)))
    }
}

/// Keys to look for.
#[derive(Debug)]
pub(crate) enum KeySet {
    /// Keys of one integer column.
    Integers {
        /// All keys, sorted.
        all: Vec<i64>,
        /// The deleted ones among them, sorted.
        deleted: Vec<i64>,
    },
    /// Other keys.
    Bytes(Box<ByteKeys>),
}

impl KeySet {
    /// Whether a file with these bounds can have any of the keys.
    pub(crate) fn overlaps(&self, bounds: Option<&KeyBounds>) -> bool {
        let Some(bounds) = bounds else { return true };
        match self {
            KeySet::Integers { all, .. } => {
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
                    // Only the first key column has bounds: compare that prefix of the key.
                    let key = keys.get(*key);
                    key[..key.len().min(max.len())] <= max[..]
                })
            }
        }
    }

    /// Number of keys within bounds; `usize::MAX` if it is not known.
    pub(crate) fn count_in(&self, bounds: &KeyBounds) -> usize {
        let KeySet::Integers { all, .. } = self else { return usize::MAX };
        let (Ok(min), Ok(max)) = (as_integers(&bounds.min), as_integers(&bounds.max)) else { return usize::MAX };
        let (min, max) = (min.as_primitive::<Int64Type>().value(0), max.as_primitive::<Int64Type>().value(0));
        all.partition_point(|key| *key <= max).saturating_sub(all.partition_point(|key| *key < min))
    }

    /// The values of the first key column, if they are strings.
    pub(crate) fn strings(&self) -> Option<&StringArray> {
        match self {
            KeySet::Integers { .. } => None,
            KeySet::Bytes(keys) => keys.strings.get_or_init(|| keys.first_column()).as_ref(),
        }
    }

    /// Calls `found` with each row whose key is in the set, and with whether that key is deleted.
    pub(crate) fn matches(&self, columns: &[ArrayRef], mut found: impl FnMut(usize, bool)) -> Result<()> {
        match self {
            KeySet::Integers { all, deleted } => {
                let keys = as_integers(&columns[0])?;
                let keys = keys.as_primitive::<Int64Type>();
                // Files are often sorted: the next key is probably near the last one.
                let mut from = 0;
                for (row, key) in keys.values().iter().enumerate() {
                    if all.get(from).is_none_or(|at| at > key) && (from == 0 || all[from - 1] < *key) {
                        continue;
                    }
                    match all.binary_search(key) {
                        Ok(position) => {
                            from = position;
                            found(row, !deleted.is_empty() && deleted.binary_search(key).is_ok());
                        }
                        Err(position) => from = position,
                    }
                }
            }
            KeySet::Bytes(keys) => {
                let rows = keys.bytes.rows(columns)?;
                for (row, key) in rows.iter().enumerate() {
                    if let Some(key) = keys.find(key.as_ref()) {
                        found(row, keys.deleted.contains(key));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Keys as bytes in one arena, with their sort order and a hash table.
#[derive(Debug)]
pub(crate) struct ByteKeys {
    bytes: Arc<KeyBytes>,
    arena: Vec<u8>,
    ends: Vec<usize>,
    order: Vec<u32>,
    slots: Vec<u32>,
    deleted: RoaringBitmap,
    strings: OnceLock<Option<StringArray>>,
}

const FREE: u32 = u32::MAX;

impl ByteKeys {
    fn new(bytes: Arc<KeyBytes>, arena: Vec<u8>, ends: Vec<usize>, deleted: RoaringBitmap) -> Self {
        let count = ends.len();
        let slots = vec![FREE; (count * 2).next_power_of_two().max(2)];
        let mut keys =
            Self { bytes, arena, ends, order: (0..count as u32).collect(), slots, deleted, strings: OnceLock::new() };
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

    /// The slot of `key`, or the free slot for it.
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
        Some(self.slots[self.slot_of(key)]).filter(|key| *key != FREE)
    }
}

/// The key columns of a batch by name. Kind `Data` if one of them has nulls.
pub(crate) fn key_columns(batch: &RecordBatch, names: &[String]) -> Result<Vec<ArrayRef>> {
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

    fn matches(set: &KeySet, columns: &[ArrayRef]) -> Vec<(usize, bool)> {
        let mut matches = Vec::new();
        set.matches(columns, |row, deleted| matches.push((row, deleted))).unwrap();
        matches
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
            prop_assert_eq!(matches(&set, &[array]), expected);
            let bounds = KeyBounds { min: Arc::new(Int64Array::from(vec![min])), max: Arc::new(Int64Array::from(vec![max])) };
            prop_assert_eq!(set.overlaps(Some(&bounds)), min <= max && keys.range(min..=max).next().is_some());
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
            prop_assert_eq!(matches(&set, &columns(&rows)), expected);
            let bounds = KeyBounds {
                min: Arc::new(StringArray::from(vec![min.clone()])),
                max: Arc::new(StringArray::from(vec![max.clone()])),
            };
            let within = keys.keys().any(|(first, _)| *first >= min && *first <= max);
            prop_assert!(set.overlaps(Some(&bounds)) || !within, "a file with a matching key is never skipped");
            if min <= max && !within {
                prop_assert!(!set.overlaps(Some(&bounds)), "exact bounds give an exact answer");
            }
        }
    }
}
