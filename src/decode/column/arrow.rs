//! Copies values from Arrow arrays, as the Parquet reader returns them. Values of a matching type are copied directly. All others are converted to
//! text and read like a cell, so that the same values fit in every format.

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, FixedSizeBinaryArray, ListArray, PrimitiveArray, StringArray, StructArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type,
};

use super::super::fault::{Fault, Read};
use super::super::render;
use super::nested::ITEM_BYTES;
use super::tally::{Cell, Tally};
use super::{Column, ListColumn, StructColumn, decimal, narrow, text, time};
use crate::schema::ELEMENT;

/// A downcast array, with its children paired with the members of the destination column.
#[derive(Debug)]
pub(in crate::decode) enum Source<'a> {
    Boolean(&'a BooleanArray),
    Int8(&'a PrimitiveArray<Int8Type>),
    Int16(&'a PrimitiveArray<Int16Type>),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    UInt8(&'a PrimitiveArray<UInt8Type>),
    UInt16(&'a PrimitiveArray<UInt16Type>),
    UInt32(&'a PrimitiveArray<UInt32Type>),
    Float32(&'a PrimitiveArray<Float32Type>),
    Float64(&'a PrimitiveArray<Float64Type>),
    Decimal(&'a PrimitiveArray<Decimal128Type>, i8),
    Millis(&'a PrimitiveArray<TimestampMillisecondType>),
    Micros(&'a PrimitiveArray<TimestampMicrosecondType>),
    Nanos(&'a PrimitiveArray<TimestampNanosecondType>),
    Date(&'a PrimitiveArray<Date32Type>),
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
    Fixed(&'a FixedSizeBinaryArray),
    /// With the number of the column's member for each known child.
    Struct(&'a StructArray, Vec<(usize, Source<'a>)>),
    List(&'a ListArray, Box<Source<'a>>),
    /// A column without any value.
    Null,
    Other(&'a dyn Array),
}

impl<'a> Source<'a> {
    /// Downcasts an array. `column` is the destination; `path` is the prefix for names of unknown members.
    pub(in crate::decode) fn new(array: &'a dyn Array, column: Option<&Column>, path: &str, tally: &mut Tally) -> Self {
        match (array.data_type(), column) {
            (DataType::Null, _) => Source::Null,
            (DataType::Boolean, _) => Source::Boolean(array.as_boolean()),
            (DataType::Int8, _) => Source::Int8(array.as_primitive()),
            (DataType::Int16, _) => Source::Int16(array.as_primitive()),
            (DataType::Int32, _) => Source::Int32(array.as_primitive()),
            (DataType::Int64, _) => Source::Int64(array.as_primitive()),
            (DataType::UInt8, _) => Source::UInt8(array.as_primitive()),
            (DataType::UInt16, _) => Source::UInt16(array.as_primitive()),
            (DataType::UInt32, _) => Source::UInt32(array.as_primitive()),
            (DataType::Float32, _) => Source::Float32(array.as_primitive()),
            (DataType::Float64, _) => Source::Float64(array.as_primitive()),
            (DataType::Decimal128(_, scale), _) => Source::Decimal(array.as_primitive(), *scale),
            (DataType::Timestamp(TimeUnit::Millisecond, _), _) => Source::Millis(array.as_primitive()),
            (DataType::Timestamp(TimeUnit::Microsecond, _), _) => Source::Micros(array.as_primitive()),
            (DataType::Timestamp(TimeUnit::Nanosecond, _), _) => Source::Nanos(array.as_primitive()),
            (DataType::Date32, _) => Source::Date(array.as_primitive()),
            (DataType::Utf8, _) => Source::Text(array.as_string()),
            (DataType::Binary, _) => Source::Binary(array.as_binary()),
            (DataType::FixedSizeBinary(_), _) => Source::Fixed(array.as_fixed_size_binary()),
            (DataType::Struct(fields), Some(Column::Struct(column))) => {
                let array = array.as_struct();
                let mut members = Vec::with_capacity(fields.len());
                for (field, values) in fields.iter().zip(array.columns()) {
                    let path = format!("{path}.{}", field.name());
                    match column.object.names.find(field.name().as_bytes()) {
                        Some(number) => {
                            members.push((number, Source::new(values, column.object.columns.get(number), &path, tally)));
                        }
                        None => tally.unknown_column(path),
                    }
                }
                Source::Struct(array, members)
            }
            (DataType::List(_), Some(Column::List(column))) => {
                let list = array.as_list();
                let items = Source::new(list.values(), Some(&column.item), &format!("{path}.{ELEMENT}"), tally);
                Source::List(list, Box::new(items))
            }
            _ => Source::Other(array),
        }
    }

    /// `None` for a column without any value.
    fn array(&self) -> Option<&dyn Array> {
        Some(match self {
            Source::Null => return None,
            Source::Boolean(array) => *array,
            Source::Int8(array) => *array,
            Source::Int16(array) => *array,
            Source::Int32(array) => *array,
            Source::Int64(array) => *array,
            Source::UInt8(array) => *array,
            Source::UInt16(array) => *array,
            Source::UInt32(array) => *array,
            Source::Float32(array) => *array,
            Source::Float64(array) => *array,
            Source::Decimal(array, _) => *array,
            Source::Millis(array) => *array,
            Source::Micros(array) => *array,
            Source::Nanos(array) => *array,
            Source::Date(array) => *array,
            Source::Text(array) => *array,
            Source::Binary(array) => *array,
            Source::Fixed(array) => *array,
            Source::Struct(array, _) => *array,
            Source::List(array, _) => *array,
            Source::Other(array) => *array,
        })
    }

    #[inline]
    pub(in crate::decode) fn is_null(&self, index: usize) -> bool {
        match self {
            Source::Int64(array) => array.is_null(index),
            Source::Text(array) => array.is_null(index),
            other => other.array().is_none_or(|array| array.is_null(index)),
        }
    }

    /// The value as an integer, if the type is an integer type.
    #[inline]
    fn int(&self, index: usize) -> Option<i64> {
        Some(match self {
            Source::Int64(array) => array.value(index),
            Source::Int32(array) => array.value(index).into(),
            Source::Int16(array) => array.value(index).into(),
            Source::Int8(array) => array.value(index).into(),
            Source::UInt32(array) => array.value(index).into(),
            Source::UInt16(array) => array.value(index).into(),
            Source::UInt8(array) => array.value(index).into(),
            _ => return None,
        })
    }

    /// The value as microseconds, and whether it was truncated; `None` if the type is not a timestamp or text.
    #[inline]
    pub(in crate::decode) fn moment(&self, index: usize) -> Option<Read<time::Moment>> {
        let (moment, cut) = match self {
            Source::Micros(array) => (Some(array.value(index)), false),
            Source::Millis(array) => (array.value(index).checked_mul(1000), false),
            Source::Nanos(array) => (Some(array.value(index).div_euclid(1000)), array.value(index) % 1000 != 0),
            Source::Text(array) => return Some(time::timestamp(array.value(index).as_bytes())),
            _ => return None,
        };
        let moment = moment.unwrap_or(i64::MAX);
        Some(time::check_range(moment).map(|()| (moment, cut)))
    }

    /// The value as text, if it is not null.
    pub(in crate::decode) fn text(&self, index: usize) -> Option<&[u8]> {
        match self {
            Source::Text(array) if array.is_valid(index) => Some(array.value(index).as_bytes()),
            Source::Binary(array) if array.is_valid(index) => Some(array.value(index)),
            _ => None,
        }
    }
}

impl Column {
    /// The column at a path of member numbers.
    pub(in crate::decode) fn leaf_column(&self, way: &[usize]) -> Option<&Column> {
        match (self, way) {
            (column, []) => Some(column),
            (Column::Struct(column), [number, rest @ ..]) => column.object.columns.get(*number)?.leaf_column(rest),
            _ => None,
        }
    }

    /// Copies the value of `source` at `index`. Returns `false` if it is null or counts as null.
    pub(in crate::decode) fn put(&mut self, source: &Source<'_>, index: usize, row: usize, tally: &mut Tally) -> Read<bool> {
        if source.is_null(index) {
            return Ok(false);
        }
        match (&mut *self, source) {
            (Column::Text(column), Source::Text(array)) => column.put(array.value(index).as_bytes(), row, tally)?,
            (Column::Text(column), Source::Binary(array)) => {
                let bytes = array.value(index);
                std::str::from_utf8(bytes).map_err(|_| Fault::new("not UTF-8"))?;
                column.put(bytes, row, tally)?;
            }
            (Column::Boolean(column), Source::Boolean(array)) => column.set(row, array.value(index)),
            (Column::Float64(column), Source::Float64(array)) => column.set(row, array.value(index)),
            (Column::Float64(column), Source::Float32(array)) => column.set(row, array.value(index).into()),
            (Column::Float32(column), Source::Float32(array)) => column.set(row, array.value(index)),
            (Column::Date(column), Source::Date(array)) => {
                let Some(days) = tally.in_range(time::check_day_range(array.value(index).into()))? else { return Ok(false) };
                column.set(row, days);
            }
            (Column::Decimal { values, precision, scale }, Source::Decimal(array, from)) if *from == *scale as i8 => {
                decimal::check_precision(array.value(index), *precision)?;
                values.set(row, array.value(index));
            }
            (Column::Uuid(column), Source::Fixed(array)) if array.value_length() == 16 => {
                column.put(&uuid_of_bytes(array.value(index)), row, tally)?;
            }
            (Column::Uuid(column), Source::Binary(array)) if array.value_length(index) == 16 => {
                column.put(&uuid_of_bytes(array.value(index)), row, tally)?;
            }
            (Column::Struct(column), Source::Struct(_, members)) => return put_struct(column, members, index, row, tally),
            (Column::List(column), Source::List(list, items)) => {
                let offsets = list.value_offsets();
                let range = offsets[index] as usize..offsets[index + 1] as usize;
                put_list(column, items, range, row, tally)?;
            }
            (Column::Timestamp(column), source) => match source.moment(index) {
                Some(moment) => {
                    let Some((moment, cut)) = tally.in_range(moment)? else { return Ok(false) };
                    tally.cut_fractions += u64::from(cut);
                    column.set(row, moment);
                }
                None => return self.put_as_text(source, index, row, tally),
            },
            (Column::Int64(_) | Column::Int32(_) | Column::Int16(_) | Column::Float64(_), source) => match source.int(index) {
                Some(value) => self.put_int(value, row)?,
                None => return self.put_as_text(source, index, row, tally),
            },
            (_, source) => return self.put_as_text(source, index, row, tally),
        }
        Ok(true)
    }

    /// Copies the value of a member at `path`; an empty path is the column itself.
    pub(in crate::decode) fn put_leaf(
        &mut self,
        path: &[usize],
        source: &Source<'_>,
        index: usize,
        row: usize,
        tally: &mut Tally,
    ) -> Read<bool> {
        match (&mut *self, path) {
            (Column::Struct(column), [number, rest @ ..]) => {
                match column.object.columns[*number].put_leaf(rest, source, index, row, tally) {
                    Ok(some) => {
                        if some {
                            column.valid.set(row);
                        }
                        Ok(some)
                    }
                    Err(fault) => Err(fault.inside(column.object.label(*number))),
                }
            }
            _ => self.put(source, index, row, tally),
        }
    }

    fn put_int(&mut self, value: i64, row: usize) -> Read<()> {
        match self {
            Column::Int64(column) => column.set(row, value),
            Column::Int32(column) => column.set(row, narrow(value)?),
            Column::Int16(column) => column.set(row, narrow(value)?),
            Column::Float64(column) => {
                let float = value as f64;
                // 2^63 would be converted back to 2^63 - 1.
                if float as i64 != value || value == i64::MAX {
                    return Err(Fault::new("an integer that a float cannot hold"));
                }
                column.set(row, float);
            }
            _ => return Err(Fault::new("an integer where none should be")),
        }
        Ok(())
    }

    /// Converts the value to the notation of the text formats and reads that.
    #[inline(never)]
    fn put_as_text(&mut self, source: &Source<'_>, index: usize, row: usize, tally: &mut Tally) -> Read<bool> {
        let Some(array) = source.array() else { return Ok(false) };
        tally.with_scratch(|scratch, tally| {
            match (source, array.data_type()) {
                (Source::Text(array), _) => scratch.extend_from_slice(array.value(index).as_bytes()),
                (Source::Binary(array), _) => {
                    std::str::from_utf8(array.value(index)).map_err(|_| Fault::new("not UTF-8"))?;
                    scratch.extend_from_slice(array.value(index));
                }
                (_, DataType::Struct(_) | DataType::List(_)) => render::json(array, index, None, scratch),
                _ => render::text(array, index, scratch),
            }
            self.cell(Cell::Plain(scratch), row, tally)
        })
    }
}

fn put_struct(
    column: &mut StructColumn,
    members: &[(usize, Source<'_>)],
    index: usize,
    row: usize,
    tally: &mut Tally,
) -> Read<bool> {
    let mut any = false;
    for (number, source) in members {
        match column.object.columns[*number].put(source, index, row, tally) {
            Ok(some) => any |= some,
            Err(fault) => return Err(fault.inside(column.object.label(*number))),
        }
    }
    if any {
        column.valid.set(row);
    }
    Ok(any)
}

fn put_list(
    column: &mut ListColumn,
    items: &Source<'_>,
    range: std::ops::Range<usize>,
    row: usize,
    tally: &mut Tally,
) -> Read<()> {
    let mut place = column.begin(row);
    for index in range {
        column.room(place);
        column.item.put(items, index, place, tally).map_err(|fault| fault.inside(ELEMENT))?;
        place += 1;
        tally.bytes += ITEM_BYTES;
    }
    column.commit(row, place)
}

/// The text of a UUID in sixteen bytes.
fn uuid_of_bytes(bytes: &[u8]) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    // 32 hexadecimal digits are always a UUID.
    text::uuid(&digits).unwrap_or([b'0'; 36])
}
