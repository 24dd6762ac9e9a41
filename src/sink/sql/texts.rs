//! Values that databases take as text where the record batch has something else: nested values as JSON, times of day as numbers.

#[cfg(any(feature = "postgres", feature = "mysql"))]
use std::borrow::Cow;

use arrow::array::{ArrayRef, StringArray};
use arrow::json::writer::{EncoderOptions, make_encoder};

use crate::error::{Kind, Result, ResultExt};

/// Of one day.
const DAY_MICROS: i64 = 86_400_000_000;

/// Nested values as JSON. Null members are left out, as in the service's condensed form.
pub(super) fn json(array: &ArrayRef) -> Result<StringArray> {
    let field = std::sync::Arc::new(arrow::datatypes::Field::new("value", array.data_type().clone(), true));
    let options = EncoderOptions::default();
    let mut encoder = make_encoder(&field, array, &options).context(Kind::Bug, "Nested values cannot be written as JSON")?;
    let mut text = Vec::new();
    let rows = (0..array.len()).map(|row| {
        if encoder.is_null(row) {
            return Ok(None);
        }
        text.clear();
        encoder.encode(row, &mut text);
        String::from_utf8(text.clone()).map(Some).context(Kind::Bug, "Nested values cannot be written as JSON")
    });
    rows.collect::<Result<Vec<_>>>().map(StringArray::from)
}

/// What stands for an escape in JSON that a server refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Odd {
    /// `\\u0000`.
    Nul,
    /// Half of a surrogate pair.
    Half,
}

/// The escapes of a JSON text that servers refuse, by their places. An escaped backslash before `u0000` is no such escape.
fn odd_escapes(text: &str) -> Vec<(usize, Odd)> {
    let bytes = text.as_bytes();
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut odd, mut at) = (Vec::new(), 0);
    while let Some(step) = bytes[at..].iter().position(|byte| *byte == b'\\') {
        at += step;
        match unit(at) {
            Some(0) => odd.push((at, Odd::Nul)),
            Some(0xD800..0xDC00) if matches!(unit(at + 6), Some(0xDC00..0xE000)) => at += 6,
            Some(0xD800..0xE000) => odd.push((at, Odd::Half)),
            Some(_) => {}
            // The backslash and what it escapes.
            None => {
                at = (at + 2).min(bytes.len());
                continue;
            }
        }
        at += 6;
    }
    odd
}

fn has(text: &str, odd: Odd) -> bool {
    text.contains("\\u") && odd_escapes(text).iter().any(|(_, found)| *found == odd)
}

/// Whether a JSON text has the character NUL in a text or in a name.
pub(super) fn has_nul(text: &str) -> bool {
    has(text, Odd::Nul)
}

/// Whether a JSON text has half of a surrogate pair.
pub(super) fn has_half_pair(text: &str) -> bool {
    has(text, Odd::Half)
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
fn replaced<'t>(text: &'t str, nul: &str) -> Cow<'t, str> {
    let odd = if text.contains("\\u") { odd_escapes(text) } else { Vec::new() };
    if odd.is_empty() {
        return Cow::Borrowed(text);
    }
    let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
    for (at, odd) in odd {
        out.push_str(&text[copied..at]);
        out.push_str(if odd == Odd::Nul { nul } else { "\\ufffd" });
        copied = at + 6;
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// JSON without NUL, whose picture U+2400 takes its place, and with U+FFFD in place of half a surrogate pair.
#[cfg(feature = "postgres")]
pub(super) fn without_odd_escapes(text: &str) -> Cow<'_, str> {
    replaced(text, "\\u2400")
}

/// JSON texts with U+FFFD in place of half a surrogate pair.
#[cfg(feature = "mysql")]
pub(super) fn whole_pairs(array: StringArray) -> StringArray {
    match array.iter().flatten().any(has_half_pair) {
        false => array,
        true => array.iter().map(|text| text.map(|text| replaced(text, "\\u0000"))).collect(),
    }
}

/// Microseconds of the day, in UTC if the text has an offset.
pub(super) fn time_of_day(text: &str) -> Option<i64> {
    let (clock, offset) = match text.find(['Z', 'z', '+', '-']) {
        Some(at) => (&text[..at], &text[at..]),
        None => (text, ""),
    };
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let two = |text: Option<&str>| {
        text.filter(|text| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()))?.parse::<i64>().ok()
    };
    let mut parts = whole.split(':');
    let (hours, minutes) = (two(parts.next())?, two(parts.next())?);
    let seconds = match parts.next() {
        Some(seconds) => two(Some(seconds))?,
        None => 0,
    };
    if parts.next().is_some() || hours > 24 || minutes > 59 || seconds > 60 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let micros = format!("{:0<6}", &fraction[..fraction.len().min(6)]).parse::<i64>().ok()?;
    let mut total = (hours * 3600 + minutes * 60 + seconds) * 1_000_000 + micros;
    if total > DAY_MICROS {
        return None;
    }
    if let Some(shift) = offset.strip_prefix(['+', '-']) {
        let (hours, minutes) = shift.split_once(':')?;
        let shift = (two(Some(hours))? * 3600 + two(Some(minutes))? * 60) * 1_000_000;
        total = (if offset.starts_with('+') { total - shift } else { total + shift }).rem_euclid(DAY_MICROS);
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_escapes_that_servers_refuse_are_replaced() {
        for (text, expected) in [
            (r#"{"a":"plain"}"#, r#"{"a":"plain"}"#),
            (r#"{"a":"x\u0000y"}"#, r#"{"a":"x\u2400y"}"#),
            (r#"{"a\u0000":"x\\u0000y"}"#, r#"{"a\u2400":"x\\u0000y"}"#),
            (r#"{"a":"\\\u0000\"\u00e9"}"#, r#"{"a":"\\\u2400\"\u00e9"}"#),
            (
                r#"["\ud83d\ude00", "\uD83Dx", "\ude00", "\ud83d\ud83d\ude00"]"#,
                r#"["\ud83d\ude00", "\ufffdx", "\ufffd", "\ufffd\ud83d\ude00"]"#,
            ),
            (r#""\ud83d"#, r#""\ufffd"#),
            (r#""\u12"#, r#""\u12"#),
        ] {
            assert_eq!(replaced(text, "\\u2400"), expected);
        }
    }

    #[test]
    fn times_of_day_are_read_with_and_without_offset() {
        assert_eq!(time_of_day("00:00:00"), Some(0));
        assert_eq!(time_of_day("23:59:59.999999"), Some(DAY_MICROS - 1));
        assert_eq!(time_of_day("01:30:00+02:00"), Some(23 * 3_600_000_000 + 1_800_000_000));
        assert_eq!(time_of_day("12:00:00.5Z"), Some(43_200_500_000));
        for wrong in ["", "1:00:00", "12", "25:00:00", "12:60:00", "12:00:00.x", "12:00:00+2", "noon"] {
            assert_eq!(time_of_day(wrong), None, "{wrong}");
        }
    }
}
