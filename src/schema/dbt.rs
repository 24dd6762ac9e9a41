//! Source definitions for dbt: tables and columns with descriptions, types, keys, relations and freshness. Derived from schemas alone.
//!
//! All values are double-quoted YAML scalars, and braces that dbt would evaluate as Jinja are escaped.

use std::collections::BTreeMap;

use super::ddl::{duckdb_source, quoted};
use super::{ColumnType, Diagram, LakeFormat, LakePlace, TableSchema};
use crate::model::TableRef;

/// Where dbt finds the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DbtPlace {
    /// Files that the adapter for DuckDB reads.
    Files(LakePlace),
    /// Tables of a query engine: a schema for each namespace.
    Engine {
        /// Whether the engine keeps the case of names. Snowflake converts them to upper case.
        case_sensitive: bool,
    },
    /// Tables of a database with the bookkeeping of the official client.
    Database {
        /// The query part that names the table with the bookmarks.
        bookmarks: &'static str,
        /// Whether the namespace is a prefix of the table's name, as on MySQL, in place of a schema.
        prefixed: bool,
    },
}

/// Columns with the time of the last change, the best first.
const CHANGED: [&str; 3] = ["updated_at", "timestamp", "created_at"];

const HEAD: &str = "# Made by daplake for dbt 1.10.5 or newer. Run it again when the schema changes.\n\
                    # The limits of freshness are a start: adapt them to your schedule.\n\
                    version: 2\n\nsources:\n";

/// The text of a `sources.yml` with a source for each namespace.
pub fn dbt_sources(diagram: &Diagram, place: &DbtPlace) -> String {
    let mut namespaces: BTreeMap<&str, Vec<&TableSchema>> = BTreeMap::new();
    for schema in &diagram.tables {
        namespaces.entry(schema.table.namespace.as_str()).or_default().push(schema);
    }
    let mut lines = Lines(HEAD.to_owned());
    for (namespace, tables) in namespaces {
        source(&mut lines, namespace, place);
        for schema in tables {
            table(&mut lines, diagram, schema, place);
        }
    }
    lines.0
}

fn source(lines: &mut Lines, namespace: &str, place: &DbtPlace) {
    lines.add(2, &format!("- name: {}", scalar(namespace)));
    match place {
        DbtPlace::Database { prefixed: true, .. } => lines.add(4, r#"schema: "{{ target.schema }}""#),
        _ => lines.add(4, &format!("schema: {}", scalar(namespace))),
    }
    lines.add(4, "config:");
    if let DbtPlace::Files(files) = place {
        lines.add(6, "meta:");
        lines.add(8, &format!("external_location: {}", scalar(&external_location(files, namespace))));
    }
    lines.add(6, "freshness:");
    lines.add(8, "warn_after: {count: 24, period: hour}");
    // The newest change of a table that is rarely used may be old.
    if has_bookmarks(place) {
        lines.add(8, "error_after: {count: 72, period: hour}");
    }
    lines.add(4, "tables:");
}

/// The expression of dbt-duckdb for the tables of a namespace. `{name}` stands for the table, so other braces are doubled.
fn external_location(files: &LakePlace, namespace: &str) -> String {
    let folder = format!("{}/{namespace}", files.url.trim_end_matches('/')).replace('{', "{{").replace('}', "}}");
    duckdb_source(files.format, &format!("{folder}/{{name}}"))
}

fn table(lines: &mut Lines, diagram: &Diagram, schema: &TableSchema, place: &DbtPlace) {
    let name = &schema.table.table;
    lines.add(6, &format!("- name: {}", scalar(name)));
    if matches!(place, DbtPlace::Database { prefixed: true, .. }) {
        lines.add(8, &format!("identifier: {}", scalar(&format!("{}__{name}", schema.table.namespace))));
    }
    lines.describe(8, schema.description.as_deref());
    lines.add(8, "config:");
    match (bookmark_query(schema, place), changed(schema)) {
        (Some(query), _) => lines.add(10, &format!("loaded_at_query: {}", scalar(&query))),
        (None, Some(column)) => lines.add(10, &format!("loaded_at_field: {column}")),
        (None, None) => lines.add(10, "freshness: null"),
    }
    let key: Vec<String> = schema.key_names().into_iter().map(scalar).collect();
    lines.add(10, "meta:");
    lines.add(12, &format!("primary_key: [{}]", key.join(", ")));
    lines.add(8, "columns:");
    for column in schema.columns() {
        lines.add(10, &format!("- name: {}", scalar(&column.name)));
        lines.add(12, &format!("data_type: {}", scalar(&column.column_type.describe())));
        if !matches!(place, DbtPlace::Engine { case_sensitive: false }) {
            lines.add(12, "quote: true");
        }
        lines.describe(12, column.description.as_deref());
        let mut tests = Vec::new();
        if schema.key.iter().any(|key| key.name == column.name) {
            tests.push("- not_null".to_owned());
            if schema.key.len() == 1 {
                tests.push("- unique".to_owned());
            }
        }
        if let ColumnType::Enum { members, open: false } = &column.column_type {
            let members: Vec<String> = members.iter().map(|member| scalar(member)).collect();
            tests.push(warning("accepted_values", &format!("{{values: [{}]}}", members.join(", "))));
        }
        if let Some((table, field)) = reference(diagram, &schema.table, &column.name, &column.column_type) {
            let to = format!("source({}, {})", python(table.namespace.as_str()), python(&table.table));
            tests.push(warning("relationships", &format!("{{to: {}, field: {}}}", scalar(&to), scalar(field))));
        }
        if !tests.is_empty() {
            lines.add(12, "data_tests:");
            tests.iter().for_each(|test| lines.add(14, test));
        }
    }
}

/// A test that warns: the service promises neither that references have a row nor that the list of values is complete.
fn warning(test: &str, arguments: &str) -> String {
    format!("- {test}: {{arguments: {arguments}, config: {{severity: warn}}}}")
}

fn changed(schema: &TableSchema) -> Option<&'static str> {
    let is_time =
        |name: &str| schema.columns().any(|column| column.name == name && column.column_type == ColumnType::Timestamp);
    CHANGED.into_iter().find(|name| is_time(name))
}

fn has_bookmarks(place: &DbtPlace) -> bool {
    match place {
        DbtPlace::Files(files) => files.format == LakeFormat::Parquet,
        DbtPlace::Engine { .. } => false,
        DbtPlace::Database { .. } => true,
    }
}

/// A query for the time of the data in a table, if SQL can read the bookmark.
fn bookmark_query(schema: &TableSchema, place: &DbtPlace) -> Option<String> {
    match place {
        DbtPlace::Database { bookmarks, .. } => {
            let (namespace, table) = (quoted(schema.table.namespace.as_str()), quoted(&schema.table.table));
            // Of tables with soft deletes or a history, the namespace has a prefix.
            let column = "replace(source_namespace, 'daplake:', '')";
            Some(format!("select {bookmarks} where {column} = {namespace} and source_table = {table}"))
        }
        DbtPlace::Files(files) if files.format == LakeFormat::Parquet => {
            let file = quoted(&format!("{}/{}", files.of(schema), LakeFormat::MANIFEST));
            Some(format!("select cast(data_as_of as timestamp) from read_json({file})"))
        }
        DbtPlace::Files(_) | DbtPlace::Engine { .. } => None,
    }
}

/// The table and key column that a column refers to. `None` unless it is a single table of the diagram whose key is one column of the
/// same type, since a join cannot test other references.
fn reference<'a>(
    diagram: &'a Diagram,
    from: &TableRef,
    column: &str,
    column_type: &ColumnType,
) -> Option<(&'a TableRef, &'a str)> {
    let relation = diagram.relations.iter().find(|relation| relation.from == *from && relation.column == column)?;
    let [target] = relation.targets.as_slice() else { return None };
    let target = diagram.tables.iter().find(|schema| schema.table == *target)?;
    let [key] = target.key.as_slice() else { return None };
    (key.column_type == *column_type).then_some((&target.table, key.name.as_str()))
}

struct Lines(String);

impl Lines {
    fn add(&mut self, indent: usize, text: &str) {
        self.0.extend(std::iter::repeat_n(' ', indent));
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn describe(&mut self, indent: usize, description: Option<&str>) {
        if let Some(description) = description {
            self.add(indent, &format!("description: {}", scalar(description)));
        }
    }
}

/// A double-quoted YAML scalar that dbt's Jinja leaves unchanged. Characters that YAML does not allow are escaped.
fn scalar(text: &str) -> String {
    let mut quoted = String::from('"');
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '{' if matches!(rest.peek(), Some('{' | '%' | '#')) => quoted.push_str("{{ '{' }}"),
            ' '..='~'
            | '\u{a0}'..='\u{2027}'
            | '\u{202f}'..='\u{2065}'
            | '\u{206a}'..='\u{d7ff}'
            | '\u{e000}'..='\u{fefe}'
            | '\u{ff00}'..='\u{fffd}'
            | '\u{10000}'.. => {
                quoted.push(c);
            }
            c => quoted.push_str(&format!("\\U{:08X}", c as u32)),
        }
    }
    quoted.push('"');
    quoted
}

/// A string of Jinja, whose strings are those of Python.
fn python(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn diagram() -> Diagram {
        let id = json!({"type": "integer", "format": "int64", "description": "The {{ id }}\nof \"it\""});
        let key = json!({"properties": {"id": id}, "required": ["id"]});
        let users = json!({"description": "Users", "properties": {"key": key, "value": {"properties": {
            "state": {"type": "string", "enum": ["a", "it's"]}, "updated_at": {"type": "string", "format": "date-time"},
        }}}});
        let logins = json!({"properties": {
            "key": {"properties": {"user_id": {"type": "integer", "format": "int64"}, "n": {"type": "integer", "format": "int32"}}},
            "value": {"properties": {"best_user_id": {"type": "string"}}},
        }});
        let read = |name: &str, schema| TableSchema::read(&TableRef::new("new", name), 1, schema).unwrap();
        Diagram::of(vec![read("users", users), read("logins", logins)])
    }

    #[test]
    fn tables_have_keys_tests_and_freshness() {
        let place =
            LakePlace { url: "/srv/o'hara {1}/".to_owned(), format: LakeFormat::Delta, nested: crate::schema::Nested::Typed };
        let text = dbt_sources(&diagram(), &DbtPlace::Files(place));
        for part in [
            "external_location: \"delta_scan('/srv/o''hara {{ '{' }}{1}}/new/{name}')\"",
            "loaded_at_field: updated_at",
            "freshness: null",
            r#"primary_key: ["user_id", "n"]"#,
            r#"description: "The {{ '{' }}{ id }}\nof \"it\"""#,
            "- not_null\n              - unique\n",
            r#"- accepted_values: {arguments: {values: ["a", "it's"]}, config: {severity: warn}}"#,
            r#"- relationships: {arguments: {to: "source('new', 'users')", field: "id"}, config: {severity: warn}}"#,
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(text.matches("- unique").count(), 1, "not for a column of a composite key");
        assert_eq!(text.matches("- relationships").count(), 1, "not for a column of another type");
    }

    #[test]
    fn databases_are_fresh_by_their_bookmarks() {
        let place = DbtPlace::Database { bookmarks: "timestamp from sync", prefixed: true };
        let text = dbt_sources(&diagram(), &place);
        for part in [
            r#"schema: "{{ target.schema }}""#,
            r#"identifier: "new__users""#,
            r#"loaded_at_query: "select timestamp from sync where replace(source_namespace, 'daplake:', '') = 'new' and source_table = 'users'""#,
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn folders_are_fresh_by_their_manifest_and_other_tables_by_their_newest_change() {
        let place =
            LakePlace { url: "/srv/o'hara".to_owned(), format: LakeFormat::Parquet, nested: crate::schema::Nested::Typed };
        let text = dbt_sources(&diagram(), &DbtPlace::Files(place));
        let query = "select cast(data_as_of as timestamp) from read_json('/srv/o''hara/new/users/_daplake.json')";
        assert!(text.contains(&format!("loaded_at_query: \"{query}\"")) && text.contains("error_after"), "{text}");
        let text = dbt_sources(&diagram(), &DbtPlace::Engine { case_sensitive: false });
        assert!(
            text.contains("loaded_at_field: updated_at") && !text.contains("error_after") && !text.contains("quote"),
            "{text}"
        );
    }

    #[test]
    fn control_and_direction_characters_are_escaped() {
        assert_eq!(scalar("a\u{1b}\u{85}\u{2028}\u{202e}é😀"), "\"a\\U0000001B\\U00000085\\U00002028\\U0000202Eé😀\"");
        assert_eq!(scalar("{% x %} {# y #}"), "\"{{ '{' }}% x %} {{ '{' }}# y #}\"");
    }
}
