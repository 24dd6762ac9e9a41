//! Keys of changes on their way to a probe: gathered within a share of the memory, and looked for when it is used up.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};

use crate::engine::Engine;
use crate::error::Result;
use crate::sink::delta::merge::key_probe::Probe;
use crate::sink::delta::merge::key_set::KeyCollector;

/// The keys that were not looked for yet.
#[derive(Debug)]
pub(in crate::sink::delta) struct KeySearch {
    keys: KeyCollector,
    memory: MemoryReservation,
    /// Bytes that may be held.
    share: usize,
}

impl KeySearch {
    /// For key columns of these types.
    pub(in crate::sink::delta) fn new(types: &[DataType], engine: &Engine) -> Result<Self> {
        let memory = MemoryConsumer::new("Keys").register(engine.memory_pool());
        Ok(Self { keys: KeyCollector::new(types)?, memory, share: engine.memory_limit() / 8 })
    }

    /// Adds the keys of a batch. Gives how many deleted ones were found, if it came to looking.
    pub(in crate::sink::delta) async fn push(
        &mut self,
        probe: &mut Probe,
        columns: &[ArrayRef],
        deletes: &BooleanArray,
    ) -> Result<u64> {
        self.keys.push(columns, deletes)?;
        if self.memory.try_resize(self.keys.memory_size()).is_ok() && self.keys.memory_size() <= self.share {
            return Ok(0);
        }
        // Too many for the memory: look for these now, and forget them.
        let deleted = probe.round(self.keys.take()).await?;
        self.memory.free();
        Ok(deleted)
    }

    /// Looks for those that are left. Gives how many deleted ones were found.
    pub(in crate::sink::delta) async fn finish(mut self, probe: &mut Probe) -> Result<u64> {
        if self.keys.is_empty() {
            return Ok(0);
        }
        probe.round(self.keys.take()).await
    }
}
