//! Writes Parquet files of a table: bounded in size, bounded in memory, with statistics. It commits nothing.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use deltalake::ObjectStore;
use deltalake::kernel::{Action, Add, DeletionVectorDescriptor};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use crate::error::{Kind, Result, ResultExt};
use crate::sink::delta::DeltaOptions;
use crate::sink::delta::log::columns::{LakeColumn, file_schema};
use crate::sink::delta::log::file_names::{Names, new_name};
use crate::sink::delta::log::statistics::FileStats;
use crate::sink::delta::write::encodings;
use crate::sink::delta::write::partitioned_writer::{Partition, is_partition};
use crate::sink::delta::write::upload_buffer::{Outbox, Outgoing};
use crate::worker_thread::WorkerThread;

/// Rows encoded between two looks at the memory they take.
const STEP_ROWS: usize = 1024;
/// Bytes of one column encoded between two looks at the size of its page.
const PAGE_STEP_BYTES: usize = 256 * 1024;
/// Keys of a row group that its filter is laid out for.
const BLOOM_KEYS: u64 = 200_000;
/// A row group has at most about as many bytes: enough for readers to skip and share out, little to hold while it is written.
const MAX_ROW_GROUP_BYTES: usize = 8 << 20;
/// Its buffers may have this many times the bytes that it is written with: pages to be packed, dictionaries.
const BUFFERS: usize = 2;
/// What the writer sets aside for a column that goes as differences, and hardly touches.
const DELTA_BUFFER_BYTES: usize = 1 << 20;
/// Stands for no value in the name of a partition's folder.
const NO_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";
/// Writers of partitions among which a share of the memory is parted.
const PARTITIONS_SHARING: usize = 4;

/// How files are written; shared by all writers of a load.
#[derive(Debug)]
pub(in crate::sink::delta) struct FileFormat {
    /// Columns of the files: those of the table but the one that partitions it.
    pub(in crate::sink::delta) columns: Vec<LakeColumn>,
    /// How rows are partitioned.
    pub(in crate::sink::delta) partition: Option<Partition>,
    /// Schema of the files.
    pub(in crate::sink::delta) schema: SchemaRef,
    /// Physical names of the key columns.
    pub(in crate::sink::delta) keys: Vec<String>,
    /// A file is closed when it has about as many bytes.
    pub(in crate::sink::delta) target_file_bytes: u64,
    /// A row group is closed when it will be written with about as many bytes, or its buffers have a multiple of them.
    pub(in crate::sink::delta) row_group_bytes: usize,
    /// zstd level.
    pub(in crate::sink::delta) compression_level: i32,
    /// Folder of the files inside the table's; empty for the table's own.
    pub(in crate::sink::delta) folder: &'static str,
    /// Root of the table.
    pub(in crate::sink::delta) store: Arc<dyn ObjectStore>,
    /// By which they go there.
    pub(in crate::sink::delta) outbox: Arc<Outbox>,
    /// What buffers are accounted against.
    pub(in crate::sink::delta) pool: Arc<dyn MemoryPool>,
}

impl FileFormat {
    /// For a table with these columns, of which so many writers will be at work at once.
    pub(in crate::sink::delta) fn new(
        options: &DeltaOptions,
        outbox: Arc<Outbox>,
        columns: &[LakeColumn],
        keys: &[String],
        writers: usize,
    ) -> Self {
        let written: Vec<LakeColumn> = columns.iter().filter(|column| !is_partition(column)).cloned().collect();
        let partition = Partition::of(columns, &written);
        let (schema, keys) = Self::schema_of(&written, keys);
        // Each partition has buffers of its own; of most only a few are open.
        let writers = writers.max(1) * if partition.is_some() { PARTITIONS_SHARING } else { 1 };
        let engine = &options.engine;
        Self {
            columns: written,
            partition,
            schema,
            keys,
            target_file_bytes: options.target_file_bytes,
            row_group_bytes: (engine.memory_limit() / 12 / writers).clamp(256 << 10, MAX_ROW_GROUP_BYTES),
            compression_level: options.compression_level,
            folder: "",
            store: Arc::clone(outbox.store()),
            outbox,
            pool: Arc::clone(engine.memory_pool()),
        }
    }

    /// Puts the schema to the columns.
    pub(in crate::sink::delta) fn schema_of(columns: &[LakeColumn], keys: &[String]) -> (SchemaRef, Vec<String>) {
        let physical = columns.iter().filter(|column| keys.contains(&column.name)).map(|column| column.physical.clone());
        (file_schema(columns, keys), physical.collect())
    }

    /// And how many columns go as differences.
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
        let encodings = encodings::choose(first, self.row_group_bytes, self.compression_level);
        let mut differences = 0;
        for (index, field) in self.schema.fields().iter().enumerate() {
            let path = ColumnPath::new(vec![field.name().clone()]);
            let is_key = self.keys.contains(field.name());
            // An index of pages where queries look: keys and times.
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
            let is_whole_key = is_key && matches!(field.data_type(), DataType::Int16 | DataType::Int32 | DataType::Int64);
            let encoding = encodings[index].or(is_whole_key.then_some(Encoding::DELTA_BINARY_PACKED));
            // Increments read the keys of whole files. As differences they take next to nothing, and no time to unpack.
            if is_whole_key && encoding == Some(Encoding::DELTA_BINARY_PACKED) {
                builder = builder.set_column_compression(path.clone(), Compression::UNCOMPRESSED);
            }
            differences += usize::from(encoding == Some(Encoding::DELTA_BINARY_PACKED));
            if let Some(encoding) = encoding {
                builder = builder.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, encoding);
            }
        }
        Ok((builder.build(), differences))
    }
}

/// A finished file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::sink::delta) struct NewFile {
    /// Name inside the table's folder.
    pub(in crate::sink::delta) name: String,
    /// Size.
    pub(in crate::sink::delta) bytes: u64,
    /// Rows.
    pub(in crate::sink::delta) rows: u64,
    /// Statistics as JSON.
    pub(in crate::sink::delta) stats: String,
    /// For each column of the file, whether it has nulls.
    pub(in crate::sink::delta) has_nulls: Vec<bool>,
    /// Physical name of the partition column and its value; `None` where tables have no partitions.
    pub(in crate::sink::delta) partition: Option<(String, Option<String>)>,
    /// Number of its name among all names of the load.
    pub(in crate::sink::delta) number: u32,
    /// Which rows of it are marked as deleted from the start; `rows` are the others.
    pub(in crate::sink::delta) vector: Option<DeletionVectorDescriptor>,
}

/// Where rows of a batch went.
#[derive(Debug)]
pub(in crate::sink::delta) struct Placed {
    /// Number of the file, see [`NewFile::number`].
    pub(in crate::sink::delta) file: u32,
    /// Where the first of them stands in the file; the others follow.
    pub(in crate::sink::delta) first: u32,
    /// Which rows of the batch; `None`: all.
    pub(in crate::sink::delta) rows: Option<UInt32Array>,
}

impl NewFile {
    /// The action that puts it into the table. `data_change` is false if its rows were there before.
    pub(in crate::sink::delta) fn add_action(&self, now: i64, data_change: bool) -> Action {
        Action::Add(Add {
            path: self.name.clone(),
            partition_values: self.partition.iter().cloned().collect(),
            size: self.bytes as i64,
            modification_time: now,
            data_change,
            stats: Some(self.stats.clone()),
            tags: None,
            deletion_vector: self.vector.clone(),
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        })
    }
}

/// Writes rows (of the file schema, all of one partition) to one file after the other.
///
/// Encoding runs on the thread it is given, one batch at a time. Memory is one row group of buffers, and what waits or is on its way
/// in the outbox; both are accounted. Dropped midway, an unfinished file vanishes, finished ones are left to
/// [`crate::sink::delta::log::file_names::Uncommitted`].
#[derive(Debug)]
pub(in crate::sink::delta) struct FileWriter {
    format: Arc<FileFormat>,
    names: Names,
    thread: Arc<WorkerThread>,
    partition: Option<(String, Option<String>)>,
    open: Option<Box<OpenFile>>,
    finished: Vec<NewFile>,
    reservation: MemoryReservation,
}

struct OpenFile {
    name: String,
    number: u32,
    writer: ArrowWriter<Vec<u8>>,
    outgoing: Outgoing,
    stats: FileStats,
    /// Buffers are written out at this size.
    buffer_bytes: usize,
    /// Bytes that the writer only set aside.
    idle_bytes: usize,
    bytes: u64,
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenFile").field("name", &self.name).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl FileWriter {
    /// A writer without files yet; files are registered with `names` before they are made.
    pub(in crate::sink::delta) fn new(
        format: Arc<FileFormat>,
        names: Names,
        thread: Arc<WorkerThread>,
        partition: Option<(String, Option<String>)>,
    ) -> Self {
        let reservation = MemoryConsumer::new("ParquetWriter").register(&format.pool);
        Self { format, names, thread, partition, open: None, finished: Vec::new(), reservation }
    }

    /// Adds rows, of which there has to be one. Says to which file they went, and after how many others.
    pub(in crate::sink::delta) async fn write(&mut self, batch: RecordBatch) -> Result<(u32, u32)> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Box::new(self.create(&batch).await?),
        };
        let place = (open.number, open.stats.rows() as u32);
        // Others may need the memory more: then the row group ends early.
        let ahead = open.buffered() + batch.get_array_memory_size();
        let crowded = self.reservation.try_resize(ahead).is_err();
        let work = move || {
            let encoded = open.encode(&batch, crowded);
            (open, encoded)
        };
        let (mut open, encoded) = self.thread.run(work).await?;
        open.send(encoded?).await?;
        self.reservation.resize(open.buffered());
        if open.bytes + open.writer.in_progress_size() as u64 >= self.format.target_file_bytes {
            self.finished.push(close(&self.thread, open, self.partition.clone()).await?);
            self.reservation.free();
        } else {
            self.open = Some(open);
        }
        Ok(place)
    }

    /// Ends the row group.
    pub(in crate::sink::delta) async fn end_row_group(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let work = move || {
            let encoded = open.writer.flush().context(Kind::Bug, "Rows cannot be encoded");
            let encoded = encoded.map(|()| std::mem::take(open.writer.inner_mut()));
            (open, encoded)
        };
        let (mut open, encoded) = self.thread.run(work).await?;
        open.send(encoded?).await?;
        self.reservation.resize(open.buffered());
        self.open = Some(open);
        Ok(())
    }

    /// Closes the last file and gives all.
    pub(in crate::sink::delta) async fn finish(mut self) -> Result<Vec<NewFile>> {
        if let Some(open) = self.open.take() {
            self.finished.push(close(&self.thread, open, self.partition.clone()).await?);
        }
        Ok(std::mem::take(&mut self.finished))
    }

    async fn create(&mut self, first: &RecordBatch) -> Result<OpenFile> {
        // The log says of which partition a file is; some readers go by the names of folders all the same.
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| NO_VALUE.to_owned());
        let partition = self.partition.as_ref().map(|(name, of)| format!("{name}={}", value(of)));
        let folders = [Some(self.format.folder.to_owned()).filter(|folder| !folder.is_empty()), partition];
        let name = folders.into_iter().flatten().chain([new_name()]).collect::<Vec<_>>().join("/");
        let (properties, differences) = self.format.properties(first)?;
        let writer = ArrowWriter::try_new_with_options(
            Vec::new(),
            Arc::clone(&self.format.schema),
            parquet::arrow::arrow_writer::ArrowWriterOptions::new()
                .with_properties(properties)
                // The Parquet types say it all; a second schema could only contradict them.
                .with_skip_arrow_metadata(true),
        )
        .context(Kind::Bug, "A data file cannot be written")?;
        let number = self.names.add(&name);
        let outgoing = self.format.outbox.open(&name).await?;
        Ok(OpenFile {
            name,
            number,
            writer,
            outgoing,
            stats: FileStats::new(&self.format.columns),
            buffer_bytes: self.format.row_group_bytes.saturating_mul(BUFFERS),
            idle_bytes: differences * DELTA_BUFFER_BYTES,
            bytes: 0,
        })
    }
}

impl OpenFile {
    /// Bytes that are held.
    fn buffered(&self) -> usize {
        self.writer.memory_size().saturating_sub(self.idle_bytes)
    }

    /// Encodes a batch and gives the bytes that are ready for the store.
    fn encode(&mut self, batch: &RecordBatch, flush_first: bool) -> Result<Vec<u8>> {
        if flush_first {
            self.writer.flush().context(Kind::Bug, "Rows cannot be encoded")?;
        }
        self.stats.update(batch)?;
        for start in (0..batch.num_rows()).step_by(STEP_ROWS) {
            let step = batch.slice(start, STEP_ROWS.min(batch.num_rows() - start));
            self.writer.write(&step).context(Kind::Bug, "Rows cannot be encoded")?;
            // Dictionaries take memory that the estimate of encoded bytes does not see.
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
        self.outgoing.put(encoded).await
    }
}

async fn close(thread: &WorkerThread, mut open: Box<OpenFile>, partition: Option<(String, Option<String>)>) -> Result<NewFile> {
    let work = move || {
        let rest = open.writer.finish().map(|_| std::mem::take(open.writer.inner_mut()));
        (open, rest)
    };
    let (mut open, rest) = thread.run(work).await?;
    open.send(rest.context(Kind::Bug, "Rows cannot be encoded")?).await?;
    let OpenFile { name, number, outgoing, stats, bytes, .. } = *open;
    outgoing.finish().await?;
    let (rows, has_nulls, stats) = (stats.rows(), stats.has_nulls(), stats.json());
    Ok(NewFile { name, bytes, rows, stats, has_nulls, partition, number, vector: None })
}
