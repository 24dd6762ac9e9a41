//! The metadata of a table: schemas, partitions, snapshots. No I/O.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::partition::PartitionSpec;
use super::schema::Schema;
use crate::error::{Error, Kind, Result, ResultExt};

/// Version of the table format.
const FORMAT_VERSION: i64 = 3;
/// Property: the names of fields in data files without ids.
const NAME_MAPPING: &str = "schema.name-mapping.default";
/// Property: whether Spark reads batches. Its reader of batches does not support all encodings of the data files.
const VECTORIZED_READS: &str = "read.parquet.vectorization.enabled";
/// Property: the description of the table.
const COMMENT: &str = "comment";
/// Member of a snapshot's summary: the version of the Delta table that the snapshot shows.
const DELTA_VERSION: &str = "delta.version";
/// Maximum number of snapshots. Every commit writes all of them.
const MAX_SNAPSHOTS: usize = 100;
/// Maximum number of entries in the log of metadata files.
const MAX_LOG: usize = 100;

/// The metadata of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TableMetadata(Map<String, Value>);

/// A snapshot that is added to a table.
pub(super) struct Snapshot {
    pub(super) id: i64,
    /// The version of the Delta table.
    pub(super) version: u64,
    /// Time of the commit in milliseconds since 1970.
    pub(super) timestamp: i64,
    /// Location of the manifest list.
    pub(super) manifest_list: String,
    pub(super) operation: &'static str,
    pub(super) changes: Changes,
}

/// What a snapshot adds and removes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Changes {
    pub(super) added_files: i64,
    pub(super) added_rows: i64,
    pub(super) added_bytes: i64,
    pub(super) added_vectors: i64,
    pub(super) added_deleted_rows: i64,
    pub(super) removed_files: i64,
    pub(super) removed_rows: i64,
    pub(super) removed_bytes: i64,
    pub(super) removed_vectors: i64,
    pub(super) removed_deleted_rows: i64,
    /// Whether the table had no other files before.
    pub(super) is_whole: bool,
}

impl TableMetadata {
    /// The metadata of a new table without snapshots.
    pub(super) fn new(location: &str, uuid: &str) -> Self {
        let value = json!({
            "format-version": FORMAT_VERSION,
            "table-uuid": uuid,
            "location": location,
            "last-sequence-number": 0,
            "last-updated-ms": 0,
            "last-column-id": 0,
            "current-schema-id": -1,
            "schemas": [],
            "default-spec-id": 0,
            "partition-specs": [],
            "last-partition-id": 999,
            "default-sort-order-id": 0,
            "sort-orders": [{"order-id": 0, "fields": []}],
            "properties": {VECTORIZED_READS: "false"},
            "current-snapshot-id": null,
            "next-row-id": 0,
            "refs": {},
            "snapshots": [],
            "statistics": [],
            "partition-statistics": [],
            "snapshot-log": [],
            "metadata-log": [],
        });
        match value {
            Value::Object(members) => Self(members),
            _ => Self(Map::new()),
        }
    }

    /// Kind `Target` if the bytes are not metadata of this format version.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let unreadable = "The Iceberg metadata cannot be read";
        let members: Map<String, Value> = serde_json::from_slice(bytes).context(Kind::Target, unreadable)?;
        let metadata = Self(members);
        if metadata.integer("format-version") != FORMAT_VERSION {
            return Err(Error::new(Kind::Target, unreadable).with_field("format version", &metadata.0["format-version"]));
        }
        Ok(metadata)
    }

    /// The bytes of the metadata file.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.0).context(Kind::Bug, "Iceberg metadata cannot be written")
    }

    fn member(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }

    fn integer(&self, name: &str) -> i64 {
        self.member(name).as_i64().unwrap_or(0)
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Changes a list.
    fn change<T>(&mut self, name: &str, change: impl FnOnce(&mut Vec<Value>) -> T) -> T {
        let mut items = match self.0.get_mut(name).map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        let result = change(&mut items);
        self.set(name, items);
        result
    }

    fn push(&mut self, name: &str, item: Value) {
        self.change(name, |items| items.push(item));
    }

    fn items(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.member(name).as_array().into_iter().flatten()
    }

    pub(super) fn location(&self) -> &str {
        self.member("location").as_str().unwrap_or_default()
    }

    pub(super) fn uuid(&self) -> &str {
        self.member("table-uuid").as_str().unwrap_or_default()
    }

    pub(super) fn next_sequence_number(&self) -> i64 {
        self.integer("last-sequence-number") + 1
    }

    pub(super) fn next_row_id(&self) -> i64 {
        self.integer("next-row-id")
    }

    pub(super) fn last_updated(&self) -> i64 {
        self.integer("last-updated-ms")
    }

    /// The current snapshot.
    fn snapshot(&self) -> Option<&Value> {
        let id = self.member("current-snapshot-id").as_i64()?;
        self.items("snapshots").find(|snapshot| snapshot["snapshot-id"] == id)
    }

    pub(super) fn snapshot_id(&self) -> Option<i64> {
        self.snapshot()?["snapshot-id"].as_i64()
    }

    /// Location of the manifest list of the current snapshot.
    pub(super) fn manifest_list(&self) -> Option<&str> {
        self.snapshot()?["manifest-list"].as_str()
    }

    /// The version of the Delta table that the current snapshot shows; `None` if another program wrote the snapshot.
    pub(super) fn delta_version(&self) -> Option<u64> {
        self.snapshot()?["summary"][DELTA_VERSION].as_str()?.parse().ok()
    }

    /// Locations of all manifest lists.
    pub(super) fn manifest_lists(&self) -> Vec<String> {
        self.items("snapshots").filter_map(|snapshot| snapshot["manifest-list"].as_str().map(str::to_owned)).collect()
    }

    /// The name mapping of the table.
    pub(super) fn name_mapping(&self) -> Value {
        let text = self.member("properties")[NAME_MAPPING].as_str();
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// The current schema in the form of the metadata.
    pub(super) fn schema_json(&self) -> &Value {
        let id = self.integer("current-schema-id");
        self.items("schemas").find(|schema| schema["schema-id"] == id).unwrap_or(&Value::Null)
    }

    /// The current schema; empty if there is none yet.
    pub(super) fn schema(&self) -> Result<Schema> {
        let last_id = i32::try_from(self.integer("last-column-id")).unwrap_or(i32::MAX);
        match self.schema_json() {
            Value::Null => Ok(Schema { last_id, ..Schema::default() }),
            schema => Schema::from_json(schema, &self.name_mapping(), last_id),
        }
    }

    /// Sets the current schema, unless it is the same.
    pub(super) fn set_schema(&mut self, schema: &Schema) {
        let mapping = schema.name_mapping(&self.name_mapping());
        let current = self.integer("current-schema-id");
        if *self.schema_json() != schema.to_json(current as i32) {
            let highest = self.items("schemas").filter_map(|schema| schema["schema-id"].as_i64()).max();
            let id = highest.map_or(0, |id| id + 1);
            self.push("schemas", schema.to_json(id as i32));
            self.set("current-schema-id", id);
        }
        self.set("last-column-id", i64::from(schema.last_id));
        self.set_property(NAME_MAPPING, Some(mapping.to_string()));
    }

    fn set_property(&mut self, name: &str, value: Option<String>) {
        let properties = self.0.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            match value {
                Some(value) => properties.insert(name.to_owned(), value.into()),
                None => properties.remove(name),
            };
        }
    }

    /// Sets the description of the table.
    pub(super) fn set_description(&mut self, description: Option<&str>) {
        self.set_property(COMMENT, description.map(str::to_owned));
    }

    /// The current partition spec; null if there is none yet.
    fn spec_json(&self) -> &Value {
        let id = self.integer("default-spec-id");
        self.items("partition-specs").find(|spec| spec["spec-id"] == id).unwrap_or(&Value::Null)
    }

    /// Whether `spec` is the current one.
    pub(super) fn has_spec(&self, spec: &PartitionSpec) -> bool {
        *self.spec_json() == spec.to_json()
    }

    /// The current partition spec for the fields of `schema`, the current schema.
    pub(super) fn spec(&self, schema: &Schema) -> PartitionSpec {
        let source = self.spec_json()["fields"][0]["source-id"].as_i64();
        let mut spec = PartitionSpec::new(schema.fields.iter().find(|field| Some(i64::from(field.id)) == source));
        spec.id = self.integer("default-spec-id") as i32;
        spec
    }

    pub(super) fn set_spec(&mut self, spec: &PartitionSpec) {
        self.set("default-spec-id", spec.id);
        self.set("partition-specs", json!([spec.to_json()]));
        self.set("last-partition-id", spec.last_id());
    }

    /// Forgets all snapshots and schemas. The next snapshot is the first one of the table.
    pub(super) fn forget_history(&mut self) {
        for name in ["schemas", "snapshots", "snapshot-log", "statistics", "partition-statistics", "partition-specs"] {
            self.set(name, Vec::<Value>::new());
        }
        self.set("refs", json!({}));
        self.set("current-snapshot-id", Value::Null);
        self.set("current-schema-id", -1);
        self.set_property(NAME_MAPPING, None);
    }

    /// These metadata as a continuation of `older`: ids and numbers that it assigned are not used again.
    pub(super) fn after(mut self, older: &Self) -> Self {
        for name in ["last-sequence-number", "last-updated-ms", "last-column-id", "next-row-id"] {
            self.set(name, older.integer(name));
        }
        self
    }

    /// Adds a snapshot, which becomes the current one.
    pub(super) fn add_snapshot(&mut self, snapshot: &Snapshot) {
        let summary = self.summary(snapshot);
        let (sequence_number, first_row_id) = (self.next_sequence_number(), self.next_row_id());
        let timestamp = snapshot.timestamp.max(self.last_updated());
        let mut added = json!({
            "snapshot-id": snapshot.id,
            "sequence-number": sequence_number,
            "timestamp-ms": timestamp,
            "manifest-list": snapshot.manifest_list,
            "summary": summary,
            "schema-id": self.integer("current-schema-id"),
            "first-row-id": first_row_id,
            "added-rows": snapshot.changes.added_rows,
        });
        if let Some(parent) = self.snapshot_id() {
            added["parent-snapshot-id"] = parent.into();
        }
        self.push("snapshots", added);
        self.push("snapshot-log", json!({"snapshot-id": snapshot.id, "timestamp-ms": timestamp}));
        self.set("refs", json!({"main": {"snapshot-id": snapshot.id, "type": "branch"}}));
        self.set("current-snapshot-id", snapshot.id);
        self.set("last-sequence-number", sequence_number);
        self.set("last-updated-ms", timestamp);
        self.set("next-row-id", first_row_id + snapshot.changes.added_rows);
    }

    /// The summary of a snapshot. All values are strings.
    fn summary(&self, snapshot: &Snapshot) -> Value {
        let changes = &snapshot.changes;
        let before = self.snapshot().filter(|_| !changes.is_whole).map_or(&Value::Null, |snapshot| &snapshot["summary"]);
        let total = |name: &str, added: i64, removed: i64| {
            let before: i64 = before[name].as_str().and_then(|count| count.parse().ok()).unwrap_or(0);
            (before + added - removed).max(0)
        };
        let mut summary = json!({"operation": snapshot.operation, DELTA_VERSION: snapshot.version.to_string()});
        for (name, count) in [
            ("added-data-files", changes.added_files),
            ("added-records", changes.added_rows),
            ("added-files-size", changes.added_bytes),
            ("added-delete-files", changes.added_vectors),
            ("added-dvs", changes.added_vectors),
            ("added-position-deletes", changes.added_deleted_rows),
            ("deleted-data-files", changes.removed_files),
            ("deleted-records", changes.removed_rows),
            ("removed-files-size", changes.removed_bytes),
            ("removed-delete-files", changes.removed_vectors),
            ("removed-dvs", changes.removed_vectors),
            ("removed-position-deletes", changes.removed_deleted_rows),
        ] {
            if count > 0 {
                summary[name] = count.to_string().into();
            }
        }
        for (name, added, removed) in [
            ("total-data-files", changes.added_files, changes.removed_files),
            ("total-records", changes.added_rows, changes.removed_rows),
            ("total-files-size", changes.added_bytes, changes.removed_bytes),
            ("total-delete-files", changes.added_vectors, changes.removed_vectors),
            ("total-position-deletes", changes.added_deleted_rows, changes.removed_deleted_rows),
        ] {
            summary[name] = total(name, added, removed).to_string().into();
        }
        summary["total-equality-deletes"] = "0".into();
        summary["engine-name"] = "daplake".into();
        summary["engine-version"] = env!("CARGO_PKG_VERSION").into();
        summary
    }

    /// Adds the file of the previous metadata to the log. Returns the locations of files that the log no longer names.
    pub(super) fn log_previous(&mut self, location: &str, timestamp: i64) -> Vec<String> {
        self.change("metadata-log", |log| {
            log.push(json!({"metadata-file": location, "timestamp-ms": timestamp}));
            let surplus = log.len().saturating_sub(MAX_LOG);
            log.drain(..surplus).filter_map(|entry| entry["metadata-file"].as_str().map(str::to_owned)).collect()
        })
    }

    /// Removes old snapshots: those that were replaced before `horizon` (milliseconds since 1970), and those beyond the maximum number.
    /// Returns whether there were any. The current snapshot stays. Also forgets metadata files that were replaced before `horizon`.
    pub(super) fn expire(&mut self, horizon: i64) -> bool {
        self.change("metadata-log", |log| {
            log.retain(|entry| entry["timestamp-ms"].as_i64().is_some_and(|time| time >= horizon))
        });
        let replaced: Vec<i64> = self.items("snapshots").skip(1).filter_map(|next| next["timestamp-ms"].as_i64()).collect();
        let surplus = (replaced.len() + 1).saturating_sub(MAX_SNAPSHOTS);
        let expired = replaced.iter().take_while(|time| **time < horizon).count().max(surplus);
        if expired == 0 {
            return false;
        }
        self.change("snapshots", |snapshots| {
            snapshots.drain(..expired);
            if let Some(first) = snapshots.first_mut().and_then(Value::as_object_mut) {
                first.remove("parent-snapshot-id");
            }
        });
        let kept: HashSet<i64> = self.items("snapshots").filter_map(|snapshot| snapshot["snapshot-id"].as_i64()).collect();
        let is_kept = |entry: &Value| entry["snapshot-id"].as_i64().is_some_and(|id| kept.contains(&id));
        self.change("snapshot-log", |log| log.retain(is_kept));
        let current = self.integer("current-schema-id");
        let used: HashSet<i64> = self.items("snapshots").filter_map(|snapshot| snapshot["schema-id"].as_i64()).collect();
        let is_used = |schema: &Value| schema["schema-id"].as_i64().is_some_and(|id| id == current || used.contains(&id));
        self.change("schemas", |schemas| schemas.retain(is_used));
        true
    }

    /// Locations of the files in the log of metadata files.
    pub(super) fn logged_files(&self) -> impl Iterator<Item = &str> {
        self.items("metadata-log").filter_map(|entry| entry["metadata-file"].as_str())
    }
}
