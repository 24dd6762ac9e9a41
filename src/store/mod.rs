//! Places where files of tables are kept: a local folder, or a prefix in an object store. It knows no tables.
//!
//! A [`Place`] hands out the store of all paths and the path of its root. What is promised of every store: an object appears
//! whole or not at all, and [`PutMode::Create`] names an object once, whoever else tries (a hard link on local disks, a
//! conditional put on object stores). Nothing ever falls back to a rename. Requests to object stores are retried by
//! `object_store` itself and nowhere else; errors come without credentials in them (`failure.rs`).
//!
//! [`PutMode::Create`]: object_store::PutMode::Create

mod alias;
mod azure;
mod check;
mod failure;
mod gcp;
mod http;
mod local;
mod options;
mod profile;
mod remote;
mod s3;
#[cfg(all(test, feature = "demo"))]
#[path = "../../tests/it/support/s3.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with the tests outside")]
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
pub(crate) use self::local::{create_folder, sync_folder};
pub use self::options::StoreOptions;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::redact::SafeUrl;

/// A folder, or a prefix in an object store.
#[derive(Debug, Clone)]
pub struct Place {
    location: SafeUrl,
    root: Path,
    folder: Option<PathBuf>,
    store: Arc<dyn ObjectStore>,
    /// For what makes paths of URLs and URLs of paths.
    by_url: (Url, Arc<dyn ObjectStore>),
}

impl Place {
    /// A local folder, which need not exist yet. Writes nothing.
    pub fn local(folder: &FsPath) -> Result<Self> {
        let unusable = "The target's path cannot be used";
        let folder = resolved(folder).context(Kind::Target, unusable)?;
        let url = Url::from_directory_path(&folder)
            .map_err(|()| Error::new(Kind::Target, unusable).with_field("folder", folder.display()))?;
        let root = Path::from_absolute_path(&folder).context(Kind::Target, unusable).with_field("folder", folder.display())?;
        let store: Arc<dyn ObjectStore> = Arc::new(local::DurableStore::new());
        let by_url = (url.clone(), alias::listed_encoded(&store, &root));
        Ok(Self { location: SafeUrl::new(url), root, folder: Some(folder), store, by_url })
    }

    /// What a URL names: `file`, `s3`, `az`, `abfss` or `gs`. No network yet. Kind `Usage` if the address or an option is wrong,
    /// `Target` if there are no credentials.
    pub fn open(location: &Url, options: &StoreOptions) -> Result<Self> {
        if location.scheme() == "file" {
            let path = location.to_file_path();
            return Self::local(&path.map_err(|()| Error::new(Kind::Target, "The target's address is not a local folder"))?);
        }
        let url = directory_url(location)?;
        let root = Path::from_url_path(url.path()).context(Kind::Usage, "The target's address cannot be used")?;
        let store = match url.scheme() {
            "s3" | "s3a" => s3::open(&url, options),
            "az" | "azure" | "abfs" | "abfss" => azure::open(&url, options),
            "gs" => gcp::open(&url, options),
            _ => Err(Error::new(Kind::Unsupported, "There is no way to such a place")),
        };
        let store = store.with_field("target", SafeUrl::new(url.clone()))?;
        let by_url = alias::plain(&url, &store, &root);
        Ok(Self { location: SafeUrl::new(url), root, folder: None, store, by_url })
    }

    /// The address, with a slash at its end.
    pub fn location(&self) -> &SafeUrl {
        &self.location
    }

    /// Address and store for the crate for Delta tables, which makes paths of URLs and URLs of listed paths. Neither is for people.
    pub fn by_url(&self) -> (&Url, Arc<dyn ObjectStore>) {
        (&self.by_url.0, Arc::clone(&self.by_url.1))
    }

    /// The store of all paths, not only of those below this place.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// The root's path in the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The local folder, if it is one.
    pub fn folder(&self) -> Option<&FsPath> {
        self.folder.as_deref()
    }

    /// The same place by another store, for tests that make it fail.
    #[cfg(test)]
    pub(crate) fn set_store(&mut self, store: Arc<dyn ObjectStore>) {
        self.by_url.1 = Arc::clone(&store);
        self.store = store;
    }

    /// Names of the folders in `folder`, a path of the store; none if it does not exist.
    pub async fn folders_in(&self, folder: &Path) -> Result<Vec<String>> {
        match self.store.list_with_delimiter(Some(folder)).await {
            Ok(listed) => Ok(listed.common_prefixes.iter().filter_map(|found| found.filename().map(str::to_owned)).collect()),
            // A prefix without objects is empty; what an object store does not find is the bucket.
            Err(object_store::Error::NotFound { .. }) if self.folder.is_some() => Ok(Vec::new()),
            Err(error) if self.folder.is_some() => Err(self.unusable(error).hint("name a folder that you may write to")),
            Err(error) => Err(self.unusable(error)),
        }
    }

    /// Kind `Target`: the place as a whole cannot be used.
    pub fn unusable(&self, source: impl Into<crate::error::BoxError>) -> Error {
        let error = match &self.folder {
            Some(folder) => Error::new(Kind::Target, "The target folder cannot be used").with_field("folder", folder.display()),
            None => Error::new(Kind::Target, "The target cannot be used").with_field("target", &self.location),
        };
        explained(error.caused_by(source))
    }
}

/// The absolute path. A `..` goes where the system would go: out of the folder that a link leads to.
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

/// The address as a directory, without what has no meaning in it.
fn directory_url(location: &Url) -> Result<Url> {
    let wrong = |what: &'static str| {
        Error::new(Kind::Usage, what)
            .with_field("target", SafeUrl::new(location.clone()))
            .hint("write it as s3://bucket/prefix, az://container/prefix or gs://bucket/prefix; options go by --store-option")
    };
    let has_user = !location.username().is_empty() && !location.scheme().starts_with("abfs");
    if has_user || location.password().is_some() {
        let mut shown = location.clone();
        let _ = (shown.set_username(""), shown.set_password(None));
        return Err(Error::new(Kind::Usage, "The target's address holds credentials")
            .with_field("target", SafeUrl::new(shown))
            .hint("give them by environment variables, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
    }
    if location.query().is_some() || location.fragment().is_some() {
        return Err(wrong("The target's address has a query or a fragment"));
    }
    if location.host_str().is_none_or(str::is_empty) {
        return Err(wrong("The target's address names no bucket or container"));
    }
    let mut url = location.clone();
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", location.path()));
    }
    Ok(url)
}
