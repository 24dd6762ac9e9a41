//! Words of the trade, as types: namespace, table, format, window, bookmark. No I/O.

mod near;
mod pattern;
mod timestamp;

use std::fmt;
use std::str::FromStr;

pub use near::{distance, nearest};
pub use pattern::{is_pattern, name_matches};
pub use timestamp::Timestamp;

use crate::error::{Error, Kind, Result};

/// Namespaces that the service is known to have; an account may have fewer.
pub const KNOWN_NAMESPACES: [&str; 4] = ["canvas", "canvas_logs", "catalog", "new_quizzes"];

/// A group of tables on the service, such as `canvas`, `canvas_logs`, `catalog`, `new_quizzes`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(String);

impl Namespace {
    /// Any non-empty name; the service decides which exist.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name as the service spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One table of one namespace; prints as `namespace.table`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableRef {
    /// The group it belongs to.
    pub namespace: Namespace,
    /// Its name there.
    pub table: String,
}

impl TableRef {
    /// `namespace.table`.
    pub fn new(namespace: impl Into<String>, table: impl Into<String>) -> Self {
        Self { namespace: Namespace::new(namespace), table: table.into() }
    }

    /// `web_logs` is delivered at least once and reaches back 30 days only: keys repeat even in a snapshot, and a new
    /// snapshot must be merged into what is held, never replace it (dap-limits.md, section 9).
    pub fn is_log(&self) -> bool {
        self.namespace.as_str() == "canvas_logs" && self.table == "web_logs"
    }

    /// Whether both names can be used as folder names: letters, digits, `_` and `-` only, at most 128 bytes.
    /// Names come from the server and must never become paths outside the target.
    pub fn is_path_safe(&self) -> bool {
        let safe = |name: &str| {
            !name.is_empty() && name.len() <= 128 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        safe(self.namespace.as_str()) && safe(&self.table)
    }
}

impl fmt::Display for TableRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.table)
    }
}

/// File format of a query's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Tab-separated, PostgreSQL COPY text escapes, gzip.
    Tsv,
    /// RFC 4180, gzip.
    Csv,
    /// One JSON object per line, gzip.
    Jsonl,
    /// Compressed inside the file.
    Parquet,
}

impl Format {
    /// All of them, in the order of the official client's help.
    pub const ALL: [Format; 4] = [Format::Tsv, Format::Csv, Format::Jsonl, Format::Parquet];

    /// The word used by the service and the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Tsv => "tsv",
            Format::Csv => "csv",
            Format::Jsonl => "jsonl",
            Format::Parquet => "parquet",
        }
    }

    /// Whether its objects are gzip files.
    pub fn is_gzip(self) -> bool {
        self != Format::Parquet
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == text).ok_or_else(|| {
            Error::new(Kind::Usage, "Unknown format").with_field("format", text).hint("use one of tsv, csv, jsonl, parquet")
        })
    }
}

/// How nested objects of fixed shape appear in tabular formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One column per leaf.
    Expanded,
    /// One column with JSON.
    Condensed,
}

impl Mode {
    /// The word used by the service.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Expanded => "expanded",
            Mode::Condensed => "condensed",
        }
    }
}

/// What a query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// The present state.
    Snapshot,
    /// Changes from `since` (as an earlier answer named it) up to `until`, or to the newest.
    Increment {
        /// Where the last result ended.
        since: Timestamp,
        /// Normally absent: the service fills in the time of its newest commit.
        until: Option<Timestamp>,
    },
}

/// How far a table has come: what the service said (`at` or `until`), never the local clock, and the schema's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bookmark {
    /// The next `since`.
    pub at: Timestamp,
    /// Version of the table schema the rows were written with.
    pub schema_version: i64,
}

/// What a record does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// Insert or replace.
    Upsert,
    /// Remove.
    Delete,
}

impl Op {
    /// `U` or `D`, as in `meta.action`.
    pub fn letter(self) -> &'static str {
        match self {
            Op::Upsert => "U",
            Op::Delete => "D",
        }
    }

    /// From `meta.action`; any other word is an error of the data, never dropped.
    pub fn from_letter(letter: &[u8]) -> Option<Self> {
        match letter {
            b"U" => Some(Op::Upsert),
            b"D" => Some(Op::Delete),
            _ => None,
        }
    }
}
