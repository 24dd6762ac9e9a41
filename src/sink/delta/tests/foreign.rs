//! Other programs at the same place: what is refused, what is lived with.

use std::collections::HashMap;
use std::fs;

use deltalake::DeltaTable;
use deltalake::kernel::{DataType, PrimitiveType};
use serde_json::json;

use super::{Lake, only};
use crate::error::Kind;
use crate::model::TableRef;
use crate::sink::conformance::{Change, Change::Del, Change::Up, at, changes, expected, load, plain, plan, read, reduced};
use crate::sink::delta::{DeltaOptions, files};
use crate::sink::{LoadKind, Sink};

fn table() -> TableRef {
    TableRef::new("canvas", "accounts")
}

async fn refused(lake: &Lake) -> crate::Error {
    let error = lake.sink.held(&table()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Target, "{error:?}");
    assert!(error.hint_text().is_some());
    let schema = plain(&table());
    let plan = crate::sink::LoadPlan {
        table: table(),
        schema: std::sync::Arc::new(schema),
        nested: Default::default(),
        kind: LoadKind::Replace,
        expects: None,
        run_id: String::new(),
        job_id: String::new(),
    };
    let begun = lake.sink.begin(plan).await.err().unwrap();
    assert_eq!(begun.kind(), Kind::Target);
    begun
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delta_table_of_another_program_is_not_touched() {
    let lake = Lake::new();
    fs::create_dir_all(lake.folder(&table())).unwrap();
    DeltaTable::try_from_url(lake.url(&table()))
        .await
        .unwrap()
        .create()
        .with_column("id", DataType::Primitive(PrimitiveType::Long), false, None)
        .await
        .unwrap();
    let error = refused(&lake).await;
    assert!(error.message().contains("did not make"));
    assert_eq!(lake.sink.list(None).await.unwrap(), [], "it is not one of ours");
    assert!(!lake.folder(&table()).join("_delta_log/00000000000000000001.json").exists());
}

#[tokio::test]
async fn anything_else_in_the_place_of_a_table_is_refused() {
    for name in ["notes.txt", "part-0.parquet", "sub/file"] {
        let lake = Lake::new();
        let path = lake.folder(&table()).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        refused(&lake).await;
        assert_eq!(fs::read_to_string(&path).unwrap(), "x");
    }
    let lake = Lake::new();
    fs::create_dir_all(lake.root.join("canvas")).unwrap();
    fs::write(lake.folder(&table()), "a file").unwrap();
    refused(&lake).await;
}

#[tokio::test]
async fn leftovers_of_a_killed_first_load_do_not_hinder_the_next() {
    let lake = Lake::new();
    fs::create_dir_all(lake.folder(&table())).unwrap();
    for leftover in [files::new_name(), format!("{}#1", files::new_name())] {
        fs::write(lake.folder(&table()).join(leftover), "half a file").unwrap();
    }
    let schema = plain(&table());
    let row = json!({"id": 1, "name": "a"});
    load(&lake.fixture, &schema, LoadKind::Replace, &[Up(row.clone())], at(1)).await.unwrap();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &[row]));
}

#[tokio::test]
async fn a_folder_that_was_copied_under_another_name_is_refused() {
    let lake = Lake::new();
    let other = TableRef::new("canvas", "users");
    load(&lake.fixture, &plain(&other), LoadKind::Replace, &[], at(1)).await.unwrap();
    fs::rename(lake.folder(&other), lake.folder(&table())).unwrap();
    refused(&lake).await;
}

/// Appends a commit by hand, as another program might.
fn commit_by_hand(lake: &Lake, version: u64, actions: &[serde_json::Value]) {
    let text: Vec<String> = actions.iter().map(ToString::to_string).collect();
    fs::write(lake.folder(&table()).join(format!("_delta_log/{version:020}.json")), text.join("\n")).unwrap();
}

#[tokio::test]
async fn deletion_vectors_stop_a_merge_and_not_a_replacement() {
    let lake = Lake::new();
    let schema = plain(&table());
    load(&lake.fixture, &schema, LoadKind::Replace, &[1, 2].map(|id| Up(json!({"id": id, "name": "a"}))), at(1)).await.unwrap();
    let first = lake.commit(&table(), 0);
    let mut add = only(&first, "add").clone();
    // One deleted row, inline: the kernel only carries it through the log here.
    add["deletionVector"] = json!({"storageType": "i", "pathOrInlineDv": "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", "sizeInBytes": 44, "cardinality": 1});
    let path = add["path"].clone();
    let features = json!(["deletionVectors"]);
    commit_by_hand(
        &lake,
        1,
        &[
            json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}}),
            json!({"remove": {"path": path, "dataChange": true, "deletionTimestamp": 1}}),
            json!({"add": add}),
        ],
    );
    let error = load(&lake.fixture, &schema, LoadKind::Merge, &[Up(json!({"id": 9, "name": "z"}))], at(2)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Target);
    assert!(error.message().contains("deletion vectors"));
    assert_eq!(lake.sink.status(&table()).await.unwrap().unwrap().rows, None);
    let row = json!({"id": 9, "name": "z"});
    load(&lake.fixture, &schema, LoadKind::Replace, &[Up(row.clone())], at(2)).await.unwrap();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &[row]));
}

#[tokio::test]
async fn properties_that_would_be_broken_are_refused() {
    for (property, value) in [("delta.constraints.c", "id > 0"), ("delta.appendOnly", "true")] {
        let lake = Lake::new();
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
    let lake = Lake::new();
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
async fn files_that_another_program_compacted_are_merged_into() {
    let lake = Lake::with(64 << 20, |options| DeltaOptions { target_file_bytes: 1, ..options });
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

    // A commit of another program while we load is a conflict, even if it changed no row.
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
async fn only_files_that_hold_a_key_are_written_anew() {
    // Statistics come from log entries or from a checkpoint.
    for checkpoint_interval in [10, 1] {
        only_touched_files(Lake::with(64 << 20, |options| DeltaOptions {
            target_file_bytes: 1,
            checkpoint_interval,
            ..options
        }))
        .await;
    }
}

async fn only_touched_files(lake: Lake) {
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
    // One key of the second file, one between the others' keys, one beyond all.
    let rows = [Up(json!({"id": 15, "name": "b"})), Up(json!({"id": 100, "name": "b"})), Del(json!({"id": -1}))];
    load(&lake.fixture, &schema, LoadKind::Merge, &rows, at(2)).await.unwrap();
    assert_eq!(removed(1), 1);
    // A whole file goes without being written anew.
    let all: Vec<Change> = (30..40).map(|id| Del(json!({"id": id}))).collect();
    let loaded = load(&lake.fixture, &schema, LoadKind::Merge, &all, at(3)).await.unwrap();
    assert_eq!((loaded.deleted, loaded.bytes_written, loaded.rows), (10, 0, Some(31)));
    assert_eq!(removed(2), 1);
    // Files that hold none of the keys are not even opened: they could be gone.
    let state = lake.sink.log(&table()).unwrap().state().await.unwrap().unwrap();
    let bounded = state.files.iter().filter(|file| file.key_bounds(&state.columns[0]).is_some()).count();
    assert_eq!(bounded, state.files.len());
}
