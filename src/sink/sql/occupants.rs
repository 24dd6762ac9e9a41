//! Objects that have the names of a table or its parts. What the sync state does not list belongs to another user or program: it is
//! neither replaced nor changed.

use std::collections::HashMap;

use super::connection::Connection;
use super::dialect::{Dialect, LiveColumn, SqlColumn, SqlTable, Statement, indexed};
use super::sync_state;
use crate::error::{Error, Kind, Result};
use crate::model::TableRef;

/// Refuses a table with rows that the sync state does not list, and any object that is not a table. An empty table is used, and so is one
/// that the user allows to take over with `--adopt`. Kind `Target`, or `Conflict` if another run has just created the table.
pub(super) async fn check_table(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
    table: &TableRef,
    is_adopted: bool,
) -> Result<()> {
    let name = dialect.table_name(table);
    match occupant(connection, dialect, table).await?.as_deref() {
        None => return Ok(()),
        Some("table") => {}
        Some(other) => return Err(occupied(other, &name).with_field("table", table)),
    }
    if is_adopted || is_empty(connection, &name).await? {
        return Ok(());
    }
    // Another run may have committed the table since the caller read the sync state.
    if sync_state::exists(connection, dialect).await? && sync_state::entry(connection, dialect, table, true).await?.is_some() {
        return Err(sync_state::loaded_meanwhile());
    }
    Err(foreign_rows(dialect, table))
}

fn foreign_rows(dialect: &dyn Dialect, table: &TableRef) -> Error {
    Error::new(Kind::Target, "The database has a table of this name that contains rows and is not listed in table_sync")
        .with_field("table", table)
        .with_field("relation", dialect.table_name(table))
        .hint(format!("rename or drop that table, or replace all of its rows with --adopt {table}"))
}

/// The error for a table that the sync state lists and that does not exist. Kind `Target`.
pub(super) async fn missing_table(connection: &mut dyn Connection, dialect: &dyn Dialect, table: &TableRef) -> Error {
    let occupant = occupant(connection, dialect, table).await.ok().flatten();
    if occupant.is_none() && is_hidden(connection, dialect, table).await {
        return hidden_table(dialect, table);
    }
    missing_table_beside(dialect, table, occupant.as_deref())
}

/// Whether the user may not read a table that the catalogue does not show. Such a table need not exist.
pub(super) async fn is_hidden(connection: &mut dyn Connection, dialect: &dyn Dialect, table: &TableRef) -> bool {
    let probe = format!("SELECT 1 FROM {} WHERE 1 = 0", dialect.table_name(table));
    connection.rows(&Statement::new(probe)).await.is_err_and(|error| dialect.is_denied(&error))
}

fn hidden_table(dialect: &dyn Dialect, table: &TableRef) -> Error {
    Error::new(Kind::Target, "The user may not read a table that table_sync lists")
        .with_field("table", table)
        .with_field("relation", dialect.table_name(table))
        .hint(
            "grant the user SELECT, INSERT, UPDATE and DELETE on it; if the table was dropped, run dropdb for it, then initdb",
        )
}

fn missing_table_beside(dialect: &dyn Dialect, table: &TableRef, occupant: Option<&str>) -> Error {
    match occupant {
        Some(other) if other != "table" => occupied(other, &dialect.table_name(table)).with_field("table", table),
        _ => Error::new(Kind::Target, "The table was dropped, but table_sync still lists it")
            .with_field("table", table)
            .hint("run dropdb for this table, then initdb"),
    }
}

/// Applies [`check_table`] and [`missing_table`] to many tables, with two statements. Adds the errors to `failures`, and returns the tables that
/// exist and can be used. `is_listed`: whether the sync state lists a table.
pub(super) async fn check_tables(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
    tables: &[TableRef],
    is_listed: impl Fn(&TableRef) -> bool,
    is_adopted: impl Fn(&TableRef) -> bool,
    failures: &mut Vec<Error>,
) -> Result<Vec<TableRef>> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let rows = connection.rows(&dialect.occupants(tables)).await?;
    let kinds: HashMap<usize, String> = rows.iter().filter_map(indexed).collect();
    let (mut usable, mut unlisted) = (Vec::new(), Vec::new());
    for (number, table) in tables.iter().enumerate() {
        match (kinds.get(&number).map(String::as_str), is_listed(table)) {
            (None, false) => {}
            (Some("table"), true) => usable.push(table.clone()),
            (Some("table"), false) if is_adopted(table) => usable.push(table.clone()),
            (Some("table"), false) => unlisted.push(table.clone()),
            (Some(other), false) => failures.push(occupied(other, &dialect.table_name(table)).with_field("table", table)),
            (None, true) if is_hidden(connection, dialect, table).await => failures.push(hidden_table(dialect, table)),
            (occupant, true) => failures.push(missing_table_beside(dialect, table, occupant)),
        }
    }
    if unlisted.is_empty() {
        return Ok(usable);
    }
    let count = |(number, table)| {
        format!("SELECT {number}, CASE WHEN EXISTS (SELECT * FROM {}) THEN '1' ELSE '0' END", dialect.table_name(table))
    };
    let counts: Vec<String> = unlisted.iter().enumerate().map(count).collect();
    let rows = connection.rows(&Statement::new(counts.join(" UNION ALL "))).await?;
    let full: HashMap<usize, String> = rows.iter().filter_map(indexed).collect();
    for (number, table) in unlisted.into_iter().enumerate() {
        match full.get(&number).map(String::as_str) {
            Some("1") => failures.push(foreign_rows(dialect, &table)),
            _ => usable.push(table),
        }
    }
    Ok(usable)
}

/// The lookup table of a column, as a table of the namespace.
pub(super) fn lookup_table(table: &SqlTable, column: &SqlColumn) -> TableRef {
    TableRef::new(table.table.namespace.as_str(), format!("{}__{}", table.table.table, column.source))
}

/// Refuses objects of others that have the names of the table's enumeration types and lookup tables. `live`: the columns of the table, if
/// the sync state lists it; what they use is not refused. Kind `Target`.
pub(super) async fn check_parts(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
    table: &SqlTable,
    live: &[LiveColumn],
) -> Result<()> {
    let is_in_use = |column: &SqlColumn| {
        live.iter().any(|live| match &column.lookup {
            Some((lookup, _)) => live.lookup.as_ref() == Some(lookup),
            None => live.name == column.name && live.sql_type == column.sql_type,
        })
    };
    let open: Vec<&SqlColumn> = table.columns.iter().filter(|column| !is_in_use(column)).collect();
    check_types(connection, dialect, table, &open).await?;
    let lookups = open.iter().filter_map(|column| Some((column, &column.lookup.as_ref()?.0, lookup_table(table, column))));
    let lookups: Vec<_> = lookups.collect();
    if lookups.is_empty() {
        return Ok(());
    }
    let names: Vec<TableRef> = lookups.iter().map(|(_, _, name)| name.clone()).collect();
    let kinds: HashMap<usize, String> = connection.rows(&dialect.occupants(&names)).await?.iter().filter_map(indexed).collect();
    for (number, (column, lookup, name)) in lookups.into_iter().enumerate() {
        match kinds.get(&number).map(String::as_str) {
            None => {}
            Some("table") => {
                let rows = connection.rows(&dialect.live_columns(&name)).await?;
                let columns: Option<Vec<LiveColumn>> = rows.iter().map(|row| dialect.read_live(row)).collect();
                if !columns.is_some_and(|columns| is_lookup(&columns)) {
                    return Err(occupied("table with other columns", lookup).with_field("column", &column.name));
                }
            }
            Some(other) => return Err(occupied(other, lookup).with_field("column", &column.name)),
        }
    }
    Ok(())
}

/// Enumeration types outlive their tables. One that no other table uses may get new values; any other is not changed.
async fn check_types(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
    table: &SqlTable,
    open: &[&SqlColumn],
) -> Result<()> {
    if open.iter().all(|column| column.enumeration.is_none()) {
        return Ok(());
    }
    let (Some(types), Some(values)) = (dialect.occupied_types(table), dialect.live_enumerations(&table.table.namespace)) else {
        return Ok(());
    };
    let occupied_types = connection.rows(&types).await?;
    if occupied_types.is_empty() {
        return Ok(());
    }
    let values = connection.rows(&values).await?;
    for row in occupied_types {
        let [Some(name), Some(kind), user] = &row[..] else { continue };
        let wanted = open.iter().filter_map(|column| Some((column, column.enumeration.as_ref()?)));
        let Some((column, enumeration)) = wanted.into_iter().find(|(_, enumeration)| enumeration.name == *name) else {
            continue;
        };
        let type_name = column.sql_type.trim_end_matches("[]");
        if kind != "enum" {
            return Err(occupied(kind, type_name).with_field("column", &column.name));
        }
        let has = |value: &String| values.iter().any(|row| row[..] == [Some(name.clone()), Some(value.clone())]);
        if let (Some(user), false) = (user, enumeration.members.iter().all(has)) {
            return Err(occupied("type of another table", type_name)
                .with_field("column", &column.name)
                .with_field("used by", user));
        }
    }
    Ok(())
}

fn occupied(kind: &str, name: &str) -> Error {
    Error::new(Kind::Target, "Another object has a name that this table needs")
        .with_field("name", name)
        .with_field("kind", kind)
        .hint("rename or drop that object, then run again")
}

async fn occupant(connection: &mut dyn Connection, dialect: &dyn Dialect, table: &TableRef) -> Result<Option<String>> {
    let rows = connection.rows(&dialect.occupants(std::slice::from_ref(table))).await?;
    Ok(rows.first().and_then(indexed).map(|(_, kind)| kind))
}

pub(super) async fn is_empty(connection: &mut dyn Connection, name: &str) -> Result<bool> {
    let ask = format!("SELECT CASE WHEN EXISTS (SELECT * FROM {name}) THEN 0 ELSE 1 END");
    Ok(sync_state::is_true(&connection.rows(&Statement::new(ask)).await?))
}

/// Whether a table has the structure of a lookup table. Lookup tables of dropped tables stay and are used again. Columns that users added
/// are ignored.
fn is_lookup(columns: &[LiveColumn]) -> bool {
    let find = |name: &str| columns.iter().find(|column| column.name == name);
    let is_number = |column: &LiveColumn| column.sql_type.contains("int") && column.key && column.has_default;
    let is_text = |column: &LiveColumn| ["char", "text"].iter().any(|part| column.sql_type.contains(part)) && column.not_null;
    let others = columns.iter().filter(|column| !["id", "value"].contains(&column.name.as_str()));
    find("id").is_some_and(is_number)
        && find("value").is_some_and(is_text)
        && others.into_iter().all(|column| !column.not_null || column.has_default)
}
