//! Streams of batches of a bounded size in bytes: joined, split, pulled ahead.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::{RecordBatch, UInt64Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use tracing::Span;

use crate::channel::{Channel, Failure, Sender};
use crate::error::{Error, Kind};

/// Where a task of a plan puts its batches.
pub(crate) type BatchSender = Sender<RecordBatch, DataFusionError>;

impl Failure for DataFusionError {
    fn of(error: Error) -> Self {
        Self::External(Box::new(error))
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

/// A stream of batches that a task makes, at most `ahead` batches ahead of the reader; it ends only after the task has finished. Must
/// be called within a tokio runtime.
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

/// As [`stream_from_task`] for several tasks, which `spawn` adds, and several streams.
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

/// One stream of all `streams`, at most `at_once` of them pulled at a time, each ahead of the reader by about one batch.
/// The order within a stream stays; dropping the result stops them all.
pub fn pull_together(schema: SchemaRef, streams: Vec<SendableRecordBatchStream>, at_once: usize) -> SendableRecordBatchStream {
    let at_once = at_once.clamp(1, streams.len().max(1));
    let queue = Arc::new(Mutex::new(VecDeque::from(streams)));
    let mut channel = Channel::new(1, 1);
    for _ in 0..at_once {
        let queue = Arc::clone(&queue);
        channel.spawn(Span::current(), move |sender: BatchSender| async move {
            loop {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(mut stream) = next else { return Ok(()) };
                while let Some(batch) = stream.next().await {
                    sender.send(batch?).await?;
                }
            }
        });
    }
    Box::pin(RecordBatchStreamAdapter::new(schema, channel.single()))
}

/// What several streams read from.
enum Shared {
    Open(SendableRecordBatchStream),
    /// It came to its end.
    Ended,
    /// An error ended it.
    Failed(Arc<DataFusionError>),
    /// It is being polled. What is found so by another reader was given up in the middle, by a panic or a drop.
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
                Some(Err(DataFusionError::of(Error::new(Kind::Bug, "A reader of shared rows stopped unexpectedly"))))
            }
        }
    }
}

/// `shares` streams over one: each batch goes to the first that asks. An error is given to all of them.
pub(super) fn share_out(input: SendableRecordBatchStream, shares: usize) -> Vec<SendableRecordBatchStream> {
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

/// The same rows in batches of about `bytes`, and at most `rows` rows: small ones are joined, large ones split.
pub fn rebatch(input: SendableRecordBatchStream, bytes: usize, rows: usize) -> SendableRecordBatchStream {
    let schema = input.schema();
    let state =
        Rebatch { input, ready: VecDeque::new(), held: Vec::new(), held_bytes: 0, held_rows: 0, bytes, rows, ended: false };
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
    held: Vec<RecordBatch>,
    held_bytes: usize,
    held_rows: usize,
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
        if self.held_bytes + size > self.bytes || self.held_rows + batch.num_rows() > self.rows {
            self.join()?;
        }
        self.held_bytes += size;
        self.held_rows += batch.num_rows();
        self.held.push(batch);
        Ok(())
    }

    fn join(&mut self) -> PlanResult<()> {
        self.held_bytes = 0;
        self.held_rows = 0;
        match self.held.len() {
            0 => {}
            1 => self.ready.extend(self.held.pop()),
            _ => {
                let batches = std::mem::take(&mut self.held);
                self.ready.push_back(concat_batches(&batches[0].schema(), &batches)?);
            }
        }
        Ok(())
    }

    fn fail(&mut self) {
        self.ended = true;
        self.held.clear();
        self.ready.clear();
    }
}

/// Copies of parts of `batch`, each of about `bytes` and at most `rows` rows. Copies, not slices: a slice keeps the whole alive,
/// and is counted as the whole.
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
