//! Writes Parquet files of a table, with bounds on file size and memory, and collects their statistics.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use deltalake::ObjectStore;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::error::{Kind, Result, ResultExt};
use crate::sink::delta::log::columns::{LakeColumn, file_schema};
use crate::sink::delta::log::file_actions::{NewFile, PartitionValue};
use crate::sink::delta::log::file_names::{CHANGE_FEED_FOLDER, new_name};
use crate::sink::delta::log::partition_column::is_partition;
use crate::sink::delta::log::statistics::FileStats;
use crate::sink::delta::log::table_log::TableLog;
use crate::sink::delta::options::DeltaOptions;
use crate::sink::delta::write::encodings;
use crate::sink::delta::write::partitioning::Partitioning;
use crate::sink::delta::write::uncommitted_files::FileRegistry;
use crate::sink::delta::write::upload_buffer::{Upload, UploadBuffer};
use crate::worker_thread::WorkerThread;

/// Rows that are encoded between two checks of the memory in use.
const STEP_ROWS: usize = 1024;
/// Bytes of one column that are encoded between two checks of the page size.
const PAGE_STEP_BYTES: usize = 256 * 1024;
/// Number of distinct keys per row group for which its Bloom filter is sized.
const BLOOM_KEYS: u64 = 200_000;
/// Maximum size of a row group: enough for readers to skip and to divide work by, little to buffer while it is written.
const MAX_ROW_GROUP_BYTES: usize = 8 << 20;
/// Maximum size of the buffers of a row group (uncompressed pages, dictionaries), as a multiple of its written size.
const BUFFER_FACTOR: usize = 2;
/// zstd level up to which long text gets one level more than other columns.
const MAX_TEXT_LEVEL: i32 = 3;
/// Bytes that the Parquet writer reserves per delta-encoded column and hardly uses.
const DELTA_BUFFER_BYTES: usize = 1 << 20;
/// The folder name of a partition without a value.
const NO_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";
/// Number of row groups that a writer has open at the same time, usually, if it gets the rows of partitions in any order.
const PARTITIONS_SHARING: usize = 4;

/// How files are written; shared by all writers of a load.
#[derive(Debug)]
pub(crate) struct FileFormat {
    /// Columns of the files: those of the table without the partition column.
    pub(crate) columns: Vec<LakeColumn>,
    /// How rows are partitioned.
    pub(crate) partitioning: Option<Partitioning>,
    /// Schema of the files.
    pub(crate) schema: SchemaRef,
    /// Physical names of the key columns.
    keys: Vec<String>,
    /// Size in bytes at which a file is closed, approximately.
    target_file_bytes: u64,
    /// Size in bytes at which a row group is closed, approximately.
    row_group_bytes: usize,
    /// zstd level.
    compression_level: i32,
    /// Folder of the files in the table's folder; empty for the table's folder itself.
    folder: &'static str,
    /// The store, with the table's folder as its root.
    pub(crate) store: Arc<dyn ObjectStore>,
    uploads: Arc<UploadBuffer>,
    /// The pool that accounts for buffers.
    pub(crate) pool: Arc<dyn MemoryPool>,
}

impl FileFormat {
    /// The format of data files of a table with the columns `columns` and the key `keys` (logical names). `writers` is the number
    /// of writers that will run at the same time and share the memory; each may get the rows of partitions in any order.
    pub(crate) fn new(options: &DeltaOptions, log: &TableLog, columns: &[LakeColumn], keys: &[String], writers: usize) -> Self {
        let row_groups = if columns.iter().any(is_partition) { PARTITIONS_SHARING } else { 1 };
        Self::for_ordered_rows(options, log, columns, keys, writers.max(1) * row_groups)
    }

    /// As [`Self::new`], for writers that get one partition after the other.
    pub(crate) fn for_ordered_rows(
        options: &DeltaOptions,
        log: &TableLog,
        columns: &[LakeColumn],
        keys: &[String],
        writers: usize,
    ) -> Self {
        let uploads = UploadBuffer::new(log.store(), log.folder.is_some(), &options.engine);
        Self::with_uploads(options, uploads, columns, keys, writers)
    }

    fn with_uploads(
        options: &DeltaOptions,
        uploads: Arc<UploadBuffer>,
        columns: &[LakeColumn],
        keys: &[String],
        row_groups: usize,
    ) -> Self {
        let written: Vec<LakeColumn> = columns.iter().filter(|column| !is_partition(column)).cloned().collect();
        let partitioning = Partitioning::of(columns, &written);
        let physical = written.iter().filter(|column| keys.contains(&column.name)).map(|column| column.physical.clone());
        let engine = &options.engine;
        Self {
            schema: file_schema(&written, keys),
            keys: physical.collect(),
            columns: written,
            partitioning,
            target_file_bytes: options.target_file_bytes,
            row_group_bytes: (engine.memory_limit() / 12 / row_groups.max(1)).clamp(256 << 10, MAX_ROW_GROUP_BYTES),
            compression_level: options.compression_level,
            folder: "",
            store: Arc::clone(uploads.store()),
            uploads,
            pool: Arc::clone(engine.memory_pool()),
        }
    }

    /// The format of change data feed files: the columns of these data files and `more` columns, with the same partitions and
    /// uploads.
    pub(crate) fn for_change_feed(&self, options: &DeltaOptions, more: Vec<LakeColumn>, keys: &[String]) -> Self {
        let columns: Vec<LakeColumn> = self.columns.iter().cloned().chain(more).collect();
        let partitions = if self.partitioning.is_some() { PARTITIONS_SHARING } else { 1 };
        let format = Self::with_uploads(options, Arc::clone(&self.uploads), &columns, keys, 2 * partitions);
        // The source of the partition has the same position as in the data files.
        Self { folder: CHANGE_FEED_FOLDER, partitioning: self.partitioning.clone(), ..format }
    }

    /// Writer properties for a file that begins with the rows `first`, and the number of delta-encoded columns.
    fn properties(&self, first: &RecordBatch) -> Result<(WriterProperties, usize)> {
        let level = ZstdLevel::try_new(self.compression_level).context(Kind::Usage, "Unknown compression level")?;
        let widest = first.columns().iter().map(|column| column.get_array_memory_size()).max().unwrap_or(0);
        let widest = widest.div_ceil(first.num_rows().max(1)).max(1);
        let mut builder = WriterProperties::builder()
            .set_created_by(concat!("daplake ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::ZSTD(level))
            .set_write_batch_size((PAGE_STEP_BYTES / widest).clamp(1, STEP_ROWS))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_max_row_group_bytes(Some(self.row_group_bytes));
        let text_level = (self.compression_level + 1).min(MAX_TEXT_LEVEL).max(self.compression_level);
        let text_level = ZstdLevel::try_new(text_level).context(Kind::Usage, "Unknown compression level")?;
        let encodings = encodings::choose(first, self.row_group_bytes, self.compression_level);
        let mut delta_encoded = 0;
        for (index, field) in self.schema.fields().iter().enumerate() {
            let path = ColumnPath::new(vec![field.name().clone()]);
            let is_key = self.keys.contains(field.name());
            // Page statistics for the columns that queries filter by: keys and times.
            if is_key || matches!(field.data_type(), DataType::Timestamp(..)) {
                builder = builder.set_column_statistics_enabled(path.clone(), EnabledStatistics::Page);
            }
            // String keys are spread over all files, so ranges do not prune.
            if is_key && *field.data_type() == DataType::Utf8 {
                builder = builder
                    .set_column_bloom_filter_enabled(path.clone(), true)
                    .set_column_bloom_filter_fpp(path.clone(), 0.01)
                    .set_column_bloom_filter_max_ndv(path.clone(), BLOOM_KEYS);
            }
            let is_integer_key = is_key && matches!(field.data_type(), DataType::Int16 | DataType::Int32 | DataType::Int64);
            let encoding = encodings[index].or(is_integer_key.then_some(Encoding::DELTA_BINARY_PACKED));
            // Increments read the keys of whole files: delta-encoded keys are small without compression and fast to decode.
            if is_integer_key && encoding == Some(Encoding::DELTA_BINARY_PACKED) {
                builder = builder.set_column_compression(path.clone(), Compression::UNCOMPRESSED);
            }
            delta_encoded += usize::from(encoding == Some(Encoding::DELTA_BINARY_PACKED));
            if encodings::is_long_text(first.column(index)) {
                builder = builder.set_column_compression(path.clone(), Compression::ZSTD(text_level));
            }
            if let Some(encoding) = encoding {
                builder = builder.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, encoding);
            }
        }
        Ok((builder.build(), delta_encoded))
    }
}

/// Where the rows of a batch were written.
#[derive(Debug)]
pub(crate) struct BatchLocation {
    /// Number of the file; see [`NewFile::number`].
    pub(crate) file: u32,
    /// Position of the first row in the file; the others follow it.
    pub(crate) first: u32,
    /// Which rows of the batch; `None` means all.
    pub(crate) rows: Option<UInt32Array>,
}

/// Writes rows of the file schema, all of one partition, to one file after the other.
///
/// Encoding runs on the given thread, one batch at a time. Memory use is one row group of buffers and the bytes in the upload
/// buffer; both are accounted for. If the writer is dropped, an unfinished file disappears; finished files are removed by
/// [`UncommittedFiles`](crate::sink::delta::write::uncommitted_files::UncommittedFiles).
#[derive(Debug)]
pub(crate) struct FileWriter {
    format: Arc<FileFormat>,
    registry: FileRegistry,
    encoder: Arc<WorkerThread>,
    partition: Option<PartitionValue>,
    open: Option<Box<OpenFile>>,
    finished: Vec<NewFile>,
    reservation: MemoryReservation,
}

struct OpenFile {
    name: String,
    number: u32,
    writer: ArrowWriter<Vec<u8>>,
    upload: Upload,
    stats: FileStats,
    /// Size of the buffers at which the row group ends.
    buffer_bytes: usize,
    /// Bytes that the writer has reserved and does not use.
    idle_bytes: usize,
    /// Encoded bytes so far.
    bytes: u64,
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").field("name", &self.name).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl FileWriter {
    /// A writer without files; files are added to `registry` before they are created.
    pub(crate) fn new(
        format: Arc<FileFormat>,
        registry: FileRegistry,
        encoder: Arc<WorkerThread>,
        partition: Option<PartitionValue>,
    ) -> Self {
        let reservation = MemoryConsumer::new("ParquetWriter").register(&format.pool);
        Self { format, registry, encoder, partition, open: None, finished: Vec::new(), reservation }
    }

    /// Writes at least one row. Returns the number of the file and the position of the first row in it.
    pub(crate) async fn write(&mut self, batch: RecordBatch) -> Result<(u32, u32)> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Box::new(self.create(&batch).await?),
        };
        let location = (open.number, open.stats.rows() as u32);
        // If memory is short, the row group ends early.
        let needed = open.buffered() + batch.get_array_memory_size();
        let is_short = self.reservation.try_resize(needed).is_err();
        let work = move || {
            let encoded = open.encode(&batch, is_short);
            (open, encoded)
        };
        let (mut open, encoded) = self.encoder.run(work).await?;
        open.send(encoded?).await?;
        self.reservation.resize(open.buffered());
        if open.bytes + open.writer.in_progress_size() as u64 >= self.format.target_file_bytes {
            self.finished.push(close(&self.encoder, open, self.partition.clone()).await?);
            self.reservation.free();
        } else {
            self.open = Some(open);
        }
        Ok(location)
    }

    /// Ends the row group.
    pub(crate) async fn end_row_group(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let work = move || {
            let encoded = open.writer.flush().context(Kind::Bug, "Rows cannot be encoded");
            let encoded = encoded.map(|()| std::mem::take(open.writer.inner_mut()));
            (open, encoded)
        };
        let (mut open, encoded) = self.encoder.run(work).await?;
        open.send(encoded?).await?;
        self.reservation.resize(open.buffered());
        self.open = Some(open);
        Ok(())
    }

    /// Closes the last file and returns all files.
    pub(crate) async fn finish(mut self) -> Result<Vec<NewFile>> {
        if let Some(open) = self.open.take() {
            self.finished.push(close(&self.encoder, open, self.partition.clone()).await?);
        }
        Ok(std::mem::take(&mut self.finished))
    }

    async fn create(&mut self, first: &RecordBatch) -> Result<OpenFile> {
        // The log has the partition of a file, but some readers take it from the name of the folder.
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| NO_VALUE.to_owned());
        let partition = self.partition.as_ref().map(|(name, text)| format!("{name}={}", value(text)));
        let folders = [Some(self.format.folder.to_owned()).filter(|folder| !folder.is_empty()), partition];
        let name = folders.into_iter().flatten().chain([new_name()]).collect::<Vec<_>>().join("/");
        let (properties, delta_encoded) = self.format.properties(first)?;
        let writer = ArrowWriter::try_new_with_options(
            Vec::new(),
            Arc::clone(&self.format.schema),
            parquet::arrow::arrow_writer::ArrowWriterOptions::new()
                .with_properties(properties)
                // The Parquet schema is complete; an embedded Arrow schema could only contradict it.
                .with_skip_arrow_metadata(true),
        )
        .context(Kind::Bug, "A data file cannot be written")?;
        let number = self.registry.add(&name);
        let upload = self.format.uploads.open(&name).await?;
        Ok(OpenFile {
            name,
            number,
            writer,
            upload,
            stats: FileStats::new(&self.format.columns),
            buffer_bytes: self.format.row_group_bytes.saturating_mul(BUFFER_FACTOR),
            idle_bytes: delta_encoded * DELTA_BUFFER_BYTES,
            bytes: 0,
        })
    }
}

impl OpenFile {
    /// Bytes in buffers.
    fn buffered(&self) -> usize {
        self.writer.memory_size().saturating_sub(self.idle_bytes)
    }

    /// Encodes a batch and returns the bytes that are ready for the store.
    fn encode(&mut self, batch: &RecordBatch, flush_first: bool) -> Result<Vec<u8>> {
        if flush_first {
            self.writer.flush().context(Kind::Bug, "Rows cannot be encoded")?;
        }
        self.stats.update(batch)?;
        for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
            let step = batch.slice(start, STEP_ROWS.min(batch.num_rows() - start));
            self.writer.write(&step).context(Kind::Bug, "Rows cannot be encoded")?;
            // The estimate of encoded bytes does not include dictionaries.
            if self.buffered() > self.buffer_bytes {
                self.writer.flush().context(Kind::Bug, "Rows cannot be encoded")?;
            }
        }
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    async fn send(&mut self, encoded: Vec<u8>) -> Result<()> {
        if encoded.is_empty() {
            return Ok(());
        }
        self.bytes += encoded.len() as u64;
        self.upload.put(encoded).await
    }
}

async fn close(encoder: &WorkerThread, mut open: Box<OpenFile>, partition: Option<PartitionValue>) -> Result<NewFile> {
    let work = move || {
        let rest = open.writer.finish().map(|_| std::mem::take(open.writer.inner_mut()));
        (open, rest)
    };
    let (mut open, rest) = encoder.run(work).await?;
    open.send(rest.context(Kind::Bug, "Rows cannot be encoded")?).await?;
    let OpenFile { name, number, upload, stats, bytes, .. } = *open;
    upload.finish().await?;
    let (rows, has_nulls, stats) = (stats.rows(), stats.has_nulls(), stats.json());
    Ok(NewFile { name, bytes, rows, stats, has_nulls, partition, number, deletion_vector: None })
}
