//! Mode `current`: one row per key. A snapshot takes the place of all that was there; an increment is merged into it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use roaring::RoaringBitmap;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::engine::{combine_streams, engine_error};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::reduce::{ChangeSet, deletes};
use crate::schema::Deletes;
use crate::sink::LoadKind;
use crate::sink::delta::DeletionVectors;
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::schema_evolution::follows;
use crate::sink::delta::log::system_columns::Role;
use crate::sink::delta::log::table_log;
use crate::sink::delta::merge::change_feed::Feed;
use crate::sink::delta::merge::dedup::{Notes, Settling};
use crate::sink::delta::merge::file_rewrite::OldFiles;
use crate::sink::delta::merge::key_probe::{Fate, Look, MarkRule, Note, Probe, Went, live_rows, marked_rows, rows_at};
use crate::sink::delta::merge::key_search::KeySearch;
use crate::sink::delta::merge::key_set::{is_integer, key_columns};
use crate::sink::delta::merge::snapshot_writer::{Check, ReplaceWorker, SharedUnique, routing, write_upserts};
use crate::sink::delta::modes::load::{DeltaLoad, Written};
use crate::sink::delta::write::deletion_vectors::VectorFile;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partitioned_writer::TableWriter;

/// With [`DeletionVectors::Auto`], a table gets its first mark only in a file of at least this part of the usual size.
const SMALLEST_FIRST_MARKED_SHARE: u64 = 32;
/// With [`DeletionVectors::Auto`], only files of at least this part of the usual size are marked.
const SMALLEST_MARKED_SHARE: u64 = 256;
/// A file is written anew when more of its rows than this would be marked: readers decode all rows of it, deleted or not.
const MOST_MARKED_PERCENT: u64 = 20;

impl DeltaLoad {
    pub(in crate::sink::delta) fn unique(&self, changes: &ChangeSet) -> Result<Option<SharedUnique>> {
        if changes.reduced {
            return Ok(None);
        }
        Ok(Some(SharedUnique::new(&self.key_types(), &self.options.engine)?))
    }

    /// All that was there goes; the set is the table. Streams are written side by side, each worker to files of its own.
    pub(in crate::sink::delta) async fn replace(&self, changes: ChangeSet) -> Result<Written> {
        let engine = &self.options.engine;
        let workers = engine.partitions().min(changes.streams.len()).max(1);
        let format = self.format(workers);
        let check = if changes.reduced {
            Check::Nothing
        } else if is_integer(&self.key_types()) && !self.plan.table.is_log() {
            Check::Unique(SharedUnique::new(&self.key_types(), engine)?)
        } else {
            Check::Settled(Notes::new(&self.key_types(), engine)?)
        };
        let names = self.uncommitted.names();
        let mut streams = changes.streams;
        let routing = routing(&format, engine, workers);
        if let Some(routing) = &routing {
            streams = routing.route(&changes.schema, streams, workers);
        }
        let streams = Arc::new(Mutex::new(VecDeque::from(streams)));
        let mut running = JoinSet::new();
        for _ in 0..workers {
            let worker = ReplaceWorker {
                streams: Arc::clone(&streams),
                format: Arc::clone(&format),
                keys: self.keys.clone(),
                check: check.clone(),
                routing: routing.clone(),
                batch_bytes: engine.batch_bytes(),
            };
            let writer = TableWriter::new(Arc::clone(&format), names.clone());
            running.spawn(worker.run(writer).in_current_span());
        }
        let mut written = Written { removed: vec![true; self.files().len()], ..Written::default() };
        while let Some(done) = running.join_next().await {
            match done.context(Kind::Bug, "Writing rows stopped unexpectedly").flatten() {
                Ok((files, upserted)) => {
                    written.added.extend(files);
                    written.upserted += upserted;
                }
                Err(error) => {
                    running.shutdown().await;
                    return Err(error);
                }
            }
        }
        if let Check::Settled(notes) = check {
            // Readers of a change data feed take the files of a first commit for what it tells; not all heed marks there.
            let rule = self.mark_rule().filter(|_| !self.feeds());
            let settling = Settling { engine, format: &format, names: &names, rule };
            let replaced = notes.replaced().await?;
            let (files, vector_bytes, gone) = settling.take_out(&replaced, std::mem::take(&mut written.added)).await?;
            if gone > 0 {
                tracing::debug!(table = %self.plan.table, rows = gone, "Rows came again under the same key; the newest stay");
            }
            written.added = files;
            written.vector_bytes = vector_bytes;
            written.upserted -= gone;
        }
        if self.feeds() && self.tells_all_old_rows() {
            let old_format = self.format_of_old_rows(&format);
            let feed =
                Feed { options: &self.options, format: &format, old_format: &old_format, keys: &self.keys, names: &names };
            written.feed = feed.write(self.all_rows().await?, &written.added).await?;
        }
        Ok(written)
    }

    /// Whether a replacement says of each old row that it is deleted: some readers of feeds take the marks of a file that goes for
    /// the rows that were deleted. Rows of another key cannot be told.
    pub(in crate::sink::delta) fn tells_all_old_rows(&self) -> bool {
        let Some(state) = &self.state else { return false };
        let replaces = self.plan.kind == LoadKind::Replace && !self.layout.keeps_rows();
        let has_key = |key: &LakeColumn| {
            let old = state.columns.iter().find(|old| old.physical == key.physical && state.key.contains(&old.name));
            old.is_some_and(|old| follows(&old.kind, &key.kind))
        };
        replaces && state.files.iter().any(|file| file.deletion_vector.is_some()) && self.key_columns().iter().all(has_key)
    }

    /// `format` for reading old rows: columns whose old values do not fit the new type are not looked for.
    fn format_of_old_rows(&self, format: &Arc<FileFormat>) -> Arc<FileFormat> {
        let old = self.state.as_ref().map_or(&[][..], |state| &state.columns);
        let fits = |column: &LakeColumn| {
            old.iter().find(|old| old.physical == column.physical).is_none_or(|old| follows(&old.kind, &column.kind))
        };
        if format.columns.iter().all(fits) {
            return Arc::clone(format);
        }
        let outbox = self.log.outbox(&self.options.engine);
        let mut reading = FileFormat::new(&self.options, outbox, &self.design.columns, &self.keys, 1);
        for column in reading.columns.iter_mut().filter(|column| !fits(column)) {
            column.physical = String::new();
        }
        Arc::new(reading)
    }

    /// All rows that are there, as if they were deleted.
    async fn all_rows(&self) -> Result<Vec<Went>> {
        let mut all = Vec::with_capacity(self.files().len());
        for file in self.files() {
            let total = file.rows.and_then(|rows| u32::try_from(rows).ok()).ok_or_else(|| {
                Error::new(Kind::Unsupported, "A data file does not say how many rows it has")
                    .with_field("file", &file.path)
                    .hint("sync this table with --change-data-feed off")
            })?;
            let mut rows = RoaringBitmap::new();
            rows.insert_range(0..total);
            rows -= marked_rows(&self.log.store(), file).await?;
            all.push(Went { file: Arc::clone(file), by_delete: rows.clone(), rows });
        }
        Ok(all)
    }

    /// New rows go to new files; files that hold a key of the set are written anew without it. Where deletes are marked, the rows
    /// they hit come back with their mark, and a snapshot marks all that it does not have.
    pub(in crate::sink::delta) async fn merge(&self, changes: ChangeSet) -> Result<Written> {
        let engine = &self.options.engine;
        let format = self.format(2);
        let names = self.uncommitted.names();
        let mut writer = TableWriter::new(Arc::clone(&format), names.clone());
        let marks = self.layout.deletes == Deletes::Mark;
        let note = match (marks, self.feeds()) {
            (true, _) => Note::Deleted,
            (false, true) => Note::Told,
            (false, false) => Note::Nothing,
        };
        let look = Look { note, ..Look::default() };
        let mut probe = Probe::new(self.log.store(), self.files(), self.key_columns(), look, engine);
        let mut search = KeySearch::new(&self.key_types(), engine)?;
        let unique = self.unique(&changes)?;
        let (mut upserted, mut deleted) = (0, 0);

        let mut stream = combine_streams(changes.schema, changes.streams, engine.partitions());
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(engine_error)?;
            let columns = key_columns(&batch, &self.keys)?;
            if let Some(unique) = &unique {
                unique.insert(&columns[0])?;
            }
            let deletes = deletes(&batch)?;
            if !self.files().is_empty() {
                deleted += search.push(&mut probe, &columns, &deletes).await?;
            }
            upserted += write_upserts(&mut writer, &batch, &deletes, &format, engine.batch_bytes()).await?;
        }
        deleted += search.finish(&mut probe).await?;

        let mut written = Written { removed: vec![false; self.files().len()], upserted, deleted, ..Written::default() };
        if marks {
            written.deleted = 0;
            for (file, rows) in self.files().iter().zip(probe.take_noted()).filter(|(_, rows)| !rows.is_empty()) {
                let rows = rows_at(&format, file, &rows, engine).await?;
                written.deleted += write_marked(rows, &format, &mut writer).await?;
            }
        }
        if self.feeds() {
            // The new rows have files of their own, so that they can be told from those that are only written anew.
            let fresh = std::mem::replace(&mut writer, TableWriter::new(Arc::clone(&format), names.clone()));
            written.added = fresh.finish().await?;
            let feed = Feed { options: &self.options, format: &format, old_format: &format, keys: &self.keys, names: &names };
            let told = probe.take_told();
            // Without files of the feed, files that only change their columns would tell of all their rows.
            written.moved_from = told.is_empty().then_some(written.added.len());
            written.feed = feed.write(told, &written.added).await?;
        }
        let mut vectors = VectorFile::new();
        if marks && self.plan.kind == LoadKind::Replace {
            // What is left of the old rows is not in the snapshot.
            for (number, fate) in probe.into_fates(true, None).await?.into_iter().enumerate() {
                written.removed[number] = true;
                let Fate::IsRewritten(gone) = fate else { continue };
                let rows = live_rows(&format, &self.files()[number].located(), gone, engine).await?;
                written.deleted += write_marked(rows, &format, &mut writer).await?;
            }
        } else {
            if self.design.purges {
                // Rows were marked so far, and are to go from now on.
                let marked = self.state.as_ref().and_then(|state| Role::Deleted.find(&state.columns));
                if let Some(column) = marked {
                    probe.sweep(column).await?;
                }
            }
            let fates = probe.into_fates(self.design.rewrites, self.mark_rule()).await?;
            self.apply_fates(fates, &format, &mut writer, &mut vectors, &mut written).await?;
        }
        written.added.extend(writer.finish().await?);
        written.vector_bytes = vectors.finish(&format.store, &names).await?;
        Ok(written)
    }

    /// Does with the old files what was decided.
    pub(in crate::sink::delta) async fn apply_fates(
        &self,
        fates: Vec<Fate>,
        format: &Arc<FileFormat>,
        writer: &mut TableWriter,
        vectors: &mut VectorFile,
        written: &mut Written,
    ) -> Result<()> {
        let (names, target_file_bytes) = (self.uncommitted.names(), self.options.target_file_bytes);
        let files = OldFiles { files: self.files(), format, engine: &self.options.engine, names, target_file_bytes };
        files.apply(fates, writer, vectors, written).await
    }

    /// Writes all old files anew, because a column became wider.
    pub(in crate::sink::delta) async fn rewrite_all(&self, format: &Arc<FileFormat>, written: &mut Written) -> Result<()> {
        let probe = Probe::new(self.log.store(), self.files(), self.key_columns(), Look::default(), &self.options.engine);
        let fates = probe.into_fates(true, None).await?;
        let mut writer = TableWriter::new(Arc::clone(format), self.uncommitted.names());
        self.apply_fates(fates, format, &mut writer, &mut VectorFile::new(), written).await?;
        written.added.extend(writer.finish().await?);
        Ok(())
    }

    /// When rows of old files are marked as deleted; `None`: never.
    pub(in crate::sink::delta) fn mark_rule(&self) -> Option<MarkRule> {
        let usual = self.options.target_file_bytes;
        if self.is_without_vectors() {
            return None;
        }
        let switch = self.state.as_ref().and_then(|state| state.configuration.get(table_log::DELETION_VECTORS));
        let least_file_bytes = match (self.options.deletion_vectors, switch.map(String::as_str)) {
            (DeletionVectors::On, _) => 0,
            // Once the table asks for readers that know them, they may as well save more.
            (_, Some("true")) => usual / SMALLEST_MARKED_SHARE,
            _ => usual / SMALLEST_FIRST_MARKED_SHARE,
        };
        Some(MarkRule { least_file_bytes, most_percent: MOST_MARKED_PERCENT })
    }
}

/// Writes rows with the mark of deleted ones, and says how many did not have it before.
async fn write_marked(mut rows: SendableRecordBatchStream, format: &FileFormat, writer: &mut TableWriter) -> Result<u64> {
    let Some(place) = Role::Deleted.place(&format.columns) else {
        return Err(Error::new(Kind::Bug, "A table without marks was to get some"));
    };
    let mut fresh = 0;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(engine_error)?;
        let before = batch.column(place).as_boolean().true_count();
        fresh += (batch.num_rows() - before) as u64;
        let mut columns = batch.columns().to_vec();
        columns[place] = Arc::new(BooleanArray::from(vec![true; batch.num_rows()]));
        let marked = RecordBatch::try_new(batch.schema(), columns).context(Kind::Bug, "Rows cannot be marked")?;
        writer.write(marked).await?;
    }
    Ok(fresh)
}
