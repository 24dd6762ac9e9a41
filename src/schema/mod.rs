//! Table schemas: the service's JSON Schema as a [`TableSchema`], its Arrow schema, the statements that define it in query engines,
//! and the options that users set per table. No I/O.

mod arrow;
mod change_columns;
#[cfg(feature = "lake")]
mod choice;
#[cfg(feature = "lake")]
mod dbt;
mod ddl;
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
#[cfg(feature = "lake")]
pub use dbt::{DbtPlace, dbt_sources};
pub use ddl::{LakeEngine, LakeFormat, LakePlace, lake_prelude, lake_table};
#[cfg(feature = "lake")]
pub use options::{Deletes, PartitionBy, PartitionUnit, Partitions, TableMode, TableOptions, TableRules};
pub use relations::{Diagram, Evidence, Relation};
pub use table::{Column, ColumnType, TableSchema};
