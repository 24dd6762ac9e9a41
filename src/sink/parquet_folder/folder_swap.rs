//! Replaces the folder of a table on a local disk by one with another version, as a whole. Entries of the folder that daplake did not
//! create move to the new version; only files that the manifest of the old one names are removed.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Error as IoError, ErrorKind, Result as IoResult, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parquet::arrow::ArrowWriter;

use crate::error::{Kind, Result, ResultExt};
use crate::sink::delta::log::columns::{LakeColumn, file_schema};
use crate::sink::delta::log::file_names::{MANIFEST, is_our_file};
use crate::sink::delta::log::partition_column::is_partition;
use crate::sink::parquet_folder::manifest::Manifest;
use crate::store::{create_folder, sync_folder};

/// File of a table without rows: readers need at least one file.
pub(super) const EMPTY: &str = "empty.parquet";
/// How long a swap is repeated while a program has a file open, which prevents a rename on Windows.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Locks the table whose log and data files are in `data`, and waits while another process has the lock. The lock is released when
/// the file is closed.
pub(super) async fn lock(data: &Path) -> Result<File> {
    let path = beside(data, "lock");
    let take = move || -> IoResult<File> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.lock()?;
        Ok(file)
    };
    let taken = tokio::task::spawn_blocking(take).await.context(Kind::Bug, "Waiting for a lock stopped unexpectedly")?;
    taken.context(Kind::Target, "The folder of the table cannot be locked")
}

fn beside(data: &Path, extension: &str) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(format!(".{extension}"));
    PathBuf::from(name)
}

/// Creates a folder with the manifest and hard links to the files in `data`, and swaps it with `folder`. [`recover`] must have come
/// first. Returns the names of the entries that daplake did not create, which stay in `folder`.
pub(super) fn swap_folder(
    data: &Path,
    folder: &Path,
    manifest: &Manifest,
    columns: &[LakeColumn],
    key: &[String],
) -> IoResult<Vec<OsString>> {
    let next = beside(data, "next");
    create_folder(&next)?;
    // The manifest comes first: after a crash it shows which files can be removed.
    let mut file = File::create_new(next.join(MANIFEST))?;
    file.write_all(&serde_json::to_vec_pretty(manifest)?)?;
    file.sync_all()?;
    // On Windows, an open file prevents the rename of its folder.
    drop(file);
    for file in &manifest.files {
        // Files of partitions are in subfolders of `data`, but not here.
        std::fs::hard_link(data.join(file), next.join(file_name(file)))?;
    }
    if manifest.files.is_empty() {
        let file = File::create_new(next.join(EMPTY))?;
        let columns: Vec<LakeColumn> = columns.iter().filter(|column| !is_partition(column)).cloned().collect();
        let file = ArrowWriter::try_new(file, file_schema(&columns, key), None).and_then(ArrowWriter::into_inner);
        file.map_err(IoError::other)?.sync_all()?;
    }
    sync_folder(&next);
    let is_first = !folder.exists();
    swap(&next, folder)?;
    let mut foreign = Vec::new();
    if !is_first {
        let old = OldVersion::read(&next)?;
        old.move_foreign(folder)?;
        // If readers have files of it open, which matters on Windows, the next swap removes it.
        if let Err(error) = old.remove() {
            tracing::debug!(folder = %next.display(), %error, "The folder of the previous version is still in use");
        }
        foreign = old.foreign;
    }
    for parent in [folder.parent(), next.parent()].into_iter().flatten() {
        sync_folder(parent);
    }
    Ok(foreign)
}

/// Completes a swap that a crash has interrupted: removes folders that are left beside `data`, and moves what daplake did not create
/// back to `folder`.
pub(super) fn recover(data: &Path, folder: &Path) -> IoResult<()> {
    let (next, aside) = (beside(data, "next"), beside(data, "old"));
    if aside.is_dir() && !folder.exists() {
        retry_while_in_use(|| std::fs::rename(&aside, folder))?;
    }
    for left in [next, aside] {
        if left.is_dir() {
            let old = OldVersion::read(&left)?;
            old.move_foreign(folder)?;
            retry_while_in_use(|| old.remove())?;
        }
    }
    Ok(())
}

/// The folder of a version that is no longer shown.
struct OldVersion {
    folder: PathBuf,
    /// Names of the files that daplake created, without the manifest.
    files: Vec<OsString>,
    /// Names of all other entries, sorted.
    foreign: Vec<OsString>,
}

impl OldVersion {
    fn read(folder: &Path) -> IoResult<Self> {
        let manifest = Manifest::read(folder);
        let named: Option<HashSet<&OsStr>> =
            manifest.as_ref().map(|manifest| manifest.files.iter().map(|file| file_name(file)).collect());
        let is_ours = |name: &OsStr| match &named {
            Some(named) => named.contains(name) || (named.is_empty() && name == EMPTY),
            // A crash came before the manifest was complete.
            None => name.to_str().is_some_and(|name| name == EMPTY || is_our_file(name)),
        };
        let (mut files, mut foreign) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name();
            if name == MANIFEST {
                continue;
            }
            if is_ours(&name) { files.push(name) } else { foreign.push(name) }
        }
        foreign.sort();
        Ok(Self { folder: folder.to_owned(), files, foreign })
    }

    /// Moves the entries that daplake did not create to the folder that readers see.
    fn move_foreign(&self, shown: &Path) -> IoResult<()> {
        for name in &self.foreign {
            create_folder(shown)?;
            let free = free_name(shown, name);
            retry_while_in_use(|| std::fs::rename(self.folder.join(name), &free))?;
        }
        Ok(())
    }

    /// Removes the files of the version and its folder.
    fn remove(&self) -> IoResult<()> {
        // The manifest is removed last: until then it shows which files can be removed.
        for name in self.files.iter().map(OsString::as_os_str).chain([OsStr::new(MANIFEST)]) {
            match std::fs::remove_file(self.folder.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::remove_dir(&self.folder)
    }
}

/// `name` in `folder`, or a similar name if that exists.
fn free_name(folder: &Path, name: &OsStr) -> PathBuf {
    let mut path = folder.join(name);
    let mut number = 1;
    while std::fs::symlink_metadata(&path).is_ok() {
        let mut other = name.to_owned();
        other.push(format!(".{number}"));
        path = folder.join(other);
        number += 1;
    }
    path
}

/// The name of a data file without its partition's folder.
fn file_name(file: &str) -> &OsStr {
    Path::new(file).file_name().unwrap_or_else(|| file.as_ref())
}

/// Repeats `work` for some seconds while another program has a file open.
fn retry_while_in_use<T>(mut work: impl FnMut() -> IoResult<T>) -> IoResult<T> {
    let started = Instant::now();
    loop {
        match work() {
            Err(error) if is_in_use(&error) && started.elapsed() < MAX_WAIT => std::thread::sleep(Duration::from_millis(100)),
            other => return other,
        }
    }
}

/// Whether another program has a file open: the errors "access denied", "sharing violation" and "lock violation" of Windows.
pub(super) fn is_in_use(error: &IoError) -> bool {
    cfg!(windows) && matches!(error.raw_os_error(), Some(5 | 32 | 33))
}

/// Swaps two folders atomically where the system supports it.
fn swap(next: &Path, folder: &Path) -> IoResult<()> {
    if !folder.exists() {
        if let Some(parent) = folder.parent() {
            create_folder(parent)?;
        }
        return retry_while_in_use(|| std::fs::rename(next, folder));
    }
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, next, CWD, folder, RenameFlags::EXCHANGE) {
            Ok(()) => return Ok(()),
            // The file system does not support it.
            Err(error) if [Errno::NOSYS, Errno::INVAL, Errno::OPNOTSUPP].contains(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Two renames: for a moment readers find no folder, but never a mixture of two versions.
    let aside = next.with_extension("old");
    retry_while_in_use(|| std::fs::rename(folder, &aside))?;
    if let Err(error) = retry_while_in_use(|| std::fs::rename(next, folder)) {
        let _ = std::fs::rename(&aside, folder);
        return Err(error);
    }
    retry_while_in_use(|| std::fs::rename(&aside, next))
}
