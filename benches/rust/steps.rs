//! Steps of `benches/run.py increment` and `read-after`. Each runs as a process of its own, so that its CPU time and peak memory are its own:
//!
//! ```text
//! make FOLDER ROWS           a Delta table of narrow rows (like `web_logs`), clustered by key, and changes to it
//! changes FOLDER ROWS STEP   replaces the changes by other random ones
//! apply FOLDER MODE KEYS     applies the changes as `sync` does; MODE: auto, on, off; KEYS: random, recent
//! merge FOLDER KEYS          applies them with the merge of the Delta crate
//! read FOLDER                reads all columns of the table
//! optimize FOLDER            compacts small files and purges deletion vectors
//! ```
//!
//! Rows are computed from their keys, so the table is never kept in memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use daplake::internals::engine::batch_stream;
use daplake::internals::reduce::latest_per_key;
use daplake::internals::schema::{Nested, TableSchema, change_schema};
use daplake::internals::sink::delta::{DeletionVectors, DeltaOptions, DeltaSink};
use daplake::ops::{self, Scope, Target};
use daplake::sink::{ChangeSet, LoadKind, LoadPlan, LoadSummary, Sink, WriteError};
use daplake::{Bookmark, Engine, EngineOptions, Result, TableRef, Timestamp};
use datafusion::datasource::MemTable;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SessionContext, col, lit};
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;
use serde_json::json;

const BATCH_ROWS: u64 = 8192;
const UPDATES: u64 = 50_000;
const DELETES: u64 = 10_000;
const REPEATS: u64 = 6_000;
const MEMORY_LIMIT: usize = 256 << 20;

/// Runs one step.
pub(crate) async fn run(arguments: &[&str]) -> Result<()> {
    let number = |text: &str| text.parse().expect("a number");
    match *arguments {
        ["make", folder, rows] => make(Path::new(folder), number(rows)).await,
        ["changes", folder, rows, step] => {
            write_changes(Path::new(folder), "random", number(rows), number(step));
            Ok(())
        }
        ["apply", folder, mode, keys] => apply(Path::new(folder), mode, keys).await,
        ["merge", folder, keys] => merge(Path::new(folder), keys).await,
        ["read", folder] => read(Path::new(folder)).await,
        ["optimize", folder] => optimize(Path::new(folder)).await,
        _ => {
            println!("unknown step; `cargo bench` without arguments measures the parts");
            Ok(())
        }
    }
}

fn table() -> TableRef {
    TableRef::new("bench", "logs")
}

fn schema() -> Arc<TableSchema> {
    let text = || json!({"type": "string"});
    let whole = |format: &str| json!({"type": "integer", "format": format});
    let source = json!({"type": "object", "properties": {
        "key": {"type": "object", "properties": {"id": whole("int64")}, "required": ["id"]},
        "value": {"type": "object", "properties": {
            "user_id": whole("int64"),
            "course_id": whole("int64"),
            "timestamp": {"type": "string", "format": "date-time"},
            "http_method": text(),
            "http_status": whole("int32"),
            "url": text(),
            "session_id": text(),
        }},
    }});
    Arc::new(TableSchema::read(&table(), 1, source).expect("a schema"))
}

fn arrow_schema() -> SchemaRef {
    change_schema(&schema(), Nested::Typed)
}

/// SplitMix64: spreads keys, with the same result on every machine.
fn mixed(number: u64) -> u64 {
    let mut state = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// Change rows: whether the row is a delete, and its key. `age` makes the values differ from earlier ones.
fn batch(rows: &[(bool, u64)], age: u64, first_seq: u64) -> RecordBatch {
    let seed = |key: u64| mixed(key.wrapping_mul(31).wrapping_add(age));
    let numbers =
        |make: &dyn Fn(u64) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| make(row.1)))) as ArrayRef;
    let texts =
        |make: &dyn Fn(u64) -> String| Arc::new(StringArray::from_iter_values(rows.iter().map(|row| make(row.1)))) as ArrayRef;
    let times = |make: &dyn Fn(u64) -> i64| {
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| make(row.1))).with_timezone("UTC"))
            as ArrayRef
    };
    let columns = |name: &str| -> ArrayRef {
        match name {
            "_action" => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| if row.0 { "D" } else { "U" }))),
            "_ts" => times(&|_| age as i64 * 1_000_000),
            "id" => numbers(&|key| key as i64),
            "user_id" => numbers(&|key| (seed(key) % 40_000) as i64),
            "course_id" => numbers(&|key| (seed(key) / 7 % 3_000) as i64),
            "timestamp" => times(&|key| 1_700_000_000_000_000 + key as i64 * 250_000),
            "http_method" => texts(&|key| ["GET", "GET", "GET", "POST", "PUT"][(seed(key) % 5) as usize].to_owned()),
            "http_status" => {
                Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| [200, 200, 302, 404][(seed(row.1) % 4) as usize])))
            }
            "url" => texts(&|key| format!("/courses/{}/pages/{}", seed(key) / 7 % 3_000, seed(key) / 11 % 50_000)),
            "session_id" => texts(&|key| format!("{:016x}", seed(key))),
            other => panic!("no values for {other}"),
        }
    };
    let target = arrow_schema();
    let arrays = target
        .fields()
        .iter()
        .map(|field| match field.name().as_str() {
            "_seq" => {
                let seqs = Int64Array::from_iter_values((0..rows.len() as u64).map(|row| (first_seq + row) as i64));
                arrow::compute::cast(&seqs, field.data_type()).expect("a number")
            }
            name => columns(name),
        })
        .collect();
    RecordBatch::try_new(target, arrays).expect("a batch")
}

fn changes_file(folder: &Path, keys: &str) -> PathBuf {
    folder.join(format!("changes-{keys}.parquet"))
}

fn write_changes(folder: &Path, keys: &str, rows: u64, step: u64) {
    let span = UPDATES + DELETES;
    let key = |number: u64| match keys {
        "random" => mixed(number + step * span) % rows,
        _ => rows.saturating_sub(2 * span) + mixed(number) % (2 * span).min(rows),
    };
    let path = changes_file(folder, keys);
    // The old file may be a hard link that other runs share.
    let _ = std::fs::remove_file(&path);
    let mut file = ArrowWriter::try_new(File::create(path).expect("a file"), arrow_schema(), None).expect("a writer");
    let mut all: Vec<(bool, u64)> = (0..UPDATES).map(|number| (false, key(number))).collect();
    all.extend((UPDATES..span).map(|number| (true, key(number))));
    all.extend((0..REPEATS).map(|number| (false, key(number))));
    for (number, part) in all.chunks(BATCH_ROWS as usize).enumerate() {
        file.write(&batch(part, 2 + step, number as u64 * BATCH_ROWS)).expect("rows");
    }
    file.close().expect("a file");
}

fn changes(folder: &Path, keys: &str) -> Vec<RecordBatch> {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(File::open(changes_file(folder, keys)).expect("changes")).expect("changes");
    let batches = reader.build().expect("changes");
    batches.map(|batch| batch.expect("rows").with_schema(arrow_schema()).expect("the same columns")).collect()
}

fn engine(folder: &Path) -> Result<Engine> {
    Engine::new(EngineOptions { memory_limit: MEMORY_LIMIT, temp_dir: Some(folder.join("spill")), partitions: 2 })
}

fn open(folder: &Path, engine: &Engine, deletion_vectors: DeletionVectors) -> Result<Arc<DeltaSink>> {
    let options = DeltaOptions { deletion_vectors, compact_after: 0, ..DeltaOptions::new(engine.clone()) };
    DeltaSink::at_path(&folder.join("lake"), options).map(Arc::new)
}

async fn load(sink: &DeltaSink, kind: LoadKind, set: ChangeSet) -> Result<LoadSummary> {
    let expected = sink.committed(&table()).await?.map(|held| held.bookmark);
    let reached = expected.map_or(0, |bookmark| bookmark.at.micros()) + 1_000_000;
    let plan = LoadPlan {
        table: table(),
        schema: schema(),
        nested: Nested::Typed,
        kind,
        expected,
        run_id: "bench".into(),
        job_id: "bench".into(),
        layout: Default::default(),
        is_snapshot: kind == LoadKind::Replace,
        as_of: Timestamp::now(),
    };
    let mut load = sink.begin(plan).await?;
    load.write(set).await.map_err(WriteError::into_error)?;
    load.commit(Bookmark { at: Timestamp::from_micros(reached), schema_version: 1 }).await
}

async fn make(folder: &Path, rows: u64) -> Result<()> {
    let engine = engine(folder)?;
    let sink = open(folder, &engine, DeletionVectors::Auto)?;
    // Objects of up to a million rows, as in a snapshot.
    let objects: Vec<(u64, u64)> = (0..rows).step_by(1_000_000).map(|start| (start, (start + 1_000_000).min(rows))).collect();
    let streams = objects
        .into_iter()
        .map(|(start, end)| {
            let batches = (start..end).step_by(BATCH_ROWS as usize).map(move |first| {
                let rows: Vec<_> = (first..(first + BATCH_ROWS).min(end)).map(|key| (false, key)).collect();
                Ok(batch(&rows, 1, first))
            });
            Box::pin(RecordBatchStreamAdapter::new(arrow_schema(), futures::stream::iter(batches))) as SendableRecordBatchStream
        })
        .collect();
    let loaded = load(&sink, LoadKind::Replace, ChangeSet::unreduced(arrow_schema(), &["id".into()], streams)).await?;
    let mut changed = serde_json::Map::new();
    for keys in ["random", "recent"] {
        write_changes(folder, keys, rows, 0);
        changed.insert(keys.into(), json!(changed_bytes(&engine, folder, keys).await?));
    }
    println!("{}", json!({"rows": loaded.rows, "bytes": loaded.bytes_written, "changed": changed}));
    Ok(())
}

/// The changes of an increment, as the service sends them.
fn change_set(folder: &Path, keys: &str) -> ChangeSet {
    let stream = batch_stream(arrow_schema(), changes(folder, keys));
    ChangeSet::unreduced(arrow_schema(), &["id".into()], vec![stream])
}

/// Bytes of the rows that an increment leaves (the newest per key) as a Parquet file of their own.
async fn changed_bytes(engine: &Engine, folder: &Path, keys: &str) -> Result<usize> {
    let mut reduced = latest_per_key(engine, change_set(folder, keys))?;
    let level = parquet::basic::ZstdLevel::try_new(3).expect("a level");
    let properties = WriterProperties::builder().set_compression(parquet::basic::Compression::ZSTD(level)).build();
    let wanted: Vec<usize> = arrow_schema()
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| !field.name().starts_with('_'))
        .map(|(at, _)| at)
        .collect();
    let schema = Arc::new(arrow_schema().project(&wanted).expect("columns"));
    let mut file = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).expect("a writer");
    for stream in &mut reduced.streams {
        while let Some(batch) = stream.next().await {
            let batch = batch.expect("rows");
            let letters = batch.column_by_name("_action").expect("a column").as_string::<i32>();
            let upserts = letters.iter().map(|letter| Some(letter == Some("U"))).collect();
            let rows = arrow::compute::filter_record_batch(&batch, &upserts).expect("rows");
            file.write(&rows.project(&wanted).expect("columns")).expect("rows");
        }
    }
    Ok(file.into_inner().expect("a file").len())
}

async fn apply(folder: &Path, mode: &str, keys: &str) -> Result<()> {
    let engine = engine(folder)?;
    let deletion_vectors = match mode {
        "on" => DeletionVectors::On,
        "off" => DeletionVectors::Off,
        _ => DeletionVectors::Auto,
    };
    let sink = open(folder, &engine, deletion_vectors)?;
    let set = latest_per_key(&engine, change_set(folder, keys))?;
    let loaded = load(&sink, LoadKind::Merge, set).await?;
    println!("{}", json!({"rows": loaded.rows, "bytes": loaded.bytes_written, "deleted": loaded.deleted}));
    Ok(())
}

async fn merge(folder: &Path, keys: &str) -> Result<()> {
    let engine = engine(folder)?;
    let mut reduced = latest_per_key(&engine, change_set(folder, keys))?;
    let mut batches = Vec::new();
    for stream in &mut reduced.streams {
        while let Some(batch) = stream.next().await {
            batches.push(batch.expect("rows"));
        }
    }
    let path = folder.join("lake/bench/logs");
    let url = url::Url::from_directory_path(std::path::absolute(path).expect("a path")).expect("a path");
    let opened = deltalake::open_table(url).await.expect("a table");
    // A session without a memory limit: with one, the merge fails or hangs.
    let session = SessionContext::new();
    let table = MemTable::try_new(arrow_schema(), vec![batches]).expect("a table");
    let source = session.read_table(Arc::new(table)).expect("a source");
    let (from, name) = (|name: &str| col(format!("s.{name}")), schema());
    let names: Vec<String> = name.columns().map(|column| column.name.clone()).collect();
    let merged = opened
        .merge(source, col("t.id").eq(col("s.id")))
        .with_source_alias("s")
        .with_target_alias("t")
        .when_matched_delete(|clause| clause.predicate(from("_action").eq(lit("D"))))
        .expect("a clause")
        .when_matched_update(|clause| names.iter().fold(clause, |clause, name| clause.update(name.as_str(), from(name))))
        .expect("a clause")
        .when_not_matched_insert(|clause| {
            let clause = clause.predicate(from("_action").eq(lit("U")));
            names.iter().fold(clause, |clause, name| clause.set(name.as_str(), from(name)))
        })
        .expect("a clause")
        .await
        .expect("a merge");
    drop(merged);
    Ok(())
}

async fn read(folder: &Path) -> Result<()> {
    let engine = engine(folder)?;
    let lake = ops::open_lake(&Target::Folder(folder.join("lake")), &engine)?;
    let sql = "SELECT count(*), sum(id), sum(user_id), sum(course_id), max(timestamp), min(http_method), sum(http_status), max(url), max(session_id) FROM bench.logs";
    let mut answer = ops::query(&lake, &engine, sql).await?.batches;
    while let Some(batch) = answer.next().await {
        let batch = batch.expect("rows");
        println!("{}", json!({"rows": batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0)}));
    }
    Ok(())
}

async fn optimize(folder: &Path) -> Result<()> {
    let engine = engine(folder)?;
    let done = open(folder, &engine, DeletionVectors::Auto)?.optimize(&table(), Scope::Compact).await?;
    println!("{}", json!(done));
    Ok(())
}
