//! Which rows a table keeps, in every target that has table modes: the mode, the treatment of deletes, and the columns that they add.

use super::load::Layout;
use crate::error::{Error, Kind, Result};
use crate::model::TableRef;
use crate::schema::{ACTION, Deletes, TS, TableMode};

/// A column that daplake adds to those of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SystemColumn {
    /// Whether the row was deleted at the source (soft delete).
    Deleted,
    /// `U` or `D`.
    Action,
    /// Time of the change at the source.
    Ts,
    /// Time at which the version became current.
    ValidFrom,
    /// Time at which the version was replaced, exclusive; null for the current version.
    ValidTo,
    /// Whether the version is current.
    Current,
}

impl SystemColumn {
    /// Name of the column.
    pub(crate) fn name(self) -> &'static str {
        match self {
            SystemColumn::Deleted => "_deleted",
            SystemColumn::Action => ACTION,
            SystemColumn::Ts => TS,
            SystemColumn::ValidFrom => "_valid_from",
            SystemColumn::ValidTo => "_valid_to",
            SystemColumn::Current => "_current",
        }
    }

    /// Description of the column.
    pub(crate) fn comment(self) -> &'static str {
        match self {
            SystemColumn::Deleted => "Whether the row was deleted at the source.",
            SystemColumn::Action => "U for an insert or update, D for a delete.",
            SystemColumn::Ts => "When the change was made at the source.",
            SystemColumn::ValidFrom => "When this version became current.",
            SystemColumn::ValidTo => "When this version was replaced, exclusive; null for the current version.",
            SystemColumn::Current => "Whether this version is current.",
        }
    }
}

/// Which rows a table keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeptRows {
    /// Table mode.
    pub(crate) mode: TableMode,
    /// Whether deletes remove rows or are soft deletes.
    pub(crate) deletes: Deletes,
}

impl Default for KeptRows {
    fn default() -> Self {
        Self { mode: TableMode::Current, deletes: Deletes::Remove }
    }
}

impl KeptRows {
    /// What follows from the user's choice `wanted` and the state `present` of the table.
    ///
    /// # Errors
    /// Kind `Schema` if the table exists in another mode, with the hint `to_change` on how to change it, and for soft deletes in a mode
    /// other than `current`.
    pub(crate) fn resolve(present: Option<Self>, wanted: &Layout, to_change: &str) -> Result<Self> {
        let base = present.unwrap_or_default();
        let mode = wanted.mode.unwrap_or(base.mode);
        if present.is_some() && mode != base.mode {
            return Err(Error::new(Kind::Schema, "The table exists in another mode")
                .with_field("mode of the table", base.mode)
                .with_field("mode wanted", mode)
                .hint(format!("use --mode {}, or {to_change}", base.mode)));
        }
        if mode != TableMode::Current && wanted.deletes == Some(Deletes::Mark) {
            return Err(Error::new(Kind::Schema, "Soft deletes are possible in mode `current` only")
                .with_field("mode", mode)
                .hint("omit --deletes: this mode records deletes by itself"));
        }
        Ok(Self { mode, deletes: wanted.deletes.unwrap_or(base.deletes) })
    }

    /// Whether old rows stay in the table when a new snapshot is loaded.
    pub(crate) fn keeps_rows(self) -> bool {
        self.mode != TableMode::Current || self.deletes == Deletes::Mark
    }

    /// The system columns, in order. In a table they follow the key columns.
    pub(crate) fn columns(self) -> &'static [SystemColumn] {
        match (self.mode, self.deletes) {
            (TableMode::Current, Deletes::Remove) => &[],
            (TableMode::Current, Deletes::Mark) => &[SystemColumn::Deleted],
            (TableMode::Changes, _) => &[SystemColumn::Action, SystemColumn::Ts],
            (TableMode::History, _) => &[SystemColumn::ValidFrom, SystemColumn::ValidTo, SystemColumn::Current],
        }
    }

    /// Mode and soft deletes as text for `status`, such as `current, deletes marked`.
    pub(crate) fn describe(self) -> String {
        let deletes = if self.deletes == Deletes::Mark { ", deletes marked" } else { "" };
        format!("{}{deletes}", self.mode)
    }
}

/// The error for a column of the service that has the name of a system column. `layout`: how the table keeps its rows, for people.
pub(crate) fn reserved_name(table: &TableRef, column: &str, layout: &str) -> Error {
    Error::new(Kind::Schema, "The name of a column is reserved in this table mode")
        .with_field("column", column)
        .with_field("mode", layout)
        .hint(format!("drop the column with --drop-column {table}.{column}, or keep the table in another mode"))
}
