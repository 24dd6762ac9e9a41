//! Rows of record batches as the driver's rows. It checks what the server would refuse, so that the error names column and key.

use std::borrow::Cow;
use std::net::IpAddr;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use tiberius::numeric::Numeric;
use tiberius::time::{Date, DateTime2, Time};
use tiberius::{ColumnData, TokenRow};

use super::types::STAGED_TIME;
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::sink::sql::connection::{CopyColumn, CopyInto};
use crate::sink::sql::texts::{json, time_of_day};

const DAY_MICROS: i64 = 86_400_000_000;
/// Days from 0001-01-01, where the server begins to count, to 1970-01-01.
const EPOCH_DAYS: i64 = 719_162;
/// Days from 0001-01-01 to 9999-12-31.
const LAST_DAY: i64 = 3_652_058;
/// Digits of the staged moments.
const MOMENT_SCALE: u8 = 6;

/// Units of UTF-16 that the driver's bulk path takes in one text, even where the column has no limit.
const LONGEST_BULK: usize = 32_767;

/// The columns of one batch, in the order of the copy.
pub(super) struct Encoder<'b> {
    into: &'b CopyInto,
    batch: &'b RecordBatch,
    columns: Vec<Cells>,
}

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
    /// Texts, with the bytes that they may have as UTF-8.
    Text(StringArray, Option<usize>),
    Time(StringArray),
    /// UUID or address, padded to the length.
    Binary(StringArray, usize),
}

impl<'b> Encoder<'b> {
    /// Kind `Bug` if a column of the batch is not of its type.
    pub(super) fn new(into: &'b CopyInto, batch: &'b RecordBatch) -> Result<Self> {
        let columns = into.columns.iter().map(|column| {
            let array = batch.column_by_name(&column.source);
            let array = array.ok_or_else(|| misfit().with_field("column", &column.source))?;
            cells(column, array).with_field("column", &column.source)
        });
        Ok(Self { into, batch, columns: columns.collect::<Result<_>>()? })
    }

    /// Whether the row has a text that the driver's bulk path refuses, whatever the type of the column.
    pub(super) fn is_long(&self, row: usize) -> bool {
        self.columns.iter().any(|cells| match cells {
            Cells::Text(array, _) if array.is_valid(row) => {
                let text = array.value(row);
                text.len() > LONGEST_BULK && text.encode_utf16().count() > LONGEST_BULK
            }
            _ => false,
        })
    }

    /// One row; its bytes are added to `sent`.
    pub(super) fn row(&self, row: usize, sent: &mut u64) -> Result<TokenRow<'_>> {
        let mut out = TokenRow::with_capacity(self.columns.len());
        for (column, cells) in self.into.columns.iter().zip(&self.columns) {
            let cell = cells.value(row).map_err(|reason| self.into.refuse(self.batch, row, &column.source, reason))?;
            *sent += bytes(&cell);
            out.push(cell);
        }
        Ok(out)
    }
}

fn misfit() -> Error {
    Error::new(Kind::Bug, "Rows do not have the schema of their table")
}

/// Bytes that a value takes on the wire, but for its length.
fn bytes(cell: &ColumnData<'_>) -> u64 {
    match cell {
        ColumnData::String(Some(text)) => text.encode_utf16().count() as u64 * 2,
        ColumnData::Binary(Some(bytes)) => bytes.len() as u64,
        ColumnData::Bit(_) => 1,
        ColumnData::I16(_) => 2,
        ColumnData::I32(_) | ColumnData::F32(_) | ColumnData::Date(_) => 4,
        ColumnData::Numeric(Some(_)) => 17,
        _ => 8,
    }
}

pub(super) fn is_null(cell: &ColumnData<'_>) -> bool {
    match cell {
        ColumnData::Bit(value) => value.is_none(),
        ColumnData::I16(value) => value.is_none(),
        ColumnData::I32(value) => value.is_none(),
        ColumnData::I64(value) => value.is_none(),
        ColumnData::F32(value) => value.is_none(),
        ColumnData::F64(value) => value.is_none(),
        ColumnData::Numeric(value) => value.is_none(),
        ColumnData::DateTime2(value) => value.is_none(),
        ColumnData::Date(value) => value.is_none(),
        ColumnData::String(value) => value.is_none(),
        ColumnData::Binary(value) => value.is_none(),
        _ => false,
    }
}

/// The number in `nvarchar(n)`, `binary(n)`.
fn length(sql_type: &str) -> Option<usize> {
    sql_type.split_once('(')?.1.split_once(')')?.0.parse().ok()
}

fn cells(column: &CopyColumn, array: &ArrayRef) -> Result<Cells> {
    let sql_type = column.sql_type.as_str();
    let text = || array.as_string_opt::<i32>().cloned().ok_or_else(misfit);
    Ok(match array.data_type() {
        _ if sql_type == STAGED_TIME => Cells::Time(text()?),
        _ if sql_type.starts_with("binary(") => Cells::Binary(text()?, length(sql_type).ok_or_else(misfit)?),
        DataType::Boolean => Cells::Bool(array.as_boolean().clone()),
        DataType::Int16 => Cells::Int16(array.as_primitive::<Int16Type>().clone()),
        DataType::Int32 => Cells::Int32(array.as_primitive::<Int32Type>().clone()),
        DataType::Int64 => Cells::Int64(array.as_primitive::<Int64Type>().clone()),
        DataType::Float32 => Cells::Float32(array.as_primitive::<Float32Type>().clone()),
        DataType::Float64 => Cells::Float64(array.as_primitive::<Float64Type>().clone()),
        DataType::Decimal128(_, _) => Cells::Decimal(array.as_primitive::<Decimal128Type>().clone()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Cells::Timestamp(array.as_primitive::<TimestampMicrosecondType>().clone())
        }
        DataType::Date32 => Cells::Date(array.as_primitive::<Date32Type>().clone()),
        DataType::Utf8 => Cells::Text(text()?, length(sql_type)),
        DataType::Struct(_) | DataType::List(_) => Cells::Text(json(array)?, length(sql_type)),
        _ => return Err(misfit()),
    })
}

impl Cells {
    /// An error says why, without the value.
    fn value(&self, row: usize) -> Result<ColumnData<'_>, &'static str> {
        fn some<'a, A: Array, T>(array: &'a A, row: usize, value: impl FnOnce(&'a A) -> T) -> Option<T> {
            array.is_valid(row).then(|| value(array))
        }
        Ok(match self {
            Cells::Bool(array) => ColumnData::Bit(some(array, row, |array| array.value(row))),
            Cells::Int16(array) => ColumnData::I16(some(array, row, |array| array.value(row))),
            Cells::Int32(array) => ColumnData::I32(some(array, row, |array| array.value(row))),
            Cells::Int64(array) => ColumnData::I64(some(array, row, |array| array.value(row))),
            Cells::Float32(array) => match some(array, row, |array| array.value(row)) {
                Some(value) if !value.is_finite() => return Err("the database has no place for NaN and infinity"),
                value => ColumnData::F32(value),
            },
            Cells::Float64(array) => match some(array, row, |array| array.value(row)) {
                Some(value) if !value.is_finite() => return Err("the database has no place for NaN and infinity"),
                value => ColumnData::F64(value),
            },
            Cells::Decimal(array) => {
                let scale = u8::try_from(array.scale()).ok().filter(|scale| *scale <= Numeric::MAX_NUMERIC_SCALE);
                let scale = scale.ok_or("the number has digits beyond what the database keeps")?;
                ColumnData::Numeric(some(array, row, |array| Numeric::new_with_scale(array.value(row), scale)))
            }
            Cells::Timestamp(array) => ColumnData::DateTime2(match some(array, row, |array| array.value(row)) {
                None => None,
                Some(micros) => {
                    let date = date(micros.div_euclid(DAY_MICROS))?;
                    let time = Time::new(micros.rem_euclid(DAY_MICROS).unsigned_abs(), MOMENT_SCALE);
                    Some(DateTime2::new(date, time))
                }
            }),
            Cells::Date(array) => {
                ColumnData::Date(some(array, row, |array| i64::from(array.value(row))).map(date).transpose()?)
            }
            Cells::Text(array, longest) => ColumnData::String(match some(array, row, |array| array.value(row)) {
                Some(text) if longest.is_some_and(|longest| text.len() > longest) => {
                    return Err("the text is longer than a key or a word of an enumeration can be");
                }
                text => text.map(Cow::Borrowed),
            }),
            Cells::Time(array) => ColumnData::String(match some(array, row, |array| array.value(row)) {
                None => None,
                Some(text) => Some(Cow::Owned(time(text).ok_or("the text is no time of day that the database can hold")?)),
            }),
            Cells::Binary(array, length) => ColumnData::Binary(match some(array, row, |array| array.value(row)) {
                None => None,
                Some(text) => Some(Cow::Owned(binary(text, *length)?)),
            }),
        })
    }
}

/// From days since 1970.
fn date(days: i64) -> Result<Date, &'static str> {
    let days = days.checked_add(EPOCH_DAYS).filter(|days| (0..=LAST_DAY).contains(days));
    let days = days.and_then(|days| u32::try_from(days).ok());
    days.map(Date::new).ok_or("the date is outside the years 1 to 9999")
}

/// The bytes of a UUID or an address; the shorter addresses are padded, as the server pads them.
fn binary(text: &str, length: usize) -> Result<Vec<u8>, &'static str> {
    let mut bytes = match (uuid::Uuid::parse_str(text), text.parse::<IpAddr>()) {
        (Ok(uuid), _) => uuid.as_bytes().to_vec(),
        (_, Ok(IpAddr::V4(address))) => address.octets().to_vec(),
        (_, Ok(IpAddr::V6(address))) => address.octets().to_vec(),
        _ => return Err("the text is neither a UUID nor an address"),
    };
    if bytes.len() > length {
        return Err("the address is of the longer kind");
    }
    bytes.resize(length, 0);
    Ok(bytes)
}

/// A time of day in UTC as `hh:mm:ss.ffffff`. The day has no 24:00 there.
fn time(text: &str) -> Option<String> {
    let micros = time_of_day(text).filter(|micros| *micros < DAY_MICROS)?;
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    Some(format!("{:02}:{:02}:{:02}.{micros:06}", seconds / 3600, seconds / 60 % 60, seconds % 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day_are_read_with_and_without_offset() {
        assert_eq!(time("00:00:00").as_deref(), Some("00:00:00.000000"));
        assert_eq!(time("23:59:59.9999999").as_deref(), Some("23:59:59.999999"));
        assert_eq!(time("01:30:00+02:00").as_deref(), Some("23:30:00.000000"));
        assert_eq!(time("23:30:00-02:00").as_deref(), Some("01:30:00.000000"));
        assert_eq!(time("12:00:00.5Z").as_deref(), Some("12:00:00.500000"));
        for wrong in
            ["", "12", "24:00:00", "25:00:00", "12:60:00", "23:59:60", "12:00:00.x", "12:00:00+2", "noon", "+", "1é:00:00"]
        {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn identifiers_and_addresses_are_bytes() {
        assert_eq!(binary("00010203-0405-0607-0809-0a0b0c0d0e0f", 16), Ok((0..16).collect()));
        assert_eq!(binary("1.2.3.4", 4), Ok(vec![1, 2, 3, 4]));
        assert_eq!(binary("1.2.3.4", 16).unwrap()[..5], [1, 2, 3, 4, 0]);
        assert_eq!(binary("::1", 16).unwrap()[15], 1);
        assert!(binary("::1", 4).is_err() && binary("nobody", 16).is_err());
    }

    #[test]
    fn dates_end_where_the_server_ends() {
        assert_eq!(date(-EPOCH_DAYS).unwrap().days(), 0);
        assert_eq!(date(2_932_896).unwrap().days(), 3_652_058);
        assert!(date(-EPOCH_DAYS - 1).is_err() && date(2_932_897).is_err() && date(i64::MAX).is_err());
    }
}
