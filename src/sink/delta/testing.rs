//! Stands for the schema module's conversion in this folder's tests, until it is there.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::schema::{Column, ColumnType, Nested, TableSchema};
use crate::sink::conformance::arrow_type;

/// Stands for [`crate::schema::lake_schema`].
pub(super) fn lake_schema(schema: &TableSchema, nested: Nested) -> SchemaRef {
    let fields: Vec<Field> = schema.columns().map(|column| field(column, nested)).collect();
    Arc::new(Schema::new(fields))
}

fn field(column: &Column, nested: Nested) -> Field {
    let comment = column.description.clone().map(|text| ("comment".to_owned(), text));
    let data_type = match (&column.column_type, nested) {
        (ColumnType::Struct(_) | ColumnType::List(_), Nested::Json) => DataType::Utf8,
        (column_type, _) => arrow_type(column_type),
    };
    Field::new(&column.name, data_type, !column.required).with_metadata(HashMap::from_iter(comment))
}
