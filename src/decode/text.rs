//! The decoder of the text formats: splits the bytes into records and the rows into batches. Records are read by `jsonl` and `delimited`.

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

/// Decodes JSONL, CSV and TSV. Bytes are pushed in pieces of any size, and full batches come out. After an error the decoder must be dropped.
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
    /// A decoder for one decompressed object. Fails with kind `Bug` for Parquet, which is not a text format.
    ///
    /// Larger limits of batches and records in `options` are reduced to 256 MiB.
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

    /// Decodes more bytes and appends full batches to `out`. Fails with kind `Data` for an unreadable row, unless rows are set aside, and for an
    /// unusable header.
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

    /// Ends the object: decodes a last line without newline and appends the remaining rows to `out`.
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
                    return Err(self.rows.broken("The header cannot be read"));
                }
                self.rows.begin();
                self.rows.reject(&Fault::new("a quote is never closed"), line, &carry)?;
            }
            End::LostInQuotes { line } => {
                // Setting aside this row would silently lose all rows after the quote.
                return Err(self
                    .rows
                    .broken("A quote is never closed, so the rows after it cannot be separated")
                    .with_field("line", line));
            }
        }
        out.extend(self.rows.take()?);
        Ok(())
    }

    /// The counters as of the last batch.
    pub fn counts(&self) -> &DecodeCounts {
        self.rows.counts()
    }

    fn lacks_header(&self) -> bool {
        matches!(&self.reader, Reader::Delimited(reader) if !reader.has_header())
    }

    fn record(&mut self, record: &[u8], line: u64, out: &mut Vec<RecordBatch>) -> Result<()> {
        let record = if line == 1 { record.strip_prefix("\u{feff}".as_bytes()).unwrap_or(record) } else { record };
        // Checked once per record: cells end at ASCII bytes, so they are UTF-8, too.
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
            return Err(self.rows.broken("The header is too long"));
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
