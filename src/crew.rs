//! A thread of one's own for CPU work that goes on for long: pieces of it run there one after the other. It knows nothing of the
//! work.
//!
//! Why not the runtime's pool: there each piece may run on another thread, and the allocator keeps what a thread once needed. Work
//! that stays where it is needs its memory once.

use std::sync::mpsc;

use tokio::sync::oneshot;

use crate::error::{Kind, Result, ResultExt};
use crate::panics;

type Piece = Box<dyn FnOnce() + Send>;

/// The thread; it ends after this is dropped and the last piece is done.
#[derive(Debug)]
pub(crate) struct Crew {
    pieces: mpsc::Sender<Piece>,
}

impl Crew {
    /// Starts the thread. Kind `Resources` if the system has none.
    pub(crate) fn start(name: &str) -> Result<Self> {
        let (pieces, todo) = mpsc::channel::<Piece>();
        let work = move || todo.into_iter().for_each(|piece| piece());
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .context(Kind::Resources, "The system gives no further thread")?;
        Ok(Self { pieces })
    }

    /// Runs a piece of work and waits for it. Kind `Bug` if it panicked. Given up midway, the piece still runs to its end.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        const STOPPED: &str = "Work on a thread of its own stopped unexpectedly";
        let (done, result) = oneshot::channel();
        let piece = move || drop(done.send(panics::caught(work)));
        // A thread that is gone sends no answer, which is found below.
        let _ = self.pieces.send(Box::new(piece));
        let ended = result.await.context(Kind::Bug, STOPPED)?;
        ended.map_err(|panicked| panicked.into_error(Kind::Bug, STOPPED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_run_in_order_on_one_thread_and_a_panic_is_an_error() {
        let crew = Crew::start("crew").unwrap();
        let first = crew.run(|| std::thread::current().id()).await.unwrap();
        let second = crew.run(|| std::thread::current().id()).await.unwrap();
        assert!(first == second && first != std::thread::current().id());
        assert_eq!(crew.run(|| panic!("broken")).await.map_err(|error| error.kind()), Err::<(), _>(Kind::Bug));
        assert_eq!(crew.run(|| 1).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn the_thread_ends_with_its_owner() {
        let (alive, ended) = oneshot::channel::<()>();
        let crew = Crew::start("crew").unwrap();
        crew.run(move || {
            thread_local!(static KEPT: std::cell::RefCell<Option<oneshot::Sender<()>>> = const { std::cell::RefCell::new(None) });
            KEPT.set(Some(alive));
        })
        .await
        .unwrap();
        drop(crew);
        assert!(ended.await.is_err(), "what lives with the thread is gone");
    }
}
