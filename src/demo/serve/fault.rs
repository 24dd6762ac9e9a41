//! Bad days on command: what can go wrong, by name, with a help line each. It does not make anything go wrong; the places where
//! it happens ask `Faults` whether it is their turn.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::model::TableRef;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// `POST /ids/auth/login`.
    Login,
    /// `GET .../table`.
    Tables,
    /// `GET .../schema`.
    Schema,
    /// `POST .../data`.
    Data,
    /// `GET /dap/job/{id}`.
    Job,
    /// `POST /dap/object/url`.
    Urls,
    /// `GET` of a signed URL.
    Objects,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Endpoint; 7] =
        [Endpoint::Login, Endpoint::Tables, Endpoint::Schema, Endpoint::Data, Endpoint::Job, Endpoint::Urls, Endpoint::Objects];

    /// The word for it on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Endpoint::Login => "login",
            Endpoint::Tables => "tables",
            Endpoint::Schema => "schema",
            Endpoint::Data => "data",
            Endpoint::Job => "job",
            Endpoint::Urls => "urls",
            Endpoint::Objects => "objects",
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.name() == text).ok_or_else(|| {
            Error::new(Kind::Usage, "Unknown endpoint")
                .with("endpoint", text)
                .hint("use one of login, tables, schema, data, job, urls, objects")
        })
    }
}

/// What an answer of 429 says about the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// Nothing.
    Missing,
    /// A number of seconds.
    Seconds(u64),
    /// An HTTP date so many seconds ahead.
    Date(u64),
}

/// Why an account is refused (403).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `AccountDisabled`.
    Disabled,
    /// `AccountNotOnboarded`.
    NotOnboarded,
    /// `AccountUnderMaintenance`.
    UnderMaintenance,
    /// `RequestTypeForbidden`.
    RequestType,
}

impl Refusal {
    /// The `type` of the error body.
    pub fn error_type(self) -> &'static str {
        match self {
            Refusal::Disabled => "AccountDisabled",
            Refusal::NotOnboarded => "AccountNotOnboarded",
            Refusal::UnderMaintenance => "AccountUnderMaintenance",
            Refusal::RequestType => "RequestTypeForbidden",
        }
    }
}

/// What is wrong with one result file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// One bit in the middle of the file is flipped.
    Corrupt,
    /// One bit of the gzip checksum (for Parquet: of the closing magic number) is flipped.
    WrongCrc,
    /// Bytes that are not gzip follow the end of the gzip.
    TrailingGarbage,
    /// Valid: the gzip is made of several members. Concerns every object.
    MultiMember,
    /// A line that cannot be parsed (JSON cut off, a field too few, an open quote).
    MalformedLine,
    /// Text in a number column.
    WrongType,
    /// A column (JSONL: a member in one row) that the schema does not know.
    ExtraColumn,
    /// An empty line between two rows.
    EmptyLine,
    /// One row comes twice, as a source that delivers at least once does it. Text formats only.
    RepeatedRow,
    /// No line end after the last row.
    NoFinalNewline,
    /// One more object, of zero bytes.
    EmptyFile,
    /// One more object, which unpacks to nothing.
    EmptyGzip,
    /// One more object with a header (Parquet: a footer) and no row.
    HeaderOnly,
}

/// Where in a result. Numbers past the end mean the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// Which object, from 0.
    pub object: u32,
    /// Which row in it, from 0.
    pub row: u32,
}

impl Default for Spot {
    /// The third row of the second object.
    fn default() -> Self {
        Self { object: 1, row: 2 }
    }
}

/// Something that goes wrong (or, for a few, is merely unusual).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// 429.
    Throttle {
        /// Where.
        at: Endpoint,
        /// What it says about the wait.
        wait: RetryAfter,
    },
    /// A server error with a JSON (for downloads: XML) body.
    Status {
        /// Where.
        at: Endpoint,
        /// Such as 500, 502, 504.
        status: u16,
    },
    /// 503 with an HTML body.
    Html {
        /// Where.
        at: Endpoint,
    },
    /// 200 with a page that is not JSON, as a captive portal gives it.
    NotJson {
        /// Where.
        at: Endpoint,
    },
    /// A right answer cut in the middle of its JSON.
    BrokenJson {
        /// Where.
        at: Endpoint,
    },
    /// The connection is reset before any answer.
    HangUp {
        /// Where.
        at: Endpoint,
    },
    /// 403 that names the account's trouble.
    Account {
        /// Where.
        at: Endpoint,
        /// Which.
        refusal: Refusal,
    },
    /// All tokens issued so far become invalid after so many more calls.
    TokenDies {
        /// Calls that still pass.
        after: u64,
    },
    /// Every JSON answer has members nobody knows.
    ExtraMembers,
    /// An increment is refused until the table is loaded anew.
    SnapshotRequired,
    /// An increment is out of reach.
    OutOfRange,
    /// A query whose result is empty.
    EmptyTable,
    /// A job that ends as failed.
    JobFails {
        /// Its message; may be empty.
        message: String,
    },
    /// A job that is gone when its state is asked for.
    JobVanishes,
    /// A job with little time to live.
    JobExpires {
        /// Life from its start.
        after: Duration,
    },
    /// A job whose state is a word nobody knows until it is complete.
    UnknownStatus,
    /// The same query finds its live job although there are newer commits.
    StaleJob,
    /// The schema endpoint is one version ahead of the jobs, by a new optional column.
    NewerSchema,
    /// A signed URL that has expired when it is handed out.
    UrlExpires,
    /// An object that is gone when its URL is asked for.
    GoneAtTrade,
    /// An object that is gone when it is downloaded.
    GoneAtDownload,
    /// A download that is redirected (302).
    Redirect,
    /// A download that ends after so many bytes: the connection is closed.
    Cut {
        /// Bytes sent.
        after: u64,
    },
    /// A download that ends after so many bytes: the connection is reset.
    Reset {
        /// Bytes sent.
        after: u64,
    },
    /// A download whose `Content-Length` is too small, and whose body agrees with it.
    ShortLength {
        /// Bytes announced and sent.
        after: u64,
    },
    /// A store that adds `Content-Encoding: gzip`.
    ContentEncoding,
    /// A store that ignores `Range` and sends the whole object.
    NoRanges,
    /// A slow store.
    Drip {
        /// At most so many.
        bytes_per_second: u64,
    },
    /// A store that falls silent.
    Stall {
        /// For how long.
        pause: Duration,
        /// Bytes sent before it.
        after: u64,
    },
    /// Something wrong inside a result file.
    Content {
        /// What.
        damage: Damage,
        /// Where.
        spot: Spot,
    },
    /// Parquet with dotted names at the top level instead of groups. Valid.
    FlatParquet,
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// One time.
    Once,
    /// So many times.
    N(u64),
    /// Until it is cleared.
    Always,
}

impl FromStr for Times {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "once" => Ok(Times::Once),
            "always" => Ok(Times::Always),
            number => number.parse().map(Times::N).map_err(|_| {
                Error::new(Kind::Usage, "Not a number of times").with("times", text).hint("use once, always or a number")
            }),
        }
    }
}

/// A fault as the command line names it.
#[derive(Debug, Clone, Copy)]
pub struct FaultHelp {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, such as `[ENDPOINT]`; each is separated by a colon. All are optional.
    pub arguments: &'static str,
    /// What it does, in one sentence.
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
        text.parse().map_err(|_| Error::new(Kind::Usage, "The argument of a fault is not a number").with("argument", text))
    }

    fn seconds(&mut self, otherwise: f64) -> Result<Duration> {
        let seconds = self.number(otherwise)?;
        Duration::try_from_secs_f64(seconds)
            .map_err(|_| Error::new(Kind::Usage, "Not a time in seconds").with("argument", seconds))
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
        "answers 429, with Retry-After in seconds, without it, or as an HTTP date (default: data, 1 second)",
        |a| Ok(Fault::Throttle { at: a.endpoint(Endpoint::Data)?, wait: a.wait()? })
    ),
    fault!("error-500", "[ENDPOINT]", "answers 500 (default: data)", |a| server_error(a, 500)),
    fault!("error-502", "[ENDPOINT]", "answers 502 (default: data)", |a| server_error(a, 502)),
    fault!("error-504", "[ENDPOINT]", "answers 504 (default: data)", |a| server_error(a, 504)),
    fault!("html-503", "[ENDPOINT]", "answers 503 with an HTML page (default: data)", |a| Ok(Fault::Html {
        at: a.endpoint(Endpoint::Data)?
    })),
    fault!("not-json", "[ENDPOINT]", "answers 200 with an HTML page (default: data)", |a| Ok(Fault::NotJson {
        at: a.endpoint(Endpoint::Data)?
    })),
    fault!("broken-json", "[ENDPOINT]", "cuts the JSON of an answer in the middle (default: data)", |a| Ok(
        Fault::BrokenJson { at: a.endpoint(Endpoint::Data)? }
    )),
    fault!("hang-up", "[ENDPOINT]", "resets the connection before any answer (default: data)", |a| Ok(Fault::HangUp {
        at: a.endpoint(Endpoint::Data)?
    })),
    fault!("login-fails", "", "answers 500 to the login", |_| Ok(Fault::Status { at: Endpoint::Login, status: 500 })),
    fault!("account-disabled", "[ENDPOINT]", "answers 403 AccountDisabled (default: data)", |a| refusal(a, Refusal::Disabled)),
    fault!("account-not-onboarded", "[ENDPOINT]", "answers 403 AccountNotOnboarded (default: data)", |a| refusal(
        a,
        Refusal::NotOnboarded
    )),
    fault!("account-under-maintenance", "[ENDPOINT]", "answers 403 AccountUnderMaintenance (default: data)", |a| refusal(
        a,
        Refusal::UnderMaintenance
    )),
    fault!("request-type-forbidden", "[ENDPOINT]", "answers 403 RequestTypeForbidden (default: data)", |a| refusal(
        a,
        Refusal::RequestType
    )),
    fault!("token-dies", "[CALLS]", "makes all tokens invalid after so many more calls (default: 0)", |a| Ok(
        Fault::TokenDies { after: a.number(0)? }
    )),
    fault!("extra-members", "", "adds members nobody knows to every JSON answer", |_| Ok(Fault::ExtraMembers)),
    fault!("snapshot-required", "", "refuses an increment until the table is loaded anew", |_| Ok(Fault::SnapshotRequired)),
    fault!("out-of-range", "", "refuses an increment as out of reach", |_| Ok(Fault::OutOfRange)),
    fault!("empty-table", "", "gives a query an empty result", |_| Ok(Fault::EmptyTable)),
    fault!("job-fails", "[MESSAGE]", "ends a job as failed (default: no message)", |a| Ok(Fault::JobFails {
        message: a.text().unwrap_or_default()
    })),
    fault!("job-vanishes", "", "loses a job when its state is asked for", |_| Ok(Fault::JobVanishes)),
    fault!("job-expires", "[SECONDS]", "gives a job little time to live (default: 10 seconds)", |a| Ok(Fault::JobExpires {
        after: a.seconds(10.0)?
    })),
    fault!("unknown-status", "", "gives a job a state nobody knows until it is complete", |_| Ok(Fault::UnknownStatus)),
    fault!("stale-job", "", "finds the live job of a query although there are newer commits", |_| Ok(Fault::StaleJob)),
    fault!("newer-schema", "", "puts the schema endpoint one version ahead of the jobs", |_| Ok(Fault::NewerSchema)),
    fault!("url-expires", "", "hands out a signed URL that has expired", |_| Ok(Fault::UrlExpires)),
    fault!("gone-at-trade", "", "loses an object when its URL is asked for", |_| Ok(Fault::GoneAtTrade)),
    fault!("gone-at-download", "", "loses an object when it is downloaded", |_| Ok(Fault::GoneAtDownload)),
    fault!("redirect", "", "redirects a download", |_| Ok(Fault::Redirect)),
    fault!("cut", "[BYTES]", "closes the connection of a download after so many bytes (default: 1000)", |a| Ok(Fault::Cut {
        after: a.number(DEFAULT_CUT_BYTES)?
    })),
    fault!("reset", "[BYTES]", "resets the connection of a download after so many bytes (default: 1000)", |a| Ok(
        Fault::Reset { after: a.number(DEFAULT_CUT_BYTES)? }
    )),
    fault!("short-length", "[BYTES]", "announces and sends only so many bytes of an object (default: 1000)", |a| Ok(
        Fault::ShortLength { after: a.number(DEFAULT_CUT_BYTES)? }
    )),
    fault!("content-encoding", "", "adds Content-Encoding: gzip to a download", |_| Ok(Fault::ContentEncoding)),
    fault!("no-ranges", "", "ignores the Range of a download", |_| Ok(Fault::NoRanges)),
    fault!("drip", "[BYTES]", "sends a download at so many bytes per second (default: 10000)", |a| Ok(Fault::Drip {
        bytes_per_second: a.number(10_000)?
    })),
    fault!("stall", "[SECONDS[:BYTES]]", "falls silent in a download (default: 60 seconds, after 1000 bytes)", |a| Ok(
        Fault::Stall { pause: a.seconds(60.0)?, after: a.number(DEFAULT_CUT_BYTES)? }
    )),
    fault!("corrupt", "[OBJECT]", "flips a bit in the middle of an object", |a| a.content(Damage::Corrupt)),
    fault!("wrong-crc", "[OBJECT]", "flips a bit of an object's gzip checksum", |a| a.content(Damage::WrongCrc)),
    fault!("trailing-garbage", "[OBJECT]", "puts other bytes behind an object's gzip", |a| a.content(Damage::TrailingGarbage)),
    fault!("multi-member", "", "makes each object of several gzip members (valid)", |a| a.content(Damage::MultiMember)),
    fault!("malformed-line", "[OBJECT[:ROW]]", "breaks one line of an object", |a| a.content(Damage::MalformedLine)),
    fault!("wrong-type", "[OBJECT[:ROW]]", "puts text into a number column of one row", |a| a.content(Damage::WrongType)),
    fault!("extra-column", "[OBJECT[:ROW]]", "adds a column the schema does not know", |a| a.content(Damage::ExtraColumn)),
    fault!("empty-line", "[OBJECT[:ROW]]", "puts an empty line between two rows", |a| a.content(Damage::EmptyLine)),
    fault!("repeated-row", "[OBJECT[:ROW]]", "sends one row twice", |a| a.content(Damage::RepeatedRow)),
    fault!("no-final-newline", "[OBJECT]", "leaves out an object's last line end", |a| a.content(Damage::NoFinalNewline)),
    fault!("empty-file", "", "adds an object of zero bytes", |a| a.content(Damage::EmptyFile)),
    fault!("empty-gzip", "", "adds an object that unpacks to nothing", |a| a.content(Damage::EmptyGzip)),
    fault!("header-only", "", "adds an object with a header and no row", |a| a.content(Damage::HeaderOnly)),
    fault!("flat-parquet", "", "writes Parquet with dotted names instead of groups (valid)", |_| Ok(Fault::FlatParquet)),
];

fn server_error(arguments: &mut Arguments<'_>, status: u16) -> Result<Fault> {
    Ok(Fault::Status { at: arguments.endpoint(Endpoint::Data)?, status })
}

fn refusal(arguments: &mut Arguments<'_>, refusal: Refusal) -> Result<Fault> {
    Ok(Fault::Account { at: arguments.endpoint(Endpoint::Data)?, refusal })
}

impl Fault {
    /// All faults by name, with their help.
    pub fn catalogue() -> &'static [FaultHelp] {
        CATALOGUE
    }

    /// Names of all faults.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CATALOGUE.iter().map(|entry| entry.name)
    }

    /// The name of the variant (of the damage, for content).
    fn word(&self) -> String {
        if let Fault::Content { damage, .. } = self {
            return format!("{damage:?}");
        }
        let text = format!("{self:?}");
        text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
    }

    /// From `NAME[:ARG[:ARG]]`, as on the command line.
    pub fn parse(text: &str) -> Result<Self> {
        let mut arguments = Arguments(text.split(':').peekable());
        let name = arguments.text().unwrap_or_default();
        let entry = CATALOGUE.iter().find(|entry| entry.name == name).ok_or_else(|| {
            let names: Vec<_> = Fault::names().collect();
            Error::new(Kind::Usage, "Unknown fault").with("fault", &name).hint(format!("use one of {}", names.join(", ")))
        })?;
        let fault = (entry.build)(&mut arguments).map_err(|error| error.with("fault", &name))?;
        match arguments.text() {
            None => Ok(fault),
            Some(extra) => Err(Error::new(Kind::Usage, "Too many arguments for a fault")
                .with("fault", name)
                .with("argument", extra)
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

/// A fault that is switched on.
#[derive(Debug)]
struct Rule {
    fault: Fault,
    table: Option<TableRef>,
    /// Occasions that still pass unharmed.
    skip: u64,
    /// Strikes left; `None`: no end.
    left: Option<u64>,
}

/// The faults that are switched on, and how often each kind of occasion was struck.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Mutex<Vec<Rule>>,
    struck: Mutex<BTreeMap<String, u64>>,
}

impl Faults {
    pub(super) fn add(&self, table: Option<TableRef>, fault: Fault, times: Times, skip: u64) {
        let skip = if let Fault::TokenDies { after } = fault { skip + after } else { skip };
        let left = match times {
            Times::Once => Some(1),
            Times::N(times) => Some(times),
            Times::Always => None,
        };
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push(Rule { fault, table, skip, left });
    }

    pub(super) fn clear(&self) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Strikes by the name of the variant, such as `Throttle` or `WrongCrc`.
    pub(super) fn struck(&self) -> BTreeMap<String, u64> {
        self.struck.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An occasion: the first fault that `pick` wants (and that is meant for this table) strikes, unless it has occasions to
    /// skip. `table` is `None` where a call concerns no table; faults for one table do not strike there.
    pub(super) fn take<T>(&self, table: Option<&TableRef>, pick: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        for place in 0..rules.len() {
            let rule = &mut rules[place];
            if rule.left == Some(0) || rule.table.as_ref().is_some_and(|wanted| Some(wanted) != table) {
                continue;
            }
            let Some(picked) = pick(&rule.fault) else { continue };
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if let Fault::TokenDies { after } = rule.fault {
                rule.skip = after;
            }
            rule.left = rule.left.map(|left| left - 1);
            let word = rule.fault.word();
            *self.struck.lock().unwrap_or_else(PoisonError::into_inner).entry(word).or_default() += 1;
            return Some(picked);
        }
        None
    }

    /// An occasion for a fault without arguments.
    pub(super) fn strikes(&self, table: Option<&TableRef>, fault: &Fault) -> bool {
        self.take(table, |candidate| (candidate == fault).then_some(())).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn faults_strike_as_often_and_where_they_should() {
        let faults = Faults::default();
        let (one, two) = (TableRef::new("n", "one"), TableRef::new("n", "two"));
        faults.add(Some(one.clone()), Fault::Redirect, Times::N(2), 1);
        let strikes = |table: Option<&TableRef>| faults.strikes(table, &Fault::Redirect);
        assert!(!strikes(None) && !strikes(Some(&two)));
        assert!(!strikes(Some(&one)), "the first occasion is skipped");
        assert!(strikes(Some(&one)) && strikes(Some(&one)) && !strikes(Some(&one)));

        faults.add(None, Fault::Redirect, Times::Always, 0);
        assert!(strikes(None) && strikes(Some(&two)));
        faults.clear();
        assert!(!strikes(None));
        assert_eq!(faults.struck()["Redirect"], 4);
    }
}
