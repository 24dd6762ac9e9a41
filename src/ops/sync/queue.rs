//! The order in which the tables of a run request their jobs, for runs with a time budget: the first request gets the first start.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long tables wait for an earlier one that has not arrived: another run may work on it, or its target may be slow.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The queue of a run's tables.
#[derive(Debug)]
pub(super) struct StartQueue {
    until: Instant,
    places: watch::Sender<Places>,
}

#[derive(Debug, Default)]
struct Places {
    /// Positions of tables that have not arrived and are waited for.
    missing: BTreeSet<usize>,
    /// Positions of tables that have arrived and wait.
    waiting: BTreeSet<usize>,
}

impl Places {
    fn is_next(&self, place: usize) -> bool {
        [&self.missing, &self.waiting].iter().filter_map(|places| places.first()).all(|first| *first >= place)
    }
}

impl StartQueue {
    /// A queue in which no table waits.
    pub(super) fn unordered() -> Self {
        Self::ordered(0)
    }

    /// A queue of `total` tables by position. After 10 s, it stops waiting for tables that have not arrived.
    pub(super) fn ordered(total: usize) -> Self {
        Self::within(TIMEOUT, total)
    }

    fn within(timeout: Duration, total: usize) -> Self {
        let places = Places { missing: (0..total).collect(), waiting: BTreeSet::new() };
        Self { until: Instant::now() + timeout, places: watch::Sender::new(places) }
    }

    /// The slot of a position. It must be dropped as soon as it was used or is not needed.
    pub(super) fn slot(&self, place: usize) -> QueueSlot<'_> {
        QueueSlot { queue: self, place }
    }
}

/// The slot of one table in the queue.
#[derive(Debug)]
pub(super) struct QueueSlot<'a> {
    queue: &'a StartQueue,
    place: usize,
}

impl QueueSlot<'_> {
    /// Resolves when every earlier slot was used, was dropped, or has timed out.
    pub(super) async fn wait(&self) {
        let places = &self.queue.places;
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
            // Cannot fail: the queue owns the sender.
            let _ = changed.wait_for(|places| places.is_next(self.place)).await;
        };
        if tokio::time::timeout_at(self.queue.until, next(&mut changed)).await.is_err() {
            places.send_modify(|places| places.missing.clear());
            next(&mut changed).await;
        }
    }
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        self.queue.places.send_if_modified(|places| places.missing.remove(&self.place) | places.waiting.remove(&self.place));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures::FutureExt;
    use futures::future::join_all;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Table {
        Requests,
        EndsBefore,
        NeverArrives,
    }

    /// The positions in the order of their requests, if tables arrive in the order of `arriving`, each at another poll. `None` if the queue's
    /// time ended before all had arrived, as on a busy machine.
    async fn requests(queue: &StartQueue, arriving: &[(usize, Table)]) -> Option<Vec<usize>> {
        let requested = RefCell::new(Vec::new());
        let last_arrival = Cell::new(Instant::now());
        let mut kept = Vec::new();
        let mut work = Vec::new();
        for (polls, (place, table)) in arriving.iter().enumerate() {
            let (place, slot, requested, last_arrival) = (*place, queue.slot(*place), &requested, &last_arrival);
            match table {
                Table::NeverArrives => kept.push(slot),
                Table::EndsBefore | Table::Requests => work.push(async move {
                    for _ in 0..polls {
                        tokio::task::yield_now().await;
                    }
                    last_arrival.set(Instant::now());
                    if *table == Table::Requests {
                        slot.wait().await;
                        requested.borrow_mut().push(place);
                    }
                }),
            }
        }
        join_all(work).await;
        drop(kept);
        (last_arrival.get() < queue.until).then(|| requested.into_inner())
    }

    fn tables() -> impl Strategy<Value = Vec<(usize, Table)>> {
        let kind = prop_oneof![4 => Just(Table::Requests), 1 => Just(Table::EndsBefore), 1 => Just(Table::NeverArrives)];
        prop::collection::vec(kind, 0..12).prop_map(|kinds| kinds.into_iter().enumerate().collect::<Vec<_>>()).prop_shuffle()
    }

    proptest! {
        #[test]
        fn tables_request_jobs_in_their_order(arriving in tables()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let requested = runtime
                .block_on(async { requests(&StartQueue::within(Duration::from_millis(5), arriving.len()), &arriving).await });
            prop_assume!(requested.is_some());
            let mut expected: Vec<usize> = arriving.iter().filter(|(_, table)| *table == Table::Requests).map(|(place, _)| *place).collect();
            expected.sort_unstable();
            prop_assert_eq!(requested, Some(expected));
        }
    }

    #[tokio::test]
    async fn an_unordered_queue_and_a_used_slot_do_not_block() {
        let unordered = StartQueue::unordered();
        assert!(unordered.slot(7).wait().now_or_never().is_some());
        let queue = StartQueue::ordered(2);
        let (first, second) = (queue.slot(0), queue.slot(1));
        assert!(second.wait().now_or_never().is_none());
        assert!(first.wait().now_or_never().is_some());
        drop(first);
        assert!(second.wait().now_or_never().is_some());
        assert!(second.wait().now_or_never().is_some());
    }
}
