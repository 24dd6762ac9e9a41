//! Measures the parts of the data path on the same generated school and prints a table. Each figure is the median of several runs in one
//! process. CPU seconds are those of the whole process, including the embedded server where it runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use daplake::demo::school::{School, SchoolOptions};
use daplake::demo::serve::{ServeOptions, Server};
use daplake::internals::api::{FinishedJob, Query};
use daplake::internals::decode::{self, BadRows, DecodeOptions, OutOfRange, TextDecoder};
use daplake::internals::engine::batch_stream;
use daplake::internals::fetch::{Gunzip, ObjectUrls, open, unpacked};
use daplake::internals::model::Mode;
use daplake::internals::reduce::latest_per_key;
use daplake::internals::schema::{Nested, TableSchema, change_schema};
use daplake::ops::{self, Selection, SyncRequest, Target};
use daplake::sink::{ChangeSet, LoadKind, LoadPlan, WriteError};
use daplake::{
    Bookmark, Client, ClientOptions, Credentials, Engine, EngineOptions, Format, Pacing, Result, RetryPolicy, Secret, TableRef,
    Window,
};
use futures::{TryStreamExt, stream};

const RUNS: usize = 3;
const MEMORY_LIMIT: usize = 256 << 20;

/// Measures every part. `DAPLAKE_BENCH_ROWS` sets the number of rows of submissions.
pub(crate) async fn measure_all() -> Result<()> {
    let rows = std::env::var("DAPLAKE_BENCH_ROWS").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000);
    bench(rows).await
}

/// User and system time of this process in seconds; NaN without `/proc`.
fn cpu_seconds() -> f64 {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return f64::NAN };
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|text| text.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (ticks(11) + ticks(12)) / 100.0
}

struct Row {
    wall: f64,
    cpu: f64,
}

/// Median wall and CPU time of several runs.
async fn measure<F: Future<Output = Result<()>>>(mut work: impl FnMut() -> F) -> Result<Row> {
    let (mut walls, mut cpus) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        work().await?;
        walls.push(begun.elapsed().as_secs_f64());
        cpus.push(cpu_seconds() - cpu);
    }
    let median = |figures: &mut Vec<f64>| {
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Ok(Row { wall: median(&mut walls), cpu: median(&mut cpus) })
}

fn print(name: &str, row: &Row, rows: usize, bytes: usize) {
    println!(
        "{name:<34} {:>9.3} {:>9.3} {:>12.0} {:>9.0}",
        row.wall,
        row.cpu,
        rows as f64 / row.wall,
        bytes as f64 / row.wall / 1e6
    );
}

struct Input {
    job: FinishedJob,
    schema: Arc<TableSchema>,
    /// Objects as they are stored.
    packed: Vec<Vec<u8>>,
    /// Unpacked objects (Parquet: as they are).
    objects: Vec<Vec<u8>>,
}

impl Input {
    fn bytes(&self) -> usize {
        self.objects.iter().map(Vec::len).sum()
    }

    fn options(&self, number: usize) -> DecodeOptions {
        DecodeOptions {
            object_number: number as u32,
            object_name: self.job.objects[number].0.clone(),
            batch_rows: 8192,
            batch_bytes: 1 << 20,
            max_page: 1 << 30,
            max_line: 256 << 20,
            out_of_range: OutOfRange::Fail,
            names_keys: true,
            needs_action: false,
            needs_required: true,
            nested: Nested::Typed,
            bad_rows: BadRows::Fail,
        }
    }

    /// Decodes the same lines with arrow-json: key, value and meta as structs.
    fn arrow_json(&self) {
        let fields = |columns: &[daplake::internals::schema::Column]| -> Fields {
            let fields = columns.iter().map(|column| {
                Field::new(&column.name, daplake::internals::schema::arrow_type(&column.column_type, Nested::Typed), true)
            });
            fields.collect()
        };
        let zone = || Some("+00:00".into());
        let meta = vec![
            Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, zone()), true),
            Field::new("action", DataType::Utf8, true),
        ];
        let with_offset = |fields: Fields| -> Fields {
            // arrow-json knows time zones as offsets only.
            let change = |field: &Arc<Field>| match field.data_type() {
                DataType::Timestamp(unit, Some(_)) => {
                    field.as_ref().clone().with_data_type(DataType::Timestamp(*unit, Some("+00:00".into())))
                }
                _ => field.as_ref().clone(),
            };
            fields.iter().map(change).collect()
        };
        let schema = Schema::new(vec![
            Field::new("key", DataType::Struct(with_offset(fields(&self.schema.key))), true),
            Field::new("value", DataType::Struct(with_offset(fields(&self.schema.value))), true),
            Field::new("meta", DataType::Struct(meta.into()), true),
        ]);
        for object in &self.objects {
            let builder = arrow::json::ReaderBuilder::new(Arc::new(schema.clone())).with_batch_size(8192);
            for batch in builder.build(object.as_slice()).expect("a reader") {
                std::hint::black_box(batch.expect("valid JSON"));
            }
        }
    }

    fn batches(&self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        self.decode(|batch| batches.push(batch))?;
        Ok(batches)
    }

    /// Decodes all objects and passes each batch on, so that batches need not be kept.
    fn decode(&self, mut take: impl FnMut(RecordBatch)) -> Result<()> {
        let mut out = Vec::new();
        for (number, bytes) in self.objects.iter().enumerate() {
            if self.job.query.format == Format::Parquet {
                let mut file = tempfile::tempfile().expect("a temporary file");
                std::io::Write::write_all(&mut file, bytes).expect("disk space");
                for batch in decode::parquet(file, self.schema.clone(), self.options(number))? {
                    take(batch?);
                }
                continue;
            }
            let mut decoder = TextDecoder::new(self.schema.clone(), self.job.query.format, self.options(number))?;
            for chunk in bytes.chunks(256 << 10) {
                decoder.push(chunk, &mut out)?;
                out.drain(..).for_each(&mut take);
            }
            decoder.finish(&mut out)?;
            out.drain(..).for_each(&mut take);
        }
        Ok(())
    }
}

async fn input(client: &Client, table: &TableRef, format: Format, window: Window) -> Result<Input> {
    let mode = matches!(format, Format::Csv | Format::Tsv).then_some(Mode::Condensed);
    let job = client.run(&Query { table: table.clone(), format, mode, window }).await?;
    let schema = client.table_schema(table).await?;
    let schema = Arc::new(TableSchema::read(table, schema.version, schema.schema)?);
    let urls = ObjectUrls::new(client, &job);
    let (mut packed, mut objects) = (Vec::new(), Vec::new());
    for id in &job.objects {
        let raw: Vec<Bytes> = open(&urls, id).try_collect().await?;
        let unpacked: Vec<Bytes> = unpacked(stream::iter(raw.clone().into_iter().map(Ok)), format).try_collect().await?;
        packed.push(raw.concat());
        objects.push(unpacked.concat());
    }
    Ok(Input { job, schema, packed, objects })
}

/// Measures each stage alone on one thread, on the same bytes: the lower bounds of a sync.
async fn stages(input: &Input, rows: usize) -> Result<()> {
    let bytes = input.bytes();
    let figures = measure(|| {
        let work = || -> Result<()> {
            let mut out = Vec::with_capacity(1 << 20);
            for object in &input.packed {
                let mut gunzip = Gunzip::default();
                for chunk in object.chunks(128 << 10) {
                    out.clear();
                    gunzip.push(chunk, &mut out)?;
                }
                gunzip.finish()?;
            }
            Ok(())
        };
        std::future::ready(work())
    })
    .await?;
    print("  gunzip alone", &figures, rows, bytes);
    let figures = measure(|| std::future::ready(input.decode(drop))).await?;
    print("  decode alone", &figures, rows, bytes);
    let figures = measure(|| {
        input.arrow_json();
        std::future::ready(Ok(()))
    })
    .await?;
    print("  arrow-json alone, for comparison", &figures, rows, bytes);
    let batches = input.batches()?;
    for level in [1, 3] {
        let figures = measure(|| {
            encode(&batches, level);
            std::future::ready(Ok(()))
        })
        .await?;
        print(&format!("  Parquet alone, zstd {level}"), &figures, rows, bytes);
    }
    Ok(())
}

/// Writes batches with the default Parquet writer: one file, one thread.
fn encode(batches: &[RecordBatch], level: i32) {
    let level = parquet::basic::ZstdLevel::try_new(level).expect("a level");
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_compression(parquet::basic::Compression::ZSTD(level))
        .set_max_row_group_bytes(Some(64 << 20))
        .build();
    let file = tempfile::tempfile().expect("a temporary file");
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(file, batches[0].schema(), Some(properties)).expect("a writer of the schema");
    for batch in batches {
        writer.write(batch).expect("rows of the schema");
    }
    writer.close().expect("disk space");
}

async fn bench(rows: u64) -> Result<()> {
    let table = TableRef::new("canvas", "submissions");
    let school = Arc::new(School::new(SchoolOptions {
        seed: 7,
        rows,
        commits: 1,
        only: Some(vec![table.clone(), TableRef::new("canvas_logs", "web_logs")]),
        ..SchoolOptions::default()
    }));
    let server = Server::start(
        school.clone(),
        ServeOptions { credentials: ("bench#client".into(), "bench-secret".into()), ..ServeOptions::instant() },
    )
    .await?;
    let client = Client::new(ClientOptions {
        base_url: server.url(),
        credentials: Credentials { client_id: "bench#client".into(), client_secret: Secret::new("bench-secret") },
        pacing: Pacing::off(),
        retry: RetryPolicy::default(),
        ca_bundle: None,
        poll: (Duration::from_millis(20), Duration::from_millis(200)),
        idle_timeout: Duration::from_secs(60),
    })?;
    let first_at = school.now();

    println!("{table}, {rows} rows, median of {RUNS}\n");
    println!("{:<34} {:>9} {:>9} {:>12} {:>9}", "part", "wall s", "CPU s", "rows/s", "MB/s");
    let mut snapshot = None;
    for format in Format::ALL {
        let input = input(&client, &table, format, Window::Snapshot).await?;
        let figures = measure(|| std::future::ready(input.decode(drop))).await?;
        print(&format!("decode {format}"), &figures, rows as usize, input.bytes());
        if format == Format::Jsonl {
            snapshot = Some(input);
        }
    }
    let snapshot = snapshot.expect("JSONL is one of the formats");
    println!("stages of {table}, jsonl");
    stages(&snapshot, rows as usize).await?;
    let logs = TableRef::new("canvas_logs", "web_logs");
    let narrow = input(&client, &logs, Format::Jsonl, Window::Snapshot).await?;
    let narrow_rows: usize = narrow.batches()?.iter().map(RecordBatch::num_rows).sum();
    println!("stages of {logs}, jsonl, {narrow_rows} rows");
    stages(&narrow, narrow_rows).await?;
    drop(narrow);
    let batches = snapshot.batches()?;
    let bytes = snapshot.bytes();
    let arrow = change_schema(&snapshot.schema, Nested::Typed);
    let keys = vec!["id".to_owned()];
    let spill = tempfile::tempdir().expect("a temporary folder");
    let engine =
        Engine::new(EngineOptions { memory_limit: MEMORY_LIMIT, temp_dir: Some(spill.path().to_owned()), partitions: 2 })?;

    let figures = measure(|| async {
        let source = batch_stream(arrow.clone(), batches.clone());
        let changes = latest_per_key(&engine, ChangeSet::unreduced(arrow.clone(), &keys, vec![source]))?;
        for mut stream in changes.streams {
            while stream.try_next().await.expect("the stage runs").is_some() {}
        }
        Ok(())
    })
    .await?;
    print("newest change per key (256 MiB)", &figures, rows as usize, bytes);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let plan = |kind, expected| LoadPlan {
        table: table.clone(),
        schema: snapshot.schema.clone(),
        nested: Nested::Typed,
        kind,
        expected,
        run_id: "bench".into(),
        job_id: "bench".into(),
        layout: Default::default(),
        is_snapshot: kind == LoadKind::Replace,
        as_of: daplake::Timestamp::now(),
    };
    let mut run = 0;
    let figures = measure(|| {
        run += 1;
        let (folder, batches, arrow, engine, keys) = (folder.path().join(run.to_string()), &batches, &arrow, &engine, &keys);
        let plan = plan(LoadKind::Replace, None);
        async move {
            let sink = ops::open_sink(&Target::Folder(folder), engine)?;
            let mut load = sink.begin(plan).await?;
            load.write(ChangeSet::unreduced(arrow.clone(), keys, vec![batch_stream(arrow.clone(), batches.clone())]))
                .await
                .map_err(WriteError::into_error)?;
            load.commit(Bookmark { at: first_at, schema_version: 1 }).await.map(drop)
        }
    })
    .await?;
    print("Delta snapshot", &figures, rows as usize, bytes);

    school.advance();
    let increment = input(&client, &table, Format::Jsonl, Window::Increment { since: first_at, until: None }).await?;
    let changes = increment.batches()?;
    let changed: usize = changes.iter().map(RecordBatch::num_rows).sum();
    run = 0;
    let figures = measure(|| {
        run += 1;
        let (folder, changes, arrow, engine, keys) = (folder.path().join(run.to_string()), &changes, &arrow, &engine, &keys);
        let reached = increment.job.bookmark();
        let plan = plan(LoadKind::Merge, Some(Bookmark { at: first_at, schema_version: 1 }));
        async move {
            let sink = ops::open_sink(&Target::Folder(folder), engine)?;
            let source = batch_stream(arrow.clone(), changes.clone());
            let mut load = sink.begin(plan).await?;
            load.write(latest_per_key(engine, ChangeSet::unreduced(arrow.clone(), keys, vec![source]))?)
                .await
                .map_err(WriteError::into_error)?;
            load.commit(Bookmark { schema_version: 1, ..reached }).await.map(drop)
        }
    })
    .await?;
    print(&format!("Delta increment, {changed} changes"), &figures, changed, increment.bytes());

    let figures = measure(|| {
        run += 1;
        let folder = folder.path().join(run.to_string());
        let (client, engine) = (client.clone(), engine.clone());
        async move {
            let sink = ops::open_sink(&Target::Folder(folder), &engine)?;
            let request = SyncRequest::new(client, sink, engine, Selection::all_of("canvas"));
            let report = Box::pin(ops::sync(request)).await?;
            assert!(report.first_error().is_none(), "{report:?}");
            Ok(())
        }
    })
    .await?;
    print("whole sync (server included)", &figures, rows as usize, bytes);
    Ok(())
}
