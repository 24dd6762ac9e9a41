//! Delta tables in a folder or an object store: one folder per table, rows and bookmark in one commit. It never calls the service
//! and applies no retry of its own: a conflict goes to the caller.
//!
//! Layout `<root>/<namespace>/<table>/`. The bookmark is a `txn` action (application `daplake/<namespace>.<table>`, version in
//! microseconds since the epoch) beside table properties named `daplake.*`. A table asks for the least of the protocol that its
//! options need (`protocol.rs`).

mod distributed;
mod folder;
mod form;
mod log;
mod maintenance;
mod merge;
mod modes;
mod publish;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::path::Path;

use async_trait::async_trait;
use url::Url;

pub use self::distributed::run_step;
pub use self::folder::{Lake, ParquetSink};
pub use self::form::{Forms, forms_at};
pub use self::log::foreign_changes::OnForeignChanges;
use self::log::system_columns::TableLayout;
use self::log::table_log::TableLog;
pub use self::maintenance::commit_history::Commit;
pub use self::maintenance::optimize::{Optimized, Scope};
pub use self::maintenance::time_travel::At;
pub use self::maintenance::vacuum::{LEAST_RETENTION, Vacuumed};
pub use self::maintenance::verify::{Differences, DifferingKey};
pub use self::merge::change_feed::ChangeDataFeed;
use self::modes::load::DeltaLoad;
use crate::engine::Engine;
use crate::error::{ErrorContext, Result};
use crate::model::{Namespace, TableRef};
use crate::redact::SafeUrl;
use crate::sink::{Held, Layout, Load, LoadPlan, Past, Sink, TableStatus};
use crate::store::{Place, StoreOptions, explained};

/// How Delta tables are written.
#[derive(Debug, Clone)]
pub struct DeltaOptions {
    /// Memory and spill of the run.
    pub engine: Engine,
    /// Data files are closed at about this size.
    pub target_file_bytes: u64,
    /// zstd level of data files.
    pub compression_level: i32,
    /// A checkpoint of the log every so many commits; set when a table is made.
    pub checkpoint_interval: u32,
    /// Whether increments mark rows of old files as deleted instead of writing the files anew.
    pub deletion_vectors: DeletionVectors,
    /// Whether commits tell their changes as rows.
    pub change_data_feed: ChangeDataFeed,
    /// Whether the log is the ledger of a folder of plain Parquet files, and not a table for readers of Delta.
    pub is_ledger: bool,
    /// What a load does when another program changed rows since the last one.
    pub on_foreign_changes: OnForeignChanges,
    /// A load that leaves so many small files or more merges some of them in a commit of its own; 0: never.
    pub compact_after: u32,
}

/// Whether increments mark rows of old files as deleted instead of writing the files anew.
///
/// A table with deletion vectors asks for reader version 3 and writer version 7 of the Delta protocol. Vectors that exist are
/// honoured with every choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeletionVectors {
    /// Where it pays: in files that are not small, as long as few of their rows are deleted. A table that never gets there asks
    /// for no more than before. A table whose property `delta.enableDeletionVectors` is `false` gets none.
    #[default]
    Auto,
    /// In files of any size, as long as few of their rows are deleted.
    On,
    /// Never.
    Off,
}

impl DeltaOptions {
    /// The usual: files of 128 MiB, zstd level 1, a checkpoint every 10 commits.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            target_file_bytes: 128 << 20,
            compression_level: 1,
            checkpoint_interval: 10,
            deletion_vectors: DeletionVectors::Auto,
            change_data_feed: ChangeDataFeed::AsBefore,
            is_ledger: false,
            on_foreign_changes: OnForeignChanges::Fail,
            compact_after: 20,
        }
    }
}

/// A folder of Delta tables, on a local disk or in an object store.
///
/// Loads of the same table may run at once, in this process or others: the first commit wins, the other gets kind `Conflict`.
/// A load that is aborted or dropped removes its files; a killed process leaves files that no commit names and no reader sees.
#[derive(Debug, Clone)]
pub struct DeltaSink {
    place: Place,
    options: DeltaOptions,
}

impl DeltaSink {
    /// Tables at a place. Reads and writes nothing.
    pub fn new(place: Place, options: DeltaOptions) -> Self {
        Self { place, options }
    }

    /// Tables below a local folder, which need not exist yet. Reads and writes nothing.
    pub fn at_path(root: &Path, options: DeltaOptions) -> Result<Self> {
        Ok(Self::new(Place::local(root)?, options))
    }

    /// Tables below a URL, of which [`Place::open`] tells what it may be. Reads and writes nothing.
    pub fn open(location: &Url, store: &StoreOptions, options: DeltaOptions) -> Result<Self> {
        Ok(Self::new(Place::open(location, store)?, options))
    }

    fn log(&self, table: &TableRef) -> Result<TableLog> {
        Ok(TableLog::new(&self.place, table)?.with_ledger(self.options.is_ledger))
    }
}

#[async_trait]
impl Sink for DeltaSink {
    fn location(&self) -> &SafeUrl {
        self.place.location()
    }

    async fn check(&self) -> Result<()> {
        self.place.check().await
    }

    async fn held(&self, table: &TableRef) -> Result<Option<Held>> {
        let log = self.log(table)?;
        let Some(state) = log.state().await.map_err(explained)? else { return Ok(None) };
        let layout = TableLayout::of(&state.configuration);
        let foreign_changes = match self.options.on_foreign_changes {
            OnForeignChanges::Fail => log.foreign_changes(&state).await.map_err(explained)?,
            OnForeignChanges::Warn => None,
        };
        Ok(Some(Held {
            mode: layout.mode,
            keeps_rows: layout.keeps_rows() && !state.files.is_empty(),
            foreign_changes,
            ..Held::new(state.bookmark, state.column_record())
        }))
    }

    /// Folders without a Delta log and tables that daplake did not make are passed over.
    async fn list(&self, namespace: Option<&Namespace>) -> Result<Vec<TableRef>> {
        let root = self.place.root();
        let namespaces = match namespace {
            Some(namespace) => vec![namespace.as_str().to_owned()],
            None => self.place.folders_in(root).await?,
        };
        let mut tables = Vec::new();
        for namespace in namespaces {
            if !TableRef::new(namespace.as_str(), "x").is_path_safe() {
                continue;
            }
            for name in self.place.folders_in(&root.clone().join(namespace.as_str())).await? {
                let table = TableRef::new(namespace.as_str(), name.as_str());
                // A table whose log is broken is reported when it is asked for, not by hiding all the others.
                if table.is_path_safe() && self.log(&table)?.is_ours().await.unwrap_or(true) {
                    tables.push(table);
                }
            }
        }
        tables.sort();
        Ok(tables)
    }

    async fn status(&self, table: &TableRef) -> Result<Option<TableStatus>> {
        let log = self.log(table)?;
        let Some(state) = log.state().await.map_err(explained)? else { return Ok(None) };
        Ok(Some(TableStatus {
            table: table.clone(),
            bookmark: state.bookmark,
            rows: state.rows(),
            files: Some(state.files.len() as u64),
            bytes: Some(state.files.iter().map(|file| file.size).sum()),
            last_commit: log.committed_at(state.version).await,
            version: i64::try_from(state.version).ok(),
            protocol: Some(log::protocol::described(&state.protocol)),
            kept_as: Some(TableLayout::of(&state.configuration).described()),
        }))
    }

    async fn past(&self, table: &TableRef, limit: usize) -> Result<Vec<Past>> {
        self.past_loads(table, limit).await.map_err(explained)
    }

    fn checks_unique_keys(&self) -> bool {
        true
    }

    fn settles_repeated_keys(&self) -> bool {
        true
    }

    async fn write_views(&self) -> Result<()> {
        maintenance::views::of_delta_tables(&self.place, &self.list(None).await?).await
    }

    async fn accepts(&self, table: &TableRef, wanted: &Layout) -> Result<()> {
        if !wanted.is_chosen() {
            return Ok(());
        }
        let held = self.log(table)?.state().await.map_err(explained)?;
        let held = held.map(|state| TableLayout::of(&state.configuration));
        TableLayout::resolve(held.as_ref(), wanted, None).map(|_| ())
    }

    async fn begin(&self, plan: LoadPlan) -> Result<Box<dyn Load>> {
        let log = self.log(&plan.table)?;
        let table = plan.table.clone();
        let load = DeltaLoad::begin(self.options.clone(), log, plan).await.map_err(explained).with_field("table", table)?;
        Ok(Box::new(load))
    }
}
