//! Faults by name, with arguments and help, for the command line.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::demo::serve::faults::fault::{Damage, Endpoint, Fault, Refusal, RetryAfter, Spot};
use crate::error::{Error, Kind, Result};

/// A fault on the command line.
#[derive(Debug, Clone, Copy)]
pub struct FaultHelp {
    /// Name.
    pub name: &'static str,
    /// Arguments, such as `[ENDPOINT]`, separated by colons. All are optional.
    pub arguments: &'static str,
    /// Effect, in one sentence.
    pub help: &'static str,
    build: fn(&mut Arguments<'_>) -> Result<Fault>,
}

/// The parts of `NAME:ARG:ARG`.
struct Arguments<'a>(std::iter::Peekable<std::str::Split<'a, char>>);

impl Arguments<'_> {
    fn text(&mut self) -> Option<String> {
        self.0.next().map(str::to_owned)
    }

    fn endpoint(&mut self, otherwise: Endpoint) -> Result<Endpoint> {
        self.0.next().map_or(Ok(otherwise), str::parse)
    }

    fn number<T: FromStr>(&mut self, otherwise: T) -> Result<T> {
        let Some(text) = self.0.next() else { return Ok(otherwise) };
        text.parse()
            .map_err(|_| Error::new(Kind::Usage, "The argument of a fault is not a number").with_field("argument", text))
    }

    fn seconds(&mut self, otherwise: f64) -> Result<Duration> {
        let seconds = self.number(otherwise)?;
        Duration::try_from_secs_f64(seconds).map_err(|_| {
            Error::new(Kind::Usage, "The argument of a fault is not a number of seconds").with_field("argument", seconds)
        })
    }

    fn wait(&mut self) -> Result<RetryAfter> {
        Ok(match self.0.next_if(|word| matches!(*word, "none" | "date")) {
            Some("none") => RetryAfter::Missing,
            Some(_) => RetryAfter::Date(self.number(2)?),
            None => RetryAfter::Seconds(self.number(1)?),
        })
    }

    fn content(&mut self, damage: Damage) -> Result<Fault> {
        let Spot { object, row } = Spot::default();
        Ok(Fault::Content { damage, spot: Spot { object: self.number(object)?, row: self.number(row)? } })
    }
}

const DEFAULT_CUT_BYTES: u64 = 1000;

macro_rules! fault {
    ($name:literal, $arguments:literal, $help:literal, $build:expr) => {
        FaultHelp { name: $name, arguments: $arguments, help: $help, build: $build }
    };
}

static CATALOGUE: &[FaultHelp] = &[
    fault!(
        "throttle",
        "[ENDPOINT[:SECONDS|none|date[:SECONDS]]]",
        "responds with 429, with Retry-After in seconds, without it, or as an HTTP date (default: data, 1 second)",
        |a| Ok(Fault::Throttle { at: a.endpoint(Endpoint::Data)?, wait: a.wait()? })
    ),
    fault!("error-500", "[ENDPOINT]", "responds with 500 (default: data)", |a| server_error(a, 500)),
    fault!("error-502", "[ENDPOINT]", "responds with 502 (default: data)", |a| server_error(a, 502)),
    fault!("error-504", "[ENDPOINT]", "responds with 504 (default: data)", |a| server_error(a, 504)),
    fault!("html-503", "[ENDPOINT]", "responds with 503 with an HTML page (default: data)", |a| Ok(Fault::Html {
        at: a.endpoint(Endpoint::Data)?
    })),
    fault!(
        "blocked",
        "[ENDPOINT[:STATUS]]",
        "responds with 403 or another status and an HTML page, as a firewall does (default: data, 403)",
        |a| Ok(Fault::Blocked { at: a.endpoint(Endpoint::Data)?, status: a.number(403)? })
    ),
    fault!("not-json", "[ENDPOINT]", "responds with 200 with an HTML page (default: data)", |a| Ok(Fault::NotJson {
        at: a.endpoint(Endpoint::Data)?
    })),
    fault!("broken-json", "[ENDPOINT]", "cuts the JSON of a response in the middle (default: data)", |a| Ok(
        Fault::BrokenJson { at: a.endpoint(Endpoint::Data)? }
    )),
    fault!("hang-up", "[ENDPOINT]", "resets the connection before the response (default: data)", |a| Ok(Fault::HangUp {
        at: a.endpoint(Endpoint::Data)?
    })),
    fault!("login-fails", "", "responds with 500 to the login", |_| Ok(Fault::Status { at: Endpoint::Login, status: 500 })),
    fault!("account-disabled", "[ENDPOINT]", "responds with 403 AccountDisabled (default: data)", |a| refusal(
        a,
        Refusal::Disabled
    )),
    fault!("account-not-onboarded", "[ENDPOINT]", "responds with 403 AccountNotOnboarded (default: data)", |a| refusal(
        a,
        Refusal::NotOnboarded
    )),
    fault!("account-under-maintenance", "[ENDPOINT]", "responds with 403 AccountUnderMaintenance (default: data)", |a| {
        refusal(a, Refusal::UnderMaintenance)
    }),
    fault!("request-type-forbidden", "[ENDPOINT]", "responds with 403 RequestTypeForbidden (default: data)", |a| refusal(
        a,
        Refusal::RequestType
    )),
    fault!("token-dies", "[CALLS]", "invalidates all tokens after a number of calls (default: 0)", |a| Ok(Fault::TokenDies {
        after: a.number(0)?
    })),
    fault!("extra-members", "", "adds unknown members to every JSON response", |_| Ok(Fault::ExtraMembers)),
    fault!("snapshot-required", "", "refuses an increment because the table requires a new snapshot", |_| Ok(
        Fault::SnapshotRequired
    )),
    fault!("out-of-range", "", "refuses an increment as out of range", |_| Ok(Fault::OutOfRange)),
    fault!("empty-table", "", "gives a query an empty result", |_| Ok(Fault::EmptyTable)),
    fault!("job-fails", "[MESSAGE]", "ends a job as failed (default: no message)", |a| Ok(Fault::JobFails {
        message: a.text().unwrap_or_default()
    })),
    fault!("job-vanishes", "", "loses a job when its status is requested", |_| Ok(Fault::JobVanishes)),
    fault!("job-expires", "[SECONDS]", "expires a job early (default: after 10 seconds)", |a| Ok(Fault::JobExpires {
        after: a.seconds(10.0)?
    })),
    fault!("unknown-status", "", "gives a job an unknown status until it is complete", |_| Ok(Fault::UnknownStatus)),
    fault!("stale-job", "", "returns an existing job although there are newer commits", |_| Ok(Fault::StaleJob)),
    fault!("newer-schema", "", "puts the schema endpoint one version ahead of the jobs", |_| Ok(Fault::NewerSchema)),
    fault!("older-schema", "", "leaves the schema endpoint one version behind the jobs", |_| Ok(Fault::OlderSchema)),
    fault!("ends-early", "", "ends an increment before it begins", |_| Ok(Fault::EndsEarly)),
    fault!("url-expires", "", "returns a signed URL that has expired", |_| Ok(Fault::UrlExpires)),
    fault!("gone-at-trade", "", "loses an object when its URL is requested", |_| Ok(Fault::GoneAtTrade)),
    fault!("gone-at-download", "", "loses an object when it is downloaded", |_| Ok(Fault::GoneAtDownload)),
    fault!("redirect", "", "redirects a download", |_| Ok(Fault::Redirect)),
    fault!("cut", "[BYTES]", "closes the connection of a download after a number of bytes (default: 1000)", |a| Ok(
        Fault::Cut { after: a.number(DEFAULT_CUT_BYTES)? }
    )),
    fault!("reset", "[BYTES]", "resets the connection of a download after a number of bytes (default: 1000)", |a| Ok(
        Fault::Reset { after: a.number(DEFAULT_CUT_BYTES)? }
    )),
    fault!("short-length", "[BYTES]", "truncates an object, with a matching Content-Length (default: 1000)", |a| Ok(
        Fault::ShortLength { after: a.number(DEFAULT_CUT_BYTES)? }
    )),
    fault!("content-encoding", "", "adds Content-Encoding: gzip to a download", |_| Ok(Fault::ContentEncoding)),
    fault!("no-ranges", "", "ignores the Range of a download", |_| Ok(Fault::NoRanges)),
    fault!("drip", "[BYTES]", "limits a download to a rate in bytes per second (default: 10000)", |a| Ok(Fault::Drip {
        bytes_per_second: a.number(10_000)?
    })),
    fault!("stall", "[SECONDS[:BYTES]]", "stalls a download (default: 60 seconds, after 1000 bytes)", |a| Ok(Fault::Stall {
        pause: a.seconds(60.0)?,
        after: a.number(DEFAULT_CUT_BYTES)?
    })),
    fault!("corrupt", "[OBJECT]", "flips a bit in the middle of an object", |a| a.content(Damage::Corrupt)),
    fault!("wrong-crc", "[OBJECT]", "flips a bit of an object's gzip checksum", |a| a.content(Damage::WrongCrc)),
    fault!("trailing-garbage", "[OBJECT]", "appends other bytes to an object's gzip", |a| a.content(Damage::TrailingGarbage)),
    fault!("multi-member", "", "writes each object with several gzip members (valid)", |a| a.content(Damage::MultiMember)),
    fault!("malformed-line", "[OBJECT[:ROW]]", "breaks one line of an object", |a| a.content(Damage::MalformedLine)),
    fault!("broken-page", "[OBJECT[:ROW]]", "overwrites bytes of a Parquet page in the row group of a row", |a| a
        .content(Damage::BrokenPage)),
    fault!("wrong-type", "[OBJECT[:ROW]]", "puts text into a number column of one row", |a| a.content(Damage::WrongType)),
    fault!("extra-column", "[OBJECT[:ROW]]", "adds a column that is not in the schema", |a| a.content(Damage::ExtraColumn)),
    fault!("empty-line", "[OBJECT[:ROW]]", "puts an empty line between two rows", |a| a.content(Damage::EmptyLine)),
    fault!("repeated-row", "[OBJECT[:ROW]]", "sends one row twice", |a| a.content(Damage::RepeatedRow)),
    fault!("no-final-newline", "[OBJECT]", "omits an object's last line end", |a| a.content(Damage::NoFinalNewline)),
    fault!("empty-file", "", "adds an object of zero bytes", |a| a.content(Damage::EmptyFile)),
    fault!("empty-gzip", "", "adds an object that decompresses to nothing", |a| a.content(Damage::EmptyGzip)),
    fault!("header-only", "", "adds an object with a header and no rows", |a| a.content(Damage::HeaderOnly)),
    fault!("flat-parquet", "", "writes Parquet with dotted names instead of groups (valid)", |_| Ok(Fault::FlatParquet)),
];

fn server_error(arguments: &mut Arguments<'_>, status: u16) -> Result<Fault> {
    Ok(Fault::Status { at: arguments.endpoint(Endpoint::Data)?, status })
}

fn refusal(arguments: &mut Arguments<'_>, refusal: Refusal) -> Result<Fault> {
    Ok(Fault::Account { at: arguments.endpoint(Endpoint::Data)?, refusal })
}

impl Fault {
    /// All faults, with their help.
    pub fn catalogue() -> &'static [FaultHelp] {
        CATALOGUE
    }

    /// Names of all faults.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CATALOGUE.iter().map(|entry| entry.name)
    }

    /// Parses `NAME[:ARG[:ARG]]`.
    ///
    /// # Errors
    /// [`Kind::Usage`] for an unknown name or wrong arguments.
    pub fn parse(text: &str) -> Result<Self> {
        let mut arguments = Arguments(text.split(':').peekable());
        let name = arguments.text().unwrap_or_default();
        let entry = CATALOGUE.iter().find(|entry| entry.name == name).ok_or_else(|| {
            let names: Vec<_> = Fault::names().collect();
            Error::new(Kind::Usage, "Unknown fault").with_field("fault", &name).hint(format!("use one of {}", names.join(", ")))
        })?;
        let fault = (entry.build)(&mut arguments).map_err(|error| error.with_field("fault", &name))?;
        match arguments.text() {
            None => Ok(fault),
            Some(extra) => Err(Error::new(Kind::Usage, "Too many arguments for a fault")
                .with_field("fault", name)
                .with_field("argument", extra)
                .hint(format!("write {}:{}", entry.name, entry.arguments))),
        }
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Fault::parse(text)
    }
}

impl fmt::Display for FaultHelp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.arguments {
            "" => write!(f, "{}: {}", self.name, self.help),
            arguments => write!(f, "{}:{arguments}: {}", self.name, self.help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::serve::faults::fault::Times;

    #[test]
    fn every_name_parses_and_has_help() {
        for entry in Fault::catalogue() {
            let fault = Fault::parse(entry.name).unwrap();
            assert!(!entry.help.is_empty());
            let endpoint_first = entry.arguments.starts_with("[ENDPOINT");
            if endpoint_first {
                assert_ne!(Fault::parse(&format!("{}:login", entry.name)).unwrap(), fault);
            }
            let error = Fault::parse(&format!("{}:x:x:x:x:x", entry.name)).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
        }
        let mut names: Vec<_> = Fault::names().collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Fault::catalogue().len());
    }

    #[test]
    fn arguments_are_read() {
        for (text, fault) in [
            ("throttle", Fault::Throttle { at: Endpoint::Data, wait: RetryAfter::Seconds(1) }),
            ("throttle:urls:none", Fault::Throttle { at: Endpoint::Urls, wait: RetryAfter::Missing }),
            ("throttle:job:7", Fault::Throttle { at: Endpoint::Job, wait: RetryAfter::Seconds(7) }),
            ("throttle:job:date:3", Fault::Throttle { at: Endpoint::Job, wait: RetryAfter::Date(3) }),
            ("job-fails:Out of memory", Fault::JobFails { message: "Out of memory".into() }),
            ("stall:0.5:10", Fault::Stall { pause: Duration::from_millis(500), after: 10 }),
            ("wrong-type:0:7", Fault::Content { damage: Damage::WrongType, spot: Spot { object: 0, row: 7 } }),
        ] {
            assert_eq!(Fault::parse(text).unwrap(), fault);
        }
        assert_eq!(Fault::parse("cut:many").unwrap_err().get("fault"), Some("cut"));
        assert_eq!(Fault::parse("no-such").unwrap_err().kind(), Kind::Usage);
        assert_eq!("3".parse::<Times>().unwrap(), Times::N(3));
    }
}
