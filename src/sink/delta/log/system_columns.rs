//! The layout of a table (mode, deletes, partitions), the system columns that it implies, and the table properties that record it.
//! No I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::schema::{Deletes, PartitionBy, TableMode};
pub(crate) use crate::sink::SystemColumn;
use crate::sink::delta::log::columns::{LakeColumn, LakeType, timestamp_type};
use crate::sink::delta::log::partition_column::partition_column;
use crate::sink::delta::log::properties;
use crate::sink::{KeptRows, Layout};

/// Column metadata that identifies a system column.
const ROLE: &str = "daplake.role";

const ALL: [SystemColumn; 6] = [
    SystemColumn::Deleted,
    SystemColumn::Action,
    SystemColumn::Ts,
    SystemColumn::ValidFrom,
    SystemColumn::ValidTo,
    SystemColumn::Current,
];

impl SystemColumn {
    fn data_type(self) -> DataType {
        match self {
            SystemColumn::Deleted | SystemColumn::Current => DataType::Boolean,
            SystemColumn::Action => DataType::Utf8,
            SystemColumn::Ts | SystemColumn::ValidFrom | SystemColumn::ValidTo => timestamp_type(),
        }
    }

    fn column(self) -> LakeColumn {
        let mut column = LakeColumn {
            name: self.name().to_owned(),
            physical: self.name().to_owned(),
            id: None,
            kind: LakeType::Leaf(self.data_type()),
            nullable: true,
            metadata: serde_json::Map::from_iter([(ROLE.to_owned(), Value::from(self.name()))]),
        };
        column.set_comment(Some(self.comment()));
        column
    }

    /// The system column that `column` is; `None` for columns of the service.
    pub(crate) fn of(column: &LakeColumn) -> Option<Self> {
        let name = column.metadata.get(ROLE)?.as_str()?;
        ALL.into_iter().find(|known| known.name() == name)
    }

    /// The column in `columns`.
    pub(crate) fn find(self, columns: &[LakeColumn]) -> Option<&LakeColumn> {
        columns.iter().find(|column| Self::of(column) == Some(self))
    }

    /// Position of the column in `columns`.
    pub(crate) fn position(self, columns: &[LakeColumn]) -> Option<usize> {
        columns.iter().position(|column| Self::of(column) == Some(self))
    }
}

/// The value of a column in old rows that do not have it, if that is not null.
pub(crate) fn default_value(column: &LakeColumn, rows: usize) -> Option<ArrayRef> {
    // Rows from before soft deletes were not deleted.
    let is_deleted = SystemColumn::of(column) == Some(SystemColumn::Deleted);
    is_deleted.then(|| Arc::new(BooleanArray::from(vec![false; rows])) as ArrayRef)
}

/// Which rows a table has, and how it is partitioned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableLayout {
    /// Table mode.
    pub(crate) mode: TableMode,
    /// Whether deletes remove rows or are soft deletes.
    pub(crate) deletes: Deletes,
    /// Partitions.
    pub(crate) partition_by: Option<PartitionBy>,
}

impl Default for TableLayout {
    fn default() -> Self {
        Self { mode: TableMode::Current, deletes: Deletes::Remove, partition_by: None }
    }
}

impl TableLayout {
    /// The layout that the properties of a table record.
    pub(crate) fn from_properties(configuration: &BTreeMap<String, String>) -> Self {
        let value = |name: &str| configuration.get(name).map(String::as_str);
        Self {
            mode: value(properties::MODE).and_then(|mode| mode.parse().ok()).unwrap_or(TableMode::Current),
            deletes: value(properties::DELETES).and_then(|deletes| deletes.parse().ok()).unwrap_or(Deletes::Remove),
            partition_by: value(properties::PARTITION).and_then(|by| by.parse().ok()),
        }
    }

    /// The layout that follows from the user's choice `wanted` and the layout `present` of the table. A new table has
    /// `default_partition` unless the user chose otherwise. Kind `Schema` if mode or partitions differ from those of the table.
    pub(crate) fn resolve(present: Option<&Self>, wanted: &Layout, default_partition: Option<PartitionBy>) -> Result<Self> {
        let kept = present.map(Self::kept);
        let kept = KeptRows::resolve(kept, wanted, "load the table in the other mode into a new --target")?;
        let partition_by = match (present, &wanted.partition_by) {
            (Some(present), Some(wanted)) if present.partition_by.as_ref() != wanted.by() => {
                return Err(Error::new(Kind::Schema, "The table is partitioned differently")
                    .with_field(
                        "partitions of the table",
                        present.partition_by.as_ref().map_or("none".to_owned(), PartitionBy::to_string),
                    )
                    .with_field("partitions wanted", wanted)
                    .hint("omit --partition-by, or load the table with other partitions into a new --target"));
            }
            (Some(present), _) => present.partition_by.clone(),
            (None, Some(wanted)) => wanted.by().cloned(),
            (None, None) => default_partition,
        };
        Ok(Self { mode: kept.mode, deletes: kept.deletes, partition_by })
    }

    /// Whether old rows stay in the table when a new snapshot is loaded.
    pub(crate) fn keeps_rows(&self) -> bool {
        self.kept().keeps_rows()
    }

    fn kept(&self) -> KeptRows {
        KeptRows { mode: self.mode, deletes: self.deletes }
    }

    /// The system columns and the partition column, in order. In a table they follow the key columns.
    pub(crate) fn columns(&self) -> Vec<LakeColumn> {
        let partition = self.partition_by.as_ref().map(partition_column);
        self.kept().columns().iter().map(|column| column.column()).chain(partition).collect()
    }

    /// Records the layout in the properties of a table.
    pub(crate) fn record(&self, configuration: &mut BTreeMap<String, String>) {
        let mut set = |name: &str, value: Option<String>| match value {
            Some(value) => configuration.insert(name.to_owned(), value),
            None => configuration.remove(name),
        };
        set(properties::MODE, (self.mode != TableMode::Current).then(|| self.mode.to_string()));
        set(properties::PARTITION, self.partition_by.as_ref().map(PartitionBy::to_string));
        set(properties::DELETES, (self.deletes == Deletes::Mark).then(|| self.deletes.to_string()));
    }

    /// The layout as text for `status`, such as `current by day(timestamp)`.
    pub(crate) fn describe(&self) -> String {
        let partitions = self.partition_by.as_ref().map_or(String::new(), |by| format!(" by {by}"));
        format!("{}{partitions}", self.kept().describe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Partitions;

    #[test]
    fn an_existing_table_keeps_what_the_user_does_not_choose() {
        let soft = TableLayout { deletes: Deletes::Mark, ..TableLayout::default() };
        assert_eq!(TableLayout::resolve(Some(&soft), &Layout::default(), None).unwrap(), soft);
        assert_eq!(TableLayout::resolve(None, &Layout::default(), None).unwrap(), TableLayout::default());
        let removing = Layout { deletes: Some(Deletes::Remove), ..Layout::default() };
        assert_eq!(TableLayout::resolve(Some(&soft), &removing, None).unwrap(), TableLayout::default());
        let history = Layout { mode: Some(TableMode::History), ..Layout::default() };
        let error = TableLayout::resolve(Some(&soft), &history, None).unwrap_err();
        assert_eq!(error.kind(), Kind::Schema);
        assert!(error.hint_text().unwrap().contains("--mode current"));
        let days: PartitionBy = "day(t)".parse().unwrap();
        assert_eq!(TableLayout::resolve(Some(&soft), &Layout::default(), Some(days.clone())).unwrap(), soft);
        let new = TableLayout::resolve(None, &Layout::default(), Some(days.clone())).unwrap();
        assert_eq!((new.describe().as_str(), &new.partition_by), ("current by day(t)", &Some(days.clone())));
        let parted = Layout { partition_by: Some(Partitions::By(days)), ..Layout::default() };
        assert_eq!(TableLayout::resolve(Some(&soft), &parted, None).unwrap_err().kind(), Kind::Schema);
        TableLayout::resolve(Some(&new), &parted, None).unwrap();
        let whole = Layout { partition_by: Some(Partitions::None), ..Layout::default() };
        assert_eq!(TableLayout::resolve(None, &whole, new.partition_by.clone()).unwrap(), TableLayout::default());
        assert_eq!(TableLayout::resolve(Some(&new), &whole, None).unwrap_err().get("partitions wanted"), Some("none"));
        let both = Layout { deletes: Some(Deletes::Mark), ..history };
        assert!(TableLayout::resolve(None, &both, None).is_err());
    }

    #[test]
    fn properties_and_columns_survive_a_round_trip() {
        let mut configuration = BTreeMap::from([("other".to_owned(), "x".to_owned())]);
        for layout in [
            TableLayout { mode: TableMode::History, ..TableLayout::default() },
            TableLayout { deletes: Deletes::Mark, ..TableLayout::default() },
            TableLayout::default(),
        ] {
            layout.record(&mut configuration);
            assert_eq!(TableLayout::from_properties(&configuration), layout);
            let text = LakeColumn::schema_string(&layout.columns());
            let columns = LakeColumn::from_schema_string(&text).unwrap();
            assert!(columns.iter().all(|column| SystemColumn::of(column).is_some_and(|known| known.name() == column.name)));
        }
        assert_eq!(configuration.len(), 1);
    }
}
