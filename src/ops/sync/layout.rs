//! The layout of one table: what the rules of a run mean for its columns, mode and partitions.

use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::model::{TableRef, is_pattern, name_matches};
use crate::schema::{ColumnChoice, ColumnRecord, TableOptions, TableRules, TableSchema};
use crate::sink::{CommittedState, Layout, OnSchemaChange};

/// Applies the rules to the current schema of a table.
///
/// A column that the service removed was dropped or hashed before; the table remembers that, and it is only a warning.
///
/// # Errors
/// Kind `Schema` for a column that the table never had: the name is probably misspelt, and the column that should be hidden would be loaded.
pub(in crate::ops) fn choose(
    rules: &TableRules,
    table: &TableRef,
    committed: Option<&CommittedState>,
    schema: &Arc<TableSchema>,
    on_schema_change: OnSchemaChange,
) -> Result<ColumnChoice> {
    let mut columns = rules.of(table).columns;
    if on_schema_change == OnSchemaChange::IgnoreNewColumns {
        columns.drop.extend(new_columns(table, committed, schema));
    }
    let choice = ColumnChoice::of(schema, &columns, rules.hash_key())?;
    let choice = match committed {
        Some(state) => choice.remembering(&state.columns),
        None => choice,
    };
    let unknown = choice.unknown().iter().filter(|name| rules.names_column(table, name));
    let (known_once, unknown): (Vec<&String>, Vec<&String>) = unknown.partition(|name| {
        committed.is_some_and(|state| {
            let is_remembered = state.columns.hashed.contains(name) || state.columns.dropped.contains(name);
            is_remembered || !rules.hides_column(table, name)
        })
    });
    let listed = |names: Vec<&String>| names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    if !unknown.is_empty() {
        return Err(Error::new(Kind::Schema, "A rule refers to a column that the table does not have")
            .with_field("column", listed(unknown))
            .hint(format!(
                "list the columns with `{}`; to refer to one of several tables of this name, add the namespace, as in canvas.users.email",
                schema_command(table)
            )));
    }
    if !known_once.is_empty() {
        tracing::warn!(table = %table, columns = listed(known_once), "A rule refers to columns that the table does not have");
    }
    let idle = rules.hidden_columns().filter(|(tables, column)| {
        !is_pattern(tables)
            && is_pattern(column)
            && table.matches(tables)
            && !schema.columns().any(|known| name_matches(column, &known.name))
    });
    for (_, pattern) in idle {
        tracing::warn!(table = %table, pattern, "A pattern of columns to drop or hash matches no column of the table");
    }
    Ok(choice)
}

/// The columns of the schema that the existing table does not have. A column that was left out once stays left out.
fn new_columns(table: &TableRef, committed: Option<&CommittedState>, schema: &TableSchema) -> Vec<String> {
    let Some((state, known)) = committed.and_then(|state| Some((state, state.known_columns.as_ref()?))) else {
        return Vec::new();
    };
    // A change of case is no new column.
    let is_new = |name: &str| !known.iter().any(|known| known.to_lowercase() == name.to_lowercase());
    let new: Vec<String> =
        schema.value.iter().filter(|column| is_new(&column.name)).map(|column| column.name.clone()).collect();
    let unseen: Vec<&str> = new.iter().filter(|name| !state.columns.dropped.contains(name)).map(String::as_str).collect();
    if !unseen.is_empty() {
        tracing::warn!(table = %table, columns = unseen.join(", "), "New columns of the service are left out (--schema-changes ignore-new-columns)");
    }
    new
}

/// The command that shows the columns of a table.
pub(super) fn schema_command(table: &TableRef) -> String {
    format!("daplake schema --namespace {} --table {}", table.namespace, table.table)
}

/// The user's options for a table.
pub(in crate::ops) fn layout(
    rules: &TableRules,
    table: &TableRef,
    columns: ColumnRecord,
    on_schema_change: OnSchemaChange,
) -> Layout {
    let TableOptions { deletes, mode, partition_by, .. } = rules.of(table);
    Layout { columns, deletes, mode, partition_by, on_schema_change }
}
