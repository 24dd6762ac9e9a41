//! Reads a stream ahead of its consumer, so that one object uses several cores: bytes are decompressed while earlier ones are decoded, and
//! decoded while earlier rows are written.

use std::pin::pin;

use futures::stream::{Stream, StreamExt};
use tracing::Span;

use crate::channel;
use crate::error::{Error, Result};

/// The items of `stream`, read by a task in `span` that is at most `ahead` items ahead of the consumer, plus one that it holds. It ends after
/// the first error; dropping the result stops the task. Must be called within a tokio runtime.
pub(super) fn prefetch<T: Send + 'static>(
    stream: impl Stream<Item = Result<T>> + Send + 'static,
    ahead: usize,
    span: Span,
) -> impl Stream<Item = Result<T>> + Send {
    channel::from_task(ahead, span, move |sender| async move {
        let mut stream = pin!(stream);
        while let Some(item) = stream.next().await {
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
    async fn items_keep_their_order_up_to_the_first_error() {
        let made = stream::iter([Ok(1), Ok(2), Err(Error::new(Kind::Data, "broken")), Ok(3)]);
        let seen: Vec<_> = prefetch(made, 1, Span::none()).map(|item| item.map_err(|error| error.kind())).collect().await;
        assert_eq!(seen, [Ok(1), Ok(2), Err(Kind::Data)]);
        let numbers: Vec<u32> = prefetch(stream::iter((0..100).map(Ok)), 3, Span::none()).try_collect().await.unwrap();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_panic_of_the_stream_is_an_error_and_not_an_end() {
        let made = stream::iter(0..3).map(|number| if number == 2 { panic!("broken") } else { Ok(number) });
        let seen: Vec<_> = prefetch(made, 8, Span::none()).map(|item| item.map_err(|error| error.kind())).collect().await;
        assert_eq!(seen, [Ok(0), Ok(1), Err(Kind::Bug)]);
    }
}
