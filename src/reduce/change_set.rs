//! Change sets: what a load receives.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;

use crate::error::{Error, Kind, Result};
use crate::schema::ACTION;

/// Streams of change batches (schema of [`crate::schema::change_schema`]), to be read once.
///
/// If `reduced`, every key occurs at most once over all streams. Otherwise the source promises unique keys (a snapshot), and the load checks
/// the promise while it writes.
pub struct ChangeSet {
    /// Schema of the streams.
    pub schema: SchemaRef,
    /// Names of the key columns.
    pub keys: Vec<String>,
    /// Independent streams; they may be read one after another or concurrently.
    pub streams: Vec<SendableRecordBatchStream>,
    /// Whether the set was reduced to the latest change per key.
    pub reduced: bool,
}

impl std::fmt::Debug for ChangeSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangeSet")
            .field("keys", &self.keys)
            .field("streams", &self.streams.len())
            .field("reduced", &self.reduced)
            .finish()
    }
}

impl ChangeSet {
    /// A set that was not deduplicated.
    pub fn unreduced(schema: SchemaRef, keys: &[String], streams: Vec<SendableRecordBatchStream>) -> Self {
        Self { schema, keys: keys.to_vec(), streams, reduced: false }
    }
}

/// Which rows of a change batch are deletes.
///
/// # Errors
/// Kind `Bug` if a row is neither an upsert nor a delete.
pub fn deletes(batch: &RecordBatch) -> Result<BooleanArray> {
    let actions = batch.column_by_name(ACTION).and_then(|actions| actions.as_string_opt::<i32>());
    let actions =
        actions.ok_or_else(|| Error::new(Kind::Bug, "A change set lacks a required column").with_field("column", ACTION))?;
    let mut deletes = Vec::with_capacity(actions.len());
    for action in actions {
        match action {
            Some("U") => deletes.push(false),
            Some("D") => deletes.push(true),
            _ => return Err(Error::new(Kind::Bug, "A change is neither an upsert nor a delete")),
        }
    }
    Ok(BooleanArray::from(deletes))
}
