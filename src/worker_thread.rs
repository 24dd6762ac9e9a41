//! A dedicated thread for CPU-bound work. Jobs run one after the other.
//!
//! The runtime's blocking pool would run each job on another thread, and the allocator keeps a cache per thread. A dedicated thread needs
//! that memory once.

use std::sync::mpsc;

use tokio::sync::oneshot;

use crate::error::{Kind, Result, ResultExt};
use crate::panics;

type Job = Box<dyn FnOnce() + Send>;

/// A handle to the thread, which ends when the handle is dropped and the last job is done.
#[derive(Debug)]
pub(crate) struct WorkerThread {
    jobs: mpsc::Sender<Job>,
}

impl WorkerThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// Kind `Resources` if the system refuses another thread.
    pub(crate) fn start(name: &str) -> Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let work = move || queue.into_iter().for_each(|job| job());
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .context(Kind::Resources, "The system refused to start another thread")?;
        Ok(Self { jobs })
    }

    /// Runs a job and waits for its result. A job whose future is dropped still runs to its end.
    ///
    /// # Errors
    /// Kind `Bug` if the job panicked.
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        const STOPPED: &str = "A worker thread stopped unexpectedly";
        let (done, result) = oneshot::channel();
        let job = move || drop(done.send(panics::caught(job)));
        // If the thread is gone, `result` reports it.
        let _ = self.jobs.send(Box::new(job));
        let ended = result.await.context(Kind::Bug, STOPPED)?;
        ended.map_err(|panicked| panicked.into_error(Kind::Bug, STOPPED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_run_in_order_on_one_thread_and_a_panic_is_an_error() {
        let thread = WorkerThread::start("worker").unwrap();
        let first = thread.run(|| std::thread::current().id()).await.unwrap();
        let second = thread.run(|| std::thread::current().id()).await.unwrap();
        assert!(first == second && first != std::thread::current().id());
        assert_eq!(thread.run(|| panic!("broken")).await.map_err(|error| error.kind()), Err::<(), _>(Kind::Bug));
        assert_eq!(thread.run(|| 1).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn the_thread_ends_with_its_owner() {
        let (alive, ended) = oneshot::channel::<()>();
        let thread = WorkerThread::start("worker").unwrap();
        thread
            .run(move || {
                thread_local!(static KEPT: std::cell::RefCell<Option<oneshot::Sender<()>>> = const { std::cell::RefCell::new(None) });
                KEPT.set(Some(alive));
            })
            .await
            .unwrap();
        drop(thread);
        assert!(ended.await.is_err(), "thread-local values are dropped with the thread");
    }
}
