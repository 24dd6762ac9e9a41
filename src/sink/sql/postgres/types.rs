//! Which type a column gets: the official client's choice, and text where it has none that works.

use serde_json::Value;

use super::change::through_lookup;
use super::dialect::{cut_name, literal, quote};
use crate::model::TableRef;
use crate::schema::{Column, ColumnType, TableSchema};
use crate::sink::sql::dialect::{Enumeration, SqlColumn};

/// Columns of a table, key first.
pub(super) fn columns(schema: &TableSchema) -> Vec<SqlColumn> {
    let key = schema.key.iter().map(|column| sql_column(schema, "key", column));
    let value = schema.value.iter().map(|column| sql_column(schema, "value", column));
    key.chain(value).collect()
}

struct Chosen {
    sql_type: String,
    stage_type: String,
    longest: Option<usize>,
    convert: Option<String>,
    direct: bool,
    enumeration: Option<Enumeration>,
    lookup: Option<(String, String)>,
}

impl Chosen {
    fn plain(sql_type: impl Into<String>) -> Self {
        let sql_type = sql_type.into();
        let stage_type = sql_type.clone();
        Self { sql_type, stage_type, longest: None, convert: None, direct: true, enumeration: None, lookup: None }
    }

    /// Text of a bounded length, which is staged as text of any.
    fn bounded(sql_type: String, stage_type: &str, length: u64) -> Self {
        Self { longest: usize::try_from(length).ok(), stage_type: stage_type.into(), ..Self::plain(sql_type) }
    }
}

fn sql_column(schema: &TableSchema, group: &str, column: &Column) -> SqlColumn {
    let node = node(&schema.source, group, &column.name);
    let chosen = choose(&schema.table, column, node);
    let default = column.default.as_ref().and_then(|value| default(value, column, &chosen));
    SqlColumn {
        name: cut_name(&column.name),
        source: column.name.clone(),
        sql_type: chosen.sql_type,
        stage_type: chosen.stage_type,
        convert: chosen.convert,
        direct: chosen.direct,
        longest: chosen.longest,
        key: group == "key",
        required: column.required,
        default,
        comment: column.description.clone(),
        enumeration: chosen.enumeration,
        lookup: chosen.lookup,
    }
}

/// The JSON Schema of a column, behind references.
fn node<'s>(source: &'s Value, group: &str, name: &str) -> Option<&'s Value> {
    let mut node = source.get("properties")?.get(group)?.get("properties")?.get(name)?;
    for _ in 0..8 {
        match node.get("$ref").and_then(Value::as_str) {
            Some(reference) => node = source.pointer(reference.strip_prefix('#')?)?,
            None => break,
        }
    }
    Some(node)
}

/// Length of the longest constant among the alternatives.
fn constant_length(node: Option<&Value>) -> Option<u64> {
    let choices = node?.get("oneOf").or_else(|| node?.get("anyOf"))?.as_array()?;
    choices.iter().filter_map(|choice| Some(choice.get("const")?.as_str()?.chars().count() as u64)).max()
}

fn choose(table: &TableRef, column: &Column, node: Option<&Value>) -> Chosen {
    let type_name = || cut_name(&format!("{}__{}", table.table, column.name));
    let qualified = |name: &str| format!("{}.{}", quote(table.namespace.as_str()), quote(name));
    match &column.column_type {
        ColumnType::Text { max_length: Some(length) } if *length > 0 => {
            if node.is_some_and(|node| node.get("const").is_some_and(Value::is_string)) {
                return Chosen::bounded(format!("character({length})"), "text", *length);
            }
            let length = constant_length(node).map_or(*length, |constant| constant.max(*length));
            match length <= MAX_VARCHAR {
                true => Chosen::bounded(format!("character varying({length})"), "text", length),
                false => Chosen::plain("text"),
            }
        }
        // One word: the official client names a type that it never makes.
        ColumnType::Enum { members, open: false } if members.len() >= 2 && all_fit(members) => {
            let name = type_name();
            let sql_type = qualified(&name);
            Chosen {
                longest: None,
                convert: Some(format!("{{}}::{sql_type}")),
                sql_type,
                stage_type: "text".into(),
                direct: true,
                enumeration: Some(Enumeration { name, members: members.clone() }),
                lookup: None,
            }
        }
        // Two and more words: the official client gives a type and a table the same name and fails.
        ColumnType::Enum { members, open: true } if members.len() == 1 => {
            let lookup = qualified(&type_name());
            Chosen {
                longest: Some(MAX_LOOKUP),
                convert: Some(through_lookup(&lookup)),
                sql_type: "integer".into(),
                stage_type: "text".into(),
                direct: true,
                enumeration: None,
                lookup: Some((lookup, cut_name(&format!("fk_{}_{}", table.table, column.name)))),
            }
        }
        ColumnType::List(item) => match &**item {
            // The bulk path wants to know the number of an enumeration's type, which only the server has.
            ColumnType::Enum { members, open: false } if members.len() >= 2 && all_fit(members) => {
                let name = type_name();
                let sql_type = format!("{}[]", qualified(&name));
                Chosen {
                    longest: None,
                    convert: Some(format!("{{}}::{sql_type}")),
                    sql_type,
                    stage_type: "text[]".into(),
                    direct: false,
                    enumeration: Some(Enumeration { name, members: members.clone() }),
                    lookup: None,
                }
            }
            ColumnType::Struct(_) | ColumnType::List(_) | ColumnType::Json => Chosen::plain("jsonb"),
            ColumnType::Text { max_length: Some(length) } if (1..=MAX_VARCHAR).contains(length) => {
                Chosen::bounded(format!("character varying({length})[]"), "text[]", *length)
            }
            item => Chosen::plain(format!("{}[]", simple(item))),
        },
        other => Chosen::plain(simple(other)),
    }
}

/// The longest length that the server lets a type have.
const MAX_VARCHAR: u64 = 10_485_760;
/// The longest word of a lookup table, in characters.
pub(super) const MAX_LOOKUP: usize = 64;
/// The longest word of an enumeration, in bytes.
const MAX_LABEL: usize = 63;

/// Whether the server takes these words.
fn all_fit(members: &[String]) -> bool {
    members.iter().all(|member| fits(member))
}

/// Whether an enumeration can have this word.
pub(super) fn fits(word: &str) -> bool {
    word.len() <= MAX_LABEL && !word.contains('\0')
}

fn simple(column_type: &ColumnType) -> String {
    match column_type {
        ColumnType::Boolean => "boolean".into(),
        ColumnType::Int16 => "smallint".into(),
        ColumnType::Int32 => "integer".into(),
        ColumnType::Int64 => "bigint".into(),
        ColumnType::Float32 => "real".into(),
        ColumnType::Float64 => "double precision".into(),
        ColumnType::Decimal { precision, scale } => format!("numeric({precision},{scale})"),
        ColumnType::Timestamp => "timestamp without time zone".into(),
        ColumnType::Date => "date".into(),
        ColumnType::Time => "time without time zone".into(),
        ColumnType::Uuid => "uuid".into(),
        ColumnType::Ip { .. } => "inet".into(),
        ColumnType::Struct(_) => "jsonb".into(),
        // Exactly as it came: it may be any text.
        ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Json | ColumnType::List(_) => "text".into(),
    }
}

/// A default of the schema as an expression, for the types whose literals are beyond doubt.
fn default(value: &Value, column: &Column, chosen: &Chosen) -> Option<String> {
    match (&column.column_type, value) {
        (_, _) if chosen.lookup.is_some() => None,
        (ColumnType::Boolean, Value::Bool(value)) => Some(value.to_string()),
        (
            ColumnType::Int16
            | ColumnType::Int32
            | ColumnType::Int64
            | ColumnType::Float32
            | ColumnType::Float64
            | ColumnType::Decimal { .. },
            Value::Number(value),
        ) => Some(value.to_string()),
        (ColumnType::Enum { members, .. }, Value::String(value)) if chosen.enumeration.is_some() => {
            members.contains(value).then(|| format!("{}::{}", literal(value), chosen.sql_type))
        }
        (ColumnType::Text { .. } | ColumnType::Enum { .. }, Value::String(value)) => Some(literal(value)),
        _ => None,
    }
}
