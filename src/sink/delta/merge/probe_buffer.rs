//! Buffers the keys of changes for a merge probe, which runs whenever the buffer is full.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};

use crate::engine::Engine;
use crate::error::Result;
use crate::sink::delta::merge::key_probe::MergeProbe;
use crate::sink::delta::merge::key_set::KeyCollector;

/// Keys that have not been looked up yet.
#[derive(Debug)]
pub(crate) struct ProbeBuffer {
    keys: KeyCollector,
    memory: MemoryReservation,
    max_bytes: usize,
}

impl ProbeBuffer {
    /// For key columns of these types.
    pub(crate) fn new(types: &[DataType], engine: &Engine) -> Result<Self> {
        let memory = MemoryConsumer::new("Keys").register(engine.memory_pool());
        Ok(Self { keys: KeyCollector::new(types)?, memory, max_bytes: engine.memory_limit() / 8 })
    }

    /// Adds the keys of a batch; `deletes` says which of them are deleted. Runs the probe if the buffer is full. Returns the number
    /// of deleted keys that the probe found.
    pub(crate) async fn push(&mut self, probe: &mut MergeProbe, columns: &[ArrayRef], deletes: &BooleanArray) -> Result<u64> {
        self.keys.push(columns, deletes)?;
        let bytes = self.keys.memory_size();
        if self.memory.try_resize(bytes).is_ok() && bytes <= self.max_bytes {
            return Ok(0);
        }
        let deleted = probe.probe(self.keys.take()).await?;
        self.memory.free();
        Ok(deleted)
    }

    /// Looks up the remaining keys. Returns the number of deleted keys that were found.
    pub(crate) async fn finish(mut self, probe: &mut MergeProbe) -> Result<u64> {
        if self.keys.is_empty() {
            return Ok(0);
        }
        probe.probe(self.keys.take()).await
    }
}
