//! What happened so far, for tests and for the curious. It counts; it does not decide.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::demo::serve::faults::fault::Endpoint;
use crate::model::TableRef;

/// Everything the server counted since its start.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counters {
    /// Calls by kind, whatever came of them.
    pub calls: BTreeMap<Endpoint, u64>,
    /// Answers of 429 by kind, whether the limit or a fault sent them.
    pub throttled: BTreeMap<Endpoint, u64>,
    /// The most calls of a kind that arrived within one limit window, refused ones included.
    pub peak_calls: BTreeMap<Endpoint, u64>,
    /// Jobs that were started, in order.
    pub job_starts: Vec<JobStart>,
    /// Queries that were answered with a live job.
    pub jobs_reattached: u64,
    /// Tokens handed out.
    pub logins: u64,
    /// Logins refused for wrong credentials.
    pub refused_logins: u64,
    /// API calls without a valid bearer token.
    pub wrong_auth: u64,
    /// Downloads that carried an `Authorization` header, which must never happen.
    pub leaked_auth: u64,
    /// Downloads by object id.
    pub objects: BTreeMap<String, Traffic>,
    /// How often each fault struck, by its name in the code, such as `Throttle`.
    pub faults: BTreeMap<String, u64>,
}

/// One job that was started.
#[derive(Debug, Clone, PartialEq)]
pub struct JobStart {
    /// Its id.
    pub id: String,
    /// Its table.
    pub table: TableRef,
    /// When, since the server's start.
    pub at: Duration,
}

/// Downloads of one object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// GET requests, refused ones included.
    pub gets: u64,
    /// Bytes of the object that were sent.
    pub bytes: u64,
}

impl Counters {
    /// Calls of one kind.
    pub fn calls_of(&self, endpoint: Endpoint) -> u64 {
        self.calls.get(&endpoint).copied().unwrap_or(0)
    }

    /// Answers of 429 to one kind of call.
    pub fn throttled_of(&self, endpoint: Endpoint) -> u64 {
        self.throttled.get(&endpoint).copied().unwrap_or(0)
    }

    /// Jobs that were started.
    pub fn jobs_started(&self) -> u64 {
        self.job_starts.len() as u64
    }

    /// GETs and bytes of all objects together.
    pub fn downloads(&self) -> Traffic {
        let add = |sum: Traffic, one: &Traffic| Traffic { gets: sum.gets + one.gets, bytes: sum.bytes + one.bytes };
        self.objects.values().fold(Traffic::default(), add)
    }
}

/// The counters while the server runs.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counters>);

impl Tally {
    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn snapshot(&self) -> Counters {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
