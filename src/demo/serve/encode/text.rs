//! Writes cells as text (numbers, times, JSON) into a byte buffer, fast because benchmarks read the files. `delimited` quotes for CSV and TSV.

use std::io::Write;

use crate::demo::record::Cell;
use crate::model::Timestamp;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// An integer in decimal.
pub(super) fn push_int(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    push_digits(out, u128::from(value.unsigned_abs()), 1);
}

/// Digits, padded with zeros to `width`.
fn push_digits(out: &mut Vec<u8>, mut value: u128, width: usize) {
    let mut digits = [b'0'; 40];
    let mut first = digits.len();
    // Nearly all numbers fit into 64 bits, where division is much faster.
    while value > u128::from(u64::MAX) {
        first -= 1;
        digits[first] = b'0' + (value % 10) as u8;
        value /= 10;
    }
    let mut low = value as u64;
    while low > 0 {
        first -= 1;
        digits[first] = b'0' + (low % 10) as u8;
        low /= 10;
    }
    let first = first.min(digits.len() - width.min(digits.len()));
    out.extend_from_slice(&digits[first..]);
}

/// The shortest text that parses to the same double; `NaN` and the infinities by name.
pub(super) fn push_float(out: &mut Vec<u8>, value: f64) {
    let result = match value {
        v if v.is_nan() => out.write_all(b"NaN"),
        f64::INFINITY => out.write_all(b"Infinity"),
        f64::NEG_INFINITY => out.write_all(b"-Infinity"),
        v => write!(out, "{v:?}"),
    };
    debug_assert!(result.is_ok(), "writing to a Vec cannot fail");
}

/// `unscaled * 10^-scale` with all fraction digits.
pub(super) fn push_decimal(out: &mut Vec<u8>, unscaled: i128, scale: u8) {
    if unscaled < 0 {
        out.push(b'-');
    }
    let width = usize::from(scale) + 1;
    let start = out.len();
    push_digits(out, unscaled.unsigned_abs(), width);
    if scale > 0 && out.len() - start >= width {
        out.insert(out.len() - usize::from(scale), b'.');
    }
}

/// `2024-01-02T03:04:05Z`, with six fraction digits only when there are any.
pub(super) fn push_time(out: &mut Vec<u8>, time: Timestamp) {
    let micros = time.micros();
    push_civil(out, micros.div_euclid(MICROS_PER_DAY));
    let of_day = micros.rem_euclid(MICROS_PER_DAY);
    let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
    out.push(b'T');
    push_two(out, seconds / 3600);
    out.push(b':');
    push_two(out, seconds / 60 % 60);
    out.push(b':');
    push_two(out, seconds % 60);
    if fraction != 0 {
        out.push(b'.');
        push_digits(out, fraction as u128, 6);
    }
    out.push(b'Z');
}

/// `2024-01-02`.
pub(super) fn push_date(out: &mut Vec<u8>, days: i32) {
    push_civil(out, i64::from(days));
}

fn push_two(out: &mut Vec<u8>, value: i64) {
    out.push(b'0' + (value / 10) as u8);
    out.push(b'0' + (value % 10) as u8);
}

/// Year, month and day from the number of days since 1970-01-01, in the proleptic Gregorian calendar (eras of 400 years that start
/// in March, so that the leap day is the last of its year).
fn push_civil(out: &mut Vec<u8>, days: i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if year < 0 {
        out.push(b'-');
    }
    push_digits(out, u128::from(year.unsigned_abs()), 4);
    out.push(b'-');
    push_two(out, month);
    out.push(b'-');
    push_two(out, day);
}

/// A quoted JSON string. Only the required escapes are used; other characters stay UTF-8.
pub(super) fn push_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (place, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[copied..place]);
        copied = place + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            other => {
                let hex = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[hex(other >> 4), hex(other & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

/// Whether a cell is null, or an object whose members are all null.
pub(super) fn is_null(cell: &Cell) -> bool {
    match cell {
        Cell::Null => true,
        Cell::Object(members) => members.iter().all(|(_, member)| is_null(member)),
        _ => false,
    }
}

/// Compact JSON. Null members of objects are omitted; null items of arrays are written.
pub(super) fn push_json(out: &mut Vec<u8>, cell: &Cell) {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Cell::Int(value) => push_int(out, *value),
        Cell::Float(value) if value.is_finite() => push_float(out, *value),
        // JSON has no such numbers; Spark, which writes the service's files, writes them as strings.
        Cell::Float(value) => {
            out.push(b'"');
            push_float(out, *value);
            out.push(b'"');
        }
        Cell::Decimal(unscaled, scale) => push_decimal(out, *unscaled, *scale),
        Cell::Text(text) => push_json_string(out, text),
        Cell::Time(time) => {
            out.push(b'"');
            push_time(out, *time);
            out.push(b'"');
        }
        Cell::Date(days) => {
            out.push(b'"');
            push_date(out, *days);
            out.push(b'"');
        }
        Cell::Object(members) => {
            out.push(b'{');
            let mut first = true;
            for (name, member) in members.iter().filter(|(_, member)| !is_null(member)) {
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                push_json_string(out, name);
                out.push(b':');
                push_json(out, member);
            }
            out.push(b'}');
        }
        Cell::List(items) => {
            out.push(b'[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                push_json(out, item);
            }
            out.push(b']');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn decimals_keep_all_their_digits() {
        for (unscaled, scale, expected) in [
            (0, 0, "0"),
            (0, 2, "0.00"),
            (5, 2, "0.05"),
            (-5, 2, "-0.05"),
            (1250, 2, "12.50"),
            (-100, 2, "-1.00"),
            (i128::MIN, 0, "-170141183460469231731687303715884105728"),
            (i128::MAX, 38, "1.70141183460469231731687303715884105727"),
        ] {
            assert_eq!(text(|out| push_decimal(out, unscaled, scale)), expected);
        }
    }

    #[test]
    fn floats_are_numbers_or_words() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.5, "-0.5"),
            (1e21, "1e21"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(text(|out| push_float(out, value)), expected);
        }
    }

    #[test]
    fn json_leaves_out_null_members_and_objects_of_nulls() {
        let cell = Cell::Object(vec![
            ("a".into(), Cell::Null),
            ("b".into(), Cell::Object(vec![("c".into(), Cell::Null)])),
            ("d\"".into(), Cell::List(vec![Cell::Null, Cell::Int(-1), Cell::Float(f64::NAN), Cell::Text("\u{1}😀\\".into())])),
        ]);
        assert_eq!(text(|out| push_json(out, &cell)), r#"{"d\"":[null,-1,"NaN","\u0001😀\\"]}"#);
        assert!(is_null(&Cell::Object(vec![("x".into(), Cell::Object(vec![]))])));
    }

    proptest! {
        #[test]
        fn times_and_dates_print_as_chrono_does(micros in -62_135_596_800_000_000i64..253_402_300_799_999_999) {
            let time = Timestamp::from_micros(micros);
            prop_assert_eq!(text(|out| push_time(out, time)), time.to_string());
            let days = micros.div_euclid(MICROS_PER_DAY);
            prop_assert_eq!(text(|out| push_date(out, days as i32)), time.to_string()[..10].to_owned());
        }

        #[test]
        fn integers_print_as_the_standard_library_does(value: i64) {
            prop_assert_eq!(text(|out| push_int(out, value)), value.to_string());
        }

        #[test]
        fn strings_read_back(value: String) {
            let json = text(|out| push_json_string(out, &value));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), value);
        }
    }
}
