//! Streams of batches of a bounded size in bytes: joined, split, pulled ahead.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use datafusion::arrow::array::{RecordBatch, UInt64Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result as PlanResult};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::{RecordBatchReceiverStream, RecordBatchStreamAdapter};
use futures::StreamExt;
use tracing::Instrument;

/// One stream of all `streams`, at most `at_once` of them pulled at a time, each ahead of the reader by about one batch.
/// The order within a stream stays; dropping the result stops them all.
pub fn pull_together(schema: SchemaRef, streams: Vec<SendableRecordBatchStream>, at_once: usize) -> SendableRecordBatchStream {
    let at_once = at_once.clamp(1, streams.len().max(1));
    let queue = Arc::new(Mutex::new(VecDeque::from(streams)));
    let mut builder = RecordBatchReceiverStream::builder(schema, 1);
    for _ in 0..at_once {
        let queue = Arc::clone(&queue);
        let sender = builder.tx();
        let work = async move {
            loop {
                let next = queue.lock().ok().and_then(|mut queue| queue.pop_front());
                let Some(mut stream) = next else { return Ok(()) };
                while let Some(batch) = stream.next().await {
                    let failed = batch.is_err();
                    if sender.send(batch).await.is_err() || failed {
                        return Ok(());
                    }
                }
            }
        };
        builder.spawn(work.in_current_span());
    }
    builder.build()
}

/// `shares` streams over one: each batch goes to the first that asks. After an error, given to one of them, the others end; so a
/// reader of all must give up at the first error it meets.
pub(super) fn share_out(input: SendableRecordBatchStream, shares: usize) -> Vec<SendableRecordBatchStream> {
    let schema = input.schema();
    let input = Arc::new(tokio::sync::Mutex::new(Some(input)));
    let share = || -> SendableRecordBatchStream {
        let stream = futures::stream::unfold(Arc::clone(&input), |input| async move {
            let mut held = input.lock().await;
            let next = held.as_mut()?.next().await;
            if !matches!(next, Some(Ok(_))) {
                *held = None;
            }
            drop(held);
            Some((next?, input))
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
