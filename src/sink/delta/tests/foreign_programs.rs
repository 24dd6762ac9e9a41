//! Tables that other programs changed, and folders with files of other programs.

use std::collections::HashMap;
use std::fs;

use deltalake::DeltaTable;
use deltalake::kernel::{DataType, PrimitiveType};
use serde_json::json;

use super::{TestLake, only};
use crate::error::Kind;
use crate::model::TableRef;
use crate::sink::conformance::{Change, Change::Del, Change::Up, at, changes, expected, load, plain, plan, read, reduced};
use crate::sink::delta::log::file_names;
use crate::sink::delta::{DeletionVectors, DeltaOptions, OnForeignChanges};
use crate::sink::{LoadKind, Sink};

fn table() -> TableRef {
    TableRef::new("canvas", "accounts")
}

async fn refused(lake: &TestLake) -> crate::Error {
    let error = lake.sink.committed(&table()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Target, "{error:?}");
    assert!(error.hint_text().is_some());
    let schema = plain(&table());
    let plan = crate::sink::LoadPlan {
        table: table(),
        schema: std::sync::Arc::new(schema),
        nested: Default::default(),
        kind: LoadKind::Replace,
        expected: None,
        run_id: String::new(),
        job_id: String::new(),
        layout: Default::default(),
        is_snapshot: true,
        as_of: crate::model::Timestamp::now(),
    };
    let begun = lake.sink.begin(plan).await.err().unwrap();
    assert_eq!(begun.kind(), Kind::Target);
    begun
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delta_table_of_another_program_is_refused() {
    let lake = TestLake::new();
    fs::create_dir_all(lake.folder(&table())).unwrap();
    DeltaTable::try_from_url(lake.url(&table()))
        .await
        .unwrap()
        .create()
        .with_column("id", DataType::Primitive(PrimitiveType::Long), false, None)
        .await
        .unwrap();
    let error = refused(&lake).await;
    assert!(error.message().contains("did not create"));
    assert_eq!(lake.sink.list(None).await.unwrap(), [], "it is not listed");
    assert!(!lake.folder(&table()).join("_delta_log/00000000000000000001.json").exists());
}

#[tokio::test]
async fn other_files_in_the_folder_of_a_table_are_refused() {
    for name in ["notes.txt", "part-0.parquet", "sub/file"] {
        let lake = TestLake::new();
        let path = lake.folder(&table()).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        refused(&lake).await;
        assert_eq!(fs::read_to_string(&path).unwrap(), "x");
    }
    let lake = TestLake::new();
    fs::create_dir_all(lake.root.join("canvas")).unwrap();
    fs::write(lake.folder(&table()), "a file").unwrap();
    refused(&lake).await;
}

#[tokio::test]
async fn files_of_a_killed_first_load_do_not_prevent_the_next() {
    let lake = TestLake::new();
    let day = "_day=2026-01-01";
    fs::create_dir_all(lake.folder(&table()).join(day)).unwrap();
    fs::create_dir(lake.folder(&table()).join("_day=2026-01-02")).unwrap();
    let (name, other) = (file_names::new_name(), file_names::new_name());
    for leftover in [format!("{name}#1"), format!("{day}/{other}#1"), format!("{day}/{other}"), name] {
        fs::write(lake.folder(&table()).join(leftover), "half a file").unwrap();
    }
    let schema = plain(&table());
    let row = json!({"id": 1, "name": "a"});
    load(&lake.fixture, &schema, LoadKind::Replace, &[Up(row.clone())], at(1)).await.unwrap();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &[row]));
}

#[tokio::test]
async fn a_folder_that_was_copied_to_another_name_is_refused() {
    let lake = TestLake::new();
    let other = TableRef::new("canvas", "users");
    load(&lake.fixture, &plain(&other), LoadKind::Replace, &[], at(1)).await.unwrap();
    fs::rename(lake.folder(&other), lake.folder(&table())).unwrap();
    refused(&lake).await;
}

/// Writes a commit as another program could.
fn commit_by_hand(lake: &TestLake, version: u64, actions: &[serde_json::Value]) {
    let text: Vec<String> = actions.iter().map(ToString::to_string).collect();
    fs::write(lake.folder(&table()).join(format!("_delta_log/{version:020}.json")), text.join("\n")).unwrap();
}

/// A table of thirty rows, six of which another program deleted with a deletion vector.
async fn with_foreign_vector(lake: &TestLake) -> Vec<serde_json::Value> {
    let schema = plain(&table());
    let rows: Vec<_> = (0..30).map(|id| json!({"id": id, "name": "a"})).collect();
    load(&lake.fixture, &schema, LoadKind::Replace, &rows.iter().cloned().map(Up).collect::<Vec<_>>(), at(1)).await.unwrap();
    let first = lake.commit(&table(), 0);
    let mut add = only(&first, "add").clone();
    // The example of the Delta protocol: rows 3, 4, 7, 11, 18, 29.
    add["deletionVector"] = json!({"storageType": "i", "pathOrInlineDv": "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", "sizeInBytes": 44, "cardinality": 6});
    let path = add["path"].clone();
    let features = json!(["deletionVectors"]);
    commit_by_hand(
        lake,
        1,
        &[
            json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}}),
            json!({"remove": {"path": path, "dataChange": true, "deletionTimestamp": 1}}),
            json!({"add": add}),
        ],
    );
    rows.into_iter().filter(|row| ![3, 4, 7, 11, 18, 29].contains(&row["id"].as_i64().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_vectors_of_other_programs_are_respected() {
    let schema = plain(&table());
    for deletion_vectors in [DeletionVectors::On, DeletionVectors::Auto, DeletionVectors::Off] {
        let on_foreign_changes = OnForeignChanges::Warn;
        let lake = TestLake::with(64 << 20, |options| DeltaOptions { deletion_vectors, on_foreign_changes, ..options });
        let mut now = with_foreign_vector(&lake).await;
        assert_eq!(lake.sink.status(&table()).await.unwrap().unwrap().rows, Some(24));
        // One deleted row returns, one is deleted again, and a live row is deleted.
        let changed = [Up(json!({"id": 4, "name": "z"})), Del(json!({"id": 7})), Del(json!({"id": 8}))];
        let loaded = load(&lake.fixture, &schema, LoadKind::Merge, &changed, at(2)).await.unwrap();
        assert_eq!((loaded.upserted, loaded.deleted, loaded.rows), (1, 1, Some(24)));
        now.retain(|row| row["id"] != 8);
        now.push(json!({"id": 4, "name": "z"}));
        assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &now));
        assert_eq!(lake.sink.status(&table()).await.unwrap().unwrap().rows, Some(24));
        // Deleting the remaining rows removes the file.
        let rest: Vec<Change> = now.iter().map(|row| Del(json!({"id": row["id"]}))).collect();
        let loaded = load(&lake.fixture, &schema, LoadKind::Merge, &rest, at(3)).await.unwrap();
        assert_eq!((loaded.deleted, loaded.rows), (24, Some(0)));
        assert_eq!(lake.sink.status(&table()).await.unwrap().unwrap().files, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_vectors_are_added_extended_and_dropped() {
    let lake = TestLake::with(64 << 20, |options| DeltaOptions { deletion_vectors: DeletionVectors::On, ..options });
    let schema = plain(&table());
    let rows: Vec<_> = (0..2000).map(|id| Up(json!({"id": id, "name": "a", "score": 0.5}))).collect();
    load(&lake.fixture, &schema, LoadKind::Replace, &rows, at(1)).await.unwrap();
    let first = lake.commit(&table(), 0);
    let path = only(&first, "add")["path"].clone();
    assert_eq!(only(&first, "metaData")["configuration"]["delta.enableDeletionVectors"], "true");
    let delete = |keys: std::ops::Range<i64>| keys.step_by(3).map(|id| Del(json!({"id": id}))).collect::<Vec<_>>();

    // A small vector is inline. A larger one has a file, which includes the rows of the first.
    let loaded = load(&lake.fixture, &schema, LoadKind::Merge, &delete(0..30), at(2)).await.unwrap();
    assert_eq!((loaded.deleted, loaded.bytes_written, loaded.rows), (10, 0, Some(1990)));
    let second = lake.commit(&table(), 1);
    let add = only(&second, "add");
    assert_eq!((&add["path"], &add["deletionVector"]["storageType"], &add["dataChange"]), (&path, &json!("i"), &json!(true)));
    let stats: serde_json::Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
    assert_eq!((&stats["numRecords"], &stats["tightBounds"]), (&json!(2000), &json!(false)));
    assert!(only(&second, "remove").get("deletionVector").is_none());
    let loaded = load(&lake.fixture, &schema, LoadKind::Merge, &delete(30..900), at(3)).await.unwrap();
    assert_eq!((loaded.deleted, loaded.rows), (290, Some(1700)));
    assert!(loaded.bytes_written > 500);
    let third = lake.commit(&table(), 2);
    let (remove, vector) = (only(&third, "remove"), &only(&third, "add")["deletionVector"]);
    assert_eq!(remove["deletionVector"], add["deletionVector"]);
    assert_eq!((&vector["storageType"], &vector["cardinality"], &vector["offset"]), (&json!("u"), &json!(300), &json!(1)));
    assert_eq!(read(&lake.fixture, &table()).await.len(), 1700);

    // Too many rows are deleted: the file is rewritten.
    let loaded = load(&lake.fixture, &schema, LoadKind::Merge, &delete(900..1500), at(4)).await.unwrap();
    assert_eq!((loaded.deleted, loaded.rows), (200, Some(1500)));
    let fourth = lake.commit(&table(), 3);
    assert_eq!(only(&fourth, "remove")["deletionVector"], *vector);
    assert!(only(&fourth, "add").get("deletionVector").is_none());
    assert_eq!(read(&lake.fixture, &table()).await.len(), 1500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_requires_deletion_vectors_only_if_it_has_some() {
    let version = |lake: &TestLake, number| {
        lake.commit(&table(), number).iter().find_map(|action| Some(action.get("protocol")?["minReaderVersion"].clone()))
    };
    let row = |id: i64| Up(json!({"id": id, "name": "n", "score": 0.5}));
    let schema = plain(&table());
    let lake = TestLake::with(64 << 20, |options| DeltaOptions { target_file_bytes: 3000, ..options });
    load(&lake.fixture, &schema, LoadKind::Replace, &(0..100).map(row).collect::<Vec<_>>(), at(1)).await.unwrap();
    load(&lake.fixture, &schema, LoadKind::Merge, &(0..90).map(row).collect::<Vec<_>>(), at(2)).await.unwrap();
    assert_eq!((version(&lake, 0), version(&lake, 1)), (Some(json!(1)), None));
    load(&lake.fixture, &schema, LoadKind::Merge, &[row(95)], at(3)).await.unwrap();
    assert_eq!(version(&lake, 2), Some(json!(3)));

    // After switching them off, existing vectors stay until their files are rewritten, and the property stays true.
    let options = DeltaOptions { deletion_vectors: DeletionVectors::Off, ..lake.sink.options.clone() };
    let off = super::fixture(&lake.root, options);
    load(&off, &schema, LoadKind::Merge, &[row(200)], at(4)).await.unwrap();
    let switch =
        |number| only(&lake.commit(&table(), number), "metaData")["configuration"]["delta.enableDeletionVectors"].clone();
    assert_eq!((switch(2), switch(3)), (json!("true"), json!("true")), "a file still has a deletion vector");
    // A run without the option adds none.
    load(&lake.fixture, &schema, LoadKind::Merge, &[row(201)], at(5)).await.unwrap();
    load(&off, &schema, LoadKind::Merge, &[row(96)], at(6)).await.unwrap();
    assert_eq!(switch(5), json!("false"), "that commit removed the last one");
    load(&lake.fixture, &schema, LoadKind::Merge, &[row(97)], at(7)).await.unwrap();
    let state = lake.sink.log(&table()).unwrap().state().await.unwrap().unwrap();
    assert!(state.files.iter().all(|file| file.deletion_vector.is_none()));
    assert_eq!(read(&lake.fixture, &table()).await.len(), 102);
}

#[tokio::test]
async fn tables_with_unsupported_properties_are_refused() {
    for (property, value) in [("delta.constraints.c", "id > 0"), ("delta.appendOnly", "true")] {
        let lake = TestLake::new();
        let schema = plain(&table());
        load(&lake.fixture, &schema, LoadKind::Replace, &[], at(1)).await.unwrap();
        let first = lake.commit(&table(), 0);
        let mut metadata = only(&first, "metaData").clone();
        metadata["configuration"][property] = json!(value);
        commit_by_hand(
            &lake,
            1,
            &[json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 3}}), json!({"metaData": metadata})],
        );
        let error =
            load(&lake.fixture, &schema, LoadKind::Merge, &[Up(json!({"id": 1, "name": "a"}))], at(2)).await.unwrap_err();
        assert_eq!((error.kind(), error.get("property")), (Kind::Target, Some(property)));
    }
    let lake = TestLake::new();
    let schema = plain(&table());
    load(&lake.fixture, &schema, LoadKind::Replace, &[], at(1)).await.unwrap();
    commit_by_hand(
        &lake,
        1,
        &[
            json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["rowTracking", "domainMetadata"]}}),
        ],
    );
    let error = load(&lake.fixture, &schema, LoadKind::Merge, &[], at(2)).await.unwrap_err();
    assert_eq!((error.kind(), error.get("property")), (Kind::Target, Some("feature rowTracking")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_another_program_compacted_are_merged() {
    let lake = TestLake::with(64 << 20, |options| DeltaOptions { target_file_bytes: 1, ..options });
    let schema = plain(&table());
    let row = |id: i64, name: &str| json!({"id": id, "name": name, "score": 0.5});
    let mut seconds = 1;
    for id in 0..5_i64 {
        load(&lake.fixture, &schema, LoadKind::Merge, &[Up(row(id, "a"))], at(seconds)).await.unwrap();
        seconds += 1;
    }
    let opened = deltalake::open_table(lake.url(&table())).await.unwrap();
    let (_, metrics) = opened.optimize().await.unwrap();
    assert_eq!((metrics.num_files_removed, metrics.num_files_added), (5, 1));

    // A commit of another program during a load is a conflict, even if it changed no rows.
    let changed = [Up(row(1, "b")), Del(json!({"id": 3})), Up(row(8, "c"))];
    let mut late = lake.sink.begin(plan(&lake.fixture, &schema, LoadKind::Merge).await).await.unwrap();
    late.write(reduced(&schema, vec![changes(&schema, &changed)])).await.unwrap();
    let opened = deltalake::open_table(lake.url(&table())).await.unwrap();
    opened
        .set_tbl_properties()
        .with_properties(HashMap::from([("delta.logRetentionDuration".into(), "interval 60 days".into())]))
        .await
        .unwrap();
    let error = late.commit(at(seconds)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.kind().is_transient());

    let loaded = load(&lake.fixture, &schema, LoadKind::Merge, &changed, at(seconds)).await.unwrap();
    assert_eq!((loaded.deleted, loaded.rows), (1, Some(5)));
    let now = [row(0, "a"), row(1, "b"), row(2, "a"), row(4, "a"), row(8, "c")];
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &now));
}

#[tokio::test]
async fn only_files_with_a_matching_key_are_rewritten() {
    // Statistics are in log entries or in a checkpoint.
    for checkpoint_interval in [10, 1] {
        only_touched_files(TestLake::with(64 << 20, |options| DeltaOptions {
            target_file_bytes: 1,
            checkpoint_interval,
            ..options
        }))
        .await;
    }
}

async fn only_touched_files(lake: TestLake) {
    let schema = plain(&table());
    let batches: Vec<_> = (0..4_i64)
        .map(|file| {
            changes(&schema, &(0..10).map(|row| Up(json!({"id": file * 10 + row, "name": "a"}))).collect::<Vec<Change>>())
        })
        .collect();
    let mut opened = lake.sink.begin(plan(&lake.fixture, &schema, LoadKind::Replace).await).await.unwrap();
    opened.write(reduced(&schema, batches)).await.unwrap();
    opened.commit(at(1)).await.unwrap();
    assert_eq!(lake.data_files(&table()).len(), 4);
    let removed = |version: u64| lake.commit(&table(), version).iter().filter(|action| action.get("remove").is_some()).count();
    // A key of the second file, one between two files, and one above all.
    let rows = [Up(json!({"id": 15, "name": "b"})), Up(json!({"id": 100, "name": "b"})), Del(json!({"id": -1}))];
    load(&lake.fixture, &schema, LoadKind::Merge, &rows, at(2)).await.unwrap();
    assert_eq!(removed(1), 1);
    // A file without remaining rows is removed and not rewritten.
    let all: Vec<Change> = (30..40).map(|id| Del(json!({"id": id}))).collect();
    let loaded = load(&lake.fixture, &schema, LoadKind::Merge, &all, at(3)).await.unwrap();
    assert_eq!((loaded.deleted, loaded.bytes_written, loaded.rows), (10, 0, Some(31)));
    assert_eq!(removed(2), 1);
    // Files without a matching key are not opened: they could be missing.
    let state = lake.sink.log(&table()).unwrap().state().await.unwrap().unwrap();
    let bounded = state.files.iter().filter(|file| file.key_bounds(&state.columns[0]).is_some()).count();
    assert_eq!(bounded, state.files.len());
}

/// The message and the commits of a refusal.
fn refusal_of(error: &crate::Error) -> (String, String) {
    (error.message().to_owned(), error.get("commits").unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_by_another_program_block_increments_until_a_new_snapshot() {
    let lake = TestLake::new();
    let schema = plain(&table());
    let row = |id: i64, name: &str| json!({"id": id, "name": name});
    let rows = |ids: std::ops::Range<i64>| ids.map(|id| Up(row(id, "a"))).collect::<Vec<_>>();
    load(&lake.fixture, &schema, LoadKind::Replace, &rows(0..5), at(1)).await.unwrap();
    load(&lake.fixture, &schema, LoadKind::Merge, &[Up(row(0, "b")), Del(json!({"id": 4}))], at(2)).await.unwrap();
    let open = || async { deltalake::open_table(lake.url(&table())).await.unwrap() };
    let held = || async { lake.sink.committed(&table()).await.unwrap().unwrap() };
    // New properties and compactions are allowed.
    let properties = HashMap::from([("delta.logRetentionDuration".into(), "interval 60 days".into())]);
    open().await.set_tbl_properties().with_properties(properties).await.unwrap();
    open().await.optimize().await.unwrap();
    assert_eq!(held().await.foreign_changes, None);

    open().await.restore().with_version_to_restore(0).await.unwrap();
    let expected_words = |error: &crate::Error| {
        let (message, commits) = refusal_of(error);
        assert_eq!(message, "Another program changed rows since version 1");
        assert!(commits.contains("(RESTORE)"), "{commits}");
        assert!(error.hint_text().unwrap().contains("--resnapshot"));
    };
    expected_words(&held().await.foreign_changes.unwrap().refusal(&table()));
    let error = load(&lake.fixture, &schema, LoadKind::Merge, &rows(7..8), at(3)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Target);
    expected_words(&error);
    // Our own compaction does not lift the refusal.
    lake.sink.optimize(&table(), crate::sink::delta::Scope::SortByKey).await.unwrap();
    expected_words(&load(&lake.fixture, &schema, LoadKind::Merge, &rows(7..8), at(3)).await.unwrap_err());
    load(&lake.fixture, &schema, LoadKind::Replace, &rows(0..3), at(3)).await.unwrap();
    load(&lake.fixture, &schema, LoadKind::Merge, &rows(3..4), at(4)).await.unwrap();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &[0, 1, 2, 3].map(|id| row(id, "a"))));

    // With the option to continue, the load succeeds with one warning.
    open().await.delete().with_predicate("id = 2").await.unwrap();
    load(&lake.fixture, &schema, LoadKind::Merge, &rows(4..5), at(5)).await.unwrap_err();
    let warned =
        super::fixture(&lake.root, DeltaOptions { on_foreign_changes: OnForeignChanges::Warn, ..lake.sink.options.clone() });
    let loaded = load(&warned, &schema, LoadKind::Merge, &rows(4..5), at(5)).await.unwrap();
    assert!(loaded.warnings[0].contains("Another program changed rows since version"), "{loaded:?}");
    let loaded = load(&lake.fixture, &schema, LoadKind::Merge, &rows(5..6), at(6)).await.unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &[0, 1, 3, 4, 5].map(|id| row(id, "a"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_the_last_load_is_not_trusted() {
    let lake = TestLake::new();
    let schema = plain(&table());
    let rows: Vec<Change> = (0..5).map(|id| Up(json!({"id": id, "name": "a"}))).collect();
    load(&lake.fixture, &schema, LoadKind::Replace, &rows, at(1)).await.unwrap();
    let open = || async { deltalake::open_table(lake.url(&table())).await.unwrap() };
    open().await.delete().with_predicate("id = 2").await.unwrap();
    deltalake::checkpoints::create_checkpoint(&open().await, None).await.unwrap();
    for version in 0..1 {
        fs::remove_file(lake.folder(&table()).join(format!("_delta_log/{version:020}.json"))).unwrap();
    }
    let properties = HashMap::from([("delta.logRetentionDuration".into(), "interval 60 days".into())]);
    open().await.set_tbl_properties().with_properties(properties).await.unwrap();
    let error = load(&lake.fixture, &schema, LoadKind::Merge, &rows, at(2)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Target);
    assert!(error.message().contains("no longer reaches back") && error.hint_text().unwrap().contains("--resnapshot"));
    load(&lake.fixture, &schema, LoadKind::Replace, &rows, at(2)).await.unwrap();
    load(&lake.fixture, &schema, LoadKind::Merge, &rows, at(3)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deletion_vector_property_is_false_when_none_is_left() {
    let lake = TestLake::with(64 << 20, |options| DeltaOptions {
        deletion_vectors: DeletionVectors::On,
        target_file_bytes: 1,
        compact_after: 0,
        ..options
    });
    let schema = plain(&table());
    let row = |id: i64| Up(json!({"id": id, "name": "n", "score": 0.5}));
    // Two files, each with a deletion vector.
    for start in [0, 1000] {
        load(&lake.fixture, &schema, LoadKind::Merge, &(start..start + 100).map(row).collect::<Vec<_>>(), at(1 + start))
            .await
            .unwrap();
    }
    load(&lake.fixture, &schema, LoadKind::Merge, &[Del(json!({"id": 5})), Del(json!({"id": 1005}))], at(2000)).await.unwrap();
    let off = super::fixture(&lake.root, DeltaOptions { deletion_vectors: DeletionVectors::Off, ..lake.sink.options.clone() });
    let look = || async {
        let state = lake.sink.log(&table()).unwrap().state().await.unwrap().unwrap();
        let with_vector = state.files.iter().filter(|file| file.deletion_vector.is_some()).count();
        (with_vector, state.configuration["delta.enableDeletionVectors"].clone())
    };
    assert_eq!(look().await, (2, "true".into()));
    load(&off, &schema, LoadKind::Merge, &[row(7)], at(2001)).await.unwrap();
    assert_eq!(look().await, (1, "true".into()));
    load(&off, &schema, LoadKind::Merge, &[row(5000)], at(2002)).await.unwrap();
    assert_eq!(look().await, (1, "true".into()));
    load(&off, &schema, LoadKind::Merge, &[Del(json!({"id": 1007}))], at(2003)).await.unwrap();
    assert_eq!(look().await, (0, "false".into()));
    let state = lake.sink.log(&table()).unwrap().state().await.unwrap().unwrap();
    assert!(!state.configuration.contains_key("daplake.noDeletionVectors"));
}
