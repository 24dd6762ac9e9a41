//! Valid pre-signed URLs for the objects of one job.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use url::Url;

use crate::api::{Client, FinishedJob, ObjectId};
use crate::error::{Error, Kind, Result};
use crate::model::Timestamp;
use crate::redact::SafeUrl;

/// The number of objects per request. The service documents no limit; if it refuses a batch, smaller ones are tried.
const BATCH: usize = 128;
/// The assumed lifetime of a URL without an expiry time. 15 minutes are typical.
const UNKNOWN_LIFE: Duration = Duration::from_secs(15 * 60);
/// A URL is not used during the last five minutes of its lifetime, or its last third if that is shorter.
const MARGIN: Duration = Duration::from_secs(5 * 60);

/// The URLs of the objects of one job. Clones share them, and concurrent downloads cause a single request.
#[derive(Clone)]
pub struct ObjectUrls(Arc<Inner>);

struct Inner {
    client: Client,
    job: String,
    ids: Vec<ObjectId>,
    position: HashMap<ObjectId, usize>,
    known: Mutex<Known>,
    /// Held during a request, so that concurrent callers use its result.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    urls: HashMap<ObjectId, Signed>,
    next_stamp: u64,
    /// The largest batch that the service accepts; 0 means [`BATCH`].
    largest_batch: usize,
    /// File names in lower case, since file systems may ignore letter case, with their objects.
    names: HashMap<String, ObjectId>,
}

/// A URL with the number of the request that returned it.
#[derive(Clone)]
pub(super) struct Signed {
    pub(super) url: SafeUrl,
    stamp: u64,
    use_until: Instant,
}

impl fmt::Debug for ObjectUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectUrls").field("job", &self.0.job).field("objects", &self.0.ids.len()).finish_non_exhaustive()
    }
}

impl ObjectUrls {
    /// The URLs of the objects of `job`. Sends no request yet.
    pub fn new(client: &Client, job: &FinishedJob) -> Self {
        Self::of(client, &job.id, job.objects.clone())
    }

    /// The URLs of `objects` of the job `job`, in the order in which they will be downloaded.
    pub fn of(client: &Client, job: &str, objects: Vec<ObjectId>) -> Self {
        Self(Arc::new(Inner {
            client: client.clone(),
            job: job.to_owned(),
            position: objects.iter().cloned().enumerate().map(|(position, id)| (id, position)).collect(),
            ids: objects,
            known: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }))
    }

    /// Reserves a file name for an object. Fails with kind `Data` if another object of the job has the same name, so that none overwrites the
    /// other. A run that skips objects must claim their names first.
    pub fn claim_name(&self, name: &str, id: &ObjectId) -> Result<()> {
        let owner = self.known().names.entry(name.to_lowercase()).or_insert_with(|| id.clone()).clone();
        if owner == *id {
            return Ok(());
        }
        Err(Error::new(Kind::Data, "Two objects of the job have the same file name")
            .with_field("job", &self.0.job)
            .with_field("object", &id.0)
            .with_field("other_object", &owner.0)
            .with_field("file", format_args!("{name:?}")))
    }

    /// The file name in the object's URL, which [`spool`](super::spool) uses. Requests the URL if necessary. Fails with kind `Data` if it is not
    /// a plain file name, and with kind `Expired` if the object no longer exists.
    pub async fn file_name(&self, id: &ObjectId) -> Result<String> {
        let signed = self.get(id).await?;
        super::file_name::file_name(signed.url.reveal())
            .map_err(|error| error.with_field("object", &id.0).with_field("job", &self.0.job))
    }

    pub(super) fn client(&self) -> &Client {
        &self.0.client
    }

    pub(super) fn job(&self) -> &str {
        &self.0.job
    }

    /// A URL that is not about to expire. Fails with kind `Expired` if the object no longer exists.
    pub(super) async fn get(&self, id: &ObjectId) -> Result<Signed> {
        if let Some(signed) = self.known().usable(id) {
            return Ok(signed);
        }
        let _asking = self.0.asking.lock().await;
        if let Some(signed) = self.known().usable(id) {
            return Ok(signed);
        }
        loop {
            let batch = self.batch(id);
            match self.ask(&batch).await {
                // The batch is too large, or one of its other objects no longer exists.
                Err(error)
                    if batch.len() > 1 && matches!(error.kind(), Kind::Expired | Kind::Data | Kind::NotFound | Kind::Job) =>
                {
                    self.known().largest_batch = batch.len() / 2;
                }
                other => break other?,
            }
        }
        // Just requested, so it is used even if it expires too soon for a second use.
        self.known().urls.get(id).cloned().ok_or_else(|| Error::new(Kind::Bug, "A URL was lost").with_field("object", &id.0))
    }

    /// The store rejected the URL.
    pub(super) fn refused(&self, id: &ObjectId, signed: &Signed) {
        let mut known = self.known();
        if known.urls.get(id).is_some_and(|current| current.stamp == signed.stamp) {
            known.urls.remove(id);
        }
    }

    /// The object is complete, and its URL no longer needed.
    pub(super) fn done(&self, id: &ObjectId) {
        self.known().urls.remove(id);
    }

    /// `id` and the objects that will probably be needed next.
    fn batch(&self, id: &ObjectId) -> Vec<ObjectId> {
        let known = self.known();
        let following = self.0.position.get(id).map_or(&[][..], |position| &self.0.ids[position + 1..]);
        let largest = if known.largest_batch == 0 { BATCH } else { known.largest_batch };
        // Only the next ones in order: a URL that is requested too early expires before it is used.
        let upcoming = following.iter().take(largest - 1).filter(|next| known.usable(next).is_none());
        std::iter::once(id).chain(upcoming).cloned().collect()
    }

    async fn ask(&self, ids: &[ObjectId]) -> Result<()> {
        let asked = Instant::now();
        let urls = self.0.client.object_urls(ids).await.map_err(|error| error.with_field("job", &self.0.job))?;
        let now = self.0.client.server_now();
        let mut known = self.known();
        known.urls.retain(|_, signed| signed.use_until > asked);
        for (id, url) in ids.iter().zip(urls) {
            let life = life(url.reveal(), now).unwrap_or(UNKNOWN_LIFE);
            let use_until = asked + life.saturating_sub(MARGIN.min(life / 3));
            let stamp = known.next_stamp;
            known.next_stamp += 1;
            known.urls.insert(id.clone(), Signed { url, stamp, use_until });
        }
        tracing::debug!(job = %self.0.job, objects = ids.len(), "Got object URLs");
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock()
    }
}

impl Known {
    fn usable(&self, id: &ObjectId) -> Option<Signed> {
        self.urls.get(id).filter(|signed| Instant::now() < signed.use_until).cloned()
    }
}

/// The remaining lifetime of a signed URL according to its parameters: S3, Google, Azure, or `Expires` in seconds since the epoch.
fn life(url: &Url, now: Timestamp) -> Option<Duration> {
    let get = |names: &[&str]| {
        url.query_pairs().find(|(name, _)| names.iter().any(|known| name.eq_ignore_ascii_case(known))).map(|(_, value)| value)
    };
    let since = |time: Timestamp| time.micros().saturating_sub(now.micros());
    let micros = if let Some(seconds) = get(&["X-Amz-Expires", "X-Goog-Expires"]).and_then(|text| text.parse::<u32>().ok()) {
        let signed_at = get(&["X-Amz-Date", "X-Goog-Date"])
            .and_then(|text| NaiveDateTime::parse_from_str(&text, "%Y%m%dT%H%M%SZ").ok())
            .map_or(0, |time| since(Timestamp::from_micros(time.and_utc().timestamp_micros())));
        // A signature in the future means that a clock is wrong.
        i64::from(seconds) * 1_000_000 + signed_at.min(0)
    } else if let Some(time) = get(&["se"]).and_then(|text| DateTime::parse_from_rfc3339(&text).ok()) {
        since(Timestamp::from_micros(time.timestamp_micros()))
    } else {
        let seconds = get(&["Expires"])?.parse::<i64>().ok()?;
        since(Timestamp::from_micros(seconds.checked_mul(1_000_000)?))
    };
    // No store signs URLs for longer than a week.
    Some(Duration::from_micros(micros.clamp(0, 7 * 86_400_000_000) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_life_of_a_url_is_read_from_its_parameters() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let life = |query: &str| life(&Url::parse(&format!("https://h/p?{query}")).unwrap(), now).map(|life| life.as_secs());
        assert_eq!(life("X-Amz-Expires=900&X-Amz-Date=20260102T030405Z"), Some(900));
        assert_eq!(life("X-Amz-Expires=900&X-Amz-Date=20260102T030005Z"), Some(660));
        assert_eq!(life("X-Amz-Expires=900&X-Amz-Date=20260102T040005Z"), Some(900));
        assert_eq!(life("X-Amz-Expires=900"), Some(900));
        assert_eq!(life("X-Goog-Date=20260102T030405Z&X-Goog-Expires=60"), Some(60));
        assert_eq!(life("sv=2020&se=2026-01-02T03%3A14%3A05Z&sig=x"), Some(600));
        assert_eq!(life("Expires=1767323165&Signature=x"), Some(120));
        assert_eq!(life("Expires=1"), Some(0));
        assert_eq!(life("a=b"), None);
        assert_eq!(life("X-Amz-Expires=soon"), None);
    }
}
