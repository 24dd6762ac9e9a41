//! Rows that are set down until all of them have been seen: in memory within a share of the engine's limit, beyond it on disk.
//! It does not look into them.

use std::sync::Arc;

use arrow::ipc::CompressionType;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::Result as PlanResult;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};

use super::Engine;
use super::spill::Spilling;

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
            schema,
        }
    }

    /// Sets a batch down. Once one went to disk, all later ones do: so the order stays.
    pub fn put(&mut self, batch: RecordBatch) -> PlanResult<()> {
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

    /// The rows, to be pulled once. Memory and disk are given up as they go out.
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
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema, held.chain(spilled))))
    }
}
