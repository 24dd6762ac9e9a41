//! Mode `current`: one row per key. A snapshot replaces all rows; an increment is merged into them.
//!
//! The tasks of such a load are listed here, once. An [`UpsertExecutor`] runs them in this process (`local_executor.rs`) or on a cluster
//! (`distributed/coordinator.rs`), and decides how the result of one task reaches the next.

use std::sync::Arc;

use async_trait::async_trait;
use roaring::RoaringBitmap;

use crate::error::{Error, Kind, Result};
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::file_actions::{FileChanges, NewFile};
use crate::sink::delta::log::schema_evolution::is_convertible;
use crate::sink::delta::merge::change_feed::ChangeFeedWriter;
use crate::sink::delta::merge::key_probe::DeletedRows;
use crate::sink::delta::merge::post_write_dedup::{PostWriteDedup, RowsByFile};
use crate::sink::delta::modes::context::LoadContext;
use crate::sink::delta::read::row_reader::{RowReader, deleted_rows};
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::{LoadKind, WriteError};

/// Runs the tasks of one load. All files belong to the load: they are removed if it does not commit.
#[async_trait]
pub(crate) trait UpsertExecutor: Send {
    /// An increment whose rows were written.
    type Increment: Send;

    /// Writes the changes of a snapshot as rows of new files, and finds the rows that a newer change of the same key replaces.
    async fn write_snapshot(&mut self) -> Result<WrittenSnapshot, WriteError>;

    /// Writes the upserts of an increment as rows of new files, and keeps its keys.
    async fn write_increment(&mut self) -> Result<Self::Increment, WriteError>;

    /// Looks up the keys of the increment in the existing files and deletes the rows that have them. Returns the result of both tasks.
    async fn update_files(&mut self, increment: Self::Increment) -> Result<FileChanges, WriteError>;
}

/// The rows of a snapshot.
pub(crate) struct WrittenSnapshot {
    pub(crate) files: Vec<NewFile>,
    /// Number of upserts, with those of replaced rows.
    pub(crate) upserted: u64,
    /// The rows that a newer change of the same key replaces, by the number of their file.
    pub(crate) replaced: RowsByFile,
}

/// Runs the tasks of a load.
pub(crate) async fn run(load: &LoadContext, executor: &mut impl UpsertExecutor) -> Result<FileChanges, WriteError> {
    match load.plan.kind {
        LoadKind::Replace if !load.keeps_rows() => replace(load, executor).await,
        LoadKind::Replace | LoadKind::Merge => {
            let increment = executor.write_increment().await?;
            executor.update_files(increment).await
        }
    }
}

/// Replaces all rows of the table.
pub(crate) async fn replace(load: &LoadContext, executor: &mut impl UpsertExecutor) -> Result<FileChanges, WriteError> {
    let WrittenSnapshot { files, upserted, replaced } = executor.write_snapshot().await?;
    let mut written = FileChanges { added: files, upserted, ..FileChanges::remove_all(load.files().len()) };
    let format = load.format(1);
    if !replaced.is_empty() {
        remove_replaced(load, &format, &replaced, &mut written).await?;
    }
    if load.writes_change_feed() && load.feeds_old_rows() {
        let old_rows = old_row_reader(load, &format);
        let feed = ChangeFeedWriter {
            options: &load.options,
            format: &format,
            old_rows: &old_rows,
            keys: &load.keys,
            registry: &load.uncommitted.registry(),
        };
        written.change_feed = feed.write(all_rows(load).await?, &written.added).await?;
    }
    Ok(written)
}

/// Removes the rows `replaced` from the new files.
async fn remove_replaced(
    load: &LoadContext,
    format: &Arc<FileFormat>,
    replaced: &RowsByFile,
    written: &mut FileChanges,
) -> Result<()> {
    // Readers of a change data feed treat the files of a first commit as its inserts, and not all respect deletion vectors there.
    let rule = load.deletion_vector_rule().filter(|_| !load.writes_change_feed());
    let registry = load.uncommitted.registry();
    let dedup = PostWriteDedup { engine: &load.options.engine, format, registry: &registry, rule };
    let deduplicated = dedup.remove_rows(replaced, std::mem::take(&mut written.added)).await?;
    tracing::debug!(table = %load.plan.table, rows = deduplicated.removed_rows, "Removed older rows of repeated keys");
    written.added = deduplicated.files;
    written.vector_file_bytes = deduplicated.vector_file_bytes;
    written.upserted -= deduplicated.removed_rows;
    Ok(())
}

/// Reads old rows in the schema of new files. Columns whose old values do not fit the new type are null.
fn old_row_reader(load: &LoadContext, format: &FileFormat) -> RowReader {
    let does_not_fit = |column: &LakeColumn| {
        let old = load.old_columns().iter().find(|old| old.physical == column.physical);
        old.is_some_and(|old| !is_convertible(&old.kind, &column.kind))
    };
    RowReader::for_format(format, &load.options.engine).with_nulls(does_not_fit)
}

/// All rows of the table, as deleted rows.
async fn all_rows(load: &LoadContext) -> Result<Vec<DeletedRows>> {
    let mut all = Vec::with_capacity(load.files().len());
    for file in load.files() {
        let total = file.rows.and_then(|rows| u32::try_from(rows).ok()).ok_or_else(|| {
            Error::new(Kind::Unsupported, "The statistics of a data file lack the number of rows")
                .with_field("file", &file.path)
                .hint("sync this table with --change-data-feed off")
        })?;
        let mut rows = RoaringBitmap::new();
        rows.insert_range(0..total);
        rows -= deleted_rows(&load.log.store(), file).await?;
        all.push(DeletedRows { file: Arc::clone(file), by_delete: rows.clone(), rows });
    }
    Ok(all)
}
