//! A stream that is made ahead of its reader, so that one object keeps several cores busy: bytes are unpacked while earlier
//! ones are decoded, and decoded while earlier rows are written.

use std::pin::pin;

use futures::stream::{Stream, StreamExt};
use tracing::Span;

use crate::channel;
use crate::error::{Error, Result};

/// The same items, made by a task of their own, within `span`, that is at most `items` ahead and one in hand. It ends after the first error;
/// dropping the stream stops the task. Must be called within a tokio runtime.
pub(super) fn ahead<T: Send + 'static>(
    items_made: impl Stream<Item = Result<T>> + Send + 'static,
    items: usize,
    span: Span,
) -> impl Stream<Item = Result<T>> + Send {
    channel::from_task(items, span, move |sender| async move {
        let mut made = pin!(items_made);
        while let Some(item) = made.next().await {
            sender.send(item?).await?;
        }
        Ok::<(), Error>(())
    })
}

#[cfg(test)]
mod tests {
    use futures::{TryStreamExt, stream};

    use super::*;
    use crate::error::Kind;

    #[tokio::test]
    async fn items_come_in_order_up_to_the_first_error() {
        let made = stream::iter([Ok(1), Ok(2), Err(Error::new(Kind::Data, "broken")), Ok(3)]);
        let seen: Vec<_> = ahead(made, 1, Span::none()).map(|item| item.map_err(|error| error.kind())).collect().await;
        assert_eq!(seen, [Ok(1), Ok(2), Err(Kind::Data)]);
        let numbers: Vec<u32> = ahead(stream::iter((0..100).map(Ok)), 3, Span::none()).try_collect().await.unwrap();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_broken_stream_is_an_error_and_not_an_end() {
        let made = stream::iter(0..3).map(|number| if number == 2 { panic!("broken") } else { Ok(number) });
        let seen: Vec<_> = ahead(made, 8, Span::none()).map(|item| item.map_err(|error| error.kind())).collect().await;
        assert_eq!(seen, [Ok(0), Ok(1), Err(Kind::Bug)]);
    }
}
