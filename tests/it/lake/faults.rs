//! Every fault of the embedded server, once and permanently, during a first snapshot and during an increment. Either the table is
//! correct, or there is a clear error and the table is unchanged. No output contains a secret.

use daplake::demo::school::SchoolOptions;
use daplake::demo::serve::{Fault, Times};
use daplake::{Format, Kind, Timestamp, ops};
use serde_json::Value;

use crate::support::faults::{PERMANENT, TEMPORARY};
use crate::support::{CLIENT_SECRET, World, assert_same, canvas, read_tables, school};

/// The expected outcome of a fault.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// The correct table.
    Correct,
    /// An error of one of these kinds, and an unchanged table.
    Fails(&'static [Kind]),
}

use Expected::{Correct, Fails};
use Times::{Always, N};

/// Permanent and harmless.
const HARMLESS: &[&str] = &[
    "extra-members",
    "unknown-status",
    "newer-schema",
    "redirect",
    "content-encoding",
    "no-ranges",
    "drip:200000",
    "multi-member",
    "extra-column",
    "empty-line",
    "no-final-newline",
    "repeated-row",
    "empty-gzip",
    "header-only",
];

/// Permanent faults in rows, which only a decoder notices.
const PERMANENT_IN_ROWS: &[(&str, &[Kind])] = &[("malformed-line", &[Kind::Data]), ("wrong-type", &[Kind::Data])];

/// A world whose table is compared at the end; all tables are read by one process.
struct Case {
    label: String,
    world: World,
    /// The time of the expected rows; `None` if there must be no table.
    at: Option<Timestamp>,
}

async fn world() -> World {
    World::new(SchoolOptions { table_rows: vec![(canvas("users"), 250)], ..school(&[canvas("users")]) }).await
}

async fn strike(fault: &str, times: Times, ends: Expected, increment: bool, format: Format) -> Case {
    let label = format!("{fault} {times:?} during {} as {format}", if increment { "an increment" } else { "a snapshot" });
    let world = world().await;
    let mut before = None;
    if increment {
        world.sync_all().await;
        before = Some(world.school.now());
        world.school.advance();
    }
    let files = world.fingerprint();
    world.server.inject(Fault::parse(fault).unwrap(), times);
    let mut request = world.request();
    request.format = format;
    if fault.starts_with("stall") {
        request.client = world.client_that_waits(std::time::Duration::from_millis(500));
    }
    let answer = ops::sync(request).await;
    let error = match &answer {
        Ok(report) => report.first_error(),
        Err(error) => Some(error),
    };
    let at = match (ends, error) {
        (Correct, None) => Some(world.school.now()),
        (Fails(kinds), Some(error)) => {
            assert!(kinds.contains(&error.kind()), "{label}: {error:?}");
            assert!(!error.message().is_empty());
            let log = |files: &std::collections::BTreeMap<std::path::PathBuf, _>| {
                files
                    .keys()
                    .filter(|path| path.components().any(|part| part.as_os_str() == "_delta_log"))
                    .cloned()
                    .collect::<Vec<_>>()
            };
            assert_eq!(log(&world.fingerprint()), log(&files), "{label}: the log is unchanged");
            before
        }
        (Correct, Some(error)) => panic!("{label}: {error:?}"),
        (Fails(_), None) => panic!("{label}: an error is expected"),
    };
    Case { label, world, at }
}

fn compare(left: Vec<Case>) {
    let table = canvas("users");
    let mut folders = Vec::new();
    for Case { label, world, at } in &left {
        let folder = world.lake().join("canvas/users");
        match at {
            Some(_) => folders.push(folder),
            None => assert!(!folder.join("_delta_log").exists(), "{label}: there must be no table"),
        }
    }
    let Some(rows) = read_tables("deltalake", &folders) else { return };
    for (Case { label, world, at }, rows) in left.iter().filter(|left| left.at.is_some()).zip(rows) {
        eprintln!("comparing after {label}");
        assert_same(&world.school, &table, at.unwrap(), rows);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporary_faults_do_not_fail_a_run() {
    let mut left = Vec::new();
    for (fault, times) in TEMPORARY {
        for increment in [false, true] {
            left.push(strike(fault, *times, Correct, increment, Format::Jsonl).await);
        }
    }
    compare(left);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusual_but_valid_answers_are_accepted() {
    let mut left = Vec::new();
    for fault in HARMLESS {
        left.push(strike(fault, Always, Correct, true, Format::Jsonl).await);
        left.push(strike(fault, Always, Correct, false, Format::Tsv).await);
        left.push(strike(fault, Always, Correct, true, Format::Csv).await);
    }
    left.push(strike("flat-parquet", Always, Correct, false, Format::Parquet).await);
    left.push(strike("flat-parquet", Always, Correct, true, Format::Parquet).await);
    compare(left);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permanent_faults_are_clear_errors_and_leave_the_table_unchanged() {
    let mut left = Vec::new();
    for (fault, kinds) in PERMANENT.iter().chain(PERMANENT_IN_ROWS) {
        for increment in [false, true] {
            left.push(strike(fault, Always, Fails(kinds), increment, Format::Jsonl).await);
        }
    }
    // A bit flipped inside a Parquet page goes unnoticed unless its writer added checksums; a broken footer does not.
    for fault in ["wrong-crc", "cut:100", "gone-at-download"] {
        left.push(strike(fault, Always, Fails(&[Kind::Data, Kind::Unavailable, Kind::Expired]), true, Format::Parquet).await);
    }
    compare(left);
}

/// The Parquet library panics on this page. Its table fails, and the others are loaded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_parquet_page_fails_its_table_and_keeps_rows_and_bookmark() {
    let (users, courses) = (canvas("users"), canvas("courses"));
    for format in ["delta", "parquet"] {
        let rows = vec![(users.clone(), 250)];
        let options = SchoolOptions { change_rate: 0.5, table_rows: rows, ..school(&[users.clone(), courses.clone()]) };
        let world = World::new(options).await;
        let sync = |more: &[&str]| {
            let mut arguments = vec!["sync", "--target", "lake", "--format", format, "--namespace", "canvas"];
            arguments.extend(["--download-format", "parquet", "--jobs-per-minute", "0"]);
            arguments.extend(more);
            world.daplake(&arguments)
        };
        let held = || -> Value {
            let run = world.daplake(&["status", "--target", "lake", "--format", format, "--output", "json"]).assert_code(0);
            let overview: Value = serde_json::from_str(&run.stdout).unwrap();
            let tables = overview["tables"].as_array().unwrap();
            let table = tables.iter().find(|table| table["table"] == "users").unwrap();
            ["rows", "data_as_of", "version", "files", "bytes"].iter().map(|name| table[name].clone()).collect()
        };
        sync(&[]).assert_code(0);
        let (before, as_of) = (held(), world.school.now());
        for more in [&["--resnapshot"][..], &[]] {
            // A new job, whose objects are damaged.
            (0..4).for_each(|_| _ = world.school.advance());
            // A row group of twenty rows in the second object, so that other rows are decoded first.
            world.server.inject_for(&users, Fault::parse("broken-page:1:40").unwrap(), Always);
            let run = sync(more).assert_code(5).assert_says(&["canvas.users", "damaged", "report", "parquet-"]);
            assert!(!run.stderr.contains("panicked at"), "{}", run.stderr);
            assert_eq!(held(), before, "{format} {more:?}");
            world.server.clear_faults();
        }
        let reader = if format == "delta" { "deltalake" } else { "folder" };
        world.assert_tables(reader, std::slice::from_ref(&users), as_of);
        world.school.advance();
        sync(&[]).assert_code(0);
        world.assert_tables(reader, &[users.clone(), courses.clone()], world.school.now());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_in_one_table_does_not_affect_others() {
    let tables = [canvas("accounts"), canvas("users"), canvas("courses")];
    let world = World::new(school(&tables)).await;
    world.server.inject_for(&tables[1], Fault::parse("wrong-type").unwrap(), Always);
    let report = world.sync().await;
    let failed: Vec<String> = report.failed().map(|table| table.table.to_string()).collect();
    assert_eq!(failed, ["canvas.users"]);
    world.assert_tables("deltalake", &[tables[0].clone(), tables[2].clone()], world.school.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_output_or_file_contains_a_secret() {
    let mut printed = String::new();
    for fault in ["error-500:objects", "url-expires", "gone-at-download", "malformed-line", "token-dies", "corrupt", "reset:10"]
    {
        let world = world().await;
        world.server.inject(Fault::parse(fault).unwrap(), N(40));
        let log = world.path("log.txt");
        let run = world.daplake(&[
            "sync",
            "--target",
            "lake",
            "--jobs-per-minute",
            "0",
            "--loglevel",
            "debug",
            "--logfile",
            log.to_str().unwrap(),
            "--report",
            world.path("report.json").to_str().unwrap(),
        ]);
        printed.push_str(&run.stdout);
        printed.push_str(&run.stderr);
        for file in [log, world.path("report.json")] {
            printed.push_str(&std::fs::read_to_string(file).unwrap_or_default());
        }
        for path in world.fingerprint().keys().filter(|path| path.extension().is_some_and(|kind| kind == "json")) {
            printed.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    assert!(printed.len() > 1000, "there is something to search");
    for secret in [CLIENT_SECRET, "Bearer ", "Basic ", "signature=", "sig=", "eyJ"] {
        assert!(!printed.contains(secret), "{secret} was printed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_a_snapshot_that_repeat_a_key_are_counted_in_the_report() {
    let world = world().await;
    world.server.inject(Fault::parse("repeated-row").unwrap(), Always);
    let report = world.sync_all().await;
    let warnings = &report.tables[0].warnings;
    assert!(
        warnings.iter().any(|note| note.starts_with("dropped 1 row of the snapshot with the key of another row")),
        "{warnings:?}"
    );
}
