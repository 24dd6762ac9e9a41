//! The latest change per key: newest `_ts` wins, then the greatest `_seq`; a delete is a change like another.

use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::compute::{filter_record_batch, not};
use datafusion::catalog::TableProvider;
use datafusion::common::Column;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt};
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{DataFrame, lit};
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringTreemap;

use super::batches::{pull_together, rebatch, share_out, stream_from_task};
use super::parked::Parking;
use super::repeats::KeyHashes;
use super::session::engine_error;
use super::source::table_of_streams;
use super::{ChangeSet, Engine};
use crate::error::{Error, Kind, Result};
use crate::schema::{ACTION, SEQ, TS};

/// Name of the helper column; it does not leave this module.
const RANK: &str = "_rank";

/// Plans the reduction of `source` (schema of [`crate::schema::change_schema`]) by `keys` within the engine's memory limit.
/// Nothing runs until the stream is pulled; its first poll takes the source to its end.
///
/// Few keys of a result occur twice. So the rows are set down as they come, in memory or on disk, while hashes of their keys tell
/// which may not be alone (`repeats.rs`); only those are sorted, by a plan that spills. All others go out as they came, before
/// them, shared out to as many streams as the engine has partitions. Errors of a stream carry one of ours: kind `Resources` when
/// the limit is too low even so, and then some rows may already have gone out.
pub async fn latest_per_key(engine: &Engine, source: Arc<dyn TableProvider>, keys: &[String]) -> Result<ChangeSet> {
    let schema = source.schema();
    for name in [ACTION, TS, SEQ].into_iter().chain(keys.iter().map(String::as_str)) {
        if schema.index_of(name).is_err() {
            return Err(Error::new(Kind::Bug, "Changes without a needed column").with_field("column", name));
        }
    }
    if keys.is_empty() {
        return Err(Error::new(Kind::Bug, "Changes without a key"));
    }
    let partitions = engine.partitions();
    let start = start(engine.clone(), source, keys.to_vec());
    // The engine outlives the stream, and with it the spill folder.
    let engine = engine.clone();
    let stream = futures::stream::once(start).try_flatten().map_err(move |error| {
        let _alive = &engine;
        DataFusionError::External(Box::new(engine_error(error)))
    });
    let stream: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), stream));
    Ok(ChangeSet { schema, keys: keys.to_vec(), streams: share_out(stream, partitions), reduced: true })
}

/// Takes the source to its end, and gives the rows back without those that a later change replaces.
async fn start(engine: Engine, source: Arc<dyn TableProvider>, keys: Vec<String>) -> PlanResult<SendableRecordBatchStream> {
    let schema = source.schema();
    let streams = engine.session().read_table(source)?.execute_stream_partitioned().await?;
    let mut input = pull_together(Arc::clone(&schema), streams, engine.partitions());
    let mut hashes = KeyHashes::new(&engine);
    let mut parking = Parking::new(&engine, Arc::clone(&schema));
    let columns: Vec<usize> = keys.iter().map(|key| schema.index_of(key)).collect::<std::result::Result<_, _>>()?;
    while let Some(batch) = input.next().await.transpose()? {
        hashes.push(batch.project(&columns)?.columns(), batch.num_rows())?;
        parking.put(batch)?;
    }
    let repeated = hashes.finish().await?;
    let parked = parking.finish()?;
    if repeated.is_empty() {
        return Ok(parked);
    }
    Ok(without_replaced(engine, parked, repeated, keys))
}

/// The rows that are not named in `repeated`, then the latest per key of those that are.
fn without_replaced(
    engine: Engine,
    parked: SendableRecordBatchStream,
    repeated: RoaringTreemap,
    keys: Vec<String>,
) -> SendableRecordBatchStream {
    let schema = parked.schema();
    stream_from_task(schema, 1, move |sender| async move {
        let mut parked = parked;
        let mut again = Parking::new(&engine, Arc::clone(&parked.schema()));
        let mut start = 0;
        while let Some(batch) = parked.next().await.transpose()? {
            let end = start + batch.num_rows() as u64;
            let (alone, others) = split(batch, start, end, &repeated)?;
            start = end;
            if let Some(others) = others {
                again.put(others)?;
            }
            if let Some(alone) = alone {
                sender.send(alone).await?;
            }
        }
        drop(parked);
        let mut latest = sorted(&engine, again.finish()?, &keys).await?;
        while let Some(batch) = latest.next().await {
            sender.send(batch?).await?;
        }
        Ok(())
    })
}

/// The rows numbered `start..end` without and with a number in `repeated`.
fn split(
    batch: RecordBatch,
    start: u64,
    end: u64,
    repeated: &RoaringTreemap,
) -> PlanResult<(Option<RecordBatch>, Option<RecordBatch>)> {
    let count = repeated.range_cardinality(start..end);
    if count == 0 {
        return Ok((Some(batch), None));
    }
    if count == end - start {
        return Ok((None, Some(batch)));
    }
    let named: BooleanArray = (start..end).map(|row| Some(repeated.contains(row))).collect();
    Ok((Some(filter_record_batch(&batch, &not(&named)?)?), Some(filter_record_batch(&batch, &named)?)))
}

/// The latest change per key by a sort of whole rows, planned with batches of a size that fits the memory limit.
async fn sorted(engine: &Engine, input: SendableRecordBatchStream, keys: &[String]) -> PlanResult<SendableRecordBatchStream> {
    let schema = input.schema();
    let mut input = rebatch(input, engine.batch_bytes(), engine.batch_rows(1));
    let Some(first) = input.next().await.transpose()? else {
        return Ok(input);
    };
    let row_bytes = first.get_array_memory_size().div_ceil(first.num_rows().max(1));
    let rest = rebatch(input, engine.batch_bytes(), engine.batch_rows(row_bytes));
    let all = futures::stream::once(std::future::ready(Ok(first))).chain(rest);
    let all: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), all));

    let session = engine.sort_session(row_bytes);
    let table = table_of_streams(Arc::clone(&schema), vec![all]).map_err(|error| DataFusionError::External(Box::new(error)))?;
    let plan = latest_plan(session.read_table(table)?, keys)?.create_physical_plan().await?;
    let output = execute_stream(plan, session.task_ctx())?;
    // Filter and projection may have changed the schema's metadata, never its columns.
    let renamed = Arc::clone(&schema);
    let output = output.map(move |batch| Ok(batch?.with_schema(Arc::clone(&renamed))?));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, output)))
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
