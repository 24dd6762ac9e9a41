//! Every kind of schema change, on a table with rows.

use serde_json::{Value, json};

use super::{Database, Fixture, SqlOptions, SqlSink, fixture, integers, load, served};
use crate::error::Kind;
use crate::model::TableRef;
use crate::sink::LoadKind;
use crate::sink::conformance::{Change, at};

/// A change of the column `c`: row 1 arrives with the first schema, row 2 with the second.
struct Case {
    name: &'static str,
    before: Value,
    first: Value,
    after: Value,
    second: Value,
    /// Type, nullability and values in the end.
    found: &'static str,
}

const REQUIRED: &str = "required";

/// `c` with its schema; `required` in it is used by these tests only.
fn value(column: &Value) -> (Value, Vec<&'static str>) {
    let mut column = column.clone();
    let Some(object) = column.as_object_mut() else { return (json!({}), Vec::new()) };
    let required = object.remove(REQUIRED).is_some();
    (json!({"c": column}), if required { vec!["c"] } else { Vec::new() })
}

fn row(id: i64, value: &Value) -> Change {
    Change::Up(if value.is_null() { json!({"id": id}) } else { json!({"id": id, "c": value}) })
}

fn found(database: &Database, table: &str) -> String {
    let kind = database.psql(&format!(
        "SELECT format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' not null' ELSE '' END FROM pg_attribute \
         WHERE attrelid = 'canvas.{table}'::regclass AND attname = 'c'"
    ));
    let values = database.psql(&format!("SELECT coalesce(c::text, 'null') FROM canvas.{table} ORDER BY id"));
    format!("{}: {}", kind.trim(), values.trim().replace('\n', ", "))
}

fn cases() -> Vec<Case> {
    let case = |name, before, first, after, second, found| Case { name, before, first, after, second, found };
    let text = || json!({"type": "string"});
    let short = |length: u32| json!({"type": "string", "maxLength": length});
    let number = |format: &str| json!({"type": "integer", "format": format});
    let words = |words: &[&str]| json!({"type": "string", "enum": words});
    let open = |words: &[&str]| json!({"oneOf": [{"type": "string", "enum": words}, {"type": "string"}]});
    let price = |scale: f64| json!({"type": "number", "minimum": -10000, "maximum": 10000, "exclusiveMaximum": 10000, "multipleOf": scale});
    vec![
        case("added", Value::Null, Value::Null, text(), json!("b"), "text: null, b"),
        case(
            "added_required",
            Value::Null,
            Value::Null,
            json!({"type": "integer", "format": "int32", REQUIRED: 1}),
            json!(5),
            "integer: null, 5",
        ),
        case(
            "added_with_default",
            Value::Null,
            Value::Null,
            json!({"type": "integer", "format": "int32", "default": 7, REQUIRED: 1}),
            json!(5),
            "integer not null: 7, 5",
        ),
        case(
            "added_words_with_default",
            Value::Null,
            Value::Null,
            json!({"type": "string", "enum": ["a", "b"], "default": "b", REQUIRED: 1}),
            json!("a"),
            "canvas.added_words_with_default__c not null: b, a",
        ),
        case("added_lookup", Value::Null, Value::Null, open(&["a"]), json!("a"), "integer: null, 1"),
        case("longer", short(3), json!("abc"), short(10), json!("abcdef"), "character varying(10): abc, abcdef"),
        case("endless", short(3), json!("abc"), text(), json!("abcdef"), "text: abc, abcdef"),
        case("shorter", short(10), json!("abcdef"), short(3), json!("abc"), "character varying(10): abcdef, abc"),
        case("larger", number("int32"), json!(1), number("int64"), json!(5_000_000_000_i64), "bigint: 1, 5000000000"),
        case("smaller", number("int64"), json!(5_000_000_000_i64), number("int32"), json!(1), "bigint: 5000000000, 1"),
        case(
            "finer",
            json!({"type": "number", "format": "float32"}),
            json!(0.5),
            json!({"type": "number"}),
            json!(1e300),
            "double precision: 0.5, 1e+300",
        ),
        case("digits", price(0.01), json!(1.25), price(0.0001), json!(1.2345), "numeric(9,4): 1.2500, 1.2345"),
        case("fewer_digits", price(0.0001), json!(1.2345), price(0.01), json!(1.25), "numeric(9,4): 1.2345, 1.2500"),
        case("relaxed", json!({"type": "string", REQUIRED: 1}), json!("a"), text(), Value::Null, "text: a, null"),
        case("tightened", text(), json!("a"), json!({"type": "string", REQUIRED: 1}), json!("b"), "text not null: a, b"),
        case("not_tightened", text(), Value::Null, json!({"type": "string", REQUIRED: 1}), json!("b"), "text: null, b"),
        case("text_to_words", text(), json!("a"), words(&["a", "b"]), json!("b"), "canvas.text_to_words__c: a, b"),
        case("text_not_words", text(), json!("z"), words(&["a", "b"]), json!("b"), "text: z, b"),
        case("words_to_text", words(&["a", "b"]), json!("a"), text(), json!("free"), "text: a, free"),
        case("words_more", words(&["a", "b"]), json!("a"), words(&["c", "b", "a"]), json!("c"), "canvas.words_more__c: a, c"),
        case("words_fewer", words(&["a", "b", "c"]), json!("c"), words(&["a", "b"]), json!("a"), "canvas.words_fewer__c: c, a"),
        case("words_one", words(&["a", "b"]), json!("b"), words(&["a"]), json!("a"), "text: b, a"),
        case("one_word_to_two", words(&["a"]), json!("a"), words(&["a", "b"]), json!("b"), "canvas.one_word_to_two__c: a, b"),
        case("words_opened", words(&["a", "b"]), json!("a"), open(&["a", "b"]), json!("new"), "text: a, new"),
        case("words_to_lookup", words(&["a", "b"]), json!("b"), open(&["a"]), json!("new"), "text: b, new"),
        case("lookup_more", open(&["a"]), json!("x"), open(&["a", "b"]), json!("y"), "integer: 1, 2"),
        case("lookup_to_text", open(&["a"]), json!("x"), text(), json!("y"), "integer: 1, 2"),
        case("lookup_to_number", open(&["a"]), json!("x"), number("int32"), json!(3), "text: x, 3"),
        case("text_to_number", text(), json!("12"), number("int32"), json!(3), "integer: 12, 3"),
        case("text_no_number", text(), json!("twelve"), number("int32"), json!(3), "text: twelve, 3"),
        case("text_odd_number", text(), json!("012"), number("int32"), json!(3), "text: 012, 3"),
        case("number_to_text", number("int64"), json!(12), text(), json!("b"), "text: 12, b"),
        case("number_to_short", number("int64"), json!(12), short(5), json!("b"), "character varying(5): 12, b"),
        case("truth_to_number", json!({"type": "boolean"}), json!(true), number("int32"), json!(3), "text: true, 3"),
        case("float_to_number", json!({"type": "number"}), json!(2.0), number("int32"), json!(3), "integer: 2, 3"),
        case("float_no_number", json!({"type": "number"}), json!(2.5), number("int32"), json!(3), "text: 2.5, 3"),
        case(
            "day_to_moment",
            json!({"type": "string", "format": "date"}),
            json!("2026-01-02"),
            json!({"type": "string", "format": "date-time"}),
            json!("2026-01-02T03:04:05Z"),
            "timestamp without time zone: 2026-01-02 00:00:00, 2026-01-02 03:04:05",
        ),
        case(
            "moment_no_day",
            json!({"type": "string", "format": "date-time"}),
            json!("2026-01-02T03:04:05Z"),
            json!({"type": "string", "format": "date"}),
            json!("2026-01-02"),
            "text: 2026-01-02T03:04:05Z, 2026-01-02",
        ),
        case(
            "moment_to_text",
            json!({"type": "string", "format": "date-time"}),
            json!("2026-01-02T03:04:05.5Z"),
            text(),
            json!("2026-01-02T03:04:06Z"),
            "text: 2026-01-02T03:04:05.5Z, 2026-01-02T03:04:06Z",
        ),
        case(
            "moment_to_short",
            json!({"type": "string", "format": "date-time"}),
            json!("2026-01-02T03:04:00Z"),
            short(40),
            json!("2026-01-02T03:04:06Z"),
            "character varying(40): 2026-01-02T03:04:00Z, 2026-01-02T03:04:06Z",
        ),
        case(
            "text_to_moment",
            text(),
            json!("2026-01-02T03:04:05.25Z"),
            json!({"type": "string", "format": "date-time"}),
            json!("2026-01-02T03:04:06Z"),
            "timestamp without time zone: 2026-01-02 03:04:05.25, 2026-01-02 03:04:06",
        ),
        case(
            "text_no_moment",
            text(),
            json!("soon"),
            json!({"type": "string", "format": "date-time"}),
            json!("2026-01-02T03:04:05.120Z"),
            "text: soon, 2026-01-02T03:04:05.12Z",
        ),
        case(
            "text_to_object",
            text(),
            json!("{\"a\":\"x\"}"),
            json!({"type": "object", "properties": {"a": {"type": "string"}}}),
            json!({"a": "y"}),
            "jsonb: {\"a\": \"x\"}, {\"a\": \"y\"}",
        ),
        case(
            "items",
            json!({"type": "array", "items": {"type": "integer", "format": "int32"}}),
            json!([1, 2]),
            json!({"type": "array", "items": {"type": "integer", "format": "int64"}}),
            json!([3]),
            "bigint[]: {1,2}, {3}",
        ),
        case(
            "objects_to_items",
            json!({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}}),
            json!([{"a": "x"}]),
            json!({"type": "array", "items": {"type": "string"}}),
            json!(["y"]),
            "text: [{\"a\": \"x\"}], {y}",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_follows_its_schema_and_keeps_its_values() {
    let Some((database, fixture)) = fixture() else { return };
    let mut wrong = Vec::new();
    for case in cases() {
        let table = TableRef::new("canvas", case.name);
        let (before, required) = value(&case.before);
        let old = served(&table, 1, before, &required);
        load(&fixture, &old, LoadKind::Replace, &[row(1, &case.first)], at(1)).await.unwrap();
        let (after, required) = value(&case.after);
        let new = served(&table, 2, after, &required);
        let loaded = load(&fixture, &new, LoadKind::Merge, &[row(2, &case.second)], at(2)).await;
        let Ok(loaded) = loaded else {
            wrong.push(format!("{}: {:?}", case.name, loaded.unwrap_err()));
            continue;
        };
        let is = found(&database, case.name);
        if is != case.found {
            wrong.push(format!("{}: {is}, not {} ({:?})", case.name, case.found, loaded.schema_changes));
        }
        // The column keeps this type: the change is not tried again, and deletes and updates find their rows.
        let rows = [row(2, &case.second), Change::Del(json!({"id": 1}))];
        let loaded = load(&fixture, &new, LoadKind::Merge, &rows, at(3)).await.unwrap();
        if (loaded.deleted, loaded.schema_changes.len()) != (1, 0) {
            wrong.push(format!("{}: {loaded:?}", case.name));
        }
        // A new snapshot has the type of the schema, even if the increment could not convert the column.
        load(&fixture, &new, LoadKind::Replace, &[row(2, &case.second)], at(4)).await.unwrap();
        let again = load(&fixture, &new, LoadKind::Merge, &[row(2, &case.second)], at(5)).await.unwrap();
        if !again.schema_changes.is_empty() {
            wrong.push(format!("{}: after a snapshot {again:?}", case.name));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_the_user_survive_and_removed_columns_are_dropped_on_request() {
    let Some((database, fixture)) = fixture() else { return };
    let table = TableRef::new("canvas", "t");
    let old = served(&table, 1, json!({"gone": {"type": "string"}, "kept": {"type": "integer", "format": "int32"}}), &["gone"]);
    let rows = [Change::Up(json!({"id": 1, "gone": "x", "kept": 1}))];
    load(&fixture, &old, LoadKind::Replace, &rows, at(1)).await.unwrap();
    database.psql(
        "ALTER TABLE canvas.t ADD COLUMN mine text DEFAULT 'mine'; CREATE INDEX my_index ON canvas.t (gone); \
         CREATE VIEW canvas.my_view AS SELECT id, gone FROM canvas.t; CREATE TABLE canvas.my_table (a int); \
         CREATE ROLE reader_of_t; GRANT SELECT ON canvas.t TO reader_of_t",
    );
    let new = served(&table, 2, json!({"kept": {"type": "integer", "format": "int64"}}), &[]);
    let rows = [Change::Up(json!({"id": 2, "kept": 2}))];
    let loaded = load(&fixture, &new, LoadKind::Merge, &rows, at(2)).await.unwrap();
    assert!(loaded.schema_changes.iter().any(|note| note.contains("`gone` was removed at the service")), "{loaded:?}");
    let content = "SELECT id, gone, kept, mine FROM canvas.t ORDER BY id";
    assert_eq!(database.psql(content), "1|x|1|mine\n2||2|mine\n");
    for kind in [LoadKind::Merge, LoadKind::Replace] {
        load(&fixture, &new, kind, &rows, at(3)).await.unwrap();
    }
    let others = "SELECT (SELECT count(*) FROM pg_indexes WHERE indexname = 'my_index'), \
                  has_table_privilege('reader_of_t', 'canvas.t', 'SELECT'), (SELECT count(*) FROM canvas.my_view), \
                  to_regclass('canvas.my_table')";
    assert_eq!(database.psql(others), "1|t|1|canvas.my_table\n");

    // A column of the user that needs a value is reported before anything is downloaded.
    database.psql("ALTER TABLE canvas.t ADD COLUMN numbered bigint GENERATED ALWAYS AS IDENTITY");
    load(&fixture, &new, LoadKind::Merge, &[Change::Up(json!({"id": 3}))], at(4)).await.unwrap();
    database.psql(
        "ALTER TABLE canvas.t ADD COLUMN strict text NOT NULL DEFAULT 'x'; ALTER TABLE canvas.t ALTER strict DROP DEFAULT",
    );
    let error = load(&fixture, &new, LoadKind::Merge, &[Change::Up(json!({"id": 4}))], at(5)).await.unwrap_err();
    assert_eq!((error.kind(), error.get("column")), (Kind::Target, Some("strict")), "{error:?}");
    assert!(error.hint_text().is_some());

    // The column is dropped on request, and no other.
    let table = TableRef::new("canvas", "dropping");
    let old = served(&table, 1, json!({"gone": {"type": "string"}}), &[]);
    load(&fixture, &old, LoadKind::Replace, &[Change::Up(json!({"id": 1, "gone": "x"}))], at(1)).await.unwrap();
    database.psql("ALTER TABLE canvas.dropping ADD COLUMN mine text DEFAULT 'mine'; CREATE VIEW canvas.of_gone AS SELECT gone FROM canvas.dropping");
    let options = SqlOptions { drop_removed_columns: true, ..SqlOptions::default() };
    let sink = SqlSink::open(&database.url.parse().unwrap(), options).unwrap();
    let mirroring = Fixture { sink: Box::new(sink), ..fixture };
    let new = served(&table, 2, json!({}), &[]);
    let error = load(&mirroring, &new, LoadKind::Merge, &[], at(2)).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("of_gone") && error.hint_text().is_some() && error.get("table") == Some("canvas.dropping"), "{text}");
    assert_eq!(mirroring.sink.committed(&table).await.unwrap().unwrap().bookmark, at(1));
    database.psql("DROP VIEW canvas.of_gone");
    load(&mirroring, &new, LoadKind::Merge, &[], at(2)).await.unwrap();
    assert_eq!(database.psql("SELECT * FROM canvas.dropping"), "1|mine\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_another_object_blocks_names_it() {
    let Some((database, fixture)) = fixture() else { return };
    let table = TableRef::new("canvas", "seen");
    let number = |format: &str| json!({"c": {"type": "integer", "format": format}});
    let old = served(&table, 1, number("int32"), &[]);
    load(&fixture, &old, LoadKind::Replace, &[row(1, &json!(1))], at(1)).await.unwrap();
    database.psql("ALTER TABLE canvas.seen ADD COLUMN doubled int GENERATED ALWAYS AS (c * 2) STORED");
    let new = served(&table, 2, number("int64"), &[]);
    let error = load(&fixture, &new, LoadKind::Merge, &[row(2, &json!(2))], at(2)).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("doubled") && error.get("table") == Some("canvas.seen"), "{text}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("drop")), "{text}");
    assert_eq!(found(&database, "seen"), "integer: 1");
    assert_eq!(fixture.sink.committed(&table).await.unwrap().unwrap().bookmark, at(1));
    // An attempt to convert strings that fails keeps the views, too.
    database.psql("ALTER TABLE canvas.seen DROP COLUMN doubled; CREATE VIEW canvas.all_seen AS SELECT * FROM canvas.seen");
    let words = served(&table, 3, json!({"c": {"type": "string", "enum": ["2", "3"]}}), &[]);
    load(&fixture, &words, LoadKind::Merge, &[], at(3)).await.unwrap();
    assert_eq!(found(&database, "seen"), "text: 1");
    assert_eq!(database.psql("SELECT c FROM canvas.all_seen"), "1\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_primary_key_needs_a_new_snapshot() {
    let Some((database, fixture)) = fixture() else { return };
    let table = TableRef::new("canvas", "keyed");
    let schema = |version, keys: &[&str], values: &[&str]| integers(&table, version, keys, values);
    let rows = [Change::Up(json!({"id": 1, "part": 1})), Change::Up(json!({"id": 2, "part": 1}))];
    load(&fixture, &schema(1, &["id"], &["part"]), LoadKind::Replace, &rows, at(1)).await.unwrap();
    let moved = schema(2, &["id", "part"], &[]);
    let error = load(&fixture, &moved, LoadKind::Merge, &rows, at(2)).await.unwrap_err();
    assert!(error.kind() == Kind::Schema && error.hint_text().is_some(), "{error:?}");
    load(&fixture, &moved, LoadKind::Replace, &rows, at(2)).await.unwrap();
    let rows = [Change::Up(json!({"id": 1, "part": 2})), Change::Del(json!({"id": 2, "part": 1}))];
    load(&fixture, &moved, LoadKind::Merge, &rows, at(3)).await.unwrap();
    assert_eq!(database.psql("SELECT id, part FROM canvas.keyed ORDER BY 1, 2"), "1|1\n1|2\n");
}
