//! Options per table: columns, deletes, table mode, partitions. The command line and the settings file fill them; each target checks which
//! of them it supports.

use std::fmt;
use std::str::FromStr;

use super::{ColumnRules, HashKey};
use crate::error::{Error, Kind, Result};
use crate::model::{TableRef, is_pattern};

/// How a delete on the service is applied to the row in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletes {
    /// The row is deleted.
    Remove,
    /// The row is kept, with true in the column `_deleted` (soft delete).
    Mark,
}

/// Which rows a table keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableMode {
    /// One current row per key.
    Current,
    /// An append-only log of every change, with `_action` and `_ts`.
    Changes,
    /// Every version of every row, with `_valid_from`, `_valid_to` and `_current` (SCD type 2).
    History,
}

/// The length of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionUnit {
    /// Calendar days in UTC.
    Day,
    /// Calendar months in UTC.
    Month,
    /// Calendar years in UTC.
    Year,
}

/// A partitioning by a timestamp or date column, written as `day(timestamp)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionBy {
    /// The length of a partition.
    pub unit: PartitionUnit,
    /// The timestamp or date column.
    pub column: String,
}

/// The partitioning of a table, written as `none` or as a [`PartitionBy`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partitions {
    /// Not partitioned, even if this table is partitioned by default.
    None,
    /// Partitioned.
    By(PartitionBy),
}

impl Partitions {
    /// The partitioning, if there is one.
    pub fn by(&self) -> Option<&PartitionBy> {
        match self {
            Self::None => None,
            Self::By(by) => Some(by),
        }
    }
}

impl fmt::Display for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::By(by) => by.fmt(f),
        }
    }
}

impl FromStr for Partitions {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.trim() == "none" { Ok(Self::None) } else { text.parse().map(Self::By) }
    }
}

macro_rules! named_values {
    ($name:ident, $what:literal, $($variant:ident = $value:literal),+) => {
        impl $name {
            /// The name on the command line and in the properties of tables.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $value),+ }
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                match text {
                    $($value => Ok(Self::$variant),)+
                    _ => Err(Error::new(Kind::Usage, concat!("Unknown ", $what))
                        .with_field("word", text)
                        .hint(concat!("use one of", $(" ", $value),+))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

named_values!(Deletes, "value for deletes", Remove = "remove", Mark = "mark");
named_values!(TableMode, "table mode", Current = "current", Changes = "changes", History = "history");
named_values!(PartitionUnit, "partition unit", Day = "day", Month = "month", Year = "year");

impl fmt::Display for PartitionBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.unit, self.column)
    }
}

impl FromStr for PartitionBy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.strip_suffix(')').and_then(|text| text.split_once('('));
        match parts {
            Some((unit, column)) if !column.trim().is_empty() => {
                Ok(Self { unit: unit.trim().parse()?, column: column.trim().to_owned() })
            }
            _ => Err(Error::new(Kind::Usage, "Invalid partitioning")
                .with_field("partition", text)
                .hint("write day(COLUMN), month(COLUMN), year(COLUMN) or none, such as day(timestamp)")),
        }
    }
}

/// The options of one table. Options that are not set keep their value in an existing table, and have their default in a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// Which columns are loaded, and which of them as hashes.
    pub columns: ColumnRules,
    /// How deletes are applied. Default: [`Deletes::Remove`].
    pub deletes: Option<Deletes>,
    /// Which rows are kept. Default: [`TableMode::Current`].
    pub mode: Option<TableMode>,
    /// The partitioning. Default: none, but by day for `web_logs`.
    pub partition_by: Option<Partitions>,
}

impl TableOptions {
    /// Adds the column rules of `other` and overrides the options that `other` sets.
    fn take(&mut self, other: &Self) {
        self.columns.keep.extend_from_slice(&other.columns.keep);
        self.columns.drop.extend_from_slice(&other.columns.drop);
        self.columns.hash.extend_from_slice(&other.columns.hash);
        self.deletes = other.deletes.or(self.deletes);
        self.mode = other.mode.or(self.mode);
        self.partition_by = other.partition_by.clone().or(self.partition_by.take());
    }
}

/// The options of all tables of a run: patterns of tables, each with options. Later rules override earlier ones.
#[derive(Debug, Clone, Default)]
pub struct TableRules {
    rules: Vec<(String, TableOptions)>,
    hash_key: Option<HashKey>,
}

impl TableRules {
    /// Rules from pairs of tables (`all`, a name or a pattern, with or without `namespace.`) and options, and the key for hashed columns.
    pub fn new(rules: Vec<(String, TableOptions)>, hash_key: Option<HashKey>) -> Self {
        Self { rules, hash_key }
    }

    /// Adds options for the tables that match a pattern.
    pub fn add(&mut self, tables: impl Into<String>, options: TableOptions) {
        self.rules.push((tables.into(), options));
    }

    /// Adds a column rule in the form `table.column` or `namespace.table.column` to the list that `of` selects. Fails with kind `Usage` if
    /// there is no table.
    pub fn add_column(&mut self, text: &str, of: impl FnOnce(&mut ColumnRules) -> &mut Vec<String>) -> Result<()> {
        let (tables, column) =
            text.trim().rsplit_once('.').filter(|(tables, column)| !tables.is_empty() && !column.is_empty()).ok_or_else(
                || {
                    Error::new(Kind::Usage, "A column rule needs a table and a column")
                        .with_field("rule", text)
                        .hint("write TABLE.COLUMN, such as users.email, 'users.*_email', or '*.email' for all tables")
                },
            )?;
        let mut options = TableOptions::default();
        of(&mut options.columns).push(column.to_owned());
        self.add(tables, options);
        Ok(())
    }

    /// Sets the key for hashed columns.
    pub fn set_hash_key(&mut self, key: HashKey) {
        self.hash_key = Some(key);
    }

    /// The key for hashed columns.
    pub fn hash_key(&self) -> Option<&HashKey> {
        self.hash_key.as_ref()
    }

    /// Fails with kind `Usage` if columns are hashed but there is no key.
    pub fn check(&self) -> Result<()> {
        match (&self.hash_key, self.rules.iter().any(|(_, options)| !options.columns.hash.is_empty())) {
            (None, true) => Err(super::choice::no_key()),
            _ => Ok(()),
        }
    }

    /// The options of a table.
    pub fn of(&self, table: &TableRef) -> TableOptions {
        let mut options = TableOptions::default();
        for (_, chosen) in self.rules.iter().filter(|(tables, _)| table.matches(tables)) {
            options.take(chosen);
        }
        options
    }

    /// Whether a rule for exactly this table, not for a pattern of tables, matches the column.
    pub fn names_column(&self, table: &TableRef, column: &str) -> bool {
        let lists = |options: &TableOptions| {
            let ColumnRules { keep, drop, hash } = &options.columns;
            keep.iter().chain(drop).chain(hash).any(|name| name == column)
        };
        self.rules.iter().any(|(tables, options)| !is_pattern(tables) && table.matches(tables) && lists(options))
    }

    /// Whether a rule for exactly this table drops or hashes the column by its name.
    pub fn hides_column(&self, table: &TableRef, column: &str) -> bool {
        let mut of_table = self.hidden_columns().filter(|(tables, _)| !is_pattern(tables) && table.matches(tables));
        of_table.any(|(_, name)| name == column)
    }

    /// The rules that drop or hash columns, as pairs of table pattern and column pattern.
    pub fn hidden_columns(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rules.iter().flat_map(|(tables, options)| {
            let hidden = options.columns.drop.iter().chain(&options.columns.hash);
            hidden.map(move |column| (tables.as_str(), column.as_str()))
        })
    }

    /// The table patterns.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|(tables, _)| tables.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_choices_win_and_rules_for_columns_add_up() {
        let mut rules = TableRules::default();
        rules.add("all", TableOptions { deletes: Some(Deletes::Mark), ..TableOptions::default() });
        rules.add(
            "user*",
            TableOptions { mode: Some(TableMode::History), deletes: Some(Deletes::Remove), ..Default::default() },
        );
        rules.add_column("users.email", |columns| &mut columns.drop).unwrap();
        rules.add_column("canvas.users.*_id", |columns| &mut columns.drop).unwrap();
        rules.add_column("usres.email", |columns| &mut columns.hash).unwrap();
        assert_eq!(rules.add_column("email", |columns| &mut columns.drop).unwrap_err().kind(), Kind::Usage);
        let users = rules.of(&TableRef::new("canvas", "users"));
        assert_eq!(users.columns.drop, ["email", "*_id"]);
        assert_eq!((users.deletes, users.mode), (Some(Deletes::Remove), Some(TableMode::History)));
        let courses = TableRef::new("canvas", "courses");
        assert_eq!(rules.of(&courses), TableOptions { deletes: Some(Deletes::Mark), ..Default::default() });
    }

    #[test]
    fn partitions_are_read_as_they_are_printed() {
        for text in ["none", "day(timestamp)"] {
            assert_eq!(text.parse::<Partitions>().unwrap().to_string(), text);
        }
        let day: PartitionBy = "day( timestamp )".parse().unwrap();
        assert_eq!(day.to_string(), "day(timestamp)");
        for wrong in ["", "day", "week(x)", "day()", "day(x"] {
            assert_eq!(wrong.parse::<PartitionBy>().unwrap_err().kind(), Kind::Usage);
        }
        assert_eq!("history".parse::<TableMode>().unwrap(), TableMode::History);
    }
}
