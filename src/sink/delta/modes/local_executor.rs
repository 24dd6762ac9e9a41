//! Runs the tasks of a load in this process. Rows, keys and row locations pass from task to task in memory: an increment is read once, and
//! its keys are looked up while its rows are written.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::engine::engine_error;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::reduce::ChangeSet;
use crate::schema::Deletes;
use crate::sink::delta::log::file_actions::{FileChanges, NewFile};
use crate::sink::delta::log::system_columns::SystemColumn;
use crate::sink::delta::merge::change_feed::ChangeFeedWriter;
use crate::sink::delta::merge::key_probe::{FileAction, LookupOptions, MergeProbe, TrackedMatches};
use crate::sink::delta::merge::key_set::is_integer;
use crate::sink::delta::merge::post_write_dedup::{RowLocationIndex, RowsByFile};
use crate::sink::delta::merge::probe_buffer::BufferedProbe;
use crate::sink::delta::merge::row_location::RowLocator;
use crate::sink::delta::merge::snapshot_writer::{KeyPolicy, SnapshotRows, SnapshotWriter};
use crate::sink::delta::merge::unique_keys::UniqueKeyCheck;
use crate::sink::delta::modes::context::{LoadContext, position_of};
use crate::sink::delta::modes::upsert::{UpsertExecutor, WrittenSnapshot};
use crate::sink::delta::read::row_reader::RowReader;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partition_router::PartitionRouter;
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::{LoadKind, WriteError};

/// Runs the tasks of one load in this process.
pub(crate) struct LocalExecutor<'a> {
    load: &'a LoadContext,
    /// `None`: they were written.
    changes: Option<ChangeSet>,
}

/// An increment whose upserts were written and whose keys were looked up.
pub(crate) struct LocalIncrement {
    format: Arc<FileFormat>,
    /// The new rows; rewritten rows may follow.
    writer: TableWriter,
    probe: MergeProbe,
    upserted: u64,
    /// Number of deletes whose rows were found.
    deleted: u64,
}

impl<'a> LocalExecutor<'a> {
    /// An executor for these changes.
    pub(crate) fn new(load: &'a LoadContext, changes: ChangeSet) -> Self {
        Self { load, changes: Some(changes) }
    }

    fn take_changes(&mut self) -> Result<ChangeSet> {
        self.changes.take().ok_or_else(|| Error::new(Kind::Bug, "The changes of a load were written twice"))
    }

    fn has_soft_deletes(&self) -> bool {
        self.load.layout.deletes == Deletes::Mark
    }
}

#[async_trait]
impl UpsertExecutor for LocalExecutor<'_> {
    type Increment = LocalIncrement;

    /// Streams are written concurrently, each writer to files of its own. An integer key needs no row locations: a bitmap checks that it
    /// does not repeat.
    async fn write_snapshot(&mut self) -> Result<WrittenSnapshot, WriteError> {
        let (load, changes) = (self.load, self.take_changes()?);
        let engine = &load.options.engine;
        let writers = engine.partitions().min(changes.streams.len()).max(1);
        let format = load.format_for_ordered_rows(writers);
        let mut locations = None;
        let policy = if changes.reduced {
            KeyPolicy::Deduplicated
        } else if is_integer(&load.key_types()) && !load.plan.table.is_log() {
            KeyPolicy::Unique(UniqueKeyCheck::new(&load.key_types(), engine)?)
        } else {
            let index = locations.insert(RowLocationIndex::new(engine));
            KeyPolicy::Locate(RowLocator::new(&load.key_types())?, Arc::new(index.clone()))
        };
        let (files, upserted) = write_streams(load, changes, &format, policy, writers).await?;
        let replaced = match locations {
            Some(locations) => locations.replaced_rows().await?,
            None => RowsByFile::new(),
        };
        Ok(WrittenSnapshot { files, upserted, replaced })
    }

    async fn write_increment(&mut self) -> Result<LocalIncrement, WriteError> {
        let (load, changes) = (self.load, self.take_changes()?);
        let engine = &load.options.engine;
        let format = load.format(2);
        let mut writer = load.writer(&format);
        let track = match (self.has_soft_deletes(), load.writes_change_feed()) {
            (true, _) => TrackedMatches::Deletes,
            (false, true) => TrackedMatches::AllAndDeletes,
            (false, false) => TrackedMatches::None,
        };
        let probe = load.probe(LookupOptions { track, ..LookupOptions::default() });
        let mut keys = BufferedProbe::new(probe, &load.key_types(), engine)?;
        let batches = load.batches(changes)?;
        let upserted = batches.write(&mut writer, &format, engine.batch_bytes(), &mut keys).await?;
        let (probe, deleted) = keys.finish().await?;
        Ok(LocalIncrement { format, writer, probe, upserted, deleted })
    }

    /// With soft deletes, deleted rows are written again with `_deleted`, and a snapshot soft-deletes all keys that it does not have.
    async fn update_files(&mut self, increment: LocalIncrement) -> Result<FileChanges, WriteError> {
        let load = self.load;
        let LocalIncrement { format, mut writer, mut probe, upserted, deleted } = increment;
        let mut written = FileChanges { upserted, deleted, ..FileChanges::keep_all(load.files().len()) };
        if self.has_soft_deletes() {
            soft_delete(load, &format, writer, probe, &mut written).await?;
            return Ok(written);
        }
        if load.writes_change_feed() {
            writer = write_change_feed(load, &format, writer, &mut probe, &mut written).await?;
        }
        let old_flag = SystemColumn::Deleted.find(load.old_columns()).filter(|_| load.design.purges_soft_deletes);
        if let Some(column) = old_flag {
            probe.match_flagged(column).await?;
        }
        let rule = load.deletion_vector_rule();
        load.existing_files(&format).delete_matches(probe, load.design.rewrites, rule, writer, &mut written).await?;
        Ok(written)
    }
}

/// Writes the streams of a snapshot with `writers` concurrent writers. Returns the files and the number of upserts.
async fn write_streams(
    load: &LoadContext,
    changes: ChangeSet,
    format: &Arc<FileFormat>,
    policy: KeyPolicy,
    writers: usize,
) -> Result<(Vec<NewFile>, u64), WriteError> {
    let engine = &load.options.engine;
    let router = PartitionRouter::new(format, engine, writers);
    let inputs: Vec<SnapshotRows> = match router {
        Some(router) => router.route(&changes.schema, changes.streams, writers).into_iter().map(SnapshotRows::Routed).collect(),
        None => {
            let streams = Arc::new(Mutex::new(VecDeque::from(changes.streams)));
            (0..writers).map(|_| SnapshotRows::Streams(Arc::clone(&streams))).collect()
        }
    };
    let mut running = JoinSet::new();
    for rows in inputs {
        let writer = SnapshotWriter {
            format: Arc::clone(format),
            keys: load.keys.clone(),
            policy: policy.clone(),
            batch_bytes: engine.batch_bytes(),
        };
        running.spawn(writer.run(rows, load.writer(format)).in_current_span());
    }
    let (mut added, mut upserted) = (Vec::new(), 0);
    while let Some(done) = running.join_next().await {
        let done = done.context(Kind::Bug, "A writer of rows stopped unexpectedly").map_err(WriteError::from);
        match done.flatten() {
            Ok((files, count)) => {
                added.extend(files);
                upserted += count;
            }
            Err(error) => {
                running.shutdown().await;
                return Err(error);
            }
        }
    }
    Ok((added, upserted))
}

/// Writes the change data feed of an increment. New rows get files of their own, so that the feed can tell them from rewritten rows.
/// Returns a writer for the rewritten rows.
async fn write_change_feed(
    load: &LoadContext,
    format: &Arc<FileFormat>,
    new_rows: TableWriter,
    probe: &mut MergeProbe,
    written: &mut FileChanges,
) -> Result<TableWriter> {
    written.added = new_rows.finish().await?;
    let deleted = probe.take_deleted_rows();
    // Without files of the feed, readers would treat all rows of rewritten files as changes.
    written.rewritten_from = deleted.is_empty().then_some(written.added.len());
    let feed = ChangeFeedWriter {
        options: &load.options,
        format,
        old_rows: &RowReader::for_format(format, &load.options.engine),
        keys: &load.keys,
        registry: &load.uncommitted.registry(),
    };
    written.change_feed = feed.write(deleted, &written.added).await?;
    Ok(load.writer(format))
}

/// Writes the matches of deletes again with `_deleted`, and, after a snapshot, all other rows of the table, too.
async fn soft_delete(
    load: &LoadContext,
    format: &Arc<FileFormat>,
    mut writer: TableWriter,
    mut probe: MergeProbe,
    written: &mut FileChanges,
) -> Result<()> {
    let reader = RowReader::for_format(format, &load.options.engine);
    written.deleted = 0;
    for (file, rows) in load.files().iter().zip(probe.take_tracked()).filter(|(_, rows)| !rows.is_empty()) {
        let rows = reader.rows_at(&file.location(), &rows).await?;
        written.deleted += write_soft_deleted(rows, format, &mut writer).await?;
    }
    if load.plan.kind == LoadKind::Merge {
        let rule = load.deletion_vector_rule();
        return load.existing_files(format).delete_matches(probe, load.design.rewrites, rule, writer, written).await;
    }
    // The remaining old rows are not in the snapshot.
    for (number, action) in probe.into_actions(true, None).await?.into_iter().enumerate() {
        written.removed[number] = true;
        let FileAction::Rewrite(deleted) = action else { continue };
        let rows = reader.live_rows(&load.files()[number].location(), deleted).await?;
        written.deleted += write_soft_deleted(rows, format, &mut writer).await?;
    }
    written.added.extend(writer.finish().await?);
    Ok(())
}

/// Writes rows with `_deleted` set. Returns the number of rows that were not soft-deleted before.
async fn write_soft_deleted(mut rows: SendableRecordBatchStream, format: &FileFormat, writer: &mut TableWriter) -> Result<u64> {
    let flag = position_of(SystemColumn::Deleted, format)?;
    let mut newly_deleted = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(engine_error)?;
        let before = batch.column(flag).as_boolean().true_count();
        newly_deleted += (batch.num_rows() - before) as u64;
        let mut columns = batch.columns().to_vec();
        columns[flag] = Arc::new(BooleanArray::from(vec![true; batch.num_rows()]));
        let deleted = RecordBatch::try_new(batch.schema(), columns).context(Kind::Bug, "Rows cannot be soft-deleted")?;
        writer.write(deleted).await?;
    }
    Ok(newly_deleted)
}
