//! One load of one Delta table: rows to files as they stream in, then everything visible in one commit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::DataType;
use async_trait::async_trait;
use deltalake::kernel::{Action, DeletionVectorDescriptor};
use deltalake::protocol::{DeltaOperation, SaveMode};
use serde_json::{Value, json};

use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::Bookmark;
use crate::reduce::ChangeSet;
use crate::schema::{ColumnType, Deletes, Followed, Nested, PartitionBy, PartitionUnit, TableMode, lake_schema};
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::file_names::Uncommitted;
use crate::sink::delta::log::protocol::{Feature, new_protocol, raised_protocol};
use crate::sink::delta::log::schema_evolution::{check_key, check_names, evolve, follows, map_columns, respell};
use crate::sink::delta::log::system_columns::{Role, TableLayout};
use crate::sink::delta::log::table_log;
use crate::sink::delta::log::table_log::{ActiveFile, CommitFailure, TableLog, TableState};
use crate::sink::delta::maintenance::optimize;
use crate::sink::delta::merge::change_feed;
use crate::sink::delta::merge::change_feed::ChangeDataFeed;
use crate::sink::delta::write::parquet_writer::{FileFormat, NewFile};
use crate::sink::delta::write::partitioned_writer::{can_be_source, is_partition};
use crate::sink::delta::{DeletionVectors, DeltaOptions, OnForeignChanges};
use crate::sink::{Load, LoadKind, LoadPlan, Loaded, Workers, way_out};
use crate::store::explained;

/// The column of logs that says when something happened.
const LOG_TIME: &str = "timestamp";

/// See [`Load`].
///
/// A load whose plan expects another bookmark than the table has does no work: [`Load::write`] drops its changes, and
/// [`Load::commit`] decides, because only there it is known whether the same result was committed already.
#[derive(Debug)]
pub(in crate::sink::delta) struct DeltaLoad {
    pub(in crate::sink::delta) options: DeltaOptions,
    pub(in crate::sink::delta) log: TableLog,
    pub(in crate::sink::delta) plan: LoadPlan,
    pub(in crate::sink::delta) state: Option<TableState>,
    pub(in crate::sink::delta) keys: Vec<String>,
    pub(in crate::sink::delta) design: Design,
    pub(in crate::sink::delta) layout: TableLayout,
    pub(in crate::sink::delta) uncommitted: Uncommitted,
    written: Option<Written>,
}

/// What the table is going to look like, before nulls in required columns are known.
#[derive(Debug, Default)]
pub(in crate::sink::delta) struct Design {
    pub(in crate::sink::delta) columns: Vec<LakeColumn>,
    changes: Vec<String>,
    /// All old files are written anew.
    pub(in crate::sink::delta) rewrites: bool,
    /// Rows that are marked as deleted go.
    pub(in crate::sink::delta) purges: bool,
    mapped: bool,
    max_id: i64,
    /// Columns left out or hashed.
    chosen: Followed,
}

/// What was written, ready to be committed.
#[derive(Debug, Default)]
pub(in crate::sink::delta) struct Written {
    pub(in crate::sink::delta) added: Vec<NewFile>,
    /// Files of `added` from here on hold rows as they were before, and those that go held no others; `None`: not looked at.
    pub(in crate::sink::delta) moved_from: Option<usize>,
    /// For each file of the state, whether it goes; those of `marked` go and come back.
    pub(in crate::sink::delta) removed: Vec<bool>,
    pub(in crate::sink::delta) marked: Vec<MarkedFile>,
    /// Bytes of the file of deletion vectors.
    pub(in crate::sink::delta) vector_bytes: u64,
    /// Files of the change data feed.
    pub(in crate::sink::delta) feed: Vec<NewFile>,
    pub(in crate::sink::delta) upserted: u64,
    pub(in crate::sink::delta) deleted: u64,
}

impl Written {
    /// Whether rows of any file are marked as deleted.
    fn marks(&self) -> bool {
        !self.marked.is_empty() || self.added.iter().any(|file| file.vector.is_some())
    }
}

/// A file that stays with other rows marked as deleted.
#[derive(Debug)]
pub(in crate::sink::delta) struct MarkedFile {
    pub(in crate::sink::delta) file: Arc<ActiveFile>,
    pub(in crate::sink::delta) vector: DeletionVectorDescriptor,
}

impl MarkedFile {
    fn live_rows(&self) -> Option<u64> {
        Some(self.file.rows?.saturating_sub(u64::try_from(self.vector.cardinality).ok()?))
    }
}

impl DeltaLoad {
    /// Reads the table's state and plans its schema. Kind `Target` for something foreign, `Schema` for a change that cannot be
    /// followed.
    pub(in crate::sink::delta) async fn begin(options: DeltaOptions, log: TableLog, plan: LoadPlan) -> Result<Self> {
        let state = log.state().await?;
        let keys: Vec<String> = plan.schema.key_names().into_iter().map(str::to_owned).collect();
        let uncommitted = Uncommitted::new(log.store(), log.folder.clone());
        let mut layout = TableLayout::default();
        let mut foreign = None;
        let mut design = if state.as_ref().map(|state| state.bookmark) == plan.expects {
            if let Some(state) = &state {
                state.check_writable(&plan.table)?;
                // A snapshot does not rely on the rows that are there.
                if !plan.is_snapshot {
                    foreign = log.foreign_changes(state).await?;
                }
            }
            let held = state.as_ref().map(|state| TableLayout::of(&state.configuration));
            layout =
                TableLayout::resolve(held.as_ref(), &plan.layout, usual_partition(&plan)).with_field("table", &plan.table)?;
            design(state.as_ref(), &plan, &keys, held.as_ref(), &layout).with_field("table", &plan.table)?
        } else {
            Design::default()
        };
        match (foreign, options.on_foreign_changes) {
            (Some(foreign), OnForeignChanges::Fail) => return Err(foreign.refusal(&plan.table)),
            (Some(foreign), OnForeignChanges::Warn) => {
                let commits = foreign.commits_described();
                let commits = if commits.is_empty() { commits } else { format!(" (commits {commits})") };
                design.chosen.notes.push(format!("{}{commits}; the table may differ from the service", foreign.described()));
            }
            (None, _) => {}
        }
        let mut load = Self { options, log, plan, state, keys, design, layout, uncommitted, written: None };
        if load.feeds() {
            load.let_old_rows_be_told();
            let is_usual = load.layout.mode == TableMode::Current && load.layout.deletes == Deletes::Remove;
            if !is_usual || load.design.purges {
                return Err(Error::new(
                    Kind::Unsupported,
                    "Only tables of the mode `current` without marks have a change data feed",
                )
                .with_field("table", &load.plan.table)
                .hint("sync this table with --change-data-feed off"));
            }
            change_feed::check_names(&load.design.columns).with_field("table", &load.plan.table)?;
        }
        Ok(load)
    }

    /// Whether the commit tells its changes as rows.
    pub(in crate::sink::delta) fn feeds(&self) -> bool {
        let held = self.state.as_ref().and_then(|state| state.configuration.get(table_log::CHANGE_DATA_FEED));
        match self.options.change_data_feed {
            ChangeDataFeed::AsBefore => held.is_some_and(|switch| switch == "true"),
            ChangeDataFeed::On => true,
            ChangeDataFeed::Off => false,
        }
    }

    fn held(&self) -> Option<Bookmark> {
        self.state.as_ref().map(|state| state.bookmark)
    }

    /// Whether old rows stay when a snapshot comes.
    fn keeps_rows(&self) -> bool {
        !self.files().is_empty() && self.layout.keeps_rows()
    }

    fn is_stale(&self) -> bool {
        self.held() != self.plan.expects
    }

    pub(in crate::sink::delta) fn files(&self) -> &[Arc<ActiveFile>] {
        self.state.as_ref().map_or(&[], |state| &state.files)
    }

    pub(in crate::sink::delta) fn format(&self, writers: usize) -> Arc<FileFormat> {
        let outbox = self.log.outbox(&self.options.engine);
        Arc::new(FileFormat::new(&self.options, outbox, &self.design.columns, &self.keys, writers))
    }

    pub(in crate::sink::delta) fn key_types(&self) -> Vec<DataType> {
        LakeColumn::file_types(&self.key_columns())
    }

    pub(in crate::sink::delta) fn key_columns(&self) -> Vec<LakeColumn> {
        LakeColumn::named(&self.design.columns, &self.keys)
    }

    fn property(&self, name: &str) -> Option<&str> {
        self.state.as_ref()?.configuration.get(name).map(String::as_str)
    }

    /// Whether no more rows are to be marked: the user says so now, or did so before and says nothing now.
    pub(in crate::sink::delta) fn is_without_vectors(&self) -> bool {
        match self.options.deletion_vectors {
            DeletionVectors::On => false,
            DeletionVectors::Auto => {
                self.property(table_log::DELETION_VECTORS) == Some("false") || self.property(table_log::NO_VECTORS).is_some()
            }
            DeletionVectors::Off => true,
        }
    }

    /// Whether rows of any file are marked as deleted after the commit.
    fn leaves_vectors(&self, written: &Written) -> bool {
        let mut kept = self.files().iter().zip(&written.removed).filter(|(_, removed)| !**removed);
        written.marks() || kept.any(|(file, _)| file.deletion_vector.is_some())
    }

    /// What the table's `delta.enableDeletionVectors` has to be. Some readers go by it, so that it is `false` only when no vector
    /// is left; until then a property of ours remembers what the user wants.
    fn deletion_vector_switch(&self, written: &Written) -> Option<bool> {
        let present = self.property(table_log::DELETION_VECTORS).is_some();
        match self.options.deletion_vectors {
            DeletionVectors::On => Some(true),
            DeletionVectors::Off if self.leaves_vectors(written) => Some(true),
            DeletionVectors::Off => present.then_some(false),
            DeletionVectors::Auto if self.property(table_log::NO_VECTORS).is_some() && !self.leaves_vectors(written) => {
                Some(false)
            }
            DeletionVectors::Auto => written.marks().then_some(true),
        }
    }

    /// Before a snapshot takes the place of marked rows, their feed says that all of them are deleted: so they have to fit the
    /// columns to come. Where they do not, they are told with nulls.
    fn let_old_rows_be_told(&mut self) {
        if !self.tells_all_old_rows() {
            return;
        }
        let old = self.state.as_ref().map_or(&[][..], |state| &state.columns);
        let fits =
            |column: &LakeColumn| old.iter().any(|old| old.physical == column.physical && follows(&old.kind, &column.kind));
        for column in self.design.columns.iter_mut().filter(|column| !self.keys.contains(&column.name)) {
            if !column.nullable && !fits(column) {
                column.nullable = true;
                self.design.changes.push(format!("`{}` may be null from now on", column.name));
            }
        }
    }

    /// The columns as they are to be committed: a null in a required column relaxes it, and no row is lost.
    fn settled_columns(&self, written: &Written) -> (Vec<LakeColumn>, Vec<String>) {
        let mut columns = self.design.columns.clone();
        let mut changes = self.design.changes.clone();
        for (index, column) in columns.iter_mut().filter(|column| !is_partition(column)).enumerate() {
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
        configuration.insert(table_log::TABLE.into(), self.plan.table.to_string());
        configuration.insert(table_log::KEY.into(), json!(self.keys).to_string());
        configuration.insert(table_log::SCHEMA_VERSION.into(), reached.schema_version.to_string());
        configuration.insert(table_log::NESTED.into(), nested.into());
        if self.options.is_ledger {
            configuration.insert(table_log::FORMAT.into(), table_log::PARQUET.into());
        }
        self.layout.record(&mut configuration);
        match self.design.chosen.record.is_empty() {
            true => configuration.remove(table_log::COLUMNS),
            false => configuration.insert(table_log::COLUMNS.into(), json!(self.design.chosen.record).to_string()),
        };
        if self.design.mapped {
            configuration.insert(table_log::MAPPING_MODE.into(), "name".into());
            configuration.insert(table_log::MAPPING_MAX_ID.into(), self.design.max_id.to_string());
        }
        if let Some(enabled) = vectors {
            configuration.insert(table_log::DELETION_VECTORS.into(), enabled.to_string());
        }
        match self.is_without_vectors() && configuration.get(table_log::DELETION_VECTORS).is_some_and(|switch| switch == "true")
        {
            true => configuration.insert(table_log::NO_VECTORS.into(), "true".into()),
            false => configuration.remove(table_log::NO_VECTORS),
        };
        if self.feeds() || configuration.contains_key(table_log::CHANGE_DATA_FEED) {
            configuration.insert(table_log::CHANGE_DATA_FEED.into(), self.feeds().to_string());
        }

        let old = self.state.as_ref().map(|state| &state.metadata);
        let old_member = |name: &str| old.map(|old| old[name].clone()).filter(|value| !value.is_null());
        let metadata = json!({
            "id": old_member("id").unwrap_or_else(|| uuid::Uuid::new_v4().to_string().into()),
            "name": old_member("name").unwrap_or_else(|| self.plan.table.to_string().into()),
            "description": self.plan.schema.description,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": LakeColumn::schema_string(columns),
            "partitionColumns": columns.iter().filter(|column| is_partition(column)).map(|column| &column.name).collect::<Vec<_>>(),
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
        if self.feeds() {
            needs.push(Feature::ChangeDataFeed);
        }
        let protocol = match &self.state {
            None => Some(new_protocol(&needs)),
            Some(state) => raised_protocol(&state.protocol, &needs),
        };
        if let Some(protocol) = protocol {
            let protocol = serde_json::from_value(protocol).context(Kind::Bug, "The table's protocol cannot be written")?;
            actions.push(Action::Protocol(protocol));
        }
        let unchanged = self.state.as_ref().is_some_and(|state| {
            state.configuration == configuration
                && state.columns == columns
                && state.metadata["description"] == metadata["description"]
        });
        if !unchanged {
            let metadata = serde_json::from_value(metadata).context(Kind::Bug, "The table's metadata cannot be written")?;
            actions.push(Action::Metadata(metadata));
        }
        Ok(actions)
    }

    /// Merges the small files of a table that has gathered too many. The load stands whatever becomes of that.
    async fn compact_if_due(&self, written: &Written) {
        let limit = optimize::small_file_bytes(&self.options);
        let kept = self.files().iter().zip(&written.removed).filter(|(_, removed)| !**removed).map(|(file, _)| file);
        let marked = written.marked.iter().map(|marked| &marked.file);
        let old = kept.chain(marked).map(|file| (file.size, file.partition.clone()));
        let new = written.added.iter().map(|file| (file.bytes, file.partition.clone().and_then(|(_, value)| value)));
        // Files of different partitions cannot be merged.
        let mut counts: HashMap<Option<String>, usize> = HashMap::new();
        old.chain(new).filter(|(size, _)| *size < limit).for_each(|(_, partition)| *counts.entry(partition).or_default() += 1);
        let small = counts.into_values().max().unwrap_or(0);
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
            _ if self.layout.mode == TableMode::Changes => {
                DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None }
            }
            LoadKind::Replace if !self.keeps_rows() => {
                DeltaOperation::Write { mode: SaveMode::Overwrite, partition_by: None, predicate: None }
            }
            LoadKind::Merge | LoadKind::Replace => DeltaOperation::Merge {
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
        let vectors = written.marked.len() + written.added.iter().filter(|file| file.vector.is_some()).count();
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
                    "numDeletionVectorsAdded": vectors.to_string(),
                }),
            ),
        ])
    }

    fn conflict(&self) -> Error {
        Error::new(Kind::Conflict, "Another run got in between")
            .with_field("table", &self.plan.table)
            .hint("run it again; it goes on from where the table is now")
    }
}

/// Logs are partitioned by the day of the event.
fn usual_partition(plan: &LoadPlan) -> Option<PartitionBy> {
    let column = plan.schema.columns().find(|column| column.name == LOG_TIME && column.column_type == ColumnType::Timestamp)?;
    plan.table.is_log().then(|| PartitionBy { unit: PartitionUnit::Day, column: column.name.clone() })
}

/// Plans the schema: the key, columns of ours, all others.
fn design(
    state: Option<&TableState>,
    plan: &LoadPlan,
    keys: &[String],
    held: Option<&TableLayout>,
    layout: &TableLayout,
) -> Result<Design> {
    let wanted = lake_schema(&plan.schema, plan.nested);
    let mut wanted = LakeColumn::of_fields(wanted.fields())?;
    wanted.iter_mut().filter(|column| keys.contains(&column.name)).for_each(|column| column.nullable = false);
    let ours = layout.columns();
    let taken = |column: &&LakeColumn| ours.iter().any(|ours| ours.name.eq_ignore_ascii_case(&column.name));
    if let Some(column) = wanted.iter().find(taken) {
        return Err(Error::new(Kind::Schema, "The table has a column with a name that its mode needs for itself")
            .with_field("column", &column.name)
            .with_field("mode", layout.described())
            .hint(format!(
                "leave the column out with --drop-column {}.{}, or keep the table in another mode",
                plan.table, column.name
            )));
    }
    if let (None, Some(by)) = (state, &layout.partition_by)
        && !wanted.iter().any(|column| column.name == by.column && can_be_source(column))
    {
        return Err(Error::new(Kind::Schema, "The table cannot be partitioned by this column")
            .with_field("column", &by.column)
            .hint("name a column with times or dates, as it is spelled in the table"));
    }
    wanted.splice(keys.len()..keys.len(), ours);
    let mut chosen = Followed { record: plan.layout.columns.clone(), notes: Vec::new() };
    let (mut columns, changes, rewrites, purges, mapping) = match state {
        None => (wanted, Vec::new(), false, false, (false, 0)),
        Some(state) => {
            let keeps_rows = plan.kind == LoadKind::Merge || (!state.files.is_empty() && layout.keeps_rows());
            let kind = if keeps_rows { LoadKind::Merge } else { LoadKind::Replace };
            // Where a new snapshot leaves old rows, it is no way out.
            let stays = plan.table.is_log() || (!state.files.is_empty() && layout.keeps_rows());
            let hinted = |error: Error| if stays { error.hint_instead(way_out(stays)) } else { error };
            check_key(&state.key, keys, kind).map_err(hinted)?;
            let mut old = state.columns.clone();
            let respelled = respell(&mut old, &wanted);
            match kind {
                // Nothing of before stays, so what is left out need not stay empty.
                LoadKind::Replace => old.retain(|column| !chosen.record.dropped.contains(&column.name)),
                LoadKind::Merge => {
                    let has = |name: &str| old.iter().any(|column| column.name == name);
                    let comes = |name: &str| plan.schema.columns().any(|column| column.name == name);
                    let record = state.column_record().renamed(&respelled.names);
                    chosen = record.follow(&plan.layout.columns, has, comes).map_err(hinted)?;
                }
            }
            let before = held.map_or(Deletes::Remove, |held| held.deletes);
            let purges = before == Deletes::Mark && layout.deletes == Deletes::Remove;
            // Without its rows, the column of marks has no use either.
            old.retain(|column| !purges || Role::of(column) != Some(Role::Deleted));
            let mut evolved = evolve(&old, &wanted, kind).map_err(hinted)?;
            evolved.changes.splice(0..0, respelled.changes);
            evolved.rewrites |= respelled.rewrites;
            if purges {
                evolved.changes.push("rows that were marked as deleted are removed, and `_deleted` with them".into());
            }
            // A column may become a key when all rows are replaced.
            evolved.columns.iter_mut().filter(|column| keys.contains(&column.name)).for_each(|column| column.nullable = false);
            // Readers would see nulls for marks that are not there.
            let rewrites = evolved.rewrites || before != layout.deletes;
            (evolved.columns, evolved.changes, rewrites, purges, state.mapping())
        }
    };
    check_names(&columns)?;
    let (mapped, max_id) = map_columns(&mut columns, mapping.0, mapping.1);
    Ok(Design { columns, changes, rewrites, purges, mapped, max_id, chosen })
}

#[async_trait]
impl Load for DeltaLoad {
    async fn write(&mut self, changes: ChangeSet) -> Result<()> {
        if self.written.is_some() {
            return Err(Error::new(Kind::Bug, "A load was given changes twice"));
        }
        if changes.keys != self.keys {
            return Err(
                Error::new(Kind::Bug, "Changes have another key than their table").with_field("table", &self.plan.table)
            );
        }
        let written = if self.is_stale() {
            Written::default()
        } else {
            match (self.layout.mode, self.plan.kind) {
                (TableMode::Current, LoadKind::Replace) if !self.keeps_rows() => self.replace(changes).await,
                (TableMode::Current, _) => self.merge(changes).await,
                (TableMode::Changes, _) => self.append(changes).await,
                (TableMode::History, _) => self.versions(changes).await,
            }
            .map_err(explained)
            .with_field("table", &self.plan.table)?
        };
        self.written = Some(written);
        Ok(())
    }

    async fn write_by(&mut self, workers: &dyn Workers) -> Result<bool> {
        if self.written.is_some() || self.is_stale() || !self.can_be_parted() {
            return Ok(false);
        }
        self.written = Some(self.parted(workers).await.map_err(explained).with_field("table", &self.plan.table)?);
        Ok(true)
    }

    fn is_superseded(&self) -> bool {
        self.is_stale()
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
        // A snapshot may be older than the table: the service keeps giving the one it has. Rows and bookmark then go back
        // together, and the next increment brings what came after.
        if let Some(held) = self.held()
            && reached.at < held.at
            && !self.plan.is_snapshot
        {
            self.uncommitted.remove().await;
            return Err(Error::new(Kind::Conflict, "The table has come further than this result")
                .with_field("table", &self.plan.table)
                .with_field("held", held.at)
                .with_field("reached", reached.at)
                .hint("run it again; it goes on from where the table is now"));
        }

        let (columns, schema_changes) = self.settled_columns(&written);
        let mut actions = self.schema_actions(&columns, reached, self.deletion_vector_switch(&written))?;
        let now = chrono::Utc::now().timestamp_millis();
        let changing = written.moved_from.unwrap_or(usize::MAX);
        actions.extend(written.added.iter().enumerate().map(|(number, file)| file.add_action(now, number < changing)));
        let removed = self.files().iter().zip(&written.removed).filter(|(_, removed)| **removed);
        for (file, _) in removed {
            actions.push(file.remove_action(written.moved_from.is_none())?);
        }
        for marked in &written.marked {
            actions.push(marked.file.marked_action(marked.vector.clone())?);
        }
        actions.extend(written.feed.iter().map(change_feed::action));
        let kept = self.files().iter().zip(&written.removed).filter(|(_, removed)| !**removed).map(|(file, _)| file);
        let kept = kept.map(|file| file.live_rows()).chain(written.marked.iter().map(MarkedFile::live_rows));
        let kept_rows = kept.into_iter().try_fold(0, |sum, rows| Some(sum + rows?));
        let added_rows: u64 = written.added.iter().map(|file| file.rows).sum();
        let loaded = Loaded {
            upserted: written.upserted,
            deleted: written.deleted,
            rows: kept_rows.map(|kept| kept + added_rows),
            bytes_written: written.added.iter().chain(&written.feed).map(|file| file.bytes).sum::<u64>() + written.vector_bytes,
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
