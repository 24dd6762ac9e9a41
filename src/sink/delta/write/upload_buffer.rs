//! Buffers the bytes of new files and uploads them in parts.
//!
//! A part for an object store has megabytes, and a table that is partitioned by day has an open file per day. All files of a load
//! therefore share a part of the memory limit; bytes beyond it are spooled to temporary files. The number of parts in flight is
//! bounded over all files of a load.

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

/// Size in bytes of a part on a local disk.
const LOCAL_PART_BYTES: usize = 512 << 10;
/// Size in bytes of a part for an object store, which requires it of all parts except the last.
const PART_BYTES: usize = 5 << 20;
/// Minimum number of parts in flight: with fewer, the writer waits for the store's latency.
const MIN_IN_FLIGHT: usize = 2;
/// Maximum number of parts in flight: more do not make a store faster.
const MAX_IN_FLIGHT: usize = 16;

/// Buffers the bytes of all files of a load on their way to the store.
#[derive(Debug)]
pub(crate) struct UploadBuffer {
    store: Arc<dyn ObjectStore>,
    engine: Engine,
    is_local: bool,
    /// Maximum number of bytes that wait in memory.
    max_buffered: usize,
    reservation: MemoryReservation,
    in_flight: Arc<Semaphore>,
}

impl UploadBuffer {
    /// For files in `store`, which is a folder on a local disk if `is_local`.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, is_local: bool, engine: &Engine) -> Arc<Self> {
        let parts = (engine.memory_limit() / 12 / PART_BYTES).clamp(MIN_IN_FLIGHT, MAX_IN_FLIGHT);
        Arc::new(Self {
            store,
            engine: engine.clone(),
            is_local,
            max_buffered: engine.memory_limit() / 8,
            reservation: MemoryConsumer::new("Uploads").register(engine.memory_pool()),
            in_flight: Arc::new(Semaphore::new(parts)),
        })
    }

    /// The store.
    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Starts the upload of a file.
    pub(crate) async fn open(self: &Arc<Self>, name: &str) -> Result<Upload> {
        let multipart = self.store.put_multipart(&Path::from(name)).await.map_err(write_failed)?;
        Ok(Upload {
            buffer: Arc::clone(self),
            multipart,
            spooled: None,
            in_memory: Vec::new(),
            reserved: ReservedBytes { buffer: Arc::clone(self), bytes: 0 },
            has_parts: false,
            parts: JoinSet::new(),
        })
    }

    fn part_bytes(&self) -> usize {
        if self.is_local { LOCAL_PART_BYTES } else { PART_BYTES }
    }
}

/// Bytes that are reserved in the memory pool until this is dropped.
#[derive(Debug)]
struct ReservedBytes {
    buffer: Arc<UploadBuffer>,
    bytes: usize,
}

impl ReservedBytes {
    /// Reserves bytes within the share of the buffer. Returns whether they fit.
    fn try_grow(&mut self, bytes: usize) -> bool {
        let reservation = &self.buffer.reservation;
        let fits = reservation.size() + bytes <= self.buffer.max_buffered && reservation.try_grow(bytes).is_ok();
        self.bytes += if fits { bytes } else { 0 };
        fits
    }

    fn grow(&mut self, bytes: usize) {
        self.buffer.reservation.grow(bytes);
        self.bytes += bytes;
    }

    fn clear(&mut self) {
        self.buffer.reservation.shrink(std::mem::take(&mut self.bytes));
    }
}

impl Drop for ReservedBytes {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The spooled multipart upload of one file. Dropped before [`Self::finish`], it leaves no file.
#[derive(Debug)]
pub(crate) struct Upload {
    buffer: Arc<UploadBuffer>,
    multipart: Box<dyn MultipartUpload>,
    /// The first buffered bytes, in a temporary file, and their number.
    spooled: Option<(File, usize)>,
    /// The buffered bytes after those.
    in_memory: Vec<Vec<u8>>,
    /// The reservation for the bytes in memory.
    reserved: ReservedBytes,
    /// Whether a part has been sent.
    has_parts: bool,
    parts: JoinSet<object_store::Result<()>>,
}

impl Upload {
    /// Adds bytes. Waits while too many parts are in flight. The error may be that of a part that was sent earlier.
    pub(crate) async fn put(&mut self, mut bytes: Vec<u8>) -> Result<()> {
        while let Some(sent) = self.parts.try_join_next() {
            check_sent(sent)?;
        }
        // The buffer would otherwise keep the spare capacity as well.
        bytes.shrink_to_fit();
        self.append(bytes).await?;
        let part = self.buffer.part_bytes();
        // The first part waits for a second one: a file of one part is uploaded with one request.
        let threshold = if self.has_parts || self.buffer.is_local { part } else { 2 * part };
        if self.buffered() < threshold {
            return Ok(());
        }
        let mut buffered = Bytes::from(self.take().await?);
        let rest = buffered.split_off(buffered.len() / part * part).to_vec();
        while !buffered.is_empty() {
            let next = buffered.split_to(part);
            self.send(next).await?;
        }
        self.append(rest).await
    }

    /// Sends the remaining bytes and completes the file.
    pub(crate) async fn finish(mut self) -> Result<()> {
        let rest = self.take().await?;
        if !rest.is_empty() {
            self.send(rest.into()).await?;
        }
        while let Some(sent) = self.parts.join_next().await {
            check_sent(sent)?;
        }
        self.multipart.complete().await.map(drop).map_err(write_failed)
    }

    /// Number of buffered bytes.
    fn buffered(&self) -> usize {
        self.reserved.bytes + self.spooled.as_ref().map_or(0, |(_, bytes)| *bytes)
    }

    /// Appends bytes to the buffered ones, in memory or in the temporary file.
    async fn append(&mut self, bytes: Vec<u8>) -> Result<()> {
        let has_room = self.reserved.try_grow(bytes.len());
        if has_room || self.buffer.is_local {
            if !has_room {
                // Parts are small here, and a temporary file would be on the same kind of disk as the target.
                self.reserved.grow(bytes.len());
            }
            self.in_memory.push(bytes);
            return Ok(());
        }
        let (engine, spooled, in_memory) =
            (self.buffer.engine.clone(), self.spooled.take(), std::mem::take(&mut self.in_memory));
        let append = move || -> std::io::Result<(File, usize)> {
            let (mut file, mut written) = match spooled {
                Some(spooled) => spooled,
                None => (tempfile::tempfile_in(engine.folder())?, 0),
            };
            for bytes in in_memory.into_iter().chain([bytes]) {
                file.write_all(&bytes)?;
                written += bytes.len();
            }
            Ok((file, written))
        };
        self.spooled = Some(spool_result(tokio::task::spawn_blocking(append).await)?);
        self.reserved.clear();
        Ok(())
    }

    /// Removes and returns all buffered bytes.
    async fn take(&mut self) -> Result<Vec<u8>> {
        let all = self.buffered();
        let in_memory = std::mem::take(&mut self.in_memory);
        let taken = match self.spooled.take() {
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
                let (file, taken) = spool_result(tokio::task::spawn_blocking(read).await)?;
                self.spooled = Some((file, 0));
                taken
            }
        };
        self.reserved.clear();
        Ok(taken)
    }

    async fn send(&mut self, part: Bytes) -> Result<()> {
        let permit = Arc::clone(&self.buffer.in_flight).acquire_owned().await;
        let permit = permit.context(Kind::Bug, "A data file cannot be written")?;
        let mut reserved = ReservedBytes { buffer: Arc::clone(&self.buffer), bytes: 0 };
        reserved.grow(part.len());
        let sending = self.multipart.put_part(PutPayload::from(part));
        self.has_parts = true;
        self.parts.spawn(async move {
            let sent = sending.await;
            drop((permit, reserved));
            sent
        });
        Ok(())
    }
}

fn spool_result<T>(done: std::result::Result<std::io::Result<T>, JoinError>) -> Result<T> {
    done.context(Kind::Bug, "Access to a temporary file stopped unexpectedly")?
        .map_err(|error| engine_error(DataFusionError::IoError(error)))
}

fn check_sent(sent: std::result::Result<object_store::Result<()>, JoinError>) -> Result<()> {
    sent.context(Kind::Bug, "An upload stopped unexpectedly")?.map_err(write_failed)
}

fn write_failed(error: object_store::Error) -> Error {
    let is_full = crate::error::is_disk_full(&error);
    let failed = Error::new(Kind::Target, "A data file cannot be written").caused_by(error);
    if is_full {
        failed.with_kind(Kind::Resources).hint("free space at the target and run the command again; the table was not changed")
    } else {
        failed
    }
}

#[cfg(all(test, feature = "demo"))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sink::delta::tests::engine;
    use crate::store::server::{Fault, S3Server, Seen};
    use crate::store::{Place, StoreOptions};

    const LIMIT: usize = 16 << 20;

    async fn upload_buffer(folder: &std::path::Path) -> (S3Server, Arc<UploadBuffer>, Engine) {
        let server = S3Server::start().await;
        let options = StoreOptions::default().with_variables(server.variables()).with_option("max_retries=1").unwrap();
        let place = Place::open(&url::Url::parse(&server.url("lake")).unwrap(), &options).unwrap();
        let engine = engine(folder, LIMIT);
        let store = object_store::prefix::PrefixStore::new(place.store(), place.root().clone());
        (server, UploadBuffer::new(Arc::new(store), false, &engine), engine)
    }

    /// Bytes that depend on their position.
    fn bytes(from: usize, count: usize) -> Vec<u8> {
        (from..from + count).map(|position| (position % 251) as u8).collect()
    }

    async fn content(buffer: &UploadBuffer, name: &str) -> Vec<u8> {
        buffer.store().get(&Path::from(name)).await.unwrap().bytes().await.unwrap().to_vec()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_open_files_share_a_bounded_buffer_and_are_complete() {
        let folder = tempfile::tempdir().unwrap();
        let (server, buffer, engine) = upload_buffer(folder.path()).await;
        let mut files = Vec::new();
        for number in 0..24 {
            files.push(buffer.open(&format!("f-{number}")).await.unwrap());
        }
        for round in 0..12 {
            for file in &mut files {
                file.put(bytes(round << 19, 1 << 19)).await.unwrap();
                // The share of the buffer, and two parts in flight.
                assert!(engine.memory_pool().reserved() <= LIMIT / 8 + 2 * PART_BYTES);
            }
        }
        for file in files {
            file.finish().await.unwrap();
        }
        assert_eq!(engine.memory_pool().reserved(), 0);
        for number in [0, 23] {
            assert!(content(&buffer, &format!("f-{number}")).await == bytes(0, 12 << 19));
        }
        assert!(server.seen().iter().all(|seen| !seen.is_part()), "six megabytes are uploaded with one request");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn abandoned_and_refused_files_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (server, buffer, engine) = upload_buffer(folder.path()).await;
        let mut abandoned = buffer.open("abandoned").await.unwrap();
        abandoned.put(bytes(0, 3 * PART_BYTES)).await.unwrap();
        drop(abandoned);
        server.fault(Fault::Expired, Seen::is_part, 0, usize::MAX);
        let mut refused = buffer.open("refused").await.unwrap();
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
        fn bytes_arrive_in_order(puts in prop::collection::vec((0_usize..3, 0_usize..7_000_000), 0..12)) {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let folder = tempfile::tempdir().unwrap();
                let (server, buffer, engine) = upload_buffer(folder.path()).await;
                let mut files = Vec::new();
                for name in ["a", "b", "c"] {
                    files.push((name, 0, buffer.open(name).await.unwrap()));
                }
                for (file, count) in puts {
                    let (_, length, upload) = &mut files[file];
                    upload.put(bytes(*length, count)).await.unwrap();
                    *length += count;
                }
                for (name, length, upload) in files {
                    upload.finish().await.unwrap();
                    prop_assert!(content(&buffer, name).await == bytes(0, length));
                }
                prop_assert_eq!((engine.memory_pool().reserved(), server.left_parts()), (0, 0));
                Ok(())
            })?;
        }
    }
}
