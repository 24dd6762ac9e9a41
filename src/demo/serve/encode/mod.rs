//! Encodes records as result files: JSONL, CSV and TSV (gzip), and Parquet. Streaming, and fast because benchmarks read the files.

mod columns;
mod delimited;
mod jsonl;
mod parquet;
mod shape;
#[cfg(test)]
mod tests;
mod text;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use self::delimited::{Delimited, Dialect};
use self::jsonl::Jsonl;
use self::parquet::ParquetObject;
use self::shape::Shape;
use crate::demo::record::{Layout, Record};
use crate::error::{Kind, Result, ResultExt};
use crate::model::{Format, Mode};

/// Text is compressed in pieces of about this size.
const CHUNK_BYTES: usize = 256 * 1024;

/// Format and layout of a result file.
#[derive(Debug, Clone)]
pub(super) struct Style {
    pub(super) format: Format,
    pub(super) mode: Mode,
    /// Whether records have `meta.action`.
    pub(super) incremental: bool,
    /// Whether Parquet has dotted names at the top level.
    pub(super) flat: bool,
    pub(super) layout: Layout,
    pub(super) schema: Value,
}

impl Style {
    /// Extension of file names.
    pub(super) fn extension(&self) -> &'static str {
        extension(self.format)
    }
}

/// Extension of file names of a format.
pub(super) fn extension(format: Format) -> &'static str {
    match format {
        Format::Tsv => "tsv.gz",
        Format::Csv => "csv.gz",
        Format::Jsonl => "jsonl.gz",
        Format::Parquet => "parquet",
    }
}

/// Size and checksum of a complete file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) bytes: u64,
    pub(super) crc32: u32,
}

/// A file that computes its size and checksum while it is written.
pub(super) struct SummedFile {
    file: BufWriter<File>,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl SummedFile {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).context(Kind::Io, "An object file cannot be created")?;
        Ok(Self { file: BufWriter::with_capacity(128 * 1024, file), crc: crc32fast::Hasher::new(), bytes: 0 })
    }

    pub(super) fn finish(mut self) -> Result<Sum> {
        self.file.flush().context(Kind::Io, "An object file cannot be written")?;
        Ok(Sum { bytes: self.bytes, crc32: self.crc.finalize() })
    }
}

impl Write for SummedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.crc.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// An object that is being written.
pub(super) struct Object(Content);

enum Content {
    /// Compressed lines.
    Text { lines: Lines, buffer: Vec<u8>, out: Box<GzEncoder<SummedFile>> },
    /// Parquet.
    Parquet(Box<ParquetObject<SummedFile>>),
}

/// A line format.
enum Lines {
    Json(Jsonl),
    Delimited(Box<Delimited>),
}

impl Lines {
    fn new(style: &Style) -> Option<Self> {
        let delimited = |dialect| Delimited::new(&style.layout, dialect, style.mode, style.incremental);
        match style.format {
            Format::Tsv => Some(Lines::Delimited(Box::new(delimited(Dialect::Tsv)))),
            Format::Csv => Some(Lines::Delimited(Box::new(delimited(Dialect::Csv)))),
            Format::Jsonl => Some(Lines::Json(Jsonl::new(&style.layout, style.incremental))),
            Format::Parquet => None,
        }
    }

    fn header(&self, out: &mut Vec<u8>) {
        if let Lines::Delimited(delimited) = self {
            delimited.header(out);
        }
    }

    fn row(&mut self, record: &Record, out: &mut Vec<u8>) {
        match self {
            Lines::Json(json) => json.row(record, out),
            Lines::Delimited(delimited) => delimited.row(record, out),
        }
    }
}

impl Object {
    /// Creates a file.
    pub(super) fn create(path: &Path, style: &Style) -> Result<Self> {
        let file = SummedFile::create(path)?;
        Ok(Self(match Lines::new(style) {
            Some(lines) => {
                let mut buffer = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4);
                lines.header(&mut buffer);
                Content::Text { lines, buffer, out: Box::new(GzEncoder::new(file, Compression::fast())) }
            }
            None => {
                let Style { mode, incremental, flat, layout, schema, .. } = style;
                Content::Parquet(Box::new(ParquetObject::new(file, layout, schema, *mode, *incremental, *flat)?))
            }
        }))
    }

    /// Adds a record.
    pub(super) fn row(&mut self, record: &Record) -> Result<()> {
        match &mut self.0 {
            Content::Text { lines, buffer, out } => {
                lines.row(record, buffer);
                if buffer.len() >= CHUNK_BYTES {
                    out.write_all(buffer).context(Kind::Io, "An object file cannot be written")?;
                    buffer.clear();
                }
                Ok(())
            }
            Content::Parquet(object) => object.row(record),
        }
    }

    /// Completes the file.
    pub(super) fn finish(self) -> Result<Sum> {
        match self.0 {
            Content::Text { buffer, mut out, .. } => {
                let file = out.write_all(&buffer).and_then(|()| out.finish());
                file.context(Kind::Io, "An object file cannot be written")?.finish()
            }
            Content::Parquet(object) => object.finish()?.finish(),
        }
    }
}

/// The first integer value column, for faults that need one.
pub(super) fn integer_column(style: &Style) -> Option<String> {
    let is_integer =
        |name: &str| matches!(Shape::of_column(&style.schema, "value", name), Shape::Int16 | Shape::Int32 | Shape::Int64);
    style.layout.value.iter().map(|field| &field.name).find(|name| is_integer(name)).cloned()
}
