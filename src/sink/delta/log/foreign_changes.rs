//! Commits of other programs since the last load: which of them changed rows. It reads the tail of the log and decides nothing.
//!
//! Each load commits a `txn` action of ours; everything behind the newest one was committed since. What counts are actions, not
//! names of operations: a file that was added or removed as a change of data, or another deletion vector of the same file. So
//! compactions, checkpoints, new properties and vacuums are no changes, whoever made them.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::sink::ForeignChanges;
use crate::sink::delta::log::table_log::{TableLog, TableState};

/// What a load does when another program changed rows since the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnForeignChanges {
    /// An increment is refused.
    #[default]
    Fail,
    /// It is loaded, with a warning.
    Warn,
}

/// Entries of the log that are read at once, after the newest.
const READS_AT_ONCE: usize = 8;

/// What an entry of the log is to us.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    /// A load of ours.
    Load,
    /// The rows before it and after it are the same.
    SameRows,
    /// It changed rows; the operation, if it is named.
    ChangedRows(Option<String>),
}

impl TableLog {
    /// What other programs changed since the last load of the table; `None` if nothing. Reads the entries of the log since then.
    pub(in crate::sink::delta) async fn foreign_changes(&self, state: &TableState) -> Result<Option<ForeignChanges>> {
        let app_id = self.app_id();
        let read = |version: u64| {
            let app_id = &app_id;
            async move {
                let entry = self.entry(version).await?;
                Ok::<_, Error>((version, entry.map(|entry| look_at(&String::from_utf8_lossy(&entry), app_id))))
            }
        };
        let mut found = ForeignChanges::default();
        // Nearly always the newest entry is a load of ours, and the only one that is read.
        let newest = futures::stream::once(read(state.version));
        let older = futures::stream::iter((0..state.version).rev()).map(read).buffered(READS_AT_ONCE);
        let mut entries = std::pin::pin!(newest.chain(older));
        loop {
            match entries.try_next().await? {
                Some((version, Some(Entry::Load))) => {
                    found.since = Some(version);
                    break;
                }
                Some((_, Some(Entry::SameRows))) => {}
                Some((version, Some(Entry::ChangedRows(operation)))) => found.commits.push((version, operation)),
                // Entries that a checkpoint replaced were removed, and the load with them: what they did cannot be known.
                Some((_, None)) | None => break,
            }
        }
        found.commits.reverse();
        Ok((found.since.is_none() || !found.commits.is_empty()).then_some(found))
    }
}

fn look_at(entry: &str, app_id: &str) -> Entry {
    // Our own commits may add thousands of files; nothing of these has to be read.
    let is_load = |line: &str| {
        let action = || serde_json::from_str::<Value>(line).unwrap_or_default();
        line.contains("\"txn\"") && action()["txn"]["appId"] == app_id
    };
    if entry.lines().any(is_load) {
        return Entry::Load;
    }
    let (mut changes, mut operation) = (false, None);
    let mut removed: HashMap<String, i64> = HashMap::new();
    let mut added: HashMap<String, i64> = HashMap::new();
    for line in entry.lines() {
        let action: Value = serde_json::from_str(line).unwrap_or_default();
        for (kind, marked) in [("add", &mut added), ("remove", &mut removed)] {
            let file = &action[kind];
            if !file.is_object() {
                continue;
            }
            // The protocol wants the flag; without it nothing is known to be the same.
            changes |= file["dataChange"] != false;
            let rows = file["deletionVector"]["cardinality"].as_i64().unwrap_or(0);
            marked.insert(file["path"].as_str().unwrap_or_default().to_owned(), rows);
        }
        if let Some(name) = action["commitInfo"]["operation"].as_str() {
            operation = Some(name.to_owned());
        }
    }
    changes |= added.iter().any(|(path, rows)| removed.get(path).is_some_and(|before| before != rows));
    if changes { Entry::ChangedRows(operation) } else { Entry::SameRows }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_say_what_an_entry_did() {
        let ours = "daplake/canvas.users";
        let of = |lines: &[&str]| look_at(&lines.join("\n"), ours);
        let add = |change: bool| format!(r#"{{"add":{{"path":"a","dataChange":{change}}}}}"#);
        assert_eq!(of(&[r#"{"commitInfo":{"operation":"OPTIMIZE"}}"#, &add(false)]), Entry::SameRows);
        // The name does not matter.
        let named = of(&[r#"{"commitInfo":{"operation":"OPTIMIZE"}}"#, &add(true)]);
        assert_eq!(named, Entry::ChangedRows(Some("OPTIMIZE".into())));
        assert_eq!(of(&[r#"{"remove":{"path":"a"}}"#]), Entry::ChangedRows(None));
        assert_eq!(of(&[r#"{"metaData":{"configuration":{}}}"#, r#"{"protocol":{}}"#]), Entry::SameRows);
        assert_eq!(of(&[&add(true), r#"{"txn":{"appId":"daplake/canvas.users","version":1}}"#]), Entry::Load);
        assert_ne!(of(&[&add(true), r#"{"txn":{"appId":"other","version":1}}"#]), Entry::Load);
        // Rows marked as deleted under a flag that denies it.
        let marked = r#"{"add":{"path":"a","dataChange":false,"deletionVector":{"cardinality":2}}}"#;
        let before = r#"{"remove":{"path":"a","dataChange":false}}"#;
        assert_eq!(of(&[before, marked]), Entry::ChangedRows(None));
        let same = r#"{"remove":{"path":"a","dataChange":false,"deletionVector":{"cardinality":2}}}"#;
        assert_eq!(of(&[same, marked]), Entry::SameRows);
    }
}
