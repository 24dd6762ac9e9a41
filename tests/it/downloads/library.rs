//! `snapshot` and `incremental` through the library: every fault of the embedded server, formats, conversions, several tables.
//! The outcome is complete and correct files, or a clear error and no file under its final name.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use daplake::demo::school::SchoolOptions;
use daplake::demo::serve::{Endpoint, Fault, ServeOptions, Times};
use daplake::internals::ops::files;
use daplake::ops::{self, DownloadRequest, FilesOutcome, FilesReport, Journal, Shape, TableChoice};
use daplake::{Format, Kind, Namespace, TableRef, Timestamp, Window};
use serde_json::Value;

use crate::support::faults::{PERMANENT, TEMPORARY};
use crate::support::{CLIENT_SECRET, World, canvas, paths_below, school, serving};

use Times::{Always, N, Once};

/// Rows of `users`, in 8 objects.
const ROWS: u64 = 250;

async fn world_of(tables: &[TableRef]) -> World {
    let rows = SchoolOptions { table_rows: vec![(canvas("users"), ROWS)], ..school(tables) };
    World::with(rows, ServeOptions { rows_per_object: 32, ..serving() }).await
}

fn request(world: &World, tables: &str) -> DownloadRequest {
    DownloadRequest {
        client: world.client(),
        namespace: Namespace::new("canvas"),
        tables: tables.parse::<TableChoice>().unwrap(),
        window: Window::Snapshot,
        format: Format::Jsonl,
        shape: Shape::AsSent,
        folder: world.path("out"),
        objects_at_once: 3,
        journal: Some(Journal::new(world.path("state"), "test")),
        fresh: false,
    }
}

async fn download(request: DownloadRequest) -> FilesReport {
    ops::download(request).await.unwrap()
}

/// [`request`] for `users`, with a shorter timeout for faults that stop sending.
fn request_under(world: &World, fault: &str) -> DownloadRequest {
    let mut request = request(world, "users");
    if fault.starts_with("stall") {
        request.client = world.client_that_waits(Duration::from_millis(500));
    }
    request
}

/// The visible folders of jobs.
fn job_folders(out: &Path) -> Vec<PathBuf> {
    let Ok(entries) = out.read_dir() else { return Vec::new() };
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("job_"));
    folders.sort();
    folders
}

/// Visible files of a folder.
fn data_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'));
    files.sort();
    files
}

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

/// Key and one value of every row, from JSONL.
fn rows_of_jsonl(text: &str) -> BTreeMap<i64, String> {
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let row: Value = serde_json::from_str(line).unwrap();
        let again = rows.insert(row["key"]["id"].as_i64().unwrap(), row["value"]["name"].to_string());
        assert_eq!(again, None, "no key is repeated");
    }
    rows
}

fn expected(world: &World, at: Timestamp) -> BTreeMap<i64, String> {
    use daplake::demo::record::Cell;
    let users = canvas("users");
    let layout = world.school.layout(&users, world.school.schema_version(&users, at).unwrap()).unwrap();
    let name = layout.value.iter().position(|field| field.name == "name").unwrap();
    let rows = world.school.expected(&users, at).unwrap();
    rows.into_iter()
        .map(|record| {
            let Cell::Int(id) = record.key[0] else { panic!("ids are integers") };
            let value = match &record.value.as_ref().unwrap()[name] {
                Cell::Text(text) => Value::String(text.to_string()),
                _ => Value::Null,
            };
            (id, value.to_string())
        })
        .collect()
}

/// Asserts that the one visible folder holds exactly the rows of the school.
#[track_caller]
fn assert_correct(world: &World, label: &str) {
    let folders = job_folders(&world.path("out"));
    assert_eq!(folders.len(), 1, "{label}: {folders:?}");
    let files = data_files(&folders[0]);
    let text: String = files.iter().map(|file| unpacked(file) + "\n").collect();
    assert_eq!(rows_of_jsonl(&text), expected(world, world.school.now()), "{label}");
    assert_nothing_hidden(world, label);
    let manifest = std::fs::read_to_string(folders[0].join(files::MANIFEST)).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["table"], "users");
    assert_eq!(manifest["next_since"], world.school.now().to_string());
    assert_eq!(manifest["files"].as_array().unwrap().len(), files.len());
}

#[track_caller]
fn assert_nothing_hidden(world: &World, label: &str) {
    let left: Vec<_> = world.path("out").read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{label}: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporary_faults_do_not_fail_a_run() {
    for (fault, times) in TEMPORARY {
        let world = world_of(&[canvas("users")]).await;
        world.server.inject(Fault::parse(fault).unwrap(), *times);
        let report = download(request_under(&world, fault)).await;
        assert!(report.errors().next().is_none(), "{fault}: {report:?}");
        assert_correct(&world, fault);
        assert_eq!(world.server.counters().leaked_auth, 0, "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permanent_faults_are_clear_errors_and_no_file_gets_its_final_name() {
    // These commands request no schema.
    for (fault, kinds) in PERMANENT.iter().filter(|(fault, _)| !fault.ends_with(":schema")) {
        let world = world_of(&[canvas("users")]).await;
        world.server.inject(Fault::parse(fault).unwrap(), Always);
        let report = download(request_under(&world, fault)).await;
        let error = report.errors().next().unwrap_or_else(|| panic!("{fault}: an error is expected"));
        assert!(kinds.contains(&error.kind()), "{fault}: {error:?}");
        assert_eq!(error.get("table"), Some("canvas.users"));
        assert_eq!(job_folders(&world.path("out")), [""; 0].map(PathBuf::from), "{fault}");
        // Without the fault, the same command continues.
        world.server.clear_faults();
        let report = download(request_under(&world, fault)).await;
        if report.errors().next().is_some() {
            // Permanently damaged objects remain until their job expires.
            assert!(kinds.contains(&Kind::Data) || kinds.contains(&Kind::Expired), "{fault}: {report:?}");
            continue;
        }
        assert_correct(&world, fault);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_formats_are_stored_as_sent() {
    for format in Format::ALL {
        let world = world_of(&[canvas("users")]).await;
        let report = download(DownloadRequest { format, ..request(&world, "users") }).await;
        assert!(report.errors().next().is_none(), "{report:?}");
        let files = data_files(&job_folders(&world.path("out"))[0]);
        assert_eq!(files.len(), 8);
        let rows: usize = match format {
            Format::Parquet => files.iter().map(|file| parquet_rows(file)).sum(),
            Format::Jsonl => files.iter().map(|file| unpacked(file).lines().count()).sum(),
            // Each file has a header.
            Format::Csv | Format::Tsv => files.iter().map(|file| unpacked(file).lines().count() - 1).sum(),
        };
        assert!(format == Format::Csv && rows >= ROWS as usize || rows == ROWS as usize, "{format}: {rows}");
        let counters = world.server.counters();
        assert_eq!((counters.downloads().gets, counters.jobs_started(), counters.logins), (8, 1, 1));
    }
}

fn parquet_rows(path: &Path) -> usize {
    use parquet::file::reader::FileReader;
    let reader = parquet::file::serialized_reader::SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    reader.metadata().file_metadata().num_rows() as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_unpacked_on_request() {
    let world = world_of(&[canvas("users")]).await;
    world.server.inject(Fault::parse("cut:500").unwrap(), N(4));
    let report = download(DownloadRequest { shape: Shape::Unpacked, ..request(&world, "users") }).await;
    assert!(report.errors().next().is_none(), "{report:?}");
    let files = data_files(&job_folders(&world.path("out"))[0]);
    assert!(files.iter().all(|file| file.extension().unwrap() == "jsonl"), "{files:?}");
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    assert_eq!(rows_of_jsonl(&text), expected(&world, world.school.now()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_is_converted_to_parquet_on_request() {
    for format in [Format::Jsonl, Format::Csv, Format::Tsv] {
        let world = world_of(&[canvas("users")]).await;
        let first = world.school.now();
        let report = download(DownloadRequest { format, shape: Shape::Parquet, ..request(&world, "users") }).await;
        assert!(report.errors().next().is_none(), "{report:?}");
        let files = data_files(&job_folders(&world.path("out"))[0]);
        assert!(files.iter().all(|file| file.extension().unwrap() == "parquet"), "{files:?}");
        let mut found = BTreeMap::new();
        for file in &files {
            for row in parquet_json(file) {
                assert!(row["_action"].is_null(), "{row}");
                found.insert(row["id"].as_i64().unwrap(), row["name"].to_string());
            }
        }
        assert_eq!(found, expected(&world, first), "{format}");

        world.school.advance();
        let window = Window::Increment { since: first, until: None };
        let folder = world.path("increment");
        let report = download(DownloadRequest {
            format,
            window,
            shape: Shape::Parquet,
            folder: folder.clone(),
            ..request(&world, "users")
        })
        .await;
        assert!(report.errors().next().is_none(), "{report:?}");
        let files = data_files(&job_folders(&folder)[0]);
        let rows: Vec<Value> = files.iter().flat_map(|file| parquet_json(file)).collect();
        let changes: Vec<_> = world.school.changes(&canvas("users"), first, world.school.now()).unwrap().collect();
        assert_eq!(rows.len(), changes.len());
        let deletes = rows.iter().filter(|row| row["_action"] == "D").count();
        assert_eq!(deletes, changes.iter().filter(|change| change.value.is_none()).count());
        assert!(deletes > 0);
    }
}

/// Id, name and action of every row, with the commit time checked.
fn parquet_json(path: &Path) -> Vec<Value> {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
    let file = std::fs::File::open(path).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut rows = Vec::new();
    for batch in reader.map(Result::unwrap) {
        let column = |name: &str| batch.column_by_name(name);
        let text = |name: &str, row: usize| match column(name) {
            Some(column) if column.is_valid(row) => column.as_string::<i32>().value(row).into(),
            _ => Value::Null,
        };
        let (id, ts) = (column("id").unwrap(), column("_ts").unwrap());
        for row in 0..batch.num_rows() {
            assert!(ts.as_primitive::<TimestampMicrosecondType>().value(row) > 0);
            rows.push(serde_json::json!({
                "id": id.as_primitive::<Int64Type>().value(row),
                "name": text("name", row),
                "_action": text("_action", row),
            }));
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parquet_is_neither_unpacked_nor_converted() {
    let world = world_of(&[canvas("users")]).await;
    for shape in [Shape::Unpacked, Shape::Parquet] {
        let request = DownloadRequest { format: Format::Parquet, shape, ..request(&world, "users") };
        let error = ops::download(request).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
    }
    assert_eq!(world.server.counters().jobs_started(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_reported_in_the_given_order_and_failures_do_not_affect_others() {
    let tables = [canvas("accounts"), canvas("courses"), canvas("users")];
    let world = world_of(&tables).await;
    world.server.inject_for(&tables[0], Fault::parse("corrupt").unwrap(), Always);
    // The first table is also the slowest.
    world.server.inject_for(&tables[0], Fault::parse("stall:1:50").unwrap(), Once);
    let reported = Mutex::new(Vec::new());
    let observe = |event: &files::TableEvent| reported.lock().unwrap().push((event.place, event.table.table.clone()));
    let request = request(&world, "accounts,nowhere,users,courses");
    let report = files::download_with(request, &observe, std::future::pending()).await.unwrap();
    let words: Vec<String> = report
        .tables
        .iter()
        .map(|(table, outcome)| match outcome {
            FilesOutcome::Done => format!("{} done", table.table),
            FilesOutcome::Failed(error) => format!("{} {}", table.table, error.kind().name()),
            FilesOutcome::Skipped => format!("{} skipped", table.table),
        })
        .collect();
    assert_eq!(words[1..], ["nowhere not_found", "users done", "courses done"], "{words:?}");
    assert!(words[0].starts_with("accounts ") && words[0] != "accounts done", "{words:?}");
    let reported = reported.into_inner().unwrap();
    assert!(reported.is_sorted_by_key(|(place, _)| *place), "{reported:?}");
    assert_eq!(job_folders(&world.path("out")).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_every_table_would_have_stops_the_run() {
    let tables = [canvas("accounts"), canvas("courses"), canvas("users")];
    let world = world_of(&tables).await;
    world.server.inject_for(&tables[1], Fault::parse("account-disabled").unwrap(), Always);
    // The other tables must have started when the second one fails.
    world.server.inject_for(&tables[0], Fault::parse("stall:0.2:50").unwrap(), Always);
    world.server.inject_for(&tables[2], Fault::parse("stall:20:50").unwrap(), Always);
    let report = download(request(&world, "accounts,courses,users")).await;
    assert!(matches!(report.tables[0].1, FilesOutcome::Done), "tables before it are finished: {report:?}");
    assert!(matches!(&report.tables[1].1, FilesOutcome::Failed(error) if error.kind() == Kind::Account));
    assert!(matches!(report.tables[2].1, FilesOutcome::Skipped), "tables after it are skipped");
    assert_eq!(report.skipped(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interruption_fails_the_first_unfinished_table_and_skips_the_rest() {
    let tables = [canvas("accounts"), canvas("courses"), canvas("users")];
    let world = world_of(&tables).await;
    for table in &tables[..2] {
        world.server.inject_for(table, Fault::parse("stall:20:50").unwrap(), Always);
    }
    let (server, users) = (&world.server, &tables[2]);
    let interrupted = async {
        loop {
            let starts = server.counters().job_starts;
            let gets = server.counters().downloads().gets;
            if starts.iter().any(|start| start.table == *users) && gets > 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let report = files::download_with(request(&world, "accounts,courses,users"), &|_| (), interrupted).await.unwrap();
    assert!(matches!(&report.tables[0].1, FilesOutcome::Failed(error) if error.kind() == Kind::Cancelled), "{report:?}");
    assert!(matches!(report.tables[1].1, FilesOutcome::Skipped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_run_fetches_only_what_is_missing() {
    let world = world_of(&[canvas("users")]).await;
    world.server.inject_after(5, None, Fault::parse("error-500:objects").unwrap(), Always);
    let report = download(request(&world, "users")).await;
    assert!(report.errors().next().is_some());
    let got = |world: &World| -> BTreeMap<String, u64> {
        world
            .server
            .counters()
            .objects
            .iter()
            .filter(|(_, traffic)| traffic.bytes > 0)
            .map(|(id, traffic)| (id.clone(), traffic.bytes))
            .collect()
    };
    let first = got(&world);
    assert!(first.len() >= 4, "{first:?}");
    world.server.clear_faults();
    let report = download(request(&world, "users")).await;
    assert!(report.errors().next().is_none(), "{report:?}");
    assert_correct(&world, "resumed");
    let second = got(&world);
    assert_eq!(second.len(), 8);
    for (id, bytes) in &first {
        assert_eq!(second[id], *bytes, "{id} was downloaded once");
    }
    assert_eq!(world.server.counters().jobs_started(), 1);

    // Complete files are not downloaded again, unless requested (`fresh`) or changed meanwhile.
    download(request(&world, "users")).await;
    assert_eq!(got(&world), second);
    let victim = &data_files(&job_folders(&world.path("out"))[0])[3];
    std::fs::write(victim, "changed").unwrap();
    download(request(&world, "users")).await;
    assert_eq!(got(&world).iter().filter(|(id, bytes)| second[*id] != **bytes).count(), 1);
    assert_correct(&world, "repaired");
    download(DownloadRequest { fresh: true, ..request(&world, "users") }).await;
    assert!(got(&world).iter().all(|(id, bytes)| second[id] < *bytes));
    assert_correct(&world, "fresh");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_simultaneous_runs_share_a_job_and_download_each_file_once() {
    let world = world_of(&[canvas("users")]).await;
    world.server.inject(Fault::parse("drip:20000").unwrap(), Always);
    let (one, two) = tokio::join!(download(request(&world, "users")), download(request(&world, "users")));
    assert!(one.errors().chain(two.errors()).next().is_none(), "{one:?} {two:?}");
    assert_correct(&world, "two at once");
    let counters = world.server.counters();
    assert_eq!((counters.jobs_started(), counters.downloads().gets), (1, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_result_is_a_folder_without_data() {
    let world = world_of(&[canvas("users")]).await;
    let window = Window::Increment { since: world.school.now(), until: None };
    let report = download(DownloadRequest { window, ..request(&world, "users") }).await;
    assert!(report.errors().next().is_none(), "{report:?}");
    let folders = job_folders(&world.path("out"));
    assert_eq!(folders.len(), 1);
    assert_eq!(data_files(&folders[0]), [""; 0].map(PathBuf::from));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urls_are_requested_in_batches() {
    let world = world_of(&[canvas("users")]).await;
    download(DownloadRequest { objects_at_once: 1, ..request(&world, "users") }).await;
    assert!(world.server.counters().calls_of(Endpoint::Urls) <= 2, "{:?}", world.server.counters().calls);
}

/// The text of all files below a folder; an error if a file was renamed meanwhile.
fn contents(folder: &Path) -> std::io::Result<String> {
    let content = |path: PathBuf| {
        let is_folder = path.symlink_metadata()?.is_dir();
        Ok(if is_folder { String::new() } else { String::from_utf8_lossy(&std::fs::read(path)?).into_owned() })
    };
    paths_below(folder).into_iter().map(content).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_contains_a_secret() {
    let mut kept = String::new();
    for fault in ["url-expires", "gone-at-download", "corrupt", "cut:10"] {
        let world = world_of(&[canvas("users")]).await;
        world.server.inject(Fault::parse(fault).unwrap(), N(2));
        let report = download(request(&world, "users")).await;
        kept.push_str(&format!("{report:?}"));
        for folder in ["state", "out"] {
            // An interrupted download may still be renaming its file; the files are then listed again.
            kept.push_str(&std::iter::repeat_with(|| contents(&world.path(folder))).take(100).find_map(Result::ok).unwrap());
        }
    }
    assert!(kept.contains("\"journal\":1") && kept.contains("next_since"));
    for secret in [CLIENT_SECRET, "Bearer ", "Basic ", "ignature=", "sig=", "eyJ"] {
        assert!(!kept.contains(secret), "a file contains {secret}");
    }
}
