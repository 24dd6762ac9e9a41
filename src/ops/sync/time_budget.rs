//! When a run starts no further work: it is cancelled, its time budget is nearly used up, or all tables would fail in the same way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::ops::cancellation::DeferReason;

/// Whether a run starts further work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunState {
    /// It does.
    Running,
    /// All other tables would fail with the same error.
    Failed,
    /// Tables that have not started are deferred.
    Ending(DeferReason),
}

/// The time that a run may take.
#[derive(Debug)]
pub(super) struct TimeBudget {
    started: Instant,
    total: Option<Duration>,
    /// Duration of the longest load so far, milliseconds.
    longest: AtomicU64,
}

/// How often the remaining time is computed: the longest load may have grown.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How much longer than the budget the preparation of a run may take.
const OVERRUN: Duration = Duration::from_secs(3);

impl TimeBudget {
    pub(super) fn new(total: Option<Duration>) -> Self {
        Self { started: Instant::now(), total, longest: AtomicU64::new(0) }
    }

    /// Records the duration of a load.
    pub(super) fn record_load(&self, seconds: f64) {
        self.longest.fetch_max((seconds * 1000.0) as u64, Ordering::Relaxed);
    }

    /// Resolves when nothing should start any more: a tenth of the budget before its end, or earlier by the duration of the longest load,
    /// but not in the first half.
    pub(super) async fn nearly_over(&self) {
        let Some(total) = self.total else { return std::future::pending().await };
        loop {
            let last = self.started + total.saturating_sub(reserve(total, self.longest.load(Ordering::Relaxed)));
            if Instant::now() >= last {
                return;
            }
            tokio::time::sleep_until(last.min(Instant::now() + CHECK_INTERVAL)).await;
        }
    }

    /// Resolves when the budget is used up.
    pub(super) async fn over(&self) {
        self.over_by(Duration::ZERO).await;
    }

    /// Resolves shortly after the budget is used up.
    pub(super) async fn overrun(&self) {
        self.over_by(OVERRUN).await;
    }

    async fn over_by(&self, more: Duration) {
        match self.total {
            Some(total) => tokio::time::sleep_until(self.started + total + more).await,
            None => std::future::pending().await,
        }
    }

    /// How long a namespace may take to list its tables while another one has.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.total.map(|total| total / 4)
    }
}

fn reserve(total: Duration, longest_ms: u64) -> Duration {
    (total / 10).max(Duration::from_millis(longest_ms)).min(total / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_load_moves_the_last_start_forward_but_not_into_the_first_half() {
        let total = Duration::from_secs(600);
        assert_eq!(reserve(total, 0), Duration::from_secs(60));
        assert_eq!(reserve(total, 90_000), Duration::from_secs(90));
        assert_eq!(reserve(total, 10_000_000), Duration::from_secs(300));
    }

    #[tokio::test]
    async fn no_budget_is_never_over_and_a_budget_of_zero_is_over_at_once() {
        use futures::FutureExt;
        let endless = TimeBudget::new(None);
        assert!(endless.nearly_over().now_or_never().is_none());
        assert!(endless.over().now_or_never().is_none());
        let long = TimeBudget::new(Some(Duration::from_secs(3600)));
        assert!(long.nearly_over().now_or_never().is_none());
        let none = TimeBudget::new(Some(Duration::ZERO));
        none.nearly_over().await;
        none.over().await;
    }
}
