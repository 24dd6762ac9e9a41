//! Columns under construction: values are read from JSON, from cells of CSV and TSV files, or from Arrow arrays, and become one Arrow array.

mod arrow;
mod boolean;
mod builder;
mod decimal;
mod digits;
mod fixed;
mod names;
mod nested;
mod number;
mod tally;
mod text;
mod time;
mod validity;

use std::sync::Arc;

use ::arrow::array::{ArrayRef, ArrowPrimitiveType, Date32Array, Decimal128Array, PrimitiveArray, TimestampMicrosecondArray};
use ::arrow::datatypes::{Float32Type, Float64Type, Int16Type, Int32Type, Int64Type};

pub(super) use arrow::Source;
pub(super) use builder::Builder;
pub(super) use names::{Found, Names};
pub(super) use tally::{Cell, Tally};
pub(super) use time::timestamp;

use super::fault::{Fault, Read};
use super::json::{Cursor, Token};
use crate::error::{Kind, Result, ResultExt};
use crate::schema::ColumnType;
use boolean::BooleanColumn;
use fixed::Fixed;
use text::TextColumn;

/// The columns of a key or of a group of values, or the members of a nested object.
pub(super) type Object = nested::Object<Column>;
/// A nested object as a column.
type StructColumn = nested::StructColumn<Column>;
/// An array as a column.
type ListColumn = nested::ListColumn<Column>;

/// One column under construction.
#[derive(Debug)]
pub(super) enum Column {
    Boolean(BooleanColumn),
    Int16(Fixed<i16>),
    Int32(Fixed<i32>),
    Int64(Fixed<i64>),
    Float32(Fixed<f32>),
    Float64(Fixed<f64>),
    Decimal {
        values: Fixed<i128>,
        precision: u8,
        scale: u8,
    },
    Timestamp(Fixed<i64>),
    Date(Fixed<i32>),
    /// Text, enums, times of day, IP addresses, JSON.
    Text(TextColumn),
    Uuid(TextColumn),
    Struct(Box<StructColumn>),
    List(Box<ListColumn>),
}

impl Builder for Column {
    fn new(column_type: &ColumnType, path: &str) -> Self {
        match column_type {
            ColumnType::Boolean => Column::Boolean(BooleanColumn::default()),
            ColumnType::Int16 => Column::Int16(Fixed::default()),
            ColumnType::Int32 => Column::Int32(Fixed::default()),
            ColumnType::Int64 => Column::Int64(Fixed::default()),
            ColumnType::Float32 => Column::Float32(Fixed::default()),
            ColumnType::Float64 => Column::Float64(Fixed::default()),
            ColumnType::Decimal { precision, scale } => {
                Column::Decimal { values: Fixed::default(), precision: *precision, scale: scale.unsigned_abs() }
            }
            ColumnType::Timestamp => Column::Timestamp(Fixed::default()),
            ColumnType::Date => Column::Date(Fixed::default()),
            ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Time | ColumnType::Ip { .. } | ColumnType::Json => {
                Column::Text(TextColumn::new())
            }
            ColumnType::Uuid => Column::Uuid(TextColumn::new()),
            ColumnType::Struct(members) => Column::Struct(Box::new(StructColumn::new(members, path))),
            ColumnType::List(item) => Column::List(Box::new(ListColumn::new(item, path))),
        }
    }

    fn reserve(&mut self, rows: usize) {
        match self {
            Column::Boolean(column) => column.reserve(rows),
            Column::Int16(column) => column.reserve(rows),
            Column::Int32(column) | Column::Date(column) => column.reserve(rows),
            Column::Int64(column) | Column::Timestamp(column) => column.reserve(rows),
            Column::Float32(column) => column.reserve(rows),
            Column::Float64(column) => column.reserve(rows),
            Column::Decimal { values, .. } => values.reserve(rows),
            Column::Text(column) | Column::Uuid(column) => column.reserve(rows),
            Column::Struct(column) => column.reserve(rows),
            Column::List(column) => column.reserve(rows),
        }
    }

    #[inline]
    fn json(&mut self, cursor: &mut Cursor<'_>, row: usize, tally: &mut Tally) -> Read<bool> {
        match self {
            Column::Text(column) => column.json(cursor, row, tally)?,
            Column::Int64(column) => column.set(row, json_int(cursor, tally)?),
            Column::Timestamp(column) => {
                let timestamp = match quoted(cursor, time::timestamp_at) {
                    Some(timestamp) => timestamp,
                    None => {
                        let read = json_string(cursor, tally, time::timestamp);
                        let Some((timestamp, cut)) = tally.in_range(read)? else { return Ok(self.nulled(row)) };
                        tally.cut_fractions += u64::from(cut);
                        timestamp
                    }
                };
                column.set(row, timestamp);
            }
            Column::Boolean(column) => match cursor.peek() {
                b't' | b'f' => column.set(row, cursor.bool()?),
                _ => return Err(unlike(cursor, "true or false")),
            },
            Column::Int32(column) => column.set(row, narrow(json_int(cursor, tally)?)?),
            Column::Int16(column) => column.set(row, narrow(json_int(cursor, tally)?)?),
            Column::Float64(column) => match bare(cursor, number::float_at) {
                Some(value) => column.set(row, value),
                None => column.set(row, json_number(cursor, tally, number::float64)?),
            },
            Column::Float32(column) => column.set(row, json_number(cursor, tally, number::float32)?),
            Column::Decimal { values, precision, scale } => {
                let value = match bare(cursor, |bytes, at| decimal::decimal_at(bytes, at, *scale)) {
                    Some(value) => value,
                    None => json_number(cursor, tally, |text| decimal::decimal(text, *precision, *scale))?,
                };
                decimal::check_precision(value, *precision)?;
                values.set(row, value);
            }
            Column::Date(column) => match quoted(cursor, time::date_at) {
                Some(days) => column.set(row, days),
                None => {
                    let read = json_string(cursor, tally, time::date);
                    let Some(days) = tally.in_range(read)? else { return Ok(self.nulled(row)) };
                    column.set(row, days);
                }
            },
            Column::Uuid(column) => {
                let uuid = match quoted(cursor, text::uuid_at) {
                    Some(uuid) => uuid,
                    None => json_string(cursor, tally, text::uuid)?,
                };
                column.put(&uuid, row, tally)?;
            }
            Column::Struct(_) | Column::List(_) => return self.nested_json(cursor, row, tally),
        }
        Ok(true)
    }

    fn leaf(&mut self, path: &[usize], cell: Cell<'_>, row: usize, tally: &mut Tally) -> Read<bool> {
        match self {
            Column::Struct(column) if !path.is_empty() => {
                column.leaf(path, cell, row, tally)?;
                Ok(column.valid.get(row))
            }
            _ => self.cell(cell, row, tally),
        }
    }

    #[inline]
    fn is_set(&self, row: usize) -> bool {
        match self {
            Column::Boolean(column) => column.valid.get(row),
            Column::Int16(column) => column.valid.get(row),
            Column::Int32(column) | Column::Date(column) => column.valid.get(row),
            Column::Int64(column) | Column::Timestamp(column) => column.valid.get(row),
            Column::Float32(column) => column.valid.get(row),
            Column::Float64(column) => column.valid.get(row),
            Column::Decimal { values, .. } => values.valid.get(row),
            Column::Text(column) | Column::Uuid(column) => column.is_set(row),
            Column::Struct(column) => column.valid.get(row),
            Column::List(column) => column.valid.get(row),
        }
    }

    #[inline]
    fn unset(&mut self, row: usize) {
        match self {
            Column::Boolean(column) => column.valid.unset(row),
            Column::Int16(column) => column.valid.unset(row),
            Column::Int32(column) | Column::Date(column) => column.valid.unset(row),
            Column::Int64(column) | Column::Timestamp(column) => column.valid.unset(row),
            Column::Float32(column) => column.valid.unset(row),
            Column::Float64(column) => column.valid.unset(row),
            Column::Decimal { values, .. } => values.valid.unset(row),
            Column::Text(column) | Column::Uuid(column) => column.unset(row),
            Column::Struct(column) => column.unset(row),
            Column::List(column) => column.unset(row),
        }
    }

    fn truncate(&mut self, row: usize) {
        match self {
            Column::Boolean(column) => column.valid.truncate(row),
            Column::Int16(column) => column.valid.truncate(row),
            Column::Int32(column) | Column::Date(column) => column.valid.truncate(row),
            Column::Int64(column) | Column::Timestamp(column) => column.valid.truncate(row),
            Column::Float32(column) => column.valid.truncate(row),
            Column::Float64(column) => column.valid.truncate(row),
            Column::Decimal { values, .. } => values.valid.truncate(row),
            Column::Text(column) | Column::Uuid(column) => column.truncate(row),
            Column::Struct(column) => column.truncate(row),
            Column::List(column) => column.truncate(row),
        }
    }

    fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        Ok(match self {
            Column::Boolean(column) => column.finish(rows),
            Column::Int16(column) => primitive::<Int16Type>(column, rows),
            Column::Int32(column) => primitive::<Int32Type>(column, rows),
            Column::Int64(column) => primitive::<Int64Type>(column, rows),
            Column::Float32(column) => primitive::<Float32Type>(column, rows),
            Column::Float64(column) => primitive::<Float64Type>(column, rows),
            Column::Decimal { values, precision, scale } => {
                let (values, nulls) = values.take(rows);
                let array = Decimal128Array::new(values.into(), nulls);
                Arc::new(
                    array
                        .with_precision_and_scale(*precision, *scale as i8)
                        .context(Kind::Schema, "A decimal column has an impossible precision")?,
                )
            }
            Column::Timestamp(column) => {
                let (values, nulls) = column.take(rows);
                Arc::new(TimestampMicrosecondArray::new(values.into(), nulls).with_timezone("UTC"))
            }
            Column::Date(column) => {
                let (values, nulls) = column.take(rows);
                Arc::new(Date32Array::new(values.into(), nulls))
            }
            Column::Text(column) | Column::Uuid(column) => column.finish(rows)?,
            Column::Struct(column) => column.finish(rows)?,
            Column::List(column) => column.finish(rows)?,
        })
    }
}

impl Column {
    /// The size of a row without its text in bytes, for splitting batches.
    pub(super) fn row_bytes(&self) -> usize {
        match self {
            Column::Boolean(_) => 1,
            Column::Int16(_) => 2,
            Column::Int32(_) | Column::Date(_) | Column::Float32(_) => 4,
            Column::Int64(_) | Column::Timestamp(_) | Column::Float64(_) => 8,
            Column::Decimal { .. } => 16,
            Column::Text(_) | Column::Uuid(_) | Column::List(_) => 4,
            Column::Struct(column) => column.object.columns.iter().map(Column::row_bytes).sum(),
        }
    }

    #[inline(never)]
    fn nested_json(&mut self, cursor: &mut Cursor<'_>, row: usize, tally: &mut Tally) -> Read<bool> {
        match (&mut *self, cursor.token()?) {
            (Column::Struct(column), Token::Object) => column.json(cursor, row, tally),
            (Column::List(column), Token::Array) => column.json(cursor, row, tally).map(|()| true),
            // JSON text in a string, as in CSV and TSV.
            (Column::Struct(_) | Column::List(_), Token::String) => tally.with_scratch(|scratch, tally| {
                cursor.string_into(scratch)?;
                self.json_text(scratch, row, tally)
            }),
            (Column::List(_), _) => Err(unlike(cursor, "an array")),
            _ => Err(unlike(cursor, "an object")),
        }
    }

    /// Reads the JSON text of a nested column.
    fn json_text(&mut self, text: &[u8], row: usize, tally: &mut Tally) -> Read<bool> {
        let mut cursor = Cursor::new(text);
        let some = match (&mut *self, cursor.token()?) {
            (_, Token::Null) => {
                cursor.null()?;
                self.unset(row);
                false
            }
            (Column::Struct(column), Token::Object) => column.json(&mut cursor, row, tally)?,
            (Column::List(column), Token::Array) => {
                column.json(&mut cursor, row, tally)?;
                true
            }
            (Column::List(_), _) => return Err(unlike(&mut cursor, "an array")),
            _ => return Err(unlike(&mut cursor, "an object")),
        };
        cursor.end()?;
        Ok(some)
    }

    /// Reads a cell in its usual notation at `at` of a record without searching for its end first, and returns its end. Returns `None` if the
    /// notation is a different one. Then [`Column::cell`] must be called, which replaces any value already stored.
    #[inline]
    pub(super) fn direct(&mut self, record: &[u8], at: usize, separator: u8, row: usize, tally: &mut Tally) -> Option<usize> {
        let end = match self {
            Column::Int64(column) => {
                let (value, end) = number::int_at(record, at)?;
                column.set(row, value);
                end
            }
            Column::Timestamp(column) => {
                let (timestamp, end) = time::timestamp_at(record, at)?;
                column.set(row, timestamp);
                end
            }
            Column::Boolean(column) => {
                let (value, end) = boolean::boolean_at(record, at)?;
                column.set(row, value);
                end
            }
            Column::Int32(column) => {
                let (value, end) = number::int_at(record, at)?;
                column.set(row, value.try_into().ok()?);
                end
            }
            Column::Int16(column) => {
                let (value, end) = number::int_at(record, at)?;
                column.set(row, value.try_into().ok()?);
                end
            }
            Column::Float64(column) => {
                let (value, end) = number::float_at(record, at)?;
                column.set(row, value);
                end
            }
            Column::Decimal { values, precision, scale } => {
                let (value, end) = decimal::decimal_at(record, at, *scale)?;
                decimal::check_precision(value, *precision).ok()?;
                values.set(row, value);
                end
            }
            Column::Date(column) => {
                let (days, end) = time::date_at(record, at)?;
                column.set(row, days);
                end
            }
            Column::Uuid(column) => {
                let (uuid, end) = text::uuid_at(record, at)?;
                column.put(&uuid, row, tally).ok()?;
                end
            }
            Column::Float32(_) | Column::Text(_) | Column::Struct(_) | Column::List(_) => return None,
        };
        match record.get(end) {
            Some(byte) if *byte != separator => None,
            _ => Some(end),
        }
    }

    /// Reads a cell that is not null. Returns `false` if the value still counts as null.
    #[inline]
    pub(super) fn cell(&mut self, cell: Cell<'_>, row: usize, tally: &mut Tally) -> Read<bool> {
        match self {
            Column::Text(column) => column.cell(cell, row, tally)?,
            Column::Int64(column) => column.set(row, cell.read(tally, |text, _| number::int(text))?),
            Column::Timestamp(column) => {
                let read = cell.read(tally, |text, _| time::timestamp(text));
                let Some((timestamp, cut)) = tally.in_range(read)? else { return Ok(self.nulled(row)) };
                tally.cut_fractions += u64::from(cut);
                column.set(row, timestamp);
            }
            Column::Boolean(column) => column.set(row, cell.read(tally, |text, _| boolean::boolean(text))?),
            Column::Int32(column) => column.set(row, narrow(cell.read(tally, |text, _| number::int(text))?)?),
            Column::Int16(column) => column.set(row, narrow(cell.read(tally, |text, _| number::int(text))?)?),
            Column::Float64(column) => column.set(row, cell.read(tally, |text, _| number::float64(text))?),
            Column::Float32(column) => column.set(row, cell.read(tally, |text, _| number::float32(text))?),
            Column::Decimal { values, precision, scale } => {
                values.set(row, cell.read(tally, |text, _| decimal::decimal(text, *precision, *scale))?);
            }
            Column::Date(column) => {
                let read = cell.read(tally, |text, _| time::date(text));
                let Some(days) = tally.in_range(read)? else { return Ok(self.nulled(row)) };
                column.set(row, days);
            }
            Column::Uuid(column) => {
                let uuid = cell.read(tally, |text, _| text::uuid(text))?;
                column.put(&uuid, row, tally)?;
            }
            Column::Struct(_) | Column::List(_) => {
                return cell.read(tally, |text, tally| self.json_text(text, row, tally));
            }
        }
        Ok(true)
    }

    /// Makes the row null and returns `false`, as methods that read values do for null.
    #[cold]
    fn nulled(&mut self, row: usize) -> bool {
        self.unset(row);
        false
    }

    /// The value of a row as text, for the types of keys.
    pub(super) fn text(&self, row: usize) -> Option<String> {
        match self {
            _ if !self.is_set(row) => None,
            Column::Int16(column) => column.values.get(row).map(i16::to_string),
            Column::Int32(column) => column.values.get(row).map(i32::to_string),
            Column::Int64(column) => column.values.get(row).map(i64::to_string),
            Column::Text(column) | Column::Uuid(column) => column.text(row).map(str::to_owned),
            _ => None,
        }
    }
}

fn primitive<T: ArrowPrimitiveType>(column: &mut Fixed<T::Native>, rows: usize) -> ArrayRef {
    let (values, nulls) = column.take(rows);
    Arc::new(PrimitiveArray::<T>::new(values.into(), nulls))
}

fn narrow<T: TryFrom<i64>>(value: i64) -> Read<T> {
    T::try_from(value).map_err(|_| Fault::new("an integer beyond the range of the column"))
}

/// The integer at the cursor, by the fast path if possible.
#[inline(always)]
fn json_int(cursor: &mut Cursor<'_>, tally: &mut Tally) -> Read<i64> {
    match bare(cursor, number::int_at) {
        Some(value) => Ok(value),
        None => json_number(cursor, tally, number::int),
    }
}

/// The number at the cursor, if `read` consumes it completely.
#[inline(always)]
fn bare<T>(cursor: &mut Cursor<'_>, read: impl FnOnce(&[u8], usize) -> Option<(T, usize)>) -> Option<T> {
    let (value, end) = read(cursor.bytes, cursor.at)?;
    if matches!(cursor.bytes.get(end), Some(b'.' | b'e' | b'E' | b'0'..=b'9')) || cursor.peek() == b'+' {
        return None;
    }
    cursor.at = end;
    Some(value)
}

/// The content of the string at the cursor, if `read` consumes it completely.
#[inline(always)]
fn quoted<T>(cursor: &mut Cursor<'_>, read: impl FnOnce(&[u8], usize) -> Option<(T, usize)>) -> Option<T> {
    if cursor.peek() != b'"' {
        return None;
    }
    let (value, end) = read(cursor.bytes, cursor.at + 1)?;
    if cursor.bytes.get(end) != Some(&b'"') {
        return None;
    }
    cursor.at = end + 1;
    Some(value)
}

/// The number at the cursor. It may be in a string, as `NaN` must be and exact decimals may be.
#[inline]
fn json_number<T>(cursor: &mut Cursor<'_>, tally: &mut Tally, parse: impl FnOnce(&[u8]) -> Read<T>) -> Read<T> {
    match cursor.peek() {
        b'-' | b'0'..=b'9' => parse(cursor.number()?),
        b'"' => json_string(cursor, tally, parse),
        _ => Err(unlike(cursor, "a number")),
    }
}

/// Parses the content of the string at the cursor.
#[inline]
fn json_string<T>(cursor: &mut Cursor<'_>, tally: &mut Tally, parse: impl FnOnce(&[u8]) -> Read<T>) -> Read<T> {
    if cursor.peek() != b'"' {
        return Err(unlike(cursor, "a string"));
    }
    match cursor.plain_string()? {
        Some(text) => parse(text),
        None => tally.with_scratch(|scratch, _| {
            cursor.string_into(scratch)?;
            parse(scratch)
        }),
    }
}

/// The fault of a JSON value of another kind, or of invalid JSON.
#[cold]
fn unlike(cursor: &mut Cursor<'_>, wanted: &str) -> Fault {
    match cursor.token() {
        Ok(token) => Fault::new(format!("{} where {wanted} should be", token.name())),
        Err(fault) => fault,
    }
}
