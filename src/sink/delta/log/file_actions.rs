//! Files that a commit adds and removes, on their way to the actions of the log.

use std::sync::Arc;

use deltalake::kernel::{Action, Add, AddCDCFile, DeletionVectorDescriptor};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::sink::delta::log::active_file::{ActiveFile, FileLocation};

/// Physical name of the partition column and its value; the value is `None` for rows whose source column is null.
pub(crate) type PartitionValue = (String, Option<String>);

/// A data file that was written and is not committed yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NewFile {
    /// Path in the table's folder.
    pub(crate) name: String,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// Number of rows that are not deleted.
    pub(crate) rows: u64,
    /// Statistics as JSON.
    pub(crate) stats: String,
    /// For each column of the file, whether it has nulls.
    pub(crate) has_nulls: Vec<bool>,
    /// `None` for tables without partitions.
    pub(crate) partition: Option<PartitionValue>,
    /// Number of the file within its load; see [`FileRegistry`](crate::sink::delta::write::uncommitted_files::FileRegistry).
    pub(crate) number: u32,
    /// Which of its rows are deleted from the start.
    pub(crate) deletion_vector: Option<DeletionVectorDescriptor>,
}

impl NewFile {
    /// Path and size.
    pub(crate) fn location(&self) -> FileLocation {
        FileLocation { path: self.name.as_str().into(), size: self.bytes }
    }

    /// The action that adds the file to the table; `now` is in milliseconds. `data_change` is false if its rows were in the table
    /// before.
    pub(crate) fn add_action(&self, now: i64, data_change: bool) -> Action {
        Action::Add(Add {
            path: self.name.clone(),
            partition_values: self.partition.iter().cloned().collect(),
            size: self.bytes as i64,
            modification_time: now,
            data_change,
            stats: Some(self.stats.clone()),
            tags: None,
            deletion_vector: self.deletion_vector.clone(),
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        })
    }

    /// The action that adds the file to the change data feed of the commit.
    pub(crate) fn change_feed_action(&self) -> Action {
        Action::Cdc(AddCDCFile {
            path: self.name.clone(),
            size: self.bytes as i64,
            partition_values: self.partition.iter().cloned().collect(),
            data_change: false,
            tags: None,
        })
    }
}

/// A file of the table that gets another deletion vector.
#[derive(Debug)]
pub(crate) struct VectorUpdate {
    pub(crate) file: Arc<ActiveFile>,
    pub(crate) deletion_vector: DeletionVectorDescriptor,
}

impl VectorUpdate {
    fn live_rows(&self) -> Option<u64> {
        Some(self.file.rows?.saturating_sub(u64::try_from(self.deletion_vector.cardinality).ok()?))
    }
}

/// The result of a load: the files that its commit adds and removes, and counts of rows.
#[derive(Debug, Default)]
pub(crate) struct FileChanges {
    /// New data files.
    pub(crate) added: Vec<NewFile>,
    /// If set, files of `added` from this position on hold only rows of removed files, and removed files hold no other rows: the
    /// commit then says that these files change no data.
    pub(crate) rewritten_from: Option<usize>,
    /// For each file of the table, whether the commit removes it. Files of `vector_updates` are removed and added again.
    pub(crate) removed: Vec<bool>,
    /// Files that get another deletion vector.
    pub(crate) vector_updates: Vec<VectorUpdate>,
    /// Size in bytes of the file with deletion vectors.
    pub(crate) vector_file_bytes: u64,
    /// Files of the change data feed.
    pub(crate) change_feed: Vec<NewFile>,
    /// Number of upserts in the change set.
    pub(crate) upserted: u64,
    /// Number of deletes in the change set whose key was in the table.
    pub(crate) deleted: u64,
}

impl FileChanges {
    /// Changes that keep all of `files` files of the table.
    pub(crate) fn keep_all(files: usize) -> Self {
        Self { removed: vec![false; files], ..Self::default() }
    }

    /// Changes that remove all of `files` files of the table.
    pub(crate) fn remove_all(files: usize) -> Self {
        Self { removed: vec![true; files], ..Self::default() }
    }

    /// Whether the commit adds deletion vectors.
    pub(crate) fn has_deletion_vectors(&self) -> bool {
        !self.vector_updates.is_empty() || self.added.iter().any(|file| file.deletion_vector.is_some())
    }

    /// The files among `files`, those of the table, that the commit does not touch.
    pub(crate) fn kept<'f>(&'f self, files: &'f [Arc<ActiveFile>]) -> impl Iterator<Item = &'f Arc<ActiveFile>> {
        files.iter().zip(&self.removed).filter(|(_, removed)| !**removed).map(|(file, _)| file)
    }

    /// Size in bytes and partition value of each data file after the commit.
    pub(crate) fn files_after<'f>(&'f self, files: &'f [Arc<ActiveFile>]) -> impl Iterator<Item = (u64, Option<&'f str>)> {
        let updated = self.vector_updates.iter().map(|update| &update.file);
        let old = self.kept(files).chain(updated).map(|file| (file.size, file.partition.as_deref()));
        let value = |file: &'f NewFile| file.partition.as_ref().and_then(|(_, value)| value.as_deref());
        old.chain(self.added.iter().map(move |file| (file.bytes, value(file))))
    }

    /// Number of rows after the commit; `None` if a file does not say how many it has.
    pub(crate) fn rows_after(&self, files: &[Arc<ActiveFile>]) -> Option<u64> {
        let old = self.kept(files).map(|file| file.live_rows()).chain(self.vector_updates.iter().map(VectorUpdate::live_rows));
        let added: u64 = self.added.iter().map(|file| file.rows).sum();
        old.into_iter().try_fold(added, |sum, rows| Some(sum + rows?))
    }

    /// Size in bytes of all files that were written.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.added.iter().chain(&self.change_feed).map(|file| file.bytes).sum::<u64>() + self.vector_file_bytes
    }

    /// The `add`, `remove` and `cdc` actions of the commit. `now` is in milliseconds.
    pub(crate) fn actions(&self, files: &[Arc<ActiveFile>], now: i64) -> Result<Vec<Action>> {
        let changing = self.rewritten_from.unwrap_or(usize::MAX);
        let added = self.added.iter().enumerate();
        let mut actions: Vec<Action> = added.map(|(number, file)| file.add_action(now, number < changing)).collect();
        for (file, _) in files.iter().zip(&self.removed).filter(|(_, removed)| **removed) {
            actions.push(file.remove_action(self.rewritten_from.is_none())?);
        }
        for update in &self.vector_updates {
            actions.push(update.file.add_action(update.deletion_vector.clone())?);
        }
        actions.extend(self.change_feed.iter().map(NewFile::change_feed_action));
        Ok(actions)
    }
}
