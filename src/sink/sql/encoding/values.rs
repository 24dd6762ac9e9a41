//! A column of a record batch by its Arrow type, as the encoders of all databases start from it.

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array,
    Int64Array, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};

use super::json_text::json;
use crate::error::Result;

/// An array by its type. Whether a value is null is known before it is asked for.
#[derive(Debug)]
pub(in crate::sink::sql) enum Values {
    Bool(BooleanArray),
    Int16(Int16Array),
    Int32(Int32Array),
    Int64(Int64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Decimal(Decimal128Array),
    /// Microseconds since 1970.
    Timestamp(TimestampMicrosecondArray),
    /// Days since 1970.
    Date(Date32Array),
    /// Strings; nested values as JSON.
    Text(StringArray),
}

impl Values {
    /// The values of an array. `None`: no column of a table has its type.
    pub(in crate::sink::sql) fn of(array: &ArrayRef) -> Result<Option<Self>> {
        Ok(Some(match array.data_type() {
            DataType::Boolean => Values::Bool(array.as_boolean().clone()),
            DataType::Int16 => Values::Int16(array.as_primitive::<Int16Type>().clone()),
            DataType::Int32 => Values::Int32(array.as_primitive::<Int32Type>().clone()),
            DataType::Int64 => Values::Int64(array.as_primitive::<Int64Type>().clone()),
            DataType::Float32 => Values::Float32(array.as_primitive::<Float32Type>().clone()),
            DataType::Float64 => Values::Float64(array.as_primitive::<Float64Type>().clone()),
            DataType::Decimal128(_, _) => Values::Decimal(array.as_primitive::<Decimal128Type>().clone()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Values::Timestamp(array.as_primitive::<TimestampMicrosecondType>().clone())
            }
            DataType::Date32 => Values::Date(array.as_primitive::<Date32Type>().clone()),
            DataType::Utf8 => Values::Text(array.as_string::<i32>().clone()),
            DataType::Struct(_) | DataType::List(_) => Values::Text(json(array)?),
            _ => return Ok(None),
        }))
    }

    /// The strings, if these are strings or nested values.
    pub(in crate::sink::sql) fn into_text(self) -> Option<StringArray> {
        if let Values::Text(array) = self { Some(array) } else { None }
    }
}
