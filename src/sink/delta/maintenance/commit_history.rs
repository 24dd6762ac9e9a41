//! What happened to a table, commit by commit, as its log tells.

use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::{TableRef, Timestamp};
use crate::sink::delta::DeltaSink;
use crate::sink::delta::log::table_log::{TableLog, TableState};
use crate::sink::{Past, Sink};

/// Entries of a log that are read at once.
const READS_AT_ONCE: usize = 8;

/// One commit of a table.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Commit {
    /// Version that it made.
    pub version: u64,
    /// When, RFC 3339, as its writer said.
    pub time: Option<String>,
    /// Kind of operation, such as `MERGE`.
    pub operation: String,
    /// The bookmark it reached, RFC 3339; only commits of loads have one.
    pub bookmark: Option<String>,
    /// Rows of the table from then on; only commits of loads tell.
    pub rows: Option<u64>,
    /// Bytes of its data files from then on; only commits of loads tell.
    pub bytes: Option<u64>,
    /// Rows of the change set that were upserts.
    pub upserted: Option<u64>,
    /// Rows removed because the service deleted them.
    pub deleted: Option<u64>,
    /// Data files that came.
    pub files_added: Option<u64>,
    /// Data files that went.
    pub files_removed: Option<u64>,
    /// Files some of whose rows were marked as deleted.
    pub files_marked: Option<u64>,
    /// The service's job.
    pub job_id: Option<String>,
    /// Run of daplake.
    pub run_id: Option<String>,
    /// Program that made it.
    pub program: Option<String>,
}

impl DeltaSink {
    /// The newest commits of a table, at most `limit`, newest first; fewer if the log begins later. Kind `NotFound` if the table is
    /// not kept here.
    pub async fn history(&self, table: &TableRef, limit: usize) -> Result<Vec<Commit>> {
        let log = self.log(table)?;
        let newest = self.present(&log).await?.version;
        let read = |version: u64| {
            let log = &log;
            async move {
                let entry = log.entry(version).await?;
                Ok::<_, Error>(entry.map(|entry| commit_of(version, &String::from_utf8_lossy(&entry))))
            }
        };
        let mut entries = futures::stream::iter((0..=newest).rev().take(limit)).map(read).buffered(READS_AT_ONCE);
        let mut commits = Vec::new();
        // Older entries are cleaned away when checkpoints hold their outcome.
        while let Some(Some(commit)) = entries.try_next().await? {
            commits.push(commit);
        }
        Ok(commits)
    }

    /// The table after each of its newest `limit` loads, oldest first.
    pub(in crate::sink::delta) async fn past_loads(&self, table: &TableRef, limit: usize) -> Result<Vec<Past>> {
        let mut past: Vec<Past> = self.history(table, limit).await?.into_iter().filter_map(past_of).collect();
        past.reverse();
        Ok(past)
    }

    /// The present state of a table. Kind `NotFound` if it is not kept here.
    pub(in crate::sink::delta) async fn present(&self, log: &TableLog) -> Result<TableState> {
        let state = log.state().await?;
        state
            .ok_or_else(|| Error::new(Kind::NotFound, "The table is not kept at this target"))
            .with_field("table", &log.table)
            .with_field("target", self.location())
    }
}

/// Commits that are no loads (care, other programs) have no bookmark.
fn past_of(commit: Commit) -> Option<Past> {
    Some(Past {
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
    // Some programs write numbers, some texts.
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
    fn commits_of_other_programs_are_told_as_far_as_they_go() {
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
