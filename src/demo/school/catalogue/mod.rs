//! The tables of the service: names, references between columns, and the first version of each schema. Generates no rows.

pub(crate) mod entry;
#[rustfmt::skip]
pub(crate) mod index;

use serde_json::Value;

use crate::demo::school::catalogue::entry::Entry;
use crate::demo::school::catalogue::index::{ENTRIES, NAMESPACES};
use crate::model::TableRef;

/// A column that refers to other tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation {
    /// Namespace of the referring table.
    pub namespace: &'static str,
    /// The referring table.
    pub table: &'static str,
    /// The referring column.
    pub column: &'static str,
    /// Full names (`namespace.table`) of the referenced tables; the reference is always to their `id`. If there are several, a `*_type`
    /// column beside it selects one. Some of them (such as `canvas.sis_batches`) are not part of the catalogue.
    pub targets: &'static [&'static str],
}

/// The namespaces, in the service's order. `new_quizzes` has no tables in the catalogue.
pub fn namespaces() -> &'static [&'static str] {
    NAMESPACES
}

/// Namespace and name of every table, sorted.
pub fn tables() -> impl Iterator<Item = (&'static str, &'static str)> {
    ENTRIES.iter().map(|entry| (entry.namespace, entry.table))
}

/// All documented references, ordered by table and column.
pub fn relations() -> impl Iterator<Item = Relation> {
    ENTRIES.iter().flat_map(|entry| {
        entry.references.iter().map(|&(column, targets)| Relation {
            namespace: entry.namespace,
            table: entry.table,
            column,
            targets,
        })
    })
}

/// The service's JSON Schema of a table at version 1.
pub fn schema(table: &TableRef) -> Option<Value> {
    entry(table).map(Entry::schema)
}

pub(crate) fn entry(table: &TableRef) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.namespace == table.namespace.as_str() && entry.table == table.table)
}
