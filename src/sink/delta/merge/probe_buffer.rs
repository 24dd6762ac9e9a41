//! Buffers the keys of changes for a merge probe, which runs whenever the buffer is full.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};

use crate::engine::Engine;
use crate::error::Result;
use crate::sink::delta::merge::key_probe::MergeProbe;
use crate::sink::delta::merge::key_set::KeyCollector;

/// Receives the keys of an increment while its rows are written.
#[async_trait]
pub(crate) trait KeySink: Send {
    /// Adds the key columns of a batch; `deletes` indicates which of its keys are deleted.
    async fn push(&mut self, columns: &[ArrayRef], deletes: &BooleanArray) -> Result<()>;
}

/// A merge probe with a buffer for its keys.
#[derive(Debug)]
pub(crate) struct BufferedProbe {
    probe: MergeProbe,
    buffer: ProbeBuffer,
    deleted: u64,
}

impl BufferedProbe {
    /// For key columns of these types.
    pub(crate) fn new(probe: MergeProbe, types: &[DataType], engine: &Engine) -> Result<Self> {
        Ok(Self { probe, buffer: ProbeBuffer::new(types, engine)?, deleted: 0 })
    }

    /// Looks up the remaining keys. Returns the probe and the number of deleted keys that were found.
    pub(crate) async fn finish(self) -> Result<(MergeProbe, u64)> {
        let Self { mut probe, buffer, deleted } = self;
        let last = buffer.finish(&mut probe).await?;
        Ok((probe, deleted + last))
    }
}

#[async_trait]
impl KeySink for BufferedProbe {
    async fn push(&mut self, columns: &[ArrayRef], deletes: &BooleanArray) -> Result<()> {
        if self.probe.has_files() {
            self.deleted += self.buffer.push(&mut self.probe, columns, deletes).await?;
        }
        Ok(())
    }
}

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

    /// Adds the keys of a batch; `deletes` indicates which of them are deleted. Runs the probe if the buffer is full. Returns the number
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
