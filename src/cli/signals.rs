//! Signals that ask the process to end. One listener counts them from before the command starts until the process ends. Each wait reads
//! the count, so a signal between two waits is not lost. The command decides what a signal means.

use std::io;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;

use crate::error::{Error, Kind, Result, ResultExt};

/// Which signals a command handles. The system's default action, which is to end the process, applies to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Catch {
    /// All signals that ask for an end.
    All,
    /// Ctrl-C only, as in the official client. For commands that can be killed at any time.
    Interrupt,
    /// All except Ctrl-C, which the command handles itself.
    AllButInterrupt,
    /// None: the command handles signals itself, or can be killed at any time.
    Nothing,
}

/// How long after the first and the second signal the process is ended if it has not ended by itself. The third signal ends it at once.
/// This also helps if a system call blocks.
const GRACE: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(15)];

/// Exit codes: 128 and the number of the signal, as in shells; for Ctrl-C, that of the official client.
const INTERRUPTED: u8 = 125;
#[cfg(unix)]
const HUNG_UP: u8 = 129;
#[cfg(unix)]
const TERMINATED: u8 = 143;

#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    times: usize,
    /// Exit code of the first signal.
    code: u8,
}

static ASKED: LazyLock<watch::Sender<Asked>> = LazyLock::new(|| watch::Sender::new(Asked::default()));

/// Resolves when the process has been asked to end this many times.
pub(super) async fn asked(times: usize) {
    // The sender lives as long as the process.
    let _ = ASKED.subscribe().wait_for(|asked| asked.times >= times).await;
}

/// Whether the process has been asked to end.
pub(super) fn is_asked() -> bool {
    ASKED.borrow().times > 0
}

/// The exit code of a command that was ended by the first signal.
pub(super) fn exit_code() -> ExitCode {
    ExitCode::from(ASKED.borrow().code)
}

/// The error of a command that was ended by a signal.
pub(super) fn cancelled() -> Error {
    Error::new(Kind::Cancelled, "Interrupted; each table is unchanged or up to date")
        .hint("run the same command again to continue")
}

/// Runs work that changes nothing and can be dropped at any await. Kind `Cancelled` if a signal ended it.
#[cfg(feature = "lake")]
pub(super) async fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = Box::pin(work) => result,
        () = asked(1) => Err(Error::new(Kind::Cancelled, "Interrupted")),
    }
}

/// Resolves when the process has been asked to end.
pub(super) async fn interrupted() {
    asked(1).await;
}

/// Starts to count signals, on a thread of its own, since the other threads can be busy.
pub(super) fn listen(catch: Catch) -> Result<()> {
    if catch == Catch::Nothing {
        return Ok(());
    }
    let failed = "The listener for signals cannot be started";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context(Kind::Io, failed)?;
    let sources = {
        let _context = runtime.enter();
        Sources::install(catch).context(Kind::Io, failed)?
    };
    let work = move || runtime.block_on(count(sources));
    std::thread::Builder::new().name("signals".to_owned()).spawn(work).map(drop).context(Kind::Resources, failed)
}

async fn count(mut sources: Sources) {
    loop {
        let asked = *ASKED.borrow();
        let grace = asked.times.checked_sub(1).map(|place| GRACE.get(place).copied().unwrap_or(Duration::ZERO));
        let overdue = async {
            match grace {
                Some(grace) => tokio::time::sleep(grace).await,
                None => std::future::pending().await,
            }
        };
        let signal = tokio::select! {
            signal = sources.next() => signal,
            () = overdue => end(),
        };
        ASKED.send_modify(|asked| {
            asked.code = if asked.times == 0 { signal.code } else { asked.code };
            asked.times += signal.weight;
        });
    }
}

#[expect(clippy::exit, reason = "the command did not end in time; every table stays consistent")]
fn end() -> ! {
    std::process::exit(i32::from(INTERRUPTED))
}

/// A received signal.
struct Signal {
    code: u8,
    /// 2 if there is little time.
    weight: usize,
}

/// The sources of signals.
#[cfg(unix)]
struct Sources(Vec<(tokio::signal::unix::Signal, u8)>);

#[cfg(unix)]
impl Sources {
    fn install(catch: Catch) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut sources = Vec::new();
        if catch != Catch::AllButInterrupt {
            sources.push((signal(SignalKind::interrupt())?, INTERRUPTED));
        }
        if catch != Catch::Interrupt {
            sources.push((signal(SignalKind::terminate())?, TERMINATED));
            if !ignores_hangup() {
                sources.push((signal(SignalKind::hangup())?, HUNG_UP));
            }
        }
        Ok(Self(sources))
    }

    async fn next(&mut self) -> Signal {
        let code = std::future::poll_fn(|context| {
            let received = self.0.iter_mut().find_map(|(source, code)| source.poll_recv(context).is_ready().then_some(*code));
            received.map_or(Poll::Pending, Poll::Ready)
        });
        Signal { code: code.await, weight: 1 }
    }
}

/// Whether the process was started so that it ignores hangups (`nohup`).
#[cfg(unix)]
fn ignores_hangup() -> bool {
    let ignored = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    match ignored {
        Some(mask) => mask & 1 != 0,
        // Other systems have no such file. `nohup` redirects standard error from a terminal.
        None => !io::IsTerminal::is_terminal(&io::stderr()),
    }
}

#[cfg(windows)]
struct Sources {
    interrupt: Option<tokio::signal::windows::CtrlC>,
    interrupt_by_break: tokio::signal::windows::CtrlBreak,
    close: tokio::signal::windows::CtrlClose,
    logoff: tokio::signal::windows::CtrlLogoff,
    shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Sources {
    fn install(catch: Catch) -> io::Result<Self> {
        use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_logoff, ctrl_shutdown};
        Ok(Self {
            interrupt: (catch != Catch::AllButInterrupt).then(ctrl_c).transpose()?,
            interrupt_by_break: ctrl_break()?,
            close: ctrl_close()?,
            logoff: ctrl_logoff()?,
            shutdown: ctrl_shutdown()?,
        })
    }

    /// The system ends the process some seconds after all signals except the first two.
    async fn next(&mut self) -> Signal {
        let weight = std::future::poll_fn(|context| {
            let interrupt = self.interrupt.as_mut().is_some_and(|source| source.poll_recv(context).is_ready());
            if interrupt || self.interrupt_by_break.poll_recv(context).is_ready() {
                return Poll::Ready(1);
            }
            let is_urgent = self.close.poll_recv(context).is_ready()
                || self.logoff.poll_recv(context).is_ready()
                || self.shutdown.poll_recv(context).is_ready();
            if is_urgent { Poll::Ready(2) } else { Poll::Pending }
        });
        Signal { code: INTERRUPTED, weight: weight.await }
    }
}
