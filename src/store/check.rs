//! The check of a target before a run: creates, reads and deletes one object in the way commits do.

use std::path::{Path as FsPath, PathBuf};
use std::time::{Duration, Instant};

use object_store::{Error as StoreError, ObjectStoreExt, PutMode, PutOptions};

use super::Place;
use crate::error::{Error, Kind, Result};

/// The prefix of the names of test objects.
const PREFIX: &str = ".daplake-check-";
/// An older object was left behind by a check that was killed.
const LEFTOVER_AGE: chrono::TimeDelta = chrono::TimeDelta::hours(1);
const MAX_FAILURES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_TIME: Duration = Duration::from_secs(30);

const FOLDER_HINT: &str = "use a writable folder on a file system with hard links";
const CONDITIONAL_HINT: &str = "use a store that supports `If-None-Match` on puts (Amazon S3, Azure, Google Cloud, R2, and current versions of MinIO, Ceph and others), or a local folder";

impl Place {
    /// Creates, reads and deletes an object in the way commits do, so that wrong credentials, a read-only folder or a store without
    /// conditional writes is found before any job is started. Leaves nothing behind.
    pub async fn check(&self) -> Result<()> {
        let Some(folder) = self.folder() else { return try_commit_way(self).await };
        let made = missing_folders(folder);
        let usable = match std::fs::create_dir_all(folder) {
            Ok(()) => try_commit_way(self).await,
            Err(error) => Err(self.unusable(error).hint("use a writable folder")),
        };
        // Only empty folders are removed, so the tables of another run are safe.
        for folder in made.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
        usable
    }
}

async fn try_commit_way(place: &Place) -> Result<()> {
    let store = place.store();
    let name = format!("{PREFIX}{}", uuid::Uuid::new_v4());
    let path = place.root().clone().join(name.as_str());
    let put = || store.put_opts(&path, name.clone().into(), PutOptions::from(PutMode::Create));
    let read = async || store.get(&path).await?.bytes().await;
    let mut attempts = Attempts::new(place);
    let made = loop {
        match put().await {
            Ok(_) => break Ok(()),
            // The name is unique: an earlier attempt, whose response was lost, has stored it.
            Err(StoreError::AlreadyExists { .. }) => break Ok(()),
            Err(error) if attempts.wait(&error).await => {}
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = made {
        // It may have been stored nevertheless.
        let _ = tokio::time::timeout(MAX_TIME, store.delete(&path)).await;
        return Err(match error {
            StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => unconditional(place, error),
            error if place.folder().is_none() && error.to_string().contains("NotImplemented") => unconditional(place, error),
            error if place.folder().is_some() => place.unusable(error).hint(FOLDER_HINT),
            error => place.unusable(error),
        });
    }
    let mut attempts = Attempts::new(place);
    let found = loop {
        match read().await {
            Err(error) if attempts.wait(&error).await => {}
            found => break found,
        }
    };
    let mut attempts = Attempts::new(place);
    let second = loop {
        match put().await {
            Err(error) if attempts.wait(&error).await => {}
            second => break second,
        }
    };
    let mut attempts = Attempts::new(place);
    let removed = loop {
        match store.delete(&path).await {
            Err(StoreError::NotFound { .. }) => break Ok(()),
            Err(error) if attempts.wait(&error).await => {}
            removed => break removed,
        }
    };
    if found.map_err(|error| place.unusable(error))? != name {
        return Err(place.unusable("a file was read back with other content"));
    }
    match second {
        Err(StoreError::AlreadyExists { .. }) => {}
        Err(error) => return Err(place.unusable(error)),
        Ok(_) if place.folder().is_some() => {
            return Err(place
                .unusable("an existing file could be created again, so two runs could overwrite each other")
                .hint(FOLDER_HINT));
        }
        Ok(_) => return Err(unconditional(place, "an existing object was overwritten in spite of `If-None-Match: *`")),
    }
    removed.map_err(|error| place.unusable(error).hint("the credentials must also allow deleting objects"))?;
    remove_leftovers(place).await;
    Ok(())
}

/// Removes objects that killed checks have left behind. A failure is only logged.
async fn remove_leftovers(place: &Place) {
    let store = place.store();
    let listed = match store.list_with_delimiter(Some(place.root())).await {
        Ok(listed) => listed.objects,
        Err(error) => return tracing::debug!(%error, "Cannot list the objects of earlier checks"),
    };
    for object in listed {
        let is_leftover = object.location.filename().is_some_and(|name| name.starts_with(PREFIX));
        if is_leftover
            && chrono::Utc::now() - object.last_modified > LEFTOVER_AGE
            && let Err(error) = store.delete(&object.location).await
        {
            tracing::debug!(file = %object.location, %error, "Cannot delete the object of an earlier check");
        }
    }
}

/// Retries of the check after temporary errors of an object store. `object_store` does not repeat a conditional put after a lost connection,
/// since the response would not show whether an earlier attempt has succeeded.
struct Attempts<'a> {
    place: &'a Place,
    begun: Instant,
    failures: u32,
}

impl<'a> Attempts<'a> {
    fn new(place: &'a Place) -> Self {
        Self { place, begun: Instant::now(), failures: 0 }
    }

    /// Waits before the next attempt. Returns `false` if the error is permanent or the attempts are used up.
    async fn wait(&mut self, error: &StoreError) -> bool {
        let may_pass = self.place.folder().is_none() && super::failure::may_pass(error);
        if !may_pass || self.failures >= MAX_FAILURES || self.begun.elapsed() > MAX_TIME {
            return false;
        }
        self.failures += 1;
        tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(self.failures - 1)).await;
        true
    }
}

fn unconditional(place: &Place, source: impl Into<crate::error::BoxError>) -> Error {
    Error::new(Kind::Target, "The object store has no conditional writes, so two runs could overwrite each other")
        .with_field("target", place.location())
        .hint(CONDITIONAL_HINT)
        .caused_by(source)
}

/// The missing folders of `path`, outermost first.
fn missing_folders(path: &FsPath) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = path.ancestors().take_while(|folder| !folder.exists()).map(FsPath::to_owned).collect();
    missing.reverse();
    missing
}
