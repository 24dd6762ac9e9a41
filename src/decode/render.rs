//! Writes values of Arrow arrays as text: nested values as JSON, others in the notation of the text formats.

use std::io::Write;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time32MillisecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::DateTime;

use crate::error::{Error, Kind, Result, ResultExt};
use crate::schema::ColumnType;

/// Converts a column of nested values to JSON text. Null members are omitted, as in the service's condensed mode. `column_type` indicates which
/// texts contain JSON themselves.
pub(super) fn json_column(array: &ArrayRef, column_type: &ColumnType) -> Result<ArrayRef> {
    let mut text = Vec::new();
    let mut offsets = Vec::with_capacity(array.len() + 1);
    offsets.push(0_i32);
    for row in 0..array.len() {
        if array.is_valid(row) {
            json(array, row, Some(column_type), &mut text);
        }
        let end = i32::try_from(text.len());
        offsets.push(
            end.map_err(|_| Error::new(Kind::Resources, "The JSON text of a batch exceeds 2 GiB").hint("use smaller batches"))?,
        );
    }
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    let array = StringArray::try_new(offsets, text.into(), array.nulls().cloned());
    Ok(std::sync::Arc::new(array.context(Kind::Bug, "Rendered JSON is not UTF-8")?))
}

/// Appends the value as JSON.
pub(super) fn json(array: &dyn Array, index: usize, column_type: Option<&ColumnType>, out: &mut Vec<u8>) {
    if array.is_null(index) {
        out.extend_from_slice(b"null");
        return;
    }
    match array.data_type() {
        DataType::Struct(fields) => {
            let members = match column_type {
                Some(ColumnType::Struct(members)) => Some(members),
                _ => None,
            };
            out.push(b'{');
            let mut separate = false;
            for (number, (field, values)) in fields.iter().zip(array.as_struct().columns()).enumerate() {
                if values.is_null(index) {
                    continue;
                }
                if separate {
                    out.push(b',');
                }
                separate = true;
                string(field.name(), out);
                out.push(b':');
                let member = members.and_then(|members| members.get(number)).map(|member| &member.column_type);
                json(values, index, member, out);
            }
            out.push(b'}');
        }
        DataType::List(_) => {
            let item_type = match column_type {
                Some(ColumnType::List(item)) => Some(&**item),
                _ => None,
            };
            let list = array.as_list::<i32>();
            let offsets = list.value_offsets();
            out.push(b'[');
            for item in offsets[index]..offsets[index + 1] {
                if item > offsets[index] {
                    out.push(b',');
                }
                json(list.values(), item as usize, item_type, out);
            }
            out.push(b']');
        }
        DataType::Utf8 => {
            let text = array.as_string::<i32>().value(index);
            // JSON text is copied if it is valid.
            let holds_json = column_type == Some(&ColumnType::Json);
            if holds_json && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok() {
                out.extend_from_slice(text.as_bytes());
            } else {
                string(text, out);
            }
        }
        kind if is_bare(kind) => {
            let start = out.len();
            text(array, index, out);
            // JSON has no NaN and no infinities.
            if out.get(start..).is_some_and(|text| text.iter().any(|byte| matches!(byte, b'N' | b'I'))) {
                out.insert(start, b'"');
                out.push(b'"');
            }
        }
        _ => {
            let mut plain = Vec::new();
            text(array, index, &mut plain);
            string(&String::from_utf8_lossy(&plain), out);
        }
    }
}

/// Whether the text of a type is a JSON number or literal.
fn is_bare(kind: &DataType) -> bool {
    kind.is_numeric() || *kind == DataType::Boolean
}

fn string(text: &str, out: &mut Vec<u8>) {
    // Neither writing to a vector nor serialising a string can fail.
    let _ = serde_json::to_writer(out, text);
}

/// Appends a value that is neither null nor nested, in the notation of the text formats.
pub(super) fn text(array: &dyn Array, index: usize, out: &mut Vec<u8>) {
    macro_rules! shown {
        ($kind:ty) => {
            // Writing to a vector cannot fail.
            drop(write!(out, "{}", array.as_primitive::<$kind>().value(index)))
        };
    }
    match array.data_type() {
        DataType::Utf8 => out.extend_from_slice(array.as_string::<i32>().value(index).as_bytes()),
        DataType::Boolean => out.extend_from_slice(if array.as_boolean().value(index) { b"true" } else { b"false" }),
        DataType::Int8 => shown!(Int8Type),
        DataType::Int16 => shown!(Int16Type),
        DataType::Int32 => shown!(Int32Type),
        DataType::Int64 => shown!(Int64Type),
        DataType::UInt8 => shown!(UInt8Type),
        DataType::UInt16 => shown!(UInt16Type),
        DataType::UInt32 => shown!(UInt32Type),
        DataType::UInt64 => shown!(UInt64Type),
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(index);
            float(value.is_nan(), value.is_infinite(), value.is_sign_negative(), out, |out| {
                drop(serde_json::to_writer(out, &value))
            });
        }
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(index);
            float(value.is_nan(), value.is_infinite(), value.is_sign_negative(), out, |out| {
                drop(serde_json::to_writer(out, &value))
            });
        }
        DataType::Decimal128(..) => {
            out.extend_from_slice(array.as_primitive::<Decimal128Type>().value_as_string(index).as_bytes())
        }
        DataType::Decimal256(..) => {
            out.extend_from_slice(array.as_primitive::<Decimal256Type>().value_as_string(index).as_bytes())
        }
        DataType::Date32 => {
            let days = i64::from(array.as_primitive::<Date32Type>().value(index));
            match DateTime::from_timestamp(days * 86_400, 0) {
                Some(time) => drop(write!(out, "{}", time.format("%Y-%m-%d"))),
                None => drop(write!(out, "{days} days")),
            }
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            moment(array.as_primitive::<TimestampMillisecondType>().value(index).checked_mul(1000), out);
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            moment(Some(array.as_primitive::<TimestampMicrosecondType>().value(index)), out);
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            moment(Some(array.as_primitive::<TimestampNanosecondType>().value(index).div_euclid(1000)), out);
        }
        DataType::Time32(TimeUnit::Millisecond) => {
            time_of_day(i64::from(array.as_primitive::<Time32MillisecondType>().value(index)) * 1000, out);
        }
        DataType::Time64(TimeUnit::Microsecond) => time_of_day(array.as_primitive::<Time64MicrosecondType>().value(index), out),
        DataType::Time64(TimeUnit::Nanosecond) => {
            time_of_day(array.as_primitive::<Time64NanosecondType>().value(index) / 1000, out);
        }
        _ => {
            let options = FormatOptions::default();
            match ArrayFormatter::try_new(array, &options) {
                Ok(formatter) => drop(write!(out, "{}", formatter.value(index))),
                Err(_) => out.extend_from_slice(b"?"),
            }
        }
    }
}

fn float(nan: bool, infinite: bool, negative: bool, out: &mut Vec<u8>, finite: impl FnOnce(&mut Vec<u8>)) {
    match (nan, infinite, negative) {
        (true, ..) => out.extend_from_slice(b"NaN"),
        (_, true, false) => out.extend_from_slice(b"Infinity"),
        (_, true, true) => out.extend_from_slice(b"-Infinity"),
        _ => finite(out),
    }
}

fn moment(micros: Option<i64>, out: &mut Vec<u8>) {
    match micros.and_then(DateTime::from_timestamp_micros) {
        Some(time) if time.timestamp_subsec_micros() == 0 => drop(write!(out, "{}", time.format("%Y-%m-%dT%H:%M:%SZ"))),
        Some(time) => drop(write!(out, "{}", time.format("%Y-%m-%dT%H:%M:%S%.6fZ"))),
        None => out.extend_from_slice(b"a time beyond the calendar"),
    }
}

fn time_of_day(micros: i64, out: &mut Vec<u8>) {
    let seconds = micros.div_euclid(1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    drop(write!(out, "{hour:02}:{minute:02}:{second:02}"));
    match micros.rem_euclid(1_000_000) {
        0 => {}
        fraction => drop(write!(out, ".{fraction:06}")),
    }
    out.push(b'Z');
}
