//! Objects of others in the database: neither used nor changed.

use serde_json::json;

use super::{SqlOptions, SqlSink, fixture, load, served};
use crate::error::Kind;
use crate::model::TableRef;
use crate::sink::LoadKind;
use crate::sink::conformance::{Change, at};
use crate::sink::sql::connection::Server;
use crate::sink::sql::postgres::PostgresServer;

/// Types, domains and lookup tables that have the names of the table's parts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_others_are_neither_used_nor_changed() {
    let Some((database, fixture)) = fixture() else { return };
    database.psql("CREATE SCHEMA canvas");
    let words = json!({"state": {"type": "string", "enum": ["a", "b"]}, "open": {"oneOf": [{"type": "string", "enum": ["x"]}, {"type": "string"}]}});
    let rows = [Change::Up(json!({"id": 1, "state": "b", "open": "x"}))];
    for (number, (theirs, kind)) in [
        ("CREATE DOMAIN canvas.{}__state AS text", "domain"),
        ("CREATE TYPE canvas.{}__state AS (a int)", "type"),
        ("CREATE TYPE canvas.{}__state AS ENUM ('a', 'mine'); CREATE TABLE public.{} (c canvas.{}__state)", "type of another table"),
        ("CREATE TABLE canvas.{}__open (id int PRIMARY KEY, value varchar(64), note text); INSERT INTO canvas.{}__open VALUES (1, 'mine', 'x')", "table with other columns"),
        ("CREATE VIEW canvas.{}__open AS SELECT 1 AS id, 'x' AS value", "view"),
        ("CREATE SEQUENCE canvas.{}", "sequence"),
        ("CREATE MATERIALIZED VIEW canvas.{} AS SELECT 1 AS id", "materialized view"),
        ("CREATE DOMAIN canvas.{} AS text", "domain"),
        ("CREATE TYPE canvas.{} AS (id bigint)", "type"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("t{number}");
        database.psql(&theirs.replace("{}", &name));
        let everything = "SELECT string_agg(x, ' ') FROM (SELECT relname::text || relkind::text || relnatts AS x FROM pg_class WHERE relnamespace = 'canvas'::regnamespace \
                          UNION ALL SELECT typname::text || typtype::text FROM pg_type WHERE typnamespace = 'canvas'::regnamespace UNION ALL SELECT enumlabel FROM pg_enum ORDER BY 1) AS all_of_it";
        let before = database.psql(everything);
        let table = TableRef::new("canvas", name.clone());
        let schema = served(&table, 1, words.clone(), &[]);
        let error = match fixture.sink.committed(&table).await {
            Err(error) => error,
            Ok(_) => load(&fixture, &schema, LoadKind::Replace, &rows, at(1)).await.unwrap_err(),
        };
        assert_eq!((error.kind(), error.get("kind")), (Kind::Target, Some(kind)), "{theirs}: {error:?}");
        assert!(error.get("table") == Some(&table.to_string()) && error.hint_text().is_some(), "{error:?}");
        assert_eq!(database.psql(everything), before, "{theirs}");
    }

    // Leftovers of a dropped table are reused, and so is a type that no other table uses.
    let table = TableRef::new("canvas", "again");
    let schema = served(&table, 1, words, &[]);
    load(&fixture, &schema, LoadKind::Replace, &rows, at(1)).await.unwrap();
    let sink = SqlSink::open(&database.url.parse().unwrap(), SqlOptions::default()).unwrap();
    database.psql(
        "CREATE TABLE public.copy_of_it AS SELECT * FROM canvas.again; ALTER TABLE canvas.again__open ADD COLUMN label text",
    );
    sink.remove(&table).await.unwrap();
    load(&fixture, &schema, LoadKind::Replace, &rows, at(2)).await.unwrap();
    assert_eq!(
        database.psql("SELECT a.id, state, value FROM canvas.again AS a JOIN canvas.again__open AS l ON l.id = a.open"),
        "1|b|x\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_others_are_not_mistaken_for_the_sync_state() {
    for theirs in [
        "CREATE TABLE instructure_dap.table_sync (id int, note text); INSERT INTO instructure_dap.table_sync VALUES (1, 'mine')",
        "CREATE TABLE instructure_dap.database_version (release text)",
        "CREATE VIEW instructure_dap.table_sync AS SELECT 1 AS id",
    ] {
        let Some((database, fixture)) = fixture() else { return };
        database.psql(&format!("CREATE SCHEMA instructure_dap; {theirs}"));
        let error = fixture.sink.check().await.unwrap_err();
        assert!(
            error.kind() == Kind::Target && error.get("name").is_some_and(|name| name.contains("instructure_dap")),
            "{error:?}"
        );
        let table = TableRef::new("canvas", "t");
        let schema = served(&table, 1, json!({}), &[]);
        let sink = SqlSink::open(&database.url.parse().unwrap(), SqlOptions::default()).unwrap();
        sink.prepare().await.unwrap_err();
        assert!(fixture.sink.committed(&table).await.is_err(), "{schema:?}");
        assert_eq!(database.psql("SELECT count(*) FROM pg_namespace WHERE nspname = 'canvas'"), "0\n");
    }
}

#[test]
fn names_of_system_columns_are_refused_with_a_hint() {
    let server = PostgresServer::from_url(&"postgresql://me@h/x".parse().unwrap()).unwrap();
    for name in ["xmin", "ctid", "tableoid", "cmin", "cmax", "xmax"] {
        let schema = served(&TableRef::new("canvas", "t"), 1, json!({ name: {"type": "string"} }), &[]);
        let error = server.dialect().table_of(&schema).unwrap_err();
        assert_eq!((error.kind(), error.get("column")), (Kind::Schema, Some(name)));
        assert!(error.hint_text().unwrap().contains(&format!("--drop-column canvas.t.{name}")), "{error:?}");
    }
    let unnamed = served(&TableRef::new("canvas", "t"), 1, json!({"": {"type": "string"}}), &[]);
    let error = server.dialect().table_of(&unnamed).unwrap_err();
    assert!(error.kind() == Kind::Schema && error.hint_text().unwrap().contains("--column"), "{error:?}");
    let fine = served(&TableRef::new("canvas", "t"), 1, json!({"XMIN": {"type": "string"}, "oid": {"type": "string"}}), &[]);
    server.dialect().table_of(&fine).unwrap();
}

/// In nested values and in strings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn characters_that_cannot_be_kept_are_counted_at_any_depth() {
    let Some((database, fixture)) = fixture() else { return };
    let table = TableRef::new("canvas", "deep");
    let text = json!({"type": "string"});
    let schema = served(
        &table,
        1,
        json!({
            "object": {"type": "object", "properties": {"a": text, "b": {"type": "object", "properties": {"c": text}}}},
            "objects": {"type": "array", "items": {"type": "object", "properties": {"a": text}}},
            "texts": {"type": "array", "items": text},
            "free": {"type": "array", "items": {"type": "object"}},
            "plain": text,
        }),
        &[],
    );
    // An object of unknown shape is JSON text, as it came.
    let row = |id: i64| {
        Change::Up(json!({
            "id": id,
            "object": {"a": "x\u{0}y", "b": {"c": "\u{0}"}},
            "objects": [{"a": "x\u{0}"}, {"a": "fine"}, {"a": "\u{0}"}],
            "texts": ["\u{0}", "fine"],
            "free": r#"[{"name\u0000": "\u0000"}, {"half": "\ud83d!", "whole": "\ud83d\ude00"}]"#,
            "plain": "\u{0}",
        }))
    };
    for (reached, kind) in [(1, LoadKind::Replace), (2, LoadKind::Merge), (3, LoadKind::Replace)] {
        let loaded = load(&fixture, &schema, kind, &[row(1)], at(reached)).await.unwrap();
        let count = |column: &str, word: &str| {
            let note = loaded.warnings.iter().find(|note| note.starts_with(&format!("`{column}`")) && note.contains(word));
            note.map(|note| note.split(' ').find_map(|word| word.parse::<u64>().ok()).unwrap())
        };
        let counts = ["object", "objects", "texts", "free", "plain"].map(|column| count(column, "NUL"));
        assert_eq!(counts, [Some(2), Some(2), Some(1), None, Some(1)], "{loaded:?}");
        assert_eq!(
            database.psql("SELECT object, objects, texts, free, plain FROM canvas.deep"),
            "{\"a\": \"x␀y\", \"b\": {\"c\": \"␀\"}}|[{\"a\": \"x␀\"}, {\"a\": \"fine\"}, {\"a\": \"␀\"}]|{␀,fine}|\
             [{\"name\\u0000\": \"\\u0000\"}, {\"half\": \"\\ud83d!\", \"whole\": \"\\ud83d\\ude00\"}]|␀\n"
        );
    }
}
