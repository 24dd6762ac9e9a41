//! The folder `metadata` of a table: files by their names, versions of the table metadata, and the pointer to the newest version.
//!
//! The layout is that of Hadoop tables: `v<number>.metadata.json`, created only if it does not exist, and `version-hint.text`.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use super::source::Source;
use super::table_metadata::TableMetadata;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};

/// Name of the folder in the table's folder.
pub(super) const FOLDER: &str = "metadata";
const HINT: &str = "version-hint.text";
const SUFFIX: &str = ".metadata.json";
const UNREADABLE: &str = "The Iceberg metadata cannot be read";
const UNWRITABLE: &str = "The Iceberg metadata cannot be written";

/// The folder with the metadata of a table.
pub(super) struct MetadataFolder<'a> {
    store: Arc<dyn ObjectStore>,
    /// URL of the table's folder without a slash at the end.
    location: &'a str,
}

/// The newest version of the table metadata.
pub(super) struct Current {
    /// 0 if there is none.
    pub(super) number: u64,
    /// `None` if there is none or it cannot be read.
    pub(super) metadata: Option<TableMetadata>,
    /// Whether the pointer names it.
    pub(super) is_pointed_to: bool,
}

impl<'a> MetadataFolder<'a> {
    pub(super) fn new(source: &'a Source<'_>) -> Self {
        Self { store: source.store(), location: source.location() }
    }

    /// Location of the table.
    pub(super) fn location(&self) -> &str {
        self.location
    }

    /// Location of a file in the table's folder.
    pub(super) fn location_of(&self, path: &str) -> String {
        format!("{}/{path}", self.location)
    }

    /// The path in the table's folder of a location; `None` if it is outside.
    pub(super) fn path_of(&self, location: &str) -> Option<Path> {
        let path = location.strip_prefix(self.location)?.strip_prefix('/')?;
        Some(Path::parse(path).unwrap_or_else(|_| Path::from(path)))
    }

    /// Location of a file in the folder `metadata`.
    pub(super) fn metadata_file(&self, name: &str) -> String {
        format!("{}/{FOLDER}/{name}", self.location)
    }

    /// Location of a version of the table metadata.
    pub(super) fn file(&self, number: u64) -> String {
        self.metadata_file(&name_of(number))
    }

    /// The newest version of the table metadata: the version that the pointer names, or a later one.
    pub(super) async fn current(&self) -> Result<Current> {
        let hint = self.get(HINT).await?;
        let hint = hint.and_then(|hint| std::str::from_utf8(&hint).ok()?.trim().parse::<u64>().ok());
        let named = match hint {
            Some(number) => self.get(&name_of(number)).await?.map(|bytes| (number, bytes)),
            None => None,
        };
        let (mut number, mut newest) = match named {
            Some(named) => named,
            None => {
                let number = self.newest_number().await?;
                match self.get(&name_of(number)).await? {
                    Some(bytes) => (number, bytes),
                    None => return Ok(Current { number: 0, metadata: None, is_pointed_to: false }),
                }
            }
        };
        // A run that was killed may have left the pointer behind.
        while let Some(next) = self.get(&name_of(number + 1)).await? {
            (number, newest) = (number + 1, next);
        }
        let metadata = TableMetadata::parse(&newest);
        if let Err(error) = &metadata {
            tracing::debug!(%error, number, "The Iceberg metadata cannot be read and is written again");
        }
        Ok(Current { number, metadata: metadata.ok(), is_pointed_to: hint == Some(number) })
    }

    /// The highest number of a version; 0 if there is none.
    async fn newest_number(&self) -> Result<u64> {
        let numbers =
            self.store.list(Some(&Path::from(FOLDER))).map_ok(|object| object.location.filename().and_then(number_of));
        let numbers: Vec<Option<u64>> = numbers.try_collect().await.context(Kind::Target, UNREADABLE)?;
        Ok(numbers.into_iter().flatten().max().unwrap_or(0))
    }

    async fn get(&self, name: &str) -> Result<Option<bytes::Bytes>> {
        match async { self.store.get(&path_in_folder(name)).await?.bytes().await }.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error).context(Kind::Target, UNREADABLE).with_field("file", name),
        }
    }

    /// The bytes of a file in the folder by its location. Kind `NotFound` if it does not exist.
    pub(super) async fn read(&self, location: &str) -> Result<bytes::Bytes> {
        let name = location.rsplit('/').next().unwrap_or(location);
        match self.get(name).await? {
            Some(bytes) => Ok(bytes),
            None => Err(Error::new(Kind::NotFound, "A file of the Iceberg metadata is missing")
                .with_field("file", name)
                .hint("delete the folder `metadata` of the table; the next sync writes it again")),
        }
    }

    /// Writes a file of a new name.
    pub(super) async fn write(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let put = self.store.put(&path_in_folder(name), PutPayload::from(bytes)).await;
        put.map(|_| ()).context(Kind::Target, UNWRITABLE).with_field("file", name)
    }

    /// Creates a version of the table metadata and points to it. Returns `false` if the version exists.
    pub(super) async fn commit(&self, number: u64, metadata: &TableMetadata) -> Result<bool> {
        let (name, payload) = (name_of(number), PutPayload::from(metadata.to_bytes()?));
        match self.store.put_opts(&path_in_folder(&name), payload, PutMode::Create.into()).await {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => return Ok(false),
            Err(error) => return Err(error).context(Kind::Target, UNWRITABLE).with_field("file", name),
        }
        self.point_to(number).await?;
        Ok(true)
    }

    /// Points to a version.
    pub(super) async fn point_to(&self, number: u64) -> Result<()> {
        self.write(HINT, number.to_string().into_bytes()).await
    }

    /// Removes all files that daplake wrote, the pointer first.
    pub(super) async fn remove_all(&self) -> Result<()> {
        if self.get(HINT).await?.is_none() {
            return Ok(());
        }
        self.remove(vec![self.metadata_file(HINT)]).await;
        let listed = self.store.list(Some(&Path::from(FOLDER))).map_ok(|object| object.location);
        let listed: Vec<Path> = listed.try_collect().await.context(Kind::Target, UNREADABLE)?;
        let ours = listed.iter().filter_map(Path::filename).filter(|name| is_metadata_file(name));
        self.remove(ours.map(|name| self.metadata_file(name)).collect()).await;
        Ok(())
    }

    /// Removes files by their locations, as far as possible.
    pub(super) async fn remove(&self, locations: Vec<String>) {
        let paths: Vec<_> =
            locations.iter().filter_map(|location| location.rsplit('/').next()).map(|name| Ok(path_in_folder(name))).collect();
        let mut results = self.store.delete_stream(futures::stream::iter(paths).boxed());
        while let Some(result) = results.next().await {
            if let Err(error) = result {
                tracing::debug!(%error, "An old file of the Iceberg metadata cannot be removed");
            }
        }
    }
}

fn path_in_folder(name: &str) -> Path {
    Path::from(FOLDER).join(name)
}

fn name_of(number: u64) -> String {
    format!("v{number}{SUFFIX}")
}

/// Whether a file in the folder has a name that daplake gives.
pub(super) fn is_metadata_file(name: &str) -> bool {
    name.ends_with(".avro") || name.ends_with(".puffin") || number_of(name).is_some()
}

/// The number of a version of the table metadata.
fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix('v')?.strip_suffix(SUFFIX)?.parse().ok()
}
