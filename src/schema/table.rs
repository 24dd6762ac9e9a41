//! What a table looks like: columns in the service's order with types, nullability and descriptions. It knows no Arrow and no SQL.

use std::sync::Arc;

use serde_json::Value;

use super::change_columns::{ACTION, SEQ, TS};
use crate::error::{Error, Kind};
use crate::model::TableRef;

/// The schema of one table at one version.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSchema {
    /// Which table.
    pub table: TableRef,
    /// Strictly growing number given by the service.
    pub version: i64,
    /// Text for people, from `title` and `description`.
    pub description: Option<String>,
    /// Primary key, in order; at least one column.
    pub key: Vec<Column>,
    /// All other columns, in order. A value column with the name of a key column is left out.
    pub value: Vec<Column>,
    /// The service's JSON Schema as it came (object with `properties.meta/key/value`), for targets that store it.
    pub source: Arc<Value>,
    /// What could not be understood and was degraded to JSON text, one sentence per place.
    pub warnings: Vec<String>,
}

impl TableSchema {
    /// Kind `Schema` for columns named `_action`, `_ts` or `_seq`, in any case of letters: change batches use these names. Columns
    /// that are left out do no harm, so it is asked of what is kept.
    pub(crate) fn check_names(&self) -> crate::error::Result<()> {
        let is_ours = |column: &&Column| [ACTION, TS, SEQ].iter().any(|ours| ours.eq_ignore_ascii_case(&column.name));
        let Some(column) = self.columns().find(is_ours) else { return Ok(()) };
        let is_key = self.key.iter().any(|key| key.name == column.name);
        Err(Error::new(Kind::Schema, "The table has a column with a name that daplake keeps for itself")
            .with_field("table", &self.table)
            .with_field("column", &column.name)
            .hint(match is_key {
                true => "leave the table out with --exclude".to_owned(),
                false => format!("leave the column out: daplake sync --drop-column {}.{}", self.table, column.name),
            }))
    }

    /// Key columns, then value columns.
    pub fn columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().chain(self.value.iter())
    }

    /// Names of the key columns, in order.
    pub fn key_names(&self) -> Vec<&str> {
        self.key.iter().map(|column| column.name.as_str()).collect()
    }
}

/// One column, or one member of a nested object.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Name as the service spells it, without `key.` or `value.`.
    pub name: String,
    /// Its type.
    pub column_type: ColumnType,
    /// Listed in `required`. A null may come all the same (tables.md, section 5).
    pub required: bool,
    /// Text for people.
    pub description: Option<String>,
    /// The service may put a placeholder in place of a text that is too large; it may exceed the declared length.
    pub oversizeable: bool,
    /// `default` of the schema.
    pub default: Option<Value>,
}

/// Type of a column, with what SQL targets need to know beyond Arrow.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnType {
    /// `true` or `false`.
    Boolean,
    /// 16 bits, signed.
    Int16,
    /// 32 bits, signed.
    Int32,
    /// 64 bits, signed.
    Int64,
    /// 32-bit IEEE float, infinities and NaN allowed.
    Float32,
    /// 64-bit IEEE float; also a bare `number`.
    Float64,
    /// Exact decimal.
    Decimal {
        /// Digits in all, at most 38.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// Text of any length, or at most `max_length` characters.
    Text {
        /// In characters, not bytes.
        max_length: Option<u64>,
    },
    /// One of several words; open ones admit any other text. Unknown members are accepted in either case.
    Enum {
        /// Announced words, in the schema's order.
        members: Vec<String>,
        /// `oneOf` enum and plain string.
        open: bool,
    },
    /// Moment in UTC, microseconds.
    Timestamp,
    /// Calendar date.
    Date,
    /// Time of day, kept as text.
    Time,
    /// UUID, kept as text in lower case with hyphens.
    Uuid,
    /// IP address, kept as text.
    Ip {
        /// IPv4 is allowed.
        v4: bool,
        /// IPv6 is allowed.
        v6: bool,
    },
    /// Object of fixed shape.
    Struct(Vec<Column>),
    /// Array of known items.
    List(Box<ColumnType>),
    /// Anything else, kept as JSON text.
    Json,
}
