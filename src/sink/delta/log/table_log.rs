//! The Delta log of one table: its state as of now, and the one commit that moves it on. It knows no rows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::DataType;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake::kernel::{Action, Add, DeletionVectorDescriptor, LogicalFileView, Transaction};
use deltalake::logstore::{LogStoreRef, StorageConfig, commit_uri_from_version, default_logstore};
use deltalake::protocol::DeltaOperation;
use deltalake::table::state::DeltaTableState;
use deltalake::{DeltaTableError, ObjectStore};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::{Bookmark, TableRef, Timestamp};
use crate::redact::SafeUrl;
use crate::schema::ColumnRecord;
use crate::sink::delta::log::columns::{LakeColumn, LakeType};
use crate::sink::delta::log::file_names::is_ours_at;
use crate::sink::delta::log::statistics::loosened;
use crate::sink::delta::merge::key_set::KeyBounds;
use crate::sink::delta::publish::LEDGER;
use crate::sink::delta::read::data_file::Located;
use crate::sink::delta::write::partitioned_writer::is_partition;
use crate::sink::delta::write::upload_buffer::Outbox;
use crate::store::Place;

/// Table properties of ours.
pub(in crate::sink::delta) const TABLE: &str = "daplake.table";
/// Key columns, a JSON list.
pub(in crate::sink::delta) const KEY: &str = "daplake.key";
/// Schema version of the bookmark.
pub(in crate::sink::delta) const SCHEMA_VERSION: &str = "daplake.schemaVersion";
/// `parquet` for the ledger of a folder of plain Parquet files; absent for others.
pub(in crate::sink::delta) const FORMAT: &str = "daplake.format";
/// See [`FORMAT`].
pub(in crate::sink::delta) const PARQUET: &str = "parquet";
/// `typed` or `json`.
pub(in crate::sink::delta) const NESTED: &str = "daplake.nested";
/// Columns that were left out or hashed, as JSON; absent if there are none.
pub(in crate::sink::delta) const COLUMNS: &str = "daplake.columns";
/// Whether columns are mapped.
pub(in crate::sink::delta) const MAPPING_MODE: &str = "delta.columnMapping.mode";
/// Whether rows may be marked as deleted.
pub(in crate::sink::delta) const DELETION_VECTORS: &str = "delta.enableDeletionVectors";
/// Set while rows are marked as deleted, but no more shall be.
pub(in crate::sink::delta) const NO_VECTORS: &str = "daplake.noDeletionVectors";
/// Whether commits tell their changes as rows.
pub(in crate::sink::delta) const CHANGE_DATA_FEED: &str = "delta.enableChangeDataFeed";
/// Highest column number given.
pub(in crate::sink::delta) const MAPPING_MAX_ID: &str = "delta.columnMapping.maxColumnId";

/// Features of foreign making that neither our files nor our commits can break.
const HARMLESS_FEATURES: [&str; 10] = [
    "appendOnly",
    "invariants",
    // Listed where an old version meant them; a table that uses them is told by its properties and columns.
    "checkConstraints",
    "generatedColumns",
    "columnMapping",
    "changeDataFeed",
    "v2Checkpoint",
    "vacuumProtocolCheck",
    "deletionVectors",
    "domainMetadata",
];

/// Where one table is kept.
#[derive(Clone)]
pub(in crate::sink::delta) struct TableLog {
    /// Which table.
    pub(in crate::sink::delta) table: TableRef,
    /// Its folder, fit for messages.
    pub(in crate::sink::delta) location: SafeUrl,
    /// Its folder on the local disk, if it is there.
    pub(in crate::sink::delta) folder: Option<std::path::PathBuf>,
    /// Whether it is to be the ledger of a folder of plain Parquet files.
    is_ledger: bool,
    log: LogStoreRef,
}

impl std::fmt::Debug for TableLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableLog").field("table", &self.table).field("location", &self.location).finish_non_exhaustive()
    }
}

/// A table as it is at one version.
#[derive(Debug, Clone)]
pub(in crate::sink::delta) struct TableState {
    /// Version of the log.
    pub(in crate::sink::delta) version: u64,
    /// How far it has come.
    pub(in crate::sink::delta) bookmark: Bookmark,
    /// Columns.
    pub(in crate::sink::delta) columns: Vec<LakeColumn>,
    /// Names of the key columns.
    pub(in crate::sink::delta) key: Vec<String>,
    /// Table properties.
    pub(in crate::sink::delta) configuration: BTreeMap<String, String>,
    /// The `metaData` action.
    pub(in crate::sink::delta) metadata: Value,
    /// The `protocol` action.
    pub(in crate::sink::delta) protocol: Value,
    /// Data files.
    pub(in crate::sink::delta) files: Vec<Arc<ActiveFile>>,
    /// What the crate has of it.
    pub(in crate::sink::delta) delta: DeltaTableState,
}

/// A data file of the present version.
#[derive(Clone)]
pub(in crate::sink::delta) struct ActiveFile {
    /// Inside the table's folder.
    pub(in crate::sink::delta) path: Path,
    /// Bytes.
    pub(in crate::sink::delta) size: u64,
    /// Rows, if its writer said.
    pub(in crate::sink::delta) rows: Option<u64>,
    /// Value of the partition column.
    pub(in crate::sink::delta) partition: Option<String>,
    /// Which of its rows are marked as deleted.
    pub(in crate::sink::delta) deletion_vector: Option<DeletionVectorDescriptor>,
    stats: Value,
    /// What the crate has of it; absent where another process described it.
    view: Option<LogicalFileView>,
}

/// What has to be known of a data file to look for keys in it and to write it anew; goes to other processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::sink::delta) struct FileFacts {
    /// Its number among those that are described.
    pub(in crate::sink::delta) number: usize,
    path: String,
    size: u64,
    rows: Option<u64>,
    vector: Option<DeletionVectorDescriptor>,
    /// Smallest and greatest value of the first key column, as in the log.
    bounds: (Value, Value),
}

impl std::fmt::Debug for ActiveFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActiveFile").field("path", &self.path).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl ActiveFile {
    fn of_view(view: LogicalFileView) -> Result<Self> {
        if view.path().contains("://") {
            return Err(Error::new(Kind::Target, "The table has data files outside of its folder")
                .hint("it was made as a shallow clone; load into a new target"));
        }
        let stats: Value = view.stats().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null);
        Ok(Self {
            path: view.object_store_path(),
            size: u64::try_from(view.size()).unwrap_or(0),
            rows: stats["numRecords"].as_u64().or(view.num_records().map(|rows| rows as u64)),
            partition: view.partition_values_map().into_values().next().flatten(),
            deletion_vector: view.deletion_vector_descriptor(),
            stats,
            view: Some(view),
        })
    }

    /// What others have to know of it, where `key` is the first key column.
    pub(in crate::sink::delta) fn facts(&self, number: usize, key: &LakeColumn) -> FileFacts {
        let bound = |which: &str| self.stats[which][&key.physical].clone();
        FileFacts {
            number,
            path: self.path.to_string(),
            size: self.size,
            rows: self.rows,
            vector: self.deletion_vector.clone(),
            bounds: (bound("minValues"), bound("maxValues")),
        }
    }

    /// A file as another process described it. No action can be made of it.
    pub(in crate::sink::delta) fn of_facts(facts: &FileFacts, key: &LakeColumn) -> Result<Self> {
        let path = Path::parse(&facts.path).context(Kind::Data, "The name of a data file cannot be read")?;
        let stats = json!({
            "minValues": {key.physical.as_str(): facts.bounds.0},
            "maxValues": {key.physical.as_str(): facts.bounds.1},
        });
        let vector = facts.vector.clone();
        Ok(Self { path, size: facts.size, rows: facts.rows, partition: None, deletion_vector: vector, stats, view: None })
    }

    fn view(&self) -> Result<&LogicalFileView> {
        self.view.as_ref().ok_or_else(|| Error::new(Kind::Bug, "A file that only was described cannot be committed"))
    }

    /// Where it is.
    pub(in crate::sink::delta) fn located(&self) -> Located {
        Located { path: self.path.clone(), size: self.size }
    }

    /// What its statistics say of a key column.
    pub(in crate::sink::delta) fn key_bounds(&self, key: &LakeColumn) -> Option<KeyBounds> {
        let LakeType::Leaf(leaf) = &key.kind else { return None };
        let (min, max) = (&self.stats["minValues"][&key.physical], &self.stats["maxValues"][&key.physical]);
        let array = |value: &Value| -> Option<ArrayRef> {
            match leaf {
                DataType::Int16 | DataType::Int32 | DataType::Int64 => Some(Arc::new(Int64Array::from(vec![value.as_i64()?]))),
                DataType::Utf8 => Some(Arc::new(StringArray::from(vec![value.as_str()?]))),
                _ => None,
            }
        };
        Some(KeyBounds { min: array(min)?, max: array(max)? })
    }

    /// The greatest time in a column, as far as its statistics tell. Some programs cut it to milliseconds.
    pub(in crate::sink::delta) fn newest(&self, column: &LakeColumn) -> Option<i64> {
        let newest: Timestamp = self.stats["maxValues"][&column.physical].as_str()?.parse().ok()?;
        Some(newest.micros().saturating_add(999))
    }

    /// Nulls in a column, as far as its statistics tell.
    pub(in crate::sink::delta) fn null_count(&self, column: &LakeColumn) -> Option<u64> {
        self.stats["nullCount"][&column.physical].as_u64()
    }

    /// Rows that are not marked as deleted, if its writer said how many there are.
    pub(in crate::sink::delta) fn live_rows(&self) -> Option<u64> {
        Some(self.rows?.saturating_sub(self.dead_rows()))
    }

    /// Rows that are marked as deleted.
    pub(in crate::sink::delta) fn dead_rows(&self) -> u64 {
        self.deletion_vector.as_ref().map_or(0, |vector| u64::try_from(vector.cardinality).unwrap_or(0))
    }

    /// The action that takes it out of the table. `data_change` is false if all its rows come back in the same commit.
    pub(in crate::sink::delta) fn remove_action(&self, data_change: bool) -> Result<Action> {
        Ok(Action::Remove(self.view()?.remove_action(data_change)))
    }

    /// The action that puts it back with other rows marked as deleted. Needs [`Self::rows`].
    #[expect(deprecated, reason = "the crate has no other way to keep the tags of a file")]
    pub(in crate::sink::delta) fn marked_action(&self, vector: DeletionVectorDescriptor) -> Result<Action> {
        let add = self.view()?.add_action();
        let stats = add.stats.as_deref().map(loosened);
        Ok(Action::Add(Add { stats, deletion_vector: Some(vector), data_change: true, ..add }))
    }
}

/// Why a commit did not come about.
#[derive(Debug)]
pub(in crate::sink::delta) enum CommitFailure {
    /// Another commit came first: ours certainly is not there.
    Conflict,
    /// Refused before anything was sent.
    Refused(Error),
    /// It may have come about all the same.
    Unknown(Error),
}

impl TableLog {
    /// The text of one entry of the log; `None` if it is not there or was cleaned up. Kind `Target` if it cannot be read.
    pub(in crate::sink::delta) async fn entry(&self, version: u64) -> Result<Option<bytes::Bytes>> {
        self.log_store().read_commit_entry(version).await.map_err(|error| {
            Error::new(Kind::Target, "The table's log cannot be read")
                .with_field("table", &self.table)
                .with_field("version", version)
                .caused_by(error)
        })
    }

    /// For the table at a place. Kind `Target` if its names cannot be folders.
    ///
    /// Commits are made by the crate's log store for stores that name an object once; the other kinds, which rename, are never used.
    pub(in crate::sink::delta) fn new(place: &Place, table: &TableRef) -> Result<Self> {
        if !table.is_path_safe() {
            return Err(Error::new(Kind::Target, "The table's name cannot be used as a folder").with_field("table", table));
        }
        let unusable = "The target's address cannot be used";
        let below = format!("{}/{}/", table.namespace, table.table);
        let location = place.location().reveal().join(&below).context(Kind::Target, unusable)?;
        let path = place.root().clone().join(table.namespace.as_str()).join(table.table.as_str());
        let folder = place.folder().map(|folder| folder.join(table.namespace.as_str()).join(&table.table));
        let files: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(place.store(), path));
        let (root, store) = place.by_url();
        let url = root.join(&below).context(Kind::Target, unusable)?;
        let log = default_logstore(files, store, &url, &StorageConfig::default());
        Ok(Self { table: table.clone(), location: SafeUrl::new(location), folder, is_ledger: false, log })
    }

    /// The same, as the ledger of a folder of plain Parquet files or as a table for readers of Delta.
    #[must_use]
    pub(in crate::sink::delta) fn with_ledger(self, is_ledger: bool) -> Self {
        Self { is_ledger, ..self }
    }

    /// Its data files.
    pub(in crate::sink::delta) fn store(&self) -> Arc<dyn ObjectStore> {
        self.log.object_store(None)
    }

    /// By which new data files come there.
    pub(in crate::sink::delta) fn outbox(&self, engine: &Engine) -> Arc<Outbox> {
        Outbox::new(self.store(), self.folder.is_some(), engine)
    }

    /// For what the crate does with it.
    pub(in crate::sink::delta) fn log_store(&self) -> LogStoreRef {
        Arc::clone(&self.log)
    }

    /// Application id of our `txn` actions.
    pub(in crate::sink::delta) fn app_id(&self) -> String {
        format!("daplake/{}", self.table)
    }

    /// The folder as a user would write it.
    fn shown(&self) -> String {
        match &self.folder {
            Some(folder) => folder.display().to_string(),
            None => self.location.to_string(),
        }
    }

    fn foreign(&self, message: &'static str) -> Error {
        Error::new(Kind::Target, message)
            .with_field("table", &self.table)
            .with_field("folder", self.shown())
            .hint("move it away or name another target; daplake changes only tables that it made")
    }

    /// The table is there in the other form.
    pub(in crate::sink::delta) fn of_other_form(&self, message: &'static str, format: &str) -> Error {
        self.foreign(message).hint_instead(format!("leave --format out, or give --format {format}"))
    }

    /// The present state; `None` if there is nothing yet. Kind `Target` if something else is in its place.
    pub(in crate::sink::delta) async fn state(&self) -> Result<Option<TableState>> {
        // Some systems say of what is below a file that it does not exist.
        if self.folder.as_ref().is_some_and(|folder| folder.is_file()) {
            return Err(self.foreign("A file is in the place of this table"));
        }
        let is_table = self.log.is_delta_table_location().await;
        if !is_table.map_err(|error| self.foreign("The table's folder cannot be read").caused_by(error))? {
            self.check_unused().await?;
            return Ok(None);
        }
        let unreadable = |error: DeltaTableError| {
            Error::new(Kind::Target, "The table's log cannot be read")
                .with_field("table", &self.table)
                .with_field("folder", self.shown())
                .caused_by(error)
        };
        let delta = DeltaTableState::try_new(self.log.as_ref(), None).await.map_err(unreadable)?;
        let txn = delta.transaction_version(self.log.as_ref(), self.app_id()).await.map_err(unreadable)?;
        let metadata = serde_json::to_value(delta.metadata()).context(Kind::Target, "The table's metadata cannot be read")?;
        let protocol = serde_json::to_value(delta.protocol()).context(Kind::Target, "The table's protocol cannot be read")?;
        let configuration: BTreeMap<String, String> = serde_json::from_value(metadata["configuration"].clone())
            .context(Kind::Target, "The table's properties cannot be read")?;

        let (Some(at), Some(of)) = (txn, configuration.get(TABLE)) else {
            return Err(self.foreign("A Delta table that daplake did not make is in the place of this table"));
        };
        if *of != self.table.to_string() {
            return Err(self.foreign("The folder holds another table of daplake").with_field("found", of));
        }
        if !self.is_ledger && configuration.get(FORMAT).is_some_and(|format| format == PARQUET) {
            return Err(self.of_other_form("The table is kept as plain Parquet files", "parquet"));
        }
        let schema_version = configuration.get(SCHEMA_VERSION).and_then(|version| version.parse().ok());
        let key = configuration.get(KEY).and_then(|key| serde_json::from_str(key).ok());
        let (Some(schema_version), Some(key)) = (schema_version, key) else {
            return Err(self.foreign("The table lost the properties by which daplake knows it"));
        };
        let context = |error: Error| error.with_field("table", &self.table);
        let columns = LakeColumn::of_schema_string(metadata["schemaString"].as_str().unwrap_or_default()).map_err(context)?;
        let files = delta.log_data().iter().map(|view| ActiveFile::of_view(view).map(Arc::new)).collect::<Result<Vec<_>>>();
        let state = TableState {
            version: delta.version(),
            bookmark: Bookmark { at: Timestamp::from_micros(at), schema_version },
            columns,
            key,
            configuration,
            metadata,
            protocol,
            files: files.map_err(context)?,
            delta,
        };
        Ok(Some(state))
    }

    /// Whether daplake made the table here; cheaper than its whole state. A folder without a table is not ours.
    pub(in crate::sink::delta) async fn is_ours(&self) -> Result<bool> {
        let unreadable = |error: DeltaTableError| {
            Error::new(Kind::Target, "The table's log cannot be read").with_field("table", &self.table).caused_by(error)
        };
        if !self.log.is_delta_table_location().await.map_err(unreadable)? {
            return Ok(false);
        }
        let snapshot = deltalake::kernel::Snapshot::try_new(self.log.as_ref(), None).await.map_err(unreadable)?;
        let metadata =
            serde_json::to_value(snapshot.metadata()).context(Kind::Target, "The table's metadata cannot be read")?;
        Ok(metadata["configuration"][TABLE] == self.table.to_string())
    }

    /// Nothing but leftovers of our own killed loads may be where a first load begins.
    async fn check_unused(&self) -> Result<()> {
        let store = self.store();
        let mut files = store.list(None);
        loop {
            match files.try_next().await {
                Ok(Some(file)) if is_ours_at(file.location.as_ref()) => {}
                Ok(Some(file)) if file.location.as_ref() == LEDGER => {
                    return Err(self.of_other_form("The table is kept as plain Parquet files", "parquet"));
                }
                Ok(Some(file)) => {
                    let refused = self.foreign("Something else is in the place of this table");
                    return Err(refused.with_field("found", file.location));
                }
                Ok(None) | Err(object_store::Error::NotFound { .. }) => return Ok(()),
                Err(error) => return Err(self.foreign("The table's folder cannot be read").caused_by(error)),
            }
        }
    }

    /// When the commit of a version was made, by the clock of the target.
    pub(in crate::sink::delta) async fn committed_at(&self, version: u64) -> Option<Timestamp> {
        let head = self.store().head(&commit_uri_from_version(Some(version))).await.ok()?;
        Some(Timestamp::from_micros(head.last_modified.timestamp_micros()))
    }

    /// Commits `actions` and the bookmark, if it moves, on top of `base`, or as the first version. Any other commit since `base`
    /// wins.
    ///
    /// Checkpoints and the removal of expired log entries follow; if they fail, the commit stands.
    pub(in crate::sink::delta) async fn commit(
        &self,
        base: Option<&TableState>,
        mut actions: Vec<Action>,
        reached: Option<Bookmark>,
        operation: DeltaOperation,
        mut info: HashMap<String, Value>,
    ) -> std::result::Result<u64, CommitFailure> {
        // By this we know our own commit again when its answer is lost.
        let mark = uuid::Uuid::new_v4().to_string();
        info.insert("daplakeCommit".into(), Value::String(mark.clone()));
        info.insert("clientVersion".into(), Value::String(concat!("daplake.", env!("CARGO_PKG_VERSION")).into()));
        actions.extend(reached.map(|reached| {
            let now = Some(chrono::Utc::now().timestamp_millis());
            Action::Txn(Transaction::new_with_last_update(self.app_id(), reached.at.micros(), now))
        }));
        let properties = CommitProperties::default().with_max_retries(0).with_metadata(info);
        let table = base.map(|state| &state.delta as &dyn deltalake::kernel::transaction::TableReference);
        let prepared = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(table, self.log_store(), operation)
            .into_prepared_commit_future()
            .await;
        let prepared = prepared.map_err(|error| {
            CommitFailure::Refused(
                Error::new(Kind::Target, "The table cannot be written as its properties demand")
                    .with_field("table", &self.table)
                    .hint("another program changed the table's properties; undo that or load into a new target")
                    .caused_by(error),
            )
        })?;
        let next = base.map_or(0, |state| state.version + 1);
        match prepared.await {
            Ok(committed) => {
                let version = committed.version;
                if let Err(error) = committed.await {
                    tracing::warn!(table = %self.table, version, error = %error, "The care of the log after a commit failed");
                }
                Ok(version)
            }
            Err(error) => {
                let ours = self.log.read_commit_entry(next).await;
                match ours {
                    Ok(Some(entry)) if String::from_utf8_lossy(&entry).contains(&mark) => return Ok(next),
                    Ok(Some(_)) => return Err(CommitFailure::Conflict),
                    Ok(None) | Err(_) => {}
                }
                // Even "it exists" may mean our own entry, written by an attempt whose answer was lost: as long as it was not read,
                // the files have to stay.
                let (kind, hint) = match is_conflict(&error) {
                    true => (Kind::Conflict, "run it again; it goes on from where the table is now"),
                    false => (Kind::Target, "run it again; the table is as it was or as it was to be"),
                };
                Err(CommitFailure::Unknown(
                    Error::new(kind, "The commit failed").with_field("table", &self.table).hint(hint).caused_by(error),
                ))
            }
        }
    }
}

fn is_conflict(error: &DeltaTableError) -> bool {
    match error {
        DeltaTableError::VersionAlreadyExists(_) => true,
        DeltaTableError::Transaction { source } => matches!(
            source,
            TransactionError::VersionAlreadyExists(_)
                | TransactionError::MaxCommitAttempts(_)
                | TransactionError::CommitConflict(_)
        ),
        _ => false,
    }
}

impl TableState {
    /// Whether we can write to it: another program may have given it properties that we would break.
    pub(in crate::sink::delta) fn check_writable(&self, table: &TableRef) -> Result<()> {
        let refuse = |what: String| {
            Err(Error::new(Kind::Target, "The table has a property that daplake cannot keep")
                .with_field("table", table)
                .with_field("property", what)
                .hint("another program added it; remove it or load into a new target"))
        };
        let ours = self.columns.iter().filter(|column| is_partition(column)).map(|column| Some(column.name.as_str()));
        if self.metadata["partitionColumns"].as_array().is_some_and(|columns| !columns.iter().map(Value::as_str).eq(ours)) {
            return refuse("partition columns".into());
        }
        if let Some(property) = self.configuration.keys().find(|name| name.starts_with("delta.constraints.")) {
            return refuse(property.clone());
        }
        if self.configuration.get("delta.appendOnly").is_some_and(|value| value == "true") {
            return refuse("delta.appendOnly".into());
        }
        let generated = ["delta.generationExpression", "delta.identity.start", "delta.invariants"];
        if let Some(column) =
            self.columns.iter().find(|column| generated.iter().any(|name| column.metadata.contains_key(*name)))
        {
            return refuse(format!("generated or constrained column {}", column.name));
        }
        let features = ["readerFeatures", "writerFeatures"].iter().filter_map(|list| self.protocol[*list].as_array()).flatten();
        for feature in features.filter_map(Value::as_str) {
            if !HARMLESS_FEATURES.contains(&feature) {
                return refuse(format!("feature {feature}"));
            }
        }
        Ok(())
    }

    /// Which columns were left out or hashed.
    pub(in crate::sink::delta) fn column_record(&self) -> ColumnRecord {
        self.configuration.get(COLUMNS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// Rows of all files, if all say so.
    pub(in crate::sink::delta) fn rows(&self) -> Option<u64> {
        self.files.iter().try_fold(0, |sum, file| Some(sum + file.live_rows()?))
    }

    /// Whether columns are mapped, and the highest number given.
    pub(in crate::sink::delta) fn mapping(&self) -> (bool, i64) {
        let mapped = self.configuration.get(MAPPING_MODE).is_some_and(|mode| mode != "none");
        let max_id = self.configuration.get(MAPPING_MAX_ID).and_then(|id| id.parse().ok()).unwrap_or(0);
        (mapped, max_id)
    }
}
