//! [`ParquetSink`]: the sink of folders of plain Parquet files.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::{Bookmark, Namespace, TableRef, counted};
use crate::redact::SafeUrl;
use crate::reduce::ChangeSet;
use crate::sink::delta::log::file_names::{MANIFEST, is_our_file, remove_files};
use crate::sink::delta::log::properties;
use crate::sink::delta::log::table_log::TableLog;
use crate::sink::delta::log::table_state::TableState;
use crate::sink::delta::{ChangeDataFeed, DeletionVectors, DeltaOptions, DeltaSink, IcebergView, Optimized, Scope, check_each};
use crate::sink::parquet_folder::manifest::Manifest;
use crate::sink::parquet_folder::{HIDDEN, folder_swap, views};
use crate::sink::{
    Capabilities, CommittedState, Executor, LakeFeatures, Layout, Load, LoadPlan, LoadRecord, LoadSummary, Sink, TableProblems,
    TableStatus, WriteError,
};
use crate::store::{Place, explained};

/// How long replaced files stay.
const GRACE_MILLIS: i64 = 60 * 60 * 1000;

/// Tables as folders of plain Parquet files.
///
/// Loads of the same table may run concurrently, as with [`DeltaSink`]: the first commit wins, the other fails with kind `Conflict`.
#[derive(Debug, Clone)]
pub struct ParquetSink {
    place: Place,
    /// The Delta tables with the versions of the folders.
    tables: Arc<DeltaSink>,
}

impl ParquetSink {
    /// Tables at a target. Reads and writes nothing.
    pub fn new(place: Place, options: DeltaOptions) -> Result<Self> {
        let logs = match place.folder() {
            Some(folder) => Place::local(&folder.join(HIDDEN))?,
            None => place.clone(),
        };
        // Readers of plain Parquet files ignore deletion vectors and change data feeds.
        let options = DeltaOptions {
            deletion_vectors: DeletionVectors::Off,
            change_data_feed: ChangeDataFeed::Unchanged,
            iceberg: IcebergView::Unchanged,
            is_parquet_folder: true,
            ..options
        };
        Ok(Self { place, tables: Arc::new(DeltaSink::new(logs, options)) })
    }

    /// The Delta tables with the versions of the folders, for queries.
    pub fn tables(&self) -> &Arc<DeltaSink> {
        &self.tables
    }

    /// As [`DeltaSink::optimize`]. Afterwards plain readers see the new files, also those of groups before a failure.
    pub async fn optimize(&self, table: &TableRef, scope: Scope) -> Result<Optimized> {
        let done = self.tables.optimize(table, scope).await;
        let published = self.publish(table).await;
        done.and_then(|done| published.map(|_| done))
    }

    /// The folder that plain readers use, on a local disk.
    fn folder(&self, table: &TableRef) -> Option<PathBuf> {
        Some(self.place.folder()?.join(table.namespace.as_str()).join(&table.table))
    }

    /// Checks that the table does not exist as a Delta table. In an object store, the log is where that of a Delta table would be;
    /// tables of older versions of daplake are recognised by their views.
    async fn check_format(&self, table: &TableRef) -> Result<()> {
        let log = self.tables.log(table)?;
        let refusal = || log.in_other_format("The table exists as a Delta table", "delta");
        if let Some(folder) = self.folder(table) {
            if folder.join("_delta_log").exists() {
                return Err(refusal().with_field("folder", folder.display()));
            }
            return Ok(());
        }
        let Some(state) = log.state().await? else { return Ok(()) };
        let is_parquet = state.property(properties::FORMAT) == Some(properties::PARQUET);
        if is_parquet || self.place.store().head(&views::file_of(&self.place, table)).await.is_ok() {
            return Ok(());
        }
        Err(refusal())
    }

    /// Checks that the table's folder does not exist, is empty or holds this table.
    fn check_folder(&self, table: &TableRef) -> Result<()> {
        let Some(folder) = self.folder(table).filter(|_| table.is_path_safe()) else { return Ok(()) };
        let refuse = |message: &'static str| {
            Error::new(Kind::Target, message).with_field("table", table).with_field("folder", folder.display())
        };
        let Ok(metadata) = std::fs::symlink_metadata(&folder) else { return Ok(()) };
        if metadata.is_symlink() {
            // The swap would replace the link.
            return Err(refuse("The folder of the table is a link")
                .hint("replace it by a real folder, or link the folder of the whole target instead"));
        }
        let is_used = !metadata.is_dir() || std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
        match Manifest::read(&folder) {
            Some(manifest) if manifest.table == table.to_string() => Ok(()),
            None if std::fs::symlink_metadata(folder.join(MANIFEST)).is_ok() => {
                let damaged = refuse("The file that describes the folder of the table is damaged");
                Err(damaged.with_field("file", folder.join(MANIFEST).display()).hint(format!(
                    "move the folder away, for example to {}.old, and run again: daplake restores it, from its log in {HIDDEN} if that exists",
                    folder.display()
                )))
            }
            _ if is_used => Err(refuse("The table's folder holds files that daplake did not create")
                .hint("move it away or use another target; daplake changes only tables that it created")),
            _ => Ok(()),
        }
    }

    /// Shows the current version to plain readers. Returns the names of the Parquet files in its folder that daplake did not create.
    async fn publish(&self, table: &TableRef) -> Result<Vec<String>> {
        self.check_folder(table)?;
        let log = self.tables.log(table)?;
        let (Some(root), Some(folder)) = (self.place.folder(), self.folder(table)) else {
            let Some(mut state) = log.state().await? else { return Ok(Vec::new()) };
            self.put_view(&log, &state).await?;
            // Of two runs, the one with the older version may write last: it then sees the newer version here.
            while log.entry(state.version + 1).await?.is_some() {
                let Some(newer) = log.state().await? else { return Ok(Vec::new()) };
                state = newer;
                self.put_view(&log, &state).await?;
            }
            return remove_replaced(&log, &state).await.map(|()| Vec::new());
        };
        let data = root.join(HIDDEN).join(table.namespace.as_str()).join(&table.table);
        if !data.is_dir() {
            return Ok(Vec::new());
        }
        // Without the lock, a process could replace a newer version by an older one.
        let lock = folder_swap::lock(&data).await?;
        let Some(state) = log.state().await? else { return Ok(Vec::new()) };
        let manifest = Manifest::new(table, &state);
        let columns = state.columns.clone();
        let key = state.key.clone();
        let work = {
            let (data, folder) = (data.clone(), folder.clone());
            move || {
                folder_swap::recover(&data, &folder)?;
                if Manifest::read(&folder).is_some_and(|shown| shown.log == manifest.log) {
                    return Ok(None);
                }
                folder_swap::swap_folder(&data, &folder, &manifest, &columns, &key).map(Some)
            }
        };
        let done = tokio::task::spawn_blocking(work).await.context(Kind::Bug, "The swap of a folder stopped unexpectedly")?;
        let foreign = done.map_err(|error: std::io::Error| {
            let hint = if folder_swap::is_in_use(&error) {
                "a program has a file of this table open, such as a query or an editor: close it and run it again"
            } else {
                "run it again"
            };
            Error::new(Kind::Target, "The folder of the table could not be replaced; its rows are committed")
                .with_field("table", table)
                .with_field("folder", folder.display())
                .hint(hint)
                .caused_by(error)
        })?;
        drop(lock);
        let Some(foreign) = foreign else { return Ok(Vec::new()) };
        remove_replaced(&log, &state).await?;
        let root = root.to_owned();
        let written = tokio::task::spawn_blocking(move || views::write_local(&root)).await;
        let written = written.context(Kind::Bug, "Writing views stopped unexpectedly")?;
        written.context(Kind::Target, "`views.sql` cannot be written")?;
        let foreign = foreign.into_iter().map(|name| name.to_string_lossy().into_owned());
        Ok(foreign.filter(|name| name.ends_with(".parquet")).collect())
    }

    /// In an object store, writes the view that names the files of this version.
    async fn put_view(&self, log: &TableLog, state: &TableState) -> Result<()> {
        let table = &log.table;
        let manifest = Manifest::new(table, state);
        let base = log.location.to_string();
        let paths: Vec<String> = manifest.files.iter().map(|file| format!("{base}{file}")).collect();
        let name = views::file_of(&self.place, table);
        let put = self.place.store().put(&name, PutPayload::from(manifest.view(&paths))).await;
        put.map(|_| ()).context(Kind::Target, "The view of the table cannot be written").map_err(explained)
    }
}

/// Removes files that were replaced long enough ago. Files of a load in progress have no tombstone and stay.
async fn remove_replaced(log: &TableLog, state: &TableState) -> Result<()> {
    let until = chrono::Utc::now().timestamp_millis() - GRACE_MILLIS;
    let log_store = log.log_store();
    let mut tombstones = state.delta.all_tombstones(log_store.as_ref());
    let mut due = HashSet::new();
    while let Some(tombstone) = tombstones.next().await {
        let tombstone = tombstone.context(Kind::Target, "The Delta log cannot be read")?;
        if tombstone.deletion_timestamp().is_some_and(|at| at < until) && is_our_file(&tombstone.path()) {
            due.insert(Path::from(tombstone.path().as_ref()));
        }
    }
    if due.is_empty() {
        return Ok(());
    }
    // Tombstones stay for days: one listing costs less than a request per removed file after every load.
    let store = log.store();
    let listed: Vec<_> = store.list(None).try_collect().await.context(Kind::Target, "The table's folder cannot be read")?;
    let paths = listed.into_iter().map(|object| object.location).filter(|path| due.contains(path)).collect();
    remove_files(&store, &log.table, paths).await;
    Ok(())
}

#[async_trait]
impl Sink for ParquetSink {
    fn location(&self) -> &SafeUrl {
        self.place.location()
    }

    async fn check(&self) -> Result<()> {
        self.place.check().await
    }

    /// Shows the committed version to plain readers, if an interrupted run did not.
    async fn committed(&self, table: &TableRef) -> Result<Option<CommittedState>> {
        let held = self.inspect(table).await?;
        if held.is_some() && self.place.folder().is_some() {
            self.publish(table).await?;
        }
        Ok(held)
    }

    async fn inspect(&self, table: &TableRef) -> Result<Option<CommittedState>> {
        self.check_format(table).await.map_err(explained)?;
        self.tables.committed(table).await
    }

    async fn list(&self, namespace: Option<&Namespace>) -> Result<Vec<TableRef>> {
        self.tables.list(namespace).await
    }

    async fn status(&self, table: &TableRef) -> Result<Option<TableStatus>> {
        // Readers read the files and not the log.
        Ok(self.tables.status(table).await?.map(|status| TableStatus { reader: None, ..status }))
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities { lake: Some(self), ..self.tables.capabilities() }
    }

    fn is_retryable(&self, error: &Error) -> bool {
        self.tables.is_retryable(error)
    }

    async fn validate_layout(&self, table: &TableRef, wanted: &Layout) -> Result<()> {
        self.tables.validate_layout(table, wanted).await
    }

    async fn check_plan(&self, plan: LoadPlan) -> Result<()> {
        self.check_format(&plan.table).await.map_err(explained)?;
        self.check_folder(&plan.table)?;
        self.tables.check_plan(plan).await
    }

    async fn check_tables(&self, tables: &[TableRef]) -> Result<TableProblems> {
        let check = |table: TableRef| async move {
            self.check_format(&table).await.map_err(explained)?;
            self.check_folder(&table)?;
            self.tables.check_table(&table).await
        };
        Ok(TableProblems { failures: check_each(tables, check).await, warnings: Vec::new() })
    }

    async fn schema_changes(&self, plan: &LoadPlan) -> Result<Vec<String>> {
        self.tables.schema_changes(plan).await
    }

    async fn begin(&self, plan: LoadPlan) -> Result<Box<dyn Load>> {
        self.check_folder(&plan.table)?;
        let table = plan.table.clone();
        Ok(Box::new(ParquetLoad { inner: self.tables.begin(plan).await?, sink: self.clone(), table }))
    }
}

#[async_trait]
impl LakeFeatures for ParquetSink {
    async fn load_history(&self, table: &TableRef, limit: usize) -> Result<Vec<LoadRecord>> {
        self.tables.load_history(table, limit).await
    }

    async fn stored_bytes(&self, table: &TableRef) -> Result<u64> {
        self.tables.stored_bytes(table).await
    }

    /// On a local disk, each commit writes the views.
    async fn write_views(&self) -> Result<()> {
        match self.place.folder() {
            Some(_) => Ok(()),
            None => views::combine(&self.place).await,
        }
    }
}

/// Swaps the folder after the commit of the Delta log.
struct ParquetLoad {
    inner: Box<dyn Load>,
    sink: ParquetSink,
    table: TableRef,
}

#[async_trait]
impl Load for ParquetLoad {
    async fn write(&mut self, changes: ChangeSet) -> Result<(), WriteError> {
        self.inner.write(changes).await
    }

    fn can_distribute(&self) -> bool {
        self.inner.can_distribute()
    }

    async fn write_distributed(&mut self, executor: &dyn Executor) -> Result<()> {
        self.inner.write_distributed(executor).await
    }

    fn is_superseded(&self) -> bool {
        self.inner.is_superseded()
    }

    async fn commit(self: Box<Self>, reached: Bookmark) -> Result<LoadSummary> {
        let mut loaded = self.inner.commit(reached).await?;
        let foreign = self.sink.publish(&self.table).await?;
        if let Some(first) = foreign.first() {
            loaded.warnings.push(format!(
                "found {} of another program in the table's folder (such as {first}); readers of *.parquet take the rows for rows of the table",
                counted(foreign.len() as u64, "Parquet file")
            ));
        }
        Ok(loaded)
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}
