//! Change sets: what a load receives.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

use crate::engine::engine_error;
use crate::error::{Error, Kind, Result};
use crate::schema::{ACTION, SEQ, TS};

/// The changes of one load: streams of Arrow record batches, to be read once.
///
/// Each row is a change. The columns of a batch are, in this order:
///
/// | column | type | content |
/// | --- | --- | --- |
/// | `_action` | Utf8, not null | `U` (upsert) or `D` (delete), see [`deletes`] |
/// | `_ts` | timestamp in microseconds, UTC | commit time of the change at the service |
/// | `_seq` | UInt64, not null | position in the result; decides between changes of a key with the same `_ts` |
/// | key columns | by the schema of the table, not null | |
/// | value columns | by the schema of the table | null for deletes |
///
/// If `reduced`, every key occurs at most once over all streams. Otherwise the source promises unique keys (a snapshot), and the load checks
/// the promise while it writes.
pub struct ChangeSet {
    /// Schema of the streams.
    pub schema: SchemaRef,
    /// Names of the key columns.
    pub keys: Vec<String>,
    /// Independent streams; they may be read one after another or concurrently.
    #[doc(hidden)]
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
    #[doc(hidden)]
    pub fn unreduced(schema: SchemaRef, keys: &[String], streams: Vec<SendableRecordBatchStream>) -> Self {
        Self { schema, keys: keys.to_vec(), streams, reduced: false }
    }

    /// Fails with kind `Bug` without key columns, and if one of them or a system column is missing.
    pub(super) fn require_columns(&self) -> Result<()> {
        for name in [ACTION, TS, SEQ].into_iter().chain(self.keys.iter().map(String::as_str)) {
            if self.schema.index_of(name).is_err() {
                return Err(Error::new(Kind::Bug, "A change set lacks a required column").with_field("column", name));
            }
        }
        if self.keys.is_empty() {
            return Err(Error::new(Kind::Bug, "A change set has no key columns"));
        }
        Ok(())
    }

    /// The streams. They are independent: read them one after another or concurrently.
    pub fn into_streams(self) -> Vec<BoxStream<'static, Result<RecordBatch>>> {
        self.streams.into_iter().map(|stream| stream.map_err(engine_error).boxed()).collect()
    }
}

/// Which rows of a batch of changes are deletes: one value per row, none of them null.
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
