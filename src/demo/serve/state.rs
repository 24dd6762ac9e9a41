//! The state that all connections of a server share.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use url::Url;

use super::clock::Clock;
use super::counters::{Counters, Tally};
use super::options::ServeOptions;
use super::source::Source;
use crate::demo::serve::endpoints::tokens::Tokens;
use crate::demo::serve::faults::active::Faults;
use crate::demo::serve::faults::fault::Endpoint;
use crate::demo::serve::http::rate_limit::Window;
use crate::demo::serve::jobs::job::Jobs;
use crate::demo::serve::jobs::store::Store;
use crate::error::Result;
use crate::model::{TableRef, Timestamp};

pub(super) struct State {
    pub(super) source: Arc<dyn Source>,
    pub(super) options: ServeOptions,
    pub(super) url: Url,
    pub(super) clock: Clock,
    pub(super) tally: Tally,
    pub(super) faults: Faults,
    pub(super) tokens: Tokens,
    pub(super) jobs: Jobs,
    pub(super) store: Store,
    /// Limits the number of results that are encoded concurrently.
    pub(super) encoders: Semaphore,
    /// Stops blocking work when the server is dropped.
    pub(super) stop: AtomicBool,
    windows: Mutex<[Window; Endpoint::ALL.len()]>,
    snapshots_required: Mutex<HashMap<TableRef, Timestamp>>,
    /// Keyed hashes (SipHash with random keys), sufficient for URLs that only this process signs and verifies.
    signers: [RandomState; 2],
}

impl State {
    pub(super) fn new(source: Arc<dyn Source>, options: ServeOptions, url: Url) -> Result<Self> {
        let store = Store::new(options.cache.clone(), source.fingerprint())?;
        let encoders = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            source,
            options,
            url,
            clock: Clock::new(),
            tally: Tally::default(),
            faults: Faults::default(),
            tokens: Tokens::default(),
            jobs: Jobs::default(),
            store,
            encoders: Semaphore::new(encoders),
            stop: AtomicBool::new(false),
            windows: Mutex::default(),
            snapshots_required: Mutex::default(),
            signers: [RandomState::new(), RandomState::new()],
        })
    }

    /// Admits a call within its limit, or returns the seconds to wait.
    pub(super) fn admit(&self, endpoint: Endpoint) -> Result<(), u64> {
        let [tables, schema, data, job, urls] = self.options.limits;
        let limit = match endpoint {
            Endpoint::Tables => tables,
            Endpoint::Schema => schema,
            Endpoint::Data => data,
            Endpoint::Job => job,
            Endpoint::Urls => urls,
            Endpoint::Login | Endpoint::Objects => 0,
        };
        let mut windows = self.windows.lock();
        let admitted = windows[endpoint as usize].admit(self.clock.elapsed(), limit, self.options.limit_window);
        admitted.map_err(|wait| (wait.as_nanos().div_ceil(1_000_000_000) as u64).max(1))
    }

    pub(super) fn counters(&self) -> Counters {
        let mut counters = self.tally.snapshot();
        let windows = self.windows.lock();
        counters.peak_calls = Endpoint::ALL.into_iter().zip(windows.iter().map(Window::peak)).collect();
        counters.faults = self.faults.struck();
        counters
    }

    pub(super) fn require_snapshot(&self, table: TableRef, before: Timestamp) {
        self.snapshots_required.lock().insert(table, before);
    }

    pub(super) fn snapshot_required_before(&self, table: &TableRef) -> Option<Timestamp> {
        self.snapshots_required.lock().get(table).copied()
    }

    /// The signature of a URL for an object that expires at a time.
    pub(super) fn sign(&self, object: &str, expires: Timestamp) -> String {
        let [high, low] = self.signers.each_ref().map(|key| key.hash_one((object, expires)));
        format!("{high:016x}{low:016x}")
    }
}
