//! Extracts an institution's data from the Instructure Data Access Platform (DAP, also called Canvas Data 2) and keeps Delta Lake tables,
//! Parquet folders and SQL databases up to date.
//!
//! The program `daplake` is a thin layer over this library: its commands are functions in [`ops`].
//!
//! # Synchronising tables
//!
//! The first run of [`ops::sync()`] loads a snapshot of each table, later runs load the changes since then. Rows, schema and bookmark of a
//! table become visible together.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use daplake::ops::{self, Selection, SyncRequest};
//! use daplake::{Client, ClientOptions, Credentials, Engine, EngineOptions, Secret};
//!
//! let credentials = Credentials {
//!     client_id: std::env::var("DAP_CLIENT_ID")?,
//!     client_secret: Secret::new(std::env::var("DAP_CLIENT_SECRET")?),
//! };
//! let client = Client::new(ClientOptions::new("https://api-gateway.instructure.com".parse()?, credentials))?;
//! // At most 1 GiB for sorting and deduplication; what exceeds it is spilled to temporary files.
//! let engine = Engine::new(EngineOptions { memory_limit: 1 << 30, temp_dir: None, partitions: 4 })?;
//! // A folder, `s3://bucket/prefix`, or a database such as `postgresql://user:password@host/database`.
//! let sink = ops::open_sink(&"lake".parse()?, &engine)?;
//!
//! let selection = Selection {
//!     namespaces: vec!["canvas".into()],
//!     tables: vec!["users".into(), "enrollments".into()],
//!     exclude: Vec::new(),
//! };
//! let report = ops::sync(SyncRequest::new(client, sink, engine, selection)).await?;
//! for table in &report.tables {
//!     println!("{}: {:?}", table.table, table.outcome);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Map
//!
//! | to | use |
//! | --- | --- |
//! | connect to the service, list tables, read their schemas | [`Client`] |
//! | keep a lake or a database up to date | [`ops::sync()`], [`ops::open_sink`] |
//! | resume the jobs of an interrupted run | [`ops::Journal`] |
//! | end a run early | [`ops::Cancellation`] |
//! | leave columns out, or hash them | [`ops::SyncRequest::drop_column`], [`ops::SyncRequest::hash_column`] |
//! | see which tables a target has, and how old their data are | [`ops::status()`] |
//! | run SQL over lake tables | [`ops::query()`], [`ops::open_lake`] |
//! | compact small files, remove files that are no longer needed | [`ops::optimize()`], [`ops::vacuum()`] |
//! | download files in the layout of the official client | [`ops::download()`] |
//! | write a target of your own | [`sink::Sink`], [`sink::Load`] |
//! | test a target of your own | `sink::conformance`, with the feature `testing` |
//! | handle errors by kind | [`Error`], [`Kind`] |
//! | try everything without an account | [`demo`], an embedded DAP server |
//!
//! The directory `examples/tour` has a short program for each of these.
//!
//! # Conventions
//!
//! - Rows are Arrow record batches of the crate `arrow` in version 59, as streams. Sizes are bytes. Times are UTC with microseconds
//!   ([`Timestamp`]).
//! - Dropping a future cancels it; tables keep their old or get their new state, never a mixture.
//! - An [`Error`] has a stable [`Kind`]. The failure of a single table is part of a report; an error of the function itself means that no
//!   table was tried.
//! - Functions print nothing and read no environment variables. Log lines and spans go to `tracing`; those with the target
//!   `daplake::progress` follow a run.
//!
//! # Features
//!
//! `lake` (Delta Lake, Parquet folders, SQL queries), `postgres`, `mysql` and `mssql` (databases), and `demo` (the embedded server) are enabled
//! by default. `cluster` distributes loads over an Apache DataFusion Ballista cluster, `otel` exports traces and metrics, `prompt` adds the
//! interactive prompt of `daplake query`, and `testing` makes the conformance tests for targets public.

#![deny(missing_docs)]

#[cfg(feature = "lake")]
mod channel;
mod child;
mod error;
mod model;
mod panics;
mod progress;
mod redact;
mod tls_roots;
mod worker_thread;

mod schema;

mod api;
mod decode;
#[cfg(feature = "lake")]
mod engine;
mod fetch;
#[cfg(feature = "lake")]
mod reduce;
#[cfg(feature = "lake")]
mod scan;
pub mod sink;
#[cfg(feature = "lake")]
mod store;

#[cfg(feature = "lake")]
mod catalog;

pub mod ops;
mod page;

mod cli;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "demo")]
pub mod demo;
#[doc(hidden)]
pub mod internals;

// The public API: these items, and the `pub use` items of `ops` and `sink`. `tests/it/layering/public_api.txt` lists it.
pub use api::{Client, ClientOptions, Credentials, Pacing, RetryPolicy, VersionedSchema};
#[cfg(feature = "lake")]
pub use engine::{Engine, EngineOptions};
pub use error::{Error, Kind, Result};
pub use model::{Bookmark, Format, Namespace, TableRef, Timestamp, Window};
pub use redact::{SafeUrl, Secret};
