//! The work of an executor on one part of a load. Commits nothing; the files of a task that fails are removed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parking_lot::Mutex;
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::engine::{BatchSender, count_rows, engine_error, stream_from_task};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::TableRef;
use crate::reduce::{ChangeSet, latest_per_key};
use crate::sink::TaskResources;
use crate::sink::delta::distributed::location_batch::{LocationBatch, LocationSender};
use crate::sink::delta::distributed::task_report::{FileId, FileLocations, KeyFile, TaskReport, batch_of, texts_of};
use crate::sink::delta::distributed::task_spec::{ProbeSpec, TableSpec, TaskSpec};
use crate::sink::delta::log::active_file::{ActiveFile, FileDescription, FileLocation};
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::file_actions::FileChanges;
use crate::sink::delta::log::file_names::new_name;
use crate::sink::delta::log::table_log::TableLog;
use crate::sink::delta::merge::file_rewrite::ExistingFiles;
use crate::sink::delta::merge::key_probe::{LookupOptions, MergeProbe, PROBE_ROWS};
use crate::sink::delta::merge::key_set::key_columns;
use crate::sink::delta::merge::post_write_dedup::RowLocationIndex;
use crate::sink::delta::merge::probe_buffer::{BufferedProbe, KeySink};
use crate::sink::delta::merge::row_location::{NO_FILE, RowLocationSink, RowLocator};
use crate::sink::delta::merge::snapshot_writer::{KeyPolicy, SnapshotRows, SnapshotWriter};
use crate::sink::delta::modes::change_batches::ChangeBatches;
use crate::sink::delta::options::DeltaOptions;
use crate::sink::delta::read::data_file::{DataFile, RowFilter};
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partition_router::PartitionRouter;
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::sink::delta::write::uncommitted_files::UncommittedFiles;
use crate::store::{Place, explained};

/// Number of keys in a row group of a key file.
const KEY_FILE_ROWS: usize = 128 << 10;
/// The column of a key file that says which keys are deleted.
const IS_DELETED: &str = "deleted";

/// Runs the task of a [`TaskSpec`] with one part of its input. Must be called within a tokio runtime: the work is a task of its own, which ends
/// when the stream is dropped. Errors of the stream contain an [`Error`]. Kind `Bug` for a task of another version of daplake.
#[cfg_attr(not(any(test, feature = "cluster")), expect(dead_code, reason = "only the executors of a cluster run tasks"))]
pub(crate) fn run_task(
    spec: &str,
    input: SendableRecordBatchStream,
    worker: &TaskResources,
) -> Result<SendableRecordBatchStream> {
    let task = TaskSpec::decode(spec)?;
    let worker = worker.clone();
    Ok(stream_from_task(task.output(), 2, move |sender| async move {
        let done = match task {
            TaskSpec::Write(table) => write(&table, input, &worker, &sender).await,
            TaskSpec::Dedup => dedup(input, &worker, &sender).await,
            TaskSpec::Merge(table) => merge(&table, input, &worker, &sender).await,
            TaskSpec::Probe(probe) => probe_files(&probe, input, &worker, &sender).await,
        };
        done.map_err(DataFusionError::from)
    }))
}

/// The table that a task writes to.
struct TaskTable {
    format: Arc<FileFormat>,
    log: TableLog,
    keys: Vec<LakeColumn>,
    uncommitted: UncommittedFiles,
}

impl TaskTable {
    fn open(spec: &TableSpec, worker: &TaskResources) -> Result<Self> {
        let table = TableRef::new(spec.namespace.as_str(), spec.table.as_str());
        let place = Place::open(&spec.root, &worker.store)?;
        let log = TableLog::new(&place, &table)?;
        let columns = LakeColumn::from_schema_string(&spec.schema)?;
        let options = DeltaOptions {
            target_file_bytes: spec.target_file_bytes,
            compression_level: spec.compression_level,
            ..DeltaOptions::new(worker.engine.clone())
        };
        let format = Arc::new(FileFormat::new(&options, &log, &columns, &spec.keys, worker.engine.partitions()));
        let keys = LakeColumn::named(&columns, &spec.keys);
        if keys.is_empty() || keys.len() != spec.keys.len() {
            return Err(Error::new(Kind::Bug, "A task has a table without its key").with_field("table", table));
        }
        let uncommitted = UncommittedFiles::new(log.store(), log.folder.clone());
        Ok(Self { format, log, keys, uncommitted })
    }

    fn key_types(&self) -> Vec<DataType> {
        LakeColumn::file_types(&self.keys)
    }

    fn writer(&self) -> TableWriter {
        TableWriter::new(Arc::clone(&self.format), self.uncommitted.registry())
    }

    /// Hands the files over to the driver.
    fn release(&self) {
        let _ = self.uncommitted.release();
    }
}

/// The report of a task that has written all of its changes.
fn written(upserted: u64, changes: &AtomicU64) -> TaskReport {
    TaskReport::Written { upserted, changes: changes.load(Ordering::Relaxed) }
}

/// Sends a report. Fails if the output is no longer read.
async fn report(output: &BatchSender, report: &TaskReport) -> Result<()> {
    output.send(batch_of(vec![report.encode()?])?).await.map_err(engine_error)
}

/// Writes changes as they arrive and sends the locations of their rows.
async fn write(spec: &TableSpec, input: SendableRecordBatchStream, worker: &TaskResources, output: &BatchSender) -> Result<()> {
    let table = TaskTable::open(spec, worker)?;
    let locations = Arc::new(LocationSender::new(output.clone()));
    let changes = Arc::new(AtomicU64::new(0));
    let input = count_rows(input, &changes);
    let router = PartitionRouter::new(&table.format, &worker.engine, worker.engine.partitions());
    let rows = match &router {
        Some(router) => router.route(&input.schema(), vec![input], 1).pop().map(SnapshotRows::Routed),
        None => Some(SnapshotRows::Streams(Arc::new(Mutex::new(VecDeque::from([input]))))),
    };
    let rows = rows.ok_or_else(|| Error::new(Kind::Bug, "Rows have no output"))?;
    let location_sink: Arc<dyn RowLocationSink> = locations.clone();
    let writer = SnapshotWriter {
        format: Arc::clone(&table.format),
        keys: spec.keys.clone(),
        policy: KeyPolicy::Locate(RowLocator::new(&table.key_types())?, location_sink),
        batch_bytes: worker.engine.batch_bytes(),
    };
    let (files, upserted) = writer.run(rows, table.writer()).await.map_err(|error| explained(error.into_error()))?;
    locations.flush().await?;
    for file in files {
        locations.report(&TaskReport::File { writer: locations.writer(), file }).await?;
    }
    locations.report(&written(upserted, &changes)).await?;
    table.release();
    Ok(())
}

/// Finds the rows that a newer change of the same key replaces.
async fn dedup(mut input: SendableRecordBatchStream, worker: &TaskResources, output: &BatchSender) -> Result<()> {
    let index = RowLocationIndex::new(&worker.engine);
    // Files get consecutive numbers here; of each, the locations are counted.
    let mut numbers: HashMap<FileId, u32> = HashMap::new();
    let mut files: Vec<(FileId, u64)> = Vec::new();
    while let Some(batch) = input.next().await {
        let batch = batch.map_err(engine_error)?;
        let locations = LocationBatch::new(&batch)?;
        for row in 0..batch.num_rows() {
            if let Some(text) = locations.report(row) {
                output.send(batch_of(vec![text.to_owned()])?).await.map_err(engine_error)?;
                continue;
            }
            let file = locations.file(row);
            let number = match file.number {
                NO_FILE => NO_FILE,
                _ => *numbers.entry(file).or_insert_with(|| {
                    files.push((file, 0));
                    (files.len() - 1) as u32
                }),
            };
            if let Some((_, count)) = files.get_mut(number as usize) {
                *count += 1;
            }
            index.insert(locations.location(row, number))?;
        }
    }
    let mut replaced = index.replaced_rows().await?;
    let files = files.into_iter().zip(0..);
    let found = files.map(|((file, rows), number)| FileLocations::new(file, rows, replaced.remove(&number)));
    report(output, &TaskReport::Deduplicated(found.collect::<Result<_>>()?)).await
}

/// Deduplicates changes, writes the upserts to data files and all keys to a key file.
async fn merge(spec: &TableSpec, input: SendableRecordBatchStream, worker: &TaskResources, output: &BatchSender) -> Result<()> {
    let table = TaskTable::open(spec, worker)?;
    let engine = &worker.engine;
    let changes = Arc::new(AtomicU64::new(0));
    let input = count_rows(input, &changes);
    let reduced = latest_per_key(engine, ChangeSet::unreduced(input.schema(), &spec.keys, vec![input]))?;
    let batches = ChangeBatches::new(reduced, None, 1);
    let mut writer = table.writer();
    let mut keys = KeyFileSink { table: &table, writer: None };
    let upserted = batches.write(&mut writer, &table.format, engine.batch_bytes(), &mut keys).await;
    let upserted = upserted.map_err(|error| explained(error.into_error()))?;
    for file in writer.finish().await.map_err(explained)? {
        report(output, &TaskReport::File { writer: 0, file }).await?;
    }
    if let Some(keys) = keys.writer {
        report(output, &TaskReport::Keys(keys.finish().await?)).await?;
    }
    report(output, &written(upserted, &changes)).await?;
    table.release();
    Ok(())
}

/// Writes keys to a key file, which is created for the first of them.
struct KeyFileSink<'a> {
    table: &'a TaskTable,
    writer: Option<KeyWriter>,
}

#[async_trait]
impl KeySink for KeyFileSink<'_> {
    async fn push(&mut self, columns: &[ArrayRef], deletes: &BooleanArray) -> Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(KeyWriter::new(self.table, columns)?),
        };
        writer.write(columns.to_vec(), deletes).await
    }
}

/// Writes a key file. Its name is that of a data file, so that a vacuum removes it if it is left behind.
struct KeyWriter {
    name: String,
    schema: SchemaRef,
    writer: AsyncArrowWriter<BufWriter>,
}

const KEYS_NOT_WRITTEN: &str = "A key file cannot be written";

impl KeyWriter {
    /// `columns` are the key columns of the first batch.
    fn new(table: &TaskTable, columns: &[ArrayRef]) -> Result<Self> {
        let name = new_name();
        table.uncommitted.registry().add(&name);
        let store = BufWriter::new(table.log.store(), Path::from(name.as_str()));
        let level = ZstdLevel::try_new(1).context(Kind::Bug, "Unknown compression level")?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_row_count(Some(KEY_FILE_ROWS))
            .build();
        let key = |(number, column): (usize, &ArrayRef)| Field::new(key_name(number), column.data_type().clone(), false);
        let mut fields: Vec<Field> = columns.iter().enumerate().map(key).collect();
        fields.push(Field::new(IS_DELETED, DataType::Boolean, false));
        let schema = Arc::new(Schema::new(fields));
        let writer = AsyncArrowWriter::try_new(store, Arc::clone(&schema), Some(properties));
        Ok(Self { name, schema, writer: writer.context(Kind::Bug, KEYS_NOT_WRITTEN)? })
    }

    async fn write(&mut self, mut columns: Vec<ArrayRef>, deletes: &BooleanArray) -> Result<()> {
        columns.push(Arc::new(deletes.clone()));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).context(Kind::Bug, KEYS_NOT_WRITTEN)?;
        let written = self.writer.write(&batch).await;
        written.context(Kind::Target, KEYS_NOT_WRITTEN).with_field("file", &self.name).map_err(explained)
    }

    async fn finish(mut self) -> Result<KeyFile> {
        let finished = self.writer.finish().await;
        finished.context(Kind::Target, KEYS_NOT_WRITTEN).with_field("file", &self.name).map_err(explained)?;
        let bytes = self.writer.bytes_written() as u64;
        Ok(KeyFile { name: self.name, bytes })
    }
}

fn key_name(number: usize) -> String {
    format!("key{number}")
}

/// Probes existing files with the keys of all key files and carries out the resulting actions.
async fn probe_files(
    spec: &ProbeSpec,
    input: SendableRecordBatchStream,
    worker: &TaskResources,
    output: &BatchSender,
) -> Result<()> {
    let table = TaskTable::open(&spec.table, worker)?;
    let engine = &worker.engine;
    let (numbers, files) = described_files(input, &table.keys[0]).await?;
    let probe = MergeProbe::new(table.log.store(), &files, table.keys.clone(), LookupOptions::default(), engine);
    let mut keys = BufferedProbe::new(probe, &table.key_types(), engine)?;
    let names: Vec<String> = (0..table.keys.len()).map(key_name).collect();
    for key_file in spec.key_files.iter().filter(|_| !files.is_empty()) {
        let mut stream = read_keys(&table, key_file, &names).await?;
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(engine_error)?;
            let columns = key_columns(&batch, &names)?;
            let deletes = batch.column_by_name(IS_DELETED).and_then(|column| column.as_any().downcast_ref::<BooleanArray>());
            let deletes = deletes.ok_or_else(|| Error::new(Kind::Bug, "A key file has another schema"))?;
            keys.push(&columns, deletes).await?;
        }
    }
    let (probe, deleted) = keys.finish().await?;
    let mut written = FileChanges::keep_all(files.len());
    let existing = ExistingFiles {
        files: &files,
        format: &table.format,
        engine,
        registry: table.uncommitted.registry(),
        target_file_bytes: spec.table.target_file_bytes,
    };
    let deleting = existing.delete_matches(probe, spec.rewrite_all, spec.rule, table.writer(), &mut written);
    deleting.await.map_err(explained)?;
    let vector_file_bytes = written.vector_file_bytes;
    for file in written.added {
        report(output, &TaskReport::File { writer: 0, file }).await?;
    }
    // Updates are in the order of the files.
    let mut updates = written.vector_updates.into_iter().peekable();
    for (position, number) in numbers.into_iter().enumerate().filter(|(position, _)| written.removed[*position]) {
        let update = updates.next_if(|update| Arc::ptr_eq(&update.file, &files[position]));
        let deletion_vector = update.map(|update| update.deletion_vector);
        report(output, &TaskReport::FileChanged { number, deletion_vector }).await?;
    }
    report(output, &TaskReport::Probed { deleted, vector_file_bytes }).await?;
    table.release();
    Ok(())
}

/// The files that the input describes, and their positions in the driver's list. `key` is the first key column.
async fn described_files(mut input: SendableRecordBatchStream, key: &LakeColumn) -> Result<(Vec<usize>, Vec<Arc<ActiveFile>>)> {
    let (mut numbers, mut files) = (Vec::new(), Vec::new());
    while let Some(batch) = input.next().await {
        for text in texts_of(&batch.map_err(engine_error)?)? {
            let file: FileDescription =
                serde_json::from_str(text).context(Kind::Bug, "The description of a file cannot be decoded")?;
            files.push(Arc::new(ActiveFile::from_description(&file, key)?));
            numbers.push(file.number);
        }
    }
    Ok((numbers, files))
}

async fn read_keys(table: &TaskTable, keys: &KeyFile, names: &[String]) -> Result<SendableRecordBatchStream> {
    let location = FileLocation { path: Path::from(keys.name.as_str()), size: keys.bytes };
    let file = DataFile::open(table.log.store(), &location).await?;
    let rows = RowFilter::all(file.metadata());
    file.stream(names.iter().map(String::as_str).chain([IS_DELETED]), rows, PROBE_ROWS)
}
