//! Durations of options and settings.

use std::time::Duration;

#[cfg(feature = "lake")]
use crate::sink::delta::MIN_RETENTION;

/// A duration such as `30s`, `10m`, `4h`, `250ms`, `1d` or `1h 30m`.
pub(in crate::cli) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("`{text}` is not a duration; write it as 30s, 10m or 4h"))
}

/// The retention of `vacuum`: from 7 days to 100 years.
#[cfg(feature = "lake")]
pub(in crate::cli) fn parse_retention(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
    match parse_duration(text)? {
        time if time < MIN_RETENTION => {
            Err("the minimum is 7d, because a reader or a running load may still need younger files".to_owned())
        }
        time if time > LONGEST => Err("the maximum is 100 years".to_owned()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("4h"), Ok(Duration::from_secs(4 * 3600)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["4", "", "h", "-1s", "4 parsecs", "99999999999999999999d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
