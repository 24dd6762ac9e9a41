//! The times of day at which a scheduled run starts.

use std::time::Duration;

use crate::error::{Error, Kind, Result};

const MINUTES_PER_DAY: u32 = 24 * 60;

/// Starts at the same minutes of every day, at equal distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    /// Minutes between two starts: a divisor of 60, or hours that divide a day.
    pub(super) every: u32,
    /// The first start of a day, in minutes after midnight.
    pub(super) first: u32,
}

impl Times {
    /// `spread` decides the minute, so that not all institutions start together. Kind `Usage` for an interval that does not divide an
    /// hour or a day, because schedulers repeat their entries every day.
    pub(super) fn new(every: Duration, spread: u64) -> Result<Self> {
        let minutes = u32::try_from(every.as_secs() / 60).unwrap_or(u32::MAX);
        let is_whole = every.as_secs().is_multiple_of(60) && every.subsec_nanos() == 0 && minutes > 0;
        let divides = match minutes {
            1..60 => 60 % minutes == 0,
            _ => minutes.is_multiple_of(60) && MINUTES_PER_DAY.is_multiple_of(minutes),
        };
        if !is_whole || minutes > MINUTES_PER_DAY || !divides {
            return Err(Error::new(Kind::Usage, "A scheduler cannot repeat a run at this interval")
                .with_field("interval", humantime::format_duration(every))
                .hint("use 30m, 1h, 2h, 3h, 4h, 6h, 8h, 12h or 24h; the service refreshes its data every 4 hours"));
        }
        let minute = u32::try_from(spread % 60).unwrap_or(0);
        // Once a day: at night.
        let first = if minutes == MINUTES_PER_DAY { 3 * 60 + minute } else { minute % minutes };
        Ok(Self { every: minutes, first })
    }

    /// Hour and minute of each start of a day.
    pub(super) fn starts(self) -> impl Iterator<Item = (u32, u32)> {
        let step = usize::try_from(self.every).unwrap_or(1).max(1);
        (self.first..MINUTES_PER_DAY).step_by(step).map(|minute| (minute / 60, minute % 60))
    }

    /// Maximum number of seconds of random delay before a start, so that institutions do not all start at once.
    pub(super) fn largest_delay(self) -> u32 {
        (self.every * 60 / 24).min(600)
    }

    /// Minute of the hour of a start.
    pub(super) fn minute(self) -> u32 {
        self.first % 60
    }

    /// In words: `every 4 hours, at 00:20, 04:20, ...`.
    pub(super) fn words(self) -> String {
        let times: Vec<String> = self.starts().take(2).map(|(hour, minute)| format!("{hour:02}:{minute:02}")).collect();
        let more = if self.starts().count() > 2 { ", ..." } else { "" };
        let each = match self.every {
            MINUTES_PER_DAY => "every day".to_owned(),
            60 => "every hour".to_owned(),
            minutes if minutes > 60 => format!("every {} hours", minutes / 60),
            1 => "every minute".to_owned(),
            minutes => format!("every {minutes} minutes"),
        };
        format!("{each}, at {}{more}", times.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(text: &str, spread: u64) -> Result<Times> {
        Times::new(humantime::parse_duration(text).unwrap(), spread)
    }

    #[test]
    fn starts_are_at_equal_distances_across_midnight() {
        for text in ["1m", "5m", "20m", "30m", "1h", "2h", "3h", "4h", "6h", "8h", "12h", "24h", "1day"] {
            let times = times(text, 47).unwrap();
            let starts: Vec<u32> = times.starts().map(|(hour, minute)| hour * 60 + minute).collect();
            assert_eq!(starts.len() as u32 * times.every, MINUTES_PER_DAY, "{text}");
            assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == times.every), "{text}");
        }
        assert_eq!(times("4h", 20).unwrap().words(), "every 4 hours, at 00:20, 04:20, ...");
        assert_eq!(times("24h", 80).unwrap().words(), "every day, at 03:20");
        assert_eq!(times("30m", 50).unwrap().words(), "every 30 minutes, at 00:20, 00:50, ...");
    }

    #[test]
    fn an_interval_that_does_not_divide_a_day_is_refused() {
        for text in ["0s", "30s", "90s", "7m", "90m", "5h", "9h", "48h", "100ms"] {
            let error = times(text, 0).unwrap_err();
            assert!(error.kind() == Kind::Usage && error.hint_text().unwrap().contains("4h"), "{text}");
        }
    }
}
