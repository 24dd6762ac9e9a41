//! Boolean columns. Their text is `true` or `false`.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};

use super::super::fault::{Fault, Read};
use super::validity::Bits;

/// The boolean column of a batch. Rows that were not set are null.
#[derive(Debug, Default)]
pub(in crate::decode) struct BooleanColumn {
    values: Bits,
    pub(super) valid: Bits,
}

impl BooleanColumn {
    pub(super) fn reserve(&mut self, rows: usize) {
        self.values.reserve(rows);
        self.valid.reserve(rows);
    }

    #[inline]
    pub(super) fn set(&mut self, row: usize, value: bool) {
        self.values.put(row, value);
        self.valid.set(row);
    }

    pub(super) fn finish(&mut self, rows: usize) -> ArrayRef {
        Arc::new(BooleanArray::new(self.values.take(rows), self.valid.take_nulls(rows)))
    }
}

/// Parses a boolean.
#[inline]
pub(super) fn boolean(text: &[u8]) -> Read<bool> {
    match text {
        b"true" => Ok(true),
        b"false" => Ok(false),
        _ => Err(Fault::new("neither true nor false")),
    }
}

/// The boolean at `at`, and the position after it.
#[inline]
pub(super) fn boolean_at(bytes: &[u8], at: usize) -> Option<(bool, usize)> {
    match bytes.get(at..at + 4)? {
        b"true" => Some((true, at + 4)),
        b"fals" if bytes.get(at + 4) == Some(&b'e') => Some((false, at + 5)),
        _ => None,
    }
}
