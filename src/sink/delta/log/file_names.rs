//! Names of the files that daplake writes.

use std::sync::Arc;

use deltalake::ObjectStore;
use futures::StreamExt;
use object_store::path::Path;

use crate::model::TableRef;
use crate::schema::LakeFormat;

const PREFIX: &str = "daplake-";
const SUFFIX: &str = ".zstd.parquet";
/// Folder of the change data feed in the table's folder.
pub(crate) const CHANGE_FEED_FOLDER: &str = "_change_data";
/// File in a folder of plain Parquet files that describes the content of the folder.
pub(crate) const MANIFEST: &str = LakeFormat::MANIFEST;

/// A name for a new data file.
pub(crate) fn new_name() -> String {
    format!("{PREFIX}{}{SUFFIX}", uuid::Uuid::new_v4())
}

/// Whether a file name is one of [`new_name`].
fn is_our_name(name: &str) -> bool {
    let id = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    id.is_some_and(|id| uuid::Uuid::try_parse(id).is_ok())
}

/// Whether a path in the table's folder is that of a file that daplake wrote. Files may be in folders of partitions
/// (`_day=2026-01-01`) and of the change data feed.
pub(crate) fn is_our_file(path: &str) -> bool {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_known = |folder: &str| folder.is_empty() || folder.contains('=') || folder == CHANGE_FEED_FOLDER;
    folders.split('/').all(is_known) && is_our_name(name)
}

/// Whether a path has the name of a data file, change data feed file or deletion vector of any Delta writer. All of them have a UUID in
/// their names. Other files in a table's folder are those of users.
pub(crate) fn is_delta_file(path: &str) -> bool {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let is_kind = name.ends_with(".parquet") || (name.starts_with("deletion_vector_") && name.ends_with(".bin"));
    is_kind && name.as_bytes().windows(UUID_LENGTH).any(|part| uuid::Uuid::try_parse_ascii(part).is_ok())
}

/// Length of a UUID with hyphens.
const UUID_LENGTH: usize = 36;

/// Removes files, many per request if the store supports that. Returns those that were removed and logs a warning for those that
/// could not be.
pub(crate) async fn remove_files(store: &Arc<dyn ObjectStore>, table: &TableRef, paths: Vec<Path>) -> Vec<Path> {
    let mut results = store.delete_stream(futures::stream::iter(paths.into_iter().map(Ok)).boxed());
    let mut removed = Vec::new();
    while let Some(result) = results.next().await {
        match result {
            Ok(path) => removed.push(path),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(table = %table, error = %error, "Could not remove a file"),
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_our_files_are_recognised() {
        assert!(is_our_name(&new_name()));
        assert!(!is_our_name("part-00000-9f1f4a9c-2f1b-4a52-8a2e-0a8f6f6c0b11-c000.snappy.parquet"));
        assert!(!is_our_name("daplake-notes.zstd.parquet"));
        for folder in ["", "_day=2026-01-01/", "_change_data/", "_change_data/_day=2026-01-01/"] {
            assert!(is_our_file(&format!("{folder}{}", new_name())));
            assert!(!is_our_file(&format!("{folder}part-0.parquet")));
        }
        assert!(!is_our_file(&format!("sub/{}", new_name())));
    }

    #[test]
    fn names_of_delta_files_have_a_uuid() {
        for name in [
            &new_name(),
            "_day=2026-01-01/part-00000-9f1f4a9c-2f1b-4a52-8a2e-0a8f6f6c0b11-c000.snappy.parquet",
            "deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin",
        ] {
            assert!(is_delta_file(name), "{name}");
        }
        for name in [
            "notes.txt",
            "export.parquet",
            "9f1f4a9c-2f1b-4a52-8a2e-0a8f6f6c0b11.csv",
            "é-export-of-the-year-2026-and-others.parquet",
        ] {
            assert!(!is_delta_file(name), "{name}");
        }
    }
}
