//! Extracts an institution's data from the Instructure Data Access Platform (DAP, also called Canvas Data 2) and keeps Delta Lake tables,
//! Parquet folders and SQL databases up to date.
//!
//! The program `daplake` is a thin layer over this library: every command is a function in [`ops`].
//!
//! # Synchronising tables
//!
//! The first run of [`ops::sync`] loads a snapshot of each table, later runs load the changes since then. Rows, schema and bookmark of a
//! table become visible together.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use daplake::api::{Client, ClientOptions, Credentials};
//! use daplake::engine::{Engine, EngineOptions};
//! use daplake::ops::{self, Selection, SyncRequest};
//! use daplake::redact::Secret;
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
//! # Modules
//!
//! | to | use |
//! | --- | --- |
//! | run a command of the program: sync, status, query, optimize, downloads | [`ops`] |
//! | download files in the layout of the official client | [`ops::files`] |
//! | call the service's API | [`api`] |
//! | download and decompress objects | [`fetch`] |
//! | decode objects to Arrow record batches | [`decode`] |
//! | read the schemas of tables | [`schema`] |
//! | write a target of your own | [`sink::Sink`], [`sink::Load`] |
//! | test a target of your own | `sink::conformance`, with the feature `testing` |
//! | observe the progress of a run | [`progress`] |
//! | handle errors by kind | [`error`] |
//! | try everything without an account | [`demo`], an embedded DAP server |
//!
//! The directory `examples/tour` has a short program for each of these.
//!
//! # Features
//!
//! `lake` (Delta Lake, Parquet folders, SQL queries), `postgres`, `mysql` and `mssql` (databases), and `demo` (the embedded server) are enabled
//! by default. `cluster` distributes loads over an Apache DataFusion Ballista cluster, `otel` exports traces and metrics, `prompt` adds the
//! interactive prompt of `daplake query`, and `testing` makes the conformance tests for targets public.

mod channel;
#[cfg(feature = "lake")]
mod child;
pub mod error;
pub mod model;
mod panics;
pub mod progress;
pub mod redact;
mod tls_roots;
mod worker_thread;

pub mod schema;

pub mod api;
pub mod decode;
#[cfg(feature = "lake")]
pub mod engine;
pub mod fetch;
#[cfg(feature = "lake")]
pub mod reduce;
#[cfg(feature = "lake")]
pub mod scan;
pub mod sink;
#[cfg(feature = "lake")]
pub mod store;

pub mod ops;
pub mod page;

pub mod cli;
#[cfg(feature = "cluster")]
pub mod cluster;
#[cfg(feature = "demo")]
pub mod demo;

pub use error::{Error, Kind, Result};
