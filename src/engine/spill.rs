//! The private folder for spill files of a process, and files of record batches in it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result as PlanResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::spill_file::{SpillFile, SpillWriter};
use datafusion::physical_plan::SpillManager;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, SpillMetrics};

use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};

/// A file of record batches, written once and read once in the same order. It is removed after it was read or when this is dropped.
pub(super) struct BatchFile {
    writer: StreamWriter<Box<dyn SpillWriter>>,
    file: Arc<dyn SpillFile>,
    reader: SpillManager,
}

impl BatchFile {
    /// An empty file for batches of `schema`.
    pub(super) fn new(runtime: &Arc<RuntimeEnv>, schema: &SchemaRef, compression: Option<CompressionType>) -> PlanResult<Self> {
        let metrics = SpillMetrics::new(&ExecutionPlanMetricsSet::new(), 0);
        let reader = SpillManager::new(Arc::clone(runtime), metrics, Arc::clone(schema));
        let file = runtime.disk_manager.create_tmp_file("changes")?;
        let options = IpcWriteOptions::default().try_with_compression(compression)?;
        let writer = StreamWriter::try_new_with_options(file.open_writer()?, schema, options)?;
        Ok(Self { writer, file, reader })
    }

    /// Appends a batch.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> PlanResult<()> {
        Ok(self.writer.write(batch)?)
    }

    /// All batches, in order.
    pub(super) fn finish(mut self) -> PlanResult<SendableRecordBatchStream> {
        self.writer.finish()?;
        self.writer.into_inner()?.finish()?;
        self.reader.read_spill_as_stream(self.file, None)
    }
}

const PREFIX: &str = "daplake-spill-";
const LOCK: &str = ".lock";

/// A folder of this process alone. A locked file beside it marks it as in use; the system releases the lock when the process dies.
#[derive(Debug)]
pub(super) struct SpillFolder {
    folder: PathBuf,
    lock_path: PathBuf,
    lock: Option<File>,
}

impl SpillFolder {
    /// Creates a folder in `parent`, which is created if absent, and removes the folders of dead processes.
    ///
    /// # Errors
    /// Kind `Io` if `parent` cannot be written.
    pub(super) fn create(parent: &Path) -> Result<Self> {
        let unusable = "Cannot use the folder for temporary files";
        let hint = "set TMPDIR (on Windows: TEMP) to a folder that can be written, or choose one with --temp-dir";
        fs::create_dir_all(parent).context(Kind::Io, unusable).with_field("folder", parent.display()).hint(hint)?;
        for _ in 0..8 {
            let name = format!("{PREFIX}{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
            let lock_path = parent.join(format!("{name}{LOCK}"));
            let attempt = || -> std::io::Result<Option<File>> {
                let lock = create_lock(&lock_path)?;
                lock.lock()?;
                // Another process may have removed the file as stale before it was locked.
                Ok(lock_path.exists().then_some(lock))
            };
            let lock = attempt().context(Kind::Io, unusable).with_field("folder", parent.display()).hint(hint)?;
            if let Some(lock) = lock {
                let folder = parent.join(&name);
                let made = Self { folder: folder.clone(), lock_path, lock: Some(lock) };
                create_private(&folder).context(Kind::Io, unusable).with_field("folder", parent.display()).hint(hint)?;
                if let Some(lock) = &made.lock {
                    sweep(parent, lock);
                }
                return Ok(made);
            }
        }
        Err(Error::new(Kind::Io, unusable).with_field("folder", parent.display()).hint(hint))
    }

    /// The folder for spill files.
    pub(super) fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(&self.lock_path);
        self.lock.take();
    }
}

/// Creates a folder that other users cannot read.
fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Creates a lock file that other users cannot open, and so cannot lock.
fn create_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Opens a lock file of an earlier process of this user. The folder may be shared with others: files of other users, pipes, links and the
/// like are skipped and never waited for.
fn open_lock(path: &Path, mine: &File) -> Option<File> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    let file: File = {
        use rustix::fs::{Mode, OFlags, open};
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        open(path, flags, Mode::empty()).ok()?.into()
    };
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    let file = {
        fs::symlink_metadata(path).ok().filter(|there| there.is_file())?;
        File::open(path).ok()?
    };
    let metadata = file.metadata().ok()?;
    #[cfg(unix)]
    let is_mine = {
        use std::os::unix::fs::MetadataExt;
        metadata.uid() == mine.metadata().ok()?.uid()
    };
    #[cfg(not(unix))]
    let is_mine = mine.metadata().is_ok();
    (metadata.is_file() && is_mine).then_some(file)
}

/// Removes folders of dead processes of this user. Best effort: the next run tries again.
fn sweep(parent: &Path, mine: &File) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(base) = name.to_str().and_then(|name| name.strip_suffix(LOCK)).filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        let Some(lock) = open_lock(&entry.path(), mine) else { continue };
        match lock.try_lock() {
            Ok(()) => {
                let folder = parent.join(base);
                if !folder.exists() || fs::remove_dir_all(&folder).is_ok() {
                    let _ = fs::remove_file(entry.path());
                }
            }
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_private_and_removed_with_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let first = SpillFolder::create(parent.path()).unwrap();
        let second = SpillFolder::create(parent.path()).unwrap();
        assert_ne!(first.path(), second.path());
        assert!(first.path().is_dir(), "a folder in use is not removed");
        drop(first);
        drop(second);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn folders_of_dead_processes_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join("daplake-spill-1-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("spilled"), b"rows").unwrap();
        fs::write(parent.path().join("daplake-spill-1-dead.lock"), b"").unwrap();
        fs::write(parent.path().join("other"), b"foreign").unwrap();
        let mine = SpillFolder::create(parent.path()).unwrap();
        assert!(!dead.exists());
        drop(mine);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1, "only the foreign file stays");
    }

    #[cfg(unix)]
    #[test]
    fn folder_and_lock_are_closed_to_other_users() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let spill = SpillFolder::create(parent.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(spill.path()), mode(&spill.lock_path)), (0o700, 0o600));
    }

    /// Opening a pipe would block until another process opens the other end.
    #[cfg(unix)]
    #[test]
    fn other_kinds_of_files_are_skipped() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(path("daplake-spill-x.lock")).status().unwrap();
        assert!(made.success());
        fs::write(path("target"), b"").unwrap();
        std::os::unix::fs::symlink(path("target"), path("daplake-spill-y.lock")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("daplake-spill-z.lock")).unwrap();
        fs::create_dir(path("daplake-spill-w.lock")).unwrap();
        for name in ["w", "x", "y", "z"] {
            fs::create_dir(path(&format!("daplake-spill-{name}"))).unwrap();
        }
        drop(SpillFolder::create(parent.path()).unwrap());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 9);
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_an_io_error() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = SpillFolder::create(&file).unwrap_err();
        assert_eq!(error.kind(), Kind::Io);
        assert!(error.hint_text().unwrap().contains("--temp-dir"));
    }
}
