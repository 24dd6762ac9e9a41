//! The SQL by snapshots and other parsers, sessions against a scripted peer, the contract on a real server.

mod live;
mod peer;
mod statements;
mod tls;
mod wire;

use serde_json::{Value, json};

use super::dialect::MssqlDialect;
use crate::model::TableRef;
use crate::schema::TableSchema;
use crate::sink::sql::dialect::{Ddl, SqlTable};

/// A schema as the service sends it, with the key `id`.
fn served(table: &TableRef, version: i64, value: Value, required: &[&str]) -> TableSchema {
    let source = json!({"properties": {
        "key": {"properties": {"id": {"type": "integer", "format": "int64"}}, "required": ["id"]},
        "value": {"properties": value, "required": required},
    }});
    TableSchema::read(table, version, source).unwrap()
}

/// A column of each type that the official client knows.
fn odd() -> TableSchema {
    let value = json!({
        "flag": {"type": "boolean", "default": false, "description": "It's a flag"},
        "small": {"type": "integer", "format": "int16"},
        "by_bounds": {"type": "integer", "minimum": 0, "maximum": 100, "default": 7},
        "number": {"type": "number"},
        "single": {"type": "number", "format": "float32"},
        "price": {"type": "number", "minimum": -10000, "maximum": 10000, "exclusiveMaximum": 10000, "multipleOf": 0.01},
        "text": {"type": "string"},
        "short": {"type": "string", "maxLength": 255, "default": "it's"},
        "long": {"type": "string", "maxLength": 2001},
        "fixed": {"type": "string", "const": "abc"},
        "placeholder": {"oneOf": [{"type": "string", "const": "too long for it"}, {"type": "string", "maxLength": 3}]},
        "state": {"type": "string", "enum": ["active", "o'clock"]},
        "one": {"type": "string", "enum": ["only"]},
        "open_one": {"oneOf": [{"type": "string", "enum": ["a"]}, {"type": "string"}]},
        "open_two": {"oneOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "string"}]},
        "moment": {"type": "string", "format": "date-time"},
        "day": {"type": "string", "format": "date"},
        "clock": {"type": "string", "format": "time"},
        "uuid": {"type": "string", "format": "uuid"},
        "four": {"type": "string", "format": "ipv4"},
        "address": {"oneOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]},
        "settings": {"type": "object", "properties": {"a": {"type": "string"}}},
        "numbers": {"type": "array", "items": {"type": "integer", "format": "int64"}},
        "states": {"type": "array", "items": {"type": "string", "enum": ["x", "y"]}},
        "objects": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "anything": {"type": "object"},
        "odd]name": {"type": "string"},
    });
    served(&TableRef::new("canvas", "odd"), 1, value, &["flag", "state"])
}

fn table_of(schema: &TableSchema) -> SqlTable {
    MssqlDialect.table_of(schema).unwrap()
}
