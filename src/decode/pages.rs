//! Checks the pages of a Parquet column before the Parquet library decodes them.
//!
//! The library allocates as many values as a page claims to hold. If that number is damaged, the allocation fails and aborts the process, which no
//! caller can catch. Here a page that claims more values than its row group has, or than its bytes can hold, is an error.

use std::sync::Arc;

use parquet::basic::{Encoding, Type as PhysicalType};
use parquet::column::page::{Page, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::ChunkReader;
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescriptor;

const DICTIONARY: [Encoding; 2] = [Encoding::PLAIN_DICTIONARY, Encoding::RLE_DICTIONARY];
const COUNTED: [Encoding; 2] = [Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY];

/// Checks the pages of a chunk whose decoder trusts the number of values in a page: pages with a delta encoding of strings, which are
/// therefore read twice, and dictionaries of numbers. Other chunks cost nothing.
pub(super) fn check_chunk<R: ChunkReader + 'static>(
    file: &Arc<R>,
    chunk: &ColumnChunkMetaData,
    group_rows: usize,
) -> Result<()> {
    let has = |encodings: &[Encoding]| chunk.encodings().any(|encoding| encodings.contains(&encoding));
    let all = has(&COUNTED);
    let first = has(&DICTIONARY) && chunk.column_type() != PhysicalType::BYTE_ARRAY;
    if !all && !first {
        return Ok(());
    }
    let column = chunk.column_descr();
    let values = usize::try_from(chunk.num_values()).unwrap_or(0);
    // A column without lists has one value in each row, nulls included.
    let limit = if column.max_rep_level() == 0 { values.min(group_rows) } else { values };
    let mut pages = SerializedPageReader::new(file.clone(), chunk, group_rows, None)?;
    while let Some(page) = pages.get_next_page()? {
        check(&page, column, limit)?;
        if !all {
            break;
        }
    }
    Ok(())
}

/// Compares the number of values that a page claims with `limit` and with its bytes.
fn check(page: &Page, column: &ColumnDescriptor, limit: usize) -> Result<()> {
    let claimed = page.num_values() as usize;
    if let Page::DictionaryPage { buf, .. } = page {
        return if claimed > buf.len() / plain_width(column) { Err(too_many(claimed, column)) } else { Ok(()) };
    }
    if claimed > limit {
        return Err(too_many(claimed, column));
    }
    match page.encoding() {
        Encoding::DELTA_LENGTH_BYTE_ARRAY => delta_end(values(page, column)?, claimed, column).map(drop),
        // The lengths of prefixes, then those of suffixes.
        Encoding::DELTA_BYTE_ARRAY => {
            let values = values(page, column)?;
            let prefixes = delta_end(values, claimed, column)?;
            delta_end(values.get(prefixes..).ok_or_else(|| truncated(column))?, claimed, column).map(drop)
        }
        _ => Ok(()),
    }
}

/// The minimum size of a dictionary value, in bytes.
fn plain_width(column: &ColumnDescriptor) -> usize {
    match column.physical_type() {
        PhysicalType::BOOLEAN => 1,
        PhysicalType::INT32 | PhysicalType::FLOAT | PhysicalType::BYTE_ARRAY => 4,
        PhysicalType::INT64 | PhysicalType::DOUBLE => 8,
        PhysicalType::INT96 => 12,
        PhysicalType::FIXED_LEN_BYTE_ARRAY => usize::try_from(column.type_length()).unwrap_or(0).max(1),
    }
}

/// The bytes of a data page after its repetition and definition levels.
fn values<'p>(page: &'p Page, column: &ColumnDescriptor) -> Result<&'p [u8]> {
    let (buf, start) = match page {
        Page::DataPage { buf, num_values, def_level_encoding, rep_level_encoding, .. } => {
            let mut start = 0;
            for (level, encoding) in
                [(column.max_rep_level(), rep_level_encoding), (column.max_def_level(), def_level_encoding)]
            {
                if level > 0 {
                    start += level_bytes(&buf[start..], level, *encoding, *num_values, column)?;
                }
            }
            (buf, start)
        }
        Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, .. } => {
            (buf, *def_levels_byte_len as usize + *rep_levels_byte_len as usize)
        }
        Page::DictionaryPage { buf, .. } => (buf, 0),
    };
    buf.get(start..).ok_or_else(|| truncated(column))
}

/// The size of the levels at the start of a page of version 1, in bytes.
fn level_bytes(bytes: &[u8], most: i16, encoding: Encoding, values: u32, column: &ColumnDescriptor) -> Result<usize> {
    let length = match (encoding, bytes.first_chunk::<4>()) {
        (Encoding::RLE, Some(length)) => 4 + u32::from_le_bytes(*length) as usize,
        (Encoding::RLE, None) => return Err(truncated(column)),
        // Packed bits, of the retired encoding.
        _ => (values as usize * (i16::BITS - most.leading_zeros()) as usize).div_ceil(8),
    };
    if length > bytes.len() { Err(truncated(column)) } else { Ok(length) }
}

/// The end of a `DELTA_BINARY_PACKED` sequence of at most `limit` values.
fn delta_end(bytes: &[u8], limit: usize, column: &ColumnDescriptor) -> Result<usize> {
    let mut reader = Varints { bytes, place: 0 };
    let (Some(block), Some(parts), Some(total), Some(_first)) = (reader.next(), reader.next(), reader.next(), reader.next())
    else {
        return Err(truncated(column));
    };
    if total > limit as u64 {
        return Err(too_many(usize::try_from(total).unwrap_or(usize::MAX), column));
    }
    if parts == 0 || block == 0 || block % parts != 0 {
        return Err(damaged(format!("a page of the column {} has blocks of no valid size", column.path())));
    }
    let in_part = block / parts;
    let mut left = total.saturating_sub(1);
    while left > 0 {
        let _least = reader.next().ok_or_else(|| truncated(column))?;
        let widths = usize::try_from(parts).ok().and_then(|parts| bytes.get(reader.place..reader.place.checked_add(parts)?));
        let widths = widths.ok_or_else(|| truncated(column))?;
        let mut end = (reader.place + widths.len()) as u64;
        for width in widths {
            // A miniblock without values has a bit width, but no bytes.
            if left > 0 {
                end = end.saturating_add(u64::from(*width).saturating_mul(in_part) / 8);
            }
            left = left.saturating_sub(in_part);
        }
        reader.place = usize::try_from(end).ok().filter(|end| *end <= bytes.len()).ok_or_else(|| truncated(column))?;
    }
    Ok(reader.place)
}

/// Reads integers of seven bits to a byte.
struct Varints<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl Varints<'_> {
    fn next(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.place)?;
            self.place += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

fn too_many(claimed: usize, column: &ColumnDescriptor) -> ParquetError {
    damaged(format!("a page of the column {} claims {claimed} values, more than it can have", column.path()))
}

fn truncated(column: &ColumnDescriptor) -> ParquetError {
    damaged(format!("a page of the column {} ends too early", column.path()))
}

fn damaged(text: String) -> ParquetError {
    ParquetError::General(text)
}
