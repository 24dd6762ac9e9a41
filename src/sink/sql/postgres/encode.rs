//! Rows of record batches in the binary format of `COPY`. Values that the server would refuse are refused here, so that the error names
//! column and key.

use std::net::IpAddr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, TimeUnit};

use super::types::SqlType;
use crate::error::Result;
use crate::sink::sql::connection::{BoundColumn, CopyPlan, mismatch};
use crate::sink::sql::encoding::{Values, replace_refused_escapes, time_of_day};

/// From 1970 to 2000, the server's epoch.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const EPOCH_DAYS: i32 = 10_957;

/// The columns of one batch, in the order of the copy.
pub(super) struct Encoder {
    columns: Vec<BoundColumn<Cells>>,
    plan: Arc<CopyPlan<SqlType>>,
    batch: RecordBatch,
}

enum Cells {
    /// The value of the record batch.
    Plain(Values),
    /// Strings, with the most characters that the column can hold.
    Text(StringArray, Option<usize>),
    Time(StringArray),
    Uuid(StringArray),
    Inet(StringArray),
    Json(StringArray),
    List {
        array: ListArray,
        items: Box<BoundColumn<Cells>>,
        item_type: u32,
    },
    /// JSON text of an array, for an array column.
    ListText {
        array: StringArray,
        item_type: SqlType,
    },
}

impl Encoder {
    /// Kind `Bug` if a column of the batch does not have its type.
    pub(super) fn new(plan: &Arc<CopyPlan<SqlType>>, batch: &RecordBatch) -> Result<Self> {
        Ok(Self { columns: plan.bind(batch, cells)?, plan: Arc::clone(plan), batch: batch.clone() })
    }

    /// Appends a row.
    pub(super) fn row(&self, row: usize, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&(self.columns.len() as i16).to_be_bytes());
        for (index, column) in self.columns.iter().enumerate() {
            column.write(row, out).map_err(|reason| {
                let target = &self.plan.target;
                target.refuse(&self.batch, row, &target.columns[index].source, reason)
            })?;
        }
        Ok(())
    }
}

fn cells(sql_type: &SqlType, array: &ArrayRef) -> Result<Cells> {
    let text = || array.as_string_opt::<i32>().cloned().ok_or_else(mismatch);
    if let Some(item) = sql_type.item() {
        let Some(list) = array.as_list_opt::<i32>() else {
            return Ok(Cells::ListText { array: text()?, item_type: item.clone() });
        };
        let items = Box::new(BoundColumn::new(list.values(), cells(item, list.values())?));
        let item_type = item.oid().ok_or_else(mismatch)?;
        return Ok(Cells::List { array: list.clone(), items, item_type });
    }
    Ok(match sql_type {
        SqlType::Jsonb => Cells::Json(Values::of(array)?.and_then(Values::into_text).ok_or_else(mismatch)?),
        SqlType::Time => Cells::Time(text()?),
        SqlType::Uuid => Cells::Uuid(text()?),
        SqlType::Inet => Cells::Inet(text()?),
        _ if *array.data_type() == DataType::Utf8 => Cells::Text(text()?, sql_type.longest()),
        // Nested values belong into `jsonb` and arrays only.
        _ if array.data_type().is_nested() => return Err(mismatch()),
        _ => Cells::Plain(Values::of(array)?.ok_or_else(mismatch)?),
    })
}

impl BoundColumn<Cells> {
    /// Appends length and value. An error is the reason for a refusal, without the value.
    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), &'static str> {
        if self.is_null(row) {
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            return Ok(());
        }
        self.cells.write(row, out)
    }
}

impl Cells {
    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let mut fixed = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        match self {
            Cells::Plain(values) => match values {
                Values::Bool(array) => fixed(&[u8::from(array.value(row))]),
                Values::Int16(array) => fixed(&array.value(row).to_be_bytes()),
                Values::Int32(array) => fixed(&array.value(row).to_be_bytes()),
                Values::Int64(array) => fixed(&array.value(row).to_be_bytes()),
                Values::Float32(array) => fixed(&array.value(row).to_be_bytes()),
                Values::Float64(array) => fixed(&array.value(row).to_be_bytes()),
                Values::Decimal(array) => fixed(&numeric(array.value(row), array.scale())),
                Values::Timestamp(array) => {
                    let micros = array.value(row).checked_sub(EPOCH_MICROS).ok_or("the timestamp is out of range")?;
                    // The server's range; the ends of the integer would be its infinities.
                    if !(-211_813_488_000_000_000..9_223_371_331_200_000_000).contains(&micros) {
                        return Err("the timestamp is out of range");
                    }
                    fixed(&micros.to_be_bytes());
                }
                Values::Date(array) => {
                    let days = array.value(row).checked_sub(EPOCH_DAYS).ok_or("the date is out of range")?;
                    if !(-2_451_545..2_145_031_949).contains(&days) {
                        return Err("the date is out of range");
                    }
                    fixed(&days.to_be_bytes());
                }
                Values::Text(array) => fixed(array.value(row).as_bytes()),
            },
            Cells::Text(array, longest) => {
                let text = array.value(row);
                if longest.is_some_and(|longest| text.len() > longest && text.chars().count() > longest) {
                    return Err("the string is longer than the column");
                }
                if text.contains('\0') {
                    fixed(without_nul(text).as_bytes());
                } else {
                    fixed(text.as_bytes());
                }
            }
            Cells::Time(array) => {
                fixed(&time_of_day(array.value(row)).ok_or("the string is not a time of day")?.to_be_bytes());
            }
            Cells::Uuid(array) => {
                fixed(uuid::Uuid::try_parse(array.value(row)).map_err(|_| "the string is not a UUID")?.as_bytes());
            }
            Cells::Inet(array) => match array.value(row).parse().map_err(|_| "the string is not an IP address")? {
                IpAddr::V4(address) => fixed(&[&[2, 32, 0, 4], &address.octets()[..]].concat()),
                IpAddr::V6(address) => fixed(&[&[3, 128, 0, 16], &address.octets()[..]].concat()),
            },
            Cells::Json(array) => {
                let text = replace_refused_escapes(array.value(row));
                out.extend_from_slice(&(text.len() as i32 + 1).to_be_bytes());
                out.push(1);
                out.extend_from_slice(text.as_bytes());
            }
            Cells::List { array, items, item_type } => {
                let offsets = array.value_offsets();
                let range = offsets[row] as usize..offsets[row + 1] as usize;
                list(out, *item_type, range.len(), |index, out| items.write(range.start + index, out))?;
            }
            Cells::ListText { array, item_type } => {
                let parsed: Vec<serde_json::Value> = serde_json::from_str(&replace_refused_escapes(array.value(row)))
                    .map_err(|_| "the string is not a JSON array")?;
                let texts: StringArray = parsed
                    .iter()
                    .map(|item| match item {
                        serde_json::Value::Null => None,
                        serde_json::Value::String(text) => Some(text.clone()),
                        other => Some(other.to_string()),
                    })
                    .collect();
                let items = items_of_text(item_type, texts)?;
                let item_type = item_type.oid().ok_or("the items of the column have an unknown type")?;
                list(out, item_type, parsed.len(), |index, out| items.write(index, out))?;
            }
        }
        Ok(())
    }
}

/// The items of a JSON array, converted to the type of the column's items.
fn items_of_text(item_type: &SqlType, texts: StringArray) -> Result<BoundColumn<Cells>, &'static str> {
    use arrow::compute::{CastOptions, cast_with_options};
    let target = match item_type {
        SqlType::Boolean => DataType::Boolean,
        SqlType::Smallint => DataType::Int16,
        SqlType::Integer => DataType::Int32,
        SqlType::Bigint => DataType::Int64,
        SqlType::Real => DataType::Float32,
        SqlType::Double => DataType::Float64,
        SqlType::Date => DataType::Date32,
        SqlType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => DataType::Utf8,
    };
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let mismatch = "an item of the array does not have its type";
    let array = cast_with_options(&texts, &target, &options).map_err(|_| mismatch)?;
    let cells = cells(item_type, &array).map_err(|_| mismatch)?;
    Ok(BoundColumn::new(&array, cells))
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

/// The string with U+2400 in place of NUL, which the server's strings cannot contain.
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
            let shorts: Vec<i16> = bytes.chunks(2).map(|two| i16::from_be_bytes([two[0], two[1]])).collect();
            (shorts[1], shorts[2], shorts[3], shorts[4..].to_vec())
        };
        assert_eq!(groups(0, 2), (0, 0, 2, vec![]));
        assert_eq!(groups(-12_345_678, 3), (1, 0x4000, 3, vec![1, 2345, 6780]));
        assert_eq!(groups(5, 6), (-2, 0, 6, vec![500]));
        assert_eq!(groups(100_000_000, 0), (2, 0, 0, vec![1]));
    }
}
