//! Parses exact decimals. Nothing is rounded: a value that does not fit makes its row unreadable.

use super::super::fault::{Fault, Read};
use super::digits::digits;

/// Why a text is not a decimal of the given scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    NotANumber,
    TooManyDigits,
    /// Nonzero digits beyond the scale.
    Fraction,
}

/// Parses a decimal as `value * 10^-scale`.
#[inline]
pub(super) fn decimal(text: &[u8], precision: u8, scale: u8) -> Read<i128> {
    let value = match decimal_at(text, 0, scale) {
        Some((value, end)) if end == text.len() => value,
        _ => parse(text, scale.into()).map_err(|problem| {
            Fault::new(match problem {
                Problem::NotANumber => "not a number",
                Problem::TooManyDigits => "more digits than the column holds",
                Problem::Fraction => "more digits after the point than the column holds",
            })
        })?,
    };
    check_precision(value, precision)?;
    Ok(value)
}

/// Fails if `value` has more than `precision` digits.
#[inline]
pub(super) fn check_precision(value: i128, precision: u8) -> Read<()> {
    match 10_u128.checked_pow(precision.into()) {
        Some(limit) if value.unsigned_abs() >= limit => Err(Fault::new("more digits than the column holds")),
        _ => Ok(()),
    }
}

/// The decimal `[-]digits[.digits]` at `at`, and the position after it, if it has at most 18 digits and no more decimals than the scale. An
/// exponent may follow.
#[inline]
pub(super) fn decimal_at(bytes: &[u8], at: usize, scale: u8) -> Option<(i128, usize)> {
    const POWERS: [i128; 19] = {
        let mut powers = [1; 19];
        let mut at = 1;
        while at < 19 {
            powers[at] = powers[at - 1] * 10;
            at += 1;
        }
        powers
    };
    let negative = bytes.get(at) == Some(&b'-');
    let start = at + usize::from(negative);
    let (whole, mut end) = digits(bytes, start)?;
    let mut value = i128::from(whole);
    let mut missing = usize::from(scale);
    if bytes.get(end) == Some(&b'.') {
        let (fraction, after) = digits(bytes, end + 1)?;
        let places = after - end - 1;
        missing = missing.checked_sub(places)?;
        value = value * POWERS.get(places)? + i128::from(fraction);
        end = after;
    }
    if end - start > 19 {
        return None;
    }
    value *= POWERS.get(missing)?;
    Some((if negative { -value } else { value }, end))
}

/// Parses a decimal with or without exponent, exactly.
pub(super) fn parse(text: &[u8], scale: i64) -> std::result::Result<i128, Problem> {
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let (mantissa, exponent) = match unsigned.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&unsigned[..at], exponent(&unsigned[at + 1..])?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|&byte| byte == b'.') {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &[][..]),
    };
    let digits = whole.iter().chain(fraction);
    if whole.is_empty() && fraction.is_empty() || !digits.clone().all(u8::is_ascii_digit) {
        return Err(Problem::NotANumber);
    }
    // Trailing zeros are skipped, so that a long fraction of zeros cannot overflow.
    let zeros = digits.clone().rev().take_while(|&&digit| digit == b'0').count();
    let significant = whole.len() + fraction.len() - zeros;
    let mut value = 0_i128;
    for &digit in digits.take(significant) {
        value = value.checked_mul(10).and_then(|v| v.checked_add((digit - b'0').into())).ok_or(Problem::TooManyDigits)?;
    }
    if value == 0 {
        return Ok(0);
    }
    // The number in units of the scale is value * 10^power.
    let power = exponent - fraction.len() as i64 + zeros as i64 + scale;
    if power < 0 {
        return Err(Problem::Fraction);
    }
    let factor = u32::try_from(power).ok().and_then(|power| 10_i128.checked_pow(power)).ok_or(Problem::TooManyDigits)?;
    let value = value.checked_mul(factor).ok_or(Problem::TooManyDigits)?;
    Ok(if negative { -value } else { value })
}

fn exponent(text: &[u8]) -> std::result::Result<i64, Problem> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Problem::NotANumber);
    }
    // Far beyond any decimal, the exact exponent does not matter.
    let size = digits.iter().fold(0_i64, |size, digit| (size * 10 + i64::from(digit - b'0')).min(1_000_000));
    Ok(if negative { -size } else { size })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_are_exact() {
        for (text, expected) in [
            ("0", 0),
            ("1", 100),
            ("-1.5", -150),
            ("999.99", 99_999),
            ("0.01", 1),
            ("-0.01", -1),
            ("1.500000000000000000000000000000000000000000", 150),
            ("15e-1", 150),
            ("1.5E2", 15_000),
            ("+3", 300),
            (".5", 50),
            ("0e999999999999999999999", 0),
        ] {
            assert_eq!(decimal(text.as_bytes(), 5, 2).unwrap(), expected, "{text}");
        }
        for (text, reason) in [
            ("", "not a number"),
            (".", "not a number"),
            ("1.2.3", "not a number"),
            ("1 ", "not a number"),
            ("NaN", "not a number"),
            ("1e", "not a number"),
            ("0.001", "after the point"),
            ("1e-9", "after the point"),
            ("1000", "more digits than"),
            ("-1000.00", "more digits than"),
            ("1e50", "more digits than"),
            ("1e99999999999999999999", "more digits than"),
        ] {
            assert!(decimal(text.as_bytes(), 5, 2).unwrap_err().reason().contains(reason), "{text}");
        }
        let widest = "9".repeat(38);
        assert_eq!(decimal(widest.as_bytes(), 38, 0).unwrap(), 10_i128.pow(38) - 1);
        assert!(decimal(format!("{widest}9").as_bytes(), 38, 0).is_err());
        assert_eq!(decimal(b"-0.99", 2, 2).unwrap(), -99);
        assert!(decimal(b"1", 2, 2).is_err());
    }

    proptest! {
        #[test]
        fn both_ways_agree(digits in "-?[0-9]{1,9}(\\.[0-9]{1,8})?", scale in 0_u8..9) {
            if let Some((value, end)) = decimal_at(digits.as_bytes(), 0, scale) {
                prop_assert_eq!(end, digits.len());
                prop_assert_eq!(parse(digits.as_bytes(), scale.into()), Ok(value));
            }
        }
    }
}
