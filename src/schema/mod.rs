//! Table schemas: from the service's JSON Schema to a [`TableSchema`], from there to Arrow and to
//! statements for query engines, and the difference of two versions. Pure values, no I/O.

mod arrow;
mod ddl;
mod diff;
mod json;
mod table;
#[cfg(test)]
pub(crate) mod tests;

pub use arrow::{ACTION, ELEMENT, Nested, SEQ, TS, arrow_type, change_schema, lake_schema};
pub use ddl::{LakeEngine, LakeFormat, LakePlace, lake_prelude, lake_table};
pub use diff::{SchemaChange, changes_between};
pub use table::{Column, ColumnType, TableSchema};
