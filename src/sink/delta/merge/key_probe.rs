//! Applies an increment to files that exist: finds the rows whose keys are in the change set, and says for each file that has
//! any whether they are marked as deleted (merge on read) or the file is written without them (copy on write).

use std::iter;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use deltalake::ObjectStore;
use futures::StreamExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::RowSelection;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::engine::{Engine, engine_error};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::table_log::ActiveFile;
use crate::sink::delta::merge::key_set::{KeyBounds, KeySet, key_columns};
use crate::sink::delta::read::data_file::{DataFile, Located, Rows};
use crate::sink::delta::write::deletion_vectors;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::delta::write::schema_cast::{Names, conform};

/// Rows of a batch of key columns.
pub(in crate::sink::delta) const PROBE_ROWS: usize = 8192;
/// A row group's filter is asked if it has so many times more rows than there are keys.
const ROWS_PER_FILTERED_KEY: usize = 8;
/// Rows of a page of keys, at most, as our writer makes them.
const PAGE_ROWS: i64 = 20_000;

/// Which rows of which files go. Filled by rounds, so that the keys of a change set need not be in memory together.
#[derive(Debug)]
pub(in crate::sink::delta) struct Probe {
    store: Arc<dyn ObjectStore>,
    files: Vec<Arc<ActiveFile>>,
    bounds: Vec<Option<KeyBounds>>,
    keys: Arc<Vec<LakeColumn>>,
    look: Arc<Look>,
    at_once: usize,
    hits: Vec<Hits>,
    memory: MemoryReservation,
}

/// Which rows are looked at, and what is noted of those that are found.
#[derive(Debug, Clone, Default)]
pub(in crate::sink::delta) struct Look {
    /// Only rows with true in this column.
    pub(in crate::sink::delta) only: Option<LakeColumn>,
    /// Not into files that have no null in this column, as their statistics say.
    pub(in crate::sink::delta) unless_full: Option<LakeColumn>,
    /// Which numbers are kept apart.
    pub(in crate::sink::delta) note: Note,
}

/// Of which rows the numbers are kept apart from those that were gone before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::sink::delta) enum Note {
    /// Of none.
    #[default]
    Nothing,
    /// Of those that a delete hit.
    Deleted,
    /// Of all.
    All,
    /// Of all, and again of those that a delete hit.
    Told,
}

/// Rows of a file that go now, as [`Note::Told`] has them.
#[derive(Debug)]
pub(in crate::sink::delta) struct Went {
    /// Which file.
    pub(in crate::sink::delta) file: Arc<ActiveFile>,
    /// Numbers of the rows.
    pub(in crate::sink::delta) rows: RoaringBitmap,
    /// Those of them whose keys are deleted rather than given other values.
    pub(in crate::sink::delta) by_delete: RoaringBitmap,
}

/// What is known of the rows of one file.
#[derive(Debug, Clone, Default)]
pub(in crate::sink::delta) struct Hits {
    /// Rows that go now; none of them was gone before.
    found: u64,
    /// Numbers of the rows that are gone, by now or before.
    gone: RoaringBitmap,
    /// Numbers of rows that go now, as far as they are noted.
    noted: RoaringBitmap,
    /// With [`Note::Told`], those of them that a delete hit.
    by_delete: RoaringBitmap,
    /// Rows in all, once the file was looked into.
    total: Option<u64>,
}

/// What becomes of a file.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::sink::delta) enum Fate {
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
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(in crate::sink::delta) struct MarkRule {
    /// Smaller files are written anew: that costs little, and keeps the table free of tiny files.
    pub(in crate::sink::delta) least_file_bytes: u64,
    /// Up to this share of a file's rows may be marked, in percent; beyond that, readers would carry too much that is gone.
    pub(in crate::sink::delta) most_percent: u64,
}

impl MarkRule {
    /// Whether so many of the rows of a file of this size are marked.
    pub(in crate::sink::delta) fn marks(&self, bytes: u64, gone: u64, rows: u64) -> bool {
        bytes >= self.least_file_bytes && gone.saturating_mul(100) <= rows.saturating_mul(self.most_percent)
    }
}

impl Hits {
    /// A row goes. Whether it was there until now.
    fn hit(&mut self, row: u32, is_deleted: bool, note: Note) -> bool {
        let is_new = self.gone.insert(row);
        if is_new {
            self.found += 1;
            if matches!(note, Note::All | Note::Told) || (note == Note::Deleted && is_deleted) {
                self.noted.insert(row);
            }
            if note == Note::Told && is_deleted {
                self.by_delete.insert(row);
            }
        }
        is_new
    }

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
            (Some(rule), Some(rows)) if !rewrites => rule.marks(file.size, self.gone.len(), rows),
            _ => false,
        };
        if marks { Fate::IsMarked(self.gone) } else { Fate::IsRewritten(self.gone) }
    }
}

impl Probe {
    /// Over `files`, whose key columns are `keys`.
    pub(in crate::sink::delta) fn new(
        store: Arc<dyn ObjectStore>,
        files: &[Arc<ActiveFile>],
        keys: Vec<LakeColumn>,
        look: Look,
        engine: &Engine,
    ) -> Self {
        let bounds = files.iter().map(|file| keys.first().and_then(|key| file.key_bounds(key))).collect();
        let hits = vec![Hits::default(); files.len()];
        let memory = MemoryConsumer::new("DeletedRows").register(engine.memory_pool());
        let at_once = engine.partitions().max(1);
        Self { store, files: files.to_vec(), bounds, keys: Arc::new(keys), look: Arc::new(look), at_once, hits, memory }
    }

    /// Looks for `keys` in all files that may hold them. Gives how many of the deleted ones were there.
    pub(in crate::sink::delta) async fn round(&mut self, keys: KeySet) -> Result<u64> {
        let keys = Arc::new(keys);
        let may_hold = |file: &usize| keys.touches(self.bounds[*file].as_ref()) && self.is_looked_into(*file);
        let touched: Vec<usize> = (0..self.files.len()).filter(may_hold).collect();
        let mut left = touched.into_iter();
        let mut running = JoinSet::new();
        let mut deleted = 0;
        loop {
            while running.len() < self.at_once
                && let Some(index) = left.next()
            {
                let file = Arc::clone(&self.files[index]);
                let (store, columns, keys) = (Arc::clone(&self.store), Arc::clone(&self.keys), Arc::clone(&keys));
                let look = Arc::clone(&self.look);
                let before = std::mem::take(&mut self.hits[index]);
                let work = async move {
                    let (hits, deleted) = probe_file(store, &file, before, &columns, &look, &keys).await?;
                    Ok::<_, Error>((index, hits, deleted))
                };
                running.spawn(work.in_current_span());
            }
            let Some(done) = running.join_next().await else { break };
            let (index, hits, count) = done.context(Kind::Bug, "Looking for keys stopped unexpectedly")??;
            self.hits[index] = hits;
            deleted += count;
        }
        self.account();
        Ok(deleted)
    }

    /// About two bits for each deleted row at best and 16 at worst; nothing here can be spilled.
    fn account(&self) {
        let size =
            |hits: &Hits| [&hits.gone, &hits.noted, &hits.by_delete].iter().map(|rows| rows.serialized_size()).sum::<usize>();
        self.memory.resize(self.hits.iter().map(size).sum());
    }

    fn is_looked_into(&self, file: usize) -> bool {
        self.look.unless_full.as_ref().is_none_or(|column| self.files[file].null_count(column) != Some(0))
    }

    /// All rows with true in a column go, whatever their keys.
    pub(in crate::sink::delta) async fn sweep(&mut self, column: &LakeColumn) -> Result<()> {
        for number in 0..self.files.len() {
            if !self.is_looked_into(number) {
                continue;
            }
            let file = Arc::clone(&self.files[number]);
            let opened = DataFile::open(Arc::clone(&self.store), &file.path, file.size).await?;
            let hits = &mut self.hits[number];
            if hits.total.is_none() {
                hits.gone = marked_rows(&self.store, &file).await?;
            }
            hits.total = Some(u64::from(row_count(&opened, &file.path)?));
            if !opened.has_column(&column.physical) {
                continue;
            }
            let rows = Rows::all(opened.metadata());
            let mut stream = opened.stream(std::iter::once(column.physical.as_str()), rows, PROBE_ROWS)?;
            let mut start = 0;
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(engine_error)?;
                let flags = flags_of(&batch, column)?;
                for row in (0..flags.len()).filter(|row| flags.is_valid(*row) && flags.value(*row)) {
                    hits.hit(start + row as u32, false, self.look.note);
                }
                start += flags.len() as u32;
            }
        }
        self.account();
        Ok(())
    }

    /// The noted rows of each file.
    pub(in crate::sink::delta) fn take_noted(&mut self) -> Vec<RoaringBitmap> {
        self.hits.iter_mut().map(|hits| std::mem::take(&mut hits.noted)).collect()
    }

    /// The noted rows, of the files that have any.
    pub(in crate::sink::delta) fn take_told(&mut self) -> Vec<Went> {
        let files = self.hits.iter_mut().zip(&self.files).filter(|(hits, _)| !hits.noted.is_empty());
        let taken = files.map(|(hits, file)| Went {
            file: Arc::clone(file),
            rows: std::mem::take(&mut hits.noted),
            by_delete: std::mem::take(&mut hits.by_delete),
        });
        taken.collect()
    }

    /// Rows of each file that stay after all.
    pub(in crate::sink::delta) fn put_back(&mut self, kept: Vec<RoaringBitmap>) {
        for (hits, kept) in self.hits.iter_mut().zip(kept) {
            hits.found -= kept.len();
            hits.gone -= kept;
        }
    }

    /// What becomes of each file. Reads vectors of files that were not looked into but are written anew all the same.
    pub(in crate::sink::delta) async fn into_fates(self, rewrites: bool, rule: Option<MarkRule>) -> Result<Vec<Fate>> {
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
pub(in crate::sink::delta) async fn marked_rows(store: &Arc<dyn ObjectStore>, file: &ActiveFile) -> Result<RoaringBitmap> {
    match &file.deletion_vector {
        Some(vector) => deletion_vectors::read(store, vector).await.with_field("of", &file.path),
        None => Ok(RoaringBitmap::new()),
    }
}

/// Rows of a file, as its footer says.
fn row_count(opened: &DataFile, path: &Path) -> Result<u32> {
    let rows = opened.metadata().file_metadata().num_rows();
    u32::try_from(rows).map_err(|_| Error::new(Kind::Unsupported, "A data file has too many rows").with_field("file", path))
}

/// Looks for keys among the rows of a file that are not gone. Gives what is known of it now, and how many of the deleted keys
/// were there.
async fn probe_file(
    store: Arc<dyn ObjectStore>,
    file: &ActiveFile,
    before: Hits,
    columns: &[LakeColumn],
    look: &Look,
    keys: &KeySet,
) -> Result<(Hits, u64)> {
    let mut hits = before;
    if hits.total.is_none() {
        hits.gone = marked_rows(&store, file).await?;
    }
    let opened = DataFile::open(store, &file.path, file.size).await?;
    for column in columns.iter().chain(&look.only) {
        if !opened.has_column(&column.physical) {
            let error = Error::new(Kind::Target, "A data file has no key column");
            return Err(error.with_field("file", &file.path).with_field("column", &column.name));
        }
    }
    hits.total = Some(u64::from(row_count(&opened, &file.path)?));
    let column = &columns[0].physical;
    let key_count = file.key_bounds(&columns[0]).map_or(usize::MAX, |bounds| keys.count_in(&bounds));
    let opened = match is_worth_the_page_index(opened.metadata(), keys, key_count, column) {
        true => opened.with_page_index().await?,
        false => opened,
    };
    let mut opened = opened;
    let mut groups = Vec::new();
    for number in 0..opened.metadata().num_row_groups() {
        if keys.touches(group_bounds(opened.metadata().row_group(number), column).as_ref())
            && may_hold(&mut opened, number, keys, column).await?
        {
            groups.push(number);
        }
    }
    let (rows, ranges) = rows_to_read(opened.metadata(), &groups, keys, column);
    if rows.groups.is_empty() {
        return Ok((hits, 0));
    }
    let mut deleted = 0;
    let mut numbered = RowNumbers { ranges, next: 0 };
    let names: Vec<String> = columns.iter().map(|column| column.physical.clone()).collect();
    let read = names.iter().map(String::as_str).chain(look.only.iter().map(|column| column.physical.as_str()));
    let mut stream = opened.stream(read, rows, PROBE_ROWS)?;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(engine_error)?;
        let numbers = numbered.take(batch.num_rows());
        let flags = look.only.as_ref().map(|column| flags_of(&batch, column)).transpose()?;
        keys.matches(&key_columns(&batch, &names)?, |row, is_deleted| {
            let is_looked_at = flags.as_ref().is_none_or(|flags| flags.is_valid(row) && flags.value(row));
            if is_looked_at && hits.hit(numbers.get(row), is_deleted, look.note) {
                deleted += u64::from(is_deleted);
            }
        })?;
    }
    Ok((hits, deleted))
}

fn flags_of(batch: &RecordBatch, column: &LakeColumn) -> Result<BooleanArray> {
    let flags = batch.column_by_name(&column.physical).and_then(|array| array.as_boolean_opt());
    flags.cloned().ok_or_else(|| Error::new(Kind::Target, "A data file has no such column").with_field("column", &column.name))
}

/// Whether so few keys are looked for that pages can be passed over.
fn is_worth_the_page_index(metadata: &ParquetMetaData, keys: &KeySet, key_count: usize, column: &str) -> bool {
    let touched = metadata.row_groups().iter().filter(|group| keys.touches(group_bounds(group, column).as_ref()));
    let pages: i64 = touched.map(|group| group.num_rows() / PAGE_ROWS).sum();
    (key_count as u64) < pages.max(0) as u64
}

/// Asks the filter of a row group, which is only worth reading if few keys are looked for.
async fn may_hold(opened: &mut DataFile, group: usize, keys: &KeySet, column: &str) -> Result<bool> {
    let rows = opened.metadata().row_group(group).num_rows() as usize;
    let Some(texts) = keys.texts().filter(|texts| texts.len() < rows / ROWS_PER_FILTERED_KEY) else { return Ok(true) };
    let filter = opened.bloom_filter(group, column).await?;
    Ok(filter.is_none_or(|filter| texts.iter().flatten().any(|text| filter.check(text))))
}

/// Of the row groups that may hold any of `keys` all rows, or their pages that may where the index was read; and the numbers of
/// these rows.
fn rows_to_read(metadata: &ParquetMetaData, touched: &[usize], keys: &KeySet, column: &str) -> (Rows, Vec<Range<u32>>) {
    let (mut groups, mut ranges, mut selected) = (Vec::new(), Vec::new(), Vec::new());
    // The first row of the group in the file, and among the groups that are read.
    let (mut start, mut place) = (0_u32, 0_usize);
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let rows = group.num_rows() as u32;
        if touched.contains(&number) {
            let pages = pages_to_read(metadata, number, keys, column).unwrap_or_else(|| iter::once(0..rows).collect());
            if !pages.is_empty() {
                groups.push(number);
                ranges.extend(pages.iter().map(|page| start + page.start..start + page.end));
                selected.extend(pages.iter().map(|page| place + page.start as usize..place + page.end as usize));
                place += rows as usize;
            }
        }
        start += rows;
    }
    let is_all = selected.iter().map(|range| range.len()).sum::<usize>() == place;
    let selection = (!is_all).then(|| RowSelection::from_consecutive_ranges(selected.into_iter(), place));
    (Rows { groups, selection }, ranges)
}

/// Rows of the pages of a row group that may hold any of `keys`; `None` if its pages are not known.
fn pages_to_read(metadata: &ParquetMetaData, group: usize, keys: &KeySet, column: &str) -> Option<Vec<Range<u32>>> {
    let columns = metadata.row_group(group).columns();
    let place = columns.iter().position(|chunk| chunk.column_path().parts() == [column])?;
    let pages = metadata.offset_index()?.get(group)?.get(place)?.page_locations();
    let (mins, maxes): (Vec<i64>, Vec<i64>) = match metadata.column_index()?.get(group)?.get(place)? {
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
        if !keys.touches(Some(&whole_bounds(mins[number], maxes[number]))) {
            continue;
        }
        match found.last_mut() {
            Some(last) if last.end == first => last.end = end,
            _ => found.push(first..end),
        }
    }
    Some(found)
}

fn whole_bounds(min: i64, max: i64) -> KeyBounds {
    let one = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
    KeyBounds { min: one(min), max: one(max) }
}

/// Smallest and greatest key of a row group of integers; other types are not worth the trouble of their truncated bounds.
fn group_bounds(group: &RowGroupMetaData, column: &str) -> Option<KeyBounds> {
    let chunk = group.columns().iter().find(|chunk| chunk.column_path().parts() == [column])?;
    let (min, max) = match chunk.statistics()? {
        Statistics::Int32(stats) => (i64::from(*stats.min_opt()?), i64::from(*stats.max_opt()?)),
        Statistics::Int64(stats) => (*stats.min_opt()?, *stats.max_opt()?),
        _ => return None,
    };
    Some(whole_bounds(min, max))
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
pub(in crate::sink::delta) async fn rewrite(
    format: &Arc<FileFormat>,
    file: &Located,
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

/// Bytes of a row in memory, in the row group where they are largest: dictionaries hide most of it in the file.
fn row_bytes(metadata: &ParquetMetaData) -> usize {
    let decoded = |column: &ColumnChunkMetaData| {
        column.uncompressed_size().max(column.unencoded_byte_array_data_bytes().unwrap_or(0)).max(0) as u64
    };
    let of_group = |group: &RowGroupMetaData| {
        group.columns().iter().map(decoded).sum::<u64>().div_ceil(u64::try_from(group.num_rows()).unwrap_or(0).max(1))
    };
    metadata.row_groups().iter().map(of_group).max().map_or(1, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// The rows of `file` that are not in `gone`, in the schema of new files. The stream fails rather than end too early.
pub(in crate::sink::delta) async fn live_rows(
    format: &Arc<FileFormat>,
    file: &Located,
    gone: RoaringBitmap,
    engine: &Engine,
) -> Result<SendableRecordBatchStream> {
    let opened = DataFile::open(Arc::clone(&format.store), &file.path, file.size).await?;
    let metadata = Arc::clone(opened.metadata());
    let total = row_count(&opened, &file.path)?;
    if gone.max().is_some_and(|last| last >= total) {
        return Err(
            Error::new(Kind::Target, "A deletion vector names rows that its file does not have").with_field("file", &file.path)
        );
    }
    let batch_rows = engine.batch_rows(row_bytes(&metadata));
    let columns = format.columns.iter().map(|column| column.physical.as_str());
    let stream = opened.stream(columns, Rows::all(&metadata), batch_rows)?;
    let (format, path, schema) = (Arc::clone(format), file.path.clone(), Arc::clone(&format.schema));
    let (state, gone) = ((stream, 0_u32), Arc::new(gone));
    let rows = futures::stream::try_unfold(state, move |(mut stream, start)| {
        let (format, path, gone) = (Arc::clone(&format), path.clone(), Arc::clone(&gone));
        async move {
            match stream.next().await {
                None if start == total => Ok(None),
                None => {
                    let error = Error::new(Kind::Bug, "A data file was not read in full").with_field("file", &path);
                    Err(DataFusionError::External(Box::new(error)))
                }
                Some(batch) => {
                    let batch = batch?;
                    let conformed = without(&batch, start, &gone)
                        .and_then(|left| conform(&left, &format.columns, &format.schema, Names::Physical))
                        .with_field("file", &path);
                    let conformed = conformed.map_err(|error| DataFusionError::External(Box::new(error)))?;
                    Ok(Some((conformed, (stream, start + batch.num_rows() as u32))))
                }
            }
        }
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
}

/// The rows of `file` with these numbers, ascending, in the schema of new files. The stream fails rather than end too early.
pub(in crate::sink::delta) async fn rows_at(
    format: &Arc<FileFormat>,
    file: &Arc<ActiveFile>,
    rows: &RoaringBitmap,
    engine: &Engine,
) -> Result<SendableRecordBatchStream> {
    let opened = DataFile::open(Arc::clone(&format.store), &file.path, file.size).await?;
    let metadata = Arc::clone(opened.metadata());
    row_count(&opened, &file.path)?;
    let batch_rows = engine.batch_rows(row_bytes(&metadata));
    let chosen = Rows::at(&metadata, rows);
    let columns = format.columns.iter().map(|column| column.physical.as_str());
    let stream = opened.stream(columns, chosen, batch_rows)?;
    let (format, file, schema, expected) = (Arc::clone(format), Arc::clone(file), Arc::clone(&format.schema), rows.len());
    let read = futures::stream::try_unfold((stream, 0_u64), move |(mut stream, seen)| {
        let (format, file) = (Arc::clone(&format), Arc::clone(&file));
        async move {
            match stream.next().await {
                None if seen == expected => Ok(None),
                None => {
                    let error =
                        Error::new(Kind::Bug, "Rows of a data file were not read in full").with_field("file", &file.path);
                    Err(DataFusionError::External(Box::new(error)))
                }
                Some(batch) => {
                    let batch = batch?;
                    let conformed =
                        conform(&batch, &format.columns, &format.schema, Names::Physical).with_field("file", &file.path);
                    let conformed = conformed.map_err(|error| DataFusionError::External(Box::new(error)))?;
                    Ok(Some((conformed, (stream, seen + batch.num_rows() as u64))))
                }
            }
        }
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, read)))
}

/// The rows of a batch, whose first row has the number `start`, that are not in `gone`.
fn without(batch: &RecordBatch, start: u32, gone: &RoaringBitmap) -> Result<RecordBatch> {
    let end = start + batch.num_rows() as u32;
    let mut kept = BooleanBufferBuilder::new(batch.num_rows());
    kept.append_n(batch.num_rows(), true);
    let dead = gone.range(start..end).map(|row| kept.set_bit((row - start) as usize, false)).count();
    if dead == 0 {
        return Ok(batch.clone());
    }
    let kept = BooleanArray::new(kept.finish(), None);
    filter_record_batch(batch, &kept).context(Kind::Bug, "Rows cannot be filtered")
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
