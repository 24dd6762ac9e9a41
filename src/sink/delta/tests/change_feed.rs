//! The change data feed, as the Delta crate reads it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::TestLake;
use crate::error::Kind;
use crate::model::TableRef;
use crate::schema::ColumnType;
use crate::sink::conformance::Change::{Del, Up};
use crate::sink::conformance::{Change, TEXT, at, column, expected, load, plain, read, rendered, schema};
use crate::sink::delta::{ChangeDataFeed, DeletionVectors, DeltaOptions, MIN_RETENTION, Scope};
use crate::sink::{LoadKind, Sink};

fn table() -> TableRef {
    TableRef::new("canvas", "accounts")
}

fn with_feed(options: DeltaOptions) -> DeltaOptions {
    DeltaOptions { change_data_feed: ChangeDataFeed::On, compact_after: 0, ..options }
}

/// Rows by kind of change.
pub(super) type FeedRows = BTreeMap<String, Vec<String>>;

/// Columns of the feed that the table does not have.
const ADDED: [&str; 3] = ["_change_type", "_commit_version", "_commit_timestamp"];

/// The feed of one version, as the crate reads it.
pub(super) async fn feed_of(opened: DeltaTable, version: u64) -> FeedRows {
    let session = SessionContext::new();
    let scan = opened.scan_cdf().with_starting_version(version).with_ending_version(version);
    let plan = scan.build(&session.state(), None).await.unwrap();
    let batches = datafusion::physical_plan::collect(plan, session.task_ctx()).await.unwrap();
    let mut rows_by_kind: BTreeMap<String, Vec<RecordBatch>> = BTreeMap::new();
    for batch in batches {
        let kinds =
            arrow::compute::cast(batch.column_by_name("_change_type").unwrap(), &arrow::datatypes::DataType::Utf8).unwrap();
        let kinds = kinds.as_string::<i32>();
        let columns: Vec<usize> =
            (0..batch.num_columns()).filter(|column| !ADDED.contains(&batch.schema().field(*column).name().as_str())).collect();
        for kind in ["insert", "delete", "update_preimage", "update_postimage"] {
            let of_kind = kinds.iter().map(|found| Some(found == Some(kind))).collect();
            let rows = filter_record_batch(&batch, &of_kind).unwrap();
            if rows.num_rows() > 0 {
                rows_by_kind.entry(kind.to_owned()).or_default().push(rows.project(&columns).unwrap());
            }
        }
    }
    rows_by_kind.into_iter().map(|(kind, batches)| (kind, rendered(&batches))).collect()
}

async fn opened(lake: &TestLake) -> DeltaTable {
    deltalake::open_table(lake.url(&table())).await.unwrap()
}

fn row(id: i64, n: i64) -> Value {
    json!({"id": id, "name": format!("n{n}"), "score": if n % 3 == 0 { Value::Null } else { json!(0.5) }})
}

type Changes = BTreeMap<i64, Option<i64>>;

/// The feed that a step should have.
fn expected_feed(before: &BTreeMap<i64, i64>, step: &Changes) -> FeedRows {
    let mut rows: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for (id, after) in step {
        match (before.get(id), after) {
            (None, None) => {}
            (None, Some(after)) => rows.entry("insert").or_default().push(row(*id, *after)),
            (Some(before), None) => rows.entry("delete").or_default().push(row(*id, *before)),
            (Some(before), Some(after)) => {
                rows.entry("update_preimage").or_default().push(row(*id, *before));
                rows.entry("update_postimage").or_default().push(row(*id, *after));
            }
        }
    }
    rows.into_iter().map(|(kind, rows)| (kind.to_owned(), expected(&plain(&table()), &rows))).collect()
}

fn changes_of(step: &Changes) -> Vec<Change> {
    step.iter()
        .map(|(id, n)| match n {
            Some(n) => Up(row(*id, *n)),
            None => Del(json!({"id": id})),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    #[test]
    fn the_feed_has_the_changes_of_each_commit(
        first in prop::collection::btree_map(0..300_i64, (0..100_i64).prop_map(Some), 50..200),
        steps in prop::collection::vec(
            prop::collection::btree_map(0..400_i64, prop::option::weighted(0.7, 0..100_i64), 1..40),
            1..5,
        ),
        target_file_bytes in prop_oneof![Just(3_000_u64), Just(128 << 20)],
        deletion_vectors in prop_oneof![Just(DeletionVectors::On), Just(DeletionVectors::Off)],
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let change = |options| DeltaOptions { target_file_bytes, deletion_vectors, ..with_feed(options) };
            let lake = TestLake::with(64 << 20, change);
            let mut kept: BTreeMap<i64, i64> = BTreeMap::new();
            for (version, step) in (0..).zip(std::iter::once(&first).chain(&steps)) {
                load(&lake.fixture, &plain(&table()), LoadKind::Merge, &changes_of(step), at(1 + version as i64)).await.unwrap();
                prop_assert_eq!(feed_of(opened(&lake).await, version).await, expected_feed(&kept, step), "version {}", version);
                for (id, n) in step {
                    match n {
                        Some(n) => kept.insert(*id, *n),
                        None => kept.remove(id),
                    };
                }
                let rows: Vec<Value> = kept.iter().map(|(id, n)| row(*id, *n)).collect();
                prop_assert_eq!(read(&lake.fixture, &table()).await, expected(&plain(&table()), &rows));
            }
            prop_assert_eq!(lake.engine.memory_pool().reserved(), 0);
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_can_be_switched_on_and_off() {
    let lake = TestLake::with(64 << 20, |options| DeltaOptions { deletion_vectors: DeletionVectors::Off, ..options });
    let schema = plain(&table());
    let with = |switch| {
        let options = DeltaOptions { change_data_feed: switch, ..lake.sink.options.clone() };
        super::fixture(&lake.root, options)
    };
    let (before, on, off) = (with(ChangeDataFeed::Unchanged), with(ChangeDataFeed::On), with(ChangeDataFeed::Off));
    let protocol = async || lake.sink.status(&table()).await.unwrap().unwrap().protocol.unwrap();
    let cdc = |version: u64| lake.commit(&table(), version).iter().filter(|action| action.get("cdc").is_some()).count();
    load(&before, &schema, LoadKind::Replace, &[Up(row(1, 1)), Up(row(2, 2)), Up(row(3, 3))], at(1)).await.unwrap();
    assert_eq!(protocol().await, "1/2");
    load(&on, &schema, LoadKind::Merge, &[Up(row(4, 4)), Up(row(1, 5))], at(2)).await.unwrap();
    assert_eq!(protocol().await, "1/4");
    // The feed stays on if the option is omitted.
    load(&before, &schema, LoadKind::Merge, &[Del(json!({"id": 2}))], at(3)).await.unwrap();
    assert_eq!((cdc(1), cdc(2)), (1, 1));
    let deleted = BTreeMap::from([("delete".to_owned(), expected(&schema, &[row(2, 2)]))]);
    assert_eq!(feed_of(opened(&lake).await, 2).await, deleted);
    // A compaction changes no rows.
    lake.sink.optimize(&table(), Scope::SortByKey).await.unwrap();
    assert_eq!(feed_of(opened(&lake).await, 3).await, BTreeMap::new());
    // A replacement deletes all old rows and inserts all new ones; the data files show that without a feed.
    load(&before, &schema, LoadKind::Replace, &[Up(row(9, 9))], at(4)).await.unwrap();
    assert_eq!(cdc(4), 0);
    let gone = expected(&schema, &[row(1, 5), row(3, 3), row(4, 4)]);
    let replaced = BTreeMap::from([("delete".to_owned(), gone), ("insert".to_owned(), expected(&schema, &[row(9, 9)]))]);
    assert_eq!(feed_of(opened(&lake).await, 4).await, replaced);
    load(&off, &schema, LoadKind::Merge, &[Up(row(9, 1))], at(5)).await.unwrap();
    assert_eq!(cdc(5), 0);

    let reserved = schema_with("_commit_version");
    let error = load(&on, &reserved, LoadKind::Merge, &[Up(row(9, 1))], at(6)).await.unwrap_err();
    assert_eq!((error.kind(), error.get("column")), (Kind::Schema, Some("_commit_version")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_rewritten_for_a_wider_column_are_not_in_the_feed() {
    let lake = TestLake::with(64 << 20, with_feed);
    let of = |version: i64, kind: ColumnType| {
        schema(&table(), version, vec![column("id", ColumnType::Int64, true)], vec![column("n", kind, false)])
    };
    let row = |id: i64| json!({"id": id, "n": id});
    load(&lake.fixture, &of(1, ColumnType::Int32), LoadKind::Replace, &[Up(row(1)), Up(row(2))], at(1)).await.unwrap();
    let wider = of(2, ColumnType::Int64);
    load(&lake.fixture, &wider, LoadKind::Merge, &[Up(row(3))], at(2)).await.unwrap();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&wider, &[row(1), row(2), row(3)]));
    let inserted = BTreeMap::from([("insert".to_owned(), expected(&wider, &[row(3)]))]);
    assert_eq!(feed_of(opened(&lake).await, 1).await, inserted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_over_deletion_vectors_feeds_only_live_rows() {
    let lake = TestLake::with(64 << 20, |options| DeltaOptions { deletion_vectors: DeletionVectors::On, ..with_feed(options) });
    let schema = plain(&table());
    let rows: Vec<Change> = (1..6).map(|id| Up(row(id, id))).collect();
    load(&lake.fixture, &schema, LoadKind::Replace, &rows, at(1)).await.unwrap();
    load(&lake.fixture, &schema, LoadKind::Merge, &[Del(json!({"id": 4}))], at(2)).await.unwrap();
    load(&lake.fixture, &schema, LoadKind::Replace, &[Up(row(9, 9))], at(3)).await.unwrap();
    let gone = expected(&schema, &[1, 2, 3, 5].map(|id| row(id, id)));
    let replaced = BTreeMap::from([("delete".to_owned(), gone), ("insert".to_owned(), expected(&schema, &[row(9, 9)]))]);
    assert_eq!(feed_of(opened(&lake).await, 2).await, replaced);
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &[row(9, 9)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_removes_the_feed_of_expired_versions() {
    let lake =
        TestLake::with(64 << 20, |options| DeltaOptions { deletion_vectors: DeletionVectors::Off, ..with_feed(options) });
    let schema = plain(&table());
    load(&lake.fixture, &schema, LoadKind::Replace, &[Up(row(1, 1)), Up(row(2, 2))], at(1)).await.unwrap();
    load(&lake.fixture, &schema, LoadKind::Merge, &[Up(row(1, 5))], at(2)).await.unwrap();
    let folder = lake.folder(&table());
    let files = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder.join("_change_data")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    assert_eq!(files().len(), 1);
    let age = |path: &Path| {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::now() - MIN_RETENTION - Duration::from_secs(3600)).unwrap();
    };
    files().iter().for_each(|file| age(file));
    assert_eq!(lake.sink.vacuum(&table(), MIN_RETENTION).await.unwrap().files, [""; 0], "a recent version needs it");
    for version in 0..=1_u64 {
        age(&folder.join(format!("_delta_log/{version:020}.json")));
    }
    let removed = lake.sink.vacuum(&table(), MIN_RETENTION).await.unwrap().files;
    assert!(removed.len() == 1 && removed[0].starts_with("_change_data/"), "{removed:?}");
    assert_eq!(files().len(), 0);
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &[row(1, 5), row(2, 2)]));
}

fn schema_with(name: &str) -> crate::schema::TableSchema {
    let value = vec![column("name", TEXT, false), column("score", ColumnType::Float64, false), column(name, TEXT, false)];
    schema(&table(), 2, vec![column("id", ColumnType::Int64, true)], value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_changes_columns_over_deletion_vectors_feeds_only_live_rows() {
    let of = |version: i64, kind: ColumnType, more: bool| {
        let mut value = vec![column("n", kind, true)];
        value.extend(more.then(|| column("late", TEXT, true)));
        schema(&table(), version, vec![column("id", ColumnType::Int64, true)], value)
    };
    let counts = |rows: &FeedRows| rows.iter().map(|(kind, rows)| (kind.clone(), rows.len())).collect::<Vec<_>>();
    for (kind, more) in [(ColumnType::Int64, false), (TEXT, false), (ColumnType::Int32, true), (ColumnType::Boolean, true)] {
        let lake =
            TestLake::with(64 << 20, |options| DeltaOptions { deletion_vectors: DeletionVectors::On, ..with_feed(options) });
        let old = of(1, ColumnType::Int32, false);
        let rows: Vec<Change> = (0..20).map(|id| Up(json!({"id": id, "n": id}))).collect();
        load(&lake.fixture, &old, LoadKind::Replace, &rows, at(1)).await.unwrap();
        load(&lake.fixture, &old, LoadKind::Merge, &[Del(json!({"id": 4}))], at(2)).await.unwrap();
        let new = of(2, kind.clone(), more);
        let value = |id: i64| match kind {
            TEXT => json!(format!("t{id}")),
            ColumnType::Boolean => json!(id % 2 == 0),
            _ => json!(id),
        };
        let row = |id: i64| match more {
            true => json!({"id": id, "n": value(id), "late": "x"}),
            false => json!({"id": id, "n": value(id)}),
        };
        let rows: Vec<Value> = (0..20).filter(|id| *id != 4).map(row).collect();
        let changes: Vec<Change> = rows.iter().cloned().map(Up).collect();
        load(&lake.fixture, &new, LoadKind::Replace, &changes, at(3)).await.unwrap();
        let feed = feed_of(opened(&lake).await, 2).await;
        assert_eq!(counts(&feed), [("delete".to_owned(), 19), ("insert".to_owned(), 19)], "{kind:?} {more}");
        assert_eq!(read(&lake.fixture, &table()).await, expected(&new, &rows));
    }
}
