//! Rows of record batches as text: the fields of `LOAD DATA`, or the literals of an `INSERT` where that is disabled. It refuses
//! what the server would cut or change, as `LOAD DATA LOCAL` makes warnings of errors.

use std::net::IpAddr;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};

use super::change::plain;
use super::types::most_bytes;
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::sink::sql::connection::{CopyColumn, CopyInto};
use crate::sink::sql::texts::{json, time_of_day, whole_pairs};
use crate::sink::sql::values::key_words;

const DAY_MICROS: i64 = 86_400_000_000;
/// From the first day of year 1 to the last of year 9999, in days since 1970.
const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;

/// The columns of one batch, in the order of the copy.
#[derive(Debug)]
pub(super) struct Encoder {
    into: CopyInto,
    batch: RecordBatch,
    columns: Vec<Cells>,
}

/// How a row is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Fields between tabs, a line for each row, bytes in hexadecimal.
    Fields,
    /// Literals between commas, in brackets.
    Literals,
}

#[derive(Debug)]
enum Cells {
    Bool(BooleanArray),
    Int16(Int16Array),
    Int32(Int32Array),
    Int64(Int64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Decimal(Decimal128Array),
    Timestamp(TimestampMicrosecondArray),
    Date(Date32Array),
    Time(StringArray),
    Text { array: StringArray, limit: Limit },
    Bytes { array: StringArray, length: Length },
}

/// What a text may have.
#[derive(Debug, Clone, Copy)]
enum Limit {
    Characters(usize),
    Bytes(usize),
}

/// What identifiers and addresses may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// An address of version 4.
    Four,
    /// A UUID, or an address of version 6.
    Sixteen,
    /// An address of either kind.
    Either,
}

impl Encoder {
    /// Kind `Bug` if a column of the batch is not of its type.
    pub(super) fn new(into: &CopyInto, batch: &RecordBatch) -> Result<Self> {
        let columns = into.columns.iter().map(|column| {
            let array = batch.column_by_name(&column.source);
            let array = array.ok_or_else(|| misfit().with_field("column", &column.source))?;
            cells(column, array).with_field("column", &column.source)
        });
        Ok(Self { columns: columns.collect::<Result<_>>()?, into: into.clone(), batch: batch.clone() })
    }

    /// Where the rows go.
    pub(super) fn into(&self) -> &CopyInto {
        &self.into
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// The names of columns, and for each whether it comes as hexadecimal.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, bool)> {
        let is_bytes = self.columns.iter().map(|cells| matches!(cells, Cells::Bytes { .. }));
        self.into.columns.iter().map(|column| column.name.as_str()).zip(is_bytes)
    }

    /// Appends a row. Kind `Data` for a value that the server would not keep as it is.
    pub(super) fn row(&self, row: usize, form: Form, out: &mut Vec<u8>) -> Result<()> {
        let (begin, between, end): (&[u8], u8, &[u8]) = match form {
            Form::Fields => (b"", b'\t', b"\n"),
            Form::Literals => (b"(", b',', b")"),
        };
        out.extend_from_slice(begin);
        for (index, (column, cells)) in self.into.columns.iter().zip(&self.columns).enumerate() {
            if index > 0 {
                out.push(between);
            }
            cells.value(row, form, out).map_err(|reason| self.refuse(row, &column.source, reason))?;
        }
        out.extend_from_slice(end);
        Ok(())
    }

    /// The key of a row, for messages.
    pub(super) fn key(&self, row: usize) -> String {
        key_words(&self.batch, &self.into.keys, row)
    }

    /// The error for a value of a row.
    fn refuse(&self, row: usize, column: &str, reason: &'static str) -> Error {
        self.into.refuse(&self.batch, row, column, reason)
    }
}

fn misfit() -> Error {
    Error::new(Kind::Bug, "Rows do not have the schema of their table")
}

fn cells(column: &CopyColumn, array: &ArrayRef) -> Result<Cells> {
    let sql_type = plain(&column.sql_type);
    let (base, length) = sql_type.split_once('(').unwrap_or((&sql_type, ""));
    let text = || array.as_string_opt::<i32>().cloned().ok_or_else(misfit);
    let bytes = |length| Ok(Cells::Bytes { array: text()?, length });
    Ok(match (base, array.data_type()) {
        ("binary", _) if length.starts_with("4)") => bytes(Length::Four)?,
        ("binary", _) => bytes(Length::Sixteen)?,
        ("varbinary", _) => bytes(Length::Either)?,
        ("time", _) => Cells::Time(text()?),
        ("json", DataType::Utf8) => Cells::Text { array: whole_pairs(text()?), limit: Limit::Bytes(u32::MAX as usize) },
        ("json", _) => Cells::Text { array: json(array)?, limit: Limit::Bytes(u32::MAX as usize) },
        (_, DataType::Boolean) => Cells::Bool(array.as_boolean().clone()),
        (_, DataType::Int16) => Cells::Int16(array.as_primitive::<Int16Type>().clone()),
        (_, DataType::Int32) => Cells::Int32(array.as_primitive::<Int32Type>().clone()),
        (_, DataType::Int64) => Cells::Int64(array.as_primitive::<Int64Type>().clone()),
        (_, DataType::Float32) => Cells::Float32(array.as_primitive::<Float32Type>().clone()),
        (_, DataType::Float64) => Cells::Float64(array.as_primitive::<Float64Type>().clone()),
        (_, DataType::Decimal128(_, _)) => Cells::Decimal(array.as_primitive::<Decimal128Type>().clone()),
        (_, DataType::Timestamp(TimeUnit::Microsecond, _)) => {
            Cells::Timestamp(array.as_primitive::<TimestampMicrosecondType>().clone())
        }
        (_, DataType::Date32) => Cells::Date(array.as_primitive::<Date32Type>().clone()),
        (_, DataType::Utf8) => {
            let limit = match base {
                "varchar" | "char" => Limit::Characters(length.trim_end_matches(')').parse().map_err(|_| misfit())?),
                _ => Limit::Bytes(most_bytes(base).unwrap_or(u32::MAX as usize)),
            };
            Cells::Text { array: text()?, limit }
        }
        _ => return Err(misfit()),
    })
}

impl Cells {
    fn array(&self) -> &dyn Array {
        match self {
            Cells::Bool(array) => array,
            Cells::Int16(array) => array,
            Cells::Int32(array) => array,
            Cells::Int64(array) => array,
            Cells::Float32(array) => array,
            Cells::Float64(array) => array,
            Cells::Decimal(array) => array,
            Cells::Timestamp(array) => array,
            Cells::Date(array) => array,
            Cells::Time(array) | Cells::Text { array, .. } | Cells::Bytes { array, .. } => array,
        }
    }

    /// Appends a value. An error says why not, without the value.
    fn value(&self, row: usize, form: Form, out: &mut Vec<u8>) -> Result<(), &'static str> {
        if self.array().is_null(row) {
            out.extend_from_slice(match form {
                Form::Fields => b"\\N",
                Form::Literals => b"NULL",
            });
            return Ok(());
        }
        match self {
            Cells::Bool(array) => out.push(b'0' + u8::from(array.value(row))),
            Cells::Int16(array) => whole(i64::from(array.value(row)), out),
            Cells::Int32(array) => whole(i64::from(array.value(row)), out),
            Cells::Int64(array) => whole(array.value(row), out),
            // The shortest text, as the service gives it.
            Cells::Float32(array) => {
                float(f64::from(array.value(row)).is_finite(), format_args!("{:e}", array.value(row)), out)?
            }
            Cells::Float64(array) => float(array.value(row).is_finite(), format_args!("{:e}", array.value(row)), out)?,
            Cells::Decimal(array) => out.extend_from_slice(array.value_as_string(row).as_bytes()),
            Cells::Timestamp(array) => {
                let micros = array.value(row);
                let day = micros.div_euclid(DAY_MICROS);
                if !DAYS.contains(&day) {
                    return Err("the time is out of range");
                }
                quoted(form, out, |out| {
                    date(day, out);
                    out.push(b' ');
                    clock(micros.rem_euclid(DAY_MICROS), out);
                });
            }
            Cells::Date(array) => {
                let day = i64::from(array.value(row));
                if !DAYS.contains(&day) {
                    return Err("the date is out of range");
                }
                quoted(form, out, |out| date(day, out));
            }
            Cells::Time(array) => {
                let micros = time_of_day(array.value(row)).ok_or("the text is no time of day")?;
                quoted(form, out, |out| clock(micros, out));
            }
            Cells::Text { array, limit } => {
                let text = array.value(row);
                let is_long = match limit {
                    Limit::Characters(longest) => text.len() > *longest && text.chars().count() > *longest,
                    Limit::Bytes(longest) => text.len() > *longest,
                };
                if is_long {
                    return Err("the text is longer than the column");
                }
                quoted(form, out, |out| escaped(text, form, out));
            }
            Cells::Bytes { array, length } => {
                let bytes = bytes(array.value(row), *length)?;
                out.extend_from_slice(if form == Form::Literals { b"x'" } else { b"" });
                bytes.iter().for_each(|byte| out.extend_from_slice(&[hex(byte >> 4), hex(byte & 15)]));
                out.extend_from_slice(if form == Form::Literals { b"'" } else { b"" });
            }
        }
        Ok(())
    }
}

/// A UUID or address as bytes. An address of version 4 where only version 6 fits is mapped, as is usual.
fn bytes(text: &str, length: Length) -> Result<Vec<u8>, &'static str> {
    let address = || text.parse::<IpAddr>().map_err(|_| "the text is neither UUID nor address");
    if length == Length::Sixteen
        && let Ok(uuid) = uuid::Uuid::try_parse(text)
    {
        return Ok(uuid.as_bytes().to_vec());
    }
    match (address()?, length) {
        (IpAddr::V4(address), Length::Four | Length::Either) => Ok(address.octets().to_vec()),
        (IpAddr::V4(address), Length::Sixteen) => Ok(address.to_ipv6_mapped().octets().to_vec()),
        (IpAddr::V6(address), Length::Sixteen | Length::Either) => Ok(address.octets().to_vec()),
        (IpAddr::V6(_), Length::Four) => Err("the address is not of version 4"),
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

/// A text with its special characters behind a backslash.
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
    // Writing into memory does not fail.
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
    // Years of 400 begin on the first of March, so that the leap day is at the end.
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
        fn dates_are_those_of_chrono(day in DAYS) {
            let expected = chrono::NaiveDate::from_num_days_from_ce_opt(day as i32 + 719_163).unwrap().to_string();
            prop_assert_eq!(written(|out| date(day, out)), expected);
        }

        #[test]
        fn whole_numbers_are_those_of_rust(value: i64) {
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
    fn addresses_of_both_kinds_are_told_apart() {
        assert_eq!(bytes("1.2.3.4", Length::Either).unwrap(), [1, 2, 3, 4]);
        assert_eq!(bytes("102:304::", Length::Either).unwrap().len(), 16);
        assert_eq!(bytes("1.2.3.4", Length::Sixteen).unwrap()[10..], [255, 255, 1, 2, 3, 4]);
        assert!(bytes("::1", Length::Four).is_err() && bytes("x", Length::Sixteen).is_err());
        assert_eq!(bytes("00000000-0000-0000-0000-0000000000ff", Length::Sixteen).unwrap()[15], 255);
    }
}
