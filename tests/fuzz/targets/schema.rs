//! Any JSON as the schema of a table: no panic, and every accepted schema has an Arrow schema in both forms of nested columns.
#![no_main]

use daplake::TableRef;
use daplake::internals::schema::{Nested, TableSchema, change_schema};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(source) = serde_json::from_slice(data) else { return };
    if let Ok(schema) = TableSchema::read(&TableRef::new("canvas", "t"), 1, source) {
        for nested in [Nested::Typed, Nested::Json] {
            assert!(change_schema(&schema, nested).fields().len() >= 3);
        }
    }
});
