//! Reads rows of data files in the current file schema of their table, and the deletion vectors of these files.

use std::sync::Arc;

use arrow::array::{BooleanArray, BooleanBufferBuilder, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use deltalake::ObjectStore;
use futures::{StreamExt, TryStreamExt};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use roaring::RoaringBitmap;

use crate::engine::Engine;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::sink::delta::log::active_file::{ActiveFile, FileLocation};
use crate::sink::delta::log::columns::{LakeColumn, file_schema};
use crate::sink::delta::log::partition_column::is_partition;
use crate::sink::delta::read::data_file::{DataFile, RowFilter};
use crate::sink::delta::write::deletion_vectors;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::schema_cast::{ColumnNames, cast_to_file_schema};

/// Positions of the deleted rows of a file, from its deletion vector.
pub(crate) async fn deleted_rows(store: &Arc<dyn ObjectStore>, file: &ActiveFile) -> Result<RoaringBitmap> {
    match &file.deletion_vector {
        Some(vector) => deletion_vectors::read(store, vector).await.with_field("of", &file.path),
        None => Ok(RoaringBitmap::new()),
    }
}

/// Reads rows of data files and casts them to one file schema. Clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct RowReader {
    store: Arc<dyn ObjectStore>,
    columns: Arc<[LakeColumn]>,
    schema: SchemaRef,
    engine: Engine,
}

impl RowReader {
    /// Reads the columns `columns` without the partition column. The columns `keys` are not null.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, columns: &[LakeColumn], keys: &[String], engine: &Engine) -> Self {
        let columns: Arc<[LakeColumn]> = columns.iter().filter(|column| !is_partition(column)).cloned().collect();
        Self { store, schema: file_schema(&columns, keys), columns, engine: engine.clone() }
    }

    /// Reads rows in the schema of new files.
    pub(crate) fn for_format(format: &FileFormat, engine: &Engine) -> Self {
        let (store, schema) = (Arc::clone(&format.store), Arc::clone(&format.schema));
        Self { store, schema, columns: format.columns.iter().cloned().collect(), engine: engine.clone() }
    }

    /// Reads nulls in place of the columns for which `is_null` is true.
    #[must_use]
    pub(crate) fn with_nulls(self, is_null: impl Fn(&LakeColumn) -> bool) -> Self {
        let columns = self.columns.iter().map(|column| {
            // No file has a column without a name.
            if is_null(column) { LakeColumn { physical: String::new(), ..column.clone() } } else { column.clone() }
        });
        Self { columns: columns.collect(), ..self }
    }

    /// The columns that are read.
    pub(crate) fn columns(&self) -> &[LakeColumn] {
        &self.columns
    }

    /// The schema of the batches.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows of a file except those at the positions `deleted`. The stream fails rather than end early.
    pub(crate) async fn live_rows(&self, file: &FileLocation, deleted: RoaringBitmap) -> Result<SendableRecordBatchStream> {
        let opened = DataFile::open(Arc::clone(&self.store), file).await?;
        let total = opened.row_count()?;
        if deleted.max().is_some_and(|last| last >= total) {
            let error = Error::new(Kind::Target, "A deletion vector has rows that its file does not have");
            return Err(error.with_field("file", &file.path));
        }
        let all = RowFilter::all(opened.metadata());
        self.stream(opened, file, all, u64::from(total), move |batch, start| without(batch, start as u32, &deleted))
    }

    /// The rows of a file at the positions `rows`, ascending. The stream fails rather than end early.
    pub(crate) async fn rows_at(&self, file: &FileLocation, rows: &RoaringBitmap) -> Result<SendableRecordBatchStream> {
        let opened = DataFile::open(Arc::clone(&self.store), file).await?;
        opened.row_count()?;
        let selected = RowFilter::at(opened.metadata(), rows);
        self.stream(opened, file, selected, rows.len(), |batch, _| Ok(batch.clone()))
    }

    /// All rows of an uncommitted file, in batches of `batch_rows`.
    pub(crate) async fn all_rows(&self, file: &FileLocation, batch_rows: usize) -> Result<SendableRecordBatchStream> {
        let opened = DataFile::open(Arc::clone(&self.store), file).await?;
        let (all, total) = (RowFilter::all(opened.metadata()), u64::from(opened.row_count()?));
        self.stream_batches(opened, file, all, total, batch_rows, |batch, _| Ok(batch.clone()))
    }

    /// The live rows of `files`, one file after the other.
    pub(crate) fn live_rows_of(&self, files: &[Arc<ActiveFile>]) -> SendableRecordBatchStream {
        let reader = self.clone();
        let streams = futures::stream::iter(files.to_vec()).then(move |file| {
            let reader = reader.clone();
            async move {
                let open = async {
                    let deleted = deleted_rows(&reader.store, &file).await?;
                    reader.live_rows(&file.location(), deleted).await
                };
                open.await.map_err(DataFusionError::from)
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), streams.try_flatten()))
    }

    fn stream(
        &self,
        opened: DataFile,
        file: &FileLocation,
        rows: RowFilter,
        expected: u64,
        select: impl Fn(&RecordBatch, u64) -> Result<RecordBatch> + Send + Sync + 'static,
    ) -> Result<SendableRecordBatchStream> {
        let batch_rows = self.engine.batch_rows(row_bytes(opened.metadata()));
        self.stream_batches(opened, file, rows, expected, batch_rows, select)
    }

    /// Streams `expected` rows. `select` gets each batch with the number of rows before it and chooses rows of it.
    fn stream_batches(
        &self,
        opened: DataFile,
        file: &FileLocation,
        rows: RowFilter,
        expected: u64,
        batch_rows: usize,
        select: impl Fn(&RecordBatch, u64) -> Result<RecordBatch> + Send + Sync + 'static,
    ) -> Result<SendableRecordBatchStream> {
        let columns = self.columns.iter().map(|column| column.physical.as_str());
        let stream = opened.stream(columns, rows, batch_rows)?;
        let context = Arc::new((Arc::clone(&self.columns), Arc::clone(&self.schema), file.path.clone(), select));
        let rows = futures::stream::try_unfold((stream, 0_u64), move |(mut stream, before)| {
            let context = Arc::clone(&context);
            async move {
                let (columns, schema, path, select) = &*context;
                match stream.next().await {
                    None if before == expected => Ok(None),
                    None => {
                        let error = Error::new(Kind::Bug, "A data file was not read completely").with_field("file", path);
                        Err(error.into())
                    }
                    Some(batch) => {
                        let batch = batch?;
                        let cast = select(&batch, before)
                            .and_then(|rows| cast_to_file_schema(&rows, columns, schema, ColumnNames::Physical))
                            .with_field("file", path);
                        Ok(Some((cast.map_err(DataFusionError::from)?, (stream, before + batch.num_rows() as u64))))
                    }
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows)))
    }
}

/// Size of a decoded row in bytes, from the row group with the largest rows. The file itself is smaller if it has dictionaries.
fn row_bytes(metadata: &ParquetMetaData) -> usize {
    let decoded = |column: &ColumnChunkMetaData| {
        column.uncompressed_size().max(column.unencoded_byte_array_data_bytes().unwrap_or(0)).max(0) as u64
    };
    let of_group = |group: &RowGroupMetaData| {
        group.columns().iter().map(decoded).sum::<u64>().div_ceil(u64::try_from(group.num_rows()).unwrap_or(0).max(1))
    };
    metadata.row_groups().iter().map(of_group).max().map_or(1, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// The rows of a batch whose positions are not in `deleted`; the first row has the position `start`.
fn without(batch: &RecordBatch, start: u32, deleted: &RoaringBitmap) -> Result<RecordBatch> {
    let end = start + batch.num_rows() as u32;
    let mut kept = BooleanBufferBuilder::new(batch.num_rows());
    kept.append_n(batch.num_rows(), true);
    let count = deleted.range(start..end).map(|row| kept.set_bit((row - start) as usize, false)).count();
    if count == 0 {
        return Ok(batch.clone());
    }
    let kept = BooleanArray::new(kept.finish(), None);
    filter_record_batch(batch, &kept).context(Kind::Bug, "Rows cannot be filtered")
}
