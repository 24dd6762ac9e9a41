//! The sync state, which daplake shares with the official client: `table_sync` has the bookmark of each table, `database_version` a single
//! row with 1.

use std::collections::{HashMap, hash_map};

use serde_json::Value;

use super::connection::{Answer, Connection};
use super::dialect::{Dialect, OWN_NAMESPACE, Row, Statement};
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::{Bookmark, Namespace, TableRef, Timestamp};
use crate::schema::{ColumnRecord, Deletes, TableMode, TableSchema};
use crate::sink::KeptRows;

/// The layout that both programs know.
const VERSION: i64 = 1;

/// The sync state of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) bookmark: Bookmark,
    /// Whether the data table exists.
    pub(super) exists: bool,
    /// The JSON Schema as stored.
    pub(super) description: String,
    /// Which rows the table keeps.
    pub(super) kept: KeptRows,
}

impl Entry {
    /// The stored schema. `None` if it cannot be read.
    pub(super) fn schema(&self, table: &TableRef) -> Option<TableSchema> {
        let source = serde_json::from_str::<Value>(&self.description).ok()?;
        TableSchema::read(table, self.bookmark.schema_version, source).ok()
    }

    /// Which columns are left out or hashed, from the stored schema.
    pub(super) fn columns(&self) -> ColumnRecord {
        serde_json::from_str::<Value>(&self.description)
            .map_or_else(|_| ColumnRecord::default(), |source| ColumnRecord::of_source(&source))
    }

    /// Replaces a bookmark of whole seconds by the exact one. An exact bookmark of another second is outdated: the official client has
    /// loaded the table since.
    fn refine(&mut self, exact: &HashMap<String, i64>) {
        let exact = exact.get(&self.id).map(|micros| Timestamp::from_micros(*micros));
        if let Some(exact) = exact.filter(|exact| exact.whole_seconds() == self.bookmark.at) {
            self.bookmark.at = exact;
        }
    }
}

/// The error of a load that lost against another run.
pub(super) fn loaded_meanwhile() -> Error {
    Error::new(Kind::Conflict, "Another run loaded the table at the same time")
        .hint("run again; the load continues from the table's new bookmark")
}

/// Exact bookmarks in microseconds by the id of their row in `table_sync`, from the answer to
/// [`MetaTables::exact_bookmarks`](super::dialect::MetaTables::exact_bookmarks).
fn exact_bookmarks(answer: Option<Answer>) -> HashMap<String, i64> {
    let rows = answer.map(|answer| answer.rows).unwrap_or_default();
    rows.into_iter()
        .filter_map(|row| {
            let mut cells = row.into_iter().flatten();
            Some((cells.next()?, cells.next()?.parse().ok()?))
        })
        .collect()
}

/// The member of a stored schema that describes what daplake makes of it.
const OWN_MEMBER: &str = "daplake";
/// The table mode, in [`OWN_MEMBER`].
const MODE: &str = "mode";
/// The treatment of deletes, in [`OWN_MEMBER`].
const DELETES: &str = "deletes";
/// The table of the exact bookmarks.
pub(super) const EXACT_BOOKMARKS: &str = "daplake__bookmark";
/// Columns that `table_sync` must have.
pub(super) const SYNC_COLUMNS: [&str; 9] = [
    "id",
    "source_namespace",
    "source_table",
    "timestamp",
    "schema_version",
    "target_schema",
    "target_table",
    "schema_description_format",
    "schema_description",
];

/// Whether the sync state exists. Kind `Target` if other objects have its names.
pub(super) async fn exists(connection: &mut dyn Connection, dialect: &dyn Dialect) -> Result<bool> {
    let rows = connection.rows(&dialect.meta_columns()).await?;
    let of = |table: &'static str| rows.iter().filter(move |row| row.first().and_then(Option::as_deref) == Some(table));
    let mut both = true;
    for (table, needed) in
        [("table_sync", &SYNC_COLUMNS[..]), ("database_version", &["version"]), (EXACT_BOOKMARKS, &["sync_id", "micros"])]
    {
        if of(table).next().is_none() {
            both &= table == EXACT_BOOKMARKS;
            continue;
        }
        let has = |column: &&str| of(table).any(|row| row.get(1).and_then(Option::as_deref) == Some(*column));
        let is_table =
            of(table).all(|row| row.get(2).and_then(Option::as_deref).is_some_and(|cell| cell == "t" || cell == "1"));
        if !is_table || !needed.iter().all(has) {
            return Err(Error::new(Kind::Target, "Another object has the name of a table of the sync state")
                .with_field("name", if table == EXACT_BOOKMARKS { table.to_owned() } else { dialect.meta_table(table) })
                .hint("rename that object, or use another database"));
        }
    }
    Ok(both)
}

/// Creates the sync state if it is missing, and converts that of clients before 1.0. Kind `Unsupported` for an unknown layout.
pub(super) async fn prepare(connection: &mut dyn Connection, dialect: &dyn Dialect) -> Result<()> {
    if exists(connection, dialect).await? && version(&connection.rows(&versions(dialect)).await?)? == Some(VERSION) {
        return Ok(());
    }
    if dialect.ddl_is_transactional() {
        connection.execute(&dialect.begin()).await?;
    }
    // Two first runs could create it at once.
    wait_for_lock(connection, dialect, LOCK).await?;
    for statement in dialect.create_meta() {
        connection.execute(&statement).await?;
    }
    if !dialect.ddl_is_transactional() {
        connection.execute(&dialect.begin()).await?;
    }
    let found = version(&connection.rows(&versions(dialect)).await?)?;
    if found.is_none_or(|version| version == 0) {
        let legacy = connection.rows(&dialect.legacy_tables()).await?;
        let legacy: Vec<String> = legacy.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
        if !legacy.is_empty() {
            tracing::info!(tables = legacy.join(", "), "Converting the sync state of a client older than version 1.0");
        }
        for statement in dialect.migrate(&legacy) {
            connection.execute(&statement).await?;
        }
    }
    if found != Some(VERSION) {
        for statement in dialect.set_version(VERSION) {
            connection.execute(&statement).await?;
        }
    }
    connection.execute(&dialect.commit()).await?;
    if let Some(unlock) = dialect.unlock(LOCK) {
        connection.execute(&unlock).await?;
    }
    Ok(())
}

/// Waits until the session holds the lock `name`. Kind `Conflict` if the server ended the wait.
pub(super) async fn wait_for_lock(connection: &mut dyn Connection, dialect: &dyn Dialect, name: &str) -> Result<()> {
    let answer = connection.rows(&dialect.lock(name)).await?;
    if dialect.is_lock_held(&answer) {
        return Ok(());
    }
    Err(Error::new(Kind::Conflict, "The database server did not grant a lock")
        .with_field("lock", name)
        .hint("another run may hold it; run again when it has ended"))
}

/// Name of the lock for what all tables share.
pub(super) const LOCK: &str = "sync state";

fn versions(dialect: &dyn Dialect) -> Statement {
    Statement::new(format!("SELECT {} FROM {}", dialect.quote("version"), dialect.meta_table("database_version")))
}

/// The version of the layout. `None`: none is set. Kind `Unsupported` for an unknown version.
fn version(rows: &[Row]) -> Result<Option<i64>> {
    let unknown = || {
        Error::new(Kind::Unsupported, "The database has an unknown layout version")
            .hint("a newer client may have created it; instructure_dap.database_version must have one row with 1")
    };
    match rows {
        [] => Ok(None),
        [row] => {
            let version: i64 = row.first().and_then(|cell| cell.as_deref()?.parse().ok()).ok_or_else(unknown)?;
            if (0..=VERSION).contains(&version) { Ok(Some(version)) } else { Err(unknown().with_field("version", version)) }
        }
        _ => Err(unknown().with_field("rows", rows.len())),
    }
}

/// Whether the single value of a result is true.
pub(super) fn is_true(rows: &[Row]) -> bool {
    rows.first().and_then(|row| row.first()).and_then(Option::as_deref).is_some_and(|cell| cell == "t" || cell == "1")
}

/// The sync state of a table. `None` also if there is none at all.
pub(super) async fn entry(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
    table: &TableRef,
    has_meta: bool,
) -> Result<Option<Entry>> {
    if !has_meta {
        return Ok(None);
    }
    read_entry(table, connection.run_all(&entry_queries(dialect, table)).await?)
}

/// The queries whose answers [`read_entry`] reads.
pub(super) fn entry_queries(dialect: &dyn Dialect, table: &TableRef) -> Vec<Statement> {
    let place = |number| dialect.placeholder(number);
    let text = format!(
        "{} WHERE {} {equal} {} AND {} {equal} {}",
        select_entries(dialect),
        dialect.table_namespace(),
        place(1),
        dialect.quote("source_table"),
        place(2),
        equal = dialect.equal()
    );
    let statement = Statement::new(text).bind(table.namespace.as_str()).bind(&table.table);
    std::iter::once(statement).chain(dialect.exact_bookmarks()).collect()
}

/// The sync state of a table, from the answers to [`entry_queries`]. Kind `Target` for several rows.
pub(super) fn read_entry(table: &TableRef, answers: impl IntoIterator<Item = Answer>) -> Result<Option<Entry>> {
    let mut answers = answers.into_iter();
    let mut found = Vec::new();
    for row in answers.next().map(|answer| answer.rows).unwrap_or_default() {
        let (name, entry) = read_row(row).ok_or_else(unreadable).with_field("table", table)?;
        // For the collations of some servers, names are equal that differ in case, accents or trailing blanks.
        if name == *table {
            found.push(entry);
        }
    }
    if found.len() > 1 {
        return Err(duplicate_entries(table));
    }
    let Some(mut entry) = found.pop() else { return Ok(None) };
    entry.refine(&exact_bookmarks(answers.next()));
    Ok(Some(entry))
}

/// The sync state of all tables, with one query. A table with several rows has its error instead.
pub(super) async fn entries(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
) -> Result<HashMap<TableRef, Result<Entry>>> {
    let all: Vec<Statement> =
        std::iter::once(Statement::new(select_entries(dialect))).chain(dialect.exact_bookmarks()).collect();
    let mut answers = connection.run_all(&all).await?.into_iter();
    let rows = answers.next().map(|answer| answer.rows).unwrap_or_default();
    let exact = exact_bookmarks(answers.next());
    let mut entries: HashMap<TableRef, Result<Entry>> = HashMap::new();
    for row in rows {
        let (table, mut entry) = read_row(row).ok_or_else(unreadable)?;
        entry.refine(&exact);
        match entries.entry(table) {
            hash_map::Entry::Occupied(mut known) => {
                let error = duplicate_entries(known.key());
                *known.get_mut() = Err(error);
            }
            hash_map::Entry::Vacant(free) => {
                free.insert(Ok(entry));
            }
        }
    }
    Ok(entries)
}

fn duplicate_entries(table: &TableRef) -> Error {
    Error::new(Kind::Target, "The sync state has several rows for one table")
        .with_field("table", table)
        .hint("delete all but the oldest from instructure_dap.table_sync")
}

pub(super) fn select_entries(dialect: &dyn Dialect) -> String {
    let quote = |name| dialect.quote(name);
    format!(
        "SELECT {}, {}, {}, {}, {}, CASE WHEN {} THEN 1 ELSE 0 END, {} FROM {}",
        dialect.text("source_namespace"),
        dialect.text("source_table"),
        quote("id"),
        dialect.micros_of("timestamp"),
        quote("schema_version"),
        dialect.entry_exists(),
        dialect.text("schema_description"),
        dialect.meta_table("table_sync"),
    )
}

fn unreadable() -> Error {
    Error::new(Kind::Target, "The sync state cannot be read")
}

fn read_row(row: Row) -> Option<(TableRef, Entry)> {
    let mut cells = row.into_iter();
    let mut next = || cells.next().flatten();
    let namespace = next()?;
    let table = TableRef::new(namespace.strip_prefix(OWN_NAMESPACE).unwrap_or(&namespace), next()?);
    let id = next()?;
    let at = Timestamp::from_micros(next()?.parse().ok()?);
    let schema_version = next()?.parse().ok()?;
    let exists = next()? == "1";
    let description = next()?;
    let kept = kept_rows(&description);
    Some((table, Entry { id, bookmark: Bookmark { at, schema_version }, exists, description, kept }))
}

/// The column `source_namespace` of a table.
fn source_namespace(namespace: &Namespace, kept: KeptRows) -> String {
    let prefix = if kept == KeptRows::default() { "" } else { OWN_NAMESPACE };
    format!("{prefix}{namespace}")
}

/// Which rows a table keeps, from its stored schema.
fn kept_rows(description: &str) -> KeptRows {
    let source = serde_json::from_str::<Value>(description).unwrap_or_default();
    let word = |name: &str| source[OWN_MEMBER][name].as_str();
    let default = KeptRows::default();
    KeptRows {
        mode: word(MODE).and_then(|mode| mode.parse::<TableMode>().ok()).unwrap_or(default.mode),
        deletes: word(DELETES).and_then(|deletes| deletes.parse::<Deletes>().ok()).unwrap_or(default.deletes),
    }
}

/// All tables of the sync state, of one namespace or of all, sorted.
pub(super) async fn tables(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
    namespace: Option<&Namespace>,
) -> Result<Vec<TableRef>> {
    let names = ["source_namespace", "source_table"].map(|name| dialect.text(name)).join(", ");
    let list = format!("SELECT {names} FROM {}", dialect.meta_table("table_sync"));
    let statement = match namespace {
        None => Statement::new(list),
        Some(namespace) => {
            let (column, equal, place) = (dialect.table_namespace(), dialect.equal(), dialect.placeholder(1));
            Statement::new(format!("{list} WHERE {column} {equal} {place}")).bind(namespace.as_str())
        }
    };
    let rows = connection.rows(&statement).await?;
    let mut tables: Vec<TableRef> = rows
        .into_iter()
        .filter_map(|row| {
            let mut cells = row.into_iter().flatten();
            let namespace = cells.next()?;
            Some(TableRef::new(namespace.strip_prefix(OWN_NAMESPACE).unwrap_or(&namespace), cells.next()?))
        })
        .collect();
    // By bytes, whatever the database's collation.
    tables.sort();
    tables.dedup();
    Ok(tables)
}

/// Stores the bookmark and the schema of a table and which rows it keeps, in a new row or the existing one.
pub(super) fn store_bookmark(
    dialect: &dyn Dialect,
    schema: &TableSchema,
    kept: KeptRows,
    old: Option<&Entry>,
    reached: Bookmark,
) -> Statement {
    let namespace = source_namespace(&schema.table.namespace, kept);
    let table = dialect.meta_table("table_sync");
    let place = |number| dialect.placeholder(number);
    let description = description(&schema.source, kept);
    let at = reached.at.to_datetime().map(|time| time.format("%Y-%m-%d %H:%M:%S%.6f").to_string()).unwrap_or_default();
    let names = |names: &[&str]| names.iter().map(|name| dialect.quote(name)).collect::<Vec<_>>();
    match old {
        Some(entry) => {
            let [timestamp, version, format, text, id] =
                ["timestamp", "schema_version", "schema_description_format", "schema_description", "id"]
                    .map(|name| dialect.quote(name));
            let is_renamed = entry.kept != kept;
            let mut renamed = String::new();
            if is_renamed {
                renamed = format!(", {} = {}", dialect.quote("source_namespace"), place(4));
            }
            let update = Statement::new(format!(
                "UPDATE {table} SET {timestamp} = {}, {version} = {}, {format} = 'json', {text} = {}{renamed} WHERE {id} = {}",
                dialect.timestamp(&place(1)),
                dialect.integer(&place(2)),
                place(3),
                dialect.integer(&place(if is_renamed { 5 } else { 4 }))
            ))
            .bind(at)
            .bind(reached.schema_version.to_string())
            .bind(description);
            let update = if is_renamed { update.bind(namespace) } else { update };
            update.bind(&entry.id)
        }
        None => {
            let columns = names(&[
                "source_namespace",
                "source_table",
                "timestamp",
                "schema_version",
                "target_schema",
                "target_table",
                "schema_description",
                "schema_description_format",
            ]);
            let values: Vec<String> = (1..=7)
                .map(|number| match number {
                    3 => dialect.timestamp(&place(3)),
                    4 => dialect.integer(&place(4)),
                    other => place(other),
                })
                .collect();
            Statement::new(format!("INSERT INTO {table} ({}) VALUES ({}, 'json')", columns.join(", "), values.join(", ")))
                .bind(namespace)
                .bind(&schema.table.table)
                .bind(at)
                .bind(reached.schema_version.to_string())
                .bind(schema.table.namespace.as_str())
                .bind(&schema.table.table)
                .bind(description)
        }
    }
}

/// Removes the row of a table.
pub(super) fn remove_entry(dialect: &dyn Dialect, table: &TableRef) -> Statement {
    Statement::new(format!(
        "DELETE FROM {} WHERE {} {equal} {} AND {} {equal} {}",
        dialect.meta_table("table_sync"),
        dialect.table_namespace(),
        dialect.placeholder(1),
        dialect.quote("source_table"),
        dialect.placeholder(2),
        equal = dialect.equal()
    ))
    .bind(table.namespace.as_str())
    .bind(&table.table)
}

/// The schema as it is stored: compact, without `properties.meta`. A choice of rows that is not the default is added to the member that
/// also has the choice of columns.
fn description(source: &Value, kept: KeptRows) -> String {
    let mut source = source.clone();
    if let Some(groups) = source.get_mut("properties").and_then(Value::as_object_mut) {
        groups.shift_remove("meta");
    }
    let default = KeptRows::default();
    let mut set = |name: &str, value: &str| {
        if !source[OWN_MEMBER].is_object() {
            source[OWN_MEMBER] = Value::Object(serde_json::Map::new());
        }
        source[OWN_MEMBER][name] = Value::from(value);
    };
    if kept.mode != default.mode {
        set(MODE, kept.mode.as_str());
    }
    if kept.deletes != default.deletes {
        set(DELETES, kept.deletes.as_str());
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
        assert_eq!(description(&source, KeptRows::default()), text);
        let kept = KeptRows { deletes: Deletes::Mark, ..KeptRows::default() };
        let text = description(&source, kept);
        assert!(text.ends_with(r#","daplake":{"deletes":"mark"}}"#), "{text}");
        assert_eq!(kept_rows(&text), kept);
        let history = KeptRows { mode: TableMode::History, ..KeptRows::default() };
        let chosen = json!({"properties": {}, "daplake": {"dropped": ["a"]}});
        let text = description(&chosen, history);
        assert_eq!(text, r#"{"properties":{},"daplake":{"dropped":["a"],"mode":"history"}}"#);
        assert_eq!((kept_rows(&text), kept_rows("no JSON")), (history, KeptRows::default()));
        assert_eq!(ColumnRecord::of_source(&serde_json::from_str(&text).unwrap()).dropped, ["a"]);
    }

    #[test]
    fn a_stored_schema_is_a_schema_again() {
        let source = json!({"properties": {
            "key": {"properties": {"id": {"type": "integer"}}, "required": ["id"]},
            "value": {"properties": {"b": {"type": "string"}, "a": {"type": "boolean"}}}
        }});
        let bookmark = Bookmark { at: Timestamp::from_micros(0), schema_version: 1 };
        let description = source.to_string();
        let entry = Entry { id: "1".into(), bookmark, exists: true, description, kept: KeptRows::default() };
        let table = TableRef::new("canvas", "t");
        let names: Vec<String> = entry.schema(&table).unwrap().columns().map(|column| column.name.clone()).collect();
        assert_eq!(names, ["id", "b", "a"]);
        assert_eq!(Entry { description: "no JSON".into(), ..entry }.schema(&table), None);
    }

    #[test]
    fn a_version_is_one_row() {
        let row = |text: &str| vec![Some(text.to_owned())];
        assert_eq!(version(&[]).unwrap(), None);
        assert_eq!(version(&[row("0")]).unwrap(), Some(0));
        assert_eq!(version(&[row("1")]).unwrap(), Some(1));
        for odd in [vec![row("5")], vec![row("-1")], vec![row("1"), row("1")], vec![vec![None]]] {
            assert_eq!(version(&odd).unwrap_err().kind(), Kind::Unsupported, "{odd:?}");
        }
    }
}
