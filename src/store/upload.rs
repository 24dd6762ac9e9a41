//! The upload of an object: small objects in one request, large ones in parts. An upload that is dropped is aborted in the background, so
//! that its parts cost nothing.
//!
//! Memory: the parts that the caller has in flight, plus the first part until it is known whether there is a second one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Error, MultipartId, MultipartUpload, ObjectStore, ObjectStoreExt, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::failure::cleaned;

/// The limit of the stores.
const MAX_PARTS: usize = 10_000;

/// Uploads that are neither completed nor aborted.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenUploads(Arc<Mutex<HashMap<Path, MultipartId>>>);

impl OpenUploads {
    /// Adds an upload.
    pub(super) fn add(&self, path: &Path, id: &MultipartId) {
        self.0.lock().insert(path.clone(), id.clone());
    }

    /// Removes an upload and returns its id.
    pub(super) fn take(&self, path: &Path) -> Option<MultipartId> {
        self.0.lock().remove(path)
    }
}

/// An upload that implements [`MultipartUpload`].
#[derive(Debug)]
pub(super) struct Upload<S: MultipartStore + ObjectStore> {
    shared: Arc<Shared<S>>,
    first_part: Option<PutPayload>,
    parts: usize,
    bytes: u64,
    is_over: bool,
}

#[derive(Debug)]
struct Shared<S> {
    store: Arc<S>,
    path: Path,
    open: OpenUploads,
    id: OnceCell<MultipartId>,
    parts: Mutex<BTreeMap<usize, PartId>>,
}

impl<S: MultipartStore + ObjectStore> Upload<S> {
    /// Sends no request yet.
    pub(super) fn new(store: Arc<S>, path: Path, open: OpenUploads) -> Self {
        let shared = Shared { store, path, open, id: OnceCell::new(), parts: Mutex::default() };
        Self { shared: Arc::new(shared), first_part: None, parts: 0, bytes: 0, is_over: false }
    }
}

impl<S: MultipartStore> Shared<S> {
    async fn send(&self, number: usize, data: PutPayload) -> Result<()> {
        let create = || async {
            let id = self.store.create_multipart(&self.path).await?;
            self.open.add(&self.path, &id);
            Ok::<_, Error>(id)
        };
        let id = self.id.get_or_try_init(create).await?;
        let part = self.store.put_part(&self.path, id, number, data).await?;
        self.parts.lock().insert(number, part);
        Ok(())
    }

    async fn abort(&self) -> Result<()> {
        match self.open.take(&self.path) {
            Some(id) => self.store.abort_multipart(&self.path, &id).await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl<S: MultipartStore + ObjectStore> MultipartUpload for Upload<S> {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let number = self.parts;
        self.parts += 1;
        self.bytes += data.content_length() as u64;
        if number == 0 {
            self.first_part = Some(data);
            return std::future::ready(Ok(())).boxed();
        }
        if number >= MAX_PARTS {
            let source = "an object has more than 10,000 parts; make files smaller".into();
            return std::future::ready(Err(Error::Generic { store: "store", source })).boxed();
        }
        let (shared, first_part) = (Arc::clone(&self.shared), self.first_part.take());
        async move {
            let sent = async {
                match first_part {
                    Some(first) => tokio::try_join!(shared.send(0, first), shared.send(number, data)).map(|_| ()),
                    None => shared.send(number, data).await,
                }
            };
            sent.await.map_err(cleaned)
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let Shared { store, path, open, id, parts } = &*self.shared;
        if self.parts <= 1 {
            let payload = self.first_part.take().unwrap_or_default();
            self.is_over = true;
            return store.put_opts(path, payload, PutOptions::default()).await.map_err(cleaned);
        }
        let sent = std::mem::take(&mut *parts.lock());
        let Some(id) = id.get().filter(|_| sent.len() == self.parts) else {
            return Err(Error::Generic { store: "store", source: "an object was completed before its parts".into() });
        };
        let done = match store.complete_multipart(path, id, sent.into_values().collect()).await {
            // If the response of a successful attempt was lost, the next one finds no upload. Names are used once, so an object of this size
            // is the one just uploaded.
            Err(error) => match store.head(path).await {
                Ok(head) if head.size == self.bytes => Ok(PutResult { e_tag: head.e_tag, version: head.version }),
                _ => Err(error),
            },
            Ok(done) => Ok(done),
        };
        if done.is_ok() {
            open.take(path);
            self.is_over = true;
        }
        done.map_err(cleaned)
    }

    async fn abort(&mut self) -> Result<()> {
        self.is_over = true;
        self.first_part = None;
        self.shared.abort().await.map_err(cleaned)
    }
}

impl<S: MultipartStore + ObjectStore> Drop for Upload<S> {
    fn drop(&mut self) {
        if self.is_over || self.shared.id.get().is_none() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let shared = Arc::clone(&self.shared);
            runtime.spawn(async move {
                if let Err(error) = shared.abort().await {
                    tracing::debug!(file = %shared.path, error = %cleaned(error), "An upload could not be aborted");
                }
            });
        }
    }
}
