//! Where the files of tables are kept: a local folder, or a prefix in an object store (S3, Azure, Google Cloud).
//!
//! A [`Place`] has a store and the path of its root. Every store guarantees that an object appears completely or not at all, and that
//! [`PutMode::Create`] fails if the object exists, also with concurrent writers (by a hard link on local disks, by a conditional put on
//! object stores). There is no fallback to a rename. Requests to object stores are retried by `object_store` alone. Errors contain no
//! credentials (`failure.rs`).
//!
//! [`PutMode::Create`]: object_store::PutMode::Create

mod alias;
mod azure;
mod check;
mod failure;
mod gcp;
mod http;
mod local;
mod log_cache;
mod options;
mod remote;
mod s3;
#[cfg(all(test, feature = "demo"))]
#[allow(unreachable_pub, dead_code, reason = "the tests in `tests/it` include the same file")]
pub(crate) mod server;
#[cfg(all(test, feature = "demo"))]
mod tests;
mod upload;

use std::path::{Component, Path as FsPath, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;

pub use self::failure::explained;
pub(crate) use self::http::{Connector, endpoint};
pub(crate) use self::local::{create_folder, sync_folder};
pub use self::options::StoreOptions;
pub(crate) use self::s3::{AwsAccount, aws_account};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::redact::SafeUrl;

/// A folder, or a prefix in an object store.
#[derive(Debug, Clone)]
pub struct Place {
    location: SafeUrl,
    root: Path,
    folder: Option<PathBuf>,
    store: Arc<dyn ObjectStore>,
    /// For the Delta Lake crate, which converts paths to URLs and back.
    by_url: (Url, Arc<dyn ObjectStore>),
}

impl Place {
    /// A local folder, which need not exist. Writes nothing.
    pub fn local(folder: &FsPath) -> Result<Self> {
        let unusable = "The target's path cannot be used";
        let folder = resolved(folder).context(Kind::Target, unusable)?;
        let url = Url::from_directory_path(&folder)
            .map_err(|()| Error::new(Kind::Target, unusable).with_field("folder", folder.display()))?;
        let root = Path::from_absolute_path(&folder).context(Kind::Target, unusable).with_field("folder", folder.display())?;
        let store = log_cache::LogCache::over(Arc::new(local::DurableStore::new()));
        let by_url = (url.clone(), alias::listed_encoded(&store, &root));
        Ok(Self { location: SafeUrl::new(url), root, folder: Some(folder), store, by_url })
    }

    /// Opens a URL with the scheme `file`, `s3`, `az`, `abfss` or `gs`. Does not connect. Fails with kind `Usage` if the URL or an option
    /// is invalid, with `Unsupported` for another scheme, and with `Target` if there are no credentials.
    pub fn open(location: &Url, options: &StoreOptions) -> Result<Self> {
        if location.scheme() == "file" {
            let path = location.to_file_path();
            return Self::local(&path.map_err(|()| Error::new(Kind::Target, "The target's URL is not a local folder"))?);
        }
        let url = directory_url(location)?;
        let root = Path::from_url_path(url.path()).context(Kind::Usage, "The target's URL is invalid")?;
        let store = match url.scheme() {
            "s3" | "s3a" => s3::open(&url, options),
            "az" | "azure" | "abfs" | "abfss" => azure::open(&url, options),
            "gs" => gcp::open(&url, options),
            _ => Err(Error::new(Kind::Unsupported, "The scheme of the target is not supported")),
        };
        let store = log_cache::LogCache::over(store.with_field("target", SafeUrl::new(url.clone()))?);
        let by_url = alias::plain(&url, &store, &root);
        Ok(Self { location: SafeUrl::new(url), root, folder: None, store, by_url })
    }

    /// The URL, which ends with a slash.
    pub fn location(&self) -> &SafeUrl {
        &self.location
    }

    /// URL and store for the Delta Lake crate, which converts listed paths to URLs and back. Not for display.
    pub fn by_url(&self) -> (&Url, Arc<dyn ObjectStore>) {
        (&self.by_url.0, Arc::clone(&self.by_url.1))
    }

    /// The store. Its paths are absolute, not relative to this place.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// The path of the root in the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The local folder; `None` for an object store.
    pub fn folder(&self) -> Option<&FsPath> {
        self.folder.as_deref()
    }

    /// Replaces the store, for tests with failures.
    #[cfg(test)]
    pub(crate) fn set_store(&mut self, store: Arc<dyn ObjectStore>) {
        self.by_url.1 = Arc::clone(&store);
        self.store = store;
    }

    /// The names of the folders in `folder`, a path of the store. Empty if it does not exist.
    pub async fn folders_in(&self, folder: &Path) -> Result<Vec<String>> {
        match self.store.list_with_delimiter(Some(folder)).await {
            Ok(listed) => Ok(listed.common_prefixes.iter().filter_map(|found| found.filename().map(str::to_owned)).collect()),
            // On an object store, a prefix without objects is empty, and this error means that the bucket does not exist.
            Err(object_store::Error::NotFound { .. }) if self.folder.is_some() => Ok(Vec::new()),
            Err(error) if self.folder.is_some() => Err(self.unusable(error).hint("use a writable folder")),
            Err(error) => Err(self.unusable(error)),
        }
    }

    /// The error that this place cannot be used, of kind `Target` unless the cause has a more specific one.
    pub fn unusable(&self, source: impl Into<crate::error::BoxError>) -> Error {
        let error = match &self.folder {
            Some(folder) => Error::new(Kind::Target, "The target folder cannot be used").with_field("folder", folder.display()),
            None => Error::new(Kind::Target, "The target cannot be used").with_field("target", &self.location),
        };
        explained(error.caused_by(source))
    }
}

/// The absolute path. A `..` after a symbolic link leads to the parent of the link's target, as in the file system.
fn resolved(folder: &FsPath) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(folder)?;
    let mut resolved = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => {
                if let Ok(real) = resolved.canonicalize() {
                    resolved = real;
                }
                resolved.pop();
            }
            Component::CurDir => {}
            part => resolved.push(part),
        }
    }
    Ok(resolved)
}

/// The URL with a slash at its end. Fails for credentials, a query or a fragment in it.
fn directory_url(location: &Url) -> Result<Url> {
    let wrong = |what: &'static str| {
        Error::new(Kind::Usage, what)
            .with_field("target", SafeUrl::new(location.clone()))
            .hint("write s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or gs://BUCKET/PREFIX, and set options with --store-option")
    };
    let has_user = !location.username().is_empty() && !location.scheme().starts_with("abfs");
    if has_user || location.password().is_some() {
        let mut shown = location.clone();
        let _ = (shown.set_username(""), shown.set_password(None));
        return Err(Error::new(Kind::Usage, "The target's URL contains credentials")
            .with_field("target", SafeUrl::new(shown))
            .hint("set them as environment variables, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
    }
    if location.query().is_some() || location.fragment().is_some() {
        return Err(wrong("The target's URL has a query or a fragment"));
    }
    if location.host_str().is_none_or(str::is_empty) {
        return Err(wrong("The target's URL has no bucket or container"));
    }
    let mut url = location.clone();
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", location.path()));
    }
    Ok(url)
}
