//! Builds Arrow columns cell by cell, for Parquet. A cell of another type than its column is an error, never a null.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int16Builder, Int32Builder,
    Int64Builder, ListArray, NullBufferBuilder, StringBuilder, StructArray, TimestampMicrosecondBuilder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};

use super::shape::Shape;
use super::text::{is_null, push_json};
use crate::demo::record::Cell;
use crate::error::{Error, Kind, Result, ResultExt};

/// A column that is being built.
pub(super) enum Column {
    Bool(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder, u8, i8),
    Text(StringBuilder),
    Json(StringBuilder),
    Time(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    Object { fields: Fields, members: Vec<Column>, valid: NullBufferBuilder },
    List { item: FieldRef, items: Box<Column>, offsets: Vec<i32>, valid: NullBufferBuilder },
}

fn field(name: &str, column: &Column) -> FieldRef {
    Arc::new(Field::new(name, column.data_type(), true))
}

fn misfit(wanted: &'static str) -> Error {
    Error::new(Kind::Bug, "The school generated a cell that does not match its schema").with_field("wanted", wanted)
}

impl Column {
    pub(super) fn new(shape: &Shape) -> Self {
        match shape {
            Shape::Bool => Column::Bool(BooleanBuilder::new()),
            Shape::Int16 => Column::Int16(Int16Builder::new()),
            Shape::Int32 => Column::Int32(Int32Builder::new()),
            Shape::Int64 => Column::Int64(Int64Builder::new()),
            Shape::Float32 => Column::Float32(Float32Builder::new()),
            Shape::Float64 => Column::Float64(Float64Builder::new()),
            Shape::Decimal(precision, scale) => {
                let builder = Decimal128Builder::new().with_data_type(DataType::Decimal128(*precision, *scale));
                Column::Decimal(builder, *precision, *scale)
            }
            Shape::Text => Column::Text(StringBuilder::new()),
            Shape::Json => Column::Json(StringBuilder::new()),
            Shape::Time => Column::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            Shape::Date => Column::Date(Date32Builder::new()),
            Shape::Object(shapes) => {
                Column::object(shapes.iter().map(|(name, shape)| (name.as_str(), Column::new(shape))).collect())
            }
            Shape::List(shape) => {
                let items = Column::new(shape);
                let item = field("element", &items);
                Column::List { item, items: Box::new(items), offsets: vec![0], valid: NullBufferBuilder::new(1024) }
            }
        }
    }

    /// A group of columns.
    pub(super) fn object(members: Vec<(&str, Column)>) -> Self {
        let fields = members.iter().map(|(name, column)| field(name, column)).collect();
        let members = members.into_iter().map(|(_, column)| column).collect();
        Column::Object { fields, members, valid: NullBufferBuilder::new(1024) }
    }

    pub(super) fn data_type(&self) -> DataType {
        match self {
            Column::Bool(_) => DataType::Boolean,
            Column::Int16(_) => DataType::Int16,
            Column::Int32(_) => DataType::Int32,
            Column::Int64(_) => DataType::Int64,
            Column::Float32(_) => DataType::Float32,
            Column::Float64(_) => DataType::Float64,
            Column::Decimal(_, precision, scale) => DataType::Decimal128(*precision, *scale),
            Column::Text(_) | Column::Json(_) => DataType::Utf8,
            Column::Time(_) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Column::Date(_) => DataType::Date32,
            Column::Object { fields, .. } => DataType::Struct(fields.clone()),
            Column::List { item, .. } => DataType::List(item.clone()),
        }
    }

    pub(super) fn push_null(&mut self) {
        match self {
            Column::Bool(builder) => builder.append_null(),
            Column::Int16(builder) => builder.append_null(),
            Column::Int32(builder) => builder.append_null(),
            Column::Int64(builder) => builder.append_null(),
            Column::Float32(builder) => builder.append_null(),
            Column::Float64(builder) => builder.append_null(),
            Column::Decimal(builder, ..) => builder.append_null(),
            Column::Text(builder) | Column::Json(builder) => builder.append_null(),
            Column::Time(builder) => builder.append_null(),
            Column::Date(builder) => builder.append_null(),
            Column::Object { members, valid, .. } => {
                members.iter_mut().for_each(Column::push_null);
                valid.append_null();
            }
            Column::List { offsets, valid, .. } => {
                offsets.push(offsets.last().copied().unwrap_or(0));
                valid.append_null();
            }
        }
    }

    /// Appends the cells of a group, in order.
    pub(super) fn push_group<'a>(&mut self, cells: impl IntoIterator<Item = &'a Cell>) -> Result<()> {
        let Column::Object { members, valid, .. } = self else { return Err(misfit("a group")) };
        let mut cells = cells.into_iter();
        for member in members.iter_mut() {
            member.push(cells.next().unwrap_or(&Cell::Null))?;
        }
        valid.append_non_null();
        Ok(())
    }

    pub(super) fn push(&mut self, cell: &Cell) -> Result<()> {
        if is_null(cell) {
            self.push_null();
            return Ok(());
        }
        match (self, cell) {
            (Column::Bool(builder), Cell::Bool(value)) => builder.append_value(*value),
            (Column::Int16(builder), Cell::Int(value)) => {
                builder.append_value(i16::try_from(*value).map_err(|_| misfit("int16"))?);
            }
            (Column::Int32(builder), Cell::Int(value)) => {
                builder.append_value(i32::try_from(*value).map_err(|_| misfit("int32"))?);
            }
            (Column::Int64(builder), Cell::Int(value)) => builder.append_value(*value),
            (Column::Float32(builder), cell) => builder.append_value(number(cell)? as f32),
            (Column::Float64(builder), cell) => builder.append_value(number(cell)?),
            (Column::Decimal(builder, _, scale), Cell::Decimal(unscaled, its)) => {
                // The scale is usually equal. A smaller one is extended; a larger one would lose digits.
                let more = u32::try_from(i32::from(*scale) - i32::from(*its)).map_err(|_| misfit("fewer fraction digits"))?;
                let factor = 10i128.checked_pow(more).ok_or_else(|| misfit("decimal"))?;
                builder.append_value(unscaled.checked_mul(factor).ok_or_else(|| misfit("decimal"))?);
            }
            (Column::Text(builder), Cell::Text(text)) => builder.append_value(text),
            (Column::Time(builder), Cell::Time(time)) => builder.append_value(time.micros()),
            (Column::Date(builder), Cell::Date(days)) => builder.append_value(*days),
            (Column::Object { members, valid, .. }, Cell::Object(cells)) => {
                for (place, member) in members.iter_mut().enumerate() {
                    member.push(cells.get(place).map_or(&Cell::Null, |(_, cell)| cell))?;
                }
                valid.append_non_null();
            }
            (Column::List { items, offsets, valid, .. }, Cell::List(cells)) => {
                cells.iter().try_for_each(|cell| items.push(cell))?;
                let length = i32::try_from(cells.len()).map_err(|_| misfit("a shorter array"))?;
                offsets.push(offsets.last().copied().unwrap_or(0) + length);
                valid.append_non_null();
            }
            (Column::Json(builder), Cell::Text(text)) => builder.append_value(text),
            (Column::Json(builder), cell) => {
                let mut json = Vec::new();
                push_json(&mut json, cell);
                builder.append_value(String::from_utf8_lossy(&json));
            }
            (other, _) => return Err(misfit("another type").with_field("column_type", other.data_type())),
        }
        Ok(())
    }

    /// Takes the array that was built and resets the builder.
    pub(super) fn finish(&mut self) -> Result<ArrayRef> {
        Ok(match self {
            Column::Bool(builder) => Arc::new(builder.finish()),
            Column::Int16(builder) => Arc::new(builder.finish()),
            Column::Int32(builder) => Arc::new(builder.finish()),
            Column::Int64(builder) => Arc::new(builder.finish()),
            Column::Float32(builder) => Arc::new(builder.finish()),
            Column::Float64(builder) => Arc::new(builder.finish()),
            Column::Decimal(builder, ..) => Arc::new(builder.finish()),
            Column::Text(builder) | Column::Json(builder) => Arc::new(builder.finish()),
            Column::Time(builder) => Arc::new(builder.finish()),
            Column::Date(builder) => Arc::new(builder.finish()),
            Column::Object { fields, members, valid } => {
                let length = valid.len();
                let arrays = members.iter_mut().map(Column::finish).collect::<Result<_>>()?;
                let array = StructArray::try_new_with_length(fields.clone(), arrays, valid.finish(), length);
                Arc::new(array.context(Kind::Bug, "Members of a group differ in length")?)
            }
            Column::List { item, items, offsets, valid } => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(offsets, vec![0])));
                let array = ListArray::try_new(item.clone(), offsets, items.finish()?, valid.finish());
                Arc::new(array.context(Kind::Bug, "Items of an array do not match its offsets")?)
            }
        })
    }
}

fn number(cell: &Cell) -> Result<f64> {
    match cell {
        Cell::Float(value) => Ok(*value),
        Cell::Int(value) => Ok(*value as f64),
        Cell::Decimal(unscaled, scale) => Ok(*unscaled as f64 / 10f64.powi(i32::from(*scale))),
        _ => Err(misfit("a number")),
    }
}
