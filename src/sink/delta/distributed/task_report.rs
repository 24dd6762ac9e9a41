//! Reports of tasks, as JSON in a column of their output.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltalake::kernel::DeletionVectorDescriptor;
use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result, ResultExt};
use crate::sink::delta::log::file_actions::NewFile;

/// Name of the column with JSON text: reports, or descriptions of files.
pub(super) const REPORT: &str = "report";

/// A file that a `Write` task wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct FileId {
    /// Random number of the attempt at the task.
    pub(super) writer: u64,
    /// Number of the file in that attempt.
    pub(super) number: u32,
}

/// A file with the keys of one part of an increment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeyFile {
    /// Path in the table's folder.
    pub(super) name: String,
    /// Size in bytes.
    pub(super) bytes: u64,
}

/// A report of a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum TaskReport {
    /// A new data file. `writer` as in [`FileId`]; 0 for tasks whose files have no row locations.
    File { writer: u64, file: NewFile },
    /// The changes of a part were written: the number of upserts, and of all changes that were read.
    Written { upserted: u64, changes: u64 },
    /// The locations of some keys were searched: one item per file.
    Deduplicated(Vec<FileLocations>),
    /// The keys of a part.
    Keys(KeyFile),
    /// An existing file is removed, or gets a new deletion vector. `number` is its position in the driver's list.
    FileChanged { number: usize, deletion_vector: Option<DeletionVectorDescriptor> },
    /// A part of the existing files was probed: the number of deleted keys that were found, and bytes of deletion vectors.
    Probed { deleted: u64, vector_file_bytes: u64 },
}

/// The row locations that a `Dedup` task received for one file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FileLocations {
    pub(super) file: FileId,
    /// Number of locations.
    pub(super) rows: u64,
    /// The rows that a newer change replaces, as a serialised bitmap in base64. `None` if there are none: each task has an item for
    /// nearly every file, so items are short.
    replaced: Option<String>,
}

impl FileLocations {
    pub(super) fn new(file: FileId, rows: u64, replaced: Option<RoaringBitmap>) -> Result<Self> {
        let encode = |rows: RoaringBitmap| {
            let mut bytes = Vec::with_capacity(rows.serialized_size());
            rows.serialize_into(&mut bytes).map(|()| STANDARD.encode(bytes)).context(Kind::Bug, "Rows cannot be encoded")
        };
        Ok(Self { file, rows, replaced: replaced.map(encode).transpose()? })
    }

    /// The positions of the rows that a newer change replaces.
    pub(super) fn replaced(&self) -> Result<RoaringBitmap> {
        let Some(text) = &self.replaced else { return Ok(RoaringBitmap::new()) };
        let invalid = "A report has invalid rows";
        let bytes = STANDARD.decode(text).context(Kind::Bug, invalid)?;
        RoaringBitmap::deserialize_from(bytes.as_slice()).context(Kind::Bug, invalid)
    }
}

impl TaskReport {
    pub(super) fn encode(&self) -> Result<String> {
        serde_json::to_string(self).context(Kind::Bug, "A task report cannot be encoded")
    }

    /// Decodes a report. Kind `Bug` if another version of daplake encoded it.
    pub(super) fn decode(text: &str) -> Result<Self> {
        serde_json::from_str(text).context(Kind::Bug, "A task report cannot be decoded")
    }
}

/// The schema of batches with JSON text only.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(REPORT, DataType::Utf8, true)]))
}

/// A batch of JSON texts.
pub(super) fn batch_of(texts: Vec<String>) -> Result<RecordBatch> {
    let column: ArrayRef = Arc::new(StringArray::from(texts));
    RecordBatch::try_new(schema(), vec![column]).context(Kind::Bug, "A task report cannot be sent")
}

/// The JSON texts of a batch.
pub(super) fn texts_of(batch: &RecordBatch) -> Result<impl Iterator<Item = &str>> {
    let column = batch.column_by_name(REPORT).and_then(|column| column.as_string_opt::<i32>());
    Ok(column.ok_or_else(|| Error::new(Kind::Bug, "A task sent no reports"))?.iter().flatten())
}
