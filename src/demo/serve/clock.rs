//! The server's clock: real time plus an offset that tests advance, so that they need not wait for an expiry.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::model::Timestamp;

#[derive(Debug)]
pub(super) struct Clock {
    begun: Instant,
    began_at: Timestamp,
    ahead_micros: AtomicI64,
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), began_at: Timestamp::now(), ahead_micros: AtomicI64::new(0) }
    }

    /// Time since the server's start. Monotonic.
    pub(super) fn elapsed(&self) -> Duration {
        let ahead = Duration::from_micros(self.ahead_micros.load(Ordering::Relaxed).unsigned_abs());
        self.begun.elapsed() + ahead
    }

    pub(super) fn now(&self) -> Timestamp {
        later(self.began_at, self.elapsed())
    }

    pub(super) fn run_ahead(&self, by: Duration) {
        self.ahead_micros.fetch_add(micros(by), Ordering::Relaxed);
    }
}

/// `time + by`.
pub(super) fn later(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_micros(time.micros().saturating_add(micros(by)))
}
