//! One object of a job as a file: reused from an earlier run, or downloaded and, if requested, decompressed or converted.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::convert;
use super::manifest::ManifestFile;
use super::shape::Shape;
use super::staging::Staging;
use crate::api::{FinishedJob, ObjectId};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::fetch::{self, ObjectUrls};
use crate::ops::journal::{FileNote, JournalEntry};
use crate::progress;
use crate::schema::TableSchema;

/// The state shared by the downloads of one job.
pub(super) struct Objects<'a> {
    pub(super) job: &'a FinishedJob,
    pub(super) urls: ObjectUrls,
    pub(super) staging: &'a Staging,
    pub(super) journal: &'a JournalEntry,
    pub(super) shape: Shape,
    /// Permits for concurrent downloads of the run.
    pub(super) permits: &'a Semaphore,
    /// The schema, for conversion.
    pub(super) schema: Option<Arc<TableSchema>>,
}

/// An object with its file.
pub(super) struct LocalObject {
    pub(super) file: ManifestFile,
    /// Whether an earlier run downloaded it.
    pub(super) kept: bool,
}

impl Objects<'_> {
    /// Downloads one object, unless its file exists.
    pub(super) async fn fetch(&self, number: usize, id: &ObjectId) -> Result<LocalObject> {
        let object = self.try_fetch(number, id).await.with_field("job", &self.job.id).with_field("object", &id.0)?;
        progress::part_done();
        Ok(object)
    }

    async fn try_fetch(&self, number: usize, id: &ObjectId) -> Result<LocalObject> {
        if let Some(note) = self.journal.file(id) {
            self.urls.claim_name(&note.name, id)?;
            if self.staging.find(&note.name).is_some_and(|path| note.matches(&path)) {
                return Ok(local_object(id, note, true));
            }
        }
        let _permit = self.permits.acquire().await.context(Kind::Bug, "The run is closing")?;
        let format = self.job.query.format;
        let sent = self.urls.file_name(id).await?;
        let name = self.shape.file_name(&sent, format);
        self.urls.claim_name(&name, id)?;
        let path = self.staging.hidden.join(&name);
        // A run may have been killed after the rename and before the journal entry.
        let kept = path.is_file();
        let mut rows = None;
        if !kept {
            match self.shape {
                Shape::AsSent => {
                    fetch::spool_as(&self.urls, id, format, &self.staging.hidden, &name).await?;
                }
                Shape::Unpacked => self.unpack(id, &path).await?,
                Shape::Parquet => rows = Some(self.convert(number, id, &sent, &path).await?),
            }
        }
        let note = FileNote::of(&path, &name, rows)?;
        self.journal.finished(id, note.clone());
        Ok(local_object(id, note, kept))
    }

    async fn unpack(&self, id: &ObjectId, path: &Path) -> Result<()> {
        let part = Part::open(path)?;
        let failed = || format!("Cannot write a file: {}", part.path.display());
        let mut file = tokio::fs::File::from_std(part.file.try_clone().context(Kind::Io, failed())?);
        let mut bytes = fetch::unpacked(fetch::open(&self.urls, id), self.job.query.format);
        while let Some(chunk) = bytes.try_next().await? {
            file.write_all(&chunk).await.context(Kind::Io, failed())?;
        }
        file.flush().await.context(Kind::Io, failed())?;
        drop(file);
        part.finish(path).await
    }

    async fn convert(&self, number: usize, id: &ObjectId, sent: &str, path: &Path) -> Result<u64> {
        let schema = self.schema.clone().ok_or_else(|| Error::new(Kind::Bug, "The schema for the conversion is missing"))?;
        let part = Part::open(path)?;
        let file = part.file.try_clone().context(Kind::Io, "Cannot open a file a second time")?;
        let bytes = fetch::unpacked(fetch::open(&self.urls, id), self.job.query.format);
        let source = convert::Source { query: &self.job.query, number, name: sent };
        let rows = convert::to_parquet(bytes, source, schema, file).await?;
        part.finish(path).await?;
        Ok(rows)
    }
}

fn local_object(id: &ObjectId, note: FileNote, kept: bool) -> LocalObject {
    LocalObject { file: ManifestFile { name: note.name, object: id.0.clone(), bytes: note.bytes, rows: note.rows }, kept }
}

/// An incomplete file, locked so that two runs do not write to it.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn open(path: &Path) -> Result<Self> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let path = path.with_file_name(format!("{name}.part"));
        let failed = || format!("Cannot write a file: {}", path.display());
        // Truncated only after it was locked.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.context(Kind::Io, failed())?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(Kind::Conflict, "Another run is downloading this file")
                    .hint("wait for it to finish, or use another folder"));
            }
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(error).context(Kind::Io, failed()),
        }
        file.set_len(0).context(Kind::Io, failed())?;
        Ok(Self { path, file })
    }

    /// Flushes the file to disk and renames it.
    async fn finish(self, path: &Path) -> Result<()> {
        let path = path.to_owned();
        let finish = move || {
            self.file.sync_all()?;
            std::fs::rename(&self.path, &path)
        };
        let finished = tokio::task::spawn_blocking(finish).await.context(Kind::Bug, "Writing a file failed")?;
        finished.context(Kind::Io, "Cannot complete a file")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_file_in_use_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut first = Part::open(&path).unwrap();
        std::io::Write::write_all(&mut first.file, b"begun").unwrap();
        assert_eq!(Part::open(&path).err().unwrap().kind(), Kind::Conflict);
        // On Windows the lock keeps readers out, too.
        let path = first.path.clone();
        drop(first);
        assert_eq!(std::fs::read(&path).unwrap(), b"begun");
        Part::open(&folder.path().join("a")).unwrap();
    }
}
