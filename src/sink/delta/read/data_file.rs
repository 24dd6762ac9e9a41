//! Reads columns and row groups of a data file, batch by batch.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use deltalake::ObjectStore;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use roaring::RoaringBitmap;

use crate::engine::combine_streams;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::sink::delta::log::active_file::FileLocation;
use crate::sink::delta::log::columns::position_of_name;

/// Bytes at the end of a file that are read first; they contain most footers.
const FOOTER_GUESS: usize = 64 * 1024;
const UNREADABLE: &str = "A data file cannot be read";

/// A data file whose footer has been read.
pub(crate) struct DataFile {
    builder: ParquetRecordBatchStreamBuilder<StoreReader>,
    reader: StoreReader,
    path: Path,
}

/// Which rows of a file to read.
#[derive(Debug, Default)]
pub(crate) struct RowFilter {
    /// Row groups, ascending.
    pub(crate) groups: Vec<usize>,
    /// Rows of these groups, counted over all of them; `None` means all.
    pub(crate) selection: Option<RowSelection>,
}

impl RowFilter {
    /// The rows at these positions of the file.
    pub(crate) fn at(metadata: &ParquetMetaData, rows: &RoaringBitmap) -> Self {
        let (mut groups, mut selected, mut start, mut offset) = (Vec::new(), Vec::<Range<usize>>::new(), 0_u32, 0_usize);
        for (number, group) in metadata.row_groups().iter().enumerate() {
            let end = start + group.num_rows() as u32;
            if rows.range_cardinality(start..end) > 0 {
                groups.push(number);
                for row in rows.range(start..end) {
                    let at = offset + (row - start) as usize;
                    match selected.last_mut() {
                        Some(last) if last.end == at => last.end += 1,
                        _ => selected.push(at..at + 1),
                    }
                }
                offset += group.num_rows() as usize;
            }
            start = end;
        }
        Self { groups, selection: Some(RowSelection::from_consecutive_ranges(selected.into_iter(), offset)) }
    }

    /// All rows of the file.
    pub(crate) fn all(metadata: &ParquetMetaData) -> Self {
        Self { groups: (0..metadata.num_row_groups()).collect(), selection: None }
    }
}

impl DataFile {
    /// Opens a file and reads its footer. Kind `Target` if it cannot be read.
    pub(crate) async fn open(store: Arc<dyn ObjectStore>, file: &FileLocation) -> Result<Self> {
        let reader = StoreReader { store, file: file.clone() };
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader.clone(), options).await;
        Ok(Self {
            builder: builder.map_err(DataFusionError::from).map_err(|error| unreadable(error, &file.path))?,
            reader,
            path: file.path.clone(),
        })
    }

    /// Reads the page index as well, if the file has one.
    pub(crate) async fn with_page_index(self) -> Result<Self> {
        let mut reader = self.reader.clone();
        let metadata = ParquetMetaData::clone(self.builder.metadata());
        let mut loader = ParquetMetaDataReader::new_with_metadata(metadata).with_page_index_policy(PageIndexPolicy::Optional);
        let loaded = async {
            loader.load_page_index(&mut reader).await?;
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            ArrowReaderMetadata::try_new(Arc::new(loader.finish()?), options)
        };
        let loaded = loaded.await.map_err(DataFusionError::from).map_err(|error| unreadable(error, &self.path))?;
        let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader.clone(), loaded);
        Ok(Self { builder, ..self })
    }

    /// The metadata in the footer.
    pub(crate) fn metadata(&self) -> &Arc<ParquetMetaData> {
        self.builder.metadata()
    }

    /// Number of rows, deleted ones included. Kind `Unsupported` if there are more than 2³² - 1.
    pub(crate) fn row_count(&self) -> Result<u32> {
        let rows = self.metadata().file_metadata().num_rows();
        u32::try_from(rows)
            .map_err(|_| Error::new(Kind::Unsupported, "A data file has too many rows").with_field("file", &self.path))
    }

    /// The Bloom filter of a column in a row group, if there is one.
    pub(crate) async fn bloom_filter(&mut self, group: usize, column: &str) -> Result<Option<Sbbf>> {
        let columns = self.metadata().row_group(group).columns();
        let chunk = columns.iter().position(|chunk| chunk.column_path().parts() == [column]);
        let Some(chunk) = chunk else { return Ok(None) };
        let filter = self.builder.get_row_group_column_bloom_filter(group, chunk).await;
        filter.map_err(DataFusionError::from).map_err(|error| unreadable(error, &self.path))
    }

    /// Whether the file has a top-level column with this name, ignoring case.
    pub(crate) fn has_column(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    fn position(&self, name: &str) -> Option<usize> {
        position_of_name(self.builder.schema().fields().iter().map(|field| field.name().as_str()), name)
    }

    /// Streams those of the named columns that the file has, in the order of the file and with the requested names, which may
    /// differ in case from those in the file. Decoding runs in a task, one batch ahead. Must be called within a tokio runtime.
    pub(crate) fn stream<'a>(
        self,
        columns: impl Iterator<Item = &'a str>,
        rows: RowFilter,
        batch_rows: usize,
    ) -> Result<SendableRecordBatchStream> {
        let requested: BTreeMap<usize, &str> = columns.filter_map(|name| Some((self.position(name)?, name))).collect();
        let in_file = self.builder.schema();
        let has_other_case = requested.iter().any(|(position, name)| in_file.field(*position).name() != name);
        let names: Vec<String> = requested.values().map(|name| (*name).to_owned()).collect();
        let roots: Vec<usize> = requested.into_keys().collect();
        let mask = ProjectionMask::roots(self.builder.parquet_schema(), roots);
        let mut builder = self.builder.with_projection(mask).with_row_groups(rows.groups).with_batch_size(batch_rows);
        if let Some(selection) = rows.selection {
            builder = builder.with_row_selection(selection);
        }
        let stream = builder.build().context(Kind::Target, UNREADABLE).with_field("file", &self.path)?;
        let schema = if has_other_case {
            let fields = stream.schema().fields().iter().zip(names);
            Arc::new(Schema::new(fields.map(|(field, name)| field.as_ref().clone().with_name(name)).collect::<Vec<_>>()))
        } else {
            Arc::clone(stream.schema())
        };
        let (path, renamed) = (self.path, Arc::clone(&schema));
        let stream =
            stream.map_err(move |error| DataFusionError::External(Box::new(unreadable(DataFusionError::from(error), &path))));
        let stream = stream.map(move |batch| {
            if has_other_case { Ok(RecordBatch::try_new(Arc::clone(&renamed), batch?.columns().to_vec())?) } else { batch }
        });
        let stream: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), stream));
        Ok(combine_streams(schema, vec![stream], 1))
    }
}

fn unreadable(error: DataFusionError, path: &Path) -> Error {
    Error::recover(error, |source| Error::new(Kind::Target, UNREADABLE).caused_by(source)).with_field("file", path)
}

/// Gives the Parquet crate access to a file in an object store.
#[derive(Debug, Clone)]
struct StoreReader {
    store: Arc<dyn ObjectStore>,
    file: FileLocation,
}

impl AsyncFileReader for StoreReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.store.get_range(&self.file.path, range).map_err(|error| ParquetError::External(Box::new(error))).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            let read = self.store.get_ranges(&self.file.path, &ranges).await;
            read.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.file.size;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options).with_prefetch_hint(Some(FOOTER_GUESS));
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}
