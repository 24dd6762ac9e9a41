//! Streams the stored bytes of one object, and reconnects after errors.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Response, StatusCode};

use super::ObjectUrls;
use super::urls::Signed;
use crate::api::{Fault, ObjectId, Retry, RetryReason, network_fault, retry_after};
use crate::error::{Error, Kind, Result};
use crate::progress;

/// The limit for reading the text of an error response.
const MAX_ERROR_BYTES: usize = 4 << 10;

/// The stored bytes of one object. See [`open`].
pub struct ObjectStream(BoxStream<'static, Result<Bytes>>);

impl fmt::Debug for ObjectStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectStream")
    }
}

impl Stream for ObjectStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

/// Streams the stored bytes of an object, each exactly once and in order. No request is sent before the first poll, and nothing is read ahead
/// beyond the buffers of the connection.
///
/// After an interrupted, short or stalled response the download continues with a range request. If the store ignores ranges, the bytes are
/// transferred again and compared with the delivered ones. A stream that ends without an error has delivered as many bytes as announced.
///
/// Errors have the kinds `Expired` (the object no longer exists: run the query again), `Data` (the object has changed, or lengths are
/// inconsistent), and `Unavailable` or `Throttled` (retries are used up; every progress resets them).
pub fn open(urls: &ObjectUrls, id: &ObjectId) -> ObjectStream {
    let transfer = Transfer::new(urls, id);
    let unfold = |mut transfer: Transfer| async move { Ok(transfer.next().await?.map(|chunk| (chunk, transfer))) };
    ObjectStream(stream::try_unfold(transfer, unfold).boxed())
}

/// Identifies a version of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) etag: Option<String>,
    pub(super) modified: Option<String>,
    pub(super) total: Option<u64>,
}

/// The transfer of one object.
pub(super) struct Transfer {
    urls: ObjectUrls,
    id: ObjectId,
    retry: Retry,
    /// The number of delivered bytes, and their checksum below.
    at: u64,
    crc: crc32fast::Hasher,
    version: Version,
    /// Whether `version` is known from an earlier response or process.
    is_known: bool,
    body: Option<Body>,
    is_done: bool,
}

struct Body {
    response: Response,
    /// If the store ignored the range: the number of bytes still to be compared, and the checksum so far.
    repeated: Option<(u64, crc32fast::Hasher)>,
    /// The number of bytes still expected, if announced.
    left: Option<u64>,
}

enum Opened {
    Body(Body),
    /// The range begins at the end of the object.
    AtEnd,
    Retry(RetryReason, Error),
}

impl Transfer {
    pub(super) fn new(urls: &ObjectUrls, id: &ObjectId) -> Self {
        Self {
            urls: urls.clone(),
            id: id.clone(),
            retry: Retry::new(urls.client().retry_policy()),
            at: 0,
            crc: crc32fast::Hasher::new(),
            version: Version::default(),
            is_known: false,
            body: None,
            is_done: false,
        }
    }

    /// Continues after `at` bytes with checksum `crc` of this version, which an earlier process has downloaded.
    pub(super) fn resumed(urls: &ObjectUrls, id: &ObjectId, version: Version, at: u64, crc: crc32fast::Hasher) -> Self {
        Self { at, crc, version, is_known: true, ..Self::new(urls, id) }
    }

    /// The version of the object, known after [`Transfer::connect`].
    pub(super) fn version(&self) -> &Version {
        &self.version
    }

    /// The number of delivered bytes.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next bytes; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            self.connect().await?;
            let Some(body) = &mut self.body else { return Ok(None) };
            let idle = self.urls.client().idle_timeout();
            let fault = match tokio::time::timeout(idle, body.response.chunk()).await {
                Ok(Ok(Some(chunk))) if chunk.is_empty() => continue,
                Ok(Ok(Some(chunk))) => match self.accept(chunk)? {
                    Some(chunk) => return Ok(Some(chunk)),
                    None => continue,
                },
                Ok(Ok(None)) => {
                    if !self.missing() {
                        self.finish();
                        return Ok(None);
                    }
                    Error::new(Kind::Unavailable, "The download ended early")
                }
                Ok(Err(error)) => network_fault(error).error,
                Err(_) => {
                    Error::new(Kind::Unavailable, "The download stalled").with_field("idle_timeout", format_args!("{idle:?}"))
                }
            };
            self.body = None;
            let error = self.describe(fault);
            self.retry.wait(RetryReason::Fault, error).await?;
        }
    }

    /// Connects unless there is a response to read from or the end is reached.
    pub(super) async fn connect(&mut self) -> Result<()> {
        while self.body.is_none() && !self.is_done {
            let signed = self.urls.get(&self.id).await?;
            let attempt = self.retry.attempt();
            tracing::debug!(object = %self.id.0, attempt, at = self.at, "Opening an object");
            match self.request(&signed).await? {
                Opened::Body(body) => self.body = Some(body),
                Opened::AtEnd => self.finish(),
                Opened::Retry(reason, error) => {
                    let error = self.describe(error).with_field("host", host(&signed));
                    self.retry.wait(reason, error).await?;
                }
            }
        }
        Ok(())
    }

    async fn request(&mut self, signed: &Signed) -> Result<Opened> {
        let client = self.urls.client();
        let mut request = client.objects_http().get(signed.url.reveal().clone());
        if self.at > 0 {
            request = request.header(RANGE, format!("bytes={}-", self.at));
            // A weak ETag is not allowed here. The one in the response is compared in any case.
            if let Some(etag) = self.version.etag.as_deref().filter(|etag| !etag.starts_with("W/")) {
                request = request.header(IF_RANGE, etag);
            }
        }
        let idle = client.idle_timeout();
        let response = match tokio::time::timeout(idle, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let Fault { error, is_temporary } = network_fault(error);
                if is_temporary {
                    return Ok(Opened::Retry(RetryReason::Fault, error));
                }
                return Err(self.retry.annotate(self.describe(error).with_field("host", host(signed))));
            }
            Err(_) => {
                let error = Error::new(Kind::Unavailable, "The store does not respond")
                    .with_field("idle_timeout", format_args!("{idle:?}"));
                return Ok(Opened::Retry(RetryReason::Fault, error));
            }
        };
        self.judge(response, signed).await
    }

    async fn judge(&mut self, response: Response, signed: &Signed) -> Result<Opened> {
        let status = response.status();
        match status {
            StatusCode::OK => self.whole(response),
            StatusCode::PARTIAL_CONTENT => self.part(response),
            StatusCode::RANGE_NOT_SATISFIABLE if self.at > 0 => {
                let total = content_range(response.headers()).and_then(|range| range.total);
                match total.or(self.version.total) {
                    Some(total) if total == self.at => {
                        self.version.total = Some(total);
                        Ok(Opened::AtEnd)
                    }
                    _ => Err(self.changed()),
                }
            }
            _ => {
                let headers = response.headers().clone();
                let (status, code) = (status.as_u16(), store_code(response, self.urls.client().idle_timeout()).await);
                let error = |kind, message| {
                    let error = Error::new(kind, message).with_field("status", status);
                    match &code {
                        Some(code) => error.with_field("store_code", code),
                        None => error,
                    }
                };
                match status {
                    // For an expired signature S3 and Azure respond with 403, Google with 400.
                    400 | 401 | 403 => {
                        tracing::debug!(object = %self.id.0, status, "The store refused a URL; requesting a new one");
                        self.urls.refused(&self.id, signed);
                        let error = error(Kind::Unavailable, "The store refused a new URL").hint(
                            "check whether a proxy or firewall blocks the host, and whether this machine's clock is correct",
                        );
                        Ok(Opened::Retry(RetryReason::Stale, error))
                    }
                    404 | 410 => {
                        let error = error(Kind::Expired, "An object of the job has expired")
                            .hint("run the command again; objects expire 24 hours after their job was started");
                        Err(self.describe(error))
                    }
                    429 => Ok(Opened::Retry(
                        RetryReason::Throttled(retry_after(&headers)),
                        error(Kind::Throttled, "The store's request limit is exceeded"),
                    )),
                    408 | 425 | 500.. => {
                        let reason = match retry_after(&headers) {
                            Some(after) => RetryReason::Throttled(Some(after)),
                            None => RetryReason::Fault,
                        };
                        Ok(Opened::Retry(reason, error(Kind::Unavailable, "The store reported an internal error")))
                    }
                    300..=399 => {
                        let error = error(Kind::Unavailable, "The store's redirect was refused")
                            .hint("redirects from https to http and long chains of redirects are refused");
                        Err(self.retry.annotate(self.describe(error).with_field("host", host(signed))))
                    }
                    _ => {
                        let error = error(Kind::Unavailable, "The store refused the request");
                        Err(self.retry.annotate(self.describe(error).with_field("host", host(signed))))
                    }
                }
            }
        }
    }

    /// A response from the first byte on.
    fn whole(&mut self, response: Response) -> Result<Opened> {
        let length = number(response.headers(), CONTENT_LENGTH);
        self.same_version(response.headers(), length)?;
        let repeated = (self.at > 0).then(|| {
            tracing::debug!(object = %self.id.0, at = self.at, "The store ignores ranges; reading from the start");
            (self.at, crc32fast::Hasher::new())
        });
        Ok(Opened::Body(Body { response, repeated, left: length }))
    }

    /// A response to a range request.
    fn part(&mut self, response: Response) -> Result<Opened> {
        let length = number(response.headers(), CONTENT_LENGTH);
        let Some(ContentRange { first: Some((first, last)), total }) = content_range(response.headers()) else {
            let error = Error::new(Kind::Unavailable, "The store's response lacks the range that it contains");
            return Ok(Opened::Retry(RetryReason::Fault, error));
        };
        let span = last.checked_sub(first).and_then(|span| span.checked_add(1));
        let is_sound = first == self.at
            && span.is_some()
            && length.is_none_or(|length| Some(length) == span)
            && total.is_none_or(|total| last < total);
        if !is_sound {
            let error = Error::new(Kind::Unavailable, "The store sent a range other than the requested one")
                .with_field("part", format_args!("{first}-{last}"));
            return Ok(Opened::Retry(RetryReason::Fault, error));
        }
        self.same_version(response.headers(), total)?;
        Ok(Opened::Body(Body { response, repeated: None, left: span }))
    }

    /// Remembers the version in the first response. Later responses must have the same.
    fn same_version(&mut self, headers: &HeaderMap, total: Option<u64>) -> Result<()> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let found = Version { etag: text(ETAG), modified: text(LAST_MODIFIED), total };
        if self.is_known {
            let known = &self.version;
            let differ = |known: &Option<String>, found: &Option<String>| matches!((known, found), (Some(a), Some(b)) if opaque(a) != opaque(b));
            let tags_decide = known.etag.is_some() && found.etag.is_some();
            if differ(&known.etag, &found.etag)
                || (!tags_decide && differ(&known.modified, &found.modified))
                || matches!((known.total, found.total), (Some(a), Some(b)) if a != b)
            {
                return Err(self.changed());
            }
            self.version.total = self.version.total.or(found.total);
        } else {
            self.version = found;
            self.is_known = true;
        }
        match self.version.total {
            Some(total) if total < self.at => Err(self.changed()),
            _ => Ok(()),
        }
    }

    /// Verifies a chunk. Returns `None` if it only repeats delivered bytes.
    fn accept(&mut self, mut chunk: Bytes) -> Result<Option<Bytes>> {
        let Some(body) = &mut self.body else { return Ok(None) };
        if let Some(left) = &mut body.left {
            match left.checked_sub(chunk.len() as u64) {
                Some(rest) => *left = rest,
                None => return Err(self.describe(Error::new(Kind::Data, "The download is longer than announced"))),
            }
        }
        if let Some((left, crc)) = &mut body.repeated {
            let repeated = chunk.split_to(usize::try_from(*left).unwrap_or(usize::MAX).min(chunk.len()));
            crc.update(&repeated);
            *left -= repeated.len() as u64;
            // Counts as traffic, though not as progress.
            progress::moved_bytes(repeated.len() as u64);
            if *left == 0 {
                if crc.clone().finalize() != self.crc.clone().finalize() {
                    return Err(self.changed());
                }
                body.repeated = None;
            }
            if chunk.is_empty() {
                return Ok(None);
            }
        }
        let at = self.at + chunk.len() as u64;
        if self.version.total.is_some_and(|total| at > total) {
            return Err(self.describe(Error::new(Kind::Data, "The download is longer than announced")));
        }
        self.at = at;
        self.crc.update(&chunk);
        self.retry.progressed();
        progress::moved_bytes(chunk.len() as u64);
        Ok(Some(chunk))
    }

    /// Whether the response ended before all announced bytes.
    fn missing(&self) -> bool {
        let repeating = self.body.as_ref().is_some_and(|body| body.repeated.is_some());
        let announced = self.body.as_ref().and_then(|body| body.left).unwrap_or(0);
        repeating || announced > 0 || self.version.total.is_some_and(|total| self.at < total)
    }

    fn finish(&mut self) {
        self.is_done = true;
        self.body = None;
        self.urls.done(&self.id);
    }

    fn changed(&self) -> Error {
        self.describe(Error::new(Kind::Data, "An object changed while it was downloaded")).hint("run the command again")
    }

    fn describe(&self, error: Error) -> Error {
        let error = error.with_field("job", self.urls.job()).with_field("object", &self.id.0).with_field("received", self.at);
        match self.version.total {
            Some(total) => error.with_field("expected", total),
            None => error,
        }
    }
}

fn host(signed: &Signed) -> &str {
    signed.url.reveal().host_str().unwrap_or_default()
}

/// The ETag without the prefix of weak ones.
fn opaque(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

fn number(headers: &HeaderMap, name: reqwest::header::HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    /// The first and the last byte; `None` for `bytes */n`.
    first: Option<(u64, u64)>,
    total: Option<u64>,
}

fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim();
    let (span, total) = text.strip_prefix("bytes")?.trim_start().split_once('/')?;
    let first = match span.trim() {
        "*" => None,
        span => {
            let (first, last) = span.split_once('-')?;
            Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
        }
    };
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some(ContentRange { first, total })
}

/// The `<Code>` in an XML response of S3 and compatible stores. The rest of the response repeats parts of the signature.
async fn store_code(mut response: Response, idle: std::time::Duration) -> Option<String> {
    let mut text = Vec::new();
    while text.len() < MAX_ERROR_BYTES {
        match tokio::time::timeout(idle.min(std::time::Duration::from_secs(5)), response.chunk()).await {
            Ok(Ok(Some(chunk))) => text.extend_from_slice(&chunk[..chunk.len().min(MAX_ERROR_BYTES)]),
            _ => break,
        }
    }
    let text = String::from_utf8_lossy(&text);
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    (code.len() <= 64 && code.chars().all(|c| c.is_ascii_alphanumeric())).then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, text.parse().unwrap());
            content_range(&headers)
        };
        assert_eq!(read("bytes 5-9/10"), Some(ContentRange { first: Some((5, 9)), total: Some(10) }));
        assert_eq!(read("bytes 5-9/*"), Some(ContentRange { first: Some((5, 9)), total: None }));
        assert_eq!(read("bytes */10"), Some(ContentRange { first: None, total: Some(10) }));
        for odd in ["items 0-1/2", "bytes 5/10", "bytes a-b/c", "bytes 0-1"] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }
}
