//! The latest change per key: newest `_ts` wins, then the greatest `_seq`; a delete is a change like another.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::Column;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt};
use datafusion::physical_expr::expressions::Column as PhysicalColumn;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, execute_stream};
use datafusion::prelude::{DataFrame, lit};
use futures::{StreamExt, TryStreamExt};

use super::batches::{pull_together, rebatch};
use super::session::engine_error;
use super::source::table_of_streams;
use super::{ChangeSet, Engine};
use crate::error::{Error, Kind, Result};
use crate::schema::{ACTION, SEQ, TS};

/// Name of the helper column; it does not leave this module.
const RANK: &str = "_rank";

/// Plans the reduction of `source` (schema of [`crate::schema::change_schema`]) by `keys` within the engine's memory limit.
/// Nothing runs until the streams are pulled.
///
/// The result is one stream, sorted by key. Its first poll reads a first batch to learn how wide the rows are and plans with
/// batches of a size that fits the memory limit; rows beyond the limit are sorted through the spill folder. Errors of the
/// stream carry one of ours: kind `Resources` when the limit is too low even so, and then some rows may already have gone out.
pub async fn latest_per_key(engine: &Engine, source: Arc<dyn TableProvider>, keys: &[String]) -> Result<ChangeSet> {
    let schema = source.schema();
    for name in [ACTION, TS, SEQ].into_iter().chain(keys.iter().map(String::as_str)) {
        if schema.index_of(name).is_err() {
            return Err(Error::new(Kind::Bug, "Changes without a needed column").with("column", name));
        }
    }
    if keys.is_empty() {
        return Err(Error::new(Kind::Bug, "Changes without a key"));
    }
    let start = start(engine.clone(), source, keys.to_vec());
    // The engine outlives the stream, and with it the spill folder.
    let engine = engine.clone();
    let stream = futures::stream::once(start).try_flatten().map_err(move |error| {
        let _alive = &engine;
        DataFusionError::External(Box::new(engine_error(error)))
    });
    Ok(ChangeSet {
        schema: Arc::clone(&schema),
        keys: keys.to_vec(),
        streams: vec![Box::pin(RecordBatchStreamAdapter::new(schema, stream))],
        reduced: true,
        sorted: true,
    })
}

/// Starts the source, looks at the first batch, plans and runs the reduction.
async fn start(engine: Engine, source: Arc<dyn TableProvider>, keys: Vec<String>) -> PlanResult<SendableRecordBatchStream> {
    let schema = source.schema();
    let streams = engine.session().read_table(source)?.execute_stream_partitioned().await?;
    let input = pull_together(Arc::clone(&schema), streams, engine.partitions());
    let mut input = rebatch(input, engine.batch_bytes(), engine.batch_rows(1));

    let Some(first) = input.next().await.transpose()? else {
        return Ok(input);
    };
    let row_bytes = first.get_array_memory_size().div_ceil(first.num_rows().max(1));
    let rest = rebatch_stream(input, &engine, row_bytes);
    let all = futures::stream::once(std::future::ready(Ok(first))).chain(rest);
    let all: SendableRecordBatchStream = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), all));

    let session = engine.sort_session(row_bytes);
    let table = table_of_streams(Arc::clone(&schema), vec![all]).map_err(|error| DataFusionError::External(Box::new(error)))?;
    let plan = latest_plan(session.read_table(table)?, &keys)?.create_physical_plan().await?;
    assert_sorted(plan.as_ref(), &keys)?;
    let output = execute_stream(plan, session.task_ctx())?;
    // Filter and projection may have changed the schema's metadata, never its columns.
    let renamed = Arc::clone(&schema);
    let output = output.map(move |batch| Ok(batch?.with_schema(Arc::clone(&renamed))?));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, output)))
}

fn rebatch_stream(input: SendableRecordBatchStream, engine: &Engine, row_bytes: usize) -> SendableRecordBatchStream {
    rebatch(input, engine.batch_bytes(), engine.batch_rows(row_bytes))
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

/// The result's order by key falls out of the window's sort; consumers rely on it, so a planner that stops doing so must be
/// noticed at once.
fn assert_sorted(plan: &dyn ExecutionPlan, keys: &[String]) -> PlanResult<()> {
    let sorted = plan.properties().output_ordering().is_some_and(|ordering| {
        keys.iter()
            .zip(ordering.iter())
            .filter(|(key, sort)| {
                let named = sort.expr.downcast_ref::<PhysicalColumn>().is_some_and(|column| column.name() == key.as_str());
                named && !sort.options.descending
            })
            .count()
            == keys.len()
    });
    if sorted && plan.output_partitioning().partition_count() == 1 {
        return Ok(());
    }
    Err(DataFusionError::Internal("the plan of the latest change per key does not sort by key".into()))
}
