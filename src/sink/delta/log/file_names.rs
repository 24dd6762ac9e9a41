//! Data files that no commit names yet, and their names. Whoever writes files registers them here first; unless a commit takes
//! them over, they go when the load goes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use deltalake::ObjectStore;
use futures::StreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::model::TableRef;

const PREFIX: &str = "daplake-";
const SUFFIX: &str = ".zstd.parquet";

/// A name for a new data file.
pub(in crate::sink::delta) fn new_name() -> String {
    format!("{PREFIX}{}{SUFFIX}", uuid::Uuid::new_v4())
}

/// Whether a file may be one of ours, left by a process that was killed.
fn is_ours(name: &str) -> bool {
    let id = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    id.is_some_and(|id| uuid::Uuid::try_parse(id).is_ok())
}

/// As [`is_ours`], of a path below the table: also in the folders of partitions (`_day=2026-01-01`) and of the change data feed.
pub(in crate::sink::delta) fn is_ours_at(path: &str) -> bool {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_known =
        |folder: &str| folder.is_empty() || folder.contains('=') || folder == crate::sink::delta::merge::change_feed::FOLDER;
    folders.split('/').all(is_known) && is_ours(name)
}

/// Removes files, many with one request where the store can, and gives those that went. What could not be removed is warned of.
pub(in crate::sink::delta) async fn remove_all(store: &Arc<dyn ObjectStore>, table: &TableRef, paths: Vec<Path>) -> Vec<Path> {
    let mut results = store.delete_stream(futures::stream::iter(paths.into_iter().map(Ok)).boxed());
    let mut removed = Vec::new();
    while let Some(result) = results.next().await {
        match result {
            Ok(path) => removed.push(path),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(table = %table, error = %error, "A file could not be removed"),
        }
    }
    removed
}

/// Names of files that are to be removed unless they are committed.
#[derive(Debug, Clone, Default)]
pub(in crate::sink::delta) struct Names(Arc<Mutex<Vec<String>>>);

impl Names {
    /// Adds one, before the file is made. Gives its number in the order of all names of the load.
    pub(in crate::sink::delta) fn add(&self, name: &str) -> u32 {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.push(name.to_owned());
        (names.len() - 1) as u32
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Removes the files of a load that was not committed, at the latest when it is dropped. A process that is killed leaves them
/// behind; no reader sees them, and a vacuum removes them.
#[derive(Debug)]
pub(in crate::sink::delta) struct Uncommitted {
    names: Names,
    store: Arc<dyn ObjectStore>,
    folder: Option<PathBuf>,
}

impl Uncommitted {
    /// For a table at the root of `store`, which is `folder` if it is on the local disk.
    pub(in crate::sink::delta) fn new(store: Arc<dyn ObjectStore>, folder: Option<PathBuf>) -> Self {
        Self { names: Names::default(), store, folder }
    }

    /// Where writers register.
    pub(in crate::sink::delta) fn names(&self) -> Names {
        self.names.clone()
    }

    /// Takes the files out of our hands: from here on a commit may name them, whatever becomes of us. Gives their names, for
    /// the case that the commit certainly failed.
    pub(in crate::sink::delta) fn release(&self) -> Vec<String> {
        self.names.take()
    }

    /// Puts released files back.
    pub(in crate::sink::delta) fn reclaim(&self, names: Vec<String>) {
        names.iter().for_each(|name| _ = self.names.add(name));
    }

    /// Removes the files now.
    pub(in crate::sink::delta) async fn remove(&self) {
        for name in self.names.take() {
            // The file may never have been finished.
            if let Err(error) = self.store.delete(&Path::from(name.as_str())).await
                && !matches!(error, object_store::Error::NotFound { .. })
            {
                tracing::warn!(file = name, error = %error, "A file of an unfinished load could not be removed");
            }
            self.remove_unfinished(&name);
        }
        self.remove_empty_folders();
    }

    /// An upload in progress has a file beside the name. It goes by itself, but later than we promise.
    fn remove_unfinished(&self, name: &str) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_file(folder.join(format!("{name}#1")));
            // Folders of partitions that are empty now.
            for parent in std::path::Path::new(name).ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
                let _ = std::fs::remove_dir(folder.join(parent));
            }
        }
    }

    /// A first load makes folders; without a table they have no use. Only empty ones go.
    fn remove_empty_folders(&self) {
        if let Some(folder) = &self.folder
            && std::fs::remove_dir(folder).is_ok()
            && let Some(namespace) = folder.parent()
        {
            let _ = std::fs::remove_dir(namespace);
        }
    }
}

impl Drop for Uncommitted {
    fn drop(&mut self) {
        let names = self.names.take();
        if names.is_empty() {
            return;
        }
        match &self.folder {
            Some(folder) => {
                for name in names {
                    let _ = std::fs::remove_file(folder.join(&name));
                    self.remove_unfinished(&name);
                }
                self.remove_empty_folders();
            }
            // A drop cannot wait for a store. If the process ends before, the files stay as after a kill.
            None => {
                let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
                let store = Arc::clone(&self.store);
                runtime.spawn(async move {
                    for name in names {
                        let _ = store.delete(&Path::from(name.as_str())).await;
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_names_are_known_again() {
        assert!(is_ours(&new_name()));
        assert!(!is_ours("part-00000-9f1f4a9c-2f1b-4a52-8a2e-0a8f6f6c0b11-c000.snappy.parquet"));
        assert!(!is_ours("daplake-notes.zstd.parquet"));
        for folder in ["", "_day=2026-01-01/", "_change_data/", "_change_data/_day=2026-01-01/"] {
            assert!(is_ours_at(&format!("{folder}{}", new_name())));
            assert!(!is_ours_at(&format!("{folder}part-0.parquet")));
        }
        assert!(!is_ours_at(&format!("sub/{}", new_name())));
    }
}
