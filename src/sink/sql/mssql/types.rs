//! Which type a column gets: the official client's choice, and text where it has none that works.

use serde_json::Value;

use super::dialect::{LONGEST_NAME, cut_name, literal, quote};
use crate::model::TableRef;
use crate::schema::{Column, ColumnType, TableSchema};
use crate::sink::sql::dialect::{Enumeration, SqlColumn};

/// Type of texts of any length in the staging table.
const STAGED_TEXT: &str = "nvarchar(max) COLLATE DATABASE_DEFAULT";
/// Type of times of day in the staging table: the driver has no certain way to send them.
pub(super) const STAGED_TIME: &str = "nvarchar(16) COLLATE DATABASE_DEFAULT";
/// Type of moments in the staging table. The values have six digits, and Babelfish keeps no more, so that neither the driver nor
/// a server has anything to round.
const STAGED_MOMENT: &str = "datetime2(6)";
/// Bytes of a word of an enumeration.
const WORD_BYTES: u64 = 256;
/// Bytes of a text that is bounded; longer ones are `varchar(max)`.
const BOUNDED_BYTES: u64 = 8000;
/// Bytes that an index over staged texts, two bytes a character, takes at most.
const INDEXED_CHARACTERS: u64 = 850;
/// The largest number in `nvarchar(n)` that the driver's bulk path declares as it is.
pub(super) const STAGED_CHARACTERS: u64 = 2000;

/// Columns of a table, key first.
pub(super) fn columns(schema: &TableSchema) -> Vec<SqlColumn> {
    let texts = schema.key.iter().filter(|column| is_text(column)).count() as u64;
    let key = schema.key.iter().map(|column| {
        let chosen = choose(schema, "key", column);
        let chosen = if is_text(column) { indexed(chosen, INDEXED_CHARACTERS / texts) } else { chosen };
        sql_column(&schema.table, column, chosen, true)
    });
    let value = schema.value.iter().map(|column| {
        let chosen = choose(schema, "value", column);
        sql_column(&schema.table, column, chosen, false)
    });
    key.chain(value).collect()
}

struct Chosen {
    sql_type: String,
    stage_type: String,
    convert: Option<String>,
    longest: Option<usize>,
    lookup: Option<(String, String)>,
}

impl Chosen {
    fn plain(sql_type: impl Into<String>) -> Self {
        let sql_type = sql_type.into();
        Self { stage_type: sql_type.clone(), sql_type, convert: None, longest: None, lookup: None }
    }

    fn text(sql_type: impl Into<String>, longest: Option<u64>) -> Self {
        let longest = longest.and_then(|longest| longest.try_into().ok());
        Self { stage_type: STAGED_TEXT.to_owned(), longest, ..Self::plain(sql_type) }
    }
}

fn is_text(column: &Column) -> bool {
    matches!(column.column_type, ColumnType::Text { .. } | ColumnType::Json | ColumnType::Struct(_) | ColumnType::List(_))
}

/// A text in a key: a unique index over it, and over its staged form, has to be possible.
fn indexed(chosen: Chosen, share: u64) -> Chosen {
    let bytes = match number(&chosen.sql_type) {
        Some(bytes) => bytes,
        // The official client fails here, so there is nothing to agree with.
        None => share,
    };
    let sql_type = match number(&chosen.sql_type) {
        Some(_) => chosen.sql_type,
        None => format!("varchar({bytes})"),
    };
    Chosen {
        stage_type: format!("nvarchar({}) COLLATE DATABASE_DEFAULT", bytes.min(STAGED_CHARACTERS)),
        convert: Some(format!("CAST({{}} AS varchar({bytes}))")),
        longest: None,
        lookup: None,
        sql_type,
    }
}

/// The number in parentheses.
fn number(sql_type: &str) -> Option<u64> {
    sql_type.split_once('(')?.1.trim_end_matches(')').parse().ok()
}

fn sql_column(table: &TableRef, column: &Column, chosen: Chosen, key: bool) -> SqlColumn {
    let default = column.default.as_ref().and_then(|value| default(value, column, &chosen));
    SqlColumn {
        name: cut_name(&column.name),
        source: column.name.clone(),
        default: default.map(|default| {
            let constraint = quote(&default_name(table, &column.name));
            format!("CONSTRAINT {constraint} DEFAULT {default}")
        }),
        sql_type: chosen.sql_type,
        stage_type: chosen.stage_type,
        convert: chosen.convert,
        // Two sessions that make tables at once must not wait for each other, and texts are converted: all rows are staged.
        direct: false,
        longest: chosen.longest,
        key,
        required: column.required,
        comment: None,
        enumeration: match &column.column_type {
            ColumnType::Enum { members, open: false } => {
                Some(Enumeration { name: column.name.clone(), members: members.clone() })
            }
            _ => None,
        },
        lookup: chosen.lookup,
    }
}

/// `df_<column>_` and six letters, which the official client draws. Here they are the table's, so that a text is always the same.
fn default_name(table: &TableRef, column: &str) -> String {
    let mut number = crc32fast::hash(format!("{table}.{column}").as_bytes());
    let letters = std::iter::repeat_with(|| {
        let letter = char::from(b'a' + (number % 26) as u8);
        number /= 26;
        letter
    });
    let letters: String = letters.take(6).collect();
    let kept: String = column.chars().take(LONGEST_NAME - 10).collect();
    format!("df_{kept}_{letters}")
}

/// The JSON Schema of a column, behind references.
fn node<'s>(schema: &'s TableSchema, group: &str, name: &str) -> Option<&'s Value> {
    let source = schema.source.as_ref();
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
fn constant_length(node: &Value) -> Option<u64> {
    let choices = node.get("oneOf").or_else(|| node.get("anyOf"))?.as_array()?;
    choices.iter().filter_map(|choice| Some(choice.get("const")?.as_str()?.chars().count() as u64)).max()
}

fn choose(schema: &TableSchema, group: &str, column: &Column) -> Chosen {
    let table = &schema.table;
    match &column.column_type {
        ColumnType::Text { max_length: Some(length) } if *length > 0 => {
            let node = node(schema, group, &column.name);
            let constant = node.and_then(|node| node.get("const")).and_then(Value::as_str);
            if constant.is_some_and(str::is_ascii) && *length <= BOUNDED_BYTES {
                return Chosen::text(format!("char({length})"), Some(*length));
            }
            // Four bytes are the longest character.
            let bytes = length.saturating_mul(4).max(node.and_then(constant_length).unwrap_or(0));
            match bytes <= BOUNDED_BYTES {
                true => Chosen::text(format!("varchar({bytes})"), Some(*length)),
                false => Chosen::text("varchar(max)", None),
            }
        }
        ColumnType::Enum { .. } => {
            let lookup = cut_name(&format!("{}__{}", table.table, column.name));
            let lookup = format!("{}.{}", quote(table.namespace.as_str()), quote(&lookup));
            let constraint = cut_name(&format!("fk_{}_{}_{}", table.namespace, table.table, column.name));
            Chosen {
                stage_type: format!("nvarchar({WORD_BYTES}) COLLATE DATABASE_DEFAULT"),
                lookup: Some((lookup, constraint)),
                ..Chosen::plain("int")
            }
        }
        ColumnType::Boolean => Chosen::plain("bit"),
        ColumnType::Int16 => Chosen::plain("smallint"),
        ColumnType::Int32 => Chosen::plain("int"),
        ColumnType::Int64 => Chosen::plain("bigint"),
        ColumnType::Float32 => Chosen::plain("real"),
        ColumnType::Float64 => Chosen::plain("float"),
        ColumnType::Decimal { precision, scale } => Chosen::plain(format!("decimal({precision},{scale})")),
        ColumnType::Timestamp => Chosen { stage_type: STAGED_MOMENT.to_owned(), ..Chosen::plain("datetime2") },
        ColumnType::Date => Chosen::plain("date"),
        ColumnType::Time => {
            Chosen { stage_type: STAGED_TIME.to_owned(), convert: Some("CAST({} AS time)".to_owned()), ..Chosen::plain("time") }
        }
        ColumnType::Uuid => Chosen::plain("binary(16)"),
        ColumnType::Ip { v6: false, .. } => Chosen::plain("binary(4)"),
        ColumnType::Ip { .. } => Chosen::plain("binary(16)"),
        ColumnType::Text { .. } | ColumnType::Struct(_) | ColumnType::List(_) | ColumnType::Json => {
            Chosen::text("varchar(max)", None)
        }
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
        (ColumnType::Text { .. }, Value::String(value)) => Some(literal(value)),
        _ => None,
    }
}
