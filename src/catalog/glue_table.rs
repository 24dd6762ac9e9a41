//! The form of a table in AWS Glue: a `TableInput` for Delta readers, and its comparison with an existing table.
//!
//! Athena reads Delta tables by the parameter `table_type`; Spark, EMR and Trino by `spark.sql.sources.provider`. All of them read columns from
//! the Delta log; those of the entry are for people, and for Lake Formation.

use serde_json::{Map, Value, json};

use crate::sink::CatalogEntry;

/// Parameter with the name of the table at the service.
const TABLE: &str = "daplake.table";
/// Maximum length of the comment of a column, in characters.
const COMMENT: usize = 255;
/// Maximum length of the description of a table, in bytes.
const DESCRIPTION: usize = 2048;

/// The `TableInput` of an entry. What others have added to an existing table stays.
pub(super) fn table_input(entry: &CatalogEntry, name: &str, present: Option<&Value>) -> Value {
    let mut parameters = present.and_then(|table| table["Parameters"].as_object().cloned()).unwrap_or_default();
    parameters.extend(our_parameters(entry));
    let columns: Vec<Value> = entry
        .columns
        .iter()
        .map(|column| match &column.description {
            Some(text) => json!({"Name": column.name, "Type": column.hive_type, "Comment": comment(text)}),
            None => json!({"Name": column.name, "Type": column.hive_type}),
        })
        .collect();
    let location = with_s3(&entry.location);
    let mut input = json!({
        "Name": name,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": parameters,
        // Athena needs the list, even if it is empty. The partitions of a Delta table are in its log.
        "PartitionKeys": [],
        "StorageDescriptor": {
            "Columns": columns,
            "Location": location,
            // The formats that Spark writes for tables of a data source.
            "InputFormat": "org.apache.hadoop.mapred.SequenceFileInputFormat",
            "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveSequenceFileOutputFormat",
            "Compressed": false,
            "NumberOfBuckets": -1,
            "SerdeInfo": {
                "SerializationLibrary": "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
                "Parameters": {"serialization.format": "1", "path": location.trim_end_matches('/')},
            },
            "StoredAsSubDirectories": false,
        },
    });
    if let Some(text) = &entry.description {
        input["Description"] = description(text).into();
    }
    // An update would remove them.
    for field in ["Owner", "Retention"] {
        if let Some(value) = present.map(|table| &table[field]).filter(|value| !value.is_null()) {
            input[field] = value.clone();
        }
    }
    input
}

fn our_parameters(entry: &CatalogEntry) -> Map<String, Value> {
    [
        ("EXTERNAL", "TRUE"),
        ("classification", "delta"),
        ("table_type", "DELTA"),
        ("spark.sql.sources.provider", "delta"),
        ("spark.sql.partitionProvider", "catalog"),
        (TABLE, &entry.table.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), Value::from(value)))
    .into_iter()
    .collect()
}

/// Whether an existing table is the table of the entry, which may have changed since. One in another folder is another table.
pub(super) fn is_same_table(present: &Value, entry: &CatalogEntry) -> bool {
    let location = present["StorageDescriptor"]["Location"].as_str().unwrap_or_default();
    plain(location) == plain(&entry.location)
}

/// A location in the form in which it is compared.
fn plain(location: &str) -> String {
    with_s3(location.trim_end_matches('/'))
}

/// A location with the scheme `s3`, the only one that Athena accepts.
fn with_s3(location: &str) -> String {
    match location.strip_prefix("s3a://").or(location.strip_prefix("s3n://")) {
        Some(rest) => format!("s3://{rest}"),
        None => location.to_owned(),
    }
}

/// Whether an existing table has all that `input` has.
pub(super) fn is_up_to_date(present: &Value, input: &Value) -> bool {
    // Glue adds fields, and leaves out empty ones.
    fn has(present: &Value, wanted: &Value) -> bool {
        match wanted {
            Value::Object(members) => members.iter().all(|(name, wanted)| has(&present[name], wanted)),
            Value::Array(items) if items.is_empty() => present.as_array().is_none_or(Vec::is_empty),
            Value::Array(items) => present.as_array().is_some_and(|present| {
                present.len() == items.len()
                    && present.iter().zip(items).all(|(present, wanted)| is_same_column(present, wanted))
            }),
            wanted => present == wanted,
        }
    }
    let text = |table: &Value| table["Description"].as_str().unwrap_or_default().to_owned();
    has(present, input) && text(present) == text(input)
}

/// Whether two columns are equal. A column without a comment may have an empty one.
fn is_same_column(present: &Value, wanted: &Value) -> bool {
    ["Name", "Type", "Comment"].iter().all(|field| {
        let text = |column: &Value| column[*field].as_str().unwrap_or_default().to_owned();
        text(present) == text(wanted)
    })
}

/// The comment of a column: a single line.
fn comment(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(COMMENT).collect()
}

/// The description of a table: line ends and tabs are allowed.
fn description(text: &str) -> String {
    let is_allowed = |letter: char| !letter.is_control() || matches!(letter, '\n' | '\r' | '\t');
    let mut text: String = text.chars().map(|letter| if is_allowed(letter) { letter } else { ' ' }).collect();
    text.truncate(text.floor_char_boundary(DESCRIPTION));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableRef;
    use crate::sink::CatalogColumn;

    fn entry() -> CatalogEntry {
        let column = |name: &str, hive_type: &str, description: Option<&str>| CatalogColumn {
            name: name.into(),
            hive_type: hive_type.into(),
            description: description.map(str::to_owned),
        };
        CatalogEntry {
            table: TableRef::new("canvas", "users"),
            location: "s3://bucket/lake/canvas/users/".into(),
            description: Some("People\nwith accounts".into()),
            columns: vec![column("id", "bigint", Some("The\nkey")), column("name", "string", None)],
        }
    }

    #[test]
    fn a_table_has_what_readers_need() {
        let input = table_input(&entry(), "users", None);
        assert_eq!(input["Parameters"]["table_type"], "DELTA");
        assert_eq!(input["Parameters"]["spark.sql.sources.provider"], "delta");
        assert_eq!(input["Parameters"]["daplake.table"], "canvas.users");
        assert_eq!(input["Description"], "People\nwith accounts");
        assert_eq!(input["PartitionKeys"], json!([]));
        let storage = &input["StorageDescriptor"];
        assert_eq!(storage["Columns"][0], json!({"Name": "id", "Type": "bigint", "Comment": "The key"}));
        assert_eq!(storage["Columns"][1], json!({"Name": "name", "Type": "string"}));
        assert_eq!(storage["SerdeInfo"]["Parameters"]["path"], "s3://bucket/lake/canvas/users");
    }

    #[test]
    fn long_texts_are_cut() {
        let mut long = entry();
        long.description = Some("ä".repeat(3000));
        long.columns[0].description = Some("ä".repeat(3000));
        let input = table_input(&long, "users", None);
        assert_eq!(input["Description"].as_str().unwrap().len(), 2048);
        assert_eq!(input["StorageDescriptor"]["Columns"][0]["Comment"].as_str().unwrap().chars().count(), 255);
    }

    #[test]
    fn a_table_is_up_to_date_until_something_of_it_changes() {
        let input = table_input(&entry(), "users", None);
        let mut present = input.clone();
        present["CreateTime"] = 1.into();
        present["Parameters"]["theirs"] = "x".into();
        present["StorageDescriptor"]["Columns"][1]["Comment"] = "".into();
        assert!(is_up_to_date(&present, &input));
        type Change = fn(&mut CatalogEntry);
        let changes: [Change; 5] = [
            |entry| entry.columns[0].hive_type = "int".into(),
            |entry| entry.columns[1].description = Some("new".into()),
            |entry| drop(entry.columns.pop()),
            |entry| entry.description = None,
            |entry| entry.description = Some("other".into()),
        ];
        for change in changes {
            let mut changed = entry();
            change(&mut changed);
            let input = table_input(&changed, "users", Some(&present));
            assert!(!is_up_to_date(&present, &input));
            assert_eq!(input["Parameters"]["theirs"], "x", "parameters of others stay");
        }
    }

    #[test]
    fn a_table_in_another_folder_is_another_table() {
        let at = |location: &str| json!({"StorageDescriptor": {"Location": location}});
        for same in ["s3://bucket/lake/canvas/users", "s3a://bucket/lake/canvas/users/"] {
            assert!(is_same_table(&at(same), &entry()), "{same}");
        }
        for other in ["s3://bucket/lake/canvas/user", "s3://other/lake/canvas/users", ""] {
            assert!(!is_same_table(&at(other), &entry()), "{other}");
        }
    }
}
