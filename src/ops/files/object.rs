//! One object of a job as a file: taken over from an earlier run, or downloaded, unpacked or converted on the way. It does not
//! choose folders, and publishes nothing.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::convert;
use super::manifest::ManifestFile;
use super::staging::Staging;
use crate::api::{FinishedJob, ObjectId};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::fetch::{self, ObjectUrls};
use crate::model::Format;
use crate::ops::journal::{FileNote, Pages};
use crate::progress;
use crate::schema::TableSchema;

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// The very bytes that the service stores: gzip for text formats. What the official client does.
    #[default]
    AsSent,
    /// Text formats unpacked.
    Unpacked,
    /// Text formats decoded by the table's schema and written as Parquet.
    Parquet,
}

impl Shape {
    pub(super) fn word(self) -> &'static str {
        match self {
            Shape::AsSent => "as sent",
            Shape::Unpacked => "unpacked",
            Shape::Parquet => "converted to parquet",
        }
    }

    /// The name of the file, from the name of the object.
    fn file_name(self, sent: &str, format: Format) -> String {
        let bare = sent.strip_suffix(".gz").filter(|bare| !bare.is_empty()).unwrap_or(sent);
        match self {
            Shape::AsSent => sent.to_owned(),
            Shape::Unpacked => bare.to_owned(),
            Shape::Parquet => {
                let stem = bare.strip_suffix(&format!(".{format}")).filter(|stem| !stem.is_empty()).unwrap_or(bare);
                format!("{stem}.parquet")
            }
        }
    }
}

/// What the downloads of one job share.
pub(super) struct Objects<'a> {
    pub(super) job: &'a FinishedJob,
    pub(super) urls: ObjectUrls,
    pub(super) staging: &'a Staging,
    pub(super) pages: &'a Pages,
    pub(super) shape: Shape,
    /// Of the whole run.
    pub(super) permits: &'a Semaphore,
    /// For conversion.
    pub(super) schema: Option<Arc<TableSchema>>,
}

/// An object that is a file.
pub(super) struct Brought {
    pub(super) file: ManifestFile,
    /// By an earlier run.
    pub(super) kept: bool,
}

impl Objects<'_> {
    /// Brings one object, if it is not there yet.
    pub(super) async fn bring(&self, number: usize, id: &ObjectId) -> Result<Brought> {
        let brought = self.try_bring(number, id).await.with_field("job", &self.job.id).with_field("object", &id.0)?;
        progress::part_done();
        Ok(brought)
    }

    async fn try_bring(&self, number: usize, id: &ObjectId) -> Result<Brought> {
        if let Some(note) = self.pages.file(id) {
            self.urls.claim_name(&note.name, id)?;
            if self.staging.find(&note.name).is_some_and(|path| note.is_true_of(&path)) {
                return Ok(brought(id, note, true));
            }
        }
        let _permit = self.permits.acquire().await.context(Kind::Bug, "The run is closing")?;
        let format = self.job.query.format;
        let sent = self.urls.file_name(id).await?;
        let name = self.shape.file_name(&sent, format);
        self.urls.claim_name(&name, id)?;
        let path = self.staging.hidden.join(&name);
        // A run may be killed between giving a file its name and noting that.
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
        self.pages.finished(id, note.clone());
        Ok(brought(id, note, kept))
    }

    async fn unpack(&self, id: &ObjectId, path: &Path) -> Result<()> {
        let part = Part::open(path)?;
        let failed = || format!("A file cannot be written: {}", part.path.display());
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
        let schema = self.schema.clone().ok_or_else(|| Error::new(Kind::Bug, "There is no schema to convert by"))?;
        let part = Part::open(path)?;
        let file = part.file.try_clone().context(Kind::Io, "A file cannot be opened twice")?;
        let bytes = fetch::unpacked(fetch::open(&self.urls, id), self.job.query.format);
        let source = convert::Source { query: &self.job.query, number, name: sent };
        let rows = convert::to_parquet(bytes, source, schema, file).await?;
        part.finish(path).await?;
        Ok(rows)
    }
}

fn brought(id: &ObjectId, note: FileNote, kept: bool) -> Brought {
    Brought { file: ManifestFile { name: note.name, object: id.0.clone(), bytes: note.bytes, rows: note.rows }, kept }
}

/// A file on the way; locked, so that two runs cannot write into it by turns.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn open(path: &Path) -> Result<Self> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let path = path.with_file_name(format!("{name}.part"));
        let failed = || format!("A file cannot be written: {}", path.display());
        // Emptied only when it is surely ours.
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

    /// On disk first, then the name.
    async fn finish(self, path: &Path) -> Result<()> {
        let path = path.to_owned();
        let finish = move || {
            self.file.sync_all()?;
            std::fs::rename(&self.path, &path)
        };
        let finished = tokio::task::spawn_blocking(finish).await.context(Kind::Bug, "Writing a file failed")?;
        finished.context(Kind::Io, "A file cannot be completed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_shape() {
        let name = |shape: Shape, sent: &str| shape.file_name(sent, Format::Jsonl);
        assert_eq!(name(Shape::AsSent, "part-0.jsonl.gz"), "part-0.jsonl.gz");
        assert_eq!(name(Shape::Unpacked, "part-0.jsonl.gz"), "part-0.jsonl");
        assert_eq!(name(Shape::Unpacked, "part-0"), "part-0");
        assert_eq!(name(Shape::Parquet, "part-0.jsonl.gz"), "part-0.parquet");
        assert_eq!(name(Shape::Parquet, "part-0.x.gz"), "part-0.x.parquet");
        assert_eq!(name(Shape::Unpacked, ".gz"), ".gz");
    }

    #[test]
    fn a_part_in_use_is_not_touched() {
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
