//! Tests of reading, mapping and comparing schemas, and fixtures that the tests of `decode` use, too.

use std::sync::Arc;

use ::arrow::datatypes::{DataType, Field};
use serde_json::{Value, json};

use super::*;
use crate::error::{Kind, Result};
use crate::model::TableRef;

/// Schemas of the service in this folder, by table.
pub(crate) const FIXTURES: [(&str, &str); 7] = [
    ("courses", include_str!("fixtures/courses.json")),
    ("submissions", include_str!("fixtures/submissions.json")),
    ("assignments", include_str!("fixtures/assignments.json")),
    ("assignment_groups", include_str!("fixtures/assignment_groups.json")),
    ("late_policies", include_str!("fixtures/late_policies.json")),
    ("context_external_tools", include_str!("fixtures/context_external_tools.json")),
    ("web_logs", include_str!("fixtures/web_logs.json")),
];

/// The schema of one of [`FIXTURES`].
pub(crate) fn fixture(name: &str) -> TableSchema {
    let (_, text) = FIXTURES.iter().find(|(table, _)| *table == name).unwrap();
    TableSchema::read(&TableRef::new("canvas", name), 1, serde_json::from_str(text).unwrap()).unwrap()
}

/// A schema with these key and value members; all key and no value members are required.
pub(crate) fn table(key: Value, value: Value) -> TableSchema {
    read(json!({ "properties": { "meta": {}, "key": { "properties": key }, "value": { "properties": value } } })).unwrap()
}

/// A schema with every type, nested twice, and a composite key.
pub(crate) fn everything() -> TableSchema {
    table(
        json!({ "id": { "type": "integer", "format": "int64" }, "part": { "type": "string" } }),
        json!({
            "flag": { "type": "boolean" },
            "tiny": { "type": "integer", "format": "int16" },
            "small": { "type": "integer", "format": "int32" },
            "big": { "type": "integer", "format": "int64" },
            "ratio": { "type": "number", "format": "float32" },
            "score": { "type": "number", "format": "float64" },
            "money": { "type": "number", "multipleOf": 0.01, "exclusiveMinimum": -10000, "exclusiveMaximum": 10000 },
            "huge": { "type": "number", "multipleOf": 0.0001, "exclusiveMinimum": -1e24, "exclusiveMaximum": 1e24 },
            "name": { "type": "string" },
            "state": { "type": "string", "enum": ["__dap_unspecified__", "active"] },
            "at": { "type": "string", "format": "date-time" },
            "day": { "type": "string", "format": "date" },
            "hour": { "type": "string", "format": "time" },
            "uuid": { "type": "string", "format": "uuid" },
            "ip": { "oneOf": [{ "type": "string", "format": "ipv4" }, { "type": "string", "format": "ipv6" }] },
            "settings": { "type": "object", "additionalProperties": false, "properties": {
                "is_public": { "type": "string" },
                "limit": { "type": "integer", "format": "int32" },
                "rate": { "type": "number", "format": "float64" },
                "since": { "type": "string", "format": "date-time" },
                "inner": { "type": "object", "additionalProperties": false, "properties": {
                    "on": { "type": "boolean" },
                    "cost": { "type": "number", "multipleOf": 0.01, "exclusiveMinimum": -1000, "exclusiveMaximum": 1000 },
                    "ids": { "type": "array", "items": { "type": "integer", "format": "int64" } }
                } }
            } },
            "kinds": { "type": "array", "items": { "type": "string", "enum": ["a", "b"] } },
            "rows": { "type": "array", "items": { "type": "object", "additionalProperties": false, "properties": {
                "x": { "type": "integer", "format": "int16" },
                "label": { "type": "string" }
            } } },
            "anything": { "type": "object" }
        }),
    )
}

fn read(schema: Value) -> Result<TableSchema> {
    TableSchema::read(&TableRef::new("canvas", "things"), 3, schema)
}

/// The type and the warnings of one value column.
fn column(node: Value) -> (Column, Vec<String>) {
    let schema = table(json!({ "id": { "type": "integer" } }), json!({ "c": node }));
    (schema.value[0].clone(), schema.warnings)
}

fn column_type(node: Value) -> ColumnType {
    let (column, warnings) = column(node);
    assert_eq!(warnings, Vec::<String>::new());
    column.column_type
}

fn text(max_length: Option<u64>) -> ColumnType {
    ColumnType::Text { max_length }
}

fn closed(members: &[&str]) -> ColumnType {
    ColumnType::Enum { members: members.iter().map(|&m| m.to_owned()).collect(), open: false }
}

fn open(members: &[&str]) -> ColumnType {
    ColumnType::Enum { members: members.iter().map(|&m| m.to_owned()).collect(), open: true }
}

#[test]
fn fixtures_are_read_without_a_warning() {
    for (name, text) in FIXTURES {
        let schema = fixture(name);
        assert_eq!(schema.warnings, Vec::<String>::new(), "{name}");
        assert_eq!(schema.version, 1);
        assert_eq!(schema.table.to_string(), format!("canvas.{name}"));
        assert_eq!(schema.key_names(), ["id"]);
        let source: Value = serde_json::from_str(text).unwrap();
        assert_eq!(*schema.source, source);
        let declared = source["properties"]["value"]["properties"].as_object().unwrap();
        assert_eq!(schema.value.iter().map(|c| &c.name).collect::<Vec<_>>(), declared.keys().collect::<Vec<_>>());
        let required: Vec<&str> = schema.value.iter().filter(|c| c.required).map(|c| c.name.as_str()).collect();
        let listed = &source["properties"]["value"]["required"];
        let listed: Vec<&str> = listed.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(required.len(), listed.len());
        assert!(required.iter().all(|name| listed.contains(name)));
    }
}

#[test]
fn courses_have_settings_and_oversizeable_strings() {
    let schema = fixture("courses");
    assert_eq!(schema.description.as_deref(), Some("A course."));
    assert_eq!(schema.key[0].description.as_deref(), Some("Number of the course."));
    let find = |name: &str| schema.value.iter().find(|column| column.name == name).unwrap();
    assert!(find("syllabus_body").oversizeable);
    assert_eq!(find("syllabus_body").column_type, text(None));
    assert!(!find("course_code").oversizeable);
    assert_eq!(find("course_code").column_type, text(Some(255)));
    let ColumnType::Struct(members) = &find("settings").column_type else { panic!() };
    assert!(members.len() > 5);
    assert!(members.iter().all(|member| member.column_type == text(None)));
}

#[test]
fn logs_have_open_enums_addresses_and_placeholders_with_a_bound() {
    let schema = fixture("web_logs");
    let find = |name: &str| schema.columns().find(|column| column.name == name).unwrap();
    assert_eq!(find("id").column_type, ColumnType::Uuid);
    assert_eq!(find("remote_ip").column_type, ColumnType::Ip { v4: true, v6: true });
    assert_eq!(find("http_status").column_type, ColumnType::Int16);
    assert_eq!(find("web_application_controller").column_type, open(&["__dap_unspecified__"]));
    assert!(matches!(&find("http_method").column_type, ColumnType::Enum { members, open: false } if members[1] == "GET"));
    assert_eq!(find("user_agent").column_type, text(Some(255)));
    assert!(find("user_agent").oversizeable);
}

#[test]
fn decimals_and_nested_arrays_of_the_fixtures() {
    let policies = fixture("late_policies");
    let decimals = policies.value.iter().filter(|c| c.column_type == ColumnType::Decimal { precision: 5, scale: 2 });
    assert_eq!(decimals.count(), 3);
    let submissions = fixture("submissions");
    assert!(submissions.value.iter().any(|c| c.column_type == ColumnType::Decimal { precision: 6, scale: 2 }));
    let groups = fixture("assignment_groups");
    let ColumnType::Struct(rules) = &groups.value.last().unwrap().column_type else { panic!() };
    assert_eq!(rules[2].column_type, ColumnType::List(Box::new(ColumnType::Int32)));
    assert!(rules[2].required && !rules[0].required);
    let assignments = fixture("assignments");
    let kinds = assignments.value.iter().find(|c| c.name == "submission_types").unwrap();
    assert!(matches!(&kinds.column_type, ColumnType::List(item) if matches!(**item, ColumnType::Enum { open: false, .. })));
}

#[test]
fn scalar_nodes() {
    use ColumnType::*;
    let decimal = |precision, scale| Decimal { precision, scale };
    for (node, expected) in [
        (json!({"type": "boolean"}), Boolean),
        (json!({"type": "integer"}), Int64),
        (json!({"type": "integer", "format": "int16"}), Int16),
        (json!({"type": "integer", "format": "int32", "minimum": 0, "maximum": 5}), Int32),
        (json!({"type": "integer", "minimum": 0, "maximum": 32767}), Int16),
        (json!({"type": "integer", "minimum": 0, "maximum": 32768}), Int32),
        (json!({"type": "integer", "exclusiveMinimum": -32769, "exclusiveMaximum": 32768}), Int16),
        (json!({"type": "integer", "minimum": 0, "maximum": 3e9}), Int64),
        (json!({"type": "integer", "minimum": 0}), Int64),
        (json!({"type": "integer", "enum": [1, 2, 70000]}), Int32),
        (json!({"type": "integer", "const": 7}), Int16),
        (json!({"type": "integer", "maximum": 1e40, "minimum": 0}), Int64),
        (json!({"type": "number"}), Float64),
        (json!({"type": "number", "format": "float32"}), Float32),
        (json!({"type": "number", "format": "float64"}), Float64),
        (json!({"type": "number", "multipleOf": 0.01, "exclusiveMinimum": -1000, "exclusiveMaximum": 1000}), decimal(5, 2)),
        (json!({"type": "number", "multipleOf": 0.01, "minimum": -999.99, "maximum": 999.99}), decimal(5, 2)),
        (json!({"type": "number", "multipleOf": 0.01, "minimum": 0, "maximum": 1000}), decimal(6, 2)),
        (json!({"type": "number", "multipleOf": 1e-7, "exclusiveMinimum": -10.0, "exclusiveMaximum": 10.0}), decimal(8, 7)),
        (json!({"type": "number", "multipleOf": 1, "exclusiveMinimum": -100, "exclusiveMaximum": 100}), decimal(2, 0)),
        (json!({"type": "number", "multipleOf": 0.01, "exclusiveMinimum": -1, "exclusiveMaximum": 1}), decimal(2, 2)),
        (json!({"type": "number", "multipleOf": 0.01, "exclusiveMaximum": 1000}), Float64),
        (json!({"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 10}), Float64),
        (json!({"type": "number", "exclusiveMinimum": -1000, "exclusiveMaximum": 1000}), Float64),
        (json!({"type": "string"}), text(None)),
        (json!({"type": "string", "maxLength": 255, "minLength": 1}), text(Some(255))),
        (json!({"type": "string", "format": "uri", "maxLength": 9}), text(Some(9))),
        (json!({"type": "string", "const": "äöü"}), text(Some(3))),
        (json!({"type": "string", "enum": ["a", "b"]}), closed(&["a", "b"])),
        (json!({"enum": ["a"]}), closed(&["a"])),
        (json!({"type": "string", "format": "date-time"}), Timestamp),
        (json!({"type": "string", "format": "date"}), Date),
        (json!({"type": "string", "format": "time"}), Time),
        (json!({"type": "string", "format": "uuid"}), Uuid),
        (json!({"type": "string", "format": "ipv4"}), Ip { v4: true, v6: false }),
        (json!({"type": "array", "items": {"type": "string"}}), List(Box::new(text(None)))),
        (
            json!({"type": "array", "items": {"type": "array", "items": {"type": "boolean"}}}),
            List(Box::new(List(Box::new(Boolean)))),
        ),
    ] {
        assert_eq!(column_type(node.clone()), expected, "{node}");
    }
}

#[test]
fn choices() {
    use ColumnType::*;
    let placeholder = json!({"type": "string", "const": "__dap_oversized_truncated__"});
    for (node, expected) in [
        (json!({"oneOf": [{"type": "integer", "format": "int32"}, {"type": "integer"}]}), Int64),
        (json!({"oneOf": [{"type": "integer", "format": "int16"}, {"type": "integer", "format": "int32"}]}), Int32),
        (json!({"anyOf": [{"type": "number", "format": "float32"}, {"type": "number"}]}), Float64),
        (json!({"oneOf": [{"type": "string", "enum": ["a"]}, {"type": "string"}]}), open(&["a"])),
        (json!({"oneOf": [{"type": "string"}, {"type": "string", "enum": ["a"]}]}), open(&["a"])),
        (json!({"oneOf": [{"enum": ["a", "b"]}, {"enum": ["b", "c"]}]}), closed(&["a", "b", "c"])),
        (
            json!({"oneOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]}),
            Ip { v4: true, v6: true },
        ),
        (json!({"oneOf": [{"type": "string", "maxLength": 5}, {"type": "string", "maxLength": 9}]}), text(Some(9))),
        (json!({"oneOf": [{"type": "string", "format": "uuid"}, {"type": "string", "maxLength": 9}]}), text(None)),
        (json!({"oneOf": [{"type": "boolean"}]}), Boolean),
        (json!({"allOf": [{"type": "boolean"}]}), Boolean),
    ] {
        let (column, warnings) = column(node.clone());
        assert_eq!((column.column_type, column.oversizeable), (expected, false), "{node}");
        assert_eq!(warnings, Vec::<String>::new());
    }
    for (node, expected) in [
        (json!({"oneOf": [placeholder, {"type": "string"}]}), text(None)),
        (json!({"oneOf": [placeholder, {"type": "string", "maxLength": 16}]}), text(Some(16))),
        (json!({"oneOf": [{"type": "string", "maxLength": 16}, placeholder]}), text(Some(16))),
        (json!({"oneOf": [placeholder, {"enum": ["x"]}]}), closed(&["x"])),
    ] {
        let (column, warnings) = column(node.clone());
        assert_eq!((column.column_type, column.oversizeable), (expected, true), "{node}");
        assert_eq!(warnings, Vec::<String>::new());
    }
}

#[test]
fn nulls_in_the_type_relax_the_column() {
    for node in [
        json!({"type": ["string", "null"]}),
        json!({"type": ["null", "string"]}),
        json!({"type": "string", "nullable": true}),
        json!({"anyOf": [{"type": "null"}, {"type": "string"}]}),
        json!({"oneOf": [{"type": "string"}, {"type": "null"}]}),
        json!({"$ref": "#/$defs/maybe"}),
    ] {
        let schema = read(json!({
            "$defs": {"maybe": {"type": ["string", "null"]}},
            "properties": {
                "key": {"properties": {"id": {"type": "integer"}}},
                "value": {"properties": {"a": node, "b": {"type": "string"}}, "required": ["a", "b"]}
            }
        }))
        .unwrap();
        assert_eq!(schema.value[0].column_type, text(None), "{node}");
        assert!(!schema.value[0].required && schema.value[1].required, "{node}");
        assert_eq!(schema.warnings, Vec::<String>::new());
    }
    assert_eq!(column_type(json!({"type": ["string", "null"], "enum": ["a", null]})), closed(&["a"]));
}

#[test]
fn references_are_followed_and_cycles_end() {
    let schema = read(json!({
        "definitions": {
            "state": {"type": "string", "enum": ["on"], "description": "from afar", "default": "on"},
            "again": {"$ref": "#/definitions/state"},
            "loop": {"$ref": "#/definitions/loop"},
            "tree": {"type": "object", "additionalProperties": false, "properties": {
                "name": {"type": "string"}, "child": {"$ref": "#/definitions/tree"}
            }},
            "group": {"properties": {"id": {"type": "integer"}}}
        },
        "properties": {
            "key": {"$ref": "#/definitions/group"},
            "value": {"properties": {
                "a": {"$ref": "#/definitions/again", "description": "near"},
                "b": {"$ref": "#/definitions/again"},
                "c": {"$ref": "#/definitions/loop"},
                "d": {"$ref": "#/definitions/tree"},
                "e": {"$ref": "#/definitions/nowhere"}
            }}
        }
    }))
    .unwrap();
    assert_eq!(schema.value[0].column_type, closed(&["on"]));
    assert_eq!(schema.value[0].description.as_deref(), Some("near"));
    assert_eq!(schema.value[1].description.as_deref(), Some("from afar"));
    assert_eq!(schema.value[1].default, Some(json!("on")));
    assert_eq!(schema.value[2].column_type, ColumnType::Json);
    let ColumnType::Struct(tree) = &schema.value[3].column_type else { panic!() };
    assert_eq!(tree[1].column_type, ColumnType::Json);
    assert_eq!(schema.value[4].column_type, ColumnType::Json);
    assert_eq!(
        schema.warnings,
        [
            "`c` refers to itself; it is loaded as JSON text",
            "`d.child` refers to itself; it is loaded as JSON text",
            "`e` refers to a definition that is not there; it is loaded as JSON text",
        ]
    );
}

#[test]
fn unknown_nodes_become_json_text_with_one_warning_each() {
    for (node, why) in [
        (json!(true), "may hold anything"),
        (json!({}), "has no type"),
        (json!({"type": "blob"}), "has an unknown type"),
        (json!({"type": "null"}), "has an unknown type"),
        (json!({"type": ["integer", "string"]}), "has several types"),
        (json!({"type": "object"}), "is an object of unknown shape"),
        (json!({"type": "object", "properties": {}}), "is an object of unknown shape"),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": true}),
            "is an object of unknown shape",
        ),
        (json!({"type": "array"}), "is an array of unknown items"),
        (json!({"type": "array", "items": {"type": "object"}}), "is an array of unknown items"),
        (json!({"oneOf": [{"type": "integer"}, {"type": "string"}]}), "has alternatives of different types"),
        (json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}), "has alternatives of different types"),
        (json!({"oneOf": [{"type": "object"}, {"type": "string"}]}), "has alternatives of different types"),
        (json!({"oneOf": []}), "allows nothing but null"),
        (json!({"oneOf": 5}), "has an unreadable choice"),
        (json!({"allOf": [{"type": "string"}, {"maxLength": 5}]}), "combines several schemas"),
        (json!({"$ref": 5}), "has an unreadable reference"),
    ] {
        let (column, warnings) = column(node.clone());
        assert_eq!(column.column_type, ColumnType::Json, "{node}");
        assert_eq!(warnings, [format!("`c` {why}; it is loaded as JSON text")], "{node}");
    }
    let (column, warnings) =
        column(json!({"type": "number", "multipleOf": 1e-30, "exclusiveMinimum": -1e10, "exclusiveMaximum": 1e10}));
    assert_eq!(column.column_type, ColumnType::Float64);
    assert_eq!(warnings, ["`c` is a decimal of 40 digits; it is loaded as a float"]);
}

#[test]
fn depth_is_limited() {
    let mut node = json!({"type": "string"});
    for _ in 0..200 {
        node = json!({"type": "object", "additionalProperties": false, "properties": {"m": node}});
    }
    let (column, warnings) = column(node);
    assert!(matches!(column.column_type, ColumnType::Struct(_)));
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].ends_with("is nested too deeply; it is loaded as JSON text"));
}

#[test]
fn keys_can_be_composite_and_hide_value_columns() {
    let schema = table(
        json!({"a": {"type": "integer"}, "b": {"type": "string", "format": "uuid"}}),
        json!({"b": {"type": "string"}, "c": {"type": "string"}, "C": {"type": "string"}}),
    );
    assert_eq!(schema.key_names(), ["a", "b"]);
    assert!(schema.key.iter().all(|column| column.required));
    assert_eq!(schema.columns().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "C"]);
    assert_eq!(
        schema.warnings,
        ["`b` is both a key and a value column; the value column is ignored", "`c` and `C` differ in letter case only"]
    );
}

#[test]
fn schemas_without_a_key_are_refused() {
    for schema in [
        json!(null),
        json!([]),
        json!({}),
        json!({"properties": {}}),
        json!({"properties": {"key": 5}}),
        json!({"properties": {"key": {"type": "object"}}}),
        json!({"properties": {"key": {"properties": {}}}}),
        json!({"properties": {"key": {"$ref": "#/properties/key"}}}),
    ] {
        let error = read(schema.clone()).unwrap_err();
        assert_eq!(error.kind(), Kind::Schema, "{schema}");
        assert_eq!(error.get("table"), Some("canvas.things"));
    }
    let only_key = read(json!({"properties": {"key": {"properties": {"id": {"type": "integer"}}}}})).unwrap();
    assert!(only_key.value.is_empty() && only_key.warnings.is_empty());
}

#[test]
fn reserved_names_are_refused_unless_they_are_dropped() {
    for name in ["_action", "_ts", "_seq", "_TS"] {
        let schema = Arc::new(
            read(json!({"properties": {
                "key": {"properties": {"id": {"type": "integer"}}}, "value": {"properties": {name: {"type": "string"}, "a": {"type": "string"}}}
            }}))
            .unwrap(),
        );
        let choose = |rules: ColumnRules| ColumnChoice::of(&schema, &rules, None);
        for rules in [ColumnRules::default(), ColumnRules { drop: vec!["a".to_owned()], ..ColumnRules::default() }] {
            let error = choose(rules).unwrap_err();
            assert_eq!((error.kind(), error.get("column")), (Kind::Schema, Some(name)));
            assert!(error.hint_text().unwrap().contains(&format!("--drop-column canvas.things.{name}")), "{error:?}");
        }
        let choice = choose(ColumnRules { drop: vec![name.to_owned()], ..ColumnRules::default() }).unwrap();
        assert_eq!(choice.kept().columns().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id", "a"]);
    }
}

#[test]
fn every_type_has_its_arrow_type() {
    let schema = everything();
    let fields = change_schema(&schema, Nested::Typed);
    let shown: Vec<String> =
        fields.fields().iter().map(|f| format!("{} {} {}", f.name(), f.data_type(), f.is_nullable())).collect();
    assert_eq!(
        shown[..6],
        [
            "_action Utf8 false",
            "_ts Timestamp(µs, \"UTC\") false",
            "_seq UInt64 false",
            "id Int64 false",
            "part Utf8 false",
            "flag Boolean true"
        ]
    );
    assert!(fields.fields().iter().skip(5).all(|field| field.is_nullable()));
    let of = |name: &str| fields.field_with_name(name).unwrap().data_type().clone();
    assert_eq!(of("money"), DataType::Decimal128(6, 2));
    assert_eq!(of("huge"), DataType::Decimal128(28, 4));
    assert_eq!(of("day"), DataType::Date32);
    for text in ["hour", "uuid", "ip", "state", "anything"] {
        assert_eq!(of(text), DataType::Utf8);
    }
    let element =
        DataType::Struct(vec![Field::new("x", DataType::Int16, true), Field::new("label", DataType::Utf8, true)].into());
    assert_eq!(of("rows"), DataType::List(Field::new("element", element, true).into()));
    let flat = change_schema(&schema, Nested::Json);
    for name in ["settings", "kinds", "rows"] {
        assert_eq!(*flat.field_with_name(name).unwrap().data_type(), DataType::Utf8);
    }
}

#[test]
fn lake_schemas_carry_nullability_and_comments() {
    let lake = lake_schema(&fixture("courses"), Nested::Typed);
    assert_eq!(lake.metadata().get("comment").map(String::as_str), Some("A course."));
    let id = lake.field_with_name("id").unwrap();
    assert!(!id.is_nullable());
    assert_eq!(id.metadata().get("comment").map(String::as_str), Some("Number of the course."));
    assert!(!lake.field_with_name("workflow_state").unwrap().is_nullable());
    assert!(lake.field_with_name("sis_source_id").unwrap().is_nullable());
    assert!(lake.field_with_name("_ts").is_err());
}
