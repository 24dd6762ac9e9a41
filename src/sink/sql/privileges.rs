//! Checks before any load. For new tables: creates what a first load creates, and undoes it. For tables that exist: asks the server what they
//! are and which privileges the user has.

use std::collections::{HashMap, HashSet};

use serde_json::json;

use super::connection::Connection;
use super::database::Database;
use super::dialect::{Dialect, indexed};
use super::occupants;
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::{Namespace, TableRef};
use crate::schema::TableSchema;
use crate::sink::TableProblems;

/// Statements of a hint.
const MAX_GRANTS: usize = 3;

/// Checks the privileges for the sync state and for a table in each namespace. The table has a name that no table of the service has.
pub(super) async fn check(database: &Database, namespaces: &[Namespace]) -> Result<()> {
    let _slot = database.query_slot().await?;
    let mut session = database.session().await?;
    if !database.has_sync_state(session.as_mut()).await? {
        database.check_sync_state_privileges(session.as_mut()).await?;
    }
    // After a failure the session ends, and the server rolls back.
    let created = create_and_undo(database, session.as_mut(), namespaces).await;
    created.hint("allow the user to create schemas and tables in this database")?;
    database.give_back(session);
    Ok(())
}

async fn create_and_undo(database: &Database, session: &mut dyn Connection, namespaces: &[Namespace]) -> Result<()> {
    let dialect = database.dialect();
    let has_sync_state = database.has_sync_state(session).await?;
    for namespace in namespaces {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let name = TableRef::new(namespace.as_str(), format!("daplake_check_{}", &id[..8]));
        let source = json!({"properties": {
            "key": {"properties": {"id": {"type": "integer", "format": "int64"}}, "required": ["id"]},
            "value": {"properties": {"text": {"type": "string"}}}
        }});
        let table = dialect.table_of(&TableSchema::read(&name, 1, source)?)?;
        let create_table = dialect.create_table(&table).into_iter().chain(dialect.add_key(&table));
        if !dialect.ddl_is_transactional() {
            // Schema statements commit, so the table is dropped, and the sync state is not created for a check.
            for statement in create_table {
                session.execute(&statement).await.with_field("namespace", namespace)?;
            }
            session.execute(&dialect.drop_table(&name)).await.with_field("namespace", namespace)?;
            continue;
        }
        session.execute(&dialect.begin()).await?;
        let create_meta = if has_sync_state { Vec::new() } else { dialect.create_meta() };
        for statement in create_meta.into_iter().chain(dialect.create_namespace(namespace)).chain(create_table) {
            session.execute(&statement).await.with_field("namespace", namespace)?;
        }
        session.execute(&dialect.rollback()).await?;
    }
    Ok(())
}

/// Checks the tables that exist under the names of `tables`, and the tables of the sync state. The number of statements does not depend on the
/// number of tables.
pub(super) async fn check_tables(database: &Database, tables: &[TableRef]) -> Result<TableProblems> {
    let _slot = database.query_slot().await?;
    let mut session = database.session().await?;
    let (connection, dialect) = (session.as_mut(), database.dialect());
    let mut problems = TableProblems::default();
    if !database.has_sync_state(connection).await? && !connection.rows(&dialect.legacy_tables()).await?.is_empty() {
        // The first run converts the sync state.
        database.give_back(session);
        return Ok(problems);
    }
    let mut tables = tables.to_vec();
    let mut listed = HashMap::new();
    for (table, entry) in database.entries(connection).await? {
        match entry {
            Ok(entry) => drop(listed.insert(table, entry)),
            Err(error) if tables.contains(&table) => {
                tables.retain(|other| *other != table);
                problems.failures.push(error);
            }
            Err(_) => {}
        }
    }
    let is_listed = |table: &TableRef| listed.contains_key(table);
    let is_adopted = |table: &TableRef| database.is_adopted(table);
    let usable = occupants::check_tables(connection, dialect, &tables, is_listed, is_adopted, &mut problems.failures).await?;
    let stored = usable.iter().filter_map(|table| dialect.table_of(&listed.get(table)?.schema(table)?).ok());
    let lookups: Vec<TableRef> = stored
        .flat_map(|table| {
            let lookups = table.columns.iter().filter(|column| column.lookup.is_some());
            lookups.map(|column| occupants::lookup_table(&table, column)).collect::<Vec<_>>()
        })
        .collect();
    check_privileges(connection, dialect, usable, lookups, &mut problems).await?;
    database.give_back(session);
    Ok(problems)
}

/// Reports the privileges that loads of existing tables need and the user lacks. `lookups`: their lookup tables, some of which may not exist.
async fn check_privileges(
    connection: &mut dyn Connection,
    dialect: &dyn Dialect,
    mut tables: Vec<TableRef>,
    lookups: Vec<TableRef>,
    problems: &mut TableProblems,
) -> Result<()> {
    let bookmarks = TableRef::new("instructure_dap", "table_sync");
    tables.push(bookmarks.clone());
    let first_lookup = tables.len();
    let shown = if lookups.is_empty() { Vec::new() } else { connection.rows(&dialect.occupants(&lookups)).await? };
    let shown: HashSet<usize> = shown.iter().filter_map(indexed).map(|(number, _)| number).collect();
    let (shown, hidden): (Vec<_>, Vec<_>) = lookups.into_iter().enumerate().partition(|(number, _)| shown.contains(number));
    tables.extend(shown.into_iter().map(|(_, table)| table));
    let mut answers = Vec::new();
    for ask in dialect.table_privileges(&tables) {
        answers.push(connection.rows(&ask).await?);
    }
    let mut missing = dialect.missing_privileges(&tables, &answers);
    // Loads change rows of the sync state and add values to lookup tables, and nothing else of them.
    let is_needed = |number: usize, privilege: &str| match tables.get(number) {
        None => false,
        Some(table) if *table == bookmarks => ["SELECT", "INSERT", "UPDATE"].contains(&privilege),
        Some(_) => number < first_lookup || ["SELECT", "INSERT"].contains(&privilege),
    };
    missing.retain(|(number, privilege)| is_needed(*number, privilege));
    for (_, lookup) in hidden {
        if occupants::is_hidden(connection, dialect, &lookup).await {
            missing.extend(["SELECT", "INSERT"].map(|privilege| (tables.len(), privilege.to_owned())));
            tables.push(lookup);
        }
    }
    let mut probed: Vec<String> = Vec::new();
    for (number, privilege) in missing.clone() {
        if probed.contains(&privilege) {
            continue;
        }
        let Some(probe) = tables.get(number).and_then(|table| dialect.privilege_probe(table, &privilege)) else { continue };
        if connection.rows(&probe).await.is_ok() {
            missing.retain(|(_, other)| *other != privilege);
        }
        probed.push(privilege);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let grantee = connection.rows(&dialect.grantee()).await?.into_iter().flatten().flatten().next().unwrap_or_default();
    let is_of_schema = |privilege: &str| ["ALTER", "OWNER"].contains(&privilege);
    let (of_schema, of_rows): (Vec<_>, Vec<_>) = missing.into_iter().partition(|(_, privilege)| is_of_schema(privilege));
    if !of_rows.is_empty() {
        let message = "The user lacks privileges on tables that exist";
        problems.failures.push(lacking(message, dialect, &tables, &of_rows, &grantee));
    }
    if !of_schema.is_empty() {
        let message =
            "The user may write rows of tables that exist, but not change their schema: a new column will fail its load";
        problems.warnings.push(lacking(message, dialect, &tables, &of_schema, &grantee));
    }
    Ok(())
}

/// The error about missing privileges, with the statements that grant them.
fn lacking(
    message: &'static str,
    dialect: &dyn Dialect,
    tables: &[TableRef],
    missing: &[(usize, String)],
    grantee: &str,
) -> Error {
    let mut by_table: Vec<(&TableRef, Vec<&str>)> = Vec::new();
    for (number, table) in tables.iter().enumerate() {
        let privileges = missing.iter().filter(|(of, _)| *of == number).map(|(_, privilege)| privilege.as_str());
        let privileges: Vec<&str> = privileges.collect();
        if !privileges.is_empty() {
            by_table.push((table, privileges));
        }
    }
    let listed: Vec<String> =
        by_table.iter().map(|(table, privileges)| format!("{table} ({})", privileges.join(", "))).collect();
    let grants = by_table.iter().take(MAX_GRANTS).map(|(table, privileges)| match &privileges[..] {
        ["OWNER"] => format!("ALTER TABLE {} OWNER TO {grantee}", dialect.table_name(table)),
        _ => format!("GRANT {} ON {} TO {grantee}", privileges.join(", "), dialect.table_name(table)),
    });
    let more = if by_table.len() > MAX_GRANTS { "; and so on for the other tables" } else { "" };
    let hint = format!("run as the owner or an administrator: {}{more}", grants.collect::<Vec<_>>().join("; "));
    Error::new(Kind::Target, message).with_field("tables", listed.join(", ")).hint(hint)
}
