//! Replaces the folder of a table on a local disk by one with another version, as a whole.

use std::fs::File;
use std::io::{Error as IoError, ErrorKind, Result as IoResult, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parquet::arrow::ArrowWriter;

use crate::error::{Kind, Result, ResultExt};
use crate::sink::delta::log::columns::{LakeColumn, file_schema};
use crate::sink::delta::log::file_names::MANIFEST;
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

/// Creates a folder with the manifest and hard links to the files in `data`, and swaps it with `folder`.
pub(super) fn swap_folder(
    data: &Path,
    folder: &Path,
    manifest: &Manifest,
    columns: &[LakeColumn],
    key: &[String],
) -> IoResult<()> {
    let next = beside(data, "next");
    retry_while_in_use(|| remove_folder(&next))?;
    create_folder(&next)?;
    for file in &manifest.files {
        // Files of partitions are in subfolders of `data`, but not here.
        let name = Path::new(file).file_name().unwrap_or_else(|| file.as_ref());
        std::fs::hard_link(data.join(file), next.join(name))?;
    }
    if manifest.files.is_empty() {
        let file = File::create_new(next.join(EMPTY))?;
        let columns: Vec<LakeColumn> = columns.iter().filter(|column| !is_partition(column)).cloned().collect();
        let file = ArrowWriter::try_new(file, file_schema(&columns, key), None).and_then(ArrowWriter::into_inner);
        file.map_err(IoError::other)?.sync_all()?;
    }
    let mut file = File::create_new(next.join(MANIFEST))?;
    file.write_all(&serde_json::to_vec_pretty(manifest)?)?;
    file.sync_all()?;
    // On Windows, an open file prevents the rename of its folder.
    drop(file);
    sync_folder(&next);
    swap(&next, folder)?;
    for parent in [folder.parent(), next.parent()].into_iter().flatten() {
        sync_folder(parent);
    }
    // If readers have files of it open, the next swap removes it.
    if let Err(error) = remove_folder(&next) {
        tracing::debug!(folder = %next.display(), %error, "The folder of the previous version is still in use");
    }
    Ok(())
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

fn remove_folder(folder: &Path) -> IoResult<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
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
    let aside = beside(next, "old");
    retry_while_in_use(|| remove_folder(&aside))?;
    retry_while_in_use(|| std::fs::rename(folder, &aside))?;
    if let Err(error) = retry_while_in_use(|| std::fs::rename(next, folder)) {
        let _ = std::fs::rename(&aside, folder);
        return Err(error);
    }
    retry_while_in_use(|| std::fs::rename(&aside, next))
}
