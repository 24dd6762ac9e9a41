//! Objects that have the names of a table or its parts. What the sync state does not list belongs to another user or program: it is
//! neither replaced nor changed.

use super::connection::Connection;
use super::dialect::{Dialect, LiveColumn, SqlColumn, SqlTable, Statement};
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
    Err(Error::new(Kind::Target, "The database has a table of this name that contains rows and is not listed in table_sync")
        .with_field("table", table)
        .with_field("relation", name)
        .hint(format!("rename or drop that table, or replace all of its rows with --adopt {table}")))
}

/// The error for a table that the sync state lists and that does not exist. Kind `Target`.
pub(super) async fn missing_table(connection: &mut dyn Connection, dialect: &dyn Dialect, table: &TableRef) -> Error {
    match occupant(connection, dialect, table).await {
        Ok(Some(other)) if other != "table" => occupied(&other, &dialect.table_name(table)).with_field("table", table),
        _ => Error::new(Kind::Target, "The table was dropped, but table_sync still lists it")
            .with_field("table", table)
            .hint("run dropdb for this table, then initdb"),
    }
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
    for column in open {
        let Some((lookup, _)) = &column.lookup else { continue };
        let name = TableRef::new(table.table.namespace.as_str(), format!("{}__{}", table.table.table, column.source));
        match occupant(connection, dialect, &name).await?.as_deref() {
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
    let rows = connection.rows(&dialect.occupant(table)).await?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
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
