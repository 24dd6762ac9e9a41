//! The kinds of faults. `catalogue` has their names and help for the command line, `active` the ones that are active.

use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// An endpoint of the service.
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
    /// All endpoints.
    pub const ALL: [Endpoint; 7] =
        [Endpoint::Login, Endpoint::Tables, Endpoint::Schema, Endpoint::Data, Endpoint::Job, Endpoint::Urls, Endpoint::Objects];

    /// Name on the command line.
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

/// The `Retry-After` header of a response with status 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// No header.
    Missing,
    /// A number of seconds.
    Seconds(u64),
    /// An HTTP date this many seconds ahead.
    Date(u64),
}

/// The reason of a response with status 403.
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

/// The damage of a result file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// One bit in the middle of the file is flipped.
    Corrupt,
    /// One bit of the gzip checksum (for Parquet: of the closing magic number) is flipped.
    WrongCrc,
    /// Bytes that are not gzip follow the end of the gzip.
    TrailingGarbage,
    /// Valid: the gzip has several members. Applies to every object.
    MultiMember,
    /// A line that cannot be parsed: half a JSON object, a row without its last field. In Parquet a flipped bit.
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
    /// One row occurs twice, as with at-least-once delivery. Text formats only.
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

/// A position in a result. Numbers past the end mean the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// Number of the object, from 0.
    pub object: u32,
    /// Number of the row in the object, from 0.
    pub row: u32,
}

impl Default for Spot {
    /// The third row of the second object.
    fn default() -> Self {
        Self { object: 1, row: 2 }
    }
}

/// A fault, or an unusual but valid behaviour.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// A response with status 429.
    Throttle {
        /// The affected endpoint.
        at: Endpoint,
        /// The `Retry-After` header.
        wait: RetryAfter,
    },
    /// A server error with a JSON (for downloads: XML) body.
    Status {
        /// The affected endpoint.
        at: Endpoint,
        /// Status, such as 500, 502 or 504.
        status: u16,
    },
    /// Status 503 with an HTML body.
    Html {
        /// The affected endpoint.
        at: Endpoint,
    },
    /// Status 403, 401 or 407 with an HTML body, as from a firewall or a proxy.
    Blocked {
        /// The affected endpoint.
        at: Endpoint,
        /// Status.
        status: u16,
    },
    /// Status 200 with an HTML page, as from a captive portal.
    NotJson {
        /// The affected endpoint.
        at: Endpoint,
    },
    /// A response with half of its JSON.
    BrokenJson {
        /// The affected endpoint.
        at: Endpoint,
    },
    /// The connection is reset before the response.
    HangUp {
        /// The affected endpoint.
        at: Endpoint,
    },
    /// Status 403 with a reason in the account.
    Account {
        /// The affected endpoint.
        at: Endpoint,
        /// The reason.
        refusal: Refusal,
    },
    /// All issued tokens become invalid after a number of calls.
    TokenDies {
        /// Calls that still succeed.
        after: u64,
    },
    /// Every JSON response has unknown members.
    ExtraMembers,
    /// An increment is refused because the table requires a new snapshot.
    SnapshotRequired,
    /// An increment is out of range.
    OutOfRange,
    /// A query whose result is empty.
    EmptyTable,
    /// A job that ends as failed.
    JobFails {
        /// Its message; may be empty.
        message: String,
    },
    /// A job that does not exist any more when its status is requested.
    JobVanishes,
    /// A job that expires early.
    JobExpires {
        /// Time from the start of the job.
        after: Duration,
    },
    /// A job with an unknown status until it is complete.
    UnknownStatus,
    /// A query returns an existing job although there are newer commits.
    StaleJob,
    /// The schema endpoint is one version ahead of the jobs, by a new optional column.
    NewerSchema,
    /// The schema endpoint is one version behind the jobs.
    OlderSchema,
    /// An increment whose `until` lies before its `since`.
    EndsEarly,
    /// A signed URL that has already expired.
    UrlExpires,
    /// An object that does not exist any more when its URL is requested.
    GoneAtTrade,
    /// An object that does not exist any more when it is downloaded.
    GoneAtDownload,
    /// A download that is redirected (302).
    Redirect,
    /// A download whose connection is closed after a number of bytes.
    Cut {
        /// Bytes sent.
        after: u64,
    },
    /// A download whose connection is reset after a number of bytes.
    Reset {
        /// Bytes sent.
        after: u64,
    },
    /// A truncated download with a matching `Content-Length`.
    ShortLength {
        /// Bytes announced and sent.
        after: u64,
    },
    /// A download with `Content-Encoding: gzip`.
    ContentEncoding,
    /// A download that ignores `Range` and returns the whole object.
    NoRanges,
    /// A slow download.
    Drip {
        /// Bytes per second.
        bytes_per_second: u64,
    },
    /// A download that stalls.
    Stall {
        /// Duration of the stall.
        pause: Duration,
        /// Bytes sent before it.
        after: u64,
    },
    /// Damage inside a result file.
    Content {
        /// The damage.
        damage: Damage,
        /// The affected endpoint.
        spot: Spot,
    },
    /// Valid: Parquet with dotted names at the top level instead of groups.
    FlatParquet,
}

/// How often a fault occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// Once.
    Once,
    /// A number of times.
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
                Error::new(Kind::Usage, "The number of times of a fault is invalid")
                    .with_field("times", text)
                    .hint("use once, always or a number")
            }),
        }
    }
}

impl Fault {
    /// Name of the variant (of the damage, for content).
    pub(crate) fn word(&self) -> String {
        if let Fault::Content { damage, .. } = self {
            return format!("{damage:?}");
        }
        let text = format!("{self:?}");
        text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
    }
}
