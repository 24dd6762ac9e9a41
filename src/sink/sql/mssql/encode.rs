//! Rows of record batches as rows of the driver. Values that the server would refuse are refused here, so that the error names column and
//! key.

use std::borrow::Cow;
use std::net::IpAddr;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use tiberius::numeric::Numeric;
use tiberius::time::{Date, DateTime2, Time};
use tiberius::{ColumnData, TokenRow};

use super::types::Format;
use crate::error::Result;
use crate::sink::sql::connection::{BoundColumn, CopyPlan, mismatch};
use crate::sink::sql::encoding::{DAY_MICROS, Values, time_of_day};

/// Days from 0001-01-01, the server's epoch, to 1970-01-01.
const EPOCH_DAYS: i64 = 719_162;
/// Days from 0001-01-01 to 9999-12-31.
const LAST_DAY: i64 = 3_652_058;
/// Digits of the fraction of staged timestamps.
const TIMESTAMP_SCALE: u8 = 6;
/// Units of UTF-16 that the driver's bulk path accepts in one string, even where the column has no limit.
const LONGEST_BULK: usize = 32_767;

/// The columns of one batch, in the order of the copy.
pub(super) struct Encoder<'b> {
    plan: &'b CopyPlan<Format>,
    batch: &'b RecordBatch,
    columns: Vec<BoundColumn<Cells>>,
}

enum Cells {
    /// The value of the record batch.
    Plain(Values),
    /// Strings, with the bytes of UTF-8 that they may have.
    Text(StringArray, Option<usize>),
    Time(StringArray),
    /// UUIDs or addresses, padded to the length.
    Binary(StringArray, usize),
}

impl<'b> Encoder<'b> {
    /// Kind `Bug` if a column of the batch does not have its type.
    pub(super) fn new(plan: &'b CopyPlan<Format>, batch: &'b RecordBatch) -> Result<Self> {
        Ok(Self { columns: plan.bind(batch, cells)?, plan, batch })
    }

    /// Whether a row has a string that is too long for the driver's bulk path, whatever the type of its column.
    pub(super) fn is_long(&self, row: usize) -> bool {
        self.columns.iter().any(|column| match &column.cells {
            Cells::Text(array, _) if !column.is_null(row) => {
                let text = array.value(row);
                text.len() > LONGEST_BULK && text.encode_utf16().count() > LONGEST_BULK
            }
            _ => false,
        })
    }

    /// One row; its bytes are added to `sent`.
    pub(super) fn row(&self, row: usize, sent: &mut u64) -> Result<TokenRow<'_>> {
        let mut out = TokenRow::with_capacity(self.columns.len());
        for (index, column) in self.columns.iter().enumerate() {
            let cell = column.cells.value(row, column.is_null(row)).map_err(|reason| {
                let target = &self.plan.target;
                target.refuse(self.batch, row, &target.columns[index].source, reason)
            })?;
            *sent += bytes(&cell);
            out.push(cell);
        }
        Ok(out)
    }
}

/// Bytes that a value takes on the wire, without its length.
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

fn cells(format: &Format, array: &ArrayRef) -> Result<Cells> {
    let text = || array.as_string_opt::<i32>().cloned().ok_or_else(mismatch);
    Ok(match format {
        Format::Time => Cells::Time(text()?),
        Format::Binary(length) => Cells::Binary(text()?, *length),
        Format::Text(longest) => match Values::of(array)?.ok_or_else(mismatch)? {
            Values::Text(array) => Cells::Text(array, *longest),
            other => Cells::Plain(other),
        },
        Format::Plain => Cells::Plain(Values::of(array)?.ok_or_else(mismatch)?),
    })
}

const NOT_FINITE: &str = "the database cannot hold NaN and infinity";

impl Cells {
    /// The value of a row; a null has a type as well. An error is the reason for a refusal, without the value.
    fn value(&self, row: usize, is_null: bool) -> Result<ColumnData<'_>, &'static str> {
        fn some<T>(is_null: bool, value: impl FnOnce() -> T) -> Option<T> {
            (!is_null).then(value)
        }
        Ok(match self {
            Cells::Plain(values) => match values {
                Values::Bool(array) => ColumnData::Bit(some(is_null, || array.value(row))),
                Values::Int16(array) => ColumnData::I16(some(is_null, || array.value(row))),
                Values::Int32(array) => ColumnData::I32(some(is_null, || array.value(row))),
                Values::Int64(array) => ColumnData::I64(some(is_null, || array.value(row))),
                Values::Float32(array) => match some(is_null, || array.value(row)) {
                    Some(value) if !value.is_finite() => return Err(NOT_FINITE),
                    value => ColumnData::F32(value),
                },
                Values::Float64(array) => match some(is_null, || array.value(row)) {
                    Some(value) if !value.is_finite() => return Err(NOT_FINITE),
                    value => ColumnData::F64(value),
                },
                Values::Decimal(array) => {
                    let scale = u8::try_from(array.scale()).ok().filter(|scale| *scale <= Numeric::MAX_NUMERIC_SCALE);
                    let scale = scale.ok_or("the number has more digits behind the point than the database keeps")?;
                    ColumnData::Numeric(some(is_null, || Numeric::new_with_scale(array.value(row), scale)))
                }
                Values::Timestamp(array) => ColumnData::DateTime2(some(is_null, || timestamp(array.value(row))).transpose()?),
                Values::Date(array) => ColumnData::Date(some(is_null, || date(i64::from(array.value(row)))).transpose()?),
                Values::Text(array) => ColumnData::String(some(is_null, || Cow::Borrowed(array.value(row)))),
            },
            Cells::Text(array, longest) => ColumnData::String(match some(is_null, || array.value(row)) {
                Some(text) if longest.is_some_and(|longest| text.len() > longest) => {
                    return Err("the string is longer than a key or an enum value can be");
                }
                text => text.map(Cow::Borrowed),
            }),
            Cells::Time(array) => {
                let time = some(is_null, || {
                    time(array.value(row)).ok_or("the string is not a time of day that the database can hold")
                });
                ColumnData::String(time.transpose()?.map(Cow::Owned))
            }
            Cells::Binary(array, length) => {
                ColumnData::Binary(some(is_null, || binary(array.value(row), *length)).transpose()?.map(Cow::Owned))
            }
        })
    }
}

fn timestamp(micros: i64) -> Result<DateTime2, &'static str> {
    let date = date(micros.div_euclid(DAY_MICROS))?;
    Ok(DateTime2::new(date, Time::new(micros.rem_euclid(DAY_MICROS).unsigned_abs(), TIMESTAMP_SCALE)))
}

/// A date from days since 1970.
fn date(days: i64) -> Result<Date, &'static str> {
    let days = days.checked_add(EPOCH_DAYS).filter(|days| (0..=LAST_DAY).contains(days));
    let days = days.and_then(|days| u32::try_from(days).ok());
    days.map(Date::new).ok_or("the date is outside the years 1 to 9999")
}

/// The bytes of a UUID or an address; IPv4 addresses are padded, as the server pads them.
fn binary(text: &str, length: usize) -> Result<Vec<u8>, &'static str> {
    let mut bytes = match (uuid::Uuid::parse_str(text), text.parse::<IpAddr>()) {
        (Ok(uuid), _) => uuid.as_bytes().to_vec(),
        (_, Ok(IpAddr::V4(address))) => address.octets().to_vec(),
        (_, Ok(IpAddr::V6(address))) => address.octets().to_vec(),
        _ => return Err("the string is neither a UUID nor an IP address"),
    };
    if bytes.len() > length {
        return Err("the address is not an IPv4 address");
    }
    bytes.resize(length, 0);
    Ok(bytes)
}

/// A time of day in UTC as `hh:mm:ss.ffffff`. The server has no 24:00.
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
