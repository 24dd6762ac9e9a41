//! Chooses the Parquet encoding of each column from the first rows of a file.
//!
//! A dictionary pays if values repeat within a row group. If they do not, the writer hashes every value for a dictionary that it
//! discards. Then strings are written with separate lengths, and numbers and timestamps delta-encoded or plain, whichever is
//! shorter: ids in random order have long deltas, but share most of their bytes, which compresses well.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use datafusion::common::hash_utils::{RandomState, with_hashes};
use parquet::basic::Encoding;

/// Minimum number of values for an estimate.
const MIN_VALUES: usize = 100;
/// Maximum share of distinct values in a row group for which a dictionary of strings pays.
const MAX_DISTINCT_STRINGS: f64 = 0.5;
/// Share of distinct values up to which a dictionary of numbers always pays; above it, the sizes are compared.
const FEW_DISTINCT_NUMBERS: f64 = 0.2;
/// Estimated size of a dictionary as a share of plain values at which it pays: indexes compress worse than values.
const SMALLER_DICTIONARY: f64 = 0.8;
/// Share of a sample from which a value counts as frequent.
const FREQUENT: f64 = 0.02;
/// Average length in bytes from which strings are long text.
const LONG_TEXT_BYTES: usize = 100;
/// Size of a value in a row group as a share of its size in memory, approximately.
const COMPRESSED_SHARE: f64 = 0.25;
/// Number of deltas that the writer packs with the same bit width.
const MINIBLOCK: usize = 32;

/// For each column, an encoding that is better than a dictionary, if there is one. `batch` has the first rows of a file whose row
/// groups have about `row_group_bytes` bytes, compressed by zstd at `level`.
pub(crate) fn choose(batch: &RecordBatch, row_group_bytes: usize, level: i32) -> Vec<Option<Encoding>> {
    let row_bytes = batch.get_array_memory_size() as f64 / batch.num_rows().max(1) as f64 * COMPRESSED_SHARE;
    let rows = (row_group_bytes as f64 / row_bytes.max(1.0)).max(batch.num_rows() as f64);
    batch.columns().iter().map(|column| choose_for(column, rows, level)).collect()
}

/// `rows` is the number of rows that share a dictionary.
fn choose_for(column: &ArrayRef, rows: f64, level: i32) -> Option<Encoding> {
    let is_string = *column.data_type() == DataType::Utf8;
    let numbers = NumericSample::of(column);
    if !is_string && numbers.is_none() {
        return None;
    }
    let counts = count(column)?;
    let values = counts.values().sum::<usize>();
    if values < MIN_VALUES {
        return None;
    }
    let expected_values = rows * values as f64 / column.len() as f64;
    let share = distinct_share(&counts, expected_values);
    match numbers {
        None => (share > MAX_DISTINCT_STRINGS).then_some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
        Some(_) if share <= FEW_DISTINCT_NUMBERS => None,
        Some(numbers) => {
            let plain = numbers.plain_bytes(level);
            // Each distinct value is stored once, and every value as an index.
            let dictionary = (share * expected_values).max(2.0).log2().ceil() / 8.0 + share * plain;
            match numbers.delta_bytes() {
                Some(delta) if delta <= plain && delta < dictionary => Some(Encoding::DELTA_BINARY_PACKED),
                _ => (plain * SMALLER_DICTIONARY < dictionary).then_some(Encoding::PLAIN),
            }
        }
    }
}

/// The non-null values of a numeric column in their physical form.
struct NumericSample {
    values: Vec<i64>,
    /// Bytes per value.
    width: usize,
    /// Whether the values are integers, which can be delta-encoded.
    is_integer: bool,
}

impl NumericSample {
    fn of(column: &ArrayRef) -> Option<Self> {
        fn all<T: ArrowPrimitiveType>(column: &ArrayRef, value: impl Fn(T::Native) -> i64) -> Vec<i64> {
            column.as_primitive::<T>().iter().flatten().map(value).collect()
        }
        let (values, width, is_integer) = match column.data_type() {
            DataType::Int16 => (all::<Int16Type>(column, i64::from), 4, true),
            DataType::Int32 => (all::<Int32Type>(column, i64::from), 4, true),
            DataType::Int64 => (all::<Int64Type>(column, |value| value), 8, true),
            DataType::Date32 => (all::<Date32Type>(column, i64::from), 4, true),
            DataType::Timestamp(..) => (all::<TimestampMicrosecondType>(column, |value| value), 8, true),
            // Stored as integers up to 18 digits.
            DataType::Decimal128(precision, _) if *precision <= 18 => {
                (all::<Decimal128Type>(column, |value| value as i64), if *precision <= 9 { 4 } else { 8 }, true)
            }
            DataType::Float32 => (all::<Float32Type>(column, |value| value.to_bits().into()), 4, false),
            DataType::Float64 => (all::<Float64Type>(column, |value| value.to_bits() as i64), 8, false),
            _ => return None,
        };
        Some(Self { values, width, is_integer })
    }

    /// Bytes per value with plain encoding and compression.
    fn plain_bytes(&self, level: i32) -> f64 {
        let bytes: Vec<u8> = self.values.iter().flat_map(|value| value.to_le_bytes().into_iter().take(self.width)).collect();
        let compressed = zstd::bulk::compress(&bytes, level).map_or(bytes.len(), |compressed| compressed.len());
        compressed as f64 / self.values.len().max(1) as f64
    }

    /// Bytes per value with delta encoding; `None` if the type has none.
    fn delta_bytes(&self) -> Option<f64> {
        let deltas: Vec<i64> = self.values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        let bits = |miniblock: &[i64]| {
            let min = miniblock.iter().min().copied().unwrap_or_default();
            let max = miniblock.iter().map(|delta| delta.wrapping_sub(min) as u64).max().unwrap_or_default();
            (u64::BITS - max.leading_zeros()) as usize * MINIBLOCK
        };
        let bits: usize = deltas.chunks(MINIBLOCK).map(bits).sum();
        self.is_integer.then(|| bits as f64 / 8.0 / self.values.len().max(1) as f64)
    }
}

/// Whether a column has long text. A higher compression level pays for it: text is most of the bytes and seldom read.
pub(crate) fn is_long_text(column: &ArrayRef) -> bool {
    let Some(strings) = column.as_string_opt::<i32>() else { return false };
    let values = strings.len() - strings.null_count();
    let bytes = strings.value_offsets().last().zip(strings.value_offsets().first()).map_or(0, |(end, start)| end - start);
    values > 0 && bytes as usize / values >= LONG_TEXT_BYTES
}

/// How often each non-null value occurs, by the hashes of the values.
fn count(column: &ArrayRef) -> Option<HashMap<u64, usize>> {
    let nulls = column.logical_nulls();
    let counts = |hashes: &[u64]| {
        let mut counts: HashMap<u64, usize> = HashMap::new();
        for row in (0..hashes.len()).filter(|row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row))) {
            *counts.entry(hashes[row]).or_default() += 1;
        }
        Ok(counts)
    };
    with_hashes([column], &RandomState::with_seed(0), counts).ok()
}

/// The expected share of distinct values among `expected_values` values, from the counts in a sample. Frequent values do not add to it;
/// all others are assumed to be drawn at random from a set of unknown size.
fn distinct_share(counts: &HashMap<u64, usize>, expected_values: f64) -> f64 {
    let all = counts.values().sum::<usize>();
    let frequent = ((all as f64 * FREQUENT) as usize).max(8);
    let rare = counts.values().filter(|count| **count < frequent);
    let (values, distinct) = rare.fold((0, 0), |(values, distinct), count| (values + count, distinct + 1));
    if values == 0 {
        return 0.0;
    }
    let rare_share = values as f64 / all as f64;
    rare_share * distinct_share_of_rare(values, distinct, expected_values * rare_share)
}

/// The expected share of distinct values among `expected_values` values, if `values` of them have `distinct` distinct ones.
fn distinct_share_of_rare(values: usize, distinct: usize, expected_values: f64) -> f64 {
    let values = values as f64;
    let distinct = distinct as f64;
    if distinct >= values {
        return 1.0;
    }
    let expected = |set: f64, drawn: f64| set * -(-drawn / set).exp_m1();
    // The number of distinct values grows with the size of the set.
    let (mut low, mut high) = (distinct, values * values);
    for _ in 0..60 {
        let middle = (low * high).sqrt();
        if expected(middle, values) < distinct {
            low = middle;
        } else {
            high = middle;
        }
    }
    expected(high, expected_values.max(values)) / expected_values.max(values)
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

    /// Pseudo-random numbers below `below` (splitmix64).
    fn drawn(below: u64) -> impl Iterator<Item = i64> {
        (1_u64..8193).map(move |n| {
            let n = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((n ^ (n >> 31)) % below) as i64
        })
    }

    #[test]
    fn only_columns_with_repeated_values_get_a_dictionary() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(0..8192)),
            Arc::new(Int64Array::from_iter_values(drawn(40))),
            // Nearly all values of the sample are distinct, but the row group has each of them ten times.
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
    fn only_numbers_with_short_deltas_are_delta_encoded() {
        let shard = 10_000_000_000_000;
        let columns: Vec<ArrayRef> = vec![
            // Timestamps within a year in random order; ids of two shards in random order; the same ids in order.
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

    #[test]
    fn estimates_are_close_to_the_sizes_that_parquet_writes() {
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
            let numbers = NumericSample::of(batch.column(column)).unwrap();
            let zstd = Compression::ZSTD(ZstdLevel::try_new(3).unwrap());
            for (estimate, written) in [
                (numbers.plain_bytes(3), size(column, Encoding::PLAIN, zstd)),
                (numbers.delta_bytes().unwrap(), size(column, Encoding::DELTA_BINARY_PACKED, Compression::UNCOMPRESSED)),
            ] {
                assert!((estimate / written - 1.0).abs() < 0.1, "column {column}: {estimate} for {written}");
            }
        }
    }

    #[test]
    fn a_frequent_value_does_not_hide_that_others_are_distinct() {
        let text = |n: i64| if n % 4 == 0 { String::new() } else { format!("{n},{}", n * 7919) };
        let column: ArrayRef = Arc::new(StringArray::from_iter_values((0..1000).map(text)));
        assert_eq!(choose_for(&column, 100_000.0, 1), Some(Encoding::DELTA_LENGTH_BYTE_ARRAY));
    }

    #[test]
    fn long_text_is_known_by_its_average_length() {
        let column = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![None, Some(text), Some("")])) };
        assert!(is_long_text(&column(&"word ".repeat(50))));
        assert!(!is_long_text(&column("word")));
        assert!(!is_long_text(&(Arc::new(Int64Array::from(vec![1])) as ArrayRef)));
    }

    #[test]
    fn columns_with_few_values_keep_the_default_encoding() {
        let nulls: ArrayRef = Arc::new(Int64Array::from_iter((0..8192).map(|n| (n % 100 == 0).then_some(n))));
        let few: ArrayRef = Arc::new(Int64Array::from_iter_values(0..99));
        assert_eq!(choose(&batch(vec![nulls]), 1 << 20, 3), [None]);
        assert_eq!(choose(&batch(vec![few]), 1 << 20, 3), [None]);
    }
}
