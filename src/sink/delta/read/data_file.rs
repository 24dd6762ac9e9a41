//! Reads data files of a table back, some of their columns and row groups, batch by batch.

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
use crate::sink::delta::log::columns::place_of_name;

/// Bytes at the end of a file that are read at once, to have its footer at the first try.
const FOOTER_GUESS: usize = 64 * 1024;

/// A data file whose footer was read.
pub(in crate::sink::delta) struct DataFile {
    builder: ParquetRecordBatchStreamBuilder<StoreReader>,
    reader: StoreReader,
    path: Path,
}

/// Which rows of a file are read.
#[derive(Debug, Default)]
pub(in crate::sink::delta) struct Rows {
    /// Numbers of the row groups, ascending.
    pub(in crate::sink::delta) groups: Vec<usize>,
    /// Rows of these groups, counted over all of them; `None`: all.
    pub(in crate::sink::delta) selection: Option<RowSelection>,
}

/// Where a data file is.
#[derive(Debug, Clone)]
pub(in crate::sink::delta) struct Located {
    /// Inside the table's folder.
    pub(in crate::sink::delta) path: Path,
    /// Bytes.
    pub(in crate::sink::delta) size: u64,
}

impl Rows {
    /// Those of a file with these numbers.
    pub(in crate::sink::delta) fn at(metadata: &ParquetMetaData, rows: &RoaringBitmap) -> Self {
        let (mut groups, mut selected, mut start, mut place) = (Vec::new(), Vec::<Range<usize>>::new(), 0_u32, 0_usize);
        for (number, group) in metadata.row_groups().iter().enumerate() {
            let end = start + group.num_rows() as u32;
            if rows.range_cardinality(start..end) > 0 {
                groups.push(number);
                for row in rows.range(start..end) {
                    let at = place + (row - start) as usize;
                    match selected.last_mut() {
                        Some(last) if last.end == at => last.end += 1,
                        _ => selected.push(at..at + 1),
                    }
                }
                place += group.num_rows() as usize;
            }
            start = end;
        }
        Self { groups, selection: Some(RowSelection::from_consecutive_ranges(selected.into_iter(), place)) }
    }

    /// All there are.
    pub(in crate::sink::delta) fn all(metadata: &ParquetMetaData) -> Self {
        Self { groups: (0..metadata.num_row_groups()).collect(), selection: None }
    }
}

impl DataFile {
    /// Reads the footer.
    pub(in crate::sink::delta) async fn open(store: Arc<dyn ObjectStore>, path: &Path, size: u64) -> Result<Self> {
        let reader = StoreReader { store, path: path.clone(), size };
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchStreamBuilder::new_with_options(reader.clone(), options).await;
        Ok(Self {
            builder: builder.map_err(DataFusionError::from).map_err(|error| unreadable(error, path))?,
            reader,
            path: path.clone(),
        })
    }

    /// Reads the index of pages as well, if the file has one.
    pub(in crate::sink::delta) async fn with_page_index(self) -> Result<Self> {
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

    /// The footer.
    pub(in crate::sink::delta) fn metadata(&self) -> &Arc<ParquetMetaData> {
        self.builder.metadata()
    }

    /// The filter of a column in a row group, if there is one.
    pub(in crate::sink::delta) async fn bloom_filter(&mut self, group: usize, column: &str) -> Result<Option<Sbbf>> {
        let columns = self.metadata().row_group(group).columns();
        let Some(place) = columns.iter().position(|chunk| chunk.column_path().parts() == [column]) else { return Ok(None) };
        let filter = self.builder.get_row_group_column_bloom_filter(group, place).await;
        filter.map_err(DataFusionError::from).map_err(|error| unreadable(error, &self.path))
    }

    /// Whether there is a top-level column of this name, in any case.
    pub(in crate::sink::delta) fn has_column(&self, name: &str) -> bool {
        self.place(name).is_some()
    }

    fn place(&self, name: &str) -> Option<usize> {
        place_of_name(self.builder.schema().fields().iter().map(|field| field.name().as_str()), name)
    }

    /// Streams the columns of these names, those that exist, of the chosen rows in their order. A file from before a name changed
    /// in case has it as it was; the stream has the name that was asked for. Decoding runs on a task of its own, one batch ahead.
    pub(in crate::sink::delta) fn stream<'a>(
        self,
        columns: impl Iterator<Item = &'a str>,
        rows: Rows,
        batch_rows: usize,
    ) -> Result<SendableRecordBatchStream> {
        let asked: BTreeMap<usize, &str> = columns.filter_map(|name| Some((self.place(name)?, name))).collect();
        let old = self.builder.schema();
        let is_respelled = asked.iter().any(|(place, name)| old.field(*place).name() != name);
        let names: Vec<String> = asked.values().map(|name| (*name).to_owned()).collect();
        let roots: Vec<usize> = asked.into_keys().collect();
        let mask = ProjectionMask::roots(self.builder.parquet_schema(), roots);
        let mut builder = self.builder.with_projection(mask).with_row_groups(rows.groups).with_batch_size(batch_rows);
        if let Some(selection) = rows.selection {
            builder = builder.with_row_selection(selection);
        }
        let stream = builder.build().context(Kind::Target, "A data file cannot be read").with_field("file", &self.path)?;
        let schema = match is_respelled {
            false => Arc::clone(stream.schema()),
            true => {
                let fields = stream.schema().fields().iter().zip(names);
                Arc::new(Schema::new(fields.map(|(field, name)| field.as_ref().clone().with_name(name)).collect::<Vec<_>>()))
            }
        };
        let (path, spelled) = (self.path, Arc::clone(&schema));
        let stream =
            stream.map_err(move |error| DataFusionError::External(Box::new(unreadable(DataFusionError::from(error), &path))));
        let stream = stream.map(move |batch| match is_respelled {
            false => batch,
            true => Ok(RecordBatch::try_new(Arc::clone(&spelled), batch?.columns().to_vec())?),
        });
        let stream: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), stream));
        Ok(combine_streams(schema, vec![stream], 1))
    }
}

fn unreadable(error: DataFusionError, path: &Path) -> Error {
    Error::recover(error, |source| Error::new(Kind::Target, "A data file cannot be read").caused_by(source))
        .with_field("file", path)
}

/// Parquet's view of a file in an object store.
#[derive(Debug, Clone)]
struct StoreReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl AsyncFileReader for StoreReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.store.get_range(&self.path, range).map_err(|error| ParquetError::External(Box::new(error))).boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            let read = self.store.get_ranges(&self.path, &ranges).await;
            read.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options).with_prefetch_hint(Some(FOOTER_GUESS));
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}
