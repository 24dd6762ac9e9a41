//! The latest change per key: the newest `_ts` wins, then the greatest `_seq`. A delete is a change like any other.

use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::compute::{filter_record_batch, not};
use datafusion::common::Column;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{DataFrame, lit};
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringTreemap;

use super::change_set::ChangeSet;
use super::duplicate_keys::DuplicateKeys;
use crate::engine::{Engine, SpillBuffer, combine_streams, engine_error, share_batches, sorted_plan, stream_from_task};
use crate::error::Result;
use crate::schema::{SEQ, TS};

/// Name of the helper column; it does not leave this module.
const RANK: &str = "_rank";

/// Reduces `changes` to the latest change of each key, within the memory limit. Nothing is read before the first poll of a stream, which
/// reads the input to its end.
///
/// Few keys of a result occur twice. Batches are therefore buffered (and spilled) in their order while hashes of their keys find the rows
/// whose key may occur again; only those rows are sorted. All other rows are emitted first, in their order, spread over as many streams as
/// the engine has partitions.
///
/// # Errors
/// Kind `Bug` if `changes` lack a key or a system column. The streams fail with kind `Resources` if the memory limit is too low even with
/// spilling; some rows may have been emitted by then.
pub fn latest_per_key(engine: &Engine, changes: ChangeSet) -> Result<ChangeSet> {
    changes.require_columns()?;
    let ChangeSet { schema, keys, streams, .. } = changes;
    let partitions = engine.partitions();
    let input = combine_streams(Arc::clone(&schema), streams, partitions);
    let reducing = reduce(engine.clone(), input, keys.clone());
    // Keeps the spill folder until the stream ends.
    let engine = engine.clone();
    let stream = futures::stream::once(reducing).try_flatten().map_err(move |error| {
        let _alive = &engine;
        DataFusionError::from(engine_error(error))
    });
    let stream: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), stream));
    Ok(ChangeSet { schema, keys, streams: share_batches(stream, partitions), reduced: true })
}

/// Reads the input to its end and returns its rows without those that a later change replaces.
async fn reduce(
    engine: Engine,
    mut input: SendableRecordBatchStream,
    keys: Vec<String>,
) -> PlanResult<SendableRecordBatchStream> {
    let schema = input.schema();
    let mut duplicates = DuplicateKeys::new(&engine);
    let mut buffer = SpillBuffer::new(&engine, Arc::clone(&schema));
    let columns: Vec<usize> = keys.iter().map(|key| schema.index_of(key)).collect::<std::result::Result<_, _>>()?;
    while let Some(batch) = input.next().await.transpose()? {
        duplicates.push(batch.project(&columns)?.columns(), batch.num_rows())?;
        buffer.push(batch)?;
    }
    let duplicates = duplicates.finish().await?;
    let rows = buffer.finish()?;
    if duplicates.is_empty() {
        return Ok(rows);
    }
    Ok(without_replaced(engine, rows, duplicates, keys))
}

/// The rows whose numbers are not in `duplicates`, then the latest per key of the others.
fn without_replaced(
    engine: Engine,
    mut rows: SendableRecordBatchStream,
    duplicates: RoaringTreemap,
    keys: Vec<String>,
) -> SendableRecordBatchStream {
    let schema = rows.schema();
    stream_from_task(Arc::clone(&schema), 1, move |sender| async move {
        let mut to_sort = SpillBuffer::new(&engine, schema);
        let mut start = 0;
        while let Some(batch) = rows.next().await.transpose()? {
            let end = start + batch.num_rows() as u64;
            let (unique, others) = split(batch, start, end, &duplicates)?;
            start = end;
            if let Some(others) = others {
                to_sort.push(others)?;
            }
            if let Some(unique) = unique {
                sender.send(unique).await?;
            }
        }
        drop(rows);
        let mut latest = sorted_plan(&engine, to_sort.finish()?, |rows| latest_plan(rows, &keys)).await?;
        while let Some(batch) = latest.next().await {
            sender.send(batch?).await?;
        }
        Ok(())
    })
}

/// The rows numbered `start..end`, first those without, then those with a number in `duplicates`.
fn split(
    batch: RecordBatch,
    start: u64,
    end: u64,
    duplicates: &RoaringTreemap,
) -> PlanResult<(Option<RecordBatch>, Option<RecordBatch>)> {
    let count = duplicates.range_cardinality(start..end);
    if count == 0 {
        return Ok((Some(batch), None));
    }
    if count == end - start {
        return Ok((None, Some(batch)));
    }
    let is_duplicate: BooleanArray = (start..end).map(|row| Some(duplicates.contains(row))).collect();
    Ok((Some(filter_record_batch(&batch, &not(&is_duplicate)?)?), Some(filter_record_batch(&batch, &is_duplicate)?)))
}

/// `row_number() over (partition by <keys> order by _ts desc, _seq desc) = 1`.
fn latest_plan(changes: DataFrame, keys: &[String]) -> PlanResult<DataFrame> {
    let column = |name: &str| Expr::Column(Column::new_unqualified(name));
    let columns: Vec<Expr> = changes.schema().fields().iter().map(|field| column(field.name())).collect();
    let rank = row_number()
        .partition_by(keys.iter().map(|key| column(key)).collect())
        .order_by(vec![column(TS).sort(false, false), column(SEQ).sort(false, false)])
        .build()?
        .alias(RANK);
    changes.window(vec![rank])?.filter(column(RANK).eq(lit(1_u64)))?.select(columns)
}
