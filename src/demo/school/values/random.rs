//! Reproducible pseudorandom numbers: integer hashes in place of a stateful generator, so that each row can be generated without the rows before
//! it. Not for secrets.

use std::hash::{BuildHasherDefault, Hasher};

/// SplitMix64: a bijection of 64 bits whose outputs look independent.
#[inline]
pub(crate) const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The hash of a name.
pub(crate) fn salt(name: &str) -> u64 {
    let hash =
        name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3));
    mix(hash)
}

/// A sequence of pseudorandom numbers from one seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    #[inline]
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// 0 to `end - 1`; 0 when `end` is 0.
    #[inline]
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        part_of(self.next(), end)
    }

    /// True with probability 1 / `times`.
    #[inline]
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// 0 (inclusive) to 1 (exclusive).
    #[inline]
    pub(crate) fn unit(&mut self) -> f64 {
        unit(self.next())
    }

    #[inline]
    pub(crate) fn pick<'a, T: ?Sized>(&mut self, choices: &'a [&'static T]) -> &'static T
    where
        &'static T: Copy + 'a,
    {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// Maps a hash to `0..end`.
#[inline]
pub(crate) fn part_of(hash: u64, end: u64) -> u64 {
    ((u128::from(hash) * u128::from(end)) >> 64) as u64
}

/// Maps a hash to 0 (inclusive) to 1 (exclusive). Callers only multiply it, because other floating-point functions differ between machines.
#[inline]
pub(crate) fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// A permutation of `0..len` that depends on `seed`, computed without a list.
pub(crate) fn scattered(len: u64, seed: u64) -> impl Iterator<Item = u64> + Send + use<> {
    let start = part_of(mix(seed), len);
    let mut step = 1 + part_of(mix(seed ^ 0x5CA7), len);
    while greatest_common_divisor(step, len) > 1 {
        step += 1;
    }
    (0..len).scan(start, move |place, _| {
        let here = *place;
        *place = (here + step) % len;
        Some(here)
    })
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Hashes row numbers several times faster than the standard hasher.
#[derive(Debug, Default, Clone)]
pub(crate) struct RowHasher(u64);

impl Hasher for RowHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = mix(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, row: u64) {
        self.0 = mix(self.0 ^ row);
    }
}

pub(crate) type RowMap<V> = std::collections::HashMap<u64, V, BuildHasherDefault<RowHasher>>;
pub(crate) type RowSet = std::collections::HashSet<u64, BuildHasherDefault<RowHasher>>;
