//! Manifest lists: the manifests of a snapshot. No I/O.

use apache_avro::types::Value;
use serde_json::json;

use super::avro::{self, Record, field, nullable, optional, required};
use super::manifest::{Content, Entry, Status};
use crate::error::Result;

/// The range of partition values in a manifest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PartitionSummary {
    has_null: bool,
    bounds: Option<(i32, i32)>,
}

/// A manifest in a manifest list.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Manifest {
    /// Location of the file.
    pub(super) path: String,
    /// Size in bytes.
    pub(super) length: i64,
    pub(super) spec_id: i32,
    pub(super) content: Content,
    pub(super) sequence_number: i64,
    min_sequence_number: i64,
    snapshot_id: i64,
    /// Numbers of added, existing and deleted files.
    files: [i64; 3],
    /// Numbers of their rows.
    rows: [i64; 3],
    partitions: Option<PartitionSummary>,
    first_row_id: Option<i64>,
}

/// What a new manifest belongs to.
pub(super) struct Origin {
    pub(super) snapshot_id: i64,
    pub(super) sequence_number: i64,
    /// Id of the first row of the snapshot.
    pub(super) first_row_id: i64,
    pub(super) spec_id: i32,
    pub(super) is_partitioned: bool,
}

impl Manifest {
    /// A new manifest with these entries.
    pub(super) fn new(path: String, length: usize, content: Content, origin: &Origin, entries: &[Entry]) -> Self {
        let (mut files, mut rows) = ([0; 3], [0; 3]);
        for entry in entries {
            let place = match entry.status {
                Status::Added => 0,
                Status::Existing => 1,
                Status::Deleted => 2,
            };
            files[place] += 1;
            rows[place] += entry.rows;
        }
        let live = entries.iter().filter(|entry| entry.is_live());
        let oldest = live.map(|entry| entry.sequence_number).min();
        Self {
            path,
            length: length as i64,
            spec_id: origin.spec_id,
            content,
            sequence_number: origin.sequence_number,
            min_sequence_number: oldest.unwrap_or(origin.sequence_number),
            snapshot_id: origin.snapshot_id,
            files,
            rows,
            partitions: origin.is_partitioned.then(|| PartitionSummary::new(entries)),
            first_row_id: (content == Content::Data).then_some(origin.first_row_id),
        }
    }

    /// Number of files that belong to the table.
    pub(super) fn live_files(&self) -> i64 {
        self.files[0] + self.files[1]
    }

    /// Whether a file of this partition may be in the manifest.
    pub(super) fn may_contain(&self, partition: Option<i32>) -> bool {
        self.partitions.is_none_or(|summary| match partition {
            None => summary.has_null,
            Some(value) => summary.bounds.is_some_and(|(low, high)| (low..=high).contains(&value)),
        })
    }
}

impl PartitionSummary {
    fn new(entries: &[Entry]) -> Self {
        let values = || entries.iter().filter_map(|entry| entry.partition);
        Self { has_null: entries.iter().any(|entry| entry.partition.is_none()), bounds: values().min().zip(values().max()) }
    }
}

fn schema_json() -> serde_json::Value {
    let summary = json!({
        "type": "record",
        "name": "r508",
        "fields": [
            field(509, "contains_null", json!("boolean")),
            nullable(518, "contains_nan", json!("boolean")),
            nullable(510, "lower_bound", json!("bytes")),
            nullable(511, "upper_bound", json!("bytes")),
        ],
    });
    json!({
        "type": "record",
        "name": "manifest_file",
        "fields": [
            field(500, "manifest_path", json!("string")),
            field(501, "manifest_length", json!("long")),
            field(502, "partition_spec_id", json!("int")),
            field(517, "content", json!("int")),
            field(515, "sequence_number", json!("long")),
            field(516, "min_sequence_number", json!("long")),
            field(503, "added_snapshot_id", json!("long")),
            field(504, "added_files_count", json!("int")),
            field(505, "existing_files_count", json!("int")),
            field(506, "deleted_files_count", json!("int")),
            field(512, "added_rows_count", json!("long")),
            field(513, "existing_rows_count", json!("long")),
            field(514, "deleted_rows_count", json!("long")),
            nullable(507, "partitions", json!({"type": "array", "items": summary, "element-id": 508})),
            nullable(520, "first_row_id", json!("long")),
        ],
    })
}

const FILE_COUNTS: [&str; 3] = ["added_files_count", "existing_files_count", "deleted_files_count"];
const ROW_COUNTS: [&str; 3] = ["added_rows_count", "existing_rows_count", "deleted_rows_count"];

/// The bytes of the manifest list of a snapshot.
pub(super) fn encode(origin: &Origin, parent: Option<i64>, manifests: &[Manifest]) -> Result<Vec<u8>> {
    let schema = avro::schema(&schema_json())?;
    let metadata = [
        ("format-version", "3".to_owned()),
        ("snapshot-id", origin.snapshot_id.to_string()),
        ("parent-snapshot-id", parent.map_or("null".to_owned(), |id| id.to_string())),
        ("sequence-number", origin.sequence_number.to_string()),
        ("first-row-id", origin.first_row_id.to_string()),
    ];
    avro::write(&schema, &metadata, manifests.iter().map(record_of))
}

fn record_of(manifest: &Manifest) -> avro::Members {
    let bytes = |value: i32| Value::Bytes(value.to_le_bytes().to_vec());
    let summary = |summary: PartitionSummary| {
        let record = vec![
            required("contains_null", summary.has_null),
            optional("contains_nan", Some(Value::Boolean(false))),
            optional("lower_bound", summary.bounds.map(|(low, _)| bytes(low))),
            optional("upper_bound", summary.bounds.map(|(_, high)| bytes(high))),
        ];
        Value::Array(vec![Value::Record(record)])
    };
    let mut record = vec![
        required("manifest_path", manifest.path.as_str()),
        required("manifest_length", manifest.length),
        required("partition_spec_id", manifest.spec_id),
        required("content", i32::from(manifest.content == Content::Deletes)),
        required("sequence_number", manifest.sequence_number),
        required("min_sequence_number", manifest.min_sequence_number),
        required("added_snapshot_id", manifest.snapshot_id),
    ];
    record.extend(FILE_COUNTS.iter().zip(manifest.files).map(|(name, count)| required(name, count as i32)));
    record.extend(ROW_COUNTS.iter().zip(manifest.rows).map(|(name, count)| required(name, count)));
    record.push(optional("partitions", manifest.partitions.map(summary)));
    record.push(optional("first_row_id", manifest.first_row_id.map(Value::Long)));
    record
}

/// The manifests of a list of [`encode`].
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Manifest>> {
    avro::read(bytes)?.into_iter().map(manifest_of).collect()
}

fn manifest_of(mut record: Record) -> Result<Manifest> {
    let (mut files, mut rows) = ([0; 3], [0; 3]);
    for (place, name) in FILE_COUNTS.iter().enumerate() {
        files[place] = record.integer(name)?;
    }
    for (place, name) in ROW_COUNTS.iter().enumerate() {
        rows[place] = record.integer(name)?;
    }
    let summary = |mut record: Record| {
        let has_null = matches!(record.take("contains_null"), Some(Value::Boolean(true)));
        let mut bound = |name: &str| Some(i32::from_le_bytes(record.bytes(name)?.try_into().ok()?));
        PartitionSummary { has_null, bounds: bound("lower_bound").zip(bound("upper_bound")) }
    };
    Ok(Manifest {
        path: record.text("manifest_path")?,
        length: record.integer("manifest_length")?,
        spec_id: record.integer("partition_spec_id")? as i32,
        content: if record.integer("content")? == 0 { Content::Data } else { Content::Deletes },
        sequence_number: record.integer("sequence_number")?,
        min_sequence_number: record.integer("min_sequence_number")?,
        snapshot_id: record.integer("added_snapshot_id")?,
        files,
        rows,
        partitions: record.records("partitions").into_iter().next().map(summary),
        first_row_id: record.optional_integer("first_row_id"),
    })
}
