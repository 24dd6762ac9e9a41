//! `status`: what a target holds, table by table.

use serde::Serialize;

use crate::error::{ErrorContext, Result};
use crate::model::{Namespace, Timestamp};
use crate::sink::Sink;

/// One table of a target.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatusLine {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub table: String,
    /// Rows, where the target knows.
    pub rows: Option<u64>,
    /// Data as of, RFC 3339.
    pub data_as_of: String,
    /// Age of the data in seconds, by the local clock.
    pub age_seconds: i64,
    /// Version of the table schema.
    pub schema_version: i64,
    /// Data files.
    pub files: Option<u64>,
    /// Bytes of these.
    pub bytes: Option<u64>,
    /// When it was last committed, by the target's clock.
    pub last_run: Option<String>,
    /// Version of the target's own log.
    pub version: Option<i64>,
    /// Reader and writer version of the Delta protocol and its features, such as `3/7: deletionVectors`.
    pub protocol: Option<String>,
    /// Mode of the table, what deletes do, partitions: `current`, `current, deletes marked`, `history by day(timestamp)`.
    pub kept_as: Option<String>,
}

/// All tables of a target, sorted; of the given namespaces or of all.
pub async fn status(sink: &dyn Sink, namespaces: &[String]) -> Result<Vec<StatusLine>> {
    let mut lines = Vec::new();
    let now = Timestamp::now();
    let mut tables = Vec::new();
    if namespaces.is_empty() {
        tables = sink.list(None).await?;
    } else {
        for namespace in namespaces {
            tables.extend(sink.list(Some(&Namespace::new(namespace))).await?);
        }
    }
    for table in tables {
        let Some(status) = sink.status(&table).await.with("table", &table)? else { continue };
        lines.push(StatusLine {
            namespace: table.namespace.to_string(),
            table: table.table.clone(),
            rows: status.rows,
            data_as_of: status.bookmark.at.to_string(),
            age_seconds: (now.micros() - status.bookmark.at.micros()) / 1_000_000,
            schema_version: status.bookmark.schema_version,
            files: status.files,
            bytes: status.bytes,
            last_run: status.last_commit.map(|time| time.to_string()),
            version: status.version,
            protocol: status.protocol,
            kept_as: status.kept_as,
        });
    }
    Ok(lines)
}
