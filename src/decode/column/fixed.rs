//! Columns of fixed-width values, with a slot per row, so that rows can be skipped.

use arrow::buffer::NullBuffer;

use super::validity::Bits;

/// The fixed-width column of a batch. Rows that were not set are null.
#[derive(Debug, Default)]
pub(in crate::decode) struct Fixed<T> {
    pub(super) values: Vec<T>,
    pub(super) valid: Bits,
}

impl<T: Copy + Default> Fixed<T> {
    pub(super) fn reserve(&mut self, rows: usize) {
        if self.values.len() < rows {
            self.values.resize(rows, T::default());
        }
        self.valid.reserve(rows);
    }

    #[inline(always)]
    pub(super) fn set(&mut self, row: usize, value: T) {
        self.values[row] = value;
        self.valid.set(row);
    }

    pub(super) fn take(&mut self, rows: usize) -> (Vec<T>, Option<NullBuffer>) {
        let mut values = std::mem::take(&mut self.values);
        values.resize(rows, T::default());
        values.shrink_to_fit();
        (values, self.valid.take_nulls(rows))
    }
}
