//! Checks the sizes in the page headers of a Parquet column before the Parquet library unpacks the pages.
//!
//! The library allocates as many bytes as a header says that a page has after unpacking: up to 2 GiB, whatever the page holds. Here a page
//! that is larger than its column chunk, or than a limit, is an error.

use std::io::{self, Read};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::ChunkReader;

/// The type of 32-bit integers.
const I32: u8 = 5;
/// Structures within structures in a header.
const MAX_DEPTH: u32 = 8;

/// Compares the unpacked size of each page with the size of its chunk and with `limit`, both in bytes. Reads only the page headers, and skips
/// uncompressed chunks.
pub(super) fn check_sizes<R: ChunkReader>(file: &Arc<R>, chunk: &ColumnChunkMetaData, limit: u64) -> Result<()> {
    if chunk.compression() == Compression::UNCOMPRESSED {
        return Ok(());
    }
    let column = chunk.column_descr().path();
    let refusal = |text: String| Err(ParquetError::General(format!("a page of the column {column} {text}")));
    let whole = u64::try_from(chunk.uncompressed_size()).unwrap_or(0);
    let (mut place, length) = chunk.byte_range();
    let end = place.saturating_add(length);
    while place < end {
        let header = PageHeader::read(file.get_read(place)?, end - place);
        let Ok(header) = header else { return refusal("has a damaged header".to_owned()) };
        if header.unpacked > whole {
            return refusal(format!("claims {} bytes, more than the {whole} bytes of the column chunk", header.unpacked));
        }
        if header.unpacked > limit {
            return refusal(format!(
                "has {} bytes, more than the {limit} bytes that the memory limit allows; raise --memory-limit",
                header.unpacked
            ));
        }
        place = place.saturating_add(header.length).saturating_add(header.stored);
    }
    Ok(())
}

/// The sizes in the header of a page, bytes.
#[derive(Debug, Default, PartialEq)]
struct PageHeader {
    /// The header itself.
    length: u64,
    /// The page as stored.
    stored: u64,
    /// The page after unpacking.
    unpacked: u64,
}

impl PageHeader {
    /// Reads a header of at most `limit` bytes.
    fn read(input: impl Read, limit: u64) -> io::Result<Self> {
        let mut thrift = Thrift { input: input.take(limit), limit };
        let (mut unpacked, mut stored) = (None, None);
        let mut field = 0;
        while let Some(kind) = thrift.field(&mut field)? {
            match (field, kind) {
                (2, I32) => unpacked = Some(thrift.integer()?),
                (3, I32) => stored = Some(thrift.integer()?),
                _ => thrift.skip(kind, 0)?,
            }
        }
        let size = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).ok_or_else(malformed);
        Ok(Self { length: thrift.limit - thrift.input.limit(), stored: size(stored)?, unpacked: size(unpacked)? })
    }
}

/// The subset of Thrift's compact protocol that page headers use.
struct Thrift<R> {
    input: io::Take<R>,
    limit: u64,
}

impl<R: Read> Thrift<R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed())
    }

    /// A signed integer in zigzag form.
    fn integer(&mut self) -> io::Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// The type of the next field of a structure; its number is written to `field`. `None` at the end of the structure.
    fn field(&mut self, field: &mut i64) -> io::Result<Option<u8>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        *field = match byte >> 4 {
            0 => self.integer()?,
            step => field.saturating_add(i64::from(step)),
        };
        Ok(Some(byte & 0x0f))
    }

    fn skip_bytes(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.input).take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(malformed()) }
    }

    /// Skips the value of a field.
    fn skip(&mut self, kind: u8, depth: u32) -> io::Result<()> {
        match kind {
            // Booleans of fields are in the type.
            1 | 2 => Ok(()),
            3 => self.skip_bytes(1),
            4..=6 => self.varint().map(drop),
            7 => self.skip_bytes(8),
            8 => {
                let length = self.varint()?;
                self.skip_bytes(length)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                for _ in 0..count {
                    match head & 0x0f {
                        1 | 2 => self.skip_bytes(1)?,
                        kind if depth < MAX_DEPTH => self.skip(kind, depth + 1)?,
                        _ => return Err(malformed()),
                    }
                }
                Ok(())
            }
            12 if depth < MAX_DEPTH => {
                let mut field = 0;
                while let Some(kind) = self.field(&mut field)? {
                    self.skip(kind, depth + 1)?;
                }
                Ok(())
            }
            // Headers have no maps.
            _ => Err(malformed()),
        }
    }
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_past_its_other_fields() {
        // type 0, 1,000 bytes from 20, crc; a data page header with statistics of two texts and a flag; an unknown list and structure.
        let header: &[u8] = &[
            0x15, 0x00, 0x15, 0xd0, 0x0f, 0x15, 0x28, 0x15, 0x07, // sizes
            0x1c, 0x15, 0x14, 0x15, 0x00, 0x15, 0x06, 0x15, 0x06, 0x1c, 0x18, 2, b'z', b'z', 0x18, 1, b'a', 0x16, 0x02, 0x11,
            0, 0, 0x59, 0x25, 2, 4, 0x1c, 0, // a list of two integers, an empty structure
            0,
        ];
        let length = header.len() as u64;
        let mut followed = header.to_vec();
        followed.extend([0xff; 40]);
        let read = |bytes: &[u8], limit| PageHeader::read(bytes, limit);
        assert_eq!(read(&followed, 1000).unwrap(), PageHeader { length, stored: 20, unpacked: 1000 });
        for cut in 0..header.len() {
            assert!(read(&header[..cut], 1000).is_err() && read(&followed, cut as u64).is_err(), "{cut}");
        }
        // Sizes below zero, structures without end, and a text longer than the file.
        assert!(read(&[0x25, 0x01, 0x15, 0x02, 0], 1000).is_err());
        assert!(read(&[0x4c; 200], 1000).is_err());
        assert!(read(&[0x48, 0xff, 0xff, 0xff, 0x7f, 0], u64::MAX).is_err());
    }
}
