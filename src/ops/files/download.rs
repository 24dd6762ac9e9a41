//! `snapshot` and `incremental`: the objects of a query as files in a folder.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::manifest::{MANIFEST, ManifestFile, manifest};
use super::object::{LocalObject, Objects};
use super::run::{Observer, Step, TableReporter, each_table};
use super::staging::{self, Staging};
use super::{FilesReport, Journal, Shape, TableChoice};
use crate::api::{Client, FinishedJob, Job, JobStatus, Query, RunOptions};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::fetch::ObjectUrls;
use crate::model::{Format, Namespace, TableRef, Window};
use crate::ops::journal::{JournalEntry, window_text};
use crate::progress;
use crate::schema::TableSchema;

/// A request to download tables.
#[derive(Debug, Clone)]
pub struct DownloadRequest {
    /// The service.
    pub client: Client,
    /// The namespace.
    pub namespace: Namespace,
    /// The tables.
    pub tables: TableChoice,
    /// Snapshot or increment.
    pub window: Window,
    /// The format.
    pub format: Format,
    /// The form of the files.
    pub shape: Shape,
    /// Output folder, created if absent. The files of a job go to its subfolder `job_<id>`.
    pub folder: PathBuf,
    /// Objects of all tables that are downloaded at the same time, at least 1.
    pub objects_at_once: usize,
    /// The journal; `None`: interrupted downloads are not resumed.
    pub journal: Option<Journal>,
    /// Ignore the results of earlier runs.
    pub fresh: bool,
}

/// Downloads the selected tables at the same time, in the layout of the official client. The folder of a table appears when all its files
/// are complete and verified.
///
/// Safe to drop or kill at any time: with a journal, the next run resumes the jobs and downloads the missing files.
///
/// # Errors
/// Kind `Usage` if the shape does not fit the format; `NotFound`, `Auth` and others if the tables cannot be listed. No table was tried then.
/// The failure of a single table is in the report.
///
/// ```no_run
/// # async fn example(client: daplake::Client) -> daplake::Result<()> {
/// use daplake::ops::{DownloadRequest, Journal, Shape, TableChoice, download};
/// use daplake::{Format, Namespace, Window};
///
/// let report = download(DownloadRequest {
///     client,
///     namespace: Namespace::new("canvas"),
///     tables: "users,accounts".parse::<TableChoice>()?,
///     window: Window::Snapshot,
///     format: Format::Jsonl,
///     shape: Shape::AsSent,
///     folder: "downloads".into(),
///     objects_at_once: 4,
///     journal: Some(Journal::new("state", "my account")),
///     fresh: false,
/// })
/// .await?;
/// for error in report.errors() {
///     eprintln!("{error}");
/// }
/// # Ok(())
/// # }
/// ```
pub async fn download(request: DownloadRequest) -> Result<FilesReport> {
    download_with(request, &|_| (), std::future::pending()).await
}

/// As [`download`], with an observer of each step, until `interrupted` resolves.
pub async fn download_with(
    request: DownloadRequest,
    observer: Observer<'_>,
    interrupted: impl Future<Output = ()>,
) -> Result<FilesReport> {
    if request.shape != Shape::AsSent && !request.format.is_gzip() {
        return Err(Error::new(Kind::Usage, "Parquet files cannot be decompressed or converted")
            .hint("use one of the formats jsonl, csv and tsv, or download the files as they are"));
    }
    let mut interrupted = std::pin::pin!(interrupted);
    let choice = request.tables.resolve_unless(&request.client, &request.namespace, interrupted.as_mut());
    let tables = choice.await?;
    staging::sweep(&request.folder);
    let permits = Semaphore::new(request.objects_at_once.max(1));
    let downloader = &Downloader { request: &request, permits: &permits, journal_missed: AtomicBool::new(false) };
    let report = each_table(tables, observer, interrupted.as_mut(), async |table, reporter| {
        Box::pin(downloader.table(table, reporter)).await
    });
    Ok(report.await)
}

struct Downloader<'a> {
    request: &'a DownloadRequest,
    permits: &'a Semaphore,
    /// Whether a warning was logged that the journal cannot be used.
    journal_missed: AtomicBool,
}

impl Downloader<'_> {
    async fn table(&self, table: &TableRef, reporter: TableReporter<'_>) -> Result<()> {
        let query = Query { table: table.clone(), format: self.request.format, mode: None, window: self.request.window };
        let journal = self.journal(&query).await;
        if self.request.fresh {
            journal.forget();
        }
        // A job or object may expire before the download; the query is then repeated, once.
        match self.attempt(&query, &journal, reporter).await {
            Err(error) if error.kind() == Kind::Expired => {
                tracing::warn!(table = %table, %error, "The job has expired; starting another one");
                journal.forget();
                self.attempt(&query, &journal, reporter).await
            }
            other => other,
        }
    }

    /// The journal entry of the query, or one in memory if the journal cannot be used.
    async fn journal(&self, query: &Query) -> JournalEntry {
        let Some(journal) = &self.request.journal else { return JournalEntry::in_memory() };
        let folder = std::path::absolute(&self.request.folder).unwrap_or_else(|_| self.request.folder.clone());
        let window = window_text(query.window);
        let key = format!("{} {window} {} {} {}", query.table, query.format, self.request.shape.name(), folder.display());
        match journal.open(&query.table, &key).await {
            Ok(journal) => journal,
            Err(error) => {
                if !self.journal_missed.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "No journal: if this run is interrupted, the next one may start new jobs (see --state-dir)");
                }
                JournalEntry::in_memory()
            }
        }
    }

    async fn attempt(&self, query: &Query, journal: &JournalEntry, reporter: TableReporter<'_>) -> Result<()> {
        let client = &self.request.client;
        let waited = AtomicBool::new(false);
        let on_job = |job: &Job| {
            journal.job(job);
            if job.status != JobStatus::Complete {
                waited.store(true, Ordering::Relaxed);
            }
        };
        let resume = journal.unfinished_job();
        let options = RunOptions { resume: resume.as_deref(), on_job: Some(&on_job), ..RunOptions::default() };
        let asking = client.run_with(query, options).instrument(progress::step("job", &query.table));
        let job = asking.await?;
        tracing::info!(table = %query.table, "Job finished: {}", job_text(&job));
        reporter.report(Step::JobFinished { job: job.id.clone(), waited: waited.load(Ordering::Relaxed) });

        let staging = Staging::new(&self.request.folder, &job.id, self.request.shape)?;
        if self.request.fresh {
            staging.clear()?;
        }
        match self.fetch(&job, journal, &staging).instrument(progress::step("download", &query.table)).await {
            Ok(downloaded) => {
                journal.done();
                reporter.report(Step::Downloaded {
                    files: downloaded.len(),
                    kept: downloaded.iter().filter(|object| object.kept).count(),
                    bytes: downloaded.iter().map(|object| object.file.bytes).sum(),
                    folder: staging.shown,
                });
                Ok(())
            }
            Err(error) => {
                if error.kind() == Kind::Expired {
                    // The files are useless without the rest.
                    staging.clear()?;
                }
                staging.leave();
                Err(error)
            }
        }
    }

    async fn fetch(&self, job: &FinishedJob, journal: &JournalEntry, staging: &Staging) -> Result<Vec<LocalObject>> {
        progress::expect(job.objects.len() as u64);
        staging.make()?;
        let schema = match self.request.shape {
            Shape::Parquet => Some(self.schema(job).await?),
            Shape::AsSent | Shape::Unpacked => None,
        };
        let urls = ObjectUrls::new(&self.request.client, job);
        // Names in use must be known before new ones are assigned.
        for id in &job.objects {
            if let Some(note) = journal.file(id) {
                urls.claim_name(&note.name, id)?;
            }
        }
        let objects = &Objects { job, urls, staging, journal, shape: self.request.shape, permits: self.permits, schema };
        let fetching = job.objects.iter().enumerate().map(|(number, id)| objects.fetch(number, id));
        let downloaded: Vec<LocalObject> =
            futures::stream::iter(fetching).buffered(self.request.objects_at_once.max(1)).try_collect().await?;
        let files: Vec<ManifestFile> = downloaded.iter().map(|object| object.file.clone()).collect();
        staging::write_whole(&staging.hidden.join(MANIFEST), &manifest(job, self.request.shape, &files)?)?;
        let staging = staging.clone();
        tokio::task::spawn_blocking(move || staging.publish()).await.context(Kind::Bug, "Moving the files failed")??;
        Ok(downloaded)
    }

    /// The schema of the table, at least as new as that of the job; with a newer one, rows lack its new columns.
    async fn schema(&self, job: &FinishedJob) -> Result<Arc<TableSchema>> {
        let table = &job.query.table;
        let schema = self.request.client.table_schema_from(table, job.schema_version).await?;
        let schema = TableSchema::read(table, schema.version, schema.schema)?;
        schema.check_names().map_err(|error| error.hint_instead("download the table without --convert"))?;
        Ok(Arc::new(schema))
    }
}

/// The job as the service writes it, for the log: `at` or `until` is the next `since`.
fn job_text(job: &FinishedJob) -> String {
    let mut text = serde_json::json!({
        "id": job.id,
        "status": "complete",
        "objects": job.objects.iter().map(|id| serde_json::json!({ "id": id })).collect::<Vec<_>>(),
        "schema_version": job.schema_version,
    });
    match job.query.window {
        Window::Snapshot => text["at"] = job.reached.to_string().into(),
        Window::Increment { since, .. } => {
            text["since"] = job.since.unwrap_or(since).to_string().into();
            text["until"] = job.reached.to_string().into();
        }
    }
    if let Some(expires_at) = job.expires_at {
        text["expires_at"] = expires_at.to_string().into();
    }
    text.to_string()
}
