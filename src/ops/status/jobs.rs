//! When the next jobs may start: from the limit of the service, the jobs in the journals of this machine, and the service's refresh interval.

use std::path::Path;

use super::types::{JobStarts, NextJob};
use crate::api::Pacing;
use crate::model::{TableRef, Timestamp};
use crate::ops::Refresh;
use crate::ops::journal::{RecordedJob, recorded_jobs, sync_key};

/// The jobs in the journals of this machine.
pub(super) struct Jobs {
    recorded: Vec<RecordedJob>,
    location: String,
    now: Timestamp,
    next_at: Timestamp,
}

impl Jobs {
    /// The jobs in the journals of `folder`, for a target at `location`.
    pub(super) fn read(folder: Option<&Path>, location: &str, now: Timestamp) -> Self {
        let recorded = folder.map(recorded_jobs).unwrap_or_default();
        let next_at = next_start(&recent(&recorded, now), now);
        Self { recorded, location: location.to_owned(), now, next_at }
    }

    pub(super) fn starts(&self, tables: usize) -> JobStarts {
        let limit = Pacing::default();
        let windows = tables.saturating_sub(1) as u64 / u64::from(limit.job_starts.max(1));
        JobStarts {
            per_minute: limit.job_starts,
            recent: recent(&self.recorded, self.now).len(),
            next_at: self.next_at.to_string(),
            seconds_for_all: windows * limit.window.as_secs(),
        }
    }

    /// The next job of a table whose data is as of `bookmark`.
    pub(super) fn next(&self, table: &TableRef, bookmark: Timestamp) -> NextJob {
        let key = sync_key(table, &self.location);
        let is_alive = |job: &&RecordedJob| !job.is_done && job.expires.is_none_or(|expires| expires > self.now);
        if let Some(job) = self.recorded.iter().filter(|job| job.query == key).find(is_alive) {
            return NextJob { at: self.now.to_string(), resumes: Some(job.id.clone()) };
        }
        let interval = Refresh::AsDocumented.interval(table).as_micros() as i64;
        let refreshed = Timestamp::from_micros(bookmark.micros().saturating_add(interval));
        NextJob { at: self.next_at.max(refreshed).to_string(), resumes: None }
    }
}

/// Times of the job starts within the last window, oldest first.
fn recent(recorded: &[RecordedJob], now: Timestamp) -> Vec<Timestamp> {
    let window = Pacing::default().window.as_micros() as i64;
    let starts = recorded.iter().filter_map(|job| job.noted);
    let mut starts: Vec<Timestamp> = starts.filter(|at| now.micros().saturating_sub(at.micros()) < window).collect();
    starts.sort_unstable();
    starts
}

/// When the limit allows the next start after `recent` starts, oldest first.
fn next_start(recent: &[Timestamp], now: Timestamp) -> Timestamp {
    let limit = Pacing::default();
    let window = limit.window.as_micros() as i64;
    let blocking = recent.len().checked_sub(limit.job_starts as usize).and_then(|place| recent.get(place));
    let free = blocking.map_or(now, |at| Timestamp::from_micros(at.micros() + window));
    free.max(now).whole_seconds()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn job(table: &str, noted: i64, is_done: bool) -> RecordedJob {
        let table = TableRef::new("canvas", table);
        RecordedJob {
            query: sync_key(&table, "file:///lake/"),
            id: format!("job of {table}"),
            noted: Some(at(noted)),
            expires: Some(at(noted + 86_400)),
            is_done,
        }
    }

    fn jobs(recorded: Vec<RecordedJob>, now: i64) -> Jobs {
        let now = at(now);
        let next_at = next_start(&recent(&recorded, now), now);
        Jobs { recorded, location: "file:///lake/".to_owned(), now, next_at }
    }

    #[test]
    fn five_starts_within_a_minute_delay_the_next() {
        let five: Vec<RecordedJob> = (0..5).map(|number| job(&format!("t{number}"), 1000 + number, true)).collect();
        let starts = jobs(five.clone(), 1010).starts(122);
        assert_eq!((starts.per_minute, starts.recent, starts.next_at), (5, 5, at(1060).to_string()));
        assert_eq!(starts.seconds_for_all, 24 * 60);
        assert_eq!(jobs(five.clone(), 1061).starts(5).next_at, at(1061).to_string());
        assert_eq!(jobs(five[..4].to_vec(), 1010).starts(6).next_at, at(1010).to_string());
    }

    #[test]
    fn a_job_is_resumed_or_waits_for_the_service() {
        let jobs = jobs(vec![job("users", 1000, false), job("courses", 1000, true)], 2000);
        let next = |table: &str| jobs.next(&TableRef::new("canvas", table), at(1500));
        assert_eq!(next("users"), NextJob { at: at(2000).to_string(), resumes: Some("job of canvas.users".to_owned()) });
        assert_eq!(next("courses"), NextJob { at: at(1500 + 4 * 3600).to_string(), resumes: None });
        assert_eq!(jobs.next(&TableRef::new("new_quizzes", "items"), at(1500)).at, at(1500 + 8 * 3600).to_string());
    }
}
