//! What stands where something of ours is to be. What the bookkeeping does not know was made by somebody else: it is neither
//! replaced nor changed.

use super::connection::Connection;
use super::dialect::{Dialect, LiveColumn, SqlColumn, SqlTable};
use super::meta;
use super::statement::Statement;
use crate::error::{Error, Kind, Result};
use crate::model::TableRef;

/// Refuses a table that is not ours and has rows, and whatever is no table. An empty table may be used, and so may one that the
/// user gave up with `--adopt`.
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
        Some(other) => return Err(in_the_way(other, &name).with_field("table", table)),
    }
    if is_adopted || is_empty(connection, &name).await? {
        return Ok(());
    }
    Err(Error::new(
        Kind::Target,
        "The database has a table of this name with rows, which the bookkeeping (table_sync) does not know",
    )
    .with_field("table", table)
    .with_field("relation", name)
    .hint(format!("rename or drop that table; if all its rows may be replaced, run again with --adopt {table}")))
}

/// Why a table that the bookkeeping knows is not there.
pub(super) async fn missing(connection: &mut dyn Connection, dialect: &dyn Dialect, table: &TableRef) -> Error {
    match occupant(connection, dialect, table).await {
        Ok(Some(other)) if other != "table" => in_the_way(&other, &dialect.table_name(table)).with_field("table", table),
        _ => Error::new(Kind::Target, "The table was removed from the database, but its bookkeeping row is still there")
            .with_field("table", table)
            .hint("run dropdb for this table, then initdb"),
    }
}

/// Refuses what stands at the names of the table's enumeration types and lookup tables and cannot be ours. `live`: the columns of
/// the table, if it is ours; what they use is ours as well.
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
                    return Err(in_the_way("table with other columns", lookup).with_field("column", &column.name));
                }
            }
            Some(other) => return Err(in_the_way(other, lookup).with_field("column", &column.name)),
        }
    }
    Ok(())
}

/// Enumeration types outlive their tables. One that nobody else uses may get words; one of somebody else is not changed.
async fn check_types(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
    table: &SqlTable,
    open: &[&SqlColumn],
) -> Result<()> {
    if open.iter().all(|column| column.enumeration.is_none()) {
        return Ok(());
    }
    let (Some(ask), Some(ask_words)) = (dialect.occupied_types(table), dialect.live_enumerations(&table.table.namespace))
    else {
        return Ok(());
    };
    let occupied = connection.rows(&ask).await?;
    if occupied.is_empty() {
        return Ok(());
    }
    let words = connection.rows(&ask_words).await?;
    for row in occupied {
        let [Some(name), Some(kind), user] = &row[..] else { continue };
        let wanted = open.iter().filter_map(|column| Some((column, column.enumeration.as_ref()?)));
        let Some((column, enumeration)) = wanted.into_iter().find(|(_, enumeration)| enumeration.name == *name) else {
            continue;
        };
        let type_name = column.sql_type.trim_end_matches("[]");
        if kind != "enum" {
            return Err(in_the_way(kind, type_name).with_field("column", &column.name));
        }
        let has = |word: &String| words.iter().any(|row| row[..] == [Some(name.clone()), Some(word.clone())]);
        if let (Some(user), false) = (user, enumeration.members.iter().all(has)) {
            return Err(in_the_way("type of another table", type_name)
                .with_field("column", &column.name)
                .with_field("used by", user));
        }
    }
    Ok(())
}

fn in_the_way(kind: &str, name: &str) -> Error {
    Error::new(Kind::Target, "Something that is not ours has a name that this table needs")
        .with_field("name", name)
        .with_field("kind", kind)
        .hint("rename it or drop it, then run again")
}

async fn occupant(connection: &mut dyn Connection, dialect: &dyn Dialect, table: &TableRef) -> Result<Option<String>> {
    let rows = connection.rows(&dialect.occupant(table)).await?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
}

pub(super) async fn is_empty(connection: &mut dyn Connection, name: &str) -> Result<bool> {
    let ask = format!("SELECT CASE WHEN EXISTS (SELECT * FROM {name}) THEN 0 ELSE 1 END");
    Ok(meta::is_true(&connection.rows(&Statement::new(ask)).await?))
}

/// Whether a table is built as our lookup tables are; those of tables that were dropped stay, and are used again. Columns that
/// users added do not matter.
fn is_lookup(columns: &[LiveColumn]) -> bool {
    let find = |name: &str| columns.iter().find(|column| column.name == name);
    let is_number = |column: &LiveColumn| column.sql_type.contains("int") && column.key && column.has_default;
    let is_text = |column: &LiveColumn| ["char", "text"].iter().any(|word| column.sql_type.contains(word)) && column.not_null;
    let others = columns.iter().filter(|column| !["id", "value"].contains(&column.name.as_str()));
    find("id").is_some_and(is_number)
        && find("value").is_some_and(is_text)
        && others.into_iter().all(|column| !column.not_null || column.has_default)
}
