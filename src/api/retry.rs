//! Waits between attempts, and when to give up. The caller decides which errors are worth another attempt.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use tokio::time::Instant;

use crate::error::Error;
use crate::model::Timestamp;

/// How often and how long calls are repeated after temporary errors.
///
/// There are two budgets: errors count as attempts, waits after 429 count as time.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// The number of attempts for a request, including the first, if it fails with 5xx or a network error.
    pub attempts: u32,
    /// The longest wait before the second attempt. It doubles with every further attempt; waits are random below it.
    pub first_delay: Duration,
    /// The longest wait between two attempts.
    pub max_delay: Duration,
    /// The total time that one request may wait after responses with 429.
    pub throttle_budget: Duration,
    /// The number of attempts for a query whose jobs fail, including the first.
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

/// Why an attempt is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryReason {
    /// A network or server error. Counts as an attempt.
    Fault,
    /// Something outdated was used, such as an expired URL. Counts as an attempt, but the first one is repeated without a wait.
    Stale,
    /// The server throttles; it may name the time to wait. Counts as time, never as an attempt.
    Throttled(Option<Duration>),
}

/// The retry state of one request or one download.
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

    /// Counts an attempt and returns its number, from 1.
    pub(crate) fn attempt(&mut self) -> u32 {
        if self.attempts == 0 {
            self.begun = Instant::now();
        }
        self.attempts = self.attempts.saturating_add(1);
        self.attempts
    }

    /// The current attempt has made progress: all budgets start again.
    pub(crate) fn progressed(&mut self) {
        self.attempts = 1;
        self.begun = Instant::now();
        self.failures = 0;
        self.throttles = 0;
        self.throttled = Duration::ZERO;
    }

    /// The wait before the next attempt; `None` if the budget is used up.
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
                    // A little later than asked, so that many clients do not come back at the same time. Never sooner than the growing
                    // delay, so that an endless `Retry-After: 0` uses up the budget, too.
                    Some(after) => {
                        let after = after.saturating_add((after / 10).min(Duration::from_secs(2)).mul_f64(random));
                        after.max(grown(&self.policy, self.throttles).mul_f64(0.5 + random / 2.0))
                    }
                    None => self.policy.max_delay.mul_f64(0.5 + random / 2.0),
                };
                // A policy without delays must not cause an endless loop.
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

    /// Waits before the next attempt. If the budget is used up, returns the error with the number of attempts and the time spent.
    pub(crate) async fn wait(&mut self, reason: RetryReason, error: Error) -> Result<(), Error> {
        match self.next_wait(reason) {
            Some(wait) => {
                tracing::debug!(
                    attempt = self.attempts,
                    wait_ms = wait.as_millis() as u64,
                    %error,
                    "An attempt failed; retrying"
                );
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                Ok(())
            }
            None => Err(self.annotate(error)),
        }
    }

    /// Adds the number of attempts and the time spent to an error.
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

/// Displays a duration in seconds.
struct Seconds(Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

/// The delay after the `n`-th failure, before jitter.
fn grown(policy: &RetryPolicy, n: u32) -> Duration {
    policy.first_delay.saturating_mul(2_u32.saturating_pow(n.saturating_sub(1).min(31))).min(policy.max_delay)
}

/// A random number in `0.0..1.0`.
pub(super) fn random_fraction() -> f64 {
    match getrandom::u64() {
        // A double has 53 bits of precision.
        Ok(bits) => (bits >> 11) as f64 / (1_u64 << 53) as f64,
        Err(_) => 0.5,
    }
}

/// The `Retry-After` header, in seconds or as an HTTP date. A date is compared with the server's `Date` header if there is one.
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

/// Parses the three date formats of RFC 9110.
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
    fn delays_double_up_to_the_limit() {
        let mut policy = policy();
        policy.attempts = 6;
        let mut retry = Retry::new(&policy);
        let waits: Vec<_> =
            (0..6).map(|_| retry.next_wait_with(RetryReason::Fault, 1.0).map(|wait| wait.as_millis())).collect();
        assert_eq!(waits, [Some(200), Some(400), Some(800), Some(1000), Some(1000), None]);
    }

    #[test]
    fn progress_resets_the_attempts() {
        let mut retry = Retry::new(&policy());
        for _ in 0..10 {
            assert!(retry.next_wait_with(RetryReason::Fault, 0.3).is_some());
            assert!(retry.next_wait_with(RetryReason::Fault, 0.3).is_some());
            retry.progressed();
        }
    }

    #[test]
    fn the_first_stale_attempt_is_repeated_without_a_wait() {
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
    fn a_wait_beyond_the_budget_is_refused() {
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
