//! Moments in UTC with microseconds, as the service writes them. No local time here.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::error::{Error, Kind, Result, ResultExt};

/// Microseconds since 1970-01-01T00:00:00Z. Parses RFC 3339 with any offset; prints with `Z`, microseconds only when there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The local clock. For ages and deadlines only, never for a bookmark.
    pub fn now() -> Self {
        Self(Utc::now().timestamp_micros())
    }

    /// For arithmetic on calendars; `None` outside chrono's years.
    pub fn to_datetime(self) -> Option<DateTime<Utc>> {
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
        let time = DateTime::parse_from_rfc3339(text).context(Kind::Data, "Not a time with offset")?;
        Ok(Self(time.timestamp_micros()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_the_service_writes() {
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
