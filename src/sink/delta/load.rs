//! One load of one Delta table: rows to files as they stream in, then everything visible in one commit.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use deltalake::kernel::{Action, DeletionVectorDescriptor};
use deltalake::protocol::{DeltaOperation, SaveMode};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tracing::Instrument;

use super::apply::{Fate, MarkRule, Probe, rewrite};
use super::columns::LakeColumn;
use super::conform::{Names, conform};
use super::evolve::{check_key, check_names, evolve, map_columns};
use super::files::Uncommitted;
use super::keys::{KeyCollector, Unique, key_columns};
use super::log::{self, ActiveFile, CommitFailure, TableLog, TableState};
use super::optimize;
use super::protocol::{Feature, new_protocol, raised_protocol};
use super::vectors::VectorFile;
use super::writer::{FileFormat, NewFile, TableWriter};
use super::{DeletionVectors, DeltaOptions};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::Bookmark;
use crate::schema::{Followed, Nested, lake_schema};
use crate::sink::{Load, LoadKind, LoadPlan, Loaded};
use crate::stage::{ChangeSet, Engine, deletes, engine_error, pull_together, split_batch};
use crate::store::explained;

/// Batches between two looks at the memory of the check for repeated keys, which takes time to measure.
const UNIQUE_CHECK_BATCHES: usize = 64;
/// With [`DeletionVectors::Auto`], a table gets its first mark only in a file of at least this part of the usual size.
const SMALLEST_FIRST_MARKED_SHARE: u64 = 32;
/// With [`DeletionVectors::Auto`], only files of at least this part of the usual size are marked.
const SMALLEST_MARKED_SHARE: u64 = 256;
/// A file is written anew when more of its rows than this would be marked: readers decode all rows of it, deleted or not.
const MOST_MARKED_PERCENT: u64 = 20;

/// See [`Load`].
///
/// A load whose plan expects another bookmark than the table has does no work: [`Load::write`] drops its changes, and
/// [`Load::commit`] decides, because only there it is known whether the same result was committed already.
#[derive(Debug)]
pub(super) struct DeltaLoad {
    options: DeltaOptions,
    log: TableLog,
    plan: LoadPlan,
    state: Option<TableState>,
    keys: Vec<String>,
    design: Design,
    uncommitted: Uncommitted,
    written: Option<Written>,
}

/// What the table is going to look like, before nulls in required columns are known.
#[derive(Debug, Default)]
struct Design {
    columns: Vec<LakeColumn>,
    changes: Vec<String>,
    rewrites: bool,
    mapped: bool,
    max_id: i64,
    /// Columns left out or hashed.
    chosen: Followed,
}

/// What was written, ready to be committed.
#[derive(Debug, Default)]
struct Written {
    added: Vec<NewFile>,
    /// For each file of the state, whether it goes; those of `marked` go and come back.
    removed: Vec<bool>,
    marked: Vec<MarkedFile>,
    /// Bytes of the file of deletion vectors.
    vector_bytes: u64,
    upserted: u64,
    deleted: u64,
}

/// A file that stays with other rows marked as deleted.
#[derive(Debug)]
struct MarkedFile {
    file: Arc<ActiveFile>,
    vector: DeletionVectorDescriptor,
}

impl MarkedFile {
    fn live_rows(&self) -> Option<u64> {
        Some(self.file.rows?.saturating_sub(u64::try_from(self.vector.cardinality).ok()?))
    }
}

impl DeltaLoad {
    /// Reads the table's state and plans its schema. Kind `Target` for something foreign, `Schema` for a change that cannot be
    /// followed.
    pub(super) async fn begin(options: DeltaOptions, log: TableLog, plan: LoadPlan) -> Result<Self> {
        let state = log.state().await?;
        let keys: Vec<String> = plan.schema.key_names().into_iter().map(str::to_owned).collect();
        let uncommitted = Uncommitted::new(log.store(), log.folder.clone());
        let design = if state.as_ref().map(|state| state.bookmark) == plan.expects {
            if let Some(state) = &state {
                state.check_writable(&plan.table)?;
            }
            design(state.as_ref(), &plan, &keys).with("table", &plan.table)?
        } else {
            Design::default()
        };
        Ok(Self { options, log, plan, state, keys, design, uncommitted, written: None })
    }

    fn held(&self) -> Option<Bookmark> {
        self.state.as_ref().map(|state| state.bookmark)
    }

    fn is_stale(&self) -> bool {
        self.held() != self.plan.expects
    }

    fn files(&self) -> &[Arc<ActiveFile>] {
        self.state.as_ref().map_or(&[], |state| &state.files)
    }

    fn format(&self, writers: usize) -> Arc<FileFormat> {
        Arc::new(FileFormat::new(&self.options, self.log.store(), &self.design.columns, &self.keys, writers))
    }

    fn key_types(&self) -> Vec<DataType> {
        self.key_columns().iter().map(|column| column.kind.file_type()).collect()
    }

    fn key_columns(&self) -> Vec<LakeColumn> {
        let find = |name: &String| self.design.columns.iter().find(|column| column.name == *name).cloned();
        self.keys.iter().filter_map(find).collect()
    }

    fn unique(&self, changes: &ChangeSet) -> Result<Option<SharedUnique>> {
        if changes.reduced {
            return Ok(None);
        }
        Ok(Some(SharedUnique::new(&self.key_types(), &self.options.engine)?))
    }

    /// All that was there goes; the set is the table. Streams are written side by side, each worker to files of its own.
    async fn replace(&self, changes: ChangeSet) -> Result<Written> {
        let workers = self.options.engine.partitions().min(changes.streams.len()).max(1);
        let format = self.format(workers);
        let unique = self.unique(&changes)?;
        let streams = Arc::new(Mutex::new(VecDeque::from(changes.streams)));
        let mut running = JoinSet::new();
        for _ in 0..workers {
            let worker = ReplaceWorker {
                streams: Arc::clone(&streams),
                format: Arc::clone(&format),
                keys: self.keys.clone(),
                unique: unique.clone(),
                batch_bytes: self.options.engine.batch_bytes(),
            };
            let writer = TableWriter::new(Arc::clone(&format), self.uncommitted.names());
            running.spawn(worker.run(writer).in_current_span());
        }
        let mut written = Written { removed: vec![true; self.files().len()], ..Written::default() };
        while let Some(done) = running.join_next().await {
            match done.or_fail(Kind::Bug, "Writing rows stopped unexpectedly").flatten() {
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
        Ok(written)
    }

    /// New rows go to new files; files that hold a key of the set are written anew without it.
    async fn merge(&self, changes: ChangeSet) -> Result<Written> {
        let engine = &self.options.engine;
        let format = self.format(2);
        let names = self.uncommitted.names();
        let mut writer = TableWriter::new(Arc::clone(&format), names.clone());
        let mut probe = Probe::new(self.log.store(), self.files(), self.key_columns(), engine);
        let mut keys = KeyCollector::new(&self.key_types())?;
        let key_budget = engine.memory_limit() / 8;
        let key_memory = MemoryConsumer::new("Keys").register(engine.memory_pool());
        let unique = self.unique(&changes)?;
        let (mut upserted, mut deleted) = (0, 0);

        let mut stream = pull_together(changes.schema, changes.streams, engine.partitions());
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(engine_error)?;
            let columns = key_columns(&batch, &self.keys)?;
            if let Some(unique) = &unique {
                unique.insert(&columns[0])?;
            }
            let deletes = deletes(&batch)?;
            if !self.files().is_empty() {
                keys.push(&columns, &deletes)?;
                // Too many for the memory: look for these now, and forget them.
                if key_memory.try_resize(keys.memory_size()).is_err() || keys.memory_size() > key_budget {
                    deleted += probe.round(keys.take()).await?;
                    key_memory.free();
                }
            }
            upserted += write_upserts(&mut writer, &batch, &deletes, &format, engine.batch_bytes()).await?;
        }
        if !keys.is_empty() {
            deleted += probe.round(keys.take()).await?;
        }
        drop(key_memory);

        let mut written = Written { removed: vec![false; self.files().len()], upserted, deleted, ..Written::default() };
        let mut vectors = VectorFile::new();
        for (number, fate) in probe.into_fates(self.design.rewrites, self.mark_rule()).await?.into_iter().enumerate() {
            let file = &self.files()[number];
            match fate {
                Fate::Stays => {}
                Fate::Goes => written.removed[number] = true,
                Fate::IsMarked(gone) => {
                    written.removed[number] = true;
                    written.marked.push(MarkedFile { file: Arc::clone(file), vector: vectors.push(&gone)? });
                }
                Fate::IsRewritten(gone) => {
                    written.removed[number] = true;
                    // Small files are gathered with the new rows, large ones keep their range of keys to themselves.
                    if file.size < self.options.target_file_bytes / 4 {
                        rewrite(&format, file, gone, engine, &mut writer).await?;
                    } else {
                        let mut own = TableWriter::new(Arc::clone(&format), names.clone());
                        rewrite(&format, file, gone, engine, &mut own).await?;
                        written.added.extend(own.finish().await?);
                    }
                }
            }
        }
        written.added.extend(writer.finish().await?);
        written.vector_bytes = vectors.finish(&format.store, &names).await?;
        Ok(written)
    }

    /// When rows of old files are marked as deleted; `None`: never.
    fn mark_rule(&self) -> Option<MarkRule> {
        let usual = self.options.target_file_bytes;
        let switch = self.state.as_ref().and_then(|state| state.configuration.get(log::DELETION_VECTORS));
        match (self.options.deletion_vectors, switch.map(String::as_str)) {
            (DeletionVectors::Off, _) | (DeletionVectors::Auto, Some("false")) => None,
            (DeletionVectors::Auto, switch) => {
                // Once the table asks for readers that know them, they may as well save more.
                let share = if switch == Some("true") { SMALLEST_MARKED_SHARE } else { SMALLEST_FIRST_MARKED_SHARE };
                Some(MarkRule { least_file_bytes: usual / share, most_percent: MOST_MARKED_PERCENT })
            }
            (DeletionVectors::On, _) => Some(MarkRule { least_file_bytes: 0, most_percent: MOST_MARKED_PERCENT }),
        }
    }

    /// What the table's `delta.enableDeletionVectors` has to be: a statement for other programs as well.
    fn deletion_vector_switch(&self, written: &Written) -> Option<bool> {
        let present = self.state.as_ref().is_some_and(|state| state.configuration.contains_key(log::DELETION_VECTORS));
        match self.options.deletion_vectors {
            DeletionVectors::On => Some(true),
            DeletionVectors::Auto => (!written.marked.is_empty()).then_some(true),
            DeletionVectors::Off => present.then_some(false),
        }
    }

    /// The columns as they are to be committed: a null in a required column relaxes it, and no row is lost.
    fn settled_columns(&self, written: &Written) -> (Vec<LakeColumn>, Vec<String>) {
        let mut columns = self.design.columns.clone();
        let mut changes = self.design.changes.clone();
        for (index, column) in columns.iter_mut().enumerate() {
            let has_nulls = written.added.iter().any(|file| file.has_nulls.get(index) == Some(&true));
            if has_nulls && !column.nullable {
                column.nullable = true;
                changes.push(format!("`{}` has nulls although it is required, and may be null from now on", column.name));
            }
        }
        (columns, changes)
    }

    /// `metaData` and `protocol` actions where they differ from what is there.
    fn schema_actions(&self, columns: &[LakeColumn], reached: Bookmark, vectors: Option<bool>) -> Result<Vec<Action>> {
        let mut configuration: BTreeMap<String, String> = match &self.state {
            Some(state) => state.configuration.clone(),
            None => BTreeMap::from([("delta.checkpointInterval".into(), self.options.checkpoint_interval.max(1).to_string())]),
        };
        let nested = match self.plan.nested {
            Nested::Typed => "typed",
            Nested::Json => "json",
        };
        configuration.insert(log::TABLE.into(), self.plan.table.to_string());
        configuration.insert(log::KEY.into(), json!(self.keys).to_string());
        configuration.insert(log::SCHEMA_VERSION.into(), reached.schema_version.to_string());
        configuration.insert(log::NESTED.into(), nested.into());
        match self.design.chosen.record.is_empty() {
            true => configuration.remove(log::COLUMNS),
            false => configuration.insert(log::COLUMNS.into(), json!(self.design.chosen.record).to_string()),
        };
        if self.design.mapped {
            configuration.insert(log::MAPPING_MODE.into(), "name".into());
            configuration.insert(log::MAPPING_MAX_ID.into(), self.design.max_id.to_string());
        }
        if let Some(enabled) = vectors {
            configuration.insert(log::DELETION_VECTORS.into(), enabled.to_string());
        }

        let old = self.state.as_ref().map(|state| &state.metadata);
        let old_member = |name: &str| old.map(|old| old[name].clone()).filter(|value| !value.is_null());
        let metadata = json!({
            "id": old_member("id").unwrap_or_else(|| uuid::Uuid::new_v4().to_string().into()),
            "name": old_member("name").unwrap_or_else(|| self.plan.table.to_string().into()),
            "description": self.plan.schema.description,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": LakeColumn::schema_string(columns),
            "partitionColumns": [],
            "configuration": configuration,
            "createdTime": old_member("createdTime").unwrap_or_else(|| chrono::Utc::now().timestamp_millis().into()),
        });
        let mut actions = Vec::new();
        let mut needs = Vec::new();
        if self.design.mapped {
            needs.push(Feature::ColumnMapping);
        }
        if vectors == Some(true) {
            needs.push(Feature::DeletionVectors);
        }
        let protocol = match &self.state {
            None => Some(new_protocol(&needs)),
            Some(state) => raised_protocol(&state.protocol, &needs),
        };
        if let Some(protocol) = protocol {
            let protocol = serde_json::from_value(protocol).or_fail(Kind::Bug, "The table's protocol cannot be written")?;
            actions.push(Action::Protocol(protocol));
        }
        let unchanged = self.state.as_ref().is_some_and(|state| {
            state.configuration == configuration
                && state.columns == columns
                && state.metadata["description"] == metadata["description"]
        });
        if !unchanged {
            let metadata = serde_json::from_value(metadata).or_fail(Kind::Bug, "The table's metadata cannot be written")?;
            actions.push(Action::Metadata(metadata));
        }
        Ok(actions)
    }

    /// Merges the small files of a table that has gathered too many. The load stands whatever becomes of that.
    async fn compact_if_due(&self, written: &Written) {
        let limit = optimize::small_file_bytes(&self.options);
        let kept = self.files().iter().zip(&written.removed).filter(|(_, removed)| !**removed).map(|(file, _)| file.size);
        let marked = written.marked.iter().map(|marked| marked.file.size);
        let sizes = kept.chain(marked).chain(written.added.iter().map(|file| file.bytes));
        let small = sizes.filter(|size| *size < limit).count();
        if self.options.compact_after == 0 || small < self.options.compact_after as usize {
            return;
        }
        match optimize::compact_small(&self.options, &self.log).await {
            Ok(done) => {
                tracing::debug!(table = %self.plan.table, removed = done.files_removed, added = done.files_added, "Merged small files")
            }
            Err(error) => {
                tracing::warn!(table = %self.plan.table, error = %error, "Small files could not be merged; the table is right")
            }
        }
    }

    fn operation(&self) -> DeltaOperation {
        match self.plan.kind {
            LoadKind::Replace => DeltaOperation::Write { mode: SaveMode::Overwrite, partition_by: None, predicate: None },
            LoadKind::Merge => DeltaOperation::Merge {
                predicate: None,
                merge_predicate: None,
                matched_predicates: Vec::new(),
                not_matched_predicates: Vec::new(),
                not_matched_by_source_predicates: Vec::new(),
            },
        }
    }

    fn info(&self, written: &Written, reached: Bookmark) -> HashMap<String, Value> {
        let added_rows: u64 = written.added.iter().map(|file| file.rows).sum();
        let removed = written.removed.iter().filter(|removed| **removed).count();
        HashMap::from([
            ("daplakeRunId".into(), json!(self.plan.run_id)),
            ("daplakeJobId".into(), json!(self.plan.job_id)),
            ("daplakeBookmark".into(), json!(reached.at.to_string())),
            ("daplakeSchemaVersion".into(), json!(reached.schema_version)),
            (
                // Texts, as other writers have them.
                "operationMetrics".into(),
                json!({
                    "numUpsertedRows": written.upserted.to_string(),
                    "numDeletedRows": written.deleted.to_string(),
                    "numOutputRows": added_rows.to_string(),
                    "numAddedFiles": written.added.len().to_string(),
                    "numRemovedFiles": (removed - written.marked.len()).to_string(),
                    "numDeletionVectorsAdded": written.marked.len().to_string(),
                }),
            ),
        ])
    }

    fn conflict(&self) -> Error {
        Error::new(Kind::Conflict, "Another run got in between")
            .with("table", &self.plan.table)
            .hint("run it again; it goes on from where the table is now")
    }
}

/// Plans the schema.
fn design(state: Option<&TableState>, plan: &LoadPlan, keys: &[String]) -> Result<Design> {
    let wanted = lake_schema(&plan.schema, plan.nested);
    let mut wanted = LakeColumn::of_fields(wanted.fields())?;
    wanted.iter_mut().filter(|column| keys.contains(&column.name)).for_each(|column| column.nullable = false);
    let mut chosen = Followed { record: plan.layout.columns.clone(), notes: Vec::new() };
    let (mut columns, changes, rewrites, mapping) = match state {
        None => (wanted, Vec::new(), false, (false, 0)),
        Some(state) => {
            check_key(&state.key, keys, plan.kind)?;
            let mut old = state.columns.clone();
            match plan.kind {
                // Nothing of before stays, so what is left out need not stay empty.
                LoadKind::Replace => old.retain(|column| !chosen.record.dropped.contains(&column.name)),
                LoadKind::Merge => {
                    let has = |name: &str| old.iter().any(|column| column.name == name);
                    chosen = state.column_record().follow(&plan.layout.columns, has)?;
                }
            }
            let mut evolved = evolve(&old, &wanted, plan.kind)?;
            // A column may become a key when all rows are replaced.
            evolved.columns.iter_mut().filter(|column| keys.contains(&column.name)).for_each(|column| column.nullable = false);
            (evolved.columns, evolved.changes, evolved.rewrites, state.mapping())
        }
    };
    check_names(&columns)?;
    let (mapped, max_id) = map_columns(&mut columns, mapping.0, mapping.1);
    Ok(Design { columns, changes, rewrites, mapped, max_id, chosen })
}

/// Writes the rows of a change batch that are not deletes, and says how many there were.
async fn write_upserts(
    writer: &mut TableWriter,
    batch: &RecordBatch,
    deletes: &BooleanArray,
    format: &FileFormat,
    batch_bytes: usize,
) -> Result<u64> {
    let upserts = if deletes.true_count() == 0 {
        batch.clone()
    } else {
        let kept = arrow::compute::not(deletes).or_fail(Kind::Bug, "Rows cannot be filtered")?;
        filter_record_batch(batch, &kept).or_fail(Kind::Bug, "Rows cannot be filtered")?
    };
    let rows = conform(&upserts, &format.columns, &format.schema, Names::Logical)?;
    // An object may come as few large batches; what is encoded at once has to stay small.
    for part in split_batch(&rows, batch_bytes.saturating_mul(2), usize::MAX).map_err(engine_error)? {
        writer.write(part).await?;
    }
    Ok(upserts.num_rows() as u64)
}

/// The check for repeated keys, shared by workers and accounted.
#[derive(Debug, Clone)]
struct SharedUnique(Arc<Mutex<(Unique, MemoryReservation, usize)>>);

impl SharedUnique {
    fn new(types: &[DataType], engine: &Engine) -> Result<Self> {
        let reservation = MemoryConsumer::new("UniqueKeys").register(engine.memory_pool());
        Ok(Self(Arc::new(Mutex::new((Unique::new(types)?, reservation, 0)))))
    }

    fn insert(&self, key: &arrow::array::ArrayRef) -> Result<()> {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (unique, reservation, batches) = &mut *guard;
        unique.insert(key)?;
        *batches += 1;
        if batches.is_multiple_of(UNIQUE_CHECK_BATCHES) {
            reservation.try_resize(unique.memory_size()).map_err(engine_error)?;
        }
        Ok(())
    }
}

/// Writes streams of a whole table, one after the other.
struct ReplaceWorker {
    streams: Arc<Mutex<VecDeque<SendableRecordBatchStream>>>,
    format: Arc<FileFormat>,
    keys: Vec<String>,
    unique: Option<SharedUnique>,
    batch_bytes: usize,
}

impl ReplaceWorker {
    async fn run(self, mut writer: TableWriter) -> Result<(Vec<NewFile>, u64)> {
        let mut upserted = 0;
        loop {
            let next = self.streams.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(stream) = next else { break };
            let mut stream = pull_together(stream.schema(), vec![stream], 1);
            while let Some(batch) = stream.next().await {
                let batch = batch.map_err(engine_error)?;
                let columns = key_columns(&batch, &self.keys)?;
                if let Some(unique) = &self.unique {
                    unique.insert(&columns[0])?;
                }
                upserted += write_upserts(&mut writer, &batch, &deletes(&batch)?, &self.format, self.batch_bytes).await?;
            }
        }
        Ok((writer.finish().await?, upserted))
    }
}

#[async_trait]
impl Load for DeltaLoad {
    async fn write(&mut self, changes: ChangeSet) -> Result<()> {
        if self.written.is_some() {
            return Err(Error::new(Kind::Bug, "A load was given changes twice"));
        }
        if changes.keys != self.keys {
            return Err(Error::new(Kind::Bug, "Changes have another key than their table").with("table", &self.plan.table));
        }
        let written = if self.is_stale() {
            Written::default()
        } else {
            match self.plan.kind {
                LoadKind::Replace => self.replace(changes).await,
                LoadKind::Merge => self.merge(changes).await,
            }
            .map_err(explained)
            .with("table", &self.plan.table)?
        };
        self.written = Some(written);
        Ok(())
    }

    async fn commit(mut self: Box<Self>, reached: Bookmark) -> Result<Loaded> {
        let Some(written) = self.written.take() else {
            return Err(Error::new(Kind::Bug, "A load was committed before it was given changes"));
        };
        // A caller that knew the bookmark and replaces all the same wants the rows anew.
        let wanted_anew = self.plan.kind == LoadKind::Replace && self.plan.expects == Some(reached);
        if self.held() == Some(reached) && !wanted_anew {
            self.uncommitted.remove().await;
            let rows = self.state.as_ref().and_then(TableState::rows);
            return Ok(Loaded { rows, repeated: true, ..Loaded::default() });
        }
        if self.is_stale() {
            self.uncommitted.remove().await;
            return Err(self.conflict());
        }
        if let Some(held) = self.held()
            && reached.at < held.at
        {
            self.uncommitted.remove().await;
            return Err(Error::new(Kind::Conflict, "The table has come further than this result")
                .with("table", &self.plan.table)
                .with("held", held.at)
                .with("reached", reached.at)
                .hint("run it again; it goes on from where the table is now"));
        }

        let (columns, schema_changes) = self.settled_columns(&written);
        let mut actions = self.schema_actions(&columns, reached, self.deletion_vector_switch(&written))?;
        let now = chrono::Utc::now().timestamp_millis();
        actions.extend(written.added.iter().map(|file| file.add_action(now, true)));
        let removed = self.files().iter().zip(&written.removed).filter(|(_, removed)| **removed);
        actions.extend(removed.map(|(file, _)| file.remove_action(true)));
        actions.extend(written.marked.iter().map(|marked| marked.file.marked_action(marked.vector.clone())));
        let kept = self.files().iter().zip(&written.removed).filter(|(_, removed)| !**removed).map(|(file, _)| file);
        let kept = kept.map(|file| file.live_rows()).chain(written.marked.iter().map(MarkedFile::live_rows));
        let kept_rows = kept.into_iter().try_fold(0, |sum, rows| Some(sum + rows?));
        let added_rows: u64 = written.added.iter().map(|file| file.rows).sum();
        let loaded = Loaded {
            upserted: written.upserted,
            deleted: written.deleted,
            rows: kept_rows.map(|kept| kept + added_rows),
            bytes_written: written.added.iter().map(|file| file.bytes).sum::<u64>() + written.vector_bytes,
            schema_changes,
            warnings: std::mem::take(&mut self.design.chosen.notes),
            ..Loaded::default()
        };

        // From here on the commit may come about even if this future is dropped, so the files must stay.
        let names = self.uncommitted.release();
        let mut info = self.info(&written, reached);
        let kept = self.files().iter().zip(&written.removed).filter(|(_, removed)| !**removed).map(|(file, _)| file.size);
        let marked = written.marked.iter().map(|marked| marked.file.size);
        let bytes: u64 = kept.chain(marked).chain(written.added.iter().map(|file| file.bytes)).sum();
        // The table as this commit leaves it, so that its growth can be told from the log alone.
        info.extend([("daplakeRows".into(), json!(loaded.rows)), ("daplakeBytes".into(), json!(bytes))]);
        match self.log.commit(self.state.as_ref(), actions, Some(reached), self.operation(), info).await {
            Ok(version) => {
                tracing::debug!(table = %self.plan.table, version, "Committed");
                self.compact_if_due(&written).await;
                Ok(loaded)
            }
            Err(CommitFailure::Conflict) => {
                self.uncommitted.reclaim(names);
                self.uncommitted.remove().await;
                Err(self.conflict())
            }
            Err(CommitFailure::Refused(error)) => {
                self.uncommitted.reclaim(names);
                self.uncommitted.remove().await;
                Err(error)
            }
            Err(CommitFailure::Unknown(error)) => Err(explained(error)),
        }
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.uncommitted.remove().await;
        Ok(())
    }
}
