//! Nested values as JSON text, and escapes in JSON that servers refuse.

#[cfg(any(feature = "postgres", feature = "mysql"))]
use std::borrow::Cow;

use arrow::array::{ArrayRef, StringArray};
use arrow::json::writer::{EncoderOptions, make_encoder};

use crate::error::{Kind, Result, ResultExt};

/// Nested values as JSON. Null members are omitted, as in the service's condensed form.
pub(in crate::sink::sql) fn json(array: &ArrayRef) -> Result<StringArray> {
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

/// An escape in JSON that a server refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// `\\u0000`.
    Nul,
    /// Half of a surrogate pair.
    Half,
}

/// The escapes of a JSON text that servers refuse, with their positions. An escaped backslash before `u0000` is none.
fn refused_escapes(text: &str) -> Vec<(usize, Refused)> {
    let bytes = text.as_bytes();
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut refused, mut at) = (Vec::new(), 0);
    while let Some(step) = bytes[at..].iter().position(|byte| *byte == b'\\') {
        at += step;
        match unit(at) {
            Some(0) => refused.push((at, Refused::Nul)),
            Some(0xD800..0xDC00) if matches!(unit(at + 6), Some(0xDC00..0xE000)) => at += 6,
            Some(0xD800..0xE000) => refused.push((at, Refused::Half)),
            Some(_) => {}
            // The backslash and the character that it escapes.
            None => {
                at = (at + 2).min(bytes.len());
                continue;
            }
        }
        at += 6;
    }
    refused
}

fn has(text: &str, wanted: Refused) -> bool {
    text.contains("\\u") && refused_escapes(text).iter().any(|(_, found)| *found == wanted)
}

/// Whether a JSON text has the character NUL in a string or in a name.
pub(in crate::sink::sql) fn has_nul(text: &str) -> bool {
    has(text, Refused::Nul)
}

/// Whether a JSON text has half of a surrogate pair.
pub(in crate::sink::sql) fn has_half_pair(text: &str) -> bool {
    has(text, Refused::Half)
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
fn replaced<'t>(text: &'t str, nul: &str) -> Cow<'t, str> {
    let refused = if text.contains("\\u") { refused_escapes(text) } else { Vec::new() };
    if refused.is_empty() {
        return Cow::Borrowed(text);
    }
    let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
    for (at, kind) in refused {
        out.push_str(&text[copied..at]);
        out.push_str(if kind == Refused::Nul { nul } else { "\\ufffd" });
        copied = at + 6;
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// JSON with U+2400 in place of NUL, and U+FFFD in place of half a surrogate pair.
#[cfg(feature = "postgres")]
pub(in crate::sink::sql) fn replace_refused_escapes(text: &str) -> Cow<'_, str> {
    replaced(text, "\\u2400")
}

/// JSON texts with U+FFFD in place of half a surrogate pair.
#[cfg(feature = "mysql")]
pub(in crate::sink::sql) fn replace_half_pairs(array: StringArray) -> StringArray {
    if !array.iter().flatten().any(has_half_pair) {
        return array;
    }
    array.iter().map(|text| text.map(|text| replaced(text, "\\u0000"))).collect()
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
}
