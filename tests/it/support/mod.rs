//! Support for the integration tests: an embedded server with a folder for tables, the built program, and independent readers.

pub mod browser;
#[cfg(unix)]
pub mod browser_page;
pub mod database;
pub mod faults;
pub mod machines;
#[cfg(feature = "mssql")]
#[path = "../../../src/sink/sql/mssql/tests/live/server.rs"]
pub mod mssql;
#[cfg(feature = "mysql")]
#[path = "../../../src/sink/sql/mysql/tests/server.rs"]
pub mod mysql;
pub mod official;
#[cfg(feature = "postgres")]
#[path = "../../../src/sink/sql/postgres/tests/server.rs"]
pub mod postgres;
#[cfg(feature = "postgres")]
pub mod read_postgres;
#[allow(dead_code, reason = "shared with the unit tests")]
#[path = "../../../src/store/server.rs"]
pub mod s3;
pub mod stores;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use daplake::demo::record::{Cell, Record};
use daplake::demo::school::{School, SchoolOptions};
use daplake::demo::serve::{ServeOptions, Server};
use daplake::internals::sink::OnSchemaChange;
use daplake::ops::{self, Outcome, Report, Selection, SyncRequest, TableReport, Target};
use daplake::sink::Sink;
use daplake::{
    Client, ClientOptions, Credentials, Engine, EngineOptions, Kind, Pacing, RetryPolicy, Secret, TableRef, Timestamp,
};
use serde_json::Value;

pub const CLIENT_ID: &str = "test-region#planted-client";
pub const CLIENT_SECRET: &str = "planted-secret-f3a9";

/// 2026-01-01T00:00:00Z.
pub const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

pub fn canvas(table: &str) -> TableRef {
    TableRef::new("canvas", table)
}

pub fn web_logs() -> TableRef {
    TableRef::new("canvas_logs", "web_logs")
}

/// A small school of the given tables (all of them when empty).
pub fn school(only: &[TableRef]) -> SchoolOptions {
    SchoolOptions {
        seed: 11,
        rows: 300,
        change_rate: 0.1,
        commits: 1,
        start: START,
        only: (!only.is_empty()).then(|| only.to_vec()),
        ..SchoolOptions::default()
    }
}

pub fn serving() -> ServeOptions {
    ServeOptions {
        credentials: (CLIENT_ID.to_owned(), CLIENT_SECRET.to_owned()),
        rows_per_object: 100,
        job_delay: (Duration::from_millis(5), Duration::from_millis(5)),
        ..ServeOptions::instant()
    }
}

pub struct World {
    pub school: Arc<School>,
    pub server: Server,
    folder: tempfile::TempDir,
}

impl World {
    pub async fn new(school: SchoolOptions) -> Self {
        Self::with(school, serving()).await
    }

    pub async fn with(school: SchoolOptions, serving: ServeOptions) -> Self {
        let school = Arc::new(School::new(school));
        let server = Server::start(school.clone(), serving).await.unwrap();
        Self { school, server, folder: tempfile::tempdir().unwrap() }
    }

    /// The target folder.
    pub fn lake(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    /// A path for other files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn client(&self) -> Client {
        // A long timeout: a busy machine is not a fault.
        self.client_that_waits(Duration::from_secs(30))
    }

    /// A client that treats this time without a byte as a broken connection.
    pub fn client_that_waits(&self, idle_timeout: Duration) -> Client {
        Client::new(ClientOptions {
            base_url: self.server.url(),
            credentials: Credentials { client_id: CLIENT_ID.to_owned(), client_secret: Secret::new(CLIENT_SECRET) },
            pacing: Pacing::off(),
            retry: RetryPolicy {
                attempts: 4,
                first_delay: Duration::from_millis(5),
                max_delay: Duration::from_millis(20),
                throttle_budget: Duration::from_secs(20),
                job_attempts: 3,
            },
            ca_bundle: None,
            poll: (Duration::from_millis(5), Duration::from_millis(50)),
            idle_timeout,
        })
        .unwrap()
    }

    pub fn engine(&self) -> Engine {
        Engine::new(EngineOptions { memory_limit: 256 << 20, temp_dir: Some(self.path("spill")), partitions: 2 }).unwrap()
    }

    /// A request to sync all tables of all namespaces into the lake. Tests change it as needed.
    pub fn request(&self) -> SyncRequest {
        let engine = self.engine();
        let sink = ops::open_sink(&Target::Folder(self.lake()), &engine).unwrap();
        SyncRequest { concurrency: 4, ..SyncRequest::new(self.client(), sink, engine, Selection::all_of("all")) }
    }

    pub async fn sync(&self) -> Report {
        ops::sync(self.request()).await.unwrap()
    }

    /// Syncs, and asserts that no table fails.
    pub async fn sync_all(&self) -> Report {
        let report = self.sync().await;
        assert_eq!(failures(&report), [""; 0], "no table fails");
        report
    }

    /// Runs the built program with credentials in its environment.
    pub fn daplake(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare_command(arguments);
        command
            .current_dir(self.folder.path())
            .env("DAP_API_URL", self.server.url().as_str())
            .env("DAP_CLIENT_ID", CLIENT_ID)
            .env("DAP_CLIENT_SECRET", CLIENT_SECRET)
            .env("DAPLAKE_STATE_DIR", self.path("state"));
        command
    }

    /// Asserts that an independent reader finds exactly the expected rows of every table at `at`.
    pub fn assert_tables(&self, reader: &str, tables: &[TableRef], at: Timestamp) {
        self.assert_tables_in(&self.lake(), reader, tables, at);
    }

    /// [`World::assert_tables`] for tables below another folder.
    pub fn assert_tables_in(&self, root: &Path, reader: &str, tables: &[TableRef], at: Timestamp) {
        let Some(read) = read_tables(reader, &folders_of(root, tables)) else { return };
        for (table, rows) in tables.iter().zip(read) {
            assert_same(&self.school, table, at, rows);
        }
    }

    /// [`World::assert_tables`] for every table of the school.
    pub fn assert_all(&self, reader: &str, at: Timestamp) {
        let tables = self.all_tables();
        self.assert_tables(reader, &tables, at);
    }

    pub fn all_tables(&self) -> Vec<TableRef> {
        let tables_of = |namespace: &String| {
            let tables = self.school.tables(namespace).unwrap_or_default();
            tables.into_iter().map(|table| TableRef::new(namespace.clone(), table)).collect::<Vec<_>>()
        };
        self.school.namespaces().iter().flat_map(tables_of).collect()
    }

    /// Length and modification time of every file of the lake, to prove that nothing has changed.
    pub fn fingerprint(&self) -> BTreeMap<PathBuf, (u64, std::time::SystemTime)> {
        let file = |path: PathBuf| {
            let metadata = path.symlink_metadata().unwrap();
            (!metadata.is_dir()).then(|| (path, (metadata.len(), metadata.modified().unwrap())))
        };
        paths_below(&self.lake()).into_iter().filter_map(file).collect()
    }
}

/// Variables that would change the behaviour of the program.
const UNSET: [&str; 34] = [
    "DAP_API_URL",
    "DAP_CLIENT_ID",
    "DAP_CLIENT_SECRET",
    "DAP_TRACKING",
    "DAP_CONSOLE_THEME",
    "DAP_CA_BUNDLE",
    "DAPLAKE_TARGET",
    "DAPLAKE_MEMORY_LIMIT",
    "DAPLAKE_TEMP_DIR",
    "DAPLAKE_STATE_DIR",
    "DAPLAKE_NOTIFY",
    "DAPLAKE_SETTINGS",
    "DAPLAKE_HASH_KEY",
    "XDG_CONFIG_HOME",
    "STATE_DIRECTORY",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "NO_COLOR",
    "COLUMNS",
    "TZ",
    "XDG_STATE_HOME",
    "PGHOST",
    "PGPORT",
    "PGUSER",
    "PGPASSWORD",
    "PGDATABASE",
    "PGPASSFILE",
    "PGSSLMODE",
    "PGSSLROOTCERT",
    "PGSSLCERT",
    "PGSSLKEY",
    "PGAPPNAME",
    "PGCONNECT_TIMEOUT",
];

/// Prefixes of the variables of object stores.
const STORES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// The built program without the settings of the machine.
pub fn bare_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daplake"));
    command.args(arguments);
    without_settings(command)
}

/// A command without the variables that would change its behaviour.
pub fn without_settings(mut command: Command) -> Command {
    for name in UNSET {
        command.env_remove(name);
    }
    for (name, _) in std::env::vars() {
        if STORES.iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// The folders of tables below the root of a lake.
pub fn folders_of(root: &Path, tables: &[TableRef]) -> Vec<PathBuf> {
    tables.iter().map(|table| root.join(table.namespace.as_str()).join(&table.table)).collect()
}

/// Every path below a folder, folders included. None if there is no folder; what vanishes during the walk is left out.
pub fn paths_below(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
            paths.push(entry.path());
        }
    }
    paths
}

/// Every file below a folder.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    paths_below(folder).into_iter().filter(|path| path.is_file()).collect()
}

/// Exit code and output of a run of the program.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub fn assert_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn assert_says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(
                self.stderr.contains(word) || self.stdout.contains(word),
                "{word:?} is not in\n{}\n{}",
                self.stdout,
                self.stderr
            );
        }
        self
    }
}

pub fn failures(report: &Report) -> Vec<String> {
    report.failed().map(|table| format!("{}: {:?}", table.table, table.error)).collect()
}

/// Syncs a school with schema changes under each of the policies. A frozen table fails before its job, with a list of what would change, and
/// exactly the tables fail that would change. New columns are left out on request. The school's tables must be of a new target.
pub async fn assert_schemas_are_frozen_on_request(world: &World, request: impl Fn() -> SyncRequest) {
    let run = async |on_schema_change| ops::sync(SyncRequest { on_schema_change, ..request() }).await.unwrap();
    let columns = async |sink: &dyn Sink, table: &TableRef| {
        let columns = sink.status(table).await.unwrap().map_or_else(Vec::new, |status| status.columns);
        columns.into_iter().map(|column| column.name).collect::<Vec<_>>()
    };
    let first = run(OnSchemaChange::Apply).await;
    assert_eq!(failures(&first), [""; 0]);
    let sink = request().sink;
    let (mut refused, mut ignored) = (0, 0);
    for step in 0..6 {
        world.school.advance();
        let policy = if step % 2 == 0 { OnSchemaChange::Fail } else { OnSchemaChange::IgnoreNewColumns };
        let mut before = BTreeMap::new();
        for table in &first.tables {
            before.insert(table.table.clone(), columns(sink.as_ref(), &table.table).await);
        }
        let report = run(policy).await;
        let mut failed = Vec::new();
        for TableReport { table, error, outcome, .. } in &report.tables {
            assert_eq!(columns(sink.as_ref(), table).await, before[table], "{policy:?} {table}");
            let Some(error) = error else {
                let Outcome::Loaded { schema_changes, .. } = outcome else { continue };
                assert_eq!(*schema_changes, [""; 0], "{policy:?} {table}");
                continue;
            };
            let changes = error.get("changes").unwrap();
            // Nulls in a required column are known when the rows are.
            let is_of_rows = changes.contains("has nulls");
            assert_eq!((error.kind(), error.get("job").is_some()), (Kind::Schema, is_of_rows), "{error:?}");
            assert!(
                policy == OnSchemaChange::Fail || !changes.split("; ").all(|change| change.contains("is new")),
                "{error:?}"
            );
            let hint = format!("--schema-changes apply --table {table}");
            assert!(error.hint_text().is_some_and(|text| text.contains(&hint)), "{error:?}");
            failed.push(table.clone());
        }
        let applied = run(OnSchemaChange::Apply).await;
        assert_eq!(failures(&applied), [""; 0]);
        let changed = applied.tables.iter().filter(|table| match &table.outcome {
            Outcome::Loaded { schema_changes, .. } => !schema_changes.is_empty(),
            _ => false,
        });
        let changed: Vec<TableRef> = changed.map(|table| table.table.clone()).collect();
        if policy == OnSchemaChange::Fail {
            assert_eq!(failed, changed);
            refused += failed.len();
        } else {
            ignored += usize::from(failed.is_empty());
        }
    }
    assert!(refused >= 2, "the history has schema changes");
    assert!(ignored >= 1, "the history has changes that can be ignored");
}

pub fn outcome<'a>(report: &'a Report, table: &TableRef) -> &'a Outcome {
    &report.tables.iter().find(|line| line.table == *table).expect("the table is in the report").outcome
}

/// The variable with the Python of a reader, and the name of that Python in `DAPLAKE_TEST_REQUIRE`.
fn environment_of(reader: &str) -> (&'static str, &'static str) {
    match reader {
        "duckdb-delta" => ("DAPLAKE_TEST_DUCKDB_DELTA", "duckdb-delta"),
        "pyiceberg" | "duckdb-iceberg" => ("DAPLAKE_TEST_ICEBERG", "iceberg"),
        "chdb" | "daft" | "sail" => ("DAPLAKE_TEST_MORE_READERS", "more-readers"),
        _ => ("DAPLAKE_TEST_PYTHON", "python"),
    }
}

/// Rows of Delta tables as JSON, read by independent programs (see `read.py`). `None` if their Python environment is missing and not
/// required.
pub fn read_tables(reader: &str, folders: &[PathBuf]) -> Option<Vec<Vec<Value>>> {
    let (variable, word) = environment_of(reader);
    let required = std::env::var("DAPLAKE_TEST_REQUIRE").is_ok_and(|list| list.split(',').any(|required| required == word));
    let Ok(python) = std::env::var(variable) else {
        assert!(!required, "{variable} is not set");
        eprintln!("not run: reader {reader} (set {variable}, or use tests/run)");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/read.py");
    let output = Command::new(python).arg(script).arg(reader).args(folders).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut tables = vec![Vec::new()];
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        if line == "end" {
            tables.push(Vec::new());
        } else {
            tables.last_mut().unwrap().push(serde_json::from_str(line).unwrap());
        }
    }
    tables.pop();
    assert_eq!(tables.len(), folders.len());
    Some(tables)
}

/// Asserts that `rows` are exactly the live rows of `table` at `at`.
#[track_caller]
pub fn assert_same(school: &School, table: &TableRef, at: Timestamp, rows: Vec<Value>) {
    assert_same_to(school, table, at, rows, 1);
}

/// [`assert_same`] with timestamps truncated to a multiple of `unit` microseconds.
#[track_caller]
pub fn assert_same_to(school: &School, table: &TableRef, at: Timestamp, rows: Vec<Value>, unit: i64) {
    let version = school.schema_version(table, at).unwrap();
    let layout = school.layout(table, version).unwrap();
    let expected = school.expected(table, at).unwrap();
    let key_of_row = |row: &Value| layout.key.iter().map(|name| row[name].to_string()).collect::<Vec<_>>().join("|");
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    for row in rows {
        let key = key_of_row(&row);
        assert!(found.insert(key.clone(), row).is_none(), "{table}: key {key} occurs twice");
    }
    assert_eq!(found.len(), expected.len(), "{table}: number of rows");
    for Record { key, value, .. } in &expected {
        let words: Vec<String> = key.iter().map(cell_word).collect();
        let word = words.join("|");
        let row = found.get(&word).unwrap_or_else(|| panic!("{table}: key {word} is missing"));
        let names = layout.value.iter().map(|field| &field.name);
        for (name, cell) in names.zip(value.as_ref().unwrap()) {
            assert!(same(cell, &row[name], unit), "{table}: key {word}, column {name}: expected {cell:?}, found {}", row[name]);
        }
    }
}

fn cell_word(cell: &Cell) -> String {
    match cell {
        Cell::Int(number) => number.to_string(),
        Cell::Text(text) => Value::String(text.to_string()).to_string(),
        other => panic!("keys have no such type: {other:?}"),
    }
}

fn is_blank(cell: &Cell) -> bool {
    match cell {
        Cell::Null => true,
        Cell::Object(members) => members.iter().all(|(_, member)| is_blank(member)),
        _ => false,
    }
}

fn same(cell: &Cell, found: &Value, unit: i64) -> bool {
    match (cell, found) {
        // An object whose members are all null is null.
        (cell, Value::Null) => is_blank(cell),
        (Cell::Bool(expected), Value::Bool(found)) => expected == found,
        (Cell::Int(expected), found) => found.as_i64() == Some(*expected),
        (Cell::Time(expected), Value::Number(found)) => {
            found.as_i64().map(|found| found.div_euclid(unit)) == Some(expected.micros().div_euclid(unit))
        }
        (Cell::Date(expected), found) => found.as_i64() == Some(i64::from(*expected)),
        (Cell::Float(expected), Value::String(found)) => {
            found.parse::<f64>().is_ok_and(|found| found.to_bits() == expected.to_bits())
        }
        // Inside JSON.
        (Cell::Time(expected), Value::String(found)) => found.parse::<Timestamp>().is_ok_and(|found| found == *expected),
        (Cell::Float(expected), Value::Number(found)) => found.as_f64().is_some_and(|found| found == *expected),
        (Cell::Decimal(unscaled, scale), Value::Number(found)) => decimal(&found.to_string(), *scale) == Some(*unscaled),
        (Cell::Decimal(unscaled, scale), Value::String(found)) => decimal(found, *scale) == Some(*unscaled),
        (Cell::Text(expected), Value::String(found)) => expected == found,
        (Cell::Object(members), Value::Object(found)) => {
            members.iter().all(|(name, member)| same(member, found.get(name.as_ref()).unwrap_or(&Value::Null), unit))
        }
        // JSON text, in databases without a type for them.
        (Cell::Object(_) | Cell::List(_), Value::String(text)) => {
            serde_json::from_str(text).is_ok_and(|found: Value| !found.is_string() && same(cell, &found, unit))
        }
        (Cell::List(items), Value::Array(found)) => {
            items.len() == found.len() && items.iter().zip(found).all(|(item, found)| same(item, found, unit))
        }
        _ => false,
    }
}

fn decimal(text: &str, scale: u8) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let scale = usize::from(scale);
    (fraction.len() <= scale).then(|| format!("{whole}{fraction:0<scale$}").parse().ok())?
}

/// A random number generator. Prints its seed; `DAPLAKE_TEST_SEED` replays a failure.
pub struct Random(u64);

impl Random {
    pub fn new() -> Self {
        let given = std::env::var("DAPLAKE_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
        let seed = given.unwrap_or_else(clock);
        eprintln!("DAPLAKE_TEST_SEED={seed}");
        Self(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
