//! A table as catalogs list it: location, columns with types of Hive, descriptions.

use arrow::datatypes::DataType;

use crate::error::Result;
use crate::sink::delta::log::columns::{LakeColumn, LakeType, leaf_name};
use crate::sink::delta::log::table_log::TableLog;
use crate::sink::delta::log::table_state::TableState;
use crate::sink::{CatalogColumn, CatalogEntry};

/// See [`LakeFeatures::catalog_entry`](crate::sink::LakeFeatures::catalog_entry).
pub(crate) async fn catalog_entry(log: &TableLog) -> Result<Option<CatalogEntry>> {
    Ok(log.state().await?.map(|state| entry_of(log, &state)))
}

/// The entry of a table in a state.
pub(crate) fn entry_of(log: &TableLog, state: &TableState) -> CatalogEntry {
    let column = |column: &LakeColumn| CatalogColumn {
        name: column.name.clone(),
        hive_type: hive_type(&column.kind),
        description: column.comment().map(str::to_owned),
    };
    CatalogEntry {
        table: log.table.clone(),
        location: log.location.to_string(),
        description: state.metadata["description"].as_str().map(str::to_owned),
        columns: state.columns.iter().map(column).collect(),
    }
}

fn hive_type(kind: &LakeType) -> String {
    match kind {
        LakeType::Leaf(DataType::Int16) => "smallint".to_owned(),
        LakeType::Leaf(DataType::Int32) => "int".to_owned(),
        LakeType::Leaf(DataType::Int64) => "bigint".to_owned(),
        LakeType::Leaf(leaf) => leaf_name(leaf),
        LakeType::Struct(members) => {
            let member = |member: &LakeColumn| format!("{}:{}", hive_name(&member.name), hive_type(&member.kind));
            format!("struct<{}>", members.iter().map(member).collect::<Vec<_>>().join(","))
        }
        LakeType::List(item) => format!("array<{}>", hive_type(item)),
    }
}

/// The name of a member. Names cannot be quoted inside of types.
fn hive_name(name: &str) -> String {
    name.chars().map(|letter| if letter.is_alphanumeric() || letter == '_' { letter } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_are_those_of_hive() {
        let of = |kind: serde_json::Value| {
            let field = json!({"name": "x", "type": kind, "nullable": true, "metadata": {}});
            let schema = json!({"type": "struct", "fields": [field]}).to_string();
            hive_type(&LakeColumn::from_schema_string(&schema).unwrap()[0].kind)
        };
        for (delta, hive) in [
            ("boolean", "boolean"),
            ("short", "smallint"),
            ("integer", "int"),
            ("long", "bigint"),
            ("float", "float"),
            ("double", "double"),
            ("decimal(10,2)", "decimal(10,2)"),
            ("string", "string"),
            ("date", "date"),
            ("timestamp", "timestamp"),
        ] {
            assert_eq!(of(json!(delta)), hive);
        }
        let member =
            |name: &str, kind: serde_json::Value| json!({"name": name, "type": kind, "nullable": true, "metadata": {}});
        let item = json!({"type": "struct", "fields": [member("a", json!("long")), member("ein Name", json!("string"))]});
        let list = json!({"type": "array", "elementType": item, "containsNull": true});
        assert_eq!(of(list), "array<struct<a:bigint,ein_Name:string>>");
    }
}
