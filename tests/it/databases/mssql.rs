//! SQL Server as a target of the program and the library: the histories of the lake tests, read back with queries.

use std::sync::Arc;

use daplake::demo::school::SchoolOptions;
use daplake::ops::{self, Outcome, Report, SyncRequest, Target};
use daplake::sink::Sink;
use daplake::{TableRef, Timestamp};

use crate::support::mssql::Database;
use crate::support::{World, assert_same, canvas, failures, school};

struct Sql {
    world: World,
    database: Database,
    sink: Arc<dyn Sink>,
}

impl Sql {
    async fn new(school: SchoolOptions) -> Option<Self> {
        let database = Database::new().await?;
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

    async fn assert_tables(&self, tables: &[TableRef], at: Timestamp) {
        for table in tables {
            let rows = self.database.rows(table.namespace.as_str(), &table.table, &["remote_ip"]).await;
            assert_same(&self.world.school, table, at, rows);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_tables_are_synced_through_a_history_in_sql_server() {
    let Some(sql) = Sql::new(SchoolOptions { rows: 120, evolving: true, ..school(&[]) }).await else { return };
    let first = sql.sync_all().await;
    assert!(first.tables.len() > 100, "all tables of the catalogue");
    let tables = sql.world.all_tables();
    sql.assert_tables(&tables, sql.world.school.now()).await;
    let mut changes = 0;
    for _ in 0..4 {
        sql.world.school.advance();
        for table in sql.sync_all().await.tables {
            if let Outcome::Loaded { schema_changes, .. } = table.outcome {
                changes += schema_changes.len();
            }
        }
        sql.assert_tables(&tables, sql.world.school.now()).await;
    }
    assert!(changes >= 4, "the history has schema changes");
    let again = sql.sync_all().await;
    assert!(again.tables.iter().all(|table| matches!(table.outcome, Outcome::Unchanged { .. })), "{again:?}");
    // No other tables in the schemas of the official client.
    let others = "SELECT CAST(COUNT(*) AS int) FROM sys.tables WHERE name LIKE N'%daplake%'";
    assert_eq!(sql.database.words(others).await, ["0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_simultaneous_syncs_leave_one_correct_table_in_sql_server() {
    let table = canvas("users");
    let Some(sql) = Sql::new(school(std::slice::from_ref(&table))).await else { return };
    for _ in 0..4 {
        let (one, two) = tokio::join!(ops::sync(sql.request()), ops::sync(sql.request()));
        for report in [one.unwrap(), two.unwrap()] {
            assert_eq!(failures(&report), [""; 0], "{report:?}");
        }
        sql.assert_tables(std::slice::from_ref(&table), sql.world.school.now()).await;
        sql.world.school.advance();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_official_client_work_on_sql_server() {
    let tables = [canvas("users"), canvas("courses")];
    let Some(sql) = Sql::new(school(&tables)).await else { return };
    let command = |arguments: &[&str]| {
        let mut command = sql.world.command(&["--non-interactive"]);
        command.args(arguments).args(["--namespace", "canvas"]).env("DAP_CONNECTION_STRING", &sql.database.url);
        crate::support::Run::of(command.output().unwrap())
    };
    let load = |verb: &str, table: &str| command(&[verb, "--table", table, "--jobs-per-minute", "0"]);
    load("syncdb", "users").assert_code(5).assert_says(&["not initialised", "initdb"]);
    load("initdb", "users,courses").assert_code(0);
    sql.assert_tables(&tables, sql.world.school.now()).await;
    sql.world.school.advance();
    load("syncdb", "all").assert_code(0);
    sql.assert_tables(&tables, sql.world.school.now()).await;
    let listed = command(&["listdb"]).assert_code(0).stdout;
    assert!(listed.contains("\"syncdb\"") && !listed.contains("\"initdb\""), "{listed}");
    command(&["dropdb", "--table", "all"]).assert_code(0);
    let left = "SELECT CAST(COUNT(*) AS int) FROM sys.tables WHERE name IN (N'users', N'courses')";
    assert_eq!(sql.database.words(left).await, ["0"]);
}

#[test]
fn a_wrong_connection_string_shows_no_password() {
    for target in [
        "mssql://me:planted-password@127.0.0.1:1/x",
        "sqlserver://me:planted-password@127.0.0.1:x/x",
        "mssql://me:planted-password@127.0.0.1:1/x?ssl=maybe",
    ] {
        let output = crate::support::bare_command(&["status", "--target", target]).output().unwrap();
        let run = crate::support::Run::of(output).assert_code(5);
        assert!(!run.stderr.contains("planted-password") && !run.stdout.contains("planted-password"), "{run:?}");
        assert!(!run.stderr.is_empty());
    }
}
