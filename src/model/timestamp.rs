//! Timestamps in UTC with microseconds, as the service writes them.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::error::{Error, Kind, Result, ResultExt};

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
///
/// Parsed from RFC 3339 with any offset. Printed in UTC with `Z`, and with six decimals unless it is a whole second.
///
/// ```
/// use daplake::Timestamp;
///
/// let time: Timestamp = "2026-03-01T09:00:00+01:00".parse()?;
/// assert_eq!(time.to_string(), "2026-03-01T08:00:00Z");
/// # Ok::<(), daplake::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The timestamp `micros` microseconds after the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The time of the local clock. For ages and deadlines only, never for a bookmark.
    pub fn now() -> Self {
        Self(Utc::now().timestamp_micros())
    }

    /// The time without fractions of a second.
    #[must_use]
    pub const fn whole_seconds(self) -> Self {
        Self(self.0.div_euclid(1_000_000) * 1_000_000)
    }

    /// The same time for calendar arithmetic; `None` outside of the years that chrono supports.
    pub(crate) fn to_datetime(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_datetime() {
            Some(time) if self.0 % 1_000_000 == 0 => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Secs, true)),
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true)),
            None => write!(f, "{} us", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let time = DateTime::parse_from_rfc3339(text).context(Kind::Data, "Not an RFC 3339 timestamp")?;
        Ok(Self(time.timestamp_micros()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_printed_as_the_service_writes_them() {
        for (text, shown) in [
            ("2022-06-13T09:30:00Z", "2022-06-13T09:30:00Z"),
            ("2022-06-13T09:30:00.123456+02:00", "2022-06-13T07:30:00.123456Z"),
            ("2022-06-13T09:30:00.5Z", "2022-06-13T09:30:00.500000Z"),
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), shown);
        }
        assert!("2022-06-13T09:30:00".parse::<Timestamp>().is_err());
    }
}
