//! Rows that a table does not have yet: one row per digest, without the digests that are known.
//!
//! As in `latest.rs`, hashes find the rows that may have duplicates; only those are sorted and compared, by a plan that spills.

use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, JoinType};
use datafusion::error::Result as PlanResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::lit;
use futures::{StreamExt, TryStreamExt};
use roaring::RoaringTreemap;

use super::duplicate_keys::DuplicateKeys;
use crate::engine::{Engine, SpillBuffer, engine_error, streaming_table};
use crate::error::Result;

/// The columns of a digest. They come first in each row.
pub const DIGEST: [&str; 2] = ["_digest0", "_digest1"];
/// Names of the helper columns; they do not leave this module.
const RANK: &str = "_rank";
const KNOWN: [&str; 2] = ["_known0", "_known1"];

/// The fields of [`DIGEST`].
pub fn digest_fields() -> [Field; 2] {
    DIGEST.map(|name| Field::new(name, DataType::Int64, false))
}

/// The rows of `input`, one per digest, without those whose digest is in `known`. Both begin with the columns [`DIGEST`], and `known` has no
/// others; it is opened after the input has ended.
///
/// # Errors
/// Kind `Resources` if the memory limit is too low even with spilling.
pub async fn unseen(
    engine: &Engine,
    input: SendableRecordBatchStream,
    known: impl FnOnce() -> SendableRecordBatchStream,
) -> Result<SendableRecordBatchStream> {
    find(engine, input, known).await.map_err(engine_error)
}

async fn find(
    engine: &Engine,
    mut input: SendableRecordBatchStream,
    known: impl FnOnce() -> SendableRecordBatchStream,
) -> PlanResult<SendableRecordBatchStream> {
    let schema = input.schema();
    let mut duplicates = DuplicateKeys::new(engine);
    let mut buffer = SpillBuffer::new(engine, Arc::clone(&schema));
    let mut rows = 0;
    while let Some(batch) = input.next().await.transpose()? {
        duplicates.push(&batch.columns()[..DIGEST.len()], batch.num_rows())?;
        rows += batch.num_rows() as u64;
        buffer.push(batch)?;
    }
    drop(input);
    let mut known = known();
    let mut known_rows = SpillBuffer::new(engine, known.schema());
    while let Some(batch) = known.next().await.transpose()? {
        duplicates.push(batch.columns(), batch.num_rows())?;
        known_rows.push(batch)?;
    }
    let known_schema = known.schema();
    drop(known);
    let duplicates = duplicates.finish().await?;
    let buffered = buffer.finish()?;
    if duplicates.is_empty() {
        return Ok(buffered);
    }

    let mut unique = SpillBuffer::new(engine, Arc::clone(&schema));
    let mut candidates = SpillBuffer::new(engine, Arc::clone(&schema));
    partition(buffered, 0, &duplicates, |batch| candidates.push(batch), |batch| unique.push(batch)).await?;
    let mut known_candidates = SpillBuffer::new(engine, Arc::clone(&known_schema));
    partition(known_rows.finish()?, rows, &duplicates, |batch| known_candidates.push(batch), |_| Ok(())).await?;

    let base = engine.session();
    // One partition, as for every sort: see `Engine::sort_session`.
    let config = base.copied_config().with_target_partitions(1).with_batch_size(engine.batch_rows(1024));
    let session = datafusion::prelude::SessionContext::new_with_config_rt(config, base.runtime_env());
    let table = |schema, stream| streaming_table(schema, vec![stream]).map_err(datafusion::error::DataFusionError::from);
    let column = |name: &str| Expr::Column(Column::new_unqualified(name));
    let candidates = session.read_table(table(Arc::clone(&schema), candidates.finish()?)?)?;
    let known_candidates = session.read_table(table(known_schema, known_candidates.finish()?)?)?;
    let renamed: Vec<Expr> = DIGEST.iter().zip(KNOWN).map(|(from, to)| column(from).alias(to)).collect();
    let columns: Vec<Expr> = schema.fields().iter().map(|field| column(field.name())).collect();
    let rank = row_number()
        .partition_by(DIGEST.map(column).to_vec())
        .order_by(vec![column(DIGEST[0]).sort(true, true)])
        .build()?
        .alias(RANK);
    let first = candidates.window(vec![rank])?.filter(column(RANK).eq(lit(1_u64)))?.select(columns)?;
    let fresh = first.join(known_candidates.select(renamed)?, JoinType::LeftAnti, &DIGEST, &KNOWN, None)?;
    let fresh = fresh.execute_stream().await?;
    let out = Arc::clone(&schema);
    let fresh = fresh.map(move |batch| Ok(batch?.with_schema(Arc::clone(&out))?));
    // Keeps the spill folder until the stream ends.
    let engine = engine.clone();
    let all = unique.finish()?.chain(fresh).map_err(move |error| {
        let _alive = &engine;
        error
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, all)))
}

/// Passes each row, numbered from `start`, to `yes` if its number is in `selected`, else to `no`.
async fn partition(
    mut rows: SendableRecordBatchStream,
    mut start: u64,
    selected: &RoaringTreemap,
    mut yes: impl FnMut(RecordBatch) -> PlanResult<()>,
    mut no: impl FnMut(RecordBatch) -> PlanResult<()>,
) -> PlanResult<()> {
    while let Some(batch) = rows.next().await.transpose()? {
        let end = start + batch.num_rows() as u64;
        match selected.range_cardinality(start..end) {
            0 => no(batch)?,
            count if count == end - start => yes(batch)?,
            _ => {
                let is_selected: BooleanArray = (start..end).map(|row| Some(selected.contains(row))).collect();
                yes(filter_record_batch(&batch, &is_selected)?)?;
                no(filter_record_batch(&batch, &datafusion::arrow::compute::not(&is_selected)?)?)?;
            }
        }
        start = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{AsArray, Int64Array};
    use datafusion::arrow::datatypes::{Int64Type, Schema};
    use proptest::prelude::*;

    use super::*;
    use crate::engine::{EngineOptions, batch_stream};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_new_row_is_returned_once(
            rows in prop::collection::vec(0_i64..60, 0..200),
            known in prop::collection::vec(0_i64..90, 0..60),
            size in 1_usize..50,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let options = EngineOptions { memory_limit: 4 << 20, temp_dir: Some(folder.path().to_owned()), partitions: 1 };
            let engine = Engine::new(options).unwrap();
            let [first, second] = digest_fields();
            let known_schema = Arc::new(Schema::new(vec![first.clone(), second.clone()]));
            let schema = Arc::new(Schema::new(vec![first, second, Field::new("value", DataType::Int64, false)]));
            let array = |rows: &[i64], times: i64| -> Arc<Int64Array> {
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row * times)))
            };
            let batches = rows.chunks(size).map(|rows| {
                RecordBatch::try_new(schema.clone(), vec![array(rows, 1), array(rows, -7), array(rows, 100)]).unwrap()
            });
            let input = batch_stream(schema.clone(), batches.collect());
            let old = known.chunks(size).map(|rows| {
                RecordBatch::try_new(known_schema.clone(), vec![array(rows, 1), array(rows, -7)]).unwrap()
            });
            let old = batch_stream(known_schema.clone(), old.collect());
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
            let found: Vec<RecordBatch> = runtime.block_on(async {
                unseen(&engine, input, || old).await.unwrap().try_collect().await.unwrap()
            });
            let mut found: Vec<i64> =
                found.iter().flat_map(|batch| batch.column(2).as_primitive::<Int64Type>().values().to_vec()).collect();
            found.sort_unstable();
            let mut expected: Vec<i64> = rows.iter().filter(|row| !known.contains(row)).map(|row| row * 100).collect();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(found, expected);
        }
    }
}
