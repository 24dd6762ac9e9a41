//! Avro container files of Iceberg: schemas with field ids, and access to the members of records. No I/O.

use std::collections::BTreeMap;

use apache_avro::schema::{ArraySchema, RecordField, RecordSchema, Schema, UnionSchema};
use apache_avro::types::Value;
use apache_avro::{Codec, DeflateSettings, Reader, Writer};
use serde_json::json;

use crate::error::{Error, Kind, Result, ResultExt};

const UNWRITABLE: &str = "Iceberg metadata cannot be written";
const UNREADABLE: &str = "Iceberg metadata cannot be read";

/// The members of a record.
pub(super) type Members = Vec<(String, Value)>;

/// A required member of a record in the JSON of a schema.
pub(super) fn field(id: i32, name: &str, kind: serde_json::Value) -> serde_json::Value {
    json!({"name": name, "type": kind, "field-id": id})
}

/// A member that may be null.
pub(super) fn nullable(id: i32, name: &str, kind: serde_json::Value) -> serde_json::Value {
    json!({"name": name, "type": ["null", kind], "default": null, "field-id": id})
}

/// Parses a schema.
pub(super) fn schema(json: &serde_json::Value) -> Result<Schema> {
    let parsed = Schema::parse(json).context(Kind::Bug, UNWRITABLE)?;
    with_maps(parsed).context(Kind::Bug, UNWRITABLE)
}

/// Marks arrays of keys and values as maps. The parser drops the attribute.
fn with_maps(schema: Schema) -> std::result::Result<Schema, apache_avro::Error> {
    Ok(match schema {
        Schema::Record(record) => {
            let field = |field: RecordField| Ok(RecordField { schema: with_maps(field.schema)?, ..field });
            let fields = record.fields.into_iter().map(field).collect::<std::result::Result<_, apache_avro::Error>>()?;
            Schema::Record(RecordSchema { fields, ..record })
        }
        Schema::Union(union) => {
            let variants = union.variants().iter().cloned().map(with_maps).collect::<std::result::Result<Vec<_>, _>>()?;
            Schema::Union(UnionSchema::new(variants)?)
        }
        Schema::Array(array) => {
            let names = |record: &RecordSchema| record.fields.iter().map(|field| field.name.clone()).collect::<Vec<_>>();
            let is_map = matches!(array.items.as_ref(), Schema::Record(record) if names(record) == ["key", "value"]);
            let attributes = if is_map { BTreeMap::from([("logicalType".to_owned(), json!("map"))]) } else { array.attributes };
            Schema::Array(ArraySchema { attributes, ..array })
        }
        other => other,
    })
}

/// A container file with these records and file metadata.
pub(super) fn write(schema: &Schema, metadata: &[(&str, String)], records: impl Iterator<Item = Members>) -> Result<Vec<u8>> {
    let mut writer =
        Writer::with_codec(schema, Vec::new(), Codec::Deflate(DeflateSettings::default())).context(Kind::Bug, UNWRITABLE)?;
    for (name, value) in metadata {
        writer.add_user_metadata((*name).to_owned(), value).context(Kind::Bug, UNWRITABLE)?;
    }
    for record in records {
        writer.append_value(Value::Record(record)).context(Kind::Bug, UNWRITABLE)?;
    }
    writer.into_inner().context(Kind::Bug, UNWRITABLE)
}

/// The records of a container file.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Record>> {
    let reader = Reader::new(bytes).context(Kind::Target, UNREADABLE)?;
    let record = |value: std::result::Result<Value, apache_avro::Error>| match value.context(Kind::Target, UNREADABLE)? {
        Value::Record(members) => Ok(Record(members)),
        _ => Err(Error::new(Kind::Target, UNREADABLE)),
    };
    reader.map(record).collect()
}

/// A record that was read.
pub(super) struct Record(Members);

impl Record {
    /// The value of a member; `None` if it is null or missing.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        let (_, value) = self.0.iter_mut().find(|(known, _)| known == name)?;
        match std::mem::replace(value, Value::Null) {
            Value::Union(_, value) if *value == Value::Null => None,
            Value::Union(_, value) => Some(*value),
            Value::Null => None,
            value => Some(value),
        }
    }

    pub(super) fn integer(&mut self, name: &str) -> Result<i64> {
        self.optional_integer(name).ok_or_else(|| missing(name))
    }

    pub(super) fn optional_integer(&mut self, name: &str) -> Option<i64> {
        match self.take(name)? {
            Value::Int(value) | Value::Date(value) => Some(value.into()),
            Value::Long(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn text(&mut self, name: &str) -> Result<String> {
        self.optional_text(name).ok_or_else(|| missing(name))
    }

    pub(super) fn optional_text(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn record(&mut self, name: &str) -> Option<Record> {
        self.take(name).and_then(record_of)
    }

    pub(super) fn records(&mut self, name: &str) -> Vec<Record> {
        match self.take(name) {
            Some(Value::Array(items)) => items.into_iter().filter_map(record_of).collect(),
            _ => Vec::new(),
        }
    }

    /// The first member as an integer.
    pub(super) fn first_integer(mut self) -> Option<i64> {
        let (name, _) = self.0.first()?;
        self.optional_integer(&name.clone())
    }

    pub(super) fn bytes(&mut self, name: &str) -> Option<Vec<u8>> {
        match self.take(name)? {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

fn record_of(value: Value) -> Option<Record> {
    match value {
        Value::Record(members) => Some(Record(members)),
        _ => None,
    }
}

pub(super) fn missing(name: &str) -> Error {
    Error::new(Kind::Target, UNREADABLE).with_field("missing", name)
}

/// A member that may be null.
pub(super) fn optional(name: &str, value: Option<Value>) -> (String, Value) {
    let value = match value {
        Some(value) => Value::Union(1, Box::new(value)),
        None => Value::Union(0, Box::new(Value::Null)),
    };
    (name.to_owned(), value)
}

/// A member that is never null.
pub(super) fn required(name: &str, value: impl Into<Value>) -> (String, Value) {
    (name.to_owned(), value.into())
}
