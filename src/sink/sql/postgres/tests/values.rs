//! Values that do not fit the schema, and schemas for which the official client cannot create tables.

use serde_json::json;

use super::{fixture, load, served};
use crate::engine::{Engine, EngineOptions};
use crate::error::Kind;
use crate::model::TableRef;
use crate::reduce::latest_per_key;
use crate::schema::TableSchema;
use crate::sink::conformance::{self, Change, at, plan};
use crate::sink::{LoadKind, WriteError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_beyond_the_schema_are_kept() {
    let Some((database, fixture)) = fixture() else { return };
    let long_word = "w".repeat(70);
    let value = json!({
        "word": {"type": "string", "enum": ["a", "ä"]},
        "words": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
        "endless": {"type": "string", "enum": ["a", "b"]},
        "open": {"oneOf": [{"type": "string", "enum": ["a"]}, {"type": "string"}]},
        "short": {"type": "string", "maxLength": 3},
        "shorts": {"type": "array", "items": {"type": "string", "maxLength": 3}},
        "nul": {"type": "string"},
        "needed": {"type": "string"},
    });
    let row = |id: i64| {
        Change::Up(json!({
            "id": id, "word": "ünlisted", "words": ["a", "odd"], "endless": long_word, "open": long_word,
            "short": "__dap_oversized_truncated__", "shorts": ["abc", "abcd"], "nul": "a\u{0}b", "needed": null,
        }))
    };
    let found = |table: &str| {
        database.psql(&format!(
            "SELECT t.id, word, words, endless, l.value, short, shorts, nul, needed FROM canvas.{table} t \
             JOIN canvas.{table}__open l ON l.id = t.open ORDER BY t.id"
        ))
    };
    let line = |id: i64| {
        format!("{id}|ünlisted|{{a,odd}}|{long_word}|{long_word}|__dap_oversized_truncated__|{{abc,abcd}}|a\u{2400}b|\n")
    };
    for (name, first) in [("staged", LoadKind::Replace), ("left", LoadKind::Merge)] {
        let table = TableRef::new("canvas", name);
        let schema = served(&table, 1, value.clone(), &["needed"]);
        if name == "left" {
            // Types outlive their tables.
            database.psql("CREATE TYPE canvas.left__word AS ENUM ('a')");
        }
        let loaded = load(&fixture, &schema, first, &[row(1)], at(1)).await.unwrap();
        assert!(loaded.schema_changes.len() >= 5 && loaded.warnings.len() == 3, "{loaded:?}");
        assert_eq!(found(name), line(1));
        let loaded = load(&fixture, &schema, LoadKind::Merge, &[row(1), row(2)], at(2)).await.unwrap();
        assert_eq!((loaded.upserted, loaded.warnings.len()), (2, 1), "{loaded:?}");
        assert_eq!(found(name), format!("{}{}", line(1), line(2)));
        assert_eq!(database.psql(&format!("SELECT enum_range(NULL::canvas.{name}__word)")), "{a,ä,ünlisted}\n");
    }
    // A table whose rows are copied directly (no lookup tables, no arrays of enum values).
    for (name, type_is_there) in [("direct", false), ("direct_over_old_type", true)] {
        let table = TableRef::new("canvas", name);
        let mut value = value.clone();
        for column in ["words", "open"] {
            value.as_object_mut().unwrap().remove(column);
        }
        let schema = served(&table, 1, value, &["needed"]);
        if type_is_there {
            database.psql(&format!("CREATE TYPE canvas.{name}__word AS ENUM ('ä', 'other')"));
        }
        let Change::Up(mut row) = row(1) else { unreachable!() };
        row.as_object_mut().unwrap().retain(|name, _| !["words", "open"].contains(&name.as_str()));
        let fitting = Change::Up(json!({"id": 7, "word": "a", "short": "abc", "needed": "x"}));
        load(&fixture, &schema, LoadKind::Replace, &[fitting, Change::Up(row)], at(1)).await.unwrap();
        let found =
            database.psql(&format!("SELECT id, word, endless, short, shorts, nul, needed FROM canvas.{name} ORDER BY id"));
        let second = "7|a||abc|||x\n";
        assert_eq!(
            found,
            format!("1|ünlisted|{long_word}|__dap_oversized_truncated__|{{abc,abcd}}|a\u{2400}b|\n{second}"),
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_cannot_be_stored_fail_with_column_and_key() {
    let Some((database, fixture)) = fixture() else { return };
    let table = TableRef::new("canvas", "strict");
    let source = json!({"properties": {
        "key": {"properties": {"id": {"type": "integer", "format": "int64"}, "part": {"type": "string"}}, "required": ["id", "part"]},
        "value": {"properties": {
            "uuid": {"type": "string", "format": "uuid"}, "clock": {"type": "string", "format": "time"},
            "address": {"oneOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]},
        }},
    }});
    let schema = TableSchema::read(&table, 1, source).unwrap();
    let good = Change::Up(json!({"id": 1, "part": "x"}));
    load(&fixture, &schema, LoadKind::Replace, std::slice::from_ref(&good), at(1)).await.unwrap();
    for (bad, column, key) in [
        (json!({"id": 5, "part": "p", "uuid": "secret"}), "uuid", "id=5, part=p"),
        (json!({"id": 5, "part": "p", "clock": "secret"}), "clock", "id=5, part=p"),
        (json!({"id": 5, "part": "p", "address": "secret"}), "address", "id=5, part=p"),
    ] {
        for kind in [LoadKind::Merge, LoadKind::Replace] {
            let error = load(&fixture, &schema, kind, &[good.clone(), Change::Up(bad.clone())], at(2)).await.unwrap_err();
            let error_fields = (error.kind(), error.get("table"), error.get("column"), error.get("key"));
            assert_eq!(error_fields, (Kind::Data, Some("canvas.strict"), Some(column), Some(key)), "{error:?}");
            assert!(error.hint_text().is_some() && !format!("{error:?}").contains("secret"), "{error:?}");
        }
    }
    assert_eq!(database.psql("SELECT * FROM canvas.strict"), "1|x|||\n");
}

/// Composite keys, one-value and open enumerations, names beyond 63 bytes, arrays of objects, free objects, unknown keywords.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_that_the_official_client_fails_on_work() {
    let Some((database, fixture)) = fixture() else { return };
    let table = TableRef::new("canvas", "odd");
    let long = format!("long_{}", "x".repeat(55));
    let mut value = json!({
        "one": {"type": "string", "enum": ["only"]},
        "open_two": {"oneOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "string"}]},
        "objects": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "free": {"type": "object"},
        "free_items": {"type": "array", "items": {"type": "object"}},
        "any": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "either": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
        "unknown": {"type": "string", "somethingNew": true},
        "types": {"type": ["string", "null"]},
        "span": {"type": "string", "format": "duration"},
        "with_default": {"type": "string", "enum": ["x", "y"], "default": "x"},
    });
    value[&long] = json!({"type": "string", "enum": ["p", "q"]});
    let source = json!({"properties": {
        "key": {"properties": {"b": {"type": "string"}, "a": {"type": "integer", "format": "int64"}}, "required": ["b", "a"]},
        "value": {"properties": value},
    }});
    let schema = TableSchema::read(&table, 1, source).unwrap();
    let row = |a: i64| {
        let mut row = json!({
            "a": a, "b": "ß", "one": "only", "open_two": "neither", "objects": [{"a": "x"}], "free": "{\"n\":1.10}",
            "free_items": null, "any": "text", "either": "5", "unknown": "u", "types": "t", "span": "P1D", "with_default": "y",
        });
        row[&long] = json!("q");
        Change::Up(row)
    };
    load(&fixture, &schema, LoadKind::Replace, &[row(1)], at(1)).await.unwrap();
    for second in 2..4 {
        let loaded = load(
            &fixture,
            &schema,
            LoadKind::Merge,
            &[row(second), Change::Del(json!({"a": second - 1, "b": "ß"}))],
            at(second),
        )
        .await;
        let loaded = loaded.unwrap();
        assert_eq!((loaded.deleted, loaded.schema_changes.len()), (1, 0), "{loaded:?}");
    }
    let found =
        database.psql(&format!("SELECT a, b, one, open_two, objects, free, span, with_default, {long} FROM canvas.odd"));
    assert_eq!(found, "3|ß|only|neither|[{\"a\": \"x\"}]|{\"n\":1.10}|P1D|y|q\n");
    let keys = "SELECT string_agg(a.attname, ',' ORDER BY array_position(i.indkey, a.attnum)) FROM pg_index i \
                JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) \
                WHERE i.indrelid = 'canvas.odd'::regclass AND i.indisprimary";
    assert_eq!(database.psql(keys), "b,a\n");
}

/// Microseconds, both kinds of addresses, enum values beyond ASCII, and a key that is deleted and inserted in one change set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_that_the_official_client_loses_are_kept() {
    let Some((database, fixture)) = fixture() else { return };
    let table = TableRef::new("canvas", "lost");
    let value = json!({
        "moment": {"type": "string", "format": "date-time"},
        "address": {"oneOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]},
        "word": {"type": "string", "enum": ["fünf", "六"]},
    });
    let schema = served(&table, 1, value, &[]);
    let row = |id: i64, moment: &str, address: &str, word: &str| {
        Change::Up(json!({"id": id, "moment": moment, "address": address, "word": word}))
    };
    let rows = [
        row(1, "2026-01-02T03:04:05.123456Z", "192.0.2.1", "fünf"),
        row(2, "1969-12-31T23:59:59.999999Z", "2001:db8::1", "六"),
    ];
    load(&fixture, &schema, LoadKind::Replace, &rows, at(1)).await.unwrap();
    let found = || database.psql("SELECT id, moment, host(address), word FROM canvas.lost ORDER BY id");
    let both = "1|2026-01-02 03:04:05.123456|192.0.2.1|fünf\n2|1969-12-31 23:59:59.999999|2001:db8::1|六\n";
    assert_eq!(found(), both);

    // The load detects the repeated key, and deduplication keeps the last change.
    let changes = [
        Change::Del(json!({"id": 1})),
        row(1, "2026-01-02T03:04:05.000001Z", "192.0.2.9", "六"),
        Change::Del(json!({"id": 2})),
    ];
    let batch = conformance::changes(&schema, &changes);
    let mut opened = fixture.sink.begin(plan(&fixture, &schema, LoadKind::Merge).await).await.unwrap();
    let error = opened.write(conformance::unreduced(&schema, vec![batch.clone()])).await.unwrap_err();
    assert!(matches!(error, WriteError::DuplicateKey), "{error:?}");
    opened.abort().await.unwrap();
    let engine = Engine::new(EngineOptions { memory_limit: 64 << 20, temp_dir: None, partitions: 1 }).unwrap();
    let reduced = latest_per_key(&engine, conformance::unreduced(&schema, vec![batch])).unwrap();
    let mut opened = fixture.sink.begin(plan(&fixture, &schema, LoadKind::Merge).await).await.unwrap();
    opened.write(reduced).await.unwrap();
    opened.commit(at(2)).await.unwrap();
    assert_eq!(found(), "1|2026-01-02 03:04:05.000001|192.0.2.9|六\n");
}

/// Rows of a new table get the ids of enum values; rows for which that is impossible are staged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enum_values_of_lookup_tables_become_ids_in_a_new_table() {
    let Some((database, fixture)) = fixture() else { return };
    let table = TableRef::new("canvas", "looked");
    let open = json!({"oneOf": [{"type": "string", "enum": ["one"]}, {"type": "string"}]});
    let schema = served(&table, 1, json!({"word": open.clone(), "other": open}), &[]);
    let row = |id: i64, word: Option<&str>, other: &str| Change::Up(json!({"id": id, "word": word, "other": other}));
    let long = "w".repeat(70);
    let rows = [row(1, Some("one"), "ä'\\"), row(2, None, "one"), row(3, Some(&long), ""), row(4, Some("one"), " ")];
    let found = || {
        database.psql(
            "SELECT t.id, l.value, o.value FROM canvas.looked t LEFT JOIN canvas.looked__word l ON l.id = t.word \
             LEFT JOIN canvas.looked__other o ON o.id = t.other ORDER BY t.id",
        )
    };
    let expected = format!("1|one|ä'\\\n2||one\n3|{long}|\n4|one| \n");
    let ids = "SELECT string_agg(id || value, ',' ORDER BY id) FROM canvas.looked__word";
    load(&fixture, &schema, LoadKind::Replace, &rows, at(1)).await.unwrap();
    assert_eq!(found(), expected);
    assert_eq!(
        database.psql("SELECT count(*) FROM pg_constraint WHERE conrelid = 'canvas.looked'::regclass AND contype = 'f'"),
        "2\n"
    );
    let before = database.psql(ids);

    // Lookup tables outlive their table, and so do the ids.
    database.psql("DROP TABLE canvas.looked; DELETE FROM instructure_dap.table_sync");
    load(&fixture, &schema, LoadKind::Replace, &rows, at(2)).await.unwrap();
    assert_eq!((found(), database.psql(ids)), (expected.clone(), before));

    database.psql("DROP TABLE canvas.looked; DELETE FROM instructure_dap.table_sync");
    let rows = [row(1, Some("a\u{0}b"), "one")];
    let batch = conformance::changes(&schema, &rows);
    let mut opened = fixture.sink.begin(plan(&fixture, &schema, LoadKind::Replace).await).await.unwrap();
    let error = opened.write(conformance::reduced(&schema, vec![batch])).await.unwrap_err();
    assert!(matches!(error, WriteError::Restart), "{error:?}");
    opened.abort().await.unwrap();
    load(&fixture, &schema, LoadKind::Replace, &rows, at(3)).await.unwrap();
    assert_eq!(found(), "1|a\u{2400}b|one\n");
}
