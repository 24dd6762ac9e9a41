//! The cheapest real write: makes, reads and removes an object the way commits are made.

use std::path::{Path as FsPath, PathBuf};

use object_store::{Error as StoreError, ObjectStoreExt, PutMode, PutOptions};

use super::Place;
use crate::error::{Error, Kind, Result};

const FOLDER_HINT: &str = "name a folder that you may write to, on a file system that has hard links";
const CONDITIONAL_HINT: &str = "use a store that honours `If-None-Match` on puts (Amazon S3, Azure, Google Cloud, R2, MinIO, Ceph and others of late versions), or a local folder";

/// See [`Place::check`].
pub(super) async fn check(place: &Place) -> Result<()> {
    let Some(folder) = place.folder() else { return try_commit_way(place).await };
    let made = missing_folders(folder);
    let usable = match std::fs::create_dir_all(folder) {
        Ok(()) => try_commit_way(place).await,
        Err(error) => Err(place.unusable(error).hint("name a folder that you may write to")),
    };
    // Only empty ones go, so another run's tables are safe.
    for folder in made.iter().rev() {
        let _ = std::fs::remove_dir(folder);
    }
    usable
}

async fn try_commit_way(place: &Place) -> Result<()> {
    let store = place.store();
    let path = place.root().clone().join(format!(".daplake-check-{}", uuid::Uuid::new_v4()));
    let put = || store.put_opts(&path, "daplake".into(), PutOptions::from(PutMode::Create));
    if let Err(error) = put().await {
        return Err(match error {
            StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => unconditional(place, error),
            error if place.folder().is_none() && error.to_string().contains("NotImplemented") => unconditional(place, error),
            error if place.folder().is_some() => place.unusable(error).hint(FOLDER_HINT),
            error => place.unusable(error),
        });
    }
    let read = async { store.get(&path).await?.bytes().await }.await;
    let second = put().await;
    let removed = store.delete(&path).await;
    if read.map_err(|error| place.unusable(error))? != "daplake" {
        return Err(place.unusable("a file did not read as it was written"));
    }
    match second {
        Err(StoreError::AlreadyExists { .. }) => {}
        Err(error) => return Err(place.unusable(error)),
        Ok(_) if place.folder().is_some() => {
            return Err(place
                .unusable("a file that exists can be made again, so two runs could overwrite each other")
                .hint(FOLDER_HINT));
        }
        Ok(_) => return Err(unconditional(place, "an object that exists was written again in spite of `If-None-Match: *`")),
    }
    removed.map_err(|error| place.unusable(error).hint("deleting must be allowed, too"))
}

fn unconditional(place: &Place, source: impl Into<crate::error::BoxError>) -> Error {
    Error::new(Kind::Target, "The object store has no conditional writes, so two runs could overwrite each other")
        .with("target", place.location())
        .hint(CONDITIONAL_HINT)
        .caused_by(source)
}

/// The folders of `path` that do not exist, outermost first.
fn missing_folders(path: &FsPath) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = path.ancestors().take_while(|folder| !folder.exists()).map(FsPath::to_owned).collect();
    missing.reverse();
    missing
}
