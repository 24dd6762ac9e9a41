//! Expressions about staged rows: their values as the table stores them, and comparisons with the rows of the table.

use super::names::quote;
use super::types::{LOOKUP_BYTES, STAGED_CHARACTERS, is_staged_text};
use crate::sink::sql::dialect::{SqlColumn, SqlTable};

/// The bytes of a string of at most `characters` characters, plus one more character: the server ignores trailing zeros when it compares bytes,
/// and would treat `a` and `a` followed by NUL as equal.
pub(super) fn bytes_of(text: &str, characters: usize) -> String {
    format!("CAST(CAST({text} AS nvarchar({characters})) + N'.' AS varbinary({}))", (characters + 1) * 2)
}

/// Compares two strings of at most `characters` characters byte by byte, whatever the collation.
pub(super) fn same_bytes(one: &str, other: &str, characters: usize) -> String {
    format!("{} = {}", bytes_of(one, characters), bytes_of(other, characters))
}

/// The staged value of a column, as the table stores it.
pub(super) fn staged(table: &SqlTable, column: &SqlColumn) -> String {
    let name = format!("s.{}", quote(&column.name));
    match (&column.lookup, &column.convert) {
        (Some(_), _) => {
            let place = table.columns.iter().position(|other| other.name == column.name).unwrap_or_default();
            format!("l{place}.[id]")
        }
        (None, Some(convert)) => convert.replace("{}", &name),
        (None, None) => name,
    }
}

/// Joins the lookup tables of some columns by the staged values.
pub(super) fn lookups(table: &SqlTable, wanted: impl Fn(&SqlColumn) -> bool) -> String {
    let columns = table.columns.iter().enumerate().filter(|(_, column)| wanted(column));
    let joins = columns.filter_map(|(place, column)| {
        let (lookup, _) = column.lookup.as_ref()?;
        let same = same_bytes(&format!("l{place}.[value]"), &format!("s.{}", quote(&column.name)), LOOKUP_BYTES);
        Some(format!(" LEFT JOIN {lookup} AS l{place} ON {same}"))
    });
    joins.collect()
}

/// The row of the table, `t`, has the primary key of the staged one, `s`: its key, and in a history its start.
pub(super) fn same_row(table: &SqlTable) -> String {
    let starts = table.primary_key().filter(|column| !column.key).map(|column| quote(&column.name));
    starts.fold(same_key(table), |same, start| format!("{same} AND t.{start} = s.{start}"))
}

/// The row of the table, `t`, has the key of the staged one, `s`.
pub(super) fn same_key(table: &SqlTable) -> String {
    let same = table.keys().map(|column| {
        let (is, staged) = (format!("t.{}", quote(&column.name)), staged(table, column));
        let equal = format!("{is} = {staged}");
        match column.lookup.is_none() && is_staged_text(column) {
            true => format!("{equal} AND {}", same_bytes(&is, &staged, STAGED_CHARACTERS as usize)),
            false => equal,
        }
    });
    same.collect::<Vec<_>>().join(" AND ")
}
