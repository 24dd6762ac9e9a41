//! Schema changes of all databases: checks, errors, sentences of the report.

use super::table::{LiveColumn, SqlColumn, SqlTable};
use crate::error::{Error, Kind, Result};
use crate::sink::LoadKind;

/// The hint for a change that a merge cannot make.
const RELOAD_HINT: &str = "load the table again with --resnapshot, or with dropdb and initdb";

/// The sentence about a table that no longer has soft deletes.
pub(in crate::sink::sql) const NO_SOFT_DELETES: &str = "soft-deleted rows are removed, and the column `_deleted` with them";

/// Whether the existing primary key has other columns than the wanted one. Kind `Schema` if so and the old rows are kept.
pub(in crate::sink::sql) fn has_other_key(table: &SqlTable, live: &[LiveColumn], kind: LoadKind) -> Result<bool> {
    let mut wanted: Vec<&str> = table.primary_key().map(|column| column.name.as_str()).collect();
    let mut found: Vec<&str> = live.iter().filter(|column| column.key).map(|column| column.name.as_str()).collect();
    wanted.sort_unstable();
    found.sort_unstable();
    if wanted != found && kind == LoadKind::Merge {
        return Err(Error::new(Kind::Schema, "The primary key in the database differs from the service's")
            .with_field("key", wanted.join(", "))
            .hint(RELOAD_HINT));
    }
    Ok(wanted != found)
}

/// The error for a type change that a merge cannot make.
pub(in crate::sink::sql) fn incompatible_type(column: &str, from: &str, to: &str) -> Error {
    Error::new(Kind::Schema, "A column changed to a type that cannot hold its values")
        .with_field("column", column)
        .with_field("from", from)
        .with_field("to", to)
        .hint(RELOAD_HINT)
}

/// The error for a column of the user that accepts no row without a value of its own.
pub(in crate::sink::sql) fn foreign_required_column(column: &str) -> Error {
    Error::new(Kind::Target, "A column that the service does not have needs a value in every row")
        .with_field("column", column)
        .hint("give the column a default, or make it nullable")
}

/// The sentence about a new column.
pub(in crate::sink::sql) fn new_column_note(column: &SqlColumn, required: bool) -> String {
    if required || !column.required {
        format!("`{}` is new", column.name)
    } else {
        format!("`{}` is new; it may be null, because older rows have no value", column.name)
    }
}

/// The sentence about a column that the service no longer has.
pub(in crate::sink::sql) fn removed_column_note(name: &str, is_dropped: bool) -> String {
    if is_dropped {
        format!("`{name}` was removed at the service and is dropped")
    } else {
        format!("`{name}` was removed at the service; it is kept and gets no new values")
    }
}
