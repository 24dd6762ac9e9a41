//! `snapshot` and `incremental`: the files of a query's answer in a folder. It does not look into them, unless another format is
//! asked for.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::manifest::{MANIFEST, ManifestFile, manifest};
use super::object::{Brought, Objects};
use super::run::{Observer, Step, TellTable, each_table};
use super::staging::{self, Staging};
use super::{FilesReport, Journal, Shape, TableChoice};
use crate::api::{Client, FinishedJob, Job, JobStatus, Query, RunOptions};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::fetch::ObjectUrls;
use crate::model::{Format, Namespace, TableRef, Window};
use crate::ops::journal::{Pages, window_words};
use crate::progress;
use crate::schema::TableSchema;

/// What to download, and where to.
#[derive(Debug, Clone)]
pub struct DownloadRequest {
    /// The service.
    pub client: Client,
    /// Of this namespace.
    pub namespace: Namespace,
    /// Of these tables.
    pub tables: TableChoice,
    /// Snapshot or increment.
    pub window: Window,
    /// In this format.
    pub format: Format,
    /// What becomes of the files.
    pub shape: Shape,
    /// Made when absent; a job's files come into `job_<id>` in it.
    pub folder: PathBuf,
    /// Objects downloaded at once, of all tables together; at least 1.
    pub objects_at_once: usize,
    /// What an interrupted run reached; `None`: nothing is remembered.
    pub journal: Option<Journal>,
    /// Begin anew whatever an earlier run reached.
    pub fresh: bool,
}

/// Downloads the answers for all chosen tables. Single tables may fail: see the report. An error means that nothing was tried.
///
/// A table's folder appears when all its files are complete and checked. Safe to drop at any await and to kill at any moment: the
/// next run goes on with the live job and brings only what is missing.
pub async fn download(
    request: DownloadRequest,
    observer: Observer<'_>,
    interrupted: impl Future<Output = ()>,
) -> Result<FilesReport> {
    if request.shape != Shape::AsSent && !request.format.is_gzip() {
        return Err(Error::new(Kind::Usage, "Parquet files are neither unpacked nor converted")
            .hint("choose one of the formats jsonl, csv and tsv, or leave the files as they are"));
    }
    let mut interrupted = std::pin::pin!(interrupted);
    let choice = request.tables.resolve_unless(&request.client, &request.namespace, interrupted.as_mut());
    let tables = choice.await?;
    staging::sweep(&request.folder);
    let permits = Semaphore::new(request.objects_at_once.max(1));
    let downloader = &Downloader { request: &request, permits: &permits, journal_missed: AtomicBool::new(false) };
    let report =
        each_table(tables, observer, interrupted.as_mut(), async |table, tell| Box::pin(downloader.table(table, tell)).await);
    Ok(report.await)
}

struct Downloader<'a> {
    request: &'a DownloadRequest,
    permits: &'a Semaphore,
    /// That there is no journal has been said.
    journal_missed: AtomicBool,
}

impl Downloader<'_> {
    async fn table(&self, table: &TableRef, tell: TellTable<'_>) -> Result<()> {
        let query = Query { table: table.clone(), format: self.request.format, mode: None, window: self.request.window };
        let pages = self.pages(&query).await;
        if self.request.fresh {
            pages.forget();
        }
        // A job or an object may vanish between the answer and the download; the query is then asked anew, once.
        match self.attempt(&query, &pages, tell).await {
            Err(error) if error.kind() == Kind::Expired => {
                tracing::warn!(table = %table, %error, "The job has expired; asking anew");
                pages.forget();
                self.attempt(&query, &pages, tell).await
            }
            other => other,
        }
    }

    /// The journal of the query, or none if it cannot be had.
    async fn pages(&self, query: &Query) -> Pages {
        let Some(journal) = &self.request.journal else { return Pages::in_memory() };
        let folder = std::path::absolute(&self.request.folder).unwrap_or_else(|_| self.request.folder.clone());
        let window = window_words(query.window);
        let key = format!("{} {window} {} {} {}", query.table, query.format, self.request.shape.word(), folder.display());
        match journal.open(&query.table, &key).await {
            Ok(pages) => pages,
            Err(error) => {
                if !self.journal_missed.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "No journal: if this run is interrupted, the next one may start new jobs (see --state-dir)");
                }
                Pages::in_memory()
            }
        }
    }

    async fn attempt(&self, query: &Query, pages: &Pages, tell: TellTable<'_>) -> Result<()> {
        let client = &self.request.client;
        let waited = AtomicBool::new(false);
        let on_job = |job: &Job| {
            pages.job(job);
            if job.status != JobStatus::Complete {
                waited.store(true, Ordering::Relaxed);
            }
        };
        let resume = pages.unfinished_job();
        let options = RunOptions { resume: resume.as_deref(), on_job: Some(&on_job), ..RunOptions::default() };
        let asking = client.run_with(query, options).instrument(progress::step("job", &query.table));
        let job = asking.await?;
        tracing::info!(table = %query.table, "Job finished: {}", job_text(&job));
        tell.tell(Step::JobFinished { job: job.id.clone(), waited: waited.load(Ordering::Relaxed) });

        let staging = Staging::new(&self.request.folder, &job.id, self.request.shape)?;
        if self.request.fresh {
            staging.clear()?;
        }
        match self.bring(&job, pages, &staging).instrument(progress::step("download", &query.table)).await {
            Ok(brought) => {
                pages.done();
                tell.tell(Step::Downloaded {
                    files: brought.len(),
                    kept: brought.iter().filter(|object| object.kept).count(),
                    bytes: brought.iter().map(|object| object.file.bytes).sum(),
                    folder: staging.shown,
                });
                Ok(())
            }
            Err(error) => {
                if error.kind() == Kind::Expired {
                    // The rest will never come.
                    staging.clear()?;
                }
                staging.leave();
                Err(error)
            }
        }
    }

    async fn bring(&self, job: &FinishedJob, pages: &Pages, staging: &Staging) -> Result<Vec<Brought>> {
        progress::expect(job.objects.len() as u64);
        staging.make()?;
        let schema = match self.request.shape {
            Shape::Parquet => Some(self.schema(job).await?),
            Shape::AsSent | Shape::Unpacked => None,
        };
        let urls = ObjectUrls::new(&self.request.client, job);
        // Names that are taken must be known before new ones are given.
        for id in &job.objects {
            if let Some(note) = pages.file(id) {
                urls.claim_name(&note.name, id)?;
            }
        }
        let objects = &Objects { job, urls, staging, pages, shape: self.request.shape, permits: self.permits, schema };
        let bringing = job.objects.iter().enumerate().map(|(number, id)| objects.bring(number, id));
        let brought: Vec<Brought> =
            futures::stream::iter(bringing).buffered(self.request.objects_at_once.max(1)).try_collect().await?;
        let files: Vec<ManifestFile> = brought.iter().map(|object| object.file.clone()).collect();
        staging::write_whole(&staging.hidden.join(MANIFEST), &manifest(job, self.request.shape, &files)?)?;
        let staging = staging.clone();
        tokio::task::spawn_blocking(move || staging.publish()).await.context(Kind::Bug, "Moving files failed")??;
        Ok(brought)
    }

    /// The table's schema, at least as new as the job's: rows of an older one lack its new columns, which is fine.
    async fn schema(&self, job: &FinishedJob) -> Result<Arc<TableSchema>> {
        let table = &job.query.table;
        let schema = self.request.client.table_schema_from(table, job.schema_version).await?;
        let schema = TableSchema::read(table, schema.version, schema.schema)?;
        schema.check_names().map_err(|error| error.hint_instead("download the table without --convert"))?;
        Ok(Arc::new(schema))
    }
}

/// The job as the service would write it, for the log: `at` or `until` is the next `since`.
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
