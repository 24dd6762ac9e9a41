//! Names and literals of MySQL and MariaDB, and the statements that several files need.

use crate::model::TableRef;
use crate::sink::sql::dialect::{SqlColumn, SqlTable, Statement};

/// The staging table, without a prefix that the official client looks for.
pub(super) const STAGE: &str = "`daplake_stage`";
/// Characters of a name.
pub(super) const NAME_CHARS: usize = 64;

/// A name in quotes.
pub(super) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A string literal. The session does not set `NO_BACKSLASH_ESCAPES`.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A name of at most the server's length; the end of a longer name becomes a checksum of it.
pub(super) fn cut_name(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS {
        return name.to_owned();
    }
    let start: String = name.chars().take(NAME_CHARS - 9).collect();
    format!("{start}_{:08x}", crc32fast::hash(name.as_bytes()))
}

/// Whether the server cannot hold a character in names and comments, which are UTF-8 of at most three bytes.
pub(super) fn is_beyond_names(character: char) -> bool {
    character == '\0' || u32::from(character) > 0xFFFF
}

/// Name of a table in the connected database, unquoted.
pub(super) fn full_name(table: &TableRef) -> String {
    format!("{}__{}", table.namespace, table.table)
}

/// The quoted name of a table.
pub(super) fn table_name(table: &TableRef) -> String {
    quote(&full_name(table))
}

/// The names of tables as literals, separated by commas.
pub(super) fn listed(tables: &[TableRef]) -> String {
    tables.iter().map(|table| literal(&full_name(table))).collect::<Vec<_>>().join(", ")
}

/// The quoted names of columns, separated by commas.
pub(super) fn quoted<'c>(columns: impl Iterator<Item = &'c SqlColumn>) -> String {
    columns.map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ")
}

/// `ALTER TABLE` with several actions.
pub(super) fn alter(table: &SqlTable, actions: &str) -> Statement {
    Statement::new(format!("ALTER TABLE {} {actions}", table_name(&table.table)))
}

/// Name, type, nullability, default and comment of a column.
pub(super) fn define(column: &SqlColumn, sql_type: &str, required: bool) -> String {
    let mut text = format!("{} {sql_type}", quote(&column.name));
    if required {
        text.push_str(" NOT NULL");
    }
    if let Some(default) = &column.default {
        text.push_str(" DEFAULT ");
        text.push_str(default);
    }
    if let Some(comment) = &column.comment {
        text.push_str(" COMMENT ");
        text.push_str(&literal(comment));
    }
    text
}

/// The definition of a column's foreign key to its lookup table.
pub(super) fn foreign_key(column: &SqlColumn) -> Option<String> {
    let (lookup, constraint) = column.lookup.as_ref()?;
    let (name, constraint) = (quote(&column.name), quote(constraint));
    Some(format!("CONSTRAINT {constraint} FOREIGN KEY ({name}) REFERENCES {lookup} (`id`)"))
}

/// Adds that foreign key.
pub(super) fn add_foreign_key(table: &SqlTable, column: &SqlColumn) -> Option<Statement> {
    Some(alter(table, &format!("ADD {}", foreign_key(column)?)))
}

/// The id of a staged enum value, `{}`.
pub(super) fn id_of_value(lookup: &str) -> String {
    format!("(SELECT l.`id` FROM {lookup} AS l WHERE l.`value` = {{}})")
}
