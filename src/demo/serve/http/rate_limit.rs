//! Rate limits by sliding windows. No HTTP.

use std::collections::VecDeque;
use std::time::Duration;

/// A sliding window over the calls to an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Window {
    admitted: VecDeque<Duration>,
    arrived: VecDeque<Duration>,
    peak: u64,
}

impl Window {
    /// Admits a call that arrives at `now`, or returns the time until the next call is admitted. A limit of 0 admits all calls.
    pub(crate) fn admit(&mut self, now: Duration, limit: u32, length: Duration) -> Result<(), Duration> {
        forget(&mut self.arrived, now, length);
        self.arrived.push_back(now);
        self.peak = self.peak.max(self.arrived.len() as u64);

        if limit == 0 {
            return Ok(());
        }
        forget(&mut self.admitted, now, length);
        let limit = limit as usize;
        if self.admitted.len() < limit {
            self.admitted.push_back(now);
            return Ok(());
        }
        let leaves = self.admitted[self.admitted.len() - limit] + length;
        Err(leaves.saturating_sub(now))
    }

    /// The largest number of calls within one window, including refused ones.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }
}

fn forget(calls: &mut VecDeque<Duration>, now: Duration, length: Duration) {
    while calls.front().is_some_and(|&call| call + length <= now) {
        calls.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_slides() {
        let mut window = Window::default();
        let at = Duration::from_secs;
        let length = at(60);
        assert_eq!(window.admit(at(0), 2, length), Ok(()));
        assert_eq!(window.admit(at(10), 2, length), Ok(()));
        assert_eq!(window.admit(at(20), 2, length), Err(at(40)));
        assert_eq!(window.admit(at(60), 2, length), Ok(()));
        assert_eq!(window.admit(at(61), 2, length), Err(at(9)));
        assert_eq!(window.peak(), 4);
        assert_eq!(window.admit(at(500), 0, length), Ok(()));
        assert_eq!(window.peak(), 4);
    }
}
