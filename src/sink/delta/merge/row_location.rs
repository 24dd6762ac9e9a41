//! Where the row of each change was written, with what is needed to find the newest change of each key afterwards.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, TimestampMicrosecondType, UInt64Type};
use async_trait::async_trait;

use crate::error::{Error, Kind, Result};
use crate::schema::{SEQ, TS};
use crate::sink::delta::merge::key_set::KeyBytes;
use crate::sink::delta::write::parquet_writer::BatchLocation;

/// File number of a change without a row, which is a delete.
pub(crate) const NO_FILE: u32 = u32::MAX;

/// Where the row of a change was written. The order of locations is: key, time of the change, position in the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowLocation {
    /// 128-bit hash of the key. Two of 10⁹ keys collide with a probability of 10⁻²¹.
    pub(crate) key_hash: [u64; 2],
    /// Time of the change in microseconds, mapped to unsigned integers of the same order; 0 if the change has no time.
    pub(crate) changed_at: u64,
    /// Position of the change in the result.
    pub(crate) sequence: u64,
    /// Number of the file, or [`NO_FILE`].
    pub(crate) file: u32,
    /// Position of the row in the file.
    pub(crate) row: u32,
}

impl RowLocation {
    /// Packs the location for the external sorter; entries have the order of locations.
    pub(crate) fn to_entry(self) -> [u64; 5] {
        let place = (u64::from(self.file) << 32) | u64::from(self.row);
        [self.key_hash[0], self.key_hash[1], self.changed_at, self.sequence, place]
    }

    /// The inverse of [`Self::to_entry`].
    pub(crate) fn from_entry([first, second, changed_at, sequence, place]: [u64; 5]) -> Self {
        Self { key_hash: [first, second], changed_at, sequence, file: (place >> 32) as u32, row: place as u32 }
    }
}

/// Receives row locations while rows are written.
#[async_trait]
pub(crate) trait RowLocationSink: Debug + Send + Sync {
    /// Whether deletes are allowed; their locations have [`NO_FILE`].
    fn accepts_deletes(&self) -> bool;

    /// Adds locations.
    async fn push(&self, locations: Vec<RowLocation>) -> Result<()>;
}

/// Makes row locations. Clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct RowLocator(Arc<KeyBytes>);

impl RowLocator {
    /// For key columns of these types.
    pub(crate) fn new(types: &[DataType]) -> Result<Self> {
        Ok(Self(Arc::new(KeyBytes::new(types)?)))
    }

    /// The locations of the deletes in a batch that has nothing else. `keys` are its key columns.
    pub(crate) fn locate_deletes(&self, batch: &RecordBatch, keys: &[ArrayRef]) -> Result<Vec<RowLocation>> {
        self.locate(batch, keys, &[BatchLocation { file: NO_FILE, first: 0, rows: None }])
    }

    /// The locations of the rows of a batch of changes that was written to `written`. `keys` are its key columns.
    pub(crate) fn locate(&self, batch: &RecordBatch, keys: &[ArrayRef], written: &[BatchLocation]) -> Result<Vec<RowLocation>> {
        let hashes = self.hashes(keys)?;
        let times = batch.column_by_name(TS).and_then(|times| times.as_primitive_opt::<TimestampMicrosecondType>());
        let sequences = batch.column_by_name(SEQ).and_then(|sequences| sequences.as_primitive_opt::<UInt64Type>());
        let (Some(times), Some(sequences)) = (times, sequences) else {
            return Err(Error::new(Kind::Bug, "A change batch lacks a column"));
        };
        // As in the deduplication of change sets, a change without a time is the oldest.
        let changed_at = |row: usize| if times.is_null(row) { 0 } else { times.value(row) as u64 ^ (1 << 63) };
        let location = |row: usize, file: u32, position: u32| RowLocation {
            key_hash: hashes[row],
            changed_at: changed_at(row),
            sequence: sequences.value(row),
            file,
            row: position,
        };
        let mut locations = Vec::with_capacity(batch.num_rows());
        for BatchLocation { file, first, rows } in written {
            match rows {
                None => locations.extend((0..batch.num_rows()).map(|row| location(row, *file, first + row as u32))),
                Some(rows) => {
                    let positions = rows.values().iter().zip(*first..);
                    locations.extend(positions.map(|(row, position)| location(*row as usize, *file, position)));
                }
            }
        }
        Ok(locations)
    }

    fn hashes(&self, keys: &[ArrayRef]) -> Result<Vec<[u64; 2]>> {
        let hash = |key: &[u8]| {
            let mut second = DefaultHasher::new();
            second.write_u8(1);
            let mut first = DefaultHasher::new();
            first.write(key);
            second.write(key);
            [first.finish(), second.finish()]
        };
        if let [key] = keys
            && let Some(strings) = key.as_string_opt::<i32>()
        {
            return Ok((0..strings.len()).map(|row| hash(strings.value(row).as_bytes())).collect());
        }
        Ok(self.0.rows(keys)?.iter().map(|key| hash(key.as_ref())).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_location() -> impl Strategy<Value = RowLocation> {
        ((0..2_u64, any::<u64>()), 0..3_u64, 0..3_u64, any::<u32>(), any::<u32>()).prop_map(
            |((first, second), changed_at, sequence, file, row)| RowLocation {
                key_hash: [first, second],
                changed_at,
                sequence,
                file,
                row,
            },
        )
    }

    proptest! {
        #[test]
        fn entries_keep_values_and_order(one in any_location(), other in any_location()) {
            prop_assert_eq!(RowLocation::from_entry(one.to_entry()), one);
            prop_assert_eq!(one.to_entry().cmp(&other.to_entry()), one.cmp(&other));
        }
    }
}
