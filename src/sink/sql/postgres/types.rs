//! PostgreSQL's types, and which of them a column gets: the official client's choice, and `text` where it has none that works.

use std::fmt;

use serde_json::Value;

use super::names::{cut_name, id_of_value, literal, quote};
use crate::model::TableRef;
use crate::schema::{Column, ColumnType, TableSchema};
use crate::sink::sql::dialect::{ColumnChoice, Enumeration, Fit, SqlColumn, constant_length, numeric_default, schema_node};

/// The longest length that a type may declare.
const MAX_VARCHAR: u64 = 10_485_760;
/// The longest value of a lookup table, in characters.
pub(super) const MAX_LOOKUP: usize = 64;
/// The longest value of an enumeration, in bytes.
const MAX_LABEL: usize = 63;

/// A type, as the server spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SqlType {
    Boolean,
    Smallint,
    Integer,
    Bigint,
    Real,
    Double,
    /// Precision and scale, where they are declared.
    Numeric(Option<(u32, u32)>),
    Text,
    /// Length in characters, where it is declared.
    Varchar(Option<u64>),
    Char(Option<u64>),
    Date,
    Time,
    Timestamp,
    Uuid,
    Inet,
    Jsonb,
    /// Quoted and qualified name of an enumeration type.
    Enumeration(String),
    Array(Box<SqlType>),
    /// Any other type, as it is spelled.
    Other(String),
}

impl SqlType {
    /// Reads the server's spelling.
    pub(super) fn parse(text: &str) -> Self {
        if let Some(item) = text.strip_suffix("[]") {
            return SqlType::Array(Box::new(Self::parse(item)));
        }
        if text.starts_with('"') {
            return SqlType::Enumeration(text.to_owned());
        }
        let (base, numbers) = text.split_once('(').map_or((text, None), |(base, rest)| (base, rest.strip_suffix(')')));
        let length = || numbers.and_then(|length| length.parse().ok());
        match base {
            "boolean" => SqlType::Boolean,
            "smallint" => SqlType::Smallint,
            "integer" => SqlType::Integer,
            "bigint" => SqlType::Bigint,
            "real" => SqlType::Real,
            "double precision" => SqlType::Double,
            "numeric" => SqlType::Numeric(numbers.and_then(|numbers| {
                let (precision, scale) = numbers.split_once(',')?;
                Some((precision.parse().ok()?, scale.trim().parse().ok()?))
            })),
            "text" => SqlType::Text,
            "character varying" => SqlType::Varchar(length()),
            "character" => SqlType::Char(length()),
            "date" => SqlType::Date,
            "time without time zone" => SqlType::Time,
            "timestamp without time zone" => SqlType::Timestamp,
            "uuid" => SqlType::Uuid,
            "inet" => SqlType::Inet,
            "jsonb" => SqlType::Jsonb,
            _ => SqlType::Other(text.to_owned()),
        }
    }

    /// The item type of an array.
    pub(super) fn item(&self) -> Option<&SqlType> {
        if let SqlType::Array(item) = self { Some(item) } else { None }
    }

    /// Text of any length, or an array of it.
    pub(super) fn is_any_text(&self) -> bool {
        matches!(self.item().unwrap_or(self), SqlType::Text)
    }

    /// A string type.
    pub(super) fn is_string(&self) -> bool {
        matches!(self, SqlType::Text | SqlType::Varchar(_) | SqlType::Char(_))
    }

    /// Maximum number of characters of a string type, where there is a limit.
    pub(super) fn longest(&self) -> Option<usize> {
        match self {
            SqlType::Varchar(length) | SqlType::Char(length) => length.and_then(|length| length.try_into().ok()),
            _ => None,
        }
    }

    /// The server's number of a type that can be the item of an array.
    pub(super) fn oid(&self) -> Option<u32> {
        Some(match self {
            SqlType::Boolean => 16,
            SqlType::Bigint => 20,
            SqlType::Smallint => 21,
            SqlType::Integer => 23,
            SqlType::Text => 25,
            SqlType::Real => 700,
            SqlType::Double => 701,
            SqlType::Inet => 869,
            SqlType::Varchar(_) => 1043,
            SqlType::Date => 1082,
            SqlType::Time => 1083,
            SqlType::Timestamp => 1114,
            SqlType::Numeric(_) => 1700,
            SqlType::Uuid => 2950,
            SqlType::Jsonb => 3802,
            SqlType::Char(_) | SqlType::Enumeration(_) | SqlType::Array(_) | SqlType::Other(_) => return None,
        })
    }

    /// Rank among the integer types, and the digits of the largest number.
    fn integer(&self) -> Option<(usize, u32)> {
        match self {
            SqlType::Smallint => Some((0, 5)),
            SqlType::Integer => Some((1, 10)),
            SqlType::Bigint => Some((2, 19)),
            _ => None,
        }
    }

    /// Whether the values of this type fit into `to`.
    pub(super) fn fit(&self, to: &SqlType) -> Fit {
        use SqlType as T;
        if self == to {
            return Fit::Same;
        }
        match (self, to) {
            (T::Array(from), T::Array(to)) => from.fit(to),
            // Every value has a text form.
            (_, T::Text) => Fit::Wider,
            (T::Array(_), _) | (_, T::Array(_)) => Fit::Other,
            _ if let (Some((from, _)), Some((to, _))) = (self.integer(), to.integer()) => Fit::of_ranks(from, to),
            (T::Smallint | T::Integer, T::Double) | (T::Smallint, T::Real) | (T::Real, T::Double) => Fit::Wider,
            (T::Double, T::Real) => Fit::Holds,
            (_, T::Numeric(Some((precision, scale)))) if let Some((_, digits)) = self.integer() => {
                if precision.saturating_sub(*scale) >= digits { Fit::Wider } else { Fit::Other }
            }
            (T::Numeric(Some(from)), T::Numeric(Some(to))) => Fit::of_decimals(*from, *to),
            (T::Numeric(None), T::Numeric(_)) => Fit::Holds,
            (T::Numeric(Some(_)), T::Numeric(None)) => Fit::Wider,
            (T::Text, T::Varchar(_) | T::Char(_)) => Fit::Holds,
            (T::Varchar(None), T::Varchar(_) | T::Char(_)) => Fit::Holds,
            (T::Varchar(Some(from)), T::Varchar(Some(to)) | T::Char(Some(to))) if from >= to => Fit::Holds,
            (T::Varchar(Some(_)) | T::Char(Some(_)), T::Varchar(Some(to)) | T::Char(Some(to))) => {
                if self.longest().is_some_and(|from| from as u64 <= *to) { Fit::Wider } else { Fit::Holds }
            }
            (T::Uuid | T::Inet | T::Time, T::Varchar(Some(45..))) => Fit::Wider,
            (T::Date, T::Timestamp) => Fit::Wider,
            _ => Fit::Other,
        }
    }
}

impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_length = |f: &mut fmt::Formatter<'_>, base: &str, length: &Option<u64>| match length {
            Some(length) => write!(f, "{base}({length})"),
            None => f.write_str(base),
        };
        match self {
            SqlType::Boolean => f.write_str("boolean"),
            SqlType::Smallint => f.write_str("smallint"),
            SqlType::Integer => f.write_str("integer"),
            SqlType::Bigint => f.write_str("bigint"),
            SqlType::Real => f.write_str("real"),
            SqlType::Double => f.write_str("double precision"),
            SqlType::Numeric(Some((precision, scale))) => write!(f, "numeric({precision},{scale})"),
            SqlType::Numeric(None) => f.write_str("numeric"),
            SqlType::Text => f.write_str("text"),
            SqlType::Varchar(length) => with_length(f, "character varying", length),
            SqlType::Char(length) => with_length(f, "character", length),
            SqlType::Date => f.write_str("date"),
            SqlType::Time => f.write_str("time without time zone"),
            SqlType::Timestamp => f.write_str("timestamp without time zone"),
            SqlType::Uuid => f.write_str("uuid"),
            SqlType::Inet => f.write_str("inet"),
            SqlType::Jsonb => f.write_str("jsonb"),
            SqlType::Enumeration(name) | SqlType::Other(name) => f.write_str(name),
            SqlType::Array(item) => write!(f, "{item}[]"),
        }
    }
}

/// The columns of a table, key first.
pub(super) fn columns(schema: &TableSchema) -> Vec<SqlColumn> {
    let key = schema.key.iter().map(|column| sql_column(schema, "key", column));
    let value = schema.value.iter().map(|column| sql_column(schema, "value", column));
    key.chain(value).collect()
}

fn sql_column(schema: &TableSchema, group: &str, column: &Column) -> SqlColumn {
    let node = schema_node(&schema.source, group, &column.name);
    let choice = choose(&schema.table, column, node);
    let default = column.default.as_ref().and_then(|value| default(value, column, &choice));
    SqlColumn { default, ..choice.into_column(cut_name(&column.name), column, group == "key") }
}

fn choose(table: &TableRef, column: &Column, node: Option<&Value>) -> ColumnChoice {
    let type_name = || cut_name(&format!("{}__{}", table.table, column.name));
    let qualified = |name: &str| format!("{}.{}", quote(table.namespace.as_str()), quote(name));
    let array = |item: SqlType| SqlType::Array(Box::new(item));
    match &column.column_type {
        ColumnType::Text { max_length: Some(length) } if *length > 0 => {
            if node.is_some_and(|node| node.get("const").is_some_and(Value::is_string)) {
                return ColumnChoice::text(SqlType::Char(Some(*length)), SqlType::Text, Some(*length));
            }
            let length = constant_length(node).map_or(*length, |constant| constant.max(*length));
            if length > MAX_VARCHAR {
                return ColumnChoice::plain(SqlType::Text);
            }
            ColumnChoice::text(SqlType::Varchar(Some(length)), SqlType::Text, Some(length))
        }
        // For a single value the official client names a type that it never creates.
        ColumnType::Enum { members, open: false } if members.len() >= 2 && all_fit(members) => {
            let name = type_name();
            let sql_type = SqlType::Enumeration(qualified(&name));
            ColumnChoice {
                convert: Some(format!("{{}}::{sql_type}")),
                stage_type: SqlType::Text.to_string(),
                enumeration: Some(Enumeration { name, members: members.clone() }),
                ..ColumnChoice::plain(sql_type)
            }
        }
        // For two and more values the official client gives a type and a table the same name, and fails.
        ColumnType::Enum { members, open: true } if members.len() == 1 => {
            let lookup = qualified(&type_name());
            ColumnChoice {
                longest: Some(MAX_LOOKUP),
                convert: Some(id_of_value(&lookup)),
                stage_type: SqlType::Text.to_string(),
                lookup: Some((lookup, cut_name(&format!("fk_{}_{}", table.table, column.name)))),
                ..ColumnChoice::plain(SqlType::Integer)
            }
        }
        ColumnType::List(item) => match &**item {
            // The bulk path needs the number of an enumeration type, which differs between databases.
            ColumnType::Enum { members, open: false } if members.len() >= 2 && all_fit(members) => {
                let name = type_name();
                let sql_type = array(SqlType::Enumeration(qualified(&name)));
                ColumnChoice {
                    convert: Some(format!("{{}}::{sql_type}")),
                    stage_type: array(SqlType::Text).to_string(),
                    direct: false,
                    enumeration: Some(Enumeration { name, members: members.clone() }),
                    ..ColumnChoice::plain(sql_type)
                }
            }
            ColumnType::Struct(_) | ColumnType::List(_) | ColumnType::Json => ColumnChoice::plain(SqlType::Jsonb),
            ColumnType::Text { max_length: Some(length) } if (1..=MAX_VARCHAR).contains(length) => {
                ColumnChoice::text(array(SqlType::Varchar(Some(*length))), array(SqlType::Text), Some(*length))
            }
            item => ColumnChoice::plain(array(simple(item))),
        },
        other => ColumnChoice::plain(simple(other)),
    }
}

fn all_fit(members: &[String]) -> bool {
    members.iter().all(|member| can_be_enum_value(member))
}

/// Whether an enumeration type can hold a value.
pub(super) fn can_be_enum_value(value: &str) -> bool {
    value.len() <= MAX_LABEL && !value.contains('\0')
}

fn simple(column_type: &ColumnType) -> SqlType {
    match column_type {
        ColumnType::Boolean => SqlType::Boolean,
        ColumnType::Int16 => SqlType::Smallint,
        ColumnType::Int32 => SqlType::Integer,
        ColumnType::Int64 => SqlType::Bigint,
        ColumnType::Float32 => SqlType::Real,
        ColumnType::Float64 => SqlType::Double,
        ColumnType::Decimal { precision, scale } => {
            SqlType::Numeric(Some((u32::from(*precision), u32::try_from(*scale).unwrap_or_default())))
        }
        ColumnType::Timestamp => SqlType::Timestamp,
        ColumnType::Date => SqlType::Date,
        ColumnType::Time => SqlType::Time,
        ColumnType::Uuid => SqlType::Uuid,
        ColumnType::Ip { .. } => SqlType::Inet,
        ColumnType::Struct(_) => SqlType::Jsonb,
        // JSON of unknown shape is kept exactly as it came; it may be any text.
        ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Json | ColumnType::List(_) => SqlType::Text,
    }
}

/// A default of the schema as an SQL expression, for types whose literals are certain.
fn default(value: &Value, column: &Column, choice: &ColumnChoice) -> Option<String> {
    match (&column.column_type, value) {
        (_, _) if choice.lookup.is_some() => None,
        (ColumnType::Boolean, Value::Bool(value)) => Some(value.to_string()),
        (ColumnType::Enum { members, .. }, Value::String(value)) if choice.enumeration.is_some() => {
            members.contains(value).then(|| format!("{}::{}", literal(value), choice.sql_type))
        }
        (ColumnType::Text { .. } | ColumnType::Enum { .. }, Value::String(value)) => Some(literal(value)),
        (column_type, value) => numeric_default(column_type, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_spelled_as_they_are_read() {
        for text in [
            "boolean",
            "numeric(12,4)",
            "numeric",
            "character varying(255)",
            "character varying",
            "character(3)",
            "time without time zone",
            "timestamp without time zone",
            "\"canvas\".\"users__(odd)\"",
            "\"canvas\".\"users__state\"[]",
            "character varying(20)[]",
            "interval",
            "numeric(3)",
        ] {
            let parsed = SqlType::parse(text);
            // A missing scale cannot be distinguished from a number without precision.
            let expected = if text == "numeric(3)" { "numeric" } else { text };
            assert_eq!(parsed.to_string(), expected);
            assert_eq!(SqlType::parse(&parsed.to_string()), parsed);
        }
    }

    #[test]
    fn types_are_widened_and_never_narrowed() {
        for (from, to, expected) in [
            ("integer", "bigint", Fit::Wider),
            ("bigint", "integer", Fit::Holds),
            ("bigint", "double precision", Fit::Other),
            ("integer", "numeric(10,0)", Fit::Wider),
            ("integer", "numeric(10,2)", Fit::Other),
            ("numeric(5,2)", "numeric(12,4)", Fit::Wider),
            ("numeric(12,4)", "numeric(5,2)", Fit::Holds),
            ("numeric(5,2)", "numeric(5,4)", Fit::Other),
            ("character varying(3)", "character varying(10)", Fit::Wider),
            ("character varying(10)", "character varying(3)", Fit::Holds),
            ("character(3)", "character varying(10)", Fit::Wider),
            ("text", "character varying(3)", Fit::Holds),
            ("uuid", "character varying(45)", Fit::Wider),
            ("uuid", "character varying(20)", Fit::Other),
            ("integer[]", "bigint[]", Fit::Wider),
            ("jsonb", "text", Fit::Wider),
            ("text", "jsonb", Fit::Other),
            ("\"a\".\"b\"", "\"a\".\"c\"", Fit::Other),
            ("date", "timestamp without time zone", Fit::Wider),
            ("timestamp without time zone", "date", Fit::Other),
        ] {
            assert_eq!(SqlType::parse(from).fit(&SqlType::parse(to)), expected, "{from} to {to}");
        }
    }
}
