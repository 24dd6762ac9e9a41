//! The Delta log of one table: reads its state and makes commits.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake::kernel::{Action, Transaction};
use deltalake::logstore::{LogStoreRef, StorageConfig, commit_uri_from_version, default_logstore};
use deltalake::protocol::DeltaOperation;
use deltalake::table::state::DeltaTableState;
use deltalake::{DeltaTableError, ObjectStore};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::prefix::PrefixStore;
use serde_json::Value;

use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::{Bookmark, TableRef, Timestamp};
use crate::redact::SafeUrl;
use crate::sink::delta::log::active_file::ActiveFile;
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::damage::{self, Damage};
use crate::sink::delta::log::file_names::{MANIFEST, is_our_file};
use crate::sink::delta::log::properties;
use crate::sink::delta::log::table_state::TableState;
use crate::store::Place;

/// How the client version of daplake's commits begins.
pub(crate) const OUR_CLIENT_PREFIX: &str = "daplake.";
const UNREADABLE: &str = "The Delta log cannot be read";
const UNUSABLE_URL: &str = "The URL of the target cannot be used";

/// The Delta log of one table.
#[derive(Clone)]
pub(crate) struct TableLog {
    /// The table.
    pub(crate) table: TableRef,
    /// URL of the table's folder.
    pub(crate) location: SafeUrl,
    /// The table's folder if it is on the local disk.
    pub(crate) folder: Option<std::path::PathBuf>,
    /// URL of the target.
    target: SafeUrl,
    is_parquet_folder: bool,
    log: LogStoreRef,
}

impl std::fmt::Debug for TableLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableLog").field("table", &self.table).field("location", &self.location).finish_non_exhaustive()
    }
}

/// Why a commit failed.
#[derive(Debug)]
pub(crate) enum CommitFailure {
    /// Another commit came first: the version of this commit certainly belongs to that one.
    Conflict,
    /// Nothing was sent to the store.
    Refused(Error),
    /// The commit may have been made nevertheless.
    Unknown(Error),
}

impl TableLog {
    /// The log of `table` at a target. Kind `Target` if its names cannot be folders.
    ///
    /// Commits go through the Delta crate's log store for stores with a conditional put; the other log stores, which rename, are
    /// never used.
    pub(crate) fn new(place: &Place, table: &TableRef) -> Result<Self> {
        if !table.is_path_safe() {
            return Err(Error::new(Kind::Target, "The table's name cannot be used as a folder").with_field("table", table));
        }
        let below = format!("{}/{}/", table.namespace, table.table);
        let location = place.location().reveal().join(&below).context(Kind::Target, UNUSABLE_URL)?;
        let path = place.root().clone().join(table.namespace.as_str()).join(table.table.as_str());
        let folder = place.folder().map(|folder| folder.join(table.namespace.as_str()).join(&table.table));
        let files: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(place.store(), path));
        let (root, store) = place.by_url();
        let url = root.join(&below).context(Kind::Target, UNUSABLE_URL)?;
        let log = default_logstore(files, store, &url, &StorageConfig::default());
        Ok(Self {
            table: table.clone(),
            location: SafeUrl::new(location),
            folder,
            target: place.location().clone(),
            is_parquet_folder: false,
            log,
        })
    }

    /// The same log as the version log of a folder of plain Parquet files, or as a table for Delta readers.
    #[must_use]
    pub(crate) fn for_parquet_folder(self, is_parquet_folder: bool) -> Self {
        Self { is_parquet_folder, ..self }
    }

    /// The store, with the table's folder as its root.
    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        self.log.object_store(None)
    }

    /// The Delta crate's log store.
    pub(crate) fn log_store(&self) -> LogStoreRef {
        Arc::clone(&self.log)
    }

    /// Application id of our `txn` actions.
    pub(crate) fn app_id(&self) -> String {
        format!("daplake/{}", self.table)
    }

    /// Application id of the `txn` action whose version is the time of the last automatic vacuum, in microseconds since the epoch.
    pub(crate) fn vacuum_app_id(&self) -> String {
        format!("{}/vacuum", self.app_id())
    }

    /// The time of the last automatic vacuum, by the clock of the machine that did it; `None` if there was none.
    pub(crate) async fn last_vacuum(&self, state: &TableState) -> Result<Option<Timestamp>> {
        let version = state.delta.transaction_version(self.log.as_ref(), self.vacuum_app_id()).await;
        Ok(version.map_err(|error| self.unreadable(error))?.map(Timestamp::from_micros))
    }

    /// The table's folder as a user would write it.
    fn folder_name(&self) -> String {
        match &self.folder {
            Some(folder) => folder.display().to_string(),
            None => self.location.to_string(),
        }
    }

    fn not_ours(&self, message: &'static str) -> Error {
        Error::new(Kind::Target, message)
            .with_field("table", &self.table)
            .with_field("folder", self.folder_name())
            .hint("move it away or use another target; daplake changes only tables that it created")
    }

    fn unreadable(&self, error: DeltaTableError) -> Error {
        Error::new(Kind::Target, UNREADABLE)
            .with_field("table", &self.table)
            .with_field("folder", self.folder_name())
            .hint("check that the folder can be read; if another program wrote it, move it away or use another target")
            .caused_by(error)
    }

    /// The error for a log that the Delta crate cannot read. Names the file that is damaged, if one is.
    async fn unreadable_log(&self, error: DeltaTableError) -> Error {
        match damage::find(&self.store()).await {
            Some(damage) => self.damaged(&damage).caused_by(error),
            None => self.unreadable(error),
        }
    }

    fn damaged(&self, damage: &Damage) -> Error {
        let folder = self.folder_name();
        let file = format!("{}/{}", folder.trim_end_matches('/'), damage.file);
        let hint = if damage.is_dispensable {
            format!("delete {file} and run again: it only speeds up reading, and the other files of the log are complete")
        } else {
            format!(
                "restore the file from a backup, or move the folder {folder} away and run again: the table is then loaded from a new snapshot; \
                 rows that only the old table has, such as its history, stay in the old folder"
            )
        };
        Error::new(Kind::Target, "The Delta log of the table is damaged")
            .with_field("table", &self.table)
            .with_field("file", file)
            .with_field("reason", &damage.reason)
            .hint(hint)
    }

    /// The table exists in the other lake format.
    pub(crate) fn in_other_format(&self, message: &'static str, format: &str) -> Error {
        self.not_ours(message).hint_instead(format!("omit --format, or use --format {format}"))
    }

    /// The current state of the table; `None` if it does not exist. Kind `Target` if something else is in its place.
    pub(crate) async fn state(&self) -> Result<Option<TableState>> {
        // Some systems report that a path below a file does not exist.
        if self.folder.as_ref().is_some_and(|folder| folder.is_file()) {
            return Err(self.not_ours("The table's folder is a file"));
        }
        if let Some(damage) = self.folder.as_deref().and_then(damage::empty_commit) {
            return Err(self.damaged(&damage));
        }
        let delta = match DeltaTableState::try_new(self.log.as_ref(), None).await {
            Ok(delta) => delta,
            Err(error) => match self.absent_or(error).await? {
                Some(delta) => delta,
                None => return Ok(None),
            },
        };
        let txn = delta.transaction_version(self.log.as_ref(), self.app_id()).await.map_err(|error| self.unreadable(error))?;
        let metadata = serde_json::to_value(delta.metadata()).context(Kind::Target, "The table's metadata cannot be read")?;
        let protocol = serde_json::to_value(delta.protocol()).context(Kind::Target, "The table's protocol cannot be read")?;
        let configuration: BTreeMap<String, String> = serde_json::from_value(metadata["configuration"].clone())
            .context(Kind::Target, "The table's properties cannot be read")?;

        let (Some(at), Some(of)) = (txn, configuration.get(properties::TABLE)) else {
            return Err(self.not_ours("The table's folder holds a Delta table that daplake did not create"));
        };
        if *of != self.table.to_string() {
            return Err(self.not_ours("The table's folder holds another table of daplake").with_field("found", of));
        }
        let is_parquet = configuration.get(properties::FORMAT).is_some_and(|format| format == properties::PARQUET);
        if !self.is_parquet_folder && is_parquet {
            return Err(self.in_other_format("The table exists as a folder of plain Parquet files", "parquet"));
        }
        let schema_version = configuration.get(properties::SCHEMA_VERSION).and_then(|version| version.parse().ok());
        let key = configuration.get(properties::KEY).and_then(|key| serde_json::from_str(key).ok());
        let (Some(schema_version), Some(key)) = (schema_version, key) else {
            return Err(self.not_ours("The table has lost the properties that daplake needs"));
        };
        let context = |error: Error| error.with_field("table", &self.table);
        let columns = LakeColumn::from_schema_string(metadata["schemaString"].as_str().unwrap_or_default()).map_err(context)?;
        let files = delta.log_data().iter().map(|view| ActiveFile::from_view(view).map(Arc::new)).collect::<Result<Vec<_>>>();
        Ok(Some(TableState {
            version: delta.version(),
            bookmark: Bookmark { at: Timestamp::from_micros(at), schema_version },
            columns,
            key,
            configuration,
            metadata,
            protocol,
            files: files.map_err(context)?,
            delta,
        }))
    }

    /// What follows if the log could not be read: `None` if there is no table, its state if another run has just created it, or an
    /// error.
    async fn absent_or(&self, error: DeltaTableError) -> Result<Option<DeltaTableState>> {
        if self.exists().await? {
            return Err(self.unreadable_log(error).await);
        }
        match self.check_unused().await {
            Ok(()) => Ok(None),
            Err(error) if !self.exists().await? => Err(error),
            Err(_) => match DeltaTableState::try_new(self.log.as_ref(), None).await {
                Ok(delta) => Ok(Some(delta)),
                Err(error) => Err(self.unreadable_log(error).await),
            },
        }
    }

    /// Whether the table's folder has a Delta log.
    async fn exists(&self) -> Result<bool> {
        self.log.is_delta_table_location().await.map_err(|error| self.unreadable(error))
    }

    /// The current state of the table. Kind `NotFound` if it does not exist.
    pub(crate) async fn existing_state(&self) -> Result<TableState> {
        self.state().await?.ok_or_else(|| {
            Error::new(Kind::NotFound, "The target does not have this table")
                .with_field("table", &self.table)
                .with_field("target", &self.target)
        })
    }

    /// Whether daplake created the table; costs less than its state. `false` if the folder holds no table.
    pub(crate) async fn is_ours(&self) -> Result<bool> {
        // The first commit tells, with one request, unless it was cleaned up.
        let first = self.store().get(&commit_uri_from_version(Some(0))).await;
        if let Ok(first) = first
            && let Ok(first) = first.bytes().await
            && names_table(&first, &self.table)
        {
            return Ok(true);
        }
        let snapshot = match deltalake::kernel::Snapshot::try_new(self.log.as_ref(), None).await {
            Ok(snapshot) => snapshot,
            Err(error) if self.exists().await? => return Err(self.unreadable_log(error).await),
            Err(_) => return Ok(false),
        };
        let metadata =
            serde_json::to_value(snapshot.metadata()).context(Kind::Target, "The table's metadata cannot be read")?;
        Ok(metadata["configuration"][properties::TABLE] == self.table.to_string())
    }

    /// Checks that the table's folder holds at most files of our own killed loads, before a first load.
    async fn check_unused(&self) -> Result<()> {
        let store = self.store();
        let mut files = store.list(None);
        loop {
            match files.try_next().await {
                Ok(Some(file)) if is_our_file(file.location.as_ref()) => {}
                Ok(Some(file)) if file.location.as_ref() == MANIFEST => {
                    return Err(self.in_other_format("The table exists as a folder of plain Parquet files", "parquet"));
                }
                Ok(Some(file)) => {
                    let refused = self.not_ours("The table's folder holds files that daplake did not create");
                    return Err(refused.with_field("found", file.location));
                }
                Ok(None) | Err(object_store::Error::NotFound { .. }) => return Ok(()),
                Err(error) => return Err(self.not_ours("The table's folder cannot be read").caused_by(error)),
            }
        }
    }

    /// The JSON lines of one version of the log; `None` if it does not exist or was cleaned up. Kind `Target` if it cannot be read.
    pub(crate) async fn entry(&self, version: u64) -> Result<Option<bytes::Bytes>> {
        let read = self.log.read_commit_entry(version).await;
        read.map_err(|error| self.unreadable(error).with_field("version", version))
    }

    /// The newest version of the log, which is at least `since`.
    pub(crate) async fn newest_version(&self, since: u64) -> Result<u64> {
        self.log.get_latest_version(since).await.map_err(|error| self.unreadable(error))
    }

    /// The time at which a version was committed, by the clock of the target.
    pub(crate) async fn committed_at(&self, version: u64) -> Option<Timestamp> {
        let head = self.store().head(&commit_uri_from_version(Some(version))).await.ok()?;
        Some(Timestamp::from_micros(head.last_modified.timestamp_micros()))
    }

    /// Commits `actions` and, if given, a new bookmark on top of `base`, or as the first version. Any other commit since `base`
    /// wins.
    ///
    /// A checkpoint follows if it is due, and after a load the removal of log entries behind a checkpoint that are older than
    /// `delta.logRetentionDuration`, unless `delta.enableExpiredLogCleanup` is false. If they fail, the commit is still valid.
    pub(crate) async fn commit(
        &self,
        base: Option<&TableState>,
        mut actions: Vec<Action>,
        bookmark: Option<Bookmark>,
        operation: DeltaOperation,
        mut info: HashMap<String, Value>,
    ) -> std::result::Result<u64, CommitFailure> {
        // Identifies the commit if its response is lost.
        let commit_id = uuid::Uuid::new_v4().to_string();
        info.insert("daplakeCommit".into(), Value::String(commit_id.clone()));
        info.insert("clientVersion".into(), Value::String(format!("{OUR_CLIENT_PREFIX}{}", env!("CARGO_PKG_VERSION"))));
        actions.extend(bookmark.map(|bookmark| {
            let now = Some(chrono::Utc::now().timestamp_millis());
            Action::Txn(Transaction::new_with_last_update(self.app_id(), bookmark.at.micros(), now))
        }));
        // Other commits must not remove the entry of the last load: without it, changes of other programs since then cannot be excluded.
        let cleanup = if bookmark.is_some() { None } else { Some(false) };
        let properties = CommitProperties::default().with_max_retries(0).with_metadata(info).with_cleanup_expired_logs(cleanup);
        let table = base.map(|state| &state.delta as &dyn deltalake::kernel::transaction::TableReference);
        let prepared = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(table, self.log_store(), operation)
            .into_prepared_commit_future()
            .await;
        let prepared = prepared.map_err(|error| {
            CommitFailure::Refused(
                Error::new(Kind::Target, "The commit violates the table's properties")
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
                    tracing::warn!(table = %self.table, version, error = %error, "Checkpoint or clean-up of the Delta log failed");
                }
                Ok(version)
            }
            Err(error) => {
                match self.log.read_commit_entry(next).await {
                    Ok(Some(entry)) if String::from_utf8_lossy(&entry).contains(&commit_id) => return Ok(next),
                    Ok(Some(_)) => return Err(CommitFailure::Conflict),
                    Ok(None) | Err(_) => {}
                }
                // Even "already exists" may mean our own entry, written by an attempt whose response was lost: until the entry has
                // been read, the files must stay.
                let (kind, hint) = if is_conflict(&error) {
                    (Kind::Conflict, "run the command again; it continues from the table's new state")
                } else {
                    (Kind::Target, "run it again; the commit was made completely or not at all")
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

/// Whether a commit has the metadata of `table` as daplake writes it.
fn names_table(commit: &[u8], table: &TableRef) -> bool {
    let is_named = |line: &[u8]| {
        let action: Value = serde_json::from_slice(line).unwrap_or_default();
        action["metaData"]["configuration"][properties::TABLE] == table.to_string()
    };
    // The lines of files need not be parsed.
    let is_metadata = |line: &&[u8]| line.starts_with(b"{\"metaData\"");
    commit.split(|byte| *byte == b'\n').filter(is_metadata).any(is_named)
}
