//! The server: its listener and connections, and the handle for tests and commands.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use url::Url;

use super::counters::Counters;
use super::options::ServeOptions;
use super::source::Source;
use super::state::State;
use crate::demo::school::School;
use crate::demo::serve::faults::fault::{Fault, Times};
use crate::demo::serve::http::connection::Wire;
use crate::demo::serve::http::router::respond;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::{TableRef, Timestamp};

/// Pause after a failed accept, for example without free file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running server. Dropping it stops the server.
pub struct Server<S = School> {
    source: Arc<S>,
    state: Arc<State>,
    tasks: Vec<AbortHandle>,
}

impl Server {
    /// Binds and serves in background tasks of the current tokio runtime.
    ///
    /// # Errors
    /// [`Kind::Usage`] if the address is not a loopback address, [`Kind::Io`] if it cannot be bound.
    pub async fn start(school: Arc<School>, options: ServeOptions) -> Result<Self> {
        Self::serve(school, options).await
    }

    /// The school.
    pub fn school(&self) -> &Arc<School> {
        &self.source
    }
}

impl<S> Server<S> {
    /// [`Server::start`] for any source.
    pub(super) async fn serve(source: Arc<S>, options: ServeOptions) -> Result<Self>
    where
        S: Source,
    {
        if !options.listen.ip().is_loopback() {
            return Err(Error::new(Kind::Usage, "The demo server listens on a loopback address only")
                .with_field("listen", options.listen)
                .hint("use 127.0.0.1"));
        }
        let listener = TcpListener::bind(options.listen)
            .await
            .context(Kind::Io, "The demo server cannot listen")
            .map_err(|error| error.with_field("listen", options.listen))?;
        let address = listener.local_addr().context(Kind::Io, "The demo server cannot listen")?;
        let url =
            Url::parse(&format!("http://{address}")).context(Kind::Bug, "The address of the demo server is not a valid URL")?;
        let commit_every = options.commit_every;
        let state = Arc::new(State::new(source.clone(), options, url)?);

        let mut tasks = vec![tokio::spawn(accept(listener, state.clone())).abort_handle()];
        if let Some(every) = commit_every.filter(|every| !every.is_zero()) {
            tasks.push(tokio::spawn(commit(state.clone(), every)).abort_handle());
        }
        Ok(Self { source, state, tasks })
    }

    /// Base URL for `--base-url`.
    pub fn url(&self) -> Url {
        self.state.url.clone()
    }

    /// Adds a commit. Returns its time.
    pub fn advance(&self) -> Timestamp {
        self.state.source.advance()
    }

    /// The current counters.
    pub fn counters(&self) -> Counters {
        self.state.counters()
    }

    /// Injects a fault for all tables.
    pub fn inject(&self, fault: Fault, times: Times) {
        self.state.faults.add(None, fault, times, 0);
    }

    /// Injects a fault for one table.
    pub fn inject_for(&self, table: &TableRef, fault: Fault, times: Times) {
        self.state.faults.add(Some(table.clone()), fault, times, 0);
    }

    /// Injects a fault that skips some occasions first, for one table or for all.
    pub fn inject_after(&self, occasions: u64, table: Option<&TableRef>, fault: Fault, times: Times) {
        self.state.faults.add(table.cloned(), fault, times, occasions);
    }

    /// Removes all faults. Jobs that are already affected stay so.
    pub fn clear_faults(&self) {
        self.state.faults.clear();
    }

    /// Makes the server refuse increments of `table` with a `since` before `before`, as after a reload of the table by the service.
    pub fn require_snapshot(&self, table: &TableRef, before: Timestamp) {
        self.state.require_snapshot(table.clone(), before);
    }

    /// Advances the server's clock, so that tokens, URLs, jobs and limits expire without a wait.
    pub fn run_ahead(&self, by: Duration) {
        self.state.clock.run_ahead(by);
    }
}

impl<S> Drop for Server<S> {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl<S> fmt::Debug for Server<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("url", &self.state.url.as_str()).finish_non_exhaustive()
    }
}

/// Accepts connections until the task is aborted, which also ends the connections.
async fn accept(listener: TcpListener, state: Arc<State>) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, state.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "the demo server failed to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, state: Arc<State>) {
    // Avoids delays of small responses; a failure only makes them slower.
    let _ = stream.set_nodelay(true);
    let (wire, link) = Wire::new(stream);
    let service = service_fn(move |request| respond(state.clone(), link.clone(), request));
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(wire), service).await {
        tracing::debug!(%error, "a connection of the demo server ended early");
    }
}

async fn commit(state: Arc<State>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let source = state.source.clone();
        if let Ok(time) = tokio::task::spawn_blocking(move || source.advance()).await {
            tracing::info!(commit = %time, "a new commit");
        }
    }
}
