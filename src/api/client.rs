//! The client itself: one per run, cheap to clone, paced and retried inside.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::{Credentials, FinishedJob, ObjectId, Query, VersionedSchema};
use crate::error::Result;
use crate::model::Namespace;
use crate::redact::SafeUrl;

/// Calls per minute for each kind of call; 0 switches pacing off for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pacing {
    /// `POST .../data`.
    pub job_starts: u32,
    /// `GET /dap/job/{id}`.
    pub job_status: u32,
    /// `GET .../table`.
    pub table_lists: u32,
    /// `GET .../schema`.
    pub schemas: u32,
    /// `POST /dap/object/url`.
    pub object_urls: u32,
}

impl Default for Pacing {
    fn default() -> Self {
        Self { job_starts: 5, job_status: 500, table_lists: 5, schemas: 500, object_urls: 200 }
    }
}

/// How long to go on after passing faults.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all for one request that meets 5xx or network trouble.
    pub attempts: u32,
    /// Before the second attempt; doubles with jitter from there.
    pub first_delay: Duration,
    /// Cap of one delay.
    pub max_delay: Duration,
    /// Longest time in all spent waiting out 429 for one request.
    pub throttle_budget: Duration,
    /// Attempts in all for one query whose job ends as failed.
    pub job_attempts: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(30),
            throttle_budget: Duration::from_secs(30 * 60),
            job_attempts: 3,
        }
    }
}

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Default `https://api-gateway.instructure.com`.
    pub base_url: Url,
    /// The API key.
    pub credentials: Credentials,
    /// Our own pace.
    pub pacing: Pacing,
    /// Patience.
    pub retry: RetryPolicy,
    /// Extra root certificates (PEM).
    pub ca_bundle: Option<PathBuf>,
    /// First and largest distance of two polls of one job.
    pub poll: (Duration, Duration),
    /// A request or download that brings no byte for so long is broken.
    pub idle_timeout: Duration,
}

/// A client of the DAP API.
#[derive(Debug, Clone)]
pub struct Client {}

impl Client {
    /// Checks the options; no network yet.
    pub fn new(_options: ClientOptions) -> Result<Self> {
        unimplemented!()
    }

    /// Names of the tables of a namespace, in the service's order.
    pub async fn tables(&self, _namespace: &Namespace) -> Result<Vec<String>> {
        unimplemented!()
    }

    /// The present schema of a table.
    pub async fn table_schema(&self, _table: &crate::model::TableRef) -> Result<VersionedSchema> {
        unimplemented!()
    }

    /// Starts a query (or re-attaches to its live job) and waits until it is complete. Failed jobs are asked again as the
    /// retry policy says; a complete job that is about to expire is waited out and asked anew.
    pub async fn run(&self, _query: &Query) -> Result<FinishedJob> {
        unimplemented!()
    }

    /// As [`Client::run`], but first re-attaches to the job `id` if it still lives.
    pub async fn resume(&self, _id: &str, _query: &Query) -> Result<FinishedJob> {
        unimplemented!()
    }

    /// Pre-signed URLs, in the order of `ids`; batches are the caller's business. Kind `Expired` when an object is gone.
    pub async fn object_urls(&self, _ids: &[ObjectId]) -> Result<Vec<SafeUrl>> {
        unimplemented!()
    }
}
