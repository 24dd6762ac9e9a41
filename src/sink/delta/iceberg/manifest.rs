//! Manifests: the data files or deletion vectors of a table, with their statistics. No I/O.

use apache_avro::types::Value;
use serde_json::json;

use super::avro::{self, Record, field, nullable, optional, required};
use super::partition::PartitionSpec;
use crate::error::Result;

/// What a manifest says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Existing = 0,
    Added = 1,
    Deleted = 2,
}

/// What the files of a manifest are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Data,
    Deletes,
}

/// A deletion vector in a Puffin file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct VectorReference {
    /// Location of the data file.
    pub(super) data_file: String,
    pub(super) offset: i64,
    pub(super) length: i64,
}

/// An entry of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) status: Status,
    /// The snapshot that added or deleted the file.
    pub(super) snapshot_id: i64,
    /// Sequence number of the snapshot that added the file.
    pub(super) sequence_number: i64,
    /// Location of the file.
    pub(super) path: String,
    /// Value of the partition column; `None` for null or a table without partitions.
    pub(super) partition: Option<i32>,
    /// Number of rows, or of deleted rows.
    pub(super) rows: i64,
    /// Size in bytes.
    pub(super) size: i64,
    pub(super) value_counts: Vec<(i32, i64)>,
    pub(super) null_counts: Vec<(i32, i64)>,
    pub(super) lower: Vec<(i32, Vec<u8>)>,
    pub(super) upper: Vec<(i32, Vec<u8>)>,
    /// Id of the first row of a data file.
    pub(super) first_row_id: Option<i64>,
    /// Set for a deletion vector.
    pub(super) vector: Option<VectorReference>,
}

impl Entry {
    /// Whether the file belongs to the table.
    pub(super) fn is_live(&self) -> bool {
        self.status != Status::Deleted
    }

    /// Location of the data file that the entry is about.
    pub(super) fn data_file(&self) -> &str {
        self.vector.as_ref().map_or(&self.path, |vector| &vector.data_file)
    }
}

fn map(id: i32, name: &str, key: i32, value: i32, kind: &str) -> serde_json::Value {
    let item = json!({
        "type": "record",
        "name": format!("k{key}_v{value}"),
        "fields": [field(key, "key", json!("int")), field(value, "value", json!(kind))],
    });
    nullable(id, name, json!({"type": "array", "items": item, "logicalType": "map"}))
}

fn schema_json(spec: &PartitionSpec) -> serde_json::Value {
    let data_file = json!({
        "type": "record",
        "name": "r2",
        "fields": [
            field(134, "content", json!("int")),
            field(100, "file_path", json!("string")),
            field(101, "file_format", json!("string")),
            field(102, "partition", spec.avro()),
            field(103, "record_count", json!("long")),
            field(104, "file_size_in_bytes", json!("long")),
            map(109, "value_counts", 119, 120, "long"),
            map(110, "null_value_counts", 121, 122, "long"),
            map(125, "lower_bounds", 126, 127, "bytes"),
            map(128, "upper_bounds", 129, 130, "bytes"),
            nullable(140, "sort_order_id", json!("int")),
            nullable(142, "first_row_id", json!("long")),
            nullable(143, "referenced_data_file", json!("string")),
            nullable(144, "content_offset", json!("long")),
            nullable(145, "content_size_in_bytes", json!("long")),
        ],
    });
    json!({
        "type": "record",
        "name": "manifest_entry",
        "fields": [
            field(0, "status", json!("int")),
            nullable(1, "snapshot_id", json!("long")),
            nullable(3, "sequence_number", json!("long")),
            nullable(4, "file_sequence_number", json!("long")),
            field(2, "data_file", data_file),
        ],
    })
}

/// The bytes of a manifest. `schema` is the table's schema in the form of the table metadata.
pub(super) fn encode(content: Content, spec: &PartitionSpec, schema: &serde_json::Value, entries: &[Entry]) -> Result<Vec<u8>> {
    let avro = avro::schema(&schema_json(spec))?;
    let metadata = [
        ("schema", schema.to_string()),
        ("schema-id", schema["schema-id"].to_string()),
        ("partition-spec", spec.fields_json().to_string()),
        ("partition-spec-id", spec.id.to_string()),
        ("format-version", "3".to_owned()),
        ("content", if content == Content::Data { "data" } else { "deletes" }.to_owned()),
    ];
    avro::write(&avro, &metadata, entries.iter().map(|entry| record_of(entry, spec)))
}

fn record_of(entry: &Entry, spec: &PartitionSpec) -> avro::Members {
    let vector = entry.vector.as_ref();
    let counts = |counts: &[(i32, i64)]| pairs(counts, |count| Value::Long(*count));
    let bounds = |bounds: &[(i32, Vec<u8>)]| pairs(bounds, |bound| Value::Bytes(bound.clone()));
    let data_file = vec![
        required("content", i32::from(vector.is_some())),
        required("file_path", entry.path.as_str()),
        required("file_format", if vector.is_some() { "PUFFIN" } else { "PARQUET" }),
        required("partition", spec.value(entry.partition)),
        required("record_count", entry.rows),
        required("file_size_in_bytes", entry.size),
        optional("value_counts", counts(&entry.value_counts)),
        optional("null_value_counts", counts(&entry.null_counts)),
        optional("lower_bounds", bounds(&entry.lower)),
        optional("upper_bounds", bounds(&entry.upper)),
        optional("sort_order_id", vector.is_none().then_some(Value::Int(0))),
        optional("first_row_id", entry.first_row_id.map(Value::Long)),
        optional("referenced_data_file", vector.map(|vector| Value::String(vector.data_file.clone()))),
        optional("content_offset", vector.map(|vector| Value::Long(vector.offset))),
        optional("content_size_in_bytes", vector.map(|vector| Value::Long(vector.length))),
    ];
    vec![
        required("status", entry.status as i32),
        optional("snapshot_id", Some(Value::Long(entry.snapshot_id))),
        optional("sequence_number", Some(Value::Long(entry.sequence_number))),
        optional("file_sequence_number", Some(Value::Long(entry.sequence_number))),
        required("data_file", Value::Record(data_file)),
    ]
}

fn pairs<T>(pairs: &[(i32, T)], value: impl Fn(&T) -> Value) -> Option<Value> {
    let pair = |(id, of): &(i32, T)| Value::Record(vec![required("key", *id), required("value", value(of))]);
    (!pairs.is_empty()).then(|| Value::Array(pairs.iter().map(pair).collect()))
}

/// The entries of a manifest of [`encode`].
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Entry>> {
    avro::read(bytes)?.into_iter().map(entry_of).collect()
}

fn entry_of(mut record: Record) -> Result<Entry> {
    let status = match record.integer("status")? {
        0 => Status::Existing,
        1 => Status::Added,
        _ => Status::Deleted,
    };
    let (snapshot_id, sequence_number) = (record.integer("snapshot_id")?, record.integer("sequence_number")?);
    let mut file = record.record("data_file").ok_or_else(|| avro::missing("data_file"))?;
    let counts = |records: Vec<Record>| {
        let pair = |mut record: Record| Some((id(&mut record)?, record.optional_integer("value")?));
        records.into_iter().filter_map(pair).collect()
    };
    let bounds = |records: Vec<Record>| {
        let pair = |mut record: Record| Some((id(&mut record)?, record.bytes("value")?));
        records.into_iter().filter_map(pair).collect()
    };
    let vector = match file.optional_text("referenced_data_file") {
        Some(data_file) => Some(VectorReference {
            data_file,
            offset: file.integer("content_offset")?,
            length: file.integer("content_size_in_bytes")?,
        }),
        None => None,
    };
    Ok(Entry {
        status,
        snapshot_id,
        sequence_number,
        path: file.text("file_path")?,
        partition: file.record("partition").and_then(PartitionSpec::value_of),
        rows: file.integer("record_count")?,
        size: file.integer("file_size_in_bytes")?,
        value_counts: counts(file.records("value_counts")),
        null_counts: counts(file.records("null_value_counts")),
        lower: bounds(file.records("lower_bounds")),
        upper: bounds(file.records("upper_bounds")),
        first_row_id: file.optional_integer("first_row_id"),
        vector,
    })
}

fn id(record: &mut Record) -> Option<i32> {
    i32::try_from(record.optional_integer("key")?).ok()
}
