//! Removes files that no recent version needs: files that were replaced long ago, and files of killed runs. Files whose names are not
//! those of a Delta writer stay. Makes no commit.

use std::collections::HashSet;
use std::path::Path as FsPath;
use std::time::Duration;

use chrono::{DateTime, Utc};
use deltalake::kernel::{Action, DeletionVectorDescriptor, Transaction};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::{Path, PathPart};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::Timestamp;
use crate::sink::delta::iceberg;
use crate::sink::delta::log::file_names::{CHANGE_FEED_FOLDER, is_delta_file, is_our_file, remove_files};
use crate::sink::delta::log::properties;
use crate::sink::delta::log::table_log::TableLog;
use crate::sink::delta::log::table_state::TableState;
use crate::sink::delta::write::deletion_vectors;

/// Minimum age of files that are removed: a run in progress has files that no commit names yet, and readers may use older versions.
pub const MIN_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

const FOLDER_UNREADABLE: &str = "The table's folder cannot be read";
const LOG_UNREADABLE: &str = "The Delta log cannot be read";

/// The files that a vacuum removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Vacuumed {
    /// Paths of the files in the table's folder, sorted.
    pub files: Vec<String>,
    /// Size of the files in bytes.
    pub bytes: u64,
}

/// See [`DeltaSink::vacuum_preview`](crate::sink::delta::DeltaSink::vacuum_preview).
pub(crate) async fn preview(log: &TableLog, retention: Duration) -> Result<Vacuumed> {
    let state = log.existing_state().await?;
    unneeded(log, &state, retention).await.with_field("table", &log.table)
}

/// See [`DeltaSink::vacuum`](crate::sink::delta::DeltaSink::vacuum).
pub(crate) async fn vacuum(log: &TableLog, retention: Duration) -> Result<Vacuumed> {
    let table = &log.table;
    let state = log.existing_state().await?;
    let mut found = unneeded(log, &state, retention).await.with_field("table", table)?;
    // Before the files of old snapshots: a snapshot must never name a file that is gone.
    if state.has_iceberg_view() {
        iceberg::expire(log, horizon(retention)?).await?;
    }
    let (unfinished, files): (Vec<_>, Vec<_>) = found.files.into_iter().partition(|name| is_unfinished(name));
    let paths = files.iter().map(|name| Path::from(name.as_str())).collect();
    let removed = remove_files(&log.store(), table, paths).await;
    found.files = removed.iter().map(Path::to_string).collect();
    // The store does not allow the names of unfinished uploads.
    if let Some(folder) = &log.folder {
        for name in unfinished {
            match std::fs::remove_file(folder.join(&name)) {
                Ok(()) => found.files.push(name),
                Err(error) => tracing::warn!(table = %table, file = name, %error, "Could not remove a file"),
            }
        }
    }
    found.files.sort();
    Ok(found)
}

/// Minimum time between two automatic vacuums of a table.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The `txn` action with which a load records that a vacuum follows its commit; `None` if the last one is too recent. Files stay at most
/// about a tenth longer than their retention.
///
/// The vacuum is recorded before it is made, so that one that fails every time costs no more than one that succeeds.
pub(crate) async fn record_if_due(log: &TableLog, state: &TableState, retention: Duration) -> Result<Option<Action>> {
    let now = Timestamp::now();
    let interval = i64::try_from((retention / 10).max(DAY).as_micros()).unwrap_or(i64::MAX);
    let last = log.last_vacuum(state).await?;
    // A time in the future was recorded by a wrong clock.
    let is_recent = last.is_some_and(|last| last <= now && now.micros() - last.micros() < interval);
    let millis = now.micros() / 1000;
    let record = || Transaction::new_with_last_update(log.vacuum_app_id(), now.micros(), Some(millis));
    Ok((!is_recent).then(|| Action::Txn(record())))
}

/// Whether a file has the name of an unfinished upload of a file of the table, `<name>#<number>`. The store does not list such files.
fn is_unfinished(path: &str) -> bool {
    let Some((name, number)) = path.rsplit_once('#') else { return false };
    let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    is_number && (is_delta_file(name) || name.starts_with("_delta_log/"))
}

/// Adds the unfinished uploads below a local folder that are older than `horizon`. Looks into the folders that a table has: its own,
/// those of the log, of the change data feed and of partitions. `prefix` is the path of the folder in the table's folder.
fn find_unfinished(folder: &FsPath, prefix: &str, horizon: DateTime<Utc>, found: &mut Vacuumed) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else { continue };
        let kind = entry.file_type()?;
        let is_table_folder = || {
            let last = name.rsplit('/').next().unwrap_or_default();
            last.contains('=') || last == CHANGE_FEED_FOLDER || last == "_delta_log"
        };
        if kind.is_dir() && is_table_folder() {
            find_unfinished(&entry.path(), &format!("{name}/"), horizon, found)?;
        } else if kind.is_file() && is_unfinished(&name) {
            let metadata = entry.metadata()?;
            if DateTime::<Utc>::from(metadata.modified()?) <= horizon {
                found.bytes += metadata.len();
                found.files.push(name);
            }
        }
    }
    Ok(())
}

/// The time since which all versions stay readable.
fn horizon(retention: Duration) -> Result<DateTime<Utc>> {
    let age = chrono::Duration::from_std(retention).context(Kind::Usage, "The retention is too long")?;
    Ok(Utc::now() - age)
}

async fn unneeded(log: &TableLog, state: &TableState, retention: Duration) -> Result<Vacuumed> {
    if retention < MIN_RETENTION {
        return Err(Error::new(Kind::Usage, "The retention is shorter than the minimum of 7 days")
            .hint("use --retention 7d or more; a run in progress or a reader may need newer files"));
    }
    let horizon = horizon(retention)?;
    let mut needed: HashSet<Path> = HashSet::new();
    for file in &state.files {
        needed.insert(file.path.clone());
        needed.extend(file.deletion_vector.as_ref().and_then(vector_path));
    }
    add_files_of_older_versions(log, horizon, &mut needed).await?;
    let mut found = Vacuumed::default();
    if state.has_iceberg_view() {
        let view = iceberg::expired_view(log, horizon).await?;
        needed.extend(view.needed);
        found.bytes += view.unneeded.iter().map(|(_, size)| size).sum::<u64>();
        found.files.extend(view.unneeded.into_iter().map(|(path, _)| path.to_string()));
    }

    // Readers of a folder of plain Parquet files know no Delta log, so that any other file may be theirs.
    let is_parquet_folder = state.property(properties::FORMAT) == Some(properties::PARQUET);
    let is_removable = if is_parquet_folder { is_our_file } else { is_delta_file };
    let store = log.store();
    let mut listed = store.list(None);
    while let Some(object) = listed.try_next().await.context(Kind::Target, FOLDER_UNREADABLE)? {
        // Names that start with `_` or `.` belong to the log and to other programs, except folders of partitions.
        let mut parts = object.location.parts();
        let is_feed = parts.next().is_some_and(|part| part.as_ref() == CHANGE_FEED_FOLDER);
        let is_partition = |part: &PathPart<'_>| part.as_ref().contains('=');
        let mut parts = object.location.parts().skip(usize::from(is_feed)).filter(|part| !is_partition(part));
        let is_hidden = parts.any(|part| part.as_ref().starts_with(['_', '.']));
        let is_candidate = !is_hidden && is_removable(object.location.as_ref());
        if !is_candidate || object.last_modified > horizon || needed.contains(&object.location) {
            continue;
        }
        found.bytes += object.size;
        found.files.push(object.location.to_string());
    }
    if let Some(folder) = log.folder.clone() {
        let walk = move || {
            let mut unfinished = Vacuumed::default();
            find_unfinished(&folder, "", horizon, &mut unfinished).map(|()| unfinished)
        };
        let walked = tokio::task::spawn_blocking(walk).await.context(Kind::Bug, "The search for files stopped unexpectedly")?;
        let unfinished = walked.context(Kind::Target, FOLDER_UNREADABLE)?;
        found.bytes += unfinished.bytes;
        found.files.extend(unfinished.files);
    }
    found.files.sort();
    Ok(found)
}

/// Adds the files that commits since `horizon` removed, which older versions still need, and the change data feed files of these
/// commits.
async fn add_files_of_older_versions(log: &TableLog, horizon: DateTime<Utc>, needed: &mut HashSet<Path>) -> Result<()> {
    let store = log.store();
    let listed = store.list(Some(&Path::from("_delta_log"))).try_collect().await;
    let entries: Vec<_> = listed.context(Kind::Target, LOG_UNREADABLE)?;
    for entry in entries {
        let is_commit = entry.location.filename().is_some_and(|name| name.ends_with(".json") && !name.starts_with('_'));
        if !is_commit || entry.last_modified < horizon {
            continue;
        }
        let read = async { store.get(&entry.location).await?.bytes().await }.await;
        let bytes = read.context(Kind::Target, LOG_UNREADABLE).with_field("file", &entry.location)?;
        let names_files = |line: &&str| line.contains("\"remove\"") || line.contains("\"cdc\"");
        for line in String::from_utf8_lossy(&bytes).lines().filter(names_files) {
            let action: Value = serde_json::from_str(line).context(Kind::Target, LOG_UNREADABLE)?;
            let file = if action["cdc"].is_object() { &action["cdc"] } else { &action["remove"] };
            let Some(path) = file["path"].as_str() else { continue };
            let path = percent_decode_str(path).decode_utf8_lossy();
            needed.insert(Path::parse(path.as_ref()).unwrap_or_else(|_| Path::from(path.as_ref())));
            let vector = serde_json::from_value::<DeletionVectorDescriptor>(file["deletionVector"].clone());
            needed.extend(vector.ok().as_ref().and_then(vector_path));
        }
    }
    Ok(())
}

fn vector_path(vector: &DeletionVectorDescriptor) -> Option<Path> {
    deletion_vectors::file_of(vector).map(|name| Path::from(name.as_str()))
}
