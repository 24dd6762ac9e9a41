//! Downloads an object to a file. The file gets its name only after it is complete and verified.
//!
//! Until then the bytes are in `<name>.part`. The file `<name>.part.json` beside it holds the object's id and version, and how many bytes are
//! safely on disk, with their checksum. A later process verifies all of this before it resumes the download, and starts again if anything
//! differs. `<name>.part.json` is also the lock: of two processes that download the same file, the second fails with kind `Conflict`.
//!
//! Files have the permissions of the process's umask, as with the official client, since downloads are made to be shared. Staged objects
//! ([`SpoolOptions::private`]) are readable for this user only.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::file_name::check_name;
use super::stream::{Transfer, Version};
use super::{Gunzip, ObjectUrls, UnpackLimits};
use crate::api::ObjectId;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::Format;

/// Bytes per write.
const WRITE_BYTES: usize = if cfg!(test) { 8 << 10 } else { 1 << 20 };
/// Bytes per checkpoint: what may have to be downloaded again after a crash.
const CHECKPOINT_BYTES: u64 = if cfg!(test) { 32 << 10 } else { 32 << 20 };
/// How long to wait for a lock. A download in this process that was just dropped may still be finishing a write.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// An object that was downloaded to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spooled {
    /// The path of the file.
    pub path: PathBuf,
    /// The length of the file in bytes.
    pub bytes: u64,
    /// The length of the decompressed content in bytes, which was decompressed completely to verify it; `None` for Parquet.
    pub unpacked_bytes: Option<u64>,
    /// How many of `bytes` an earlier process had downloaded.
    pub resumed_from: u64,
}

/// Limits and permissions of downloads.
#[derive(Debug, Clone, Default)]
pub struct SpoolOptions {
    /// Limits for the stored object and for its decompressed content.
    pub limits: UnpackLimits,
    /// Whether other users of the machine cannot read the files.
    pub private: bool,
}

/// Downloads an object into the existing folder `folder`, under the file name in its URL. Fails with kind `Data` if that is not a plain file
/// name, if another object of the job has the same name, or if the bytes are not a complete gzip file (text formats).
///
/// The file appears under its name when it is complete, verified and on disk, and replaces an existing one. If the download is interrupted,
/// the next call resumes it.
pub async fn spool(urls: &ObjectUrls, id: &ObjectId, format: Format, folder: &Path) -> Result<Spooled> {
    let name = urls.file_name(id).await?;
    spool_as(urls, id, format, folder, &name).await
}

/// Like [`spool`], but under the plain file name `name`.
pub async fn spool_as(urls: &ObjectUrls, id: &ObjectId, format: Format, folder: &Path, name: &str) -> Result<Spooled> {
    spool_within(urls, id, format, folder, name, &SpoolOptions::default()).await
}

/// Like [`spool_as`], with limits. Fails with kind `Data` if an object exceeds them, and removes its file.
pub async fn spool_within(
    urls: &ObjectUrls,
    id: &ObjectId,
    format: Format,
    folder: &Path,
    name: &str,
    options: &SpoolOptions,
) -> Result<Spooled> {
    check_name(name).map_err(|error| error.with_field("object", &id.0))?;
    urls.claim_name(name, id)?;
    let paths = Paths::new(folder, name);
    let result = keep(urls, id, format, &paths, options).await;
    result.with_field("object", &id.0).with_field("job", urls.job()).with_field("file", paths.whole.display())
}

async fn keep(urls: &ObjectUrls, id: &ObjectId, format: Format, paths: &Paths, options: &SpoolOptions) -> Result<Spooled> {
    let (id_text, paths_there, options_there) = (id.0.clone(), paths.clone(), options.clone());
    let max_bytes = options.limits.max_bytes;
    let mut part = blocking(move || Part::open(paths_there, id_text, format, options_there)).await?;
    let mut resumed_from = part.written;
    let mut transfer = match part.version.clone() {
        Some(version) if part.written > 0 => Transfer::resumed(urls, id, version, part.written, part.crc.clone()),
        _ => Transfer::new(urls, id),
    };
    match transfer.connect().await {
        Err(error) if error.kind() == Kind::Data && resumed_from > 0 => {
            tracing::debug!(object = %id.0, %error, "An unfinished download cannot be resumed; starting again");
            part = blocking(move || part.restart()).await?;
            resumed_from = 0;
            transfer = Transfer::new(urls, id);
            transfer.connect().await?;
        }
        Err(error) => {
            if part.written == 0 || error.kind() == Kind::Expired {
                blocking(move || part.discarded()).await?;
            }
            return Err(error);
        }
        Ok(()) => {}
    }
    let version = transfer.version().clone();
    if let Some(total) = version.total.filter(|total| *total > max_bytes) {
        blocking(move || part.discarded()).await?;
        return Err(too_large(max_bytes).with_field("bytes", total));
    }
    part = blocking(move || part.belongs_to(version)).await?;
    loop {
        let mut chunks = Vec::new();
        let (mut gathered, mut next) = (0, Ok(None));
        while gathered < WRITE_BYTES {
            next = transfer.next().await;
            let Ok(Some(chunk)) = &next else { break };
            gathered += chunk.len();
            chunks.push(chunk.clone());
        }
        if let Err(error) = next {
            if !matches!(error.kind(), Kind::Data | Kind::Expired) {
                blocking(move || part.append(&chunks)?.checkpoint()).await?;
                return Err(error);
            }
            // The downloaded bytes cannot be used.
            blocking(move || part.discarded()).await?;
            return Err(error);
        }
        let has_ended = matches!(next, Ok(None));
        part = blocking(move || part.append(&chunks)).await?;
        if has_ended {
            break;
        }
    }
    let (expected, got) = (transfer.version().total, transfer.at());
    if expected.is_some_and(|expected| expected != got) || got != part.written {
        return Err(Error::new(Kind::Data, "The length of the download differs from the announced length")
            .with_field("received", part.written));
    }
    let unpacked_bytes = part.gunzip.as_ref().map(|gunzip| gunzip.total_out());
    let path = paths.whole.clone();
    blocking(move || part.complete()).await?;
    Ok(Spooled { path, bytes: got, unpacked_bytes, resumed_from })
}

/// Runs file I/O on a blocking thread. If the caller is dropped, the work still completes and releases the lock.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        if error.is_cancelled() {
            Error::new(Kind::Cancelled, "Cancelled while a file was written")
        } else {
            Error::new(Kind::Bug, "Writing a file failed").caused_by(error)
        }
    })?
}

#[derive(Debug, Clone)]
struct Paths {
    whole: PathBuf,
    part: PathBuf,
    note: PathBuf,
}

impl Paths {
    fn new(folder: &Path, name: &str) -> Self {
        let whole = folder.join(name);
        let part = folder.join(format!("{name}.part"));
        let note = folder.join(format!("{name}.part.json"));
        Self { whole, part, note }
    }
}

/// The content of `<name>.part.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    object: String,
    etag: Option<String>,
    last_modified: Option<String>,
    total: Option<u64>,
    /// The number of bytes on disk, and their CRC-32 below.
    safe_bytes: u64,
    safe_crc: u32,
}

/// The error of an object that exceeds the limit, stored or decompressed.
pub(crate) fn too_large(max_bytes: u64) -> Error {
    Error::new(Kind::Data, "The object exceeds the size limit")
        .with_field("max_bytes", max_bytes)
        .hint("if the object is legitimate, raise --max-object")
}

/// A locked `.part` file.
struct Part {
    paths: Paths,
    id: String,
    format: Format,
    options: SpoolOptions,
    /// Locked while it is open.
    note: File,
    file: File,
    version: Option<Version>,
    written: u64,
    crc: crc32fast::Hasher,
    checkpoint_at: u64,
    gunzip: Option<Box<Gunzip>>,
    scratch: Vec<u8>,
}

impl Part {
    fn open(paths: Paths, id: String, format: Format, options: SpoolOptions) -> Result<Self> {
        let mut note = lock(&paths.note, options.private)?;
        let mut text = Vec::new();
        note.read_to_end(&mut text).map_err(io_error("read", &paths.note))?;
        let known = serde_json::from_slice::<Note>(&text).ok().filter(|note| note.object == id);
        let file = writable(options.private).open(&paths.part);
        let file = file.map_err(io_error("open", &paths.part))?;
        let mut part = Self {
            paths,
            id,
            format,
            options,
            note,
            file,
            version: None,
            written: 0,
            crc: crc32fast::Hasher::new(),
            checkpoint_at: 0,
            gunzip: None,
            scratch: Vec::new(),
        };
        part.forget();
        match known {
            Some(note) if part.reread(&note)? => Ok(part),
            _ => part.restart(),
        }
    }

    /// Verifies the bytes of an earlier process. Returns `false` if they do not match the note.
    fn reread(&mut self, note: &Note) -> Result<bool> {
        let length = self.file.metadata().map_err(io_error("read", &self.paths.part))?.len();
        // Without an ETag or a modification time, another version of the object could not be detected.
        let is_known = note.etag.is_some() || note.last_modified.is_some();
        if note.safe_bytes == 0
            || length < note.safe_bytes
            || !is_known
            || note.total.is_some_and(|total| total < note.safe_bytes)
        {
            return Ok(false);
        }
        self.file.set_len(note.safe_bytes).map_err(io_error("write", &self.paths.part))?;
        self.file.seek(SeekFrom::Start(0)).map_err(io_error("read", &self.paths.part))?;
        let mut buffer = vec![0; WRITE_BYTES];
        loop {
            let read = match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(io_error("read", &self.paths.part)(error)),
            };
            if self.look_at(&buffer[..read]).is_err() {
                return Ok(false);
            }
        }
        self.checkpoint_at = self.written;
        self.version = Some(Version { etag: note.etag.clone(), modified: note.last_modified.clone(), total: note.total });
        Ok(self.written == note.safe_bytes && self.crc.clone().finalize() == note.safe_crc)
    }

    fn restart(mut self) -> Result<Self> {
        self.forget();
        self.file.set_len(0).map_err(io_error("write", &self.paths.part))?;
        self.file.seek(SeekFrom::Start(0)).map_err(io_error("write", &self.paths.part))?;
        Ok(self)
    }

    fn forget(&mut self) {
        self.version = None;
        (self.written, self.checkpoint_at) = (0, 0);
        self.crc = crc32fast::Hasher::new();
        self.gunzip = self.format.is_gzip().then(|| Box::new(Gunzip::new(self.options.limits.clone())));
    }

    fn belongs_to(mut self, version: Version) -> Result<Self> {
        self.version = Some(version);
        self.write_note()?;
        Ok(self)
    }

    fn append(mut self, chunks: &[Bytes]) -> Result<Self> {
        for chunk in chunks {
            if let Err(error) = self.look_at(chunk) {
                // Damaged data must not be resumed.
                self.discard();
                return Err(error);
            }
            self.file.write_all(chunk).map_err(io_error("write", &self.paths.part))?;
        }
        if self.written - self.checkpoint_at >= CHECKPOINT_BYTES {
            return self.checkpoint();
        }
        Ok(self)
    }

    /// Updates checksum and length, and verifies the content.
    fn look_at(&mut self, bytes: &[u8]) -> Result<()> {
        self.crc.update(bytes);
        self.written += bytes.len() as u64;
        let max_bytes = self.options.limits.max_bytes;
        if self.written > max_bytes {
            return Err(too_large(max_bytes).with_field("bytes", self.written));
        }
        let Some(gunzip) = &mut self.gunzip else { return Ok(()) };
        if self.scratch.capacity() == 0 {
            self.scratch.reserve_exact(256 << 10);
        }
        let mut rest = bytes;
        loop {
            self.scratch.clear();
            let step = gunzip.step(rest, &mut self.scratch)?;
            rest = &rest[step.consumed..];
            if rest.is_empty() && !step.is_full {
                return Ok(());
            }
        }
    }

    fn checkpoint(mut self) -> Result<Self> {
        if self.written > self.checkpoint_at {
            self.file.sync_data().map_err(io_error("write", &self.paths.part))?;
            self.checkpoint_at = self.written;
            self.write_note()?;
        }
        Ok(self)
    }

    fn write_note(&mut self) -> Result<()> {
        let version = self.version.clone().unwrap_or_default();
        let note = Note {
            object: self.id.clone(),
            etag: version.etag,
            last_modified: version.modified,
            total: version.total,
            safe_bytes: self.checkpoint_at,
            safe_crc: if self.checkpoint_at == self.written { self.crc.clone().finalize() } else { 0 },
        };
        let text = serde_json::to_vec(&note).context(Kind::Bug, "The state of a download cannot be serialised")?;
        let write = |file: &mut File| {
            // Written in place, since the lock is on this file. A torn write makes it unreadable, and the download starts again.
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&text)
        };
        write(&mut self.note).map_err(io_error("write", &self.paths.note))
    }

    /// Gives the file its name. The order matters: sync the bytes, rename the file, remove the note.
    fn complete(mut self) -> Result<()> {
        if let Some(gunzip) = &self.gunzip
            && let Err(error) = gunzip.finish()
        {
            self.discard();
            return Err(error);
        }
        self.file.sync_all().map_err(io_error("write", &self.paths.part))?;
        std::fs::rename(&self.paths.part, &self.paths.whole).map_err(io_error("rename", &self.paths.part))?;
        sync_folder(&self.paths.whole)?;
        std::fs::remove_file(&self.paths.note).map_err(io_error("remove", &self.paths.note))
    }

    fn discarded(mut self) -> Result<()> {
        self.discard();
        Ok(())
    }

    /// Removes the files as far as possible. The next process detects what is left.
    fn discard(&mut self) {
        self.forget();
        let _ = self.file.set_len(0);
        let _ = std::fs::remove_file(&self.paths.part);
        let _ = std::fs::remove_file(&self.paths.note);
    }
}

/// Options that open an existing file without truncating it, or create an empty one.
fn writable(private: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    if private {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    #[cfg(not(unix))]
    let _ = private;
    options
}

/// Opens and locks a note. If its last owner removed it in the meantime, the opened file is no longer the one on disk, and is opened again.
fn lock(path: &Path, private: bool) -> Result<File> {
    let begun = Instant::now();
    loop {
        let note = writable(private).open(path);
        let note = note.map_err(io_error("create", path))?;
        match note.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(Kind::Conflict, "Another run is downloading this file")
                    .hint("wait for it to finish, or use another folder"));
            }
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(
                    "The file system does not support locks; do not run two downloads into one folder at the same time"
                );
            }
            Err(TryLockError::Error(error)) => return Err(io_error("lock", path)(error)),
        }
        if is_still_at(&note, path).map_err(io_error("read", path))? {
            return Ok(note);
        }
    }
}

#[cfg(unix)]
fn is_still_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let opened = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(on_disk) => Ok((opened.dev(), opened.ino()) == (on_disk.dev(), on_disk.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// On other systems an open file cannot be removed.
#[cfg(not(unix))]
fn is_still_at(_file: &File, path: &Path) -> io::Result<bool> {
    path.try_exists()
}

/// Makes a rename durable on systems that can sync folders.
fn sync_folder(file: &Path) -> Result<()> {
    #[cfg(unix)]
    if let Some(folder) = file.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("write", folder))?;
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

fn io_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::new(Kind::Resources, "The disk is full")
            .with_field("path", path)
            .caused_by(error)
            .hint("free some space or use another folder; the next run resumes the download"),
        _ => Error::new(Kind::Io, format!("Cannot {verb} a file")).with_field("path", path).caused_by(error),
    }
}
