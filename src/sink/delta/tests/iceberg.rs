//! The Iceberg view of a table shows the same rows as the table. The files of the view are compared here, its rows by other programs: by
//! those of the Python environment in `DAPLAKE_TEST_ICEBERG`, if it is set.

use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use serde_json::{Value, json};

use super::TestLake;
use crate::model::TableRef;
use crate::sink::conformance::{self, Change::Del, Change::Up, at, load, plain};
use crate::sink::delta::iceberg::tests::{self, View, ViewFiles, view};
use crate::sink::delta::log::table_log::TableLog;
use crate::sink::delta::read::row_reader::deleted_rows;
use crate::sink::delta::{DeletionVectors, DeltaOptions, IcebergView, Scope};
use crate::sink::{LoadKind, Sink};

pub(super) fn table() -> TableRef {
    TableRef::new("canvas", "accounts")
}

pub(super) fn with_view(options: DeltaOptions) -> DeltaOptions {
    DeltaOptions { iceberg: IcebergView::On, deletion_vectors: DeletionVectors::On, compact_after: 0, ..options }
}

/// Compares the files of the view with those of the table.
pub(super) async fn check(log: &TableLog) -> TestCaseResult {
    let shown = view(log).await;
    let state = log.existing_state().await.unwrap();
    prop_assert_eq!(shown.version, Some(state.version));
    let mut wanted = ViewFiles::new();
    for file in &state.files {
        let deleted = deleted_rows(&log.store(), file).await.unwrap();
        let partition = file.partition.as_deref().map(|value| match value.parse::<chrono::NaiveDate>() {
            Ok(date) => date.to_epoch_days(),
            Err(_) => value.parse().unwrap(),
        });
        wanted.insert(file.path.to_string(), (file.rows.unwrap() as i64, partition, deleted.iter().collect()));
    }
    prop_assert_eq!(shown.files, wanted);
    let names: Vec<&str> = state.columns.iter().map(|column| column.name.as_str()).collect();
    let current = &shown.metadata["current-schema-id"];
    let schema = shown.metadata["schemas"].as_array().unwrap().iter().find(|schema| schema["schema-id"] == *current).unwrap();
    let fields: Vec<&str> = schema["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap()).collect();
    prop_assert_eq!(fields, names);
    Ok(())
}

pub(super) async fn checked(lake: &TestLake) -> View {
    let log = lake.sink.log(&table()).unwrap();
    check(&log).await.unwrap();
    view(&log).await
}

/// Whether the view shows another version than the table has.
pub(super) async fn is_behind(lake: &TestLake) -> bool {
    tests::is_behind(&lake.sink.log(&table()).unwrap()).await
}

/// Compares all versions of tables, as other programs read them through Iceberg, with the versions as DuckDB reads them through Delta.
#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
pub(super) fn compare_with_readers(folders: &[PathBuf]) {
    let Ok(python) = std::env::var("DAPLAKE_TEST_ICEBERG") else {
        eprintln!("not run: other programs that read Iceberg (set DAPLAKE_TEST_ICEBERG, or use tests/run)");
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/iceberg.py");
    // Arguments of many tables would be too long.
    for folders in folders.chunks(500) {
        let output = Command::new(&python).arg(&script).args(folders).output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{stdout}\n{stderr}");
    }
}

pub(super) fn row(id: i64) -> Value {
    json!({"id": id, "name": format!("n{id}"), "score": 0.5})
}

/// Loads an increment that adds, changes and deletes rows.
pub(super) async fn increment(lake: &TestLake, step: i64) {
    let mut changes: Vec<_> = [step, 1000 + step * 2].map(|id| Up(row(id))).into();
    changes.push(Del(json!({"id": 500 + step})));
    load(&lake.fixture, &plain(&table()), LoadKind::Merge, &changes, at(2 + step)).await.unwrap();
}

pub(super) async fn first_load(lake: &TestLake) {
    let rows: Vec<_> = (0..1000).map(|id| Up(row(id))).collect();
    load(&lake.fixture, &plain(&table()), LoadKind::Replace, &rows, at(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_views_of_all_kinds_of_tables_equal_the_tables() {
    let lake = TestLake::with(64 << 20, |options| DeltaOptions { iceberg: IcebergView::On, ..options });
    conformance::all(&lake.fixture).await;
    let tables = lake.sink.list(None).await.unwrap();
    for table in &tables {
        check(&lake.sink.log(table).unwrap()).await.unwrap();
    }
    compare_with_readers(&tables.iter().map(|table| lake.folder(table)).collect::<Vec<_>>());
}

#[cfg(feature = "demo")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_views_of_tables_in_an_object_store_equal_the_tables() {
    let remote = super::object_store::Remote::with(with_view).await;
    conformance::all(&remote.fixture).await;
    for table in remote.sink.list(None).await.unwrap() {
        let log = remote.sink.log(&table).unwrap();
        check(&log).await.unwrap();
        let location = view(&log).await.metadata["location"].as_str().unwrap().to_owned();
        assert!(location.starts_with("s3://") && location.ends_with(&format!("/{}/{}", table.namespace, table.table)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_reuses_its_manifests_and_merges_small_ones() {
    let lake = TestLake::with(64 << 20, with_view);
    first_load(&lake).await;
    let metadata = lake.folder(&table()).join("metadata");
    let bytes = || std::fs::read_dir(&metadata).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum::<u64>();
    let mut most = 0;
    for step in 0..40 {
        let before = bytes();
        increment(&lake, step).await;
        most = most.max(bytes() - before);
        let shown = checked(&lake).await;
        assert!(shown.manifests.iter().all(|count| *count <= 17), "{:?}", shown.manifests);
        let last = shown.metadata["snapshots"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(last["summary"]["added-data-files"], "1", "other files are not added again");
    }
    assert!(most < 100 << 10, "{most} bytes of metadata for a commit");
    let shown = checked(&lake).await;
    assert_eq!(shown.metadata["snapshots"].as_array().unwrap().len(), 41);
    lake.sink.optimize(&table(), Scope::Compact).await.unwrap();
    let shown = checked(&lake).await;
    let last = shown.metadata["snapshots"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["summary"]["operation"], "replace");
    assert_eq!(shown.files.len(), 1);
    compare_with_readers(&[lake.folder(&table())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_stays_until_it_is_switched_off() {
    let mut lake = TestLake::with(64 << 20, with_view);
    first_load(&lake).await;
    let uuid = checked(&lake).await.metadata["table-uuid"].clone();
    lake.set_options(|options| options.iceberg = IcebergView::Unchanged);
    increment(&lake, 0).await;
    assert_eq!(checked(&lake).await.metadata["table-uuid"], uuid);
    lake.set_options(|options| options.iceberg = IcebergView::Off);
    increment(&lake, 1).await;
    let folder = lake.folder(&table()).join("metadata");
    let left = std::fs::read_dir(&folder).map_or(0, |entries| entries.count());
    assert_eq!(left, 0, "no old version stays readable");
    assert!(!lake.sink.committed(&table()).await.unwrap().unwrap().has_iceberg_view);
    lake.set_options(|options| options.iceberg = IcebergView::On);
    increment(&lake, 2).await;
    checked(&lake).await;
}
