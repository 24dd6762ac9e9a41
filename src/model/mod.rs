//! The terms of the service as types: namespace, table, format, window, bookmark; counts as text. No I/O.

mod count;
mod near;
mod pattern;
mod timestamp;

use std::fmt;
use std::str::FromStr;

pub(crate) use count::{counted, grouped};
pub use near::nearest;
pub use pattern::{is_pattern, name_matches};
pub use timestamp::Timestamp;

use crate::error::{Error, Kind, Result};

/// The namespaces that the service is known to have. An account may have fewer.
pub const KNOWN_NAMESPACES: [&str; 4] = ["canvas", "canvas_logs", "catalog", "new_quizzes"];

/// A group of tables on the service: `canvas`, `canvas_logs`, `catalog` or `new_quizzes`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(String);

impl Namespace {
    /// A namespace of any name. The service decides which ones exist.
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

/// A table of a namespace, printed as `namespace.table`.
///
/// ```
/// use daplake::TableRef;
///
/// let table = TableRef::new("canvas", "users");
/// assert_eq!(table.to_string(), "canvas.users");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableRef {
    /// The namespace.
    pub namespace: Namespace,
    /// The name of the table within its namespace.
    pub table: String,
}

impl TableRef {
    /// The table `table` of `namespace`.
    pub fn new(namespace: impl Into<String>, table: impl Into<String>) -> Self {
        Self { namespace: Namespace::new(namespace), table: table.into() }
    }

    /// Whether the table is `canvas_logs.web_logs`, which is delivered at least once and reaches back 30 days only. Keys repeat even in a
    /// snapshot, and a new snapshot must be merged with the rows of the target, never replace them.
    pub fn is_log(&self) -> bool {
        self.namespace.as_str() == "canvas_logs" && self.table == "web_logs"
    }

    /// Whether namespace and table can be used as folder names: ASCII letters, digits, `_` and `-`, at most 128 bytes each. Names come from
    /// the service and must never lead to a path outside of the target.
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

/// The file format of a query's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Tab-separated, PostgreSQL COPY text escapes, gzip.
    Tsv,
    /// Comma-separated (RFC 4180), gzip.
    Csv,
    /// One JSON object per line, gzip.
    Jsonl,
    /// Apache Parquet, with compression inside the file.
    Parquet,
}

impl Format {
    /// All formats, in the order of the official client's help.
    pub const ALL: [Format; 4] = [Format::Tsv, Format::Csv, Format::Jsonl, Format::Parquet];

    /// The name in the service's API and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Tsv => "tsv",
            Format::Csv => "csv",
            Format::Jsonl => "jsonl",
            Format::Parquet => "parquet",
        }
    }

    /// Whether objects of this format are gzip files.
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

/// How the service writes nested objects of fixed shape in tabular formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One column per leaf.
    Expanded,
    /// One column with JSON.
    Condensed,
}

impl Mode {
    /// The name in the service's API.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Expanded => "expanded",
            Mode::Condensed => "condensed",
        }
    }
}

/// The time window of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// All current rows.
    Snapshot,
    /// The changes after `since`, up to `until` or to the newest.
    Increment {
        /// The bookmark that the last result reached.
        since: Timestamp,
        /// Normally absent: the service then uses the time of its newest commit.
        until: Option<Timestamp>,
    },
}

/// The time up to which a table has been loaded, with the version of its schema. The time is the service's own (`at` or `until`), never
/// that of the local clock. Other tools call this a watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bookmark {
    /// The `since` of the next increment.
    pub at: Timestamp,
    /// The version of the table schema that the rows were written with.
    pub schema_version: i64,
}

/// The effect of a change on the row with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// Inserts or replaces the row.
    Upsert,
    /// Deletes the row.
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

    /// The operation of a `meta.action`; `None` for any other value, which callers report as an error.
    pub fn from_letter(letter: &[u8]) -> Option<Self> {
        match letter {
            b"U" => Some(Op::Upsert),
            b"D" => Some(Op::Delete),
            _ => None,
        }
    }
}
