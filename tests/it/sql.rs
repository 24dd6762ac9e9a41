//! PostgreSQL as a target, through the front door: the same histories as in the lake, read back with `psql`.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use daplake::Kind;
use daplake::demo::school::SchoolOptions;
use daplake::demo::serve::{Fault, Times};
use daplake::model::{TableRef, Timestamp};
use daplake::ops::{self, OnSnapshotRequired, Outcome, Report, SyncRequest, Target};
use daplake::sink::Sink;
use serde_json::Value;

use crate::support::postgres::Database;
use crate::support::{World, read_postgres, assert_same, canvas, failures, outcome, school, web_logs};

struct Sql {
    world: World,
    database: Database,
    sink: Arc<dyn Sink>,
}

impl Sql {
    async fn new(school: SchoolOptions) -> Option<Self> {
        let database = Database::new()?;
        let world = World::new(school).await;
        let target: Target = database.url.parse().unwrap();
        let sink = ops::open_sink(&target, &world.engine()).unwrap();
        Some(Self { world, database, sink })
    }

    fn request(&self) -> SyncRequest {
        SyncRequest { sink: Arc::clone(&self.sink), ..self.world.request() }
    }

    async fn sync_all(&self) -> Report {
        let report = ops::sync(self.request()).await.unwrap();
        assert_eq!(failures(&report), [""; 0], "no table fails");
        report
    }

    /// Asserts that the tables are exactly what the school says, by the server's own reading.
    fn assert_tables(&self, tables: &[TableRef], at: Timestamp) {
        let read = read_postgres::rows(&self.database, tables);
        for (table, rows) in tables.iter().zip(read) {
            assert_same(&self.world.school, table, at, rows);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_school_follows_its_history_in_postgresql() {
    let Some(sql) = Sql::new(SchoolOptions { rows: 120, evolving: true, ..school(&[]) }).await else { return };
    let first = sql.sync_all().await;
    assert!(first.tables.len() > 100, "all tables of the catalogue");
    let tables = sql.world.all_tables();
    sql.assert_tables(&tables, sql.world.school.now());
    let mut changes = 0;
    for _ in 0..4 {
        sql.world.school.advance();
        for table in sql.sync_all().await.tables {
            if let Outcome::Loaded { schema_changes, .. } = table.outcome {
                changes += schema_changes.len();
            }
        }
        sql.assert_tables(&tables, sql.world.school.now());
    }
    assert!(changes >= 4, "the history has schema changes");
    let again = sql.sync_all().await;
    assert!(again.tables.iter().all(|table| matches!(table.outcome, Outcome::Unchanged { .. })), "{again:?}");
    // Nothing of ours in the schemas that the official client reads.
    let others = sql.database.psql("SELECT count(*) FROM pg_namespace WHERE nspname LIKE '%daplake%' OR nspname LIKE '%stag%'");
    assert_eq!(others, "0\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_syncs_at_once_leave_one_right_table_in_postgresql() {
    let table = canvas("users");
    let Some(sql) = Sql::new(school(std::slice::from_ref(&table))).await else { return };
    for _ in 0..4 {
        let (one, two) = tokio::join!(ops::sync(sql.request()), ops::sync(sql.request()));
        for report in [one.unwrap(), two.unwrap()] {
            for failed in report.failed() {
                assert_eq!(failed.error.as_ref().unwrap().kind(), Kind::Conflict, "{failed:?}");
            }
        }
        sql.assert_tables(std::slice::from_ref(&table), sql.world.school.now());
        sql.world.school.advance();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demanded_snapshot_replaces_the_rows_and_keeps_old_logs() {
    let tables = [canvas("users"), web_logs()];
    let Some(sql) = Sql::new(school(&tables)).await else { return };
    sql.sync_all().await;
    let old = sql.world.school.now();
    sql.world.school.advance();
    sql.world.server.inject(Fault::parse("snapshot-required").unwrap(), Times::Always);
    let refused = ops::sync(SyncRequest { on_snapshot_required: OnSnapshotRequired::Fail, ..sql.request() }).await.unwrap();
    assert_eq!(refused.first_error().unwrap().kind(), Kind::SnapshotRequired);
    sql.assert_tables(&tables, old);
    let report = sql.sync_all().await;
    assert!(matches!(outcome(&report, &tables[0]), Outcome::Loaded { query: "snapshot", .. }), "{report:?}");
    sql.assert_tables(&tables, sql.world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_run_again_the_database_is_right() {
    let tables = [canvas("users"), canvas("submissions"), web_logs()];
    let Some(sql) = Sql::new(SchoolOptions { rows: 2000, ..school(&tables) }).await else { return };
    let arguments = ["sync", "--target", &sql.database.url, "--namespace", "all", "--jobs-per-minute", "0"];
    let mut kills = 0;
    for round in 0..3 {
        if round > 0 {
            sql.world.school.advance();
        }
        // Early, in the midst and late; where exactly does not matter.
        for pause in [150, 400, 700] {
            let mut child = sql.world.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            tokio::time::sleep(Duration::from_millis(pause)).await;
            kills += u32::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        sql.world.daplake(&arguments).assert_code(0);
        sql.assert_tables(&tables, sql.world.school.now());
    }
    assert!(kills > 0, "at least one run was really killed");
    let status = sql.world.daplake(&["status", "--target", &sql.database.url, "--output", "json"]).assert_code(0);
    let lines: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(lines.as_array().map(Vec::len), Some(3));
    assert_eq!(lines[0]["data_as_of"], sql.world.school.now().to_string());
}

#[test]
fn a_wrong_connection_string_shows_no_password() {
    for (target, code) in [
        ("postgresql://me:planted-password@127.0.0.1:1/x", 5),
        ("postgresql://me:planted-password@127.0.0.1:x/x", 5),
        ("postgresql://me:planted-password@127.0.0.1:1/x?ssl=maybe", 5),
        ("mysql://me:planted-password@127.0.0.1/x", 38),
    ] {
        let output = crate::support::bare_command(&["status", "--target", target]).output().unwrap();
        let run = crate::support::Run::of(output).assert_code(code);
        assert!(!run.stderr.contains("planted-password") && !run.stdout.contains("planted-password"), "{run:?}");
        assert!(!run.stderr.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_initialised_followed_listed_and_dropped() {
    let tables = [canvas("users"), canvas("courses")];
    let Some(sql) = Sql::new(school(&tables)).await else { return };
    let command = |arguments: &[&str]| {
        let mut command = sql.world.command(&["--non-interactive"]);
        command.args(arguments).args(["--namespace", "canvas"]).env("DAP_CONNECTION_STRING", &sql.database.url);
        crate::support::Run::of(command.output().unwrap())
    };
    let load = |verb: &str, table: &str| command(&[verb, "--table", table, "--jobs-per-minute", "0"]);
    load("syncdb", "users").assert_code(5).assert_says(&["not initialised", "initdb"]);
    load("initdb", "users").assert_code(0);
    load("initdb", "users").assert_code(5).assert_says(&["already initialised", "syncdb"]);
    sql.assert_tables(&tables[..1], sql.world.school.now());
    let first = sql.world.school.now();
    sql.world.school.advance();
    // One that is not there does not stop the other.
    load("syncdb", "all").assert_code(5).assert_says(&["not initialised"]);
    sql.assert_tables(&tables[..1], sql.world.school.now());
    assert!(sql.world.school.now() > first);

    let listed = command(&["listdb"]).assert_code(0).stdout;
    let lines: Vec<serde_json::Map<String, Value>> = serde_json::from_str(&listed).unwrap();
    let keys: Vec<&str> = lines[0].keys().map(String::as_str).collect();
    assert_eq!(keys, ["name", "timestamp", "staleness", "schema", "command", "records"]);
    assert_eq!((&lines[0]["name"], &lines[0]["command"]), (&"users".into(), &"syncdb".into()));
    assert_eq!(
        (&lines[1]["name"], &lines[1]["command"], &lines[1]["timestamp"]),
        (&"courses".into(), &"initdb".into(), &Value::Null)
    );
    let at: Timestamp = lines[0]["timestamp"].as_str().unwrap().parse().unwrap();
    assert_eq!(at, sql.world.school.now());
    let listed = command(&["listdb", "--omit-not-replicated", "--omit-record-count"]).assert_code(0).stdout;
    let lines: Vec<serde_json::Map<String, Value>> = serde_json::from_str(&listed).unwrap();
    assert!(lines.len() == 1 && !lines[0].contains_key("records"), "{lines:?}");

    command(&["dropdb", "--table", "courses,users"]).assert_code(5).assert_says(&["not initialised"]);
    assert_eq!(
        sql.database.psql("SELECT to_regclass('canvas.users') IS NULL, count(*) FROM instructure_dap.table_sync"),
        "t|0\n"
    );
    command(&["dropdb", "--table", "all"]).assert_code(0).assert_says(&["nothing to drop"]);
    load("initdb", "all").assert_code(0);
    sql.assert_tables(&tables, sql.world.school.now());
}
