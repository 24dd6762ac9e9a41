//! Care of a table's files: small ones are merged, rows that are marked as deleted are dropped, ranges of keys are parted. Rows
//! stay the same, and a load that runs meanwhile either comes first or notices.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use deltalake::kernel::Action;
use deltalake::protocol::DeltaOperation;
use futures::{StreamExt, TryStreamExt};
use serde_json::json;

use crate::engine::{Engine, engine_error, sort_by_columns};
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::TableRef;
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::file_names::Uncommitted;
use crate::sink::delta::log::table_log::{ActiveFile, CommitFailure, TableLog, TableState};
use crate::sink::delta::merge::key_probe::{live_rows, marked_rows};
use crate::sink::delta::write::parquet_writer::{FileFormat, NewFile};
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::delta::{DeltaOptions, DeltaSink};

/// Files that are merged in one commit have about so many times the usual size of a file.
const GROUP_FILES: u64 = 8;
/// Commits that came in between before we give up.
const ATTEMPTS: usize = 5;

/// How much `optimize` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Small files are merged, and files with deletion vectors written anew without them.
    #[default]
    Compact,
    /// Also files whose ranges of keys overlap are sorted into files that do not.
    Cluster,
}

/// What was done to a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Optimized {
    /// Data files that went.
    pub files_removed: u64,
    /// Data files that came in their place.
    pub files_added: u64,
    /// Bytes of the ones that went.
    pub bytes_removed: u64,
    /// Bytes of the ones that came.
    pub bytes_added: u64,
    /// Rows dropped that were marked as deleted.
    pub rows_purged: u64,
    /// Commits.
    pub commits: u64,
}

impl Optimized {
    fn add(&mut self, sources: &[Arc<ActiveFile>], added: &[NewFile]) {
        self.files_removed += sources.len() as u64;
        self.files_added += added.len() as u64;
        self.bytes_removed += sources.iter().map(|file| file.size).sum::<u64>();
        self.bytes_added += added.iter().map(|file| file.bytes).sum::<u64>();
        self.rows_purged += sources.iter().map(|file| file.dead_rows()).sum::<u64>();
        self.commits += 1;
    }
}

impl DeltaSink {
    /// Takes care of the files of a table, in one commit for each group of files. Kind `NotFound` if the table is not kept here,
    /// `Conflict` if other commits took files away meanwhile; groups that were done stay done.
    pub async fn optimize(&self, table: &TableRef, scope: Scope) -> Result<Optimized> {
        let log = self.log(table)?;
        let state = self.present(&log).await?;
        state.check_writable(table)?;
        let groups = plan_all(&state, scope, self.options.target_file_bytes);
        let mut done = Optimized::default();
        for group in groups {
            let sources: Vec<_> = group.files.iter().map(|number| Arc::clone(&state.files[*number])).collect();
            replace(&self.options, &log, &sources, group.sorts, &mut done).await.with_field("table", table)?;
        }
        Ok(done)
    }
}

/// Files below this are small to a load, which merges them when there are too many.
pub(in crate::sink::delta) fn small_file_bytes(options: &DeltaOptions) -> u64 {
    options.target_file_bytes / 8
}

/// Merges the smallest files of a table into about one of the usual size.
pub(in crate::sink::delta) async fn compact_small(options: &DeltaOptions, log: &TableLog) -> Result<Optimized> {
    let mut done = Optimized::default();
    let Some(state) = log.state().await? else { return Ok(done) };
    let mut by_partition: HashMap<&Option<String>, Vec<Arc<ActiveFile>>> = HashMap::new();
    for file in state.files.iter().filter(|file| file.size < small_file_bytes(options)) {
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

/// Writes the rows of `sources` to new files and commits the exchange.
async fn replace(
    options: &DeltaOptions,
    log: &TableLog,
    sources: &[Arc<ActiveFile>],
    sorts: bool,
    done: &mut Optimized,
) -> Result<()> {
    let Some(mut state) = log.state().await? else {
        return Err(Error::new(Kind::NotFound, "The table is not kept at this target").with_field("table", &log.table));
    };
    let uncommitted = Uncommitted::new(log.store(), log.folder.clone());
    let format = Arc::new(FileFormat::new(options, log.outbox(&options.engine), &state.columns, &state.key, 2));
    let mut writer = TableWriter::new(Arc::clone(&format), uncommitted.names());
    let mut rows = rows_of(&format, sources, &options.engine);
    if sorts {
        let keys: Vec<String> = state.key.iter().filter_map(|key| physical(&state.columns, key)).collect();
        rows = sort_by_columns(&options.engine, rows, &keys);
    }
    while let Some(batch) = rows.next().await {
        writer.write(batch.map_err(engine_error)?).await?;
    }
    drop(rows);
    let added = writer.finish().await?;
    let (written, expected) = (added.iter().map(|file| file.rows).sum::<u64>(), live_count(sources));
    if expected.is_some_and(|expected| expected != written) {
        return Err(Error::new(Kind::Bug, "Merged files do not have the rows of their sources").with_field("table", &log.table));
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
            // Whoever came first may have left our files alone: then it is as if we had begun after it.
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
    Err(Error::new(Kind::Conflict, "Another run changed the same files meanwhile")
        .with_field("table", &log.table)
        .hint("nothing is lost; run it again when no sync is running"))
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

/// The live rows of all files, one file after the other, in the schema of `format`.
pub(in crate::sink::delta) fn rows_of(
    format: &Arc<FileFormat>,
    sources: &[Arc<ActiveFile>],
    engine: &Engine,
) -> SendableRecordBatchStream {
    let (schema, format, engine) = (Arc::clone(&format.schema), Arc::clone(format), engine.clone());
    let files = futures::stream::iter(sources.to_vec()).then(move |file| {
        let (format, engine) = (Arc::clone(&format), engine.clone());
        async move {
            let open = async {
                let gone = marked_rows(&format.store, &file).await?;
                live_rows(&format, &file.located(), gone, &engine).await
            };
            open.await.map_err(|error| DataFusionError::External(Box::new(error)))
        }
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, files.try_flatten()))
}

fn live_count(files: &[Arc<ActiveFile>]) -> Option<u64> {
    files.iter().try_fold(0, |sum, file| Some(sum + file.live_rows()?))
}

/// Whether the state still has these files, with the same rows.
fn has_all(state: &TableState, sources: &[Arc<ActiveFile>]) -> bool {
    let held: HashMap<_, _> = state.files.iter().map(|file| (&file.path, &file.deletion_vector)).collect();
    sources.iter().all(|file| held.get(&file.path).is_some_and(|vector| **vector == file.deletion_vector))
}

fn physical(columns: &[LakeColumn], name: &str) -> Option<String> {
    columns.iter().find(|column| column.name == name).map(|column| column.physical.clone())
}

/// A smallest or greatest key, as far as statistics tell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Point {
    Whole(i64),
    Text(String),
}

/// What the plan has to know of a file.
#[derive(Debug, Clone)]
struct Facts {
    bytes: u64,
    dead: u64,
    range: Option<(Point, Point)>,
}

fn facts(state: &TableState) -> Vec<Facts> {
    let key = state.key.first().and_then(|key| state.columns.iter().find(|column| column.name == *key));
    let point = |array: &arrow::array::ArrayRef| match array.as_primitive_opt::<Int64Type>() {
        Some(whole) => Point::Whole(whole.value(0)),
        None => Point::Text(array.as_string::<i32>().value(0).to_owned()),
    };
    let range = |file: &ActiveFile| {
        let bounds = file.key_bounds(key?)?;
        Some((point(&bounds.min), point(&bounds.max)))
    };
    state.files.iter().map(|file| Facts { bytes: file.size, dead: file.dead_rows(), range: range(file) }).collect()
}

/// Files that are written anew together.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    files: Vec<usize>,
    sorts: bool,
}

/// The groups of all partitions; files of two are never in one.
fn plan_all(state: &TableState, scope: Scope, target: u64) -> Vec<Group> {
    let facts = facts(state);
    let mut partitions: BTreeMap<&Option<String>, Vec<usize>> = BTreeMap::new();
    for (number, file) in state.files.iter().enumerate() {
        partitions.entry(&file.partition).or_default().push(number);
    }
    let of_partition = |numbers: Vec<usize>| {
        let chosen: Vec<Facts> = numbers.iter().map(|number| facts[*number].clone()).collect();
        let groups = plan(&chosen, scope, target).into_iter();
        groups
            .map(|group| Group { files: group.files.iter().map(|file| numbers[*file]).collect(), ..group })
            .collect::<Vec<_>>()
    };
    partitions.into_values().flat_map(of_partition).collect()
}

fn plan(files: &[Facts], scope: Scope, target: u64) -> Vec<Group> {
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by(|a, b| by_range(&files[*a], &files[*b]));
    let is_small = |bytes: u64| bytes < target / 2;
    let pieces = match scope {
        Scope::Compact => order.into_iter().map(|file| vec![file]).collect(),
        Scope::Cluster => overlapping(files, order),
    };
    let bytes_of = |piece: &[usize]| piece.iter().map(|file| files[*file].bytes).sum::<u64>();
    let has_dead = |piece: &[usize]| piece.iter().any(|file| files[*file].dead > 0);
    let (mut groups, mut small, mut small_bytes) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        let bytes = bytes_of(&piece);
        if !is_small(bytes) {
            if piece.len() > 1 || has_dead(&piece) {
                groups.push(Group { sorts: piece.len() > 1, files: piece });
            }
            continue;
        }
        if small_bytes + bytes > target.saturating_mul(GROUP_FILES) {
            groups.extend(merged(std::mem::take(&mut small), &has_dead));
            small_bytes = 0;
        }
        small_bytes += bytes;
        small.extend(piece);
    }
    groups.extend(merged(small, &has_dead));
    groups
}

fn merged(files: Vec<usize>, has_dead: &impl Fn(&[usize]) -> bool) -> Option<Group> {
    (files.len() > 1 || has_dead(&files)).then_some(Group { sorts: files.len() > 1, files })
}

/// Files without a range first.
fn by_range(a: &Facts, b: &Facts) -> Ordering {
    a.range.cmp(&b.range)
}

/// Runs of files, ordered by range, in which each overlaps one before it. One without a range may overlap any.
fn overlapping(files: &[Facts], order: Vec<usize>) -> Vec<Vec<usize>> {
    if files.iter().any(|file| file.range.is_none()) {
        return vec![order];
    }
    let mut runs: Vec<Vec<usize>> = Vec::new();
    let mut highest: Option<&Point> = None;
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

    fn file(bytes: u64, dead: u64, low: i64, high: i64) -> Facts {
        Facts { bytes, dead, range: Some((Point::Whole(low), Point::Whole(high))) }
    }

    #[test]
    fn small_files_are_merged_and_marked_ones_written_anew() {
        let files = [file(100, 0, 0, 9), file(100, 3, 10, 19), file(10, 0, 5, 6), file(20, 0, 1, 30), file(90, 0, 20, 29)];
        let groups = plan(&files, Scope::Compact, 100);
        assert_eq!(groups, [Group { files: vec![1], sorts: false }, Group { files: vec![3, 2], sorts: true }]);
        assert_eq!(plan(&[file(10, 0, 0, 1)], Scope::Compact, 100), [], "a single small file stays");
        assert_eq!(plan(&[file(10, 1, 0, 1)], Scope::Compact, 100).len(), 1);
    }

    #[test]
    fn overlapping_files_are_sorted_together() {
        let files = [file(100, 0, 0, 9), file(100, 0, 20, 29), file(60, 0, 9, 12), file(100, 0, 30, 40), file(5, 0, 41, 42)];
        assert_eq!(plan(&files, Scope::Cluster, 100), [Group { files: vec![0, 2], sorts: true }]);
        let unknown = Facts { bytes: 100, dead: 0, range: None };
        assert_eq!(plan(&[files[0].clone(), unknown], Scope::Cluster, 100), [Group { files: vec![1, 0], sorts: true }]);
    }

    proptest! {
        #[test]
        fn no_file_is_in_two_groups_and_none_is_moved_for_nothing(
            files in prop::collection::vec((1..200_u64, 0..2_u64, 0..50_i64, 0..10_i64), 0..20),
            cluster in any::<bool>(),
        ) {
            let files: Vec<Facts> = files.into_iter().map(|(bytes, dead, low, span)| file(bytes, dead, low, low + span)).collect();
            let groups = plan(&files, if cluster { Scope::Cluster } else { Scope::Compact }, 100);
            let mut seen: Vec<usize> = groups.iter().flat_map(|group| group.files.clone()).collect();
            let count = seen.len();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), count);
            for group in &groups {
                prop_assert!(group.files.len() > 1 || files[group.files[0]].dead > 0);
            }
            for (number, facts) in files.iter().enumerate() {
                prop_assert!(facts.dead == 0 || seen.contains(&number), "all marks are purged");
            }
        }
    }
}
