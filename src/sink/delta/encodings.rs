//! How the values of each column are best written, judged by the first rows of a file.
//!
//! A dictionary pays where values come again within a row group. Where they do not, the writer would fill one in vain, and hash
//! every value for it: then whole numbers and moments go as differences, texts with their lengths apart.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::common::hash_utils::{RandomState, with_hashes};
use parquet::basic::Encoding;

/// Values that are needed to judge a column.
const FEWEST_VALUES: usize = 256;
/// A dictionary pays up to this share of different values in a row group.
const MOST_DIFFERENT: f64 = 0.5;
/// Bytes of a value in a row group, of those it has in memory: about what compression leaves.
const WRITTEN_SHARE: f64 = 0.25;

/// For each column, the encoding that is better than a dictionary, if one is. `batch` holds the first rows of a file whose row
/// groups have about `row_group_bytes`.
pub(super) fn choose(batch: &RecordBatch, row_group_bytes: usize) -> Vec<Option<Encoding>> {
    let row_bytes = batch.get_array_memory_size() as f64 / batch.num_rows().max(1) as f64 * WRITTEN_SHARE;
    let rows = (row_group_bytes as f64 / row_bytes.max(1.0)).max(batch.num_rows() as f64);
    batch.columns().iter().map(|column| choose_for(column, rows)).collect()
}

/// `rows` is the number of rows that share a dictionary.
fn choose_for(column: &ArrayRef, rows: f64) -> Option<Encoding> {
    let encoding = match column.data_type() {
        DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Date32 | DataType::Timestamp(..) => {
            Encoding::DELTA_BINARY_PACKED
        }
        // Up to 18 digits they are stored as whole numbers.
        DataType::Decimal128(precision, _) if *precision <= 18 => Encoding::DELTA_BINARY_PACKED,
        DataType::Float32 | DataType::Float64 => Encoding::PLAIN,
        DataType::Utf8 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        _ => return None,
    };
    let (values, different) = count(column)?;
    if values < FEWEST_VALUES {
        return None;
    }
    let share = values as f64 / column.len() as f64;
    (expected_share(values, different, rows * share) > MOST_DIFFERENT).then_some(encoding)
}

/// Values that are not null, and how many of them are different; the hashes decide.
fn count(column: &ArrayRef) -> Option<(usize, usize)> {
    let nulls = column.logical_nulls();
    let seen = |hashes: &[u64]| {
        let valid = (0..hashes.len()).filter(|row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row)));
        let hashes: Vec<u64> = valid.map(|row| hashes[row]).collect();
        Ok((hashes.len(), hashes.into_iter().collect::<HashSet<u64>>().len()))
    };
    with_hashes([column], &RandomState::with_seed(0), seen).ok()
}

/// The share of different values to expect among `more` values, when `values` of them had so many different ones: as if each was
/// drawn from a set of unknown size.
fn expected_share(values: usize, different: usize, more: f64) -> f64 {
    let values = values as f64;
    let different = different as f64;
    if different >= values {
        return 1.0;
    }
    let expected = |set: f64, drawn: f64| set * -(-drawn / set).exp_m1();
    // The number of different values grows with the size of the set.
    let (mut low, mut high) = (different, values * values);
    for _ in 0..60 {
        let middle = (low * high).sqrt();
        if expected(middle, values) < different {
            low = middle;
        } else {
            high = middle;
        }
    }
    expected(high, more.max(values)) / more.max(values)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        let fields = columns.iter().enumerate().map(|(n, column)| Field::new(n.to_string(), column.data_type().clone(), true));
        RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns).unwrap()
    }

    /// Numbers as if by chance below `below` (splitmix64).
    fn drawn(below: u64) -> impl Iterator<Item = i64> {
        (1_u64..8193).map(move |n| {
            let n = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((n ^ (n >> 31)) % below) as i64
        })
    }

    #[test]
    fn what_comes_again_gets_a_dictionary_and_the_rest_does_not() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(0..8192)),
            Arc::new(Int64Array::from_iter_values(drawn(40))),
            // Nearly all of the sample are different, and yet the row group holds each ten times.
            Arc::new(Int64Array::from_iter_values(drawn(50_000))),
            Arc::new(Int64Array::from_iter_values(drawn(5_000_000))),
            Arc::new(StringArray::from_iter_values((0..8192).map(|n| format!("text {n}")))),
            Arc::new(StringArray::from_iter_values((0..8192).map(|n| ["graded", "unsubmitted"][n % 2]))),
            Arc::new(Float64Array::from_iter_values((0..8192).map(f64::from))),
        ];
        let batch = batch(columns);
        let row_bytes = batch.get_array_memory_size() / 8192;
        let chosen = choose(&batch, 500_000 * row_bytes / 4);
        let (delta, length) = (Some(Encoding::DELTA_BINARY_PACKED), Some(Encoding::DELTA_LENGTH_BYTE_ARRAY));
        assert_eq!(chosen, [delta, None, None, delta, length, None, Some(Encoding::PLAIN)]);
    }

    #[test]
    fn nulls_and_short_files_decide_nothing() {
        let nulls: ArrayRef = Arc::new(Int64Array::from_iter((0..8192).map(|n| (n % 100 == 0).then_some(n))));
        let few: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
        assert_eq!(choose(&batch(vec![nulls]), 1 << 20), [None]);
        assert_eq!(choose(&batch(vec![few]), 1 << 20), [None]);
    }
}
