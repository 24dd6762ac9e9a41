//! A stream that is made ahead of its reader, so that one object keeps several cores busy: bytes are unpacked while earlier
//! ones are decoded, and decoded while earlier rows are written.

use futures::stream::{self, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{Instrument, Span};

use crate::error::{Error, Kind, Result};

/// The same items, made by a task of their own, within `span`, that is at most `items` ahead and one in hand. It ends after the first error;
/// dropping the stream stops the task. Must be called within a tokio runtime.
pub(super) fn ahead<T: Send + 'static>(
    items_made: impl Stream<Item = Result<T>> + Send + 'static,
    items: usize,
    span: Span,
) -> impl Stream<Item = Result<T>> + Send {
    let (sender, receiver) = mpsc::channel(items.max(1));
    let mut task = JoinSet::new();
    let work = async move {
        let mut made = std::pin::pin!(items_made);
        while let Some(item) = made.next().await {
            let failed = item.is_err();
            if sender.send(item).await.is_err() || failed {
                return;
            }
        }
    };
    task.spawn(work.instrument(span));
    stream::unfold((receiver, task), |(mut receiver, mut task)| async move {
        if let Some(item) = receiver.recv().await {
            return Some((item, (receiver, task)));
        }
        // The end of the items must not be taken for the end of the object when the task broke.
        match task.join_next().await {
            Some(Err(error)) => {
                let error = Error::new(Kind::Bug, "Reading an object stopped unexpectedly").caused_by(error);
                Some((Err(error), (receiver, task)))
            }
            Some(Ok(())) | None => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;

    #[tokio::test]
    async fn items_come_in_order_up_to_the_first_error() {
        let made = stream::iter([Ok(1), Ok(2), Err(Error::new(Kind::Data, "broken")), Ok(3)]);
        let seen: Vec<_> = ahead(made, 1, Span::none()).map(|item| item.map_err(|error| error.kind())).collect().await;
        assert_eq!(seen, [Ok(1), Ok(2), Err(Kind::Data)]);
        let numbers: Vec<u32> = ahead(stream::iter((0..100).map(Ok)), 3, Span::none()).try_collect().await.unwrap();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_broken_task_is_an_error_and_not_an_end() {
        let made = stream::iter(0..3).map(|number| if number == 2 { panic!("broken") } else { Ok(number) });
        let seen: Vec<_> = ahead(made, 8, Span::none()).map(|item| item.map_err(|error| error.kind())).collect().await;
        assert_eq!(seen, [Ok(0), Ok(1), Err(Kind::Bug)]);
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_stops_the_task() {
        let (gone, wait) = tokio::sync::oneshot::channel::<()>();
        // The sender lives in the stream: it is dropped with the task.
        let made = stream::iter(0_u64..).map(move |number| {
            let _held = &gone;
            Ok(number)
        });
        let mut numbers = Box::pin(ahead(made, 1, Span::none()));
        assert_eq!(numbers.try_next().await.unwrap(), Some(0));
        drop(numbers);
        assert!(wait.await.is_err(), "the task is gone");
    }
}
