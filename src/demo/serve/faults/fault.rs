//! Bad days on command: what can go wrong, as types. Names and help for the command line are in `catalogue`, what is switched on is
//! in `faults`.

use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Kind, Result};

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
                .with_field("endpoint", text)
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
    /// A line that cannot be parsed: half a JSON text, a row without its last field. In Parquet a flipped bit.
    MalformedLine,
    /// A Parquet object whose key is a decimal with a dictionary, in row groups of twenty rows; in the group of the row, ten bytes of
    /// the key's data page are 0xFF. The library that reads Parquet panics on it, unless the group has a power of two rows: then other
    /// keys come out. Text formats: as `Corrupt`.
    BrokenPage,
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
    /// 403, 401 or 407 with an HTML body, as a firewall or a proxy gives it.
    Blocked {
        /// Where.
        at: Endpoint,
        /// Which status.
        status: u16,
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
    /// The schema endpoint is one version behind the jobs.
    OlderSchema,
    /// An increment whose `until` lies before its `since`.
    EndsEarly,
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
                Error::new(Kind::Usage, "Not a number of times").with_field("times", text).hint("use once, always or a number")
            }),
        }
    }
}

impl Fault {
    /// The name of the variant (of the damage, for content).
    pub(crate) fn word(&self) -> String {
        if let Fault::Content { damage, .. } = self {
            return format!("{damage:?}");
        }
        let text = format!("{self:?}");
        text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
    }
}
