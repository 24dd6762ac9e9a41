//! First loads with repeated keys: the newest row of each key stays, with or without deletion vectors.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{TestLake, only};
use crate::model::TableRef;
use crate::schema::{ColumnType, TableSchema};
use crate::sink::conformance::{Change, Change::Del, Change::Up, at, changes, column, expected, plan, read, schema, unreduced};
use crate::sink::delta::{ChangeDataFeed, DeletionVectors, DeltaOptions};
use crate::sink::{LoadKind, LoadSummary, Sink};

/// A log table, which is partitioned by day.
fn log() -> TableSchema {
    let table = TableRef::new("canvas_logs", "web_logs");
    let value = vec![column("timestamp", ColumnType::Timestamp, true), column("n", ColumnType::Int64, false)];
    schema(&table, 1, vec![column("id", ColumnType::Uuid, true)], value)
}

fn row(key: u64, day: u64, n: usize) -> Value {
    json!({
        "id": format!("00000000-0000-4000-8000-{key:012}"),
        "timestamp": format!("2026-01-{:02}T12:00:00Z", day % 28 + 1),
        "n": n,
    })
}

/// Change batches with these times; positions run over all batches.
fn batches(schema: &TableSchema, rows: &[Vec<(Change, i64)>]) -> Vec<RecordBatch> {
    let mut number = 0;
    let mut batch = |rows: &Vec<(Change, i64)>| {
        let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1)).with_timezone("UTC");
        let all: Vec<Change> = rows.iter().map(|row| row.0.clone()).collect();
        let mut columns: Vec<ArrayRef> = changes(schema, &all).columns().to_vec();
        columns[1] = Arc::new(times);
        columns[2] = Arc::new(UInt64Array::from_iter_values(number..number + rows.len() as u64));
        number += rows.len() as u64;
        RecordBatch::try_new(crate::schema::change_schema(schema, crate::schema::Nested::Typed), columns).unwrap()
    };
    rows.iter().map(&mut batch).collect()
}

async fn first_load(lake: &TestLake, schema: &TableSchema, rows: &[Vec<(Change, i64)>]) -> crate::Result<LoadSummary> {
    let mut opened = lake.sink.begin(plan(&lake.fixture, schema, LoadKind::Replace).await).await?;
    match opened.write(unreduced(schema, batches(schema, rows))).await {
        Ok(()) => opened.commit(at(1)).await,
        Err(error) => {
            opened.abort().await?;
            Err(error.into_error())
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_newest_row_of_each_key_remains(
        rows in prop::collection::vec((0_u64..30, 0_u64..3, 0_i64..4), 1..120),
        size in 1_usize..50,
        vectors in prop::sample::select(vec![DeletionVectors::Off, DeletionVectors::Auto, DeletionVectors::On]),
        feed in any::<bool>(),
        target_file_bytes in prop::sample::select(vec![1_u64, 64 << 20]),
    ) {
        let schema = log();
        let change_data_feed = if feed { ChangeDataFeed::On } else { ChangeDataFeed::Unchanged };
        let lake = TestLake::with(4 << 20, |options| {
            DeltaOptions { deletion_vectors: vectors, change_data_feed, target_file_bytes, ..options }
        });
        let all: Vec<(Change, i64)> =
            rows.iter().enumerate().map(|(n, (key, day, time))| (Up(row(*key, *day, n)), *time)).collect();
        let parts: Vec<Vec<(Change, i64)>> = all.chunks(size).map(<[_]>::to_vec).collect();
        let mut newest: BTreeMap<u64, (i64, Value)> = BTreeMap::new();
        for (n, (key, day, time)) in rows.iter().enumerate() {
            if newest.get(key).is_none_or(|(held, _)| held <= time) {
                newest.insert(*key, (*time, row(*key, *day, n)));
            }
        }
        let newest: Vec<Value> = newest.into_values().map(|(_, row)| row).collect();
        runtime().block_on(async {
            let loaded = first_load(&lake, &schema, &parts).await.unwrap();
            assert_eq!((loaded.upserted, loaded.rows), (newest.len() as u64, Some(newest.len() as u64)));
            assert_eq!(without_day(read(&lake.fixture, &schema.table).await), expected(&schema, &newest));
            // Rewritten files are removed.
            let named = lake.commit(&schema.table, 0).iter().filter(|action| action.get("add").is_some()).count();
            assert_eq!(parquet_files(&lake, &schema.table), named);
            assert_eq!(lake.engine.memory_pool().reserved(), 0);
        });
    }
}

fn without_day(rows: Vec<String>) -> Vec<String> {
    let mut rows: Vec<String> = rows.iter().map(|row| row.split_once("; ").unwrap().1.to_owned()).collect();
    rows.sort();
    rows
}

fn parquet_files(lake: &TestLake, table: &TableRef) -> usize {
    let days = std::fs::read_dir(lake.folder(table)).unwrap().map(|entry| entry.unwrap().path());
    let days = days.filter(|path| path.file_name().unwrap() != "_delta_log" && path.is_dir());
    days.map(|day| std::fs::read_dir(day).unwrap().count()).sum()
}

#[tokio::test]
async fn deletion_vectors_are_used_if_allowed_and_listed_in_the_protocol() {
    for (vectors, with_vector) in [(DeletionVectors::On, 1), (DeletionVectors::Auto, 0), (DeletionVectors::Off, 0)] {
        let lake = TestLake::with(4 << 20, |options| DeltaOptions { deletion_vectors: vectors, ..options });
        let schema = log();
        let rows: Vec<(Change, i64)> = (0..40).map(|n| (Up(row(n % 39, 1, n as usize)), 1)).collect();
        let loaded = first_load(&lake, &schema, &[rows]).await.unwrap();
        assert_eq!(loaded.rows, Some(39));
        let actions = lake.commit(&schema.table, 0);
        let add = only(&actions, "add");
        assert_eq!(usize::from(add.get("deletionVector").is_some_and(|vector| !vector.is_null())), with_vector);
        assert_eq!(only(&actions, "commitInfo")["operationMetrics"]["numDeletionVectorsAdded"], with_vector.to_string());
        let features = &only(&actions, "protocol")["readerFeatures"];
        assert_eq!(features.as_array().is_some_and(|features| features.contains(&json!("deletionVectors"))), with_vector == 1);
        // Later loads work as for any other table.
        let mut opened = lake.sink.begin(plan(&lake.fixture, &schema, LoadKind::Merge).await).await.unwrap();
        let next = changes(&schema, &[Up(row(0, 1, 100)), Up(row(77, 1, 101))]);
        opened.write(crate::sink::conformance::reduced(&schema, vec![next])).await.unwrap();
        assert_eq!(opened.commit(at(2)).await.unwrap().rows, Some(40));
        assert_eq!(read(&lake.fixture, &schema.table).await.len(), 40);
    }
}

#[tokio::test]
async fn a_delete_in_a_first_load_requires_deduplication_before_the_load() {
    let lake = TestLake::with(1 << 20, |options| options);
    let schema = log();
    let with_delete = vec![(Up(row(1, 1, 1)), 1), (Del(json!({"id": row(1, 1, 1)["id"]})), 2)];
    let error = first_load(&lake, &schema, &[with_delete]).await.unwrap_err();
    assert!(error.message().contains("occurs twice"), "{error}");
    assert!(!lake.folder(&schema.table).exists() || parquet_files(&lake, &schema.table) == 0);
}
