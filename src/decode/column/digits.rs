//! Runs of ASCII digits, eight at a time. Shared by integers, floats and decimals.

use super::super::scan::word;

/// The value and the number (0 to 8) of the digits at the start of the word.
#[inline(always)]
fn leading_digits(word: u64) -> (u64, u32) {
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    let digits = word ^ ZEROS;
    // A digit gives 0 to 9; adding 0x76 carries anything above into the high bit. Only bytes after the first non-digit may be wrong, and
    // they are discarded.
    let others = (digits | digits.wrapping_add(0x7676_7676_7676_7676)) & 0x8080_8080_8080_8080;
    let count = others.trailing_zeros() / 8;
    if count == 0 {
        return (0, 0);
    }
    // Shift the digits to the end, as if preceded by zeros.
    let digits = digits << (64 - 8 * count);
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00FF_00FF_00FF_00FF;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_FFFF_0000_FFFF;
    (fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xFFFF_FFFF, count)
}

/// Powers of ten up to 10^8.
const SMALL_POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// The value of the digits at `at`, and the position after them; `None` if there are none or the value exceeds 64 bits.
#[inline(always)]
pub(super) fn digits(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let Some(first) = word(bytes, at) else { return digits_bytewise(bytes, at, 0, 0) };
    let (value, count) = leading_digits(first);
    match count {
        0 => None,
        8 => more_digits(bytes, at + 8, value),
        count => Some((value, at + count as usize)),
    }
}

#[inline]
fn more_digits(bytes: &[u8], at: usize, value: u64) -> Option<(u64, usize)> {
    let Some(second) = word(bytes, at) else { return digits_bytewise(bytes, at, value, 8) };
    let (more, count) = leading_digits(second);
    let value = value * SMALL_POWERS[count as usize] + more;
    if count == 8 { digits_bytewise(bytes, at + 8, value, 16) } else { Some((value, at + count as usize)) }
}

/// Continues byte by byte after `count` digits with the value `value`.
fn digits_bytewise(bytes: &[u8], at: usize, value: u64, count: usize) -> Option<(u64, usize)> {
    let mut value = value;
    let mut end = at;
    while let Some(digit) = bytes.get(end).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
        end += 1;
    }
    (count + end > at).then_some((value, end))
}
