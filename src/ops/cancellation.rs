//! The wish to stop, and what it means for a table. It stops nothing by itself.

use std::sync::Arc;

use tokio::sync::watch;

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
    #[cfg(feature = "lake")]
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

/// Why a table was put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The run's time was over, or too short to begin with it.
    TimeBudget,
    /// The run was asked to stop.
    Stopped,
}

#[cfg(all(test, feature = "lake"))]
mod tests {
    use super::*;

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
}
