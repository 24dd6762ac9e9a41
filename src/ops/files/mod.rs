//! `list`, `schema`, `snapshot`, `incremental`: tables as files in a folder, in the layout of the official client. Rows are parsed only for
//! conversion, and nothing is merged.
//!
//! The files of a job are collected in a hidden folder, which gets its final name when all of them are complete and verified. The next run
//! reuses the files of an interrupted one; see [`Journal`].
//!
//! ```no_run
//! # async fn example(client: daplake::api::Client) -> daplake::Result<()> {
//! use daplake::model::{Format, Namespace, Window};
//! use daplake::ops::files::{DownloadRequest, Journal, Shape, TableChoice, download};
//!
//! let request = DownloadRequest {
//!     client,
//!     namespace: Namespace::new("canvas"),
//!     tables: "users,accounts".parse::<TableChoice>()?,
//!     window: Window::Snapshot,
//!     format: Format::Jsonl,
//!     shape: Shape::AsSent,
//!     folder: "downloads".into(),
//!     objects_at_once: 4,
//!     journal: Some(Journal::new("state", "my account")),
//!     fresh: false,
//! };
//! let observer = |event: &daplake::ops::files::TableEvent| tracing::info!(table = %event.table, step = ?event.step, "Step");
//! let report = download(request, &observer, std::future::pending()).await?;
//! for error in report.errors() {
//!     tracing::error!(%error, "A table failed");
//! }
//! # Ok(())
//! # }
//! ```

mod choice;
mod convert;
mod download;
mod manifest;
mod object;
mod run;
mod schema;
mod shape;
mod staging;

pub use super::journal::Journal;
pub use choice::TableChoice;
pub use download::{DownloadRequest, download};
pub use manifest::MANIFEST;
pub use run::{FilesOutcome, FilesReport, Observer, Step, TableEvent};
pub use schema::{SchemaRequest, save_schemas, schema_text};
pub use shape::Shape;

use crate::api::Client;
use crate::error::Result;
use crate::model::Namespace;

/// Names of the tables of a namespace, in the order of the service.
pub async fn list(client: &Client, namespace: &Namespace) -> Result<Vec<String>> {
    client.tables(namespace).await
}
