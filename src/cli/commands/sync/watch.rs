//! `sync --watch`: one run after the other until a signal ends the process. The caller provides the run.

use std::time::Duration;

use chrono::{SecondsFormat, Utc};
use tokio::time::Instant;

use crate::cli::args::sync::ScheduleArgs;
use crate::cli::observability::systemd::Systemd;
use crate::cli::settings::environment;
use crate::cli::signals;
use crate::cli::signals::cancelled;
use crate::cli::terminal::output::aside;
use crate::cli::terminal::report;
use crate::error::{Kind, Result};
use crate::ops::{Cancellation, Refresh};

/// The times of runs.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Schedule {
    interval: Duration,
    jitter: Duration,
}

/// Which tables are skipped because their data is recent. A single run skips none.
pub(in crate::cli) fn skip_recent(args: &ScheduleArgs) -> Option<Refresh> {
    Schedule::of(args).map(|_| args.refresh.map_or(Refresh::AsDocumented, Refresh::Every))
}

/// How long running loads may take after the first signal. After that they are rolled back.
const GRACE: Duration = Duration::from_secs(20);
/// How long a run may take to end after that.
const ROLLBACK_TIME: Duration = Duration::from_secs(5);
/// Shortest pause after a failed run, whose next run starts earlier.
const RETRY_PAUSE: Duration = Duration::from_secs(60);

impl Schedule {
    /// The schedule of the options; `None` for a single run.
    pub(in crate::cli) fn of(args: &ScheduleArgs) -> Option<Self> {
        let interval = args.every.or_else(|| args.watch.then_some(args.interval))?;
        let jitter = args.jitter.unwrap_or_else(|| (interval / 10).min(Duration::from_secs(600)));
        Some(Self { interval, jitter })
    }

    /// The pause from the end of a run to the start of the next. `random` is in `0.0..1.0`.
    fn pause(self, took: Duration, has_failed: bool, random: f64) -> Duration {
        let pause = self.interval.saturating_sub(took);
        let pause = if has_failed { pause.min((self.interval / 8).max(RETRY_PAUSE)) } else { pause };
        pause + self.jitter.mul_f64(random)
    }
}

/// Runs once. A signal ends the run at once; each table is then unchanged or up to date.
pub(in crate::cli) async fn once<T>(work: impl AsyncFnOnce(Cancellation) -> T) -> Result<T> {
    let stop = Cancellation::default();
    let mut work = std::pin::pin!(work(stop.clone()));
    tokio::select! {
        biased;
        done = &mut work => return Ok(done),
        () = signals::asked(1) => stop.abort(),
    }
    roll_back(work, 2).await
}

/// Waits for the end of a stopped run, until its time is up or signal number `signal` arrives.
async fn roll_back<T>(work: impl Future<Output = T>, signal: usize) -> Result<T> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = signals::asked(signal) => Err(cancelled()),
        () = tokio::time::sleep(ROLLBACK_TIME) => Err(cancelled()),
    }
}

/// Runs repeatedly until a signal, which is the normal end. `work` prints its result and returns its failure. Only a failure of the first
/// run that later runs would repeat (wrong usage) ends the process.
pub(in crate::cli) async fn watch(schedule: Schedule, work: impl AsyncFn(Cancellation) -> Result<()>) -> Result<()> {
    let systemd = Systemd::new(environment::systemd());
    let rounds = async {
        systemd.notify("READY=1");
        let mut is_first = true;
        while !signals::is_asked() {
            let begun = Instant::now();
            systemd.status(&format!("syncing since {}", time_after(Duration::ZERO)));
            let Some(ended) = run(&systemd, &work).await else { return Ok(()) };
            match &ended {
                Err(error) if is_first && matches!(error.kind(), Kind::Usage | Kind::Unsupported) => return ended,
                Err(error) => report::error(error),
                Ok(()) => {}
            }
            is_first = false;
            let pause = schedule.pause(begun.elapsed(), ended.is_err(), random());
            let next = time_after(pause);
            let last = if ended.is_err() { "failed" } else { "was good" };
            tracing::info!(next, "Next run scheduled");
            aside(&format!("next run at {next}"));
            systemd.status(&format!("the last run {last}; the next one is at {next}"));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = signals::asked(1) => {}
            }
        }
        systemd.notify("STOPPING=1");
        Ok(())
    };
    tokio::select! {
        ended = rounds => ended,
        () = systemd.feed_watchdog() => Ok(()),
    }
}

/// One run; `None` if a signal ended it.
async fn run(systemd: &Systemd, work: &impl AsyncFn(Cancellation) -> Result<()>) -> Option<Result<()>> {
    let stop = Cancellation::default();
    let mut working = std::pin::pin!(work(stop.clone()));
    tokio::select! {
        biased;
        ended = &mut working => return Some(ended),
        () = signals::asked(1) => {}
    }
    systemd.notify("STOPPING=1");
    tracing::info!(grace_s = GRACE.as_secs(), "Stopping: no further table is started");
    aside(&format!("stopping: no further table is started; running loads have {} s to finish", GRACE.as_secs()));
    stop.drain();
    tokio::select! {
        biased;
        _ = &mut working => return None,
        () = signals::asked(2) => {}
        () = tokio::time::sleep(GRACE) => {}
    }
    stop.abort();
    let _ = roll_back(working, 3).await;
    None
}

fn time_after(pause: Duration) -> String {
    (Utc::now() + pause).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A random number in `0.0..1.0`.
fn random() -> f64 {
    getrandom::u32().map_or(0.5, |bits| f64::from(bits) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_start_at_the_interval_and_earlier_after_a_failure() {
        let hour = Duration::from_secs(3600);
        let schedule = Schedule { interval: 4 * hour, jitter: hour };
        assert_eq!(schedule.pause(hour, false, 0.0), 3 * hour);
        assert_eq!(schedule.pause(hour, false, 0.5), 3 * hour + hour / 2);
        assert_eq!(schedule.pause(9 * hour, false, 0.0), Duration::ZERO, "a run longer than the interval is followed at once");
        assert_eq!(schedule.pause(hour, true, 0.0), hour / 2);
        let often = Schedule { interval: Duration::from_secs(30), jitter: Duration::ZERO };
        assert_eq!(often.pause(Duration::ZERO, true, 0.0), Duration::from_secs(30));
    }
}
