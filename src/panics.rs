//! Panics as errors. Third-party decoders panic on some damaged input; the error contains the source location of the panic, but not its
//! message, which may contain values.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Once;

use crate::error::{Error, Kind};

thread_local! {
    /// Number of callers on this thread that catch panics.
    static CATCHING: Cell<u32> = const { Cell::new(0) };
    /// Source location of the last panic of this thread.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic that was caught.
#[derive(Debug)]
pub(crate) struct Panicked {
    place: Option<String>,
}

impl Panicked {
    /// The panic as an error.
    pub(crate) fn into_error(self, kind: Kind, message: &'static str) -> Error {
        let error = Error::new(kind, message).caused_by(self.to_string());
        error.hint("please report this message and the version (daplake --version); the table was not changed")
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "panic at {place}"),
            None => f.write_str("panic"),
        }
    }
}

/// Runs `work` and returns a panic as an error, without printing it. Values that `work` has borrowed must not be used after a panic.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    note_places();
    let _catching = Catching::begin();
    catch_unwind(AssertUnwindSafe(work)).map_err(|_: Box<dyn Any + Send>| Panicked { place: PLACE.take() })
}

/// As [`caught`], for a future, which must not be polled again after a panic.
#[cfg(feature = "lake")]
pub(crate) async fn caught_async<F: Future>(work: F) -> Result<F::Output, Panicked> {
    use std::task::Poll;

    let mut work = std::pin::pin!(work);
    std::future::poll_fn(move |context| match caught(|| work.as_mut().poll(context)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panicked) => Poll::Ready(Err(panicked)),
    })
    .await
}

struct Catching;

impl Catching {
    fn begin() -> Self {
        CATCHING.set(CATCHING.get() + 1);
        Self
    }
}

impl Drop for Catching {
    fn drop(&mut self) {
        CATCHING.set(CATCHING.get() - 1);
    }
}

/// Installs a hook that records the location of a panic on threads that catch it. Other panics are printed as before.
fn note_places() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CATCHING.try_with(Cell::get).unwrap_or(0) == 0 {
                return usual(info);
            }
            let place = info.location().map(place_of);
            tracing::debug!(place, "A panic was caught");
            let _ = PLACE.try_with(|noted| noted.replace(place));
        }));
    });
}

/// Crate, file and line, without folders of the build machine.
fn place_of(location: &Location<'_>) -> String {
    let file = location.file().replace('\\', "/");
    let start = file.rfind("/src/").map_or(0, |source| file[..source].rfind('/').map_or(0, |slash| slash + 1));
    format!("{}:{}", &file[start..], location.line())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_location_but_not_its_message() {
        let error = caught::<()>(|| panic!("value 4711")).unwrap_err().into_error(Kind::Data, "It stopped");
        assert_eq!(error.kind(), Kind::Data);
        let shown = format!("{error:?}");
        assert!(shown.contains("src/panics.rs:") && !shown.contains("4711"), "{shown}");
        assert!(error.hint_text().unwrap().contains("report"));
        assert_eq!(caught(|| 5).unwrap(), 5);
    }

    #[tokio::test]
    async fn a_future_that_panics_at_a_later_poll_is_an_error() {
        let ended = caught_async::<_>(async {
            tokio::task::yield_now().await;
            panic!("broken")
        });
        assert!(ended.await.is_err());
        assert_eq!(caught_async(async { 5 }).await.unwrap(), 5);
    }
}
