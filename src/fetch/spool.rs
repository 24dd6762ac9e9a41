//! Keeps an object as a file: whole and checked, or not under its name at all. It does not choose which objects to keep.
//!
//! While it comes, the bytes are in `<name>.part`; `<name>.part.json` beside it says which object they belong to, which version
//! of it, and up to where they are safely on disk (length and check sum). A later process compares all of this before it goes on,
//! and begins anew when anything differs. The small file is also the lock: of two processes that want the same file, the second
//! gets kind `Conflict`.
//!
//! Files get the permissions that the process's umask gives, as with the official client: downloads are made to be shared. Staged
//! objects ([`SpoolOptions::private`]) are for this user only.

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

/// Written at once.
const WRITE_BYTES: usize = if cfg!(test) { 8 << 10 } else { 1 << 20 };
/// Made safe at once; what a killed process may have to fetch again.
const CHECKPOINT_BYTES: u64 = if cfg!(test) { 32 << 10 } else { 32 << 20 };
/// How long a lock is waited for: a download that was just dropped in this very process may still be finishing a write.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// An object that is a file now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spooled {
    /// Where.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Length of what is inside a gzip file, which was unpacked to its end to check it; `None` for Parquet.
    pub unpacked_bytes: Option<u64>,
    /// How many of `bytes` an earlier process had fetched.
    pub resumed_from: u64,
}

/// What an object may become, and for whom.
#[derive(Debug, Clone, Default)]
pub struct SpoolOptions {
    /// Of the object as it is stored, and of what it unpacks to.
    pub limits: UnpackLimits,
    /// Files that other users of the machine cannot read.
    pub private: bool,
}

/// Downloads an object into `folder` (which must exist) under the name that its URL has. Kind `Data` when that is not a plain
/// file name, when another object of the job has the same name, or when the bytes are not a whole gzip file (text formats).
///
/// The file appears under its name when it is complete, checked and on disk; a file that was there is replaced. Dropped or
/// killed earlier, it stays as `.part` and is continued by the next call.
pub async fn spool(urls: &ObjectUrls, id: &ObjectId, format: Format, folder: &Path) -> Result<Spooled> {
    let name = urls.file_name(id).await?;
    spool_as(urls, id, format, folder, &name).await
}

/// As [`spool`], under a plain file name of the caller's choice.
pub async fn spool_as(urls: &ObjectUrls, id: &ObjectId, format: Format, folder: &Path, name: &str) -> Result<Spooled> {
    spool_within(urls, id, format, folder, name, &SpoolOptions::default()).await
}

/// As [`spool_as`], with limits. Kind `Data` for an object beyond them; nothing of it stays.
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
            tracing::debug!(object = %id.0, %error, "An unfinished download is of no use; beginning anew");
            part = blocking(move || part.begin_anew()).await?;
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
            // What was fetched is of no use to anybody.
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
        return Err(Error::new(Kind::Data, "The length of the download is wrong").with_field("received", part.written));
    }
    let unpacked_bytes = part.gunzip.as_ref().map(|gunzip| gunzip.total_out());
    let path = paths.whole.clone();
    blocking(move || part.complete()).await?;
    Ok(Spooled { path, bytes: got, unpacked_bytes, resumed_from })
}

/// Runs file work beside the async threads. If the caller goes away, the work still ends tidily, and then the lock is free.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| match error.is_cancelled() {
        true => Error::new(Kind::Cancelled, "Stopped while writing a file"),
        false => Error::new(Kind::Bug, "Writing a file failed").caused_by(error),
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

/// What is written beside a part.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    object: String,
    etag: Option<String>,
    last_modified: Option<String>,
    total: Option<u64>,
    /// So many bytes are on disk, with this CRC-32.
    safe_bytes: u64,
    safe_crc: u32,
}

/// The error of an object beyond the limit, in whatever form.
pub(crate) fn too_large(max_bytes: u64) -> Error {
    Error::new(Kind::Data, "The object is larger than is allowed")
        .with_field("max_bytes", max_bytes)
        .hint("if such objects are to be expected, raise --max-object")
}

/// A `.part` that is ours alone.
struct Part {
    paths: Paths,
    id: String,
    format: Format,
    options: SpoolOptions,
    /// Locked as long as it is open.
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
            _ => part.begin_anew(),
        }
    }

    /// Goes over what an earlier process left. `false`: it is not what the note says.
    fn reread(&mut self, note: &Note) -> Result<bool> {
        let length = self.file.metadata().map_err(io_error("read", &self.paths.part))?.len();
        // Without anything that tells versions apart, an object cannot be continued by another process.
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

    fn begin_anew(mut self) -> Result<Self> {
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
                // Damaged data must not be continued.
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

    /// Sum, count, unpack.
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
        let text = serde_json::to_vec(&note).context(Kind::Bug, "A note cannot be written")?;
        let write = |file: &mut File| {
            // Not replaced by renaming, because the lock is on this very file. Torn, it is unreadable, and that means anew.
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&text)
        };
        write(&mut self.note).map_err(io_error("write", &self.paths.note))
    }

    /// Gives the file its name. The order matters: first the bytes, then the name, then the note goes.
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

    /// As far as it can be done; what stays is found out by the next process.
    fn discard(&mut self) {
        self.forget();
        let _ = self.file.set_len(0);
        let _ = std::fs::remove_file(&self.paths.part);
        let _ = std::fs::remove_file(&self.paths.note);
    }
}

/// How a file is opened that stays as it is, or begins empty.
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

/// Opens and locks a note. A note that its last owner removed in this very moment is not the one on disk: look again.
fn lock(path: &Path, private: bool) -> Result<File> {
    let begun = Instant::now();
    loop {
        let note = writable(private).open(path);
        let note = note.map_err(io_error("create", path))?;
        match note.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(Kind::Conflict, "Another run is downloading this file")
                    .hint("wait for it, or choose another folder"));
            }
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!("The file system has no locks; two runs at once in one folder would disturb each other");
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
    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Elsewhere an open file cannot be removed from under its owner.
#[cfg(not(unix))]
fn is_still_at(_file: &File, path: &Path) -> io::Result<bool> {
    path.try_exists()
}

/// Makes a rename durable, where folders can be synced.
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
            .hint("make room or choose another folder; the run then goes on where it stopped"),
        _ => Error::new(Kind::Io, format!("Cannot {verb} a file")).with_field("path", path).caused_by(error),
    }
}
