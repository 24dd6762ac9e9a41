//! The client of the DAP HTTP API: login, tables, schemas, queries, jobs and object URLs.
//!
//! One [`Client`] per run is enough. It is cheap to clone; all clones share the token, the pacing and the connections. Every future can be
//! dropped at any await. At most a job is left on the service, which the next run resumes.

mod auth;
mod client;
mod exchange;
mod pacing;
mod query;
mod retry;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod types;
mod wire;

pub use client::{Client, ClientOptions, hook_http};
pub use pacing::Pacing;
pub use query::{Job, RunOptions};
pub use retry::RetryPolicy;
pub use types::{Credentials, FinishedJob, JobStatus, ObjectId, Query, VersionedSchema};

// Shared with `fetch`: the interpretation of network errors, and retries.
#[cfg(feature = "cluster")]
pub(crate) use exchange::exchange;
pub(crate) use exchange::{Fault, network_fault};
pub(crate) use retry::{Retry, RetryReason, retry_after};
