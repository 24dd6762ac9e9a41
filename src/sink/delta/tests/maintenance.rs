//! Optimize, vacuum, commit history and verification.

use std::fs;
use std::time::{Duration, SystemTime};

use deltalake::kernel::{Action, Transaction};
use deltalake::protocol::DeltaOperation;
use serde_json::{Value, json};

use super::{TestLake, only};
use crate::error::Kind;
use crate::model::{TableRef, Timestamp};
use crate::sink::conformance::{Change, Change::Del, Change::Up, at, changes, expected, load, plain, plan, read, reduced};
use crate::sink::delta::log::file_names;
use crate::sink::delta::{At, DeletionVectors, DeltaOptions, MIN_RETENTION, Scope};
use crate::sink::{LoadKind, Sink};

fn table() -> TableRef {
    TableRef::new("canvas", "accounts")
}

fn row(id: i64) -> Value {
    json!({"id": id, "name": format!("n{id}"), "score": 0.5})
}

fn rows(ids: impl IntoIterator<Item = i64>) -> Vec<Change> {
    ids.into_iter().map(|id| Up(row(id))).collect()
}

async fn files_of(lake: &TestLake) -> u64 {
    lake.sink.status(&table()).await.unwrap().unwrap().files.unwrap()
}

/// Ten loads of a few rows each, with deletion vectors.
async fn scattered(lake: &TestLake) -> Vec<Value> {
    let schema = plain(&table());
    load(&lake.fixture, &schema, LoadKind::Replace, &rows(0..1000), at(1)).await.unwrap();
    for step in 0..9_i64 {
        let mut changed = rows([step, 1000 + step * 2]);
        changed.push(Del(json!({"id": 500 + step})));
        load(&lake.fixture, &schema, LoadKind::Merge, &changed, at(2 + step)).await.unwrap();
    }
    (0..500).chain(509..1000).chain((0..9).map(|step| 1000 + step * 2)).map(row).collect()
}

fn with_vectors(options: DeltaOptions) -> DeltaOptions {
    DeltaOptions { deletion_vectors: DeletionVectors::On, compact_after: 0, ..options }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_optimize_merges_files_and_removes_deleted_rows() {
    for scope in [Scope::Compact, Scope::SortByKey] {
        let lake = TestLake::with(64 << 20, with_vectors);
        let now = scattered(&lake).await;
        assert_eq!(files_of(&lake).await, 10);
        let before = lake.sink.committed(&table()).await.unwrap();
        let done = lake.sink.optimize(&table(), scope).await.unwrap();
        assert_eq!((done.files_removed, done.files_added, done.rows_purged, done.commits), (10, 1, 18, 1));
        assert_eq!(read(&lake.fixture, &table()).await, expected(&plain(&table()), &now));
        assert_eq!(lake.sink.committed(&table()).await.unwrap(), before, "the bookmark stays");
        let commit = lake.commit(&table(), 10);
        assert_eq!(only(&commit, "add")["dataChange"], false);
        assert!(commit.iter().filter_map(|action| action.get("remove")).all(|remove| remove["dataChange"] == false));
        assert!(commit.iter().all(|action| action.get("txn").is_none()));
        let again = lake.sink.optimize(&table(), scope).await.unwrap();
        assert_eq!((again.commits, files_of(&lake).await), (0, 1), "there is nothing left to do");
        // The next load works as before.
        let loaded = load(&lake.fixture, &plain(&table()), LoadKind::Merge, &[Del(json!({"id": 0}))], at(20)).await.unwrap();
        assert_eq!((loaded.deleted, loaded.rows), (1, Some(now.len() as u64 - 1)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sorting_by_key_separates_the_key_ranges_of_files_in_little_memory() {
    let lake = TestLake::with(2 << 20, |options| DeltaOptions { target_file_bytes: 5_000, ..with_vectors(options) });
    let schema = plain(&table());
    // Every file spans the whole key range.
    let batches: Vec<_> = (0..10_i64).map(|file| changes(&schema, &rows((0..800).map(|row| row * 10 + file)))).collect();
    for (number, batch) in batches.into_iter().enumerate() {
        let mut opened = lake.sink.begin(plan(&lake.fixture, &schema, LoadKind::Merge).await).await.unwrap();
        opened.write(reduced(&schema, vec![batch])).await.unwrap();
        opened.commit(at(1 + number as i64)).await.unwrap();
    }
    lake.sink.optimize(&table(), Scope::SortByKey).await.unwrap();
    assert_eq!(lake.engine.memory_pool().reserved(), 0);
    let state = lake.sink.log(&table()).unwrap().state().await.unwrap().unwrap();
    let mut ranges: Vec<(i64, i64)> = state
        .files
        .iter()
        .map(|file| {
            use arrow::array::AsArray;
            let bounds = file.key_bounds(&state.columns[0]).unwrap();
            let value = |array: &arrow::array::ArrayRef| array.as_primitive::<arrow::datatypes::Int64Type>().value(0);
            (value(&bounds.min), value(&bounds.max))
        })
        .collect();
    ranges.sort_unstable();
    assert!(ranges.len() > 1);
    assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "{ranges:?}");
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &(0..8000).map(row).collect::<Vec<_>>()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_compact_small_files_if_there_are_too_many() {
    let lake = TestLake::with(64 << 20, |options| DeltaOptions { compact_after: 4, ..with_vectors(options) });
    let schema = plain(&table());
    let mut most = 0;
    for step in 0..12_i64 {
        load(&lake.fixture, &schema, LoadKind::Merge, &rows(step * 10..step * 10 + 10), at(1 + step)).await.unwrap();
        most = most.max(files_of(&lake).await);
    }
    assert!(most <= 4, "{most}");
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &(0..120).map(row).collect::<Vec<_>>()));
    let operations: Vec<String> =
        lake.sink.history(&table(), 100).await.unwrap().into_iter().map(|commit| commit.operation).collect();
    assert!(operations.iter().filter(|operation| *operation == "OPTIMIZE").count() >= 3, "{operations:?}");
    assert_eq!(operations.iter().filter(|operation| *operation == "MERGE").count(), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_concurrent_load_and_optimize_lose_no_rows() {
    let lake = TestLake::with(64 << 20, with_vectors);
    let now = scattered(&lake).await;
    let schema = plain(&table());
    // A load that started before an optimize gets a conflict.
    let mut late = lake.sink.begin(plan(&lake.fixture, &schema, LoadKind::Merge).await).await.unwrap();
    late.write(reduced(&schema, vec![changes(&schema, &rows([5000]))])).await.unwrap();
    lake.sink.optimize(&table(), Scope::Compact).await.unwrap();
    assert_eq!(late.commit(at(30)).await.unwrap_err().kind(), Kind::Conflict);
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &now));

    // Both run concurrently, many times: the loser gets a conflict, and the rows are those of the loads that won.
    let mut ids: Vec<i64> = now.iter().map(|row| row["id"].as_i64().unwrap()).collect();
    for step in 0..10_i64 {
        let (changed, name) = (rows([6000 + step]), table());
        let (loaded, optimized) = tokio::join!(
            load(&lake.fixture, &schema, LoadKind::Merge, &changed, at(40 + step)),
            lake.sink.optimize(&name, Scope::Compact)
        );
        match loaded {
            Ok(_) => ids.push(6000 + step),
            Err(error) => assert_eq!(error.kind(), Kind::Conflict),
        }
        assert!(optimized.is_ok() || optimized.is_err_and(|error| error.kind() == Kind::Conflict));
        assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &ids.iter().copied().map(row).collect::<Vec<_>>()));
    }
    // Files of losers are removed.
    let state = lake.sink.log(&table()).unwrap().state().await.unwrap().unwrap();
    let named: Vec<String> = (0..=state.version)
        .flat_map(|version| lake.commit(&table(), version))
        .filter_map(|action| Some(action.get("add")?["path"].as_str()?.to_owned()))
        .collect();
    let unnamed: Vec<String> =
        lake.data_files(&table()).into_iter().filter(|name| name.ends_with(".parquet") && !named.contains(name)).collect();
    assert_eq!(unnamed, [""; 0]);
}

fn make_old(lake: &TestLake, name: &str, age: Duration) {
    let file = fs::File::options().write(true).open(lake.folder(&table()).join(name)).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_removes_files_that_no_recent_version_needs() {
    let lake = TestLake::with(64 << 20, with_vectors);
    let schema = plain(&table());
    load(&lake.fixture, &schema, LoadKind::Replace, &rows(0..3000), at(1)).await.unwrap();
    // A deletion vector in a file, which the next one replaces.
    load(&lake.fixture, &schema, LoadKind::Merge, &(0..400).map(|id| Del(json!({"id": id * 5}))).collect::<Vec<_>>(), at(2))
        .await
        .unwrap();
    load(&lake.fixture, &schema, LoadKind::Merge, &[Del(json!({"id": 2999}))], at(3)).await.unwrap();
    let first_files = lake.data_files(&table());
    lake.sink.optimize(&table(), Scope::Compact).await.unwrap();
    let leftovers = [file_names::new_name(), "deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin".to_owned()];
    for name in &leftovers {
        fs::write(lake.folder(&table()).join(name), "half a file").unwrap();
    }
    // Files that no Delta writer made.
    let foreign = ["notes.txt", "export.parquet", "report#1", "_day=2026-01-01/list.csv"];
    fs::create_dir_all(lake.folder(&table()).join("_day=2026-01-01")).unwrap();
    for name in foreign {
        fs::write(lake.folder(&table()).join(name), "theirs").unwrap();
    }
    let before = read(&lake.fixture, &table()).await;
    let week = MIN_RETENTION;
    let name = table();
    let vacuum = || lake.sink.vacuum(&name, week);
    assert_eq!(vacuum().await.unwrap().files, [""; 0], "all files are too new");
    let older = week + Duration::from_secs(3600);
    let present = lake.data_files(&table());
    for name in present.iter().map(String::as_str).filter(|name| !name.contains('=')).chain(foreign) {
        make_old(&lake, name, older);
    }
    // Replaced files are old, but recent versions need them; files of killed runs are removed.
    let preview = lake.sink.vacuum_preview(&table(), week).await.unwrap();
    let mut expected_files = leftovers.to_vec();
    expected_files.sort();
    assert_eq!((preview.files.clone(), preview.bytes), (expected_files, 22));
    assert!(leftovers.iter().all(|name| lake.data_files(&table()).contains(name)), "a preview removes nothing");
    assert_eq!(vacuum().await.unwrap(), preview);
    assert!(first_files.iter().all(|name| lake.data_files(&table()).contains(name)));

    // Simulates a week later.
    for version in 0..=3_u64 {
        make_old(&lake, &format!("_delta_log/{version:020}.json"), older);
    }
    let mut removed = vacuum().await.unwrap().files;
    removed.sort();
    let mut first_files = first_files;
    first_files.sort();
    assert_eq!(removed, first_files);
    assert!(foreign.iter().all(|name| lake.folder(&table()).join(name).exists()));
    assert_eq!(read(&lake.fixture, &table()).await, before);

    let error = lake.sink.vacuum(&table(), Duration::from_secs(3600)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.hint_text().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_has_each_commit() {
    let lake = TestLake::with(64 << 20, with_vectors);
    scattered(&lake).await;
    lake.sink.optimize(&table(), Scope::Compact).await.unwrap();
    let commits = lake.sink.history(&table(), 3).await.unwrap();
    assert_eq!(commits.iter().map(|commit| commit.version).collect::<Vec<_>>(), [10, 9, 8]);
    assert_eq!((commits[0].operation.as_str(), commits[0].files_removed, &commits[0].bookmark), ("OPTIMIZE", Some(10), &None));
    let merge = &commits[1];
    assert_eq!((merge.operation.as_str(), merge.upserted, merge.deleted), ("MERGE", Some(2), Some(1)));
    assert_eq!((merge.files_added, merge.files_removed, merge.files_marked), (Some(1), Some(0), Some(1)));
    assert_eq!((merge.job_id.as_deref(), merge.run_id.as_deref()), (Some("job"), Some("run")));
    assert_eq!(lake.sink.history(&table(), 100).await.unwrap().len(), 11);
    let absent = TableRef::new("canvas", "nothing");
    for error in [
        lake.sink.history(&absent, 1).await.unwrap_err(),
        lake.sink.optimize(&absent, Scope::Compact).await.unwrap_err(),
        lake.sink.vacuum(&absent, MIN_RETENTION).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), Kind::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_rows_are_surplus() {
    use crate::sink::conformance::changes as batch_of;
    let lake = TestLake::with(2 << 20, with_vectors);
    let schema = plain(&table());
    let now: Vec<Value> = (0..3000).map(row).collect();
    load(&lake.fixture, &schema, LoadKind::Replace, &now.iter().cloned().map(Up).collect::<Vec<_>>(), at(1)).await.unwrap();
    let compare = async |wanted: &[Value]| {
        let fresh = wanted.iter().cloned().map(Up).collect::<Vec<_>>();
        let fresh = reduced(&schema, vec![batch_of(&schema, &fresh)]);
        let found = lake.sink.differences(&table(), fresh, None, 10).await.unwrap();
        assert_eq!(lake.engine.memory_pool().reserved(), 0);
        (found.missing, found.surplus, found.different, found.keys.into_iter().map(|key| key.key).collect::<Vec<_>>())
    };
    assert_eq!(compare(&now).await, (0, 0, 0, vec![]));
    // Another program appends two existing rows, one of them twice, and a row with an existing key.
    let batch = |ids: Vec<i64>, name: Option<&str>| {
        use arrow::array::{Array, ArrayRef, AsArray, StringArray};
        let rows: Vec<Change> = ids.iter().map(|id| Up(row(*id))).collect();
        let batch = batch_of(&schema, &rows);
        let columns = ["id", "name", "score"].map(|column| {
            let array = batch.column_by_name(column).unwrap().clone();
            match (column, name) {
                ("name", Some(name)) => {
                    (column, std::sync::Arc::new(StringArray::from(vec![name; array.as_string::<i32>().len()])) as ArrayRef)
                }
                _ => (column, array),
            }
        });
        arrow::array::RecordBatch::try_from_iter(columns).unwrap()
    };
    let batches = vec![batch(vec![5, 9, 9], None), batch(vec![11], Some("another"))];
    let opened = deltalake::open_table(lake.url(&table())).await.unwrap();
    opened.write(batches).with_save_mode(deltalake::protocol::SaveMode::Append).await.unwrap();
    assert_eq!(compare(&now).await, (0, 4, 0, vec!["11".into(), "5".into(), "9".into()]));
    // All rows of a key that the source lacks are surplus. If a key has two rows and another value at the source, one row is different
    // and one surplus.
    let mut other = now.clone();
    other[11]["name"] = json!("yet another");
    other.remove(9);
    assert_eq!(compare(&other).await, (0, 5, 1, vec!["11".into(), "11".into(), "5".into(), "9".into()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_removes_unfinished_uploads() {
    let lake = TestLake::with(64 << 20, with_vectors);
    let schema = plain(&table());
    load(&lake.fixture, &schema, LoadKind::Replace, &rows(0..10), at(1)).await.unwrap();
    let folder = lake.folder(&table());
    for inner in ["_day=2026-01-01", "_change_data/_day=2026-01-01", "notes"] {
        fs::create_dir_all(folder.join(inner)).unwrap();
    }
    let data = file_names::new_name();
    let leftovers = [
        format!("{data}#1"),
        format!("{data}#12"),
        format!("_day=2026-01-01/{data}#1"),
        format!("_change_data/_day=2026-01-01/{data}#1"),
        "deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin#1".to_owned(),
        "_delta_log/00000000000000000001.json#1".to_owned(),
    ];
    // Other names, or a folder that tables do not have.
    let others = ["_day=2026-01-01/_a#b".to_owned(), "_day=2026-01-01/_#".to_owned(), format!("notes/{data}#1")];
    for name in leftovers.iter().chain(&others) {
        fs::write(folder.join(name), "half").unwrap();
    }
    let week = MIN_RETENTION;
    assert_eq!(lake.sink.vacuum(&table(), week).await.unwrap().files, [""; 0], "all files are too new");
    for name in leftovers.iter().chain(&others) {
        make_old(&lake, name, week + Duration::from_secs(3600));
    }
    let mut expected_files = leftovers.to_vec();
    expected_files.sort();
    let preview = lake.sink.vacuum_preview(&table(), week).await.unwrap();
    assert_eq!((&preview.files, preview.bytes), (&expected_files, 24));
    assert_eq!(lake.sink.vacuum(&table(), week).await.unwrap(), preview);
    assert!(leftovers.iter().all(|name| !folder.join(name).exists()));
    assert!(others.iter().all(|name| folder.join(name).exists()));
}

/// The time of the last automatic vacuum that the log of the table records.
async fn last_vacuum(lake: &TestLake) -> Option<Timestamp> {
    let log = lake.sink.log(&table()).unwrap();
    log.last_vacuum(&log.existing_state().await.unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_vacuums_its_table_at_most_once_a_day() {
    let lake = TestLake::with(64 << 20, |options| DeltaOptions { vacuum_after: Some(MIN_RETENTION), ..with_vectors(options) });
    let schema = plain(&table());
    load(&lake.fixture, &schema, LoadKind::Replace, &rows(0..100), at(1)).await.unwrap();
    assert_eq!(last_vacuum(&lake).await, None, "a new table has nothing to remove");
    let leave_file = || {
        let name = file_names::new_name();
        fs::write(lake.folder(&table()).join(&name), "of a killed run").unwrap();
        make_old(&lake, &name, MIN_RETENTION + Duration::from_secs(3600));
        name
    };
    let first = leave_file();
    let loaded = load(&lake.fixture, &schema, LoadKind::Merge, &rows(100..101), at(2)).await.unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    assert!(!lake.data_files(&table()).contains(&first));
    let recorded = last_vacuum(&lake).await.unwrap();
    assert!((0..60_000_000).contains(&(Timestamp::now().micros() - recorded.micros())), "{recorded}");

    // The same result again is no load, and the next load is too early.
    let second = leave_file();
    load(&lake.fixture, &schema, LoadKind::Merge, &rows(100..101), at(2)).await.unwrap();
    load(&lake.fixture, &schema, LoadKind::Merge, &rows(101..102), at(3)).await.unwrap();
    assert!(lake.data_files(&table()).contains(&second));
    assert_eq!(last_vacuum(&lake).await, Some(recorded));

    // The time is kept by checkpoints. A day later, and after a time in the future, it is due.
    let mut seconds = 4;
    for offset in [-25 * 3600, 3600_i64] {
        let log = lake.sink.log(&table()).unwrap();
        let then = Timestamp::now().micros() + offset * 1_000_000;
        let record = Transaction::new_with_last_update(log.vacuum_app_id(), then, Some(then / 1000));
        let (state, operation) = (
            log.existing_state().await.unwrap(),
            DeltaOperation::SetTableProperties { properties: std::collections::HashMap::new() },
        );
        log.commit(Some(&state), vec![Action::Txn(record)], None, operation, std::collections::HashMap::new()).await.unwrap();
        let left = leave_file();
        load(&lake.fixture, &schema, LoadKind::Merge, &rows(seconds..seconds + 1), at(seconds)).await.unwrap();
        assert!(!lake.data_files(&table()).contains(&left));
        seconds += 1;
    }
    let recorded = last_vacuum(&lake).await;
    for _ in 0..12 {
        load(&lake.fixture, &schema, LoadKind::Merge, &rows(seconds..seconds + 1), at(seconds)).await.unwrap();
        seconds += 1;
    }
    assert!(lake.folder(&table()).join("_delta_log/_last_checkpoint").exists());
    assert_eq!(last_vacuum(&lake).await, recorded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_that_fails_does_not_fail_the_load() {
    let mut lake = TestLake::with(64 << 20, with_vectors);
    let schema = plain(&table());
    load(&lake.fixture, &schema, LoadKind::Replace, &rows(0..100), at(1)).await.unwrap();
    // Shorter than the vacuum allows.
    lake.set_options(|options| options.vacuum_after = Some(Duration::from_secs(3600)));
    let loaded = load(&lake.fixture, &schema, LoadKind::Merge, &rows(100..101), at(2)).await.unwrap();
    assert_eq!(loaded.rows, Some(101));
    assert!(loaded.warnings.iter().any(|warning| warning.contains("old files could not be removed")), "{loaded:?}");
}

/// Makes the files of the log of all versions up to `newest` older than `age`.
fn make_log_old(lake: &TestLake, newest: u64, age: Duration) {
    for entry in fs::read_dir(lake.folder(&table()).join("_delta_log")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.get(..20).and_then(|version| version.parse::<u64>().ok()).is_some_and(|version| version <= newest) {
            make_old(lake, &format!("_delta_log/{name}"), age);
        }
    }
}

/// The versions whose entries the log has.
fn logged_versions(lake: &TestLake) -> Vec<u64> {
    let names = fs::read_dir(lake.folder(&table()).join("_delta_log")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut versions: Vec<u64> = names.filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect();
    versions.sort_unstable();
    versions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_remove_expired_entries_of_the_log_behind_a_checkpoint() {
    let month = Duration::from_secs(31 * 24 * 3600);
    let schema = plain(&table());
    let set = async |lake: &TestLake, name: &str, value: &str| {
        let properties = std::collections::HashMap::from([(name.to_owned(), value.to_owned())]);
        let opened = deltalake::open_table(lake.url(&table())).await.unwrap();
        opened.set_tbl_properties().with_properties(properties).await.unwrap();
    };
    for (property, first_kept) in [
        // Entries 0 to 6 are older than a month. The newest checkpoint that a reader of version 7 can begin with is of version 5.
        (None, 5),
        (Some(("delta.logRetentionDuration", "interval 60 days")), 0),
        (Some(("delta.enableExpiredLogCleanup", "false")), 0),
    ] {
        let lake = TestLake::with(64 << 20, |options| DeltaOptions { checkpoint_interval: 3, ..with_vectors(options) });
        load(&lake.fixture, &schema, LoadKind::Replace, &rows(0..100), at(1)).await.unwrap();
        match property {
            Some((name, value)) => set(&lake, name, value).await,
            None => set(&lake, "delta.logRetentionDuration", "interval 30 days").await,
        }
        for step in 2..8_i64 {
            load(&lake.fixture, &schema, LoadKind::Merge, &rows(100 + step..101 + step), at(step)).await.unwrap();
        }
        make_log_old(&lake, 6, month);
        load(&lake.fixture, &schema, LoadKind::Merge, &rows(200..201), at(8)).await.unwrap();
        let kept = logged_versions(&lake);
        assert_eq!((kept[0], kept[kept.len() - 1]), (first_kept, 8), "{property:?}");
        assert_eq!(kept.len() as u64, 9 - first_kept, "{property:?}");
        let now: Vec<Value> = (0..100).chain(102..108).chain([200]).map(row).collect();
        assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &now));
        // The version that a reader may have opened stays readable.
        for version in 7..=8 {
            lake.sink.provider_at(&table(), At::Version(version)).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_keeps_the_log_entry_of_the_last_load() {
    let lake = TestLake::with(64 << 20, |options| DeltaOptions { checkpoint_interval: 1, ..with_vectors(options) });
    let schema = plain(&table());
    for step in 1..5_i64 {
        load(&lake.fixture, &schema, LoadKind::Merge, &rows(step * 10..step * 10 + 10), at(step)).await.unwrap();
    }
    make_log_old(&lake, 3, Duration::from_secs(40 * 24 * 3600));
    lake.sink.optimize(&table(), Scope::Compact).await.unwrap();
    make_log_old(&lake, 4, Duration::from_secs(40 * 24 * 3600));
    load(&lake.fixture, &schema, LoadKind::Merge, &rows(0..1), at(5)).await.unwrap();
    assert_eq!(files_of(&lake).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_with_v2_checkpoints_stays_readable() {
    let mut lake = TestLake::with(64 << 20, |options| DeltaOptions { checkpoint_interval: 2, ..with_vectors(options) });
    let schema = plain(&table());
    load(&lake.fixture, &schema, LoadKind::Replace, &rows(0..100), at(1)).await.unwrap();
    // Another program switches to v2 checkpoints.
    let log = lake.sink.log(&table()).unwrap();
    let state = log.existing_state().await.unwrap();
    let protocol = json!({
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": ["deletionVectors", "v2Checkpoint"],
        "writerFeatures": ["deletionVectors", "v2Checkpoint", "appendOnly", "invariants"],
    });
    let mut metadata = state.metadata.clone();
    metadata["configuration"]["delta.checkpointPolicy"] = "v2".into();
    let entry = [
        json!({"commitInfo": {"operation": "SET TBLPROPERTIES", "timestamp": 1}}),
        json!({"protocol": protocol}),
        json!({"metaData": metadata}),
    ];
    let entry: Vec<String> = entry.iter().map(Value::to_string).collect();
    fs::write(lake.folder(&table()).join(format!("_delta_log/{:020}.json", 1)), entry.join("\n")).unwrap();
    lake.set_options(|options| options.vacuum_after = Some(MIN_RETENTION));
    for step in 2..12_i64 {
        load(&lake.fixture, &schema, LoadKind::Merge, &rows(100 + step..101 + step), at(step)).await.unwrap();
        // Only checkpoints and later entries are left to read.
        if let Ok(checkpoint) = fs::read_to_string(lake.folder(&table()).join("_delta_log/_last_checkpoint")) {
            let checkpoint: Value = serde_json::from_str(&checkpoint).unwrap();
            make_log_old(&lake, checkpoint["version"].as_u64().unwrap() - 1, Duration::from_secs(40 * 24 * 3600));
        }
    }
    assert!(logged_versions(&lake)[0] > 5, "{:?}", logged_versions(&lake));
    assert!(last_vacuum(&lake).await.is_some());
    let now: Vec<Value> = (0..100).chain(102..112).map(row).collect();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &now));
    let state = log.existing_state().await.unwrap();
    assert_eq!(state.property("delta.checkpointPolicy"), Some("v2"));
}
