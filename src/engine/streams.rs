//! Streams of record batches: read ahead, combined, shared between readers, and cut to a bounded size.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::arrow::array::{RecordBatch, UInt64Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tracing::Span;

use crate::channel::{Channel, Failure, Sender};
use crate::error::{Error, Kind};

/// The output of a task that produces batches.
pub(crate) type BatchSender = Sender<RecordBatch, DataFusionError>;

/// Lets [`Error`]s pass through plans; [`engine_error`](super::engine_error) converts them back.
impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

impl Failure for DataFusionError {
    fn of(error: Error) -> Self {
        error.into()
    }

    fn for_readers(self, readers: usize) -> Vec<Self> {
        match readers {
            0 | 1 => vec![self],
            _ => {
                let shared = Arc::new(self);
                (0..readers).map(|_| Self::Shared(Arc::clone(&shared))).collect()
            }
        }
    }
}

/// A stream of batches that a task produces, at most `ahead` batches ahead of the reader. It ends only after the task has returned. Must be
/// called within a tokio runtime.
pub(crate) fn stream_from_task<F>(
    schema: SchemaRef,
    ahead: usize,
    produce: impl FnOnce(BatchSender) -> F + Send + 'static,
) -> SendableRecordBatchStream
where
    F: Future<Output = PlanResult<()>> + Send + 'static,
{
    Box::pin(RecordBatchStreamAdapter::new(schema, crate::channel::from_task(ahead, Span::current(), produce)))
}

/// As [`stream_from_task`], with several output streams and several tasks, which `spawn` adds.
pub(crate) fn streams_from_tasks(
    schema: &SchemaRef,
    outputs: usize,
    spawn: impl FnOnce(&mut Channel<RecordBatch, DataFusionError>),
) -> Vec<SendableRecordBatchStream> {
    let mut channel = Channel::new(outputs, 1);
    spawn(&mut channel);
    let items = channel.build().into_iter();
    items.map(|items| Box::pin(RecordBatchStreamAdapter::new(Arc::clone(schema), items)) as SendableRecordBatchStream).collect()
}

/// A stream of the given batches.
pub fn batch_stream(schema: SchemaRef, batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches.into_iter().map(Ok))))
}

/// The same stream; its rows are added to `rows` as they are read.
pub(crate) fn count_rows(stream: SendableRecordBatchStream, rows: &Arc<AtomicU64>) -> SendableRecordBatchStream {
    let (schema, rows) = (stream.schema(), Arc::clone(rows));
    let counted = stream.inspect_ok(move |batch| _ = rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed));
    Box::pin(RecordBatchStreamAdapter::new(schema, counted))
}

/// One stream of all `streams`, of which at most `at_once` are read at the same time, each about one batch ahead. Batches of one stream
/// keep their order; dropping the result stops all of them.
pub fn combine_streams(
    schema: SchemaRef,
    streams: Vec<SendableRecordBatchStream>,
    at_once: usize,
) -> SendableRecordBatchStream {
    let at_once = at_once.clamp(1, streams.len().max(1));
    let queue = Arc::new(Mutex::new(VecDeque::from(streams)));
    let mut channel = Channel::new(1, 1);
    for _ in 0..at_once {
        let queue = Arc::clone(&queue);
        channel.spawn(Span::current(), move |sender: BatchSender| async move {
            loop {
                let next = queue.lock().pop_front();
                let Some(mut stream) = next else { return Ok(()) };
                while let Some(batch) = stream.next().await {
                    sender.send(batch?).await?;
                }
            }
        });
    }
    Box::pin(RecordBatchStreamAdapter::new(schema, channel.single()))
}

/// The input of several streams.
enum Shared {
    Open(SendableRecordBatchStream),
    /// The input has ended.
    Ended,
    /// The input has failed.
    Failed(Arc<DataFusionError>),
    /// A reader is polling it. If another reader finds this state, the first one panicked or was dropped while it polled.
    Polled,
}

impl Shared {
    async fn next(&mut self) -> Option<PlanResult<RecordBatch>> {
        match std::mem::replace(self, Self::Polled) {
            Self::Open(mut input) => match input.next().await {
                Some(Ok(batch)) => {
                    *self = Self::Open(input);
                    Some(Ok(batch))
                }
                Some(Err(error)) => {
                    let error = Arc::new(error);
                    *self = Self::Failed(Arc::clone(&error));
                    Some(Err(DataFusionError::Shared(error)))
                }
                None => {
                    *self = Self::Ended;
                    None
                }
            },
            Self::Ended => {
                *self = Self::Ended;
                None
            }
            Self::Failed(error) => {
                *self = Self::Failed(Arc::clone(&error));
                Some(Err(DataFusionError::Shared(error)))
            }
            Self::Polled => {
                Some(Err(DataFusionError::of(Error::new(Kind::Bug, "A reader of a shared stream stopped unexpectedly"))))
            }
        }
    }
}

/// Splits one stream into `shares` streams: each batch goes to the first reader that asks for it, and an error to all readers.
pub(crate) fn share_batches(input: SendableRecordBatchStream, shares: usize) -> Vec<SendableRecordBatchStream> {
    let schema = input.schema();
    let input = Arc::new(tokio::sync::Mutex::new(Shared::Open(input)));
    let share = || -> SendableRecordBatchStream {
        let stream = futures::stream::unfold(Some(Arc::clone(&input)), |input| async move {
            let input = input?;
            let next = input.lock().await.next().await?;
            let rest = next.is_ok().then_some(input);
            Some((next, rest))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), stream))
    };
    (0..shares.max(1)).map(|_| share()).collect()
}

/// The same rows in batches of about `bytes` bytes and at most `rows` rows: small batches are concatenated, large ones split.
pub fn rebatch(input: SendableRecordBatchStream, bytes: usize, rows: usize) -> SendableRecordBatchStream {
    let schema = input.schema();
    let state = Rebatch {
        input,
        ready: VecDeque::new(),
        pending: Vec::new(),
        pending_bytes: 0,
        pending_rows: 0,
        bytes,
        rows,
        ended: false,
    };
    let stream = futures::stream::unfold(state, |mut state| async move {
        match state.next().await {
            Ok(None) => None,
            Ok(Some(batch)) => Some((Ok(batch), state)),
            Err(error) => {
                state.fail();
                Some((Err(error), state))
            }
        }
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, stream))
}

struct Rebatch {
    input: SendableRecordBatchStream,
    ready: VecDeque<RecordBatch>,
    pending: Vec<RecordBatch>,
    pending_bytes: usize,
    pending_rows: usize,
    bytes: usize,
    rows: usize,
    ended: bool,
}

impl Rebatch {
    async fn next(&mut self) -> PlanResult<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if self.ended {
                return Ok(None);
            }
            match self.input.next().await {
                None => {
                    self.ended = true;
                    self.join()?;
                }
                Some(batch) => self.take(batch?)?,
            }
        }
    }

    fn take(&mut self, batch: RecordBatch) -> PlanResult<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let size = batch.get_array_memory_size();
        if size > self.bytes || batch.num_rows() > self.rows {
            self.join()?;
            self.ready.extend(split_batch(&batch, self.bytes, self.rows)?);
            return Ok(());
        }
        if self.pending_bytes + size > self.bytes || self.pending_rows + batch.num_rows() > self.rows {
            self.join()?;
        }
        self.pending_bytes += size;
        self.pending_rows += batch.num_rows();
        self.pending.push(batch);
        Ok(())
    }

    fn join(&mut self) -> PlanResult<()> {
        self.pending_bytes = 0;
        self.pending_rows = 0;
        match self.pending.len() {
            0 => {}
            1 => self.ready.extend(self.pending.pop()),
            _ => {
                let batches = std::mem::take(&mut self.pending);
                self.ready.push_back(concat_batches(&batches[0].schema(), &batches)?);
            }
        }
        Ok(())
    }

    fn fail(&mut self) {
        self.ended = true;
        self.pending.clear();
        self.ready.clear();
    }
}

/// Splits `batch` into copies of about `bytes` bytes and at most `rows` rows. Slices would keep the whole batch alive and be counted as
/// the whole.
pub fn split_batch(batch: &RecordBatch, bytes: usize, rows: usize) -> Result<Vec<RecordBatch>, DataFusionError> {
    let total = batch.num_rows();
    let parts = batch.get_array_memory_size().div_ceil(bytes.max(1)).max(total.div_ceil(rows.max(1))).clamp(1, total.max(1));
    if parts == 1 {
        return Ok(vec![batch.clone()]);
    }
    let step = total.div_ceil(parts);
    (0..total)
        .step_by(step)
        .map(|start| {
            let end = (start + step).min(total);
            let indices = UInt64Array::from_iter_values(start as u64..end as u64);
            Ok(take_record_batch(batch, &indices)?)
        })
        .collect()
}
