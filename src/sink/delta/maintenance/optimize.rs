//! Compaction: merges small files, removes deleted rows from files and separates their key ranges. The rows of the table do not
//! change. Of a compaction and a concurrent load, one commits first and the other detects it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use deltalake::kernel::Action;
use deltalake::protocol::DeltaOperation;
use futures::StreamExt;
use serde_json::json;

use crate::engine::{engine_error, sort_by_columns};
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::sink::delta::iceberg;
use crate::sink::delta::log::active_file::ActiveFile;
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::file_actions::NewFile;
use crate::sink::delta::log::table_log::{CommitFailure, TableLog};
use crate::sink::delta::log::table_state::TableState;
use crate::sink::delta::options::DeltaOptions;
use crate::sink::delta::read::row_reader::RowReader;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::delta::write::uncommitted_files::UncommittedFiles;

/// Maximum size of the files that one commit merges, as a multiple of the target size.
const GROUP_FILES: u64 = 8;
/// Attempts at a commit after conflicts.
const ATTEMPTS: usize = 5;

/// How much `optimize` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Merges small files, and rewrites files that have deletion vectors.
    #[default]
    Compact,
    /// Also sorts files with overlapping key ranges by key into files without overlaps.
    SortByKey,
}

/// The result for a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Optimized {
    /// Number of data files that were removed.
    pub files_removed: u64,
    /// Number of data files that replaced them.
    pub files_added: u64,
    /// Size of the removed files in bytes.
    pub bytes_removed: u64,
    /// Size of the added files in bytes.
    pub bytes_added: u64,
    /// Number of deleted rows that were removed from files.
    pub rows_purged: u64,
    /// Number of commits.
    pub commits: u64,
}

impl Optimized {
    fn add(&mut self, sources: &[Arc<ActiveFile>], added: &[NewFile]) {
        self.files_removed += sources.len() as u64;
        self.files_added += added.len() as u64;
        self.bytes_removed += sources.iter().map(|file| file.size).sum::<u64>();
        self.bytes_added += added.iter().map(|file| file.bytes).sum::<u64>();
        self.rows_purged += sources.iter().map(|file| file.deleted_rows()).sum::<u64>();
        self.commits += 1;
    }
}

/// See [`DeltaSink::optimize`](crate::sink::delta::DeltaSink::optimize).
pub(crate) async fn optimize(options: &DeltaOptions, log: &TableLog, scope: Scope) -> Result<Optimized> {
    let state = log.existing_state().await?;
    state.check_writable(&log.table)?;
    let groups = plan_all(&state, scope, options.target_file_bytes);
    let mut done = Optimized::default();
    for group in groups {
        let sources: Vec<_> = group.files.iter().map(|number| Arc::clone(&state.files[*number])).collect();
        replace(options, log, &sources, group.sorts, &mut done).await.with_field("table", &log.table)?;
    }
    if done.commits > 0
        && state.has_iceberg_view()
        && let Err(error) = iceberg::publish(log).await
    {
        tracing::warn!(table = %log.table, %error, "Could not write the Iceberg metadata; the next sync writes it");
    }
    Ok(done)
}

/// Merges the smallest files of a table into about one file of the target size.
pub(crate) async fn compact_small_files(options: &DeltaOptions, log: &TableLog) -> Result<Optimized> {
    let mut done = Optimized::default();
    let Some(state) = log.state().await? else { return Ok(done) };
    let mut by_partition: HashMap<&Option<String>, Vec<Arc<ActiveFile>>> = HashMap::new();
    for file in state.files.iter().filter(|file| file.size < options.small_file_bytes()) {
        by_partition.entry(&file.partition).or_default().push(Arc::clone(file));
    }
    let mut small = by_partition.into_values().max_by_key(Vec::len).unwrap_or_default();
    small.sort_by_key(|file| file.size);
    let mut bytes = 0;
    small.retain(|file| {
        bytes += file.size;
        bytes <= options.target_file_bytes
    });
    if small.len() > 1 {
        replace(options, log, &small, true, &mut done).await?;
    }
    Ok(done)
}

/// Writes the rows of `sources` to new files and commits the replacement.
async fn replace(
    options: &DeltaOptions,
    log: &TableLog,
    sources: &[Arc<ActiveFile>],
    sorts: bool,
    done: &mut Optimized,
) -> Result<()> {
    let mut state = log.existing_state().await?;
    let uncommitted = UncommittedFiles::new(log.store(), log.folder.clone());
    let format = Arc::new(FileFormat::new(options, log, &state.columns, &state.key, 2));
    let mut writer = TableWriter::new(Arc::clone(&format), uncommitted.registry());
    let mut rows = RowReader::for_format(&format, &options.engine).live_rows_of(sources);
    if sorts {
        let keys: Vec<String> =
            LakeColumn::named(&state.columns, &state.key).into_iter().map(|column| column.physical).collect();
        rows = sort_by_columns(&options.engine, rows, &keys);
    }
    while let Some(batch) = rows.next().await {
        writer.write(batch.map_err(engine_error)?).await?;
    }
    drop(rows);
    let added = writer.finish().await?;
    let (written, expected) = (added.iter().map(|file| file.rows).sum::<u64>(), live_rows(sources));
    if expected.is_some_and(|expected| expected != written) {
        let message = "The number of rows in compacted files differs from that in their sources";
        return Err(Error::new(Kind::Bug, message).with_field("table", &log.table));
    }

    let names = uncommitted.release();
    for _ in 0..ATTEMPTS {
        if !has_all(&state, sources) {
            break;
        }
        match commit(log, &state, sources, &added, options).await {
            Ok(_) => {
                done.add(sources, &added);
                return Ok(());
            }
            // If the other commit did not touch these files, this one can follow it.
            Err(CommitFailure::Conflict) => match log.state().await {
                Ok(Some(newer)) => state = newer,
                Ok(None) => break,
                Err(error) => {
                    uncommitted.reclaim(names);
                    return Err(error);
                }
            },
            Err(CommitFailure::Refused(error)) => {
                uncommitted.reclaim(names);
                return Err(error);
            }
            Err(CommitFailure::Unknown(error)) => return Err(error),
        }
    }
    uncommitted.reclaim(names);
    uncommitted.remove().await;
    Err(Error::new(Kind::Conflict, "Another run changed the same files at the same time")
        .with_field("table", &log.table)
        .hint("run the command again when no sync is running; no rows were lost"))
}

async fn commit(
    log: &TableLog,
    state: &TableState,
    sources: &[Arc<ActiveFile>],
    added: &[NewFile],
    options: &DeltaOptions,
) -> std::result::Result<u64, CommitFailure> {
    let now = chrono::Utc::now().timestamp_millis();
    let mut actions: Vec<Action> = added.iter().map(|file| file.add_action(now, false)).collect();
    for file in sources {
        actions.push(file.remove_action(false).map_err(CommitFailure::Refused)?);
    }
    let target_size = i64::try_from(options.target_file_bytes).unwrap_or(i64::MAX);
    let metrics = json!({"numAddedFiles": added.len().to_string(), "numRemovedFiles": sources.len().to_string()});
    let info = HashMap::from([("operationMetrics".into(), metrics)]);
    log.commit(Some(state), actions, None, DeltaOperation::Optimize { predicate: None, target_size }, info).await
}

fn live_rows(files: &[Arc<ActiveFile>]) -> Option<u64> {
    files.iter().try_fold(0, |sum, file| Some(sum + file.live_rows()?))
}

/// Whether the table still has these files with the same deletion vectors.
fn has_all(state: &TableState, sources: &[Arc<ActiveFile>]) -> bool {
    let present: HashMap<_, _> = state.files.iter().map(|file| (&file.path, &file.deletion_vector)).collect();
    sources.iter().all(|file| present.get(&file.path).is_some_and(|vector| **vector == file.deletion_vector))
}

/// A bound of the first key column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum KeyBound {
    Integer(i64),
    Text(String),
}

/// Properties of a file that the plan needs.
#[derive(Debug, Clone)]
struct FileSummary {
    bytes: u64,
    deleted_rows: u64,
    /// Bounds of the first key column; `None` if the statistics lack them.
    range: Option<(KeyBound, KeyBound)>,
}

fn summaries(state: &TableState) -> Vec<FileSummary> {
    let key = state.key.first().and_then(|key| state.columns.iter().find(|column| column.name == *key));
    let bound = |array: &arrow::array::ArrayRef| match array.as_primitive_opt::<Int64Type>() {
        Some(integers) => KeyBound::Integer(integers.value(0)),
        None => KeyBound::Text(array.as_string::<i32>().value(0).to_owned()),
    };
    let range = |file: &ActiveFile| {
        let bounds = file.key_bounds(key?)?;
        Some((bound(&bounds.min), bound(&bounds.max)))
    };
    let summary =
        |file: &Arc<ActiveFile>| FileSummary { bytes: file.size, deleted_rows: file.deleted_rows(), range: range(file) };
    state.files.iter().map(summary).collect()
}

/// Files that are rewritten together.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    files: Vec<usize>,
    sorts: bool,
}

/// The groups of all partitions. A group never has files of two partitions.
fn plan_all(state: &TableState, scope: Scope, target: u64) -> Vec<Group> {
    let summaries = summaries(state);
    let mut partitions: BTreeMap<&Option<String>, Vec<usize>> = BTreeMap::new();
    for (number, file) in state.files.iter().enumerate() {
        partitions.entry(&file.partition).or_default().push(number);
    }
    let of_partition = |numbers: Vec<usize>| {
        let files: Vec<FileSummary> = numbers.iter().map(|number| summaries[*number].clone()).collect();
        let groups = plan(&files, scope, target).into_iter();
        groups
            .map(|group| Group { files: group.files.iter().map(|file| numbers[*file]).collect(), ..group })
            .collect::<Vec<_>>()
    };
    partitions.into_values().flat_map(of_partition).collect()
}

fn plan(files: &[FileSummary], scope: Scope, target: u64) -> Vec<Group> {
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by(|a, b| by_range(&files[*a], &files[*b]));
    let is_small = |bytes: u64| bytes < target / 2;
    let pieces = match scope {
        Scope::Compact => order.into_iter().map(|file| vec![file]).collect(),
        Scope::SortByKey => overlapping(files, order),
    };
    let bytes_of = |piece: &[usize]| piece.iter().map(|file| files[*file].bytes).sum::<u64>();
    let has_deleted_rows = |piece: &[usize]| piece.iter().any(|file| files[*file].deleted_rows > 0);
    let (mut groups, mut small, mut small_bytes) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        let bytes = bytes_of(&piece);
        if !is_small(bytes) {
            if piece.len() > 1 || has_deleted_rows(&piece) {
                groups.push(Group { sorts: piece.len() > 1, files: piece });
            }
            continue;
        }
        if small_bytes + bytes > target.saturating_mul(GROUP_FILES) {
            groups.extend(merged(std::mem::take(&mut small), &has_deleted_rows));
            small_bytes = 0;
        }
        small_bytes += bytes;
        small.extend(piece);
    }
    groups.extend(merged(small, &has_deleted_rows));
    groups
}

fn merged(files: Vec<usize>, has_deleted_rows: &impl Fn(&[usize]) -> bool) -> Option<Group> {
    (files.len() > 1 || has_deleted_rows(&files)).then_some(Group { sorts: files.len() > 1, files })
}

/// Orders files by range; files without a range come first.
fn by_range(a: &FileSummary, b: &FileSummary) -> Ordering {
    a.range.cmp(&b.range)
}

/// Runs of files, ordered by range, in which each file overlaps an earlier one. A file without a range may overlap all others.
fn overlapping(files: &[FileSummary], order: Vec<usize>) -> Vec<Vec<usize>> {
    if files.iter().any(|file| file.range.is_none()) {
        return vec![order];
    }
    let mut runs: Vec<Vec<usize>> = Vec::new();
    let mut highest: Option<&KeyBound> = None;
    for file in order {
        let Some((low, high)) = &files[file].range else { continue };
        match (runs.last_mut(), highest) {
            (Some(run), Some(reached)) if low <= reached => run.push(file),
            _ => runs.push(vec![file]),
        }
        highest = highest.max(Some(high));
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(bytes: u64, deleted_rows: u64, low: i64, high: i64) -> FileSummary {
        FileSummary { bytes, deleted_rows, range: Some((KeyBound::Integer(low), KeyBound::Integer(high))) }
    }

    #[test]
    fn small_files_are_merged_and_files_with_deletion_vectors_rewritten() {
        let files = [file(100, 0, 0, 9), file(100, 3, 10, 19), file(10, 0, 5, 6), file(20, 0, 1, 30), file(90, 0, 20, 29)];
        let groups = plan(&files, Scope::Compact, 100);
        assert_eq!(groups, [Group { files: vec![1], sorts: false }, Group { files: vec![3, 2], sorts: true }]);
        assert_eq!(plan(&[file(10, 0, 0, 1)], Scope::Compact, 100), [], "a single small file stays");
        assert_eq!(plan(&[file(10, 1, 0, 1)], Scope::Compact, 100).len(), 1);
    }

    #[test]
    fn overlapping_files_are_sorted_together() {
        let files = [file(100, 0, 0, 9), file(100, 0, 20, 29), file(60, 0, 9, 12), file(100, 0, 30, 40), file(5, 0, 41, 42)];
        assert_eq!(plan(&files, Scope::SortByKey, 100), [Group { files: vec![0, 2], sorts: true }]);
        let unknown = FileSummary { bytes: 100, deleted_rows: 0, range: None };
        assert_eq!(plan(&[files[0].clone(), unknown], Scope::SortByKey, 100), [Group { files: vec![1, 0], sorts: true }]);
    }

    proptest! {
        #[test]
        fn no_file_is_in_two_groups_or_rewritten_without_need(
            files in prop::collection::vec((1..200_u64, 0..2_u64, 0..50_i64, 0..10_i64), 0..20),
            by_key in any::<bool>(),
        ) {
            let files: Vec<FileSummary> =
                files.into_iter().map(|(bytes, deleted, low, span)| file(bytes, deleted, low, low + span)).collect();
            let groups = plan(&files, if by_key { Scope::SortByKey } else { Scope::Compact }, 100);
            let mut seen: Vec<usize> = groups.iter().flat_map(|group| group.files.clone()).collect();
            let count = seen.len();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), count);
            for group in &groups {
                prop_assert!(group.files.len() > 1 || files[group.files[0]].deleted_rows > 0);
            }
            for (number, file) in files.iter().enumerate() {
                prop_assert!(file.deleted_rows == 0 || seen.contains(&number), "all deleted rows are removed");
            }
        }
    }
}
