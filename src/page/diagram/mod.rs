//! Diagrams of tables and their relations: for Mermaid, for Graphviz, and as an HTML page. Names are escaped in all three.

mod html;
mod layout;
mod text;

pub use html::diagram_page;
pub(super) use html::{legend, link, picture, referred_by};
pub(super) use text::name;
pub use text::{dot, mermaid};

use crate::schema::{Column, ColumnType, Diagram};

/// The columns that a diagram shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    /// Keys and columns that refer to other tables.
    Keys,
    /// All columns.
    All,
}

/// Short name of a type.
fn type_word(kind: &ColumnType) -> &'static str {
    match kind {
        ColumnType::Boolean => "boolean",
        ColumnType::Int16 => "smallint",
        ColumnType::Int32 => "int",
        ColumnType::Int64 => "bigint",
        ColumnType::Float32 => "float",
        ColumnType::Float64 => "double",
        ColumnType::Decimal { .. } => "decimal",
        ColumnType::Text { .. } => "text",
        ColumnType::Enum { .. } => "enum",
        ColumnType::Timestamp => "timestamp",
        ColumnType::Date => "date",
        ColumnType::Time => "time",
        ColumnType::Uuid => "uuid",
        ColumnType::Ip { .. } => "ip",
        ColumnType::Struct(_) => "struct",
        ColumnType::List(_) => "list",
        ColumnType::Json => "json",
    }
}

/// A column of a diagram.
struct Shown<'a> {
    column: &'a Column,
    is_key: bool,
    /// Index of its relation.
    relation: Option<usize>,
}

/// The shown columns of a table, keys first.
fn shown(diagram: &Diagram, table: usize, columns: Columns) -> Vec<Shown<'_>> {
    let schema = &diagram.tables[table];
    let relation_of =
        |name: &str| diagram.relations.iter().position(|relation| relation.from == schema.table && relation.column == name);
    let all = schema.columns().enumerate().map(|(place, column)| Shown {
        column,
        is_key: place < schema.key.len(),
        relation: relation_of(&column.name),
    });
    all.filter(|shown| columns == Columns::All || shown.is_key || shown.relation.is_some()).collect()
}

/// The anchor of a table in a page: its name if it needs no escapes, else its index.
pub(super) fn anchor(diagram: &Diagram, place: usize) -> String {
    let table = &diagram.tables[place].table;
    if table.is_path_safe() { table.to_string() } else { format!("table-{place}") }
}

/// Whether all tables have the same namespace.
fn has_one_namespace(diagram: &Diagram) -> bool {
    diagram.tables.windows(2).all(|pair| pair[0].table.namespace == pair[1].table.namespace)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::TableRef;
    use crate::schema::TableSchema;

    pub(in crate::page) fn school() -> Diagram {
        let table = |name: &str, columns: serde_json::Value| {
            let id = json!({"properties": {"id": {"type": "integer", "format": "int64"}}, "required": ["id"]});
            let value = json!({"properties": columns, "required": ["user_id"]});
            let source = json!({"properties": {"key": id, "value": value}});
            TableSchema::read(&TableRef::new("canvas", name), 1, source).unwrap()
        };
        let number = json!({"type": "integer", "format": "int64"});
        Diagram::of(vec![
            table("users", json!({"name": {"type": "string"}, "merged_into_user_id": number})),
            table("courses", json!({"name": {"type": "string", "description": "What <people> call \"it\""}})),
            table("enrollments", json!({"user_id": number, "course_id": number, "state": {"type": "string", "enum": ["a"]}})),
            table("favorites", json!({"user_id": number, "context_id": number})),
        ])
    }
}
