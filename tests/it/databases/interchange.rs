//! The official client and daplake on one database, in turn: each continues where the other stopped, and both create the same layout. Each
//! kind of database implements [`Kept`].

use std::collections::BTreeSet;
use std::path::PathBuf;

use daplake::demo::school::{SchoolOptions, required_nulls_in};
use daplake::demo::serve::ServeOptions;
use daplake::{TableRef, Timestamp};
use serde_json::{Value, json};

use crate::support::database::TestDatabase;
use crate::support::postgres::Database;
use crate::support::{
    CLIENT_ID, CLIENT_SECRET, Run, World, assert_same_to, canvas, official, read_postgres, school, serving, web_logs,
};

/// A database that both programs support, read by its own client.
trait Kept: Send + Sync {
    /// The connection string.
    fn url(&self) -> &str;
    /// Columns, constraints, types and comments, one line each.
    fn layout(&self) -> BTreeSet<String>;
    /// The sync state, one line for each row.
    fn sync_state(&self) -> BTreeSet<String>;
    /// Rows of tables as JSON.
    fn rows(&self, tables: &[TableRef]) -> Vec<Vec<Value>>;
    /// The precision of timestamps of the official client, in microseconds.
    fn unit(&self) -> i64 {
        1
    }
}

impl Kept for Database {
    fn url(&self) -> &str {
        &self.url
    }

    fn layout(&self) -> BTreeSet<String> {
        read_postgres::layout(self)
    }

    fn sync_state(&self) -> BTreeSet<String> {
        read_postgres::sync_state(self)
    }

    fn rows(&self, tables: &[TableRef]) -> Vec<Vec<Value>> {
        self.rows_of(tables)
    }
}

#[cfg(feature = "mysql")]
impl Kept for crate::support::mysql::Database {
    fn url(&self) -> &str {
        &self.url
    }

    /// Except for the types that differ on purpose: see `docs/guides/mysql.md`.
    fn layout(&self) -> BTreeSet<String> {
        let lines = self.sql(
            "SELECT CONCAT('column ', TABLE_NAME, '.', COLUMN_NAME, ': ', COLUMN_TYPE, ' ', IS_NULLABLE, ' ', COALESCE(COLUMN_DEFAULT, ''), \
             ' ', COLUMN_KEY, ' ', EXTRA, IF(TABLE_NAME LIKE 'instructure%', '', COLUMN_COMMENT), ' #', ORDINAL_POSITION) \
             FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT LIKE 'daplake%'; \
             SELECT CONCAT('comment ', TABLE_NAME, ': ', TABLE_COMMENT) FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT LIKE 'daplake%' AND TABLE_NAME NOT LIKE 'instructure%'; \
             SELECT CONCAT('constraint ', TABLE_NAME, ' ', CONSTRAINT_NAME, ' ', COLUMN_NAME, ' ', COALESCE(REFERENCED_TABLE_NAME, '')) \
             FROM information_schema.KEY_COLUMN_USAGE WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT LIKE 'daplake%'; \
             SELECT CONCAT('index ', TABLE_NAME, ' ', INDEX_NAME, ' ', COLUMN_NAME, ' ', NON_UNIQUE) \
             FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME NOT LIKE 'daplake%'",
        );
        let alike = |line: &str| {
            line.replace("datetime(6)", "datetime").replace("time(6)", "time").replace("varbinary(16)", "binary(16)")
        };
        lines.lines().map(alike).collect()
    }

    fn sync_state(&self) -> BTreeSet<String> {
        let lines = self.sql(
            "SELECT source_namespace, source_table, timestamp, schema_version, target_schema, target_table, schema_description_format, \
             schema_description FROM instructure_dap__table_sync; SELECT * FROM instructure_dap__database_version",
        );
        lines.lines().map(str::to_owned).collect()
    }

    fn rows(&self, tables: &[TableRef]) -> Vec<Vec<Value>> {
        tables.iter().map(|table| self.rows(&format!("{}__{}", table.namespace, table.table))).collect()
    }

    fn unit(&self) -> i64 {
        1_000_000
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Official,
    Ours,
}

struct Pair {
    world: World,
    program: PathBuf,
    databases: [Box<dyn Kept>; 2],
}

impl Pair {
    /// Two databases of a kind, and a school that answers at once, because the official client waits seconds between two requests.
    async fn new(options: SchoolOptions, database: impl Fn() -> Option<Box<dyn Kept>>) -> Option<Self> {
        let program = official::found()?;
        let databases = [database()?, database()?];
        let world = World::with(options, ServeOptions { job_delay: ServeOptions::instant().job_delay, ..serving() }).await;
        Some(Self { world, program, databases })
    }

    fn run(&self, client: Client, verb: &str, namespace: &str, tables: &str, database: &dyn Kept) -> Run {
        match client {
            Client::Official => official::run(&self.program, &self.world, verb, namespace, tables, database.url()),
            Client::Ours => {
                let arguments =
                    ["--non-interactive", verb, "--namespace", namespace, "--table", tables, "--jobs-per-minute", "0"];
                let mut command = self.world.command(&arguments);
                Run::of(command.env("DAP_CONNECTION_STRING", database.url()).output().unwrap())
            }
        }
    }

    /// Runs one command on both databases at the same time, each with one of the clients, for all given tables.
    async fn step(&self, verb: &str, clients: [Client; 2], tables: &[TableRef], since: Option<Timestamp>) {
        self.prepare(tables, since).await;
        std::thread::scope(|scope| {
            for (database, client) in self.databases.iter().zip(clients) {
                scope.spawn(move || {
                    for (namespace, names) in by_namespace(tables) {
                        let run = self.run(client, verb, &namespace, &names.join(","), database.as_ref());
                        assert_eq!(run.code, Some(0), "{client:?} {verb} {namespace}: {}\n{}", run.stdout, run.stderr);
                    }
                });
            }
        });
    }

    /// Starts the jobs of the official client before it does, because it polls an unfinished job only every five seconds. The service
    /// returns the same job for the same query.
    async fn prepare(&self, tables: &[TableRef], since: Option<Timestamp>) {
        let http = reqwest::Client::new();
        let base = self.world.server.url().to_string();
        let base = base.trim_end_matches('/');
        let login = http.post(format!("{base}/ids/auth/login")).basic_auth(CLIENT_ID, Some(CLIENT_SECRET));
        let login = login.form(&[("grant_type", "client_credentials")]).send().await.unwrap();
        let token: Value = login.json().await.unwrap();
        let token = token["access_token"].as_str().unwrap();
        let question = match since {
            None => json!({"format": "tsv", "mode": "condensed"}),
            Some(since) => json!({"format": "tsv", "mode": "condensed", "since": since.to_string()}),
        };
        for table in tables {
            let url = format!("{base}/dap/query/{}/table/{}/data", table.namespace, table.table);
            loop {
                let answer = http.post(&url).bearer_auth(token).json(&question).send().await.unwrap();
                if answer.status() == 200 {
                    break;
                }
                assert_eq!(answer.status(), 202, "{table}");
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        }
    }

    fn assert_rows(&self, tables: &[TableRef], at: Timestamp) {
        for database in &self.databases {
            for (table, rows) in tables.iter().zip(database.rows(tables)) {
                if table.is_log() {
                    // Of a repeated key the official client keeps the last change that it sees, daplake the newest.
                    assert_eq!(rows.len(), self.world.school.expected(table, at).unwrap().len(), "{table}");
                    continue;
                }
                assert_same_to(&self.world.school, table, at, rows, database.unit());
            }
        }
    }

    fn assert_alike(&self, but: &[&str], when: &str) {
        let [one, other] = self.databases.each_ref().map(|database| database.sync_state());
        assert_eq!(differences(&one, &other), [""; 0], "sync state, {when}");
        let layout = |database: &dyn Kept| -> BTreeSet<String> {
            let lines = database.layout().into_iter().filter(|line| !but.iter().any(|but| line.contains(but)));
            match but {
                [] => lines.collect(),
                // A column that only one of them has shifts the columns after it.
                _ => lines.map(|line| line.rsplit_once(" #").map_or(line.clone(), |(line, _)| line.to_owned())).collect(),
            }
        };
        let [one, other] = self.databases.each_ref().map(|database| layout(database.as_ref()));
        assert_eq!(differences(&one, &other), [""; 0], "layout, {when}");
    }
}

fn by_namespace(tables: &[TableRef]) -> Vec<(String, Vec<String>)> {
    let namespaces: BTreeSet<String> = tables.iter().map(|table| table.namespace.to_string()).collect();
    let names = |namespace: &String| {
        let of = tables.iter().filter(|table| table.namespace.as_str() == namespace);
        of.map(|table| table.table.clone()).collect()
    };
    namespaces.into_iter().map(|namespace| (namespace.clone(), names(&namespace))).collect()
}

/// Lines that only one of the two has.
fn differences(one: &BTreeSet<String>, other: &BTreeSet<String>) -> Vec<String> {
    let mut lines: Vec<String> = one.difference(other).map(|line| format!("- {line}")).collect();
    lines.extend(other.difference(one).map(|line| format!("+ {line}")));
    lines.sort_by(|a, b| a[2..].cmp(&b[2..]));
    lines
}

fn postgres() -> Option<Box<dyn Kept>> {
    Some(Box::new(Database::new()?))
}

#[cfg(feature = "mysql")]
fn mariadb() -> Option<Box<dyn Kept>> {
    Some(Box::new(crate::support::mysql::Database::new(crate::support::mysql::Brand::Mariadb)?))
}

/// Tables with enumerations, JSON, arrays, addresses, UUIDs, decimals, dates, and every kind of schema change that the official client
/// supports.
fn spread() -> Vec<TableRef> {
    let mut tables: Vec<TableRef> = [
        "accounts",
        "assignments",
        "context_external_tools",
        "courses",
        "enrollments",
        "late_policies",
        "pseudonyms",
        "quizzes",
        "rubrics",
        "submissions",
        "users",
    ]
    .map(canvas)
    .into();
    tables.push(web_logs());
    tables
}

async fn take_turns(database: impl Fn() -> Option<Box<dyn Kept>>) {
    let tables = spread();
    let options = SchoolOptions { rows: 150, evolving: true, ..school(&tables) };
    let Some(pair) = Pair::new(options, database).await else { return };
    let mut clients = [Client::Official, Client::Ours];
    pair.step("initdb", clients, &tables, None).await;
    for round in 0..5 {
        pair.assert_rows(&tables, pair.world.school.now());
        // The official client drops removed columns; daplake keeps them, because views of users may need them.
        pair.assert_alike(&["courses.turnitin_id"], &format!("round {round}"));
        let since = pair.world.school.now();
        pair.world.school.advance();
        clients.swap(0, 1);
        pair.step("syncdb", clients, &tables, Some(since)).await;
    }
    pair.assert_rows(&tables, pair.world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_client_continues_where_the_other_stopped_in_postgresql() {
    take_turns(postgres).await;
}

/// The whole catalogue, except tables with nulls in required columns, which the official client cannot load.
async fn fill_all(database: impl Fn() -> Option<Box<dyn Kept>>) {
    let options = SchoolOptions { rows: 100, ..school(&[]) };
    let Some(pair) = Pair::new(options, database).await else { return };
    let all = pair.world.all_tables();
    let (bad, tables): (Vec<TableRef>, Vec<TableRef>) = all.into_iter().partition(required_nulls_in);
    pair.step("initdb", [Client::Official, Client::Ours], &tables, None).await;
    pair.assert_rows(&tables, pair.world.school.now());
    pair.assert_alike(&[], "at first");
    let since = pair.world.school.now();
    pair.world.school.advance();
    pair.step("syncdb", [Client::Ours, Client::Official], &tables, Some(since)).await;
    pair.assert_rows(&tables, pair.world.school.now());
    pair.assert_alike(&[], "after an increment by the other client");
    // daplake can load those as well.
    let [_, ours] = &pair.databases;
    for (namespace, names) in by_namespace(&bad) {
        for table in names {
            let run = pair.run(Client::Ours, "initdb", &namespace, &table, ours.as_ref());
            assert_eq!(run.code, Some(0), "{namespace}.{table}: {run:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_catalogue_has_the_layout_of_the_official_client_in_postgresql() {
    fill_all(postgres).await;
}

#[cfg(feature = "mysql")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_client_continues_where_the_other_stopped_in_mariadb() {
    take_turns(mariadb).await;
}

#[cfg(feature = "mysql")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_catalogue_has_the_layout_of_the_official_client_in_mariadb() {
    fill_all(mariadb).await;
}

/// The official client would drop the system columns, and with them deletes and versions. It changes nothing instead: `syncdb` finds no
/// such table, and a constraint stops `initdb`. Other tables are not affected.
async fn refuse(database: impl Fn() -> Option<Box<dyn Kept>>) {
    let tables = [canvas("users"), canvas("submissions"), canvas("accounts")];
    for mode in [["--deletes", "mark"], ["--mode", "history"]] {
        let options = SchoolOptions { rows: 40, change_rate: 0.5, ..school(&tables) };
        let Some(pair) = Pair::new(options, &database).await else { return };
        let database = pair.databases[0].as_ref();
        let sync = |more: &[&str], tables: &str| {
            let always = ["sync", "--target", database.url(), "--namespace", "canvas", "--jobs-per-minute", "0", "--table"];
            pair.world.daplake(&[&always[..], &[tables], more].concat()).assert_code(0);
        };
        sync(&mode, "users,submissions");
        let initialised = pair.run(Client::Official, "initdb", "canvas", "accounts", database);
        assert_eq!(initialised.code, Some(0), "{initialised:?}");
        pair.world.school.advance();
        sync(&[], "users,submissions");
        let before = (database.layout(), database.sync_state(), database.rows(&tables[..2]));
        for (verb, table) in [("syncdb", "users"), ("initdb", "submissions"), ("dropdb", "users")] {
            let refused = pair.run(Client::Official, verb, "canvas", table, database);
            assert_eq!(refused.code, Some(5), "{verb} {mode:?}: {refused:?}");
            let now = (database.layout(), database.sync_state(), database.rows(&tables[..2]));
            assert_eq!(now, before, "{verb} {mode:?}: {refused:?}");
        }
        let continued = pair.run(Client::Official, "syncdb", "canvas", "accounts", database);
        assert_eq!(continued.code, Some(0), "{continued:?}");
        let now = pair.world.school.now();
        let accounts = database.rows(&tables[2..]).remove(0);
        assert_same_to(&pair.world.school, &tables[2], now, accounts, database.unit());
        pair.world.school.advance();
        sync(&[], "users,submissions");
        let current = |row: &Value| row["_deleted"] != true && row["_current"] != false;
        for (table, rows) in tables[..2].iter().zip(database.rows(&tables[..2])) {
            let rows = rows.into_iter().filter(current).collect();
            assert_same_to(&pair.world.school, table, pair.world.school.now(), rows, 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_client_does_not_change_tables_in_other_modes_in_postgresql() {
    refuse(postgres).await;
}

#[cfg(feature = "mysql")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_official_client_does_not_change_tables_in_other_modes_in_mariadb() {
    refuse(mariadb).await;
}
