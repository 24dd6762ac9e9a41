//! Checks records against JSON Schemas, and writes JSON to measure sizes. Both are independent of the code that generates records.

use serde_json::{Map, Value, json};

use crate::demo::record::{Cell, Field, Layout, Record};
use crate::model::{Op, TableRef};

#[derive(Debug, Default)]
pub(super) struct Oddities {
    pub(super) required_nulls: usize,
}

/// Panics if a record violates its schema. Nulls in required columns are counted instead.
pub(super) fn conforms(table: &TableRef, schema: &Value, layout: &Layout, record: &Record, odd: &mut Oddities) {
    let key = &schema["properties"]["key"];
    assert_eq!(key["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), layout.key.iter().collect::<Vec<_>>());
    for (name, cell) in layout.key.iter().zip(&record.key) {
        assert!(*cell != Cell::Null, "{table}: null in the key");
        value(&format!("{table}.{name}"), &key["properties"][name], &[], cell, odd);
    }
    assert_eq!(record.value.is_some(), record.op == Op::Upsert, "{table}");
    if let Some(cells) = &record.value {
        let pairs = layout.value.iter().zip(cells.iter()).collect();
        assert_eq!(layout.value.len(), cells.len(), "{table}");
        object(&table.to_string(), &schema["properties"]["value"], pairs, odd);
    }
}

fn object(at: &str, node: &Value, members: Vec<(&Field, &Cell)>, odd: &mut Oddities) {
    let properties: Vec<&String> = node["properties"].as_object().unwrap().keys().collect();
    assert_eq!(properties, members.iter().map(|(field, _)| &field.name).collect::<Vec<_>>(), "{at}");
    for (field, cell) in members {
        let at = format!("{at}.{}", field.name);
        if *cell != Cell::Null {
            value(&at, &node["properties"][&field.name], &field.members, cell, odd);
        } else if node["required"].as_array().is_some_and(|names| names.contains(&json!(field.name))) {
            odd.required_nulls += 1;
        }
    }
}

fn value(at: &str, node: &Value, members: &[Field], cell: &Cell, odd: &mut Oddities) {
    if let Some(branches) = node["oneOf"].as_array() {
        let Cell::Text(text) = cell else { panic!("{at}: {cell:?}") };
        let fits = |branch: &Value| match (branch.get("const"), branch.get("enum"), branch["format"].as_str()) {
            (Some(fixed), ..) => fixed == text.as_ref(),
            (_, Some(words), _) => words.as_array().unwrap().contains(&json!(text)),
            (.., Some("ipv4")) => text.parse::<std::net::Ipv4Addr>().is_ok(),
            (.., Some("ipv6")) => text.parse::<std::net::Ipv6Addr>().is_ok(),
            _ => branch["maxLength"].as_u64().is_none_or(|max| text.chars().count() as u64 <= max),
        };
        assert!(branches.iter().any(fits), "{at}: {text}");
        return;
    }
    let kind = (node["type"].as_str().unwrap(), node["format"].as_str());
    match (kind, cell) {
        (("boolean", None), Cell::Bool(_)) => {}
        (("integer", None), Cell::Int(code)) => {
            assert!(node["enum"].as_array().unwrap().contains(&json!(code)), "{at}: {code}")
        }
        (("integer", Some("int16")), Cell::Int(number)) => assert!(i16::try_from(*number).is_ok(), "{at}: {number}"),
        (("integer", Some("int32")), Cell::Int(number)) => assert!(i32::try_from(*number).is_ok(), "{at}: {number}"),
        (("integer", Some("int64")), Cell::Int(_)) => {}
        (("number", Some("float64")), Cell::Float(number)) => assert!(number.is_finite(), "{at}"),
        (("number", None), Cell::Float(number)) => assert!(node.get("multipleOf").is_none() && number.is_finite(), "{at}"),
        (("number", None), Cell::Decimal(unscaled, scale)) => {
            assert_eq!(node["multipleOf"], json!(format!("1e-{scale}").parse::<f64>().unwrap()), "{at}");
            let bound = i128::from(node["exclusiveMaximum"].as_i64().unwrap()) * 10_i128.pow(u32::from(*scale));
            assert!(unscaled.abs() < bound && node["exclusiveMinimum"] == json!(-node["exclusiveMaximum"].as_i64().unwrap()));
        }
        (("string", Some("date-time")), Cell::Time(time)) => assert!(time.to_datetime().is_some(), "{at}"),
        (("string", Some("date")), Cell::Date(days)) => assert!((10_000..30_000).contains(days), "{at}: {days}"),
        (("string", Some("uuid")), Cell::Text(text)) => {
            assert_eq!(uuid::Uuid::parse_str(text).unwrap().hyphenated().to_string(), *text, "{at}");
        }
        (("string", None), Cell::Text(text)) => {
            if let Some(words) = node["enum"].as_array() {
                assert!(words.contains(&json!(text)), "{at}: {text}");
            }
            let max = node["maxLength"].as_u64();
            assert!(max.is_none_or(|max| text.chars().count() as u64 <= max), "{at}: {} characters", text.chars().count());
            if node["description"].as_str().is_some_and(|said| said.contains("Holds JSON")) {
                assert!(serde_json::from_str::<Value>(text).is_ok(), "{at}: {text}");
            }
            assert!(!text.contains('\0'));
        }
        (("array", None), Cell::List(items)) => items.iter().for_each(|item| value(at, &node["items"], &[], item, odd)),
        (("object", None), Cell::Object(cells)) => {
            assert!(cells.iter().any(|(_, cell)| *cell != Cell::Null), "{at}: an empty object");
            let pairs = members.iter().zip(cells);
            assert!(pairs.clone().all(|(field, (name, _))| field.name == *name), "{at}");
            object(at, node, pairs.map(|(field, (_, cell))| (field, cell)).collect(), odd);
        }
        (kind, cell) => panic!("{at}: {cell:?} is not of type {kind:?}"),
    }
}

/// A record as a line of JSON without nulls.
pub(super) fn json_text(layout: &Layout, record: &Record) -> String {
    fn plain(cell: &Cell) -> Value {
        match cell {
            Cell::Null => Value::Null,
            Cell::Bool(switch) => json!(switch),
            Cell::Int(number) => json!(number),
            Cell::Float(number) => json!(number),
            Cell::Decimal(unscaled, scale) => json!(*unscaled as f64 / 10_f64.powi(i32::from(*scale))),
            Cell::Text(text) => json!(text),
            Cell::Time(time) => json!(time.to_string()),
            Cell::Date(_) => json!("2024-09-02"),
            Cell::Object(members) => members.iter().map(|(name, cell)| (name.to_string(), plain(cell))).collect(),
            Cell::List(items) => items.iter().map(plain).collect(),
        }
    }
    let columns = layout.value.iter().zip(record.value.iter().flatten());
    let value: Map<String, Value> =
        columns.filter(|(_, cell)| **cell != Cell::Null).map(|(field, cell)| (field.name.clone(), plain(cell))).collect();
    let key: Vec<Value> = record.key.iter().map(plain).collect();
    json!({"key": {"id": key[0]}, "value": value, "meta": {"ts": record.ts.to_string(), "action": "U"}}).to_string()
}
