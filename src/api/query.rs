//! The life of a query: start, wait, start anew when the job failed or vanished. Pace and retry of the single calls are the
//! client's business.

use std::fmt;
use std::time::Duration;

use reqwest::Method;

use super::client::Call;
use super::retry::random_fraction;
use super::wire::{self, Ask, JobAnswer, Known, Outcome, Reason};
use super::{Client, FinishedJob, JobStatus, Query, VersionedSchema};
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::{TableRef, Timestamp, Window};

/// A finished job with less than this to live is not worth beginning with.
const MIN_LIFE: Duration = Duration::from_secs(30);
/// How long after the end of its life a job is asked anew.
const AFTER_EXPIRY: Duration = Duration::from_secs(5);
/// Polls of a job that says it is complete but does not show its objects.
const MAX_BARE_ANSWERS: u32 = 5;
/// Reads of a schema that is older than a job, some 15 s in all with the pauses of the command line.
const MAX_SCHEMA_READS: u32 = 9;

/// A job on the service, as last seen. It lives there whether or not anybody waits for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id: with this a later run can re-attach.
    pub id: String,
    /// What was asked.
    pub query: Query,
    /// Where it stands.
    pub status: JobStatus,
    /// When it and its objects vanish, if the service said so.
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
    /// The result, when it was complete as last seen.
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
                    Error::new(Kind::Data, "The service answers another kind of query than the one asked")
                        .with_field("job", &id)
                })?;
                if let Window::Increment { since: asked, .. } = query.window
                    && reached < asked
                {
                    return Err(Error::new(Kind::Data, "The service's answer ends before the asked window begins")
                        .with_field("job", &id)
                        .with_field("answered_until", reached));
                }
                if let (Window::Increment { since: asked, .. }, Some(answered)) = (query.window, since)
                    && answered > asked
                {
                    // The changes between the two would be lost for good.
                    return Err(Error::new(Kind::Data, "The service's answer begins later than asked; changes would be lost")
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

/// How to run a query, beyond the query itself.
#[derive(Default, Clone, Copy)]
pub struct RunOptions<'a> {
    /// A job of an earlier run for the same query, to re-attach to if it still lives.
    pub resume: Option<&'a str>,
    /// How long the download will take, roughly. A job with less to live (and never less than 30 s) is waited out and asked
    /// anew. Zero: unknown.
    pub download: Duration,
    /// Told of each job as soon as its id is known, for a journal: a query may need several. Must not block.
    pub on_job: Option<&'a (dyn Fn(&Job) + Send + Sync)>,
}

impl fmt::Debug for RunOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOptions").field("resume", &self.resume).field("download", &self.download).finish_non_exhaustive()
    }
}

impl RunOptions<'_> {
    fn tell(&self, job: &Job) {
        if let Some(on_job) = self.on_job {
            on_job(job);
        }
    }
}

impl Client {
    /// Starts a query, or re-attaches to the live job of the same question. Waits for the pace of job starts, not for the job.
    pub async fn start(&self, query: &Query) -> Result<Job> {
        let body = wire::query_body(query);
        let path = ["dap", "query", query.table.namespace.as_str(), "table", &query.table.table, "data"];
        let call = Call { ask: Ask::Start, method: Method::POST, path: &path, body: Some(body) };
        let answer = self.call(call, wire::job).await;
        let job = about(answer.and_then(|answer| Job::new(query, answer)), query)?;
        tracing::debug!(table = %query.table, job = %job.id, status = ?job.status, "Job started");
        crate::progress::job_started();
        Ok(job)
    }

    /// Looks at a job once. Kind `Expired` when it is gone.
    pub async fn look(&self, id: &str, query: &Query) -> Result<Job> {
        let path = ["dap", "job", id];
        let call = Call { ask: Ask::Status, method: Method::GET, path: &path, body: None };
        let answer = self.call(call, wire::job).await;
        about(answer.and_then(|answer| Job::new(query, answer)).with_field("job", id), query)
    }

    /// Waits until `job` is complete. A failed job is started anew as the retry policy says, a vanished one once, and so is
    /// one that is complete but about to vanish.
    pub async fn wait(&self, job: Job) -> Result<FinishedJob> {
        self.wait_with(job, RunOptions::default()).await
    }

    /// As [`Client::wait`]; `options.resume` is not looked at. `options.on_job` hears of jobs started anew, not of `job` itself.
    pub async fn wait_with(&self, job: Job, options: RunOptions<'_>) -> Result<FinishedJob> {
        let query = job.query.clone();
        let mut job = job;
        let mut poll = Poll::new(self.poll_bounds());
        let (mut failures, mut bare_answers) = (0, 0);
        let (mut has_vanished, mut was_short) = (false, false);
        loop {
            match &job.state {
                State::Complete(finished) => match self.time_until_renewal(finished, options.download) {
                    Some(wait) if !was_short => {
                        was_short = true;
                        tracing::info!(table = %query.table, job = %job.id, wait_s = wait.as_secs(), "The job is about to vanish; asking anew after that");
                        tokio::time::sleep(wait).await;
                        job = self.start_anew(&query, &options).await?;
                    }
                    _ => return Ok(FinishedJob::clone(finished)),
                },
                State::Failed(reason) => {
                    failures += 1;
                    let error = failed(&job, reason, failures);
                    if error.kind() != Kind::Job || failures >= self.retry_policy().job_attempts {
                        return about(Err(error), &query);
                    }
                    // Server-side faults pass slowly: distances grow by the largest delay, not by the smallest.
                    let wait = (self.retry_policy().max_delay * failures).mul_f64(0.5 + random_fraction() / 2.0);
                    tracing::warn!(table = %query.table, attempt = failures, wait_s = wait.as_secs(), %error, "A job failed; starting it anew");
                    tokio::time::sleep(wait).await;
                    job = self.start_anew(&query, &options).await?;
                    poll = Poll::new(self.poll_bounds());
                }
                State::Pending | State::Bare => {
                    if job.state == State::Bare {
                        bare_answers += 1;
                        if bare_answers > MAX_BARE_ANSWERS {
                            let error = Error::new(Kind::Data, "A job is said to be complete but shows no result")
                                .with_field("job", &job.id);
                            return about(Err(error), &query);
                        }
                    }
                    tokio::time::sleep(poll.next()).await;
                    job = match self.look(&job.id, &query).await {
                        Ok(job) => job,
                        Err(error) if error.kind() == Kind::Expired && !has_vanished => {
                            has_vanished = true;
                            tracing::warn!(table = %query.table, job = %job.id, "A job vanished; starting it anew");
                            self.start_anew(&query, &options).await?
                        }
                        Err(error) => return Err(error),
                    };
                }
            }
        }
    }

    /// Starts a query (or re-attaches to its live job) and waits until it is complete. Failed jobs are asked again as the
    /// retry policy says; a complete job that is about to expire is waited out and asked anew.
    pub async fn run(&self, query: &Query) -> Result<FinishedJob> {
        self.run_with(query, RunOptions::default()).await
    }

    /// As [`Client::run`], but first re-attaches to the job `id` if it still lives.
    pub async fn resume(&self, id: &str, query: &Query) -> Result<FinishedJob> {
        self.run_with(query, RunOptions { resume: Some(id), ..RunOptions::default() }).await
    }

    /// As [`Client::run`], with everything that can be chosen.
    pub async fn run_with(&self, query: &Query, options: RunOptions<'_>) -> Result<FinishedJob> {
        let job = match self.attach(query, &options).await? {
            Some(job) => {
                options.tell(&job);
                job
            }
            None => self.start_anew(query, &options).await?,
        };
        self.wait_with(job, options).await
    }

    /// The job of an earlier run, if it is of use.
    async fn attach(&self, query: &Query, options: &RunOptions<'_>) -> Result<Option<Job>> {
        let Some(id) = options.resume else { return Ok(None) };
        match self.look(id, query).await {
            Ok(job) if job.status == JobStatus::Failed => Ok(None),
            Ok(job) => {
                tracing::debug!(table = %query.table, job = %job.id, status = ?job.status, "Re-attached to a job");
                Ok(Some(job))
            }
            // Gone, or of another query: a journal may be old, and is never trusted further than this.
            Err(error) if matches!(error.kind(), Kind::Expired | Kind::NotFound | Kind::Data | Kind::Job) => {
                tracing::debug!(table = %query.table, job = id, %error, "No re-attaching; starting anew");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The schema of a table in `version` or a later one. The schema endpoint can lag behind a job; it is read again after growing
    /// pauses. Kind `Unavailable` if it stays behind: with an older schema, members of the job's rows would be lost.
    pub async fn table_schema_from(&self, table: &TableRef, version: i64) -> Result<VersionedSchema> {
        let mut poll = Poll::new(self.poll_bounds());
        for reads in 1.. {
            let schema = self.table_schema(table).await?;
            if schema.version >= version {
                return Ok(schema);
            }
            if reads == MAX_SCHEMA_READS {
                return Err(Error::new(Kind::Unavailable, "The schema endpoint is behind the version of the job")
                    .with_field("table", table)
                    .with_field("job_version", version)
                    .with_field("schema_version", schema.version)
                    .hint("run it again later; the job is continued"));
            }
            tokio::time::sleep(poll.next()).await;
        }
        Err(Error::new(Kind::Bug, "The schema was never read"))
    }

    async fn start_anew(&self, query: &Query, options: &RunOptions<'_>) -> Result<Job> {
        let job = self.start(query).await?;
        options.tell(&job);
        Ok(job)
    }

    /// `Some` when the job will not live long enough: the time after which it can be asked anew.
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
    // Only what the caller can act upon keeps its kind; everything else is a failed job.
    let error = match reason.known() {
        Some(
            known @ (Known::SnapshotRequired | Known::OutOfRange | Known::Disabled | Known::NotOnboarded | Known::Maintenance),
        ) => known.error(Ask::Start),
        _ => Error::new(Kind::Job, "The service reports that the job failed")
            .hint("such faults often pass: try again later, and give the uuid to the vendor's support if not"),
    };
    reason.explain(error.with_field("job", &job.id).with_field("job_attempts", failures))
}

/// Adds table and window.
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

/// Distances of polls: half as long again each time, up to a ceiling, a fifth of it random so that jobs started together
/// are not asked together.
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
    fn polls_are_quick_at_first_and_never_slower_than_the_ceiling() {
        let mut poll = Poll::new((Duration::from_secs(1), Duration::from_secs(10)));
        let waits: Vec<f64> = (0..12).map(|_| poll.next().as_secs_f64()).collect();
        assert!((0.8..=1.0).contains(&waits[0]), "{waits:?}");
        assert!((1.2..=1.5).contains(&waits[1]), "{waits:?}");
        assert!(waits[8..].iter().all(|wait| (8.0..=10.0).contains(wait)), "{waits:?}");
    }
}
