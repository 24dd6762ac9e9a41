//! The files of a table: log entries, properties, data files and their statistics; nothing is left behind.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, RecordBatchReader};
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionContext;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{TestLake, only};
use crate::error::Kind;
use crate::model::{Bookmark, TableRef};
use crate::schema::{ColumnType, TableSchema};
use crate::sink::conformance::{Change::Del, Change::Up, TEXT, at, changes, column, load, plain, plan, reduced, schema};
use crate::sink::delta::{DeletionVectors, DeltaOptions, DeltaSink};
use crate::sink::{LoadKind, Sink};
use crate::store::StoreOptions;

fn table() -> TableRef {
    TableRef::new("canvas", "accounts")
}

#[tokio::test]
async fn one_commit_holds_rows_schema_and_bookmark() {
    let lake = TestLake::new();
    let mut schema = plain(&table());
    schema.value[0].description = Some("Its \"name\".".into());
    let reached = Bookmark { schema_version: 7, ..at(3) };
    load(&lake.fixture, &schema, LoadKind::Replace, &[Up(json!({"id": 1, "name": "a"}))], reached).await.unwrap();

    let actions = lake.commit(&table(), 0);
    assert_eq!(only(&actions, "protocol"), &json!({"minReaderVersion": 1, "minWriterVersion": 2}));
    let metadata = only(&actions, "metaData");
    assert_eq!(metadata["description"], "A table.");
    let configuration = &metadata["configuration"];
    assert_eq!(configuration["daplake.table"], "canvas.accounts");
    assert_eq!(configuration["daplake.key"], "[\"id\"]");
    assert_eq!(configuration["daplake.schemaVersion"], "7");
    assert_eq!(configuration["delta.checkpointInterval"], "10");
    let fields: Value = serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
    assert_eq!(fields["fields"][0], json!({"name": "id", "type": "long", "nullable": false, "metadata": {}}));
    assert_eq!(fields["fields"][1]["metadata"]["comment"], "Its \"name\".");
    let txn = only(&actions, "txn");
    assert_eq!((&txn["appId"], &txn["version"]), (&json!("daplake/canvas.accounts"), &json!(3_000_001)));
    let info = only(&actions, "commitInfo");
    assert_eq!((&info["daplakeRunId"], &info["daplakeJobId"]), (&json!("run"), &json!("job")));
    assert_eq!(info["operationMetrics"]["numUpsertedRows"], "1");
    let add = only(&actions, "add");
    assert_eq!(lake.data_files(&table()), [add["path"].as_str().unwrap()]);
    assert_eq!(
        fs::metadata(lake.folder(&table()).join(add["path"].as_str().unwrap())).unwrap().len(),
        add["size"].as_u64().unwrap()
    );

    // Only the bookmark changes: no metadata, no files.
    load(&lake.fixture, &schema, LoadKind::Merge, &[], Bookmark { schema_version: 7, ..at(4) }).await.unwrap();
    let kinds: Vec<String> = lake
        .commit(&table(), 1)
        .iter()
        .flat_map(|action| action.as_object().unwrap().keys().cloned().collect::<Vec<_>>())
        .collect();
    assert_eq!(kinds, ["commitInfo", "txn"]);

    // Comments and descriptions are updated.
    schema.description = Some("Another text.".into());
    schema.value[0].description = None;
    let loaded = load(&lake.fixture, &schema, LoadKind::Merge, &[], Bookmark { schema_version: 8, ..at(5) }).await.unwrap();
    assert_eq!(loaded.schema_changes, [] as [&str; 0]);
    let metadata = only(&lake.commit(&table(), 2), "metaData").clone();
    assert_eq!(metadata["description"], "Another text.");
    assert!(!metadata["schemaString"].as_str().unwrap().contains("comment"));
    let status = lake.sink.status(&table()).await.unwrap().unwrap();
    assert_eq!((status.version, status.rows, status.files), (Some(2), Some(1), Some(1)));
    assert_eq!(status.bytes, add["size"].as_u64());
    let age = crate::model::Timestamp::now().micros() - status.last_commit.unwrap().micros();
    assert!((0..60_000_000).contains(&age));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uncommitted_load_leaves_no_files() {
    let lake = TestLake::new();
    let schema = plain(&table());
    let rows = || reduced(&schema, vec![changes(&schema, &[Up(json!({"id": 1, "name": "a"}))])]);
    for kind in [LoadKind::Replace, LoadKind::Merge] {
        for abort in [true, false] {
            let mut opened = lake.sink.begin(plan(&lake.fixture, &schema, kind).await).await.unwrap();
            opened.write(rows()).await.unwrap();
            assert_eq!(lake.data_files(&table()).len(), 1);
            if abort {
                opened.abort().await.unwrap()
            } else {
                drop(opened)
            }
            assert!(!lake.root.join("canvas").exists(), "not even a folder");
        }
    }
    load(&lake.fixture, &schema, LoadKind::Replace, &[Up(json!({"id": 5, "name": "e"}))], at(1)).await.unwrap();
    let before = lake.data_files(&table());
    // A conflict removes its files.
    let mut late = lake.sink.begin(plan(&lake.fixture, &schema, LoadKind::Merge).await).await.unwrap();
    late.write(rows()).await.unwrap();
    load(&lake.fixture, &schema, LoadKind::Merge, &[], at(2)).await.unwrap();
    assert_eq!(late.commit(at(3)).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(lake.data_files(&table()), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_is_dropped_while_writing_leaves_no_files() {
    let lake = TestLake::new();
    let schema = plain(&table());
    for kind in [LoadKind::Replace, LoadKind::Merge] {
        let mut opened = lake.sink.begin(plan(&lake.fixture, &schema, kind).await).await.unwrap();
        let rows = changes(&schema, &[Up(json!({"id": 1, "name": "a"}))]);
        let items = futures::StreamExt::chain(futures::stream::iter([Ok(rows)]), futures::stream::pending());
        let mut set = reduced(&schema, Vec::new());
        set.streams = vec![Box::pin(RecordBatchStreamAdapter::new(set.schema.clone(), items))];
        tokio::select! {
            result = opened.write(set) => panic!("it cannot end: {result:?}"),
            () = until(|| !lake.data_files(&table()).is_empty()) => {}
        }
        drop(opened);
        // Tasks of the load end with a delay.
        until(|| lake.data_files(&table()).is_empty()).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), waiting).await.expect("the condition was never met");
}

#[tokio::test]
async fn a_check_leaves_nothing_and_reports_faults() {
    let lake = TestLake::new();
    lake.sink.check().await.unwrap();
    assert!(!lake.root.exists(), "a missing root is not created");
    fs::create_dir_all(&lake.root).unwrap();
    lake.sink.check().await.unwrap();
    assert_eq!(fs::read_dir(&lake.root).unwrap().count(), 0);

    let file = lake.root.join("file");
    fs::write(&file, "x").unwrap();
    for bad in [file.clone(), file.join("below")] {
        let sink = DeltaSink::at_path(&bad, DeltaOptions::new(lake.engine.clone())).unwrap();
        let error = sink.check().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Target, "{error:?}");
        let error = sink.begin(plan(&lake.fixture, &plain(&table()), LoadKind::Replace).await).await;
        let error = match error {
            Err(error) => error,
            Ok(mut load) => load
                .write(reduced(&plain(&table()), vec![changes(&plain(&table()), &[Up(json!({"id": 1, "name": "a"}))])]))
                .await
                .unwrap_err()
                .into_error(),
        };
        assert_eq!(error.kind(), Kind::Target, "{error:?}");
    }

    let locked = lake.root.join("locked");
    fs::create_dir(&locked).unwrap();
    let mut permissions = fs::metadata(&locked).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&locked, permissions).unwrap();
    // Root can write nevertheless.
    if fs::write(locked.join("probe"), "").is_err() {
        let sink = DeltaSink::at_path(&locked, DeltaOptions::new(lake.engine.clone())).unwrap();
        let error = sink.check().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Target);
        assert!(error.hint_text().is_some());
    }
}

#[tokio::test]
async fn names_of_the_service_cannot_escape_the_target() {
    let lake = TestLake::new();
    for bad in [TableRef::new("canvas", "../x"), TableRef::new("..", "x"), TableRef::new("a/b", "x"), TableRef::new("a", "")] {
        assert_eq!(lake.sink.committed(&bad).await.unwrap_err().kind(), Kind::Target);
        assert_eq!(lake.sink.status(&bad).await.unwrap_err().kind(), Kind::Target);
        assert_eq!(lake.sink.provider(&bad).await.unwrap_err().kind(), Kind::Target);
    }
    let elsewhere = url::Url::parse("ftp://bucket/x").unwrap();
    let error = DeltaSink::open(&elsewhere, &StoreOptions::default(), DeltaOptions::new(lake.engine.clone())).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    let here = url::Url::from_directory_path(&lake.root).unwrap();
    assert_eq!(
        DeltaSink::open(&here, &StoreOptions::default(), DeltaOptions::new(lake.engine.clone())).unwrap().location(),
        lake.sink.location()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_can_be_queried_by_name() {
    let lake = TestLake::new();
    for (name, rows) in [("accounts", 2), ("users", 3)] {
        let schema = plain(&TableRef::new("canvas", name));
        let rows: Vec<_> = (0..rows).map(|id| Up(json!({"id": id, "name": "n", "score": 1.0}))).collect();
        load(&lake.fixture, &schema, LoadKind::Replace, &rows, at(1)).await.unwrap();
    }
    let session = lake.engine.session();
    let registered = lake.sink.register(&session, None).await.unwrap();
    assert_eq!(registered, [TableRef::new("canvas", "accounts"), TableRef::new("canvas", "users")]);
    let sql =
        "SELECT count(*) AS n, sum(a.id) AS s FROM canvas.accounts a JOIN canvas.users u ON a.id = u.id WHERE u.score > 0.5";
    let batches = session.sql(sql).await.unwrap().collect().await.unwrap();
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 2);
    assert_eq!(batches[0].column(1).as_primitive::<Int64Type>().value(0), 1);
    let absent = lake.sink.provider(&TableRef::new("canvas", "nothing")).await.unwrap_err();
    assert_eq!(absent.kind(), Kind::NotFound);
    let plain_session = SessionContext::new();
    lake.sink.register(&plain_session, Some(&crate::model::Namespace::new("canvas"))).await.unwrap();
    plain_session.table("canvas.users").await.unwrap().count().await.unwrap();
}

/// Rows of random sizes, so that files end at random rows.
fn wide_schema() -> TableSchema {
    let value = vec![
        column("text", TEXT, false),
        column("number", ColumnType::Float64, false),
        column("moment", ColumnType::Timestamp, false),
        column("nested", ColumnType::Struct(vec![column("inner", ColumnType::Int64, false)]), false),
    ];
    schema(&table(), 1, vec![column("id", ColumnType::Int64, true)], value)
}

fn any_value() -> impl Strategy<Value = Value> {
    let text = prop::option::of("[a-c\u{7f}é~]{0,60}");
    let number = prop::option::of(-1.0e6..1.0e6);
    let moment = prop::option::of(0_i64..100_000_000_000);
    let inner = prop::option::of(prop::option::of(any::<i64>()));
    (text, number, moment, inner).prop_map(|(text, number, moment, inner)| {
        let moment = moment.map(|micros| crate::model::Timestamp::from_micros(micros).to_string());
        let nested = inner.map(|inner| json!({"inner": inner}));
        json!({"text": text, "number": number, "moment": moment, "nested": nested})
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn statistics_match_the_values_of_every_file(values in prop::collection::vec(any_value(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let lake = TestLake::with(1 << 20, |options| DeltaOptions { target_file_bytes: 3_000, ..options });
        let schema = wide_schema();
        let rows: Vec<_> = values.iter().enumerate().map(|(id, value)| {
            let mut row = value.clone();
            row["id"] = json!(id as i64 * 7 - 100);
            row
        }).collect();
        runtime.block_on(async {
            let batches: Vec<RecordBatch> = rows.chunks(10).map(|rows| changes(&schema, &rows.iter().cloned().map(Up).collect::<Vec<_>>())).collect();
            let mut opened = lake.sink.begin(plan(&lake.fixture, &schema, LoadKind::Replace).await).await.unwrap();
            opened.write(reduced(&schema, batches)).await.unwrap();
            opened.commit(at(1)).await.unwrap();
            // Some files are rewritten.
            load(&lake.fixture, &schema, LoadKind::Merge, &[Del(json!({"id": -100})), Up(rows[rows.len() / 2].clone())], at(2)).await.unwrap();
        });
        let mut checked = 0;
        for version in 0..2 {
            for add in lake.commit(&table(), version).iter().filter_map(|action| action.get("add")) {
                let file = fs::File::open(lake.folder(&table()).join(add["path"].as_str().unwrap())).unwrap();
                let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(100_000).build().unwrap();
                let batch = arrow::compute::concat_batches(&reader.schema(), &reader.collect::<Result<Vec<_>, _>>().unwrap()).unwrap();
                let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
                check_stats(&batch, &stats, &bounds_of(add["stats"].as_str().unwrap()))?;
                checked += 1;
            }
        }
        prop_assert!(checked >= 1);
    }
}

/// The texts of both bounds of `number`: serde_json reads floats inexactly.
fn bounds_of(stats: &str) -> [Option<f64>; 2] {
    type Members = BTreeMap<String, Box<RawValue>>;
    let stats: Members = serde_json::from_str(stats).unwrap();
    ["minValues", "maxValues"].map(|part| {
        let part: Members = serde_json::from_str(stats[part].get()).unwrap();
        part.get("number").map(|number| number.get().parse().unwrap())
    })
}

fn check_stats(batch: &RecordBatch, stats: &Value, bounds: &[Option<f64>; 2]) -> Result<(), TestCaseError> {
    prop_assert_eq!(&stats["numRecords"], &json!(batch.num_rows()));
    let nested = batch.column_by_name("nested").unwrap().as_struct();
    let inner = nested.column_by_name("inner").unwrap();
    let inner_nulls = (0..batch.num_rows()).filter(|row| nested.is_null(*row) || inner.is_null(*row)).count();
    let nulls: BTreeMap<&str, Value> = ["id", "text", "number", "moment"]
        .into_iter()
        .map(|name| (name, json!(batch.column_by_name(name).unwrap().null_count())))
        .chain([("nested", json!({"inner": inner_nulls}))])
        .collect();
    prop_assert_eq!(&stats["nullCount"], &json!(nulls));
    let (smallest, greatest) = (&stats["minValues"], &stats["maxValues"]);

    let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
    prop_assert_eq!((smallest["id"].as_i64(), greatest["id"].as_i64()), (min(ids), max(ids)));
    let numbers = batch.column_by_name("number").unwrap().as_primitive::<Float64Type>();
    prop_assert_eq!(bounds, &[min(numbers), max(numbers)]);
    let texts = batch.column_by_name("text").unwrap().as_string::<i32>();
    match (min_string(texts), max_string(texts)) {
        (Some(first), Some(last)) => {
            let (low, high) = (smallest["text"].as_str().unwrap(), greatest["text"].as_str().unwrap());
            prop_assert!(low <= first && first.starts_with(low) && low.chars().count() <= 32);
            prop_assert!(high >= last && high.chars().count() <= 33);
            prop_assert!(last.chars().count() > 32 || high == last, "exact if not truncated");
        }
        _ => prop_assert!(smallest.get("text").is_none() && greatest.get("text").is_none()),
    }
    let timestamps = batch.column_by_name("moment").unwrap().as_primitive::<TimestampMicrosecondType>();
    if let (Some(first), Some(last)) = (min(timestamps), max(timestamps)) {
        let parse = |value: &Value| value.as_str().unwrap().parse::<crate::model::Timestamp>().unwrap().micros();
        prop_assert_eq!(parse(&smallest["moment"]), first / 1000 * 1000);
        prop_assert_eq!(parse(&greatest["moment"]), (last + 999) / 1000 * 1000);
    }
    let present: Vec<i64> = (0..batch.num_rows())
        .filter(|row| nested.is_valid(*row) && inner.is_valid(*row))
        .map(|row| inner.as_primitive::<Int64Type>().value(row))
        .collect();
    prop_assert_eq!(smallest["nested"]["inner"].as_i64(), present.iter().min().copied());
    prop_assert_eq!(greatest["nested"]["inner"].as_i64(), present.iter().max().copied());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wide_rows_stay_within_the_memory_limit() {
    let lake = TestLake::with(8 << 20, |options| options);
    let schema = plain(&table());
    // 24 MB of text that hardly compresses, in batches of 2 MB, from concurrent streams.
    let peak = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut set = reduced(&schema, Vec::new());
    set.streams = (0..3_u64)
        .map(|stream| {
            let (schema, pool, peak) = (schema.clone(), Arc::clone(lake.engine.memory_pool()), Arc::clone(&peak));
            let batches = (0..4_u64).map(move |number| {
                peak.fetch_max(pool.reserved(), std::sync::atomic::Ordering::Relaxed);
                let rows: Vec<_> = (0..32_u64)
                    .map(|row| {
                        let id = (stream * 4 + number) * 32 + row;
                        let mut state = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
                        let name: String = (0..64 * 1024)
                            .map(|_| {
                                state ^= state << 13;
                                state ^= state >> 7;
                                state ^= state << 17;
                                char::from(b' ' + (state % 95) as u8)
                            })
                            .collect();
                        Up(json!({"id": id, "name": name}))
                    })
                    .collect();
                Ok(changes(&schema, &rows))
            });
            let target = crate::schema::change_schema(&plain(&table()), Default::default());
            Box::pin(RecordBatchStreamAdapter::new(target, futures::stream::iter(batches)))
                as datafusion::execution::SendableRecordBatchStream
        })
        .collect();
    let mut opened = lake.sink.begin(plan(&lake.fixture, &schema, LoadKind::Replace).await).await.unwrap();
    opened.write(set).await.unwrap();
    let loaded = opened.commit(at(1)).await.unwrap();
    assert_eq!((loaded.upserted, loaded.rows), (384, Some(384)));
    let peak = peak.load(std::sync::atomic::Ordering::Relaxed);
    assert!(peak > 0 && peak < 8 << 20, "{peak}");
    assert_eq!(lake.engine.memory_pool().reserved(), 0);
    for add in lake.commit(&table(), 0).iter().filter_map(|action| action.get("add")) {
        let file = fs::File::open(lake.folder(&table()).join(add["path"].as_str().unwrap())).unwrap();
        let metadata = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().metadata().clone();
        let largest = metadata.row_groups().iter().map(|group| group.compressed_size()).max().unwrap();
        assert!(largest < 2 << 20, "row groups are bounded by bytes: {largest}");
    }
}

/// A large table with integer or string keys, sorted by key.
async fn large(lake: &TestLake, schema: &TableSchema, key: impl Fn(i64) -> Value) {
    let batches = (0..12_i64)
        .map(|batch| {
            let rows: Vec<_> = (0..10_000).map(|row| Up(json!({"key": key(batch * 10_000 + row), "n": row}))).collect();
            changes(schema, &rows)
        })
        .collect();
    let mut opened = lake.sink.begin(plan(&lake.fixture, schema, LoadKind::Replace).await).await.unwrap();
    opened.write(reduced(schema, batches)).await.unwrap();
    opened.commit(at(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_keys_are_found_among_many() {
    let whole = column("key", ColumnType::Int64, true);
    let text = column("key", TEXT, true);
    // Strings in random order, like ids of other systems.
    let spread = |row: i64| json!(format!("{:016x}", (row as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let number = |row: i64| json!(row * 3);
    let keys: [(_, &(dyn Fn(i64) -> Value + Sync)); 2] = [(whole, &number), (text, &spread)];
    for (column_of_key, key) in keys {
        let lake = TestLake::with(256 << 20, |options| DeltaOptions { deletion_vectors: DeletionVectors::On, ..options });
        let schema = schema(&table(), 1, vec![column_of_key], vec![column("n", ColumnType::Int64, false)]);
        large(&lake, &schema, key).await;
        let absent = if key(0).is_i64() { json!(100_001) } else { json!("absent") };
        let gone = [0, 59_999, 60_000, 119_999];
        let mut changed: Vec<_> = gone.iter().map(|row| Del(json!({"key": key(*row)}))).collect();
        changed.push(Del(json!({"key": absent})));
        let loaded = load(&lake.fixture, &schema, LoadKind::Merge, &changed, at(2)).await.unwrap();
        assert_eq!((loaded.deleted, loaded.rows), (4, Some(119_996)));
        let log = lake.sink.log(&table()).unwrap();
        let state = log.state().await.unwrap().unwrap();
        let [file] = &state.files[..] else { panic!("one file") };
        let deleted = crate::sink::delta::read::row_reader::deleted_rows(&log.store(), file).await.unwrap();
        assert_eq!(deleted.iter().map(i64::from).collect::<Vec<_>>(), gone);
        let opened = fs::File::open(lake.folder(&table()).join(file.path.as_ref())).unwrap();
        let metadata = ParquetRecordBatchReaderBuilder::try_new(opened).unwrap().metadata().clone();
        let keys = metadata.row_group(0).column(0);
        assert!(keys.column_index_offset().is_some(), "keys have a page index");
        assert_eq!(keys.bloom_filter_offset().is_some(), !key(0).is_i64(), "string keys have a Bloom filter");
        if key(0).is_i64() {
            assert!(keys.compressed_size() < 120_000, "differences take next to nothing: {}", keys.compressed_size());
        }
    }
}
