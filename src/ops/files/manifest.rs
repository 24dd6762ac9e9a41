//! The manifest of a job's folder: table, query, times, schema version, objects. The official client has none.

use serde::Serialize;

use super::shape::Shape;
use crate::api::FinishedJob;
use crate::error::{Kind, Result, ResultExt};
use crate::model::{Timestamp, Window};

/// Name of the manifest. It is hidden and has no extension of a data format, so that patterns for data files do not match it.
pub const MANIFEST: &str = ".daplake-manifest.json";

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ManifestFile {
    pub(super) name: String,
    pub(super) object: String,
    pub(super) bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<u64>,
}

/// The manifest as JSON.
pub(super) fn manifest(job: &FinishedJob, shape: Shape, files: &[ManifestFile]) -> Result<Vec<u8>> {
    #[derive(Serialize)]
    struct Manifest<'a> {
        version: u32,
        program: &'static str,
        namespace: &'a str,
        table: &'a str,
        query: &'static str,
        format: &'static str,
        files_are: &'static str,
        job: &'a str,
        schema_version: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        since: Option<String>,
        /// The `since` of the next increment.
        next_since: String,
        written: String,
        files: &'a [ManifestFile],
    }
    let (query, asked) = match job.query.window {
        Window::Snapshot => ("snapshot", None),
        Window::Increment { since, .. } => ("incremental", Some(since)),
    };
    let manifest = Manifest {
        version: 1,
        program: concat!("daplake ", env!("CARGO_PKG_VERSION")),
        namespace: job.query.table.namespace.as_str(),
        table: &job.query.table.table,
        query,
        format: job.query.format.as_str(),
        files_are: shape.name(),
        job: &job.id,
        schema_version: job.schema_version,
        since: job.since.or(asked).map(|since| since.to_string()),
        next_since: job.reached.to_string(),
        written: Timestamp::now().to_string(),
        files,
    };
    let mut text = serde_json::to_vec_pretty(&manifest).context(Kind::Bug, "Cannot serialise a manifest")?;
    text.push(b'\n');
    Ok(text)
}
