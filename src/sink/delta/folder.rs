//! Plain Parquet folders: a reader with `*.parquet` sees one version of a table or the other, never a mixture.
//!
//! The ledger of such a table is a Delta log that no reader has to know: on a local disk it and the data files live in
//! `<root>/.daplake/<namespace>/<table>/`, and `<root>/<namespace>/<table>/` holds hard links to the files of one version, beside
//! `_daplake.json`, which says of which. After each commit the folder is exchanged as a whole ([`super::publish`]); a run that is
//! killed in between leaves the old version in sight, whole, and the next run makes up for it before it does anything else. In an
//! object store nothing can be exchanged: there readers go by the views, which name the files of a version.
//!
//! Files that a version replaced stay for a while, for readers that still have them open or by name, and then go.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::publish::{self, Ledger};
use super::{ChangeDataFeed, DeletionVectors, DeltaOptions, DeltaSink, Optimized, Scope};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::{Bookmark, Namespace, TableRef};
use crate::redact::SafeUrl;
use crate::reduce::ChangeSet;
use crate::sink::delta::log::file_names::{is_ours_at, remove_all};
use crate::sink::delta::log::table_log::{TableLog, TableState};
use crate::sink::delta::maintenance::views;
use crate::sink::{Held, Layout, Load, LoadPlan, Loaded, Past, Sink, TableStatus, Workers};
use crate::store::{Place, explained};

/// Where the ledgers and the data files are, below the root.
pub(super) const HIDDEN: &str = ".daplake";
/// How long replaced files stay.
const GRACE_MILLIS: i64 = 60 * 60 * 1000;

/// Tables as folders of plain Parquet files.
///
/// Loads of the same table may run at once, as in [`DeltaSink`]: the first commit wins, the other gets kind `Conflict`.
#[derive(Debug, Clone)]
pub struct ParquetSink {
    place: Place,
    tables: Arc<DeltaSink>,
}

impl ParquetSink {
    /// Tables at a place. Reads and writes nothing.
    pub fn new(place: Place, options: DeltaOptions) -> Result<Self> {
        let ledgers = match place.folder() {
            Some(folder) => Place::local(&folder.join(HIDDEN))?,
            None => place.clone(),
        };
        // A plain reader knows nothing of marked rows, nor of feeds.
        let options = DeltaOptions {
            deletion_vectors: DeletionVectors::Off,
            change_data_feed: ChangeDataFeed::AsBefore,
            is_ledger: true,
            ..options
        };
        Ok(Self { place, tables: Arc::new(DeltaSink::new(ledgers, options)) })
    }

    /// The ledgers, which answer queries.
    pub fn tables(&self) -> &Arc<DeltaSink> {
        &self.tables
    }

    /// As [`DeltaSink::optimize`]; plain readers see the new files afterwards, also those of groups that came before a failure.
    pub async fn optimize(&self, table: &TableRef, scope: Scope) -> Result<Optimized> {
        let done = self.tables.optimize(table, scope).await;
        let shown = self.publish(table).await;
        done.and_then(|done| shown.map(|()| done))
    }

    /// Where plain readers look, on a local disk.
    fn folder(&self, table: &TableRef) -> Option<PathBuf> {
        Some(self.place.folder()?.join(table.namespace.as_str()).join(&table.table))
    }

    /// The table must not be kept as a Delta table. In an object store a ledger lies where such a table would; those of earlier
    /// versions are known by their views.
    async fn check_form(&self, table: &TableRef) -> Result<()> {
        let log = self.tables.log(table)?;
        if let Some(folder) = self.folder(table) {
            return match folder.join("_delta_log").exists() {
                true => {
                    Err(log.of_other_form("The table is kept as a Delta table", "delta").with_field("folder", folder.display()))
                }
                false => Ok(()),
            };
        }
        let Some(state) = log.state().await? else { return Ok(()) };
        let is_ledger = state
            .configuration
            .get(crate::sink::delta::log::table_log::FORMAT)
            .is_some_and(|format| format == crate::sink::delta::log::table_log::PARQUET);
        if is_ledger || self.place.store().head(&views::of_table(&self.place, table)).await.is_ok() {
            return Ok(());
        }
        Err(log.of_other_form("The table is kept as a Delta table", "delta"))
    }

    /// Nothing but a folder of ours may be where the table is, or is going to appear.
    fn check_folder(&self, table: &TableRef) -> Result<()> {
        let Some(folder) = self.folder(table).filter(|_| table.is_path_safe()) else { return Ok(()) };
        let refuse = |message: &'static str| {
            Error::new(Kind::Target, message).with_field("table", table).with_field("folder", folder.display())
        };
        let Ok(metadata) = std::fs::symlink_metadata(&folder) else { return Ok(()) };
        if metadata.is_symlink() {
            // The folder is exchanged as a whole, and the link would go with it.
            return Err(refuse("The folder of the table is a link")
                .hint("put a real folder in its place, or link the folder of the whole target instead"));
        }
        let is_used = !metadata.is_dir() || std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
        if is_used && Ledger::read(&folder).is_none_or(|ledger| ledger.table != table.to_string()) {
            return Err(refuse("Something else is in the place of this table")
                .hint("move it away or name another target; daplake changes only tables that it made"));
        }
        Ok(())
    }

    /// Brings what plain readers see to the version of the ledger.
    async fn publish(&self, table: &TableRef) -> Result<()> {
        self.check_folder(table)?;
        let log = self.tables.log(table)?;
        let (Some(root), Some(folder)) = (self.place.folder(), self.folder(table)) else {
            let Some(state) = log.state().await? else { return Ok(()) };
            self.put_view(&log, &state).await?;
            return remove_replaced(&log, &state).await;
        };
        let data = root.join(HIDDEN).join(table.namespace.as_str()).join(&table.table);
        if !data.is_dir() {
            return Ok(());
        }
        // One at a time, so that an old version never follows a new one. The lock ends with the process.
        let lock = publish::lock(&data).await?;
        let Some(state) = log.state().await? else { return Ok(()) };
        let ledger = Ledger::of(table, &state);
        if Ledger::read(&folder).is_some_and(|shown| shown.log == ledger.log) {
            return Ok(());
        }
        let columns = state.columns.clone();
        let key = state.key.clone();
        let work = {
            let (data, folder) = (data.clone(), folder.clone());
            move || publish::exchange_folder(&data, &folder, &ledger, &columns, &key)
        };
        let failed = "The folder of the table could not be exchanged; its rows are safe";
        let done = tokio::task::spawn_blocking(work).await.context(Kind::Bug, "Exchanging a folder stopped unexpectedly")?;
        done.map_err(|error| {
            let hint = match publish::is_in_use(&error) {
                true => "a program has a file of this table open, such as a query or an editor: close it and run it again",
                false => "run it again",
            };
            Error::new(Kind::Target, failed)
                .with_field("table", table)
                .with_field("folder", folder.display())
                .hint(hint)
                .caused_by(error)
        })?;
        drop(lock);
        remove_replaced(&log, &state).await?;
        let root = root.to_owned();
        let views = tokio::task::spawn_blocking(move || publish::write_views(&root)).await;
        views.context(Kind::Bug, "Writing views stopped unexpectedly")?.context(Kind::Target, "The views cannot be written")
    }

    /// In an object store: the view that names the files of this version.
    async fn put_view(&self, log: &TableLog, state: &TableState) -> Result<()> {
        let table = &log.table;
        let ledger = Ledger::of(table, state);
        let base = log.location.to_string();
        let paths: Vec<String> = ledger.files.iter().map(|file| format!("{base}{file}")).collect();
        let name = views::of_table(&self.place, table);
        let put = self.place.store().put(&name, PutPayload::from(ledger.view(&paths))).await;
        put.map(|_| ()).context(Kind::Target, "The view of the table cannot be written").map_err(explained)
    }
}

/// Removes files that a version replaced long enough ago. What a load of now writes is in no tombstone and stays.
async fn remove_replaced(log: &TableLog, state: &TableState) -> Result<()> {
    let until = chrono::Utc::now().timestamp_millis() - GRACE_MILLIS;
    let log_store = log.log_store();
    let mut tombstones = state.delta.all_tombstones(log_store.as_ref());
    let mut due = HashSet::new();
    while let Some(tombstone) = tombstones.next().await {
        let tombstone = tombstone.context(Kind::Target, "The table's log cannot be read")?;
        if tombstone.deletion_timestamp().is_some_and(|at| at < until) && is_ours_at(&tombstone.path()) {
            due.insert(Path::from(tombstone.path().as_ref()));
        }
    }
    if due.is_empty() {
        return Ok(());
    }
    // Tombstones stay for days. To look what is there costs less than to ask for each file again after every load.
    let store = log.store();
    let listed: Vec<_> = store.list(None).try_collect().await.context(Kind::Target, "The table's folder cannot be read")?;
    let paths = listed.into_iter().map(|object| object.location).filter(|path| due.contains(path)).collect();
    remove_all(&store, &log.table, paths).await;
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

    async fn held(&self, table: &TableRef) -> Result<Option<Held>> {
        self.check_form(table).await.map_err(explained)?;
        let held = self.tables.held(table).await?;
        if held.is_some() && self.place.folder().is_some() {
            self.publish(table).await?;
        }
        Ok(held)
    }

    async fn list(&self, namespace: Option<&Namespace>) -> Result<Vec<TableRef>> {
        self.tables.list(namespace).await
    }

    async fn status(&self, table: &TableRef) -> Result<Option<TableStatus>> {
        self.tables.status(table).await
    }

    async fn past(&self, table: &TableRef, limit: usize) -> Result<Vec<Past>> {
        self.tables.past(table, limit).await
    }

    fn checks_unique_keys(&self) -> bool {
        self.tables.checks_unique_keys()
    }

    fn settles_repeated_keys(&self) -> bool {
        self.tables.settles_repeated_keys()
    }

    /// On a local disk each commit has done that.
    async fn write_views(&self) -> Result<()> {
        match self.place.folder() {
            Some(_) => Ok(()),
            None => views::gather(&self.place).await,
        }
    }

    async fn accepts(&self, table: &TableRef, wanted: &Layout) -> Result<()> {
        self.tables.accepts(table, wanted).await
    }

    async fn begin(&self, plan: LoadPlan) -> Result<Box<dyn Load>> {
        self.check_folder(&plan.table)?;
        let table = plan.table.clone();
        Ok(Box::new(ParquetLoad { inner: self.tables.begin(plan).await?, sink: self.clone(), table }))
    }
}

/// Lake tables in either form, for what is done to both.
#[derive(Debug, Clone)]
pub enum Lake {
    /// Delta tables.
    Delta(Arc<DeltaSink>),
    /// Folders of Parquet files.
    Parquet(Arc<ParquetSink>),
}

impl Lake {
    /// The tables, or the ledgers of folders.
    pub fn tables(&self) -> &Arc<DeltaSink> {
        match self {
            Lake::Delta(sink) => sink,
            Lake::Parquet(sink) => sink.tables(),
        }
    }

    /// See [`DeltaSink::optimize`].
    pub async fn optimize(&self, table: &TableRef, scope: Scope) -> Result<Optimized> {
        match self {
            Lake::Delta(sink) => sink.optimize(table, scope).await,
            Lake::Parquet(sink) => sink.optimize(table, scope).await,
        }
    }
}

struct ParquetLoad {
    inner: Box<dyn Load>,
    sink: ParquetSink,
    table: TableRef,
}

#[async_trait]
impl Load for ParquetLoad {
    async fn write(&mut self, changes: ChangeSet) -> Result<()> {
        self.inner.write(changes).await
    }

    async fn write_by(&mut self, workers: &dyn Workers) -> Result<bool> {
        self.inner.write_by(workers).await
    }

    async fn commit(self: Box<Self>, reached: Bookmark) -> Result<Loaded> {
        let loaded = self.inner.commit(reached).await?;
        self.sink.publish(&self.table).await?;
        Ok(loaded)
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        self.inner.abort().await
    }
}
