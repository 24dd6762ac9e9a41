//! In what order the tables of a run ask for their jobs, where that matters: whoever asks first gets the next start. It asks for nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long those behind wait for a table that has not come: another run may be at work on it, or its target be slow.
const PATIENCE: Duration = Duration::from_secs(10);

/// The places of a run's tables.
#[derive(Debug)]
pub(super) struct Order {
    until: Instant,
    places: watch::Sender<Places>,
}

#[derive(Debug, Default)]
struct Places {
    /// Of those who have not come yet, and are waited for.
    missing: BTreeSet<usize>,
    /// Of those who have come and wait.
    waiting: BTreeSet<usize>,
}

impl Places {
    fn is_next(&self, place: usize) -> bool {
        [&self.missing, &self.waiting].iter().filter_map(|places| places.first()).all(|first| *first >= place)
    }
}

impl Order {
    /// Nobody waits.
    pub(super) fn any() -> Self {
        Self::of(0)
    }

    /// By place, of so many. Whoever has not come when 10 s are over is no longer waited for.
    pub(super) fn of(total: usize) -> Self {
        Self::within(PATIENCE, total)
    }

    fn within(patience: Duration, total: usize) -> Self {
        let places = Places { missing: (0..total).collect(), waiting: BTreeSet::new() };
        Self { until: Instant::now() + patience, places: watch::Sender::new(places) }
    }

    /// The turn of a place. To be dropped as soon as it is used, or when it is not needed.
    pub(super) fn turn(&self, place: usize) -> Turn<'_> {
        Turn { order: self, place }
    }
}

/// A place in the order.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    order: &'a Order,
    place: usize,
}

impl Turn<'_> {
    /// Resolves when all those before have had their turn, do not need it, or have kept the others waiting for too long.
    pub(super) async fn come(&self) {
        let places = &self.order.places;
        let mut changed = places.subscribe();
        let was_missing = places.send_if_modified(|places| {
            let was_missing = places.missing.remove(&self.place);
            if was_missing {
                places.waiting.insert(self.place);
            }
            was_missing
        });
        if !was_missing {
            return;
        }
        let next = async |changed: &mut watch::Receiver<Places>| {
            // The sender lives as long as we do.
            let _ = changed.wait_for(|places| places.is_next(self.place)).await;
        };
        if tokio::time::timeout_at(self.order.until, next(&mut changed)).await.is_err() {
            places.send_modify(|places| places.missing.clear());
            next(&mut changed).await;
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.order.places.send_if_modified(|places| places.missing.remove(&self.place) | places.waiting.remove(&self.place));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures::FutureExt;
    use futures::future::join_all;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Table {
        Asks,
        EndsBefore,
        NeverComes,
    }

    /// Who has asked, in order, when the tables come in the order of `coming` and each at another poll.
    async fn played(order: &Order, coming: &[(usize, Table)]) -> Vec<usize> {
        let asked = RefCell::new(Vec::new());
        let mut kept = Vec::new();
        let mut work = Vec::new();
        for (polls, (place, table)) in coming.iter().enumerate() {
            let (place, turn, asked) = (*place, order.turn(*place), &asked);
            match table {
                Table::NeverComes => kept.push(turn),
                Table::EndsBefore | Table::Asks => work.push(async move {
                    for _ in 0..polls {
                        tokio::task::yield_now().await;
                    }
                    if *table == Table::Asks {
                        turn.come().await;
                        asked.borrow_mut().push(place);
                    }
                }),
            }
        }
        join_all(work).await;
        drop(kept);
        asked.into_inner()
    }

    fn tables() -> impl Strategy<Value = Vec<(usize, Table)>> {
        let kind = prop_oneof![4 => Just(Table::Asks), 1 => Just(Table::EndsBefore), 1 => Just(Table::NeverComes)];
        prop::collection::vec(kind, 0..12).prop_map(|kinds| kinds.into_iter().enumerate().collect::<Vec<_>>()).prop_shuffle()
    }

    proptest! {
        #[test]
        fn tables_ask_in_their_order_however_they_come(coming in tables()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let asked = runtime.block_on(async { played(&Order::within(Duration::from_millis(5), coming.len()), &coming).await });
            let mut expected: Vec<usize> = coming.iter().filter(|(_, table)| *table == Table::Asks).map(|(place, _)| *place).collect();
            expected.sort_unstable();
            prop_assert_eq!(asked, expected);
        }
    }

    #[tokio::test]
    async fn without_an_order_or_a_second_time_nobody_waits() {
        let any = Order::any();
        assert!(any.turn(7).come().now_or_never().is_some());
        let order = Order::of(2);
        let (first, second) = (order.turn(0), order.turn(1));
        assert!(second.come().now_or_never().is_none());
        assert!(first.come().now_or_never().is_some());
        drop(first);
        assert!(second.come().now_or_never().is_some());
        assert!(second.come().now_or_never().is_some());
    }
}
