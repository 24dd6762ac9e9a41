//! What tables there are, how their columns refer to each other, and the text of their first schemas: the public face of the
//! generated index. It makes no rows.

use serde_json::Value;

use super::index::{ENTRIES, NAMESPACES};
use crate::model::TableRef;

/// One table of the generated index.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) namespace: &'static str,
    pub(super) table: &'static str,
    /// `{"schema": ..., "version": 1}`.
    pub(super) text: &'static str,
    /// Column, full names of the tables it may refer to (by their `id`).
    pub(super) references: &'static [(&'static str, &'static [&'static str])],
    /// Text columns that hold JSON.
    pub(super) json: &'static [&'static str],
}

/// A column that refers to other tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation {
    /// Namespace of the referring table.
    pub namespace: &'static str,
    /// The referring table.
    pub table: &'static str,
    /// The referring column.
    pub column: &'static str,
    /// Full names (`namespace.table`) of the tables referred to, always by their `id`. Several: a `*_type` column beside it
    /// says which. Some of them (such as `canvas.sis_batches`) are not among the tables.
    pub targets: &'static [&'static str],
}

/// The namespaces, in the service's order. `new_quizzes` has no tables in the catalogue.
pub fn namespaces() -> &'static [&'static str] {
    NAMESPACES
}

/// Namespace and name of every table, by namespace and name.
pub fn tables() -> impl Iterator<Item = (&'static str, &'static str)> {
    ENTRIES.iter().map(|entry| (entry.namespace, entry.table))
}

/// All documented references, by table, in column order.
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

pub(super) fn entry(table: &TableRef) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.namespace == table.namespace.as_str() && entry.table == table.table)
}

impl Entry {
    pub(super) fn schema(&self) -> Value {
        let mut envelope: Value = serde_json::from_str(self.text).unwrap_or_default();
        envelope.get_mut("schema").map(Value::take).unwrap_or_default()
    }
}
