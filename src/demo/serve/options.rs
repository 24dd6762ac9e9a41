//! Options of the server.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Behaviour of the server without faults.
#[derive(Clone)]
pub struct ServeOptions {
    /// Address to listen on; loopback only. Port 0 selects a free port.
    pub listen: SocketAddr,
    /// The client id and secret that can log in.
    pub credentials: (String, String),
    /// Rows per object.
    pub rows_per_object: u64,
    /// Time that a job waits, and time that it runs.
    pub job_delay: (Duration, Duration),
    /// Time after which a job and its objects expire, from the start of the job.
    pub job_life: Duration,
    /// Time after which a signed URL expires.
    pub url_life: Duration,
    /// Time after which a token expires.
    pub token_life: Duration,
    /// Calls per window: lists, schemas, job starts, job status, object URLs. 0 is no limit.
    pub limits: [u32; 5],
    /// Length of the rate-limit window (a minute in the real service).
    pub limit_window: Duration,
    /// Folder in which encoded objects are kept for later servers with the same school. `None`: a temporary folder.
    pub cache: Option<PathBuf>,
    /// Interval of automatic commits.
    pub commit_every: Option<Duration>,
}

impl Default for ServeOptions {
    /// The limits of the real service, with faster jobs.
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
        // Destructured so that a new field is a compile error here. The secret is left out.
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
