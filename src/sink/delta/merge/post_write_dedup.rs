//! Post-write deduplication, for a first load from a source that may repeat keys: all rows are written as they arrive, and their
//! locations are indexed. Afterwards, all rows except the newest of each key are deleted by deletion vectors or by a rewrite of
//! their files. Few keys are repeated, so this is much less work than sorting all rows first.
//!
//! A location takes 40 bytes. Locations are sorted in memory within a share of the memory limit, and on disk beyond it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::error::Result as PlanResult;
use object_store::ObjectStoreExt;
use parking_lot::Mutex;
use roaring::RoaringBitmap;

use crate::engine::{Engine, ExternalSorter, engine_error};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::sink::delta::log::file_actions::NewFile;
use crate::sink::delta::log::statistics::with_wide_bounds;
use crate::sink::delta::merge::file_rewrite::rewrite;
use crate::sink::delta::merge::key_probe::DeletionVectorRule;
use crate::sink::delta::merge::row_location::{NO_FILE, RowLocation, RowLocationSink};
use crate::sink::delta::write::deletion_vectors::VectorFile;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::delta::write::uncommitted_files::FileRegistry;

/// Positions of rows, by the number of their file.
pub(crate) type RowsByFile = BTreeMap<u32, RoaringBitmap>;

/// The locations of the rows of a load. Clones share one index.
#[derive(Debug, Clone)]
pub(crate) struct RowLocationIndex(Arc<Mutex<ExternalSorter<5>>>);

impl RowLocationIndex {
    /// An empty index.
    pub(crate) fn new(engine: &Engine) -> Self {
        Self(Arc::new(Mutex::new(ExternalSorter::new(engine, "RowLocations"))))
    }

    /// Adds a location.
    pub(crate) fn insert(&self, location: RowLocation) -> Result<()> {
        self.0.lock().push(location.to_entry()).map_err(engine_error)
    }

    /// The rows that a newer change of the same key replaces. There must be no other clone of the index.
    pub(crate) async fn replaced_rows(self) -> Result<RowsByFile> {
        let sorted = Arc::into_inner(self.0).ok_or_else(|| Error::new(Kind::Bug, "Rows are still being written"))?;
        let sorted = sorted.into_inner();
        // It reads temporary files.
        let search = tokio::task::spawn_blocking(move || find_replaced(sorted));
        search.await.context(Kind::Bug, "The search for repeated keys stopped unexpectedly")?.map_err(engine_error)
    }
}

#[async_trait]
impl RowLocationSink for RowLocationIndex {
    /// The files do not show whether a delete is newer than an upsert of the same key.
    fn accepts_deletes(&self) -> bool {
        false
    }

    async fn push(&self, locations: Vec<RowLocation>) -> Result<()> {
        let mut sorted = self.0.lock();
        locations.into_iter().try_for_each(|location| sorted.push(location.to_entry()).map_err(engine_error))
    }
}

fn find_replaced(sorted: ExternalSorter<5>) -> PlanResult<RowsByFile> {
    let mut replaced = RowsByFile::new();
    let mut last: Option<RowLocation> = None;
    for entry in sorted.finish()? {
        let location = RowLocation::from_entry(entry?);
        if let Some(before) = last.replace(location)
            && before.key_hash == location.key_hash
            && before.file != NO_FILE
        {
            replaced.entry(before.file).or_default().insert(before.row);
        }
    }
    Ok(replaced)
}

/// How replaced rows are removed.
pub(crate) struct PostWriteDedup<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) format: &'a Arc<FileFormat>,
    pub(crate) registry: &'a FileRegistry,
    /// `None` if the table may not have deletion vectors.
    pub(crate) rule: Option<DeletionVectorRule>,
}

/// The result of a post-write deduplication.
pub(crate) struct Deduplicated {
    /// The files of the table.
    pub(crate) files: Vec<NewFile>,
    /// Size in bytes of the file with deletion vectors.
    pub(crate) vector_file_bytes: u64,
    /// Number of rows that were removed.
    pub(crate) removed_rows: u64,
}

impl PostWriteDedup<'_> {
    /// Removes the rows `replaced` from the new files `files`.
    pub(crate) async fn remove_rows(&self, replaced: &RowsByFile, mut files: Vec<NewFile>) -> Result<Deduplicated> {
        let mut vectors = VectorFile::new();
        let mut writer = TableWriter::new(Arc::clone(self.format), self.registry.clone());
        let mut kept = Vec::with_capacity(files.len());
        // One partition after the other, because each open file has buffers of its own.
        files.sort_by(|one, next| one.partition.cmp(&next.partition));
        let mut last = None;
        for mut file in files {
            if last.as_ref() != Some(&file.partition) {
                writer.close_files().await?;
                last = Some(file.partition.clone());
            }
            let Some(deleted) = replaced.get(&file.number) else {
                kept.push(file);
                continue;
            };
            let has_live_rows = deleted.len() < file.rows;
            if has_live_rows && self.rule.is_some_and(|rule| rule.applies(file.bytes, deleted.len(), file.rows)) {
                file.deletion_vector = Some(vectors.push(deleted)?);
                file.stats = with_wide_bounds(&file.stats);
                file.rows -= deleted.len();
                kept.push(file);
                continue;
            }
            let location = file.location();
            if has_live_rows {
                rewrite(self.format, &location, deleted.clone(), self.engine, &mut writer).await?;
            }
            if let Err(error) = self.format.store.delete(&location.path).await {
                tracing::warn!(file = file.name, error = %error, "Could not remove a file that was rewritten before its commit");
            }
        }
        kept.extend(writer.finish().await?);
        let vector_file_bytes = vectors.finish(&self.format.store, self.registry).await?;
        let removed_rows = replaced.values().map(RoaringBitmap::len).sum();
        Ok(Deduplicated { files: kept, vector_file_bytes, removed_rows })
    }
}
