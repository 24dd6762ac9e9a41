//! The local file system as an object store whose writes survive a power failure: a file gets its name only after its bytes are on disk.
//! `LocalFileSystem` itself does not sync, and a log entry without its bytes would make a table unreadable.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use parking_lot::Mutex;

/// A local store with durable writes.
#[derive(Debug)]
pub(crate) struct DurableStore {
    inner: LocalFileSystem,
    folders: Arc<Folders>,
}

/// Folders whose names this process has already made durable.
#[derive(Debug, Default)]
struct Folders(Mutex<HashSet<PathBuf>>);

impl Folders {
    /// Creates a folder and its parents, not yet durably.
    fn make(&self, folder: &FsPath) -> std::io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        // A folder that was removed and created again must be synced again.
        let gone = folder.ancestors().take_while(|folder| !folder.exists()).last().unwrap_or(folder).to_owned();
        self.0.lock().retain(|known| !known.starts_with(&gone));
        std::fs::create_dir_all(folder)
    }

    /// Makes the names of a file and of all folders above it durable.
    fn sync(&self, path: &FsPath) {
        let Some(folder) = path.parent() else { return };
        sync_folder(folder);
        for folder in folder.ancestors() {
            let mut known = self.0.lock();
            if known.contains(folder) {
                return;
            }
            if let Some(parent) = folder.parent() {
                sync_folder(parent);
            }
            known.insert(folder.to_owned());
        }
    }
}

/// Creates a folder and its parents durably.
pub(crate) fn create_folder(folder: &FsPath) -> std::io::Result<()> {
    let missing: Vec<&FsPath> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    std::fs::create_dir_all(folder)?;
    missing.into_iter().filter_map(FsPath::parent).for_each(sync_folder);
    Ok(())
}

impl std::fmt::Display for DurableStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Durable{}", self.inner)
    }
}

impl DurableStore {
    /// A store of the whole file system.
    pub(crate) fn new() -> Self {
        Self { inner: LocalFileSystem::new(), folders: Arc::default() }
    }
}

fn failed(source: std::io::Error) -> Error {
    Error::Generic { store: "DurableStore", source: Box::new(source) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(failed),
        Err(error) => Err(Error::JoinError { source: error }),
    }
}

/// Makes the names in a folder durable. Systems that cannot sync a folder do not need it.
pub(crate) fn sync_folder(folder: &FsPath) {
    // The parent of a bare file name.
    let folder = if folder.as_os_str().is_empty() { FsPath::new(".") } else { folder };
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

/// A path beside `path` whose name listings skip, like that of an unfinished upload.
fn stage(path: &FsPath, folders: &Folders) -> std::io::Result<(File, PathBuf)> {
    let mut number = 1_u32;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{number}"));
        let staged = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&staged) {
            Ok(file) => return Ok((file, staged)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let folder = path.parent().filter(|folder| !folder.exists()).ok_or(error)?;
                folders.make(folder)?;
            }
            Err(error) => return Err(error),
        }
    }
}

fn put(path: &FsPath, payload: &PutPayload, exclusive: bool, folders: &Folders) -> std::io::Result<()> {
    let (mut file, staged) = stage(path, folders)?;
    let written = payload.iter().try_for_each(|part| file.write_all(part)).and_then(|()| file.sync_all());
    drop(file);
    let named = written.and_then(|()| {
        if exclusive {
            // Fails if the name exists, which makes concurrent writers of one log entry safe.
            std::fs::hard_link(&staged, path)
        } else {
            std::fs::rename(&staged, path)
        }
    });
    if exclusive || named.is_err() {
        let _ = std::fs::remove_file(&staged);
    }
    named?;
    folders.sync(path);
    Ok(())
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let exclusive = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return self.inner.put_opts(location, payload, opts).await,
        };
        let path = self.inner.path_to_filesystem(location)?;
        let shown = path.display().to_string();
        let folders = Arc::clone(&self.folders);
        match blocking(move || put(&path, &payload, exclusive, &folders)).await {
            Ok(()) => Ok(PutResult { e_tag: None, version: None }),
            Err(Error::Generic { source, .. }) if is_taken(source.as_ref()) => {
                Err(Error::AlreadyExists { path: shown, source })
            }
            Err(error) => Err(error),
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let path = self.inner.path_to_filesystem(location)?;
        let folders = Arc::clone(&self.folders);
        let (making, folder) = (Arc::clone(&folders), path.parent().map(FsPath::to_owned));
        blocking(move || folder.map_or(Ok(()), |folder| making.make(&folder))).await?;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(DurableUpload { inner, path, folders }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

fn is_taken(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::AlreadyExists)
}

#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    path: PathBuf,
    folders: Arc<Folders>,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    /// The file is durable when this returns, and nothing refers to it before.
    async fn complete(&mut self) -> Result<PutResult> {
        let done = self.inner.complete().await?;
        let (path, folders) = (self.path.clone(), Arc::clone(&self.folders));
        blocking(move || {
            // On Windows only files that are open for writing can be synced.
            OpenOptions::new().write(true).open(&path)?.sync_all()?;
            folders.sync(&path);
            Ok(())
        })
        .await?;
        Ok(done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::{ObjectStoreExt, WriteMultipart};

    #[tokio::test]
    async fn names_of_new_folders_are_synced_up_to_one_that_was_synced_before() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableStore::new();
        let known = |path: &FsPath| store.folders.0.lock().contains(path);
        let day = folder.path().join("table").join("_day=2026-01-01");
        let path = Path::from_absolute_path(folder.path()).unwrap().join("table").join("_day=2026-01-01").join("file");
        let mut upload = WriteMultipart::new(store.put_multipart(&path).await.unwrap());
        assert!(day.is_dir() && !known(&day));
        upload.write(b"x");
        upload.finish().await.unwrap();
        assert!(known(&day) && known(day.parent().unwrap()) && known(folder.path()));
        // A folder that is removed and created again must be synced again.
        std::fs::remove_dir_all(day.parent().unwrap()).unwrap();
        let mut upload = WriteMultipart::new(store.put_multipart(&path).await.unwrap());
        assert!(!known(&day) && !known(day.parent().unwrap()) && known(folder.path()));
        upload.write(b"x");
        upload.finish().await.unwrap();
        assert!(known(&day));
    }

    #[tokio::test]
    async fn an_object_is_created_once_and_leaves_no_temporary_files() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableStore::new();
        let path = Path::from_absolute_path(folder.path()).unwrap().join("a").join("entry");
        let create = || PutOptions::from(PutMode::Create);
        store.put_opts(&path, "first".into(), create()).await.unwrap();
        let again = store.put_opts(&path, "second".into(), create()).await.unwrap_err();
        assert!(matches!(again, Error::AlreadyExists { .. }), "{again:?}");
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "first");
        store.put(&path, "third".into()).await.unwrap();
        let mut upload = WriteMultipart::new(store.put_multipart(&Path::from(format!("{path}2"))).await.unwrap());
        upload.write(b"parts");
        upload.finish().await.unwrap();
        let mut found: Vec<_> = std::fs::read_dir(folder.path().join("a"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap()))
            .collect();
        found.sort();
        assert_eq!(found, [("entry".into(), "third".into()), ("entry2".into(), "parts".into())]);
    }
}
