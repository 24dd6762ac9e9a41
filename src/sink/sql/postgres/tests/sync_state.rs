//! The sync state: databases of old clients, unknown versions, and how rarely it is queried.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use serde_json::json;

use super::{Database, Fixture, SqlOptions, SqlSink, fixture, load, served};
use crate::error::{Kind, Result};
use crate::model::{Namespace, TableRef, Timestamp};
use crate::sink::conformance::{Change, at};
use crate::sink::sql::connection::{Answer, Connection, CopyTarget, Server};
use crate::sink::sql::dialect::{Dialect, Statement};
use crate::sink::sql::postgres::PostgresServer;
use crate::sink::{LoadKind, Sink};

/// A database as a client of version 0.3 left it: `dap_meta` beside the tables, and no current sync state.
fn create_legacy_tables(database: &Database) {
    for namespace in ["canvas", "canvas_logs"] {
        database.psql(&format!(
            "CREATE SCHEMA {namespace}; CREATE TABLE {namespace}.dap_meta (id bigint PRIMARY KEY, namespace varchar(64) NOT NULL, \
             source_table varchar(64) NOT NULL, timestamp timestamp NOT NULL, schema_version bigint NOT NULL, target_schema varchar(64), \
             target_table varchar(64) NOT NULL, schema_description_format varchar(64) NOT NULL, schema_description text NOT NULL)"
        ));
    }
    let description = json!({"properties": {
        "key": {"properties": {"id": {"type": "integer", "format": "int64"}}, "required": ["id"]},
        "value": {"properties": {"a": {"type": "string"}}},
    }});
    database.psql(&format!(
        "CREATE TABLE canvas.users (id bigint CONSTRAINT pk_users PRIMARY KEY, a text); INSERT INTO canvas.users VALUES (1, 'x'); \
         CREATE TABLE canvas_logs.web_logs (id bigint PRIMARY KEY); \
         INSERT INTO canvas.dap_meta VALUES (4, 'canvas', 'users', '2023-05-06 07:08:09', 3, 'canvas', 'users', 'json', '{description}'); \
         INSERT INTO canvas_logs.dap_meta VALUES (1, 'canvas_logs', 'web_logs', '2023-05-06 07:08:10', 1, 'canvas_logs', 'web_logs', 'json', '{{}}')"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_a_client_before_1_0_is_converted() {
    let Some((database, fixture)) = fixture() else { return };
    create_legacy_tables(&database);
    let users = TableRef::new("canvas", "users");
    let sink = SqlSink::open(&database.url.parse().unwrap(), SqlOptions::default()).unwrap();
    let other = SqlSink::open(&database.url.parse().unwrap(), SqlOptions::default()).unwrap();
    // Two runs at once convert it once.
    let (one, two) = tokio::join!(sink.prepare(), other.prepare());
    one.unwrap();
    two.unwrap();
    assert_eq!(database.psql("SELECT * FROM instructure_dap.database_version"), "1\n");
    let rows = "SELECT source_namespace, source_table, timestamp, schema_version, target_schema, target_table FROM instructure_dap.table_sync ORDER BY 1";
    assert_eq!(
        database.psql(rows),
        "canvas|users|2023-05-06 07:08:09|3|canvas|users\ncanvas_logs|web_logs|2023-05-06 07:08:10|1|canvas_logs|web_logs\n"
    );
    assert_eq!(
        database.psql("SELECT to_regclass('canvas.dap_meta') IS NULL, (SELECT count(*) FROM canvas.dap_meta_backup)"),
        "t|1\n"
    );
    // A load continues from its bookmark.
    let held = fixture.sink.committed(&users).await.unwrap().unwrap();
    assert_eq!(held.bookmark.at, "2023-05-06T07:08:09Z".parse::<Timestamp>().unwrap());
    let schema = served(&users, 4, json!({"a": {"type": "string"}, "b": {"type": "string"}}), &[]);
    let reached = crate::model::Bookmark { at: "2026-01-01T00:00:00Z".parse().unwrap(), schema_version: 4 };
    load(&fixture, &schema, LoadKind::Merge, &[Change::Up(json!({"id": 2, "a": "y", "b": "z"}))], reached).await.unwrap();
    assert_eq!(database.psql("SELECT * FROM canvas.users ORDER BY id"), "1|x|\n2|y|z\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_version_of_the_layout_is_refused() {
    for (rows, is_known) in [("(0)", true), ("(5)", false), ("(1), (2)", false)] {
        let Some((database, fixture)) = fixture() else { return };
        let sink = SqlSink::open(&database.url.parse().unwrap(), SqlOptions::default()).unwrap();
        sink.prepare().await.unwrap();
        database.psql(&format!(
            "DELETE FROM instructure_dap.database_version; INSERT INTO instructure_dap.database_version VALUES {rows}"
        ));
        let table = TableRef::new("canvas", "t");
        let loaded = load(&fixture, &served(&table, 1, json!({}), &[]), LoadKind::Replace, &[], at(1)).await;
        match is_known {
            true => assert_eq!(loaded.unwrap().upserted, 0),
            false => {
                let error = loaded.unwrap_err();
                assert!(error.kind() == Kind::Unsupported && error.hint_text().is_some(), "{error:?}");
                assert_eq!(database.psql("SELECT to_regclass('canvas.t') IS NULL"), "t\n");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_character_set_that_is_not_utf_8_is_reported() {
    let Some((database, _fixture)) = fixture() else { return };
    let warning =
        async |url: &str| SqlSink::open(&url.parse().unwrap(), SqlOptions::default()).unwrap().charset_warning().await;
    let name = format!("c{}", uuid::Uuid::new_v4().simple());
    for (settings, is_odd) in [
        ("ENCODING 'UTF8' LOCALE 'C.UTF-8'", false),
        ("ENCODING 'UTF8' LOCALE 'C'", true),
        ("ENCODING 'SQL_ASCII' LOCALE 'C'", true),
    ] {
        database.psql(&format!("DROP DATABASE IF EXISTS {name}"));
        database.psql(&format!("CREATE DATABASE {name} TEMPLATE template0 {settings}"));
        let (base, query) = database.url.split_once('?').unwrap_or((&database.url, ""));
        let url = format!("{}/{name}?{query}", &base[..base.rfind('/').unwrap()]);
        assert_eq!(warning(url.trim_end_matches('?')).await.unwrap().is_some(), is_odd, "{settings}");
    }
}

/// Records the statements.
#[derive(Debug)]
struct Counting {
    inner: PostgresServer,
    asked: Arc<Mutex<Vec<String>>>,
}

struct CountingSession {
    inner: Box<dyn Connection>,
    asked: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl Server for Counting {
    fn dialect(&self) -> &dyn Dialect {
        self.inner.dialect()
    }

    async fn connect(&self) -> Result<Box<dyn Connection>> {
        let inner = self.inner.connect().await?;
        Ok(Box::new(CountingSession { inner, asked: Arc::clone(&self.asked) }))
    }
}

#[async_trait]
impl Connection for CountingSession {
    async fn ask(&mut self, statement: &Statement) -> Result<Answer> {
        self.run_all(std::slice::from_ref(statement)).await.map(|mut answers| answers.remove(0))
    }

    async fn run_all(&mut self, statements: &[Statement]) -> Result<Vec<Answer>> {
        let texts: Vec<&str> = statements.iter().map(|statement| statement.text.as_str()).collect();
        self.asked.lock().unwrap().push(texts.join("; "));
        self.inner.run_all(statements).await
    }

    async fn prepare_copy(&mut self, statements: &[Statement], target: &CopyTarget) -> Result<()> {
        self.asked.lock().unwrap().push("prepare a copy".to_owned());
        self.inner.prepare_copy(statements, target).await
    }

    async fn copy_in(&mut self, target: &CopyTarget, batch: &RecordBatch) -> Result<u64> {
        self.inner.copy_in(target, batch).await
    }

    fn is_idle(&self) -> bool {
        self.inner.is_idle()
    }

    async fn is_alive(&mut self) -> bool {
        self.inner.is_alive().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_over_unchanged_tables_reads_the_sync_state_once() {
    let Some((database, fixture)) = fixture() else { return };
    let tables: Vec<TableRef> = (0..100).map(|number| TableRef::new("canvas", format!("t{number}"))).collect();
    for table in &tables {
        load(&fixture, &served(table, 1, json!({}), &[]), LoadKind::Replace, &[], at(1)).await.unwrap();
    }
    let url = database.url.parse().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let server = Counting { inner: PostgresServer::from_url(&url).unwrap(), asked: Arc::clone(&asked) };
    let sink = SqlSink::with_server(&url, Box::new(server), SqlOptions::default());
    // The calls of a run to a sink for tables without changes.
    sink.check().await.unwrap();
    for table in &tables {
        assert_eq!(sink.committed(table).await.unwrap().unwrap().bookmark, at(1));
    }
    assert_eq!(sink.committed(&TableRef::new("canvas", "unknown")).await.unwrap(), None);
    let count = asked.lock().unwrap().len();
    assert!(count <= 6, "{count}: {:?}", asked.lock().unwrap());
    // The next answer is read again.
    let schema = served(&tables[0], 1, json!({}), &[]);
    load(&fixture, &schema, LoadKind::Merge, &[], at(2)).await.unwrap();
    assert_eq!(sink.committed(&tables[0]).await.unwrap().unwrap().bookmark, at(2));
    sink.check().await.unwrap();
    assert_eq!(sink.committed(&tables[0]).await.unwrap().unwrap().bookmark, at(2));

    // A table with changes costs its own statements, however many tables the database has.
    asked.lock().unwrap().clear();
    let reader: Box<dyn Fn(TableRef) -> futures::future::BoxFuture<'static, Vec<RecordBatch>> + Send + Sync> =
        Box::new(|_| Box::pin(async { Vec::new() }));
    let counted = Fixture { sink: Box::new(sink.clone()), read: reader };
    load(&counted, &schema, LoadKind::Merge, &[Change::Up(json!({"id": 1}))], at(3)).await.unwrap();
    let first = asked.lock().unwrap().len();
    asked.lock().unwrap().clear();
    load(&counted, &schema, LoadKind::Merge, &[Change::Up(json!({"id": 1}))], at(4)).await.unwrap();
    let second = asked.lock().unwrap().len();
    assert!(first <= 13 && second <= 7, "{first} {second}: {:#?}", asked.lock().unwrap());

    // The row counts are one query, too.
    asked.lock().unwrap().clear();
    assert_eq!(sink.figures(&Namespace::new("canvas")).await.unwrap().len(), 100);
    assert_eq!(asked.lock().unwrap().len(), 1);
}
