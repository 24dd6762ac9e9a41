//! Counters of calls, jobs and downloads, for tests and benchmarks.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::demo::serve::faults::fault::Endpoint;
use crate::model::TableRef;

/// The counters since the server's start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counters {
    /// Calls by endpoint, including refused ones.
    pub calls: BTreeMap<Endpoint, u64>,
    /// Responses with status 429 by endpoint, by rate limit or fault.
    pub throttled: BTreeMap<Endpoint, u64>,
    /// Largest number of calls to an endpoint within one rate-limit window, including refused ones.
    pub peak_calls: BTreeMap<Endpoint, u64>,
    /// Started jobs, in order.
    pub job_starts: Vec<JobStart>,
    /// Queries that returned an existing job.
    pub jobs_reattached: u64,
    /// Issued tokens.
    pub logins: u64,
    /// Logins with wrong credentials.
    pub refused_logins: u64,
    /// API calls without a valid bearer token.
    pub wrong_auth: u64,
    /// Downloads with an `Authorization` header, which a correct client never sends.
    pub leaked_auth: u64,
    /// Downloads by object id.
    pub objects: BTreeMap<String, Traffic>,
    /// How often each fault occurred, by its variant, such as `Throttle`.
    pub faults: BTreeMap<String, u64>,
}

/// A started job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobStart {
    /// Job id.
    pub id: String,
    /// Table of the query.
    pub table: TableRef,
    /// Time since the server's start.
    pub at: Duration,
}

/// Download traffic of one object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// GET requests, including refused ones.
    pub gets: u64,
    /// Bytes sent.
    pub bytes: u64,
}

impl Counters {
    /// Number of calls to an endpoint.
    pub fn calls_of(&self, endpoint: Endpoint) -> u64 {
        self.calls.get(&endpoint).copied().unwrap_or(0)
    }

    /// Number of responses with status 429 from an endpoint.
    pub fn throttled_of(&self, endpoint: Endpoint) -> u64 {
        self.throttled.get(&endpoint).copied().unwrap_or(0)
    }

    /// Number of started jobs.
    pub fn jobs_started(&self) -> u64 {
        self.job_starts.len() as u64
    }

    /// Download traffic of all objects.
    pub fn downloads(&self) -> Traffic {
        let add = |sum: Traffic, one: &Traffic| Traffic { gets: sum.gets + one.gets, bytes: sum.bytes + one.bytes };
        self.objects.values().fold(Traffic::default(), add)
    }
}

/// The counters of a running server.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counters>);

impl Tally {
    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.0.lock());
    }

    pub(super) fn snapshot(&self) -> Counters {
        self.0.lock().clone()
    }
}
