//! SQL Server's types, and which of them a column gets: the official client's choice, and text where it has none that works.

use std::fmt;

use serde_json::Value;

use super::names::{NAME_CHARS, cut_name, literal, quote};
use crate::model::TableRef;
use crate::schema::{Column, ColumnType, TableSchema};
use crate::sink::sql::dialect::{ColumnChoice, Enumeration, Fit, SqlColumn, constant_length, numeric_default, schema_node};

/// Bytes of a value of a lookup table.
pub(super) const LOOKUP_BYTES: usize = 256;
/// Bytes of a bounded string; longer ones are `varchar(max)`.
const BOUNDED_BYTES: u64 = 8000;
/// Characters that an index over staged strings, with two bytes each, can hold.
const INDEXED_CHARACTERS: u64 = 850;
/// The largest length of `nvarchar(n)` that the driver's bulk path declares unchanged.
pub(super) const STAGED_CHARACTERS: u64 = 2000;
/// The staging type of a time of day: the driver has no reliable way to send one as such. Unlike the staging types of strings, it has no
/// collation.
const STAGED_TIME: &str = "nvarchar(16)";

/// A type, as the server spells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SqlType {
    Bit,
    Tinyint,
    Smallint,
    Int,
    Bigint,
    Real,
    Float,
    /// Precision and scale.
    Decimal(u32, u32),
    /// Length in bytes.
    Char(u64),
    /// Length in bytes; `None` is `max`.
    Varchar(Option<u64>),
    /// Length in characters; `None` is `max`.
    Nchar(u64),
    Nvarchar(Option<u64>),
    Date,
    Time,
    /// Digits of the fraction, where they are declared.
    Datetime2(Option<u8>),
    /// Length in bytes.
    Binary(u64),
    /// Any other type, as it is spelled.
    Other(String),
}

impl SqlType {
    /// Reads the server's spelling.
    pub(super) fn parse(text: &str) -> Self {
        let plain = text.trim_end_matches(COLLATE_DEFAULT).trim_end();
        let (base, rest) = plain.split_once('(').unwrap_or((plain, ""));
        let rest = rest.trim_end_matches(')');
        let numbers: Vec<u64> = rest.split(',').filter_map(|number| number.trim().parse().ok()).collect();
        match (base, &numbers[..]) {
            ("bit", _) => SqlType::Bit,
            ("tinyint", _) => SqlType::Tinyint,
            ("smallint", _) => SqlType::Smallint,
            ("int", _) => SqlType::Int,
            ("bigint", _) => SqlType::Bigint,
            ("real", _) => SqlType::Real,
            ("float", _) => SqlType::Float,
            ("decimal", [precision, scale]) => SqlType::Decimal(*precision as u32, *scale as u32),
            ("char", [length]) => SqlType::Char(*length),
            ("nchar", [length]) => SqlType::Nchar(*length),
            ("varchar", [length]) => SqlType::Varchar(Some(*length)),
            ("varchar", []) if rest == "max" => SqlType::Varchar(None),
            ("nvarchar", [length]) => SqlType::Nvarchar(Some(*length)),
            ("nvarchar", []) if rest == "max" => SqlType::Nvarchar(None),
            ("date", _) => SqlType::Date,
            ("time", []) => SqlType::Time,
            ("datetime2", digits) => SqlType::Datetime2(digits.first().and_then(|digits| u8::try_from(*digits).ok())),
            ("binary", [length]) => SqlType::Binary(*length),
            _ => SqlType::Other(text.to_owned()),
        }
    }

    /// A string type.
    pub(super) fn is_string(&self) -> bool {
        matches!(self, SqlType::Char(_) | SqlType::Varchar(_) | SqlType::Nchar(_) | SqlType::Nvarchar(_))
    }

    /// Rank among the integer types, and the digits of the largest number.
    fn integer(&self) -> Option<(usize, u32)> {
        match self {
            SqlType::Tinyint => Some((0, 3)),
            SqlType::Smallint => Some((1, 5)),
            SqlType::Int => Some((2, 10)),
            SqlType::Bigint => Some((3, 19)),
            _ => None,
        }
    }

    /// Whether a string type has room for `bytes` bytes.
    fn has_room(&self, bytes: u64) -> bool {
        matches!(self, SqlType::Varchar(length) if length.is_none_or(|length| length >= bytes))
    }

    /// Whether the server converts values of this type to text as the service writes them, or as `change.rs` can rewrite them.
    pub(super) fn has_text_form(&self) -> bool {
        self.integer().is_some() || matches!(self, SqlType::Decimal(..) | SqlType::Date) || self.is_time()
    }

    /// A timestamp or a time of day.
    pub(super) fn is_time(&self) -> bool {
        match self {
            SqlType::Datetime2(_) | SqlType::Time => true,
            SqlType::Other(name) => matches!(name.as_str(), "datetime" | "smalldatetime"),
            _ => false,
        }
    }

    /// Whether the values of this type fit into `to`.
    pub(super) fn fit(&self, to: &SqlType) -> Fit {
        use SqlType as T;
        if self == to {
            return Fit::Same;
        }
        let longest = |length: &Option<u64>| length.unwrap_or(u64::MAX);
        match (self, to) {
            _ if let (Some((from, _)), Some((to, _))) = (self.integer(), to.integer()) => Fit::of_ranks(from, to),
            (T::Tinyint | T::Smallint, T::Real | T::Float) | (T::Int | T::Real, T::Float) => Fit::Wider,
            (T::Float, T::Real) => Fit::Holds,
            (_, T::Decimal(precision, scale)) if let Some((_, digits)) = self.integer() => {
                if precision.saturating_sub(*scale) >= digits { Fit::Wider } else { Fit::Other }
            }
            (T::Decimal(p, s), T::Decimal(q, t)) => Fit::of_decimals((*p, *s), (*q, *t)),
            (T::Varchar(from), T::Varchar(to)) => {
                if longest(from) >= longest(to) {
                    Fit::Holds
                } else {
                    Fit::Wider
                }
            }
            (T::Varchar(from), T::Char(to)) => {
                if longest(from) >= *to {
                    Fit::Holds
                } else {
                    Fit::Wider
                }
            }
            (T::Char(from), T::Varchar(to)) => {
                if *from <= longest(to) {
                    Fit::Wider
                } else {
                    Fit::Holds
                }
            }
            (T::Char(from), T::Char(to)) => {
                if from < to {
                    Fit::Wider
                } else {
                    Fit::Holds
                }
            }
            // A choice of the user; one of its characters is at most four bytes here.
            (T::Nvarchar(from), T::Varchar(to)) => {
                if longest(from).saturating_mul(4) >= longest(to) {
                    Fit::Holds
                } else {
                    Fit::Wider
                }
            }
            (T::Nchar(from), T::Varchar(to)) => {
                if from.saturating_mul(4) >= longest(to) {
                    Fit::Holds
                } else {
                    Fit::Wider
                }
            }
            (_, T::Varchar(_)) if self.integer().is_some() || *self == T::Date => {
                if to.has_room(20) {
                    Fit::Wider
                } else {
                    Fit::Other
                }
            }
            (T::Datetime2(_) | T::Time, T::Varchar(_)) if to.has_room(40) => Fit::Wider,
            (T::Decimal(..), T::Varchar(_)) if to.has_room(41) => Fit::Wider,
            (T::Date, T::Datetime2(_)) => Fit::Wider,
            _ => Fit::Other,
        }
    }
}

impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_length = |f: &mut fmt::Formatter<'_>, base: &str, length: &Option<u64>| match length {
            Some(length) => write!(f, "{base}({length})"),
            None => write!(f, "{base}(max)"),
        };
        match self {
            SqlType::Bit => f.write_str("bit"),
            SqlType::Tinyint => f.write_str("tinyint"),
            SqlType::Smallint => f.write_str("smallint"),
            SqlType::Int => f.write_str("int"),
            SqlType::Bigint => f.write_str("bigint"),
            SqlType::Real => f.write_str("real"),
            SqlType::Float => f.write_str("float"),
            SqlType::Decimal(precision, scale) => write!(f, "decimal({precision},{scale})"),
            SqlType::Char(length) => write!(f, "char({length})"),
            SqlType::Nchar(length) => write!(f, "nchar({length})"),
            SqlType::Varchar(length) => with_length(f, "varchar", length),
            SqlType::Nvarchar(length) => with_length(f, "nvarchar", length),
            SqlType::Date => f.write_str("date"),
            SqlType::Time => f.write_str("time"),
            SqlType::Datetime2(Some(digits)) => write!(f, "datetime2({digits})"),
            SqlType::Datetime2(None) => f.write_str("datetime2"),
            SqlType::Binary(length) => write!(f, "binary({length})"),
            SqlType::Other(text) => f.write_str(text),
        }
    }
}

/// The collation of staged strings: temporary tables would otherwise get that of another database.
const COLLATE_DEFAULT: &str = "COLLATE DATABASE_DEFAULT";

/// The staging type of strings.
fn staged_text(characters: Option<u64>) -> String {
    format!("{} {COLLATE_DEFAULT}", SqlType::Nvarchar(characters))
}

/// Whether a column is staged as a string that is not a time of day.
pub(super) fn is_staged_text(column: &SqlColumn) -> bool {
    column.stage_type != STAGED_TIME && matches!(SqlType::parse(&column.stage_type), SqlType::Nvarchar(_))
}

/// How staged values of a column are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A string, with the bytes of UTF-8 that it may have.
    Text(Option<usize>),
    /// A time of day, as text.
    Time,
    /// A UUID or an address, padded to this length.
    Binary(usize),
    /// The value of the record batch.
    Plain,
}

impl Format {
    /// For a type in the staging table.
    pub(super) fn of(stage_type: &str) -> Self {
        match SqlType::parse(stage_type) {
            _ if stage_type == STAGED_TIME => Format::Time,
            SqlType::Nvarchar(length) => Format::Text(length.map(|length| length as usize)),
            SqlType::Binary(length) => Format::Binary(length as usize),
            _ => Format::Plain,
        }
    }
}

/// The columns of a table, key first.
pub(super) fn columns(schema: &TableSchema) -> Vec<SqlColumn> {
    let texts = schema.key.iter().filter(|column| is_text(column)).count() as u64;
    let key = schema.key.iter().map(|column| {
        let choice = choose(schema, "key", column);
        let choice = if is_text(column) { indexed(choice, INDEXED_CHARACTERS / texts) } else { choice };
        sql_column(&schema.table, column, choice, true)
    });
    let value = schema.value.iter().map(|column| sql_column(&schema.table, column, choose(schema, "value", column), false));
    key.chain(value).collect()
}

fn is_text(column: &Column) -> bool {
    matches!(column.column_type, ColumnType::Text { .. } | ColumnType::Json | ColumnType::Struct(_) | ColumnType::List(_))
}

/// A string in a key: it must allow a unique index, also in the staging table. The official client fails for strings without a length.
fn indexed(choice: ColumnChoice, share: u64) -> ColumnChoice {
    let (sql_type, bytes) = match SqlType::parse(&choice.sql_type) {
        SqlType::Varchar(Some(bytes)) | SqlType::Char(bytes) => (choice.sql_type, bytes),
        _ => (SqlType::Varchar(Some(share)).to_string(), share),
    };
    ColumnChoice {
        stage_type: staged_text(Some(bytes.min(STAGED_CHARACTERS))),
        convert: Some(format!("CAST({{}} AS varchar({bytes}))")),
        ..ColumnChoice::plain(sql_type)
    }
}

fn sql_column(table: &TableRef, column: &Column, choice: ColumnChoice, key: bool) -> SqlColumn {
    let default = column.default.as_ref().and_then(|value| default(value, column, &choice));
    SqlColumn {
        default: default.map(|default| {
            let constraint = quote(&default_name(table, &column.name));
            format!("CONSTRAINT {constraint} DEFAULT {default}")
        }),
        comment: None,
        ..choice.into_column(cut_name(&column.name), column, key)
    }
}

/// `df_<column>_` and six letters. The official client draws the letters; here they follow from the column, so that a statement is always
/// the same.
fn default_name(table: &TableRef, column: &str) -> String {
    let mut number = crc32fast::hash(format!("{table}.{column}").as_bytes());
    let letters = std::iter::repeat_with(|| {
        let letter = char::from(b'a' + (number % 26) as u8);
        number /= 26;
        letter
    });
    let letters: String = letters.take(6).collect();
    let kept: String = column.chars().take(NAME_CHARS - 10).collect();
    format!("df_{kept}_{letters}")
}

fn choose(schema: &TableSchema, group: &str, column: &Column) -> ColumnChoice {
    let choice = match &column.column_type {
        ColumnType::Text { max_length: Some(length) } if *length > 0 => {
            let node = schema_node(&schema.source, group, &column.name);
            let constant = node.and_then(|node| node.get("const")).and_then(Value::as_str);
            if constant.is_some_and(str::is_ascii) && *length <= BOUNDED_BYTES {
                ColumnChoice::text(SqlType::Char(*length), staged_text(None), Some(*length))
            } else {
                // A character has at most four bytes.
                let bytes = length.saturating_mul(4).max(constant_length(node).unwrap_or(0));
                if bytes <= BOUNDED_BYTES {
                    ColumnChoice::text(SqlType::Varchar(Some(bytes)), staged_text(None), Some(*length))
                } else {
                    ColumnChoice::text(SqlType::Varchar(None), staged_text(None), None)
                }
            }
        }
        ColumnType::Enum { members, open } => {
            let table = &schema.table;
            let lookup = cut_name(&format!("{}__{}", table.table, column.name));
            let lookup = format!("{}.{}", quote(table.namespace.as_str()), quote(&lookup));
            let constraint = cut_name(&format!("fk_{}_{}_{}", table.namespace, table.table, column.name));
            ColumnChoice {
                stage_type: staged_text(Some(LOOKUP_BYTES as u64)),
                lookup: Some((lookup, constraint)),
                enumeration: (!open).then(|| Enumeration { name: column.name.clone(), members: members.clone() }),
                ..ColumnChoice::plain(SqlType::Int)
            }
        }
        ColumnType::Boolean => ColumnChoice::plain(SqlType::Bit),
        ColumnType::Int16 => ColumnChoice::plain(SqlType::Smallint),
        ColumnType::Int32 => ColumnChoice::plain(SqlType::Int),
        ColumnType::Int64 => ColumnChoice::plain(SqlType::Bigint),
        ColumnType::Float32 => ColumnChoice::plain(SqlType::Real),
        ColumnType::Float64 => ColumnChoice::plain(SqlType::Float),
        ColumnType::Decimal { precision, scale } => {
            ColumnChoice::plain(SqlType::Decimal(u32::from(*precision), u32::try_from(*scale).unwrap_or_default()))
        }
        // Staged with six digits, as the service sends them and as Babelfish keeps them: nothing has to be rounded.
        ColumnType::Timestamp => ColumnChoice {
            stage_type: SqlType::Datetime2(Some(6)).to_string(),
            ..ColumnChoice::plain(SqlType::Datetime2(None))
        },
        ColumnType::Date => ColumnChoice::plain(SqlType::Date),
        ColumnType::Time => ColumnChoice {
            stage_type: STAGED_TIME.to_owned(),
            convert: Some("CAST({} AS time)".to_owned()),
            ..ColumnChoice::plain(SqlType::Time)
        },
        ColumnType::Ip { v6: false, .. } => ColumnChoice::plain(SqlType::Binary(4)),
        ColumnType::Uuid | ColumnType::Ip { .. } => ColumnChoice::plain(SqlType::Binary(16)),
        ColumnType::Text { .. } | ColumnType::Struct(_) | ColumnType::List(_) | ColumnType::Json => {
            ColumnChoice::text(SqlType::Varchar(None), staged_text(None), None)
        }
    };
    // Strings are converted, and two sessions that create tables at once must not wait for each other: all rows are staged.
    ColumnChoice { direct: false, ..choice }
}

/// A default of the schema as an SQL expression, for types whose literals are certain.
fn default(value: &Value, column: &Column, choice: &ColumnChoice) -> Option<String> {
    match (&column.column_type, value) {
        (_, _) if choice.lookup.is_some() => None,
        (ColumnType::Boolean, Value::Bool(value)) => Some(u8::from(*value).to_string()),
        (ColumnType::Text { .. }, Value::String(value)) => Some(literal(value)),
        (column_type, value) => numeric_default(column_type, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_spelled_as_they_are_read() {
        for text in [
            "bit",
            "decimal(12,4)",
            "varchar(max)",
            "nvarchar(256)",
            "char(3)",
            "datetime2",
            "datetime2(6)",
            "binary(16)",
            "money",
        ] {
            assert_eq!(SqlType::parse(text).to_string(), text);
        }
        assert_eq!(SqlType::parse(&staged_text(None)), SqlType::Nvarchar(None));
        assert_eq!(Format::of(&staged_text(Some(256))), Format::Text(Some(256)));
        assert_eq!((Format::of(STAGED_TIME), Format::of(&staged_text(Some(16)))), (Format::Time, Format::Text(Some(16))));
    }

    #[test]
    fn types_are_widened_and_never_narrowed() {
        for (from, to, expected) in [
            ("varchar(1020)", "varchar(2000)", Fit::Wider),
            ("varchar(255)", "varchar(max)", Fit::Wider),
            ("varchar(max)", "varchar(1020)", Fit::Holds),
            ("char(3)", "varchar(40)", Fit::Wider),
            ("nvarchar(max)", "varchar(max)", Fit::Holds),
            ("nvarchar(10)", "varchar(max)", Fit::Wider),
            ("int", "bigint", Fit::Wider),
            ("bigint", "int", Fit::Holds),
            ("real", "float", Fit::Wider),
            ("decimal(5,2)", "decimal(12,4)", Fit::Wider),
            ("decimal(12,4)", "decimal(5,2)", Fit::Holds),
            ("decimal(5,2)", "decimal(5,4)", Fit::Other),
            ("bigint", "decimal(20,0)", Fit::Wider),
            ("bigint", "varchar(max)", Fit::Wider),
            ("datetime2", "varchar(max)", Fit::Wider),
            ("datetime2", "varchar(20)", Fit::Other),
            // The server would write fewer digits, or other words than JSON has.
            ("float", "varchar(max)", Fit::Other),
            ("bit", "varchar(max)", Fit::Other),
            ("binary(16)", "varchar(max)", Fit::Other),
            ("varchar(max)", "bigint", Fit::Other),
            ("bigint", "float", Fit::Other),
        ] {
            assert_eq!(SqlType::parse(from).fit(&SqlType::parse(to)), expected, "{from} to {to}");
        }
    }
}
