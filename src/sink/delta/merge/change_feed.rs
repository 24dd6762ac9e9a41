//! Delta's change data feed: the rows that a commit brought, took and changed, as files beside the data ("Change Data Files" in the
//! Delta protocol). It finds nothing: [`crate::sink::delta::merge::key_probe`] says which rows went.
//!
//! Commits that only add rows, or replace a whole table, need no such files: readers take added rows as inserted and removed ones
//! as deleted.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::execution::memory_pool::MemoryConsumer;
use deltalake::kernel::{Action, AddCDCFile};
use futures::StreamExt;
use object_store::path::Path;
use roaring::RoaringBitmap;

use crate::engine::engine_error;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::sink::delta::DeltaOptions;
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::file_names::Names;
use crate::sink::delta::merge::key_probe::{Went, rows_at};
use crate::sink::delta::merge::key_set::{KeyCollector, KeySet, key_columns};
use crate::sink::delta::read::data_file::{DataFile, Rows};
use crate::sink::delta::write::parquet_writer::{FileFormat, NewFile};
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::delta::write::schema_cast::{Names as ColumnNames, conform};

/// Folder of the files, inside the table's.
pub(in crate::sink::delta) const FOLDER: &str = "_change_data";
/// The column that says what happened to a row.
const TYPE: &str = "_change_type";
/// Columns that readers of a feed add.
const RESERVED: [&str; 3] = [TYPE, "_commit_version", "_commit_timestamp"];

/// Whether tables tell their changes as rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChangeDataFeed {
    /// Those that did go on, others do not begin.
    #[default]
    AsBefore,
    /// From the next commit on.
    On,
    /// Not any more.
    Off,
}

/// Kind `Schema` if columns have names that a feed needs for its own.
pub(in crate::sink::delta) fn check_names(columns: &[LakeColumn]) -> Result<()> {
    match columns.iter().find(|column| RESERVED.contains(&column.name.to_lowercase().as_str())) {
        None => Ok(()),
        Some(column) => Err(Error::new(Kind::Schema, "A column has a name that the change data feed needs")
            .with_field("column", &column.name)
            .hint("sync this table with --change-data-feed off")),
    }
}

/// The action that names a file of the feed.
pub(in crate::sink::delta) fn action(file: &NewFile) -> Action {
    Action::Cdc(AddCDCFile {
        path: file.name.clone(),
        size: file.bytes as i64,
        partition_values: file.partition.iter().cloned().collect(),
        data_change: false,
        tags: None,
    })
}

/// What it takes to write the feed of a commit.
pub(in crate::sink::delta) struct Feed<'a> {
    /// How it is written.
    pub(in crate::sink::delta) options: &'a DeltaOptions,
    /// Form of the table's data files.
    pub(in crate::sink::delta) format: &'a Arc<FileFormat>,
    /// The same, for reading rows that were there before.
    pub(in crate::sink::delta) old_format: &'a Arc<FileFormat>,
    /// Its key, by the names that users see.
    pub(in crate::sink::delta) keys: &'a [String],
    /// Where files are registered.
    pub(in crate::sink::delta) names: &'a Names,
}

impl Feed<'_> {
    /// Writes the rows that `went`, as deleted or as they were before an update, and the rows of the files that are `fresh`, as
    /// inserted or as they are after it. Gives no files if nothing went. Memory is that of the keys that were updated; kind
    /// `Resources` if there is too little.
    pub(in crate::sink::delta) async fn write(&self, went: Vec<Went>, fresh: &[NewFile]) -> Result<Vec<NewFile>> {
        if went.is_empty() {
            return Ok(Vec::new());
        }
        let kind = Field::new(TYPE, DataType::Utf8, true);
        let mut columns = self.format.columns.clone();
        columns.extend(LakeColumn::of_fields(&Fields::from(vec![kind]))?);
        let mut format = FileFormat::new(self.options, Arc::clone(&self.format.outbox), &columns, self.keys, 2);
        format.folder = FOLDER;
        // The columns are those of the data files in the same places.
        format.partition.clone_from(&self.format.partition);
        let format = Arc::new(format);
        let mut out = TableWriter::new(Arc::clone(&format), self.names.clone());

        let physical: Vec<LakeColumn> =
            self.format.columns.iter().filter(|column| self.keys.contains(&column.name)).cloned().collect();
        let types: Vec<DataType> = physical.iter().map(|column| column.kind.file_type()).collect();
        let key_names: Vec<String> = physical.into_iter().map(|column| column.physical).collect();
        let mut updated = KeyCollector::new(&types)?;
        let memory = MemoryConsumer::new("UpdatedKeys").register(self.options.engine.memory_pool());
        for went in went {
            let mut rows = rows_at(self.old_format, &went.file, &went.rows, &self.options.engine).await?;
            let mut numbers = went.rows.iter();
            while let Some(batch) = rows.next().await {
                let batch = batch.map_err(engine_error)?;
                let deleted: Vec<bool> =
                    numbers.by_ref().take(batch.num_rows()).map(|number| went.by_delete.contains(number)).collect();
                let kinds = deleted.iter().map(|deleted| Some(if *deleted { "delete" } else { "update_preimage" }));
                out.write(with_kinds(&batch, kinds.collect(), &format)?).await?;
                let kept: BooleanArray = deleted.iter().map(|deleted| Some(!deleted)).collect();
                let kept = arrow::compute::filter_record_batch(&batch, &kept).context(Kind::Bug, "Rows cannot be filtered")?;
                updated.push(&key_columns(&kept, &key_names)?, &BooleanArray::from(vec![false; kept.num_rows()]))?;
                memory.try_resize(updated.memory_size()).map_err(engine_error)?;
            }
        }
        let updated = updated.take();
        for file in fresh {
            self.new_rows(file, &updated, &key_names, &format, &mut out).await?;
        }
        out.finish().await
    }

    async fn new_rows(
        &self,
        file: &NewFile,
        updated: &KeySet,
        key_names: &[String],
        format: &FileFormat,
        out: &mut TableWriter,
    ) -> Result<()> {
        let path = Path::from(file.name.as_str());
        let opened = DataFile::open(Arc::clone(&self.format.store), &path, file.bytes).await?;
        let all = Rows::all(opened.metadata());
        let columns = self.format.columns.iter().map(|column| column.physical.as_str());
        let mut rows = opened.stream(columns, all, BATCH_ROWS)?;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(engine_error)?;
            let batch = conform(&batch, &self.format.columns, &self.format.schema, ColumnNames::Physical)?;
            let mut was_there = RoaringBitmap::new();
            updated.matches(&key_columns(&batch, key_names)?, |row, _| {
                was_there.insert(row as u32);
            })?;
            let kind = |row: u32| Some(if was_there.contains(row) { "update_postimage" } else { "insert" });
            out.write(with_kinds(&batch, (0..batch.num_rows() as u32).map(kind).collect(), format)?).await?;
        }
        Ok(())
    }
}

/// Rows of a batch of new rows.
const BATCH_ROWS: usize = 4096;

fn with_kinds(batch: &RecordBatch, kinds: StringArray, format: &FileFormat) -> Result<RecordBatch> {
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(kinds) as ArrayRef);
    RecordBatch::try_new(Arc::clone(&format.schema), columns).context(Kind::Bug, "Rows do not have the schema of their file")
}
