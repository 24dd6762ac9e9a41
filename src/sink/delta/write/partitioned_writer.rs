//! Writes the rows of a table: one Parquet writer per partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;

use crate::error::{Kind, Result, ResultExt};
use crate::sink::delta::log::file_actions::NewFile;
use crate::sink::delta::write::parquet_writer::{BatchLocation, FileFormat, FileWriter};
use crate::sink::delta::write::partitioning::PartitionNumber;
use crate::sink::delta::write::uncommitted_files::FileRegistry;
use crate::worker_thread::WorkerThread;

/// Partitions that one writer has open at the same time: more would need more memory, fewer would make more files.
const MAX_OPEN_PARTITIONS: usize = 16;

/// Writes rows of the file schema. The rows of each partition go to files of their own.
///
/// If more partitions are written to than may be open, the least recently used file is closed.
#[derive(Debug)]
pub(crate) struct TableWriter {
    format: Arc<FileFormat>,
    registry: FileRegistry,
    /// The thread that encodes all partitions; started with the first rows.
    encoder: Option<Arc<WorkerThread>>,
    open: BTreeMap<PartitionNumber, OpenPartition>,
    finished: Vec<NewFile>,
    batches: u64,
}

#[derive(Debug)]
struct OpenPartition {
    writer: FileWriter,
    /// Number of the last batch that was written to it.
    last_used: u64,
}

impl TableWriter {
    /// A writer without files; files are added to `registry` before they are created.
    pub(crate) fn new(format: Arc<FileFormat>, registry: FileRegistry) -> Self {
        Self { format, registry, encoder: None, open: BTreeMap::new(), finished: Vec::new(), batches: 0 }
    }

    /// Writes rows. Returns where they were written, one item per partition.
    pub(crate) async fn write(&mut self, batch: RecordBatch) -> Result<Vec<BatchLocation>> {
        if batch.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let Some(partitioning) = &self.format.partitioning else { return self.write_partition(None, batch).await };
        let mut rows: BTreeMap<PartitionNumber, Vec<u32>> = BTreeMap::new();
        for (row, number) in partitioning.numbers(batch.column(partitioning.source()))?.into_iter().enumerate() {
            rows.entry(number).or_default().push(row as u32);
        }
        if rows.len() == 1 {
            return self.write_partition(rows.into_keys().next().flatten(), batch).await;
        }
        let mut locations = Vec::with_capacity(rows.len());
        for (number, rows) in rows {
            let rows = UInt32Array::from(rows);
            let part = take_record_batch(&batch, &rows).context(Kind::Bug, "Rows cannot be split by partition")?;
            let (file, first) = self.append(number, part).await?;
            locations.push(BatchLocation { file, first, rows: Some(rows) });
        }
        Ok(locations)
    }

    /// Writes rows that all belong to the partition `number`, as [`Self::write`] does.
    pub(crate) async fn write_partition(&mut self, number: PartitionNumber, batch: RecordBatch) -> Result<Vec<BatchLocation>> {
        if batch.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let (file, first) = self.append(number, batch).await?;
        Ok(vec![BatchLocation { file, first, rows: None }])
    }

    async fn append(&mut self, number: PartitionNumber, batch: RecordBatch) -> Result<(u32, u32)> {
        self.batches += 1;
        if !self.open.contains_key(&number) && self.open.len() >= MAX_OPEN_PARTITIONS {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.last_used).map(|(number, _)| *number);
            if let Some(oldest) = oldest {
                self.close_partition(oldest).await?;
            }
        }
        let encoder = match &self.encoder {
            Some(encoder) => Arc::clone(encoder),
            None => Arc::clone(self.encoder.insert(Arc::new(WorkerThread::start("encode")?))),
        };
        let (format, registry) = (&self.format, &self.registry);
        let open = self.open.entry(number).or_insert_with(|| {
            let value = format.partitioning.as_ref().map(|partitioning| partitioning.value(number));
            OpenPartition { writer: FileWriter::new(Arc::clone(format), registry.clone(), encoder, value), last_used: 0 }
        });
        open.last_used = self.batches;
        open.writer.write(batch).await
    }

    /// Ends the row group of a partition, which frees its buffers.
    pub(crate) async fn end_row_group(&mut self, number: PartitionNumber) -> Result<()> {
        match self.open.get_mut(&number) {
            Some(open) => open.writer.end_row_group().await,
            None => Ok(()),
        }
    }

    /// Closes the file of a partition that gets no more rows.
    pub(crate) async fn close_partition(&mut self, number: PartitionNumber) -> Result<()> {
        if let Some(open) = self.open.remove(&number) {
            self.finished.extend(open.writer.finish().await?);
        }
        Ok(())
    }

    /// Closes all files, before rows of other partitions follow.
    pub(crate) async fn close_files(&mut self) -> Result<()> {
        for (_, open) in std::mem::take(&mut self.open) {
            self.finished.extend(open.writer.finish().await?);
        }
        Ok(())
    }

    /// Closes all files and returns them.
    pub(crate) async fn finish(mut self) -> Result<Vec<NewFile>> {
        self.close_files().await?;
        Ok(self.finished)
    }
}
