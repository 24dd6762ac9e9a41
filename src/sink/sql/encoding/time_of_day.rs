//! Times of day, which record batches hold as strings.

/// Microseconds of a day.
pub(in crate::sink::sql) const DAY_MICROS: i64 = 86_400_000_000;

/// Microseconds since midnight, in UTC if the text has an offset. `None`: the text is no time of day.
pub(in crate::sink::sql) fn time_of_day(text: &str) -> Option<i64> {
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
