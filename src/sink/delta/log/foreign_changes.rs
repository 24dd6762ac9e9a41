//! Finds the commits by other programs that changed rows since the last load. Reads the end of the log.
//!
//! Each load commits a `txn` action of daplake, so all entries after the newest such action were committed since. Actions count, not
//! names of operations: a commit changed rows if it added or removed a file as a change of data, or replaced the deletion vector
//! of a file by another one. Compactions, checkpoints, new properties and vacuums change no rows, whichever program made them.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::sink::ForeignChanges;
use crate::sink::delta::log::table_log::TableLog;
use crate::sink::delta::log::table_state::TableState;

/// Concurrent reads of log entries before the newest one.
const CONCURRENT_READS: usize = 8;

/// Kinds of log entries.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    /// A load by daplake.
    Load,
    /// A commit that changed no rows.
    SameRows,
    /// A commit that changed rows, and the name of its operation if it has one.
    ChangedRows(Option<String>),
}

/// The commits by other programs that changed rows since the last load of the table; `None` if there are none.
pub(crate) async fn foreign_changes(log: &TableLog, state: &TableState) -> Result<Option<ForeignChanges>> {
    let app_id = log.app_id();
    let read = |version: u64| {
        let app_id = &app_id;
        async move {
            let entry = log.entry(version).await?;
            Ok::<_, Error>((version, entry.map(|entry| classify(&String::from_utf8_lossy(&entry), app_id))))
        }
    };
    let mut found = ForeignChanges::default();
    // Usually the newest entry is a load, and no other entry is read.
    let newest = futures::stream::once(read(state.version));
    let older = futures::stream::iter((0..state.version).rev()).map(read).buffered(CONCURRENT_READS);
    let mut entries = std::pin::pin!(newest.chain(older));
    loop {
        match entries.try_next().await? {
            Some((version, Some(Entry::Load))) => {
                found.since = Some(version);
                break;
            }
            Some((_, Some(Entry::SameRows))) => {}
            Some((version, Some(Entry::ChangedRows(operation)))) => found.commits.push((version, operation)),
            // Entries before a checkpoint were cleaned up, the load among them: they may have changed rows.
            Some((_, None)) | None => break,
        }
    }
    found.commits.reverse();
    Ok((found.since.is_none() || !found.commits.is_empty()).then_some(found))
}

fn classify(entry: &str, app_id: &str) -> Entry {
    // Our own commits may add thousands of files, and none of these lines has to be parsed.
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
        for (kind, deleted_rows) in [("add", &mut added), ("remove", &mut removed)] {
            let file = &action[kind];
            if !file.is_object() {
                continue;
            }
            // The protocol requires the flag. Without it, the rows may have changed.
            changes |= file["dataChange"] != false;
            let rows = file["deletionVector"]["cardinality"].as_i64().unwrap_or(0);
            deleted_rows.insert(file["path"].as_str().unwrap_or_default().to_owned(), rows);
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
    fn entries_are_classified_by_their_actions() {
        let ours = "daplake/canvas.users";
        let of = |lines: &[&str]| classify(&lines.join("\n"), ours);
        let add = |change: bool| format!(r#"{{"add":{{"path":"a","dataChange":{change}}}}}"#);
        assert_eq!(of(&[r#"{"commitInfo":{"operation":"OPTIMIZE"}}"#, &add(false)]), Entry::SameRows);
        // The name of the operation does not count.
        let named = of(&[r#"{"commitInfo":{"operation":"OPTIMIZE"}}"#, &add(true)]);
        assert_eq!(named, Entry::ChangedRows(Some("OPTIMIZE".into())));
        assert_eq!(of(&[r#"{"remove":{"path":"a"}}"#]), Entry::ChangedRows(None));
        assert_eq!(of(&[r#"{"metaData":{"configuration":{}}}"#, r#"{"protocol":{}}"#]), Entry::SameRows);
        assert_eq!(of(&[&add(true), r#"{"txn":{"appId":"daplake/canvas.users","version":1}}"#]), Entry::Load);
        assert_ne!(of(&[&add(true), r#"{"txn":{"appId":"other","version":1}}"#]), Entry::Load);
        // A new deletion vector counts even if the flag says otherwise.
        let with_vector = r#"{"add":{"path":"a","dataChange":false,"deletionVector":{"cardinality":2}}}"#;
        let before = r#"{"remove":{"path":"a","dataChange":false}}"#;
        assert_eq!(of(&[before, with_vector]), Entry::ChangedRows(None));
        let same = r#"{"remove":{"path":"a","dataChange":false,"deletionVector":{"cardinality":2}}}"#;
        assert_eq!(of(&[same, with_vector]), Entry::SameRows);
    }
}
