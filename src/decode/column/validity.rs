//! Bitmaps in Arrow's bit order, for validity and for the values of booleans. Rows that were not set are 0.

use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};

/// A bitmap with reserved capacity.
#[derive(Debug, Default)]
pub(super) struct Bits {
    bytes: Vec<u8>,
}

impl Bits {
    /// Reserves capacity for `rows` rows. New ones are 0.
    pub(super) fn reserve(&mut self, rows: usize) {
        let bytes = rows.div_ceil(8);
        if self.bytes.len() < bytes {
            self.bytes.resize(bytes, 0);
        }
    }

    #[inline(always)]
    pub(super) fn set(&mut self, row: usize) {
        self.bytes[row / 8] |= 1 << (row % 8);
    }

    #[inline(always)]
    pub(super) fn put(&mut self, row: usize, value: bool) {
        let byte = &mut self.bytes[row / 8];
        *byte = *byte & !(1 << (row % 8)) | u8::from(value) << (row % 8);
    }

    #[inline(always)]
    pub(super) fn unset(&mut self, row: usize) {
        self.bytes[row / 8] &= !(1 << (row % 8));
    }

    #[inline(always)]
    pub(super) fn get(&self, row: usize) -> bool {
        self.bytes[row / 8] & 1 << (row % 8) != 0
    }

    /// Unsets `row` and all later rows.
    pub(super) fn truncate(&mut self, row: usize) {
        if let Some(byte) = self.bytes.get_mut(row / 8) {
            *byte &= !(u8::MAX << (row % 8));
        }
        if let Some(rest) = self.bytes.get_mut(row / 8 + 1..) {
            rest.fill(0);
        }
    }

    /// Takes the first `rows` bits and clears the bitmap.
    pub(super) fn take(&mut self, rows: usize) -> BooleanBuffer {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(rows.div_ceil(8), 0);
        BooleanBuffer::new(Buffer::from_vec(bytes), 0, rows)
    }

    /// Takes the first `rows` bits as a null buffer; `None` if no row is null.
    pub(super) fn take_nulls(&mut self, rows: usize) -> Option<NullBuffer> {
        Some(NullBuffer::new(self.take(rows))).filter(|nulls| nulls.null_count() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_set_unset_and_cut() {
        let mut bits = Bits::default();
        bits.reserve(20);
        for row in [0, 7, 8, 9, 15, 16, 19] {
            bits.set(row);
        }
        bits.unset(8);
        bits.put(9, false);
        bits.put(10, true);
        bits.put(10, true);
        assert!(bits.get(7) && !bits.get(8) && !bits.get(9) && bits.get(10));
        bits.truncate(16);
        let rows: Vec<usize> = bits.take(18).set_indices().collect();
        assert_eq!(rows, [0, 7, 10, 15]);
        bits.reserve(3);
        (0..3).for_each(|row| bits.set(row));
        assert!(bits.take_nulls(3).is_none());
        bits.reserve(3);
        assert_eq!(bits.take_nulls(3).unwrap().null_count(), 3);
    }
}
