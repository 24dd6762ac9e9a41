//! Delta tables on local disk: one folder per table, rows and bookmark in one commit. It never calls the service and applies no
//! retry of its own: a conflict goes to the caller.
//!
//! Layout `<root>/<namespace>/<table>/`. The bookmark is a `txn` action (application `daplake/<namespace>.<table>`, version in
//! XX

mod apply;
mod columns;
mod conform;
mod evolve;
mod files;
mod history;
mod keys;
mod load;
mod log;
mod optimize;
mod protocol;
mod query;
mod reader;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod vacuum;
mod vectors;
mod verify;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use url::Url;

pub use self::history::Commit;
use self::load::DeltaLoad;
use self::log::TableLog;
pub use self::optimize::{Optimized, Scope};
pub use self::query::At;
use self::store::DurableStore;
pub use self::vacuum::{LEAST_RETENTION, Vacuumed};
pub use self::verify::{Differences, DifferingKey};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::{Namespace, TableRef};
use crate::redact::SafeUrl;
use crate::sink::{Held, Load, LoadPlan, Sink, TableStatus};
use crate::stage::Engine;

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
    /// The usual: files of 128 MiB, level 3, a checkpoint every 10 commits.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            target_file_bytes: 128 << 20,
            compression_level: 3,
            checkpoint_interval: 10,
            deletion_vectors: DeletionVectors::Auto,
            compact_after: 20,
        }
    }
}

/// A folder of Delta tables.
///
/// Loads of the same table may run at once, in this process or others: the first commit wins, the other gets kind `Conflict`.
/// A load that is aborted or dropped removes its files; a killed process leaves files that no commit names and no reader sees.
#[derive(Debug, Clone)]
pub struct DeltaSink {
    location: SafeUrl,
    root: PathBuf,
    store: Arc<dyn ObjectStore>,
    options: DeltaOptions,
}

impl DeltaSink {
    /// Tables below a local folder, which need not exist yet. Reads and writes nothing.
    pub fn at_path(root: &Path, options: DeltaOptions) -> Result<Self> {
        let root = std::path::absolute(root).or_fail(Kind::Target, "The target's path cannot be used")?;
        let url = Url::from_directory_path(&root)
            .map_err(|()| Error::new(Kind::Target, "The target's path cannot be used").with("folder", root.display()))?;
        Ok(Self { location: SafeUrl::new(url), root, store: Arc::new(DurableStore::new()), options })
    }

    /// Tables below a URL. Only `file` so far; kind `Unsupported` otherwise.
    pub fn open(location: &Url, options: DeltaOptions) -> Result<Self> {
        match location.scheme() {
            "file" => {
                let path = location.to_file_path();
                let path = path.map_err(|()| Error::new(Kind::Target, "The target's address is not a local folder"))?;
                Self::at_path(&path, options)
            }
            scheme => Err(Error::new(Kind::Unsupported, "Delta tables cannot be kept there yet")
                .with("scheme", scheme)
                .hint("name a local folder")),
        }
    }

    fn log(&self, table: &TableRef) -> Result<TableLog> {
        TableLog::new(Arc::clone(&self.store), self.location.reveal(), table)
    }

    fn unusable(&self, source: impl Into<crate::error::BoxError>) -> Error {
        Error::new(Kind::Target, "The target folder cannot be used").with("folder", self.root.display()).caused_by(source)
    }

    /// Writes, reads and removes a file the way commits are made.
    async fn try_commit_way(&self) -> Result<()> {
        let store = &self.store;
        let root = object_store::path::Path::from_absolute_path(&self.root).map_err(|error| self.unusable(error))?;
        let path = root.join(format!(".daplake-check-{}", uuid::Uuid::new_v4()));
        let put = || store.put_opts(&path, "daplake".into(), PutOptions::from(PutMode::Create));
        let hint = "name a folder that you may write to, on a file system that has hard links";
        put().await.map_err(|error| self.unusable(error).hint(hint))?;
        let read = async { store.get(&path).await?.bytes().await }.await;
        let second = put().await;
        let removed = store.delete(&path).await;
        if read.map_err(|error| self.unusable(error))? != "daplake" {
            return Err(self.unusable("a file did not read as it was written"));
        }
        if !matches!(second, Err(object_store::Error::AlreadyExists { .. })) {
            return Err(self
                .unusable("a file that exists can be made again, so two runs could overwrite each other")
                .hint(hint));
        }
        removed.map_err(|error| self.unusable(error).hint(hint))
    }
}

/// The folders of `path` that do not exist, outermost first.
fn missing_folders(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = path.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
    missing.reverse();
    missing
}

/// Names of the folders in `folder`; none if it does not exist.
fn folders_in(folder: &Path) -> std::io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.path().is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    Ok(names)
}

#[async_trait]
impl Sink for DeltaSink {
    fn location(&self) -> &SafeUrl {
        &self.location
    }

    async fn check(&self) -> Result<()> {
        let made = missing_folders(&self.root);
        let usable = match std::fs::create_dir_all(&self.root) {
            Ok(()) => self.try_commit_way().await,
            Err(error) => Err(self.unusable(error).hint("name a folder that you may write to")),
        };
        // Only empty ones go, so another run's tables are safe.
        for folder in made.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
        usable
    }

    async fn held(&self, table: &TableRef) -> Result<Option<Held>> {
        Ok(self.log(table)?.state().await?.map(|state| Held { bookmark: state.bookmark }))
    }

    /// Folders without a Delta log and tables that daplake did not make are passed over.
    async fn list(&self, namespace: Option<&Namespace>) -> Result<Vec<TableRef>> {
        let namespaces = match namespace {
            Some(namespace) => vec![namespace.as_str().to_owned()],
            None => folders_in(&self.root).map_err(|error| self.unusable(error))?,
        };
        let mut tables = Vec::new();
        for namespace in namespaces {
            if !TableRef::new(namespace.as_str(), "x").is_path_safe() {
                continue;
            }
            for name in folders_in(&self.root.join(&namespace)).map_err(|error| self.unusable(error))? {
                let table = TableRef::new(namespace.as_str(), name.as_str());
                if !table.is_path_safe() || !self.root.join(&namespace).join(&name).join("_delta_log").is_dir() {
                    continue;
                }
                // A table whose log is broken is reported when it is asked for, not by hiding all the others.
                if self.log(&table)?.is_ours().await.unwrap_or(true) {
                    tables.push(table);
                }
            }
        }
        tables.sort();
        Ok(tables)
    }

    async fn status(&self, table: &TableRef) -> Result<Option<TableStatus>> {
        let log = self.log(table)?;
        let Some(state) = log.state().await? else { return Ok(None) };
        Ok(Some(TableStatus {
            table: table.clone(),
            bookmark: state.bookmark,
            rows: state.rows(),
            files: Some(state.files.len() as u64),
            bytes: Some(state.files.iter().map(|file| file.size).sum()),
            last_commit: log.committed_at(state.version).await,
            version: i64::try_from(state.version).ok(),
            protocol: Some(protocol::described(&state.protocol)),
        }))
    }

    fn checks_unique_keys(&self) -> bool {
        true
    }

    async fn begin(&self, plan: LoadPlan) -> Result<Box<dyn Load>> {
        let log = self.log(&plan.table)?;
        let table = plan.table.clone();
        let load = DeltaLoad::begin(self.options.clone(), log, plan).await.with("table", table)?;
        Ok(Box::new(load))
    }
}
