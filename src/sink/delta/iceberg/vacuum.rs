//! Expires old snapshots of a view, and finds the files that the kept ones need.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::path::Path;

use super::manifest::{self, Entry};
use super::manifest_list;
use super::metadata_folder::{Current, FOLDER, MetadataFolder, is_metadata_file};
use super::source::Source;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::sink::delta::log::table_log::TableLog;

/// Attempts after conflicts with other runs.
const ATTEMPTS: usize = 5;

/// A view without its old snapshots.
#[derive(Debug, Default)]
pub(crate) struct ExpiredView {
    /// Data files that a kept snapshot needs, by their paths in the table's folder.
    pub(crate) needed: HashSet<Path>,
    /// Metadata files that no kept snapshot needs, and their sizes in bytes.
    pub(crate) unneeded: Vec<(Path, u64)>,
}

/// What is left of the view of a table if the snapshots that were replaced before `horizon` expire. Changes nothing.
pub(crate) async fn expired_view(log: &TableLog, horizon: DateTime<Utc>) -> Result<ExpiredView> {
    let source = Source::new(log);
    let folder = MetadataFolder::new(&source);
    let mut view = ExpiredView::default();
    let Current { number, metadata: Some(mut metadata), .. } = folder.current().await? else { return Ok(view) };
    metadata.expire(horizon.timestamp_millis());
    let mut needed: HashSet<String> = metadata.logged_files().map(str::to_owned).collect();
    needed.insert(folder.file(number));
    let mut manifests = HashSet::new();
    for list in metadata.manifest_lists() {
        manifests.extend(manifest_list::decode(&folder.read(&list).await?)?.into_iter().map(|manifest| manifest.path));
        needed.insert(list);
    }
    for manifest in manifests {
        for entry in manifest::decode(&folder.read(&manifest).await?)?.into_iter().filter(Entry::is_live) {
            match folder.path_of(&entry.path) {
                Some(path) if entry.vector.is_none() => _ = view.needed.insert(path),
                _ => _ = needed.insert(entry.path),
            }
        }
        needed.insert(manifest);
    }
    let needed: HashSet<Path> = needed.iter().filter_map(|location| folder.path_of(location)).collect();
    let store = log.store();
    let mut listed = store.list(Some(&Path::from(FOLDER)));
    while let Some(object) = listed.try_next().await.context(Kind::Target, "The table's folder cannot be read")? {
        let is_ours = object.location.filename().is_some_and(is_metadata_file);
        if is_ours && object.last_modified <= horizon && !needed.contains(&object.location) {
            view.unneeded.push((object.location, object.size));
        }
    }
    Ok(view)
}

/// Expires the snapshots that were replaced before `horizon`. Their files stay.
pub(crate) async fn expire(log: &TableLog, horizon: DateTime<Utc>) -> Result<()> {
    let source = Source::new(log);
    let folder = MetadataFolder::new(&source);
    for _ in 0..ATTEMPTS {
        let Current { number, metadata: Some(mut metadata), .. } = folder.current().await? else { return Ok(()) };
        let updated = metadata.last_updated();
        if !metadata.expire(horizon.timestamp_millis()) {
            return Ok(());
        }
        metadata.log_previous(&folder.file(number), updated);
        if folder.commit(number + 1, &metadata).await? {
            return Ok(());
        }
    }
    Err(Error::new(Kind::Conflict, "Other runs kept changing the Iceberg metadata").with_field("table", &log.table))
}
