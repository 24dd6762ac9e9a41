//! Rows that are set down until all of them have been seen: in memory within a share of the engine's limit, beyond it on disk.
//! It does not look into them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::ipc::CompressionType;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt, stream};

use super::Engine;
use super::spill::Spilling;
use crate::channel::Failure;
use crate::error::{Error, Kind};

/// More is not held in memory however much there is: fresh pages were measured to cost more than compression does.
const MOST_HELD: usize = 64 << 20;

/// Takes rows; [`Parking::finish`] gives them back in the same order.
pub struct Parking {
    schema: SchemaRef,
    held: Vec<RecordBatch>,
    reservation: MemoryReservation,
    /// Bytes that may be held.
    share: usize,
    runtime: Arc<RuntimeEnv>,
    file: Option<Spilling>,
    rows: u64,
}

impl Parking {
    /// Nothing is held yet.
    pub fn new(engine: &Engine, schema: SchemaRef) -> Self {
        Self {
            held: Vec::new(),
            reservation: MemoryConsumer::new("ParkedRows").register(engine.memory_pool()),
            share: (engine.memory_limit() / 4).min(MOST_HELD),
            runtime: Arc::clone(engine.runtime()),
            file: None,
            rows: 0,
            schema,
        }
    }

    /// Sets a batch down. Once one went to disk, all later ones do: so the order stays.
    pub fn put(&mut self, batch: RecordBatch) -> PlanResult<()> {
        self.rows += batch.num_rows() as u64;
        let bytes = batch.get_array_memory_size();
        let fits = || self.reservation.size() + bytes <= self.share && self.reservation.try_grow(bytes).is_ok();
        if self.file.is_none() && fits() {
            self.held.push(batch);
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            empty => empty.insert(Spilling::new(&self.runtime, &self.schema, Some(CompressionType::LZ4_FRAME))?),
        };
        file.put(&batch)
    }

    /// The rows, to be pulled once: all of them, or an error. Memory and disk are given up as they go out.
    pub fn finish(self) -> PlanResult<SendableRecordBatchStream> {
        let spilled = match self.file {
            Some(file) => file.finish()?.boxed(),
            None => stream::empty().boxed(),
        };
        let reservation = self.reservation;
        let held = stream::iter(self.held).map(move |batch| {
            reservation.shrink(batch.get_array_memory_size().min(reservation.size()));
            Ok(batch)
        });
        let left = Arc::new(AtomicU64::new(self.rows));
        let rest = Arc::clone(&left);
        let rows = held.chain(spilled).inspect_ok(move |batch| _ = left.fetch_sub(batch.num_rows() as u64, Ordering::Relaxed));
        // Files and the tasks that read them are the engine's; what comes back is counted all the same.
        let end = stream::once(async move {
            match rest.load(Ordering::Relaxed) {
                0 => None,
                _ => Some(Err(DataFusionError::of(Error::new(Kind::Io, "Rows in temporary files were lost")))),
            }
        });
        let all = rows.chain(end.filter_map(std::future::ready));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema, all)))
    }
}
