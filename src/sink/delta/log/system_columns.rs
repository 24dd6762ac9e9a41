//! What a table keeps besides the columns of the service, by mode and way with deletes: columns with a role, and the properties
//! by which the table remembers. Pure values.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use serde_json::Value;

use crate::error::{Error, Kind, Result};
use crate::schema::{ACTION, Deletes, PartitionBy, TS, TableMode};
use crate::sink::Layout;
use crate::sink::delta::log::columns::{LakeColumn, LakeType, timestamp_type};
use crate::sink::delta::write::partitioned_writer::column_of;

/// Table property: `changes` or `history`; absent for `current`.
const MODE: &str = "daplake.mode";
/// Table property: `mark`; absent where rows go.
const DELETES: &str = "daplake.deletes";
/// Table property: such as `day(timestamp)`; absent where there are no partitions.
const PARTITION: &str = "daplake.partition";
/// Metadata of a column that is ours.
const ROLE: &str = "daplake.role";

/// What a column of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sink::delta) enum Role {
    /// Whether the row was deleted at the source.
    Deleted,
    /// `U` or `D`.
    Action,
    /// When the change was made at the source.
    Ts,
    /// Since when the version is the row.
    ValidFrom,
    /// Until when it was, exclusively; null while it is.
    ValidTo,
    /// Whether it still is.
    Current,
}

const ROLES: [Role; 6] = [Role::Deleted, Role::Action, Role::Ts, Role::ValidFrom, Role::ValidTo, Role::Current];

impl Role {
    /// Name of its column.
    pub(in crate::sink::delta) fn name(self) -> &'static str {
        match self {
            Role::Deleted => "_deleted",
            Role::Action => ACTION,
            Role::Ts => TS,
            Role::ValidFrom => "_valid_from",
            Role::ValidTo => "_valid_to",
            Role::Current => "_current",
        }
    }

    fn comment(self) -> &'static str {
        match self {
            Role::Deleted => "Whether the row was deleted at the source.",
            Role::Action => "U for an insert or update, D for a delete.",
            Role::Ts => "When the change was made at the source.",
            Role::ValidFrom => "Since when this version is the row.",
            Role::ValidTo => "Until when it was, exclusively; null while it is.",
            Role::Current => "Whether this version is the row now.",
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Role::Deleted | Role::Current => DataType::Boolean,
            Role::Action => DataType::Utf8,
            Role::Ts | Role::ValidFrom | Role::ValidTo => timestamp_type(),
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

    /// The role of a column; `None` for those of the service.
    pub(in crate::sink::delta) fn of(column: &LakeColumn) -> Option<Self> {
        let name = column.metadata.get(ROLE)?.as_str()?;
        ROLES.into_iter().find(|role| role.name() == name)
    }

    /// The column with this role.
    pub(in crate::sink::delta) fn find(self, columns: &[LakeColumn]) -> Option<&LakeColumn> {
        columns.iter().find(|column| Self::of(column) == Some(self))
    }

    /// Place of the column with this role.
    pub(in crate::sink::delta) fn place(self, columns: &[LakeColumn]) -> Option<usize> {
        columns.iter().position(|column| Self::of(column) == Some(self))
    }
}

/// What a column has in rows that lack it, if that is not null.
pub(in crate::sink::delta) fn default_of(column: &LakeColumn, rows: usize) -> Option<ArrayRef> {
    // Rows that are there were not deleted.
    (Role::of(column) == Some(Role::Deleted)).then(|| Arc::new(BooleanArray::from(vec![false; rows])) as ArrayRef)
}

/// How a table is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sink::delta) struct TableLayout {
    /// Which rows.
    pub(in crate::sink::delta) mode: TableMode,
    /// What a delete does to them.
    pub(in crate::sink::delta) deletes: Deletes,
    /// How they are partitioned.
    pub(in crate::sink::delta) partition_by: Option<PartitionBy>,
}

impl Default for TableLayout {
    fn default() -> Self {
        Self { mode: TableMode::Current, deletes: Deletes::Remove, partition_by: None }
    }
}

impl TableLayout {
    /// As the properties of a table say.
    pub(in crate::sink::delta) fn of(configuration: &BTreeMap<String, String>) -> Self {
        let word = |name: &str| configuration.get(name).map(String::as_str);
        Self {
            mode: word(MODE).and_then(|mode| mode.parse().ok()).unwrap_or(TableMode::Current),
            deletes: word(DELETES).and_then(|deletes| deletes.parse().ok()).unwrap_or(Deletes::Remove),
            partition_by: word(PARTITION).and_then(|by| by.parse().ok()),
        }
    }

    /// As the user wants it, for a table that is kept as `held`; a new one has partitions by `usual_partition` if nothing else is
    /// said. Kind `Schema` for another mode or other partitions than it has.
    pub(in crate::sink::delta) fn resolve(
        held: Option<&Self>,
        wanted: &Layout,
        usual_partition: Option<PartitionBy>,
    ) -> Result<Self> {
        let usual = Self::default();
        let base = held.unwrap_or(&usual);
        let mode = wanted.mode.unwrap_or(base.mode);
        if held.is_some() && mode != base.mode {
            return Err(Error::new(Kind::Schema, "The table is kept in another mode")
                .with_field("mode of the table", base.mode)
                .with_field("mode wanted", mode)
                .hint(format!("go on with --mode {}, or load it in the other mode into a new --target", base.mode)));
        }
        let partition_by = match (held, &wanted.partition_by) {
            (Some(held), Some(wanted)) if held.partition_by.as_ref() != wanted.by() => {
                return Err(Error::new(Kind::Schema, "The table is partitioned in another way")
                    .with_field(
                        "partitions of the table",
                        held.partition_by.as_ref().map_or("none".to_owned(), PartitionBy::to_string),
                    )
                    .with_field("partitions wanted", wanted)
                    .hint("leave --partition-by out, or load it with other partitions into a new --target"));
            }
            (Some(held), _) => held.partition_by.clone(),
            (None, Some(wanted)) => wanted.by().cloned(),
            (None, None) => usual_partition,
        };
        if mode != TableMode::Current && wanted.deletes == Some(Deletes::Mark) {
            return Err(Error::new(Kind::Schema, "Rows are marked as deleted in mode `current` only")
                .with_field("mode", mode)
                .hint("leave --deletes out: this mode tells of deletes in its own way"));
        }
        Ok(Self { mode, deletes: wanted.deletes.unwrap_or(base.deletes), partition_by })
    }

    /// Whether old rows stay when a new snapshot comes.
    pub(in crate::sink::delta) fn keeps_rows(&self) -> bool {
        self.mode != TableMode::Current || self.deletes == Deletes::Mark
    }

    /// The columns of ours, in order; they stand behind the key.
    pub(in crate::sink::delta) fn columns(&self) -> Vec<LakeColumn> {
        let roles: &[Role] = match (self.mode, self.deletes) {
            (TableMode::Current, Deletes::Remove) => &[],
            (TableMode::Current, Deletes::Mark) => &[Role::Deleted],
            (TableMode::Changes, _) => &[Role::Action, Role::Ts],
            (TableMode::History, _) => &[Role::ValidFrom, Role::ValidTo, Role::Current],
        };
        roles.iter().map(|role| role.column()).chain(self.partition_by.as_ref().map(column_of)).collect()
    }

    /// Writes it into the properties of a table.
    pub(in crate::sink::delta) fn record(&self, configuration: &mut BTreeMap<String, String>) {
        let mut set = |name: &str, word: Option<String>| match word {
            Some(word) => configuration.insert(name.to_owned(), word),
            None => configuration.remove(name),
        };
        set(MODE, (self.mode != TableMode::Current).then(|| self.mode.to_string()));
        set(PARTITION, self.partition_by.as_ref().map(PartitionBy::to_string));
        set(DELETES, (self.deletes == Deletes::Mark).then(|| self.deletes.to_string()));
    }

    /// In words, for `status`.
    pub(in crate::sink::delta) fn described(&self) -> String {
        let deletes = if self.deletes == Deletes::Mark { ", deletes marked" } else { "" };
        let partitions = self.partition_by.as_ref().map_or(String::new(), |by| format!(" by {by}"));
        format!("{}{deletes}{partitions}", self.mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Partitions;

    #[test]
    fn what_is_not_said_is_as_the_table_is() {
        let marked = TableLayout { deletes: Deletes::Mark, ..TableLayout::default() };
        assert_eq!(TableLayout::resolve(Some(&marked), &Layout::default(), None).unwrap(), marked);
        assert_eq!(TableLayout::resolve(None, &Layout::default(), None).unwrap(), TableLayout::default());
        let removing = Layout { deletes: Some(Deletes::Remove), ..Layout::default() };
        assert_eq!(TableLayout::resolve(Some(&marked), &removing, None).unwrap(), TableLayout::default());
        let history = Layout { mode: Some(TableMode::History), ..Layout::default() };
        let error = TableLayout::resolve(Some(&marked), &history, None).unwrap_err();
        assert_eq!(error.kind(), Kind::Schema);
        assert!(error.hint_text().unwrap().contains("--mode current"));
        let days: PartitionBy = "day(t)".parse().unwrap();
        assert_eq!(TableLayout::resolve(Some(&marked), &Layout::default(), Some(days.clone())).unwrap(), marked);
        let new = TableLayout::resolve(None, &Layout::default(), Some(days.clone())).unwrap();
        assert_eq!((new.described().as_str(), &new.partition_by), ("current by day(t)", &Some(days.clone())));
        let parted = Layout { partition_by: Some(Partitions::By(days)), ..Layout::default() };
        assert_eq!(TableLayout::resolve(Some(&marked), &parted, None).unwrap_err().kind(), Kind::Schema);
        TableLayout::resolve(Some(&new), &parted, None).unwrap();
        let whole = Layout { partition_by: Some(Partitions::None), ..Layout::default() };
        assert_eq!(TableLayout::resolve(None, &whole, new.partition_by.clone()).unwrap(), TableLayout::default());
        assert_eq!(TableLayout::resolve(Some(&new), &whole, None).unwrap_err().get("partitions wanted"), Some("none"));
        let both = Layout { deletes: Some(Deletes::Mark), ..history };
        assert!(TableLayout::resolve(None, &both, None).is_err());
    }

    #[test]
    fn properties_and_columns_are_read_back() {
        let mut configuration = BTreeMap::from([("other".to_owned(), "x".to_owned())]);
        for layout in [
            TableLayout { mode: TableMode::History, ..TableLayout::default() },
            TableLayout { deletes: Deletes::Mark, ..TableLayout::default() },
            TableLayout::default(),
        ] {
            layout.record(&mut configuration);
            assert_eq!(TableLayout::of(&configuration), layout);
            let text = LakeColumn::schema_string(&layout.columns());
            let columns = LakeColumn::of_schema_string(&text).unwrap();
            assert!(columns.iter().all(|column| Role::of(column).is_some_and(|role| role.name() == column.name)));
        }
        assert_eq!(configuration.len(), 1);
    }
}
