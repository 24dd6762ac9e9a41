//! The journal: the job and the finished files of each query, so that the next run can resume them. Deleting it costs time, never data.
//!
//! Downloads have one file per query (account, table, window, format, folder), `sync` one per table and target. A file consists of JSON lines
//! and is only appended to, so only its last line can be torn; a torn line is skipped. The file is locked while its query runs: of two runs of
//! the same query the second waits, and then finds the result. It contains no secrets, tokens or URLs.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::api::{Job, ObjectId};
use crate::error::{Kind, Result, ResultExt};
use crate::model::{TableRef, Timestamp, Window};

/// Jobs expire after 24 hours; older ones cannot be resumed.
const MAX_AGE: Duration = Duration::from_secs(48 * 3600);

const SUFFIX: &str = "journal";
const RETRY_LOCK: Duration = Duration::from_millis(200);

/// The journals of one account.
#[derive(Debug, Clone)]
pub struct Journal {
    folder: PathBuf,
    account: String,
}

impl Journal {
    /// Journals in `folder`, which is created when needed. `account` identifies the account, such as base URL and client id; only its hash is
    /// stored.
    pub fn new(folder: impl Into<PathBuf>, account: &str) -> Self {
        Self { folder: folder.into(), account: format!("{:016x}", fnv(account.as_bytes())) }
    }

    /// The folder.
    #[cfg(feature = "lake")]
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The first line and the path of the entry of one query.
    fn location(&self, table: &TableRef, query: &str) -> Result<(String, PathBuf)> {
        let header = serde_json::to_string(&Line::Query { journal: 1, account: self.account.clone(), query: query.to_owned() })
            .context(Kind::Bug, "Cannot serialise a line of the journal")?;
        let name = match table.is_path_safe() {
            true => table.to_string(),
            false => "table".to_owned(),
        };
        let path = self.folder.join(format!("{name}.{:016x}.{SUFFIX}", fnv(header.as_bytes())));
        Ok((header, path))
    }

    /// When a query was last finished, microseconds since the epoch; does not wait for a run that uses the entry. `None`: never, or a job is
    /// unfinished.
    #[cfg(feature = "lake")]
    pub(super) fn last_done(&self, table: &TableRef, query: &str) -> Option<i64> {
        let (header, path) = self.location(table, query).ok()?;
        let text = fs::read_to_string(path).ok()?;
        let mut lines = text.lines();
        lines.next().filter(|line| *line == header)?;
        lines.filter_map(|line| serde_json::from_str(line).ok()).fold(None, |last, line| match line {
            Line::Done { done, at } => at.filter(|_| done),
            Line::Job { .. } => None,
            Line::File { .. } | Line::Query { .. } | Line::Unusable { .. } => last,
        })
    }

    /// The entry of one query, as soon as no other run uses it. `query` contains everything that affects the result.
    pub(super) async fn open(&self, table: &TableRef, query: &str) -> Result<JournalEntry> {
        let (header, path) = self.location(table, query)?;
        let mut has_waited = false;
        loop {
            let (folder, path, header) = (self.folder.clone(), path.clone(), header.clone());
            let opened = tokio::task::spawn_blocking(move || JournalEntry::open(&folder, &path, header)).await;
            if let Some(entry) = opened.context(Kind::Bug, "Reading the journal failed")?? {
                return Ok(entry);
            }
            if !std::mem::replace(&mut has_waited, true) {
                tracing::warn!(table = %table, "Another run is working on this table; waiting for it");
            }
            tokio::time::sleep(RETRY_LOCK).await;
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Query {
        journal: u32,
        account: String,
        query: String,
    },
    Job {
        job: String,
        /// The query, if the entry is used for different queries.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<String>,
        /// When it expires, microseconds since the epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<i64>,
        /// When it was first recorded, by the service's clock, microseconds since the epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        noted: Option<i64>,
    },
    Unusable {
        /// Id of a job whose result could not be used.
        unusable: String,
        /// Number of runs in which that happened.
        runs: u32,
    },
    File {
        object: ObjectId,
        name: String,
        bytes: u64,
        modified: u64,
        rows: Option<u64>,
    },
    Done {
        done: bool,
        /// When, microseconds since the epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<i64>,
    },
}

/// The newest job of one query, as a journal records it.
#[cfg(feature = "lake")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordedJob {
    /// The key of the query.
    pub(super) query: String,
    pub(super) id: String,
    /// When the service got the query.
    pub(super) noted: Option<Timestamp>,
    pub(super) expires: Option<Timestamp>,
    pub(super) is_done: bool,
}

/// The key of a table of a target in the journal of `sync`.
#[cfg(feature = "lake")]
pub(super) fn sync_key(table: &TableRef, location: &str) -> String {
    format!("sync {table} at {location}")
}

/// The newest job of each query in a folder of journals, of all accounts. Files and lines that cannot be read are skipped; no lock is taken.
#[cfg(feature = "lake")]
pub(super) fn recorded_jobs(folder: &Path) -> Vec<RecordedJob> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let journals = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ending| ending == SUFFIX));
    journals.filter_map(|path| recorded_job(&fs::read_to_string(path).ok()?)).collect()
}

#[cfg(feature = "lake")]
fn recorded_job(text: &str) -> Option<RecordedJob> {
    let mut lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    let Some(Line::Query { query, .. }) = lines.next() else { return None };
    let mut newest = None;
    for line in lines {
        match line {
            Line::Job { job, expires, noted, .. } => {
                let (noted, expires) = (noted.map(Timestamp::from_micros), expires.map(Timestamp::from_micros));
                newest = Some(RecordedJob { query: query.clone(), id: job, noted, expires, is_done: false });
            }
            Line::Done { done, .. } => {
                if let Some(job) = &mut newest {
                    job.is_done = done;
                }
            }
            Line::Query { .. } | Line::Unusable { .. } | Line::File { .. } => {}
        }
    }
    newest
}

/// A complete file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileNote {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Microseconds since the epoch.
    pub(super) modified: u64,
    pub(super) rows: Option<u64>,
}

impl FileNote {
    /// Describes a file that was just finished.
    pub(super) fn of(path: &Path, name: &str, rows: Option<u64>) -> Result<Self> {
        let metadata = fs::metadata(path).context(Kind::Io, format!("Cannot read a file: {}", path.display()))?;
        Ok(Self { name: name.to_owned(), bytes: metadata.len(), modified: modified(&metadata), rows })
    }

    /// Whether the file is unchanged.
    pub(super) fn matches(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == self.bytes && modified(&found) == self.modified)
    }
}

fn modified(metadata: &fs::Metadata) -> u64 {
    let since = metadata.modified().ok().and_then(|time: SystemTime| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_micros() as u64)
}

/// A job of an earlier run.
#[cfg(feature = "lake")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StoredJob {
    pub(super) id: String,
    /// When it was first recorded, by the service's clock.
    pub(super) noted: Option<Timestamp>,
}

/// The journal of one query, locked until the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct JournalEntry(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// `None`: in memory only.
    file: Option<File>,
    path: PathBuf,
    header: String,
    job: Option<String>,
    of: Option<String>,
    expires: Option<i64>,
    noted: Option<i64>,
    /// The last job whose result could not be used, and the number of runs.
    unusable: Option<(String, u32)>,
    files: HashMap<ObjectId, FileNote>,
    is_done: bool,
}

impl JournalEntry {
    /// An entry that is not stored.
    pub(super) fn in_memory() -> Self {
        Self(Arc::new(Mutex::new(Inner::new(None, PathBuf::new(), String::new()))))
    }

    /// `None`: another run has locked the entry.
    fn open(folder: &Path, path: &Path, header: String) -> Result<Option<Self>> {
        let failed = || format!("Cannot use the journal: {}", path.display());
        make_private(folder).context(Kind::Io, failed())?;
        let file = append_options().open(path).context(Kind::Io, failed())?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(error).context(Kind::Io, failed()),
        }
        sweep(folder, path);
        let mut inner = Inner::new(Some(file), path.to_owned(), header);
        inner.read().context(Kind::Io, failed())?;
        Ok(Some(Self(Arc::new(Mutex::new(inner)))))
    }

    /// The job to resume.
    pub(super) fn unfinished_job(&self) -> Option<String> {
        self.with(|inner| inner.job.clone().filter(|_| !inner.is_done))
    }

    /// As [`JournalEntry::unfinished_job`], if it belongs to `query` and has not expired.
    #[cfg(feature = "lake")]
    pub(super) fn unfinished_job_of(&self, query_key: &str, now: Timestamp) -> Option<StoredJob> {
        let (lives, noted) = self.with(|inner| {
            let is_same = inner.of.as_deref() == Some(query_key);
            (is_same && inner.expires.is_none_or(|expires| expires > now.micros()), inner.noted)
        });
        let id = self.unfinished_job().filter(|_| lives)?;
        Some(StoredJob { id, noted: noted.map(Timestamp::from_micros) })
    }

    /// Forgets a job whose result could not be used, except its id.
    #[cfg(feature = "lake")]
    pub(super) fn unusable(&self, id: Option<&str>) {
        self.with(|inner| {
            if let Some(id) = id.map(str::to_owned).or_else(|| inner.job.clone()) {
                let runs = inner.unusable.as_ref().filter(|(known, _)| *known == id).map_or(0, |(_, runs)| *runs);
                inner.unusable = Some((id, runs.saturating_add(1)));
            }
            inner.restart();
        });
    }

    /// Number of runs in which the result of a job could not be used.
    #[cfg(feature = "lake")]
    pub(super) fn failures_of(&self, id: &str) -> u32 {
        self.with(|inner| inner.unusable.as_ref().filter(|(known, _)| known == id).map_or(0, |(_, runs)| *runs))
    }

    /// Records the job of the query. The files of another job are removed from the journal.
    pub(super) fn job(&self, job: &Job) {
        self.note_job(&job.id, None, job.expires_at.map(Timestamp::micros), None);
    }

    /// As [`JournalEntry::job`], with the query and the time by the service's clock.
    #[cfg(feature = "lake")]
    pub(super) fn job_of(&self, job: &Job, query_key: &str, now: Timestamp) {
        self.note_job(&job.id, Some(query_key), job.expires_at.map(Timestamp::micros), Some(now.micros()));
    }

    fn note_job(&self, id: &str, query_key: Option<&str>, expires: Option<i64>, noted: Option<i64>) {
        self.with(|inner| {
            if inner.job.as_deref() == Some(id) && inner.of.as_deref() == query_key {
                if inner.is_done {
                    inner.is_done = false;
                    inner.append(&Line::Done { done: false, at: None });
                }
            } else {
                inner.restart();
                let of = query_key.map(str::to_owned);
                (inner.job, inner.of, inner.expires, inner.noted) = (Some(id.to_owned()), of.clone(), expires, noted);
                inner.append(&Line::Job { job: id.to_owned(), of, expires, noted });
            }
        });
    }

    /// The recorded file of an object.
    pub(super) fn file(&self, object: &ObjectId) -> Option<FileNote> {
        self.with(|inner| inner.files.get(object).cloned())
    }

    /// Records the complete file of an object.
    pub(super) fn finished(&self, object: &ObjectId, note: FileNote) {
        self.with(|inner| {
            let FileNote { name, bytes, modified, rows } = note.clone();
            inner.files.insert(object.clone(), note);
            inner.append(&Line::File { object: object.clone(), name, bytes, modified, rows });
        });
    }

    /// Records that the query is finished.
    pub(super) fn done(&self) {
        self.with(|inner| {
            inner.is_done = true;
            inner.append(&Line::Done { done: true, at: Some(Timestamp::now().micros()) });
        });
    }

    /// Forgets the job.
    pub(super) fn forget(&self) {
        self.with(Inner::restart);
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.0.lock())
    }
}

impl Inner {
    fn new(file: Option<File>, path: PathBuf, header: String) -> Self {
        Self {
            file,
            path,
            header,
            job: None,
            of: None,
            expires: None,
            noted: None,
            unusable: None,
            files: HashMap::new(),
            is_done: false,
        }
    }

    /// Reads all complete lines; the first must be the header.
    fn read(&mut self) -> io::Result<()> {
        let Some(mut file) = self.file.as_ref() else { return Ok(()) };
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        if lines.next() != Some(&self.header) {
            self.restart();
            return Ok(());
        }
        for line in lines {
            match serde_json::from_str(line) {
                Ok(Line::Job { job, of, expires, noted }) => {
                    (self.job, self.of, self.expires, self.is_done) = (Some(job), of, expires, false);
                    self.noted = noted;
                }
                Ok(Line::Unusable { unusable, runs }) => self.unusable = Some((unusable, runs)),
                Ok(Line::File { object, name, bytes, modified, rows }) => {
                    self.files.insert(object, FileNote { name, bytes, modified, rows });
                }
                Ok(Line::Done { done, .. }) => self.is_done = done,
                Ok(Line::Query { .. }) | Err(_) => {}
            }
        }
        if !bytes.ends_with(b"\n") {
            // A torn last line must not be joined with the next one.
            self.write(b"\n");
        }
        Ok(())
    }

    fn restart(&mut self) {
        (self.job, self.of, self.expires, self.is_done) = (None, None, None, false);
        self.noted = None;
        self.files.clear();
        if let Some(file) = &self.file
            && let Err(error) = truncate(file)
        {
            return self.give_up(&error);
        }
        let header = format!("{}\n", self.header);
        self.write(header.as_bytes());
        if let Some((unusable, runs)) = self.unusable.clone() {
            self.append(&Line::Unusable { unusable, runs });
        }
    }

    fn append(&mut self, line: &Line) {
        if let Ok(mut text) = serde_json::to_vec(line) {
            text.push(b'\n');
            self.write(&text);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(mut file) = self.file.as_ref()
            && let Err(error) = file.write_all(bytes)
        {
            self.give_up(&error);
        }
    }

    /// Continues without a journal.
    fn give_up(&mut self, error: &io::Error) {
        tracing::warn!(journal = %self.path.display(), %error, "Cannot write the journal; the next run cannot resume this one");
        if let Some(file) = self.file.take() {
            let _ = truncate(&file);
        }
    }
}

/// Options for a file that is appended to and sometimes truncated. Windows cannot truncate a file that was opened for appending; there, the
/// owner of the lock seeks to the end before each write.
pub(super) fn append_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).create(true);
    if cfg!(windows) {
        options.write(true).truncate(false)
    } else {
        options.append(true)
    };
    options
}

/// Empties a file and goes to its start.
pub(super) fn truncate(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()
}

pub(super) fn is_old(time: SystemTime) -> bool {
    time.elapsed().is_ok_and(|age| age > MAX_AGE)
}

/// A time window, as part of the key of a query.
pub(super) fn window_text(window: Window) -> String {
    match window {
        Window::Snapshot => "snapshot".to_owned(),
        Window::Increment { since, until } => {
            format!("since {since} until {}", until.map_or("newest".to_owned(), |until| until.to_string()))
        }
    }
}

pub(crate) fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Removes journals of expired jobs.
fn sweep(folder: &Path, ours: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_journal = path.extension().is_some_and(|extension| extension == SUFFIX);
        let is_stale = entry.metadata().and_then(|metadata| metadata.modified()).is_ok_and(is_old);
        if is_journal && is_stale && path != ours && File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// FNV-1a, which is stable across runs and versions, for file names.
pub(super) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &str) -> FileNote {
        FileNote { name: name.into(), bytes: 5, modified: 7, rows: None }
    }

    fn users() -> TableRef {
        TableRef::new("canvas", "users")
    }

    fn path(folder: &Path) -> PathBuf {
        fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
    }

    #[tokio::test]
    async fn the_next_run_reads_the_entry() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path(), "account");
        let entry = journal.open(&users(), "q").await.unwrap();
        assert_eq!(entry.unfinished_job(), None);
        entry.note_job("j1", None, None, None);
        entry.finished(&ObjectId("o1".into()), note("a"));
        drop(entry);

        let entry = journal.open(&users(), "q").await.unwrap();
        assert_eq!(entry.unfinished_job().as_deref(), Some("j1"));
        assert_eq!(entry.file(&ObjectId("o1".into())), Some(note("a")));
        entry.done();
        drop(entry);

        let entry = journal.open(&users(), "q").await.unwrap();
        assert_eq!(entry.unfinished_job(), None, "a finished query is not resumed");
        entry.note_job("j1", None, None, None);
        assert_eq!(entry.file(&ObjectId("o1".into())), Some(note("a")), "and if the same job answers, its files count");
        assert_eq!(entry.unfinished_job().as_deref(), Some("j1"));
        entry.note_job("j2", None, None, None);
        assert_eq!(entry.file(&ObjectId("o1".into())), None);
        drop(entry);

        let other = Journal::new(folder.path(), "another account").open(&users(), "q").await.unwrap();
        assert_eq!(other.unfinished_job(), None);
        drop(other);
        let text = fs::read_to_string(path(folder.path())).unwrap();
        assert!(!text.contains("another account"));
    }

    #[tokio::test]
    async fn a_job_that_cannot_be_used_is_known_by_name_only() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path(), "account");
        let entry = journal.open(&users(), "q").await.unwrap();
        entry.note_job("j1", Some("increment"), None, Some(7));
        assert_eq!(entry.failures_of("j1"), 0);
        entry.unusable(None);
        drop(entry);
        let entry = journal.open(&users(), "q").await.unwrap();
        assert_eq!((entry.unfinished_job(), entry.failures_of("j1")), (None, 1));
        entry.note_job("j1", Some("increment"), None, Some(9));
        entry.unusable(Some("j1"));
        assert_eq!((entry.failures_of("j1"), entry.failures_of("j2")), (2, 0));
        entry.note_job("j2", Some("increment"), None, Some(11));
        drop(entry);
        let entry = journal.open(&users(), "q").await.unwrap();
        let stored = entry.unfinished_job_of("increment", Timestamp::from_micros(12)).unwrap();
        assert_eq!((stored.id.as_str(), stored.noted), ("j2", Some(Timestamp::from_micros(11))));
        assert_eq!(entry.failures_of("j1"), 2);
    }

    #[tokio::test]
    async fn any_torn_end_loses_at_most_the_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path(), "account");
        let entry = journal.open(&users(), "q").await.unwrap();
        entry.note_job("j1", None, None, None);
        for number in 0..3 {
            entry.finished(&ObjectId(format!("o{number}")), note("a"));
        }
        drop(entry);
        let path = path(folder.path());
        let whole = fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let complete = whole[..length].iter().filter(|byte| **byte == b'\n').count();
            let entry = journal.open(&users(), "q").await.unwrap();
            let known = (0..3).filter(|number| entry.file(&ObjectId(format!("o{number}"))).is_some()).count();
            // A last line whole but for its newline counts as well.
            assert!(
                known + 2 == complete || known + 1 == complete || complete < 2 && known == 0,
                "{length}: {known} of {complete}"
            );
            entry.note_job("j1", None, None, None);
            entry.finished(&ObjectId("new".into()), note("b"));
            drop(entry);
            let entry = journal.open(&users(), "q").await.unwrap();
            assert_eq!(entry.unfinished_job().as_deref(), Some("j1"));
            assert_eq!(entry.file(&ObjectId("new".into())), Some(note("b")), "{length}");
        }
    }

    #[tokio::test]
    async fn the_second_of_two_runs_waits_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path(), "account");
        let first = journal.open(&users(), "q").await.unwrap();
        first.note_job("j1", None, None, None);
        let second = {
            let journal = journal.clone();
            tokio::spawn(async move { journal.open(&users(), "q").await.unwrap().unfinished_job() })
        };
        // Another query does not wait.
        let other = journal.open(&users(), "another").await.unwrap();
        assert_eq!(other.unfinished_job(), None);
        assert!(!second.is_finished());
        first.done();
        drop(first);
        assert_eq!(second.await.unwrap(), None, "it finds the first one's work done");
    }

    #[tokio::test]
    async fn a_foreign_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path(), "account");
        drop(journal.open(&users(), "q").await.unwrap());
        fs::write(path(folder.path()), b"\xff\x00 something else\n{\"job\":\"evil\"}\n").unwrap();
        assert_eq!(journal.open(&users(), "q").await.unwrap().unfinished_job(), None);
    }
}
