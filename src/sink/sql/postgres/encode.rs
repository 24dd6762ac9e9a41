//! Rows of record batches in the binary form of `COPY`. It checks what the server would refuse, so that the error names the
//! column.

use std::net::IpAddr;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};

use crate::error::{Error, ErrorContext, Kind, Result};
use crate::sink::sql::connection::{CopyColumn, CopyInto};
use crate::sink::sql::texts::{json, time_of_day, without_odd_escapes};

/// From 1970 to 2000, where the server begins to count.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const EPOCH_DAYS: i32 = 10_957;

/// The columns of one batch, in the order of the copy.
pub(super) struct Encoder {
    columns: Vec<(String, Cells)>,
    into: CopyInto,
    batch: RecordBatch,
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
    Text {
        array: StringArray,
        longest: Option<usize>,
        members: Option<Vec<String>>,
    },
    Time(StringArray),
    Uuid(StringArray),
    Inet(StringArray),
    Json(StringArray),
    List {
        array: ListArray,
        items: Box<Cells>,
        item_type: u32,
    },
    /// JSON text of an array, for a native one.
    ListText {
        array: StringArray,
        sql_type: String,
    },
}

impl Encoder {
    /// Kind `Bug` if a column of the batch is not of its type.
    pub(super) fn new(into: &CopyInto, batch: &RecordBatch) -> Result<Self> {
        let columns = into.columns.iter().map(|column| {
            let array = batch.column_by_name(&column.source);
            let array = array.ok_or_else(|| misfit().with_field("column", &column.source))?;
            Ok((column.source.clone(), cells(column, &column.sql_type, array).with_field("column", &column.source)?))
        });
        Ok(Self { columns: columns.collect::<Result<_>>()?, into: into.clone(), batch: batch.clone() })
    }

    /// Appends a row.
    pub(super) fn row(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&(self.columns.len() as i16).to_be_bytes());
        for (name, cells) in &self.columns {
            cells.value(row, out).map_err(|reason| self.into.refuse(&self.batch, row, name, reason))?;
        }
        Ok(())
    }
}

fn misfit() -> Error {
    Error::new(Kind::Bug, "Rows do not have the schema of their table")
}

/// The largest number of characters of `character varying(n)` and `character(n)`.
fn longest(sql_type: &str) -> Option<usize> {
    let (base, length) = sql_type.split_once('(')?;
    base.starts_with("character").then(|| length.trim_end_matches(')').parse().ok())?
}

fn cells(column: &CopyColumn, sql_type: &str, array: &ArrayRef) -> Result<Cells> {
    let data_type = array.data_type();
    let text = || array.as_string_opt::<i32>().cloned().ok_or_else(misfit);
    if let Some(item) = sql_type.strip_suffix("[]") {
        return match array.as_list_opt::<i32>() {
            Some(list) => {
                let items = Box::new(cells(column, item, list.values())?);
                let item_type = type_number(item).ok_or_else(misfit)?;
                Ok(Cells::List { array: list.clone(), items, item_type })
            }
            None => Ok(Cells::ListText { array: text()?, sql_type: item.to_owned() }),
        };
    }
    Ok(match (sql_type, data_type) {
        ("jsonb", DataType::Utf8) => Cells::Json(text()?),
        ("jsonb", _) => Cells::Json(json(array)?),
        ("time without time zone", _) => Cells::Time(text()?),
        ("uuid", _) => Cells::Uuid(text()?),
        ("inet", _) => Cells::Inet(text()?),
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
        (_, DataType::Utf8) => Cells::Text { array: text()?, longest: longest(sql_type), members: column.members.clone() },
        _ => return Err(misfit()),
    })
}

/// The server's numbers of the types that arrays are made of.
fn type_number(sql_type: &str) -> Option<u32> {
    Some(match sql_type.split('(').next().unwrap_or(sql_type) {
        "boolean" => 16,
        "bigint" => 20,
        "smallint" => 21,
        "integer" => 23,
        "text" => 25,
        "real" => 700,
        "double precision" => 701,
        "inet" => 869,
        "character varying" => 1043,
        "date" => 1082,
        "time without time zone" => 1083,
        "timestamp without time zone" => 1114,
        "numeric" => 1700,
        "uuid" => 2950,
        "jsonb" => 3802,
        _ => return None,
    })
}

impl Cells {
    fn is_null(&self, row: usize) -> bool {
        match self {
            Cells::Bool(array) => array.is_null(row),
            Cells::Int16(array) => array.is_null(row),
            Cells::Int32(array) => array.is_null(row),
            Cells::Int64(array) => array.is_null(row),
            Cells::Float32(array) => array.is_null(row),
            Cells::Float64(array) => array.is_null(row),
            Cells::Decimal(array) => array.is_null(row),
            Cells::Timestamp(array) => array.is_null(row),
            Cells::Date(array) => array.is_null(row),
            Cells::List { array, .. } => array.is_null(row),
            Cells::Text { array, .. }
            | Cells::Time(array)
            | Cells::Uuid(array)
            | Cells::Inet(array)
            | Cells::Json(array)
            | Cells::ListText { array, .. } => array.is_null(row),
        }
    }

    /// Appends length and value. An error says why, without the value.
    fn value(&self, row: usize, out: &mut Vec<u8>) -> Result<(), &'static str> {
        if self.is_null(row) {
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            return Ok(());
        }
        let mut fixed = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            Cells::Bool(array) => fixed(&[u8::from(array.value(row))]),
            Cells::Int16(array) => fixed(&array.value(row).to_be_bytes()),
            Cells::Int32(array) => fixed(&array.value(row).to_be_bytes()),
            Cells::Int64(array) => fixed(&array.value(row).to_be_bytes()),
            Cells::Float32(array) => fixed(&array.value(row).to_be_bytes()),
            Cells::Float64(array) => fixed(&array.value(row).to_be_bytes()),
            Cells::Timestamp(array) => {
                let micros = array.value(row).checked_sub(EPOCH_MICROS).ok_or("the time is out of range")?;
                // The server's range; the ends of the number would be its infinities.
                if !(-211_813_488_000_000_000..9_223_371_331_200_000_000).contains(&micros) {
                    return Err("the time is out of range");
                }
                fixed(&micros.to_be_bytes());
            }
            Cells::Date(array) => {
                let days = array.value(row).checked_sub(EPOCH_DAYS).ok_or("the date is out of range")?;
                if !(-2_451_545..2_145_031_949).contains(&days) {
                    return Err("the date is out of range");
                }
                fixed(&days.to_be_bytes());
            }
            Cells::Decimal(array) => fixed(&numeric(array.value(row), array.scale())),
            Cells::Text { array, longest, members } => {
                let text = array.value(row);
                if longest.is_some_and(|longest| text.len() > longest && text.chars().count() > longest) {
                    return Err("the text is longer than the column");
                }
                if members.as_ref().is_some_and(|members| !members.iter().any(|member| member == text)) {
                    return Err("the word is not one of those that the schema announces");
                }
                match text.contains('\0') {
                    false => fixed(text.as_bytes()),
                    true => fixed(without_nul(text).as_bytes()),
                }
            }
            Cells::Time(array) => fixed(&time_of_day(array.value(row)).ok_or("the text is no time of day")?.to_be_bytes()),
            Cells::Uuid(array) => {
                fixed(uuid::Uuid::try_parse(array.value(row)).map_err(|_| "the text is no UUID")?.as_bytes());
            }
            Cells::Inet(array) => match array.value(row).parse().map_err(|_| "the text is no address")? {
                IpAddr::V4(address) => fixed(&[&[2, 32, 0, 4], &address.octets()[..]].concat()),
                IpAddr::V6(address) => fixed(&[&[3, 128, 0, 16], &address.octets()[..]].concat()),
            },
            Cells::Json(array) => {
                let text = without_odd_escapes(array.value(row));
                out.extend_from_slice(&(text.len() as i32 + 1).to_be_bytes());
                out.push(1);
                out.extend_from_slice(text.as_bytes());
            }
            Cells::List { array, items, item_type } => {
                let offsets = array.value_offsets();
                let range = offsets[row] as usize..offsets[row + 1] as usize;
                list(out, *item_type, range.len(), |index, out| items.value(range.start + index, out))?;
            }
            Cells::ListText { array, sql_type } => {
                let parsed: Vec<serde_json::Value> =
                    serde_json::from_str(&without_odd_escapes(array.value(row))).map_err(|_| "the text is no JSON array")?;
                let texts: StringArray = parsed
                    .iter()
                    .map(|item| match item {
                        serde_json::Value::Null => None,
                        serde_json::Value::String(text) => Some(text.clone()),
                        other => Some(other.to_string()),
                    })
                    .collect();
                let kept = items_of_text(sql_type, texts)?;
                let item_type = type_number(sql_type).ok_or("the column has no known type")?;
                list(out, item_type, parsed.len(), |index, out| kept.value(index, out))?;
            }
        }
        Ok(())
    }
}

/// Items of a JSON array by the type of the column.
fn items_of_text(sql_type: &str, texts: StringArray) -> Result<Cells, &'static str> {
    use arrow::compute::{CastOptions, cast_with_options};
    let target = match sql_type {
        "boolean" => DataType::Boolean,
        "smallint" => DataType::Int16,
        "integer" => DataType::Int32,
        "bigint" => DataType::Int64,
        "real" => DataType::Float32,
        "double precision" => DataType::Float64,
        "date" => DataType::Date32,
        "timestamp without time zone" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => DataType::Utf8,
    };
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let array = cast_with_options(&texts, &target, &options).map_err(|_| "an item of the array is not of its type")?;
    let column = CopyColumn { name: String::new(), source: String::new(), sql_type: sql_type.to_owned(), members: None };
    cells(&column, sql_type, &array).map_err(|_| "an item of the array is not of its type")
}

/// A one-dimensional array; the empty one has no dimension.
fn list(
    out: &mut Vec<u8>,
    item_type: u32,
    items: usize,
    mut item: impl FnMut(usize, &mut Vec<u8>) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&i32::from(items > 0).to_be_bytes());
    out.extend_from_slice(&1_i32.to_be_bytes());
    out.extend_from_slice(&item_type.to_be_bytes());
    if items > 0 {
        out.extend_from_slice(&(items as i32).to_be_bytes());
        out.extend_from_slice(&1_i32.to_be_bytes());
    }
    for index in 0..items {
        item(index, out)?;
    }
    let length = (out.len() - start - 4) as i32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// The server's texts cannot hold NUL: its picture takes its place.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{2400}")
}

/// A decimal in groups of four digits.
fn numeric(value: i128, scale: i8) -> Vec<u8> {
    let scale = scale.max(0) as usize;
    let mut digits = value.unsigned_abs().to_string();
    if digits.len() <= scale {
        digits = format!("{}{digits}", "0".repeat(scale + 1 - digits.len()));
    }
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let fraction = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
    let mut weight = (whole.len() / 4) as i16 - 1;
    let all = format!("{whole}{fraction}");
    let mut groups: Vec<i16> =
        all.as_bytes().chunks(4).map(|four| four.iter().fold(0, |sum, digit| sum * 10 + i16::from(digit - b'0'))).collect();
    while groups.first() == Some(&0) {
        groups.remove(0);
        weight -= 1;
    }
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    let sign: u16 = if value < 0 { 0x4000 } else { 0 };
    let mut out = Vec::with_capacity(8 + groups.len() * 2);
    out.extend_from_slice(&(groups.len() as i16).to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&(scale as i16).to_be_bytes());
    groups.iter().for_each(|group| out.extend_from_slice(&group.to_be_bytes()));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_in_groups_of_four_digits() {
        let groups = |value, scale| {
            let bytes = numeric(value, scale);
            let words: Vec<i16> = bytes.chunks(2).map(|two| i16::from_be_bytes([two[0], two[1]])).collect();
            (words[1], words[2], words[3], words[4..].to_vec())
        };
        assert_eq!(groups(0, 2), (0, 0, 2, vec![]));
        assert_eq!(groups(-12_345_678, 3), (1, 0x4000, 3, vec![1, 2345, 6780]));
        assert_eq!(groups(5, 6), (-2, 0, 6, vec![500]));
        assert_eq!(groups(100_000_000, 0), (2, 0, 0, vec![1]));
    }
}
