//! Sorting of streams within the memory limit.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::DataFrame;
use futures::{StreamExt, TryStreamExt};

use super::session::{Engine, engine_error};
use super::streams::rebatch;
use super::tables::streaming_table;

/// The rows of `input` in ascending order of `columns`, nulls first. The sort spills to disk and starts at the first poll.
///
/// # Errors
/// The stream fails with kind `Resources` if the memory limit is too low even with spilling.
pub fn sort_by_columns(engine: &Engine, input: SendableRecordBatchStream, columns: &[String]) -> SendableRecordBatchStream {
    let schema = input.schema();
    let columns = columns.to_vec();
    let (planned_by, alive) = (engine.clone(), engine.clone());
    let sorting = async move {
        let order = columns.iter().map(|name| Expr::Column(Column::new_unqualified(name)).sort(true, true)).collect();
        sorted_plan(&planned_by, input, |rows| rows.sort(order)).await
    };
    let stream = futures::stream::once(sorting).try_flatten().map_err(move |error| {
        // Keeps the spill folder until the stream ends.
        let _alive = &alive;
        DataFusionError::from(engine_error(error))
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, stream))
}

/// Runs a plan that sorts the rows of `input`, with batches small enough for the memory limit. `plan` must keep the columns.
pub(crate) async fn sorted_plan(
    engine: &Engine,
    input: SendableRecordBatchStream,
    plan: impl FnOnce(DataFrame) -> PlanResult<DataFrame>,
) -> PlanResult<SendableRecordBatchStream> {
    let schema = input.schema();
    let mut input = rebatch(input, engine.batch_bytes(), engine.batch_rows(1));
    let Some(first) = input.next().await.transpose()? else { return Ok(input) };
    let row_bytes = first.get_array_memory_size().div_ceil(first.num_rows().max(1));
    let rest = rebatch(input, engine.batch_bytes(), engine.batch_rows(row_bytes));
    let all = futures::stream::once(std::future::ready(Ok(first))).chain(rest);
    let all: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), all));

    let session = engine.sort_session(row_bytes);
    let table = streaming_table(Arc::clone(&schema), vec![all])?;
    let plan = plan(session.read_table(table)?)?.create_physical_plan().await?;
    let output = execute_stream(plan, session.task_ctx())?;
    // Operators may drop the metadata of the schema.
    let restored = Arc::clone(&schema);
    let output = output.map(move |batch| Ok(batch?.with_schema(Arc::clone(&restored))?));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, output)))
}
