//! MySQL and MariaDB as targets, through the front door: the same histories as in the lake, read back with the `mariadb` client.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use daplake::Kind;
use daplake::demo::school::SchoolOptions;
use daplake::demo::serve::{Fault, Times};
use daplake::model::{TableRef, Timestamp};
use daplake::ops::{self, OnSnapshotRequired, Outcome, Report, SyncRequest, Target};
use daplake::sink::Sink;
use serde_json::Value;

use crate::support::mariadb::{Database, Server};
use crate::support::{World, assert_same, canvas, failures, outcome, school, web_logs};

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
        for table in tables {
            let rows = self.database.rows(&format!("{}__{}", table.namespace, table.table));
            assert_same(&self.world.school, table, at, rows);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_school_follows_its_history_in_mariadb() {
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
    // Nothing of ours behind the prefixes that the official client reads, and one table besides.
    assert_eq!(sql.database.sql("SHOW TABLES LIKE '%daplake%'"), "daplake__bookmark\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_syncs_at_once_leave_one_right_table_in_mariadb() {
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
async fn a_demanded_snapshot_replaces_the_rows_and_keeps_old_logs_in_mariadb() {
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
async fn killed_and_run_again_mariadb_is_right() {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mariadb_is_initialised_followed_listed_and_dropped() {
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
    sql.world.school.advance();
    load("syncdb", "users").assert_code(0);
    sql.assert_tables(&tables[..1], sql.world.school.now());
    let listed = command(&["listdb", "--omit-not-replicated"]).assert_code(0).stdout;
    let lines: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&lines[0]["name"], &lines[0]["command"]), (&"users".into(), &"syncdb".into()));
    command(&["dropdb", "--table", "courses,users"]).assert_code(5).assert_says(&["not initialised"]);
    assert_eq!(sql.database.sql("SELECT COUNT(*) FROM instructure_dap__table_sync"), "0\n");
    assert_eq!(sql.database.sql("SHOW TABLES LIKE 'canvas\\_\\_users'"), "");
    load("initdb", "all").assert_code(0);
    sql.assert_tables(&tables, sql.world.school.now());
}

#[test]
fn a_wrong_connection_string_of_mysql_shows_no_password() {
    for target in [
        "mysql://me:planted-password@127.0.0.1:1/x",
        "mariadb://me:planted-password@127.0.0.1:x/x",
        "mysql://me:planted-password@127.0.0.1:1/x?ssl=maybe",
    ] {
        let output = crate::support::bare_command(&["status", "--target", target]).output().unwrap();
        let run = crate::support::Run::of(output).assert_code(5);
        assert!(!run.stderr.contains("planted-password") && !run.stdout.contains("planted-password"), "{run:?}");
        assert!(!run.stderr.is_empty());
    }
}

/// An authority and a certificate by it, for a name.
fn certify(folder: &Path, authority: &str, name: &str) {
    let script = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {authority}.key -out {authority}.pem -days 30 \
         -subj '/CN={authority}' 2>&1 && \
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {authority}-server.key -out server.csr -subj /CN=server 2>&1 && \
         printf 'subjectAltName={name}\\n' > names && \
         openssl x509 -req -in server.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 30 -extfile names \
         -out {authority}-server.pem 2>&1 && chmod 644 {authority}-server.key"
    );
    let done = Command::new("sh").args(["-c", &script]).current_dir(folder).output().expect("a shell");
    assert!(done.status.success(), "openssl: {}", String::from_utf8_lossy(&done.stdout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_as_strict_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    Command::new("chmod").arg("755").arg(folder.path()).status().unwrap();
    certify(folder.path(), "elsewhere", "DNS:db.example");
    certify(folder.path(), "here", "IP:127.0.0.1");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let start = |authority: &str| {
        Server::start(&[
            &format!("--ssl-ca={}", file(&format!("{authority}.pem"))),
            &format!("--ssl-cert={}", file(&format!("{authority}-server.pem"))),
            &format!("--ssl-key={}", file(&format!("{authority}-server.key"))),
            "--require-secure-transport=ON",
        ])
    };
    for (authority, other, is_right_name) in [("elsewhere", "here", false), ("here", "elsewhere", true)] {
        let Some(server) = start(authority) else { return };
        let server = Arc::new(server);
        let database = Database::on(&server);
        let (ca, wrong) = (file(&format!("{authority}.pem")), file(&format!("{other}.pem")));
        let socket = server.socket().unwrap().display().to_string();
        for (query, expected) in [
            ("ssl=disable".to_owned(), false),
            ("ssl=allow".to_owned(), true),
            ("ssl=prefer".to_owned(), true),
            ("ssl=require".to_owned(), true),
            ("ssl=verify-ca".to_owned(), false),
            (format!("ssl=verify-ca&sslrootcert={ca}"), true),
            (format!("ssl=verify-ca&sslrootcert={wrong}"), false),
            (format!("ssl=verify-full&ssl-ca={ca}"), is_right_name),
            (format!("ssl=verify-full&ssl-ca={wrong}"), false),
            (format!("socket={socket}"), true),
        ] {
            let target: Target = format!("{}?{query}", database.url).parse().unwrap();
            let engine = daplake::stage::Engine::new(Default::default()).unwrap();
            let done = ops::open_sink(&target, &engine).unwrap().check().await;
            assert_eq!(done.is_ok(), expected, "{authority}: {query}: {done:?}");
            if let Err(error) = done {
                assert!(error.kind() == Kind::Target && error.hint_text().is_some(), "{query}: {error:?}");
            }
        }
    }
}
