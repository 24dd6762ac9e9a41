//! Applies an increment to files that exist: finds the rows whose keys are in the change set, and says for each file that has
//! any whether they are marked as deleted (merge on read) or the file is written without them (copy on write).

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use deltalake::ObjectStore;
use futures::StreamExt;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use roaring::RoaringBitmap;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::columns::LakeColumn;
use super::conform::{Names, conform};
use super::keys::{KeyBounds, KeySet, key_columns};
use super::log::ActiveFile;
use super::reader::DataFile;
use super::vectors;
use super::writer::{FileFormat, TableWriter};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::stage::{Engine, engine_error};

/// Rows of a batch of key columns.
const PROBE_ROWS: usize = 8192;

/// Which rows of which files go. Filled by rounds, so that the keys of a change set need not be in memory together.
#[derive(Debug)]
pub(super) struct Probe {
    store: Arc<dyn ObjectStore>,
    files: Vec<Arc<ActiveFile>>,
    bounds: Vec<Option<KeyBounds>>,
    keys: Arc<Vec<LakeColumn>>,
    at_once: usize,
    hits: Vec<Hits>,
    memory: MemoryReservation,
}

/// What is known of the rows of one file.
#[derive(Debug, Clone, Default)]
pub(super) struct Hits {
    /// Rows that go now; none of them was gone before.
    found: u64,
    /// Numbers of the rows that are gone, by now or before.
    gone: RoaringBitmap,
    /// Rows in all, once the file was looked into.
    total: Option<u64>,
}

/// What becomes of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fate {
    /// It stays as it is.
    Stays,
    /// No row of it is left.
    Goes,
    /// The rows of these numbers are marked as deleted.
    IsMarked(RoaringBitmap),
    /// Its rows but those of these numbers are written to new files.
    IsRewritten(RoaringBitmap),
}

/// When rows are marked instead of files written anew.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MarkRule {
    /// Smaller files are written anew: that costs little, and keeps the table free of tiny files.
    pub(super) least_file_bytes: u64,
    /// Up to this share of a file's rows may be marked, in percent; beyond that, readers would carry too much that is gone.
    pub(super) most_percent: u64,
}

impl Hits {
    /// Decides over `file`. `rewrites`: its columns have to change. `rule`: `None` if rows may not be marked.
    fn fate(self, file: &ActiveFile, rewrites: bool, rule: Option<MarkRule>) -> Fate {
        if self.found == 0 && !rewrites {
            return Fate::Stays;
        }
        if self.total == Some(self.gone.len()) {
            return Fate::Goes;
        }
        // Vectors need statistics that say how many rows there are.
        let marks = match (rule, file.rows) {
            (Some(rule), Some(rows)) if !rewrites => {
                file.size >= rule.least_file_bytes
                    && self.gone.len().saturating_mul(100) <= rows.saturating_mul(rule.most_percent)
            }
            _ => false,
        };
        if marks { Fate::IsMarked(self.gone) } else { Fate::IsRewritten(self.gone) }
    }
}

impl Probe {
    /// Over `files`, whose key columns are `keys`.
    pub(super) fn new(store: Arc<dyn ObjectStore>, files: &[Arc<ActiveFile>], keys: Vec<LakeColumn>, engine: &Engine) -> Self {
        let bounds = files.iter().map(|file| keys.first().and_then(|key| file.key_bounds(key))).collect();
        let hits = vec![Hits::default(); files.len()];
        let memory = MemoryConsumer::new("DeletedRows").register(engine.memory_pool());
        let at_once = engine.partitions().max(1);
        Self { store, files: files.to_vec(), bounds, keys: Arc::new(keys), at_once, hits, memory }
    }

    /// Looks for `keys` in all files that may hold them. Gives how many of the deleted ones were there.
    pub(super) async fn round(&mut self, keys: KeySet) -> Result<u64> {
        let keys = Arc::new(keys);
        let touched: Vec<usize> = (0..self.files.len()).filter(|file| keys.touches(self.bounds[*file].as_ref())).collect();
        let mut left = touched.into_iter();
        let mut running = JoinSet::new();
        let mut deleted = 0;
        loop {
            while running.len() < self.at_once
                && let Some(index) = left.next()
            {
                let file = Arc::clone(&self.files[index]);
                let (store, columns, keys) = (Arc::clone(&self.store), Arc::clone(&self.keys), Arc::clone(&keys));
                let before = std::mem::take(&mut self.hits[index]);
                let work = async move {
                    let (hits, deleted) = probe_file(store, &file, before, &columns, &keys).await?;
                    Ok::<_, Error>((index, hits, deleted))
                };
                running.spawn(work.in_current_span());
            }
            let Some(done) = running.join_next().await else { break };
            let (index, hits, count) = done.or_fail(Kind::Bug, "Looking for keys stopped unexpectedly")??;
            self.hits[index] = hits;
            deleted += count;
        }
        // About two bits for each deleted row at best and 16 at worst; nothing here can be spilled.
        let held: usize = self.hits.iter().map(|hits| hits.gone.serialized_size()).sum();
        self.memory.resize(held);
        Ok(deleted)
    }

    /// What becomes of each file. Reads vectors of files that were not looked into but are written anew all the same.
    pub(super) async fn into_fates(self, rewrites: bool, rule: Option<MarkRule>) -> Result<Vec<Fate>> {
        let mut fates = Vec::with_capacity(self.files.len());
        for (mut hits, file) in self.hits.into_iter().zip(&self.files) {
            if rewrites && hits.total.is_none() {
                hits.gone = marked_rows(&self.store, file).await?;
            }
            fates.push(hits.fate(file, rewrites, rule));
        }
        Ok(fates)
    }
}

/// Numbers of the rows of a file that are marked as deleted.
pub(super) async fn marked_rows(store: &Arc<dyn ObjectStore>, file: &ActiveFile) -> Result<RoaringBitmap> {
    match &file.deletion_vector {
        Some(vector) => vectors::read(store, vector).await.with("of", &file.path),
        None => Ok(RoaringBitmap::new()),
    }
}

/// Rows of a file, as its footer says.
fn row_count(opened: &DataFile, file: &ActiveFile) -> Result<u32> {
    let rows = opened.metadata().file_metadata().num_rows();
    u32::try_from(rows).map_err(|_| Error::new(Kind::Unsupported, "A data file has too many rows").with("file", &file.path))
}

/// Looks for keys among the rows of a file that are not gone. Gives what is known of it now, and how many of the deleted keys
/// were there.
async fn probe_file(
    store: Arc<dyn ObjectStore>,
    file: &ActiveFile,
    before: Hits,
    columns: &[LakeColumn],
    keys: &KeySet,
) -> Result<(Hits, u64)> {
    let mut hits = before;
    if hits.total.is_none() {
        hits.gone = marked_rows(&store, file).await?;
    }
    let opened = DataFile::open(store, &file.path, file.size).await?;
    for column in columns {
        if !opened.has_column(&column.physical) {
            let error = Error::new(Kind::Target, "A data file has no key column");
            return Err(error.with("file", &file.path).with("column", &column.name));
        }
    }
    let metadata = Arc::clone(opened.metadata());
    hits.total = Some(u64::from(row_count(&opened, file)?));
    let mut groups = Vec::new();
    let mut ranges = Vec::new();
    let mut start = 0_u32;
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let end = start + group.num_rows() as u32;
        if keys.touches(group_bounds(group, &columns[0].physical).as_ref()) {
            groups.push(number);
            ranges.push(start..end);
        }
        start = end;
    }
    if groups.is_empty() {
        return Ok((hits, 0));
    }
    let mut deleted = 0;
    let mut rows = RowNumbers { ranges, next: 0 };
    let names: Vec<String> = columns.iter().map(|column| column.physical.clone()).collect();
    let mut stream = opened.stream(names.iter().map(String::as_str), groups, PROBE_ROWS)?;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(engine_error)?;
        let numbers = rows.take(batch.num_rows());
        keys.matches(&key_columns(&batch, &names)?, |row, is_deleted| {
            if hits.gone.insert(numbers.get(row)) {
                hits.found += 1;
                deleted += u64::from(is_deleted);
            }
        })?;
    }
    Ok((hits, deleted))
}

/// Smallest and greatest key of a row group of integers; other types are not worth the trouble of their truncated bounds.
fn group_bounds(group: &RowGroupMetaData, column: &str) -> Option<KeyBounds> {
    use arrow::array::{ArrayRef, Int64Array};
    let one = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
    let chunk = group.columns().iter().find(|chunk| chunk.column_path().parts() == [column])?;
    let (min, max) = match chunk.statistics()? {
        Statistics::Int32(stats) => (i64::from(*stats.min_opt()?), i64::from(*stats.max_opt()?)),
        Statistics::Int64(stats) => (*stats.min_opt()?, *stats.max_opt()?),
        _ => return None,
    };
    Some(KeyBounds { min: one(min), max: one(max) })
}

/// Numbers of the rows of a stream that leaves row groups out.
struct RowNumbers {
    ranges: Vec<Range<u32>>,
    next: usize,
}

impl RowNumbers {
    /// The numbers of the next rows. A batch may span row groups.
    fn take(&mut self, mut rows: usize) -> BatchNumbers {
        let mut numbers = BatchNumbers::default();
        while rows > 0 && self.next < self.ranges.len() {
            let range = &mut self.ranges[self.next];
            let taken = rows.min(range.len());
            numbers.parts.push((numbers.rows, range.start));
            numbers.rows += taken;
            range.start += taken as u32;
            rows -= taken;
            if range.start >= range.end {
                self.next += 1;
            }
        }
        numbers
    }
}

#[derive(Default)]
struct BatchNumbers {
    parts: Vec<(usize, u32)>,
    rows: usize,
}

impl BatchNumbers {
    fn get(&self, row: usize) -> u32 {
        let part = self.parts.partition_point(|(first, _)| *first <= row).saturating_sub(1);
        self.parts.get(part).map_or(0, |(first, number)| number + (row - first) as u32)
    }
}

/// Writes the rows of `file` that are not in `gone` to `out`, in the table's present schema.
pub(super) async fn rewrite(
    format: &Arc<FileFormat>,
    file: &Arc<ActiveFile>,
    gone: RoaringBitmap,
    engine: &Engine,
    out: &mut TableWriter,
) -> Result<()> {
    let mut rows = live_rows(format, file, gone, engine).await?;
    while let Some(batch) = rows.next().await {
        out.write(batch.map_err(engine_error)?).await?;
    }
    Ok(())
}

/// The rows of `file` that are not in `gone`, in the schema of new files. The stream fails rather than end too early.
pub(super) async fn live_rows(
    format: &Arc<FileFormat>,
    file: &Arc<ActiveFile>,
    gone: RoaringBitmap,
    engine: &Engine,
) -> Result<SendableRecordBatchStream> {
    let opened = DataFile::open(Arc::clone(&format.store), &file.path, file.size).await?;
    let metadata = Arc::clone(opened.metadata());
    let total = row_count(&opened, file)?;
    if gone.max().is_some_and(|last| last >= total) {
        return Err(
            Error::new(Kind::Target, "A deletion vector names rows that its file does not have").with("file", &file.path)
        );
    }
    let bytes: i64 = metadata.row_groups().iter().map(RowGroupMetaData::total_byte_size).sum();
    let batch_rows = engine.batch_rows((bytes as u64).div_ceil(u64::from(total).max(1)) as usize);
    let columns = format.columns.iter().map(|column| column.physical.as_str());
    let stream = opened.stream(columns, (0..metadata.num_row_groups()).collect(), batch_rows)?;
    let (format, file, schema) = (Arc::clone(format), Arc::clone(file), Arc::clone(&format.schema));
    let (state, gone) = ((stream, 0_u32), Arc::new(gone));
    let rows = futures::stream::try_unfold(state, move |(mut stream, start)| {
        let (format, file, gone) = (Arc::clone(&format), Arc::clone(&file), Arc::clone(&gone));
        async move {
            match stream.next().await {
                None if start == total => Ok(None),
                None => {
                    let error = Error::new(Kind::Bug, "A data file was not read in full").with("file", &file.path);
                    Err(DataFusionError::External(Box::new(error)))
                }
                Some(batch) => {
                    let batch = batch?;
                    let conformed = without(&batch, start, &gone)
                        .and_then(|left| conform(&left, &format.columns, &format.schema, Names::Physical))
                        .with("file", &file.path);
                    let conformed = conformed.map_err(|error| DataFusionError::External(Box::new(error)))?;
                    Ok(Some((conformed, (stream, start + batch.num_rows() as u32))))
                }
            }
        }
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
}

/// The rows of a batch, whose first row has the number `start`, that are not in `gone`.
fn without(batch: &RecordBatch, start: u32, gone: &RoaringBitmap) -> Result<RecordBatch> {
    let end = start + batch.num_rows() as u32;
    if gone.range_cardinality(start..end) == 0 {
        return Ok(batch.clone());
    }
    let kept: BooleanArray = (start..end).map(|row| Some(!gone.contains(row))).collect();
    filter_record_batch(batch, &kept).or_fail(Kind::Bug, "Rows cannot be filtered")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_numbers_follow_the_row_groups_that_are_read() {
        let mut rows = RowNumbers { ranges: vec![10..13, 20..22, 30..40], next: 0 };
        let first = rows.take(2);
        assert_eq!((first.get(0), first.get(1)), (10, 11));
        let second = rows.take(4);
        assert_eq!([0, 1, 2, 3].map(|row| second.get(row)), [12, 20, 21, 30]);
        assert_eq!(rows.take(1).get(0), 31);
    }
}
