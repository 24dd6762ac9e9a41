//! From bytes of an object to record batches of changes. It does not know where the bytes came from.
//!
//! Batches have the schema [`crate::schema::change_schema`]: `_action` (`U` or `D`), `_ts`, `_seq`, key columns, value columns.

use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::model::Format;
use crate::schema::{Nested, TableSchema};

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
}

/// What to do with a row that cannot be read.
#[derive(Clone)]
pub enum BadRows {
    /// The table fails.
    Fail,
    /// It is handed over and the decoder goes on. Called on the decoding thread, one row at a time.
    SetAside(Arc<dyn Fn(&RowError, &[u8]) -> Result<()> + Send + Sync>),
}

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    /// Nulls in columns that the schema says are required (in upserts).
    pub required_nulls: u64,
    /// Names of columns or members that the schema does not know.
    pub unknown_columns: std::collections::BTreeSet<String>,
}

/// Decoder for JSONL, CSV and TSV: bytes are pushed in any split, full batches come out.
pub struct TextDecoder {}

impl TextDecoder {
    /// A decoder for one unpacked object.
    pub fn new(_schema: Arc<TableSchema>, _format: Format, _options: DecodeOptions) -> Result<Self> {
        unimplemented!()
    }

    /// Takes more bytes; full batches are appended to `out`.
    pub fn push(&mut self, _bytes: &[u8], _out: &mut Vec<RecordBatch>) -> Result<()> {
        unimplemented!()
    }

    /// The object ends here: a last line without newline is taken, the rest is given out.
    pub fn finish(&mut self, _out: &mut Vec<RecordBatch>) -> Result<()> {
        unimplemented!()
    }

    /// What was seen so far.
    pub fn counts(&self) -> &DecodeCounts {
        unimplemented!()
    }
}
