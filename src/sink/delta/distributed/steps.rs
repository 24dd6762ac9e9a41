//! What a process does with a part of a load. It commits nothing, and what it wrote goes again if the work does not come to its end.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use roaring::RoaringBitmap;

use crate::engine::{BatchSender, ExternalSorter, combine_streams, engine_error};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::TableRef;
use crate::reduce::{ChangeSet, deletes, latest_per_key};
use crate::sink::Worker;
use crate::sink::delta::DeltaOptions;
use crate::sink::delta::distributed::{
    ApplyOrder, KeyFile, NoteRows, TableOrder, Teller, Told, rows_of_texts, send, tell, texts_of,
};
use crate::sink::delta::log::columns::LakeColumn;
use crate::sink::delta::log::file_names::{Uncommitted, new_name};
use crate::sink::delta::log::table_log::{ActiveFile, FileFacts, TableLog};
use crate::sink::delta::merge::dedup::{NO_FILE, replaced};
use crate::sink::delta::merge::file_rewrite::OldFiles;
use crate::sink::delta::merge::key_probe::{Look, PROBE_ROWS, Probe};
use crate::sink::delta::merge::key_search::KeySearch;
use crate::sink::delta::merge::key_set::key_columns;
use crate::sink::delta::merge::snapshot_writer::{Check, ReplaceWorker, routing, write_upserts};
use crate::sink::delta::modes::load::Written;
use crate::sink::delta::read::data_file::{DataFile, Rows};
use crate::sink::delta::write::deletion_vectors::VectorFile;
use crate::sink::delta::write::parquet_writer::FileFormat;
use crate::sink::delta::write::partitioned_writer::TableWriter;
use crate::store::{Place, explained};

/// Keys of a row group in a file of keys.
const KEYS_AT_ONCE: usize = 128 << 10;
/// Name of the column of such a file that says which keys are deleted.
const IS_DELETED: &str = "deleted";

/// Where a part is sent.
type To = BatchSender;

/// A table whose files are about to be written.
struct Table {
    format: Arc<FileFormat>,
    log: TableLog,
    keys: Vec<LakeColumn>,
    uncommitted: Uncommitted,
}

impl TableOrder {
    fn open(&self, worker: &Worker) -> Result<Table> {
        let table = TableRef::new(self.namespace.as_str(), self.table.as_str());
        let place = Place::open(&self.root, &worker.store)?;
        let log = TableLog::new(&place, &table)?;
        let columns = LakeColumn::of_schema_string(&self.schema)?;
        let options = DeltaOptions {
            target_file_bytes: self.target_file_bytes,
            compression_level: self.compression_level,
            ..DeltaOptions::new(worker.engine.clone())
        };
        let outbox = log.outbox(&worker.engine);
        let format = Arc::new(FileFormat::new(&options, outbox, &columns, &self.keys, worker.engine.partitions()));
        let keys = LakeColumn::named(&columns, &self.keys);
        if keys.is_empty() || keys.len() != self.keys.len() {
            return Err(Error::new(Kind::Bug, "A table without its key was to be written").with_field("table", table));
        }
        let uncommitted = Uncommitted::new(log.store(), log.folder.clone());
        Ok(Table { format, log, keys, uncommitted })
    }
}

impl Table {
    fn key_types(&self) -> Vec<DataType> {
        LakeColumn::file_types(&self.keys)
    }

    /// The files are in others' hands from here on.
    fn release(&self) {
        let _ = self.uncommitted.release();
    }
}

/// The same rows, counted.
fn counted(input: SendableRecordBatchStream, count: &Arc<AtomicU64>) -> SendableRecordBatchStream {
    let (schema, count) = (input.schema(), Arc::clone(count));
    let stream = input.inspect_ok(move |batch| _ = count.fetch_add(batch.num_rows() as u64, Ordering::Relaxed));
    Box::pin(RecordBatchStreamAdapter::new(schema, stream))
}

/// Writes changes as they come, and notes where their rows went.
pub(in crate::sink::delta::distributed) async fn write(
    order: &TableOrder,
    input: SendableRecordBatchStream,
    worker: &Worker,
    to: &To,
) -> Result<()> {
    let table = order.open(worker)?;
    let teller = Teller::new(&table.key_types(), to.clone())?;
    let changes = Arc::new(AtomicU64::new(0));
    let input = counted(input, &changes);
    let routing = routing(&table.format, &worker.engine, worker.engine.partitions());
    let streams = match &routing {
        Some(routing) => routing.route(&input.schema(), vec![input], 1),
        None => vec![input],
    };
    let writing = ReplaceWorker {
        streams: Arc::new(Mutex::new(VecDeque::from(streams))),
        format: Arc::clone(&table.format),
        keys: order.keys.clone(),
        check: Check::Told(teller.clone()),
        routing,
        batch_bytes: worker.engine.batch_bytes(),
    };
    let writer = TableWriter::new(Arc::clone(&table.format), table.uncommitted.names());
    let (files, upserted) = writing.run(writer).await.map_err(explained)?;
    teller.send_notes(1).await?;
    for file in files {
        teller.tell(&Told::File { writer: teller.writer, file }).await?;
    }
    teller.tell(&Told::Wrote { upserted, changes: changes.load(Ordering::Relaxed) }).await?;
    table.release();
    Ok(())
}

/// Finds the rows that later ones of the same keys replace.
pub(in crate::sink::delta::distributed) async fn settle(
    mut input: SendableRecordBatchStream,
    worker: &Worker,
    to: &To,
) -> Result<()> {
    let mut sorted = ExternalSorter::new(&worker.engine, "WrittenRows");
    let mut numbers: HashMap<(u64, u32), u32> = HashMap::new();
    let mut files: Vec<((u64, u32), u64)> = Vec::new();
    while let Some(batch) = input.next().await {
        let batch = batch.map_err(engine_error)?;
        let notes = NoteRows::of(&batch)?;
        for row in 0..batch.num_rows() {
            if let Some(text) = notes.told(row) {
                // Not ours to know, only to pass on.
                send(to, rows_of_texts(vec![text.to_owned()])?).await?;
                continue;
            }
            let file = notes.file(row);
            let number = match file.1 {
                NO_FILE => NO_FILE,
                _ => *numbers.entry(file).or_insert_with(|| {
                    files.push((file, 0));
                    (files.len() - 1) as u32
                }),
            };
            if let Some((_, seen)) = files.get_mut(number as usize) {
                *seen += 1;
            }
            sorted.push(notes.note(row, number)).map_err(engine_error)?;
        }
    }
    let mut gone = replaced(sorted).await?;
    let mut settled = Vec::with_capacity(files.len());
    for (number, ((writer, file), notes)) in files.into_iter().enumerate() {
        let rows = gone.remove(&(number as u32)).map(|rows| {
            let mut bytes = Vec::with_capacity(rows.serialized_size());
            rows.serialize_into(&mut bytes).map(|()| STANDARD.encode(bytes)).context(Kind::Bug, "Rows cannot be told")
        });
        settled.push((writer, file, notes, rows.transpose()?));
    }
    tell(to, &Told::Settled(settled)).await
}

/// Reduces changes to the latest per key, and writes their rows and their keys.
pub(in crate::sink::delta::distributed) async fn merge(
    order: &TableOrder,
    input: SendableRecordBatchStream,
    worker: &Worker,
    to: &To,
) -> Result<()> {
    let table = order.open(worker)?;
    let engine = &worker.engine;
    let changes = Arc::new(AtomicU64::new(0));
    let input = counted(input, &changes);
    let reduced = latest_per_key(engine, ChangeSet::unreduced(input.schema(), &order.keys, vec![input]))?;
    let mut stream = combine_streams(reduced.schema, reduced.streams, 1);
    let mut writer = TableWriter::new(Arc::clone(&table.format), table.uncommitted.names());
    let mut keys: Option<KeyWriter> = None;
    let mut upserted = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(engine_error)?;
        let columns = key_columns(&batch, &order.keys)?;
        let deletes = deletes(&batch)?;
        let open = match &mut keys {
            Some(open) => open,
            None => keys.insert(KeyWriter::begin(&table, &columns)?),
        };
        open.write(columns, &deletes).await?;
        upserted +=
            write_upserts(&mut writer, &batch, &deletes, &table.format, engine.batch_bytes()).await.map_err(explained)?;
    }
    for file in writer.finish().await.map_err(explained)? {
        tell(to, &Told::File { writer: 0, file }).await?;
    }
    if let Some(keys) = keys {
        tell(to, &Told::Keys(keys.finish().await?)).await?;
    }
    tell(to, &Told::Wrote { upserted, changes: changes.load(Ordering::Relaxed) }).await?;
    table.release();
    Ok(())
}

/// A file of keys. Its name is one that a vacuum knows, should it be left behind.
struct KeyWriter {
    name: String,
    schema: SchemaRef,
    writer: AsyncArrowWriter<BufWriter>,
}

impl KeyWriter {
    fn begin(table: &Table, columns: &[ArrayRef]) -> Result<Self> {
        let name = new_name();
        table.uncommitted.names().add(&name);
        let store = BufWriter::new(table.log.store(), Path::from(name.as_str()));
        let level = ZstdLevel::try_new(1).context(Kind::Bug, "Unknown compression level")?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_row_count(Some(KEYS_AT_ONCE))
            .build();
        let key = |(number, column): (usize, &ArrayRef)| Field::new(key_name(number), column.data_type().clone(), false);
        let mut fields: Vec<Field> = columns.iter().enumerate().map(key).collect();
        fields.push(Field::new(IS_DELETED, DataType::Boolean, false));
        let schema = Arc::new(Schema::new(fields));
        let writer = AsyncArrowWriter::try_new(store, Arc::clone(&schema), Some(properties));
        Ok(Self { name, schema, writer: writer.context(Kind::Bug, "Keys cannot be written")? })
    }

    async fn write(&mut self, mut columns: Vec<ArrayRef>, deletes: &BooleanArray) -> Result<()> {
        columns.push(Arc::new(deletes.clone()));
        let failed = "Keys cannot be written";
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).context(Kind::Bug, failed)?;
        self.writer.write(&batch).await.context(Kind::Target, failed).with_field("file", &self.name).map_err(explained)
    }

    async fn finish(mut self) -> Result<KeyFile> {
        let finished = self.writer.finish().await;
        finished.context(Kind::Target, "Keys cannot be written").with_field("file", &self.name).map_err(explained)?;
        let bytes = self.writer.bytes_written() as u64;
        Ok(KeyFile { name: self.name, bytes })
    }
}

fn key_name(number: usize) -> String {
    format!("key{number}")
}

/// Looks for keys in old files, and does with these what follows.
pub(in crate::sink::delta::distributed) async fn apply(
    order: &ApplyOrder,
    mut input: SendableRecordBatchStream,
    worker: &Worker,
    to: &To,
) -> Result<()> {
    let table = order.table.open(worker)?;
    let engine = &worker.engine;
    let mut numbers = Vec::new();
    let mut files = Vec::new();
    while let Some(batch) = input.next().await {
        for text in texts_of(&batch.map_err(engine_error)?)? {
            let facts: FileFacts = serde_json::from_str(text).context(Kind::Bug, "A file is described in unknown words")?;
            files.push(Arc::new(ActiveFile::of_facts(&facts, &table.keys[0])?));
            numbers.push(facts.number);
        }
    }
    let mut probe = Probe::new(table.log.store(), &files, table.keys.clone(), Look::default(), engine);
    let mut search = KeySearch::new(&table.key_types(), engine)?;
    let mut deleted = 0;
    let names = key_names(&table);
    for keys in order.keys.iter().filter(|_| !files.is_empty()) {
        let mut stream = read_keys(&table, keys, &names).await?;
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(engine_error)?;
            let columns = key_columns(&batch, &names)?;
            let gone = batch.column_by_name(IS_DELETED).and_then(|column| column.as_any().downcast_ref::<BooleanArray>());
            let gone = gone.ok_or_else(|| Error::new(Kind::Bug, "A file of keys has another form"))?;
            deleted += search.push(&mut probe, &columns, gone).await?;
        }
    }
    deleted += search.finish(&mut probe).await?;
    let fates = probe.into_fates(order.rewrites, order.rule).await?;
    let names = table.uncommitted.names();
    let mut written = Written { removed: vec![false; files.len()], ..Written::default() };
    let mut writer = TableWriter::new(Arc::clone(&table.format), names.clone());
    let mut vectors = VectorFile::new();
    let target_file_bytes = order.table.target_file_bytes;
    let old = OldFiles { files: &files, format: &table.format, engine, names: names.clone(), target_file_bytes };
    old.apply(fates, &mut writer, &mut vectors, &mut written).await.map_err(explained)?;
    written.added.extend(writer.finish().await.map_err(explained)?);
    let vector_bytes = vectors.finish(&table.log.store(), &names).await.map_err(explained)?;
    for file in written.added {
        tell(to, &Told::File { writer: 0, file }).await?;
    }
    // In the order of the files, as they were looked at.
    let mut marked = written.marked.into_iter().peekable();
    for (place, number) in numbers.into_iter().enumerate().filter(|(place, _)| written.removed[*place]) {
        let marked = marked.next_if(|marked| Arc::ptr_eq(&marked.file, &files[place]));
        tell(to, &Told::Changed { number, vector: marked.map(|marked| marked.vector) }).await?;
    }
    tell(to, &Told::Applied { deleted, vector_bytes }).await?;
    table.release();
    Ok(())
}

fn key_names(table: &Table) -> Vec<String> {
    (0..table.keys.len()).map(key_name).collect()
}

async fn read_keys(table: &Table, keys: &KeyFile, names: &[String]) -> Result<SendableRecordBatchStream> {
    let file = DataFile::open(table.log.store(), &Path::from(keys.name.as_str()), keys.bytes).await?;
    let rows = Rows::all(file.metadata());
    file.stream(names.iter().map(String::as_str).chain([IS_DELETED]), rows, PROBE_ROWS)
}

/// Rows of a bitmap that was told.
pub(in crate::sink::delta::distributed) fn rows_of(text: &str) -> Result<RoaringBitmap> {
    let bytes = STANDARD.decode(text).context(Kind::Bug, "Rows were told in another form")?;
    RoaringBitmap::deserialize_from(bytes.as_slice()).context(Kind::Bug, "Rows were told in another form")
}
