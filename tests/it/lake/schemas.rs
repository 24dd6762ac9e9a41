//! Every table of the catalogue, as the service describes it, becomes a table schema and an Arrow schema without loss.

use daplake::TableRef;
use daplake::demo::school::catalogue;
use daplake::internals::schema::{ColumnType, Nested, TableSchema, change_schema, lake_schema};

fn all() -> Vec<TableSchema> {
    let read = |namespace: &str, table: &str| {
        let path = format!("{}/schemas/{namespace}/{table}.json", env!("CARGO_MANIFEST_DIR"));
        let answer: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        TableSchema::read(&TableRef::new(namespace, table), answer["version"].as_i64().unwrap(), answer["schema"].clone())
            .unwrap()
    };
    catalogue::tables().map(|(namespace, table)| read(namespace, table)).collect()
}

#[test]
fn every_table_of_the_catalogue_is_parsed_completely() {
    let schemas = all();
    assert_eq!(schemas.len(), 122);
    for schema in &schemas {
        assert_eq!(schema.warnings, [""; 0], "{}", schema.table);
        assert_eq!(schema.key.len(), 1, "{}", schema.table);
        assert!(schema.columns().all(|column| column.column_type != ColumnType::Json), "{}", schema.table);
        for nested in [Nested::Typed, Nested::Json] {
            let (lake, change) = (lake_schema(schema, nested), change_schema(schema, nested));
            assert_eq!(lake.fields().len(), schema.columns().count(), "{}", schema.table);
            assert_eq!(change.fields().len(), lake.fields().len() + 3, "{}", schema.table);
        }
    }
}

/// The numbers are those of the catalogue's statistics (including two announced tables and three that only the diagram shows).
#[test]
fn the_catalogue_has_the_documented_number_of_each_type() {
    let count = |namespace: &str, wanted: fn(&ColumnType) -> bool| {
        let schemas = all();
        let columns =
            schemas.iter().filter(|schema| schema.table.namespace.as_str() == namespace).flat_map(TableSchema::columns);
        columns.filter(|column| wanted(&column.column_type)).count()
    };
    assert_eq!(count("canvas", |kind| *kind == ColumnType::Int64), 377);
    assert_eq!(count("canvas", |kind| *kind == ColumnType::Timestamp), 263);
    assert_eq!(count("canvas", |kind| *kind == ColumnType::Boolean), 149);
    assert_eq!(count("canvas", |kind| *kind == ColumnType::Float64), 47);
    assert_eq!(count("canvas", |kind| matches!(kind, ColumnType::Decimal { .. })), 4);
    assert_eq!(count("canvas", |kind| matches!(kind, ColumnType::Enum { .. })), 140);
    assert_eq!(count("canvas", |kind| matches!(kind, ColumnType::Struct(_))), 5);
    assert_eq!(count("canvas", |kind| matches!(kind, ColumnType::List(_))), 2);
    assert_eq!(count("catalog", |kind| *kind == ColumnType::Float64), 11);
    assert_eq!(count("canvas_logs", |kind| matches!(kind, ColumnType::Ip { v4: true, v6: true })), 1);
    assert_eq!(count("canvas_logs", |kind| matches!(kind, ColumnType::Enum { open: true, .. })), 2);
}
