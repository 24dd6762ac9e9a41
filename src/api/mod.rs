//! The client of the DAP HTTP API: login, tables, schemas, queries, jobs and object URLs.
//!
//! One [`Client`] per run is enough. It is cheap to clone; all clones share the token, the pacing and the connections. Every future can be
//! dropped at any await. At most a job is left on the service, which the next run resumes.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use daplake::api::{Client, ClientOptions, Credentials, Query};
//! use daplake::model::{Format, Namespace, TableRef, Window};
//! use daplake::redact::Secret;
//!
//! let credentials = Credentials {
//!     client_id: std::env::var("DAP_CLIENT_ID")?,
//!     client_secret: Secret::new(std::env::var("DAP_CLIENT_SECRET")?),
//! };
//! let client = Client::new(ClientOptions::new("https://api-gateway.instructure.com".parse()?, credentials))?;
//! println!("{:?}", client.tables(&Namespace::new("canvas")).await?);
//!
//! let table = TableRef::new("canvas", "users");
//! let query = Query { table, format: Format::Parquet, mode: None, window: Window::Snapshot };
//! let job = client.run(&query).await?;
//! println!("{} objects as of {}", job.objects.len(), job.reached);
//! # Ok(())
//! # }
//! ```

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
