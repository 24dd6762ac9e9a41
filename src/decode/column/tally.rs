//! Parts that columns share: counters of the current row, a scratch buffer, and cells of CSV and TSV files.

use std::collections::BTreeSet;

use super::super::fault::Read;

/// Counters that are updated while values are read. Those of an unreadable row are discarded.
#[derive(Debug, Default)]
pub(in crate::decode) struct Tally {
    /// Placeholders in this row.
    pub(in crate::decode) oversized: u64,
    /// Timestamps in this row that were truncated.
    pub(in crate::decode) cut_fractions: u64,
    /// Times and dates in this row that became null.
    pub(in crate::decode) nulled_times: u64,
    /// Whether times and dates outside the years 1 to 9999 become null.
    pub(in crate::decode) nulls_times: bool,
    /// Bytes of text in this batch, including removed rows.
    pub(in crate::decode) bytes: usize,
    /// Names in the object that have no column.
    pub(in crate::decode) unknown_columns: BTreeSet<String>,
    /// Value columns that the object does not have.
    pub(in crate::decode) absent_columns: BTreeSet<String>,
    /// For values that must be unescaped before they are parsed.
    scratch: Vec<u8>,
}

impl Tally {
    pub(in crate::decode) fn new(nulls_times: bool) -> Self {
        Self { nulls_times, ..Self::default() }
    }

    pub(in crate::decode) fn unknown_column(&mut self, name: String) {
        self.unknown_columns.insert(name);
    }

    /// Returns `None` for a time or date outside the years 1 to 9999, if those become null.
    #[inline]
    pub(in crate::decode) fn in_range<T>(&mut self, read: Read<T>) -> Read<Option<T>> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(fault) if self.nulls_times && fault.is_out_of_range() => {
                self.nulled_times += 1;
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }
}

/// A cell of a CSV or TSV file that is not null.
#[derive(Debug, Clone, Copy)]
pub(in crate::decode) enum Cell<'a> {
    /// The value itself.
    Plain(&'a [u8]),
    /// A value with escapes, and the function that resolves them.
    Escaped(&'a [u8], fn(&[u8], &mut Vec<u8>) -> Read<()>),
}

impl Cell<'_> {
    /// Appends the value. After a fault `out` may contain a part of it.
    #[inline]
    pub(in crate::decode) fn append_to(self, out: &mut Vec<u8>) -> Read<()> {
        match self {
            Cell::Plain(text) => {
                out.extend_from_slice(text);
                Ok(())
            }
            Cell::Escaped(text, unescape) => unescape(text, out),
        }
    }

    #[inline]
    pub(in crate::decode) fn read<T>(self, tally: &mut Tally, parse: impl FnOnce(&[u8], &mut Tally) -> Read<T>) -> Read<T> {
        match self {
            Cell::Plain(text) => parse(text, tally),
            Cell::Escaped(text, unescape) => tally.with_scratch(|scratch, tally| {
                unescape(text, scratch)?;
                parse(scratch, tally)
            }),
        }
    }
}

impl Tally {
    /// Runs `work` with an empty buffer, which is reused.
    pub(in crate::decode) fn with_scratch<T>(&mut self, work: impl FnOnce(&mut Vec<u8>, &mut Tally) -> T) -> T {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let result = work(&mut scratch, self);
        self.scratch = scratch;
        result
    }
}
