//! How the server behaves when no fault is switched on.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// How the server behaves when no fault is switched on.
#[derive(Clone)]
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

impl Default for ServeOptions {
    /// As the real service, but with quick jobs.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            credentials: ("demo-region#demo-client".into(), "demo-secret".into()),
            rows_per_object: 50_000,
            job_delay: (Duration::from_millis(200), Duration::from_millis(800)),
            job_life: Duration::from_secs(24 * 3600),
            url_life: Duration::from_secs(15 * 60),
            token_life: Duration::from_secs(3600),
            limits: [5, 500, 5, 500, 200],
            limit_window: Duration::from_secs(60),
            cache: None,
            commit_every: None,
        }
    }
}

impl ServeOptions {
    /// Without delays and limits.
    pub fn instant() -> Self {
        Self { job_delay: (Duration::ZERO, Duration::ZERO), limits: [0; 5], ..Self::default() }
    }
}

impl fmt::Debug for ServeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Destructured so that a new field cannot be forgotten. The secret stays out.
        let Self {
            listen,
            credentials: (client_id, _),
            rows_per_object,
            job_delay,
            job_life,
            url_life,
            token_life,
            limits,
            limit_window,
            cache,
            commit_every,
        } = self;
        f.debug_struct("ServeOptions")
            .field("listen", listen)
            .field("client_id", client_id)
            .field("rows_per_object", rows_per_object)
            .field("job_delay", job_delay)
            .field("job_life", job_life)
            .field("url_life", url_life)
            .field("token_life", token_life)
            .field("limits", limits)
            .field("limit_window", limit_window)
            .field("cache", cache)
            .field("commit_every", commit_every)
            .finish()
    }
}
