//! The Iceberg view after interrupted runs, changes by other programs, and vacuum.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::TestLake;
use super::iceberg::{checked, compare_with_readers, first_load, increment, is_behind, table, with_view};
use super::store_faults::{Fault, FaultyStore};
use crate::sink::LakeFeatures;
use crate::sink::delta::{DeltaOptions, IcebergView, MIN_RETENTION};

const NEVER: i64 = i64::MAX / 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_killed_between_the_two_commits_is_completed_by_the_next() {
    let mut lake = TestLake::with(64 << 20, with_view);
    let left = Arc::new(AtomicI64::new(NEVER));
    FaultyStore::before(&mut lake, Fault::Killed(Arc::clone(&left)));
    first_load(&lake).await;
    let mut killed = 0;
    for step in 0..50 {
        left.store(step % 7, Ordering::Relaxed);
        increment(&lake, step).await;
        let was_killed = left.swap(NEVER, Ordering::Relaxed) < 0;
        let lags = is_behind(&lake).await;
        assert_eq!(lags, was_killed, "step {step}");
        killed += usize::from(was_killed);
        // The next run either finds no changes or loads some.
        if was_killed && step % 2 == 0 {
            lake.sink.publish_iceberg(&table()).await.unwrap();
        }
        if !was_killed || step % 2 == 0 {
            checked(&lake).await;
        }
    }
    assert!(killed >= 30, "{killed}");
    lake.sink.publish_iceberg(&table()).await.unwrap();
    let shown = checked(&lake).await;
    assert_eq!(shown.metadata["snapshots"].as_array().unwrap().len(), 51, "every version has its snapshot");
    compare_with_readers(&[lake.folder(&table())]);
}

fn newest_metadata(lake: &TestLake) -> std::path::PathBuf {
    let folder = lake.folder(&table()).join("metadata");
    let number = std::fs::read_to_string(folder.join("version-hint.text")).unwrap();
    folder.join(format!("v{number}.metadata.json"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_another_program_is_replaced() {
    let lake = TestLake::with(64 << 20, with_view);
    first_load(&lake).await;
    increment(&lake, 0).await;
    // The other program commits a snapshot without files.
    let present = newest_metadata(&lake);
    let mut metadata: Value = serde_json::from_slice(&std::fs::read(&present).unwrap()).unwrap();
    let uuid = metadata["table-uuid"].clone();
    metadata["snapshots"][1]["summary"] = serde_json::json!({"operation": "delete"});
    let name = present.file_name().unwrap().to_str().unwrap();
    let number: u64 = name[1..].split('.').next().unwrap().parse().unwrap();
    let folder = lake.folder(&table()).join("metadata");
    std::fs::write(folder.join(format!("v{}.metadata.json", number + 1)), metadata.to_string()).unwrap();
    assert!(is_behind(&lake).await);
    increment(&lake, 1).await;
    let shown = checked(&lake).await;
    assert_eq!(shown.metadata["table-uuid"], uuid);
    assert_eq!(shown.metadata["snapshots"].as_array().unwrap().len(), 1);
    // A damaged or missing file is written again, too.
    std::fs::write(newest_metadata(&lake), "{").unwrap();
    increment(&lake, 2).await;
    checked(&lake).await;
    std::fs::remove_file(folder.join("version-hint.text")).unwrap();
    increment(&lake, 3).await;
    checked(&lake).await;
    let remove = |ending: &str| {
        for entry in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.to_str().unwrap().ends_with(ending) {
                std::fs::remove_file(entry).unwrap();
            }
        }
    };
    remove(".avro");
    increment(&lake, 4).await;
    assert_eq!(checked(&lake).await.metadata["snapshots"].as_array().unwrap().len(), 1);
    remove("");
    increment(&lake, 5).await;
    checked(&lake).await;
    compare_with_readers(&[lake.folder(&table())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_begins_on_a_log_that_was_cleaned_up() {
    let without_view = |options| DeltaOptions { checkpoint_interval: 3, iceberg: IcebergView::Unchanged, ..with_view(options) };
    let mut lake = TestLake::with(64 << 20, without_view);
    first_load(&lake).await;
    for step in 0..6 {
        increment(&lake, step).await;
    }
    let log = lake.folder(&table()).join("_delta_log");
    for version in 0..4 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    lake.set_options(|options| options.iceberg = IcebergView::On);
    increment(&lake, 6).await;
    assert_eq!(checked(&lake).await.metadata["snapshots"].as_array().unwrap().len(), 1);
    increment(&lake, 7).await;
    assert_eq!(checked(&lake).await.metadata["snapshots"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_other_programs_are_shown() {
    let lake = TestLake::with(64 << 20, with_view);
    first_load(&lake).await;
    increment(&lake, 0).await;
    increment(&lake, 1).await;
    let opened = deltalake::open_table(lake.url(&table())).await.unwrap();
    opened.optimize().await.unwrap();
    assert!(is_behind(&lake).await);
    lake.sink.publish_iceberg(&table()).await.unwrap();
    checked(&lake).await;
    increment(&lake, 2).await;
    // Without other readers: pyiceberg cannot filter the string views that the Delta crate writes.
    checked(&lake).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_keeps_what_kept_snapshots_need() {
    let lake = TestLake::with(64 << 20, with_view);
    first_load(&lake).await;
    for step in 0..6 {
        increment(&lake, step).await;
    }
    lake.sink.optimize(&table(), crate::sink::delta::Scope::Compact).await.unwrap();
    increment(&lake, 6).await;
    assert_eq!(lake.sink.vacuum(&table(), MIN_RETENTION).await.unwrap().files, [""; 0]);
    // Everything becomes older than the retention, except for the last commit.
    let now = SystemTime::now();
    let old = now - MIN_RETENTION - Duration::from_secs(3600);
    let folder = lake.folder(&table());
    let state = lake.sink.log(&table()).unwrap().existing_state().await.unwrap();
    let newest = format!("{:020}.json", state.version);
    for place in [folder.clone(), folder.join("_delta_log"), folder.join("metadata")] {
        for entry in std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_type().unwrap().is_file() && entry.file_name().to_str() != Some(&newest) {
                std::fs::File::options().write(true).open(entry.path()).unwrap().set_modified(old).unwrap();
            }
        }
    }
    let path = newest_metadata(&lake);
    let mut metadata: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let week = MIN_RETENTION.as_millis() as i64 + 3_600_000;
    let snapshots = metadata["snapshots"].as_array_mut().unwrap();
    let count = snapshots.len();
    for snapshot in &mut snapshots[..count - 1] {
        snapshot["timestamp-ms"] = (snapshot["timestamp-ms"].as_i64().unwrap() - week).into();
    }
    for entry in metadata["metadata-log"].as_array_mut().unwrap() {
        entry["timestamp-ms"] = (entry["timestamp-ms"].as_i64().unwrap() - week).into();
    }
    std::fs::write(&path, metadata.to_string()).unwrap();
    let preview = lake.sink.vacuum_preview(&table(), MIN_RETENTION).await.unwrap();
    let removed = lake.sink.vacuum(&table(), MIN_RETENTION).await.unwrap();
    assert_eq!(preview.files, removed.files);
    let of_metadata = removed.files.iter().filter(|file| file.starts_with("metadata/")).count();
    assert!(of_metadata > 10 && removed.files.len() > of_metadata, "{:?}", removed.files);
    // The snapshot that the last commit replaced is kept, as its version is in the Delta log.
    let shown = checked(&lake).await;
    assert_eq!(shown.metadata["snapshots"].as_array().unwrap().len(), 2);
    compare_with_readers(&[folder]);
    increment(&lake, 7).await;
    checked(&lake).await;
}
