//! Times of options, in every form of ISO 8601 that Python's `datetime.fromisoformat` (3.11 and later) accepts, because scripts for the
//! official client use them. `chrono` accepts fewer. Only the offset of the local time zone comes from the machine.

use chrono::{Datelike, Duration, FixedOffset, Local, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Weekday};

use crate::model::Timestamp;

/// A time from the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Moment {
    /// The time in UTC.
    pub(in crate::cli) at: Timestamp,
    /// It had no offset and was interpreted in the time zone of the machine.
    pub(in crate::cli) was_local: bool,
}

/// Parses a time; one without an offset is in the time zone of the machine. The error is for the usage message.
pub(in crate::cli) fn parse_moment(text: &str) -> Result<Moment, String> {
    let wrong = || format!("`{text}` is not a time in ISO 8601; write it as 2026-01-31T09:30:00Z");
    let (naive, offset) = parse(text).ok_or_else(wrong)?;
    let (micros, was_local) = match offset {
        Some(offset) => (naive.and_utc().timestamp_micros() - offset, false),
        None => (local_micros(naive, &Local).ok_or_else(wrong)?, true),
    };
    Ok(Moment { at: Timestamp::from_micros(micros), was_local })
}

/// Like Python: the first of two times with the same local time; a time that the clock skipped has the offset before the change.
fn local_micros<Z: TimeZone>(naive: NaiveDateTime, zone: &Z) -> Option<i64> {
    if let Some(time) = zone.from_local_datetime(&naive).earliest() {
        return Some(time.timestamp_micros());
    }
    let before = zone.from_local_datetime(&naive.checked_sub_signed(Duration::hours(3))?).earliest()?;
    let offset: FixedOffset = before.offset().fix();
    Some(naive.and_utc().timestamp_micros() - i64::from(offset.local_minus_utc()) * 1_000_000)
}

/// Date and time, and the offset in microseconds if there is one.
fn parse(text: &str) -> Option<(NaiveDateTime, Option<i64>)> {
    if text.len() < 7 {
        return None;
    }
    let bytes = text.as_bytes();
    let end = separator(bytes)?;
    let date = parse_date(bytes.get(..end)?)?;
    let rest = text.get(end..)?;
    let mut chars = rest.chars();
    // Date and time are separated by any one character.
    if chars.next().is_none() {
        return Some((date.and_time(NaiveTime::MIN), None));
    }
    let (clock, offset) = parse_time(chars.as_str())?;
    let naive = date.and_time(NaiveTime::MIN).checked_add_signed(Duration::microseconds(clock))?;
    Some((naive, offset))
}

/// The end of the date, by the rules of CPython, including its ambiguous cases.
fn separator(text: &[u8]) -> Option<usize> {
    let digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    if text.len() == 7 {
        return Some(7);
    }
    let end = if text.get(4) == Some(&b'-') {
        if text.get(5) == Some(&b'W') {
            if text.get(8) == Some(&b'-') {
                match text.len() {
                    9 => return None,
                    // The dash is a separator, or a weekday follows.
                    10.. if digit(10) => 8,
                    _ => 10,
                }
            } else {
                8
            }
        } else {
            10
        }
    } else if text.get(4) == Some(&b'W') {
        let digits_end = (7..).find(|at| !digit(*at)).unwrap_or(7);
        match digits_end {
            ..9 => digits_end,
            // With an even number of digits the time starts after the week, else after the weekday.
            _ if digits_end % 2 == 0 => 7,
            _ => 8,
        }
    } else {
        8
    };
    (end <= text.len()).then_some(end)
}

fn number(text: &[u8]) -> Option<u32> {
    let is_number = !text.is_empty() && text.len() <= 6 && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| text.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
}

fn parse_date(text: &[u8]) -> Option<NaiveDate> {
    let year = i32::try_from(number(text.get(..4)?)?).ok().filter(|year| *year >= 1)?;
    let rest = &text[4..];
    let week = |week: &[u8], day: Option<&[u8]>| {
        let day = match day {
            None => Weekday::Mon,
            Some([day @ b'1'..=b'7']) => Weekday::try_from(day - b'1').ok()?,
            Some(_) => return None,
        };
        NaiveDate::from_isoywd_opt(year, number(week)?, day).filter(|date| (1..=9999).contains(&date.year()))
    };
    match (rest, rest.len()) {
        ([b'-', b'W', a, b], _) | ([b'W', a, b], _) => week(&[*a, *b], None),
        ([b'-', b'W', a, b, b'-', day], _) | ([b'W', a, b, day], _) => week(&[*a, *b], Some(&[*day])),
        ([b'-', month @ .., b'-', _, _], 6) => NaiveDate::from_ymd_opt(year, number(month)?, number(&rest[4..])?),
        (_, 4) => NaiveDate::from_ymd_opt(year, number(&rest[..2])?, number(&rest[2..])?),
        _ => None,
    }
}

/// Microseconds since midnight, and the offset in microseconds.
fn parse_time(text: &str) -> Option<(i64, Option<i64>)> {
    let at = text.find(['+', '-', 'Z']).unwrap_or(text.len());
    let (clock, zone) = text.split_at(at);
    // `date` prints a blank before the offset.
    let clock = if zone.is_empty() { clock } else { clock.strip_suffix(' ').unwrap_or(clock) };
    let clock = parse_clock(clock.as_bytes())?;
    let offset = match zone.as_bytes() {
        [] => None,
        [b'Z'] => Some(0),
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let size = parse_clock(rest)?;
            Some(if *sign == b'-' { -size } else { size })
        }
        _ => return None,
    };
    Some((clock, offset))
}

/// `hh`, `hh:mm`, `hh:mm:ss`, with a fraction after the seconds; the same without colons.
fn parse_clock(text: &[u8]) -> Option<i64> {
    let mut parts = [0_i64; 3];
    let mut rest = text;
    let has_colons = text.get(2) == Some(&b':');
    for (place, part) in parts.iter_mut().enumerate() {
        let (digits, after) = rest.split_at_checked(2)?;
        *part = i64::from(number(digits)?);
        rest = after;
        match rest.first() {
            None => break,
            Some(b'.' | b',') if place == 2 => break,
            Some(b':') if has_colons && place < 2 => rest = &rest[1..],
            Some(c) if !has_colons && place < 2 && c.is_ascii_digit() => {}
            Some(_) => return None,
        }
    }
    let mut micros = 0;
    if let Some((_, digits)) = rest.split_first() {
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        // Digits beyond microseconds are truncated.
        micros = (0..6).fold(0, |sum, place| sum * 10 + digits.get(place).map_or(0, |digit| i64::from(digit - b'0')));
    }
    let [hour, minute, second] = parts;
    (hour < 24 && minute < 60 && second < 60).then_some(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_python_accepts_is_accepted() {
        // Each line was checked with CPython 3.11.
        for (text, utc) in [
            ("2022-06-13T09:30:00Z", "2022-06-13T09:30:00Z"),
            ("2022-06-13T09:30:00+02:00", "2022-06-13T07:30:00Z"),
            ("2022-06-13T09:30:00-0330", "2022-06-13T13:00:00Z"),
            ("2022-06-13T09:30:00.123456789+02:00", "2022-06-13T07:30:00.123456Z"),
            ("2022-06-13T09:30:00,5Z", "2022-06-13T09:30:00.500000Z"),
            ("2022-06-13 09:30Z", "2022-06-13T09:30:00Z"),
            ("2022-06-13 09:30:00 +0200", "2022-06-13T07:30:00Z"),
            ("2022-06-13_09Z", "2022-06-13T09:00:00Z"),
            ("2022-06-13ä09Z", "2022-06-13T09:00:00Z"),
            ("20220613T093000Z", "2022-06-13T09:30:00Z"),
            ("20220613T093000.25+01", "2022-06-13T08:30:00.250000Z"),
            ("20220613T0930Z", "2022-06-13T09:30:00Z"),
            ("20220613T09:30Z", "2022-06-13T09:30:00Z"),
            ("2022-W24-1T00:00:00Z", "2022-06-13T00:00:00Z"),
            ("2022-W24T00Z", "2022-06-13T00:00:00Z"),
            ("2022W243T00Z", "2022-06-15T00:00:00Z"),
            ("2022W24T00Z", "2022-06-13T00:00:00Z"),
            ("2022-06-13T09:30:00+00:00:30", "2022-06-13T09:29:30Z"),
            ("2020-W53-7T00Z", "2021-01-03T00:00:00Z"),
        ] {
            let moment = parse_moment(text).unwrap();
            assert_eq!((moment.at.to_string().as_str(), moment.was_local), (utc, false), "{text}");
        }
    }

    #[test]
    fn forms_that_python_refuses_are_refused() {
        for text in [
            "",
            "2022",
            "2022-06",
            "202206",
            "2022-6-13",
            "2022-06-13T",
            "2022-06-13T9:30",
            "2022-06-13T09:3000",
            "2022-06-13T0930:00",
            "2022-06-13T09:30:00.",
            "2022-06-13T09:30:00z",
            "2022-13-01",
            "2022-02-30",
            "2022-164",
            "2022-W54-1",
            "2021-W53-1",
            "2022-W24-8",
            "2022-W24-",
            "2022-06-13T24:00",
            "2022-06-13T09:60",
            "2022-06-13T09:30:00+",
            "0000-01-01",
            "tomorrow",
            "2022-06-13T09:30:00+24:00",
            "2022-0613",
            "2022-06-1309:30:00Z",
            "1655109000",
        ] {
            assert!(parse_moment(text).is_err(), "{text:?} gives {:?}", parse_moment(text));
        }
    }

    #[test]
    fn a_time_without_an_offset_is_local() {
        let moment = parse_moment("2022-06-13").unwrap();
        assert!(moment.was_local);
        assert_eq!(parse_moment("2022-W24").unwrap(), moment);
        assert_eq!(parse_moment("2022W241").unwrap(), moment);
        assert_eq!(parse_moment("20220613T000000").unwrap(), moment);
        let zone = FixedOffset::east_opt(2 * 3600).unwrap();
        let naive = NaiveDate::from_ymd_opt(2022, 6, 13).unwrap().and_hms_opt(9, 30, 0).unwrap();
        assert_eq!(Timestamp::from_micros(local_micros(naive, &zone).unwrap()).to_string(), "2022-06-13T07:30:00Z");
    }
}
