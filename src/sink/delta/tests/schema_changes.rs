//! Schema changes.

use serde_json::{Value, json};

use super::{TestLake, only};
use crate::error::Kind;
use crate::model::{Bookmark, TableRef};
use crate::schema::{Column, ColumnType, Nested, TableSchema};
use crate::sink::conformance::{Change::Del, Change::Up, TEXT, at, column, expected, load, plain, plan, read, reduced, schema};
use crate::sink::delta::DeltaOptions;
use crate::sink::{LoadKind, LoadPlan, Sink};

fn table() -> TableRef {
    TableRef::new("canvas", "accounts")
}

fn keyed(version: i64, value: Vec<Column>) -> TableSchema {
    schema(&table(), version, vec![column("id", ColumnType::Int64, true)], value)
}

fn fields(actions: &[Value]) -> Value {
    serde_json::from_str::<Value>(only(actions, "metaData")["schemaString"].as_str().unwrap()).unwrap()["fields"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nested_columns_gain_members_and_widen() {
    let inner = |members| ColumnType::Struct(members);
    let old = keyed(
        1,
        vec![
            column("s", inner(vec![column("a", ColumnType::Int32, true)]), false),
            column("l", ColumnType::List(Box::new(inner(vec![column("x", ColumnType::Int32, false)]))), false),
        ],
    );
    let lake = TestLake::with(64 << 20, |options| DeltaOptions { target_file_bytes: 1, ..options });
    let first = [
        json!({"id": 1, "s": {"a": 1}, "l": [{"x": 1}, null, {"x": null}]}),
        json!({"id": 2, "s": null, "l": []}),
        json!({"id": 3, "s": {"a": 3}, "l": null}),
    ];
    for (row, seconds) in first.iter().zip(1..) {
        load(&lake.fixture, &old, LoadKind::Merge, &[Up(row.clone())], at(seconds)).await.unwrap();
    }
    // A new member needs no rewrite.
    let grown = keyed(
        2,
        vec![
            column("s", inner(vec![column("b", TEXT, true), column("a", ColumnType::Int32, true)]), false),
            column("l", ColumnType::List(Box::new(inner(vec![column("x", ColumnType::Int32, false)]))), false),
        ],
    );
    let second = json!({"id": 4, "s": {"a": 4, "b": "new"}, "l": [{"x": 4}]});
    let loaded = load(&lake.fixture, &grown, LoadKind::Merge, &[Up(second.clone())], at(4)).await.unwrap();
    assert_eq!(loaded.schema_changes, ["`s.b` was added"]);
    let mut now: Vec<Value> = first.to_vec();
    now.push(second);
    // Members have the order of the table.
    let seen = keyed(
        2,
        vec![
            column("s", inner(vec![column("a", ColumnType::Int32, false), column("b", TEXT, false)]), false),
            column("l", ColumnType::List(Box::new(inner(vec![column("x", ColumnType::Int32, false)]))), false),
        ],
    );
    assert_eq!(read(&lake.fixture, &table()).await, expected(&seen, &now));

    // A wider member rewrites every file.
    let mut wide = grown.clone();
    wide.value[1].column_type = ColumnType::List(Box::new(inner(vec![column("x", ColumnType::Int64, false)])));
    let third = json!({"id": 1, "s": null, "l": [{"x": 1_i64 << 40}]});
    let loaded = load(&lake.fixture, &wide, LoadKind::Merge, &[Up(third.clone()), Del(json!({"id": 3}))], at(5)).await.unwrap();
    assert_eq!(loaded.schema_changes, ["`l[].x` was widened from integer to long"]);
    assert_eq!((loaded.deleted, loaded.rows), (1, Some(3)));
    let removed = lake.commit(&table(), 4).iter().filter(|action| action.get("remove").is_some()).count();
    assert_eq!(removed, 4);
    now[0] = third;
    now.remove(2);
    let mut seen = seen;
    seen.value[1].column_type = wide.value[1].column_type.clone();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&seen, &now));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_needs_mapping_keeps_old_files() {
    let lake = TestLake::new();
    let old = plain(&table());
    let first = json!({"id": 1, "name": "a", "score": 1.5});
    load(&lake.fixture, &old, LoadKind::Replace, &[Up(first.clone())], at(1)).await.unwrap();
    let mut new = old.clone();
    new.value.push(column("late one", TEXT, true));
    new.value.push(column("s", ColumnType::Struct(vec![column("in(ner)", TEXT, false)]), false));
    let second = json!({"id": 2, "name": "b", "late one": "x", "s": {"in(ner)": "y"}});
    load(&lake.fixture, &new, LoadKind::Merge, &[Up(second.clone())], at(2)).await.unwrap();
    let actions = lake.commit(&table(), 1);
    let protocol = only(&actions, "protocol");
    assert_eq!((&protocol["minReaderVersion"], &protocol["minWriterVersion"]), (&json!(2), &json!(5)));
    let fields = fields(&actions);
    assert_eq!(fields[0]["metadata"]["delta.columnMapping.physicalName"], "id", "names in old files stay");
    assert_eq!(only(&actions, "metaData")["configuration"]["delta.columnMapping.maxColumnId"], "6");
    assert_eq!(read(&lake.fixture, &table()).await, expected(&new, &[first.clone(), second.clone()]));
    // Merges still work: keys are found, files rewritten, statistics have physical names.
    let third = json!({"id": 1, "name": "c", "late one": "z"});
    let loaded = load(&lake.fixture, &new, LoadKind::Merge, &[Up(third.clone()), Del(json!({"id": 2}))], at(3)).await.unwrap();
    assert_eq!((loaded.deleted, loaded.rows), (1, Some(1)));
    assert_eq!(read(&lake.fixture, &table()).await, expected(&new, &[third]));
    let session = lake.engine.session();
    lake.sink.register(&session, None).await.unwrap();
    let found = session.sql("SELECT id FROM canvas.accounts WHERE \"late one\" = 'z'").await.unwrap().count().await.unwrap();
    assert_eq!(found, 1);
}

#[tokio::test]
async fn names_that_differ_only_in_case_are_refused() {
    let lake = TestLake::new();
    let schema = keyed(1, vec![column("Name", TEXT, false), column("name", TEXT, false)]);
    let error = load(&lake.fixture, &schema, LoadKind::Replace, &[], at(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.get("table")), (Kind::Schema, Some("canvas.accounts")));
    assert!(!lake.root.exists(), "nothing was created");
}

#[tokio::test]
async fn nested_columns_cannot_become_text_in_a_table_with_rows() {
    let lake = TestLake::new();
    let schema = keyed(1, vec![column("s", ColumnType::Struct(vec![column("a", TEXT, false)]), false)]);
    load(&lake.fixture, &schema, LoadKind::Replace, &[Up(json!({"id": 1, "s": {"a": "x"}}))], at(1)).await.unwrap();
    let as_text = LoadPlan { nested: Nested::Json, ..plan(&lake.fixture, &schema, LoadKind::Merge).await };
    let error = lake.sink.begin(as_text).await.err().unwrap();
    assert_eq!((error.kind(), error.get("column")), (Kind::Schema, Some("s")));
    // A new snapshot may change it.
    let text = keyed(1, vec![column("s", TEXT, false)]);
    let row = json!({"id": 1, "s": "{\"a\":\"x\"}"});
    let mut opened = lake
        .sink
        .begin(LoadPlan { nested: Nested::Json, ..plan(&lake.fixture, &schema, LoadKind::Replace).await })
        .await
        .unwrap();
    opened.write(reduced(&text, vec![crate::sink::conformance::changes(&text, &[Up(row.clone())])])).await.unwrap();
    opened.commit(at(2)).await.unwrap();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&text, &[row]));
    assert_eq!(only(&lake.commit(&table(), 1), "metaData")["configuration"]["daplake.nested"], "json");
}

#[tokio::test]
async fn a_null_relaxes_a_required_column() {
    let lake = TestLake::new();
    let schema = plain(&table());
    load(&lake.fixture, &schema, LoadKind::Replace, &[Up(json!({"id": 1, "name": "a"}))], at(1)).await.unwrap();
    assert_eq!(fields(&lake.commit(&table(), 0))[1]["nullable"], false);
    let reached = Bookmark { schema_version: 1, ..at(2) };
    let loaded = load(&lake.fixture, &schema, LoadKind::Merge, &[Up(json!({"id": 2, "name": null}))], reached).await.unwrap();
    assert_eq!(loaded.schema_changes, ["`name` has nulls although it is required, and may be null from now on"]);
    assert_eq!(fields(&lake.commit(&table(), 1))[1]["nullable"], true);
    // A later replacement without nulls does not make it required again.
    load(&lake.fixture, &schema, LoadKind::Replace, &[Up(json!({"id": 1, "name": "a"}))], at(3)).await.unwrap();
    assert!(lake.commit(&table(), 2).iter().all(|action| action.get("metaData").is_none()));
}

#[tokio::test]
async fn a_narrower_type_or_a_new_key_is_refused_until_a_snapshot() {
    let lake = TestLake::new();
    let decimal = |precision, scale| keyed(1, vec![column("price", ColumnType::Decimal { precision, scale }, false)]);
    let old = decimal(7, 3);
    let row = json!({"id": 1, "price": "1.250"});
    load(&lake.fixture, &old, LoadKind::Replace, &[Up(row.clone())], at(1)).await.unwrap();
    let other_key = schema(&table(), 2, vec![column("code", TEXT, true)], vec![column("id", ColumnType::Int64, false)]);
    for (schema, word) in [(decimal(7, 2), "price"), (decimal(6, 3), "price"), (other_key.clone(), "id")] {
        let error = lake.sink.begin(plan(&lake.fixture, &schema, LoadKind::Merge).await).await.err().unwrap();
        assert_eq!((error.kind(), error.get("table")), (Kind::Schema, Some("canvas.accounts")));
        assert!(error.hint_text().unwrap().contains("--resnapshot") && format!("{error:?}").contains(word), "{error:?}");
        assert_eq!(read(&lake.fixture, &table()).await, expected(&old, std::slice::from_ref(&row)), "nothing was changed");
    }
    let row = json!({"code": "a", "id": 1});
    load(&lake.fixture, &other_key, LoadKind::Replace, &[Up(row.clone())], at(2)).await.unwrap();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&other_key, &[row]));
}
