//! Names and literals of PostgreSQL, and the statements that several files need.

use crate::model::TableRef;
use crate::sink::sql::dialect::{SqlColumn, SqlTable, Statement};

/// Bytes of a name; the server cuts longer ones.
const NAME_BYTES: usize = 63;
/// The staging table.
pub(super) const STAGE: &str = "pg_temp.\"daplake_stage\"";
/// The equality operator for rows of users, qualified so that no operator of the same name takes its place.
pub(super) const EQUAL: &str = "OPERATOR(pg_catalog.=)";

/// A name in quotes.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string literal. The session sets `standard_conforming_strings`.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name cut as the server would cut it, so that it is found again.
pub(super) fn cut_name(name: &str) -> String {
    let mut end = name.len().min(NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

/// The qualified name of a table.
pub(super) fn table_name(table: &TableRef) -> String {
    format!("{}.{}", quote(table.namespace.as_str()), quote(&cut_name(&table.table)))
}

/// The quoted names of columns, separated by commas.
pub(super) fn quoted<'c>(columns: impl Iterator<Item = &'c SqlColumn>) -> String {
    columns.map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ")
}

/// `ALTER TABLE` with one action.
pub(super) fn alter(table: &SqlTable, action: &str) -> Statement {
    Statement::new(format!("ALTER TABLE {} {action}", table_name(&table.table)))
}

/// Name, type and constraints of a new column.
pub(super) fn define(column: &SqlColumn, required: bool) -> String {
    let mut text = format!("{} {}", quote(&column.name), column.sql_type);
    if required {
        text.push_str(" NOT NULL");
    }
    if let Some(default) = &column.default {
        text.push_str(" DEFAULT ");
        text.push_str(default);
    }
    text
}

/// The foreign key of a column to its lookup table.
pub(super) fn add_foreign_key(table: &SqlTable, column: &SqlColumn) -> Option<Statement> {
    let (lookup, constraint) = column.lookup.as_ref()?;
    let (name, constraint) = (quote(&column.name), quote(constraint));
    Some(alter(table, &format!("ADD CONSTRAINT {constraint} FOREIGN KEY ({name}) REFERENCES {lookup} (\"id\")")))
}

/// The primary key.
pub(super) fn add_primary_key(table: &SqlTable) -> Statement {
    let name = quote(&cut_name(&format!("pk_{}", table.table.table)));
    alter(table, &format!("ADD CONSTRAINT {name} PRIMARY KEY ({})", quoted(table.primary_key())))
}

/// The comment of a column.
pub(super) fn comment_on(table: &SqlTable, column: &SqlColumn) -> Option<Statement> {
    let text = literal(column.comment.as_ref()?);
    Some(Statement::new(format!("COMMENT ON COLUMN {}.{} IS {text}", table_name(&table.table), quote(&column.name))))
}

/// The id of a staged enum value, `{}`.
pub(super) fn id_of_value(lookup: &str) -> String {
    format!("(SELECT l.\"id\" FROM {lookup} AS l WHERE l.\"value\" {EQUAL} {{}})")
}
