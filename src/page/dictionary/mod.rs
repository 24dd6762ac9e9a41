//! The data dictionary: all tables with their columns, types, descriptions, values, keys and relations, as a page that can be searched and
//! as Markdown. Foreign text is escaped in both.

mod html;
mod markdown;

pub use html::dictionary_page;
pub use markdown::dictionary_markdown;
use serde_json::Value;

use super::figures::counted;
use crate::schema::{Column, ColumnType, Diagram, ELEMENT, Relation};

/// A column, or a member of a nested column.
struct Entry<'a> {
    /// The name, after those of the columns that contain it: `tags.element.name`.
    path: String,
    column: &'a Column,
    is_key: bool,
    relation: Option<&'a Relation>,
}

/// The columns of a table in the order of its schema; the members of a column follow it.
fn entries(diagram: &Diagram, place: usize) -> Vec<Entry<'_>> {
    let schema = &diagram.tables[place];
    let relations: Vec<&Relation> = diagram.relations.iter().filter(|relation| relation.from == schema.table).collect();
    let mut entries = Vec::new();
    for (number, column) in schema.columns().enumerate() {
        let relation = relations.iter().find(|relation| relation.column == column.name).copied();
        entries.push(Entry { path: column.name.clone(), column, is_key: number < schema.key.len(), relation });
        add_members(&column.name, &column.column_type, &mut entries);
    }
    entries
}

fn add_members<'a>(path: &str, kind: &'a ColumnType, entries: &mut Vec<Entry<'a>>) {
    match kind {
        ColumnType::List(item) => add_members(&format!("{path}.{ELEMENT}"), item, entries),
        ColumnType::Struct(members) => {
            for column in members {
                let path = format!("{path}.{}", column.name);
                entries.push(Entry { path: path.clone(), column, is_key: false, relation: None });
                add_members(&path, &column.column_type, entries);
            }
        }
        _ => {}
    }
}

/// The known values of an enumeration or of a list of them, and whether other values are allowed.
fn enum_values(kind: &ColumnType) -> Option<(&[String], bool)> {
    match kind {
        ColumnType::Enum { members, open } => Some((members, *open)),
        ColumnType::List(item) => enum_values(item),
        _ => None,
    }
}

/// The default of a column as text.
fn default_of(column: &Column) -> Option<String> {
    match column.default.as_ref()? {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// How many tables and columns there are, for the head of the dictionary.
fn counts(diagram: &Diagram) -> (u64, u64) {
    let columns: usize = diagram.tables.iter().map(|schema| schema.columns().count()).sum();
    (diagram.tables.len() as u64, columns as u64)
}

/// The placeholder for values that are too large, for columns that have one.
const OVERSIZED: &str = "A value that is too large is replaced by a placeholder.";

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::TableRef;
    use crate::schema::TableSchema;

    /// Tables whose texts contain special characters of HTML and Markdown.
    pub(super) fn awkward() -> Diagram {
        let number = json!({"type": "integer", "format": "int64"});
        let source = json!({"title": "People | <b>all</b>", "description": "# First\nline.\n\n- *Second* [x](y) snake_case _z_ & `w`", "properties": {
            "key": {"properties": {"id": number}, "required": ["id"]},
            "value": {"properties": {
                "a|b": {"type": "string", "description": "one | two\n<script>alert(1)</script>", "maxLength": 5, "default": "d"},
                "tick`s": {"type": "string", "enum": ["x|y", "`", "<i>"]},
                "user_id": number,
                "context_id": number,
                "context_type": {"type": "string", "enum": ["User", "Group"]},
                "tags": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}, "additionalProperties": false}},
                "states": {"type": "array", "items": {"type": "string", "enum": ["on", "off"]}}
            }, "required": ["user_id"]}
        }});
        let plain = json!({"properties": {"key": {"properties": {"id": number}}}});
        let read = |name: &str, source: serde_json::Value| TableSchema::read(&TableRef::new("new", name), 3, source).unwrap();
        Diagram::of(vec![read("users", source), read("groups", plain.clone()), read("odd <name>|", plain)])
    }

    #[test]
    fn members_follow_their_column() {
        let diagram = awkward();
        let paths: Vec<String> = entries(&diagram, 0).into_iter().map(|entry| entry.path).collect();
        let tags = paths.iter().position(|path| path == "tags").unwrap();
        assert_eq!(paths[0], "id");
        assert_eq!(paths[tags + 1], "tags.element.name");
    }

    #[test]
    fn values_of_lists_are_known() {
        let diagram = awkward();
        let states = entries(&diagram, 0).into_iter().find(|entry| entry.path == "states").unwrap();
        assert_eq!(enum_values(&states.column.column_type), Some((&["on".to_owned(), "off".to_owned()][..], false)));
    }
}
