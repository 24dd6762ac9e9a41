//! Table schemas: from the service's JSON Schema to a [`TableSchema`], from there to Arrow and to
//! statements for query engines, the difference of two versions, and what users choose for single tables. Pure values, no I/O.

mod arrow;
mod change_columns;
#[cfg(feature = "lake")]
mod choice;
mod ddl;
mod diff;
mod json;
#[cfg(feature = "lake")]
mod options;
mod relations;
mod table;
#[cfg(test)]
pub(crate) mod tests;

pub use arrow::{ELEMENT, Nested, arrow_type, change_schema, lake_schema};
pub use change_columns::{ACTION, SEQ, TS};
#[cfg(feature = "lake")]
pub use choice::{ColumnChoice, ColumnRecord, ColumnRules, Followed, HashKey};
pub use ddl::{LakeEngine, LakeFormat, LakePlace, lake_prelude, lake_table};
pub use diff::{SchemaChange, changes_between};
#[cfg(feature = "lake")]
pub use options::{Deletes, PartitionBy, PartitionUnit, Partitions, TableMode, TableOptions, TableRules};
pub use relations::{Diagram, Evidence, Relation};
pub use table::{Column, ColumnType, TableSchema};
