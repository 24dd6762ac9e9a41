//! Finds bytes in slices, eight at a time, without unsafe code.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The eight bytes at `at`, if there are as many.
#[inline(always)]
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk::<8>().map(|chunk| u64::from_le_bytes(*chunk))
}

/// Sets the high bit of each byte of `word` that equals `BYTE`. Bits above the lowest match may be wrong.
#[inline(always)]
const fn hits<const BYTE: u8>(word: u64) -> u64 {
    let difference = word ^ (ONES * BYTE as u64);
    difference.wrapping_sub(ONES) & !difference & HIGHS
}

/// The position of the first `A` at or after `from`, or the length.
#[inline]
pub(super) fn find<const A: u8>(bytes: &[u8], from: usize) -> usize {
    find2::<A, A>(bytes, from)
}

/// The position of the first `A` or `B` at or after `from`, or the length.
#[inline]
pub(super) fn find2<const A: u8, const B: u8>(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    // Most texts are short. Sixteen bytes per step, since a mispredicted branch costs more than a step.
    for _ in 0..3 {
        let Some(&pair) = bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()) else {
            return find2_words::<A, B>(bytes, at);
        };
        let pair = u128::from_le_bytes(pair);
        let (low, high) = (pair as u64, (pair >> 64) as u64);
        let low = hits::<A>(low) | hits::<B>(low);
        let high = hits::<A>(high) | hits::<B>(high);
        if low | high != 0 {
            let place = if low != 0 { low.trailing_zeros() } else { 64 + high.trailing_zeros() };
            return at + (place / 8) as usize;
        }
        at += 16;
    }
    find2_blocks::<A, B>(bytes, at)
}

/// The same for long texts. The inner loop compiles to vector instructions.
fn find2_blocks<const A: u8, const B: u8>(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<64>()) {
        let mut found = 0_u8;
        for &byte in block {
            found |= u8::from(byte == A) | u8::from(byte == B);
        }
        if found != 0 {
            break;
        }
        at += 64;
    }
    find2_words::<A, B>(bytes, at)
}

fn find2_words<const A: u8, const B: u8>(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = word(bytes, at) {
        let found = hits::<A>(word) | hits::<B>(word);
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    find2_bytewise::<A, B>(bytes, at)
}

fn find2_bytewise<const A: u8, const B: u8>(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    rest.iter().position(|&byte| byte == A || byte == B).map_or(bytes.len(), |found| from + found)
}

/// Appends `bytes[start..end]`. Short texts are copied together with some following bytes and then truncated, since a copy of fixed size needs
/// no branches.
#[inline(always)]
pub(super) fn append(out: &mut Vec<u8>, bytes: &[u8], start: usize, end: usize) {
    const FIXED: usize = 32;
    match bytes.get(start..).and_then(|rest| rest.first_chunk::<FIXED>()) {
        Some(chunk) if end - start <= FIXED => {
            let length = out.len() + (end - start);
            out.extend_from_slice(chunk);
            out.truncate(length);
        }
        _ => out.extend_from_slice(&bytes[start..end]),
    }
}

/// The number of newlines.
pub(super) fn count_newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_a_plain_search_finds(
            bytes in proptest::collection::vec(prop_oneof![20 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'\\')], 0..400),
            from in 0_usize..410,
        ) {
            let rest = bytes.get(from..).unwrap_or_default();
            let plain = |wanted: &[u8]| rest.iter().position(|byte| wanted.contains(byte)).map_or(bytes.len(), |at| from + at);
            prop_assert_eq!(find2::<b'"', b'\\'>(&bytes, from), plain(b"\"\\"));
            prop_assert_eq!(find::<b'"'>(&bytes, from), plain(b"\""));
        }
    }

    #[test]
    fn similar_bytes_are_not_found() {
        let mut bytes = vec![b'"' + 1; 300];
        bytes[40] = b'"' - 1;
        assert_eq!(find::<b'"'>(&bytes, 0), 300);
        bytes[299] = b'"';
        assert_eq!(find::<b'"'>(&bytes, 3), 299);
        assert_eq!(count_newlines(b"\na\n\n"), 3);
    }
}
