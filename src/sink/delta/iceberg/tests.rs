//! What a view shows, for tests, and tests of parts that need no table.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::manifest::{self, Content};
use super::manifest_list::{self, Manifest};
use super::metadata_folder::{Current, MetadataFolder};
use super::publish::usable;
use super::schema::Schema;
use super::source::Source;
use super::table_metadata::TableMetadata;
use crate::error::Kind;
use crate::sink::delta::log::table_log::TableLog;
use crate::sink::delta::write::deletion_vectors;

/// The files of a snapshot: for each data file its rows, its partition as a number, and its deleted rows.
pub(crate) type ViewFiles = BTreeMap<String, (i64, Option<i32>, Vec<u32>)>;

/// The view of a table.
pub(crate) struct View {
    pub(crate) metadata: Value,
    /// The version of the Delta table that the view shows.
    pub(crate) version: Option<u64>,
    pub(crate) files: ViewFiles,
    /// Numbers of manifests with data files and with deletion vectors.
    pub(crate) manifests: [usize; 2],
}

/// Whether the view shows another version than the table has, or there is none.
pub(crate) async fn is_behind(log: &TableLog) -> bool {
    let source = Source::new(log);
    let folder = MetadataFolder::new(&source);
    let Current { metadata, is_pointed_to, .. } = folder.current().await.unwrap();
    let shown = metadata.and_then(|metadata| usable(&metadata, folder.location()));
    !is_pointed_to || shown != Some(log.existing_state().await.unwrap().version)
}

/// Reads the view of a table as a reader does: by the pointer, the metadata, the manifest list and the manifests.
pub(crate) async fn view(log: &TableLog) -> View {
    let source = Source::new(log);
    let folder = MetadataFolder::new(&source);
    let Current { metadata, is_pointed_to, .. } = folder.current().await.unwrap();
    let metadata: TableMetadata = metadata.expect("the table has a view");
    assert!(is_pointed_to);
    let list = metadata.manifest_list().unwrap();
    let manifests: Vec<Manifest> = manifest_list::decode(&folder.read(list).await.unwrap()).unwrap();
    let mut files = ViewFiles::new();
    let mut vectors = Vec::new();
    let mut row_ids = Vec::new();
    for manifest in &manifests {
        let bytes = folder.read(&manifest.path).await.unwrap();
        assert_eq!(bytes.len() as i64, manifest.length);
        for entry in manifest::decode(&bytes).unwrap().into_iter().filter(|entry| entry.is_live()) {
            assert!(manifest.may_contain(entry.partition));
            match &entry.vector {
                Some(vector) => vectors.push((entry.path.clone(), vector.clone(), entry.rows)),
                None => {
                    let path = folder.path_of(&entry.path).unwrap().to_string();
                    let first = entry.first_row_id.unwrap();
                    row_ids.push((first, first + entry.rows));
                    let previous = files.insert(path, (entry.rows, entry.partition, Vec::new()));
                    assert!(previous.is_none(), "a file is listed once");
                }
            }
        }
    }
    row_ids.sort_unstable();
    assert!(row_ids.windows(2).all(|pair| pair[0].1 <= pair[1].0), "row ids are unique");
    assert!(row_ids.last().is_none_or(|(_, end)| *end <= metadata.next_row_id()));
    for (puffin, vector, rows) in vectors {
        let bytes = folder.read(&puffin).await.unwrap();
        let blob = &bytes[vector.offset as usize..(vector.offset + vector.length) as usize];
        let deleted = deletion_vectors::read_framed(blob).unwrap();
        assert_eq!(deleted.len() as i64, rows);
        let path = folder.path_of(&vector.data_file).unwrap().to_string();
        let (_, _, known) = files.get_mut(&path).expect("the data file of a vector is in the table");
        assert!(known.is_empty(), "a data file has one vector");
        known.extend(deleted);
    }
    let count = |content| manifests.iter().filter(|manifest| manifest.content == content).count();
    View {
        version: metadata.delta_version(),
        metadata: serde_json::from_slice(&metadata.to_bytes().unwrap()).unwrap(),
        files,
        manifests: [count(Content::Data), count(Content::Deletes)],
    }
}

fn delta(columns: &[(&str, Value)]) -> String {
    let field = |(name, kind): &(&str, Value)| json!({"name": name, "type": kind, "nullable": true, "metadata": {}});
    json!({"type": "struct", "fields": columns.iter().map(field).collect::<Vec<_>>()}).to_string()
}

fn ids(schema: &Schema) -> Vec<(i32, &str)> {
    schema.fields.iter().map(|field| (field.id, field.name.as_str())).collect()
}

#[test]
fn a_column_keeps_its_id_until_its_values_mean_something_else() {
    let evolve = |schema: &Schema, columns: &[(&str, Value)]| {
        let mapping = schema.name_mapping(&Value::Null);
        Schema::evolve(schema, &mapping, &delta(columns), &[]).unwrap()
    };
    let list = json!({"type": "array", "elementType": "string", "containsNull": true});
    let first = evolve(&Schema::default(), &[("a", json!("integer")), ("l", list.clone()), ("b", json!("string"))]);
    assert_eq!(ids(&first.schema), [(1, "a"), (2, "l"), (4, "b")]);
    assert!(!first.breaks_history);
    // Wider, renamed in case, added.
    let second = evolve(&first.schema, &[("A", json!("long")), ("l", list), ("b", json!("string")), ("c", json!("date"))]);
    assert_eq!(ids(&second.schema), [(1, "A"), (2, "l"), (4, "b"), (5, "c")]);
    assert_eq!(second.schema.fields[0].names, ["a", "A"]);
    assert!(!second.breaks_history);
    // Round trip through the table metadata.
    let (json, mapping) = (second.schema.to_json(0), second.schema.name_mapping(&Value::Null));
    assert_eq!(Schema::from_json(&json, &mapping, second.schema.last_id).unwrap(), second.schema);
    // Another type under the same name is another column.
    let third = evolve(&second.schema, &[("A", json!("string"))]);
    assert_eq!(ids(&third.schema), [(6, "A")]);
    assert!(third.breaks_history);
    // A removed column stays in the mapping for older snapshots, so its name cannot be used again.
    let mapping = second.schema.name_mapping(&Value::Null);
    let without = Schema::evolve(&second.schema, &mapping, &delta(&[("A", json!("long"))]), &[]).unwrap();
    assert!(!without.breaks_history);
    let mapping = without.schema.name_mapping(&mapping);
    let again =
        Schema::evolve(&without.schema, &mapping, &delta(&[("A", json!("long")), ("b", json!("string"))]), &[]).unwrap();
    assert_eq!(ids(&again.schema), [(1, "A"), (6, "b")]);
    assert!(again.breaks_history);
}

#[test]
fn ids_of_a_mapped_table_are_those_of_delta() {
    let mapped = |id: i64, name: &str| json!({"delta.columnMapping.id": id, "delta.columnMapping.physicalName": name});
    let schema = json!({"type": "struct", "fields": [
        {"name": "a b", "type": "long", "nullable": false, "metadata": mapped(7, "col-7")},
        {"name": "l", "type": "long", "nullable": true, "metadata": mapped(3, "l")},
    ]});
    let key = ["a b".to_owned()];
    let evolved = Schema::evolve(&Schema::default(), &Value::Null, &schema.to_string(), &key).unwrap();
    assert_eq!(ids(&evolved.schema), [(7, "a b"), (3, "l")]);
    assert_eq!((evolved.schema.fields[0].physical(), &evolved.schema.key[..]), ("col-7", &[7][..]));
    // A table that gets column mapping gets other ids.
    let plain = Schema::evolve(&Schema::default(), &Value::Null, &delta(&[("l", json!("long"))]), &[]).unwrap().schema;
    let mapping = plain.name_mapping(&Value::Null);
    assert!(Schema::evolve(&plain, &mapping, &schema.to_string(), &key).unwrap().breaks_history);
    let mut with_list = schema.clone();
    with_list["fields"][1]["type"] = json!({"type": "array", "elementType": "long", "containsNull": true});
    let refused = Schema::evolve(&Schema::default(), &Value::Null, &with_list.to_string(), &key).err().unwrap();
    assert_eq!(refused.kind(), Kind::Unsupported);
}
