//! `sync` that stays: run after run, until somebody ends it. What a run does is up to the caller.

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
use crate::ops::{Refresh, Stop};

/// When to run.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Schedule {
    interval: Duration,
    jitter: Duration,
}

/// Which tables need no call. A single run asks for all of them.
pub(in crate::cli) fn skip_recent(args: &ScheduleArgs) -> Option<Refresh> {
    Schedule::of(args).map(|_| args.refresh.map_or(Refresh::AsDocumented, Refresh::Every))
}

/// What a table that is being loaded is given to come to its end; then it is abandoned, and stays as it was.
const GRACE: Duration = Duration::from_secs(20);
/// What the rest of a run may take after that.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// After trouble the next run comes sooner, but not before this.
const SOONEST: Duration = Duration::from_secs(60);

impl Schedule {
    /// How often to run, if the process stays.
    pub(in crate::cli) fn of(args: &ScheduleArgs) -> Option<Self> {
        let interval = args.every.or_else(|| args.watch.then_some(args.interval))?;
        let jitter = args.jitter.unwrap_or_else(|| (interval / 10).min(Duration::from_secs(600)));
        Some(Self { interval, jitter })
    }

    /// From the end of a run to the begin of the next. `chance` is in `0.0..1.0`.
    fn pause(self, took: Duration, had_trouble: bool, chance: f64) -> Duration {
        let pause = self.interval.saturating_sub(took);
        let pause = if had_trouble { pause.min((self.interval / 8).max(SOONEST)) } else { pause };
        pause + self.jitter.mul_f64(chance)
    }
}

/// One run that ends when a signal says so: at once, with its tables as they were or up to date.
pub(in crate::cli) async fn once<T>(work: impl AsyncFnOnce(Stop) -> T) -> Result<T> {
    let stop = Stop::default();
    let mut work = std::pin::pin!(work(stop.clone()));
    tokio::select! {
        biased;
        done = &mut work => return Ok(done),
        () = signals::asked(1) => stop.at_once(),
    }
    last_words(work, 2).await
}

/// `signal`: the number of the signal that does not wait any longer.
async fn last_words<T>(work: impl Future<Output = T>, signal: usize) -> Result<T> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = signals::asked(signal) => Err(cancelled()),
        () = tokio::time::sleep(LAST_WORDS) => Err(cancelled()),
    }
}

/// Run after run until a signal comes, which is the ordinary end. `work` tells what it did and gives its failure back; only one that
/// no later run can mend ends the whole.
pub(in crate::cli) async fn watch(schedule: Schedule, work: impl AsyncFn(Stop) -> Result<()>) -> Result<()> {
    let systemd = Systemd::new(environment::systemd());
    let rounds = async {
        systemd.tell("READY=1");
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
            let pause = schedule.pause(begun.elapsed(), ended.is_err(), chance());
            let next = time_after(pause);
            let last = if ended.is_err() { "failed in part or in whole" } else { "was good" };
            tracing::info!(next, "The next run is planned");
            aside(&format!("next run at {next}"));
            systemd.status(&format!("the last run {last}; the next one is at {next}"));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = signals::asked(1) => {}
            }
        }
        systemd.tell("STOPPING=1");
        Ok(())
    };
    tokio::select! {
        ended = rounds => ended,
        () = systemd.live() => Ok(()),
    }
}

/// `None`: it was ended by a signal.
async fn run(systemd: &Systemd, work: &impl AsyncFn(Stop) -> Result<()>) -> Option<Result<()>> {
    let stop = Stop::default();
    let mut working = std::pin::pin!(work(stop.clone()));
    tokio::select! {
        biased;
        ended = &mut working => return Some(ended),
        () = signals::asked(1) => {}
    }
    systemd.tell("STOPPING=1");
    tracing::info!(grace_s = GRACE.as_secs(), "Stopping: nothing new is started");
    aside(&format!("stopping: nothing new is started; tables that are being loaded have {} s to finish", GRACE.as_secs()));
    stop.soon();
    tokio::select! {
        biased;
        _ = &mut working => return None,
        () = signals::asked(2) => {}
        () = tokio::time::sleep(GRACE) => {}
    }
    stop.at_once();
    let _ = last_words(working, 3).await;
    None
}

fn time_after(pause: Duration) -> String {
    (Utc::now() + pause).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Something in `0.0..1.0`.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |bits| f64::from(bits) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_begin_an_interval_apart_and_sooner_after_trouble() {
        let hour = Duration::from_secs(3600);
        let schedule = Schedule { interval: 4 * hour, jitter: hour };
        assert_eq!(schedule.pause(hour, false, 0.0), 3 * hour);
        assert_eq!(schedule.pause(hour, false, 0.5), 3 * hour + hour / 2);
        assert_eq!(schedule.pause(9 * hour, false, 0.0), Duration::ZERO, "one that took too long is followed at once");
        assert_eq!(schedule.pause(hour, true, 0.0), hour / 2);
        let often = Schedule { interval: Duration::from_secs(30), jitter: Duration::ZERO };
        assert_eq!(often.pause(Duration::ZERO, true, 0.0), Duration::from_secs(30));
    }
}
