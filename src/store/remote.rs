//! A wrapper around remote object stores: errors contain no credentials, and abandoned multipart uploads are aborted, so that their parts
//! cost nothing. Retries are left to `object_store`.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use super::failure::cleaned;
use super::upload::{OpenUploads, Upload};

/// A remote object store.
pub(super) struct RemoteStore<S> {
    store: Arc<S>,
    open: OpenUploads,
    lists_all: bool,
}

impl<S> RemoteStore<S> {
    /// Wraps a store, which does its own retries.
    pub(super) fn new(store: S) -> Self {
        Self { store: Arc::new(store), open: OpenUploads::default(), lists_all: false }
    }

    /// Whether the store ignores the offset of a listing and always lists from the first name.
    #[must_use]
    pub(super) fn listing_all(mut self, lists_all: bool) -> Self {
        self.lists_all = lists_all;
        self
    }
}

/// Without the settings of the store, which can contain a token.
impl<S: std::fmt::Display> std::fmt::Debug for RemoteStore<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteStore({})", self.store)
    }
}

impl<S: std::fmt::Display> std::fmt::Display for RemoteStore<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl<S: ObjectStore + MultipartStore> ObjectStore for RemoteStore<S> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.store.put_opts(location, payload, opts).await.map_err(cleaned)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        if opts.attributes.is_empty() && opts.tags.encoded().is_empty() {
            return Ok(Box::new(Upload::new(Arc::clone(&self.store), location.clone(), self.open.clone())));
        }
        self.store.put_multipart_opts(location, opts).await.map_err(cleaned)
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self.store.get_opts(location, options).await.map_err(cleaned)?;
        if let GetResultPayload::Stream(stream) = result.payload {
            result.payload = GetResultPayload::Stream(stream.map_err(cleaned).boxed());
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.store.get_ranges(location, ranges).await.map_err(cleaned)
    }

    /// Also aborts an open upload to the same name, so that its parts cost nothing.
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (store, open) = (Arc::clone(&self.store), self.open.clone());
        let locations = locations.then(move |location| {
            let (store, open) = (Arc::clone(&store), open.clone());
            async move {
                let location = location?;
                if let Some(id) = open.take(&location)
                    && let Err(error) = store.abort_multipart(&location, &id).await
                {
                    tracing::debug!(file = %location, error = %cleaned(error), "An upload could not be aborted");
                }
                Ok(location)
            }
        });
        self.store.delete_stream(locations.boxed()).map_err(cleaned).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix).map_err(cleaned).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.lists_all {
            let offset = offset.clone();
            let listed = self.store.list(prefix).map_err(cleaned);
            return listed.try_filter(move |found| std::future::ready(found.location > offset)).boxed();
        }
        self.store.list_with_offset(prefix, offset).map_err(cleaned).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await.map_err(cleaned)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await.map_err(cleaned)
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.store.rename_opts(from, to, options).await.map_err(cleaned)
    }
}
