//! The schema of a table: columns in the service's order, with types, nullability and descriptions.

use std::sync::Arc;

use serde_json::Value;

use super::change_columns::{ACTION, SEQ, TS};
use crate::error::{Error, Kind};
use crate::model::TableRef;

/// The schema of one table at one version.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSchema {
    /// The table.
    pub table: TableRef,
    /// The version that the service gave it. Versions grow strictly.
    pub version: i64,
    /// The title and description.
    pub description: Option<String>,
    /// The key columns, in order. There is at least one.
    pub key: Vec<Column>,
    /// All other columns, in order. A value column with the name of a key column is dropped.
    pub value: Vec<Column>,
    /// The service's JSON Schema, an object with `properties.meta`, `.key` and `.value`, for targets that store it.
    pub source: Arc<Value>,
    /// One sentence for each part of the JSON Schema that is not supported and is loaded as JSON text.
    pub warnings: Vec<String>,
}

impl TableSchema {
    /// Fails with kind `Schema` if a column is named `_action`, `_ts` or `_seq`, in any letter case: change batches use these names. To be
    /// called after columns are dropped.
    pub(crate) fn check_names(&self) -> crate::error::Result<()> {
        let is_reserved = |column: &&Column| [ACTION, TS, SEQ].iter().any(|name| name.eq_ignore_ascii_case(&column.name));
        let Some(column) = self.columns().find(is_reserved) else { return Ok(()) };
        let is_key = self.key.iter().any(|key| key.name == column.name);
        Err(Error::new(Kind::Schema, "The table has a column whose name is reserved by daplake")
            .with_field("table", &self.table)
            .with_field("column", &column.name)
            .hint(if is_key {
                "exclude the table with --exclude".to_owned()
            } else {
                format!("drop the column: daplake sync --drop-column {}.{}", self.table, column.name)
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

/// A column, or a member of a nested object.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The name as the service spells it, without `key.` or `value.`.
    pub name: String,
    /// The type.
    pub column_type: ColumnType,
    /// Whether the schema lists it in `required`. The service may still send nulls.
    pub required: bool,
    /// The description.
    pub description: Option<String>,
    /// Whether the service may replace a text that is too large by a placeholder, which may exceed the declared length.
    pub oversizeable: bool,
    /// The `default` of the schema.
    pub default: Option<Value>,
}

/// The type of a column, with what SQL targets need in addition to the Arrow type.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnType {
    /// `true` or `false`.
    Boolean,
    /// A signed integer of 16 bits.
    Int16,
    /// A signed integer of 32 bits.
    Int32,
    /// A signed integer of 64 bits.
    Int64,
    /// A 32-bit IEEE float; infinities and NaN are allowed.
    Float32,
    /// A 64-bit IEEE float; also a `number` without format.
    Float64,
    /// An exact decimal.
    Decimal {
        /// The number of digits in total, at most 38.
        precision: u8,
        /// The number of digits after the decimal point.
        scale: i8,
    },
    /// Text of any length, or at most `max_length` characters.
    Text {
        /// The maximum length in characters, not bytes.
        max_length: Option<u64>,
    },
    /// An enumeration of texts. Unknown values are accepted, whether the enumeration is open or not.
    Enum {
        /// The known values, in the schema's order.
        members: Vec<String>,
        /// Whether the schema allows other texts (`oneOf` of enum and string).
        open: bool,
    },
    /// A timestamp in UTC with microseconds.
    Timestamp,
    /// A calendar date.
    Date,
    /// A time of day, as text.
    Time,
    /// A UUID, as text in lower case with hyphens.
    Uuid,
    /// An IP address, as text.
    Ip {
        /// Whether IPv4 is allowed.
        v4: bool,
        /// Whether IPv6 is allowed.
        v6: bool,
    },
    /// An object of fixed shape.
    Struct(Vec<Column>),
    /// An array whose items have one known type.
    List(Box<ColumnType>),
    /// Anything else, as JSON text.
    Json,
}

impl ColumnType {
    /// The type in words, such as `bigint`, `text, at most 255 characters` or `list of uuid`.
    pub fn describe(&self) -> String {
        match self {
            ColumnType::Boolean => "boolean".to_owned(),
            ColumnType::Int16 => "smallint".to_owned(),
            ColumnType::Int32 => "int".to_owned(),
            ColumnType::Int64 => "bigint".to_owned(),
            ColumnType::Float32 => "float".to_owned(),
            ColumnType::Float64 => "double".to_owned(),
            ColumnType::Decimal { precision, scale } => format!("decimal({precision}, {scale})"),
            ColumnType::Text { max_length: None } => "text".to_owned(),
            ColumnType::Text { max_length: Some(1) } => "text, at most 1 character".to_owned(),
            ColumnType::Text { max_length: Some(length) } => format!("text, at most {length} characters"),
            ColumnType::Enum { .. } => "enum".to_owned(),
            ColumnType::Timestamp => "timestamp".to_owned(),
            ColumnType::Date => "date".to_owned(),
            ColumnType::Time => "time".to_owned(),
            ColumnType::Uuid => "uuid".to_owned(),
            ColumnType::Ip { v4: true, v6: false } => "IPv4 address".to_owned(),
            ColumnType::Ip { v4: false, v6: true } => "IPv6 address".to_owned(),
            ColumnType::Ip { .. } => "IP address".to_owned(),
            ColumnType::Struct(_) => "struct".to_owned(),
            ColumnType::List(item) => format!("list of {}", item.describe()),
            ColumnType::Json => "json".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_described_in_words() {
        let text = ColumnType::Text { max_length: Some(255) };
        assert_eq!(text.describe(), "text, at most 255 characters");
        assert_eq!(ColumnType::List(Box::new(ColumnType::Uuid)).describe(), "list of uuid");
        assert_eq!(ColumnType::Decimal { precision: 5, scale: 2 }.describe(), "decimal(5, 2)");
        assert_eq!(ColumnType::Ip { v4: true, v6: true }.describe(), "IP address");
    }
}
