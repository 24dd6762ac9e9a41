//! Jobs: from waiting over running to complete or failed, and gone at the end of their life. It does not encode anything itself.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use super::answer::{Answer, Answered, without_nulls};
use super::clock::later;
use super::counters::JobStart;
use super::encode::Style;
use super::fault::{Damage, Fault, Spot};
use super::mangle::mangle;
use super::query::Question;
use super::state::State;
use super::store::{Cut, Part, Recipe};
use crate::error::{Error, Kind, Result};
use crate::model::{TableRef, Timestamp};

/// One job. Its state is a function of the clock and of whether its objects are there.
#[derive(Debug)]
pub(super) struct Job {
    id: String,
    question: Question,
    cut: Cut,
    schema_version: i64,
    started: Timestamp,
    expires: Timestamp,
    /// The word for "in progress", when it is not the usual ones.
    strange_status: bool,
    ends_early: bool,
    result: OnceLock<Result<Vec<Part>, JobError>>,
}

#[derive(Debug)]
struct JobError {
    uuid: String,
    message: String,
}

/// What faults make of a job.
#[derive(Debug, Default)]
struct Fate {
    fails: Option<String>,
    life: Option<Duration>,
    empty: bool,
    flat: bool,
    strange_status: bool,
    ends_early: bool,
    damages: Vec<(Damage, Spot)>,
}

impl Fate {
    fn draw(state: &State, table: &TableRef) -> Self {
        let table = Some(table);
        let mut damages: Vec<(Damage, Spot)> = Vec::new();
        // Each damage once per job: a rule without end would strike forever here.
        while let Some(new) = state.faults.take(table, |fault| match fault {
            Fault::Content { damage, spot } if !damages.contains(&(*damage, *spot)) => Some((*damage, *spot)),
            _ => None,
        }) {
            damages.push(new);
        }
        Self {
            fails: state.faults.take(table, |fault| match fault {
                Fault::JobFails { message } => Some(message.clone()),
                _ => None,
            }),
            life: state.faults.take(table, |fault| match fault {
                Fault::JobExpires { after } => Some(*after),
                _ => None,
            }),
            empty: state.faults.strikes(table, &Fault::EmptyTable),
            flat: state.faults.strikes(table, &Fault::FlatParquet),
            strange_status: state.faults.strikes(table, &Fault::UnknownStatus),
            ends_early: state.faults.strikes(table, &Fault::EndsEarly),
            damages,
        }
    }
}

/// The jobs that live.
#[derive(Debug, Default)]
pub(super) struct Jobs(Mutex<HashMap<String, Arc<Job>>>);

impl Jobs {
    /// All live jobs, locked. Those that have expired are forgotten first.
    fn live(&self, now: Timestamp) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Job>>> {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.retain(|_, job| job.expires > now);
        jobs
    }

    pub(super) fn get(&self, id: &str, now: Timestamp) -> Option<Arc<Job>> {
        self.live(now).get(id).cloned()
    }

    fn remove(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl Job {
    pub(super) fn table(&self) -> &TableRef {
        &self.question.table
    }

    /// One of its objects, once it is complete.
    pub(super) fn part(&self, name: &str) -> Option<&Part> {
        self.result.get()?.as_ref().ok()?.iter().find(|part| part.name == name)
    }

    /// Whether it shows as failed. Until it does, it is found like any other.
    fn has_failed(&self, now: Timestamp, (waiting, running): (Duration, Duration)) -> bool {
        matches!(self.result.get(), Some(Err(_))) && now >= later(self.started, waiting + running)
    }

    fn answer(&self, now: Timestamp, delay: (Duration, Duration)) -> Answer {
        let (waiting, running) = delay;
        let expires = self.expires.to_string();
        let in_progress = |word: &str| {
            let word = if self.strange_status { "reticulating" } else { word };
            Answer::new(StatusCode::ACCEPTED, json!({"id": self.id, "status": word, "expires_at": expires}))
        };
        if now < later(self.started, waiting) {
            return in_progress("waiting");
        }
        match self.result.get() {
            Some(result) if now >= later(self.started, waiting + running) => Answer::ok(match result {
                Ok(parts) => self.complete(parts, &expires),
                Err(JobError { uuid, message }) => json!({
                    "id": self.id,
                    "status": "failed",
                    "expires_at": expires,
                    "error": {"type": "ProcessingError", "uuid": uuid, "message": message},
                }),
            }),
            _ => in_progress("running"),
        }
    }

    fn complete(&self, parts: &[Part], expires: &str) -> Value {
        let objects: Vec<_> = parts.iter().map(|part| json!({"id": format!("{}/{}", self.id, part.name)})).collect();
        let (at, since, until) = match self.cut {
            Cut::Snapshot { at } => (Some(at), None, None),
            Cut::Changes { since, .. } if self.ends_early => {
                (None, Some(since), Some(Timestamp::from_micros(since.micros() - 1_000_000)))
            }
            Cut::Changes { since, until } => (None, Some(since), Some(until)),
        };
        let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
        without_nulls(json!({
            "id": self.id,
            "status": "complete",
            "expires_at": expires,
            "objects": objects,
            "schema_version": self.schema_version,
            "at": text(at),
            "since": text(since),
            "until": text(until),
        }))
    }
}

/// Starts a job for a question that was found good, or finds the one that lives.
pub(super) fn start_or_find(state: &Arc<State>, question: Question, cut: Cut) -> Answered {
    let now = state.clock.now();
    let delay = state.options.job_delay;
    let table = question.table.clone();
    let mut live = state.jobs.live(now);
    let same_question = |job: &&Arc<Job>| job.question == question && !job.has_failed(now, delay);
    let mut found = live.values().find(|job| same_question(job) && job.cut == cut).cloned();
    if found.is_none() && live.values().any(|job| same_question(&job)) && state.faults.strikes(Some(&table), &Fault::StaleJob) {
        found = live.values().find(same_question).cloned();
    }
    if let Some(job) = found {
        state.tally.count(|counters| counters.jobs_reattached += 1);
        return Ok(job.answer(now, delay));
    }

    let fate = Fate::draw(state, &table);
    let schema_version = state.source.schema_version(&table, cut.end());
    let described = schema_version
        .and_then(|version| Some((version, state.source.layout(&table, version)?, state.source.schema(&table, version)?)));
    let (schema_version, layout, schema) = described.ok_or_else(|| Answer::not_found("table", &table.table))?;
    let style = Style {
        format: question.format,
        mode: question.mode,
        incremental: matches!(cut, Cut::Changes { .. }),
        flat: fate.flat,
        layout,
        schema,
    };
    let job = Arc::new(Job {
        id: Uuid::new_v4().to_string(),
        cut,
        schema_version,
        started: now,
        expires: later(now, fate.life.unwrap_or(state.options.job_life)),
        strange_status: fate.strange_status,
        ends_early: fate.ends_early,
        question,
        result: OnceLock::new(),
    });
    let recipe = Recipe { table: table.clone(), cut, style, rows_per_object: state.options.rows_per_object.max(1) };
    live.insert(job.id.clone(), job.clone());
    drop(live);

    let start = JobStart { id: job.id.clone(), table, at: state.clock.elapsed() };
    state.tally.count(|counters| counters.job_starts.push(start));
    // Before the work begins, so that the first answer to a new job never depends on who is faster.
    let answer = job.answer(now, delay);
    tokio::spawn(work(state.clone(), job, recipe, fate));
    Ok(answer)
}

/// Makes the objects of a job.
async fn work(state: Arc<State>, job: Arc<Job>, recipe: Recipe, fate: Fate) {
    let uuid = Uuid::new_v4().to_string();
    let result = match fate.fails {
        Some(message) => Err(JobError { uuid, message }),
        None => {
            let empty = fate.empty || recipe.cut.is_empty();
            make(&state, recipe, empty, fate.damages).await.map_err(|error| {
                if error.kind() != Kind::Cancelled {
                    tracing::error!(table = %job.table(), %error, "a job of the demo server failed");
                }
                JobError { uuid, message: error.to_string() }
            })
        }
    };
    // Set once, here.
    let _ = job.result.set(result);
}

async fn make(state: &Arc<State>, recipe: Recipe, empty: bool, damages: Vec<(Damage, Spot)>) -> Result<Vec<Part>> {
    if empty && damages.is_empty() {
        return Ok(Vec::new());
    }
    let _turn = state.encoders.acquire().await;
    let state = state.clone();
    let made = tokio::task::spawn_blocking(move || {
        if state.stop.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Cancelled, "The server stops"));
        }
        let parts = match empty {
            true => Vec::new(),
            false => state.store.objects(&*state.source, &recipe, &state.stop)?,
        };
        mangle(&state.store, &recipe.style, parts, &damages)
    });
    made.await.unwrap_or_else(|panic| Err(Error::new(Kind::Bug, "Encoding ended in a panic").caused_by(panic)))
}

/// `GET /dap/job/{id}`.
pub(super) fn status(state: &State, id: &str) -> Answered {
    let now = state.clock.now();
    let job = state.jobs.get(id, now).ok_or_else(|| Answer::not_found("job", id))?;
    if state.faults.strikes(Some(job.table()), &Fault::JobVanishes) {
        state.jobs.remove(id);
        return Err(Answer::not_found("job", id).into());
    }
    Ok(job.answer(now, state.options.job_delay))
}
