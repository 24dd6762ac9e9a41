//! Reads column types from a table's JSON Schema, for Parquet only (the text formats need none). Separate from the client's reader, so that a
//! mistake cannot hide in both.

use serde_json::Value;

/// Type of one column or member.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Bool,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    Decimal(u8, i8),
    Text,
    Time,
    Date,
    Object(Vec<(String, Shape)>),
    List(Box<Shape>),
    /// Any other type, as JSON text.
    Json,
}

impl Shape {
    /// Type of the column `name` in `group` (`key` or `value`) of a table's schema.
    pub(super) fn of_column(schema: &Value, group: &str, name: &str) -> Self {
        schema
            .get("properties")
            .and_then(|properties| properties.get(group)?.get("properties")?.get(name))
            .map_or(Shape::Json, |node| Shape::of(node, schema, 8))
    }

    /// `depth` limits recursive references.
    fn of(node: &Value, root: &Value, depth: u8) -> Self {
        if depth == 0 {
            return Shape::Json;
        }
        let inner = |node: &Value| Shape::of(node, root, depth - 1);
        if let Some(reference) = node.get("$ref").and_then(Value::as_str) {
            let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
            return target.map_or(Shape::Json, inner);
        }
        if let Some(branches) = node.get("oneOf").and_then(Value::as_array) {
            // A constant beside the real node is the placeholder for oversized text; any other `oneOf` is text.
            let mut real = branches.iter().filter(|branch| branch.get("const").is_none());
            return match (real.next(), real.next()) {
                (Some(only), None) => inner(only),
                (Some(_), Some(_)) if branches.iter().all(|branch| branch.get("type") == Some(&"string".into())) => Shape::Text,
                _ => Shape::Json,
            };
        }
        let format = node.get("format").and_then(Value::as_str);
        match (node.get("type").and_then(Value::as_str), format) {
            (Some("boolean"), _) => Shape::Bool,
            (Some("integer"), Some("int16")) => Shape::Int16,
            (Some("integer"), Some("int32")) => Shape::Int32,
            (Some("integer"), _) => Shape::Int64,
            (Some("number"), Some("float32")) => Shape::Float32,
            (Some("number"), _) => decimal(node).unwrap_or(Shape::Float64),
            (Some("string"), Some("date-time")) => Shape::Time,
            (Some("string"), Some("date")) => Shape::Date,
            (Some("string"), _) => Shape::Text,
            (Some("array"), _) => match node.get("items") {
                Some(items) => Shape::List(Box::new(inner(items))),
                None => Shape::Json,
            },
            (Some("object"), _) => match node.get("properties").and_then(Value::as_object) {
                Some(members) if !members.is_empty() => {
                    Shape::Object(members.iter().map(|(name, node)| (name.clone(), inner(node))).collect())
                }
                _ => Shape::Json,
            },
            _ => Shape::Json,
        }
    }
}

/// `multipleOf` 10^-s with exclusive bounds of ±10^(p-s).
fn decimal(node: &Value) -> Option<Shape> {
    let scale = -power_of_ten(node.get("multipleOf")?)?;
    let whole = power_of_ten(node.get("exclusiveMaximum")?)?;
    let precision = whole.checked_add(scale)?;
    let fits = (0..=38).contains(&scale) && (1..=38).contains(&precision) && scale <= precision;
    fits.then_some(Shape::Decimal(precision as u8, scale as i8))
}

fn power_of_ten(number: &Value) -> Option<i32> {
    let exponent = number.as_f64()?.log10();
    let rounded = exponent.round();
    ((exponent - rounded).abs() < 1e-9).then_some(rounded as i32)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_node_of_the_dialect_has_a_type() {
        let schema = json!({
            "definitions": {"flag": {"type": "boolean"}, "loop": {"$ref": "#/definitions/loop"}},
            "properties": {"value": {"properties": {
                "a": {"type": "integer", "format": "int32"},
                "b": {"type": "integer", "enum": [200, 404]},
                "c": {"type": "number"},
                "d": {"type": "number", "multipleOf": 0.01, "exclusiveMinimum": -1000, "exclusiveMaximum": 1000},
                "e": {"oneOf": [{"type": "string", "const": "__dap_oversized_truncated__"}, {"type": "string", "maxLength": 9}]},
                "f": {"oneOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]},
                "g": {"type": "array", "items": {"type": "string", "enum": ["x"]}},
                "h": {"type": "object", "properties": {"i": {"$ref": "#/definitions/flag"}, "j": {"type": "string", "format": "date-time"}}},
                "k": {"type": "object"},
                "l": {"$ref": "#/definitions/loop"},
                "m": {"oneOf": [{"type": "string", "const": "x"}, {"type": "integer"}]}
            }}}
        });
        let shape = |name: &str| Shape::of_column(&schema, "value", name);
        assert_eq!(shape("a"), Shape::Int32);
        assert_eq!(shape("b"), Shape::Int64);
        assert_eq!(shape("c"), Shape::Float64);
        assert_eq!(shape("d"), Shape::Decimal(5, 2));
        assert_eq!(shape("e"), Shape::Text);
        assert_eq!(shape("f"), Shape::Text);
        assert_eq!(shape("g"), Shape::List(Box::new(Shape::Text)));
        assert_eq!(shape("h"), Shape::Object(vec![("i".into(), Shape::Bool), ("j".into(), Shape::Time)]));
        for unknown in ["k", "l", "missing"] {
            assert_eq!(shape(unknown), Shape::Json);
        }
        assert_eq!(shape("m"), Shape::Int64);
    }
}
