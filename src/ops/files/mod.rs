//! `list`, `schema`, `snapshot`, `incremental`: tables as files in a folder, in the layout of the official client. Rows are parsed only for
//! conversion, and nothing is merged.
//!
//! The files of a job are collected in a hidden folder, which gets its final name when all of them are complete and verified. The next run
//! reuses the files of an interrupted one; see [`Journal`].

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
pub use download::{DownloadRequest, download, download_with};
pub use manifest::MANIFEST;
pub use run::{FilesOutcome, FilesReport, Observer, Step, TableEvent};
pub use schema::{SchemaRequest, save_schemas, schema_text};
pub use shape::Shape;
