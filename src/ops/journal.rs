//! What a run has reached, for the run after it: the job and the finished files of each query. Deleting it loses time, never data.
//!
//! For downloads one file per query (account, table, window, format, folder), for `sync` one per table and target. Each holds JSON
//! lines, only ever appended to, so that a torn line is the last one and is passed by. The file is locked while its query runs: of
//! two runs of the same query the second waits, and then finds everything done. It holds no secret, no token and no URL.

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

/// Jobs live 24 hours; what is older cannot be continued.
const MAX_AGE: Duration = Duration::from_secs(48 * 3600);

const SUFFIX: &str = "journal";
const RETRY_LOCK: Duration = Duration::from_millis(200);

/// The folder of journals, for one account.
#[derive(Debug, Clone)]
pub struct Journal {
    folder: PathBuf,
    account: String,
}

impl Journal {
    /// In `folder`, made when first needed. `account` (base URL and client id, say) keeps the jobs of accounts apart; only a
    /// check sum of it is stored.
    pub fn new(folder: impl Into<PathBuf>, account: &str) -> Self {
        Self { folder: folder.into(), account: format!("{:016x}", fnv(account.as_bytes())) }
    }

    /// The first line and the path of the pages of one query.
    fn place(&self, table: &TableRef, query: &str) -> Result<(String, PathBuf)> {
        let header = serde_json::to_string(&Line::Query { journal: 1, account: self.account.clone(), query: query.to_owned() })
            .context(Kind::Bug, "A journal line cannot be written")?;
        let name = match table.is_path_safe() {
            true => table.to_string(),
            false => "table".to_owned(),
        };
        let path = self.folder.join(format!("{name}.{:016x}.{SUFFIX}", fnv(header.as_bytes())));
        Ok((header, path))
    }

    /// When a query was last done, in microseconds since the epoch, without waiting for who uses its pages. `None`: never, or there
    /// is an unfinished job.
    #[cfg(feature = "lake")]
    pub(super) fn last_done(&self, table: &TableRef, query: &str) -> Option<i64> {
        let (header, path) = self.place(table, query).ok()?;
        let text = fs::read_to_string(path).ok()?;
        let mut lines = text.lines();
        lines.next().filter(|line| *line == header)?;
        lines.filter_map(|line| serde_json::from_str(line).ok()).fold(None, |last, line| match line {
            Line::Done { done, at } => at.filter(|_| done),
            Line::Job { .. } => None,
            Line::File { .. } | Line::Query { .. } | Line::Unusable { .. } => last,
        })
    }

    /// The pages of one query, once no other run uses them. `query` says everything that makes results differ.
    pub(super) async fn open(&self, table: &TableRef, query: &str) -> Result<Pages> {
        let (header, path) = self.place(table, query)?;
        let mut has_waited = false;
        loop {
            let (folder, path, header) = (self.folder.clone(), path.clone(), header.clone());
            let opened = tokio::task::spawn_blocking(move || Pages::open(&folder, &path, header)).await;
            if let Some(pages) = opened.context(Kind::Bug, "Reading the journal failed")?? {
                return Ok(pages);
            }
            if !std::mem::replace(&mut has_waited, true) {
                tracing::warn!(table = %table, "Another run is at work on the same; waiting for it");
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
        /// What was asked, where the pages are of more than one question.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<String>,
        /// When it vanishes, microseconds since the epoch.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<i64>,
        /// When it was first noted, by the service's clock.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        noted: Option<i64>,
    },
    Unusable {
        /// A job whose result could not be used.
        unusable: String,
        /// In so many runs.
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

/// A file that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileNote {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Microseconds since the epoch.
    pub(super) modified: u64,
    pub(super) rows: Option<u64>,
}

impl FileNote {
    /// Of a file that was just finished.
    pub(super) fn of(path: &Path, name: &str, rows: Option<u64>) -> Result<Self> {
        let metadata = fs::metadata(path).context(Kind::Io, format!("A file cannot be read: {}", path.display()))?;
        Ok(Self { name: name.to_owned(), bytes: metadata.len(), modified: modified(&metadata), rows })
    }

    /// Whether the file is still as it was left.
    pub(super) fn is_true_of(&self, path: &Path) -> bool {
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
    /// When it was first noted, by the service's clock.
    pub(super) noted: Option<Timestamp>,
}

/// The journal of one query, locked while this lives. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Pages(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// `None`: kept in memory only.
    file: Option<File>,
    path: PathBuf,
    header: String,
    job: Option<String>,
    of: Option<String>,
    expires: Option<i64>,
    noted: Option<i64>,
    /// The last job whose result could not be used, and in how many runs.
    unusable: Option<(String, u32)>,
    files: HashMap<ObjectId, FileNote>,
    is_done: bool,
}

impl Pages {
    /// Remembers nothing beyond this run.
    pub(super) fn in_memory() -> Self {
        Self(Arc::new(Mutex::new(Inner::new(None, PathBuf::new(), String::new()))))
    }

    /// `None`: another run has it.
    fn open(folder: &Path, path: &Path, header: String) -> Result<Option<Self>> {
        let failed = || format!("The journal cannot be used: {}", path.display());
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

    /// The job to go on with: one whose files were not all brought.
    pub(super) fn unfinished_job(&self) -> Option<String> {
        self.with(|inner| inner.job.clone().filter(|_| !inner.is_done))
    }

    /// As [`Pages::unfinished_job`], if it was asked for `question` and may still live.
    #[cfg(feature = "lake")]
    pub(super) fn unfinished_job_of(&self, question: &str, now: Timestamp) -> Option<StoredJob> {
        let (lives, noted) = self.with(|inner| {
            let is_same = inner.of.as_deref() == Some(question);
            (is_same && inner.expires.is_none_or(|expires| expires > now.micros()), inner.noted)
        });
        let id = self.unfinished_job().filter(|_| lives)?;
        Some(StoredJob { id, noted: noted.map(Timestamp::from_micros) })
    }

    /// The result of a job could not be used: it is forgotten, but for its name.
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

    /// In how many runs the result of a job could not be used.
    #[cfg(feature = "lake")]
    pub(super) fn failures_of(&self, id: &str) -> u32 {
        self.with(|inner| inner.unusable.as_ref().filter(|(known, _)| known == id).map_or(0, |(_, runs)| *runs))
    }

    /// A job answers the query. What is known of the files of another one is forgotten.
    pub(super) fn job(&self, job: &Job) {
        self.note_job(&job.id, None, job.expires_at.map(Timestamp::micros), None);
    }

    /// As [`Pages::job`], with what was asked and the service's time.
    #[cfg(feature = "lake")]
    pub(super) fn job_of(&self, job: &Job, question: &str, now: Timestamp) {
        self.note_job(&job.id, Some(question), job.expires_at.map(Timestamp::micros), Some(now.micros()));
    }

    fn note_job(&self, id: &str, question: Option<&str>, expires: Option<i64>, noted: Option<i64>) {
        self.with(|inner| {
            if inner.job.as_deref() == Some(id) && inner.of.as_deref() == question {
                if inner.is_done {
                    inner.is_done = false;
                    inner.append(&Line::Done { done: false, at: None });
                }
            } else {
                inner.restart();
                let of = question.map(str::to_owned);
                (inner.job, inner.of, inner.expires, inner.noted) = (Some(id.to_owned()), of.clone(), expires, noted);
                inner.append(&Line::Job { job: id.to_owned(), of, expires, noted });
            }
        });
    }

    /// What is known of an object's file.
    pub(super) fn file(&self, object: &ObjectId) -> Option<FileNote> {
        self.with(|inner| inner.files.get(object).cloned())
    }

    /// An object's file is complete.
    pub(super) fn finished(&self, object: &ObjectId, note: FileNote) {
        self.with(|inner| {
            let FileNote { name, bytes, modified, rows } = note.clone();
            inner.files.insert(object.clone(), note);
            inner.append(&Line::File { object: object.clone(), name, bytes, modified, rows });
        });
    }

    /// All files or rows are where they belong.
    pub(super) fn done(&self) {
        self.with(|inner| {
            inner.is_done = true;
            inner.append(&Line::Done { done: true, at: Some(Timestamp::now().micros()) });
        });
    }

    /// The job is of no use any more.
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

    /// Takes every whole line; the first must be the header.
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
            // A torn line: what follows must not be taken for its end.
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

    /// A journal that cannot be written saves nothing, but must not stop anything either.
    fn give_up(&mut self, error: &io::Error) {
        tracing::warn!(journal = %self.path.display(), %error, "The journal cannot be written; this run cannot be continued by another");
        if let Some(file) = self.file.take() {
            let _ = truncate(&file);
        }
    }
}

/// How to open a file that is appended to and sometimes truncated. Windows lets nobody truncate a file that was opened only for
/// appending; there, whoever holds the lock seeks to the end before each write.
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

/// A window as a part of a question.
pub(super) fn window_words(window: Window) -> String {
    match window {
        Window::Snapshot => "snapshot".to_owned(),
        Window::Increment { since, until } => {
            format!("since {since} until {}", until.map_or("newest".to_owned(), |until| until.to_string()))
        }
    }
}

pub(super) fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Removes journals of jobs that are long gone.
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

/// FNV-1a: the same at every run and in every version, which is all that names of files need.
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
    async fn what_one_run_wrote_the_next_one_knows() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path(), "account");
        let pages = journal.open(&users(), "q").await.unwrap();
        assert_eq!(pages.unfinished_job(), None);
        pages.note_job("j1", None, None, None);
        pages.finished(&ObjectId("o1".into()), note("a"));
        drop(pages);

        let pages = journal.open(&users(), "q").await.unwrap();
        assert_eq!(pages.unfinished_job().as_deref(), Some("j1"));
        assert_eq!(pages.file(&ObjectId("o1".into())), Some(note("a")));
        pages.done();
        drop(pages);

        let pages = journal.open(&users(), "q").await.unwrap();
        assert_eq!(pages.unfinished_job(), None, "a finished query is asked anew");
        pages.note_job("j1", None, None, None);
        assert_eq!(pages.file(&ObjectId("o1".into())), Some(note("a")), "and if the same job answers, its files count");
        assert_eq!(pages.unfinished_job().as_deref(), Some("j1"));
        pages.note_job("j2", None, None, None);
        assert_eq!(pages.file(&ObjectId("o1".into())), None);
        drop(pages);

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
        let pages = journal.open(&users(), "q").await.unwrap();
        pages.note_job("j1", Some("increment"), None, Some(7));
        assert_eq!(pages.failures_of("j1"), 0);
        pages.unusable(None);
        drop(pages);
        let pages = journal.open(&users(), "q").await.unwrap();
        assert_eq!((pages.unfinished_job(), pages.failures_of("j1")), (None, 1));
        pages.note_job("j1", Some("increment"), None, Some(9));
        pages.unusable(Some("j1"));
        assert_eq!((pages.failures_of("j1"), pages.failures_of("j2")), (2, 0));
        pages.note_job("j2", Some("increment"), None, Some(11));
        drop(pages);
        let pages = journal.open(&users(), "q").await.unwrap();
        let stored = pages.unfinished_job_of("increment", Timestamp::from_micros(12)).unwrap();
        assert_eq!((stored.id.as_str(), stored.noted), ("j2", Some(Timestamp::from_micros(11))));
        assert_eq!(pages.failures_of("j1"), 2);
    }

    #[tokio::test]
    async fn any_torn_end_loses_at_most_the_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path(), "account");
        let pages = journal.open(&users(), "q").await.unwrap();
        pages.note_job("j1", None, None, None);
        for number in 0..3 {
            pages.finished(&ObjectId(format!("o{number}")), note("a"));
        }
        drop(pages);
        let path = path(folder.path());
        let whole = fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let complete = whole[..length].iter().filter(|byte| **byte == b'\n').count();
            let pages = journal.open(&users(), "q").await.unwrap();
            let known = (0..3).filter(|number| pages.file(&ObjectId(format!("o{number}"))).is_some()).count();
            // A last line whole but for its newline counts as well.
            assert!(
                known + 2 == complete || known + 1 == complete || complete < 2 && known == 0,
                "{length}: {known} of {complete}"
            );
            pages.note_job("j1", None, None, None);
            pages.finished(&ObjectId("new".into()), note("b"));
            drop(pages);
            let pages = journal.open(&users(), "q").await.unwrap();
            assert_eq!(pages.unfinished_job().as_deref(), Some("j1"));
            assert_eq!(pages.file(&ObjectId("new".into())), Some(note("b")), "{length}");
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
    async fn a_foreign_file_in_its_place_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::new(folder.path(), "account");
        drop(journal.open(&users(), "q").await.unwrap());
        fs::write(path(folder.path()), b"\xff\x00 something else\n{\"job\":\"evil\"}\n").unwrap();
        assert_eq!(journal.open(&users(), "q").await.unwrap().unfinished_job(), None);
    }
}
