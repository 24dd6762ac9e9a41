//! Writes Parquet files of a table: bounded in size, bounded in memory, with statistics. It commits nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use deltalake::ObjectStore;
use deltalake::kernel::{Action, Add};
use object_store::path::Path;
use object_store::{ObjectStoreExt, WriteMultipart};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::DeltaOptions;
use super::columns::{LakeColumn, file_schema};
use super::files::{Names, new_name};
use super::stats::FileStats;
use crate::error::{Error, Kind, Result, ResultExt};

/// Rows encoded between two looks at the memory they take.
const STEP_ROWS: usize = 1024;
/// Bytes of one column encoded between two looks at the size of its page.
const PAGE_STEP_BYTES: usize = 256 * 1024;
/// Keys of a row group that its filter is laid out for.
const BLOOM_KEYS: u64 = 200_000;
/// Parts on their way to the store at once.
const PARTS_IN_FLIGHT: usize = 2;

/// How files are written; shared by all writers of a load.
#[derive(Debug)]
pub(super) struct FileFormat {
    /// Columns of the table.
    pub(super) columns: Vec<LakeColumn>,
    /// Schema of the files.
    pub(super) schema: SchemaRef,
    /// Physical names of the key columns.
    pub(super) keys: Vec<String>,
    /// A file is closed when it has about as many bytes.
    pub(super) target_file_bytes: u64,
    /// A row group is closed when its buffers have about as many bytes.
    pub(super) row_group_bytes: usize,
    /// zstd level.
    pub(super) compression_level: i32,
    /// Folder of the files inside the table's; empty for the table's own.
    pub(super) folder: &'static str,
    /// Root of the table.
    pub(super) store: Arc<dyn ObjectStore>,
    /// What buffers are accounted against.
    pub(super) pool: Arc<dyn MemoryPool>,
}

impl FileFormat {
    /// For a table with these columns, of which so many writers will be at work at once.
    pub(super) fn new(
        options: &DeltaOptions,
        store: Arc<dyn ObjectStore>,
        columns: &[LakeColumn],
        keys: &[String],
        writers: usize,
    ) -> Self {
        let (schema, keys) = Self::schema_of(columns, keys);
        let engine = &options.engine;
        Self {
            columns: columns.to_vec(),
            schema,
            keys,
            target_file_bytes: options.target_file_bytes,
            row_group_bytes: (engine.memory_limit() / 12 / writers.max(1)).clamp(256 << 10, 64 << 20),
            compression_level: options.compression_level,
            folder: "",
            store,
            pool: Arc::clone(engine.memory_pool()),
        }
    }

    /// Puts the schema to the columns.
    pub(super) fn schema_of(columns: &[LakeColumn], keys: &[String]) -> (SchemaRef, Vec<String>) {
        let physical = columns.iter().filter(|column| keys.contains(&column.name)).map(|column| column.physical.clone());
        (file_schema(columns, keys), physical.collect())
    }

    fn properties(&self, first: &RecordBatch) -> Result<WriterProperties> {
        let level = ZstdLevel::try_new(self.compression_level).or_fail(Kind::Usage, "Unknown compression level")?;
        let widest = first.columns().iter().map(|column| column.get_array_memory_size()).max().unwrap_or(0);
        let widest = widest.div_ceil(first.num_rows().max(1)).max(1);
        let mut builder = WriterProperties::builder()
            .set_created_by(concat!("daplake ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::ZSTD(level))
            .set_write_batch_size((PAGE_STEP_BYTES / widest).clamp(1, STEP_ROWS))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_max_row_group_bytes(Some(self.row_group_bytes));
        // An index of pages where queries look: keys and times.
        for field in self.schema.fields() {
            let path = ColumnPath::new(vec![field.name().clone()]);
            let is_key = self.keys.contains(field.name());
            if is_key || matches!(field.data_type(), DataType::Timestamp(..)) {
                builder = builder.set_column_statistics_enabled(path.clone(), EnabledStatistics::Page);
            }
            // Texts are spread over all files, so that ranges tell nothing of them.
            if is_key && *field.data_type() == DataType::Utf8 {
                builder = builder
                    .set_column_bloom_filter_enabled(path.clone(), true)
                    .set_column_bloom_filter_fpp(path.clone(), 0.01)
                    .set_column_bloom_filter_max_ndv(path.clone(), BLOOM_KEYS);
            }
            // Increments read the keys of whole files. As differences they take next to nothing, and no time to unpack.
            if is_key && matches!(field.data_type(), DataType::Int16 | DataType::Int32 | DataType::Int64) {
                builder = builder
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED)
                    .set_column_compression(path, Compression::UNCOMPRESSED);
            }
        }
        Ok(builder.build())
    }
}

/// A finished file.
#[derive(Debug, Clone)]
pub(super) struct NewFile {
    /// Name inside the table's folder.
    pub(super) name: String,
    /// Size.
    pub(super) bytes: u64,
    /// Rows.
    pub(super) rows: u64,
    /// Statistics as JSON.
    pub(super) stats: String,
    /// For each column, whether it has nulls.
    pub(super) has_nulls: Vec<bool>,
}

impl NewFile {
    /// The action that puts it into the table. `data_change` is false if its rows were there before.
    pub(super) fn add_action(&self, now: i64, data_change: bool) -> Action {
        Action::Add(Add {
            path: self.name.clone(),
            partition_values: HashMap::new(),
            size: self.bytes as i64,
            modification_time: now,
            data_change,
            stats: Some(self.stats.clone()),
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        })
    }
}

/// Writes rows (of the file schema) to one file after the other.
///
/// Encoding runs on the blocking pool, one batch at a time. Memory is one row group of buffers and the parts in flight; both are
/// accounted. Dropped midway, an unfinished file vanishes, finished ones are left to [`super::files::Uncommitted`].
#[derive(Debug)]
pub(super) struct TableWriter {
    format: Arc<FileFormat>,
    names: Names,
    open: Option<Box<OpenFile>>,
    finished: Vec<NewFile>,
    reservation: MemoryReservation,
}

struct OpenFile {
    name: String,
    writer: ArrowWriter<Vec<u8>>,
    upload: WriteMultipart,
    stats: FileStats,
    row_group_bytes: usize,
    bytes: u64,
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").field("name", &self.name).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl TableWriter {
    /// A writer without files yet; files are registered with `names` before they are made.
    pub(super) fn new(format: Arc<FileFormat>, names: Names) -> Self {
        let reservation = MemoryConsumer::new("ParquetWriter").register(&format.pool);
        Self { format, names, open: None, finished: Vec::new(), reservation }
    }

    /// Adds rows.
    pub(super) async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Box::new(self.create(&batch).await?),
        };
        // Others may need the memory more: then the row group ends early.
        let ahead = open.writer.memory_size() + batch.get_array_memory_size();
        let crowded = self.reservation.try_resize(ahead).is_err();
        let (mut open, encoded) = blocking(move || {
            let encoded = open.encode(&batch, crowded);
            (open, encoded)
        })
        .await?;
        open.send(encoded?).await?;
        self.reservation.resize(open.writer.memory_size());
        if open.bytes + open.writer.in_progress_size() as u64 >= self.format.target_file_bytes {
            self.finished.push(close(open).await?);
            self.reservation.free();
        } else {
            self.open = Some(open);
        }
        Ok(())
    }

    /// Closes the last file and gives all.
    pub(super) async fn finish(mut self) -> Result<Vec<NewFile>> {
        if let Some(open) = self.open.take() {
            self.finished.push(close(open).await?);
        }
        Ok(std::mem::take(&mut self.finished))
    }

    async fn create(&mut self, first: &RecordBatch) -> Result<OpenFile> {
        let name = match self.format.folder {
            "" => new_name(),
            folder => format!("{folder}/{}", new_name()),
        };
        let properties = self.format.properties(first)?;
        let writer = ArrowWriter::try_new_with_options(
            Vec::new(),
            Arc::clone(&self.format.schema),
            parquet::arrow::arrow_writer::ArrowWriterOptions::new()
                .with_properties(properties)
                // The Parquet types say it all; a second schema could only contradict them.
                .with_skip_arrow_metadata(true),
        )
        .or_fail(Kind::Bug, "A data file cannot be written")?;
        self.names.add(&name);
        let upload = self.format.store.put_multipart(&Path::from(name.as_str())).await.map_err(write_failed)?;
        Ok(OpenFile {
            name,
            writer,
            upload: WriteMultipart::new(upload),
            stats: FileStats::new(&self.format.columns),
            row_group_bytes: self.format.row_group_bytes,
            bytes: 0,
        })
    }
}

impl OpenFile {
    /// Encodes a batch and gives the bytes that are ready for the store.
    fn encode(&mut self, batch: &RecordBatch, flush_first: bool) -> Result<Vec<u8>> {
        if flush_first {
            self.writer.flush().or_fail(Kind::Bug, "Rows cannot be encoded")?;
        }
        self.stats.update(batch)?;
        for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
            let step = batch.slice(start, STEP_ROWS.min(batch.num_rows() - start));
            self.writer.write(&step).or_fail(Kind::Bug, "Rows cannot be encoded")?;
            // Dictionaries take memory that the estimate of encoded bytes does not see.
            if self.writer.memory_size() > self.row_group_bytes {
                self.writer.flush().or_fail(Kind::Bug, "Rows cannot be encoded")?;
            }
        }
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    async fn send(&mut self, encoded: Vec<u8>) -> Result<()> {
        if encoded.is_empty() {
            return Ok(());
        }
        self.bytes += encoded.len() as u64;
        self.upload.put(Bytes::from(encoded));
        self.upload.wait_for_capacity(PARTS_IN_FLIGHT).await.map_err(write_failed)
    }
}

async fn close(mut open: Box<OpenFile>) -> Result<NewFile> {
    let (mut open, rest) = blocking(move || {
        let rest = open.writer.finish().map(|_| std::mem::take(open.writer.inner_mut()));
        (open, rest)
    })
    .await?;
    open.send(rest.or_fail(Kind::Bug, "Rows cannot be encoded")?).await?;
    let OpenFile { name, upload, stats, bytes, .. } = *open;
    upload.finish().await.map_err(write_failed)?;
    Ok(NewFile { name, bytes, rows: stats.rows(), stats: stats.json(), has_nulls: stats.has_nulls() })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.or_fail(Kind::Bug, "Encoding rows stopped unexpectedly")
}

fn write_failed(error: object_store::Error) -> Error {
    let full = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::StorageFull);
    let made = Error::new(Kind::Target, "A data file cannot be written").caused_by(error);
    if full { made.of_kind(Kind::Resources).hint("make room at the target; nothing was changed, run it again") } else { made }
}
