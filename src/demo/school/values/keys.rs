//! Converts row numbers to the ids that clients see. Every table has its own space of ids, including tables that are only referred to.

use crate::demo::record::Cell;
use crate::demo::school::values::random::{mix, part_of};

/// Row numbers with this bit are keys that were never inserted.
pub(crate) const GHOST: u64 = 1 << 62;

/// Ids of another shard are `shard * SHARD + id`, as in the real system. From shard 901 they exceed 2^53.
const SHARD: i64 = 10_000_000_000_000;

/// A prime above every number of rows: multiplication modulo that number is a permutation.
const PRIME: u64 = 4_294_967_291;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// 64 bits, with a few ids above 2^53.
    Sharded,
    /// Small integers of either width.
    Plain,
    Uuid,
}

/// The ids of one table.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    pub(crate) salt: u64,
    /// Rows at the first commit.
    pub(crate) rows: u64,
    pub(crate) kind: KeyKind,
}

impl Space {
    /// The id of a row; different rows have different ids. Later rows usually have higher ids, but some fill gaps between the first rows.
    pub(crate) fn id(&self, row: u64) -> i64 {
        // Rows of the first commit take one of 4n+1, 4n+2, 4n+3; multiples of four are for later rows, and above them for ghosts.
        let hash = mix(self.salt ^ mix(row));
        let later = row.wrapping_sub(self.rows);
        let local = if row & GHOST != 0 {
            4 * (self.rows + (row & !GHOST)) + 4
        } else if row >= self.rows && later < self.rows && hash.is_multiple_of(6) {
            4 * ((later * PRIME) % self.rows) + 4
        } else {
            4 * row + 1 + part_of(hash, 3)
        };
        let shard = match self.kind {
            KeyKind::Sharded if row == 7 || hash.is_multiple_of(97) => match (hash >> 32) % 3 {
                0 => 1 + (hash >> 40) % 20,
                _ => 901 + (hash >> 40) % 1_200,
            },
            _ => 0,
        };
        shard as i64 * SHARD + local as i64
    }

    pub(crate) fn key(&self, row: u64) -> Cell {
        match self.kind {
            KeyKind::Uuid => Cell::Text(uuid(mix(self.salt ^ mix(row))).into()),
            KeyKind::Sharded | KeyKind::Plain => Cell::Int(self.id(row)),
        }
    }

    /// The seed of all values of a row that never change.
    #[inline]
    pub(crate) fn row_seed(&self, row: u64) -> u64 {
        mix(self.salt.rotate_left(17) ^ mix(row))
    }
}

/// A random UUID (version 4) in its usual form.
pub(crate) fn uuid(hash: u64) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let high = (mix(hash) & !0xF000) | 0x4000;
    let low = (mix(!hash) & !(3 << 62)) | (1 << 63);
    let mut text = String::with_capacity(36);
    for (half, hyphens) in [(high, [8, 12]), (low, [0, 4])] {
        for digit in 0..16 {
            if hyphens.contains(&digit) {
                text.push('-');
            }
            text.push(char::from(DIGITS[(half >> (60 - 4 * digit)) as usize & 15]));
        }
    }
    text
}
