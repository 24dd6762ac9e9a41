//! Keeps the commits of Delta logs in memory. A run reads the same commits several times, and each read is a request to an object store.
//!
//! A commit file never changes, but it can be removed, and a table can be created again under the same name. A log is always listed before
//! its commits are read; only commits that the newest listing shows unchanged, or that were read after it, are taken from memory.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use parking_lot::Mutex;

/// Maximum size in bytes of a commit that is kept.
const MAX_COMMIT_BYTES: u64 = 128 << 10;
/// Maximum size in bytes of all commits that are kept.
const MAX_BYTES: usize = 4 << 20;
/// Digits of a version in the name of a commit.
const VERSION_DIGITS: usize = 20;

/// A store that keeps the commits of Delta logs in memory.
#[derive(Debug, Clone)]
pub(super) struct LogCache {
    inner: Arc<dyn ObjectStore>,
    commits: Arc<Mutex<Commits>>,
}

#[derive(Debug, Default)]
struct Commits {
    by_path: HashMap<Path, Commit>,
    bytes: usize,
}

#[derive(Debug)]
struct Commit {
    meta: ObjectMeta,
    content: Bytes,
    /// Whether it is in the newest listing of its log, or was read after it.
    is_current: bool,
}

impl Commits {
    fn insert(&mut self, path: Path, meta: ObjectMeta, content: Bytes) {
        if self.bytes + content.len() > MAX_BYTES {
            *self = Self::default();
        }
        self.remove(&path);
        self.bytes += content.len();
        self.by_path.insert(path, Commit { meta, content, is_current: true });
    }

    fn remove(&mut self, path: &Path) {
        if let Some(commit) = self.by_path.remove(path) {
            self.bytes -= commit.content.len();
        }
    }

    /// The commit, if it is current.
    fn get(&self, path: &Path) -> Option<(ObjectMeta, Bytes)> {
        let commit = self.by_path.get(path).filter(|commit| commit.is_current)?;
        Some((commit.meta.clone(), commit.content.clone()))
    }

    /// A listing of `prefix` begins: it will show which commits are current.
    fn begin_listing(&mut self, prefix: Option<&Path>) {
        let below = |path: &Path| prefix.is_none_or(|prefix| path.prefix_matches(prefix));
        self.by_path.iter_mut().filter(|(path, _)| below(path)).for_each(|(_, commit)| commit.is_current = false);
    }

    /// Compares a commit with an entry of a listing.
    fn compare(&mut self, listed: &ObjectMeta) {
        if let Some(commit) = self.by_path.get_mut(&listed.location) {
            commit.is_current = is_same(&commit.meta, listed);
        }
    }
}

/// Whether two descriptions are of the same file. Some stores give times in seconds.
fn is_same(one: &ObjectMeta, other: &ObjectMeta) -> bool {
    let is_same_content = match (&one.e_tag, &other.e_tag) {
        (Some(one), Some(other)) => one == other,
        _ => one.last_modified.timestamp() == other.last_modified.timestamp(),
    };
    one.size == other.size && is_same_content
}

/// Whether a path is that of a commit: `.../_delta_log/00000000000000000000.json`.
fn is_commit(path: &Path) -> bool {
    let mut parts = path.as_ref().rsplit('/');
    let version = parts.next().and_then(|name| name.strip_suffix(".json"));
    version.is_some_and(|version| version.len() == VERSION_DIGITS && version.bytes().all(|byte| byte.is_ascii_digit()))
        && parts.next() == Some("_delta_log")
}

/// Whether a whole file is wanted, without conditions.
fn is_plain(options: &GetOptions) -> bool {
    let has_condition = options.if_match.is_some()
        || options.if_none_match.is_some()
        || options.if_modified_since.is_some()
        || options.if_unmodified_since.is_some();
    !has_condition && options.range.is_none() && options.version.is_none() && !options.head
}

fn result(meta: ObjectMeta, content: Bytes) -> GetResult {
    let range = 0..meta.size;
    let payload = GetResultPayload::Stream(futures::stream::once(std::future::ready(Ok(content))).boxed());
    GetResult { payload, meta, range, attributes: Attributes::default() }
}

impl LogCache {
    /// A store with the content of `inner`.
    pub(super) fn over(inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(Self { inner, commits: Arc::default() })
    }

    fn compared(
        &self,
        prefix: Option<&Path>,
        listed: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.commits.lock().begin_listing(prefix);
        let commits = Arc::clone(&self.commits);
        listed.inspect_ok(move |meta| commits.lock().compare(meta)).boxed()
    }
}

impl fmt::Display for LogCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for LogCache {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.commits.lock().remove(location);
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.commits.lock().remove(location);
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if !is_commit(location) || !is_plain(&options) {
            return self.inner.get_opts(location, options).await;
        }
        let known = self.commits.lock().get(location);
        if let Some((meta, content)) = known {
            return Ok(result(meta, content));
        }
        let got = self.inner.get_opts(location, options).await?;
        if got.meta.size > MAX_COMMIT_BYTES {
            return Ok(got);
        }
        let meta = got.meta.clone();
        let content = got.bytes().await?;
        self.commits.lock().insert(location.clone(), meta.clone(), content.clone());
        Ok(result(meta, content))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let commits = Arc::clone(&self.commits);
        self.inner.delete_stream(locations.inspect_ok(move |path| commits.lock().remove(path)).boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.compared(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.compared(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let listed = self.inner.list_with_delimiter(prefix).await?;
        let mut commits = self.commits.lock();
        listed.objects.iter().for_each(|meta| commits.compare(meta));
        drop(commits);
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.commits.lock().remove(to);
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.commits.lock().remove(from);
        self.commits.lock().remove(to);
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    const COMMIT: &str = "canvas/users/_delta_log/00000000000000000007.json";

    #[tokio::test]
    async fn a_commit_is_read_once_until_a_listing_shows_another_one() {
        let store = Arc::new(InMemory::new());
        let cache = LogCache::over(Arc::clone(&store) as Arc<dyn ObjectStore>);
        let path = Path::from(COMMIT);
        let read = async || cache.get(&path).await.unwrap().bytes().await.unwrap();
        store.put(&path, "first".into()).await.unwrap();
        assert_eq!(read().await, "first");
        // Another process creates the table again.
        store.put(&path, "other".into()).await.unwrap();
        assert_eq!(read().await, "first");
        let listed: Vec<ObjectMeta> = cache.list(Some(&Path::from("canvas/users/_delta_log"))).try_collect().await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(read().await, "other");
        // Another process removes the commit.
        store.delete(&path).await.unwrap();
        assert_eq!(read().await, "other");
        let after = Path::from("canvas/users/_delta_log/00000000000000000008");
        let listed = cache.list_with_offset(Some(&Path::from("canvas/users/_delta_log")), &after);
        assert!(listed.try_collect::<Vec<_>>().await.unwrap().is_empty());
        assert!(cache.get(&path).await.is_err());
    }

    #[tokio::test]
    async fn only_whole_commits_are_kept() {
        let store = Arc::new(InMemory::new());
        let cache = LogCache::over(Arc::clone(&store) as Arc<dyn ObjectStore>);
        for name in
            ["canvas/users/_delta_log/_last_checkpoint", "canvas/users/00000000000000000007.json", "canvas/users/part.parquet"]
        {
            let path = Path::from(name);
            store.put(&path, "first".into()).await.unwrap();
            cache.get(&path).await.unwrap();
            store.put(&path, "other".into()).await.unwrap();
            assert_eq!(cache.get(&path).await.unwrap().bytes().await.unwrap(), "other", "{name}");
        }
        let path = Path::from(COMMIT);
        store.put(&path, "0123456789".into()).await.unwrap();
        assert_eq!(cache.get(&path).await.unwrap().bytes().await.unwrap(), "0123456789");
        assert_eq!(cache.get_range(&path, 2..4).await.unwrap(), "23");
    }

    #[test]
    fn the_size_is_bounded() {
        let mut commits = Commits::default();
        let content = Bytes::from(vec![0; 100 << 10]);
        for version in 0..200 {
            let path = Path::from(format!("_delta_log/{version:020}.json"));
            let meta =
                ObjectMeta { location: path.clone(), last_modified: Default::default(), size: 0, e_tag: None, version: None };
            commits.insert(path, meta, content.clone());
            assert!(commits.bytes <= MAX_BYTES);
        }
        assert_eq!(commits.bytes, commits.by_path.len() * content.len());
    }
}
