//! Plain Parquet folders as a reader of `*.parquet` sees them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use super::ParquetSink;
use crate::error::Kind;
use crate::model::TableRef;
use crate::sink::conformance::Change::{Del, Up};
use crate::sink::conformance::{self, Fixture, at, expected, load, plain, read, rendered};
use crate::sink::delta::tests::engine;
use crate::sink::delta::tests::table_modes::events;
use crate::sink::delta::{DeltaOptions, DeltaSink, Scope};
use crate::sink::{LakeFeatures, LakeFormats, LoadKind, Sink, detect_formats};
use crate::store::Place;

fn table() -> TableRef {
    TableRef::new("canvas", "accounts")
}

/// Reads the files of a folder as a plain Parquet reader would.
fn read_folder(folder: &Path) -> Vec<RecordBatch> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(folder.join("_daplake.json")).unwrap()).unwrap();
    let mut batches = Vec::new();
    for path in parquet_files(folder) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
        for batch in reader {
            let batch = batch.unwrap();
            let logical = |name: &str| {
                let found =
                    manifest["renamed"].as_object().and_then(|renamed| renamed.iter().find(|(_, physical)| *physical == name));
                found.map_or(name.to_owned(), |(logical, _)| logical.clone())
            };
            let fields: Vec<Field> =
                batch.schema().fields().iter().map(|field| field.as_ref().clone().with_name(logical(field.name()))).collect();
            batches.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), batch.columns().to_vec()).unwrap());
        }
    }
    batches
}

fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "parquet")).collect()
}

struct Folders {
    sink: ParquetSink,
    fixture: Fixture,
    root: PathBuf,
    _folder: tempfile::TempDir,
}

impl Folders {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("ein Ordner/o'lake");
        let options = DeltaOptions::new(engine(&temporary.path().join("spill"), 64 << 20));
        let sink = ParquetSink::new(Place::local(&root).unwrap(), options).unwrap();
        let at = root.clone();
        let read = move |table: TableRef| -> futures::future::BoxFuture<'static, Vec<RecordBatch>> {
            let folder = at.join(table.namespace.as_str()).join(&table.table);
            Box::pin(async move { read_folder(&folder) })
        };
        let fixture = Fixture { sink: Box::new(sink.clone()), read: Box::new(read) };
        Self { sink, fixture, root, _folder: temporary }
    }

    fn folder(&self) -> PathBuf {
        self.root.join("canvas/accounts")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_for_plain_folders() {
    conformance::all(&Folders::new().fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_holds_one_version_and_the_views_name_its_files() {
    let folders = Folders::new();
    let schema = plain(&table());
    let row = |id: i64, name: &str| json!({"id": id, "name": name});
    load(&folders.fixture, &schema, LoadKind::Replace, &[Up(row(1, "a")), Up(row(2, "a"))], at(1)).await.unwrap();
    let first = parquet_files(&folders.folder());
    load(&folders.fixture, &schema, LoadKind::Merge, &[Up(row(2, "b")), Del(json!({"id": 1}))], at(2)).await.unwrap();
    let second = parquet_files(&folders.folder());
    assert!(first.iter().all(|file| !second.contains(file)), "readers no longer see the old version");
    let data = folders.root.join(".daplake/canvas/accounts");
    let name = first[0].file_name().unwrap();
    assert!(data.join(name).exists(), "its files stay for a while for readers that use them");

    let views = std::fs::read_to_string(folders.root.join("views.sql")).unwrap();
    assert!(views.contains("CREATE OR REPLACE VIEW \"canvas\".\"accounts\"") && views.contains("o''lake"), "{views}");
    for file in &second {
        assert!(views.contains(file.file_name().unwrap().to_str().unwrap()), "{views}");
    }
    assert!(!views.contains(name.to_str().unwrap()), "{views}");
    let mut entries: Vec<String> =
        std::fs::read_dir(&folders.root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    entries.sort();
    assert_eq!(entries, [".daplake", "canvas", "views.sql"]);
    // The swap leaves no other folders.
    let left = std::fs::read_dir(folders.root.join(".daplake/canvas")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| name == "accounts" || name == "accounts.lock"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_run_completes_a_missing_swap() {
    let folders = Folders::new();
    let schema = plain(&table());
    let old = [json!({"id": 1, "name": "a"})];
    load(&folders.fixture, &schema, LoadKind::Replace, &old.clone().map(Up), at(1)).await.unwrap();
    // Only the commit, as if the process had ended then.
    let delta =
        Fixture { sink: Box::new(folders.sink.tables().as_ref().clone()), read: Box::new(|_| Box::pin(async { Vec::new() })) };
    load(&delta, &schema, LoadKind::Merge, &[Up(json!({"id": 2, "name": "b"}))], at(2)).await.unwrap();
    assert_eq!(rendered(&read_folder(&folders.folder())), expected(&schema, &old), "the complete old version");
    assert_eq!(folders.sink.committed(&table()).await.unwrap().unwrap().bookmark, at(2));
    let new = [json!({"id": 1, "name": "a"}), json!({"id": 2, "name": "b"})];
    assert_eq!(read(&folders.fixture, &table()).await, expected(&schema, &new));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_others_stay() {
    let folders = Folders::new();
    std::fs::create_dir_all(folders.folder()).unwrap();
    std::fs::write(folders.folder().join("theirs.parquet"), "x").unwrap();
    let error = load(&folders.fixture, &plain(&table()), LoadKind::Replace, &[Up(json!({"id": 1, "name": "a"}))], at(1))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Target);
    assert_eq!(std::fs::read_to_string(folders.folder().join("theirs.parquet")).unwrap(), "x");
}

/// Names of the entries of a folder that are not daplake's.
fn foreign_entries(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut entries: Vec<String> = entries
        .filter(|name| !name.starts_with("daplake-") && !["_daplake.json", "empty.parquet"].contains(&name.as_str()))
        .collect();
    entries.sort();
    entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_users_stay_in_the_folder_of_a_table() {
    let folders = Folders::new();
    let (schema, folder) = (plain(&table()), folders.folder());
    let row = |id: i64| Up(json!({"id": id, "name": "a"}));
    load(&folders.fixture, &schema, LoadKind::Replace, &[row(1)], at(1)).await.unwrap();
    std::fs::write(folder.join("notes.txt"), "mine").unwrap();
    std::fs::write(folder.join("export.parquet"), "mine").unwrap();
    std::fs::create_dir(folder.join("archive")).unwrap();
    std::fs::write(folder.join("archive/daplake-old.txt"), "mine").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("notes.txt", folder.join("link")).unwrap();
    let mine: &[&str] = if cfg!(unix) {
        &["archive", "export.parquet", "link", "notes.txt"]
    } else {
        &["archive", "export.parquet", "notes.txt"]
    };
    let unchanged = || {
        assert_eq!(foreign_entries(&folder), mine);
        for name in ["notes.txt", "export.parquet", "archive/daplake-old.txt"] {
            assert_eq!(std::fs::read_to_string(folder.join(name)).unwrap(), "mine");
        }
    };
    // Increment, snapshot, compaction, removal of all rows.
    let loaded = load(&folders.fixture, &schema, LoadKind::Merge, &[row(2)], at(2)).await.unwrap();
    unchanged();
    assert!(loaded.warnings.iter().any(|warning| warning.contains("export.parquet")), "{:?}", loaded.warnings);
    load(&folders.fixture, &schema, LoadKind::Replace, &[row(3)], at(3)).await.unwrap();
    unchanged();
    load(&folders.fixture, &schema, LoadKind::Merge, &[row(4)], at(4)).await.unwrap();
    folders.sink.optimize(&table(), Scope::Compact).await.unwrap();
    unchanged();
    load(&folders.fixture, &schema, LoadKind::Replace, &[], at(5)).await.unwrap();
    unchanged();
    load(&folders.fixture, &schema, LoadKind::Replace, &[row(5)], at(6)).await.unwrap();
    unchanged();
    let left = std::fs::read_dir(folders.root.join(".daplake/canvas")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| name == "accounts" || name == "accounts.lock"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swap_that_was_interrupted_keeps_files_of_users() {
    let schema = plain(&table());
    let row = |id: i64| Up(json!({"id": id, "name": "a"}));
    // After the exchange; and, where two renames are needed, between them.
    for (left, is_shown) in [("accounts.next", true), ("accounts.old", false), ("accounts.old", true)] {
        let folders = Folders::new();
        let (folder, hidden) = (folders.folder(), folders.root.join(".daplake/canvas"));
        load(&folders.fixture, &schema, LoadKind::Replace, &[row(1)], at(1)).await.unwrap();
        std::fs::write(folder.join("notes.txt"), "mine").unwrap();
        let copy = hidden.join(left);
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        if is_shown {
            std::fs::remove_file(folder.join("notes.txt")).unwrap();
        } else {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        folders.sink.committed(&table()).await.unwrap();
        assert_eq!(foreign_entries(&folder), ["notes.txt"], "{left}");
        load(&folders.fixture, &schema, LoadKind::Merge, &[row(2)], at(2)).await.unwrap();
        assert_eq!(foreign_entries(&folder), ["notes.txt"], "{left}");
        assert_eq!(parquet_files(&folder).len(), 2);
        assert!(!copy.exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_views_file_of_a_user_stays() {
    let folders = Folders::new();
    std::fs::create_dir_all(&folders.root).unwrap();
    std::fs::write(folders.root.join("views.sql"), "SELECT 1;").unwrap();
    load(&folders.fixture, &plain(&table()), LoadKind::Replace, &[Up(json!({"id": 1, "name": "a"}))], at(1)).await.unwrap();
    assert_eq!(std::fs::read_to_string(folders.root.join("views.sql")).unwrap(), "SELECT 1;");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_manifest_is_named_and_its_hint_works() {
    let folders = Folders::new();
    let schema = plain(&table());
    let row = |id: i64| Up(json!({"id": id, "name": "a"}));
    load(&folders.fixture, &schema, LoadKind::Replace, &[row(1)], at(1)).await.unwrap();
    let folder = folders.folder();
    std::fs::write(folder.join("_daplake.json"), "{\"table\": \"canv").unwrap();
    let error = folders.sink.committed(&table()).await.unwrap_err();
    assert!(error.message().contains("is damaged"), "{error}");
    assert!(error.get("file").is_some_and(|file| file.ends_with("_daplake.json")), "{error}");
    let aside = folder.with_file_name("accounts.old");
    assert!(error.hint_text().unwrap().contains(&aside.display().to_string()), "{error:?}");
    std::fs::rename(&folder, &aside).unwrap();
    assert_eq!(folders.sink.committed(&table()).await.unwrap().unwrap().bookmark, at(1));
    load(&folders.fixture, &schema, LoadKind::Merge, &[row(2)], at(2)).await.unwrap();
    assert_eq!(read(&folders.fixture, &table()).await.len(), 2);
}

/// Reads the files that the view of a table in an object store names, with the column names of the view.
#[cfg(feature = "demo")]
fn read_view(bucket: &Path, table: &TableRef) -> Vec<RecordBatch> {
    let Ok(text) = std::fs::read_to_string(bucket.join(format!("lake/views/{table}.sql"))) else { return Vec::new() };
    let Some((columns, source)) = text.split_once("\n  FROM read_parquet(") else { return Vec::new() };
    let columns = columns.split_once("SELECT ").unwrap().1;
    // `"x"` or `"physical" AS "x"`; quotes in names are doubled.
    let mut names = Vec::new();
    let mut rest = columns;
    while let Some(start) = rest.find('"') {
        rest = &rest[start + 1..];
        let mut name = String::new();
        loop {
            let end = rest.find('"').unwrap();
            name.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(more) => {
                    name.push('"');
                    rest = more;
                }
                None => break,
            }
        }
        names.push((name, rest.starts_with(" AS ")));
    }
    let mut logical = std::collections::BTreeMap::new();
    let mut names = names.into_iter();
    while let Some((name, is_physical)) = names.next() {
        let shown = if is_physical { names.next().unwrap().0 } else { name.clone() };
        logical.insert(name, shown);
    }
    let mut batches = Vec::new();
    for path in source.split('\'').filter(|part| part.ends_with(".parquet")) {
        let file = File::open(bucket.join(path.strip_prefix("s3://lake-bucket/").unwrap())).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let named = |field: &Arc<Field>| field.as_ref().clone().with_name(&logical[field.name()]);
            let fields: Vec<Field> = batch.schema().fields().iter().map(named).collect();
            batches.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), batch.columns().to_vec()).unwrap());
        }
    }
    batches
}

/// Parquet folders on their own S3 server.
#[cfg(feature = "demo")]
struct RemoteFolders {
    server: crate::store::server::S3Server,
    sink: ParquetSink,
    fixture: Fixture,
    _folder: tempfile::TempDir,
}

#[cfg(feature = "demo")]
impl RemoteFolders {
    async fn new() -> Self {
        let server = crate::store::server::S3Server::start().await;
        let temporary = tempfile::tempdir().unwrap();
        let url = url::Url::parse(&server.url("lake")).unwrap();
        let store = crate::store::StoreOptions::default().with_variables(server.variables());
        let options = DeltaOptions { compact_after: 0, ..DeltaOptions::new(engine(temporary.path(), 64 << 20)) };
        let sink = ParquetSink::new(Place::open(&url, &store).unwrap(), options).unwrap();
        let bucket = server.bucket();
        let read = move |table: TableRef| -> futures::future::BoxFuture<'static, Vec<RecordBatch>> {
            let bucket = bucket.clone();
            Box::pin(async move { read_view(&bucket, &table) })
        };
        let fixture = Fixture { sink: Box::new(sink.clone()), read: Box::new(read) };
        Self { server, sink, fixture, _folder: temporary }
    }
}

#[cfg(feature = "demo")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_for_plain_folders_in_an_object_store() {
    let remote = RemoteFolders::new().await;
    conformance::all(&remote.fixture).await;
    assert_eq!(remote.server.left_parts(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_readers_see_the_files_of_an_optimize() {
    let folders = Folders::new();
    let schema = plain(&table());
    let row = |id: i64| json!({"id": id, "name": "a"});
    for id in 1..6 {
        load(&folders.fixture, &schema, LoadKind::Merge, &[Up(row(id))], at(id)).await.unwrap();
    }
    let before = read(&folders.fixture, &table()).await;
    assert_eq!(before.len(), 5);
    let done = folders.sink.optimize(&table(), Scope::SortByKey).await.unwrap();
    assert_eq!((done.files_added, parquet_files(&folders.folder()).len()), (1, 1));
    assert_eq!(read(&folders.fixture, &table()).await, before);
}

#[cfg(feature = "demo")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_in_an_object_store_name_the_files_of_a_version_and_are_combined() {
    let remote = RemoteFolders::new().await;
    let schema = plain(&table());
    let row = |id: i64| json!({"id": id, "name": "a"});
    let named = |text: &str, state: &crate::sink::delta::log::table_state::TableState| {
        assert_eq!(text.matches(".parquet").count(), state.files.len());
        let name = |file: &str| format!("s3://lake-bucket/lake/canvas/accounts/{file}");
        assert!(state.files.iter().all(|file| text.contains(&name(file.path.as_ref()))), "{text}");
    };
    let view = || std::fs::read_to_string(remote.server.bucket().join("lake/views/canvas.accounts.sql")).unwrap();
    let state = || async { remote.sink.tables().log(&table()).unwrap().state().await.unwrap().unwrap() };
    for id in 1..4 {
        load(&remote.fixture, &schema, LoadKind::Merge, &[Up(row(id))], at(id)).await.unwrap();
        named(&view(), &state().await);
    }
    remote.sink.optimize(&table(), Scope::SortByKey).await.unwrap();
    named(&view(), &state().await);
    assert_eq!(read(&remote.fixture, &table()).await, expected(&schema, &[row(1), row(2), row(3)]));
    let data = remote.server.objects("lake/canvas/accounts").keys().filter(|name| name.ends_with(".parquet")).count();
    assert!(data > state().await.files.len(), "replaced files stay for a while");

    let other = TableRef::new("canvas", "users");
    load(&remote.fixture, &plain(&other), LoadKind::Merge, &[Up(row(1))], at(1)).await.unwrap();
    remote.sink.write_views().await.unwrap();
    let views = std::fs::read_to_string(remote.server.bucket().join("lake/views.sql")).unwrap();
    for view in ["accounts", "users"] {
        assert!(views.contains(&format!("CREATE OR REPLACE VIEW \"canvas\".\"{view}\" AS")), "{views}");
    }
}

fn event(id: i64, day: u32, url: &str) -> Value {
    json!({"id": format!("{id}"), "timestamp": format!("2026-03-{day:02}T10:00:00Z"), "url": url})
}

/// Three loads of a log with two days. Returns the resulting rows.
async fn load_days(fixture: &Fixture) -> Vec<Value> {
    let logs = events();
    load(fixture, &logs, LoadKind::Replace, &[event(1, 1, "a"), event(2, 1, "a"), event(3, 2, "a")].map(Up), at(1))
        .await
        .unwrap();
    // One row moves to another day.
    let changes = [Up(event(1, 2, "b")), Up(event(4, 2, "b"))];
    load(fixture, &logs, LoadKind::Merge, &changes, at(2)).await.unwrap();
    load(fixture, &logs, LoadKind::Merge, &[Del(json!({"id": "3"})), Up(event(2, 1, "c"))], at(3)).await.unwrap();
    vec![event(1, 2, "b"), event(2, 1, "c"), event(4, 2, "b")]
}

/// Makes the tombstones of a log older by `millis`.
fn age_tombstones(log: &Path, millis: i64) {
    for entry in std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read_to_string(&entry).unwrap();
        let aged = text.lines().map(|line| {
            let mut action: Value = serde_json::from_str(line).unwrap();
            if let Some(at) = action.pointer_mut("/remove/deletionTimestamp") {
                *at = json!(at.as_i64().unwrap() - millis);
            }
            format!("{action}\n")
        });
        std::fs::write(&entry, aged.collect::<String>()).unwrap();
    }
}

const HOUR_MILLIS: i64 = 3_600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_has_the_files_of_all_days_and_replaced_files_are_removed_later() {
    let folders = Folders::new();
    let mut rows = load_days(&folders.fixture).await;
    assert_eq!(read(&folders.fixture, &events().table).await, expected(&events(), &rows));
    let data = folders.root.join(".daplake/canvas_logs/web_logs");
    let replaced = || {
        let log = folders.sink.tables().log(&events().table).unwrap();
        let data = data.clone();
        async move {
            let state = log.state().await.unwrap().unwrap();
            let known: Vec<PathBuf> = state.files.iter().map(|file| data.join(file.path.to_string())).collect();
            let days = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
            let days = days.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("_day="));
            let files: Vec<PathBuf> = days.flat_map(|day| parquet_files(&day)).collect();
            assert!(known.iter().all(|file| files.contains(file)), "the version is complete");
            files.len() - known.len()
        }
    };
    let young = replaced().await;
    assert!(young >= 3, "{young}");
    age_tombstones(&data.join("_delta_log"), HOUR_MILLIS - 600_000);
    let next = |id: i64| [Up(event(id, 5, "d"))];
    load(&folders.fixture, &events(), LoadKind::Merge, &next(5), at(4)).await.unwrap();
    assert_eq!(replaced().await, young, "readers may still use them");
    age_tombstones(&data.join("_delta_log"), 660_000);
    load(&folders.fixture, &events(), LoadKind::Merge, &next(6), at(5)).await.unwrap();
    assert_eq!(replaced().await, 0);
    rows.extend([event(5, 5, "d"), event(6, 5, "d")]);
    assert_eq!(read(&folders.fixture, &events().table).await, expected(&events(), &rows));
}

#[cfg(feature = "demo")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_has_the_files_of_all_days_and_replaced_files_are_removed_later() {
    let remote = RemoteFolders::new().await;
    let mut rows = load_days(&remote.fixture).await;
    let root = "lake/canvas_logs/web_logs";
    let files = || remote.server.objects(root).keys().filter(|name| name.ends_with(".parquet")).count();
    let state = || async { remote.sink.tables().log(&events().table).unwrap().state().await.unwrap().unwrap() };
    assert_eq!(read(&remote.fixture, &events().table).await, expected(&events(), &rows));
    assert!(files() >= state().await.files.len() + 3);
    age_tombstones(&remote.server.bucket().join(root).join("_delta_log"), HOUR_MILLIS + 60_000);
    let removals = || remote.server.seen().iter().filter(|seen| seen.is_removal()).count();
    let before = removals();
    load(&remote.fixture, &events(), LoadKind::Merge, &[Up(event(5, 5, "d"))], at(4)).await.unwrap();
    assert_eq!(files(), state().await.files.len());
    assert_eq!(removals() - before, 1, "one request for all of them");
    // Removed files are not removed again.
    load(&remote.fixture, &events(), LoadKind::Merge, &[Up(event(6, 5, "d"))], at(5)).await.unwrap();
    assert_eq!(removals() - before, 1);
    rows.extend([event(5, 5, "d"), event(6, 5, "d")]);
    assert_eq!(read(&remote.fixture, &events().table).await, expected(&events(), &rows));
}

fn row(id: i64) -> Value {
    json!({"id": id, "name": "a"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn formats_are_detected_and_never_mixed() {
    let none = LakeFormats::default();
    let folders = Folders::new();
    let place = Place::local(&folders.root).unwrap();
    assert_eq!(detect_formats(&place).await.unwrap(), none);
    let schema = plain(&table());
    load(&folders.fixture, &schema, LoadKind::Replace, &[Up(row(1))], at(1)).await.unwrap();
    assert_eq!(detect_formats(&place).await.unwrap(), LakeFormats { parquet: true, ..none });
    // A Delta table cannot replace a Parquet folder, nor the other way round.
    let options = DeltaOptions { is_parquet_folder: false, ..folders.sink.tables().options.clone() };
    let delta = DeltaSink::new(place.clone(), options);
    let error = delta.committed(&table()).await.unwrap_err();
    assert!(error.kind() == Kind::Target && error.hint_text().unwrap().contains("--format parquet"), "{error:?}");
    let other = TableRef::new("canvas", "users");
    let fixture = Fixture { sink: Box::new(delta.clone()), read: Box::new(|_| Box::pin(async { Vec::new() })) };
    load(&fixture, &plain(&other), LoadKind::Replace, &[Up(row(1))], at(1)).await.unwrap();
    assert_eq!(detect_formats(&place).await.unwrap(), LakeFormats { parquet: true, delta: true });
    let error = folders.sink.committed(&other).await.unwrap_err();
    assert!(error.kind() == Kind::Target && error.hint_text().unwrap().contains("--format delta"), "{error:?}");
    assert!(folders.root.join("canvas/users/_delta_log").exists());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_a_link_is_not_replaced() {
    let folders = Folders::new();
    let schema = plain(&table());
    load(&folders.fixture, &schema, LoadKind::Replace, &[Up(row(1))], at(1)).await.unwrap();
    let (shown, elsewhere) = (folders.root.join("canvas/accounts"), folders.root.join("elsewhere"));
    std::fs::rename(&shown, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &shown).unwrap();
    let error = folders.sink.committed(&table()).await.unwrap_err();
    assert!(error.kind() == Kind::Target && error.message().contains("is a link"), "{error:?}");
    assert!(std::fs::symlink_metadata(&shown).unwrap().is_symlink());
    // Follows the hint.
    std::fs::remove_file(&shown).unwrap();
    std::fs::rename(&elsewhere, &shown).unwrap();
    load(&folders.fixture, &schema, LoadKind::Merge, &[Up(row(2))], at(2)).await.unwrap();
    assert_eq!(read(&folders.fixture, &table()).await, expected(&schema, &[row(1), row(2)]));
}
