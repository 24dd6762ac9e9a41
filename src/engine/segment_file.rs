//! A temporary file of record batches that can be read back in any order.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use arrow::buffer::Buffer;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::root_as_message;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result as PlanResult};
use parking_lot::Mutex;

use super::session::Engine;
use crate::channel::Failure;
use crate::error::{Error, Kind};

/// A temporary file of record batches. It has no name, so it is removed when this is dropped.
pub(crate) struct SegmentFile {
    schema: SchemaRef,
    options: IpcWriteOptions,
    file: Mutex<SharedFile>,
}

struct SharedFile {
    file: File,
    /// Size in bytes.
    end: u64,
}

/// A batch in a [`SegmentFile`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    start: u64,
    message_bytes: usize,
    body_bytes: usize,
    rows: usize,
    /// Size in bytes of the batch in memory.
    pub(crate) memory_bytes: usize,
}

/// Encodes the segments of one task. It keeps buffers for reuse.
#[derive(Default)]
pub(crate) struct SegmentEncoder {
    context: IpcWriteContext,
}

impl fmt::Debug for SegmentFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentFile").finish_non_exhaustive()
    }
}

impl SegmentFile {
    /// An empty file for batches of `schema`, without dictionaries.
    pub(crate) fn new(engine: &Engine, schema: SchemaRef) -> PlanResult<Self> {
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        let file = tempfile::tempfile_in(engine.folder())?;
        Ok(Self { schema, options, file: Mutex::new(SharedFile { file, end: 0 }) })
    }

    /// Appends a batch.
    pub(crate) fn append(&self, batch: &RecordBatch, encoder: &mut SegmentEncoder) -> PlanResult<Segment> {
        let mut tracker = DictionaryTracker::new(false);
        let (_, encoded) = IpcDataGenerator::default().encode(batch, &mut tracker, &self.options, &mut encoder.context)?;
        let (message, body) = (&encoded.ipc_message, &encoded.arrow_data);
        let sizes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size());
        let memory_bytes = sizes.sum::<Result<usize, _>>()?;
        let mut shared = self.file.lock();
        let start = shared.end;
        shared.file.seek(SeekFrom::Start(start))?;
        shared.file.write_all(message)?;
        shared.file.write_all(body)?;
        shared.end += (message.len() + body.len()) as u64;
        Ok(Segment { start, message_bytes: message.len(), body_bytes: body.len(), rows: batch.num_rows(), memory_bytes })
    }

    /// Reads segments into one batch.
    pub(crate) fn read(&self, segments: &[Segment]) -> PlanResult<RecordBatch> {
        // The buffers of a segment are parts of one allocation. A concatenation of several batches copies them.
        let mut batches = vec![RecordBatch::new_empty(self.schema.clone())];
        for segment in segments {
            batches.push(self.read_one(segment)?);
        }
        Ok(concat_batches(&self.schema, &batches)?)
    }

    fn read_one(&self, segment: &Segment) -> PlanResult<RecordBatch> {
        let (mut message, mut body) = (vec![0; segment.message_bytes], vec![0; segment.body_bytes]);
        let mut shared = self.file.lock();
        shared.file.seek(SeekFrom::Start(segment.start))?;
        shared.file.read_exact(&mut message)?;
        shared.file.read_exact(&mut body)?;
        drop(shared);
        let damaged = || DataFusionError::of(Error::new(Kind::Io, "A temporary file is damaged"));
        let message = root_as_message(&message).map_err(|_| damaged())?;
        let header = message.header_as_record_batch().ok_or_else(damaged)?;
        let body = Buffer::from_vec(body);
        let read = read_record_batch(&body, header, self.schema.clone(), &HashMap::new(), None, &message.version())?;
        if read.num_rows() == segment.rows { Ok(read) } else { Err(damaged()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int64Array, ListArray, StringArray};
    use datafusion::arrow::datatypes::Int64Type;

    use super::*;
    use crate::engine::EngineOptions;

    fn batch(numbers: std::ops::Range<i64>) -> RecordBatch {
        let number = |n: i64| (n % 3 != 0).then_some(n);
        let texts = StringArray::from_iter(numbers.clone().map(|n| number(n).map(|n| "text ".repeat(n as usize % 7))));
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(
            numbers.clone().map(|n| number(n).map(|n| (0..n % 5).map(Some).collect::<Vec<_>>())),
        );
        let numbers = Int64Array::from_iter(numbers.map(number));
        let columns: [(_, ArrayRef, _); 3] =
            [("n", Arc::new(numbers), true), ("t", Arc::new(texts), true), ("l", Arc::new(lists), true)];
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    #[test]
    fn segments_are_read_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let options = EngineOptions { memory_limit: 1 << 20, temp_dir: Some(folder.path().to_owned()), partitions: 1 };
        let engine = Engine::new(options).unwrap();
        let whole = batch(0..1000);
        let file = SegmentFile::new(&engine, whole.schema()).unwrap();
        let mut encoder = SegmentEncoder::default();
        let mut append = |start: usize, rows: usize| file.append(&whole.slice(start, rows), &mut encoder).unwrap();
        let (first, second, third) = (append(0, 10), append(10, 900), append(910, 90));
        assert_eq!(
            file.read(&[third, first]).unwrap(),
            concat_batches(&whole.schema(), &[batch(910..1000), batch(0..10)]).unwrap()
        );
        let read = file.read(&[second]).unwrap();
        assert_eq!(read, batch(10..910));
        assert!(read.get_array_memory_size() < 2 * batch(10..910).get_array_memory_size(), "memory is not counted twice");
    }
}
