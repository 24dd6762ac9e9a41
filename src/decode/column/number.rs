//! Parses integers and floats. An integer never passes through a float.

use super::super::fault::{Fault, Read};
use super::decimal;
use super::digits::digits;

/// The integer at `at`, with an optional sign, and the position after it; `None` if there is none or it exceeds 64 bits.
#[inline(always)]
pub(super) fn int_at(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    match bytes.get(at) {
        Some(b'-') => {
            let (value, end) = digits(bytes, at + 1)?;
            // -2^63 has no positive counterpart.
            0_i64.checked_sub_unsigned(value).map(|value| (value, end))
        }
        Some(b'+') => {
            let (value, end) = digits(bytes, at + 1)?;
            i64::try_from(value).ok().map(|value| (value, end))
        }
        _ => {
            let (value, end) = digits(bytes, at)?;
            i64::try_from(value).ok().map(|value| (value, end))
        }
    }
}

/// Parses an integer. `1.0` and `1e3` are accepted, too, if nothing is lost.
#[inline]
pub(super) fn int(text: &[u8]) -> Read<i64> {
    match int_at(text, 0) {
        Some((value, end)) if end == text.len() => Ok(value),
        _ => exact_int(text),
    }
}

#[cold]
#[inline(never)]
fn exact_int(text: &[u8]) -> Read<i64> {
    let value = decimal::parse(text, 0).map_err(|reason| {
        Fault::new(match reason {
            decimal::Problem::NotANumber => "not an integer",
            decimal::Problem::TooManyDigits => "an integer beyond 64 bits",
            decimal::Problem::Fraction => "a number with a fraction in an integer column",
        })
    })?;
    i64::try_from(value).map_err(|_| Fault::new("an integer beyond 64 bits"))
}

/// Parses a 64-bit float. `NaN` and infinities have their usual names.
#[inline]
pub(super) fn float64(text: &[u8]) -> Read<f64> {
    match float_at(text, 0) {
        Some((value, end)) if end == text.len() => return Ok(value),
        _ => {}
    }
    let value = float_text(text)?.parse::<f64>().map_err(|_| Fault::new("not a number"))?;
    check_float(value.is_infinite(), text)?;
    Ok(value)
}

/// The float at `at`, and the position after it, if it has few digits: exact if the digits fit 53 bits and the power of ten is exact (Clinger's
/// fast path). An exponent may follow.
#[inline]
pub(super) fn float_at(bytes: &[u8], at: usize) -> Option<(f64, usize)> {
    const POWERS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    const TENS: [u64; 16] = {
        let mut tens = [1; 16];
        let mut at = 1;
        while at < 16 {
            tens[at] = tens[at - 1] * 10;
            at += 1;
        }
        tens
    };
    let negative = bytes.get(at) == Some(&b'-');
    let start = at + usize::from(negative);
    let (whole, mut end) = digits(bytes, start)?;
    let mut value = whole;
    let mut places = 0;
    if bytes.get(end) == Some(&b'.') {
        let (fraction, after) = digits(bytes, end + 1)?;
        places = after - end - 1;
        if after - start > 16 {
            return None;
        }
        value = whole * TENS[places] + fraction;
        end = after;
    } else if end - start > 15 {
        return None;
    }
    let value = value as f64 / POWERS[places];
    Some((if negative { -value } else { value }, end))
}

/// Parses a 32-bit float.
pub(super) fn float32(text: &[u8]) -> Read<f32> {
    let value = float_text(text)?.parse::<f32>().map_err(|_| Fault::new("not a number"))?;
    check_float(value.is_infinite(), text)?;
    Ok(value)
}

fn float_text(text: &[u8]) -> Read<&str> {
    std::str::from_utf8(text).map_err(|_| Fault::new("not a number"))
}

/// Fails for digits beyond the range, which Rust parses as infinity.
fn check_float(infinite: bool, text: &[u8]) -> Read<()> {
    if infinite && text.iter().any(u8::is_ascii_digit) {
        return Err(Fault::new("a number beyond the range of the column"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers() {
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("+7", 7),
            ("007", 7),
            ("12345678", 12_345_678),
            ("123456789012345678", 123_456_789_012_345_678),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("000000000000000000000000000001", 1),
            ("1.0", 1),
            ("1e5", 100_000),
            ("12.50e1", 125),
            ("-1.000", -1),
            ("9223372036854775807.0", i64::MAX),
        ] {
            assert_eq!(int(text.as_bytes()).unwrap(), expected, "{text}");
        }
        for (text, reason) in [
            ("", "not an integer"),
            ("-", "not an integer"),
            ("1x", "not an integer"),
            (" 1", "not an integer"),
            ("1 ", "not an integer"),
            ("--1", "not an integer"),
            ("1e", "not an integer"),
            ("NaN", "not an integer"),
            ("9223372036854775808", "beyond 64 bits"),
            ("-9223372036854775809", "beyond 64 bits"),
            ("99999999999999999999999999999999999999999999", "beyond 64 bits"),
            ("1e99", "beyond 64 bits"),
            ("1.5", "fraction"),
            ("15e-1", "fraction"),
        ] {
            assert!(int(text.as_bytes()).unwrap_err().reason().contains(reason), "{text}");
        }
    }

    #[test]
    fn floats() {
        for (text, expected) in [
            ("0", 0.0),
            ("1.5", 1.5),
            ("-87.25", -87.25),
            ("1e3", 1000.0),
            ("1.7976931348623157e308", f64::MAX),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("123456789012345678901234567890", 123456789012345678901234567890.0),
        ] {
            assert_eq!(float64(text.as_bytes()).unwrap(), expected, "{text}");
        }
        assert!(float64(b"NaN").unwrap().is_nan());
        assert!(float64(b"-0").unwrap().is_sign_negative());
        for text in ["", "-", ".", "1..2", "1,5", "0x10", "1e999", "-1e999", "one"] {
            assert!(float64(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(float32(b"0.1").unwrap(), 0.1_f32);
        assert!(float32(b"1e39").is_err());
    }

    proptest! {
        #[test]
        fn integers_round_trip(value: i64) {
            prop_assert_eq!(int(value.to_string().as_bytes()).unwrap(), value);
        }

        #[test]
        fn short_integers_round_trip(value in -1_000_000_000_000_i64..1_000_000_000_000, shift in 0_u32..40) {
            prop_assert_eq!(int((value >> shift).to_string().as_bytes()).unwrap(), value >> shift);
        }

        #[test]
        fn floats_round_trip(bits: u64, short in -1_000_000_i64..1_000_000, places in 0_u32..6) {
            let value = f64::from_bits(bits);
            if value.is_finite() {
                prop_assert_eq!(float64(value.to_string().as_bytes()).unwrap().to_bits(), bits);
                prop_assert_eq!(float64(format!("{value:e}").as_bytes()).unwrap().to_bits(), bits);
            }
            let short = format!("{:.*}", places as usize, short as f64 / 10_f64.powi(places as i32));
            prop_assert_eq!(float64(short.as_bytes()).unwrap().to_bits(), short.parse::<f64>().unwrap().to_bits());
        }
    }
}
