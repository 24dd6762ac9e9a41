//! Rows that were not there before: of equal rows one stays, and none that is known already.
//!
//! What rows are equal is said by digests. As in `latest.rs`, hashes tell which rows may not be alone; only those are sorted and
//! compared, by a plan that spills.

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

use super::Engine;
use super::parked::Parking;
use super::repeats::KeyHashes;
use super::session::engine_error;
use super::source::table_of_streams;
use crate::error::Result;

/// Columns of a digest; they are the first of each row.
pub const DIGEST: [&str; 2] = ["_digest0", "_digest1"];
/// Names of the helper columns; they do not leave this module.
const RANK: &str = "_rank";
const KNOWN: [&str; 2] = ["_known0", "_known1"];

/// The fields of [`DIGEST`].
pub fn digest_fields() -> [Field; 2] {
    DIGEST.map(|name| Field::new(name, DataType::Int64, false))
}

/// The rows of `input`, one of each digest, without those whose digest is among `known`, which is asked for when the input has
/// come to its end. Both begin with the columns [`DIGEST`], and `known` has no others. Kind `Resources` when the memory limit is
/// too low.
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
    let mut hashes = KeyHashes::new(engine);
    let mut parking = Parking::new(engine, Arc::clone(&schema));
    let mut rows = 0;
    while let Some(batch) = input.next().await.transpose()? {
        hashes.push(&batch.columns()[..DIGEST.len()], batch.num_rows())?;
        rows += batch.num_rows() as u64;
        parking.put(batch)?;
    }
    drop(input);
    let mut known = known();
    let mut known_rows = Parking::new(engine, known.schema());
    while let Some(batch) = known.next().await.transpose()? {
        hashes.push(batch.columns(), batch.num_rows())?;
        known_rows.put(batch)?;
    }
    let known_schema = known.schema();
    drop(known);
    let repeated = hashes.finish().await?;
    let parked = parking.finish()?;
    if repeated.is_empty() {
        return Ok(parked);
    }

    let mut alone = Parking::new(engine, Arc::clone(&schema));
    let mut doubtful = Parking::new(engine, Arc::clone(&schema));
    part(parked, 0, &repeated, |batch| doubtful.put(batch), |batch| alone.put(batch)).await?;
    let mut known_again = Parking::new(engine, Arc::clone(&known_schema));
    part(known_rows.finish()?, rows, &repeated, |batch| known_again.put(batch), |_| Ok(())).await?;

    let base = engine.session();
    // One partition is what keeps within the limit, see `Engine`.
    let config = base.copied_config().with_target_partitions(1).with_batch_size(engine.batch_rows(1024));
    let session = datafusion::prelude::SessionContext::new_with_config_rt(config, base.runtime_env());
    let external = |error: crate::Error| datafusion::error::DataFusionError::External(Box::new(error));
    let table = |schema, stream| table_of_streams(schema, vec![stream]).map_err(external);
    let column = |name: &str| Expr::Column(Column::new_unqualified(name));
    let doubtful = session.read_table(table(Arc::clone(&schema), doubtful.finish()?)?)?;
    let known_again = session.read_table(table(known_schema, known_again.finish()?)?)?;
    let named: Vec<Expr> = DIGEST.iter().zip(KNOWN).map(|(from, to)| column(from).alias(to)).collect();
    let columns: Vec<Expr> = schema.fields().iter().map(|field| column(field.name())).collect();
    let rank = row_number()
        .partition_by(DIGEST.map(column).to_vec())
        .order_by(vec![column(DIGEST[0]).sort(true, true)])
        .build()?
        .alias(RANK);
    let first = doubtful.window(vec![rank])?.filter(column(RANK).eq(lit(1_u64)))?.select(columns)?;
    let fresh = first.join(known_again.select(named)?, JoinType::LeftAnti, &DIGEST, &KNOWN, None)?;
    let fresh = fresh.execute_stream().await?;
    let out = Arc::clone(&schema);
    let fresh = fresh.map(move |batch| Ok(batch?.with_schema(Arc::clone(&out))?));
    // The engine outlives the stream, and with it the spill folder.
    let engine = engine.clone();
    let all = alone.finish()?.chain(fresh).map_err(move |error| {
        let _alive = &engine;
        error
    });
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, all)))
}

/// Gives each row, numbered from `start`, to one of two: whether its number is in `named` decides.
async fn part(
    mut rows: SendableRecordBatchStream,
    mut start: u64,
    named: &RoaringTreemap,
    mut yes: impl FnMut(RecordBatch) -> PlanResult<()>,
    mut no: impl FnMut(RecordBatch) -> PlanResult<()>,
) -> PlanResult<()> {
    while let Some(batch) = rows.next().await.transpose()? {
        let end = start + batch.num_rows() as u64;
        match named.range_cardinality(start..end) {
            0 => no(batch)?,
            count if count == end - start => yes(batch)?,
            _ => {
                let is_named: BooleanArray = (start..end).map(|row| Some(named.contains(row))).collect();
                yes(filter_record_batch(&batch, &is_named)?)?;
                no(filter_record_batch(&batch, &datafusion::arrow::compute::not(&is_named)?)?)?;
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
    use crate::stage::{EngineOptions, batch_stream};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_row_comes_once_and_known_ones_never(
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
