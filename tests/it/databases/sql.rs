//! Databases as targets of the program and the library: the histories of the lake tests, read back with the server's own client. Each test
//! is written once and runs on every kind of database.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use daplake::demo::school::SchoolOptions;
use daplake::demo::serve::{Fault, Times};
use daplake::ops::{self, OnSnapshotRequired, Outcome, Report, SyncRequest, Target};
use daplake::sink::Sink;
use daplake::{Format, Kind, TableRef, Timestamp};
use serde_json::Value;

use crate::support::database::TestDatabase;
use crate::support::machines::sync_from_two_machines;
use crate::support::{
    Run, World, assert_same, assert_schemas_are_frozen_on_request, canvas, failures, outcome, read_tables, school, web_logs,
};

/// The tests for one kind of database.
macro_rules! on {
    ($database:ident = $type:ty: $($test:ident),* $(,)?) => {
        mod $database {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test::<$type>().await;
                }
            )*
        }
    };
}

#[cfg(feature = "postgres")]
on!(postgresql = crate::support::postgres::Database:
    all_tables_are_synced_through_a_history,
    two_simultaneous_syncs_leave_one_correct_table,
    two_machines_keep_one_database_correct,
    a_requested_snapshot_replaces_the_rows_and_keeps_old_logs,
    a_run_after_a_killed_one_completes_the_tables,
    a_database_is_initialised_updated_listed_and_dropped,
    tables_are_selected_by_pattern_and_missing_ones_are_created,
    a_table_removed_by_hand_is_noticed,
    unusual_but_complete_objects_are_loaded,
    damaged_objects_fail_and_leave_the_table_unchanged,
    a_damaged_parquet_page_fails_its_table_and_leaves_it_unchanged,
    rows_that_are_deleted_and_inserted_again_exist,
    an_early_end_at_a_boundary_is_detected,
    the_lake_holds_the_same_rows_after_the_same_history,
    a_table_mode_keeps_the_rows_of_the_lake,
    a_server_that_ends_sessions_during_a_load_leaves_nothing,
    a_crash_of_the_server_during_a_load_leaves_nothing,
    removed_columns_are_kept_or_dropped_on_request,
    the_columns_are_frozen_on_request,
    columns_are_dropped_and_hashed,
    tables_that_the_sync_state_does_not_list_are_not_changed,
    check_does_not_convert_an_old_sync_state,
    the_start_and_end_of_a_table_are_reported,
);

#[cfg(feature = "postgres")]
on!(newest_postgresql = crate::support::database::Newest:
    all_tables_are_synced_through_a_history,
    a_run_after_a_killed_one_completes_the_tables,
    a_database_is_initialised_updated_listed_and_dropped,
    a_server_that_ends_sessions_during_a_load_leaves_nothing,
    columns_are_dropped_and_hashed,
    tables_that_the_sync_state_does_not_list_are_not_changed,
    check_does_not_convert_an_old_sync_state,
    the_start_and_end_of_a_table_are_reported,
);

#[cfg(feature = "mysql")]
on!(mariadb = crate::support::database::Mariadb:
    all_tables_are_synced_through_a_history,
    two_simultaneous_syncs_leave_one_correct_table,
    two_machines_keep_one_database_correct,
    a_requested_snapshot_replaces_the_rows_and_keeps_old_logs,
    a_run_after_a_killed_one_completes_the_tables,
    a_database_is_initialised_updated_listed_and_dropped,
    tables_are_selected_by_pattern_and_missing_ones_are_created,
    a_table_removed_by_hand_is_noticed,
    unusual_but_complete_objects_are_loaded,
    damaged_objects_fail_and_leave_the_table_unchanged,
    rows_that_are_deleted_and_inserted_again_exist,
    an_early_end_at_a_boundary_is_detected,
    the_lake_holds_the_same_rows_after_the_same_history,
    a_table_mode_keeps_the_rows_of_the_lake,
    a_server_that_ends_sessions_during_a_load_leaves_nothing,
    a_crash_of_the_server_during_a_load_leaves_nothing,
    removed_columns_are_kept_or_dropped_on_request,
    the_columns_are_frozen_on_request,
    columns_are_dropped_and_hashed,
    tables_that_the_sync_state_does_not_list_are_not_changed,
    check_does_not_convert_an_old_sync_state,
);

#[cfg(feature = "mysql")]
on!(mysql = crate::support::database::Mysql:
    all_tables_are_synced_through_a_history,
    two_simultaneous_syncs_leave_one_correct_table,
    two_machines_keep_one_database_correct,
    a_requested_snapshot_replaces_the_rows_and_keeps_old_logs,
    a_run_after_a_killed_one_completes_the_tables,
    a_database_is_initialised_updated_listed_and_dropped,
    tables_are_selected_by_pattern_and_missing_ones_are_created,
    a_table_removed_by_hand_is_noticed,
    unusual_but_complete_objects_are_loaded,
    damaged_objects_fail_and_leave_the_table_unchanged,
    a_damaged_parquet_page_fails_its_table_and_leaves_it_unchanged,
    rows_that_are_deleted_and_inserted_again_exist,
    an_early_end_at_a_boundary_is_detected,
    the_lake_holds_the_same_rows_after_the_same_history,
    a_table_mode_keeps_the_rows_of_the_lake,
    a_server_that_ends_sessions_during_a_load_leaves_nothing,
    a_crash_of_the_server_during_a_load_leaves_nothing,
    removed_columns_are_kept_or_dropped_on_request,
    the_columns_are_frozen_on_request,
    columns_are_dropped_and_hashed,
    tables_that_the_sync_state_does_not_list_are_not_changed,
    check_does_not_convert_an_old_sync_state,
    the_start_and_end_of_a_table_are_reported,
);

struct Sql<D> {
    world: World,
    database: D,
    sink: Arc<dyn Sink>,
}

impl<D: TestDatabase> Sql<D> {
    async fn new(school: SchoolOptions) -> Option<Self> {
        Some(Self::on(D::fresh()?, school).await)
    }

    async fn on(database: D, school: SchoolOptions) -> Self {
        let world = World::new(school).await;
        let target: Target = database.url().parse().unwrap();
        let sink = ops::open_sink(&target, &world.engine()).unwrap();
        Self { world, database, sink }
    }

    fn request(&self) -> SyncRequest {
        SyncRequest { sink: Arc::clone(&self.sink), ..self.world.request() }
    }

    async fn sync_all(&self) -> Report {
        let report = ops::sync(self.request()).await.unwrap();
        assert_eq!(failures(&report), [""; 0], "no table fails");
        report
    }

    /// Runs the built binary with one of the official client's commands.
    fn command(&self, arguments: &[&str]) -> Run {
        let mut command = self.world.command(&["--non-interactive"]);
        command.args(arguments).args(["--namespace", "canvas"]).env("DAP_CONNECTION_STRING", self.database.url());
        Run::of(command.output().unwrap())
    }

    /// `initdb` or `syncdb`.
    fn load(&self, verb: &str, table: &str) -> Run {
        self.command(&[verb, "--table", table, "--jobs-per-minute", "0"])
    }

    /// Asserts that the tables have exactly the rows of the school, as the server's own client reads them.
    fn assert_tables(&self, tables: &[TableRef], at: Timestamp) {
        for (table, rows) in tables.iter().zip(self.database.rows_of(tables)) {
            assert_same(&self.world.school, table, at, rows);
        }
    }

    fn assert_now(&self, tables: &[TableRef]) {
        self.assert_tables(tables, self.world.school.now());
    }
}

async fn all_tables_are_synced_through_a_history<D: TestDatabase>() {
    let options = SchoolOptions { rows: 120, evolving: true, ..school(&[]) };
    let Some(sql) = Sql::<D>::new(options).await else { return };
    let first = sql.sync_all().await;
    assert!(first.tables.len() > 100, "all tables of the catalogue");
    let tables = sql.world.all_tables();
    sql.assert_now(&tables);
    let mut changes = 0;
    for _ in 0..4 {
        sql.world.school.advance();
        for table in sql.sync_all().await.tables {
            if let Outcome::Loaded { schema_changes, .. } = table.outcome {
                changes += schema_changes.len();
            }
        }
        sql.assert_now(&tables);
    }
    assert!(changes >= 4, "the history has schema changes");
    let again = sql.sync_all().await;
    assert!(again.tables.iter().all(|table| matches!(table.outcome, Outcome::Unchanged { .. })), "{again:?}");
    // No other tables where the official client looks for its own.
    let names: Vec<String> = tables.iter().map(TableRef::to_string).collect();
    let found = sql.database.data_tables();
    assert_eq!(found.iter().filter(|name| !names.contains(name)).collect::<Vec<_>>(), [""; 0]);
}

async fn two_simultaneous_syncs_leave_one_correct_table<D: TestDatabase>() {
    let table = canvas("users");
    let Some(sql) = Sql::<D>::new(school(std::slice::from_ref(&table))).await else { return };
    for _ in 0..4 {
        let (one, two) = tokio::join!(ops::sync(sql.request()), ops::sync(sql.request()));
        for report in [one.unwrap(), two.unwrap()] {
            assert_eq!(failures(&report), [""; 0], "{report:?}");
        }
        sql.assert_now(std::slice::from_ref(&table));
        sql.world.school.advance();
    }
}

async fn two_machines_keep_one_database_correct<D: TestDatabase>() {
    let tables = [canvas("users"), canvas("submissions"), canvas("courses"), web_logs()];
    // Few changes per commit, so that the tables stay small in hundreds of commits.
    let Some(sql) = Sql::<D>::new(SchoolOptions { change_rate: 0.01, ..school(&tables) }).await else { return };
    let arguments = ["sync", "--target", sql.database.url(), "--namespace", "all", "--jobs-per-minute", "0"];
    let figures = sync_from_two_machines(&sql.world, || sql.world.command(&arguments)).await;
    assert!(figures.loaded > tables.len() && figures.commits > 0, "{figures:?}");
    sql.sync_all().await;
    sql.assert_now(&tables);
}

async fn a_requested_snapshot_replaces_the_rows_and_keeps_old_logs<D: TestDatabase>() {
    let tables = [canvas("users"), web_logs()];
    let Some(sql) = Sql::<D>::new(school(&tables)).await else { return };
    sql.sync_all().await;
    let old = sql.world.school.now();
    sql.world.school.advance();
    sql.world.server.inject(Fault::parse("snapshot-required").unwrap(), Times::Always);
    let refused = ops::sync(SyncRequest { on_snapshot_required: OnSnapshotRequired::Fail, ..sql.request() }).await.unwrap();
    assert_eq!(refused.first_error().unwrap().kind(), Kind::SnapshotRequired);
    sql.assert_tables(&tables, old);
    let report = sql.sync_all().await;
    assert!(matches!(outcome(&report, &tables[0]), Outcome::Loaded { query: "snapshot", .. }), "{report:?}");
    sql.assert_now(&tables);
    sql.world.server.clear_faults();

    // The command of the official client needs an option.
    sql.world.school.advance();
    let before = sql.world.school.now();
    sql.load("syncdb", "users").assert_code(0);
    sql.world.school.advance();
    sql.world.server.inject(Fault::parse("snapshot-required").unwrap(), Times::Always);
    sql.load("syncdb", "users").assert_code(5).assert_says(&["--on-snapshot-required resnapshot"]);
    sql.assert_tables(&tables[..1], before);
    let resnapshot = ["syncdb", "--table", "users", "--jobs-per-minute", "0", "--on-snapshot-required", "resnapshot"];
    sql.command(&resnapshot).assert_code(0);
    sql.assert_now(&tables[..1]);
}

async fn a_run_after_a_killed_one_completes_the_tables<D: TestDatabase>() {
    let tables = [canvas("users"), canvas("submissions"), web_logs()];
    let Some(sql) = Sql::<D>::new(SchoolOptions { rows: 2000, ..school(&tables) }).await else { return };
    let arguments = ["sync", "--target", sql.database.url(), "--namespace", "all", "--jobs-per-minute", "0"];
    let mut kills = 0;
    for round in 0..3 {
        if round > 0 {
            sql.world.school.advance();
        }
        // Early, in the middle and late.
        for pause in [150, 400, 700] {
            let mut child = sql.world.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            tokio::time::sleep(Duration::from_millis(pause)).await;
            kills += u32::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        sql.world.daplake(&arguments).assert_code(0);
        sql.assert_now(&tables);
    }
    assert!(kills > 0, "at least one run was really killed");
    let status = sql.world.daplake(&["status", "--target", sql.database.url(), "--output", "json"]).assert_code(0);
    let lines: Value = serde_json::from_str::<Value>(&status.stdout).unwrap()["tables"].take();
    assert_eq!(lines.as_array().map(Vec::len), Some(3));
    assert_eq!(lines[0]["data_as_of"], sql.world.school.now().to_string());
}

async fn columns_are_dropped_and_hashed<D: TestDatabase>() {
    use daplake::Secret;
    use daplake::internals::schema::{HashKey, TableRules};
    let tables = [canvas("users"), canvas("enrollments")];
    let Some(sql) = Sql::<D>::new(school(&tables)).await else { return };
    let rules = |secret: &str| {
        let mut rules = TableRules::new(Vec::new(), Some(HashKey::new(&Secret::new(secret)).unwrap()));
        rules.add_column("users.*name", |columns| &mut columns.drop).unwrap();
        rules.add_column("users.id", |columns| &mut columns.hash).unwrap();
        rules.add_column("enrollments.user_id", |columns| &mut columns.hash).unwrap();
        rules
    };
    let secret = "a-key-for-tests-0123456789";
    for _ in 0..3 {
        let report = ops::sync(SyncRequest { rules: rules(secret), ..sql.request() }).await.unwrap();
        assert_eq!(failures(&report), [""; 0]);
        sql.world.school.advance();
    }
    let rows = sql.database.rows_of(&tables);
    let ids: std::collections::BTreeSet<&str> = rows[0].iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), rows[0].len());
    assert!(ids.iter().all(|id| id.len() == 64) && rows[0].iter().all(|row| row.get("sortable_name").is_none()));
    assert!(rows[1].iter().filter(|row| ids.contains(row["user_id"].as_str().unwrap())).count() * 2 > rows[1].len());
    for refused in [rules("another-key-0123456789"), TableRules::default()] {
        let report = ops::sync(SyncRequest { rules: refused, ..sql.request() }).await.unwrap();
        assert_eq!(report.failed().count(), 2, "{report:?}");
        assert!(report.failed().all(|table| table.error.as_ref().unwrap().kind() == Kind::Schema), "{report:?}");
    }
    assert_eq!(sql.database.rows_of(&tables)[0].len(), rows[0].len());
}

#[test]
fn a_wrong_connection_string_shows_no_password() {
    for target in [
        "postgresql://me:planted-password@127.0.0.1:1/x",
        "postgresql://me:planted-password@127.0.0.1:x/x",
        "postgresql://me:planted-password@127.0.0.1:1/x?ssl=maybe",
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

/// A failure of one table does not affect the others.
async fn a_database_is_initialised_updated_listed_and_dropped<D: TestDatabase>() {
    let tables = [canvas("users"), canvas("courses")];
    let Some(sql) = Sql::<D>::new(school(&tables)).await else { return };
    sql.load("syncdb", "users").assert_code(5).assert_says(&["not initialised", "initdb"]);
    sql.load("initdb", "users").assert_code(0);
    sql.load("initdb", "users").assert_code(5).assert_says(&["already initialised", "syncdb"]);
    sql.assert_now(&tables[..1]);
    let first = sql.world.school.now();
    sql.world.school.advance();
    // A missing table does not stop the other.
    sql.load("syncdb", "all").assert_code(5).assert_says(&["not initialised"]);
    sql.assert_now(&tables[..1]);
    assert!(sql.world.school.now() > first);

    let listed = sql.command(&["listdb"]).assert_code(0).stdout;
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
    let listed = sql.command(&["listdb", "--omit-not-replicated", "--omit-record-count"]).assert_code(0).stdout;
    let lines: Vec<serde_json::Map<String, Value>> = serde_json::from_str(&listed).unwrap();
    assert!(lines.len() == 1 && !lines[0].contains_key("records"), "{lines:?}");

    sql.command(&["dropdb", "--table", "courses,users"]).assert_code(5).assert_says(&["not initialised"]);
    assert_eq!((sql.database.data_tables().len(), sql.database.known_tables()), (0, 0));
    sql.command(&["dropdb", "--table", "all"]).assert_code(0).assert_says(&["nothing to drop"]);
    sql.load("initdb", "all").assert_code(0);
    sql.assert_now(&tables);

    // On a terminal the output is a table.
    let mut people = sql.world.command(&["listdb", "--namespace", "canvas"]);
    let shown = Run::of(people.env("DAP_CONNECTION_STRING", sql.database.url()).output().unwrap()).assert_code(0);
    shown.assert_says(&["canvas", "Name", "Records", "Data as of", "Staleness", "Schema", "Use command", "users", "syncdb"]);
    sql.command(&["dropdb", "--table", "all"]).assert_code(0);
    assert_eq!((sql.database.data_tables().len(), sql.database.known_tables()), (0, 0));
}

async fn tables_are_selected_by_pattern_and_missing_ones_are_created<D: TestDatabase>() {
    let tables = [canvas("users"), canvas("courses"), canvas("accounts")];
    let Some(sql) = Sql::<D>::new(school(&tables)).await else { return };
    sql.command(&["initdb", "--table", "*s", "--exclude", "acc*", "--jobs-per-minute", "0"]).assert_code(0);
    assert_eq!(sql.database.data_tables(), ["canvas.courses", "canvas.users"]);
    // An unknown name fails alone; spaces around names are ignored.
    let unknown = sql.load("syncdb", " users, no_such_table ,courses").assert_code(5).assert_says(&["no_such_table"]);
    assert!(!unknown.stderr.contains("canvas.users failed") && unknown.stdout.is_empty(), "{unknown:?}");
    sql.world.school.advance();
    sql.load("syncdb", "all").assert_code(5).assert_says(&["canvas.accounts", "not initialised"]);
    sql.assert_now(&tables[..2]);
    sql.command(&["syncdb", "--table", "all", "--init-missing", "--jobs-per-minute", "0"]).assert_code(0);
    sql.assert_now(&tables);
}

/// `check` changes nothing in a database that the first run will convert.
async fn check_does_not_convert_an_old_sync_state<D: TestDatabase>() {
    let tables = [canvas("users"), canvas("courses")];
    let Some(sql) = Sql::<D>::new(school(&tables)).await else { return };
    let is_postgres = sql.database.url().starts_with("postgresql");
    let schema = if is_postgres { "canvas." } else { "" };
    if is_postgres {
        sql.database.run("CREATE SCHEMA canvas");
    }
    for statement in [
        "CREATE TABLE @dap_meta (id bigint PRIMARY KEY, namespace varchar(64), source_table varchar(64), timestamp timestamp, \
         schema_version bigint, target_schema varchar(64), target_table varchar(64), schema_description_format varchar(64), \
         schema_description text)",
        "CREATE TABLE @users (id bigint PRIMARY KEY, name text)",
        "INSERT INTO @users VALUES (1, 'x')",
        "INSERT INTO @dap_meta VALUES (1, 'canvas', 'users', '2023-05-06 07:08:09', 1, 'canvas', 'users', 'json', '{}')",
    ] {
        sql.database.run(&statement.replace('@', schema));
    }
    // Other tests use other databases of the same server.
    let place = if is_postgres { "NOT IN ('pg_catalog', 'information_schema')" } else { "= DATABASE()" };
    let state = || {
        let listed = sql.database.run(&format!(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema {place} ORDER BY 1, 2"
        ));
        let rows = sql.database.run(&format!("SELECT * FROM {schema}dap_meta"));
        listed + &rows + &sql.database.run(&format!("SELECT * FROM {schema}users"))
    };
    let before = state();
    for more in [&[][..], &["--drop-column", "users.name"]] {
        let check = ["check", "--namespace", "canvas", "--target", sql.database.url()];
        sql.world.daplake(&[&check[..], more].concat()).assert_code(0);
        assert_eq!(state(), before);
    }
}

async fn a_table_removed_by_hand_is_noticed<D: TestDatabase>() {
    let tables = [canvas("users"), canvas("courses")];
    let Some(sql) = Sql::<D>::new(school(&tables)).await else { return };
    sql.load("initdb", "all").assert_code(0);
    sql.database.drop_by_hand(&tables[0]);
    let check = ["check", "--namespace", "canvas", "--target", sql.database.url()];
    sql.world.daplake(&check).assert_code(5).assert_says(&["canvas.users", "was dropped", "dropdb"]);
    sql.world.school.advance();
    // It is not created again with only the increment; the other table continues.
    sql.load("syncdb", "all").assert_code(5).assert_says(&["canvas.users", "was dropped", "dropdb", "initdb"]);
    sql.assert_now(&tables[1..]);
    assert_eq!(sql.database.data_tables(), ["canvas.courses"]);
    sql.load("initdb", "users").assert_code(5).assert_says(&["was dropped", "dropdb"]);
    let listed = sql.command(&["listdb"]).assert_code(0).assert_says(&["users was dropped"]);
    let lines: Value = serde_json::from_str(&listed.stdout).unwrap();
    assert_eq!((&lines[1]["name"], &lines[1]["records"]), (&"users".into(), &Value::Null));
    assert!(lines[0]["records"].as_u64().is_some_and(|rows| rows > 0), "{lines}");
    sql.command(&["dropdb", "--table", "users"]).assert_code(0);
    sql.load("initdb", "users").assert_code(0);
    sql.assert_now(&tables);
}

/// The official client silently loses rows of the first of these, and ends a file at the empty line.
async fn unusual_but_complete_objects_are_loaded<D: TestDatabase>() {
    let tables = [canvas("users"), web_logs()];
    for (fault, format) in [
        ("multi-member", Format::Jsonl),
        ("multi-member", Format::Tsv),
        ("empty-line", Format::Tsv),
        ("empty-line", Format::Jsonl),
        ("no-final-newline", Format::Tsv),
        ("repeated-row", Format::Tsv),
    ] {
        let Some(sql) = Sql::<D>::new(school(&tables)).await else { return };
        sql.world.server.inject(Fault::parse(fault).unwrap(), Times::Always);
        for _ in 0..2 {
            let report = ops::sync(SyncRequest { format, ..sql.request() }).await.unwrap();
            assert_eq!(failures(&report), [""; 0], "{fault} as {format}");
            sql.assert_now(&tables);
            sql.world.school.advance();
        }
        // Also with the commands of the official client.
        sql.load("syncdb", "users").assert_code(0);
        sql.assert_now(&tables[..1]);
    }
}

async fn damaged_objects_fail_and_leave_the_table_unchanged<D: TestDatabase>() {
    let tables = [canvas("users")];
    for fault in ["short-length:900", "corrupt", "wrong-crc", "trailing-garbage", "malformed-line", "wrong-type"] {
        let Some(sql) = Sql::<D>::new(SchoolOptions { change_rate: 0.5, ..school(&tables) }).await else { return };
        sql.world.server.inject(Fault::parse(fault).unwrap(), Times::Always);
        sql.load("initdb", "users").assert_code(5).assert_says(&["canvas.users"]);
        assert_eq!((sql.database.data_tables().len(), sql.database.known_tables()), (0, 0), "{fault} leaves nothing");
        // The damaged object stays with its job; a newer commit starts a new job.
        sql.world.server.clear_faults();
        sql.world.school.advance();
        sql.load("initdb", "users").assert_code(0);
        let before = sql.world.school.now();
        // One commit may not change every table.
        (0..4).for_each(|_| _ = sql.world.school.advance());
        sql.world.server.inject(Fault::parse(fault).unwrap(), Times::Always);
        let run = sql.load("syncdb", "users");
        assert_eq!(run.code, Some(5), "{fault}: {run:?}");
        sql.assert_tables(&tables, before);
        sql.world.server.clear_faults();
        sql.world.school.advance();
        sql.load("syncdb", "users").assert_code(0);
        sql.assert_now(&tables);
    }
}

/// The library that reads Parquet panics on this page.
async fn a_damaged_parquet_page_fails_its_table_and_leaves_it_unchanged<D: TestDatabase>() {
    let tables = [canvas("users")];
    let options = SchoolOptions { change_rate: 0.5, table_rows: vec![(canvas("users"), 250)], ..school(&tables) };
    let Some(sql) = Sql::<D>::new(options).await else { return };
    let sync = |more: &[&str]| {
        let url = sql.database.url();
        let mut arguments = vec!["sync", "--target", &url, "--namespace", "canvas", "--jobs-per-minute", "0"];
        arguments.extend(["--download-format", "parquet"]);
        arguments.extend(more);
        sql.world.daplake(&arguments)
    };
    sync(&[]).assert_code(0);
    let before = sql.world.school.now();
    for more in [&["--resnapshot"][..], &[]] {
        // A job of its own, with damaged objects.
        (0..4).for_each(|_| _ = sql.world.school.advance());
        // A row group of twenty rows in the second object, so that other rows come first.
        sql.world.server.inject(Fault::parse("broken-page:1:40").unwrap(), Times::Always);
        sync(more).assert_code(5).assert_says(&["canvas.users", "damaged", "report"]);
        sql.assert_tables(&tables, before);
        sql.world.server.clear_faults();
    }
    sql.world.school.advance();
    sync(&[]).assert_code(0);
    sql.assert_now(&tables);
}

/// The last change of a key in a window counts, whether it is an upsert after a delete or a delete after an upsert.
async fn rows_that_are_deleted_and_inserted_again_exist<D: TestDatabase>() {
    let tables = [canvas("users"), canvas("submissions"), web_logs()];
    let Some(sql) = Sql::<D>::new(SchoolOptions { change_rate: 0.5, ..school(&tables) }).await else { return };
    sql.sync_all().await;
    for commits in [1, 3, 6] {
        for _ in 0..commits {
            sql.world.school.advance();
        }
        sql.sync_all().await;
        sql.assert_now(&tables);
    }
}

/// The only object of the table's snapshot.
fn only_object(world: &World, folder: &str) -> Vec<u8> {
    let arguments =
        ["snapshot", "--namespace", "canvas", "--table", "users", "--format", "jsonl", "--output-directory", folder];
    world.daplake(&arguments).assert_code(0);
    let job = std::fs::read_dir(world.path(folder)).unwrap().next().unwrap().unwrap().path();
    let mut objects: Vec<_> = std::fs::read_dir(job).unwrap().map(|entry| entry.unwrap().path()).collect();
    objects.retain(|path| path.extension().is_some_and(|extension| extension == "gz"));
    assert_eq!(objects.len(), 1, "{objects:?}");
    std::fs::read(&objects[0]).unwrap()
}

/// Bytes of the first member of a gzip file.
fn first_member(object: &[u8]) -> usize {
    let mut member = flate2::bufread::GzDecoder::new(object);
    std::io::copy(&mut member, &mut std::io::sink()).unwrap();
    object.len() - member.into_inner().len()
}

/// The longest beginning of a gzip file that unpacks to complete lines, but not to all of them.
fn whole_lines(object: &[u8]) -> usize {
    let unpacked = |length: usize| {
        let (mut out, mut buffer) = (Vec::new(), [0; 512]);
        let mut decoder = flate2::bufread::GzDecoder::new(&object[..length]);
        // It ends with an error, because the rest is missing.
        while let Ok(count @ 1..) = std::io::Read::read(&mut decoder, &mut buffer) {
            out.extend_from_slice(&buffer[..count]);
        }
        out
    };
    let whole = unpacked(object.len()).len();
    let found = (20..object.len() - 8).rev().find(|length| {
        let text = unpacked(*length);
        text.len() < whole && text.ends_with(b"\n")
    });
    // If there is none, the beginning with all lines and without the checksum.
    found.unwrap_or(object.len() - 8)
}

/// After a gzip member, after a line: places that look like the end. A download that breaks there is resumed, and a response that ends
/// there is refused.
async fn an_early_end_at_a_boundary_is_detected<D: TestDatabase>() {
    let tables = [canvas("users")];
    for is_multiple in [true, false] {
        let Some(sql) = Sql::<D>::new(SchoolOptions { rows: 90, ..school(&tables) }).await else { return };
        let members = || {
            sql.world.server.clear_faults();
            if is_multiple {
                sql.world.server.inject(Fault::parse("multi-member").unwrap(), Times::Always);
            }
        };
        members();
        let object = only_object(&sql.world, "objects");
        let border = if is_multiple { first_member(&object) } else { whole_lines(&object) };
        assert!((1..object.len()).contains(&border), "{border} of {}", object.len());
        sql.world.server.inject(Fault::parse(&format!("short-length:{border}")).unwrap(), Times::Always);
        sql.load("initdb", "users").assert_code(5).assert_says(&["canvas.users"]);
        assert_eq!((sql.database.data_tables().len(), sql.database.known_tables()), (0, 0));
        members();
        sql.world.server.inject(Fault::parse(&format!("cut:{border}")).unwrap(), Times::N(2));
        sql.load("initdb", "users").assert_code(0);
        sql.assert_now(&tables);
    }
}

/// Snapshot, increments and schema changes of the whole catalogue, in both targets, compared with the same school.
async fn the_lake_holds_the_same_rows_after_the_same_history<D: TestDatabase>() {
    let options = SchoolOptions { rows: 40, evolving: true, ..school(&[]) };
    let Some(sql) = Sql::<D>::new(options).await else { return };
    let tables = sql.world.all_tables();
    for step in 0..3 {
        if step > 0 {
            sql.world.school.advance();
        }
        sql.sync_all().await;
        sql.world.sync_all().await;
    }
    sql.assert_now(&tables);
    sql.world.assert_all("deltalake", sql.world.school.now());
}

/// The same runs into a database and a lake, with soft deletes and with a history: the same current rows, and the same deleted rows and
/// closed versions.
async fn a_table_mode_keeps_the_rows_of_the_lake<D: TestDatabase>() {
    let tables = [canvas("users"), canvas("submissions"), canvas("enrollments"), web_logs()];
    for (mode, kept_as) in [(["--deletes", "mark"], "current, deletes marked"), (["--mode", "history"], "history")] {
        let options = SchoolOptions { rows: 60, change_rate: 0.3, ..school(&tables) };
        let Some(sql) = Sql::<D>::new(options).await else { return };
        let url = sql.database.url();
        let sync = |more: &[&str]| {
            for target in ["lake", url] {
                let always = ["sync", "--target", target, "--namespace", "all", "--jobs-per-minute", "0"];
                sql.world.daplake(&[&always[..], more].concat()).assert_code(0);
            }
        };
        sync(&mode);
        for _ in 0..3 {
            sql.world.school.advance();
            // The tables store their mode.
            sync(&[]);
        }
        sql.world.school.advance();
        sync(&["--resnapshot"]);
        let folders: Vec<_> =
            tables.iter().map(|table| sql.world.lake().join(table.namespace.as_str()).join(&table.table)).collect();
        let Some(of_lake) = read_tables("deltalake", &folders) else { return };
        let mut old_rows = 0;
        for ((table, of_lake), of_database) in tables.iter().zip(of_lake).zip(sql.database.rows_of(&tables)) {
            let columns = |rows: &[Value]| -> BTreeSet<String> {
                let names = ["id", "_deleted", "_valid_from", "_valid_to", "_current"];
                rows.iter().map(|row| names.map(|name| row[name].to_string()).join(" ")).collect()
            };
            assert_eq!(columns(&of_database), columns(&of_lake), "{table} {mode:?}");
            assert_eq!(of_database.len(), of_lake.len(), "{table} {mode:?}");
            let is_old = |row: &Value| row["_deleted"] == true || row["_current"] == false;
            old_rows += of_database.iter().filter(|row| is_old(row)).count();
            assert_same(
                &sql.world.school,
                table,
                sql.world.school.now(),
                of_database.into_iter().filter(|row| !is_old(row)).collect(),
            );
        }
        assert!(old_rows > 0);
        let status = sql.world.daplake(&["status", "--target", url, "--output", "json"]).assert_code(0);
        let lines: Value = serde_json::from_str::<Value>(&status.stdout).unwrap()["tables"].take();
        assert!(lines.as_array().unwrap().iter().all(|line| line["kept_as"] == kept_as), "{lines}");
        // The commands of the official client keep the mode, and remove the tables.
        sql.world.school.advance();
        sql.load("syncdb", "users").assert_code(0);
        let command = ["sync", "--target", url, "--namespace", "canvas", "--table", "users", "--jobs-per-minute", "0"];
        let other = if mode[0] == "--mode" { ["--mode", "current"] } else { ["--mode", "history"] };
        sql.world.daplake(&[&command[..], &other].concat()).assert_code(5).assert_says(&["another mode", "dropdb"]);
        sql.command(&["dropdb", "--table", "users"]).assert_code(0);
        sql.world.daplake(&[&command[..], &other].concat()).assert_code(0);
        assert_eq!(sql.database.known_tables(), tables.len() as u64);
    }
}

/// The server ends its sessions during a first load and during an increment.
async fn a_server_that_ends_sessions_during_a_load_leaves_nothing<D: TestDatabase>() {
    let Some(database) = D::fresh() else { return };
    end_sessions_during_a_load(database, |database| database.end_sessions()).await;
}

/// The whole server crashes and restarts.
async fn a_crash_of_the_server_during_a_load_leaves_nothing<D: TestDatabase>() {
    let Some(database) = D::alone() else { return };
    end_sessions_during_a_load(database, |database| {
        database.crash();
        true
    })
    .await;
}

/// `end` ends the sessions, if there are any.
async fn end_sessions_during_a_load<D: TestDatabase>(database: D, end: impl Fn(&D) -> bool) {
    let table = canvas("submissions");
    let tables = std::slice::from_ref(&table);
    let sql = Sql::on(database, SchoolOptions { rows: 3000, ..school(tables) }).await;
    for verb in ["initdb", "syncdb"] {
        let before = sql.world.school.now();
        if verb == "syncdb" {
            (0..2).for_each(|_| _ = sql.world.school.advance());
        }
        // Some rows arrive, then none for a while.
        let stalls = || sql.world.server.counters().faults.get("Stall").copied().unwrap_or_default();
        let before_it = stalls();
        sql.world.server.inject_after(1, Some(&table), Fault::parse("stall:3:1000").unwrap(), Times::N(2));
        let arguments =
            ["--non-interactive", verb, "--namespace", "canvas", "--table", "submissions", "--jobs-per-minute", "0"];
        let mut command = sql.world.command(&arguments);
        command.env("DAP_CONNECTION_STRING", sql.database.url()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        while stalls() == before_it || !end(&sql.database) {
            assert!(child.try_wait().unwrap().is_none(), "{verb} ended before its session was ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let run = Run::of(child.wait_with_output().unwrap()).assert_code(5);
        assert!(run.stderr.contains("canvas.submissions") && run.stderr.contains("hint"), "{run:?}");
        match verb {
            "initdb" => assert_eq!(sql.database.known_tables(), 0),
            _ => sql.assert_tables(tables, before),
        }
        sql.world.server.clear_faults();
        sql.load(verb, "submissions").assert_code(0);
        sql.assert_now(tables);
    }
}

/// Immediately, in both modes and in the log, so that a killed run has reported what it did.
async fn the_start_and_end_of_a_table_are_reported<D: TestDatabase>() {
    use std::io::{BufRead, BufReader};

    let tables = [canvas("accounts"), canvas("users")];
    for mode in ["--non-interactive", "--no-tracking"] {
        let Some(sql) = Sql::<D>::new(school(&tables)).await else { return };
        // The second table does not finish.
        sql.world.server.inject_for(&canvas("users"), Fault::parse("stall:60:10").unwrap(), Times::Always);
        let log = sql.world.path("run.log");
        let arguments = [
            mode,
            "--logfile",
            log.to_str().unwrap(),
            "initdb",
            "--namespace",
            "canvas",
            "--table",
            "accounts,users",
            "--jobs-per-minute",
            "0",
        ];
        let mut command = sql.world.command(&arguments);
        command.env("DAP_CONNECTION_STRING", sql.database.url()).env("COLUMNS", "200");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let output: Box<dyn std::io::Read> = if mode == "--non-interactive" { Box::new(err) } else { Box::new(out) };
        let is_reported = |text: &str| {
            let begins = ["Initialising canvas.accounts", "Initialising canvas.users"];
            begins.iter().all(|words| text.contains(words)) && text.contains("canvas.accounts: ") && text.contains("(1 of 2)")
        };
        let mut printed = String::new();
        let mut lines = BufReader::new(output).lines();
        while !is_reported(&printed) {
            printed.push_str(&lines.next().expect("the program is running").unwrap());
            printed.push('\n');
        }
        assert!(child.try_wait().unwrap().is_none(), "the other table is still at work");
        child.kill().unwrap();
        child.wait().unwrap();
        let logged = std::fs::read_to_string(&log).unwrap();
        assert!(is_reported(&logged), "{logged}");
        let times: std::collections::BTreeSet<&str> = logged.lines().map(|line| &line[..23]).collect();
        assert!(times.len() > 1, "lines have different times");
    }
}

async fn the_columns_are_frozen_on_request<D: TestDatabase>() {
    let Some(sql) = Sql::<D>::new(SchoolOptions { rows: 30, evolving: true, ..school(&[]) }).await else { return };
    assert_schemas_are_frozen_on_request(&sql.world, || sql.request()).await;
}

/// A column that the service removes is kept, or dropped on request in the run with the change. Columns of the user stay.
async fn removed_columns_are_kept_or_dropped_on_request<D: TestDatabase>() {
    let table = canvas("courses");
    let tables = std::slice::from_ref(&table);
    for more in [&[][..], &["--drop-removed-columns"]] {
        let Some(sql) = Sql::<D>::new(SchoolOptions { evolving: true, ..school(tables) }).await else { return };
        let announced = || {
            let version = sql.world.school.schema_version(&table, sql.world.school.now()).unwrap();
            let schema = sql.world.school.schema(&table, version).unwrap();
            schema["properties"]["value"]["properties"].get("turnitin_id").is_some()
        };
        let columns = || {
            let rows = sql.database.rows_of(tables).remove(0);
            ["turnitin_id", "mine"].map(|name| rows[0].as_object().unwrap().contains_key(name))
        };
        let load = |verb: &str| {
            sql.command(&[&[verb, "--table", "courses", "--jobs-per-minute", "0"], more].concat()).assert_code(0);
        };
        load("initdb");
        sql.database.add_by_hand(&table, "mine");
        assert!(announced());
        assert_eq!(columns(), [true, true]);
        while announced() {
            sql.world.school.advance();
            load("syncdb");
        }
        assert_eq!(columns(), [more.is_empty(), true], "{more:?}");
    }
}

async fn tables_that_the_sync_state_does_not_list_are_not_changed<D: TestDatabase>() {
    let tables = [canvas("users"), canvas("courses")];
    let Some(sql) = Sql::<D>::new(school(&tables)).await else { return };
    let is_postgres = sql.database.url().starts_with("postgresql");
    let users = sql.database.name_of(&tables[0]);
    if is_postgres {
        sql.database.run("CREATE SCHEMA canvas");
    }
    sql.database.run(&format!("CREATE TABLE {users} (id bigint PRIMARY KEY, name varchar(100), price int, note text)"));
    sql.database.run(&format!("INSERT INTO {users} VALUES (1, 'mine', 5, 'x'), (2, 'too', 6, 'y')"));
    let theirs = format!("SELECT id, name, price, note FROM {users} ORDER BY id");
    let before = sql.database.run(&theirs);
    let sync = |more: &[&str]| {
        let always =
            ["--non-interactive", "sync", "--namespace", "canvas", "--jobs-per-minute", "0", "--target", sql.database.url()];
        sql.world.daplake(&[&always, more].concat())
    };
    let refused = |run: Run| {
        run.assert_code(5).assert_says(&["canvas.users", "not listed in table_sync", "--adopt canvas.users"]);
        assert_eq!(sql.database.run(&theirs), before);
    };
    let check = |more: &[&str]| {
        sql.world.daplake(&[&["check", "--namespace", "canvas", "--target", sql.database.url()], more].concat())
    };
    refused(check(&[]));
    refused(sync(&[]));
    sql.assert_now(&tables[1..]);
    refused(check(&["--table", "users", "--adopt", "courses"]));
    check(&["--table", "courses"]).assert_code(0);
    check(&["--adopt", "user*"]).assert_code(0);
    refused(sync(&["--table", "users", "--resnapshot"]));
    refused(sync(&["--table", "users", "--adopt", "courses"]));
    for arguments in [&["initdb"][..], &["syncdb"], &["syncdb", "--init-missing"]] {
        refused(sql.command(&[arguments, &["--table", "users", "--jobs-per-minute", "0"]].concat()));
    }
    assert_eq!(sql.world.server.counters().jobs_started(), 1, "no job is started for a refused table");
    sql.command(&["dropdb", "--table", "users"]).assert_code(5).assert_says(&["not initialised"]);
    assert_eq!(sql.database.run(&theirs), before);

    // Adopted by name. Additions of users stay.
    sync(&["--adopt", "user*"]).assert_code(0);
    let in_full = |table: &TableRef| sql.world.school.expected(table, sql.world.school.now()).unwrap().len();
    let counted = |database: &D| database.run(&format!("SELECT COUNT(*), COUNT(price) FROM {users}")).replace('\t', "|");
    assert_eq!(counted(&sql.database), format!("{}|0\n", in_full(&tables[0])));
    sql.world.school.advance();
    sync(&[]).assert_code(0);

    // A table of daplake that the sync state no longer lists belongs to the user.
    let book = if is_postgres { "instructure_dap.table_sync" } else { "instructure_dap__table_sync" };
    sql.database.run(&format!("DELETE FROM {book} WHERE source_table = 'users'"));
    let rows = counted(&sql.database);
    for more in [&[][..], &["--resnapshot"]] {
        sync(more).assert_code(5).assert_says(&["canvas.users", "--adopt canvas.users"]);
        assert_eq!(counted(&sql.database), rows);
    }
    let mut initdb = vec!["initdb", "--table", "users", "--jobs-per-minute", "0"];
    initdb.extend(["--adopt", "canvas.users"]);
    sql.command(&initdb).assert_code(0);
    assert_eq!(counted(&sql.database), format!("{}|0\n", in_full(&tables[0])));

    // An empty table is used; another kind of object never is.
    sql.command(&["dropdb", "--table", "users"]).assert_code(0);
    sql.database.run(&format!("CREATE TABLE {users} (id bigint NOT NULL PRIMARY KEY)"));
    check(&[]).assert_code(0);
    sync(&[]).assert_code(0);
    sql.assert_now(&tables);
    sql.command(&["dropdb", "--table", "users"]).assert_code(0);
    sql.database.run(&format!("CREATE VIEW {users} AS SELECT 1 AS id"));
    check(&["--adopt", "users"]).assert_code(5).assert_says(&["canvas.users", "Another object", "view"]);
    for more in [&[][..], &["--adopt", "users"], &["--resnapshot"]] {
        sync(more).assert_code(5).assert_says(&["canvas.users", "kind: view", "rename"]);
    }
    // Also in place of a table that the sync state lists.
    sql.database.run(&format!("DROP VIEW {users}"));
    sync(&[]).assert_code(0);
    sql.database.drop_by_hand(&tables[0]);
    sql.database.run(&format!("CREATE VIEW {users} AS SELECT 1 AS id"));
    sql.world.school.advance();
    sync(&[]).assert_code(5).assert_says(&["canvas.users", "kind: view"]);
    sql.assert_now(&tables[1..]);
}
