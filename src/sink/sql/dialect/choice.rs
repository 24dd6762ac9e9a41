//! The choice of a column for a property of the schema, as far as the three databases share it.

use serde_json::Value;

use super::table::{Enumeration, SqlColumn};
use crate::schema::{Column, ColumnType};

/// The chosen type of a column and how rows get into it.
#[derive(Debug)]
pub(in crate::sink::sql) struct ColumnChoice {
    pub(in crate::sink::sql) sql_type: String,
    pub(in crate::sink::sql) stage_type: String,
    pub(in crate::sink::sql) convert: Option<String>,
    pub(in crate::sink::sql) direct: bool,
    pub(in crate::sink::sql) longest: Option<usize>,
    pub(in crate::sink::sql) enumeration: Option<Enumeration>,
    pub(in crate::sink::sql) lookup: Option<(String, String)>,
}

impl ColumnChoice {
    /// A type that is staged as itself.
    pub(in crate::sink::sql) fn plain(sql_type: impl ToString) -> Self {
        let sql_type = sql_type.to_string();
        Self {
            stage_type: sql_type.clone(),
            sql_type,
            convert: None,
            direct: true,
            longest: None,
            enumeration: None,
            lookup: None,
        }
    }

    /// A string type of at most `longest` characters, staged as one without a limit.
    pub(in crate::sink::sql) fn text(sql_type: impl ToString, stage_type: impl ToString, longest: Option<u64>) -> Self {
        let longest = longest.and_then(|longest| usize::try_from(longest).ok());
        Self { stage_type: stage_type.to_string(), longest, ..Self::plain(sql_type) }
    }

    /// The column. `name` is its name in the database.
    pub(in crate::sink::sql) fn into_column(self, name: String, column: &Column, key: bool) -> SqlColumn {
        SqlColumn {
            name,
            source: column.name.clone(),
            sql_type: self.sql_type,
            stage_type: self.stage_type,
            convert: self.convert,
            direct: self.direct,
            longest: self.longest,
            key,
            required: column.required,
            default: None,
            comment: column.description.clone(),
            enumeration: self.enumeration,
            lookup: self.lookup,
            system: None,
        }
    }
}

/// The JSON Schema of a column, with references resolved. `group`: `key` or `value`.
pub(in crate::sink::sql) fn schema_node<'s>(source: &'s Value, group: &str, name: &str) -> Option<&'s Value> {
    let mut node = source.get("properties")?.get(group)?.get("properties")?.get(name)?;
    for _ in 0..8 {
        match node.get("$ref").and_then(Value::as_str) {
            Some(reference) => node = source.pointer(reference.strip_prefix('#')?)?,
            None => break,
        }
    }
    Some(node)
}

/// Characters of the longest constant among the alternatives of a schema.
pub(in crate::sink::sql) fn constant_length(node: Option<&Value>) -> Option<u64> {
    let choices = node?.get("oneOf").or_else(|| node?.get("anyOf"))?.as_array()?;
    choices.iter().filter_map(|choice| Some(choice.get("const")?.as_str()?.chars().count() as u64)).max()
}

/// The default of a schema for a numeric column, as an SQL expression.
pub(in crate::sink::sql) fn numeric_default(column_type: &ColumnType, value: &Value) -> Option<String> {
    match (column_type, value) {
        (
            ColumnType::Int16
            | ColumnType::Int32
            | ColumnType::Int64
            | ColumnType::Float32
            | ColumnType::Float64
            | ColumnType::Decimal { .. },
            Value::Number(value),
        ) => Some(value.to_string()),
        _ => None,
    }
}
