//! Tests on real servers: written by the sink, read with the `mariadb` client.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::json;

use super::dialect::MysqlDialect;
use super::{MysqlServer, change};
use crate::error::{Error, Kind};
use crate::model::{Bookmark, TableRef, Timestamp};
use crate::schema::{Column, ColumnType, TableSchema, arrow_type};
use crate::sink::conformance::{self, Change, Fixture, at, column, load, plain, plan};
use crate::sink::sql::connection::{CopyColumn, CopyTarget, Server};
use crate::sink::sql::dialect::{Ddl, Introspection, MergeStatements, MetaTables, Statement, Transactions};
use crate::sink::sql::load::unusual_values;
use crate::sink::sql::{NonFinite, SqlOptions, SqlSink, sync_state};
use crate::sink::{LoadKind, Sink, mode_parity};

#[allow(
    clippy::print_stderr,
    unreachable_pub,
    missing_docs,
    dead_code,
    reason = "the tests in `tests/it` include the same file"
)]
mod server;

use server::{Brand, Database};

/// Tests that run on both kinds of server.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod mariadb {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(super::Brand::Mariadb).await;
                }
            )*
        }

        mod mysql {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(super::Brand::Mysql).await;
                }
            )*
        }
    };
}

on_both!(
    the_contract_holds,
    table_modes_keep_the_rows_of_a_lake,
    the_contract_holds_where_the_bulk_path_is_disabled,
    unusual_values_are_kept_or_refused,
    non_finite_numbers_fail_or_become_null,
    addresses_of_one_kind_are_read_back_unchanged,
    a_table_as_defined_needs_no_change,
    enumerations_and_lookups_are_kept_and_grow,
    unusual_type_changes_lose_no_value,
    timestamps_that_become_text_have_one_form,
    a_load_that_the_server_rolls_back_succeeds_when_repeated,
    a_change_of_a_table_waits_for_its_readers,
    the_sync_state_is_that_of_the_official_client_and_exact,
    the_sync_state_of_the_first_clients_is_converted,
    a_table_of_the_official_client_is_continued_as_it_is,
    a_row_that_blocks_another_by_a_unique_index_is_reported_and_kept,
    a_lost_or_killed_session_leaves_nothing,
    a_failed_first_load_leaves_no_table,
    settings_of_the_server_do_not_matter,
    a_wait_for_a_lock_outlasts_time_limits_and_its_end_is_noticed,
    strings_of_more_than_16_megabytes_are_kept,
    a_row_larger_than_a_packet_is_reported_with_its_key,
    an_ordinary_user_can_load,
    privileges_that_a_user_lacks_are_named,
    privileges_on_lookup_tables_are_checked,
    the_entry_of_a_table_is_not_that_of_another_case,
    a_column_of_the_user_is_not_renamed,
    values_are_stored_as_they_were_sent,
    a_warning_about_rows_is_an_error,
    statements_after_a_load_are_part_of_its_transaction,
);

/// The Arrow type by which a column is compared.
fn data_type(name: &str, sql_type: &str, is_lookup: bool) -> DataType {
    let (base, length) = sql_type.split_once('(').unwrap_or((sql_type, ""));
    match base {
        _ if is_lookup => DataType::Utf8,
        "tinyint" => DataType::Boolean,
        "smallint" => DataType::Int16,
        "int" => DataType::Int32,
        "bigint" => DataType::Int64,
        "double" if name == "f32" => DataType::Float32,
        "double" => DataType::Float64,
        "date" => DataType::Date32,
        "datetime" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "decimal" => {
            let (precision, scale) = length.trim_end_matches(')').split_once(',').unwrap();
            DataType::Decimal128(precision.parse().unwrap(), scale.parse().unwrap())
        }
        "json" => {
            let types = conformance::every_type();
            let found = types.into_iter().find(|(column, _)| column.name == name).expect("a known nested column");
            arrow_type(&found.0.column_type, crate::schema::Nested::Typed)
        }
        _ => DataType::Utf8,
    }
}

fn read(database: &Database, table: &TableRef) -> Vec<RecordBatch> {
    let name = format!("{}__{}", table.namespace, table.table);
    let fields: Vec<Field> = database
        .columns(&name)
        .iter()
        .map(|column| Field::new(&column.name, data_type(&column.name, &column.sql_type, column.lookup.is_some()), true))
        .collect();
    let rows: Vec<String> = database.rows(&name).iter().map(|row| row.to_string()).collect();
    let rows = rows.join("\n");
    let reader = arrow::json::ReaderBuilder::new(Arc::new(Schema::new(fields))).build(rows.as_bytes()).unwrap();
    reader.map(|batch| batch.unwrap()).collect()
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

async fn table_modes_keep_the_rows_of_a_lake(brand: Brand) {
    let Some((_database, fixture)) = fixture(brand) else { return };
    mode_parity::all(&fixture).await;
}

fn fixture(brand: Brand) -> Option<(Arc<Database>, Fixture)> {
    Some(fixture_on(Database::new(brand)?))
}

async fn the_contract_holds(brand: Brand) {
    let Some((_database, fixture)) = fixture(brand) else { return };
    conformance::all(&fixture).await;
}

async fn the_contract_holds_where_the_bulk_path_is_disabled(brand: Brand) {
    let Some(server) = server::Server::start(brand, &["--local-infile=0", "--max-allowed-packet=1M"]) else { return };
    let (_database, fixture) = fixture_on(Database::on(&Arc::new(server)));
    conformance::all(&fixture).await;
}

async fn unusual_values_are_kept_or_refused(brand: Brand) {
    let Some((_database, fixture)) = fixture(brand) else { return };
    unusual_values::all(&fixture, &[i64::MIN, i64::MAX]).await;
}

async fn non_finite_numbers_fail_or_become_null(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let schema = plain(&TableRef::new("canvas", "finite"));
    let rows = [1, 2, 3].map(|id| Change::Up(json!({"id": id, "name": "a", "score": 0.5})));
    let mut batch = conformance::changes(&schema, &rows);
    let mut columns = batch.columns().to_vec();
    let place = batch.schema().index_of("score").unwrap();
    columns[place] = Arc::new(arrow::array::Float64Array::from(vec![0.5, f64::NAN, f64::NEG_INFINITY]));
    batch = RecordBatch::try_new(batch.schema(), columns).unwrap();
    let write = async |fixture: &Fixture, kind| {
        let mut opened = fixture.sink.begin(plan(fixture, &schema, kind).await).await?;
        match opened.write(conformance::reduced(&schema, vec![batch.clone()])).await {
            Ok(()) => opened.commit(at(2)).await,
            Err(error) => {
                opened.abort().await?;
                Err(error.into_error())
            }
        }
    };
    let error = write(&fixture, LoadKind::Replace).await.unwrap_err();
    let fields = (error.kind(), error.get("table"), error.get("column"), error.get("key"));
    assert_eq!(fields, (Kind::Data, Some("canvas.finite"), Some("score"), Some("id=2")), "{error:?}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("--non-finite null")));
    assert_eq!(database.sql("SHOW TABLES LIKE 'canvas%'"), "");

    let options = SqlOptions { non_finite: NonFinite::Null, ..SqlOptions::default() };
    let sink = SqlSink::open(&database.url.parse().unwrap(), options).unwrap();
    let lenient = Fixture { sink: Box::new(sink), ..fixture };
    let loaded = write(&lenient, LoadKind::Replace).await.unwrap();
    assert!(loaded.warnings.iter().any(|warning| warning == "stored null for 2 NaN or infinite numbers"), "{loaded:?}");
    assert_eq!(database.sql("SELECT id, score FROM canvas__finite ORDER BY id"), "1\t0.5\n2\tNULL\n3\tNULL\n");
}

async fn addresses_of_one_kind_are_read_back_unchanged(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let mut schema = plain(&TableRef::new("canvas", "addressed"));
    schema.value = vec![
        column("v4", ColumnType::Ip { v4: true, v6: false }, false),
        column("v6", ColumnType::Ip { v4: false, v6: true }, false),
    ];
    let row = |id: i64| Change::Up(json!({"id": id, "v4": format!("192.0.2.{id}"), "v6": format!("2001:db8::{id}")}));
    load(&fixture, &schema, LoadKind::Replace, &[row(1)], at(1)).await.unwrap();
    load(&fixture, &schema, LoadKind::Merge, &[row(2)], at(2)).await.unwrap();
    let found = database.sql("SELECT INET6_NTOA(v4), INET6_NTOA(v6) FROM canvas__addressed ORDER BY id");
    assert_eq!(found, "192.0.2.1\t2001:db8::1\n192.0.2.2\t2001:db8::2\n");
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

/// Columns of each kind of the official client's table of types.
fn odd() -> TableSchema {
    served(
        &TableRef::new("canvas", "odd"),
        1,
        json!({
            "flag": {"type": "boolean", "default": false, "description": "It's a \\ flag\nand more of it"},
            "small": {"type": "integer", "format": "int16"},
            "by_bounds": {"type": "integer", "minimum": 0, "maximum": 100},
            "number": {"type": "number"},
            "single": {"type": "number", "format": "float32"},
            "price": {"type": "number", "minimum": -10000, "maximum": 10000, "exclusiveMaximum": 10000, "multipleOf": 0.01},
            "text": {"type": "string"},
            "short": {"type": "string", "maxLength": 255, "default": "it's"},
            "long": {"type": "string", "maxLength": 65536},
            "longer": {"type": "string", "maxLength": 16777216},
            "fixed": {"type": "string", "const": "abc"},
            "placeholder": {"oneOf": [{"type": "string", "const": "too long for it"}, {"type": "string", "maxLength": 4}]},
            "state": {"type": "string", "enum": ["active", "o'clock", "back\\slash"]},
            "größe": {"type": "string", "enum": ["groß", "klein"]},
            "one": {"type": "string", "enum": ["only"]},
            "open_one": {"oneOf": [{"type": "string", "enum": ["a"]}, {"type": "string"}]},
            "open_two_with_a_name_that_makes_the_lookup_table_too_long_for_it": {"oneOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "string"}]},
            "moment": {"type": "string", "format": "date-time"},
            "day": {"type": "string", "format": "date"},
            "clock": {"type": "string", "format": "time"},
            "uuid": {"type": "string", "format": "uuid"},
            "ipv4": {"type": "string", "format": "ipv4"},
            "address": {"oneOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]},
            "settings": {"type": "object", "properties": {"a": {"type": "string"}}},
            "numbers": {"type": "array", "items": {"type": "integer", "format": "int64"}},
            "objects": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "anything": {"type": "object"},
        }),
        &["flag", "state"],
    )
}

fn all_statements(schema: &TableSchema) -> String {
    let dialect = MysqlDialect;
    let table = dialect.table_of(schema).unwrap();
    let mut statements = Vec::new();
    statements.extend(dialect.create_lookups(&table));
    statements.extend(dialect.create_table(&table));
    statements.extend(dialect.create_stage(&table));
    statements.extend(dialect.fill_lookups(&table));
    statements.push(dialect.delete(&table));
    statements.extend(dialect.upsert(&table));
    let text: Vec<String> = statements.into_iter().map(|statement| statement.text).collect();
    text.join(";\n")
}

#[test]
fn tables_are_defined_as_documented() {
    insta::assert_snapshot!("mysql_types", all_statements(&odd()));
}

#[test]
fn the_sync_state_is_defined_as_documented() {
    let dialect = MysqlDialect;
    let table = TableRef::new("canvas", "users");
    let legacy: Vec<String> = ["catalog__x", "dap_meta", "users", "web_logs"].map(str::to_owned).to_vec();
    let mut statements = dialect.create_meta();
    statements.extend(dialect.create_exact_bookmarks());
    statements.push(dialect.meta_columns());
    statements.extend(dialect.exact_bookmarks());
    statements.extend(dialect.store_exact_bookmark(&table, 5));
    statements.push(dialect.live_columns(&table));
    statements.extend([dialect.lock("x"), dialect.try_lock("x")]);
    statements.extend(dialect.unlock("x"));
    statements.extend(dialect.migrate(&legacy[1..]));
    let text: Vec<String> = statements.into_iter().map(|statement| statement.text).collect();
    insta::assert_snapshot!("mysql_sync_state", text.join(";\n"));
    assert_eq!(dialect.migrate(&[]), []);
}

/// Every type as the catalogue shows it; the same schema again changes nothing.
async fn a_table_as_defined_needs_no_change(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let schema = odd();
    let row = json!({"id": 1, "state": "o'clock", "größe": "groß", "fixed": "abc", "price": "1.25", "ipv4": "1.2.3.4", "one": "only",
        "open_one": "zzz", "settings": {"a": "x"}, "numbers": [1, 2], "objects": [{"a": "y"}], "anything": "{\"k\":1}",
        "clock": "01:02:03.5", "flag": true});
    load(&fixture, &schema, LoadKind::Replace, &[Change::Up(row.clone())], at(1)).await.unwrap();
    let found = database.sql(
        "SELECT state, größe, one, price, HEX(ipv4), l.value, settings, numbers, objects, anything, clock FROM canvas__odd \
         JOIN canvas__odd__open_one l ON l.id = open_one",
    );
    // MySQL writes JSON in its own way.
    assert_eq!(
        found.replace("\": \"", "\":\"").replace("[1, 2]", "[1,2]"),
        "o'clock\tgroß\tonly\t1.25\t01020304\tzzz\t{\"a\":\"x\"}\t[1,2]\t[{\"a\":\"y\"}]\t{\"k\":1}\t01:02:03.500000\n"
    );
    let loaded = load(&fixture, &schema, LoadKind::Merge, &[Change::Up(row)], at(2)).await.unwrap();
    assert_eq!((loaded.schema_changes, loaded.warnings), (vec![], vec![]));
    let session = MysqlServer::from_url(&database.url.parse().unwrap()).unwrap();
    let mut connection = session.connect().await.unwrap();
    let dialect = MysqlDialect;
    let table = dialect.table_of(&schema).unwrap();
    let live = connection.rows(&dialect.live_columns(&schema.table)).await.unwrap();
    let live: Vec<_> = live.iter().map(|row| dialect.read_live(row).unwrap()).collect();
    for kind in [LoadKind::Merge, LoadKind::Replace] {
        let rules = crate::sink::sql::dialect::ChangeRules { before: None, kind, drop_removed: false };
        assert_eq!(change::change_table(&table, &live, rules).unwrap(), Default::default());
    }
}

async fn enumerations_and_lookups_are_kept_and_grow(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let table = TableRef::new("canvas", "grown");
    let value = |states: &[&str], open: bool| {
        let words = json!({"type": "string", "enum": ["a", "12"]});
        json!({
            "state": {"type": "string", "enum": states},
            "open": if open { json!({"oneOf": [words, {"type": "string"}]}) } else { words },
            "clock": {"type": "string", "format": "time"},
        })
    };
    let up = |id: i64, state: Option<&str>, open: &str| Change::Up(json!({"id": id, "state": state, "open": open}));
    let old = served(&table, 1, value(&["one", "two"], false), &[]);
    load(&fixture, &old, LoadKind::Replace, &[up(1, Some("one"), "a"), up(2, None, "12")], at(1)).await.unwrap();
    database.sql("CREATE INDEX mine ON canvas__grown (open, state); ALTER TABLE canvas__grown ADD COLUMN note varchar(9) NOT NULL DEFAULT 'mine'");
    database.sql("CREATE VIEW seen AS SELECT id, state, open FROM canvas__grown");

    let new = served(&table, 2, value(&["two", "one", "drei!ß"], true), &[]);
    let rows = [up(1, Some("drei!ß"), "A"), up(3, Some("two"), "never heard of")];
    let loaded = load(&fixture, &new, LoadKind::Merge, &rows, at(2)).await.unwrap();
    assert_eq!(loaded.schema_changes.len(), 2, "{:?}", loaded.schema_changes);
    assert!(
        loaded.schema_changes.iter().any(|change| change.contains("`open` is int instead of")),
        "{:?}",
        loaded.schema_changes
    );
    let found = database
        .sql("SELECT g.id, state, l.value, note FROM canvas__grown g JOIN canvas__grown__open l ON l.id = g.open ORDER BY 1");
    assert_eq!(found, "1\tdrei!ß\tA\tmine\n2\tNULL\t12\tmine\n3\ttwo\tnever heard of\tmine\n");
    let states = database.columns("canvas__grown").into_iter().find(|column| column.name == "state").unwrap();
    assert_eq!(states.sql_type, "enum('one','two','drei!ß')");
    assert_eq!(
        database
            .sql("SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND INDEX_NAME = 'mine'"),
        "2\n"
    );

    // A value that the schema does not list is added once.
    let loaded = load(&fixture, &new, LoadKind::Merge, &[up(4, Some("unheard"), "A")], at(3)).await.unwrap();
    assert_eq!(loaded.schema_changes.len(), 1, "{:?}", loaded.schema_changes);
    let loaded = load(&fixture, &new, LoadKind::Merge, &[up(5, Some("unheard"), "a")], at(4)).await.unwrap();
    assert_eq!(loaded.schema_changes, [] as [&str; 0]);
    assert_eq!(database.sql("SELECT COUNT(*) FROM canvas__grown WHERE state = 'unheard'"), "2\n");
    // A value that is too long for the lookup table is refused.
    let error = load(&fixture, &new, LoadKind::Merge, &[up(6, None, &"w".repeat(65))], at(5)).await.unwrap_err();
    assert_eq!((error.kind(), error.get("column"), error.get("key")), (Kind::Data, Some("open"), Some("id=6")), "{error:?}");
    assert_eq!(fixture.sink.committed(&table).await.unwrap().unwrap().bookmark, at(4));
}

/// Changes between types lose no value in an increment, and a new snapshot has the type of the schema.
async fn unusual_type_changes_lose_no_value(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let table = TableRef::new("canvas", "odd_changes");
    let word = json!({"oneOf": [{"type": "string", "enum": ["a"]}, {"type": "string"}]});
    let old = served(
        &table,
        1,
        json!({"word": word, "text": {"type": "string", "maxLength": 9}, "day": {"type": "string", "format": "date"}}),
        &[],
    );
    let row = json!({"id": 1, "word": "a", "text": "seven", "day": "2024-02-29"});
    load(&fixture, &old, LoadKind::Replace, &[Change::Up(row)], at(1)).await.unwrap();
    let integer = json!({"type": "integer", "format": "int64"});
    let new = served(&table, 2, json!({"word": {"type": "string"}, "text": integer, "day": integer}), &[]);
    let row = |id: i64| Change::Up(json!({"id": id, "word": "plain", "text": 7, "day": 8}));
    for second in [2, 3] {
        let loaded = load(&fixture, &new, LoadKind::Merge, &[row(second)], at(second)).await.unwrap();
        assert_eq!(loaded.schema_changes.len(), if second == 2 { 1 } else { 0 }, "{:?}", loaded.schema_changes);
    }
    let found = database.sql(
        "SELECT t.id, l.value, text, day FROM canvas__odd_changes t JOIN canvas__odd_changes__word l ON l.id = word ORDER BY 1",
    );
    assert_eq!(found, "1\ta\tseven\t2024-02-29\n2\tplain\t7\t8\n3\tplain\t7\t8\n");
    load(&fixture, &new, LoadKind::Replace, &[row(4)], at(4)).await.unwrap();
    assert_eq!(database.sql("SELECT id, word, text + 1, day FROM canvas__odd_changes"), "4\tplain\t8\t8\n");
    let types: Vec<String> = database.columns("canvas__odd_changes").into_iter().map(|column| column.sql_type).collect();
    assert_eq!(types[1], "mediumtext");
    assert!(types[2].starts_with("bigint") && types[3].starts_with("bigint"), "{types:?}");
}

async fn timestamps_that_become_text_have_one_form(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let table = TableRef::new("canvas", "times");
    let (at_time, clock) = (json!({"type": "string", "format": "date-time"}), json!({"type": "string", "format": "time"}));
    let text = json!({"type": "string"});
    let schema = |version: i64, at_type: &serde_json::Value, clock_type: &serde_json::Value, note: &serde_json::Value| {
        served(&table, version, json!({"at": at_type, "clock": clock_type, "note": note}), &[])
    };
    let row =
        |id: i64, at: &str, clock: &str, note: &str| Change::Up(json!({"id": id, "at": at, "clock": clock, "note": note}));
    let old = schema(1, &at_time, &clock, &text);
    let rows = [row(1, "2026-01-02T03:04:05.5Z", "01:02:03.25", "soon"), row(2, "2026-01-02T03:04:00Z", "10:20:30", "later")];
    load(&fixture, &old, LoadKind::Replace, &rows, at(1)).await.unwrap();
    // As a run leaves it that is killed after the server converted the column.
    database.sql("ALTER TABLE canvas__times MODIFY COLUMN at mediumtext");
    let new = schema(2, &text, &text, &at_time);
    load(&fixture, &new, LoadKind::Merge, &[row(3, "2026-01-02T03:04:06Z", "11:22:33Z", "2026-01-02T03:04:05.120Z")], at(2))
        .await
        .unwrap();
    let found = database.sql("SELECT id, at, clock, note FROM canvas__times ORDER BY 1");
    assert_eq!(
        found,
        "1\t2026-01-02T03:04:05.5Z\t01:02:03.25\tsoon\n2\t2026-01-02T03:04:00Z\t10:20:30\tlater\n\
         3\t2026-01-02T03:04:06Z\t11:22:33Z\t2026-01-02T03:04:05.12Z\n"
    );
    let again = row(3, "2026-01-02T03:04:06Z", "11:22:33Z", "2026-01-02T03:04:05.120Z");
    let loaded = load(&fixture, &new, LoadKind::Merge, &[again], at(3)).await.unwrap();
    assert_eq!(loaded.schema_changes, [] as [&str; 0]);
    assert_eq!(database.sql("SELECT id, at, clock, note FROM canvas__times ORDER BY 1"), found);
}

/// A deadlock in which the server chooses the load, because the other transaction has changed more rows.
async fn a_load_that_the_server_rolls_back_succeeds_when_repeated(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let schema = plain(&TableRef::new("canvas", "contended"));
    let row = |id: i64, name: &str| Change::Up(json!({"id": id, "name": name}));
    let rows: Vec<Change> = (1..=400).map(|id| row(id, "old")).collect();
    load(&fixture, &schema, LoadKind::Replace, &rows, at(1)).await.unwrap();
    let server = MysqlServer::from_url(&database.url.parse().unwrap()).unwrap();
    let mut other = server.connect().await.unwrap();
    other.execute(&Statement::new("BEGIN")).await.unwrap();
    // All rows but the first, which the load takes before it waits for the second.
    other.execute(&Statement::new("UPDATE canvas__contended SET name = 'other' WHERE id > 1")).await.unwrap();
    let merge = async || {
        let plan = plan(&fixture, &schema, LoadKind::Merge).await;
        let mut opened = fixture.sink.begin(plan).await?;
        let batch = conformance::changes(&schema, &[row(1, "new"), row(2, "new")]);
        opened.write(conformance::reduced(&schema, vec![batch])).await.map_err(crate::sink::WriteError::into_error)?;
        opened.commit(at(2)).await
    };
    let waiting = "SELECT COUNT(*) FROM information_schema.INNODB_TRX AS t JOIN information_schema.PROCESSLIST AS p \
        ON p.ID = t.trx_mysql_thread_id WHERE t.trx_state = 'LOCK WAIT' AND p.DB = DATABASE()";
    let contend = async {
        while other.rows(&Statement::new(waiting)).await.unwrap()[0][0].as_deref() == Some("0") {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        other.execute(&Statement::new("UPDATE canvas__contended SET name = 'other' WHERE id = 1")).await.unwrap();
        other.execute(&Statement::new("COMMIT")).await.unwrap();
    };
    let (first, ()) = tokio::join!(merge(), contend);
    let error = first.unwrap_err();
    assert_eq!((error.kind(), error.get("code")), (Kind::Conflict, Some("1213")), "{error:?}");
    assert!(fixture.sink.is_retryable(&error));
    assert_eq!(database.sql("SELECT COUNT(*) FROM canvas__contended WHERE name = 'other'"), "400\n");
    merge().await.unwrap();
    assert_eq!(database.sql("SELECT id FROM canvas__contended WHERE name = 'new' ORDER BY id"), "1\n2\n");
    assert_eq!(fixture.sink.committed(&schema.table).await.unwrap().unwrap().bookmark, at(2));
}

async fn a_change_of_a_table_waits_for_its_readers(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let table = TableRef::new("canvas", "read");
    let old = served(&table, 1, json!({"a": {"type": "string"}}), &[]);
    load(&fixture, &old, LoadKind::Replace, &[Change::Up(json!({"id": 1, "a": "x"}))], at(1)).await.unwrap();
    let server = MysqlServer::from_url(&database.url.parse().unwrap()).unwrap();
    let mut reader = server.connect().await.unwrap();
    reader.execute(&Statement::new("BEGIN")).await.unwrap();
    reader.rows(&Statement::new("SELECT * FROM canvas__read")).await.unwrap();
    let new = served(&table, 2, json!({"a": {"type": "string"}, "b": {"type": "boolean"}}), &[]);
    let begun = std::time::Instant::now();
    let change = [Change::Up(json!({"id": 2, "b": true}))];
    let loading = load(&fixture, &new, LoadKind::Merge, &change, at(2));
    let reading = async {
        tokio::time::sleep(std::time::Duration::from_millis(3500)).await;
        // The change has released its lock meanwhile, so others could read.
        reader.execute(&Statement::new("COMMIT")).await.unwrap();
    };
    let (loaded, ()) = tokio::join!(loading, reading);
    assert_eq!(loaded.unwrap().upserted, 1);
    assert!(begun.elapsed() > std::time::Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(database.sql("SELECT id, a, b FROM canvas__read ORDER BY 1"), "1\tx\tNULL\n2\tNULL\t1\n");
}

async fn the_sync_state_is_that_of_the_official_client_and_exact(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let table = TableRef::new("canvas", "t");
    let schema = served(&table, 7, json!({"a": {"type": "string"}}), &[]);
    let reached = Bookmark { at: Timestamp::from_micros(1_706_745_600_999_999), schema_version: 7 };
    load(&fixture, &schema, LoadKind::Replace, &[Change::Up(json!({"id": 1, "a": "x"}))], reached).await.unwrap();
    assert_eq!(
        database.sql("SELECT * FROM instructure_dap__table_sync"),
        "1\tcanvas\tt\t2024-02-01 00:00:00\t7\tcanvas\tt\tjson\t{\"properties\":{\"key\":{\"properties\":{\"id\":{\"type\":\"integer\",\
         \"format\":\"int64\"}},\"required\":[\"id\"]},\"value\":{\"properties\":{\"a\":{\"type\":\"string\"}},\"required\":[]}}}\n"
    );
    assert_eq!(database.sql("SELECT * FROM instructure_dap__database_version"), "1\n");
    assert_eq!(fixture.sink.committed(&table).await.unwrap().unwrap().bookmark, reached, "to the microsecond");

    // A bookmark of the official client counts, also in the same second as that of another row.
    database.sql("UPDATE instructure_dap__table_sync SET timestamp = '2024-02-01 00:00:07'");
    assert_eq!(fixture.sink.committed(&table).await.unwrap().unwrap().bookmark.at.micros(), 1_706_745_607_000_000);
    database.sql("UPDATE instructure_dap__table_sync SET id = 9, timestamp = '2024-02-01 00:00:00'");
    assert_eq!(fixture.sink.committed(&table).await.unwrap().unwrap().bookmark.at.micros(), 1_706_745_600_000_000);
    // It does not create the table of exact bookmarks.
    database.sql("DROP TABLE daplake__bookmark");
    assert_eq!(fixture.sink.committed(&table).await.unwrap().unwrap().bookmark.at.micros(), 1_706_745_600_000_000);

    // A table dropped by hand is reported, not filled with an increment.
    database.sql("DROP TABLE canvas__t");
    let error = fixture.sink.committed(&table).await.unwrap_err();
    assert!(error.kind() == Kind::Target && error.hint_text().is_some_and(|hint| hint.contains("initdb")), "{error:?}");
    let sink = SqlSink::open(&database.url.parse().unwrap(), SqlOptions::default()).unwrap();
    sink.remove(&table).await.unwrap();
    assert_eq!(sink.remove(&table).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(fixture.sink.committed(&table).await.unwrap(), None);
}

async fn the_sync_state_of_the_first_clients_is_converted(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    database.sql(
        "CREATE TABLE dap_meta (source_table varchar(64), timestamp datetime, schema_version bigint, target_table varchar(64), \
         schema_description_format varchar(64), schema_description mediumtext); \
         INSERT INTO dap_meta VALUES ('users', '2023-01-01 00:00:01', 1, 'users', 'json', '{}'), \
         ('web_logs', '2023-01-01 00:00:02', 1, 'web_logs', 'json', '{}'), \
         ('catalog__orders', '2023-01-01 00:00:03', 1, 'catalog__orders', 'json', '{}'); \
         CREATE TABLE users (id bigint PRIMARY KEY); CREATE TABLE web_logs (id binary(16) PRIMARY KEY); \
         CREATE TABLE catalog__orders (id int PRIMARY KEY); CREATE TABLE mine (id int); INSERT INTO users VALUES (5); \
         CREATE TABLE `groups` (id int)",
    );
    let sink = SqlSink::open(&database.url.parse().unwrap(), SqlOptions::default()).unwrap();
    sink.prepare().await.unwrap();
    sink.prepare().await.unwrap();
    let tables = [("canvas", "users", 1), ("canvas_logs", "web_logs", 2), ("catalog", "orders", 3)];
    for (namespace, name, second) in tables {
        let held = fixture.sink.committed(&TableRef::new(namespace, name)).await.unwrap().unwrap();
        assert_eq!(held.bookmark.at.micros(), (1_672_531_200 + second) * 1_000_000, "{name}");
    }
    assert_eq!(database.sql("SELECT * FROM canvas__users"), "5\n");
    assert_eq!(database.sql("SELECT COUNT(*) FROM dap_meta_backup"), "3\n");
    assert_eq!(database.sql("SHOW TABLES LIKE 'mine'"), "mine\n");
    assert_eq!(database.sql("SHOW TABLES LIKE 'groups'"), "groups\n", "not known to the old bookkeeping");
    assert_eq!(database.sql("SELECT * FROM instructure_dap__database_version"), "1\n");
    assert_eq!(database.sql("SHOW PROCEDURE STATUS WHERE Db = DATABASE()"), "");
}

/// A table of the official client: whole seconds, padded addresses, a lookup table that ignores case.
async fn a_table_of_the_official_client_is_continued_as_it_is(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let table = TableRef::new("canvas", "theirs");
    let schema = served(
        &table,
        1,
        json!({
            "moment": {"type": "string", "format": "date-time", "description": "When."},
            "address": {"oneOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]},
            "word": {"oneOf": [{"type": "string", "enum": ["a"]}, {"type": "string"}]},
            "settings": {"type": "object", "properties": {"a": {"type": "string"}}},
            "single": {"type": "number", "format": "float32"},
        }),
        &["moment"],
    );
    // It does not create the table of exact bookmarks.
    SqlSink::open(&database.url.parse().unwrap(), SqlOptions::default()).unwrap().prepare().await.unwrap();
    assert_eq!(database.sql("SHOW TABLES LIKE 'daplake%'"), "");
    database.sql(
        "CREATE TABLE canvas__theirs__word (id int NOT NULL AUTO_INCREMENT, value varchar(64) NOT NULL, \
         CONSTRAINT pk_canvas__theirs__word PRIMARY KEY (id), CONSTRAINT uq_theirs__word UNIQUE (value)); \
         CREATE TABLE canvas__theirs (id bigint NOT NULL, moment datetime NOT NULL COMMENT 'When.', address binary(16), word int, \
         settings json, single double, CONSTRAINT pk_canvas__theirs PRIMARY KEY (id)); \
         ALTER TABLE canvas__theirs ADD CONSTRAINT fk_canvas__theirs_word FOREIGN KEY (word) REFERENCES canvas__theirs__word (id); \
         INSERT INTO canvas__theirs__word VALUES (7, 'a'); INSERT INTO canvas__theirs VALUES (1, '2024-01-01', NULL, 7, NULL, 1); \
         INSERT INTO instructure_dap__table_sync (source_namespace, source_table, timestamp, schema_version, target_schema, target_table, \
         schema_description_format, schema_description) VALUES ('canvas', 'theirs', '2024-01-01', 1, 'canvas', 'theirs', 'json', '{}')",
    );
    let made = database.sql("SHOW CREATE TABLE canvas__theirs");
    let row = json!({"id": 2, "moment": "2024-01-01T00:00:00.999999Z", "address": "1.2.3.4", "word": "A"});
    let reached = at(1_800_000_000);
    let loaded = load(&fixture, &schema, LoadKind::Merge, &[Change::Up(row.clone())], reached).await.unwrap();
    assert_eq!(loaded.schema_changes, [] as [&str; 0]);
    assert_eq!(loaded.warnings.len(), 2, "seconds and addresses: {:?}", loaded.warnings);
    assert_eq!(database.sql("SHOW CREATE TABLE canvas__theirs"), made);
    let found = database.sql("SELECT t.id, moment, HEX(address), l.value FROM canvas__theirs t JOIN canvas__theirs__word l ON l.id = word ORDER BY 1");
    // Rounded down, and padded, as the official client does it.
    assert_eq!(found, "1\t2024-01-01 00:00:00\tNULL\ta\n2\t2024-01-01 00:00:00\t01020304000000000000000000000000\tA\n");
    // A new snapshot loses nothing.
    load(&fixture, &schema, LoadKind::Replace, &[Change::Up(row)], at(1_800_000_001)).await.unwrap();
    assert_eq!(database.sql("SELECT moment, INET6_NTOA(address) FROM canvas__theirs"), "2024-01-01 00:00:00.999999\t1.2.3.4\n");
}

async fn a_row_that_blocks_another_by_a_unique_index_is_reported_and_kept(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let schema = plain(&TableRef::new("canvas", "unique"));
    let row = |id: i64, name: &str| Change::Up(json!({"id": id, "name": name}));
    load(&fixture, &schema, LoadKind::Replace, &[row(1, "a"), row(2, "b")], at(1)).await.unwrap();
    database.sql("ALTER TABLE canvas__unique ADD UNIQUE mine (name(20))");
    let error = load(&fixture, &schema, LoadKind::Merge, &[row(3, "A")], at(2)).await.unwrap_err();
    assert!(error.kind() == Kind::Data && error.hint_text().is_some(), "{error:?}");
    assert_eq!(database.sql("SELECT id, name FROM canvas__unique ORDER BY 1"), "1\ta\n2\tb\n");
    assert_eq!(fixture.sink.committed(&schema.table).await.unwrap().unwrap().bookmark, at(1));
}

async fn a_lost_or_killed_session_leaves_nothing(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let schema = plain(&TableRef::new("canvas", "lost"));
    let row = Change::Up(json!({"id": 5, "name": "x"}));
    load(&fixture, &schema, LoadKind::Replace, std::slice::from_ref(&row), at(1)).await.unwrap();
    let mut opened = fixture.sink.begin(plan(&fixture, &schema, LoadKind::Merge).await).await.unwrap();
    let rows = conformance::changes(&schema, &[Change::Up(json!({"id": 6, "name": "y"}))]);
    opened.write(conformance::reduced(&schema, vec![rows.clone()])).await.unwrap();
    kill_all(&database);
    let error = opened.commit(at(2)).await.unwrap_err();
    assert!(error.kind() == Kind::Target && error.get("table") == Some("canvas.lost"), "{error:?}");
    assert_eq!(database.sql("SELECT id, name FROM canvas__lost"), "5\tx\n");

    // A first load that is killed leaves an empty table, which the next run fills.
    let first = plain(&TableRef::new("canvas", "first"));
    let mut opened = fixture.sink.begin(plan(&fixture, &first, LoadKind::Replace).await).await.unwrap();
    opened.write(conformance::reduced(&first, vec![rows])).await.unwrap();
    kill_all(&database);
    assert!(opened.commit(at(2)).await.is_err());
    assert_eq!(fixture.sink.committed(&first.table).await.unwrap(), None);
    load(&fixture, &first, LoadKind::Replace, &[row], at(3)).await.unwrap();
    assert_eq!(database.sql("SELECT id, name FROM canvas__first"), "5\tx\n");
}

/// Ends all other sessions of the database.
fn kill_all(database: &Database) {
    let ids = database.sql("SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> CONNECTION_ID()");
    for id in ids.lines() {
        database.sql(&format!("KILL {id}"));
    }
}

async fn a_failed_first_load_leaves_no_table(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let mut schema = plain(&TableRef::new("canvas", "failed"));
    schema.value[1] = column("score", ColumnType::Ip { v4: true, v6: false }, false);
    let mut opened = fixture.sink.begin(plan(&fixture, &schema, LoadKind::Replace).await).await.unwrap();
    let rows = conformance::changes(&schema, &[Change::Up(json!({"id": 1, "name": "a", "score": "planted"}))]);
    let error = opened.write(conformance::reduced(&schema, vec![rows])).await.unwrap_err().into_error();
    assert_eq!((error.kind(), error.get("column"), error.get("key")), (Kind::Data, Some("score"), Some("id=1")), "{error:?}");
    assert!(!format!("{error:?}").contains("planted"));
    opened.abort().await.unwrap();
    assert_eq!(database.sql("SHOW TABLES LIKE 'canvas%'"), "");
}

#[test]
fn names_that_differ_only_in_case_are_refused() {
    let mut schema = plain(&TableRef::new("canvas", "long"));
    let long: Vec<Column> = vec![column("Name", ColumnType::Int64, false), column("name", ColumnType::Int64, false)];
    schema.value = long;
    assert_eq!(MysqlDialect.table_of(&schema).unwrap_err().kind(), Kind::Schema);
    let schema = plain(&TableRef::new("canvas", "x".repeat(60)));
    assert_eq!(MysqlDialect.table_of(&schema).unwrap_err().kind(), Kind::Schema);
    let unnamed = served(&TableRef::new("canvas", "t"), 1, json!({"": {"type": "string"}}), &[]);
    assert_eq!(MysqlDialect.table_of(&unnamed).unwrap_err().get("reason"), Some("it is empty"));
}

#[test]
fn wide_rows_are_shortened() {
    let mut schema = plain(&TableRef::new("canvas", "wide"));
    schema.value = (0..100)
        .map(|number| column(&format!("c{number}"), ColumnType::Text { max_length: Some(200 + number) }, false))
        .collect();
    let table = MysqlDialect.table_of(&schema).unwrap();
    let bytes: usize = table.columns.iter().filter_map(|column| column.longest).map(|longest| longest * 4).sum();
    assert!(bytes <= 60_000 && table.columns.iter().any(|column| column.sql_type == "mediumtext"));
    assert_eq!(table.columns[1].sql_type, "varchar(200)", "short ones stay");
}

/// Strings and numbers of all kinds through both paths and back.
async fn values_are_stored_as_they_were_sent(brand: Brand) {
    let Some(database) = Database::new(brand) else { return };
    let server = MysqlServer::from_url(&database.url.parse().unwrap()).unwrap();
    let mut session = server.connect().await.unwrap();
    let cell = prop_oneof![
        Just(None),
        any::<String>().prop_map(Some),
        "[\\\\\t\n\r\0'\"`N,()%_ ]{0,12}".prop_map(Some),
        Just(Some("\\N".to_owned())),
        Just(Some("NULL".to_owned())),
    ];
    let rows = proptest::collection::vec((cell, any::<Option<f64>>(), any::<i64>()), 1..40);
    let mut runner = proptest::test_runner::TestRunner::default();
    // Not every server keeps the sign of zero.
    let bits = |float: f64| (float + 0.0).to_bits().to_string();
    for round in 0..24 {
        let rows = rows.new_tree(&mut runner).unwrap().current();
        let batch = batch(&rows);
        session
            .execute(&Statement::new("DROP TABLE IF EXISTS r; CREATE TABLE r (id bigint, a longtext, f double, n bigint)"))
            .await
            .unwrap();
        server.refuse_bulk(round % 2 == 1);
        session.copy_in(&into("r"), &batch).await.unwrap();
        let found = session.rows(&Statement::new("SELECT a, f, n FROM r ORDER BY id")).await.unwrap();
        let expected: Vec<Vec<Option<String>>> = rows
            .iter()
            .map(|(text, float, number)| {
                let float = float.filter(|float| float.is_finite()).map(bits);
                vec![text.clone(), float, Some(number.to_string())]
            })
            .collect();
        let found: Vec<Vec<Option<String>>> = found
            .into_iter()
            .map(|mut row| {
                row[1] = row[1].take().map(|text| bits(text.parse().unwrap()));
                row
            })
            .collect();
        assert_eq!(found, expected, "round {round}");
    }
}

fn batch(rows: &[(Option<String>, Option<f64>, i64)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows.len() as i64));
    let texts: ArrayRef = Arc::new(rows.iter().map(|row| row.0.as_deref()).collect::<StringArray>());
    let floats: arrow::array::Float64Array = rows.iter().map(|row| row.1.filter(|float| float.is_finite())).collect();
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)));
    RecordBatch::try_from_iter_with_nullable([
        ("id", ids, true),
        ("a", texts, true),
        ("f", Arc::new(floats) as ArrayRef, true),
        ("n", numbers, true),
    ])
    .unwrap()
}

fn into(table: &str) -> CopyTarget {
    let columns = [("id", "bigint"), ("a", "longtext"), ("f", "double"), ("n", "bigint")];
    let columns = columns.map(|(name, sql_type)| CopyColumn {
        name: format!("`{name}`"),
        source: name.to_owned(),
        sql_type: sql_type.to_owned(),
    });
    CopyTarget { table: format!("`{table}`"), columns: columns.to_vec(), keys: vec!["id".to_owned()] }
}

async fn statements_after_a_load_are_part_of_its_transaction(brand: Brand) {
    let Some((database, plain)) = fixture(brand) else { return };
    let table = TableRef::new("canvas", "tracked");
    let schema = conformance::plain(&table);
    let row = |id: i64| Change::Up(json!({"id": id, "name": "x"}));
    let with = |statements: &[&str]| {
        let after_sql = statements.iter().map(|statement| ("tracked".to_owned(), (*statement).to_owned())).collect();
        let options = SqlOptions { after_sql, ..SqlOptions::default() };
        let sink = SqlSink::open(&database.url.parse().unwrap(), options).unwrap();
        Fixture { sink: Box::new(sink), read: Box::new(|_| Box::pin(async { Vec::new() })) }
    };
    database.sql("CREATE TABLE seen (n bigint)");
    let count = "INSERT INTO seen SELECT COUNT(*) FROM canvas__tracked";
    load(&with(&[count, "SELECT NOW(), 1.5"]), &schema, LoadKind::Replace, &[row(1)], at(1)).await.unwrap();
    load(&with(&[count]), &schema, LoadKind::Merge, &[row(2)], at(2)).await.unwrap();
    assert_eq!(database.sql("SELECT GROUP_CONCAT(n ORDER BY n) FROM seen").trim(), "1,2");
    for statement in ["SELECT * FROM `planted secret`", "DELETE FROM seen; COMMIT", "SELECT planted secret FROM"] {
        let error = load(&with(&[count, statement]), &schema, LoadKind::Merge, &[row(3)], at(3)).await.unwrap_err();
        assert_eq!(error.message(), "Statement 2 of after_sql failed", "{error:?}");
        assert!(error.hint_text().is_some() && !format!("{error:?}").contains("planted"), "{error:?}");
        assert_eq!(database.sql("SELECT GROUP_CONCAT(n ORDER BY n) FROM seen").trim(), "1,2", "{statement}");
        assert_eq!(plain.sink.committed(&table).await.unwrap().unwrap().bookmark, at(2), "{statement}");
    }
    for statement in ["COMMIT", "/*! COMMIT */", "CREATE TABLE x (a int)", "TRUNCATE seen", "SET autocommit = 1"] {
        let error = load(&with(&[statement]), &schema, LoadKind::Merge, &[row(3)], at(3)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Usage, "{error:?}");
    }
}

/// Problems about which the server only warns when rows arrive as a file.
async fn a_warning_about_rows_is_an_error(brand: Brand) {
    let Some(database) = Database::new(brand) else { return };
    let server = MysqlServer::from_url(&database.url.parse().unwrap()).unwrap();
    let mut session = server.connect().await.unwrap();
    let rows: Vec<(Option<String>, Option<f64>, i64)> =
        vec![(Some("planted ok".into()), None, 1), (Some("planted too long".into()), None, 300)];
    for (definition, column, key) in [
        ("id bigint PRIMARY KEY, a varchar(10), f double, n bigint", "a", "id=1"),
        ("id bigint PRIMARY KEY, a longtext, f double, n tinyint", "n", "id=1"),
        ("id bigint PRIMARY KEY, a longtext, f double NOT NULL, n bigint", "f", "id=0"),
    ] {
        for refused in [false, true] {
            server.refuse_bulk(refused);
            session.execute(&Statement::new(format!("DROP TABLE IF EXISTS w; CREATE TABLE w ({definition})"))).await.unwrap();
            let error = session.copy_in(&into("w"), &batch(&rows)).await.unwrap_err();
            assert_eq!((error.kind(), error.get("column")), (Kind::Data, Some(column)), "{refused}: {error:?}");
            if !refused {
                assert_eq!(error.get("key"), Some(key), "{error:?}");
            }
            assert!(!format!("{error:?}").contains("planted"), "{error:?}");
        }
    }
    server.refuse_bulk(false);
    session
        .execute(&Statement::new(
            "DROP TABLE IF EXISTS w; CREATE TABLE w (id bigint, a longtext, f double, n bigint PRIMARY KEY)",
        ))
        .await
        .unwrap();
    let twice = [rows[0].clone(), rows[0].clone()];
    let error = session.copy_in(&into("w"), &batch(&twice)).await.unwrap_err();
    assert!(MysqlDialect.is_duplicate(&error), "{error:?}");
}

/// Settings of a server that refuse, cut or end statements, or change their meaning.
async fn settings_of_the_server_do_not_matter(brand: Brand) {
    let Some(server) = server::Server::start(brand, &[]) else { return };
    let (database, fixture) = fixture_on(Database::on(&Arc::new(server)));
    let both = "sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,HIGH_NOT_PRECEDENCE'; autocommit = 0; completion_type = 2; \
        sql_safe_updates = 1; sql_big_selects = 0; max_join_size = 1; sql_auto_is_null = 1; sql_select_limit = 1; max_error_count = 0; \
        foreign_key_checks = 0; unique_checks = 0; default_storage_engine = MEMORY; default_tmp_storage_engine = MEMORY; \
        time_zone = '+05:30'; wait_timeout = 1; net_read_timeout = 1; lock_wait_timeout = 1; innodb_lock_wait_timeout = 1; \
        group_concat_max_len = 4; max_sort_length = 8; explicit_defaults_for_timestamp = 0; innodb_strict_mode = 0; \
        collation_connection = latin1_swedish_ci; character_set_client = latin1; character_set_results = latin1";
    let own = match brand {
        Brand::Mariadb => "max_statement_time = 0.3; innodb_force_primary_key = 1; idle_transaction_timeout = 1",
        Brand::Mysql => {
            "max_execution_time = 300; sql_require_primary_key = 1; sql_generate_invisible_primary_key = 1; lc_messages = 'de_DE'"
        }
    };
    let settings: Vec<&str> = both.split(';').chain(own.split(';')).map(str::trim).collect();
    let mut set: String = settings.iter().map(|setting| format!("SET GLOBAL {setting}; ")).collect();
    set.push_str("SET GLOBAL TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY");
    database.sql(&set);
    fixture.sink.check().await.unwrap();
    let schema = odd();
    let row = |id: i64, word: &str| {
        Change::Up(
            json!({"id": id, "state": "o'clock", "one": word, "open_one": word, "text": "a\\b\"'||", "flag": true, "moment": "2024-01-01T00:00:00.5Z"}),
        )
    };
    let rows: Vec<Change> = (1..=3).map(|id| row(id, "only")).collect();
    load(&fixture, &schema, LoadKind::Replace, &rows, at(1)).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    load(&fixture, &schema, LoadKind::Merge, &[row(2, "zzz"), row(4, "zzz"), Change::Del(json!({"id": 3}))], at(2))
        .await
        .unwrap();
    let schema = served(&schema.table, 2, json!({"state": {"type": "string"}, "late": {"type": "integer"}}), &[]);
    load(&fixture, &schema, LoadKind::Merge, &[Change::Up(json!({"id": 5, "late": 7}))], at(3)).await.unwrap();
    let reset: String =
        settings.iter().map(|setting| format!("SET GLOBAL {} = DEFAULT; ", setting.split(' ').next().unwrap())).collect();
    database.sql(&format!("{reset} SET GLOBAL TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE"));
    let found = database.sql(
        "SELECT o.id, state, l.value, REPLACE(text, '\\\\', '/'), moment, late FROM canvas__odd o LEFT JOIN canvas__odd__open_one l ON l.id = open_one \
         ORDER BY 1",
    );
    let expected = "1\to'clock\tonly\ta/b\"'||\t2024-01-01 00:00:00.500000\tNULL\n2\to'clock\tzzz\ta/b\"'||\t2024-01-01 00:00:00.500000\tNULL\n\
                    4\to'clock\tzzz\ta/b\"'||\t2024-01-01 00:00:00.500000\tNULL\n5\tNULL\tNULL\tNULL\tNULL\t7\n";
    assert_eq!(found, expected);
    let engines = database.sql("SELECT DISTINCT ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()");
    assert_eq!(engines, "InnoDB\n");
}

async fn a_wait_for_a_lock_outlasts_time_limits_and_its_end_is_noticed(brand: Brand) {
    let Some(server) = server::Server::start(brand, &[]) else { return };
    let database = Database::on(&Arc::new(server));
    let limit = match brand {
        Brand::Mariadb => "max_statement_time = 0.3",
        Brand::Mysql => "max_execution_time = 300",
    };
    database.sql(&format!("SET GLOBAL {limit}; SET GLOBAL lock_wait_timeout = 1"));
    let server = MysqlServer::from_url(&database.url.parse().unwrap()).unwrap();
    let (mut one, mut other) = (server.connect().await.unwrap(), server.connect().await.unwrap());
    let id = other.rows(&Statement::new("SELECT CONNECTION_ID()")).await.unwrap()[0][0].clone().unwrap();
    sync_state::wait_for_lock(one.as_mut(), &MysqlDialect, "x").await.unwrap();
    let waiting = tokio::spawn(async move {
        let first = sync_state::wait_for_lock(other.as_mut(), &MysqlDialect, "x").await;
        (first, other)
    });
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert!(!waiting.is_finished(), "it waits longer than statements may take");
    one.execute(&MysqlDialect.unlock("x").unwrap()).await.unwrap();
    let (held, mut other) = waiting.await.unwrap();
    held.unwrap();
    other.execute(&MysqlDialect.unlock("x").unwrap()).await.unwrap();

    // The wait is killed.
    sync_state::wait_for_lock(one.as_mut(), &MysqlDialect, "x").await.unwrap();
    let waiting = tokio::spawn(async move { sync_state::wait_for_lock(other.as_mut(), &MysqlDialect, "x").await });
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    database.sql(&format!("KILL QUERY {id}"));
    assert!(waiting.await.unwrap().is_err(), "a lock that was not granted is not held");
}

async fn strings_of_more_than_16_megabytes_are_kept(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let long = |length: usize| "x".repeat(length);
    let table = TableRef::new("canvas", "long");
    let schema = served(&table, 1, json!({"name": {"type": "string"}, "other": {"type": "string"}}), &[]);
    let row = |id: i64, name: String, other: String| Change::Up(json!({"id": id, "name": name, "other": other}));
    let loaded = load(&fixture, &schema, LoadKind::Replace, &[row(1, long(1 << 24), "a".into())], at(1)).await;
    // The first rows do not fit the new table: the caller starts again.
    let loaded = match loaded {
        Err(_) => load(&fixture, &schema, LoadKind::Replace, &[row(1, long(1 << 24), "a".into())], at(1)).await.unwrap(),
        Ok(loaded) => loaded,
    };
    assert!(loaded.schema_changes.iter().any(|change| change.contains("`name`")), "{loaded:?}");
    let loaded = load(&fixture, &schema, LoadKind::Merge, &[row(2, "b".into(), long(17 << 20))], at(2)).await.unwrap();
    assert!(loaded.schema_changes.iter().any(|change| change.contains("`other`")), "{loaded:?}");
    let loaded = load(&fixture, &schema, LoadKind::Merge, &[row(3, long(17 << 20), long(5))], at(3)).await.unwrap();
    assert_eq!(loaded.schema_changes, [] as [&str; 0]);
    let found = database.sql("SELECT id, LENGTH(name), LENGTH(other) FROM canvas__long ORDER BY 1");
    assert_eq!(found, "1\t16777216\t1\n2\t1\t17825792\n3\t17825792\t5\n");
    let types: Vec<String> = database.columns("canvas__long").into_iter().map(|column| column.sql_type).collect();
    assert_eq!(types[1..], ["longtext", "longtext"]);
}

async fn a_row_larger_than_a_packet_is_reported_with_its_key(brand: Brand) {
    let Some(server) = server::Server::start(brand, &["--local-infile=0", "--max-allowed-packet=1M"]) else { return };
    let (database, fixture) = fixture_on(Database::on(&Arc::new(server)));
    let schema = plain(&TableRef::new("canvas", "large"));
    let row = |id: i64, length: usize| Change::Up(json!({"id": id, "name": "x".repeat(length)}));
    // Together they are too large for one statement; each of them is not.
    load(&fixture, &schema, LoadKind::Replace, &[row(1, 400_000), row(2, 800_000), row(3, 900_000)], at(1)).await.unwrap();
    assert_eq!(database.sql("SELECT SUM(LENGTH(name)) FROM canvas__large"), "2100000\n");
    let error = load(&fixture, &schema, LoadKind::Merge, &[row(4, 5), row(5, 2_000_000)], at(2)).await.unwrap_err();
    assert_eq!((error.kind(), error.get("key")), (Kind::Data, Some("id=5")), "{error:?}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("max_allowed_packet")), "{error:?}");
}

/// A user with a password and only the privileges of `docs/guides/mysql.md`.
async fn an_ordinary_user_can_load(brand: Brand) {
    let Some((database, _)) = fixture(brand) else { return };
    let name = &database.name;
    let user = &name[..20];
    database.sql(&format!(
        "CREATE USER {user} IDENTIFIED BY 'p:w/d'; GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, \
         CREATE TEMPORARY TABLES ON {name}.* TO {user}"
    ));
    for (number, mode) in ["disable", "require", "prefer"].into_iter().enumerate() {
        if brand == Brand::Mariadb && mode == "require" {
            continue;
        }
        let url = database.url.replace("root@", &format!("{user}:p%3Aw%2Fd@"));
        let sink = SqlSink::open(&format!("{url}?ssl={mode}").parse().unwrap(), SqlOptions::default()).unwrap();
        let fixture = Fixture { sink: Box::new(sink), read: Box::new(|_| Box::pin(async { Vec::new() })) };
        let schema = plain(&TableRef::new("canvas", format!("ordinary{number}")));
        let row = |id: i64| Change::Up(json!({"id": id, "name": "x"}));
        fixture.sink.check().await.unwrap();
        load(&fixture, &schema, LoadKind::Replace, &[row(1)], at(1)).await.unwrap();
        load(&fixture, &schema, LoadKind::Merge, &[row(2)], at(2)).await.unwrap();
        assert_eq!(database.sql(&format!("SELECT COUNT(*) FROM canvas__ordinary{number}")), "2\n");
    }
    database.sql(&format!("DROP USER {user}"));
}

/// Privileges on the server, the database, a table, columns and by a role.
async fn privileges_that_a_user_lacks_are_named(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let tables = ["one", "two"].map(|name| TableRef::new("canvas", name));
    for table in &tables {
        load(&fixture, &plain(table), LoadKind::Replace, &[Change::Up(json!({"id": 1, "name": "x"}))], at(1)).await.unwrap();
    }
    let (name, user) = (&database.name, &database.name[..20]);
    let role = format!("r{}", &name[..18]);
    let url = database.url.replace("root@", &format!("{user}:p@"));
    database.sql(&format!(
        "CREATE USER {user} IDENTIFIED BY 'p'; CREATE ROLE {role}; GRANT CREATE TEMPORARY TABLES, SELECT ON {name}.* TO {user}"
    ));
    database.sql(&format!("GRANT {role} TO {user}"));
    database.sql(&match brand {
        Brand::Mariadb => format!("SET DEFAULT ROLE {role} FOR {user}"),
        Brand::Mysql => format!("SET DEFAULT ROLE {role} TO {user}"),
    });
    let problems = async || {
        let sink = SqlSink::open(&url.parse().unwrap(), SqlOptions::default()).unwrap();
        let problems = sink.check_tables(&tables).await.unwrap();
        let listed = |errors: Vec<Error>| {
            let tables = errors.iter().map(|error| error.get("tables").unwrap().to_owned()).collect::<Vec<_>>().join("; ");
            let hints =
                errors.iter().all(|error| error.hint_text().is_some_and(|hint| hint.contains(&format!("TO '{user}'@'%'"))));
            assert!(hints, "{errors:?}");
            tables
        };
        (listed(problems.failures), listed(problems.warnings))
    };
    let all = "INSERT, UPDATE, DELETE";
    let schema = "canvas.one (ALTER), canvas.two (ALTER)";
    let book = "instructure_dap.table_sync";
    assert_eq!(
        problems().await,
        (format!("canvas.one ({all}), canvas.two ({all}), {book} (INSERT, UPDATE)"), schema.to_owned())
    );
    database.sql(&format!("GRANT INSERT, UPDATE ON {name}.* TO {role}"));
    assert_eq!(problems().await.0, "canvas.one (DELETE), canvas.two (DELETE)");
    database.sql(&format!("GRANT DELETE, ALTER ON {name}.canvas__one TO {user}"));
    assert_eq!(problems().await, ("canvas.two (DELETE)".to_owned(), "canvas.two (ALTER)".to_owned()));
    database.sql(&format!("GRANT DELETE ON {name}.* TO {role}; GRANT ALTER ON *.* TO {user}"));
    assert_eq!(problems().await, (String::new(), String::new()));
    database.sql(&format!("DROP USER {user}; DROP ROLE {role}"));
}

/// A table without privileges is not in the catalogue that the user sees.
async fn privileges_on_lookup_tables_are_checked(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let table = TableRef::new("canvas", "open");
    let word = json!({"oneOf": [{"type": "string", "enum": ["a"]}, {"type": "string"}]});
    let schema = served(&table, 1, json!({"word": word}), &[]);
    let row = |id: i64, word: &str| [Change::Up(json!({"id": id, "word": word}))];
    load(&fixture, &schema, LoadKind::Replace, &row(1, "a"), at(1)).await.unwrap();
    let (name, user) = (&database.name, &database.name[..20]);
    database.sql(&format!(
        "CREATE USER {user} IDENTIFIED BY 'p'; GRANT CREATE TEMPORARY TABLES ON {name}.* TO {user}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.instructure_dap__table_sync TO {user}; \
         GRANT SELECT ON {name}.instructure_dap__database_version TO {user}; GRANT ALL ON {name}.daplake__bookmark TO {user}"
    ));
    let url = database.url.replace("root@", &format!("{user}:p@"));
    let sink = || SqlSink::open(&url.parse().unwrap(), SqlOptions::default()).unwrap();
    let tables = [table.clone()];
    let failure = async || sink().check_tables(&tables).await.unwrap().failures.pop();
    let words = "The user may not read a table that table_sync lists";
    assert!(failure().await.unwrap().to_string().contains(words));
    for error in [sink().committed(&table).await.unwrap_err(), sink().inspect(&table).await.unwrap_err()] {
        assert!(error.to_string().contains(words) && error.hint_text().unwrap().contains("grant"), "{error:?}");
    }
    database.sql(&format!("GRANT SELECT, INSERT, UPDATE, DELETE, ALTER ON {name}.canvas__open TO {user}"));
    for (granted, missing) in [("", "SELECT, INSERT"), ("SELECT", "INSERT"), ("SELECT, INSERT, CREATE", "")] {
        if !granted.is_empty() {
            database.sql(&format!("GRANT {granted} ON {name}.canvas__open__word TO {user}"));
        }
        let found = failure().await;
        let listed = found.as_ref().and_then(|error| error.get("tables"));
        let wanted = format!("canvas.open__word ({missing})");
        assert_eq!(listed, Some(wanted.as_str()).filter(|_| !missing.is_empty()), "{found:?}");
        let allowed = Fixture { sink: Box::new(sink()), read: Box::new(|_| Box::pin(async { Vec::new() })) };
        let loaded = load(&allowed, &schema, LoadKind::Merge, &row(2, "b"), at(2)).await;
        assert_eq!(loaded.is_ok(), missing.is_empty(), "{loaded:?}");
    }
    database.sql(&format!("DROP USER {user}"));
}

/// For the collation of the sync state, the names are equal.
async fn the_entry_of_a_table_is_not_that_of_another_case(brand: Brand) {
    let Some((_database, fixture)) = fixture(brand) else { return };
    let [lower, upper] = ["users", "Users"].map(|name| TableRef::new("canvas", name));
    load(&fixture, &plain(&upper), LoadKind::Replace, &[Change::Up(json!({"id": 1, "name": "x"}))], at(1)).await.unwrap();
    assert!(fixture.sink.committed(&upper).await.unwrap().is_some());
    // A server that ignores case in names of tables refuses the other one.
    assert!(fixture.sink.committed(&lower).await.map_or(true, |state| state.is_none()));
    assert_eq!(fixture.sink.list(None).await.unwrap(), [upper]);
}

async fn a_column_of_the_user_is_not_renamed(brand: Brand) {
    let Some((database, fixture)) = fixture(brand) else { return };
    let table = TableRef::new("canvas", "mine");
    let text = json!({"type": "string"});
    let old = served(&table, 1, json!({"a": text}), &[]);
    load(&fixture, &old, LoadKind::Replace, &[Change::Up(json!({"id": 1, "a": "x"}))], at(1)).await.unwrap();
    database.sql("ALTER TABLE canvas__mine ADD COLUMN Note varchar(9) DEFAULT 'mine'");
    let new = served(&table, 2, json!({"a": text, "note": text}), &[]);
    for kind in [LoadKind::Merge, LoadKind::Replace] {
        let error = load(&fixture, &new, kind, &[Change::Up(json!({"id": 2, "note": "y"}))], at(2)).await.unwrap_err();
        assert_eq!((error.kind(), error.get("column")), (Kind::Target, Some("Note")), "{error:?}");
        assert!(error.hint_text().is_some(), "{error:?}");
    }
    assert_eq!(database.sql("SELECT * FROM canvas__mine"), "1\tx\tmine\n");
}

#[test]
fn characters_beyond_the_basic_plane_are_only_in_strings() {
    let table = TableRef::new("canvas", "plane");
    let schema = served(&table, 1, json!({"\u{1f600}": {"type": "string"}}), &[]);
    let error = MysqlDialect.table_of(&schema).unwrap_err();
    assert_eq!((error.kind(), error.get("column")), (Kind::Schema, Some("\u{1f600}")));
    assert!(error.hint_text().is_some_and(|hint| hint.contains("--drop-column")), "{error:?}");
    let words = json!({"state": {"type": "string", "enum": ["\u{1f600}", "b"], "description": "A \u{1f600} state."}});
    let columns = MysqlDialect.table_of(&served(&table, 1, words, &[])).unwrap().columns;
    assert_eq!((columns[1].sql_type.as_str(), columns[1].comment.as_deref()), ("mediumtext", Some("A \u{fffd} state.")));
}
