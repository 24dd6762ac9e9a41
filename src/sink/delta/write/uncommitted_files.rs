//! Files that no commit names yet. Writers register a file before they create it; files that are not committed are removed when
//! the load ends.

use std::path::PathBuf;
use std::sync::Arc;

use deltalake::ObjectStore;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parking_lot::Mutex;

/// Names of the files that a load has written. Clones share one list.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileRegistry(Arc<Mutex<Vec<String>>>);

impl FileRegistry {
    /// Registers a file before it is created. Returns its number within the load.
    pub(crate) fn add(&self, name: &str) -> u32 {
        let mut names = self.0.lock();
        names.push(name.to_owned());
        (names.len() - 1) as u32
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Removes the files of a load that was not committed, on drop at the latest. A process that is killed leaves them behind: no
/// reader sees them, and a vacuum removes them.
#[derive(Debug)]
pub(crate) struct UncommittedFiles {
    registry: FileRegistry,
    store: Arc<dyn ObjectStore>,
    folder: Option<PathBuf>,
}

impl UncommittedFiles {
    /// For the table at the root of `store`; `folder` is that root if it is on the local disk.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, folder: Option<PathBuf>) -> Self {
        Self { registry: FileRegistry::default(), store, folder }
    }

    /// The list in which writers register files.
    pub(crate) fn registry(&self) -> FileRegistry {
        self.registry.clone()
    }

    /// Gives up ownership of the files, before a commit may name them. Returns their names, for [`Self::reclaim`].
    pub(crate) fn release(&self) -> Vec<String> {
        self.registry.take()
    }

    /// Takes released files back, after a commit has failed for certain.
    pub(crate) fn reclaim(&self, names: Vec<String>) {
        names.iter().for_each(|name| _ = self.registry.add(name));
    }

    /// Removes the files now.
    pub(crate) async fn remove(&self) {
        for name in self.registry.take() {
            // The file may never have been completed.
            if let Err(error) = self.store.delete(&Path::from(name.as_str())).await
                && !matches!(error, object_store::Error::NotFound { .. })
            {
                tracing::warn!(file = name, error = %error, "Could not remove a file of an uncommitted load");
            }
            self.remove_partial_upload(&name);
        }
        self.remove_empty_folders();
    }

    /// Removes the temporary file of an upload in progress, which the store would remove later, and folders of partitions that are
    /// empty now.
    fn remove_partial_upload(&self, name: &str) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_file(folder.join(format!("{name}#1")));
            for parent in std::path::Path::new(name).ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
                let _ = std::fs::remove_dir(folder.join(parent));
            }
        }
    }

    /// Removes the folders that a first load has created, if they are empty.
    fn remove_empty_folders(&self) {
        if let Some(folder) = &self.folder
            && std::fs::remove_dir(folder).is_ok()
            && let Some(namespace) = folder.parent()
        {
            let _ = std::fs::remove_dir(namespace);
        }
    }
}

impl Drop for UncommittedFiles {
    fn drop(&mut self) {
        let names = self.registry.take();
        if names.is_empty() {
            return;
        }
        match &self.folder {
            Some(folder) => {
                for name in names {
                    let _ = std::fs::remove_file(folder.join(&name));
                    self.remove_partial_upload(&name);
                }
                self.remove_empty_folders();
            }
            // A drop cannot wait for a store. If the process ends first, the files stay as after a kill.
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
