//! Delta tables in an object store: the contract of sinks, faults during loads, and the files that they leave.

use std::sync::Arc;

use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use deltalake::logstore::{StorageConfig, default_logstore};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use serde_json::json;
use url::Url;

use super::engine;
use super::table_modes::events;
use crate::error::Kind;
use crate::model::TableRef;
use crate::schema::ColumnType;
use crate::sink::conformance::Change::{Del, Up};
use crate::sink::conformance::{self, Fixture, at, changes, column, expected, load, plain, plan, read, reduced};
use crate::sink::delta::{ChangeDataFeed, DeletionVectors, DeltaOptions, DeltaSink, MIN_RETENTION};
use crate::sink::{LoadKind, Sink};
use crate::store::StoreOptions;
use crate::store::server::{ACCESS_KEY, BUCKET, Fault, S3Server, SECRET_KEY, Seen};

const PREFIX: &str = "some/lake";

fn table() -> TableRef {
    TableRef::new("canvas", "accounts")
}

fn options(server: &S3Server) -> StoreOptions {
    let options = StoreOptions::default().with_variables(server.variables());
    options.with_option("max_retries=3").unwrap().with_option("retry_timeout=20").unwrap()
}

fn sink(server: &S3Server, folder: &tempfile::TempDir, change: impl FnOnce(DeltaOptions) -> DeltaOptions) -> DeltaSink {
    let url = Url::parse(&server.url(PREFIX)).unwrap();
    DeltaSink::open(&url, &options(server), change(DeltaOptions::new(engine(folder.path(), 64 << 20)))).unwrap()
}

/// A store of the Delta crate.
fn store(server: &S3Server) -> Arc<dyn object_store::ObjectStore> {
    let builder = AmazonS3Builder::new()
        .with_bucket_name(BUCKET)
        .with_endpoint(&server.endpoint)
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .with_allow_http(true);
    Arc::new(builder.build().unwrap())
}

/// The table, opened by the Delta crate.
async fn opened(store: Arc<dyn object_store::ObjectStore>, url: &Url) -> DeltaTable {
    let files = Arc::new(PrefixStore::new(Arc::clone(&store), Path::from_url_path(url.path()).unwrap()));
    let mut table = DeltaTable::new(default_logstore(files, store, url, &StorageConfig::default()));
    table.load().await.unwrap();
    table
}

/// Reads tables with the Delta crate.
fn fixture(server: &S3Server, sink: DeltaSink) -> Fixture {
    let store = store(server);
    let root = sink.location().reveal().clone();
    let read = move |table: TableRef| -> futures::future::BoxFuture<'static, Vec<arrow::array::RecordBatch>> {
        let (store, url) = (Arc::clone(&store), super::url_of(&root, &table));
        Box::pin(async move {
            let table = opened(Arc::clone(&store), &url).await;
            let session = SessionContext::new();
            session.register_object_store(&url, store);
            session.read_table(table.table_provider().await.unwrap()).unwrap().collect().await.unwrap()
        })
    };
    Fixture { sink: Box::new(sink), read: Box::new(read) }
}

/// A sink on its own S3 server.
pub(super) struct Remote {
    pub(super) server: S3Server,
    pub(super) sink: DeltaSink,
    pub(super) fixture: Fixture,
    _folder: tempfile::TempDir,
}

impl Remote {
    async fn new() -> Self {
        Self::with(|options| options).await
    }

    pub(super) async fn with(change: impl FnOnce(DeltaOptions) -> DeltaOptions) -> Self {
        let server = S3Server::start().await;
        let folder = tempfile::tempdir().unwrap();
        let sink = sink(&server, &folder, change);
        let fixture = fixture(&server, sink.clone());
        Self { server, sink, fixture, _folder: folder }
    }

    /// The table, opened by the Delta crate.
    pub(super) async fn opened(&self, table: &TableRef) -> DeltaTable {
        opened(store(&self.server), &super::url_of(self.sink.location().reveal(), table)).await
    }

    /// Data files of the table, committed or not.
    pub(super) fn data_files(&self) -> usize {
        self.server.objects(&format!("{PREFIX}/canvas/accounts")).keys().filter(|name| !name.contains("_delta_log")).count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_in_an_object_store() {
    let remote = Remote::new().await;
    conformance::all(&remote.fixture).await;
    assert_eq!(remote.server.left_parts(), 0);
    // No object was renamed, and every commit is a conditional put.
    let seen = remote.server.seen();
    let entries =
        |seen: &&Seen| seen.method == hyper::Method::PUT && seen.target.contains("_delta_log") && seen.target.contains(".json");
    assert!(seen.iter().filter(entries).count() > 20);
    assert!(
        seen.iter().filter(entries).filter(|seen| !seen.target.contains("_last_checkpoint")).all(|seen| seen.is_conditional)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_during_a_load_leave_the_table_unchanged() {
    let remote = Remote::new().await;
    let schema = plain(&table());
    let first = json!({"id": 1, "name": "a"});
    load(&remote.fixture, &schema, LoadKind::Replace, &[Up(first.clone())], at(1)).await.unwrap();
    let write = |seen: &Seen| seen.method == hyper::Method::PUT;
    for (fault, kind, word) in [(Fault::SlowDown, Kind::Unavailable, "overloaded"), (Fault::Expired, Kind::Target, "expired")] {
        remote.server.fault(fault, write, 0, usize::MAX);
        let error =
            load(&remote.fixture, &schema, LoadKind::Merge, &[Up(json!({"id": 2, "name": "b"}))], at(2)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.hint_text().unwrap().contains(word) && !format!("{error:?}").contains("planted"), "{error:?}");
        remote.server.clear_faults();
        assert_eq!(remote.sink.committed(&table()).await.unwrap().unwrap().bookmark, at(1));
        assert_eq!(read(&remote.fixture, &table()).await, expected(&schema, std::slice::from_ref(&first)));
        // A read fails with the same kind.
        remote.server.fault(fault, |seen| seen.method == hyper::Method::GET, 0, usize::MAX);
        assert_eq!(remote.sink.committed(&table()).await.unwrap_err().kind(), kind);
        remote.server.clear_faults();
    }
    // Temporary faults, lost responses of commits and interrupted downloads are retried.
    for (second, fault) in (3..).zip([Fault::SlowDown, Fault::LostAnswer, Fault::CutDownload]) {
        remote.server.fault(fault, |seen| seen.is_download() || seen.is_conditional, 1, 2);
        load(&remote.fixture, &schema, LoadKind::Merge, &[Up(json!({"id": second, "name": "c"}))], at(second)).await.unwrap();
        remote.server.clear_faults();
    }
    let rows = [first, json!({"id": 3, "name": "c"}), json!({"id": 4, "name": "c"}), json!({"id": 5, "name": "c"})];
    assert_eq!(read(&remote.fixture, &table()).await, expected(&schema, &rows));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_response_of_any_commit_is_recovered() {
    let remote = Remote::new().await;
    let schema = plain(&table());
    let mut rows = Vec::new();
    for second in 1..4_i64 {
        remote.server.fault(Fault::LostAnswer, |seen| seen.is_conditional && seen.target.contains("_delta_log"), 0, 1);
        let row = json!({"id": second, "name": "a"});
        let kind = if second == 1 { LoadKind::Replace } else { LoadKind::Merge };
        let loaded = load(&remote.fixture, &schema, kind, &[Up(row.clone())], at(second)).await.unwrap();
        assert_eq!(loaded.upserted, 1);
        assert!(remote.server.faults_are_used_up());
        rows.push(row);
    }
    assert_eq!(read(&remote.fixture, &table()).await, expected(&schema, &rows));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abandoned_loads_leave_no_files() {
    let remote = Remote::new().await;
    let schema = plain(&table());
    load(&remote.fixture, &schema, LoadKind::Replace, &[Up(json!({"id": 1, "name": "a"}))], at(1)).await.unwrap();
    let row = || reduced(&schema, vec![changes(&schema, &[Up(json!({"id": 2, "name": "b"}))])]);
    let mut opened = remote.sink.begin(plan(&remote.fixture, &schema, LoadKind::Merge).await).await.unwrap();
    opened.write(row()).await.unwrap();
    assert_eq!(remote.data_files(), 2);
    opened.abort().await.unwrap();
    assert_eq!(remote.data_files(), 1);
    let mut opened = remote.sink.begin(plan(&remote.fixture, &schema, LoadKind::Merge).await).await.unwrap();
    opened.write(row()).await.unwrap();
    drop(opened);
    while remote.data_files() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(remote.sink.committed(&table()).await.unwrap().unwrap().bookmark, at(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_in_an_object_store_can_be_queried() {
    let remote = Remote::new().await;
    let schema = plain(&table());
    load(&remote.fixture, &schema, LoadKind::Replace, &[Up(json!({"id": 1, "name": "a"}))], at(1)).await.unwrap();
    let session = SessionContext::new();
    assert_eq!(remote.sink.register(&session, None).await.unwrap(), [table()]);
    let rows = session.sql("SELECT name FROM canvas.accounts").await.unwrap().collect().await.unwrap();
    assert_eq!(rows.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_removes_old_files_of_partitions_feeds_and_killed_runs() {
    let change = |options| DeltaOptions {
        deletion_vectors: DeletionVectors::Off,
        change_data_feed: ChangeDataFeed::On,
        compact_after: 0,
        ..options
    };
    let remote = Remote::with(change).await;
    let logs = events();
    let event =
        |id: &str, day: u32, url: &str| json!({"id": id, "timestamp": format!("2026-03-{day:02}T10:00:00Z"), "url": url});
    let first = [event("a", 1, "x"), event("b", 1, "x"), event("c", 2, "x")];
    load(&remote.fixture, &logs, LoadKind::Replace, &first.map(Up), at(1)).await.unwrap();
    let changes = [Up(event("a", 1, "y")), Del(json!({"id": "c"}))];
    load(&remote.fixture, &logs, LoadKind::Merge, &changes, at(2)).await.unwrap();

    let folder = remote.server.bucket().join(PREFIX).join("canvas_logs/web_logs");
    let leftover = "_day=2026-03-01/daplake-1f2f9a9c-2f1b-4a52-8a2e-0a8f6f6c0b11.zstd.parquet";
    std::fs::write(folder.join(leftover), "half a file").unwrap();
    let age = |name: &str| {
        let file = std::fs::File::options().write(true).open(folder.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - MIN_RETENTION - std::time::Duration::from_secs(3600)).unwrap();
    };
    let names = || -> Vec<String> {
        let root = format!("{PREFIX}/canvas_logs/web_logs/");
        let objects = remote.server.objects(&root).into_keys();
        objects.map(|name| name.strip_prefix(&root).unwrap().to_owned()).filter(|name| !name.contains("_delta_log")).collect()
    };
    let vacuum = async || remote.sink.vacuum(&logs.table, MIN_RETENTION).await.unwrap().files;
    assert_eq!(vacuum().await, [""; 0], "all files are too new");
    names().iter().for_each(|name| age(name));
    let kept = names();
    assert_eq!(vacuum().await, [leftover], "recent commits need the others");
    for version in 0..=1_u64 {
        age(&format!("_delta_log/{version:020}.json"));
    }
    let removed = vacuum().await;
    // The first file and the feed file of both days.
    let of = |folder: &str| removed.iter().filter(|name| name.starts_with(folder)).count();
    let found = (of("_day=2026-03-01/"), of("_day=2026-03-02/"), of("_change_data/_day="), removed.len());
    assert_eq!(found, (1, 1, 2, 4), "{removed:?}");
    assert_eq!(names().len() + removed.len() + 1, kept.len());
    let mut columns = logs.clone();
    columns.value.push(column("_day", ColumnType::Date, false));
    let mut rows = [event("a", 1, "y"), event("b", 1, "x")];
    rows.iter_mut().for_each(|row| row["_day"] = json!("2026-03-01"));
    assert_eq!(read(&remote.fixture, &logs.table).await, expected(&columns, &rows));
}
