//! What a target gets to load.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;

use crate::error::{Error, Kind, Result};
use crate::schema::ACTION;

/// Streams of change batches (schema of [`crate::schema::change_schema`]), to be pulled once.
///
/// With `reduced`, every key occurs at most once over all streams. Without, the source promises unique keys (a snapshot) and
/// the load must check that promise as it writes, failing with [`ChangeSet::duplicate_key`] if it is broken.
pub struct ChangeSet {
    /// Schema of all streams.
    pub schema: SchemaRef,
    /// Names of the key columns.
    pub keys: Vec<String>,
    /// Independent streams; they may be pulled one after the other or at once.
    pub streams: Vec<SendableRecordBatchStream>,
    /// The latest change per key was taken.
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
    /// The streams as they come, for a source that promises unique keys: a snapshot, one stream per object.
    pub fn unreduced(schema: SchemaRef, keys: &[String], streams: Vec<SendableRecordBatchStream>) -> Self {
        Self { schema, keys: keys.to_vec(), streams, reduced: false }
    }

    /// The error by which a load says that an unreduced set holds a key twice; the caller then reduces and loads again.
    pub fn duplicate_key() -> crate::Error {
        crate::Error::new(crate::Kind::Data, "A key occurs twice in a result that promises unique keys")
            .with_field("reason", "duplicate_key")
    }

    /// The error by which a load asks for its changes once more, because it has to take another way with them. It asks once.
    pub fn again() -> crate::Error {
        crate::Error::new(crate::Kind::Data, "The rows do not fit the new table, which has to be loaded in another way")
            .with_field("reason", "again")
    }

    /// Whether `error` is that of [`ChangeSet::again`].
    pub fn is_again(error: &crate::Error) -> bool {
        error.get("reason") == Some("again")
    }

    /// Whether `error` is that of [`ChangeSet::duplicate_key`].
    pub fn is_duplicate_key(error: &crate::Error) -> bool {
        error.get("reason") == Some("duplicate_key")
    }
}

/// Which rows of a change batch are deletes. Kind `Bug` when the batch does not say it of every row.
pub fn deletes(batch: &RecordBatch) -> Result<BooleanArray> {
    let actions = batch.column_by_name(ACTION).and_then(|actions| actions.as_string_opt::<i32>());
    let actions =
        actions.ok_or_else(|| Error::new(Kind::Bug, "Changes without a needed column").with_field("column", ACTION))?;
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
