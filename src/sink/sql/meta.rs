//! The book-keeping of the official client, which is ours as well: `table_sync` says how far each table has come,
//! `database_version` is a single row with 1.

use serde_json::Value;

use super::connection::Connection;
use super::dialect::Dialect;
use super::statement::{Row, Statement};
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::{Bookmark, Namespace, TableRef, Timestamp};
use crate::schema::TableSchema;

/// The layout that both clients know.
const VERSION: &str = "1";

/// What the book-keeping says of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) bookmark: Bookmark,
    /// Whether the data table is there.
    pub(super) exists: bool,
    /// The JSON Schema as stored.
    pub(super) description: String,
}

impl Entry {
    /// Names of the columns of the stored schema.
    pub(super) fn columns(&self) -> Vec<String> {
        let Ok(schema) = serde_json::from_str::<Value>(&self.description) else { return Vec::new() };
        let groups = ["key", "value"].iter().filter_map(|group| schema["properties"][group]["properties"].as_object());
        groups.flat_map(|members| members.keys().cloned()).collect()
    }
}

/// Makes the book-keeping if it is not there. Kind `Unsupported` for databases older than version 1.
pub(super) async fn prepare(connection: &mut dyn Connection, dialect: &dyn Dialect) -> Result<()> {
    let version = dialect.meta_table("database_version");
    let count = Statement::new(format!("SELECT version FROM {version}"));
    if is_true(&connection.rows(&dialect.has_meta()).await?) {
        let rows = connection.rows(&count).await?;
        if matches!(&rows[..], [row] if row.first().and_then(Option::as_deref) == Some(VERSION)) {
            return Ok(());
        }
    }
    connection.execute(&dialect.begin()).await?;
    // Two first runs at once would both make it.
    connection.execute(&dialect.lock("book-keeping")).await?;
    connection.execute(&dialect.create_meta()).await?;
    let rows = connection.rows(&count).await?;
    match &rows[..] {
        [] => {
            let ancient = connection.rows(&dialect.ancient_tables()).await?;
            if !ancient.is_empty() {
                return Err(Error::new(Kind::Unsupported, "The database was made by a client older than version 1.0")
                    .hint("let the official client 2.3 upgrade it first, by any initdb or syncdb"));
            }
            connection.execute(&Statement::new(format!("INSERT INTO {version} (version) VALUES ({VERSION})"))).await?;
        }
        [row] if row.first().and_then(Option::as_deref) == Some(VERSION) => {}
        _ => {
            return Err(Error::new(Kind::Unsupported, "The version of the database's layout is not known")
                .hint("it may have been made by a newer client"));
        }
    }
    connection.execute(&dialect.commit()).await?;
    Ok(())
}

/// Whether the single value of a result is true.
pub(super) fn is_true(rows: &[Row]) -> bool {
    rows.first().and_then(|row| row.first()).and_then(Option::as_deref).is_some_and(|word| word == "t" || word == "1")
}

/// What is known of a table. `None` also where there is no book-keeping.
pub(super) async fn entry(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
    table: &TableRef,
    has_meta: bool,
) -> Result<Option<Entry>> {
    if !has_meta {
        return Ok(None);
    }
    let statement = Statement::new(format!(
        "SELECT id, {}, schema_version, CASE WHEN {} THEN 1 ELSE 0 END, schema_description FROM {} \
         WHERE source_namespace = {} AND source_table = {}",
        dialect.micros_of("timestamp"),
        dialect.exists(table),
        dialect.meta_table("table_sync"),
        dialect.placeholder(1),
        dialect.placeholder(2),
    ))
    .bind(table.namespace.as_str())
    .bind(&table.table);
    let mut rows = connection.rows(&statement).await?;
    if rows.len() > 1 {
        return Err(Error::new(Kind::Target, "The book-keeping has several rows for one table")
            .with("table", table)
            .hint("remove all but the oldest from instructure_dap.table_sync"));
    }
    rows.pop().map(|row| read_entry(row).ok_or_else(unreadable).with("table", table)).transpose()
}

fn unreadable() -> Error {
    Error::new(Kind::Target, "The book-keeping cannot be read")
}

fn read_entry(row: Row) -> Option<Entry> {
    let mut cells = row.into_iter();
    let mut next = || cells.next().flatten();
    let id = next()?;
    let at = Timestamp::from_micros(next()?.parse().ok()?);
    let schema_version = next()?.parse().ok()?;
    let exists = next()? == "1";
    Some(Entry { id, bookmark: Bookmark { at, schema_version }, exists, description: next()? })
}

/// All tables that are known, of one namespace or of all, sorted.
pub(super) async fn tables(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
    namespace: Option<&Namespace>,
) -> Result<Vec<TableRef>> {
    let list = format!("SELECT DISTINCT source_namespace, source_table FROM {}", dialect.meta_table("table_sync"));
    let statement = match namespace {
        None => Statement::new(list),
        Some(namespace) => {
            Statement::new(format!("{list} WHERE source_namespace = {}", dialect.placeholder(1))).bind(namespace.as_str())
        }
    };
    let rows = connection.rows(&statement).await?;
    let mut tables: Vec<TableRef> = rows
        .into_iter()
        .filter_map(|row| {
            let mut cells = row.into_iter().flatten();
            Some(TableRef::new(cells.next()?, cells.next()?))
        })
        .collect();
    // By bytes, whatever the database's collation.
    tables.sort();
    Ok(tables)
}

/// The row that says how far a table has come: a new one, or the one that is there.
pub(super) fn reach(dialect: &dyn Dialect, schema: &TableSchema, old: Option<&Entry>, reached: Bookmark) -> Statement {
    let table = dialect.meta_table("table_sync");
    let place = |number| dialect.placeholder(number);
    let description = description(&schema.source);
    let moment = reached.at.to_datetime().map(|time| time.format("%Y-%m-%d %H:%M:%S%.6f").to_string()).unwrap_or_default();
    match old {
        Some(entry) => Statement::new(format!(
            "UPDATE {table} SET timestamp = {}, schema_version = {}, schema_description_format = 'json', \
             schema_description = {} WHERE id = {}",
            dialect.moment(&place(1)),
            place(2),
            place(3),
            place(4)
        ))
        .bind(moment)
        .bind(reached.schema_version.to_string())
        .bind(description)
        .bind(&entry.id),
        None => Statement::new(format!(
            "INSERT INTO {table} (source_namespace, source_table, timestamp, schema_version, target_schema, target_table, \
             schema_description_format, schema_description) VALUES ({}, {}, {}, {}, {}, {}, 'json', {})",
            place(1),
            place(2),
            dialect.moment(&place(3)),
            place(4),
            place(5),
            place(6),
            place(7)
        ))
        .bind(schema.table.namespace.as_str())
        .bind(&schema.table.table)
        .bind(moment)
        .bind(reached.schema_version.to_string())
        .bind(schema.table.namespace.as_str())
        .bind(&schema.table.table)
        .bind(description),
    }
}

/// The row goes.
pub(super) fn forget(dialect: &dyn Dialect, table: &TableRef) -> Statement {
    Statement::new(format!(
        "DELETE FROM {} WHERE source_namespace = {} AND source_table = {}",
        dialect.meta_table("table_sync"),
        dialect.placeholder(1),
        dialect.placeholder(2)
    ))
    .bind(table.namespace.as_str())
    .bind(&table.table)
}

/// The schema as it is stored: compact, without `properties.meta`.
fn description(source: &Value) -> String {
    let mut source = source.clone();
    if let Some(groups) = source.get_mut("properties").and_then(Value::as_object_mut) {
        groups.shift_remove("meta");
    }
    source.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_stored_schema_has_no_meta_and_keeps_its_order() {
        let source =
            json!({"$schema": "s", "properties": {"z": 1, "meta": {"a": 1}, "key": {"b": 2}, "value": {}}, "type": "object"});
        let text = r#"{"$schema":"s","properties":{"z":1,"key":{"b":2},"value":{}},"type":"object"}"#;
        assert_eq!(description(&source), text);
    }

    #[test]
    fn columns_of_a_stored_schema_are_found() {
        let description =
            json!({"properties": {"key": {"properties": {"id": {}}}, "value": {"properties": {"b": {}, "a": {}}}}});
        let bookmark = Bookmark { at: Timestamp::from_micros(0), schema_version: 1 };
        let entry = Entry { id: "1".into(), bookmark, exists: true, description: description.to_string() };
        assert_eq!(entry.columns(), ["id", "b", "a"]);
        assert_eq!(Entry { description: "no JSON".into(), ..entry }.columns(), [""; 0]);
    }
}
