//! Rows in the order of their keys, within the engine's memory limit.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt};

use super::Engine;
use super::batches::rebatch;
use super::session::engine_error;
use super::source::table_of_streams;

/// The same rows in ascending order of `columns`; a sort that spills. Nothing runs until the stream is pulled. Errors carry one
/// of ours: kind `Resources` when the limit is too low even so.
pub fn in_order_of(engine: &Engine, input: SendableRecordBatchStream, columns: &[String]) -> SendableRecordBatchStream {
    let schema = input.schema();
    let (engine, columns) = (engine.clone(), columns.to_vec());
    let kept = engine.clone();
    let stream =
        futures::stream::once(async move { sorted(&engine, input, &columns).await }).try_flatten().map_err(move |error| {
            // The engine outlives the stream, and with it the spill folder.
            let _alive = &kept;
            DataFusionError::External(Box::new(engine_error(error)))
        });
    Box::pin(RecordBatchStreamAdapter::new(schema, stream))
}

async fn sorted(
    engine: &Engine,
    input: SendableRecordBatchStream,
    columns: &[String],
) -> PlanResult<SendableRecordBatchStream> {
    let schema = input.schema();
    let mut input = rebatch(input, engine.batch_bytes(), engine.batch_rows(1));
    let Some(first) = input.next().await.transpose()? else { return Ok(input) };
    let row_bytes = first.get_array_memory_size().div_ceil(first.num_rows().max(1));
    let rest = rebatch(input, engine.batch_bytes(), engine.batch_rows(row_bytes));
    let all = futures::stream::once(std::future::ready(Ok(first))).chain(rest);
    let all: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), all));
    let session = engine.sort_session(row_bytes);
    let table = table_of_streams(Arc::clone(&schema), vec![all]).map_err(|error| DataFusionError::External(Box::new(error)))?;
    let order = columns.iter().map(|name| Expr::Column(Column::new_unqualified(name)).sort(true, true)).collect();
    let plan = session.read_table(table)?.sort(order)?.create_physical_plan().await?;
    let output = execute_stream(plan, session.task_ctx())?;
    let renamed = Arc::clone(&schema);
    let output = output.map(move |batch| Ok(batch?.with_schema(Arc::clone(&renamed))?));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, output)))
}
