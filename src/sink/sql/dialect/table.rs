//! Tables and columns as a dialect wants them and as they exist in the database, and the change from one to the other.

use super::statement::Statement;
use crate::model::TableRef;
use crate::sink::{KeptRows, LoadKind, SystemColumn};

/// A column of the wanted table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sink::sql) struct SqlColumn {
    /// Name in the database, unquoted.
    pub(in crate::sink::sql) name: String,
    /// Name in the record batches.
    pub(in crate::sink::sql) source: String,
    /// Type as the server spells it, with enumeration types quoted and qualified.
    pub(in crate::sink::sql) sql_type: String,
    /// Type in the staging table: that of the column, or a text type that is converted by the merge.
    pub(in crate::sink::sql) stage_type: String,
    /// Expression that converts a staged value, with `{}` for that value. `None`: no conversion.
    pub(in crate::sink::sql) convert: Option<String>,
    /// The bulk path accepts the column's own type, so that rows can be copied into the table without staging. Enum values of a
    /// lookup table are then sent as their ids.
    pub(in crate::sink::sql) direct: bool,
    /// Maximum number of characters that the column, or each item of an array, can hold.
    pub(in crate::sink::sql) longest: Option<usize>,
    /// Key column of the service.
    pub(in crate::sink::sql) key: bool,
    /// May not be null.
    pub(in crate::sink::sql) required: bool,
    /// Default as an SQL expression.
    pub(in crate::sink::sql) default: Option<String>,
    /// Comment on the column.
    pub(in crate::sink::sql) comment: Option<String>,
    /// The enumeration of its values.
    pub(in crate::sink::sql) enumeration: Option<Enumeration>,
    /// Quoted name of the lookup table that holds its values, and name of the foreign key.
    pub(in crate::sink::sql) lookup: Option<(String, String)>,
    /// The system column that it is. `None`: a column of the service.
    pub(in crate::sink::sql) system: Option<SystemColumn>,
}

impl SqlColumn {
    /// Whether staged rows have the column. Of other columns, new rows have the value of [`SqlColumn::convert`].
    pub(in crate::sink::sql) fn is_staged(&self) -> bool {
        self.system.is_none_or(|system| system == SystemColumn::ValidFrom)
    }

    /// Whether it belongs to the primary key: a key column, or the start of a version.
    pub(in crate::sink::sql) fn is_in_primary_key(&self) -> bool {
        self.key || self.system == Some(SystemColumn::ValidFrom)
    }
}

/// The values that the schema lists for a column: a type of its own, part of the column's type, or rows of a lookup table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sink::sql) struct Enumeration {
    /// Name of the type, unquoted and without its schema. Where enumerations are not types, name of the column.
    pub(in crate::sink::sql) name: String,
    /// The values.
    pub(in crate::sink::sql) members: Vec<String>,
}

/// A column of an existing table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sink::sql) struct LiveColumn {
    /// Name.
    pub(in crate::sink::sql) name: String,
    /// Type, spelled like [`SqlColumn::sql_type`].
    pub(in crate::sink::sql) sql_type: String,
    /// May not be null.
    pub(in crate::sink::sql) not_null: bool,
    /// Part of the primary key.
    pub(in crate::sink::sql) key: bool,
    /// Has a default.
    pub(in crate::sink::sql) has_default: bool,
    /// Quoted name of the lookup table whose ids it holds.
    pub(in crate::sink::sql) lookup: Option<String>,
    /// Name of the foreign key to that lookup table, where it is needed to drop it.
    pub(in crate::sink::sql) foreign_key: Option<String>,
    /// Comment on the column.
    pub(in crate::sink::sql) comment: Option<String>,
}

/// The wanted table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sink::sql) struct SqlTable {
    /// Its name at the service.
    pub(in crate::sink::sql) table: TableRef,
    /// Its columns, key first.
    pub(in crate::sink::sql) columns: Vec<SqlColumn>,
    /// Comment on the table.
    pub(in crate::sink::sql) comment: Option<String>,
    /// Which rows it keeps.
    pub(in crate::sink::sql) kept: KeptRows,
}

impl SqlTable {
    /// A table of which only the name is known.
    pub(in crate::sink::sql) fn without_columns(table: TableRef) -> Self {
        Self { table, columns: Vec::new(), comment: None, kept: KeptRows::default() }
    }

    /// Whether rows must be converted by the server, so that they cannot be copied into the table directly.
    pub(in crate::sink::sql) fn needs_stage(&self) -> bool {
        !self.columns.iter().all(|column| column.direct)
    }

    /// The columns that staged rows have.
    pub(in crate::sink::sql) fn staged_columns(&self) -> impl Iterator<Item = &SqlColumn> {
        self.columns.iter().filter(|column| column.is_staged())
    }

    /// The columns of the primary key.
    pub(in crate::sink::sql) fn primary_key(&self) -> impl Iterator<Item = &SqlColumn> {
        self.columns.iter().filter(|column| column.is_in_primary_key())
    }

    /// The key columns of the service.
    pub(in crate::sink::sql) fn keys(&self) -> impl Iterator<Item = &SqlColumn> {
        self.columns.iter().filter(|column| column.key)
    }

    /// The columns whose values are in a lookup table, with the quoted name of that table.
    pub(in crate::sink::sql) fn lookups(&self) -> impl Iterator<Item = (&SqlColumn, &str)> {
        self.columns.iter().filter_map(|column| Some((column, column.lookup.as_ref()?.0.as_str())))
    }
}

/// How an existing table becomes the wanted one.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::sink::sql) struct Change {
    /// Statements, in order.
    pub(in crate::sink::sql) statements: Vec<Statement>,
    /// The changes, one sentence each.
    pub(in crate::sink::sql) notes: Vec<String>,
    /// Changes that are not made, one sentence each.
    pub(in crate::sink::sql) warnings: Vec<String>,
    /// Existing columns that get another type, and those that are dropped where views keep them from it.
    pub(in crate::sink::sql) columns: Vec<String>,
    /// Whether the existing primary key is dropped.
    pub(in crate::sink::sql) drops_key: bool,
}

/// Conditions of a schema change besides the columns.
#[derive(Debug, Clone, Copy)]
pub(in crate::sink::sql) struct ChangeRules<'a> {
    /// The table of the stored schema. `None`: no schema is stored, or it cannot be read.
    pub(in crate::sink::sql) before: Option<&'a SqlTable>,
    /// With [`LoadKind::Replace`] the table is empty when the statements run.
    pub(in crate::sink::sql) kind: LoadKind,
    /// Drop columns of the stored schema that the service no longer has.
    pub(in crate::sink::sql) drop_removed: bool,
}

impl<'a> ChangeRules<'a> {
    /// The column of that name in the stored schema.
    pub(in crate::sink::sql) fn column_before(&self, name: &str) -> Option<&'a SqlColumn> {
        self.before?.columns.iter().find(|before| before.name == name)
    }
}

/// How the values of one type relate to another type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sink::sql) enum Fit {
    /// The types are the same.
    Same,
    /// The existing type is wider and stays: narrowing it would cut values.
    Holds,
    /// The wanted type holds every value after a conversion by the server.
    Wider,
    /// None of these is certain.
    Other,
}

impl Fit {
    /// Of whole numbers, by their rank among the server's types.
    pub(in crate::sink::sql) fn of_ranks(from: usize, to: usize) -> Self {
        match from.cmp(&to) {
            std::cmp::Ordering::Equal => Fit::Same,
            std::cmp::Ordering::Greater => Fit::Holds,
            std::cmp::Ordering::Less => Fit::Wider,
        }
    }

    /// Of decimals, each by precision and scale.
    pub(in crate::sink::sql) fn of_decimals((p, s): (u32, u32), (q, t): (u32, u32)) -> Self {
        let (whole, wanted) = (p.saturating_sub(s), q.saturating_sub(t));
        match (t.cmp(&s), wanted.cmp(&whole)) {
            (std::cmp::Ordering::Equal, std::cmp::Ordering::Equal) => Fit::Same,
            _ if t <= s && wanted <= whole => Fit::Holds,
            _ if t >= s && wanted >= whole => Fit::Wider,
            _ => Fit::Other,
        }
    }
}
