//! Jobs: waiting, running, complete or failed, and removed when they expire.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::StatusCode;
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use crate::demo::serve::clock::later;
use crate::demo::serve::http::answer::{Answer, without_nulls};
use crate::demo::serve::jobs::store::{Cut, Part};
use crate::error::Result;
use crate::model::{Format, Mode, TableRef, Timestamp};

/// The body of a query, with its table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query {
    pub(crate) table: TableRef,
    pub(crate) format: Format,
    pub(crate) mode: Mode,
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
}

/// A job. Its status is a function of the clock and of its result.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) query: Query,
    pub(crate) cut: Cut,
    pub(crate) schema_version: i64,
    pub(crate) started: Timestamp,
    pub(crate) expires: Timestamp,
    /// Whether its status while in progress is an unknown one.
    pub(crate) unknown_status: bool,
    pub(crate) ends_early: bool,
    pub(crate) result: OnceLock<Result<Vec<Part>, JobError>>,
}

#[derive(Debug)]
pub(crate) struct JobError {
    pub(crate) uuid: String,
    pub(crate) message: String,
}

/// The jobs that have not expired.
#[derive(Debug, Default)]
pub(crate) struct Jobs(Mutex<HashMap<String, Arc<Job>>>);

impl Jobs {
    /// All jobs that have not expired, locked; removes the others.
    pub(crate) fn live(&self, now: Timestamp) -> MutexGuard<'_, HashMap<String, Arc<Job>>> {
        let mut jobs = self.0.lock();
        jobs.retain(|_, job| job.expires > now);
        jobs
    }

    pub(crate) fn get(&self, id: &str, now: Timestamp) -> Option<Arc<Job>> {
        self.live(now).get(id).cloned()
    }

    pub(crate) fn remove(&self, id: &str) {
        self.0.lock().remove(id);
    }
}

impl Job {
    pub(crate) fn table(&self) -> &TableRef {
        &self.query.table
    }

    /// An object by name, once the job is complete.
    pub(crate) fn part(&self, name: &str) -> Option<&Part> {
        self.result.get()?.as_ref().ok()?.iter().find(|part| part.name == name)
    }

    /// Whether the status is failed. Before that, an equal query returns the job.
    pub(crate) fn has_failed(&self, now: Timestamp, (waiting, running): (Duration, Duration)) -> bool {
        matches!(self.result.get(), Some(Err(_))) && now >= later(self.started, waiting + running)
    }

    pub(crate) fn answer(&self, now: Timestamp, delay: (Duration, Duration)) -> Answer {
        let (waiting, running) = delay;
        let expires = self.expires.to_string();
        let in_progress = |word: &str| {
            let word = if self.unknown_status { "reticulating" } else { word };
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
