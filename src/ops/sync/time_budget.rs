//! When a run of tables takes up no new work: somebody asked it to stop, its time is nearly over, or all tables would fail alike. It
//! stops nothing by itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::ops::cancellation::Reason;

/// Why a run takes up no new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Halt {
    /// It does.
    No,
    /// All would fail alike.
    Failed,
    /// See [`Reason`].
    For(Reason),
}

/// The time of a run.
#[derive(Debug)]
pub(super) struct Budget {
    begun: Instant,
    total: Option<Duration>,
    /// Milliseconds of the longest load so far.
    longest: AtomicU64,
}

/// How long to sleep before looking anew: the longest load may have grown meanwhile.
const LOOK: Duration = Duration::from_secs(1);

impl Budget {
    pub(super) fn new(total: Option<Duration>) -> Self {
        Self { begun: Instant::now(), total, longest: AtomicU64::new(0) }
    }

    /// A load took so long.
    pub(super) fn took(&self, seconds: f64) {
        self.longest.fetch_max((seconds * 1000.0) as u64, Ordering::Relaxed);
    }

    /// Resolves when nothing new should be begun: a tenth of the time before the end, or as long as the longest load took, but
    /// not in the first half.
    pub(super) async fn nearly_over(&self) {
        let Some(total) = self.total else { return std::future::pending().await };
        loop {
            let last = self.begun + total.saturating_sub(reserve(total, self.longest.load(Ordering::Relaxed)));
            if Instant::now() >= last {
                return;
            }
            tokio::time::sleep_until(last.min(Instant::now() + LOOK)).await;
        }
    }

    /// Resolves at the end.
    pub(super) async fn over(&self) {
        match self.total {
            Some(total) => tokio::time::sleep_until(self.begun + total).await,
            None => std::future::pending().await,
        }
    }
}

fn reserve(total: Duration, longest_ms: u64) -> Duration {
    (total / 10).max(Duration::from_millis(longest_ms)).min(total / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_load_makes_the_last_start_earlier_but_never_before_half_time() {
        let total = Duration::from_secs(600);
        assert_eq!(reserve(total, 0), Duration::from_secs(60));
        assert_eq!(reserve(total, 90_000), Duration::from_secs(90));
        assert_eq!(reserve(total, 10_000_000), Duration::from_secs(300));
    }

    #[tokio::test]
    async fn time_without_a_budget_is_never_over_and_time_without_length_is_over_at_once() {
        use futures::FutureExt;
        let endless = Budget::new(None);
        assert!(endless.nearly_over().now_or_never().is_none());
        assert!(endless.over().now_or_never().is_none());
        let long = Budget::new(Some(Duration::from_secs(3600)));
        assert!(long.nearly_over().now_or_never().is_none());
        let none = Budget::new(Some(Duration::ZERO));
        none.nearly_over().await;
        none.over().await;
    }
}
