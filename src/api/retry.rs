//! How long to wait before another attempt, and when to give up. It does not judge what is worth another attempt: the place
//! that made the call does.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use tokio::time::Instant;

use crate::error::Error;
use crate::model::Timestamp;

/// How long to go on after passing faults.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Attempts in all for one request that meets 5xx or network trouble.
    pub attempts: u32,
    /// Before the second attempt; doubles with jitter from there.
    pub first_delay: Duration,
    /// Cap of one delay.
    pub max_delay: Duration,
    /// Longest time in all spent waiting out 429 for one request.
    pub throttle_budget: Duration,
    /// Attempts in all for one query whose job ends as failed.
    pub job_attempts: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(30),
            throttle_budget: Duration::from_secs(30 * 60),
            job_attempts: 3,
        }
    }
}

/// What stands in the way of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryReason {
    /// Network trouble or a server fault: counted in attempts.
    Fault,
    /// Something known to be out of date was used (an old URL, say): counted as a fault, but the first one needs no wait.
    Stale,
    /// The server asks for patience: counted in time, never in attempts.
    Throttled(Option<Duration>),
}

/// The state of one request's (or one download's) struggle.
#[derive(Debug, Clone)]
pub(crate) struct Retry {
    policy: RetryPolicy,
    begun: Instant,
    attempts: u32,
    failures: u32,
    throttles: u32,
    throttled: Duration,
}

impl Retry {
    pub(crate) fn new(policy: &RetryPolicy) -> Self {
        Self {
            policy: policy.clone(),
            begun: Instant::now(),
            attempts: 0,
            failures: 0,
            throttles: 0,
            throttled: Duration::ZERO,
        }
    }

    /// Counts one attempt; returns its number, from 1.
    pub(crate) fn attempt(&mut self) -> u32 {
        if self.attempts == 0 {
            self.begun = Instant::now();
        }
        self.attempts = self.attempts.saturating_add(1);
        self.attempts
    }

    /// The present attempt brought something: patience starts anew.
    pub(crate) fn progressed(&mut self) {
        self.attempts = 1;
        self.begun = Instant::now();
        self.failures = 0;
        self.throttles = 0;
        self.throttled = Duration::ZERO;
    }

    /// How long to wait before the next attempt; `None`: give up.
    pub(crate) fn next_wait(&mut self, reason: RetryReason) -> Option<Duration> {
        let wait = self.next_wait_with(reason, random_fraction());
        if wait.is_some() {
            crate::progress::retried();
        }
        wait
    }

    fn next_wait_with(&mut self, reason: RetryReason, random: f64) -> Option<Duration> {
        match reason {
            RetryReason::Fault | RetryReason::Stale => {
                self.failures += 1;
                if self.failures >= self.policy.attempts {
                    return None;
                }
                if reason == RetryReason::Stale && self.failures == 1 {
                    return Some(Duration::ZERO);
                }
                Some(grown(&self.policy, self.failures).mul_f64(random))
            }
            RetryReason::Throttled(after) => {
                self.throttles += 1;
                let wait = match after {
                    // A little later than asked, so that many clients do not come back in the same instant; never sooner
                    // than our own growing delay, so that `Retry-After: 0` for ever uses up the budget too.
                    Some(after) => {
                        let after = after.saturating_add((after / 10).min(Duration::from_secs(2)).mul_f64(random));
                        after.max(grown(&self.policy, self.throttles).mul_f64(0.5 + random / 2.0))
                    }
                    None => self.policy.max_delay.mul_f64(0.5 + random / 2.0),
                };
                // A policy of no delay must not make an endless loop.
                let wait = wait.max(Duration::from_millis(1));
                let total = self.throttled.saturating_add(wait);
                if total > self.policy.throttle_budget {
                    return None;
                }
                self.throttled = total;
                Some(wait)
            }
        }
    }

    /// Waits, or gives the error back with how often and how long it was tried.
    pub(crate) async fn wait(&mut self, reason: RetryReason, error: Error) -> Result<(), Error> {
        match self.next_wait(reason) {
            Some(wait) => {
                tracing::debug!(
                    attempt = self.attempts,
                    wait_ms = wait.as_millis() as u64,
                    %error,
                    "An attempt failed; trying again"
                );
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                Ok(())
            }
            None => Err(self.annotate(error)),
        }
    }

    /// Adds how often and how long it was tried.
    pub(crate) fn annotate(&self, error: Error) -> Error {
        let error = error.with_field("attempts", self.attempts).with_field("tried_for", Seconds(self.begun.elapsed()));
        if self.throttled.is_zero() {
            error
        } else {
            error
                .with_field("throttled_for", Seconds(self.throttled))
                .with_field("throttle_budget", Seconds(self.policy.throttle_budget))
        }
    }
}

/// A duration for people.
struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

/// The delay of the `n`-th failure before jitter.
fn grown(policy: &RetryPolicy, n: u32) -> Duration {
    policy.first_delay.saturating_mul(2_u32.saturating_pow(n.saturating_sub(1).min(31))).min(policy.max_delay)
}

/// Something in `0.0..1.0`.
pub(super) fn random_fraction() -> f64 {
    match getrandom::u64() {
        // 53 bits are what a double holds.
        Ok(bits) => (bits >> 11) as f64 / (1_u64 << 53) as f64,
        Err(_) => 0.5,
    }
}

/// `Retry-After`, as seconds or as an HTTP date. A date is measured against the server's own clock when it sends one.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = http_date(text)?;
    let now = server_date(headers).unwrap_or_else(Timestamp::now);
    Some(Duration::from_micros(until.micros().saturating_sub(now.micros()).max(0) as u64))
}

/// The `Date` header.
pub(super) fn server_date(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(headers.get(DATE)?.to_str().ok()?.trim())
}

/// All three forms that RFC 9110 wants to be understood.
fn http_date(text: &str) -> Option<Timestamp> {
    if let Ok(time) = DateTime::parse_from_rfc2822(text) {
        return Some(Timestamp::from_micros(time.timestamp_micros()));
    }
    ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"]
        .iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .map(|time| Timestamp::from_micros(time.and_utc().timestamp_micros()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            attempts: 4,
            first_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(1),
            throttle_budget: Duration::from_secs(100),
            job_attempts: 3,
        }
    }

    #[test]
    fn faults_double_up_to_the_cap_and_end() {
        let mut policy = policy();
        policy.attempts = 6;
        let mut retry = Retry::new(&policy);
        let waits: Vec<_> =
            (0..6).map(|_| retry.next_wait_with(RetryReason::Fault, 1.0).map(|wait| wait.as_millis())).collect();
        assert_eq!(waits, [Some(200), Some(400), Some(800), Some(1000), Some(1000), None]);
    }

    #[test]
    fn progress_gives_all_attempts_back() {
        let mut retry = Retry::new(&policy());
        for _ in 0..10 {
            assert!(retry.next_wait_with(RetryReason::Fault, 0.3).is_some());
            assert!(retry.next_wait_with(RetryReason::Fault, 0.3).is_some());
            retry.progressed();
        }
    }

    #[test]
    fn the_first_stale_thing_costs_no_wait_but_an_attempt() {
        let mut retry = Retry::new(&policy());
        assert_eq!(retry.next_wait_with(RetryReason::Stale, 1.0), Some(Duration::ZERO));
        assert_eq!(retry.next_wait_with(RetryReason::Stale, 1.0), Some(Duration::from_millis(400)));
        assert!(retry.next_wait_with(RetryReason::Stale, 1.0).is_some());
        assert_eq!(retry.next_wait_with(RetryReason::Stale, 1.0), None);
    }

    #[test]
    fn throttling_is_limited_by_time_alone() {
        let mut retry = Retry::new(&policy());
        let mut rounds = 0;
        while let Some(wait) = retry.next_wait_with(RetryReason::Throttled(Some(Duration::from_secs(10))), 0.0) {
            assert_eq!(wait, Duration::from_secs(10));
            rounds += 1;
        }
        assert_eq!(rounds, 10);
        let error = retry.annotate(Error::new(Kind::Throttled, "Too many"));
        assert_eq!(error.get("throttled_for"), Some("100.0 s"));
    }

    #[test]
    fn retry_after_zero_still_uses_up_the_budget() {
        let mut retry = Retry::new(&policy());
        let rounds = std::iter::from_fn(|| retry.next_wait_with(RetryReason::Throttled(Some(Duration::ZERO)), 0.5)).count();
        assert!((100..1000).contains(&rounds), "{rounds}");
    }

    #[test]
    fn a_wait_beyond_the_budget_is_not_begun() {
        let mut retry = Retry::new(&policy());
        assert_eq!(retry.next_wait(RetryReason::Throttled(Some(Duration::from_secs(86_400)))), None);
    }

    #[test]
    fn retry_after_is_read_in_every_form() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(DATE, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(read("17"), Some(17));
        assert_eq!(read(" 0 "), Some(0));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        assert_eq!(read("Sunday, 06-Nov-94 08:50:07 GMT"), Some(30));
        assert_eq!(read("Sun Nov  6 08:50:07 1994"), Some(30));
        assert_eq!(read("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(read("soon"), None);
        assert_eq!(read("-3"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_promised(random in 0.0..1.0_f64, faults in 1..20_u32) {
            let policy = RetryPolicy { attempts: u32::MAX, ..policy() };
            let mut retry = Retry::new(&policy);
            for _ in 0..faults {
                prop_assert!(retry.next_wait_with(RetryReason::Fault, random).unwrap() <= policy.max_delay);
            }
        }
    }
}
