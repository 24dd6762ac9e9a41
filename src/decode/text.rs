//! The decoder of the text formats: cuts records, has them read, cuts batches. What is in a record is for `jsonl` and
//! `delimited`.

use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use super::delimited::{Delimited, Dialect};
use super::fault::{Fault, Read};
use super::frame::{End, Frame, Frames};
use super::jsonl::Jsonl;
use super::rows::Rows;
use super::{DecodeCounts, DecodeOptions};
use crate::error::{Error, Kind, Result};
use crate::model::Format;
use crate::schema::TableSchema;

/// Decoder for JSONL, CSV and TSV: bytes are pushed in any split, full batches come out. After an error it must be dropped.
pub struct TextDecoder {
    frames: Frames,
    reader: Reader,
    rows: Rows,
}

enum Reader {
    Jsonl(Box<Jsonl>),
    Delimited(Delimited),
}

impl Reader {
    #[inline]
    fn read(&mut self, record: &[u8], rows: &mut Rows) -> Read<bool> {
        match self {
            Reader::Jsonl(reader) => reader.read(record, rows),
            Reader::Delimited(reader) => reader.read(record, rows),
        }
    }
}

impl TextDecoder {
    /// A decoder for one unpacked object. Kind `Bug` for Parquet, which is no text format.
    ///
    /// Batches are cut at 256 MiB and records at the same size, whatever the options say.
    pub fn new(schema: Arc<TableSchema>, format: Format, options: DecodeOptions) -> Result<Self> {
        let reader = match format {
            Format::Jsonl => Reader::Jsonl(Box::new(Jsonl::new())),
            Format::Csv => Reader::Delimited(Delimited::new(Dialect::Csv)),
            Format::Tsv => Reader::Delimited(Delimited::new(Dialect::Tsv)),
            Format::Parquet => return Err(Error::new(Kind::Bug, "Parquet is not a text format")),
        };
        let rows = Rows::new(schema, options)?;
        Ok(Self { frames: Frames::new(format == Format::Csv, rows.options().max_line), reader, rows })
    }

    /// Takes more bytes; full batches are appended to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<RecordBatch>) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let next = match self.frames.next(rest) {
                Frame::Whole { end, next, line } => {
                    self.record(&rest[..end], line, out)?;
                    next
                }
                Frame::Joined { next, line } => {
                    let carry = self.frames.take_carry();
                    self.record(&carry, line, out)?;
                    self.frames.give_back(carry);
                    next
                }
                Frame::TooLong { next, line } => {
                    let carry = self.frames.take_carry();
                    self.too_long(&carry, line)?;
                    self.frames.give_back(carry);
                    next
                }
                Frame::Skipped { next } => next,
                Frame::More => break,
            };
            rest = &rest[next..];
        }
        Ok(())
    }

    /// The object ends here: a last line without newline is taken, the rest is given out.
    pub fn finish(&mut self, out: &mut Vec<RecordBatch>) -> Result<()> {
        match self.frames.end() {
            End::Clean => {}
            End::Record { line } => {
                let carry = self.frames.take_carry();
                self.record(&carry, line, out)?;
            }
            End::OpenQuote { line } => {
                let carry = self.frames.take_carry();
                if self.lacks_header() {
                    return Err(self.rows.broken("The header of the result cannot be read"));
                }
                self.rows.begin();
                self.rows.reject(&Fault::new("a quote is opened and never closed"), line, &carry)?;
            }
            End::LostInQuotes { line } => {
                // Setting aside one row would lose all rows behind the quote without a word.
                return Err(self
                    .rows
                    .broken("A quote is opened and never closed; the rows behind it cannot be told apart")
                    .with_field("line", line));
            }
        }
        out.extend(self.rows.take()?);
        Ok(())
    }

    /// What was seen so far, as of the last batch given out.
    pub fn counts(&self) -> &DecodeCounts {
        self.rows.counts()
    }

    fn lacks_header(&self) -> bool {
        matches!(&self.reader, Reader::Delimited(reader) if !reader.has_header())
    }

    fn record(&mut self, record: &[u8], line: u64, out: &mut Vec<RecordBatch>) -> Result<()> {
        let record = if line == 1 { record.strip_prefix("\u{feff}".as_bytes()).unwrap_or(record) } else { record };
        // Once for the whole record: cells end at ASCII bytes, so each of them is UTF-8 too.
        let utf8 = record.is_ascii() || std::str::from_utf8(record).is_ok();
        if let Reader::Delimited(reader) = &mut self.reader
            && !reader.has_header()
        {
            return reader.header(record, &mut self.rows);
        }
        let read = if utf8 { self.reader.read(record, &mut self.rows) } else { self.not_utf8() };
        match read {
            Ok(_) => {
                if self.rows.is_full() {
                    out.extend(self.rows.take()?);
                }
                Ok(())
            }
            Err(fault) => self.rows.reject(&fault, line, record),
        }
    }

    #[cold]
    fn not_utf8(&mut self) -> Read<bool> {
        self.rows.begin();
        Err(Fault::new("not UTF-8"))
    }

    fn too_long(&mut self, beginning: &[u8], line: u64) -> Result<()> {
        if self.lacks_header() {
            return Err(self.rows.broken("The header of the result is longer than a line may be"));
        }
        self.rows.begin();
        let limit = self.rows.options().max_line;
        let quotes = matches!(&self.reader, Reader::Delimited(reader) if reader.dialect() == Dialect::Csv);
        let reason = format!("longer than {limit} bytes{}", if quotes { ", or a quote is never closed" } else { "" });
        self.rows.reject(&Fault::new(reason), line, beginning)
    }
}

impl fmt::Debug for TextDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextDecoder").field("table", &self.rows.table().table).field("counts", self.counts()).finish()
    }
}
