//! `list`, `schema`, `snapshot`, `incremental`: tables as files in a folder, as the official client lays them out. It parses rows
//! only where another format is asked for, and merges nothing.
//!
//! A job's files gather in a hidden folder beside their final one, which appears when all of them are complete and checked. What
//! an interrupted run leaves there is used by the next one; see [`Journal`].
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
//! let told = |event: &daplake::ops::files::TableEvent| tracing::info!(table = %event.table, step = ?event.step, "Step");
//! let report = download(request, &told, std::future::pending()).await?;
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
mod staging;

pub use super::journal::Journal;
pub use choice::TableChoice;
pub use download::{DownloadRequest, download};
pub use manifest::MANIFEST;
pub use object::Shape;
pub use run::{FilesOutcome, FilesReport, Observer, Step, TableEvent};
pub use schema::{SchemaRequest, save_schemas, schema_text};

use crate::api::Client;
use crate::error::Result;
use crate::model::Namespace;

/// Names of the tables of a namespace, in the service's order.
pub async fn list(client: &Client, namespace: &Namespace) -> Result<Vec<String>> {
    client.tables(namespace).await
}
