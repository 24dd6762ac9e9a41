//! The merge probe: finds the rows of existing files whose keys are in a change set, and decides for each file whether these rows
//! are deleted by a deletion vector (merge on read) or by a rewrite of the file (copy on write).

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use deltalake::ObjectStore;
use futures::StreamExt;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::engine::{Engine, engine_error};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::sink::delta::log::active_file::ActiveFile;
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::statistics::KeyBounds;
use crate::sink::delta::merge::key_set::{KeySet, key_columns};
use crate::sink::delta::merge::page_pruning::{RowPositions, prune};
use crate::sink::delta::read::data_file::{DataFile, RowFilter};
use crate::sink::delta::read::row_reader::deleted_rows;

/// Number of rows in a batch of key columns.
pub(crate) const PROBE_ROWS: usize = 8192;

/// Collects the rows of existing files that a load deletes or replaces. Can be called for several parts of a change set, so that
/// not all of its keys have to be in memory.
#[derive(Debug)]
pub(crate) struct MergeProbe {
    store: Arc<dyn ObjectStore>,
    files: Vec<Arc<ActiveFile>>,
    bounds: Vec<Option<KeyBounds>>,
    keys: Arc<Vec<LakeColumn>>,
    options: Arc<LookupOptions>,
    concurrency: usize,
    matches: Vec<Matches>,
    memory: MemoryReservation,
}

/// Which rows a probe looks at, and which matches it tracks.
#[derive(Debug, Clone, Default)]
pub(crate) struct LookupOptions {
    /// Only rows with `true` in this column.
    pub(crate) only: Option<LakeColumn>,
    /// No files without nulls in this column, according to their statistics.
    pub(crate) skip_without_nulls: Option<LakeColumn>,
    /// Which matches are tracked.
    pub(crate) track: TrackedMatches,
}

/// Matches whose positions a probe keeps separately from those of rows that were already deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum TrackedMatches {
    #[default]
    None,
    /// Matches of deletes.
    Deletes,
    /// All matches.
    All,
    /// All matches, and in addition those of deletes.
    AllAndDeletes,
}

/// Rows of a file that a load deletes or replaces; see [`TrackedMatches::AllAndDeletes`].
#[derive(Debug)]
pub(crate) struct DeletedRows {
    /// The file.
    pub(crate) file: Arc<ActiveFile>,
    /// Positions of the rows.
    pub(crate) rows: RoaringBitmap,
    /// The positions among them whose keys are deleted rather than updated.
    pub(crate) by_delete: RoaringBitmap,
}

/// The matches in one file.
#[derive(Debug, Clone, Default)]
struct Matches {
    /// Number of matches.
    found: u64,
    /// Positions of all deleted rows: the matches and those that were deleted before.
    deleted: RoaringBitmap,
    /// Positions of the tracked matches.
    tracked: RoaringBitmap,
    /// Positions of matches of deletes, with [`TrackedMatches::AllAndDeletes`].
    by_delete: RoaringBitmap,
    /// Number of rows in the file; `None` if the file was not opened.
    total: Option<u64>,
}

/// What a commit does with an existing file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FileAction {
    /// Nothing.
    Keep,
    /// Removes the file: none of its rows is left.
    Remove,
    /// Replaces the deletion vector by one with these rows.
    DeletionVector(RoaringBitmap),
    /// Rewrites the file without these rows.
    Rewrite(RoaringBitmap),
}

/// When rows are deleted by a deletion vector rather than by a rewrite of their file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeletionVectorRule {
    /// Smaller files are rewritten: that costs little, and avoids tiny files with deletion vectors.
    pub(crate) min_file_bytes: u64,
    /// Maximum share of deleted rows in a file, in percent; beyond it, readers would decode too many deleted rows.
    pub(crate) max_deleted_percent: u64,
}

impl DeletionVectorRule {
    /// Whether a file of `bytes` bytes and `rows` rows, `deleted` of them deleted, gets a deletion vector.
    pub(crate) fn applies(&self, bytes: u64, deleted: u64, rows: u64) -> bool {
        bytes >= self.min_file_bytes && deleted.saturating_mul(100) <= rows.saturating_mul(self.max_deleted_percent)
    }
}

impl Matches {
    /// Adds a match. Returns whether the row was not deleted before.
    fn add(&mut self, row: u32, is_delete: bool, track: TrackedMatches) -> bool {
        let is_new = self.deleted.insert(row);
        if is_new {
            self.found += 1;
            let is_tracked = match track {
                TrackedMatches::None => false,
                TrackedMatches::Deletes => is_delete,
                TrackedMatches::All | TrackedMatches::AllAndDeletes => true,
            };
            if is_tracked {
                self.tracked.insert(row);
            }
            if track == TrackedMatches::AllAndDeletes && is_delete {
                self.by_delete.insert(row);
            }
        }
        is_new
    }

    /// Decides what happens to the file. `rewrite_all`: its columns change. `rule` is `None` if the table may not have deletion
    /// vectors.
    fn into_action(self, file: &ActiveFile, rewrite_all: bool, rule: Option<DeletionVectorRule>) -> FileAction {
        if self.found == 0 && !rewrite_all {
            return FileAction::Keep;
        }
        if self.total == Some(self.deleted.len()) {
            return FileAction::Remove;
        }
        // A deletion vector requires statistics with the number of rows.
        let gets_vector = match (rule, file.rows) {
            (Some(rule), Some(rows)) if !rewrite_all => rule.applies(file.size, self.deleted.len(), rows),
            _ => false,
        };
        if gets_vector { FileAction::DeletionVector(self.deleted) } else { FileAction::Rewrite(self.deleted) }
    }

    fn memory_size(&self) -> usize {
        [&self.deleted, &self.tracked, &self.by_delete].iter().map(|rows| rows.serialized_size()).sum()
    }
}

impl MergeProbe {
    /// A probe of `files`, whose key columns are `keys`.
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        files: &[Arc<ActiveFile>],
        keys: Vec<LakeColumn>,
        options: LookupOptions,
        engine: &Engine,
    ) -> Self {
        Self {
            store,
            files: files.to_vec(),
            bounds: files.iter().map(|file| keys.first().and_then(|key| file.key_bounds(key))).collect(),
            keys: Arc::new(keys),
            options: Arc::new(options),
            concurrency: engine.partitions().max(1),
            matches: vec![Matches::default(); files.len()],
            memory: MemoryConsumer::new("DeletedRows").register(engine.memory_pool()),
        }
    }

    /// Whether there are files to look into.
    pub(crate) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// Looks up `keys` in all files that can have them. Returns the number of deleted keys that were found.
    pub(crate) async fn probe(&mut self, keys: KeySet) -> Result<u64> {
        let keys = Arc::new(keys);
        let can_match = |file: &usize| keys.overlaps(self.bounds[*file].as_ref()) && !self.is_skipped(*file);
        let candidates: Vec<usize> = (0..self.files.len()).filter(can_match).collect();
        let mut remaining = candidates.into_iter();
        let mut running = JoinSet::new();
        let mut deleted = 0;
        loop {
            while running.len() < self.concurrency
                && let Some(index) = remaining.next()
            {
                let file = Arc::clone(&self.files[index]);
                let (store, columns, keys) = (Arc::clone(&self.store), Arc::clone(&self.keys), Arc::clone(&keys));
                let options = Arc::clone(&self.options);
                let before = std::mem::take(&mut self.matches[index]);
                let task = async move {
                    let lookup = FileLookup { store, columns: &columns, options: &options, keys: &keys };
                    let (matches, deleted) = lookup.run(&file, before).await?;
                    Ok::<_, Error>((index, matches, deleted))
                };
                running.spawn(task.in_current_span());
            }
            let Some(done) = running.join_next().await else { break };
            let (index, matches, count) = done.context(Kind::Bug, "The merge probe stopped unexpectedly")??;
            self.matches[index] = matches;
            deleted += count;
        }
        self.account();
        Ok(deleted)
    }

    /// Accounts for the bitmaps, which take 2 to 16 bits per deleted row and cannot be spilled.
    fn account(&self) {
        self.memory.resize(self.matches.iter().map(Matches::memory_size).sum());
    }

    fn is_skipped(&self, file: usize) -> bool {
        self.options.skip_without_nulls.as_ref().is_some_and(|column| self.files[file].null_count(column) == Some(0))
    }

    /// Matches all rows with `true` in `column`, whatever their keys.
    pub(crate) async fn match_flagged(&mut self, column: &LakeColumn) -> Result<()> {
        for number in 0..self.files.len() {
            if self.is_skipped(number) {
                continue;
            }
            let file = Arc::clone(&self.files[number]);
            let opened = DataFile::open(Arc::clone(&self.store), &file.location()).await?;
            let matches = &mut self.matches[number];
            if matches.total.is_none() {
                matches.deleted = deleted_rows(&self.store, &file).await?;
            }
            matches.total = Some(u64::from(opened.row_count()?));
            if !opened.has_column(&column.physical) {
                continue;
            }
            let rows = RowFilter::all(opened.metadata());
            let mut stream = opened.stream(std::iter::once(column.physical.as_str()), rows, PROBE_ROWS)?;
            let mut start = 0;
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(engine_error)?;
                let flags = flags_of(&batch, column)?;
                for row in (0..flags.len()).filter(|row| flags.is_valid(*row) && flags.value(*row)) {
                    matches.add(start + row as u32, false, self.options.track);
                }
                start += flags.len() as u32;
            }
        }
        self.account();
        Ok(())
    }

    /// Removes and returns the tracked matches of each file.
    pub(crate) fn take_tracked(&mut self) -> Vec<RoaringBitmap> {
        self.matches.iter_mut().map(|matches| std::mem::take(&mut matches.tracked)).collect()
    }

    /// Removes and returns the tracked matches of the files that have any.
    pub(crate) fn take_deleted_rows(&mut self) -> Vec<DeletedRows> {
        let files = self.matches.iter_mut().zip(&self.files).filter(|(matches, _)| !matches.tracked.is_empty());
        let taken = files.map(|(matches, file)| DeletedRows {
            file: Arc::clone(file),
            rows: std::mem::take(&mut matches.tracked),
            by_delete: std::mem::take(&mut matches.by_delete),
        });
        taken.collect()
    }

    /// Undoes matches: these rows of each file stay.
    pub(crate) fn unmatch(&mut self, kept: Vec<RoaringBitmap>) {
        for (matches, kept) in self.matches.iter_mut().zip(kept) {
            matches.found -= kept.len();
            matches.deleted -= kept;
        }
    }

    /// What happens to each file. Reads the deletion vectors of files that are rewritten although they were not opened.
    pub(crate) async fn into_actions(self, rewrite_all: bool, rule: Option<DeletionVectorRule>) -> Result<Vec<FileAction>> {
        let mut actions = Vec::with_capacity(self.files.len());
        for (mut matches, file) in self.matches.into_iter().zip(&self.files) {
            if rewrite_all && matches.total.is_none() {
                matches.deleted = deleted_rows(&self.store, file).await?;
            }
            actions.push(matches.into_action(file, rewrite_all, rule));
        }
        Ok(actions)
    }
}

/// The lookup of keys in one file.
struct FileLookup<'a> {
    store: Arc<dyn ObjectStore>,
    columns: &'a [LakeColumn],
    options: &'a LookupOptions,
    keys: &'a KeySet,
}

impl FileLookup<'_> {
    /// Adds the matches among the live rows of `file` to `matches`. Returns them with the number of deleted keys that were found.
    async fn run(self, file: &ActiveFile, mut matches: Matches) -> Result<(Matches, u64)> {
        if matches.total.is_none() {
            matches.deleted = deleted_rows(&self.store, file).await?;
        }
        let opened = DataFile::open(self.store, &file.location()).await?;
        for column in self.columns.iter().chain(&self.options.only) {
            if !opened.has_column(&column.physical) {
                let error = Error::new(Kind::Target, "A data file has no key column");
                return Err(error.with_field("file", &file.path).with_field("column", &column.name));
            }
        }
        matches.total = Some(u64::from(opened.row_count()?));
        let key_count = file.key_bounds(&self.columns[0]).map_or(usize::MAX, |bounds| self.keys.count_in(&bounds));
        let (opened, candidates) = prune(opened, self.keys, key_count, &self.columns[0].physical).await?;
        if candidates.rows.groups.is_empty() {
            return Ok((matches, 0));
        }
        let mut deleted = 0;
        let mut positions = RowPositions::new(candidates.positions);
        let names: Vec<String> = self.columns.iter().map(|column| column.physical.clone()).collect();
        let only = self.options.only.as_ref();
        let read = names.iter().map(String::as_str).chain(only.map(|column| column.physical.as_str()));
        let mut stream = opened.stream(read, candidates.rows, PROBE_ROWS)?;
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(engine_error)?;
            let positions = positions.take(batch.num_rows());
            let flags = only.map(|column| flags_of(&batch, column)).transpose()?;
            self.keys.matches(&key_columns(&batch, &names)?, |row, is_delete| {
                let is_included = flags.as_ref().is_none_or(|flags| flags.is_valid(row) && flags.value(row));
                if is_included && matches.add(positions.get(row), is_delete, self.options.track) {
                    deleted += u64::from(is_delete);
                }
            })?;
        }
        Ok((matches, deleted))
    }
}

fn flags_of(batch: &RecordBatch, column: &LakeColumn) -> Result<BooleanArray> {
    let flags = batch.column_by_name(&column.physical).and_then(|array| array.as_boolean_opt());
    flags.cloned().ok_or_else(|| Error::new(Kind::Target, "A data file lacks a column").with_field("column", &column.name))
}
