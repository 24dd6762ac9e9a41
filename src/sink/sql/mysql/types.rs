//! Which type a column gets: the official client's choice, and a wider one where that loses values or does not work.
//!
//! Wider: moments and times of day keep their microseconds (`datetime(6)`, not `datetime`), addresses of either kind are not
//! padded (`varbinary(16)`, not `binary(16)`), enumerations with other than ASCII words are UTF-8.

use serde_json::Value;

use super::dialect::{cut_name, literal, quote};
use crate::model::TableRef;
use crate::schema::{Column, ColumnType, TableSchema};
use crate::sink::sql::dialect::{Enumeration, SqlColumn};

/// The most characters of four bytes that fit a column kept in the row.
const MAX_VARCHAR: u64 = 16_383;
/// Characters of all keys together: 3,072 bytes.
const MAX_KEY: u64 = 768;
/// What a text gets that is part of a key and has no declared length.
const DEFAULT_KEY: u64 = 255;
/// The longest text of a lookup table.
pub(super) const MAX_WORD: u64 = 64;
/// Bytes of a row that are left for texts: 65,535 less what all else takes.
const ROW_BYTES: u64 = 60_000;
/// The longest member of an enumeration, in characters.
const MAX_LABEL: usize = 255;
/// Any number of characters.
pub(super) const LONG_TEXT: &str = "longtext";
/// What the official client gives to texts without a length.
const TEXT: &str = "mediumtext";

/// The bytes that a type of text takes which is kept outside the row. `None`: any number, or another type.
pub(super) fn most_bytes(sql_type: &str) -> Option<usize> {
    match sql_type {
        "tinytext" => Some((1 << 8) - 1),
        "text" => Some((1 << 16) - 1),
        TEXT => Some((1 << 24) - 1),
        _ => None,
    }
}

/// Texts that are keys tell each letter apart, and blanks at their ends. The names differ between the two servers; each takes
/// the other's for a comment.
pub(super) const EXACT: &str =
    "/*M!100200 CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin *//*!80017 CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin */";

/// Columns of a table, key first.
pub(super) fn columns(schema: &TableSchema) -> Vec<SqlColumn> {
    let text_keys = schema.key.iter().filter(|column| is_text(&column.column_type)).count() as u64;
    let key = schema.key.iter().map(|column| sql_column(schema, "key", column, MAX_KEY / text_keys.max(1)));
    let value = schema.value.iter().map(|column| sql_column(schema, "value", column, 0));
    let mut columns: Vec<SqlColumn> = key.chain(value).collect();
    fit_row(&mut columns);
    columns
}

fn is_text(column_type: &ColumnType) -> bool {
    !matches!(
        column_type,
        ColumnType::Boolean
            | ColumnType::Int16
            | ColumnType::Int32
            | ColumnType::Int64
            | ColumnType::Float32
            | ColumnType::Float64
            | ColumnType::Decimal { .. }
            | ColumnType::Timestamp
            | ColumnType::Date
            | ColumnType::Time
            | ColumnType::Uuid
            | ColumnType::Ip { .. }
    )
}

/// The longest texts leave the row until it is short enough for the server.
fn fit_row(columns: &mut [SqlColumn]) {
    let bytes = |column: &SqlColumn| column.longest.filter(|_| !column.key).map_or(0, |longest| longest as u64 * 4);
    while columns.iter().map(bytes).sum::<u64>() > ROW_BYTES {
        let Some(widest) = columns.iter_mut().max_by_key(|column| bytes(column)) else { return };
        widest.sql_type = TEXT.to_owned();
        widest.longest = None;
        widest.default = widest.default.take().map(|default| format!("({default})"));
    }
}

struct Chosen {
    sql_type: String,
    stage_type: String,
    convert: Option<String>,
    direct: bool,
    longest: Option<u64>,
    members: Option<Vec<String>>,
    lookup: Option<(String, String)>,
}

impl Chosen {
    fn plain(sql_type: impl Into<String>) -> Self {
        let sql_type = sql_type.into();
        let stage_type = sql_type.clone();
        Self { sql_type, stage_type, convert: None, direct: true, longest: None, members: None, lookup: None }
    }

    /// A text, staged in any length.
    fn text(sql_type: impl Into<String>, longest: Option<u64>) -> Self {
        Self { stage_type: LONG_TEXT.to_owned(), longest, ..Self::plain(sql_type) }
    }
}

fn sql_column(schema: &TableSchema, group: &str, column: &Column, key_length: u64) -> SqlColumn {
    let node = node(&schema.source, group, &column.name);
    let is_key = group == "key";
    let chosen = match is_key && is_text(&column.column_type) {
        true => key_text(&column.column_type, key_length),
        false => choose(&schema.table, column, node),
    };
    let default = column.default.as_ref().and_then(|value| default(value, column, &chosen));
    SqlColumn {
        name: column.name.clone(),
        source: column.name.clone(),
        sql_type: chosen.sql_type,
        stage_type: chosen.stage_type,
        convert: chosen.convert,
        direct: chosen.direct,
        longest: chosen.longest.map(|longest| longest as usize),
        key: is_key,
        required: column.required || is_key,
        default,
        comment: column.description.as_deref().and_then(|text| comment(text, MAX_COLUMN_COMMENT)),
        enumeration: chosen.members.map(|members| Enumeration { name: column.name.clone(), members }),
        lookup: chosen.lookup,
    }
}

/// Characters of comments that the server takes.
const MAX_COLUMN_COMMENT: usize = 1024;
const MAX_TABLE_COMMENT: usize = 2048;

/// Whether the server has no place for a character in names and comments: these are UTF-8 of three bytes.
pub(super) fn is_beyond_names(character: char) -> bool {
    character == '\0' || u32::from(character) > 0xFFFF
}

/// The first line, as far as the server takes it.
fn comment(text: &str, longest: usize) -> Option<String> {
    let line = text.split('\n').next().unwrap_or_default();
    let taken = line.chars().map(|character| if is_beyond_names(character) { char::REPLACEMENT_CHARACTER } else { character });
    let line: String = taken.take(longest).collect();
    (!line.is_empty()).then_some(line)
}

/// The comment of a table.
pub(super) fn table_comment(text: &str) -> Option<String> {
    comment(text, MAX_TABLE_COMMENT)
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

/// A text of a key has to have a length, and is refused when it is longer.
fn key_text(column_type: &ColumnType, key_length: u64) -> Chosen {
    let declared = match column_type {
        ColumnType::Text { max_length: Some(length) } if *length > 0 => *length,
        _ => DEFAULT_KEY,
    };
    Chosen::plain(format!("varchar({}) {EXACT}", declared.min(key_length)))
}

fn choose(table: &TableRef, column: &Column, node: Option<&Value>) -> Chosen {
    match &column.column_type {
        ColumnType::Text { max_length: Some(length) } if *length > 0 => {
            let constant = node.and_then(|node| node.get("const")).and_then(Value::as_str);
            // The server takes blanks from the end of such a text.
            if constant.is_some_and(|text| *length <= 255 && !text.ends_with(' ')) {
                return Chosen::text(format!("char({length})"), Some(*length));
            }
            let length = constant_length(node).map_or(*length, |constant| constant.max(*length));
            match length {
                ..=MAX_VARCHAR => Chosen::text(format!("varchar({length})"), Some(length)),
                16_384..16_777_216 => Chosen::text(TEXT, None),
                _ => Chosen::text(LONG_TEXT, None),
            }
        }
        ColumnType::Enum { members, open: false } if can_be_members(members) => {
            Chosen { stage_type: LONG_TEXT.to_owned(), members: Some(members.clone()), ..Chosen::plain(enumeration(members)) }
        }
        ColumnType::Enum { open: true, .. } => {
            let name = format!("{}__{}__{}", table.namespace, table.table, column.name);
            let lookup = quote(&cut_name(&name));
            Chosen {
                convert: Some(through_lookup(&lookup)),
                sql_type: "int".into(),
                stage_type: format!("varchar({MAX_WORD}) {EXACT}"),
                direct: true,
                longest: None,
                members: None,
                lookup: Some((lookup, cut_name(&format!("fk_{}__{}_{}", table.namespace, table.table, column.name)))),
            }
        }
        ColumnType::Text { .. } | ColumnType::Enum { .. } => Chosen::text(TEXT, None),
        // It may be any text, so it is not the server's type for JSON.
        ColumnType::Json => Chosen::text(LONG_TEXT, None),
        other => Chosen::plain(simple(other)),
    }
}

/// From a word to its id.
pub(super) fn through_lookup(lookup: &str) -> String {
    format!("(SELECT l.`id` FROM {lookup} AS l WHERE l.`value` = {{}})")
}

/// Whether a text can be a member of an enumeration, which loses blanks at its end. The catalogue, by which members are compared,
/// has no characters of four bytes.
pub(super) fn can_be_member(text: &str) -> bool {
    text.chars().count() <= MAX_LABEL && !text.ends_with(' ') && !text.chars().any(is_beyond_names)
}

fn can_be_members(members: &[String]) -> bool {
    !members.is_empty() && members.iter().all(|member| can_be_member(member))
}

/// The type of these members. They are told apart by their bytes, as the official client has it.
pub(super) fn enumeration(members: &[String]) -> String {
    let words = members.iter().map(|member| literal(member)).collect::<Vec<_>>().join(",");
    let charset = match members.iter().all(|member| member.is_ascii()) {
        true => "ascii COLLATE ascii_bin",
        false => "utf8mb4 COLLATE utf8mb4_bin",
    };
    format!("enum({words}) CHARACTER SET {charset}")
}

fn simple(column_type: &ColumnType) -> String {
    match column_type {
        ColumnType::Boolean => "tinyint".into(),
        ColumnType::Int16 => "smallint".into(),
        ColumnType::Int32 => "int".into(),
        ColumnType::Int64 => "bigint".into(),
        ColumnType::Float32 | ColumnType::Float64 => "double".into(),
        ColumnType::Decimal { precision, scale } if *scale <= 30 => format!("decimal({precision},{scale})"),
        // More digits behind the point than the server has.
        ColumnType::Decimal { .. } => "varchar(64)".into(),
        ColumnType::Timestamp => "datetime(6)".into(),
        ColumnType::Date => "date".into(),
        ColumnType::Time => "time(6)".into(),
        ColumnType::Uuid => "binary(16)".into(),
        ColumnType::Ip { v4: true, v6: false } => "binary(4)".into(),
        ColumnType::Ip { v4: false, v6: true } => "binary(16)".into(),
        ColumnType::Ip { .. } => "varbinary(16)".into(),
        ColumnType::Struct(_) | ColumnType::List(_) => "json".into(),
        ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Json => TEXT.into(),
    }
}

/// A default of the schema as an expression, for the types whose literals are beyond doubt.
fn default(value: &Value, column: &Column, chosen: &Chosen) -> Option<String> {
    match (&column.column_type, value) {
        (_, _) if chosen.lookup.is_some() => None,
        (ColumnType::Boolean, Value::Bool(value)) => Some(u8::from(*value).to_string()),
        (
            ColumnType::Int16
            | ColumnType::Int32
            | ColumnType::Int64
            | ColumnType::Float32
            | ColumnType::Float64
            | ColumnType::Decimal { .. },
            Value::Number(value),
        ) => Some(value.to_string()),
        (ColumnType::Enum { members, .. }, Value::String(value)) if chosen.members.is_some() => {
            members.contains(value).then(|| literal(value))
        }
        (ColumnType::Text { .. } | ColumnType::Enum { .. }, Value::String(value)) => {
            // A text outside the row takes expressions only.
            Some(if chosen.sql_type.ends_with("text") { format!("({})", literal(value)) } else { literal(value) })
        }
        _ => None,
    }
}
