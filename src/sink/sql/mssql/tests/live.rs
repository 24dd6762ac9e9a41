//! The contract of all targets on a real server, if one is given.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use serde_json::{Value, json};

use super::served;
use crate::error::Kind;
use crate::model::TableRef;
use crate::schema::{Nested, arrow_type};
use crate::sink::conformance::{self, Change, Fixture, at, load};
use crate::sink::sql::{SqlOptions, SqlSink};
use crate::sink::{LoadKind, mode_parity};

#[allow(clippy::print_stderr, unreachable_pub, missing_docs, reason = "the tests in `tests/it` include the same file")]
mod server;

use server::{Column, Database};

/// The Arrow type by which a column is compared.
fn data_type(column: &Column) -> DataType {
    match column.base.as_str() {
        _ if column.lookup.is_some() => DataType::Utf8,
        "bit" => DataType::Boolean,
        "smallint" => DataType::Int16,
        "int" => DataType::Int32,
        "bigint" => DataType::Int64,
        "real" => DataType::Float32,
        "float" => DataType::Float64,
        "decimal" | "numeric" => DataType::Decimal128(column.precision, column.scale),
        "date" => DataType::Date32,
        "datetime2" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "varchar" if ["nested", "list"].contains(&column.name.as_str()) => {
            let types = conformance::every_type();
            let found = types.into_iter().find(|(known, _)| known.name == column.name).expect("a known nested column");
            arrow_type(&found.0.column_type, Nested::Typed)
        }
        _ => DataType::Utf8,
    }
}

async fn read(database: &Database, table: &TableRef) -> Vec<RecordBatch> {
    let columns = database.columns(table.namespace.as_str(), &table.table).await;
    let fields: Vec<Field> = columns.iter().map(|column| Field::new(&column.name, data_type(column), true)).collect();
    let mut rows = database.rows(table.namespace.as_str(), &table.table, &["ip"]).await;
    for row in &mut rows {
        for field in &fields {
            let value = &mut row[field.name()];
            *value = match (field.data_type(), &*value) {
                (DataType::Float32 | DataType::Float64, Value::String(text)) => match text.parse::<f64>().unwrap() {
                    // The contract sends subnormal numbers, which become zero here.
                    0.0 => subnormal(field.name()),
                    number => json!(number),
                },
                (DataType::Struct(_) | DataType::List(_), Value::String(text)) => serde_json::from_str(text).unwrap(),
                _ => continue,
            };
        }
    }
    let mut decoder = arrow::json::ReaderBuilder::new(Arc::new(Schema::new(fields)))
        .with_batch_size(rows.len().max(1))
        .build_decoder()
        .unwrap();
    decoder.serialize(&rows).unwrap();
    decoder.flush().unwrap().into_iter().collect()
}

/// The subnormal number that the contract sends for a column; zero for others.
fn subnormal(column: &str) -> Value {
    let types = conformance::every_type().into_iter().filter(|(known, _)| known.name == column);
    let numbers = types.flat_map(|(_, values)| values).filter_map(|value| value.as_f64());
    let is_subnormal = |number: &f64| {
        *number != 0.0 && number.abs() < if column == "f32" { f64::from(f32::MIN_POSITIVE) } else { f64::MIN_POSITIVE }
    };
    json!(numbers.into_iter().find(is_subnormal).unwrap_or_default())
}

async fn fixture() -> Option<(Arc<Database>, Fixture)> {
    let database = Arc::new(Database::new().await?);
    let sink = SqlSink::open(&database.url.parse().unwrap(), SqlOptions::default()).unwrap();
    let shared = Arc::clone(&database);
    let read = move |table: TableRef| {
        let database = Arc::clone(&shared);
        Box::pin(async move { read(&database, &table).await }) as futures::future::BoxFuture<'static, Vec<RecordBatch>>
    };
    Some((database, Fixture { sink: Box::new(sink), read: Box::new(read) }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_on_sql_server() {
    let Some((_database, fixture)) = fixture().await else { return };
    conformance::all(&fixture).await;
    mode_parity::all(&fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_change_and_keep_what_the_user_added() {
    let Some((database, fixture)) = fixture().await else { return };
    let table = TableRef::new("canvas", "grown");
    let value = |name: Value, more: bool| {
        let mut value = json!({
            "name": name,
            "state": {"type": "string", "enum": ["one", "two"]},
            "score": {"type": "number", "format": "float32", "default": 0.5},
        });
        if more {
            value["late"] = json!({"type": "boolean", "default": true});
        }
        value
    };
    let old = served(&table, 1, value(json!({"type": "string", "maxLength": 3, "default": "x"}), false), &["name", "state"]);
    let rows = [
        Change::Up(json!({"id": 1, "name": "éé😀", "state": "one"})),
        Change::Up(json!({"id": 2, "name": "b", "state": "never heard of"})),
    ];
    load(&fixture, &old, LoadKind::Replace, &rows, at(1)).await.unwrap();
    for statement in [
        "CREATE INDEX mine ON canvas.grown (state)",
        "ALTER TABLE canvas.grown ADD note varchar(10) CONSTRAINT df_mine DEFAULT 'mine' WITH VALUES",
        "CREATE VIEW canvas.seen WITH SCHEMABINDING AS SELECT id, score FROM canvas.grown",
    ] {
        database.words(statement).await;
    }
    let new = served(&table, 2, value(json!({"type": "string", "maxLength": 300, "default": "y"}), true), &["state", "late"]);
    let rows = [Change::Up(json!({"id": 3, "name": null, "state": null, "late": false}))];
    let loaded = load(&fixture, &new, LoadKind::Merge, &rows, at(2)).await.unwrap();
    assert_eq!(loaded.upserted, 1);
    let found = database
        .words(
            "SELECT CONCAT(CAST(g.id AS nvarchar(9)), N'|', CAST(g.name AS nvarchar(99)), N'|', CAST(l.value AS nvarchar(99)), \
             N'|', CAST(g.late AS nvarchar(9)), N'|', CAST(g.note AS nvarchar(99))) FROM canvas.grown g \
             LEFT JOIN canvas.grown__state l ON l.id = g.state ORDER BY g.id",
        )
        .await;
    assert_eq!(found, ["1|éé😀|one|1|mine", "2|b|never heard of|1|mine", "3|||0|mine"]);
    let mine = "SELECT CAST(COUNT(*) AS int) FROM sys.indexes WHERE name = N'mine'";
    assert_eq!(database.words(mine).await, ["1"]);

    // A string that is too long widens the column.
    let long = "ü".repeat(5000);
    let rows = [Change::Up(json!({"id": 4, "name": long, "state": "one", "late": true}))];
    let loaded = load(&fixture, &new, LoadKind::Merge, &rows, at(3)).await.unwrap();
    assert_eq!(loaded.schema_changes.len(), 1, "{:?}", loaded.schema_changes);
    assert_eq!(database.words("SELECT CAST(LEN(name) AS int) FROM canvas.grown WHERE id = 4").await, ["5000"]);

    // The error about a view that blocks a change names the view, and the table stays as it is.
    let mut blocked = value(json!({"type": "string"}), true);
    blocked["score"] = json!({"type": "number", "default": 0.5});
    let error = load(&fixture, &served(&table, 3, blocked, &[]), LoadKind::Merge, &rows, at(4)).await.unwrap_err();
    assert!(format!("{error:?}").contains("seen") && error.hint_text().is_some(), "{error:?}");
    assert_eq!(fixture.sink.committed(&table).await.unwrap().unwrap().bookmark.at, at(3).at);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sync_state_is_that_of_the_official_client() {
    let Some((database, fixture)) = fixture().await else { return };
    let table = TableRef::new("canvas", "t");
    let schema = served(&table, 7, json!({"a": {"type": "string", "description": "é"}}), &[]);
    let reached = crate::model::Bookmark { schema_version: 7, ..at(1_706_745_600) };
    load(&fixture, &schema, LoadKind::Replace, &[Change::Up(json!({"id": 1, "a": "x"}))], reached).await.unwrap();
    let row = database
        .words(
            "SELECT CONCAT(CAST(id AS nvarchar(9)), N'|', CAST(source_namespace AS nvarchar(99)), N'|', \
             CAST(source_table AS nvarchar(99)), N'|', CONVERT(nvarchar(26), timestamp, 126), N'|', \
             CAST(schema_version AS nvarchar(9)), N'|', CAST(target_schema AS nvarchar(99)), N'|', \
             CAST(target_table AS nvarchar(99)), N'|', CAST(schema_description_format AS nvarchar(99)), N'|', \
             CAST(schema_description AS nvarchar(max))) FROM instructure_dap.table_sync",
        )
        .await;
    let description = "{\"properties\":{\"key\":{\"properties\":{\"id\":{\"type\":\"integer\",\"format\":\"int64\"}},\"required\":[\"id\"]},\
        \"value\":{\"properties\":{\"a\":{\"type\":\"string\",\"description\":\"é\"}},\"required\":[]}}}";
    assert_eq!(row, [format!("1|canvas|t|2024-02-01T00:00:00.000001|7|canvas|t|json|{description}")]);
    assert_eq!(database.words("SELECT version FROM instructure_dap.database_version").await, ["1"]);
    let key = "SELECT name FROM sys.key_constraints WHERE parent_object_id = OBJECT_ID(N'canvas.t') AND type = 'PK'";
    assert_eq!(database.words(key).await, ["pk_canvas_t"]);

    // A table dropped by hand is reported, not filled with an increment.
    database.words("DROP TABLE canvas.t").await;
    let error = fixture.sink.committed(&table).await.unwrap_err();
    assert!(error.kind() == Kind::Target && error.hint_text().is_some_and(|hint| hint.contains("initdb")), "{error:?}");
    let sink = SqlSink::open(&database.url.parse().unwrap(), SqlOptions::default()).unwrap();
    sink.remove(&table).await.unwrap();
    assert_eq!(sink.remove(&table).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(fixture.sink.committed(&table).await.unwrap(), None);
}
