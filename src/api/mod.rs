//! The client of the DAP HTTP API: login, tables, schemas, queries, jobs, object URLs. It knows nothing of Arrow or of targets.
//!
//! One [`Client`] per run. It is cheap to clone, and all clones share one token, one pace and one pair of connection pools.
//! Everything is safe to drop at any await: a dropped call leaves at most a job on the service, which the next run finds again.

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

// What `fetch` shares with us: one way to read a network fault, one way to wait.
#[cfg(feature = "cluster")]
pub(crate) use exchange::exchange;
pub(crate) use exchange::{Fault, network_fault};
pub(crate) use retry::{Retry, RetryReason, retry_after};
