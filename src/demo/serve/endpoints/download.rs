//! The body of a download: streamed from its file, and delayed, stalled or cut off by faults.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::AsyncReadExt;

use crate::demo::serve::http::answer::Body;
use crate::demo::serve::http::connection::Link;
use crate::demo::serve::jobs::store::Part;
use crate::demo::serve::state::State;

const CHUNK_BYTES: u64 = 256 * 1024;
/// Pieces per second of a slow download.
const PIECES_PER_SECOND: u64 = 20;

/// How a body is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
}

/// A download in progress.
pub(crate) struct Delivery {
    pub(crate) state: Arc<State>,
    pub(crate) link: Arc<Link>,
    pub(crate) object: String,
    pub(crate) file: tokio::fs::File,
    pub(crate) length: u64,
    pub(crate) sent: u64,
    pub(crate) end: Option<(u64, Ending)>,
    pub(crate) stall: Option<(u64, Duration)>,
    pub(crate) bytes_per_second: Option<u64>,
    /// Keeps the file when the job expires during the download.
    pub(crate) _part: Part,
}

impl Delivery {
    pub(crate) fn into_body(self) -> Body {
        let frames = stream::try_unfold(self, |mut delivery| async move {
            let next = delivery.next().await?;
            io::Result::Ok(next.map(|bytes| (Frame::data(bytes), delivery)))
        });
        StreamBody::new(frames).boxed_unsync()
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some((_, ending)) = self.end.filter(|(after, _)| self.sent >= *after) {
            self.link.flushed().await;
            if ending == Ending::Reset {
                self.link.reset_at_end();
            }
            return Err(io::Error::other("the download was cut off by a fault"));
        }
        if let Some((_, pause)) = self.stall.take_if(|(after, _)| self.sent >= *after) {
            tokio::time::sleep(pause).await;
        }
        if self.sent == self.length {
            return Ok(None);
        }
        let mut most = CHUNK_BYTES.min(self.length - self.sent);
        let walls = [self.end.map(|(after, _)| after), self.stall.map(|(after, _)| after)];
        for after in walls.into_iter().flatten() {
            most = most.min(after - self.sent);
        }
        if let Some(rate) = self.bytes_per_second {
            most = most.min((rate / PIECES_PER_SECOND).max(1));
            tokio::time::sleep(Duration::from_secs_f64(most as f64 / rate.max(1) as f64)).await;
        }
        let mut buffer = BytesMut::with_capacity(most as usize);
        let read = (&mut self.file).take(most).read_buf(&mut buffer).await? as u64;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.sent += read;
        self.state.tally.count(|counters| match counters.objects.get_mut(&self.object) {
            Some(traffic) => traffic.bytes += read,
            None => counters.objects.entry(self.object.clone()).or_default().bytes += read,
        });
        Ok(Some(buffer.freeze()))
    }
}
