//! The column that partitions a table: derived from a time or date column of the table, stored in the log and not in the files.

use arrow::datatypes::DataType;
use serde_json::Value;

use crate::schema::{PartitionBy, PartitionUnit};
use crate::sink::delta::log::columns::{LakeColumn, LakeType};

/// Column metadata: the column from which the partition value is derived.
const SOURCE: &str = "daplake.of";
/// Column metadata: the length of a partition.
const UNIT: &str = "daplake.unit";

/// The partition column of a table that is partitioned by `by`.
pub(crate) fn partition_column(by: &PartitionBy) -> LakeColumn {
    let (name, leaf, what) = match by.unit {
        PartitionUnit::Day => ("_day", DataType::Date32, "Day"),
        PartitionUnit::Month => ("_month", DataType::Date32, "First day of the month"),
        PartitionUnit::Year => ("_year", DataType::Int32, "Year"),
    };
    let mut column = LakeColumn {
        name: name.to_owned(),
        physical: name.to_owned(),
        id: None,
        kind: LakeType::Leaf(leaf),
        nullable: true,
        metadata: serde_json::Map::from_iter([
            (SOURCE.to_owned(), Value::from(by.column.as_str())),
            (UNIT.to_owned(), Value::from(by.unit.as_str())),
        ]),
    };
    column.set_comment(Some(&format!("{what} of `{}` in UTC; partitions the table.", by.column)));
    column
}

/// Whether a column is a partition column.
pub(crate) fn is_partition(column: &LakeColumn) -> bool {
    column.metadata.contains_key(SOURCE)
}

/// Name of the source column and unit of a partition column; `None` for other columns.
pub(crate) fn partition_source(column: &LakeColumn) -> Option<(&str, PartitionUnit)> {
    let source = column.metadata.get(SOURCE)?.as_str()?;
    Some((source, column.metadata.get(UNIT)?.as_str()?.parse().ok()?))
}

/// Whether a table can be partitioned by a column.
pub(crate) fn can_partition_by(column: &LakeColumn) -> bool {
    matches!(&column.kind, LakeType::Leaf(DataType::Timestamp(..) | DataType::Date32))
}
