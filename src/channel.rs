//! Bounded channels from producers (tasks or threads) to readers.
//!
//! The end of a channel is not the end of the data: a producer that panics, is aborted or is dropped also closes its side. A stream of this
//! module therefore ends only after every producer has returned without an error; in all other cases its reader gets an error.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use futures::Stream;
use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{Instrument, Span};

use crate::error::{Error, Kind};
use crate::panics::{self, Panicked};

const STOPPED: &str = "A background task stopped unexpectedly";

/// The error type of a channel.
pub(crate) trait Failure: Send + 'static {
    /// The failure for an error.
    fn of(error: Error) -> Self;

    /// Copies of the failure, one per reader.
    fn for_readers(self, readers: usize) -> Vec<Self>
    where
        Self: Sized;
}

impl Failure for Error {
    fn of(error: Error) -> Self {
        error
    }

    fn for_readers(self, readers: usize) -> Vec<Self> {
        let copies: Vec<Self> = (1..readers).map(|_| self.copy()).collect();
        std::iter::once(self).chain(copies).collect()
    }
}

/// A channel under construction: add producers, then call [`Channel::build`].
pub(crate) struct Channel<T, E> {
    senders: Vec<mpsc::Sender<Result<T, E>>>,
    receivers: Vec<mpsc::Receiver<Result<T, E>>>,
    producers: JoinSet<()>,
    count: usize,
    finished: Arc<AtomicUsize>,
}

/// The output of a producer. Must not outlive the producer.
pub(crate) struct Sender<T, E> {
    outputs: Vec<mpsc::Sender<Result<T, E>>>,
}

/// The stream of the producers' items, which ends only after all of them have finished. Dropping the last stream of a channel aborts the
/// producers.
pub(crate) struct Items<T, E> {
    receiver: mpsc::Receiver<Result<T, E>>,
    finished: Arc<AtomicUsize>,
    count: usize,
    has_ended: bool,
    producers: Option<Arc<JoinSet<()>>>,
}

/// A stream of one producer, at most `capacity` items ahead of the reader. Must be called within a tokio runtime.
pub(crate) fn from_task<T, E, F>(
    capacity: usize,
    span: Span,
    produce: impl FnOnce(Sender<T, E>) -> F + Send + 'static,
) -> Items<T, E>
where
    T: Send + 'static,
    E: Failure,
    F: Future<Output = Result<(), E>> + Send + 'static,
{
    let mut channel = Channel::new(1, capacity);
    channel.spawn(span, produce);
    channel.single()
}

/// As [`from_task`], for a producer that blocks its thread.
pub(crate) fn from_thread<T: Send + 'static, E: Failure>(
    capacity: usize,
    span: Span,
    produce: impl FnOnce(Sender<T, E>) -> Result<(), E> + Send + 'static,
) -> Items<T, E> {
    let mut channel = Channel::new(1, capacity);
    channel.spawn_blocking(span, produce);
    channel.single()
}

impl<T: Send + 'static, E: Failure> Channel<T, E> {
    /// A channel with `outputs` streams, each of which buffers up to `capacity` items.
    pub(crate) fn new(outputs: usize, capacity: usize) -> Self {
        let (senders, receivers) = (0..outputs.max(1)).map(|_| mpsc::channel(capacity.max(1))).unzip();
        Self { senders, receivers, producers: JoinSet::new(), count: 0, finished: Arc::default() }
    }

    /// Adds a task as a producer.
    pub(crate) fn spawn<F>(&mut self, span: Span, produce: impl FnOnce(Sender<T, E>) -> F + Send + 'static)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let (sender, finished) = self.producer();
        let work = async move {
            let given = sender.clone();
            let ended = panics::caught_async(async { produce(given).await }).await;
            match outcome(ended) {
                Ok(()) => _ = finished.fetch_add(1, Ordering::Release),
                Err(error) => sender.fail(error).await,
            }
        };
        self.producers.spawn(work.instrument(span));
    }

    /// Adds a producer that blocks its thread.
    pub(crate) fn spawn_blocking(&mut self, span: Span, produce: impl FnOnce(Sender<T, E>) -> Result<(), E> + Send + 'static) {
        let (sender, finished) = self.producer();
        self.producers.spawn_blocking(move || {
            let _within = span.entered();
            let given = sender.clone();
            match outcome(panics::caught(|| produce(given))) {
                Ok(()) => _ = finished.fetch_add(1, Ordering::Release),
                Err(error) => sender.fail_blocking(error),
            }
        });
    }

    fn producer(&mut self) -> (Sender<T, E>, Arc<AtomicUsize>) {
        self.count += 1;
        (Sender { outputs: self.senders.clone() }, Arc::clone(&self.finished))
    }

    /// One stream per output. All of them get the failure of a producer.
    pub(crate) fn build(self) -> Vec<Items<T, E>> {
        let producers = Arc::new(self.producers);
        let items = |receiver| Items {
            receiver,
            finished: Arc::clone(&self.finished),
            count: self.count,
            has_ended: false,
            producers: Some(Arc::clone(&producers)),
        };
        self.receivers.into_iter().map(items).collect()
    }

    /// The stream of the first output.
    pub(crate) fn single(mut self) -> Items<T, E> {
        self.receivers.truncate(1);
        self.senders.truncate(1);
        let receiver = self.receivers.remove(0);
        let producers = Some(Arc::new(self.producers));
        Items { receiver, finished: self.finished, count: self.count, has_ended: false, producers }
    }
}

fn outcome<E: Failure>(ended: Result<Result<(), E>, Panicked>) -> Result<(), E> {
    ended.unwrap_or_else(|panicked| Err(E::of(panicked.into_error(Kind::Bug, STOPPED))))
}

impl<T, E> Clone for Sender<T, E> {
    fn clone(&self) -> Self {
        Self { outputs: self.outputs.clone() }
    }
}

impl<T, E> std::fmt::Debug for Sender<T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("outputs", &self.outputs.len()).finish()
    }
}

impl<T: Send + 'static, E: Failure> Sender<T, E> {
    /// Sends to the first output and waits for room. Fails if the reader is gone, which ends the producer.
    pub(crate) async fn send(&self, item: T) -> Result<(), E> {
        self.send_to(0, item).await
    }

    /// Sends to one output. Items for a dropped output are discarded as long as other outputs are read.
    pub(crate) async fn send_to(&self, output: usize, item: T) -> Result<(), E> {
        let sent = match self.outputs.get(output) {
            Some(sender) => sender.send(Ok(item)).await.is_ok(),
            None => return Err(E::of(Error::new(Kind::Bug, "Rows were sent to an output that does not exist"))),
        };
        if sent || self.outputs.iter().any(|output| !output.is_closed()) { Ok(()) } else { Err(gone()) }
    }

    /// As [`Sender::send`], blocking the thread.
    pub(crate) fn send_blocking(&self, item: T) -> Result<(), E> {
        let sent = self.outputs.first().is_some_and(|sender| sender.blocking_send(Ok(item)).is_ok());
        if sent { Ok(()) } else { Err(gone()) }
    }

    async fn fail(&self, error: E) {
        let errors = error.for_readers(self.outputs.len());
        // Concurrently: one reader may wait for another.
        join_all(self.outputs.iter().zip(errors).map(|(output, error)| output.send(Err(error)))).await;
    }

    fn fail_blocking(&self, error: E) {
        for (output, error) in self.outputs.iter().zip(error.for_readers(self.outputs.len())) {
            // The reader may be gone.
            let _ = output.blocking_send(Err(error));
        }
    }
}

/// Ends a producer whose readers are gone; no reader gets it.
fn gone<E: Failure>() -> E {
    E::of(Error::new(Kind::Cancelled, "The result is no longer needed"))
}

impl<T, E: Failure> Stream for Items<T, E> {
    type Item = Result<T, E>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let next = match ready!(self.receiver.poll_recv(context)) {
            Some(Ok(item)) => return Poll::Ready(Some(Ok(item))),
            Some(Err(error)) => Some(Err(error)),
            // All senders are dropped. A producer that succeeds is counted before it drops its sender.
            None if self.finished.load(Ordering::Acquire) == self.count => None,
            None => Some(Err(E::of(Error::new(Kind::Bug, STOPPED).hint("the table was not changed; run the command again")))),
        };
        self.has_ended = true;
        self.receiver.close();
        self.producers = None;
        Poll::Ready(next)
    }
}

// No field is pinned.
impl<T, E> Unpin for Items<T, E> {}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, TryStreamExt};

    use super::*;

    type Kinds = Vec<Result<u32, Kind>>;

    async fn all(items: Items<u32, Error>) -> Kinds {
        items.map(|item| item.map_err(|error| error.kind())).collect().await
    }

    fn broken() -> Error {
        Error::new(Kind::Data, "broken")
    }

    #[tokio::test]
    async fn a_stream_ends_after_its_producer_has_finished() {
        let items = from_task(1, Span::none(), |sender| async move {
            for number in 0..100 {
                sender.send(number).await?;
            }
            Ok(())
        });
        assert_eq!(all(items).await, (0..100).map(Ok).collect::<Kinds>());
        let items = from_thread(1, Span::none(), |sender| (0..100).try_for_each(|number| sender.send_blocking(number)));
        assert_eq!(all(items).await, (0..100).map(Ok).collect::<Kinds>());
    }

    #[tokio::test]
    async fn an_error_is_given_once_and_is_the_end() {
        let items = from_task(1, Span::none(), |sender| async move {
            sender.send(1).await?;
            Err(broken())
        });
        assert_eq!(all(items).await, [Ok(1), Err(Kind::Data)]);
        let items = from_thread(1, Span::none(), |_| Err(broken()));
        assert_eq!(all(items).await, [Err(Kind::Data)]);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_not_an_end() {
        let items = from_task(4, Span::none(), |sender| async move {
            sender.send(1).await?;
            panic!("broken")
        });
        assert_eq!(all(items).await, [Ok(1), Err(Kind::Bug)]);
        let items = from_thread(4, Span::none(), |sender| {
            sender.send_blocking(1)?;
            panic!("broken")
        });
        assert_eq!(all(items).await, [Ok(1), Err(Kind::Bug)]);
    }

    #[tokio::test]
    async fn an_aborted_producer_is_an_error_and_not_an_end() {
        let mut channel = Channel::new(1, 4);
        channel.spawn(Span::none(), |sender: Sender<u32, Error>| async move {
            sender.send(1).await?;
            std::future::pending().await
        });
        let started = channel.producers.len();
        tokio::task::yield_now().await;
        channel.producers.abort_all();
        assert_eq!(started, 1);
        assert_eq!(all(channel.single()).await, [Ok(1), Err(Kind::Bug)]);
    }

    #[tokio::test]
    async fn a_failed_producer_fails_every_output() {
        let mut channel = Channel::new(3, 8);
        for producer in 0..3_u32 {
            channel.spawn(Span::none(), move |sender| async move {
                for output in 0..3 {
                    sender.send_to(output, producer).await?;
                }
                if producer == 1 { Err(broken()) } else { Ok(()) }
            });
        }
        for items in channel.build() {
            assert_eq!(all(items).await.last(), Some(&Err(Kind::Data)));
        }
    }

    #[tokio::test]
    async fn a_dropped_output_does_not_affect_the_others() {
        let mut channel = Channel::new(2, 1);
        channel.spawn(Span::none(), |sender| async move {
            for number in 0..50 {
                sender.send_to(number as usize % 2, number).await?;
            }
            Ok(())
        });
        let mut outputs: Vec<Items<u32, Error>> = channel.build();
        drop(outputs.remove(0));
        let read: Vec<u32> = outputs.remove(0).try_collect().await.unwrap();
        assert_eq!(read, (0..50).filter(|number| number % 2 == 1).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_dropped_reader_stops_the_producer() {
        let (gone, wait) = tokio::sync::oneshot::channel::<()>();
        let mut numbers = from_task(1, Span::none(), |sender| async move {
            // It is dropped with the task.
            let _held = gone;
            for number in 0_u64.. {
                sender.send(number).await?;
            }
            Ok::<_, Error>(())
        });
        assert_eq!(numbers.try_next().await.unwrap(), Some(0));
        drop(numbers);
        assert!(wait.await.is_err(), "the task is gone");
    }
}
