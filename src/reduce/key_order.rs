//! The latest change per key, in the order of the keys, for targets that store their rows in that order.

use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::compute::{
    SortColumn, SortOptions, concat_batches, filter_record_batch, lexsort_to_indices, take_record_batch,
};
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::Column;
use datafusion::error::Result as PlanResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use tokio::sync::OwnedSemaphorePermit;

use super::change_set::ChangeSet;
use crate::engine::{Engine, batch_stream, combine_streams, rebatch, sorted_plan, stream_from_task};
use crate::error::Result;
use crate::schema::{SEQ, TS};

/// Bytes of a batch. The target waits for the server after each batch, and a low memory limit makes the batches of the sort small.
const BATCH_BYTES: usize = 1 << 20;
/// Rows of a batch.
const BATCH_ROWS: usize = 8192;

/// Reduces `changes` to the latest change of each key, in ascending order of the keys, in one stream. Unlike
/// [`latest_per_key`](super::latest_per_key), it sorts all rows, within the memory limit. Nothing is read before the first poll of the stream,
/// which reads the input to its end.
///
/// Sets of about 1 MiB are sorted at once. Larger ones take turns, each until its last row has been read.
///
/// # Errors
/// Kind `Bug` if `changes` lack a key or a system column. The stream fails with kind `Resources` if the memory limit is too low even with
/// spilling; some rows may have been emitted by then.
pub fn latest_in_key_order(engine: &Engine, changes: ChangeSet) -> Result<ChangeSet> {
    changes.require_columns()?;
    let ChangeSet { schema, keys, streams, .. } = changes;
    let input = combine_streams(Arc::clone(&schema), streams, engine.partitions());
    let (engine, sorted_by) = (engine.clone(), keys.clone());
    // A task, so that rows are sorted and read back while the target stores others.
    let stream = futures::stream::once(async move {
        let schema = input.schema();
        stream_from_task(schema, 1, move |sender| async move {
            let mut first = FirstPerKey::new(&input.schema(), &sorted_by)?;
            let (mut sorted, turn) = sort(&engine, input, &sorted_by).await?;
            while let Some(batch) = sorted.next().await {
                let batch = first.of(batch?)?;
                if batch.num_rows() > 0 {
                    sender.send(batch).await?;
                }
            }
            // The spill folder goes with the engine.
            drop((sorted, turn, engine));
            Ok(())
        })
    });
    let stream: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), stream.flatten()));
    let streams = vec![rebatch(stream, BATCH_BYTES, BATCH_ROWS)];
    Ok(ChangeSet { schema, keys, streams, reduced: true })
}

/// The rows in ascending order of the keys, the latest of each key first, and the turn of a large set.
async fn sort(
    engine: &Engine,
    mut input: SendableRecordBatchStream,
    keys: &[String],
) -> PlanResult<(SendableRecordBatchStream, Option<OwnedSemaphorePermit>)> {
    let schema = input.schema();
    let (mut first, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH_BYTES {
        let Some(batch) = input.next().await.transpose()? else {
            let sorted = sort_in_memory(&concat_batches(&schema, &first)?, keys)?;
            return Ok((batch_stream(schema, vec![sorted]), None));
        };
        bytes += batch.get_array_memory_size();
        first.push(batch);
    }
    let turn = engine.whole_pool().await?;
    let all = futures::stream::iter(first.into_iter().map(Ok)).chain(input);
    let all: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(schema, all));
    let column = |(name, ascending): (&str, bool)| Expr::Column(Column::new_unqualified(name)).sort(ascending, ascending);
    let order = order(keys).map(column).collect();
    Ok((sorted_plan(engine, all, |rows| rows.sort(order)).await?, Some(turn)))
}

/// Columns, and whether they are sorted in ascending order.
fn order(keys: &[String]) -> impl Iterator<Item = (&str, bool)> {
    keys.iter().map(|key| (key.as_str(), true)).chain([(TS, false), (SEQ, false)])
}

fn sort_in_memory(rows: &RecordBatch, keys: &[String]) -> PlanResult<RecordBatch> {
    let columns = order(keys).map(|(name, ascending)| {
        let options = SortOptions { descending: !ascending, nulls_first: ascending };
        Ok(SortColumn { values: Arc::clone(rows.column(rows.schema_ref().index_of(name)?)), options: Some(options) })
    });
    let indices = lexsort_to_indices(&columns.collect::<PlanResult<Vec<_>>>()?, None)?;
    Ok(take_record_batch(rows, &indices)?)
}

/// Drops rows that have the key of the row before them.
struct FirstPerKey {
    keys: Vec<usize>,
    converter: RowConverter,
    /// The key of the last row of the batch before.
    last: Option<OwnedRow>,
}

impl FirstPerKey {
    fn new(schema: &Schema, keys: &[String]) -> PlanResult<Self> {
        let keys: Vec<usize> = keys.iter().map(|key| schema.index_of(key)).collect::<std::result::Result<_, _>>()?;
        let fields = keys.iter().map(|key| SortField::new(schema.field(*key).data_type().clone())).collect();
        Ok(Self { keys, converter: RowConverter::new(fields)?, last: None })
    }

    fn of(&mut self, batch: RecordBatch) -> PlanResult<RecordBatch> {
        let rows = self.converter.convert_columns(batch.project(&self.keys)?.columns())?;
        let mut before = self.last.as_ref().map(OwnedRow::row);
        let is_first: BooleanArray = rows.iter().map(|row| Some(before.replace(row) != Some(row))).collect();
        self.last = before.map(|row| row.owned());
        Ok(if is_first.true_count() == batch.num_rows() { batch } else { filter_record_batch(&batch, &is_first)? })
    }
}
