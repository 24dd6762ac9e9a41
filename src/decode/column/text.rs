//! Text columns: one buffer of bytes, and an offset per row. Also UUIDs, which are normalised text.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};

use super::super::fault::{Fault, Read};
use super::super::json::Cursor;
use super::tally::{Cell, Tally};
use super::validity::Bits;
use crate::error::{Kind, Result, ResultExt};

/// The service's placeholders for oversized text. The second is the older spelling.
const PLACEHOLDERS: [&[u8]; 2] = [b"__dap_oversized_truncated__", b"__cd2_oversized_truncated__"];

/// The text column of a batch. Skipped rows are null.
#[derive(Debug)]
pub(in crate::decode) struct TextColumn {
    bytes: Vec<u8>,
    /// The start of each row so far, and the end of the last one.
    offsets: Vec<i32>,
    valid: Bits,
}

impl TextColumn {
    pub(super) fn new() -> Self {
        Self { bytes: Vec::new(), offsets: vec![0], valid: Bits::default() }
    }

    pub(super) fn reserve(&mut self, rows: usize) {
        self.valid.reserve(rows);
    }

    /// Reads the JSON value at the cursor: the content of a string, or else the JSON text.
    #[inline]
    pub(super) fn json(&mut self, cursor: &mut Cursor<'_>, row: usize, tally: &mut Tally) -> Read<()> {
        self.begin(row);
        match cursor.peek() {
            b'"' => cursor.string_into(&mut self.bytes)?,
            _ => self.bytes.extend_from_slice(cursor.raw()?),
        }
        self.end(row, tally)
    }

    #[inline]
    pub(super) fn cell(&mut self, cell: Cell<'_>, row: usize, tally: &mut Tally) -> Read<()> {
        self.begin(row);
        cell.append_to(&mut self.bytes)?;
        self.end(row, tally)
    }

    #[inline]
    pub(super) fn put(&mut self, text: &[u8], row: usize, tally: &mut Tally) -> Read<()> {
        self.begin(row);
        self.bytes.extend_from_slice(text);
        self.end(row, tally)
    }

    #[inline(always)]
    fn begin(&mut self, row: usize) {
        if self.offsets.len() != row + 1 {
            self.align(row);
        }
    }

    /// Fills skipped rows. A second value for a row replaces the first.
    fn align(&mut self, row: usize) {
        self.unset(row);
        let end = self.bytes.len() as i32;
        self.offsets.resize(row + 1, end);
    }

    #[inline(always)]
    fn end(&mut self, row: usize, tally: &mut Tally) -> Read<()> {
        let start = self.offsets[row] as usize;
        let length = self.bytes.len() - start;
        if length == PLACEHOLDERS[0].len() && PLACEHOLDERS.contains(&&self.bytes[start..]) {
            tally.oversized += 1;
        }
        tally.bytes += length;
        let end = i32::try_from(self.bytes.len()).map_err(|_| Fault::new("more text than a batch can hold"))?;
        self.offsets.push(end);
        self.valid.set(row);
        Ok(())
    }

    /// The text of a row that is not null.
    pub(super) fn text(&self, row: usize) -> Option<&str> {
        let (start, end) = (*self.offsets.get(row)?, *self.offsets.get(row + 1)?);
        std::str::from_utf8(self.bytes.get(start as usize..end as usize)?).ok()
    }

    #[inline]
    pub(super) fn is_set(&self, row: usize) -> bool {
        self.valid.get(row)
    }

    #[inline]
    pub(super) fn unset(&mut self, row: usize) {
        if self.offsets.len() > row + 1 {
            self.cut(row);
            self.valid.unset(row);
        }
    }

    fn cut(&mut self, row: usize) {
        self.offsets.truncate(row + 1);
        // The first offset always exists.
        self.bytes.truncate(self.offsets.last().map_or(0, |&end| end as usize));
    }

    /// Removes `row` and all later rows, including half-written ones.
    pub(super) fn truncate(&mut self, row: usize) {
        self.cut(row);
        self.valid.truncate(row);
    }

    pub(super) fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        self.align(rows);
        let mut bytes = std::mem::take(&mut self.bytes);
        let mut offsets = std::mem::replace(&mut self.offsets, vec![0]);
        // The next batch will be about as large. A finished one must not occupy much more memory than its text.
        self.bytes.reserve(bytes.len());
        self.offsets.reserve(rows);
        if bytes.capacity() - bytes.len() > bytes.len() / 4 {
            bytes.shrink_to_fit();
        }
        offsets.shrink_to_fit();
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let array = StringArray::try_new(offsets, bytes.into(), self.valid.take_nulls(rows));
        Ok(Arc::new(array.context(Kind::Bug, "Decoded text is not UTF-8")?))
    }
}

/// Normalises a UUID, with or without hyphens, to lower case with hyphens.
#[inline]
pub(super) fn uuid(text: &[u8]) -> Read<[u8; 36]> {
    let mut uuid = [0; 36];
    let mut bad = false;
    match text.len() {
        36 => {
            for (place, (out, &byte)) in uuid.iter_mut().zip(text).enumerate() {
                let hyphen = matches!(place, 8 | 13 | 18 | 23);
                bad |= if hyphen { byte != b'-' } else { !byte.is_ascii_hexdigit() };
                *out = byte.to_ascii_lowercase();
            }
        }
        32 => {
            let mut digits = text.iter();
            for (place, out) in uuid.iter_mut().enumerate() {
                let hyphen = matches!(place, 8 | 13 | 18 | 23);
                let byte = if hyphen { b'-' } else { digits.next().copied().unwrap_or(0) };
                bad |= !hyphen && !byte.is_ascii_hexdigit();
                *out = byte.to_ascii_lowercase();
            }
        }
        _ => bad = true,
    }
    if bad { Err(Fault::new("not a UUID")) } else { Ok(uuid) }
}

/// The UUID with hyphens at `at`, and the position after it.
#[inline]
pub(super) fn uuid_at(bytes: &[u8], at: usize) -> Option<([u8; 36], usize)> {
    let text = bytes.get(at..)?.first_chunk::<36>()?;
    uuid(text).ok().map(|uuid| (uuid, at + 36))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};

    use super::*;

    #[test]
    fn rows_can_be_skipped_replaced_and_removed() {
        let mut tally = Tally::default();
        let mut column = TextColumn::new();
        column.reserve(10);
        column.put(b"one", 1, &mut tally).unwrap();
        column.put(b"first", 3, &mut tally).unwrap();
        column.put(b"second", 3, &mut tally).unwrap();
        column.put(b"gone", 4, &mut tally).unwrap();
        column.unset(4);
        column.put("längst".as_bytes(), 5, &mut tally).unwrap();
        column.begin(6);
        column.bytes.extend_from_slice(b"half a row");
        column.truncate(6);
        column.put(b"", 6, &mut tally).unwrap();
        let array = column.finish(8).unwrap();
        let texts: Vec<Option<&str>> = array.as_string::<i32>().iter().collect();
        assert_eq!(texts, [None, Some("one"), None, Some("second"), None, Some("längst"), Some(""), None]);
        column.reserve(1);
        column.put(b"next batch", 0, &mut tally).unwrap();
        assert_eq!(column.finish(1).unwrap().as_string::<i32>().value(0), "next batch");
        assert_eq!(column.finish(0).unwrap().len(), 0);
    }

    #[test]
    fn both_placeholders_are_counted() {
        let mut tally = Tally::default();
        let mut column = TextColumn::new();
        column.reserve(4);
        for (row, text) in PLACEHOLDERS.into_iter().enumerate() {
            column.put(text, row, &mut tally).unwrap();
        }
        column.put(b"__dap_oversized_truncated_", 2, &mut tally).unwrap();
        column.put(b"__DAP_oversized_truncated__", 3, &mut tally).unwrap();
        assert_eq!(tally.oversized, 2);
        assert_eq!(tally.bytes, 27 * 3 + 26);
    }

    #[test]
    fn uuids_are_normalised() {
        let expected = *b"01234567-89ab-cdef-0123-456789abcdef";
        assert_eq!(uuid(b"01234567-89AB-CDEF-0123-456789abcdef").unwrap(), expected);
        assert_eq!(uuid(b"0123456789abcdef0123456789ABCDEF").unwrap(), expected);
        for text in [
            "",
            "0123",
            "0123456789abcdef0123456789abcdeg",
            "01234567x89ab-cdef-0123-456789abcdef",
            "{1234567-89ab-cdef-0123-456789abcde}",
        ] {
            assert!(uuid(text.as_bytes()).is_err(), "{text}");
        }
    }
}
