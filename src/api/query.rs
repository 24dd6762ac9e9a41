//! Running a query: start a job, wait for it, and start another one if it fails or expires. Pacing and retries of single calls are in
//! `client.rs`.

use std::fmt;
use std::time::Duration;

use reqwest::Method;

use super::client::Call;
use super::retry::random_fraction;
use super::wire::{self, Ask, JobAnswer, Known, Outcome, Reason};
use super::{Client, FinishedJob, JobStatus, Query, VersionedSchema};
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::{TableRef, Timestamp, Window};

/// A finished job that expires sooner than this is not used.
const MIN_LIFE: Duration = Duration::from_secs(30);
/// How long after the expiry of a job another one is started.
const AFTER_EXPIRY: Duration = Duration::from_secs(5);
/// The number of polls of a complete job whose response has no objects.
const MAX_BARE_RESPONSES: u32 = 5;
/// The number of reads of a schema that is older than a job: some 15 s with the default polling times.
const MAX_SCHEMA_READS: u32 = 9;

/// A job on the service, as last seen. It continues whether or not a client waits for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The id, with which a later run can resume the job.
    pub id: String,
    /// The query.
    pub query: Query,
    /// The state.
    pub status: JobStatus,
    /// When the job and its objects expire, if the service reports it.
    pub expires_at: Option<Timestamp>,
    state: State,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Pending,
    Bare,
    Complete(Box<FinishedJob>),
    Failed(Box<Reason>),
}

impl Job {
    /// The result, if the job was complete when last seen.
    pub fn finished(&self) -> Option<&FinishedJob> {
        match &self.state {
            State::Complete(finished) => Some(finished),
            State::Pending | State::Bare | State::Failed(_) => None,
        }
    }

    fn new(query: &Query, answer: JobAnswer) -> Result<Self> {
        let JobAnswer { id, status, expires_at, outcome } = answer;
        let state = match outcome {
            Outcome::Pending => State::Pending,
            Outcome::Bare => State::Bare,
            Outcome::Failed(reason) => State::Failed(Box::new(reason)),
            Outcome::Complete { objects, schema_version, at, since, until } => {
                let reached = match query.window {
                    Window::Snapshot => at,
                    Window::Increment { .. } => until,
                };
                let reached = reached.ok_or_else(|| {
                    Error::new(Kind::Data, "The service's response is for another kind of query").with_field("job", &id)
                })?;
                if let Window::Increment { since: asked, .. } = query.window
                    && reached < asked
                {
                    return Err(Error::new(Kind::Data, "The service's response ends before the requested window begins")
                        .with_field("job", &id)
                        .with_field("answered_until", reached));
                }
                if let (Window::Increment { since: asked, .. }, Some(answered)) = (query.window, since)
                    && answered > asked
                {
                    // The changes in between would be lost.
                    return Err(Error::new(
                        Kind::Data,
                        "The service's response begins later than requested; changes would be lost",
                    )
                    .with_field("job", &id)
                    .with_field("answered_since", answered));
                }
                State::Complete(Box::new(FinishedJob {
                    id: id.clone(),
                    query: query.clone(),
                    objects,
                    schema_version,
                    since,
                    reached,
                    expires_at,
                }))
            }
        };
        Ok(Self { id, query: query.clone(), status, expires_at, state })
    }
}

/// Options for running a query.
#[derive(Default, Clone, Copy)]
pub struct RunOptions<'a> {
    /// The job of an earlier run for the same query, which is resumed if it still exists.
    pub resume: Option<&'a str>,
    /// The estimated duration of the download. A job that expires sooner, or within 30 s, is not used; another one is started after its
    /// expiry. Zero: unknown.
    pub download: Duration,
    /// Called with each job as soon as its id is known, for a journal. A query may need several jobs. Must not block.
    pub on_job: Option<&'a (dyn Fn(&Job) + Send + Sync)>,
}

impl fmt::Debug for RunOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOptions").field("resume", &self.resume).field("download", &self.download).finish_non_exhaustive()
    }
}

impl RunOptions<'_> {
    fn notify(&self, job: &Job) {
        if let Some(on_job) = self.on_job {
            on_job(job);
        }
    }
}

impl Client {
    /// Starts a job, or returns the existing job of the same query. Waits for the pacing of job starts, but not for the job.
    pub(crate) async fn start(&self, query: &Query) -> Result<Job> {
        let body = wire::query_body(query);
        let path = ["dap", "query", query.table.namespace.as_str(), "table", &query.table.table, "data"];
        let call = Call { ask: Ask::Start, method: Method::POST, path: &path, body: Some(body) };
        let answer = self.call(call, wire::job).await;
        let job = about(answer.and_then(|answer| Job::new(query, answer)), query)?;
        tracing::debug!(table = %query.table, job = %job.id, status = ?job.status, "Job started");
        crate::progress::job_started();
        Ok(job)
    }

    /// Reads the state of a job once. Fails with kind `Expired` if the job no longer exists.
    pub(crate) async fn look(&self, id: &str, query: &Query) -> Result<Job> {
        let path = ["dap", "job", id];
        let call = Call { ask: Ask::Status, method: Method::GET, path: &path, body: None };
        let answer = self.call(call, wire::job).await;
        about(answer.and_then(|answer| Job::new(query, answer)).with_field("job", id), query)
    }

    /// Waits until `job` is complete. A failed job is replaced as often as the retry policy allows; one that has expired, or is about to, is
    /// replaced once. `options.resume` is ignored. `options.on_job` is called for replacements, not for `job` itself.
    pub(crate) async fn wait(&self, job: Job, options: RunOptions<'_>) -> Result<FinishedJob> {
        let query = job.query.clone();
        let mut job = job;
        let mut poll = Poll::new(self.poll_bounds());
        let (mut failures, mut bare_responses) = (0, 0);
        let (mut has_vanished, mut was_short) = (false, false);
        loop {
            match &job.state {
                State::Complete(finished) => match self.time_until_renewal(finished, options.download) {
                    Some(wait) if !was_short => {
                        was_short = true;
                        tracing::info!(table = %query.table, job = %job.id, wait_s = wait.as_secs(), "The job is about to expire; starting another one after that");
                        tokio::time::sleep(wait).await;
                        job = self.restart(&query, &options).await?;
                    }
                    _ => return Ok(FinishedJob::clone(finished)),
                },
                State::Failed(reason) => {
                    failures += 1;
                    let error = failed(&job, reason, failures);
                    if error.kind() != Kind::Job || failures >= self.retry_policy().job_attempts {
                        return about(Err(error), &query);
                    }
                    // Faults of the service last longer than those of the network, so the pauses grow in steps of the maximum delay.
                    let wait = (self.retry_policy().max_delay * failures).mul_f64(0.5 + random_fraction() / 2.0);
                    tracing::warn!(table = %query.table, attempt = failures, wait_s = wait.as_secs(), %error, "A job failed; starting another one");
                    tokio::time::sleep(wait).await;
                    job = self.restart(&query, &options).await?;
                    poll = Poll::new(self.poll_bounds());
                }
                State::Pending | State::Bare => {
                    if job.state == State::Bare {
                        bare_responses += 1;
                        if bare_responses > MAX_BARE_RESPONSES {
                            let error =
                                Error::new(Kind::Data, "The job is complete but has no result").with_field("job", &job.id);
                            return about(Err(error), &query);
                        }
                    }
                    tokio::time::sleep(poll.next()).await;
                    job = match self.look(&job.id, &query).await {
                        Ok(job) => job,
                        Err(error) if error.kind() == Kind::Expired && !has_vanished => {
                            has_vanished = true;
                            tracing::warn!(table = %query.table, job = %job.id, "A job has expired; starting another one");
                            self.restart(&query, &options).await?
                        }
                        Err(error) => return Err(error),
                    };
                }
            }
        }
    }

    /// Runs a query: starts a job, or resumes the existing one of the same query, and waits until it is complete. Failed jobs are replaced as
    /// often as the retry policy allows. Fails with kind `SnapshotRequired` or `OutOfRange` if the service cannot serve the window.
    #[doc(hidden)]
    pub async fn run(&self, query: &Query) -> Result<FinishedJob> {
        self.run_with(query, RunOptions::default()).await
    }

    /// Like [`Client::run`], but resumes the job `options.resume` if it still exists.
    pub(crate) async fn run_with(&self, query: &Query, options: RunOptions<'_>) -> Result<FinishedJob> {
        let job = match self.attach(query, &options).await? {
            Some(job) => {
                options.notify(&job);
                job
            }
            None => self.restart(query, &options).await?,
        };
        self.wait(job, options).await
    }

    /// The job of an earlier run, if it can be used.
    async fn attach(&self, query: &Query, options: &RunOptions<'_>) -> Result<Option<Job>> {
        let Some(id) = options.resume else { return Ok(None) };
        match self.look(id, query).await {
            Ok(job) if job.status == JobStatus::Failed => Ok(None),
            Ok(job) => {
                tracing::debug!(table = %query.table, job = %job.id, status = ?job.status, "Resumed a job");
                Ok(Some(job))
            }
            // The journal may be outdated: the job has expired or belongs to another query.
            Err(error) if matches!(error.kind(), Kind::Expired | Kind::NotFound | Kind::Data | Kind::Job) => {
                tracing::debug!(table = %query.table, job = id, %error, "The job cannot be resumed; starting another one");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The schema of a table in `version` or a later one. The schema endpoint can lag behind a job, so it is read repeatedly, with growing
    /// pauses. Fails with kind `Unavailable` if it stays behind: with an older schema, values of the job's rows would be lost.
    pub(crate) async fn table_schema_from(&self, table: &TableRef, version: i64) -> Result<VersionedSchema> {
        let mut poll = Poll::new(self.poll_bounds());
        for reads in 1.. {
            let schema = self.table_schema(table).await?;
            if schema.version >= version {
                return Ok(schema);
            }
            if reads == MAX_SCHEMA_READS {
                return Err(Error::new(Kind::Unavailable, "The schema endpoint still returns a version older than the job's")
                    .with_field("table", table)
                    .with_field("job_version", version)
                    .with_field("schema_version", schema.version)
                    .hint("run the command again later; the job is resumed"));
            }
            tokio::time::sleep(poll.next()).await;
        }
        Err(Error::new(Kind::Bug, "The schema was never read"))
    }

    async fn restart(&self, query: &Query, options: &RunOptions<'_>) -> Result<Job> {
        let job = self.start(query).await?;
        options.notify(&job);
        Ok(job)
    }

    /// If the job expires too soon: the time after which another one can be started.
    fn time_until_renewal(&self, job: &FinishedJob, download: Duration) -> Option<Duration> {
        if job.objects.is_empty() {
            return None;
        }
        let left = job.expires_at?.micros().saturating_sub(self.server_now().micros());
        let left = Duration::from_micros(left.max(0) as u64);
        (left < download.max(MIN_LIFE)).then(|| left + AFTER_EXPIRY.min(self.retry_policy().max_delay))
    }
}

fn failed(job: &Job, reason: &Reason, failures: u32) -> Error {
    // Only kinds that the caller can act upon are kept; everything else is a failed job.
    let error = match reason.known() {
        Some(
            known @ (Known::SnapshotRequired | Known::OutOfRange | Known::Disabled | Known::NotOnboarded | Known::Maintenance),
        ) => known.error(Ask::Start),
        _ => Error::new(Kind::Job, "The service reports that the job failed")
            .hint("such errors are often temporary: try again later, or else report the uuid to the vendor's support"),
    };
    reason.explain(error.with_field("job", &job.id).with_field("job_attempts", failures))
}

/// Adds table and window to the error.
fn about<T>(result: Result<T>, query: &Query) -> Result<T> {
    result.map_err(|error| {
        let error = super::client::table_hint(error, &query.table).with_field("table", &query.table);
        match query.window {
            Window::Snapshot => error.with_field("query", "snapshot"),
            Window::Increment { since, until: None } => error.with_field("since", since),
            Window::Increment { since, until: Some(until) } => error.with_field("since", since).with_field("until", until),
        }
    })
}

/// The times between polls: each half as long again as the one before, up to a limit. A fifth of each is random, so that jobs that were
/// started together are not polled together.
struct Poll {
    next: Duration,
    max: Duration,
}

impl Poll {
    fn new((first, max): (Duration, Duration)) -> Self {
        Self { next: first.min(max), max }
    }

    fn next(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.8 + 0.2 * random_fraction());
        self.next = self.next.mul_f64(1.5).min(self.max);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_start_fast_and_slow_down_to_the_limit() {
        let mut poll = Poll::new((Duration::from_secs(1), Duration::from_secs(10)));
        let waits: Vec<f64> = (0..12).map(|_| poll.next().as_secs_f64()).collect();
        assert!((0.8..=1.0).contains(&waits[0]), "{waits:?}");
        assert!((1.2..=1.5).contains(&waits[1]), "{waits:?}");
        assert!(waits[8..].iter().all(|wait| (8.0..=10.0).contains(wait)), "{waits:?}");
    }
}
