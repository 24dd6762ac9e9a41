//! Rows of record batches as text: the fields of `LOAD DATA`, or the literals of an `INSERT` where that is disabled. Values that the server
//! would cut or change are refused here, because `LOAD DATA LOCAL` turns errors into warnings.

use std::net::IpAddr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};

use super::types::{Kind, SqlType};
use crate::error::{Error, Result};
use crate::sink::sql::connection::{BoundColumn, CopyPlan, CopyTarget, mismatch};
use crate::sink::sql::encoding::{DAY_MICROS, Values, key_of, replace_half_pairs, time_of_day};

/// From the first day of year 1 to the last of year 9999, in days since 1970.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;
/// Bytes of the longest value.
const LONGEST: usize = u32::MAX as usize;

/// How the values of a column are written, by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text(Limit),
    Json,
    Time,
    Bytes(Length),
}

impl Format {
    /// For a type of the table or the staging table.
    pub(super) fn of(sql_type: &str) -> Self {
        match SqlType::parse(sql_type).kind {
            Kind::Binary(4) => Format::Bytes(Length::Four),
            Kind::Binary(_) => Format::Bytes(Length::Sixteen),
            Kind::Varbinary(_) => Format::Bytes(Length::Either),
            Kind::Time(_) => Format::Time,
            Kind::Json => Format::Json,
            Kind::Char(length) | Kind::Varchar(length) => Format::Text(Limit::Characters(length as usize)),
            other => Format::Text(Limit::Bytes(other.most_bytes().unwrap_or(LONGEST))),
        }
    }
}

/// The maximum length of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Characters(usize),
    Bytes(usize),
}

/// The content of a binary column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// An IPv4 address.
    Four,
    /// A UUID or an IPv6 address.
    Sixteen,
    /// An address of either kind.
    Either,
}

/// The columns of one batch, in the order of the copy.
#[derive(Debug)]
pub(super) struct Encoder {
    plan: Arc<CopyPlan<Format>>,
    batch: RecordBatch,
    columns: Vec<BoundColumn<Cells>>,
}

/// The syntax of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Fields separated by tabs, one line per row, bytes in hexadecimal.
    Fields,
    /// Literals separated by commas, in parentheses.
    Literals,
}

#[derive(Debug)]
enum Cells {
    /// The value of the record batch.
    Plain(Values),
    Text(StringArray, Limit),
    Time(StringArray),
    Bytes(StringArray, Length),
}

impl Encoder {
    /// Kind `Bug` if a column of the batch does not have its type.
    pub(super) fn new(plan: &Arc<CopyPlan<Format>>, batch: &RecordBatch) -> Result<Self> {
        Ok(Self { columns: plan.bind(batch, cells)?, plan: Arc::clone(plan), batch: batch.clone() })
    }

    /// Where the rows go.
    pub(super) fn target(&self) -> &CopyTarget {
        &self.plan.target
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// The names of columns, and for each whether it is sent as hexadecimal.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, bool)> {
        let is_hex = self.columns.iter().map(|column| matches!(column.cells, Cells::Bytes(..)));
        self.plan.target.columns.iter().map(|column| column.name.as_str()).zip(is_hex)
    }

    /// Appends a row. Kind `Data` for a value that the server would not store unchanged.
    pub(super) fn row(&self, row: usize, form: Form, out: &mut Vec<u8>) -> Result<()> {
        let (begin, between, end): (&[u8], u8, &[u8]) = match form {
            Form::Fields => (b"", b'\t', b"\n"),
            Form::Literals => (b"(", b',', b")"),
        };
        out.extend_from_slice(begin);
        for (index, column) in self.columns.iter().enumerate() {
            if index > 0 {
                out.push(between);
            }
            if column.is_null(row) {
                out.extend_from_slice(if form == Form::Fields { b"\\N" } else { b"NULL" });
                continue;
            }
            column.cells.write(row, form, out).map_err(|reason| self.refuse(row, index, reason))?;
        }
        out.extend_from_slice(end);
        Ok(())
    }

    /// The key of a row, for messages.
    pub(super) fn key(&self, row: usize) -> String {
        key_of(&self.batch, &self.plan.target.keys, row)
    }

    fn refuse(&self, row: usize, column: usize, reason: &'static str) -> Error {
        let target = &self.plan.target;
        target.refuse(&self.batch, row, &target.columns[column].source, reason)
    }
}

fn cells(format: &Format, array: &ArrayRef) -> Result<Cells> {
    let text = || array.as_string_opt::<i32>().cloned().ok_or_else(mismatch);
    Ok(match format {
        Format::Bytes(length) => Cells::Bytes(text()?, *length),
        Format::Time => Cells::Time(text()?),
        Format::Json => {
            let is_text = array.as_string_opt::<i32>().is_some();
            let json = Values::of(array)?.and_then(Values::into_text).ok_or_else(mismatch)?;
            Cells::Text(if is_text { replace_half_pairs(json) } else { json }, Limit::Bytes(LONGEST))
        }
        // Nested values belong into JSON columns only.
        Format::Text(_) if array.data_type().is_nested() => return Err(mismatch()),
        Format::Text(limit) => match Values::of(array)?.ok_or_else(mismatch)? {
            Values::Text(array) => Cells::Text(array, *limit),
            other => Cells::Plain(other),
        },
    })
}

impl Cells {
    /// Appends a value. An error is the reason for a refusal, without the value.
    fn write(&self, row: usize, form: Form, out: &mut Vec<u8>) -> Result<(), &'static str> {
        match self {
            Cells::Plain(values) => match values {
                Values::Bool(array) => out.push(b'0' + u8::from(array.value(row))),
                Values::Int16(array) => whole(i64::from(array.value(row)), out),
                Values::Int32(array) => whole(i64::from(array.value(row)), out),
                Values::Int64(array) => whole(array.value(row), out),
                // The shortest form, as the service sends it.
                Values::Float32(array) => {
                    float(array.value(row).is_finite(), format_args!("{:e}", array.value(row)), out)?;
                }
                Values::Float64(array) => float(array.value(row).is_finite(), format_args!("{:e}", array.value(row)), out)?,
                Values::Decimal(array) => out.extend_from_slice(array.value_as_string(row).as_bytes()),
                Values::Timestamp(array) => {
                    let micros = array.value(row);
                    let day = micros.div_euclid(DAY_MICROS);
                    if !DAYS.contains(&day) {
                        return Err("the timestamp is out of range");
                    }
                    quoted(form, out, |out| {
                        date(day, out);
                        out.push(b' ');
                        clock(micros.rem_euclid(DAY_MICROS), out);
                    });
                }
                Values::Date(array) => {
                    let day = i64::from(array.value(row));
                    if !DAYS.contains(&day) {
                        return Err("the date is out of range");
                    }
                    quoted(form, out, |out| date(day, out));
                }
                Values::Text(array) => quoted(form, out, |out| escaped(array.value(row), form, out)),
            },
            Cells::Time(array) => {
                let micros = time_of_day(array.value(row)).ok_or("the string is not a time of day")?;
                quoted(form, out, |out| clock(micros, out));
            }
            Cells::Text(array, limit) => {
                let text = array.value(row);
                let is_long = match limit {
                    Limit::Characters(longest) => text.len() > *longest && text.chars().count() > *longest,
                    Limit::Bytes(longest) => text.len() > *longest,
                };
                if is_long {
                    return Err("the string is longer than the column");
                }
                quoted(form, out, |out| escaped(text, form, out));
            }
            Cells::Bytes(array, length) => {
                let bytes = bytes(array.value(row), *length)?;
                let (begin, end): (&[u8], &[u8]) = if form == Form::Literals { (b"x'", b"'") } else { (b"", b"") };
                out.extend_from_slice(begin);
                bytes.iter().for_each(|byte| out.extend_from_slice(&[hex(byte >> 4), hex(byte & 15)]));
                out.extend_from_slice(end);
            }
        }
        Ok(())
    }
}

/// The bytes of a UUID or an address. In a column of IPv6 addresses, IPv4 addresses are mapped into IPv6.
fn bytes(text: &str, length: Length) -> Result<Vec<u8>, &'static str> {
    let address = || text.parse::<IpAddr>().map_err(|_| "the string is neither a UUID nor an IP address");
    if length == Length::Sixteen
        && let Ok(uuid) = uuid::Uuid::try_parse(text)
    {
        return Ok(uuid.as_bytes().to_vec());
    }
    match (address()?, length) {
        (IpAddr::V4(address), Length::Four | Length::Either) => Ok(address.octets().to_vec()),
        (IpAddr::V4(address), Length::Sixteen) => Ok(address.to_ipv6_mapped().octets().to_vec()),
        (IpAddr::V6(address), Length::Sixteen | Length::Either) => Ok(address.octets().to_vec()),
        (IpAddr::V6(_), Length::Four) => Err("the address is not an IPv4 address"),
    }
}

fn hex(half: u8) -> u8 {
    b"0123456789abcdef"[usize::from(half)]
}

fn quoted(form: Form, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let quote: &[u8] = if form == Form::Literals { b"'" } else { b"" };
    out.extend_from_slice(quote);
    write(out);
    out.extend_from_slice(quote);
}

/// A string with a backslash before special characters.
fn escaped(text: &str, form: Form, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let letter = match (byte, form) {
            (b'\\', _) => b'\\',
            (0, _) => b'0',
            (b'\t', Form::Fields) => b't',
            (b'\n', Form::Fields) => b'n',
            (b'\'', Form::Literals) => b'\'',
            _ => continue,
        };
        out.extend_from_slice(&bytes[copied..index]);
        out.extend_from_slice(&[b'\\', letter]);
        copied = index + 1;
    }
    out.extend_from_slice(&bytes[copied..]);
}

fn float(is_finite: bool, text: std::fmt::Arguments<'_>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    use std::io::Write;
    if !is_finite {
        return Err("the number is not finite");
    }
    // Writing to memory cannot fail.
    let _ = out.write_fmt(text);
    Ok(())
}

fn whole(value: i64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut place = digits.len();
    let mut left = value.unsigned_abs();
    loop {
        place -= 1;
        digits[place] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[place..]);
}

fn padded(value: i64, digits: u32, out: &mut Vec<u8>) {
    for place in (0..digits).rev() {
        out.push(b'0' + (value / 10_i64.pow(place) % 10) as u8);
    }
}

/// Year, month and day of a day since 1970, within the years of four digits.
fn date(day: i64, out: &mut Vec<u8>) {
    // Periods of 400 years that begin on March 1, so that the leap day is the last day of a year.
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    padded(year, 4, out);
    out.push(b'-');
    padded(month, 2, out);
    out.push(b'-');
    padded(day, 2, out);
}

fn clock(micros: i64, out: &mut Vec<u8>) {
    let seconds = micros / 1_000_000;
    padded(seconds / 3600, 2, out);
    out.push(b':');
    padded(seconds / 60 % 60, 2, out);
    out.push(b':');
    padded(seconds % 60, 2, out);
    if micros % 1_000_000 != 0 {
        out.push(b'.');
        padded(micros % 1_000_000, 6, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn dates_are_printed_as_chrono_prints_them(day in DAYS) {
            let expected = chrono::NaiveDate::from_num_days_from_ce_opt(day as i32 + 719_163).unwrap().to_string();
            prop_assert_eq!(written(|out| date(day, out)), expected);
        }

        #[test]
        fn integers_are_printed_as_rust_prints_them(value: i64) {
            prop_assert_eq!(written(|out| whole(value, out)), value.to_string());
        }
    }

    #[test]
    fn the_ends_of_time_have_four_digits() {
        for (day, text) in [(*DAYS.start(), "0001-01-01"), (*DAYS.end(), "9999-12-31"), (0, "1970-01-01"), (-1, "1969-12-31")] {
            assert_eq!(written(|out| date(day, out)), text);
        }
        assert_eq!(written(|out| clock(DAY_MICROS - 1, out)), "23:59:59.999999");
        assert_eq!(written(|out| clock(DAY_MICROS, out)), "24:00:00");
    }

    #[test]
    fn special_characters_are_behind_a_backslash() {
        assert_eq!(written(|out| escaped("a\tb\nc\\N\0'", Form::Fields, out)), "a\\tb\\nc\\\\N\\0'");
        assert_eq!(written(|out| escaped("a\tb\\'\0", Form::Literals, out)), "a\tb\\\\\\'\\0");
    }

    #[test]
    fn ipv4_and_ipv6_addresses_are_distinguished() {
        assert_eq!(bytes("1.2.3.4", Length::Either).unwrap(), [1, 2, 3, 4]);
        assert_eq!(bytes("102:304::", Length::Either).unwrap().len(), 16);
        assert_eq!(bytes("1.2.3.4", Length::Sixteen).unwrap()[10..], [255, 255, 1, 2, 3, 4]);
        assert!(bytes("::1", Length::Four).is_err() && bytes("x", Length::Sixteen).is_err());
        assert_eq!(bytes("00000000-0000-0000-0000-0000000000ff", Length::Sixteen).unwrap()[15], 255);
    }
}
