//! Table modes, soft deletes and partitions.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::TestLake;
use super::history::table;
use super::history_in_modes::{Kept, load_timed, shown, with_system_columns};
use crate::error::Kind;
use crate::model::{TableRef, Timestamp};
use crate::schema::{ColumnRecord, ColumnType, Deletes, TableMode, TableSchema};
use crate::sink::conformance::{
    Change, Change::Del, Change::Up, TEXT, at, changes, column, expected, load, plain, plan, read, reduced, schema,
};
use crate::sink::delta::{DeletionVectors, DeltaOptions, Scope};
use crate::sink::{Layout, LoadKind, Sink};

fn soft_row(id: i64, name: &str, deleted: bool) -> Value {
    json!({"id": id, "name": name, "_deleted": deleted})
}

fn soft_schema() -> TableSchema {
    with_system_columns(plain(&table()), Kept::SoftDeletes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_can_switch_between_removing_and_soft_deletes() {
    let lake = TestLake::new();
    let schema = plain(&table());
    let up = |id: i64, name: &str| (Up(json!({"id": id, "name": name})), 1);
    let del = |id: i64| (Del(json!({"id": id})), 2);
    let none = Layout::default;
    load_timed(&lake.stage(), &schema, LoadKind::Replace, none(), &[up(1, "a"), up(2, "b"), up(3, "c")], 1, 9).await.unwrap();
    load_timed(&lake.stage(), &schema, LoadKind::Merge, none(), &[del(3)], 2, 9).await.unwrap();

    // With soft deletes, existing rows get `_deleted` = false: readers would see nulls otherwise.
    let loaded =
        load_timed(&lake.stage(), &schema, LoadKind::Merge, Kept::SoftDeletes.layout(), &[del(2)], 3, 9).await.unwrap();
    assert_eq!((loaded.deleted, loaded.rows), (1, Some(2)));
    let now = [soft_row(1, "a", false), soft_row(2, "b", true)];
    assert_eq!(read(&lake.fixture, &table()).await, expected(&soft_schema(), &now));
    assert_eq!(lake.sink.status(&table()).await.unwrap().unwrap().kept_as.as_deref(), Some("current, deletes marked"));

    // A run without the option keeps soft deletes. A key that is inserted again is no longer deleted.
    load_timed(&lake.stage(), &schema, LoadKind::Merge, none(), &[up(2, "B"), del(1), del(7)], 4, 9).await.unwrap();
    let now = [soft_row(1, "a", true), soft_row(2, "B", false)];
    assert_eq!(read(&lake.fixture, &table()).await, expected(&soft_schema(), &now));
    let loaded = load_timed(&lake.stage(), &schema, LoadKind::Replace, none(), &[up(5, "e")], 5, 9).await.unwrap();
    assert_eq!((loaded.deleted, loaded.rows), (1, Some(3)), "a new snapshot soft-deletes the keys that it lacks");

    let removing = Layout { deletes: Some(Deletes::Remove), ..Layout::default() };
    let loaded = load_timed(&lake.stage(), &schema, LoadKind::Merge, removing, &[up(6, "f")], 6, 9).await.unwrap();
    assert!(loaded.schema_changes.iter().any(|change| change.contains("_deleted")), "{loaded:?}");
    let now = [json!({"id": 5, "name": "e"}), json!({"id": 6, "name": "f"})];
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &now));
    let state = lake.sink.log(&table()).unwrap().state().await.unwrap().unwrap();
    assert!(state.columns.iter().all(|column| column.name != "_deleted"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_stays_in_its_mode() {
    let lake = TestLake::new();
    let schema = plain(&table());
    load_timed(
        &lake.stage(),
        &schema,
        LoadKind::Replace,
        Kept::History.layout(),
        &[(Up(json!({"id": 1, "name": "a"})), 1)],
        1,
        9,
    )
    .await
    .unwrap();
    for mode in [TableMode::Current, TableMode::Changes] {
        let wanted = Layout { mode: Some(mode), ..Layout::default() };
        let begun = load_timed(&lake.stage(), &schema, LoadKind::Replace, wanted.clone(), &[], 2, 9).await.unwrap_err();
        for error in [begun, lake.sink.validate_layout(&table(), &wanted).await.unwrap_err()] {
            assert_eq!(error.kind(), Kind::Schema);
            assert!(error.hint_text().unwrap().contains("--mode history"), "{error:?}");
        }
    }
    lake.sink.validate_layout(&table(), &Layout::default()).await.unwrap();
    assert_eq!(lake.sink.status(&table()).await.unwrap().unwrap().kept_as.as_deref(), Some("history"));

    // A column of the service must not have the name of a system column.
    let lake = TestLake::new();
    let odd = schema_with("_Current");
    let error = load_timed(&lake.stage(), &odd, LoadKind::Replace, Kept::History.layout(), &[], 1, 9).await.unwrap_err();
    assert_eq!((error.kind(), error.get("column")), (Kind::Schema, Some("_Current")));
    load_timed(&lake.stage(), &odd, LoadKind::Replace, Layout::default(), &[], 1, 9).await.unwrap();
}

fn schema_with(name: &str) -> TableSchema {
    schema(&table(), 1, vec![column("id", ColumnType::Int64, true)], vec![column(name, TEXT, false)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_with_the_same_time_is_corrected_and_not_repeated() {
    let lake = TestLake::new();
    let schema = plain(&table());
    let up = |name: &str, at: i64| (Up(json!({"id": 1, "name": name})), at);
    let history = |from: i64, to: Option<i64>, name: &str| {
        let mut row = json!({"id": 1, "name": name, "_valid_from": shown(from), "_current": to.is_none()});
        row["_valid_to"] = to.map_or(Value::Null, shown);
        row
    };
    let columns = with_system_columns(schema.clone(), Kept::History);
    load_timed(&lake.stage(), &schema, LoadKind::Replace, Kept::History.layout(), &[up("a", 10)], 1, 9).await.unwrap();
    // The same time with other values is a correction. A later time with the same values has no effect. Then a delete, and a new row
    // with the key.
    load_timed(&lake.stage(), &schema, LoadKind::Merge, Layout::default(), &[up("A", 10)], 2, 9).await.unwrap();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&columns, &[history(10, None, "A")]));
    load_timed(&lake.stage(), &schema, LoadKind::Replace, Layout::default(), &[up("A", 11)], 3, 9).await.unwrap();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&columns, &[history(10, None, "A")]));
    load_timed(&lake.stage(), &schema, LoadKind::Merge, Layout::default(), &[(Del(json!({"id": 1})), 20)], 4, 9).await.unwrap();
    load_timed(&lake.stage(), &schema, LoadKind::Merge, Layout::default(), &[up("A", 30)], 5, 9).await.unwrap();
    let now = [history(10, Some(20), "A"), history(30, None, "A")];
    assert_eq!(read(&lake.fixture, &table()).await, expected(&columns, &now));
}

/// A log table, which is partitioned by day by default.
pub(crate) fn events() -> TableSchema {
    schema(
        &TableRef::new("canvas_logs", "web_logs"),
        1,
        vec![column("id", TEXT, true)],
        vec![column("timestamp", ColumnType::Timestamp, true), column("url", TEXT, false)],
    )
}

fn event(id: i64, day: u32, url: &str) -> Value {
    json!({"id": format!("{id:032}"), "timestamp": format!("2026-03-{day:02}T10:00:00Z"), "url": url})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_partitioned_by_day_and_only_changed_days_are_written() {
    for deletion_vectors in [DeletionVectors::On, DeletionVectors::Off] {
        let lake = TestLake::with(64 << 20, |options| DeltaOptions { deletion_vectors, ..options });
        let (schema, table) = (events(), TableRef::new("canvas_logs", "web_logs"));
        let mut rows: Vec<Value> = (0..400).map(|id| event(id, 1 + (id % 40 / 2) as u32, "a")).collect();
        let ups: Vec<Change> = rows.iter().cloned().map(Up).collect();
        load(&lake.fixture, &schema, LoadKind::Replace, &ups, at(1)).await.unwrap();
        let status = lake.sink.status(&table).await.unwrap().unwrap();
        assert_eq!((status.kept_as.as_deref(), status.files), (Some("current by day(timestamp)"), Some(20)));
        let least = deletion_vectors == DeletionVectors::Off;
        assert_eq!(status.protocol.as_deref() == Some("1/2"), least, "partitions require nothing of readers");

        // One row changes, one moves to another day, one is new.
        let (changed, moved, new) = (event(4, 3, "b"), event(10, 20, "b"), event(1000, 7, "b"));
        load(&lake.fixture, &schema, LoadKind::Merge, &[&changed, &moved, &new].map(|row| Up(row.clone())), at(2))
            .await
            .unwrap();
        let commit = lake.commit(&table, 1);
        let days = |kind: &str| -> BTreeSet<String> {
            let actions = commit.iter().filter_map(|action| action.get(kind));
            actions.map(|action| action["partitionValues"]["_day"].as_str().unwrap().to_owned()).collect()
        };
        let owned = |days: &[&str]| days.iter().map(|day| format!("2026-03-{day}")).collect::<BTreeSet<_>>();
        assert_eq!(days("remove"), owned(&["03", "06"]));
        assert!(days("add").is_subset(&owned(&["03", "06", "07", "20"])), "{:?}", days("add"));
        rows.retain(|row| row["id"] != changed["id"] && row["id"] != moved["id"]);
        rows.extend([changed, moved, new]);
        let expected_now = || {
            let mut columns = schema.clone();
            columns.value.push(column("_day", ColumnType::Date, false));
            let days = rows.iter().map(|row| {
                let mut row = row.clone();
                row["_day"] = row["timestamp"].as_str().unwrap()[..10].into();
                row
            });
            expected(&columns, &days.collect::<Vec<_>>())
        };
        assert_eq!(read(&lake.fixture, &table).await, expected_now());

        // Compaction does not mix days.
        let done = lake.sink.optimize(&table, Scope::SortByKey).await.unwrap();
        assert!(done.commits > 0);
        assert_eq!(lake.sink.status(&table).await.unwrap().unwrap().files, Some(20));
        assert_eq!(read(&lake.fixture, &table).await, expected_now());
        let other = Layout { partition_by: Some("month(timestamp)".parse().unwrap()), ..Layout::default() };
        assert_eq!(lake.sink.validate_layout(&table, &other).await.unwrap_err().kind(), Kind::Schema);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_times_and_dates_partition_and_existing_tables_keep_their_partitions() {
    let lake = TestLake::new();
    let by = |text: &str| Layout { partition_by: Some(text.parse().unwrap()), ..Layout::default() };
    let schema = events();
    for wrong in ["day(url)", "day(nowhere)"] {
        let error = load_timed(&lake.stage(), &schema, LoadKind::Replace, by(wrong), &[], 1, 9).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Schema);
    }
    // A log table from before partitions.
    let old = plain(&table());
    load_timed(&lake.stage(), &old, LoadKind::Replace, Layout::default(), &[], 1, 9).await.unwrap();
    let error = load_timed(&lake.stage(), &old, LoadKind::Replace, by("day(name)"), &[], 2, 9).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("new --target"), "{error:?}");
    load_timed(&lake.stage(), &old, LoadKind::Merge, Layout::default(), &[(Up(json!({"id": 1, "name": "a"})), 1)], 2, 9)
        .await
        .unwrap();
    assert!(
        lake.commit(&table(), 0)
            .iter()
            .filter_map(|action| action.get("metaData"))
            .all(|data| data["partitionColumns"] == json!([]))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_first_load_leaves_no_partition_folders() {
    let lake = TestLake::new();
    let schema = events();
    let rows: Vec<Change> = (0..4).map(|id| Up(event(id, 1 + id as u32, "a"))).collect();
    for aborts in [true, false] {
        let mut opened = lake.sink.begin(plan(&lake.fixture, &schema, LoadKind::Replace).await).await.unwrap();
        opened.write(reduced(&schema, vec![changes(&schema, &rows)])).await.unwrap();
        assert!(lake.folder(&schema.table).join("_day=2026-03-01").exists());
        if aborts {
            opened.abort().await.unwrap()
        } else {
            drop(opened)
        }
        assert!(!lake.folder(&schema.table).exists(), "aborted: {aborts}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_partitions_need_little_memory() {
    let lake = TestLake::with(8 << 20, |options| options);
    let schema = events();
    let moment = |row: i64| Timestamp::from_micros((row * 7919 % 400) * 86_400_000_000).to_string();
    let rows: Vec<Change> =
        (0..6000).map(|id| Up(json!({"id": format!("{id:032}"), "timestamp": moment(id), "url": "u".repeat(200)}))).collect();
    let loaded = load(&lake.fixture, &schema, LoadKind::Replace, &rows, at(1)).await.unwrap();
    assert_eq!(loaded.rows, Some(6000));
    let state = lake.sink.log(&schema.table).unwrap().state().await.unwrap().unwrap();
    let days: BTreeSet<_> = state.files.iter().map(|file| file.partition.clone().unwrap()).collect();
    assert_eq!((days.len(), state.files.len()), (400, 400), "a file per day");
    assert_eq!(lake.engine.memory_pool().reserved(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_log_has_every_change_once() {
    let lake = TestLake::new();
    let schema = plain(&table());
    let logged = with_system_columns(plain(&table()), Kept::Changes);
    let up = |id: i64, name: &str, at: i64| (Up(json!({"id": id, "name": name})), at);
    let seen = |id: i64, name: &str, at: i64| json!({"id": id, "name": name, "_action": "U", "_ts": shown(at)});
    let none = Layout::default;
    let first = [up(1, "a", 1000), up(2, "b", 1000)];
    load_timed(&lake.stage(), &schema, LoadKind::Replace, Kept::Changes.layout(), &first, 2, 9).await.unwrap();
    // Several changes of a key in one result, one of them twice, in batches of two.
    let increment = [up(1, "b", 2500), up(1, "c", 2600), up(3, "x", 2600), up(1, "b", 2500), (Del(json!({"id": 2})), 2700)];
    let loaded = load_timed(&lake.stage(), &schema, LoadKind::Merge, none(), &increment, 3, 2).await.unwrap();
    assert_eq!((loaded.upserted, loaded.deleted), (3, 1));
    let now = [
        seen(1, "a", 1000),
        seen(2, "b", 1000),
        seen(1, "b", 2500),
        seen(1, "c", 2600),
        seen(3, "x", 2600),
        json!({"id": 2, "_action": "D", "_ts": shown(2700)}),
    ];
    assert_eq!(read(&lake.fixture, &table()).await, expected(&logged, &now));
    // The same increment again, with a new change and one with the same time and another value.
    let again: Vec<_> = increment.iter().cloned().chain([up(3, "y", 2800), up(1, "C", 2600)]).collect();
    let loaded = load_timed(&lake.stage(), &schema, LoadKind::Merge, none(), &again, 4, 3).await.unwrap();
    assert_eq!((loaded.upserted, loaded.deleted), (2, 0));
    let now: Vec<Value> = now.into_iter().chain([seen(3, "y", 2800), seen(1, "C", 2600)]).collect();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&logged, &now));
    // A snapshot that is older than the log has no effect on later changes.
    let old = [up(1, "a", 1000), up(2, "b", 1000)];
    load_timed(&lake.stage(), &schema, LoadKind::Replace, none(), &old, 2, 9).await.unwrap();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&logged, &now));
    assert_eq!(lake.sink.committed(&table()).await.unwrap().unwrap().bookmark, at(2));
    load_timed(&lake.stage(), &schema, LoadKind::Merge, none(), &again, 4, 9).await.unwrap();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&logged, &now));
    assert_eq!(lake.engine.memory_pool().reserved(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_changes_do_not_alter_a_history() {
    let lake = TestLake::new();
    let schema = plain(&table());
    let versions = with_system_columns(plain(&table()), Kept::History);
    let up = |id: i64, name: &str, at: i64| (Up(json!({"id": id, "name": name})), at);
    let del = |id: i64, at: i64| (Del(json!({"id": id})), at);
    let version = |id: i64, name: &str, from: i64, to: Option<i64>| {
        json!({"id": id, "name": name, "_valid_from": shown(from), "_valid_to": to.map_or(Value::Null, shown),
            "_current": to.is_none()})
    };
    let none = Layout::default;
    let load = async |kind: LoadKind, rows: &[super::history_in_modes::Timed], second: i64| {
        let layout = if second == 2 && kind == LoadKind::Replace { Kept::History.layout() } else { none() };
        load_timed(&lake.stage(), &schema, kind, layout, rows, second, 9).await.unwrap()
    };
    let snapshot = [up(1, "a", 1000), up(2, "b", 1000), up(3, "c", 1000)];
    load(LoadKind::Replace, &snapshot, 2).await;
    load(LoadKind::Merge, &[up(1, "A", 2500), del(2, 2600)], 3).await;
    load(LoadKind::Merge, &[up(1, "AA", 3500), up(4, "d", 3600), del(3, 3700)], 4).await;
    load(LoadKind::Merge, &[del(4, 4500)], 5).await;
    let now = [
        version(1, "a", 1000, Some(2500)),
        version(1, "A", 2500, Some(3500)),
        version(1, "AA", 3500, None),
        version(2, "b", 1000, Some(2600)),
        version(3, "c", 1000, Some(3700)),
        version(4, "d", 3600, Some(4500)),
    ];
    let check = async || assert_eq!(read(&lake.fixture, &table()).await, expected(&versions, &now));
    check().await;
    // Earlier increments again: an older update, an older delete, an update of a row that was deleted later.
    load(LoadKind::Merge, &[up(1, "A", 2500), del(2, 2600)], 6).await;
    check().await;
    load(LoadKind::Merge, &[del(1, 3000), up(4, "d", 3600), up(3, "c", 1000)], 7).await;
    check().await;
    // An older snapshot, and then all increments since.
    load(LoadKind::Replace, &snapshot, 2).await;
    check().await;
    assert_eq!(lake.sink.committed(&table()).await.unwrap().unwrap().bookmark, at(2));
    load(LoadKind::Merge, &[up(1, "AA", 3500), del(2, 2600), del(3, 3700), del(4, 4500)], 5).await;
    check().await;
    // A row that was deleted may be inserted again, and an unknown row may arrive late.
    load(LoadKind::Merge, &[up(2, "new", 5500), up(9, "late", 1500)], 8).await;
    let now: Vec<Value> = now.iter().cloned().chain([version(2, "new", 5500, None), version(9, "late", 1500, None)]).collect();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&versions, &now));
    assert_eq!(lake.engine.memory_pool().reserved(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_old_rows_cannot_take_need_a_new_target() {
    let of =
        |kind: ColumnType| schema(&table(), 2, vec![column("id", ColumnType::Int64, true)], vec![column("x", kind, false)]);
    for kept in [Kept::SoftDeletes, Kept::Changes, Kept::History] {
        let (lake, fresh) = (TestLake::new(), TestLake::new());
        let old = [(Up(json!({"id": 1, "x": "a"})), 1000)];
        load_timed(&lake.stage(), &of(TEXT), LoadKind::Replace, kept.layout(), &old, 2, 9).await.unwrap();
        let new = [(Up(json!({"id": 1, "x": 5})), 1000)];
        for kind in [LoadKind::Merge, LoadKind::Replace] {
            let error =
                load_timed(&lake.stage(), &of(ColumnType::Int64), kind, Layout::default(), &new, 3, 9).await.unwrap_err();
            let hint = error.hint_text().unwrap();
            assert!(error.kind() == Kind::Schema && hint.contains("new --target"), "{kept:?} {error:?}");
            assert!(!hint.contains("column rules"), "the service changed the type: {hint}");
        }
        load_timed(&fresh.stage(), &of(ColumnType::Int64), LoadKind::Replace, kept.layout(), &new, 3, 9).await.unwrap();
    }
    // If a snapshot replaces all rows, the hint is to reload.
    let lake = TestLake::new();
    let old = [(Up(json!({"id": 1, "x": "a"})), 1000)];
    load_timed(&lake.stage(), &of(TEXT), LoadKind::Replace, Layout::default(), &old, 2, 9).await.unwrap();
    let new = [(Up(json!({"id": 1, "x": 5})), 1000)];
    let (stage, wider) = (lake.stage(), of(ColumnType::Int64));
    let load = async |kind| load_timed(&stage, &wider, kind, Layout::default(), &new, 3, 9).await;
    assert!(load(LoadKind::Merge).await.unwrap_err().hint_text().unwrap().contains("--resnapshot"));
    load(LoadKind::Replace).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hashed_column_that_no_longer_exists_does_not_block_its_table() {
    let of = |version: i64, has: bool| {
        let mut value = vec![column("name", TEXT, false)];
        value.extend(has.then(|| column("s", TEXT, false)));
        schema(&table(), version, vec![column("id", ColumnType::Int64, true)], value)
    };
    let record = |hashed: bool| ColumnRecord {
        hashed: if hashed { vec!["s".into()] } else { Vec::new() },
        fingerprint: hashed.then(|| "one".to_owned()),
        ..ColumnRecord::default()
    };
    for kept in [Kept::Current, Kept::SoftDeletes, Kept::Changes, Kept::History] {
        let lake = TestLake::new();
        let layout = |hashed: bool, first: bool| {
            let base = if first { kept.layout() } else { Layout::default() };
            Layout { columns: record(hashed), ..base }
        };
        let up = |id: i64, s: Option<&str>, at: i64| {
            let mut row = json!({"id": id, "name": format!("n{at}")});
            s.into_iter().for_each(|s| row["s"] = json!(s));
            (Up(row), at)
        };
        let check = async |record: &ColumnRecord, schema: &TableSchema| {
            lake.sink.committed(&table()).await.unwrap().unwrap().check_columns(record, schema)
        };
        let with = [up(1, Some("h1"), 1000), up(2, Some("h2"), 1000)];
        load_timed(&lake.stage(), &of(1, true), LoadKind::Replace, layout(true, true), &with, 2, 9).await.unwrap();
        check(&record(false), &of(2, false)).await.unwrap();
        let without = [up(1, None, 2500), up(3, None, 2500)];
        load_timed(&lake.stage(), &of(2, false), LoadKind::Merge, layout(false, false), &without, 3, 9).await.unwrap();
        // A snapshot without the column is accepted even if old rows stay, and so are later increments.
        if kept != Kept::Current {
            let all = [up(1, None, 2500), up(2, None, 1000), up(3, None, 2500)];
            load_timed(&lake.stage(), &of(2, false), LoadKind::Replace, layout(false, false), &all, 4, 9).await.unwrap();
        }
        // If the column returns, it must be hashed with the same key.
        let back = [up(4, Some("h4"), 4500)];
        let error = check(&record(false), &of(3, true)).await.unwrap_err();
        let way = if kept == Kept::Current { "--resnapshot" } else { "new --target" };
        assert!(error.kind() == Kind::Schema && error.hint_text().unwrap().contains(way), "{kept:?} {error:?}");
        load_timed(&lake.stage(), &of(3, true), LoadKind::Merge, layout(false, false), &back, 5, 9).await.unwrap_err();
        let other = ColumnRecord { fingerprint: Some("two".into()), ..record(true) };
        check(&other, &of(3, true)).await.unwrap_err();
        check(&record(true), &of(3, true)).await.unwrap();
        load_timed(&lake.stage(), &of(3, true), LoadKind::Merge, layout(true, false), &back, 5, 9).await.unwrap();
        let rows = read(&lake.fixture, &table()).await;
        let has = |text: &str| rows.iter().any(|row| row.contains(text));
        // In mode `current`, the snapshot replaced the row that had the column.
        assert!(has("s=h4") && has("s=h2") == (kept != Kept::SoftDeletes), "{kept:?} {rows:?}");
    }
}
