//! Values that databases take as text where the record batch has something else: nested values as JSON, times of day as numbers.

use arrow::array::{ArrayRef, StringArray};
use arrow::json::writer::{EncoderOptions, make_encoder};

use crate::error::{Kind, Result, ResultExt};

/// Of one day.
const DAY_MICROS: i64 = 86_400_000_000;

/// Nested values as JSON. Null members are left out, as in the service's condensed form.
pub(super) fn json(array: &ArrayRef) -> Result<StringArray> {
    let field = std::sync::Arc::new(arrow::datatypes::Field::new("value", array.data_type().clone(), true));
    let options = EncoderOptions::default();
    let mut encoder = make_encoder(&field, array, &options).or_fail(Kind::Bug, "Nested values cannot be written as JSON")?;
    let mut text = Vec::new();
    let rows = (0..array.len()).map(|row| {
        if encoder.is_null(row) {
            return Ok(None);
        }
        text.clear();
        encoder.encode(row, &mut text);
        String::from_utf8(text.clone()).map(Some).or_fail(Kind::Bug, "Nested values cannot be written as JSON")
    });
    rows.collect::<Result<Vec<_>>>().map(StringArray::from)
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
