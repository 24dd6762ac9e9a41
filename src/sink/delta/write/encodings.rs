//! How the values of each column are best written, judged by the first rows of a file.
//!
//! A dictionary pays where values come again within a row group. Where they do not, the writer would fill one in vain, and hash
//! every value for it: then texts go with their lengths apart, and numbers and moments as differences or as they are, whichever
//! is shorter. Ids in no order have long differences, yet most of their bytes are alike, which compression makes use of.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use datafusion::common::hash_utils::{RandomState, with_hashes};
use parquet::basic::Encoding;

/// Values that are needed to judge a column.
const FEWEST_VALUES: usize = 256;
/// A dictionary of texts pays up to this share of different values in a row group.
const MOST_DIFFERENT_TEXTS: f64 = 0.5;
/// One of numbers always pays up to this share; above, it is compared.
const FEW_DIFFERENT_NUMBERS: f64 = 0.2;
/// Bytes of a value in a row group, of those it has in memory: about what compression leaves.
const WRITTEN_SHARE: f64 = 0.25;
/// Differences that the writer packs with one number of bits.
const PACKED_TOGETHER: usize = 32;

/// For each column, the encoding that is better than a dictionary, if one is. `batch` holds the first rows of a file whose row
/// groups have about `row_group_bytes`, packed by zstd at `level`.
pub(in crate::sink::delta) fn choose(batch: &RecordBatch, row_group_bytes: usize, level: i32) -> Vec<Option<Encoding>> {
    let row_bytes = batch.get_array_memory_size() as f64 / batch.num_rows().max(1) as f64 * WRITTEN_SHARE;
    let rows = (row_group_bytes as f64 / row_bytes.max(1.0)).max(batch.num_rows() as f64);
    batch.columns().iter().map(|column| choose_for(column, rows, level)).collect()
}

/// `rows` is the number of rows that share a dictionary.
fn choose_for(column: &ArrayRef, rows: f64, level: i32) -> Option<Encoding> {
    let is_text = *column.data_type() == DataType::Utf8;
    let numbers = Numbers::of(column);
    if !is_text && numbers.is_none() {
        return None;
    }
    let (values, different) = count(column)?;
    if values < FEWEST_VALUES {
        return None;
    }
    let more = rows * values as f64 / column.len() as f64;
    let share = expected_share(values, different, more);
    match numbers {
        None => (share > MOST_DIFFERENT_TEXTS).then_some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
        Some(_) if share <= FEW_DIFFERENT_NUMBERS => None,
        Some(numbers) => {
            let plain = numbers.packed_bytes(level);
            let differences = numbers.difference_bytes();
            // Each value goes once into the dictionary, and as a place in it wherever it comes.
            let dictionary = (share * more).max(2.0).log2().ceil() / 8.0 + share * plain;
            match differences {
                Some(differences) if differences <= plain && differences < dictionary => Some(Encoding::DELTA_BINARY_PACKED),
                _ => (plain < dictionary).then_some(Encoding::PLAIN),
            }
        }
    }
}

/// The values of a column that are not null, as they are stored.
struct Numbers {
    values: Vec<i64>,
    /// Bytes of each.
    width: usize,
    /// Whether differences of them are again such values.
    is_whole: bool,
}

impl Numbers {
    fn of(column: &ArrayRef) -> Option<Self> {
        fn all<T: ArrowPrimitiveType>(column: &ArrayRef, value: impl Fn(T::Native) -> i64) -> Vec<i64> {
            column.as_primitive::<T>().iter().flatten().map(value).collect()
        }
        let (values, width, is_whole) = match column.data_type() {
            DataType::Int16 => (all::<Int16Type>(column, i64::from), 4, true),
            DataType::Int32 => (all::<Int32Type>(column, i64::from), 4, true),
            DataType::Int64 => (all::<Int64Type>(column, |value| value), 8, true),
            DataType::Date32 => (all::<Date32Type>(column, i64::from), 4, true),
            DataType::Timestamp(..) => (all::<TimestampMicrosecondType>(column, |value| value), 8, true),
            // Up to 18 digits they are stored as whole numbers.
            DataType::Decimal128(precision, _) if *precision <= 18 => {
                (all::<Decimal128Type>(column, |value| value as i64), if *precision <= 9 { 4 } else { 8 }, true)
            }
            DataType::Float32 => (all::<Float32Type>(column, |value| value.to_bits().into()), 4, false),
            DataType::Float64 => (all::<Float64Type>(column, |value| value.to_bits() as i64), 8, false),
            _ => return None,
        };
        Some(Self { values, width, is_whole })
    }

    /// Bytes of a value when all are written as they are, and compressed.
    fn packed_bytes(&self, level: i32) -> f64 {
        let bytes: Vec<u8> = self.values.iter().flat_map(|value| value.to_le_bytes().into_iter().take(self.width)).collect();
        let packed = zstd::bulk::compress(&bytes, level).map_or(bytes.len(), |packed| packed.len());
        packed as f64 / self.values.len().max(1) as f64
    }

    /// Bytes of a value when differences are written, each with as many bits as the greatest of its neighbours.
    fn difference_bytes(&self) -> Option<f64> {
        let differences: Vec<i64> = self.values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        let bits = |together: &[i64]| {
            let least = together.iter().min().copied().unwrap_or_default();
            let greatest = together.iter().map(|difference| difference.wrapping_sub(least) as u64).max().unwrap_or_default();
            (u64::BITS - greatest.leading_zeros()) as usize * PACKED_TOGETHER
        };
        let bits: usize = differences.chunks(PACKED_TOGETHER).map(bits).sum();
        self.is_whole.then(|| bits as f64 / 8.0 / self.values.len().max(1) as f64)
    }
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

    use arrow::array::{Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Field, Schema};
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::properties::{EnabledStatistics, WriterProperties};

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
            Arc::new(StringArray::from_iter_values((0..8192).map(|n| format!("text {n}")))),
            Arc::new(StringArray::from_iter_values((0..8192).map(|n| ["graded", "unsubmitted"][n % 2]))),
            Arc::new(Float64Array::from_iter_values((0..8192).map(f64::from))),
        ];
        let batch = batch(columns);
        let row_bytes = batch.get_array_memory_size() / 8192;
        let chosen = choose(&batch, 500_000 * row_bytes / 4, 3);
        let (delta, length) = (Some(Encoding::DELTA_BINARY_PACKED), Some(Encoding::DELTA_LENGTH_BYTE_ARRAY));
        assert_eq!(chosen, [delta, None, None, length, None, Some(Encoding::PLAIN)]);
    }

    #[test]
    fn numbers_go_as_differences_only_where_those_are_short() {
        let shard = 10_000_000_000_000;
        let columns: Vec<ArrayRef> = vec![
            // Moments within a year, in no order; ids of two shards, in no order; the same in order.
            Arc::new(TimestampMicrosecondArray::from_iter_values(drawn(31_536_000_000_000))),
            Arc::new(Int64Array::from_iter_values(drawn(5_000_000).enumerate().map(|(n, id)| id + shard * (n as i64 % 7 / 6)))),
            Arc::new(Int64Array::from_iter_values((0..8192).map(|n| n + shard * (n / 5000)))),
        ];
        let batch = batch(columns);
        let row_bytes = batch.get_array_memory_size() / 8192;
        let chosen = choose(&batch, 500_000 * row_bytes / 4, 3);
        let delta = Some(Encoding::DELTA_BINARY_PACKED);
        assert_eq!(chosen, [delta, Some(Encoding::PLAIN), delta]);
    }

    /// The judgement against what Parquet makes of the same values.
    #[test]
    fn estimates_are_close_to_what_is_written() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(drawn(5_000_000))),
            Arc::new(Int64Array::from_iter_values(drawn(300).scan(0, |sum, step| {
                *sum += step;
                Some(*sum)
            }))),
            Arc::new(Int32Array::from_iter_values(drawn(9_000).map(|n| n as i32))),
        ];
        let batch = batch(columns);
        let size = |column: usize, encoding: Encoding, compression: Compression| {
            let properties = WriterProperties::builder()
                .set_dictionary_enabled(false)
                .set_encoding(encoding)
                .set_compression(compression)
                .set_statistics_enabled(EnabledStatistics::None)
                .build();
            let batch = batch.project(&[column]).unwrap();
            let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
            writer.write(&batch).unwrap();
            let file = writer.close().unwrap();
            file.row_group(0).column(0).compressed_size() as f64 / 8192.0
        };
        for column in 0..batch.num_columns() {
            let numbers = Numbers::of(batch.column(column)).unwrap();
            let zstd = Compression::ZSTD(ZstdLevel::try_new(3).unwrap());
            for (estimate, written) in [
                (numbers.packed_bytes(3), size(column, Encoding::PLAIN, zstd)),
                (numbers.difference_bytes().unwrap(), size(column, Encoding::DELTA_BINARY_PACKED, Compression::UNCOMPRESSED)),
            ] {
                assert!((estimate / written - 1.0).abs() < 0.1, "column {column}: {estimate} for {written}");
            }
        }
    }

    #[test]
    fn nulls_and_short_files_decide_nothing() {
        let nulls: ArrayRef = Arc::new(Int64Array::from_iter((0..8192).map(|n| (n % 100 == 0).then_some(n))));
        let few: ArrayRef = Arc::new(Int64Array::from_iter_values(0..100));
        assert_eq!(choose(&batch(vec![nulls]), 1 << 20, 3), [None]);
        assert_eq!(choose(&batch(vec![few]), 1 << 20, 3), [None]);
    }
}
