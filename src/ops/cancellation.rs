//! Cancellation of a run: a shared signal, and why a table was deferred.

use std::sync::Arc;

use tokio::sync::watch;

/// A signal that ends a run early. Clones share it.
#[derive(Debug, Clone)]
pub struct Cancellation(Arc<watch::Sender<Level>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    None,
    /// Running loads finish, no table starts.
    Drain,
    /// Running loads are rolled back.
    Abort,
}

impl Default for Cancellation {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Level::None)))
    }
}

impl Cancellation {
    /// Starts no further table; running loads finish.
    pub fn drain(&self) {
        self.raise(Level::Drain);
    }

    /// As [`Cancellation::drain`], and rolls back running loads.
    pub fn abort(&self) {
        self.raise(Level::Abort);
    }

    /// Whether the run shall end early.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() != Level::None
    }

    /// Resolves when no further table shall start.
    pub async fn requested(&self) {
        self.reached(Level::Drain).await;
    }

    /// Resolves when running loads shall be rolled back.
    #[cfg(feature = "lake")]
    pub(super) async fn aborted(&self) {
        self.reached(Level::Abort).await;
    }

    fn raise(&self, level: Level) {
        self.0.send_if_modified(|current| std::mem::replace(current, level.max(*current)) < level);
    }

    async fn reached(&self, level: Level) {
        // Cannot fail: `self` owns the sender.
        let _ = self.0.subscribe().wait_for(|current| *current >= level).await;
    }
}

/// Why a table was deferred to the next run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeferReason {
    /// The time budget of the run was used up, or too little was left for the table.
    TimeBudget,
    /// The run was cancelled.
    Stopped,
}

#[cfg(all(test, feature = "lake"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_weaker_request_does_not_replace_a_stronger_one() {
        let cancellation = Cancellation::default();
        assert!(!cancellation.is_requested());
        cancellation.abort();
        cancellation.drain();
        cancellation.requested().await;
        cancellation.aborted().await;
        assert!(cancellation.clone().is_requested());
    }
}
