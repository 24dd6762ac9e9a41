//! Pruning within a data file: which row groups and pages can hold a set of keys, and the positions of their rows.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use parquet::arrow::arrow_reader::RowSelection;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;

use crate::error::Result;
use crate::sink::delta::log::statistics::KeyBounds;
use crate::sink::delta::merge::key_set::KeySet;
use crate::sink::delta::read::data_file::{DataFile, RowFilter};

/// The Bloom filter of a row group is read if the group has this many times more rows than there are keys.
const ROWS_PER_FILTERED_KEY: usize = 8;
/// Maximum number of rows in a page of keys, as our writer makes them.
const PAGE_ROWS: i64 = 20_000;

/// The rows of a file that can have certain keys.
pub(crate) struct Candidates {
    /// Which rows to read.
    pub(crate) rows: RowFilter,
    /// Their positions in the file.
    pub(crate) positions: Vec<Range<u32>>,
}

/// The rows of `file` that can have one of `keys`, of which `key_count` are within the bounds of the file. `column` is the physical
/// name of the first key column. Prunes row groups by bounds and Bloom filters, and pages by bounds if few keys are wanted. Returns
/// the file with its page index if that was read.
pub(crate) async fn prune(file: DataFile, keys: &KeySet, key_count: usize, column: &str) -> Result<(DataFile, Candidates)> {
    let needs_page_index = is_page_index_worthwhile(file.metadata(), keys, key_count, column);
    let mut file = if needs_page_index { file.with_page_index().await? } else { file };
    let mut groups = Vec::new();
    for number in 0..file.metadata().num_row_groups() {
        if keys.overlaps(group_bounds(file.metadata().row_group(number), column).as_ref())
            && passes_bloom_filter(&mut file, number, keys, column).await?
        {
            groups.push(number);
        }
    }
    let candidates = candidates(file.metadata(), &groups, keys, column);
    Ok((file, candidates))
}

/// Whether there are fewer keys than pages, so that some pages can be skipped.
fn is_page_index_worthwhile(metadata: &ParquetMetaData, keys: &KeySet, key_count: usize, column: &str) -> bool {
    let overlapping = metadata.row_groups().iter().filter(|group| keys.overlaps(group_bounds(group, column).as_ref()));
    let pages: i64 = overlapping.map(|group| group.num_rows() / PAGE_ROWS).sum();
    (key_count as u64) < pages.max(0) as u64
}

/// Checks the Bloom filter of a row group, unless there are too many keys for it.
async fn passes_bloom_filter(file: &mut DataFile, group: usize, keys: &KeySet, column: &str) -> Result<bool> {
    let rows = file.metadata().row_group(group).num_rows() as usize;
    let Some(strings) = keys.strings().filter(|strings| strings.len() < rows / ROWS_PER_FILTERED_KEY) else { return Ok(true) };
    let filter = file.bloom_filter(group, column).await?;
    Ok(filter.is_none_or(|filter| strings.iter().flatten().any(|text| filter.check(text))))
}

/// Of the row groups `groups`, all rows, or those of the pages that can have one of `keys` if the page index was read.
fn candidates(metadata: &ParquetMetaData, groups: &[usize], keys: &KeySet, column: &str) -> Candidates {
    let (mut read, mut positions, mut selected) = (Vec::new(), Vec::new(), Vec::new());
    // Position of the group's first row in the file, and among the groups that are read.
    let (mut start, mut offset) = (0_u32, 0_usize);
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let rows = group.num_rows() as u32;
        if groups.contains(&number) {
            let all = || std::iter::once(0..rows).collect();
            let pages: Vec<Range<u32>> = matching_pages(metadata, number, keys, column).unwrap_or_else(all);
            if !pages.is_empty() {
                read.push(number);
                positions.extend(pages.iter().map(|page| start + page.start..start + page.end));
                selected.extend(pages.iter().map(|page| offset + page.start as usize..offset + page.end as usize));
                offset += rows as usize;
            }
        }
        start += rows;
    }
    let is_all = selected.iter().map(|range| range.len()).sum::<usize>() == offset;
    let selection = (!is_all).then(|| RowSelection::from_consecutive_ranges(selected.into_iter(), offset));
    Candidates { rows: RowFilter { groups: read, selection }, positions }
}

/// Rows of the pages of a row group that can have one of `keys`; `None` if there is no page index.
fn matching_pages(metadata: &ParquetMetaData, group: usize, keys: &KeySet, column: &str) -> Option<Vec<Range<u32>>> {
    let columns = metadata.row_group(group).columns();
    let chunk = columns.iter().position(|chunk| chunk.column_path().parts() == [column])?;
    let pages = metadata.offset_index()?.get(group)?.get(chunk)?.page_locations();
    let (mins, maxes): (Vec<i64>, Vec<i64>) = match metadata.column_index()?.get(group)?.get(chunk)? {
        ColumnIndexMetaData::INT32(index) => {
            let wide = |values: &[i32]| values.iter().map(|value| i64::from(*value)).collect();
            (wide(index.min_values()), wide(index.max_values()))
        }
        ColumnIndexMetaData::INT64(index) => (index.min_values().to_vec(), index.max_values().to_vec()),
        _ => return None,
    };
    if mins.len() != pages.len() || maxes.len() != pages.len() {
        return None;
    }
    let rows = metadata.row_group(group).num_rows() as u32;
    let mut found: Vec<Range<u32>> = Vec::new();
    for (number, page) in pages.iter().enumerate() {
        let first = page.first_row_index as u32;
        let end = pages.get(number + 1).map_or(rows, |next| next.first_row_index as u32);
        if !keys.overlaps(Some(&integer_bounds(mins[number], maxes[number]))) {
            continue;
        }
        match found.last_mut() {
            Some(last) if last.end == first => last.end = end,
            _ => found.push(first..end),
        }
    }
    Some(found)
}

fn integer_bounds(min: i64, max: i64) -> KeyBounds {
    let one = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
    KeyBounds { min: one(min), max: one(max) }
}

/// Bounds of an integer key in a row group. Bounds of other types may be truncated and are not used.
fn group_bounds(group: &RowGroupMetaData, column: &str) -> Option<KeyBounds> {
    let chunk = group.columns().iter().find(|chunk| chunk.column_path().parts() == [column])?;
    let (min, max) = match chunk.statistics()? {
        Statistics::Int32(stats) => (i64::from(*stats.min_opt()?), i64::from(*stats.max_opt()?)),
        Statistics::Int64(stats) => (*stats.min_opt()?, *stats.max_opt()?),
        _ => return None,
    };
    Some(integer_bounds(min, max))
}

/// Assigns file positions to the rows of a stream that skips row groups and pages.
pub(crate) struct RowPositions {
    ranges: Vec<Range<u32>>,
    next: usize,
}

impl RowPositions {
    /// For a stream of the rows at `ranges`.
    pub(crate) fn new(ranges: Vec<Range<u32>>) -> Self {
        Self { ranges, next: 0 }
    }

    /// The positions of the next `rows` rows. A batch may span row groups.
    pub(crate) fn take(&mut self, mut rows: usize) -> BatchPositions {
        let mut positions = BatchPositions::default();
        while rows > 0 && self.next < self.ranges.len() {
            let range = &mut self.ranges[self.next];
            let taken = rows.min(range.len());
            positions.parts.push((positions.rows, range.start));
            positions.rows += taken;
            range.start += taken as u32;
            rows -= taken;
            if range.start >= range.end {
                self.next += 1;
            }
        }
        positions
    }
}

/// File positions of the rows of one batch.
#[derive(Default)]
pub(crate) struct BatchPositions {
    /// Runs of consecutive rows: first row in the batch, its position in the file.
    parts: Vec<(usize, u32)>,
    rows: usize,
}

impl BatchPositions {
    /// The file position of a row of the batch.
    pub(crate) fn get(&self, row: usize) -> u32 {
        let part = self.parts.partition_point(|(first, _)| *first <= row).saturating_sub(1);
        self.parts.get(part).map_or(0, |(first, position)| position + (row - first) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_skip_the_row_groups_that_are_not_read() {
        let mut rows = RowPositions::new(vec![10..13, 20..22, 30..40]);
        let first = rows.take(2);
        assert_eq!((first.get(0), first.get(1)), (10, 11));
        let second = rows.take(4);
        assert_eq!([0, 1, 2, 3].map(|row| second.get(row)), [12, 20, 21, 30]);
        assert_eq!(rows.take(1).get(0), 31);
    }
}
