//! Decoders from the bytes of an object to record batches of changes.
//!
//! Batches have the schema [`crate::schema::change_schema`]: `_action` (`U` or `D`), `_ts`, `_seq`, key columns, value columns.
//!
//! The same rows give the same batches in all four formats and both modes:
//! - `_seq` is the object's number << 40 | the number of the record in the object, from 1. Unreadable records are numbered, too.
//! - A row is unreadable if its key is missing, null or given twice; if the commit time is missing; if the action is neither `U` nor `D`; if a
//!   value does not fit its type; or if an upsert has no `value` although the table has value columns. Nothing of such a row gets into a batch.
//! - If another member is given twice, the last one counts.
//! - A missing `meta.action` is an upsert. All values may be null. The values of a delete are ignored.
//! - A null in a required column is loaded and counted. Unknown members and columns are reported and ignored.
//!   Columns that a file lacks are reported; they are null.
//! - An object of fixed shape whose members are all null is null itself, since expanded files cannot distinguish the two.
//! - Numbers are exact, or the row is unreadable. Timestamps are truncated to microseconds, which is counted.
//! - A text column accepts any JSON value: the content of a string, or else the JSON text.

mod column;
mod delimited;
mod fault;
mod frame;
mod json;
mod jsonl;
mod page_sizes;
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

/// The options of a decoder. There is one decoder per object.
#[derive(Debug, Clone)]
pub struct DecodeOptions {
    /// The number of the object within its job: the upper 24 bits of `_seq`, so that the order of changes is the same in every run.
    pub object_number: u32,
    /// The name of the object in errors.
    pub object_name: String,
    /// The maximum number of rows per batch.
    pub batch_rows: usize,
    /// The approximate maximum size of a batch in bytes.
    pub batch_bytes: usize,
    /// The maximum length of a line or record in bytes. A longer one is an unreadable row.
    pub max_line: usize,
    /// The maximum size of a compressed Parquet page after unpacking in bytes. A file with a larger one is an error.
    pub max_page: u64,
    /// How nested objects and arrays are represented.
    pub nested: Nested,
    /// What to do with unreadable rows.
    pub bad_rows: BadRows,
    /// What to do with times and dates outside the years 1 to 9999.
    pub out_of_range: OutOfRange,
    /// Whether errors contain the key of a row. Must be false if key columns are hashed.
    pub names_keys: bool,
    /// Whether files with a header (CSV, TSV, Parquet) must have the column `meta.action`, as all increments do.
    pub needs_action: bool,
    /// Whether files with a header must have all required value columns. False if the rows may be older than the schema.
    pub needs_required: bool,
}

impl DecodeOptions {
    /// The default options for the object with this number and name: batches of 8,192 rows or 16 MiB, records of at most 256 MiB, Parquet
    /// pages of at most 1 GiB, nested columns as Arrow types, and an error for the first unreadable row or a missing required column. The rows may be those of a snapshot.
    pub fn new(object_number: u32, object_name: impl Into<String>) -> Self {
        Self {
            object_number,
            object_name: object_name.into(),
            batch_rows: 8192,
            batch_bytes: 16 << 20,
            max_line: 256 << 20,
            max_page: 1 << 30,
            nested: Nested::Typed,
            bad_rows: BadRows::Fail,
            out_of_range: OutOfRange::Fail,
            names_keys: true,
            needs_action: false,
            needs_required: true,
        }
    }
}

/// What to do with times and dates outside the years 1 to 9999, which most targets and readers do not support.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum OutOfRange {
    /// The row is unreadable.
    #[default]
    Fail,
    /// They become null and are counted, except in keys and commit times.
    Null,
}

/// What to do with unreadable rows.
#[derive(Clone)]
pub enum BadRows {
    /// The table fails.
    Fail,
    /// The row is passed to a function, and the decoder continues. The function is called on the decoding thread, for one row at a time.
    SetAside(TakeBadRow),
}

/// Receives an unreadable row: the reason, and the bytes of the record without its line end, truncated to `max_line`, or the row as JSON for
/// Parquet.
pub type TakeBadRow = Arc<dyn Fn(&RowError, &[u8]) -> Result<()> + Send + Sync>;

impl fmt::Debug for BadRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadRows::Fail => "Fail",
            BadRows::SetAside(_) => "SetAside",
        })
    }
}

/// Why and where a row is unreadable. Does not contain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// The line in the decompressed object, from 1 (the row number for Parquet).
    pub line: u64,
    /// The column, if known.
    pub column: Option<String>,
    /// The reason, such as `not an integer`.
    pub reason: String,
}

/// Counters of a decoder.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DecodeCounts {
    /// Decoded rows.
    pub rows: u64,
    /// Decoded rows that are deletes.
    pub deletes: u64,
    /// Unreadable rows that were set aside.
    pub bad_rows: u64,
    /// Placeholders in place of oversized text.
    pub oversized: u64,
    /// Timestamps that were truncated to microseconds.
    pub cut_fractions: u64,
    /// Times and dates outside the years 1 to 9999 that became null.
    #[serde(default)]
    pub nulled_times: u64,
    /// Nulls in required columns of upserts.
    pub required_nulls: u64,
    /// Names of columns or members that are not in the schema.
    pub unknown_columns: std::collections::BTreeSet<String>,
    /// Value columns that CSV, TSV or Parquet objects with rows do not have. They are null in these rows.
    #[serde(default)]
    pub absent_columns: std::collections::BTreeSet<String>,
}

impl DecodeCounts {
    /// Adds the counters of another decoder of the same table.
    pub fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.deletes += other.deletes;
        self.bad_rows += other.bad_rows;
        self.oversized += other.oversized;
        self.cut_fractions += other.cut_fractions;
        self.nulled_times += other.nulled_times;
        self.required_nulls += other.required_nulls;
        self.unknown_columns.extend(other.unknown_columns.iter().cloned());
        self.absent_columns.extend(other.absent_columns.iter().cloned());
    }
}
