//! From a [`TableSchema`] to Arrow schemas: of change batches and of lake tables.

use arrow::datatypes::{DataType, SchemaRef};

use super::{ColumnType, TableSchema};

/// Name of the column of a change batch that says `U` or `D` (Utf8, never null).
pub const ACTION: &str = "_action";
/// Name of the column with the commit time (Timestamp(us, "UTC"), never null).
pub const TS: &str = "_ts";
/// Name of the column with the place in the result (UInt64, never null): object number << 40 | row number.
pub const SEQ: &str = "_seq";

/// How nested columns appear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nested {
    /// As Struct and List.
    #[default]
    Typed,
    /// As JSON text.
    Json,
}

/// The Arrow type of a column.
pub fn arrow_type(_column_type: &ColumnType, _nested: Nested) -> DataType {
    unimplemented!()
}

/// Schema of change batches: `_action`, `_ts`, `_seq`, key columns (not null), value columns (all nullable: deletes have none,
/// and a null in a required column never loses a row).
pub fn change_schema(_schema: &TableSchema, _nested: Nested) -> SchemaRef {
    unimplemented!()
}

/// Schema of a lake table: key and value columns only, nullability from `required`, descriptions as field metadata `comment`.
pub fn lake_schema(_schema: &TableSchema, _nested: Nested) -> SchemaRef {
    unimplemented!()
}
