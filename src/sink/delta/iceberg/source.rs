//! The Delta table of a view: its log, its files and its deletion vectors.

use std::sync::Arc;

use deltalake::kernel::DeletionVectorDescriptor;
use object_store::ObjectStore;
use percent_encoding::percent_decode_str;

use super::delta_commit::{DataFile, Description};
use crate::error::{Kind, Result, ResultExt};
use crate::sink::delta::log::table_log::TableLog;
use crate::sink::delta::write::deletion_vectors;

/// The Delta table of a view.
pub(super) struct Source<'a> {
    log: &'a TableLog,
    location: String,
}

/// A Delta table at one version.
pub(super) struct DeltaTable {
    pub(super) version: u64,
    /// Time of the commit in milliseconds since 1970.
    pub(super) timestamp: i64,
    pub(super) description: Description,
    pub(super) files: Vec<DataFile>,
}

impl<'a> Source<'a> {
    pub(super) fn new(log: &'a TableLog) -> Self {
        Self { log, location: location(log) }
    }

    /// The store, with the table's folder as its root.
    pub(super) fn store(&self) -> Arc<dyn ObjectStore> {
        self.log.store()
    }

    /// URL of the table's folder without a slash at the end. Readers of Iceberg do not decode it, so it is not encoded.
    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// The newest version of the log. `None` if it does not have the version `since`: that was cleaned up, or the log was restored to an
    /// older state.
    pub(super) async fn newest_version(&self, since: u64) -> Option<u64> {
        self.log.newest_version(since).await.ok()
    }

    /// The JSON lines of a version; `None` if it does not exist or was cleaned up.
    pub(super) async fn entry(&self, version: u64) -> Result<Option<String>> {
        Ok(self.log.entry(version).await?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The newest version of the table.
    pub(super) async fn table(&self) -> Result<DeltaTable> {
        let state = self.log.existing_state().await?;
        let committed = self.log.committed_at(state.version).await;
        Ok(DeltaTable {
            version: state.version,
            timestamp: committed.map_or(0, |time| time.micros() / 1000),
            description: serde_json::from_value(state.metadata.clone())
                .context(Kind::Target, "The table's metadata cannot be read")?,
            files: state.files.iter().map(|file| DataFile::from(file.as_ref())).collect(),
        })
    }

    /// A deletion vector: its bitmap with the magic number.
    pub(super) async fn vector(&self, vector: &DeletionVectorDescriptor) -> Result<Vec<u8>> {
        deletion_vectors::read_encoded(&self.store(), vector).await
    }
}

fn location(log: &TableLog) -> String {
    if let Some(folder) = &log.folder {
        let folder = folder.display().to_string().replace('\\', "/");
        return format!("file:///{}", folder.trim_start_matches('/'));
    }
    let url = log.location.reveal();
    let user = if url.username().is_empty() { String::new() } else { format!("{}@", url.username()) };
    let path = percent_decode_str(url.path()).decode_utf8_lossy();
    format!("{}://{user}{}{}", url.scheme(), url.host_str().unwrap_or_default(), path.trim_end_matches('/'))
}
