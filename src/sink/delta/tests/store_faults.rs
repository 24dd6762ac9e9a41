//! Store faults during a commit: the table is completely at one bookmark or the other.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use deltalake::ObjectStore;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};
use serde_json::json;
use tokio::sync::Notify;

use super::TestLake;
use crate::error::Kind;
use crate::model::TableRef;
use crate::sink::conformance::{Change::Up, at, changes, expected, load, plain, plan, read, reduced};
use crate::sink::{LoadKind, Sink};

#[derive(Debug, Clone)]
pub(super) enum Fault {
    None,
    /// The log entry is written, but the response is an error.
    LostAnswer,
    /// The log entry is written, and a retry within the store finds that it exists.
    LostAnswerRetried,
    /// Nothing is written.
    Refused,
    /// The log entry is written after a notification, even if the commit was dropped.
    Late(Arc<Notify>, Arc<Notify>),
    /// All data files after the first fail.
    Full(Arc<AtomicUsize>),
    /// After this number of writes to the folder `metadata`, all others fail, as if the run had been killed then.
    Killed(Arc<AtomicI64>),
}

#[derive(Debug)]
pub(super) struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    fault: Mutex<Fault>,
}

impl std::fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Faulty{}", self.inner)
    }
}

impl FaultyStore {
    /// Puts the store between a lake and its files.
    pub(super) fn before(lake: &mut TestLake, fault: Fault) -> Arc<Self> {
        let store = Arc::new(Self { inner: lake.sink.place.store(), fault: Mutex::new(fault) });
        lake.sink.place.set_store(Arc::clone(&store) as Arc<dyn ObjectStore>);
        lake.fixture.sink = Box::new(lake.sink.clone());
        store
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    fn get(&self) -> Fault {
        self.fault.lock().unwrap().clone()
    }
}

fn broken(kind: std::io::ErrorKind) -> Error {
    Error::Generic { store: "FaultyStore", source: Box::new(std::io::Error::from(kind)) }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let fault = match self.get() {
            Fault::Killed(left) if location.parts().any(|part| part.as_ref() == "metadata") => Fault::Killed(left),
            Fault::Killed(_) => Fault::None,
            fault if location.as_ref().ends_with(".json") => fault,
            _ => Fault::None,
        };
        match fault {
            Fault::Killed(left) if left.fetch_sub(1, Ordering::Relaxed) <= 0 => {
                Err(broken(std::io::ErrorKind::ConnectionAborted))
            }
            Fault::None | Fault::Full(_) | Fault::Killed(_) => self.inner.put_opts(location, payload, opts).await,
            Fault::Refused => Err(broken(std::io::ErrorKind::ConnectionReset)),
            Fault::LostAnswer => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(broken(std::io::ErrorKind::ConnectionReset))
            }
            Fault::LostAnswerRetried => {
                self.inner.put_opts(location, payload.clone(), opts.clone()).await?;
                self.inner.put_opts(location, payload, opts).await
            }
            Fault::Late(reached, written) => {
                let (inner, location) = (Arc::clone(&self.inner), location.clone());
                tokio::spawn(async move {
                    inner.put_opts(&location, payload, opts).await.unwrap();
                    written.notify_one();
                });
                reached.notify_one();
                std::future::pending().await
            }
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        if let Fault::Full(files) = self.get()
            && files.fetch_add(1, Ordering::Relaxed) > 0
        {
            return Err(broken(std::io::ErrorKind::StorageFull));
        }
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn table() -> TableRef {
    TableRef::new("canvas", "accounts")
}

/// A table with one row at bookmark 1, and its store.
async fn faulty() -> (TestLake, Arc<FaultyStore>) {
    let mut lake = TestLake::with(64 << 20, |options| super::DeltaOptions { target_file_bytes: 1, ..options });
    let store = FaultyStore::before(&mut lake, Fault::None);
    load(&lake.fixture, &plain(&table()), LoadKind::Replace, &[Up(json!({"id": 1, "name": "a"}))], at(1)).await.unwrap();
    (lake, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_with_a_lost_response_is_recognised() {
    for fault in [Fault::LostAnswer, Fault::LostAnswerRetried] {
        let (lake, store) = faulty().await;
        let schema = plain(&table());
        store.set(fault);
        let row = json!({"id": 1, "name": "b"});
        let loaded = load(&lake.fixture, &schema, LoadKind::Merge, &[Up(row.clone())], at(2)).await.unwrap();
        assert_eq!(loaded.upserted, 1);
        assert_eq!(lake.sink.committed(&table()).await.unwrap().unwrap().bookmark, at(2));
        assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &[row]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_commit_leaves_the_table_unchanged() {
    let (lake, store) = faulty().await;
    let schema = plain(&table());
    store.set(Fault::Refused);
    let error = load(&lake.fixture, &schema, LoadKind::Merge, &[Up(json!({"id": 1, "name": "b"}))], at(2)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Target);
    store.set(Fault::None);
    assert_eq!(lake.sink.committed(&table()).await.unwrap().unwrap().bookmark, at(1));
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &[json!({"id": 1, "name": "a"})]));
    let row = json!({"id": 1, "name": "c"});
    load(&lake.fixture, &schema, LoadKind::Merge, &[Up(row.clone())], at(2)).await.unwrap();
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &[row]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_dropped_in_flight_keeps_its_files() {
    let (lake, store) = faulty().await;
    let schema = plain(&table());
    let (reached, written) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let row = json!({"id": 7, "name": "late"});
    let mut opened = lake.sink.begin(plan(&lake.fixture, &schema, LoadKind::Merge).await).await.unwrap();
    opened.write(reduced(&schema, vec![changes(&schema, &[Up(row.clone())])])).await.unwrap();
    store.set(Fault::Late(Arc::clone(&reached), Arc::clone(&written)));
    tokio::select! {
        result = opened.commit(at(2)) => panic!("it cannot end: {result:?}"),
        () = reached.notified() => {}
    }
    written.notified().await;
    store.set(Fault::None);
    assert_eq!(lake.sink.committed(&table()).await.unwrap().unwrap().bookmark, at(2));
    assert_eq!(read(&lake.fixture, &table()).await, expected(&schema, &[json!({"id": 1, "name": "a"}), row]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_reported_and_leaves_no_files() {
    let (lake, store) = faulty().await;
    let schema = plain(&table());
    let before = lake.data_files(&table());
    for kind in [LoadKind::Replace, LoadKind::Merge] {
        store.set(Fault::Full(Arc::default()));
        let mut opened = lake.sink.begin(plan(&lake.fixture, &schema, kind).await).await.unwrap();
        let batches = (2..6).map(|id| changes(&schema, &[Up(json!({"id": id, "name": "b"}))])).collect();
        let error = opened.write(reduced(&schema, batches)).await.unwrap_err().into_error();
        assert_eq!((error.kind(), error.get("table")), (Kind::Resources, Some("canvas.accounts")));
        assert!(error.hint_text().is_some());
        drop(opened);
        assert_eq!(lake.data_files(&table()), before);
    }
}
