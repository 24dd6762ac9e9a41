//! Stores for the Delta Lake crate, which converts listed paths to URLs without encoding `%` and back. The stores here list aliases, so that
//! each URL leads to the right object.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, RenameOptions, Result,
};
use url::Url;

/// A local store that lists `%` in paths as `%25`, so that their URLs are correct.
pub(super) fn listed_encoded(store: &Arc<dyn ObjectStore>, root: &Path) -> Arc<dyn ObjectStore> {
    let encoded = root.as_ref().replace('%', "%25").replace('\\', "%5C");
    match Path::parse(encoded) {
        Ok(alias) if alias != *root => aliased(store, root, alias),
        _ => Arc::clone(store),
    }
}

/// The URL of an object store, and the store with an alias for `root` that needs no encoding in a URL.
pub(super) fn plain(address: &Url, store: &Arc<dyn ObjectStore>, root: &Path) -> (Url, Arc<dyn ObjectStore>) {
    let alias = alias_of(root);
    if alias == *root {
        return (address.clone(), Arc::clone(store));
    }
    let mut address = address.clone();
    address.set_path(&format!("/{alias}/"));
    (address, aliased(store, root, alias))
}

fn aliased(store: &Arc<dyn ObjectStore>, root: &Path, alias: Path) -> Arc<dyn ObjectStore> {
    Arc::new(Aliased { inner: Arc::clone(store), names: Names { root: root.clone(), alias } })
}

/// Writes every byte that a URL would encode as `=` and two hexadecimal digits, so that no two roots share an alias.
fn alias_of(root: &Path) -> Path {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:@!$&'()*+,;".contains(&byte);
    if root.as_ref().bytes().all(|byte| is_plain(byte) || byte == b'=') {
        return root.clone();
    }
    let mut alias = String::new();
    for byte in root.as_ref().bytes() {
        if is_plain(byte) {
            alias.push(char::from(byte));
        } else {
            alias.push_str(&format!("={byte:02X}"));
        }
    }
    Path::from_iter(alias.split('/'))
}

#[derive(Debug, Clone)]
struct Names {
    root: Path,
    alias: Path,
}

impl Names {
    fn real(&self, path: &Path) -> Path {
        moved(path, &self.alias, &self.root)
    }

    fn shown(&self, path: &Path) -> Path {
        moved(path, &self.root, &self.alias)
    }

    fn meta(&self, meta: ObjectMeta) -> ObjectMeta {
        ObjectMeta { location: self.shown(&meta.location), ..meta }
    }
}

fn moved(path: &Path, from: &Path, to: &Path) -> Path {
    match path.prefix_match(from) {
        Some(rest) => to.parts().chain(rest).collect(),
        None => path.clone(),
    }
}

#[derive(Debug)]
struct Aliased {
    inner: Arc<dyn ObjectStore>,
    names: Names,
}

impl std::fmt::Display for Aliased {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Aliased {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(&self.names.real(location), payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(&self.names.real(location), opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let got = self.inner.get_opts(&self.names.real(location), options).await?;
        Ok(GetResult { meta: self.names.meta(got.meta.clone()), ..got })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (names, back) = (self.names.clone(), self.names.clone());
        let locations = locations.map_ok(move |path| names.real(&path)).boxed();
        self.inner.delete_stream(locations).map_ok(move |path| back.shown(&path)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let names = self.names.clone();
        let prefix = prefix.map(|prefix| self.names.real(prefix));
        self.inner.list(prefix.as_ref()).map_ok(move |meta| names.meta(meta)).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let names = self.names.clone();
        let prefix = prefix.map(|prefix| self.names.real(prefix));
        self.inner.list_with_offset(prefix.as_ref(), &self.names.real(offset)).map_ok(move |meta| names.meta(meta)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.map(|prefix| self.names.real(prefix));
        let listed = self.inner.list_with_delimiter(prefix.as_ref()).await?;
        Ok(ListResult {
            common_prefixes: listed.common_prefixes.iter().map(|path| self.names.shown(path)).collect(),
            objects: listed.objects.into_iter().map(|meta| self.names.meta(meta)).collect(),
        })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(&self.names.real(from), &self.names.real(to), options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(&self.names.real(from), &self.names.real(to), options).await
    }
}
