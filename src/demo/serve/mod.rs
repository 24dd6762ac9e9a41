//! The school over HTTP: every endpoint of the DAP API, jobs with their life, signed URLs, ranges, limits, faults on command.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::school::School;
use crate::error::Result;

/// How the server behaves when no fault is switched on.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Loopback only; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The one client id and secret that may log in.
    pub credentials: (String, String),
    /// Rows per object; a result has as many objects as it takes (at least 1 unless empty).
    pub rows_per_object: u64,
    /// Time a job spends waiting, then running.
    pub job_delay: (Duration, Duration),
    /// Life of a job and its objects from its start.
    pub job_life: Duration,
    /// Life of a signed URL.
    pub url_life: Duration,
    /// Life of a token.
    pub token_life: Duration,
    /// Calls per window (lists, schemas, job starts, job status, object URLs); 0 = no limit.
    pub limits: [u32; 5],
    /// Length of the rate limit window (a minute on the real service).
    pub limit_window: Duration,
    /// Encoded objects are kept here (and reused by later servers with the same school); a private temporary folder if `None`.
    pub cache: Option<PathBuf>,
    /// Makes a new commit by itself every so often.
    pub commit_every: Option<Duration>,
}

/// A running server. Stops when dropped.
#[derive(Debug)]
pub struct Server {}

impl Server {
    /// Binds and serves in background tasks of the current tokio runtime.
    pub async fn start(_school: Arc<School>, _options: ServeOptions) -> Result<Self> {
        unimplemented!()
    }

    /// Base URL for `--base-url`.
    pub fn url(&self) -> Url {
        unimplemented!()
    }

    /// The school it serves.
    pub fn school(&self) -> &Arc<School> {
        unimplemented!()
    }
}
