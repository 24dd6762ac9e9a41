//! Carries out the actions on existing files: deletion vectors and rewrites.

use std::sync::Arc;

use futures::StreamExt;
use roaring::RoaringBitmap;

use crate::engine::{Engine, engine_error};
use crate::error::Result;
use crate::sink::delta::log::active_file::{ActiveFile, FileLocation};
use crate::sink::delta::log::file_actions::{FileChanges, VectorUpdate};
use crate::sink::delta::merge::key_probe::{DeletionVectorRule, FileAction, MergeProbe};
use crate::sink::delta::read::row_reader::RowReader;
use crate::sink::delta::write::deletion_vectors::VectorFile;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::delta::write::uncommitted_files::FileRegistry;

/// The existing files of a table, and how their rows are rewritten.
pub(crate) struct ExistingFiles<'a> {
    pub(crate) files: &'a [Arc<ActiveFile>],
    pub(crate) format: &'a Arc<FileFormat>,
    pub(crate) engine: &'a Engine,
    pub(crate) registry: FileRegistry,
    pub(crate) target_file_bytes: u64,
}

impl ExistingFiles<'_> {
    /// Deletes the matches of `probe` and finishes `writer`, which may have new rows already. `rewrite_all`: the columns of the files
    /// change. `rule` is `None` if the table may not have deletion vectors.
    pub(crate) async fn delete_matches(
        &self,
        probe: MergeProbe,
        rewrite_all: bool,
        rule: Option<DeletionVectorRule>,
        mut writer: TableWriter,
        changes: &mut FileChanges,
    ) -> Result<()> {
        let mut vectors = VectorFile::new();
        let actions = probe.into_actions(rewrite_all, rule).await?;
        self.apply(actions, &mut writer, &mut vectors, changes).await?;
        changes.added.extend(writer.finish().await?);
        changes.vector_file_bytes = vectors.finish(&self.format.store, &self.registry).await?;
        Ok(())
    }

    /// Carries out one action per file. The rows of a rewritten file go to `writer` or, if the file is large, to new files of
    /// their own.
    async fn apply(
        &self,
        actions: Vec<FileAction>,
        writer: &mut TableWriter,
        vectors: &mut VectorFile,
        changes: &mut FileChanges,
    ) -> Result<()> {
        for (number, action) in actions.into_iter().enumerate() {
            let file = &self.files[number];
            match action {
                FileAction::Keep => {}
                FileAction::Remove => changes.removed[number] = true,
                FileAction::DeletionVector(deleted) => {
                    changes.removed[number] = true;
                    let deletion_vector = vectors.push(&deleted)?;
                    changes.vector_updates.push(VectorUpdate { file: Arc::clone(file), deletion_vector });
                }
                FileAction::Rewrite(deleted) => {
                    changes.removed[number] = true;
                    // Small files are merged with the new rows; large ones keep their range of keys.
                    if file.size < self.target_file_bytes / 4 {
                        rewrite(self.format, &file.location(), deleted, self.engine, writer).await?;
                    } else {
                        let mut own = TableWriter::new(Arc::clone(self.format), self.registry.clone());
                        rewrite(self.format, &file.location(), deleted, self.engine, &mut own).await?;
                        changes.added.extend(own.finish().await?);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Writes the rows of `file` that are not `deleted` to `writer`, in the current schema of the table.
pub(crate) async fn rewrite(
    format: &FileFormat,
    file: &FileLocation,
    deleted: RoaringBitmap,
    engine: &Engine,
    writer: &mut TableWriter,
) -> Result<()> {
    let mut rows = RowReader::for_format(format, engine).live_rows(file, deleted).await?;
    while let Some(batch) = rows.next().await {
        writer.write(batch.map_err(engine_error)?).await?;
    }
    Ok(())
}
