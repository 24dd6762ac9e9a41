//! From bytes of an object to record batches of changes. It does not know where the bytes came from.
//!
//! Batches have the schema [`crate::schema::change_schema`]: `_action` (`U` or `D`), `_ts`, `_seq`, key columns, value columns.
//!
//! The same rows give the same batches in all four formats and both modes. The rules:
//! - `_seq` is the object's number << 40 | the number of the record in the object, from 1; unreadable records are counted.
//! - A missing or null key, or one given twice; a missing commit time; an action other than `U` and `D`; a value that does not
//!   fit its type; an upsert without `value`, unless the table has no other columns than its key: an unreadable row. Nothing of it
//!   stays in a batch. Other members given twice: the last counts.
//! - A missing `meta.action` is an upsert; values that are all null are legal. A delete has no values, whatever the file says.
//! - A null in a required column is kept and counted. Members and columns that the schema does not know are named and ignored.
//! - An object of fixed shape whose members are all null is null itself: expanded files cannot tell the two apart.
//! - Numbers are exact or an error; only times lose what is finer than a microsecond, and that is counted.
//! - Any JSON value is taken for a text column: a string's content, else the JSON text.

mod column;
mod delimited;
mod fault;
mod frame;
mod json;
mod jsonl;
mod pages;
mod parquet;
mod render;
mod rows;
mod scan;
mod target;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::schema::Nested;

pub use parquet::{ParquetBatches, parquet};
pub use text::TextDecoder;

/// Settings of one decoder; one decoder per object.
#[derive(Debug, Clone)]
pub struct DecodeOptions {
    /// Number of the object within its job: upper 24 bits of `_seq`, so that "last seen" is the same at every run.
    pub object_number: u32,
    /// Name of the object in errors.
    pub object_name: String,
    /// A batch is full at so many rows ...
    pub batch_rows: usize,
    /// ... or about so many bytes.
    pub batch_bytes: usize,
    /// Longest line or record in bytes; a longer one is an unreadable row.
    pub max_line: usize,
    /// How nested objects and arrays come out.
    pub nested: Nested,
    /// What to do with a row that cannot be read.
    pub bad_rows: BadRows,
    /// What to do with times and dates outside the years 1 to 9999.
    pub out_of_range: OutOfRange,
    /// Whether errors name the key of a row: not where its values are to be hashed.
    pub names_keys: bool,
}

/// What to do with times and dates outside the years 1 to 9999, which most targets and readers cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum OutOfRange {
    /// Their row cannot be read.
    #[default]
    Fail,
    /// They become null, and are counted. Keys and commit times never do.
    Null,
}

/// What to do with a row that cannot be read.
#[derive(Clone)]
pub enum BadRows {
    /// The table fails.
    Fail,
    /// It is handed over and the decoder goes on. Called on the decoding thread, one row at a time.
    SetAside(TakeBadRow),
}

/// Takes the reason and the bytes of a row that cannot be read: the record as it stood without its line end, cut at `max_line`;
/// of Parquet the row as JSON.
pub type TakeBadRow = Arc<dyn Fn(&RowError, &[u8]) -> Result<()> + Send + Sync>;

impl fmt::Debug for BadRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadRows::Fail => "Fail",
            BadRows::SetAside(_) => "SetAside",
        })
    }
}

/// Why and where a row cannot be read. Never holds the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// Line in the unpacked object, from 1 (row number for Parquet).
    pub line: u64,
    /// Column, when it is known.
    pub column: Option<String>,
    /// Such as `not an integer`.
    pub reason: String,
}

/// What a decoder saw besides rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DecodeCounts {
    /// Rows given out.
    pub rows: u64,
    /// Of these, deletes.
    pub deletes: u64,
    /// Rows set aside.
    pub bad_rows: u64,
    /// Placeholders found in place of text that was too large.
    pub oversized: u64,
    /// Times whose digits beyond the microsecond were cut.
    pub cut_fractions: u64,
    /// Times and dates outside the years 1 to 9999 that became null.
    #[serde(default)]
    pub nulled_times: u64,
    /// Nulls in columns that the schema says are required (in upserts).
    pub required_nulls: u64,
    /// Names of columns or members that the schema does not know.
    pub unknown_columns: std::collections::BTreeSet<String>,
}

impl DecodeCounts {
    /// What another decoder of the same table saw as well.
    pub fn add(&mut self, seen: &Self) {
        self.rows += seen.rows;
        self.deletes += seen.deletes;
        self.bad_rows += seen.bad_rows;
        self.oversized += seen.oversized;
        self.cut_fractions += seen.cut_fractions;
        self.nulled_times += seen.nulled_times;
        self.required_nulls += seen.required_nulls;
        self.unknown_columns.extend(seen.unknown_columns.iter().cloned());
    }
}
