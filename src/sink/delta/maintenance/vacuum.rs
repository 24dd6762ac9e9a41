//! Removes files that no version of the last days names: those that were replaced long ago, and leftovers of killed runs. It reads
//! the log and writes nothing to it.

use std::collections::HashSet;
use std::path::Path as FsPath;
use std::time::Duration;

use chrono::{DateTime, Utc};
use deltalake::kernel::DeletionVectorDescriptor;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::{Path, PathPart};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::TableRef;
use crate::sink::delta::DeltaSink;
use crate::sink::delta::log::file_names::remove_all;
use crate::sink::delta::log::table_log::{TableLog, TableState};
use crate::sink::delta::merge::change_feed;
use crate::sink::delta::write::deletion_vectors;

/// Files younger than this are never removed: a run that is under way has files that no commit names yet, and readers may still
/// be at older versions.
pub const LEAST_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a vacuum removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Vacuumed {
    /// Files inside the table's folder.
    pub files: Vec<String>,
    /// Bytes of these.
    pub bytes: u64,
}

impl DeltaSink {
    /// What [`Self::vacuum`] would remove now.
    pub async fn vacuum_preview(&self, table: &TableRef, retention: Duration) -> Result<Vacuumed> {
        let log = self.log(table)?;
        let state = self.present(&log).await?;
        unneeded(&log, &state, retention).await.with_field("table", table)
    }

    /// Removes the files of a table that were replaced, or left behind by a run that was killed, longer than `retention` ago.
    /// Versions older than that can no longer be read. Kind `Usage` if `retention` is below [`LEAST_RETENTION`], `NotFound` if the
    /// table is not kept here. Files that cannot be removed are left out of the answer, with a warning.
    pub async fn vacuum(&self, table: &TableRef, retention: Duration) -> Result<Vacuumed> {
        let log = self.log(table)?;
        let state = self.present(&log).await?;
        let mut found = unneeded(&log, &state, retention).await.with_field("table", table)?;
        let (unfinished, files): (Vec<_>, Vec<_>) = found.files.into_iter().partition(|name| is_unfinished(name));
        let paths = files.iter().map(|name| Path::from(name.as_str())).collect();
        let removed = remove_all(&log.store(), table, paths).await;
        found.files = removed.iter().map(Path::to_string).collect();
        // The store knows no such names.
        if let Some(folder) = &log.folder {
            for name in unfinished {
                match std::fs::remove_file(folder.join(&name)) {
                    Ok(()) => found.files.push(name),
                    Err(error) => {
                        tracing::warn!(table = %table, file = name, %error, "A file could not be removed");
                    }
                }
            }
        }
        found.files.sort();
        Ok(found)
    }
}

/// Whether a file has the name of an upload that was not finished: `<name>#<number>`. Listings of the store pass over these.
fn is_unfinished(name: &str) -> bool {
    let number = name.rsplit_once('#').map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}

/// Unfinished uploads below a local folder that are older than `horizon`, in the folders that tables have: their own, those of the
/// log, of the feed and of partitions.
fn unfinished(folder: &FsPath, inside: &str, horizon: DateTime<Utc>, found: &mut Vacuumed) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(|name| format!("{inside}{name}")) else { continue };
        let kind = entry.file_type()?;
        let is_ours = || {
            let last = name.rsplit('/').next().unwrap_or_default();
            last.contains('=') || last == change_feed::FOLDER || last == "_delta_log"
        };
        if kind.is_dir() && is_ours() {
            unfinished(&entry.path(), &format!("{name}/"), horizon, found)?;
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

async fn unneeded(log: &TableLog, state: &TableState, retention: Duration) -> Result<Vacuumed> {
    if retention < LEAST_RETENTION {
        return Err(Error::new(Kind::Usage, "Files of the last 7 days are not removed")
            .hint("a run under way or a reader may need them; give --retention 7d or more"));
    }
    let age = chrono::Duration::from_std(retention).context(Kind::Usage, "The retention is too long")?;
    let horizon = Utc::now() - age;
    let mut needed: HashSet<Path> = HashSet::new();
    for file in &state.files {
        needed.insert(file.path.clone());
        needed.extend(file.deletion_vector.as_ref().and_then(vector_path));
    }
    removed_since(log, horizon, &mut needed).await?;

    let unreadable = |error| Error::new(Kind::Target, "The table's folder cannot be read").caused_by(error);
    let store = log.store();
    let mut listed = store.list(None);
    let mut found = Vacuumed::default();
    while let Some(object) = listed.try_next().await.map_err(unreadable)? {
        // Names that begin like this belong to the log and to other programs, but for folders of partitions.
        let mut parts = object.location.parts();
        let is_feed = parts.next().is_some_and(|part| part.as_ref() == change_feed::FOLDER);
        let is_partition = |part: &PathPart<'_>| part.as_ref().contains('=');
        let mut parts = object.location.parts().skip(usize::from(is_feed)).filter(|part| !is_partition(part));
        let is_hidden = parts.any(|part| part.as_ref().starts_with(['_', '.']));
        if is_hidden || object.last_modified > horizon || needed.contains(&object.location) {
            continue;
        }
        found.bytes += object.size;
        found.files.push(object.location.to_string());
    }
    if let Some(folder) = log.folder.clone() {
        let walk = move || {
            let mut more = Vacuumed::default();
            unfinished(&folder, "", horizon, &mut more).map(|()| more)
        };
        let walked = tokio::task::spawn_blocking(walk).await.context(Kind::Bug, "Looking for files stopped unexpectedly")?;
        let more = walked.context(Kind::Target, "The table's folder cannot be read")?;
        found.bytes += more.bytes;
        found.files.extend(more.files);
    }
    found.files.sort();
    Ok(found)
}

/// Files that commits since `horizon` took out of the table: older versions, which readers may be at, still have them; and those
/// that tell what these commits changed.
async fn removed_since(log: &TableLog, horizon: DateTime<Utc>, needed: &mut HashSet<Path>) -> Result<()> {
    let unreadable = |error| Error::new(Kind::Target, "The table's log cannot be read").caused_by(error);
    let store = log.store();
    let entries: Vec<_> = store.list(Some(&Path::from("_delta_log"))).try_collect().await.map_err(unreadable)?;
    for entry in entries {
        let is_commit = entry.location.filename().is_some_and(|name| name.ends_with(".json") && !name.starts_with('_'));
        if !is_commit || entry.last_modified < horizon {
            continue;
        }
        let read = async { store.get(&entry.location).await?.bytes().await }.await;
        let bytes = read.map_err(|error| unreadable(error).with_field("file", &entry.location))?;
        let names_files = |line: &&str| line.contains("\"remove\"") || line.contains("\"cdc\"");
        for line in String::from_utf8_lossy(&bytes).lines().filter(names_files) {
            let action: Value = serde_json::from_str(line).context(Kind::Target, "The table's log cannot be read")?;
            let remove = if action["cdc"].is_object() { &action["cdc"] } else { &action["remove"] };
            let Some(path) = remove["path"].as_str() else { continue };
            let path = percent_decode_str(path).decode_utf8_lossy();
            needed.insert(Path::parse(path.as_ref()).unwrap_or_else(|_| Path::from(path.as_ref())));
            let vector = serde_json::from_value::<DeletionVectorDescriptor>(remove["deletionVector"].clone());
            needed.extend(vector.ok().as_ref().and_then(vector_path));
        }
    }
    Ok(())
}

fn vector_path(vector: &DeletionVectorDescriptor) -> Option<Path> {
    deletion_vectors::file_of(vector).map(|name| Path::from(name.as_str()))
}
