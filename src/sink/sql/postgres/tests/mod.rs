//! Tests on real servers: written by the sink, read with `psql`.

mod after_sql;
mod occupants;
mod schema_changes;
mod sync_state;
mod values;
mod views;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use serde_json::json;

use super::PostgresServer;
use crate::error::Kind;
use crate::model::TableRef;
use crate::schema::{Column, ColumnType, TableSchema, arrow_type};
use crate::sink::conformance::{self, Change, Fixture, at, column, load, plain, plan};
use crate::sink::sql::connection::Server;
use crate::sink::sql::load::unusual_values;
use crate::sink::sql::{SqlOptions, SqlSink};
use crate::sink::{LoadKind, mode_parity};

#[allow(
    clippy::print_stderr,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "the tests in `tests/it` include the same file"
)]
mod server;

use server::Database;

/// The Arrow type by which a column is compared.
fn data_type(name: &str, sql_type: &str) -> DataType {
    let nested = || {
        let types = conformance::every_type();
        let found = types.into_iter().find(|(column, _)| column.name == name).expect("a known nested column");
        arrow_type(&found.0.column_type, crate::schema::Nested::Typed)
    };
    match sql_type {
        "boolean" => DataType::Boolean,
        "smallint" => DataType::Int16,
        "integer" => DataType::Int32,
        "bigint" => DataType::Int64,
        "real" => DataType::Float32,
        "double precision" => DataType::Float64,
        "date" => DataType::Date32,
        "timestamp without time zone" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "jsonb" | "text[]" => nested(),
        other => match other.strip_prefix("numeric(").and_then(|rest| rest.strip_suffix(')')?.split_once(',')) {
            Some((precision, scale)) => DataType::Decimal128(precision.parse().unwrap(), scale.parse().unwrap()),
            None => DataType::Utf8,
        },
    }
}

fn read(database: &Database, table: &TableRef) -> Vec<RecordBatch> {
    let name = format!("\"{}\".\"{}\"", table.namespace, table.table);
    let columns = database.psql(&format!(
        "SELECT json_build_array(attname, format_type(atttypid, atttypmod)) FROM pg_attribute \
         WHERE attrelid = '{name}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    ));
    let fields: Vec<Field> = columns
        .lines()
        .map(|line| {
            let (name, sql_type): (String, String) = serde_json::from_str(line).unwrap();
            let data_type = data_type(&name, &sql_type);
            Field::new(name, data_type, true)
        })
        .collect();
    // The server cannot hold NUL; the sink writes U+2400 instead.
    let rows = database.json(&format!("SELECT row_to_json(t) FROM {name} t")).replace('\u{2400}', "\\u0000");
    let reader = arrow::json::ReaderBuilder::new(Arc::new(Schema::new(fields))).build(rows.as_bytes()).unwrap();
    reader.map(|batch| batch.unwrap()).collect()
}

fn fixture() -> Option<(Arc<Database>, Fixture)> {
    Some(fixture_on(Database::new()?))
}

fn fixture_on(database: Database) -> (Arc<Database>, Fixture) {
    let database = Arc::new(database);
    let sink = SqlSink::open(&database.url.parse().unwrap(), SqlOptions::default()).unwrap();
    let shared = Arc::clone(&database);
    let read = move |table: TableRef| {
        let database = Arc::clone(&shared);
        Box::pin(async move { tokio::task::spawn_blocking(move || read(&database, &table)).await.unwrap() })
            as futures::future::BoxFuture<'static, Vec<RecordBatch>>
    };
    (database, Fixture { sink: Box::new(sink), read: Box::new(read) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_on_postgresql() {
    let Some((_database, fixture)) = fixture() else { return };
    conformance::all(&fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_and_unusual_values_hold_on_the_newest_postgresql() {
    let Some(database) = Database::newest() else { return };
    let (_database, fixture) = fixture_on(database);
    conformance::all(&fixture).await;
    unusual_values::all(&fixture, &[i64::MIN]).await;
    mode_parity::all(&fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn table_modes_keep_the_rows_of_a_lake_on_postgresql() {
    let Some((_database, fixture)) = fixture() else { return };
    mode_parity::all(&fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusual_values_are_kept_or_refused_on_postgresql() {
    let Some((_database, fixture)) = fixture() else { return };
    unusual_values::all(&fixture, &[i64::MIN]).await;
}

/// A schema as the service gives it.
fn served(table: &TableRef, version: i64, value: serde_json::Value, required: &[&str]) -> TableSchema {
    let source = json!({"properties": {
        "meta": {"properties": {"ts": {"type": "string", "format": "date-time"}}},
        "key": {"properties": {"id": {"type": "integer", "format": "int64"}}, "required": ["id"]},
        "value": {"properties": value, "required": required},
    }});
    TableSchema::read(table, version, source).unwrap()
}

/// A schema with integers only.
fn integers(table: &TableRef, version: i64, keys: &[&str], values: &[&str]) -> TableSchema {
    let members = |names: &[&str]| {
        let members = names.iter().map(|name| ((*name).to_owned(), json!({"type": "integer", "format": "int64"})));
        members.collect::<serde_json::Map<_, _>>()
    };
    let source = json!({"properties": {"key": {"properties": members(keys), "required": keys}, "value": {"properties": members(values)}}});
    TableSchema::read(table, version, source).unwrap()
}

/// A column of each type that the official client knows, as SQL.
#[test]
fn tables_are_defined_as_the_official_client_defines_them() {
    let url = "postgresql://nobody@nowhere/x".parse().unwrap();
    let server: Box<dyn Server> = Box::new(PostgresServer::from_url(&url).unwrap());
    let dialect = server.dialect();
    let schema = served(
        &TableRef::new("canvas", "odd"),
        1,
        json!({
            "flag": {"type": "boolean", "default": false, "description": "It's a flag"},
            "small": {"type": "integer", "format": "int16"},
            "by_bounds": {"type": "integer", "minimum": 0, "maximum": 100},
            "number": {"type": "number"},
            "single": {"type": "number", "format": "float32"},
            "price": {"type": "number", "minimum": -10000, "maximum": 10000, "exclusiveMaximum": 10000, "multipleOf": 0.01},
            "text": {"type": "string"},
            "short": {"type": "string", "maxLength": 255},
            "fixed": {"type": "string", "const": "abc"},
            "placeholder": {"oneOf": [{"type": "string", "const": "too long for it"}, {"type": "string", "maxLength": 4}]},
            "state": {"type": "string", "enum": ["active", "o'clock"]},
            "one": {"type": "string", "enum": ["only"]},
            "open_one": {"oneOf": [{"type": "string", "enum": ["a"]}, {"type": "string"}]},
            "open_two": {"oneOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "string"}]},
            "moment": {"type": "string", "format": "date-time"},
            "day": {"type": "string", "format": "date"},
            "clock": {"type": "string", "format": "time"},
            "uuid": {"type": "string", "format": "uuid"},
            "address": {"oneOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]},
            "settings": {"type": "object", "properties": {"a": {"type": "string"}}},
            "numbers": {"type": "array", "items": {"type": "integer", "format": "int64"}},
            "words": {"type": "array", "items": {"type": "string", "maxLength": 255}},
            "states": {"type": "array", "items": {"type": "string", "enum": ["x", "y"]}},
            "objects": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "anything": {"type": "object"},
        }),
        &["flag", "state"],
    );
    let table = dialect.table_of(&schema).unwrap();
    let mut statements = Vec::new();
    statements.extend(dialect.create_enumerations(&table, &[]));
    statements.extend(dialect.create_lookups(&table));
    statements.extend(dialect.create_table(&table));
    statements.extend(dialect.add_key(&table));
    statements.extend(dialect.fill_lookups(&table));
    statements.push(dialect.delete(&table));
    let text: Vec<String> = statements.into_iter().map(|statement| statement.text).collect();
    insta::assert_snapshot!("postgres_types", text.join(";\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enumerations_lookups_and_arrays_are_kept_and_grow() {
    let Some((database, fixture)) = fixture() else { return };
    let table = TableRef::new("canvas", "grown");
    let value = |states: &[&str]| {
        json!({
            "state": {"type": "string", "enum": states},
            "open": {"oneOf": [{"type": "string", "enum": ["a"]}, {"type": "string"}]},
            "numbers": {"type": "array", "items": {"type": "integer", "format": "int64"}},
            "states": {"type": "array", "items": {"type": "string", "enum": ["x", "y"]}},
            "clock": {"type": "string", "format": "time"},
        })
    };
    let rows = |state: &str| {
        vec![
            Change::Up(
                json!({"id": 1, "state": state, "open": "a", "numbers": [1, null], "states": ["x"], "clock": "01:02:03"}),
            ),
            Change::Up(json!({"id": 2, "state": null, "open": "never heard of", "numbers": [], "states": null})),
        ]
    };
    let old = served(&table, 1, value(&["one", "two"]), &["state"]);
    load(&fixture, &old, LoadKind::Replace, &rows("one"), at(1)).await.unwrap();
    database.psql("CREATE INDEX mine ON canvas.grown (state); ALTER TABLE canvas.grown ADD COLUMN note text DEFAULT 'mine'");
    database.psql("CREATE VIEW canvas.seen AS SELECT id, clock FROM canvas.grown");
    let new = served(&table, 2, value(&["two", "one", "three"]), &["state"]);
    let loaded = load(&fixture, &new, LoadKind::Merge, &rows("three")[..1], at(2)).await.unwrap();
    assert_eq!(loaded.schema_changes, ["type `grown__state` has a new value"]);
    let found = database.psql("SELECT g.id, state, l.value, numbers, states, clock, note FROM canvas.grown g JOIN canvas.grown__open l ON l.id = g.open ORDER BY 1");
    assert_eq!(found, "1|three|a|{1,NULL}|{x}|01:02:03|mine\n2||never heard of|{}|||mine\n");
    assert_eq!(database.psql("SELECT enum_range(NULL::canvas.grown__state)"), "{one,two,three}\n");
    assert_eq!(database.psql("SELECT count(*) FROM pg_indexes WHERE indexname = 'mine'"), "1\n");

    // A value that the schema does not list widens the type.
    let loaded = load(&fixture, &new, LoadKind::Merge, &rows("four")[..1], at(3)).await.unwrap();
    assert_eq!(loaded.schema_changes.len(), 1, "{loaded:?}");
    assert_eq!(database.psql("SELECT enum_range(NULL::canvas.grown__state)"), "{one,two,three,four}\n");
    let loaded = load(&fixture, &new, LoadKind::Merge, &rows("four")[..1], at(4)).await.unwrap();
    assert_eq!(loaded.schema_changes, [""; 0], "{loaded:?}");
    // A view of a column that changes is recreated.
    let mut changed = value(&["two", "one", "three"]);
    changed["clock"] = json!({"type": "string"});
    load(&fixture, &served(&table, 3, changed, &["state"]), LoadKind::Merge, &rows("four")[..1], at(5)).await.unwrap();
    assert_eq!(database.psql("SELECT clock FROM canvas.seen WHERE id = 1"), "01:02:03\n");
    assert_eq!(database.psql("SELECT state FROM canvas.grown WHERE id = 1"), "four\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sync_state_is_that_of_the_official_client() {
    let Some((database, fixture)) = fixture() else { return };
    let table = TableRef::new("canvas", "t");
    let schema = served(&table, 7, json!({"a": {"type": "string"}}), &[]);
    let reached = crate::model::Bookmark { schema_version: 7, ..at(1_706_745_600) };
    load(&fixture, &schema, LoadKind::Replace, &[Change::Up(json!({"id": 1, "a": "x"}))], reached).await.unwrap();
    let row = database.psql("SELECT * FROM instructure_dap.table_sync");
    assert_eq!(
        row,
        "1|canvas|t|2024-02-01 00:00:00.000001|7|canvas|t|json|{\"properties\":{\"key\":{\"properties\":{\"id\":{\"type\":\"integer\",\
         \"format\":\"int64\"}},\"required\":[\"id\"]},\"value\":{\"properties\":{\"a\":{\"type\":\"string\"}},\"required\":[]}}}\n"
    );
    assert_eq!(database.psql("SELECT * FROM instructure_dap.database_version"), "1\n");
    assert_eq!(
        database.psql("SELECT conname FROM pg_constraint WHERE conrelid = 'canvas.t'::regclass AND contype = 'p'"),
        "pk_t\n"
    );

    // A table dropped by hand is reported, not filled with an increment.
    database.psql("DROP TABLE canvas.t");
    let error = fixture.sink.committed(&table).await.unwrap_err();
    assert!(error.kind() == Kind::Target && error.hint_text().is_some_and(|hint| hint.contains("initdb")), "{error:?}");
    let sink = SqlSink::open(&database.url.parse().unwrap(), SqlOptions::default()).unwrap();
    sink.remove(&table).await.unwrap();
    assert_eq!(sink.remove(&table).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(fixture.sink.committed(&table).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overlong_string_or_a_lost_server_leaves_nothing() {
    let Some((database, fixture)) = fixture() else { return };
    let table = TableRef::new("canvas", "short");
    let schema = served(&table, 1, json!({"a": {"type": "string", "maxLength": 3}}), &[]);
    // A string that is too long widens the column, in a new and in an existing table.
    let loaded = load(&fixture, &schema, LoadKind::Replace, &[Change::Up(json!({"id": 5, "a": "four"}))], at(1)).await.unwrap();
    assert_eq!(loaded.schema_changes.len(), 1, "{loaded:?}");
    let kept = TableRef::new("canvas", "kept");
    let fitting = served(&kept, 1, json!({"a": {"type": "string", "maxLength": 3}}), &[]);
    let loaded = load(&fixture, &fitting, LoadKind::Replace, &[Change::Up(json!({"id": 5, "a": "üüü"}))], at(1)).await.unwrap();
    assert_eq!(loaded.schema_changes, [""; 0]);
    load(&fixture, &fitting, LoadKind::Merge, &[Change::Up(json!({"id": 5, "a": "fives"}))], at(2)).await.unwrap();
    assert_eq!(
        database.psql("SELECT a, pg_typeof(a) FROM canvas.kept UNION ALL SELECT a, pg_typeof(a) FROM canvas.short"),
        "fives|text\nfour|text\n"
    );

    let mut opened = fixture.sink.begin(plan(&fixture, &schema, LoadKind::Merge).await).await.unwrap();
    let rows = conformance::changes(&schema, &[Change::Up(json!({"id": 6, "a": "x"}))]);
    opened.write(conformance::reduced(&schema, vec![rows])).await.unwrap();
    database.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'daplake' AND datname = current_database()");
    let error = opened.commit(at(2)).await.unwrap_err();
    assert!(error.kind() == Kind::Target && error.get("table") == Some("canvas.short"), "{error:?}");
    assert_eq!(database.psql("SELECT id, a FROM canvas.short"), "5|four\n");
}

#[test]
fn other_databases_are_refused() {
    let error = SqlSink::open(&"oracle://me@h/x".parse().unwrap(), SqlOptions::default()).unwrap_err();
    assert!(error.kind() == Kind::Unsupported && error.hint_text().is_some());
    let long: Vec<Column> = vec![
        column(&"é".repeat(40), ColumnType::Int64, false),
        column(&format!("{}x", "é".repeat(40)), ColumnType::Int64, false),
    ];
    let mut schema = plain(&TableRef::new("canvas", "long"));
    schema.value = long;
    let server = PostgresServer::from_url(&"postgresql://me@h/x".parse().unwrap()).unwrap();
    let error = Server::dialect(&server).table_of(&schema).unwrap_err();
    assert_eq!(error.kind(), Kind::Schema, "two names that become one");
}
