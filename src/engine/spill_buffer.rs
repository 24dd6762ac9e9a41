//! A buffer of record batches that spills to disk beyond a share of the memory limit.

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

use super::session::Engine;
use super::spill::BatchFile;
use crate::channel::Failure;
use crate::error::{Error, Kind};

/// Upper bound of the share in memory, bytes. Measured: faulting in fresh pages costs more than compression.
const MAX_IN_MEMORY: usize = 64 << 20;

/// Takes batches; [`SpillBuffer::finish`] returns them in the same order.
pub struct SpillBuffer {
    schema: SchemaRef,
    in_memory: Vec<RecordBatch>,
    reservation: MemoryReservation,
    /// Maximum number of bytes in memory.
    share: usize,
    runtime: Arc<RuntimeEnv>,
    file: Option<BatchFile>,
    rows: u64,
}

impl SpillBuffer {
    /// An empty buffer.
    pub fn new(engine: &Engine, schema: SchemaRef) -> Self {
        Self {
            in_memory: Vec::new(),
            reservation: MemoryConsumer::new("SpillBuffer").register(engine.memory_pool()),
            share: (engine.memory_limit() / 4).min(MAX_IN_MEMORY),
            runtime: Arc::clone(engine.runtime()),
            file: None,
            rows: 0,
            schema,
        }
    }

    /// Appends a batch. Once a batch went to disk, all later ones do, which keeps the order.
    pub fn push(&mut self, batch: RecordBatch) -> PlanResult<()> {
        self.rows += batch.num_rows() as u64;
        let bytes = batch.get_array_memory_size();
        let fits = || self.reservation.size() + bytes <= self.share && self.reservation.try_grow(bytes).is_ok();
        if self.file.is_none() && fits() {
            self.in_memory.push(batch);
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            empty => empty.insert(BatchFile::new(&self.runtime, &self.schema, Some(CompressionType::LZ4_FRAME))?),
        };
        file.push(&batch)
    }

    /// All rows, or an error. Memory and disk are released while the stream is read.
    pub fn finish(self) -> PlanResult<SendableRecordBatchStream> {
        let spilled = match self.file {
            Some(file) => file.finish()?.boxed(),
            None => stream::empty().boxed(),
        };
        let reservation = self.reservation;
        let in_memory = stream::iter(self.in_memory).map(move |batch| {
            reservation.shrink(batch.get_array_memory_size().min(reservation.size()));
            Ok(batch)
        });
        let left = Arc::new(AtomicU64::new(self.rows));
        let rest = Arc::clone(&left);
        let rows =
            in_memory.chain(spilled).inspect_ok(move |batch| _ = left.fetch_sub(batch.num_rows() as u64, Ordering::Relaxed));
        // DataFusion reads the file; the count makes sure that no row is lost.
        let end = stream::once(async move {
            match rest.load(Ordering::Relaxed) {
                0 => None,
                _ => Some(Err(DataFusionError::of(Error::new(Kind::Io, "Rows of a temporary file are missing")))),
            }
        });
        let all = rows.chain(end.filter_map(std::future::ready));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema, all)))
    }
}
