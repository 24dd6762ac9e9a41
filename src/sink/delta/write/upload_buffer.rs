//! Bytes of new files on their way to the store: what is not enough for a part yet waits, what is goes. It knows nothing of Parquet.
//!
//! A part of an object store has megabytes, and a table by day has a file open for each day. So what waits has a share of the
//! memory; beyond it, it waits on the disk for temporary files. Parts in flight are counted over all files of a load.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use deltalake::ObjectStore;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use crate::engine::{Engine, engine_error};
use crate::error::{Error, Kind, Result, ResultExt};

/// Bytes of a part on a local disk.
const LOCAL_PART_BYTES: usize = 512 << 10;
/// Bytes of a part in an object store, where all but the last have to have as many.
const PART_BYTES: usize = 5 << 20;
/// Parts in flight, whatever the memory limit: with fewer, a store's delays are waited for.
const LEAST_IN_FLIGHT: usize = 2;
/// More make no store faster.
const MOST_IN_FLIGHT: usize = 16;

/// Where the files of a load go; shared by all of them.
#[derive(Debug)]
pub(in crate::sink::delta) struct Outbox {
    store: Arc<dyn ObjectStore>,
    engine: Engine,
    is_local: bool,
    /// Bytes that may wait in memory.
    most_waiting: usize,
    held: MemoryReservation,
    in_flight: Arc<Semaphore>,
}

impl Outbox {
    /// For files under the root of this store, which may be a folder on a local disk.
    pub(in crate::sink::delta) fn new(store: Arc<dyn ObjectStore>, is_local: bool, engine: &Engine) -> Arc<Self> {
        let parts = (engine.memory_limit() / 12 / PART_BYTES).clamp(LEAST_IN_FLIGHT, MOST_IN_FLIGHT);
        Arc::new(Self {
            store,
            engine: engine.clone(),
            is_local,
            most_waiting: engine.memory_limit() / 8,
            held: MemoryConsumer::new("Uploads").register(engine.memory_pool()),
            in_flight: Arc::new(Semaphore::new(parts)),
        })
    }

    /// Where they go.
    pub(in crate::sink::delta) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Begins a file.
    pub(in crate::sink::delta) async fn open(self: &Arc<Self>, name: &str) -> Result<Outgoing> {
        let upload = self.store.put_multipart(&Path::from(name)).await.map_err(write_failed)?;
        Ok(Outgoing {
            outbox: Arc::clone(self),
            upload,
            on_disk: None,
            in_memory: Vec::new(),
            held: Held { outbox: Arc::clone(self), bytes: 0 },
            has_parts: false,
            parts: JoinSet::new(),
        })
    }

    fn part_bytes(&self) -> usize {
        if self.is_local { LOCAL_PART_BYTES } else { PART_BYTES }
    }
}

/// Memory that is accounted as long as this lives.
#[derive(Debug)]
struct Held {
    outbox: Arc<Outbox>,
    bytes: usize,
}

impl Held {
    /// Whether so much more may wait.
    fn try_grow(&mut self, bytes: usize) -> bool {
        let held = &self.outbox.held;
        let fits = held.size() + bytes <= self.outbox.most_waiting && held.try_grow(bytes).is_ok();
        self.bytes += if fits { bytes } else { 0 };
        fits
    }

    fn grow(&mut self, bytes: usize) {
        self.outbox.held.grow(bytes);
        self.bytes += bytes;
    }

    fn clear(&mut self) {
        self.outbox.held.shrink(std::mem::take(&mut self.bytes));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.clear();
    }
}

/// One file. Dropped before its end, it is not there.
#[derive(Debug)]
pub(in crate::sink::delta) struct Outgoing {
    outbox: Arc<Outbox>,
    upload: Box<dyn MultipartUpload>,
    /// The first of what waits, and how many bytes.
    on_disk: Option<(File, usize)>,
    /// What comes after that.
    in_memory: Vec<Vec<u8>>,
    /// Of those in memory.
    held: Held,
    /// Whether the store has a part, or is about to.
    has_parts: bool,
    parts: JoinSet<object_store::Result<()>>,
}

impl Outgoing {
    /// Adds bytes; waits as long as too many parts are in flight. Errors: those of parts sent before, too.
    pub(in crate::sink::delta) async fn put(&mut self, mut bytes: Vec<u8>) -> Result<()> {
        while let Some(sent) = self.parts.try_join_next() {
            sent_or_failed(sent)?;
        }
        // What was set aside for growing would be held along.
        bytes.shrink_to_fit();
        self.wait(bytes).await?;
        let part = self.outbox.part_bytes();
        // Of a first part alone it is not known whether it will be all: then it is to be one request.
        let enough = if self.has_parts || self.outbox.is_local { part } else { 2 * part };
        if self.waiting() < enough {
            return Ok(());
        }
        let mut waiting = Bytes::from(self.take().await?);
        let rest = waiting.split_off(waiting.len() / part * part).to_vec();
        while !waiting.is_empty() {
            let next = waiting.split_to(part);
            self.send(next).await?;
        }
        self.wait(rest).await
    }

    /// Sends the rest and completes the file.
    pub(in crate::sink::delta) async fn finish(mut self) -> Result<()> {
        let rest = self.take().await?;
        if !rest.is_empty() {
            self.send(rest.into()).await?;
        }
        while let Some(sent) = self.parts.join_next().await {
            sent_or_failed(sent)?;
        }
        self.upload.complete().await.map(drop).map_err(write_failed)
    }

    fn waiting(&self) -> usize {
        self.held.bytes + self.on_disk.as_ref().map_or(0, |(_, bytes)| *bytes)
    }

    /// Puts bytes behind those that wait.
    async fn wait(&mut self, bytes: Vec<u8>) -> Result<()> {
        let has_room = self.held.try_grow(bytes.len());
        if has_room || self.outbox.is_local {
            if !has_room {
                // Little, and where it would wait is where it goes.
                self.held.grow(bytes.len());
            }
            self.in_memory.push(bytes);
            return Ok(());
        }
        let (engine, on_disk, in_memory) =
            (self.outbox.engine.clone(), self.on_disk.take(), std::mem::take(&mut self.in_memory));
        let append = move || -> std::io::Result<(File, usize)> {
            let (mut file, mut written) = match on_disk {
                Some(waiting) => waiting,
                None => (tempfile::tempfile_in(engine.folder())?, 0),
            };
            for bytes in in_memory.into_iter().chain([bytes]) {
                file.write_all(&bytes)?;
                written += bytes.len();
            }
            Ok((file, written))
        };
        self.on_disk = Some(on_disk_or_failed(tokio::task::spawn_blocking(append).await)?);
        self.held.clear();
        Ok(())
    }

    /// All that waits.
    async fn take(&mut self) -> Result<Vec<u8>> {
        let all = self.waiting();
        let in_memory = std::mem::take(&mut self.in_memory);
        let taken = match self.on_disk.take() {
            None => in_memory.concat(),
            Some((mut file, _)) => {
                let read = move || -> std::io::Result<(File, Vec<u8>)> {
                    let mut taken = Vec::with_capacity(all);
                    file.seek(SeekFrom::Start(0))?;
                    file.read_to_end(&mut taken)?;
                    in_memory.iter().for_each(|bytes| taken.extend_from_slice(bytes));
                    file.set_len(0)?;
                    file.seek(SeekFrom::Start(0))?;
                    Ok((file, taken))
                };
                let (file, taken) = on_disk_or_failed(tokio::task::spawn_blocking(read).await)?;
                self.on_disk = Some((file, 0));
                taken
            }
        };
        self.held.clear();
        Ok(taken)
    }

    async fn send(&mut self, part: Bytes) -> Result<()> {
        let permit = Arc::clone(&self.outbox.in_flight).acquire_owned().await;
        let permit = permit.context(Kind::Bug, "A data file cannot be written")?;
        let mut held = Held { outbox: Arc::clone(&self.outbox), bytes: 0 };
        held.grow(part.len());
        let sending = self.upload.put_part(PutPayload::from(part));
        self.has_parts = true;
        self.parts.spawn(async move {
            let sent = sending.await;
            drop((permit, held));
            sent
        });
        Ok(())
    }
}

fn on_disk_or_failed<T>(done: std::result::Result<std::io::Result<T>, JoinError>) -> Result<T> {
    done.context(Kind::Bug, "Work with a temporary file stopped unexpectedly")?
        .map_err(|error| engine_error(DataFusionError::IoError(error)))
}

fn sent_or_failed(sent: std::result::Result<object_store::Result<()>, JoinError>) -> Result<()> {
    sent.context(Kind::Bug, "An upload stopped unexpectedly")?.map_err(write_failed)
}

fn write_failed(error: object_store::Error) -> Error {
    let full = crate::error::is_disk_full(&error);
    let made = Error::new(Kind::Target, "A data file cannot be written").caused_by(error);
    if full { made.with_kind(Kind::Resources).hint("make room at the target; nothing was changed, run it again") } else { made }
}

#[cfg(all(test, feature = "demo"))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sink::delta::tests::engine;
    use crate::store::server::{Fault, S3Server, Seen};
    use crate::store::{Place, StoreOptions};

    const LIMIT: usize = 16 << 20;

    async fn outbox(folder: &std::path::Path) -> (S3Server, Arc<Outbox>, Engine) {
        let server = S3Server::start().await;
        let options = StoreOptions::default().with_variables(server.variables()).tell("max_retries=1").unwrap();
        let place = Place::open(&url::Url::parse(&server.url("lake")).unwrap(), &options).unwrap();
        let engine = engine(folder, LIMIT);
        let store = object_store::prefix::PrefixStore::new(place.store(), place.root().clone());
        (server, Outbox::new(Arc::new(store), false, &engine), engine)
    }

    /// Bytes that differ from place to place.
    fn bytes(from: usize, count: usize) -> Vec<u8> {
        (from..from + count).map(|place| (place % 251) as u8).collect()
    }

    async fn content(outbox: &Outbox, name: &str) -> Vec<u8> {
        outbox.store().get(&Path::from(name)).await.unwrap().bytes().await.unwrap().to_vec()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_open_files_hold_no_more_than_their_share_and_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (server, outbox, engine) = outbox(folder.path()).await;
        let mut files = Vec::new();
        for number in 0..24 {
            files.push(outbox.open(&format!("f-{number}")).await.unwrap());
        }
        for round in 0..12 {
            for file in &mut files {
                file.put(bytes(round << 19, 1 << 19)).await.unwrap();
                // The share of what waits, and two parts on their way.
                assert!(engine.memory_pool().reserved() <= LIMIT / 8 + 2 * PART_BYTES);
            }
        }
        for file in files {
            file.finish().await.unwrap();
        }
        assert_eq!(engine.memory_pool().reserved(), 0);
        for number in [0, 23] {
            assert!(content(&outbox, &format!("f-{number}")).await == bytes(0, 12 << 19));
        }
        assert!(server.seen().iter().all(|seen| !seen.is_part()), "six megabytes are one request");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn files_given_up_or_refused_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (server, outbox, engine) = outbox(folder.path()).await;
        let mut given_up = outbox.open("given-up").await.unwrap();
        given_up.put(bytes(0, 3 * PART_BYTES)).await.unwrap();
        drop(given_up);
        server.fault(Fault::Expired, Seen::is_part, 0, usize::MAX);
        let mut refused = outbox.open("refused").await.unwrap();
        refused.put(bytes(0, 2 * PART_BYTES)).await.unwrap();
        let error = refused.finish().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Target);
        for _ in 0..100 {
            if engine.memory_pool().reserved() == 0 && server.left_parts() == 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!((engine.memory_pool().reserved(), server.left_parts()), (0, 0));
        assert!(server.objects("lake").is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn what_is_put_arrives_in_order(puts in prop::collection::vec((0_usize..3, 0_usize..7_000_000), 0..12)) {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let folder = tempfile::tempdir().unwrap();
                let (server, outbox, engine) = outbox(folder.path()).await;
                let mut files = Vec::new();
                for name in ["a", "b", "c"] {
                    files.push((name, 0, outbox.open(name).await.unwrap()));
                }
                for (file, count) in puts {
                    let (_, length, outgoing) = &mut files[file];
                    outgoing.put(bytes(*length, count)).await.unwrap();
                    *length += count;
                }
                for (name, length, outgoing) in files {
                    outgoing.finish().await.unwrap();
                    prop_assert!(content(&outbox, name).await == bytes(0, length));
                }
                prop_assert_eq!((engine.memory_pool().reserved(), server.left_parts()), (0, 0));
                Ok(())
            })?;
        }
    }
}
