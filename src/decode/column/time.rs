//! Parses timestamps and dates. Timestamps are converted to UTC and truncated to microseconds.

use super::super::fault::{Fault, Read};
use super::digits::digits;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
/// 0001-01-01T00:00:00Z.
const FIRST_TIMESTAMP: i64 = -62_135_596_800 * MICROS_PER_SECOND;
/// 9999-12-31T23:59:59.999999Z.
const LAST_TIMESTAMP: i64 = 253_402_300_800 * MICROS_PER_SECOND - 1;

/// Microseconds since the epoch, and whether the timestamp was truncated.
pub(in crate::decode) type Moment = (i64, bool);

/// Parses a timestamp: `YYYY-MM-DDThh:mm:ss[.f]` and `Z` or an offset.
#[inline]
pub(in crate::decode) fn timestamp(text: &[u8]) -> Read<Moment> {
    let Some((seconds, rest)) = seconds(text) else { return Err(not_a_time(text)) };
    if rest == b"Z" {
        return Ok((seconds * MICROS_PER_SECOND, false));
    }
    fraction_and_zone(seconds, rest)
}

/// The timestamp at `at` in the service's own notation (UTC, at most microseconds), and the position after it.
#[inline]
pub(super) fn timestamp_at(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    const SCALES: [i64; 7] = [0, 100_000, 10_000, 1_000, 100, 10, 1];
    let (seconds, _) = seconds(bytes.get(at..)?)?;
    let mut end = at + 19;
    let mut micros = seconds * MICROS_PER_SECOND;
    if bytes.get(end) == Some(&b'.') {
        let (fraction, after) = digits(bytes, end + 1)?;
        micros += fraction as i64 * SCALES.get(after - end - 1)?;
        end = after;
    }
    (bytes.get(end) == Some(&b'Z')).then_some((micros, end + 1))
}

/// The date at `at`, and the position after it.
#[inline]
pub(super) fn date_at(bytes: &[u8], at: usize) -> Option<(i32, usize)> {
    Some((days(bytes.get(at..)?.first_chunk()?)? as i32, at + 10))
}

#[inline(never)]
fn fraction_and_zone(seconds: i64, rest: &[u8]) -> Read<Moment> {
    let mut micros = 0_i64;
    let mut cut = false;
    let mut rest = rest;
    if let [b'.', digits @ ..] = rest {
        let count = digits.iter().take_while(|digit| digit.is_ascii_digit()).count();
        if count == 0 {
            return Err(Fault::new("not a time: no digits after the point"));
        }
        for place in 0..6 {
            micros = micros * 10 + digits[..count].get(place).map_or(0, |digit| i64::from(digit - b'0'));
        }
        cut = digits[..count].iter().skip(6).any(|&digit| digit != b'0');
        rest = &digits[count..];
    }
    let offset = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), digits @ ..] => {
            let minutes = match *digits {
                [a, b, b':', c, d] | [a, b, c, d] => two(a, b).zip(two(c, d)),
                [a, b] => two(a, b).map(|hours| (hours, 0)),
                _ => None,
            };
            match minutes {
                Some((hours @ 0..=23, minutes @ 0..=59)) if *sign == b'+' => (hours * 60 + minutes) * 60,
                Some((hours @ 0..=23, minutes @ 0..=59)) => -(hours * 60 + minutes) * 60,
                _ => return Err(Fault::new("not a time: an unreadable offset")),
            }
        }
        [] => return Err(Fault::new("a time without Z or offset")),
        _ => return Err(Fault::new("not a time")),
    };
    let moment = (seconds - offset) * MICROS_PER_SECOND + micros;
    check_range(moment)?;
    Ok((moment, cut))
}

/// Fails outside the years 1 to 9999, which neither SQL databases nor most Parquet readers support.
pub(super) fn check_range(moment: i64) -> Read<()> {
    if (FIRST_TIMESTAMP..=LAST_TIMESTAMP).contains(&moment) {
        Ok(())
    } else {
        Err(Fault::out_of_range(moment > LAST_TIMESTAMP))
    }
}

/// The same for days since the epoch.
pub(super) fn check_day_range(day: i64) -> Read<i32> {
    const SPAN: std::ops::RangeInclusive<i64> =
        FIRST_TIMESTAMP / MICROS_PER_SECOND / SECONDS_PER_DAY..=(LAST_TIMESTAMP + 1) / MICROS_PER_SECOND / SECONDS_PER_DAY - 1;
    match i32::try_from(day) {
        Ok(days) if SPAN.contains(&day) => Ok(days),
        _ => Err(Fault::out_of_range(day > 0)),
    }
}

/// The fault of a text that starts with a date whose year is outside 1 to 9999 (with a sign, more digits, or 0000), and the rest of the text.
#[cold]
fn other_year(text: &[u8]) -> Option<(Fault, &[u8])> {
    let (is_negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let digits = unsigned.iter().take_while(|digit| digit.is_ascii_digit()).count();
    let (year, rest) = unsigned.split_at(digits);
    let significant = year.iter().skip_while(|digit| **digit == b'0').count();
    let ([b'-', m0, m1, b'-', d0, d1], rest) = rest.split_first_chunk::<6>()? else { return None };
    let is_date = matches!(two(*m0, *m1)?, 1..=12) && matches!(two(*d0, *d1)?, 1..=31);
    let is_late = significant > 4;
    (digits >= 4 && is_date && (is_late || is_negative || significant == 0))
        .then(|| (Fault::out_of_range(is_late && !is_negative), rest))
}

#[cold]
fn not_a_time(text: &[u8]) -> Fault {
    if let Some((fault, [b'T' | b't' | b' ', _, _, b':', _, _, b':', ..])) = other_year(text) {
        return fault;
    }
    let shaped = text.len() >= 19
        && text.iter().zip(b"0000-00-00 00:00:00").all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            b' ' => matches!(byte, b'T' | b't' | b' '),
            form => byte == form,
        });
    Fault::new(if shaped { "a time that is not in the calendar" } else { "not a time" })
}

/// Parses a date into days since 1970-01-01.
#[inline]
pub(super) fn date(text: &[u8]) -> Read<i32> {
    match text.first_chunk::<10>() {
        Some(chunk) if text.len() == 10 => {
            days(chunk).map(|days| days as i32).ok_or_else(|| not_a_date(text, "not a date, or not in the calendar"))
        }
        _ => Err(not_a_date(text, "not a date")),
    }
}

#[cold]
fn not_a_date(text: &[u8], otherwise: &'static str) -> Fault {
    match other_year(text) {
        Some((fault, [])) => fault,
        _ => Fault::new(otherwise),
    }
}

/// Parses `YYYY-MM-DDThh:mm:ss` into seconds since the epoch, and returns the rest of the text.
#[inline]
fn seconds(text: &[u8]) -> Option<(i64, &[u8])> {
    let (chunk, rest) = text.split_first_chunk::<19>()?;
    let days = days(chunk.first_chunk::<10>()?)?;
    let hour = two(chunk[11], chunk[12])?;
    let minute = two(chunk[14], chunk[15])?;
    let second = two(chunk[17], chunk[18])?;
    let separators = matches!(chunk[10], b'T' | b' ' | b't') && chunk[13] == b':' && chunk[16] == b':';
    if !separators || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some((days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second, rest))
}

/// Parses `YYYY-MM-DD` into days since the epoch.
#[inline]
fn days(text: &[u8; 10]) -> Option<i64> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = *text else { return None };
    let year = two(y0, y1)? * 100 + two(y2, y3)?;
    let month = two(m0, m1)?;
    let day = two(d0, d1)?;
    if year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    // Years that begin in March put the leap day at the end (Hinnant's algorithm).
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[inline]
fn days_in_month(year: i64, month: i64) -> i64 {
    const DAYS: [i64; 13] = [0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    DAYS[(month % 13) as usize] + i64::from(month == 2 && leap)
}

#[inline(always)]
fn two(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| i64::from(tens * 10 + ones))
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", (0, false)),
            ("1970-01-01 00:00:01z", (1_000_000, false)),
            ("1970-01-01T00:00:00.5Z", (500_000, false)),
            ("1970-01-01T00:00:00.123456Z", (123_456, false)),
            ("1970-01-01T00:00:00.123456000Z", (123_456, false)),
            ("1970-01-01T00:00:00.123456789Z", (123_456, true)),
            ("1969-12-31T23:59:59.9999999Z", (-1, true)),
            ("1970-01-01T02:30:00+02:30", (0, false)),
            ("1970-01-01T02:00:00+0200", (0, false)),
            ("1969-12-31T22:00:00-02", (0, false)),
            ("1970-01-01T00:00:00.25-00:00", (250_000, false)),
            ("0001-01-01T00:00:00Z", (FIRST_TIMESTAMP, false)),
            ("9999-12-31T23:59:59.999999Z", (LAST_TIMESTAMP, false)),
        ] {
            assert_eq!(timestamp(text.as_bytes()).unwrap(), expected, "{text}");
            // The fast path may decline but never return another value.
            assert!(timestamp_at(text.as_bytes(), 0).is_none_or(|short| short == (expected.0, text.len())), "{text}");
        }
        for (text, reason) in [
            ("", "not a time"),
            ("2024-01-01", "not a time"),
            ("2024-01-01T00:00:00", "without Z"),
            ("2024-01-01T00:00:00.Z", "no digits"),
            ("2024-01-01T00:00:00.5", "without Z"),
            ("2024-01-01T00:00:00+25:00", "offset"),
            ("2024-01-01T00:00:00+2", "offset"),
            ("2024-01-01T00:00:00Zx", "not a time"),
            ("2024-01-01x00:00:00Z", "not a time"),
            ("20240101T000000Z", "not a time"),
            ("12024-01-01T00:00:00Z", "a year beyond 9999"),
            ("+12024-01-01T00:00:00.5Z", "a year beyond 9999"),
            ("-0001-01-01T00:00:00Z", "a year before 1"),
            ("-12024-01-01T00:00:00Z", "a year before 1"),
            ("12024-01-01", "not a time"),
            ("12024-13-01T00:00:00Z", "not a time"),
            ("-001-01-01T00:00:00Z", "not a time"),
            ("2023-02-29T00:00:00Z", "calendar"),
            ("2024-13-01T00:00:00Z", "calendar"),
            ("2024-01-01T24:00:00Z", "calendar"),
            ("2024-01-01T23:59:60Z", "calendar"),
            ("0000-01-01T00:00:00Z", "a year before 1"),
            ("0001-01-01T00:00:00+01:00", "a year before 1"),
            ("9999-12-31T23:59:59-01:00", "a year beyond 9999"),
        ] {
            let fault = timestamp(text.as_bytes()).unwrap_err();
            assert!(fault.reason().contains(reason), "{text}: {}", fault.reason());
            assert!(timestamp_at(text.as_bytes(), 0).is_none_or(|(_, end)| end < text.len()), "{text}");
        }
    }

    #[test]
    fn every_day_of_the_calendar() {
        let mut day = NaiveDate::from_ymd_opt(1, 1, 1).unwrap();
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        // All months' ends, leap or not, lie within 37 days of a step.
        while day.format("%Y").to_string().len() == 4 {
            let expected = (day - epoch).num_days() as i32;
            assert_eq!(date(day.to_string().as_bytes()).unwrap(), expected, "{day}");
            assert_eq!(check_day_range(expected.into()).unwrap(), expected);
            day = day + chrono::Days::new(37);
        }
        for text in
            ["2023-02-29", "1900-02-29", "2023-00-01", "2023-01-00", "2023-04-31", "0000-01-01", "2023-1-1", "2023-01-01T"]
        {
            assert!(date(text.as_bytes()).is_err(), "{text}");
        }
        assert!(date(b"2000-02-29").is_ok());
        for (text, reason) in
            [("12025-01-01", "a year beyond 9999"), ("0000-01-01", "a year before 1"), ("12025-1-1", "not a date")]
        {
            assert_eq!(date(text.as_bytes()).unwrap_err().reason(), reason, "{text}");
        }
        assert!(check_day_range(i64::from(date(b"9999-12-31").unwrap()) + 1).is_err());
        assert!(check_day_range(i64::from(date(b"0001-01-01").unwrap()) - 1).is_err());
    }

    proptest! {
        #[test]
        fn agrees_with_chrono(micros in FIRST_TIMESTAMP..=LAST_TIMESTAMP, offset in -86_340..86_340_i32) {
            let time: DateTime<Utc> = DateTime::from_timestamp_micros(micros).unwrap();
            for format in [SecondsFormat::Micros, SecondsFormat::AutoSi] {
                let text = time.to_rfc3339_opts(format, true);
                prop_assert_eq!(timestamp(text.as_bytes()).unwrap(), (micros, false));
                prop_assert_eq!(timestamp_at(format!("<{text}>").as_bytes(), 1), Some((micros, text.len() + 1)));
            }
            let zone = chrono::FixedOffset::east_opt(offset / 60 * 60).unwrap();
            let local = time.with_timezone(&zone);
            if (1..=9999).contains(&chrono::Datelike::year(&local)) {
                prop_assert_eq!(timestamp(local.to_rfc3339().as_bytes()).unwrap(), (micros, false));
            }
        }
    }
}
