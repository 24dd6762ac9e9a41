//! The cheapest real write: makes, reads and removes an object the way commits are made.

use std::path::{Path as FsPath, PathBuf};
use std::time::{Duration, Instant};

use object_store::{Error as StoreError, ObjectStoreExt, PutMode, PutOptions};

use super::Place;
use crate::error::{Error, Kind, Result};

/// Names of the objects begin so.
const PREFIX: &str = ".daplake-check-";
/// An object of another check that is older was left by it.
const LEFTOVER_AGE: chrono::TimeDelta = chrono::TimeDelta::hours(1);
const MAX_FAILURES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MAX_PATIENCE: Duration = Duration::from_secs(30);

const FOLDER_HINT: &str = "name a folder that you may write to, on a file system that has hard links";
const CONDITIONAL_HINT: &str = "use a store that honours `If-None-Match` on puts (Amazon S3, Azure, Google Cloud, R2, MinIO, Ceph and others of late versions), or a local folder";

impl Place {
    /// Writes, reads and removes an object the way commits are made, so that a wrong password, a read-only folder or a store
    /// without conditional writes shows before anything is paid for. Leaves nothing behind.
    pub async fn check(&self) -> Result<()> {
        let Some(folder) = self.folder() else { return try_commit_way(self).await };
        let made = missing_folders(folder);
        let usable = match std::fs::create_dir_all(folder) {
            Ok(()) => try_commit_way(self).await,
            Err(error) => Err(self.unusable(error).hint("name a folder that you may write to")),
        };
        // Only empty ones go, so another run's tables are safe.
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
    let mut patience = Patience::new(place);
    let made = loop {
        match put().await {
            Ok(_) => break Ok(()),
            // The name is ours alone: an attempt whose answer was lost has stored it.
            Err(StoreError::AlreadyExists { .. }) => break Ok(()),
            Err(error) if patience.goes_on(&error).await => {}
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = made {
        // It may have been stored all the same.
        let _ = tokio::time::timeout(MAX_PATIENCE, store.delete(&path)).await;
        return Err(match error {
            StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => unconditional(place, error),
            error if place.folder().is_none() && error.to_string().contains("NotImplemented") => unconditional(place, error),
            error if place.folder().is_some() => place.unusable(error).hint(FOLDER_HINT),
            error => place.unusable(error),
        });
    }
    let mut patience = Patience::new(place);
    let found = loop {
        match read().await {
            Err(error) if patience.goes_on(&error).await => {}
            found => break found,
        }
    };
    let mut patience = Patience::new(place);
    let second = loop {
        match put().await {
            Err(error) if patience.goes_on(&error).await => {}
            second => break second,
        }
    };
    let mut patience = Patience::new(place);
    let removed = loop {
        match store.delete(&path).await {
            Err(StoreError::NotFound { .. }) => break Ok(()),
            Err(error) if patience.goes_on(&error).await => {}
            removed => break removed,
        }
    };
    if found.map_err(|error| place.unusable(error))? != name {
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
    removed.map_err(|error| place.unusable(error).hint("deleting must be allowed, too"))?;
    remove_leftovers(place).await;
    Ok(())
}

/// Removes what checks that were killed have left. It changes nothing that matters, so a failure is for the log.
async fn remove_leftovers(place: &Place) {
    let store = place.store();
    let listed = match store.list_with_delimiter(Some(place.root())).await {
        Ok(listed) => listed.objects,
        Err(error) => return tracing::debug!(%error, "Leftovers of earlier checks could not be looked for"),
    };
    for object in listed {
        let is_ours = object.location.filename().is_some_and(|name| name.starts_with(PREFIX));
        if is_ours
            && chrono::Utc::now() - object.last_modified > LEFTOVER_AGE
            && let Err(error) = store.delete(&object.location).await
        {
            tracing::debug!(file = %object.location, %error, "A leftover of an earlier check could not be removed");
        }
    }
}

/// How long the check of an object store goes on after passing faults. `object_store` has tried what it tries: a put under a condition
/// is not sent again after a lost connection, since its answer would not say whose object is there.
struct Patience<'a> {
    place: &'a Place,
    begun: Instant,
    failures: u32,
}

impl<'a> Patience<'a> {
    fn new(place: &'a Place) -> Self {
        Self { place, begun: Instant::now(), failures: 0 }
    }

    /// Waits before another attempt, if the fault may pass.
    async fn goes_on(&mut self, error: &StoreError) -> bool {
        let may_pass = self.place.folder().is_none() && super::failure::may_pass(error);
        if !may_pass || self.failures >= MAX_FAILURES || self.begun.elapsed() > MAX_PATIENCE {
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

/// The folders of `path` that do not exist, outermost first.
fn missing_folders(path: &FsPath) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = path.ancestors().take_while(|folder| !folder.exists()).map(FsPath::to_owned).collect();
    missing.reverse();
    missing
}
