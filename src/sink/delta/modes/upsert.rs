//! Mode `current`: one row per key. A snapshot replaces all rows; an increment is merged into them.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use parking_lot::Mutex;
use roaring::RoaringBitmap;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::engine::engine_error;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::reduce::ChangeSet;
use crate::schema::Deletes;
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::file_actions::{FileChanges, NewFile};
use crate::sink::delta::log::schema_evolution::is_convertible;
use crate::sink::delta::log::system_columns::SystemColumn;
use crate::sink::delta::merge::change_feed::ChangeFeedWriter;
use crate::sink::delta::merge::key_probe::{DeletedRows, FileAction, LookupOptions, MergeProbe, TrackedMatches};
use crate::sink::delta::merge::key_set::is_integer;
use crate::sink::delta::merge::post_write_dedup::{PostWriteDedup, RowLocationIndex};
use crate::sink::delta::merge::probe_buffer::ProbeBuffer;
use crate::sink::delta::merge::row_location::RowLocator;
use crate::sink::delta::merge::snapshot_writer::{KeyPolicy, SnapshotWriter, write_upserts};
use crate::sink::delta::merge::unique_keys::UniqueKeyCheck;
use crate::sink::delta::modes::context::{LoadContext, position_of};
use crate::sink::delta::read::row_reader::{RowReader, deleted_rows};
use crate::sink::delta::write::deletion_vectors::VectorFile;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partition_router::PartitionRouter;
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::{LoadKind, WriteError};

/// Replaces all rows of the table by the change set. Streams are written concurrently, each writer to files of its own.
pub(crate) async fn replace(load: &LoadContext, changes: ChangeSet) -> Result<FileChanges, WriteError> {
    let engine = &load.options.engine;
    let writers = engine.partitions().min(changes.streams.len()).max(1);
    let format = load.format(writers);
    let mut locations = None;
    let policy = if changes.reduced {
        KeyPolicy::Deduplicated
    } else if is_integer(&load.key_types()) && !load.plan.table.is_log() {
        KeyPolicy::Unique(UniqueKeyCheck::new(&load.key_types(), engine)?)
    } else {
        let index = locations.insert(RowLocationIndex::new(engine));
        KeyPolicy::Locate(RowLocator::new(&load.key_types())?, Arc::new(index.clone()))
    };
    let (added, upserted) = write_snapshot(load, changes, &format, policy, writers).await?;
    let mut written = FileChanges { added, upserted, ..FileChanges::remove_all(load.files().len()) };
    let registry = load.uncommitted.registry();
    if let Some(locations) = locations {
        // Readers of a change data feed take the files of a first commit for its inserts, and not all respect deletion vectors there.
        let rule = load.deletion_vector_rule().filter(|_| !load.writes_change_feed());
        let dedup = PostWriteDedup { engine, format: &format, registry: &registry, rule };
        let replaced = locations.replaced_rows().await?;
        let deduplicated = dedup.remove_rows(&replaced, std::mem::take(&mut written.added)).await?;
        if deduplicated.removed_rows > 0 {
            let rows = deduplicated.removed_rows;
            tracing::debug!(table = %load.plan.table, rows, "Removed older rows of repeated keys");
        }
        written.added = deduplicated.files;
        written.vector_file_bytes = deduplicated.vector_file_bytes;
        written.upserted -= deduplicated.removed_rows;
    }
    if load.writes_change_feed() && load.feeds_old_rows() {
        let old_rows = old_row_reader(load, &format);
        let feed = ChangeFeedWriter {
            options: &load.options,
            format: &format,
            old_rows: &old_rows,
            keys: &load.keys,
            registry: &registry,
        };
        written.change_feed = feed.write(all_rows(load).await?, &written.added).await?;
    }
    Ok(written)
}

/// Writes the streams of a snapshot with `writers` concurrent writers. Returns the files and the number of upserts.
async fn write_snapshot(
    load: &LoadContext,
    changes: ChangeSet,
    format: &Arc<FileFormat>,
    policy: KeyPolicy,
    writers: usize,
) -> Result<(Vec<NewFile>, u64), WriteError> {
    let engine = &load.options.engine;
    let router = PartitionRouter::new(format, engine, writers);
    let streams = match &router {
        Some(router) => router.route(&changes.schema, changes.streams, writers),
        None => changes.streams,
    };
    let streams = Arc::new(Mutex::new(VecDeque::from(streams)));
    let mut running = JoinSet::new();
    for _ in 0..writers {
        let writer = SnapshotWriter {
            streams: Arc::clone(&streams),
            format: Arc::clone(format),
            keys: load.keys.clone(),
            policy: policy.clone(),
            router: router.clone(),
            batch_bytes: engine.batch_bytes(),
        };
        running.spawn(writer.run(load.writer(format)).in_current_span());
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

/// Reads old rows in the schema of new files. Columns whose old values do not fit the new type are null.
fn old_row_reader(load: &LoadContext, format: &FileFormat) -> RowReader {
    let does_not_fit = |column: &LakeColumn| {
        let old = load.old_columns().iter().find(|old| old.physical == column.physical);
        old.is_some_and(|old| !is_convertible(&old.kind, &column.kind))
    };
    RowReader::for_format(format, &load.options.engine).with_nulls(does_not_fit)
}

/// All rows of the table, as deleted rows.
async fn all_rows(load: &LoadContext) -> Result<Vec<DeletedRows>> {
    let mut all = Vec::with_capacity(load.files().len());
    for file in load.files() {
        let total = file.rows.and_then(|rows| u32::try_from(rows).ok()).ok_or_else(|| {
            Error::new(Kind::Unsupported, "The statistics of a data file lack the number of rows")
                .with_field("file", &file.path)
                .hint("sync this table with --change-data-feed off")
        })?;
        let mut rows = RoaringBitmap::new();
        rows.insert_range(0..total);
        rows -= deleted_rows(&load.log.store(), file).await?;
        all.push(DeletedRows { file: Arc::clone(file), by_delete: rows.clone(), rows });
    }
    Ok(all)
}

/// Merges the change set into the table: upserts go to new files, and rows with a key of the change set are deleted from existing
/// files. With soft deletes, deleted rows are written again with `_deleted`, and a snapshot soft-deletes all keys that it does not
/// have.
pub(crate) async fn merge(load: &LoadContext, changes: ChangeSet) -> Result<FileChanges, WriteError> {
    let engine = &load.options.engine;
    let format = load.format(2);
    let registry = load.uncommitted.registry();
    let mut writer = load.writer(&format);
    let soft_deletes = load.layout.deletes == Deletes::Mark;
    let track = match (soft_deletes, load.writes_change_feed()) {
        (true, _) => TrackedMatches::Deletes,
        (false, true) => TrackedMatches::AllAndDeletes,
        (false, false) => TrackedMatches::None,
    };
    let mut probe = load.probe(LookupOptions { track, ..LookupOptions::default() });
    let (upserted, deleted) = write_and_probe(load, changes, &format, &mut writer, &mut probe).await?;

    let mut written = FileChanges { upserted, deleted, ..FileChanges::keep_all(load.files().len()) };
    let reader = RowReader::for_format(&format, engine);
    if soft_deletes {
        written.deleted = 0;
        for (file, rows) in load.files().iter().zip(probe.take_tracked()).filter(|(_, rows)| !rows.is_empty()) {
            let rows = reader.rows_at(&file.location(), &rows).await?;
            written.deleted += write_soft_deleted(rows, &format, &mut writer).await?;
        }
    }
    if load.writes_change_feed() {
        // New rows get files of their own, so that the feed can tell them from rewritten rows.
        let new_rows = std::mem::replace(&mut writer, load.writer(&format));
        written.added = new_rows.finish().await?;
        let deleted = probe.take_deleted_rows();
        // Without files of the feed, readers would take all rows of rewritten files for changes.
        written.rewritten_from = deleted.is_empty().then_some(written.added.len());
        let feed = ChangeFeedWriter {
            options: &load.options,
            format: &format,
            old_rows: &reader,
            keys: &load.keys,
            registry: &registry,
        };
        written.change_feed = feed.write(deleted, &written.added).await?;
    }
    let mut vectors = VectorFile::new();
    if soft_deletes && load.plan.kind == LoadKind::Replace {
        // The remaining old rows are not in the snapshot.
        for (number, action) in probe.into_actions(true, None).await?.into_iter().enumerate() {
            written.removed[number] = true;
            let FileAction::Rewrite(deleted) = action else { continue };
            let rows = reader.live_rows(&load.files()[number].location(), deleted).await?;
            written.deleted += write_soft_deleted(rows, &format, &mut writer).await?;
        }
    } else {
        let old_flag = SystemColumn::Deleted.find(load.old_columns()).filter(|_| load.design.purges_soft_deletes);
        if let Some(column) = old_flag {
            probe.match_flagged(column).await?;
        }
        let actions = probe.into_actions(load.design.rewrites, load.deletion_vector_rule()).await?;
        load.existing_files(&format).apply(actions, &mut writer, &mut vectors, &mut written).await?;
    }
    written.added.extend(writer.finish().await?);
    written.vector_file_bytes = vectors.finish(&format.store, &registry).await?;
    Ok(written)
}

/// Writes the upserts and looks up all keys in existing files. Returns the number of upserts and of deletes that were found.
async fn write_and_probe(
    load: &LoadContext,
    changes: ChangeSet,
    format: &Arc<FileFormat>,
    writer: &mut TableWriter,
    probe: &mut MergeProbe,
) -> Result<(u64, u64), WriteError> {
    let engine = &load.options.engine;
    let mut keys = ProbeBuffer::new(&load.key_types(), engine)?;
    let mut batches = load.batches(changes)?;
    let (mut upserted, mut deleted) = (0, 0);
    while let Some(batch) = batches.next().await? {
        if !load.files().is_empty() {
            deleted += keys.push(probe, &batch.keys, &batch.deletes).await?;
        }
        upserted += write_upserts(writer, &batch.rows, &batch.deletes, format, engine.batch_bytes()).await?;
    }
    deleted += keys.finish(probe).await?;
    Ok((upserted, deleted))
}

/// Rewrites all existing files in the new schema.
pub(crate) async fn rewrite_all(load: &LoadContext, format: &Arc<FileFormat>, written: &mut FileChanges) -> Result<()> {
    let actions = load.probe(LookupOptions::default()).into_actions(true, None).await?;
    let mut writer = load.writer(format);
    load.existing_files(format).apply(actions, &mut writer, &mut VectorFile::new(), written).await?;
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
