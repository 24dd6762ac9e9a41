//! Finds the damaged or missing file of a Delta log that cannot be read, so that the error can say what to do.

use std::collections::BTreeSet;
use std::path::Path as FsPath;
use std::sync::Arc;

use deltalake::ObjectStore;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use parquet::file::metadata::ParquetMetaDataReader;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Folder of the log in the table's folder.
const FOLDER: &str = "_delta_log";
/// The pointer to the newest checkpoint.
const LAST_CHECKPOINT: &str = "_last_checkpoint";
/// Digits of a version in a file name.
const DIGITS: usize = 20;

/// A damaged or missing file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// Path in the table's folder.
    pub(super) file: String,
    /// The damage.
    pub(super) reason: String,
    /// Whether the table can be read without the file.
    pub(super) is_dispensable: bool,
}

impl Damage {
    fn new(name: &str, reason: impl Into<String>, is_dispensable: bool) -> Self {
        Self { file: format!("{FOLDER}/{name}"), reason: reason.into(), is_dispensable }
    }
}

/// The files of a log.
#[derive(Default)]
struct Files {
    commits: BTreeSet<u64>,
    empty_commits: BTreeSet<u64>,
    /// Versions and names.
    checkpoints: BTreeSet<(u64, String)>,
}

impl Files {
    /// `size` is `None` if it is not known.
    fn add(&mut self, name: &str, size: Option<u64>) {
        let Some((digits, rest)) = name.split_at_checked(DIGITS) else { return };
        let Ok(version) = digits.parse() else { return };
        if rest == ".json" {
            self.commits.insert(version);
            if size == Some(0) {
                self.empty_commits.insert(version);
            }
        } else if rest.starts_with(".checkpoint") && rest.ends_with(".parquet") {
            self.checkpoints.insert((version, name.to_owned()));
        }
    }

    /// The first commit that a reader needs.
    fn first_needed(&self) -> u64 {
        self.checkpoints.last().map_or(0, |(version, _)| version + 1)
    }

    /// Whether the commits alone describe the table.
    fn has_all_commits(&self) -> bool {
        self.empty_commits.is_empty() && self.commits.iter().copied().eq(0..self.commits.len() as u64)
    }

    /// A commit that a reader needs, and that is missing or empty.
    fn lost_commit(&self) -> Option<Damage> {
        let last = *self.commits.last()?;
        let lost = (self.first_needed()..=last)
            .find(|version| !self.commits.contains(version) || self.empty_commits.contains(version))?;
        let reason = if self.empty_commits.contains(&lost) { "it is empty" } else { "it is missing" };
        Some(Damage::new(&commit_name(lost), reason, false))
    }
}

fn commit_name(version: u64) -> String {
    format!("{version:020}.json")
}

/// An empty log entry of a table on the local disk, as a disk that was full or lost power leaves it. Readers treat it as a commit
/// without changes, so rows would be lost.
pub(super) fn empty_commit(folder: &FsPath) -> Option<Damage> {
    let folder = folder.join(FOLDER);
    let mut files = Files::default();
    for entry in std::fs::read_dir(&folder).ok()?.flatten() {
        if let Some(name) = entry.file_name().to_str() {
            files.add(name, None);
        }
    }
    // A long log has many entries before the last checkpoint, and this is done for every load.
    let is_empty = |name: &String| std::fs::metadata(folder.join(name)).is_ok_and(|metadata| metadata.len() == 0);
    let empty = files.commits.range(files.first_needed()..).map(|version| commit_name(*version)).find(is_empty)?;
    Some(Damage::new(&empty, "it is empty", false))
}

/// The first file of the log that is damaged or missing; `None` if all of them look right or the store does not respond. `store` has the
/// table's folder as its root.
pub(super) async fn find(store: &Arc<dyn ObjectStore>) -> Option<Damage> {
    let listed = store.list_with_delimiter(Some(&Path::from(FOLDER))).await.ok()?.objects;
    let mut files = Files::default();
    for ObjectMeta { location, size, .. } in &listed {
        files.add(location.filename().unwrap_or_default(), Some(*size));
    }
    let read = async |name: &str| {
        let object = store.get(&Path::from(FOLDER).join(name)).await.ok()?;
        object.bytes().await.ok()
    };
    if let Some(version) = files.checkpoints.last().map(|(version, _)| *version) {
        for (_, name) in files.checkpoints.iter().filter(|(of, _)| *of == version) {
            let bytes = read(name).await?;
            if ParquetMetaDataReader::new().parse_and_finish(&bytes).is_err() {
                return Some(Damage::new(name, "it is not a complete Parquet file", files.has_all_commits()));
            }
        }
    }
    if let Some(lost) = files.lost_commit() {
        return Some(lost);
    }
    for version in files.commits.range(files.first_needed()..) {
        let bytes = read(&commit_name(*version)).await?;
        let lines = bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
        let wrong = lines.into_iter().find(|(_, line)| serde_json::from_slice::<IgnoredAny>(line).is_err());
        if let Some((number, _)) = wrong {
            return Some(Damage::new(&commit_name(*version), format!("line {} is not JSON", number + 1), false));
        }
    }
    if listed.iter().any(|object| object.location.filename() == Some(LAST_CHECKPOINT)) {
        let named = serde_json::from_slice::<Value>(&read(LAST_CHECKPOINT).await?).ok();
        let version = named.as_ref().and_then(|named| named["version"].as_u64());
        if version.is_none_or(|version| !files.checkpoints.iter().any(|(of, _)| *of == version)) {
            return Some(Damage::new(LAST_CHECKPOINT, "it names no existing checkpoint", true));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    async fn found(files: &[(&str, &str)]) -> Option<(String, String, bool)> {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        for (name, text) in files {
            store.put(&Path::from(FOLDER).join(*name), (*text).to_owned().into()).await.unwrap();
        }
        let Damage { file, reason, is_dispensable } = find(&store).await?;
        Some((file.strip_prefix("_delta_log/").unwrap().to_owned(), reason, is_dispensable))
    }

    #[tokio::test]
    async fn the_damaged_file_is_found() {
        let (first, second, third) = ("00000000000000000000.json", "00000000000000000001.json", "00000000000000000002.json");
        let checkpoint = "00000000000000000001.checkpoint.parquet";
        let good = "{\"add\":{}}\n{\"txn\":{}}\n";
        let damage = |file: &str, reason: &str, is_dispensable| Some((file.to_owned(), reason.to_owned(), is_dispensable));
        assert_eq!(found(&[(first, good), (second, good)]).await, None);
        assert_eq!(found(&[]).await, None);
        assert_eq!(found(&[(first, good), (second, &good[..15])]).await, damage(second, "line 2 is not JSON", false));
        assert_eq!(found(&[(first, ""), (second, good)]).await, damage(first, "it is empty", false));
        assert_eq!(found(&[(first, good), (third, good)]).await, damage(second, "it is missing", false));
        assert_eq!(found(&[(second, good)]).await, damage(first, "it is missing", false));
        let incomplete = "it is not a complete Parquet file";
        assert_eq!(found(&[(first, good), (second, good), (checkpoint, "PAR1")]).await, damage(checkpoint, incomplete, true));
        assert_eq!(found(&[(third, good), (checkpoint, "PAR1")]).await, damage(checkpoint, incomplete, false));
        let pointer = "it names no existing checkpoint";
        assert_eq!(found(&[(first, good), (LAST_CHECKPOINT, "{\"version\":1}")]).await, damage(LAST_CHECKPOINT, pointer, true));
        assert_eq!(found(&[(first, good), (LAST_CHECKPOINT, "x")]).await, damage(LAST_CHECKPOINT, pointer, true));
    }
}
