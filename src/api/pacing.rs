//! Keeps the client's calls below the service's limits, with one [`Pacer`] per kind of call that all clones of a client share.
//!
//! The service counts calls in a window, so each call occupies a slot from its start until one window after its response. This is the
//! fastest pace that cannot exceed the limit in any window, whatever the network's delay; a leaky bucket can. After a response with 429 all
//! calls of the kind pause. A second one after the pause means that the service accepts fewer calls than configured, perhaps because another
//! program uses the same key: the limit is lowered to the number of accepted calls, and raised again step by step.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::progress;

/// The number of calls per window for each kind of call; 0 is unlimited.
#[derive(Debug, Clone, PartialEq)]
pub struct Pacing {
    /// The time over which the service counts calls.
    pub window: Duration,
    /// Starts of jobs: `POST .../data`.
    pub job_starts: u32,
    /// States of jobs: `GET /dap/job/{id}`.
    pub job_status: u32,
    /// Lists of tables: `GET .../table`.
    pub table_lists: u32,
    /// Table schemas: `GET .../schema`.
    pub schemas: u32,
    /// Object URLs: `POST /dap/object/url`.
    pub object_urls: u32,
}

impl Default for Pacing {
    fn default() -> Self {
        Self { window: Duration::from_secs(60), job_starts: 5, job_status: 500, table_lists: 5, schemas: 500, object_urls: 200 }
    }
}

impl Pacing {
    /// No limit for any kind of call.
    pub fn off() -> Self {
        Self { job_starts: 0, job_status: 0, table_lists: 0, schemas: 0, object_urls: 0, ..Self::default() }
    }
}

/// Limits the rate of one kind of call.
#[derive(Debug)]
pub(super) struct Pacer {
    /// Calls per window; 0 is unlimited, but pauses still apply.
    limit: usize,
    /// Calls of the limit that are left to first attempts.
    reserved: AtomicUsize,
    window: Duration,
    /// Held while waiting for a slot. The lock is fair, so calls get slots in the order of their requests.
    turn: tokio::sync::Mutex<()>,
    slots: Mutex<Slots>,
    changed: Notify,
}

/// The slots, without I/O and clock.
#[derive(Debug, Default)]
struct Slots {
    under_way: usize,
    /// When the slots of finished calls become free, earliest first.
    free_at: VecDeque<Instant>,
    paused_until: Option<Instant>,
    /// The end of the pause after the last refusal.
    refused_until: Option<Instant>,
    /// The observed limit of the service, if it is lower than the configured one, and when to raise it by one.
    learned: Option<(usize, Instant)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Go,
    At(Instant),
    WhenOneEnds,
}

impl Slots {
    fn take(&mut self, limit: usize, window: Duration, now: Instant) -> Next {
        let limit = self.limit(limit, window, now);
        if let Some(until) = self.paused_until {
            if until > now {
                return Next::At(until);
            }
            self.paused_until = None;
        }
        while self.free_at.front().is_some_and(|at| *at <= now) {
            self.free_at.pop_front();
        }
        if limit == 0 || self.under_way + self.free_at.len() < limit {
            self.under_way += 1;
            return Next::Go;
        }
        match self.free_at.front() {
            Some(at) => Next::At(*at),
            None => Next::WhenOneEnds,
        }
    }

    fn ended(&mut self, limit: usize, free_at: Instant) {
        self.under_way -= 1;
        if limit > 0 {
            self.free_at.push_back(free_at);
        }
    }

    fn refused(&mut self, limit: usize, window: Duration, now: Instant, until: Instant) {
        self.under_way -= 1;
        let limit = self.limit(limit, window, now);
        // A single refusal may be due to the calls of an earlier run, and those of a burst count as one.
        let is_repeated = self.refused_until.is_some_and(|last| last <= now && now < last + window);
        let taken = self.under_way + self.free_at.iter().filter(|at| **at > now).count();
        if is_repeated && (1..limit).contains(&taken) {
            tracing::info!(calls = taken, "The service accepts fewer calls than configured; slowing down");
            self.learned = Some((taken, until + window));
        } else if let Some((_, next)) = &mut self.learned {
            *next = until + window;
        }
        self.refused_until = self.refused_until.max(Some(until));
        self.paused_until = self.paused_until.max(Some(until));
    }

    /// The current limit. A lowered limit is raised by one per window.
    fn limit(&mut self, limit: usize, window: Duration, now: Instant) -> usize {
        while let Some((learned, next)) = self.learned.filter(|(_, next)| *next <= now && !window.is_zero()) {
            self.learned = (learned + 1 < limit).then(|| (learned + 1, next + window));
        }
        self.learned.map_or(limit, |(learned, _)| learned.min(limit))
    }
}

impl Pacer {
    pub(super) fn new(limit: u32, window: Duration) -> Self {
        Self {
            limit: limit as usize,
            reserved: AtomicUsize::new(0),
            window,
            turn: tokio::sync::Mutex::new(()),
            slots: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Waits for a slot. Slots are granted in the order of the requests.
    pub(super) async fn enter(&self) -> Permit<'_> {
        let _turn = self.turn.lock().await;
        self.slot(false).await
    }

    /// Waits for a slot without queueing, for a further attempt of a call.
    pub(super) async fn enter_again(&self) -> Permit<'_> {
        self.slot(true).await
    }

    /// Reserves this many calls per window for first attempts.
    pub(super) fn reserve(&self, calls: usize) {
        self.reserved.store(calls, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// The limit for a first or a further attempt; 0 is unlimited.
    fn limit_for(&self, is_repeated: bool) -> usize {
        match (self.limit, is_repeated) {
            (0, _) | (_, false) => self.limit,
            (limit, true) => limit.saturating_sub(self.reserved.load(Ordering::Relaxed)).max(1),
        }
    }

    async fn slot(&self, is_repeated: bool) -> Permit<'_> {
        loop {
            // Subscribe before checking, so that no change in between is missed.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let next = self.slots().take(self.limit_for(is_repeated), self.window, Instant::now());
            match next {
                Next::Go => return Permit { pacer: self, open: true },
                Next::At(at) => {
                    progress::paced(at.saturating_duration_since(Instant::now()));
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = changed => {}
                    }
                }
                Next::WhenOneEnds => changed.await,
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock()
    }
}

/// A slot for one call. When it is dropped, the call counts as made.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    pacer: &'a Pacer,
    open: bool,
}

impl Permit<'_> {
    /// The service responded with 429: all calls pause for `wait`, and this call is not counted.
    pub(super) fn refused(mut self, wait: Duration) {
        self.open = false;
        let now = Instant::now();
        self.pacer.slots().refused(self.pacer.limit, self.pacer.window, now, now + wait);
        self.pacer.changed.notify_waiters();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.open {
            self.pacer.slots().ended(self.pacer.limit, Instant::now() + self.pacer.window);
            self.pacer.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_sixth_start_waits_until_a_window_after_the_first_answer() {
        let begin = Instant::now();
        let mut slots = Slots::default();
        for _ in 0..5 {
            assert_eq!(slots.take(5, MINUTE, begin), Next::Go);
        }
        assert_eq!(slots.take(5, MINUTE, begin), Next::WhenOneEnds);
        let answered = begin + Duration::from_secs(3);
        slots.ended(5, answered + MINUTE);
        assert_eq!(slots.take(5, MINUTE, begin + MINUTE), Next::At(answered + MINUTE));
        assert_eq!(slots.take(5, MINUTE, answered + MINUTE), Next::Go);
        assert_eq!(slots.take(5, MINUTE, answered + MINUTE), Next::WhenOneEnds);
    }

    #[test]
    fn a_refusal_pauses_all_calls_and_uses_no_slot() {
        let begin = Instant::now();
        let mut slots = Slots::default();
        assert_eq!(slots.take(1, MINUTE, begin), Next::Go);
        slots.refused(1, MINUTE, begin, begin + Duration::from_secs(7));
        // A shorter one later does not shorten the pause.
        slots.under_way += 1;
        slots.refused(1, MINUTE, begin, begin + Duration::from_secs(2));
        assert_eq!(slots.take(1, MINUTE, begin), Next::At(begin + Duration::from_secs(7)));
        assert_eq!(slots.take(1, MINUTE, begin + Duration::from_secs(7)), Next::Go);
    }

    #[test]
    fn a_second_refusal_lowers_the_limit_which_then_grows_again() {
        let begin = Instant::now();
        let mut slots = Slots::default();
        let started = |slots: &mut Slots, now: Instant| {
            let mut count = 0;
            while slots.take(5, MINUTE, now) == Next::Go {
                slots.ended(5, now + MINUTE);
                count += 1;
            }
            count
        };
        // An earlier run has used up the service's budget: this says nothing about the limit.
        for _ in 0..2 {
            assert_eq!(slots.take(5, MINUTE, begin), Next::Go);
        }
        for _ in 0..2 {
            slots.refused(5, MINUTE, begin, begin + MINUTE);
        }
        assert_eq!(slots.learned, None);
        // After the pause two are taken, and the third is refused again.
        let mut now = begin + MINUTE;
        for _ in 0..3 {
            assert_eq!(slots.take(5, MINUTE, now), Next::Go);
        }
        slots.ended(5, now + MINUTE);
        slots.ended(5, now + MINUTE);
        slots.refused(5, MINUTE, now, now + MINUTE);
        let mut counts = Vec::new();
        for _ in 0..5 {
            now += MINUTE;
            counts.push(started(&mut slots, now));
        }
        assert_eq!(counts, [2, 3, 4, 5, 5]);
    }

    #[test]
    fn no_limit_still_honours_a_pause() {
        let begin = Instant::now();
        let mut slots = Slots::default();
        for _ in 0..1000 {
            assert_eq!(slots.take(0, MINUTE, begin), Next::Go);
            slots.ended(0, begin + MINUTE);
        }
        assert!(slots.free_at.is_empty());
        assert_eq!(slots.take(0, MINUTE, begin), Next::Go);
        slots.refused(0, MINUTE, begin, begin + MINUTE);
        assert_eq!(slots.take(0, MINUTE, begin), Next::At(begin + MINUTE));
    }

    proptest! {
        /// Whatever the delays, a server that counts arrivals in any window of a minute never sees more than the limit.
        #[test]
        fn no_window_ever_holds_more_than_the_limit(calls in prop::collection::vec((0..5_000_u64, 0..3_000_u64, 0..3_000_u64), 1..60), limit in 1..6_usize) {
            let begin = Instant::now();
            let mut now = begin;
            let mut slots = Slots::default();
            let mut arrivals = Vec::new();
            for (pause, out, back) in calls {
                now += Duration::from_millis(pause);
                loop {
                    match slots.take(limit, MINUTE, now) {
                        Next::Go => break,
                        Next::At(at) => now = at,
                        Next::WhenOneEnds => unreachable!("calls end at once here"),
                    }
                }
                let arrival = now + Duration::from_millis(out);
                arrivals.push(arrival);
                slots.ended(limit, arrival + Duration::from_millis(back) + MINUTE);
                // `free_at` must stay sorted; real calls end in the order of the clock.
                slots.free_at.make_contiguous().sort();
            }
            arrivals.sort();
            for pair in arrivals.windows(limit + 1) {
                prop_assert!(pair[limit] - pair[0] >= MINUTE);
            }
        }
    }

    #[tokio::test]
    async fn slots_are_granted_in_the_order_of_requests() {
        let pacer = Arc::new(Pacer::new(1, Duration::from_millis(2)));
        let order = Arc::new(Mutex::new(Vec::new()));
        let first = pacer.enter().await;
        let mut waiting = Vec::new();
        for number in 0..8 {
            let (pacer, order) = (pacer.clone(), order.clone());
            waiting.push(tokio::spawn(async move {
                let permit = pacer.enter().await;
                order.lock().push(number);
                drop(permit);
            }));
            // The runtime of this test has one thread: the task now queues before the next is made.
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[tokio::test]
    async fn retries_leave_reserved_calls_to_first_attempts() {
        use futures::FutureExt;
        let pacer = Pacer::new(5, MINUTE);
        pacer.reserve(2);
        drop(pacer.enter().await);
        for _ in 0..2 {
            drop(pacer.enter_again().now_or_never().unwrap());
        }
        assert!(pacer.enter_again().now_or_never().is_none());
        drop(pacer.enter().now_or_never().unwrap());
        pacer.reserve(0);
        drop(pacer.enter_again().now_or_never().unwrap());
        assert!(pacer.enter_again().now_or_never().is_none() && pacer.enter().now_or_never().is_none());
        let unlimited = Pacer::new(0, MINUTE);
        unlimited.reserve(2);
        drop(unlimited.enter_again().now_or_never().unwrap());
    }

    #[tokio::test]
    async fn a_cancelled_waiter_does_not_block_the_queue() {
        let pacer = Arc::new(Pacer::new(1, Duration::from_millis(1)));
        let first = pacer.enter().await;
        let leaver = tokio::spawn({
            let pacer = pacer.clone();
            async move { drop(pacer.enter().await) }
        });
        tokio::task::yield_now().await;
        leaver.abort();
        assert!(leaver.await.unwrap_err().is_cancelled());
        drop(first);
        drop(pacer.enter().await);
        first_is_free(&pacer).await;
    }

    async fn first_is_free(pacer: &Pacer) {
        let permit = pacer.enter_again().await;
        permit.refused(Duration::ZERO);
        assert_eq!(pacer.slots().under_way, 0);
    }
}
