//! How many calls of one kind fit into a window of time. It knows nothing of HTTP.

use std::collections::VecDeque;
use std::time::Duration;

/// A sliding window over one kind of call.
#[derive(Debug, Default)]
pub(crate) struct Window {
    admitted: VecDeque<Duration>,
    arrived: VecDeque<Duration>,
    peak: u64,
}

impl Window {
    /// Admits a call that arrives at `now`, or says how long until one will be. A limit of 0 admits all.
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

    /// The most calls that ever arrived within one window, refused ones included.
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
