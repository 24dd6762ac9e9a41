//! The client of the DAP HTTP API: login, tables, schemas, queries, jobs, object URLs. It knows nothing of Arrow or of targets.

mod client;
mod types;

pub use client::{Client, ClientOptions, Pacing, RetryPolicy};
pub use types::{Credentials, FinishedJob, JobStatus, ObjectId, Query, VersionedSchema};
