//! Writes the change data feed of a commit: files with the rows that the commit inserted, updated and deleted ("Change Data Files" in
//! the Delta protocol).
//!
//! A commit that only adds rows, or replaces the whole table, needs no such files: readers take added rows as inserted and removed
//! rows as deleted.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::execution::memory_pool::MemoryConsumer;
use futures::StreamExt;
use roaring::RoaringBitmap;

use crate::engine::engine_error;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::file_actions::NewFile;
use crate::sink::delta::merge::key_probe::DeletedRows;
use crate::sink::delta::merge::key_set::{KeyCollector, KeySet, key_columns};
use crate::sink::delta::options::DeltaOptions;
use crate::sink::delta::read::row_reader::RowReader;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::delta::write::uncommitted_files::FileRegistry;

/// The column with the kind of change: `insert`, `update_preimage`, `update_postimage` or `delete`.
const CHANGE_TYPE: &str = "_change_type";
/// Columns that readers of a feed add.
const RESERVED: [&str; 3] = [CHANGE_TYPE, "_commit_version", "_commit_timestamp"];
/// Number of rows in a batch of new rows.
const BATCH_ROWS: usize = 4096;

/// Checks that no column has a name that a change data feed reserves. Kind `Schema`.
pub(crate) fn check_names(columns: &[LakeColumn]) -> Result<()> {
    match columns.iter().find(|column| RESERVED.contains(&column.name.to_lowercase().as_str())) {
        None => Ok(()),
        Some(column) => Err(Error::new(Kind::Schema, "The change data feed reserves the name of a column")
            .with_field("column", &column.name)
            .hint("sync this table with --change-data-feed off")),
    }
}

/// Writes the change data feed of a commit.
pub(crate) struct ChangeFeedWriter<'a> {
    pub(crate) options: &'a DeltaOptions,
    /// Format of the data files of the table.
    pub(crate) format: &'a Arc<FileFormat>,
    /// Reads the rows from before the commit, in the schema of `format`.
    pub(crate) old_rows: &'a RowReader,
    /// Names of the key columns.
    pub(crate) keys: &'a [String],
    pub(crate) registry: &'a FileRegistry,
}

impl ChangeFeedWriter<'_> {
    /// Writes the rows `deleted` as deletes or update preimages, and the rows of the new files `added` as inserts or update
    /// postimages. Returns no files if `deleted` is empty. Keeps the updated keys in memory; kind `Resources` if they do not fit.
    pub(crate) async fn write(&self, deleted: Vec<DeletedRows>, added: &[NewFile]) -> Result<Vec<NewFile>> {
        if deleted.is_empty() {
            return Ok(Vec::new());
        }
        let change_type = Field::new(CHANGE_TYPE, DataType::Utf8, true);
        let more = LakeColumn::from_fields(&Fields::from(vec![change_type]))?;
        let format = Arc::new(self.format.for_change_feed(self.options, more, self.keys));
        let mut writer = TableWriter::new(Arc::clone(&format), self.registry.clone());

        let keys: Vec<LakeColumn> =
            self.format.columns.iter().filter(|column| self.keys.contains(&column.name)).cloned().collect();
        let mut updated = KeyCollector::new(&LakeColumn::file_types(&keys))?;
        let key_names: Vec<String> = keys.into_iter().map(|column| column.physical).collect();
        let memory = MemoryConsumer::new("UpdatedKeys").register(self.options.engine.memory_pool());
        for deleted in deleted {
            let mut rows = self.old_rows.rows_at(&deleted.file.location(), &deleted.rows).await?;
            let mut positions = deleted.rows.iter();
            while let Some(batch) = rows.next().await {
                let batch = batch.map_err(engine_error)?;
                let is_delete: Vec<bool> =
                    positions.by_ref().take(batch.num_rows()).map(|row| deleted.by_delete.contains(row)).collect();
                let types = is_delete.iter().map(|is_delete| Some(if *is_delete { "delete" } else { "update_preimage" }));
                writer.write(with_change_types(&batch, types.collect(), &format)?).await?;
                let is_update: BooleanArray = is_delete.iter().map(|is_delete| Some(!is_delete)).collect();
                let updates = filter_record_batch(&batch, &is_update).context(Kind::Bug, "Rows cannot be filtered")?;
                updated.push(&key_columns(&updates, &key_names)?, &BooleanArray::from(vec![false; updates.num_rows()]))?;
                memory.try_resize(updated.memory_size()).map_err(engine_error)?;
            }
        }
        let updated = updated.take();
        for file in added {
            self.write_added(file, &updated, &key_names, &format, &mut writer).await?;
        }
        writer.finish().await
    }

    async fn write_added(
        &self,
        file: &NewFile,
        updated: &KeySet,
        key_names: &[String],
        format: &FileFormat,
        writer: &mut TableWriter,
    ) -> Result<()> {
        let reader = RowReader::for_format(self.format, &self.options.engine);
        let mut rows = reader.all_rows(&file.location(), BATCH_ROWS).await?;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(engine_error)?;
            let mut is_update = RoaringBitmap::new();
            updated.matches(&key_columns(&batch, key_names)?, |row, _| {
                is_update.insert(row as u32);
            })?;
            let change_type = |row: u32| Some(if is_update.contains(row) { "update_postimage" } else { "insert" });
            let types = (0..batch.num_rows() as u32).map(change_type).collect();
            writer.write(with_change_types(&batch, types, format)?).await?;
        }
        Ok(())
    }
}

fn with_change_types(batch: &RecordBatch, types: StringArray, format: &FileFormat) -> Result<RecordBatch> {
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(types) as ArrayRef);
    RecordBatch::try_new(Arc::clone(&format.schema), columns).context(Kind::Bug, "Rows do not match the schema of their file")
}
