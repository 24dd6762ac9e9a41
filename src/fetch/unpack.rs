//! Decompresses a stream of bytes on a dedicated thread. The decompression itself is in `gunzip.rs`.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt};

use super::gunzip::{Gunzip, UnpackLimits};
use crate::error::{Error, Kind, Result};
use crate::model::Format;
use crate::worker_thread::WorkerThread;

/// Compressed bytes per piece of CPU work, which takes about a millisecond.
const INPUT_BYTES: usize = 128 << 10;
/// The size of an output chunk in bytes.
const CHUNK_BYTES: usize = 512 << 10;
/// Output chunks per piece of work, which bounds the memory of a stream.
const MAX_CHUNKS: usize = 4;

/// The decompressed content of an object. See [`unpacked`].
pub struct Unpacked(BoxStream<'static, Result<Bytes>>);

impl fmt::Debug for Unpacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unpacked")
    }
}

impl Stream for Unpacked {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

/// Decompresses `raw` for text formats; Parquet is passed through. The stream ends after the first error. If it ends without one, the object
/// was complete: every gzip member, checksum and length was verified.
///
/// Must be polled within a tokio runtime. Can be dropped at any time.
pub fn unpacked<S>(raw: S, format: Format) -> Unpacked
where
    S: Stream<Item = Result<Bytes>> + Send + Unpin + 'static,
{
    unpacked_within(raw, format, UnpackLimits::default())
}

/// Like [`unpacked`], with other limits against decompression bombs.
pub fn unpacked_within<S>(raw: S, format: Format, limits: UnpackLimits) -> Unpacked
where
    S: Stream<Item = Result<Bytes>> + Send + Unpin + 'static,
{
    if !format.is_gzip() {
        return Unpacked(raw.boxed());
    }
    let work = Work { gunzip: Gunzip::new(limits), input: VecDeque::new(), output: VecDeque::new(), is_full: false };
    let unpacking = Unpacking { raw, thread: None, work: Some(Box::new(work)), has_ended: false };
    let unfold = |mut unpacking: Unpacking<S>| async move { Ok(unpacking.next().await?.map(|chunk| (chunk, unpacking))) };
    Unpacked(stream::try_unfold(unpacking, unfold).boxed())
}

struct Unpacking<S> {
    raw: S,
    /// Started with the first piece of work.
    thread: Option<WorkerThread>,
    /// `None` only while the thread has it.
    work: Option<Box<Work>>,
    has_ended: bool,
}

/// The state that is passed to the thread and back.
struct Work {
    gunzip: Gunzip,
    input: VecDeque<Bytes>,
    output: VecDeque<Bytes>,
    /// Whether more output may follow without further input.
    is_full: bool,
}

impl<S: Stream<Item = Result<Bytes>> + Unpin> Unpacking<S> {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut work = self.work.take().ok_or_else(|| Error::new(Kind::Bug, "A stream was polled after its end"))?;
        loop {
            if let Some(chunk) = work.output.pop_front() {
                self.work = Some(work);
                return Ok(Some(chunk));
            }
            self.gather(&mut work).await?;
            if self.has_ended && work.input.is_empty() && !work.is_full {
                work.gunzip.finish()?;
                return Ok(None);
            }
            let thread = match &self.thread {
                Some(thread) => thread,
                None => self.thread.insert(WorkerThread::start("unpack")?),
            };
            work = thread.run(move || work.run().map(|()| work)).await??;
        }
    }

    async fn gather(&mut self, work: &mut Work) -> Result<()> {
        let mut gathered: usize = work.input.iter().map(Bytes::len).sum();
        while gathered < INPUT_BYTES && !self.has_ended && !work.is_full {
            match self.raw.next().await {
                Some(chunk) => {
                    let chunk = chunk?;
                    gathered += chunk.len();
                    if !chunk.is_empty() {
                        work.input.push_back(chunk);
                    }
                }
                None => self.has_ended = true,
            }
        }
        Ok(())
    }
}

impl Work {
    /// Decompresses until the input is used up or the output is full.
    fn run(&mut self) -> Result<()> {
        while self.output.len() < MAX_CHUNKS && (self.is_full || !self.input.is_empty()) {
            // Typical text is compressed eightfold; small inputs need no large buffer.
            let left: usize = self.input.iter().map(Bytes::len).sum();
            let mut chunk = Vec::with_capacity(left.saturating_mul(8).clamp(16 << 10, CHUNK_BYTES));
            loop {
                let input = self.input.front().map_or(&[][..], |input| input);
                let step = self.gunzip.step(input, &mut chunk)?;
                self.is_full = step.is_full;
                if let Some(input) = self.input.front_mut() {
                    let _ = input.split_to(step.consumed);
                    if input.is_empty() {
                        self.input.pop_front();
                    }
                }
                if self.is_full || self.input.is_empty() {
                    break;
                }
            }
            if !chunk.is_empty() {
                self.output.push_back(chunk.into());
            }
        }
        Ok(())
    }
}
