//! The partitions of a table: one column of days, months or years, whose value each data file has in the log. No I/O.

use apache_avro::types::Value as Avro;
use serde_json::{Value, json};

use super::avro::{Record, nullable, optional};
use super::bounds::days;
use super::schema::{Field, Type};

/// The first id of a partition field.
const FIRST_ID: i32 = 1000;

/// The column that partitions a table by its values.
#[derive(Debug, Clone, PartialEq)]
struct PartitionField {
    source: i32,
    id: i32,
    name: String,
    is_date: bool,
}

/// How a table is partitioned.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PartitionSpec {
    pub(super) id: i32,
    field: Option<PartitionField>,
}

impl PartitionSpec {
    /// The spec of a table that is partitioned by a column, or not at all.
    pub(super) fn new(column: Option<&Field>) -> Self {
        let field = |column: &Field| PartitionField {
            source: column.id,
            id: FIRST_ID,
            name: column.name.clone(),
            is_date: column.kind == Type::Primitive("date".to_owned()),
        };
        Self { id: 0, field: column.map(field) }
    }

    /// The fields, for table metadata and manifests.
    pub(super) fn fields_json(&self) -> Value {
        let field = |field: &PartitionField| json!({"name": field.name, "transform": "identity", "source-id": field.source, "field-id": field.id});
        self.field.iter().map(field).collect()
    }

    /// The spec for table metadata.
    pub(super) fn to_json(&self) -> Value {
        json!({"spec-id": self.id, "fields": self.fields_json()})
    }

    /// The highest id of a partition field.
    pub(super) fn last_id(&self) -> i32 {
        self.field.as_ref().map_or(FIRST_ID - 1, |field| field.id)
    }

    /// The type of a partition value in a manifest.
    pub(super) fn avro(&self) -> Value {
        let field = |field: &PartitionField| {
            let kind = if field.is_date { json!({"type": "int", "logicalType": "date"}) } else { json!("int") };
            nullable(field.id, &field.name, kind)
        };
        json!({"type": "record", "name": "r102", "fields": self.field.iter().map(field).collect::<Vec<_>>()})
    }

    /// A partition value in a manifest.
    pub(super) fn value(&self, value: Option<i32>) -> Avro {
        let member = |field: &PartitionField| {
            let value = value.map(|value| if field.is_date { Avro::Date(value) } else { Avro::Int(value) });
            optional(&field.name, value)
        };
        Avro::Record(self.field.iter().map(member).collect())
    }

    /// The value in a record of [`Self::value`].
    pub(super) fn value_of(record: Record) -> Option<i32> {
        record.first_integer().and_then(|value| i32::try_from(value).ok())
    }

    /// The value from the text in the Delta log. `None` if it is null or cannot be read.
    pub(super) fn parse(&self, text: Option<&str>) -> Option<i32> {
        let (field, text) = (self.field.as_ref()?, text?);
        if field.is_date { days(text) } else { text.parse().ok() }
    }

    /// Whether tables of this spec have partitions.
    pub(super) fn is_partitioned(&self) -> bool {
        self.field.is_some()
    }
}
