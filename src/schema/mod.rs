//! Table schemas: from the service's JSON Schema to a [`TableSchema`], from there to Arrow, and the difference of two versions.
//! Pure values, no I/O.

mod arrow;
mod diff;
mod json;
mod table;
#[cfg(test)]
pub(crate) mod tests;

pub use arrow::{ACTION, ELEMENT, Nested, SEQ, TS, arrow_type, change_schema, lake_schema};
pub use diff::{SchemaChange, changes_between};
pub use table::{Column, ColumnType, TableSchema};
