//! When a run takes up no new work: somebody asked it to stop, its time is nearly over, or all tables would fail alike. It stops
//! nothing by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A wish to stop, to be handed to a run and kept. Clones are one.
#[derive(Debug, Clone)]
pub struct Stop(Arc<watch::Sender<Wish>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    GoOn,
    NothingNew,
    AtOnce,
}

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Wish::GoOn)))
    }
}

impl Stop {
    /// Begin nothing new; what is being loaded is brought to its end.
    pub fn soon(&self) {
        self.raise(Wish::NothingNew);
    }

    /// Abandon what is being loaded as well: such tables stay as they were.
    pub fn at_once(&self) {
        self.raise(Wish::AtOnce);
    }

    /// Whether a stop was asked for.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow() != Wish::GoOn
    }

    /// Resolves when nothing new shall be begun.
    pub async fn asked(&self) {
        self.reached(Wish::NothingNew).await;
    }

    /// Resolves when everything shall be abandoned.
    pub(super) async fn abandoned(&self) {
        self.reached(Wish::AtOnce).await;
    }

    fn raise(&self, wish: Wish) {
        self.0.send_if_modified(|current| std::mem::replace(current, wish.max(*current)) < wish);
    }

    async fn reached(&self, wish: Wish) {
        // The sender lives as long as we do.
        let _ = self.0.subscribe().wait_for(|current| *current >= wish).await;
    }
}

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

/// Why a table was put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The run's time was over, or too short to begin with it.
    TimeBudget,
    /// The run was asked to stop.
    Stopped,
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
    async fn a_stronger_wish_is_not_taken_back() {
        let stop = Stop::default();
        assert!(!stop.is_asked());
        stop.at_once();
        stop.soon();
        stop.asked().await;
        stop.abandoned().await;
        assert!(stop.clone().is_asked());
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
