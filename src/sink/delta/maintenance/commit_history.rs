//! The commit history of a table, from its log.

use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::sink::LoadRecord;
use crate::sink::delta::log::table_log::TableLog;

/// Concurrent reads of log entries.
const CONCURRENT_READS: usize = 8;

/// One commit of a table.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Commit {
    /// Version of the table.
    pub version: u64,
    /// Time of the commit by the clock of its writer, RFC 3339.
    pub time: Option<String>,
    /// Name of the operation, such as `MERGE`.
    pub operation: String,
    /// The bookmark of a load, RFC 3339; `None` for other commits.
    pub bookmark: Option<String>,
    /// Number of rows after the commit; `None` for commits that are not loads.
    pub rows: Option<u64>,
    /// Size of the data files after the commit, in bytes; `None` for commits that are not loads.
    pub bytes: Option<u64>,
    /// Number of upserts in the change set.
    pub upserted: Option<u64>,
    /// Number of rows that were removed because the service deleted them.
    pub deleted: Option<u64>,
    /// Number of data files that were added.
    pub files_added: Option<u64>,
    /// Number of data files that were removed.
    pub files_removed: Option<u64>,
    /// Number of files that got a deletion vector.
    pub files_marked: Option<u64>,
    /// Id of the service's job.
    pub job_id: Option<String>,
    /// Id of the run.
    pub run_id: Option<String>,
    /// Name and version of the program that made the commit.
    pub program: Option<String>,
}

/// See [`DeltaSink::history`](crate::sink::delta::DeltaSink::history).
pub(crate) async fn history(log: &TableLog, limit: usize) -> Result<Vec<Commit>> {
    let newest = log.existing_state().await?.version;
    let read = |version: u64| async move {
        let entry = log.entry(version).await?;
        Ok::<_, Error>(entry.map(|entry| commit_of(version, &String::from_utf8_lossy(&entry))))
    };
    let mut entries = futures::stream::iter((0..=newest).rev().take(limit)).map(read).buffered(CONCURRENT_READS);
    let mut commits = Vec::new();
    // Older entries are cleaned up once a checkpoint has their result.
    while let Some(Some(commit)) = entries.try_next().await? {
        commits.push(commit);
    }
    Ok(commits)
}

/// The table after each of its newest `limit` loads, oldest first.
pub(crate) async fn past_loads(log: &TableLog, limit: usize) -> Result<Vec<LoadRecord>> {
    let mut past: Vec<LoadRecord> = history(log, limit).await?.into_iter().filter_map(past_of).collect();
    past.reverse();
    Ok(past)
}

/// `None` for commits that are not loads: they have no bookmark.
fn past_of(commit: Commit) -> Option<LoadRecord> {
    Some(LoadRecord {
        at: commit.bookmark?.parse().ok()?,
        run_id: commit.run_id,
        rows: commit.rows,
        bytes: commit.bytes,
        upserted: commit.upserted.unwrap_or(0),
        deleted: commit.deleted.unwrap_or(0),
    })
}

fn commit_of(version: u64, entry: &str) -> Commit {
    let lines = entry.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let info = lines.filter_map(|mut action| action.get_mut("commitInfo").map(Value::take)).next().unwrap_or_default();
    let text = |name: &str| info[name].as_str().map(str::to_owned);
    // Some programs write numbers, some strings.
    let number = |name: &str| {
        let value = &info["operationMetrics"][name];
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    };
    Commit {
        version,
        time: info["timestamp"].as_i64().map(|millis| Timestamp::from_micros(millis.saturating_mul(1000)).to_string()),
        operation: text("operation").unwrap_or_else(|| "?".into()),
        bookmark: text("daplakeBookmark"),
        rows: info["daplakeRows"].as_u64(),
        bytes: info["daplakeBytes"].as_u64(),
        upserted: number("numUpsertedRows"),
        deleted: number("numDeletedRows").filter(|_| info.get("daplakeBookmark").is_some()),
        files_added: number("numAddedFiles"),
        files_removed: number("numRemovedFiles"),
        files_marked: number("numDeletionVectorsAdded"),
        job_id: text("daplakeJobId"),
        run_id: text("daplakeRunId"),
        program: text("clientVersion").or_else(|| text("engineInfo")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_of_other_programs_may_lack_fields() {
        let commit = commit_of(
            3,
            r#"{"add":{}}
{"commitInfo":{"timestamp":0,"operation":"OPTIMIZE","engineInfo":"Other/1","operationMetrics":{"numAddedFiles":"2","numRemovedFiles":7}}}"#,
        );
        assert_eq!(
            (commit.version, commit.operation.as_str(), commit.files_added, commit.files_removed),
            (3, "OPTIMIZE", Some(2), Some(7))
        );
        assert_eq!((commit.program.as_deref(), commit.bookmark), (Some("Other/1"), None));
        assert!(commit.time.unwrap().starts_with("1970-01-01"));
        assert_eq!(commit_of(0, "torn {").operation, "?");
    }
}
