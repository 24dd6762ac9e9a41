//! Durations as people write them.

use std::time::Duration;

#[cfg(feature = "lake")]
use crate::sink::delta::MIN_RETENTION;

/// `30s`, `10m`, `4h`, `250ms`, `1d`.
pub(in crate::cli) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| format!("`{text}` is not a time; write it as 30s, 10m or 4h"))?;
    let millis = match text[digits..].trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("`{text}` has no unit; write it as 30s, 10m or 4h")),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| format!("`{text}` is too long"))
}

/// As [`parse_duration`], for what `vacuum` spares.
#[cfg(feature = "lake")]
pub(in crate::cli) fn parse_retention(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
    match parse_duration(text)? {
        time if time < MIN_RETENTION => {
            Err("files of the last 7 days are not removed, as a run under way or a reader may need them; give 7d or more"
                .to_owned())
        }
        time if time > LONGEST => Err("it is longer than 100 years".to_owned()),
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
        assert!(parse_duration("4").is_err());
    }
}
