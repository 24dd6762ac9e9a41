//! Runs jobs: a query finds its current job or starts a new one, whose objects are encoded in the background.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use uuid::Uuid;

use crate::demo::serve::clock::later;
use crate::demo::serve::counters::JobStart;
use crate::demo::serve::encode::Style;
use crate::demo::serve::faults::damage;
use crate::demo::serve::faults::fault::{Damage, Fault, Spot};
use crate::demo::serve::http::answer::{Answer, Answered};
use crate::demo::serve::jobs::job::{Job, JobError, Query};
use crate::demo::serve::jobs::store::{Cut, Part, Recipe};
use crate::demo::serve::state::State;
use crate::error::{Error, Kind, Result};
use crate::model::TableRef;

/// The faults that apply to one job.
#[derive(Debug, Default)]
struct JobFaults {
    fails: Option<String>,
    life: Option<Duration>,
    empty: bool,
    flat: bool,
    unknown_status: bool,
    ends_early: bool,
    damages: Vec<(Damage, Spot)>,
}

impl JobFaults {
    fn take(state: &State, table: &TableRef) -> Self {
        let table = Some(table);
        let mut damages: Vec<(Damage, Spot)> = Vec::new();
        // Each damage once per job: a fault without an end would loop forever.
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
            unknown_status: state.faults.strikes(table, &Fault::UnknownStatus),
            ends_early: state.faults.strikes(table, &Fault::EndsEarly),
            damages,
        }
    }
}

/// Returns the current job of a valid query, or starts a job.
pub(crate) fn start_or_find(state: &Arc<State>, query: Query, cut: Cut) -> Answered {
    let now = state.clock.now();
    let delay = state.options.job_delay;
    let table = query.table.clone();
    let mut live = state.jobs.live(now);
    let same_query = |job: &&Arc<Job>| job.query == query && !job.has_failed(now, delay);
    let mut found = live.values().find(|job| same_query(job) && job.cut == cut).cloned();
    if found.is_none() && live.values().any(|job| same_query(&job)) && state.faults.strikes(Some(&table), &Fault::StaleJob) {
        found = live.values().find(same_query).cloned();
    }
    if let Some(job) = found {
        state.tally.count(|counters| counters.jobs_reattached += 1);
        return Ok(job.answer(now, delay));
    }

    let faults = JobFaults::take(state, &table);
    let schema_version = state.source.schema_version(&table, cut.end());
    let described = schema_version
        .and_then(|version| Some((version, state.source.layout(&table, version)?, state.source.schema(&table, version)?)));
    let (schema_version, layout, schema) = described.ok_or_else(|| Answer::not_found("table", &table.table))?;
    let style = Style {
        format: query.format,
        mode: query.mode,
        incremental: matches!(cut, Cut::Changes { .. }),
        flat: faults.flat,
        layout,
        schema,
    };
    let job = Arc::new(Job {
        id: Uuid::new_v4().to_string(),
        cut,
        schema_version,
        started: now,
        expires: later(now, faults.life.unwrap_or(state.options.job_life)),
        unknown_status: faults.unknown_status,
        ends_early: faults.ends_early,
        query,
        result: OnceLock::new(),
    });
    let recipe = Recipe { table: table.clone(), cut, style, rows_per_object: state.options.rows_per_object.max(1) };
    live.insert(job.id.clone(), job.clone());
    drop(live);

    let start = JobStart { id: job.id.clone(), table, at: state.clock.elapsed() };
    state.tally.count(|counters| counters.job_starts.push(start));
    // Before the work starts, so that the first response does not depend on timing.
    let answer = job.answer(now, delay);
    tokio::spawn(work(state.clone(), job, recipe, faults));
    Ok(answer)
}

/// Encodes the objects of a job.
async fn work(state: Arc<State>, job: Arc<Job>, recipe: Recipe, faults: JobFaults) {
    let uuid = Uuid::new_v4().to_string();
    let result = match faults.fails {
        Some(message) => Err(JobError { uuid, message }),
        None => {
            let empty = faults.empty || recipe.cut.is_empty();
            make(&state, recipe, empty, faults.damages).await.map_err(|error| {
                if error.kind() != Kind::Cancelled {
                    tracing::error!(table = %job.table(), %error, "a job of the demo server failed");
                }
                JobError { uuid, message: error.to_string() }
            })
        }
    };
    // The only place that sets it.
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
            return Err(Error::new(Kind::Cancelled, "The demo server was stopped"));
        }
        let parts = match empty {
            true => Vec::new(),
            false => state.store.objects(&*state.source, &recipe, &state.stop)?,
        };
        damage::apply(&state.store, &recipe.style, parts, &damages)
    });
    made.await.unwrap_or_else(|panic| Err(Error::new(Kind::Bug, "Encoding panicked").caused_by(panic)))
}

/// `GET /dap/job/{id}`.
pub(crate) fn status(state: &State, id: &str) -> Answered {
    let now = state.clock.now();
    let job = state.jobs.get(id, now).ok_or_else(|| Answer::not_found("job", id))?;
    if state.faults.strikes(Some(job.table()), &Fault::JobVanishes) {
        state.jobs.remove(id);
        return Err(Answer::not_found("job", id).into());
    }
    Ok(job.answer(now, state.options.job_delay))
}
