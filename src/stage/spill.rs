//! The folder for spill files of one process: private, removed at the end, and swept after processes that died. And a file of
//! record batches in it.

use std::fs::{self, File, TryLockError};
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

/// Record batches on the engine's disk, written once and read once in the same order. The file goes when it was read, or when
/// this is dropped.
pub(super) struct Spilling {
    writer: StreamWriter<Box<dyn SpillWriter>>,
    file: Arc<dyn SpillFile>,
    reader: SpillManager,
}

impl Spilling {
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
    pub(super) fn put(&mut self, batch: &RecordBatch) -> PlanResult<()> {
        Ok(self.writer.write(batch)?)
    }

    /// All batches.
    pub(super) fn finish(mut self) -> PlanResult<SendableRecordBatchStream> {
        self.writer.finish()?;
        self.writer.into_inner()?.finish()?;
        self.reader.read_spill_as_stream(self.file, None)
    }
}

const PREFIX: &str = "daplake-spill-";
const LOCK: &str = ".lock";

/// A folder that only this process uses. A lock file beside it, held as long as we live, tells others that it is in use;
/// the system releases the lock when the process dies, however it dies.
#[derive(Debug)]
pub(super) struct SpillFolder {
    folder: PathBuf,
    lock_path: PathBuf,
    lock: Option<File>,
}

impl SpillFolder {
    /// Makes a new folder in `parent` (made if absent) and removes what dead processes left there.
    pub(super) fn create(parent: &Path) -> Result<Self> {
        let unusable = "The folder for temporary files cannot be used";
        let hint = "name another one with --temp-dir";
        fs::create_dir_all(parent).or_fail(Kind::Io, unusable).with("folder", parent.display()).hint(hint)?;
        sweep(parent);
        for _ in 0..8 {
            let name = format!("{PREFIX}{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
            let lock_path = parent.join(format!("{name}{LOCK}"));
            let attempt = || -> std::io::Result<Option<File>> {
                let lock = File::create_new(&lock_path)?;
                lock.lock()?;
                // A sweep may have taken the file for a leftover between its creation and its lock.
                Ok(lock_path.exists().then_some(lock))
            };
            let lock = attempt().or_fail(Kind::Io, unusable).with("folder", parent.display()).hint(hint)?;
            if let Some(lock) = lock {
                let folder = parent.join(&name);
                let made = Self { folder: folder.clone(), lock_path, lock: Some(lock) };
                fs::create_dir(&folder).or_fail(Kind::Io, unusable).with("folder", parent.display()).hint(hint)?;
                return Ok(made);
            }
        }
        Err(Error::new(Kind::Io, unusable).with("folder", parent.display()).hint(hint))
    }

    /// Where to spill.
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

/// Removes the folders whose owners are gone. Best effort: what cannot be removed stays for the next time.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(base) = name.to_str().and_then(|name| name.strip_suffix(LOCK)).filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        let Ok(lock) = File::open(entry.path()) else { continue };
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
    fn a_folder_is_private_and_goes_with_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let first = SpillFolder::create(parent.path()).unwrap();
        let second = SpillFolder::create(parent.path()).unwrap();
        assert_ne!(first.path(), second.path());
        assert!(first.path().is_dir(), "a living owner's folder is not swept");
        drop(first);
        drop(second);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_dead_process_left_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join("daplake-spill-1-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("spilled"), b"rows").unwrap();
        fs::write(parent.path().join("daplake-spill-1-dead.lock"), b"").unwrap();
        fs::write(parent.path().join("other"), b"not ours").unwrap();
        let mine = SpillFolder::create(parent.path()).unwrap();
        assert!(!dead.exists());
        drop(mine);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1, "only the file that is not ours stays");
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
