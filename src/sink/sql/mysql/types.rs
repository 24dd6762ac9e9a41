//! Types of MySQL and MariaDB, and which of them a column gets: the official client's choice, and a wider type where that loses values
//! or does not work.
//!
//! Wider are: timestamps and times of day, which keep their microseconds (`datetime(6)`, not `datetime`), addresses of either kind, which
//! are not padded (`varbinary(16)`, not `binary(16)`), and enumerations with values beyond ASCII, which are UTF-8.

use std::fmt;

use serde_json::Value;

use super::names::{cut_name, id_of_value, is_beyond_names, literal, quote};
use crate::model::TableRef;
use crate::schema::{Column, ColumnType, TableSchema};
use crate::sink::sql::dialect::{ColumnChoice, Enumeration, SqlColumn, constant_length, numeric_default, schema_node};

/// Maximum number of four-byte characters that fit into a column inside the row.
const MAX_VARCHAR: u64 = 16_383;
/// Characters of all keys together: 3,072 bytes.
const MAX_KEY: u64 = 768;
/// Characters of a string in a key whose length the schema does not declare.
const DEFAULT_KEY: u64 = 255;
/// The longest value of a lookup table, in characters.
pub(super) const MAX_LOOKUP: u64 = 64;
/// Bytes of a row for strings: 65,535 less what all other columns take.
const ROW_BYTES: u64 = 60_000;
/// The longest value of an enumeration, in characters.
const MAX_LABEL: usize = 255;
/// Characters of comments.
const MAX_COLUMN_COMMENT: usize = 1024;
const MAX_TABLE_COMMENT: usize = 2048;

/// Character set and collation of strings in keys and lookup tables: they distinguish case, accents and trailing spaces. The names differ
/// between the two servers; each reads the other's as a comment.
pub(super) const EXACT: &str =
    "/*M!100200 CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin *//*!80017 CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin */";

/// A type without its character set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Tinyint,
    Smallint,
    Int,
    Bigint,
    Float,
    Double,
    /// Precision and scale.
    Decimal(u32, u32),
    /// Length in characters.
    Char(u64),
    Varchar(u64),
    Tinytext,
    Text,
    Mediumtext,
    Longtext,
    Json,
    Date,
    /// Digits of the fraction.
    Time(u8),
    Datetime(u8),
    /// Length in bytes.
    Binary(u64),
    Varbinary(u64),
    /// The values.
    Enum(Vec<String>),
    /// Any other type, as it is spelled.
    Other(String),
}

/// A type, as the server spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SqlType {
    pub(super) kind: Kind,
    /// The rest of the definition: character set and collation.
    charset: Option<String>,
}

impl SqlType {
    /// Reads the server's spelling, or that of this module.
    pub(super) fn parse(text: &str) -> Self {
        let end = if text.starts_with("enum(") {
            // The values may contain anything.
            text.rfind("')").map(|place| place + 2)
        } else {
            [" CHARACTER SET ", " /*"].iter().filter_map(|mark| text.find(mark)).min()
        };
        let (kind, rest) = text.split_at(end.unwrap_or(text.len()));
        Self { kind: Kind::parse(kind), charset: Some(rest.trim_start().to_owned()).filter(|rest| !rest.is_empty()) }
    }

    /// A type without a character set of its own.
    fn of(kind: Kind) -> Self {
        Self { kind, charset: None }
    }

    fn exact(kind: Kind) -> Self {
        Self { kind, charset: Some(EXACT.to_owned()) }
    }

    /// An enumeration of these values. They are distinguished by their bytes, as in the official client.
    pub(super) fn enumeration(members: Vec<String>) -> Self {
        let charset = if members.iter().all(|member| member.is_ascii()) {
            "CHARACTER SET ascii COLLATE ascii_bin"
        } else {
            "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        };
        Self { kind: Kind::Enum(members), charset: Some(charset.to_owned()) }
    }

    /// The text type that holds strings of any length.
    pub(super) fn longtext() -> Self {
        Self::of(Kind::Longtext)
    }
}

impl Kind {
    fn parse(text: &str) -> Self {
        let (base, rest) = text.split_once('(').unwrap_or((text, ""));
        let numbers: Vec<u64> = rest.trim_end_matches(')').split(',').filter_map(|number| number.trim().parse().ok()).collect();
        let first = numbers.first().copied();
        let digits = || first.and_then(|digits| u8::try_from(digits).ok()).unwrap_or(0);
        match (base, &numbers[..]) {
            ("tinyint", _) => Kind::Tinyint,
            ("smallint", _) => Kind::Smallint,
            ("int", _) => Kind::Int,
            ("bigint", _) => Kind::Bigint,
            ("float", []) => Kind::Float,
            ("double", []) => Kind::Double,
            ("decimal", [precision, scale]) => Kind::Decimal(*precision as u32, *scale as u32),
            ("char", [length]) => Kind::Char(*length),
            ("varchar", [length]) => Kind::Varchar(*length),
            ("tinytext", _) => Kind::Tinytext,
            ("text", _) => Kind::Text,
            ("mediumtext", _) => Kind::Mediumtext,
            ("longtext", _) => Kind::Longtext,
            ("json", _) => Kind::Json,
            ("date", _) => Kind::Date,
            ("time", _) => Kind::Time(digits()),
            ("datetime", _) => Kind::Datetime(digits()),
            ("binary", [length]) => Kind::Binary(*length),
            ("varbinary", [length]) => Kind::Varbinary(*length),
            ("enum", _) => enum_members(rest.trim_end_matches(')')).map_or_else(|| Kind::Other(text.to_owned()), Kind::Enum),
            _ => Kind::Other(text.to_owned()),
        }
    }

    /// Rank among the integer types, and the digits of the largest number.
    pub(super) fn integer(&self) -> Option<(usize, u32)> {
        match self {
            Kind::Tinyint => Some((0, 3)),
            Kind::Smallint => Some((1, 5)),
            Kind::Int => Some((2, 10)),
            Kind::Bigint => Some((3, 19)),
            _ => None,
        }
    }

    /// Rank among the string types, by the characters that they hold.
    pub(super) fn text_rank(&self) -> Option<u64> {
        Some(match self {
            Kind::Char(length) | Kind::Varchar(length) => *length,
            Kind::Tinytext => 63,
            Kind::Text => 16_383,
            Kind::Mediumtext => 1 << 22,
            Kind::Longtext => 1 << 30,
            _ => return None,
        })
    }

    /// A string type.
    pub(super) fn is_text(&self) -> bool {
        self.text_rank().is_some()
    }

    /// The bytes that a string type outside the row holds. `None`: any number, or another type.
    pub(super) fn most_bytes(&self) -> Option<usize> {
        match self {
            Kind::Tinytext => Some((1 << 8) - 1),
            Kind::Text => Some((1 << 16) - 1),
            Kind::Mediumtext => Some((1 << 24) - 1),
            _ => None,
        }
    }
}

/// The values of an enumeration, from the list between the parentheses.
fn enum_members(list: &str) -> Option<Vec<String>> {
    let mut members = Vec::new();
    let mut chars = list.chars().peekable();
    while chars.next_if_eq(&'\'').is_some() {
        let mut member = String::new();
        loop {
            match chars.next()? {
                '\'' if chars.next_if_eq(&'\'').is_none() => break,
                // The catalogue does not escape backslashes; definitions do.
                '\\' if chars.next_if_eq(&'\\').is_some() => member.push('\\'),
                other => member.push(other),
            }
        }
        members.push(member);
        chars.next_if_eq(&',');
    }
    Some(members)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_digits = |f: &mut fmt::Formatter<'_>, base: &str, digits: u8| match digits {
            0 => f.write_str(base),
            digits => write!(f, "{base}({digits})"),
        };
        match self {
            Kind::Tinyint => f.write_str("tinyint"),
            Kind::Smallint => f.write_str("smallint"),
            Kind::Int => f.write_str("int"),
            Kind::Bigint => f.write_str("bigint"),
            Kind::Float => f.write_str("float"),
            Kind::Double => f.write_str("double"),
            Kind::Decimal(precision, scale) => write!(f, "decimal({precision},{scale})"),
            Kind::Char(length) => write!(f, "char({length})"),
            Kind::Varchar(length) => write!(f, "varchar({length})"),
            Kind::Tinytext => f.write_str("tinytext"),
            Kind::Text => f.write_str("text"),
            Kind::Mediumtext => f.write_str("mediumtext"),
            Kind::Longtext => f.write_str("longtext"),
            Kind::Json => f.write_str("json"),
            Kind::Date => f.write_str("date"),
            Kind::Time(digits) => with_digits(f, "time", *digits),
            Kind::Datetime(digits) => with_digits(f, "datetime", *digits),
            Kind::Binary(length) => write!(f, "binary({length})"),
            Kind::Varbinary(length) => write!(f, "varbinary({length})"),
            Kind::Enum(members) => {
                let members: Vec<String> = members.iter().map(|member| literal(member)).collect();
                write!(f, "enum({})", members.join(","))
            }
            Kind::Other(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.charset {
            Some(charset) => write!(f, "{} {charset}", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

/// The columns of a table, key first.
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

/// Moves the longest strings out of the row until it is short enough for the server.
fn fit_row(columns: &mut [SqlColumn]) {
    let bytes = |column: &SqlColumn| column.longest.filter(|_| !column.key).map_or(0, |longest| longest as u64 * 4);
    while columns.iter().map(bytes).sum::<u64>() > ROW_BYTES {
        let Some(widest) = columns.iter_mut().max_by_key(|column| bytes(column)) else { return };
        widest.sql_type = Kind::Mediumtext.to_string();
        widest.longest = None;
        widest.default = widest.default.take().map(|default| format!("({default})"));
    }
}

fn sql_column(schema: &TableSchema, group: &str, column: &Column, key_length: u64) -> SqlColumn {
    let node = schema_node(&schema.source, group, &column.name);
    let is_key = group == "key";
    let choice = if is_key && is_text(&column.column_type) {
        key_text(&column.column_type, key_length)
    } else {
        choose(&schema.table, column, node)
    };
    let default = column.default.as_ref().and_then(|value| default(value, column, &choice));
    SqlColumn {
        default,
        required: column.required || is_key,
        comment: column.description.as_deref().and_then(|text| comment(text, MAX_COLUMN_COMMENT)),
        ..choice.into_column(column.name.clone(), column, is_key)
    }
}

/// The first line, as far as the server can hold it.
fn comment(text: &str, longest: usize) -> Option<String> {
    let line = text.split('\n').next().unwrap_or_default();
    let characters =
        line.chars().map(|character| if is_beyond_names(character) { char::REPLACEMENT_CHARACTER } else { character });
    let line: String = characters.take(longest).collect();
    (!line.is_empty()).then_some(line)
}

/// The comment of a table.
pub(super) fn table_comment(text: &str) -> Option<String> {
    comment(text, MAX_TABLE_COMMENT)
}

/// A string in a key needs a length; longer values are refused.
fn key_text(column_type: &ColumnType, key_length: u64) -> ColumnChoice {
    let declared = match column_type {
        ColumnType::Text { max_length: Some(length) } if *length > 0 => *length,
        _ => DEFAULT_KEY,
    };
    ColumnChoice::plain(SqlType::exact(Kind::Varchar(declared.min(key_length))))
}

fn choose(table: &TableRef, column: &Column, node: Option<&Value>) -> ColumnChoice {
    let text = |kind: Kind, longest: Option<u64>| ColumnChoice::text(kind, Kind::Longtext, longest);
    match &column.column_type {
        ColumnType::Text { max_length: Some(length) } if *length > 0 => {
            let constant = node.and_then(|node| node.get("const")).and_then(Value::as_str);
            // The server removes trailing blanks of this type.
            if constant.is_some_and(|text| *length <= 255 && !text.ends_with(' ')) {
                return text(Kind::Char(*length), Some(*length));
            }
            let length = constant_length(node).map_or(*length, |constant| constant.max(*length));
            match length {
                ..=MAX_VARCHAR => text(Kind::Varchar(length), Some(length)),
                16_384..16_777_216 => text(Kind::Mediumtext, None),
                _ => text(Kind::Longtext, None),
            }
        }
        ColumnType::Enum { members, open: false }
            if !members.is_empty() && members.iter().all(|member| can_be_enum_value(member)) =>
        {
            ColumnChoice {
                stage_type: Kind::Longtext.to_string(),
                enumeration: Some(Enumeration { name: column.name.clone(), members: members.clone() }),
                ..ColumnChoice::plain(SqlType::enumeration(members.clone()))
            }
        }
        ColumnType::Enum { open: true, .. } => {
            let lookup = quote(&cut_name(&format!("{}__{}__{}", table.namespace, table.table, column.name)));
            ColumnChoice {
                convert: Some(id_of_value(&lookup)),
                stage_type: SqlType::exact(Kind::Varchar(MAX_LOOKUP)).to_string(),
                lookup: Some((lookup, cut_name(&format!("fk_{}__{}_{}", table.namespace, table.table, column.name)))),
                ..ColumnChoice::plain(Kind::Int)
            }
        }
        ColumnType::Text { .. } | ColumnType::Enum { .. } => text(Kind::Mediumtext, None),
        // It may be any text, so the server's JSON type cannot hold it.
        ColumnType::Json => text(Kind::Longtext, None),
        other => ColumnChoice::plain(simple(other)),
    }
}

/// Whether an enumeration can hold a value. It loses trailing spaces, and the catalogue, by which values are compared, has no characters
/// of four bytes.
pub(super) fn can_be_enum_value(value: &str) -> bool {
    value.chars().count() <= MAX_LABEL && !value.ends_with(' ') && !value.chars().any(is_beyond_names)
}

fn simple(column_type: &ColumnType) -> Kind {
    match column_type {
        ColumnType::Boolean => Kind::Tinyint,
        ColumnType::Int16 => Kind::Smallint,
        ColumnType::Int32 => Kind::Int,
        ColumnType::Int64 => Kind::Bigint,
        ColumnType::Float32 | ColumnType::Float64 => Kind::Double,
        ColumnType::Decimal { precision, scale } if *scale <= 30 => {
            Kind::Decimal(u32::from(*precision), u32::try_from(*scale).unwrap_or_default())
        }
        // More digits after the decimal point than the server's decimals have.
        ColumnType::Decimal { .. } => Kind::Varchar(64),
        ColumnType::Timestamp => Kind::Datetime(6),
        ColumnType::Date => Kind::Date,
        ColumnType::Time => Kind::Time(6),
        ColumnType::Uuid => Kind::Binary(16),
        ColumnType::Ip { v4: true, v6: false } => Kind::Binary(4),
        ColumnType::Ip { v4: false, v6: true } => Kind::Binary(16),
        ColumnType::Ip { .. } => Kind::Varbinary(16),
        ColumnType::Struct(_) | ColumnType::List(_) => Kind::Json,
        ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Json => Kind::Mediumtext,
    }
}

/// A default of the schema as an SQL expression, for types whose literals are certain.
fn default(value: &Value, column: &Column, choice: &ColumnChoice) -> Option<String> {
    match (&column.column_type, value) {
        (_, _) if choice.lookup.is_some() => None,
        (ColumnType::Boolean, Value::Bool(value)) => Some(u8::from(*value).to_string()),
        (ColumnType::Enum { members, .. }, Value::String(value)) if choice.enumeration.is_some() => {
            members.contains(value).then(|| literal(value))
        }
        (ColumnType::Text { .. } | ColumnType::Enum { .. }, Value::String(value)) => {
            // A string outside the row accepts expressions only.
            Some(if choice.sql_type.ends_with("text") { format!("({})", literal(value)) } else { literal(value) })
        }
        (column_type, value) => numeric_default(column_type, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_spelled_as_they_are_read() {
        for text in [
            "tinyint",
            "decimal(12,4)",
            "varchar(255)",
            "varchar(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            "datetime(6)",
            "datetime",
            "enum('a','o''clock','b\\\\c') CHARACTER SET ascii COLLATE ascii_bin",
            "enum('x /* y',' CHARACTER SET ') CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            "enum('x /* y','1')",
            "varbinary(16)",
            "mediumtext CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
            "timestamp(6)",
            "int unsigned",
        ] {
            let parsed = SqlType::parse(text);
            assert_eq!(parsed.to_string(), text);
            assert_eq!(SqlType::parse(&parsed.to_string()), parsed);
        }
        assert_eq!(SqlType::parse("int unsigned").kind, Kind::Other("int unsigned".to_owned()));
        let exact = format!("varchar(64) {EXACT}");
        assert_eq!((SqlType::parse(&exact).kind, SqlType::parse(&exact).to_string()), (Kind::Varchar(64), exact));
    }
}
