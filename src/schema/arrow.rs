//! Arrow schemas of change batches and of lake tables.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use super::change_columns::{ACTION, SEQ, TS};
use super::{Column, ColumnType, TableSchema};

/// The name of the items of a list, as in Delta Lake and Spark.
pub const ELEMENT: &str = "element";
/// The metadata key of a description, as in Spark.
const COMMENT: &str = "comment";

/// How nested columns are represented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nested {
    /// As Arrow structs and lists.
    #[default]
    Typed,
    /// As JSON text.
    Json,
}

/// The Arrow type of a column. All members of nested types are nullable.
pub fn arrow_type(column_type: &ColumnType, nested: Nested) -> DataType {
    match column_type {
        ColumnType::Boolean => DataType::Boolean,
        ColumnType::Int16 => DataType::Int16,
        ColumnType::Int32 => DataType::Int32,
        ColumnType::Int64 => DataType::Int64,
        ColumnType::Float32 => DataType::Float32,
        ColumnType::Float64 => DataType::Float64,
        ColumnType::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
        ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ColumnType::Date => DataType::Date32,
        ColumnType::Text { .. }
        | ColumnType::Enum { .. }
        | ColumnType::Time
        | ColumnType::Uuid
        | ColumnType::Ip { .. }
        | ColumnType::Json => DataType::Utf8,
        ColumnType::Struct(_) | ColumnType::List(_) if nested == Nested::Json => DataType::Utf8,
        ColumnType::Struct(members) => DataType::Struct(members.iter().map(member_field).collect::<Fields>()),
        ColumnType::List(item) => DataType::List(Arc::new(Field::new(ELEMENT, arrow_type(item, nested), true))),
    }
}

fn member_field(member: &Column) -> Field {
    Field::new(&member.name, arrow_type(&member.column_type, Nested::Typed), true)
}

/// The schema of change batches: `_action`, `_ts`, `_seq`, key columns (not null), value columns (all nullable, since deletes have no
/// values and a null in a required column must not lose its row).
pub fn change_schema(schema: &TableSchema, nested: Nested) -> SchemaRef {
    let leading = [
        Field::new(ACTION, DataType::Utf8, false),
        Field::new(TS, arrow_type(&ColumnType::Timestamp, nested), false),
        Field::new(SEQ, DataType::UInt64, false),
    ];
    let key = schema.key.iter().map(|column| Field::new(&column.name, arrow_type(&column.column_type, nested), false));
    let value = schema.value.iter().map(|column| Field::new(&column.name, arrow_type(&column.column_type, nested), true));
    Arc::new(Schema::new(leading.into_iter().chain(key).chain(value).collect::<Vec<_>>()))
}

/// The schema of a lake table: key and value columns, nullable unless `required`. Descriptions are in the metadata `comment` of fields and
/// schema.
pub fn lake_schema(schema: &TableSchema, nested: Nested) -> SchemaRef {
    let fields: Vec<Field> = schema
        .columns()
        .map(|column| {
            let field = Field::new(&column.name, arrow_type(&column.column_type, nested), !column.required);
            field.with_metadata(comment(column.description.as_deref()))
        })
        .collect();
    Arc::new(Schema::new_with_metadata(fields, comment(schema.description.as_deref())))
}

fn comment(text: Option<&str>) -> HashMap<String, String> {
    text.map(|text| (COMMENT.to_owned(), text.to_owned())).into_iter().collect()
}
