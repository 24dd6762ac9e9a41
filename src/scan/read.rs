//! The stream of one partition: its objects one after another, each as batches of changes.

use std::path::Path;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tracing::{Instrument, Span};

use super::prefetch::prefetch;
use super::state::ScanState;
use crate::api::ObjectId;
use crate::channel;
use crate::decode::{self, DecodeCounts, DecodeOptions, TextDecoder};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::fetch::{self, SpoolOptions};
use crate::model::{Format, Window};
use crate::progress;

/// Decompressed chunks (of at most half a MiB) that are buffered for the decoder.
const CHUNKS_AHEAD: usize = 4;
/// Batches of a Parquet object that are buffered for the consumer.
const BATCHES_AHEAD: usize = 2;
/// Parquet pages of this many bytes are read even with a lower memory limit: some programs write pages of up to 100 MB.
const MIN_PAGE_LIMIT: u64 = 128 << 20;

/// The objects with these numbers, one after another. An object counts as read when the consumer of this stream has passed its end.
pub(super) fn objects(
    state: Arc<ScanState>,
    numbers: impl Iterator<Item = usize> + Send + 'static,
) -> SendableRecordBatchStream {
    let (schema, choice) = (state.schema.clone(), state.choice.clone());
    let table = choice.kept().table.clone();
    let read = move |number: usize| {
        let (state, id) = (state.clone(), state.job.objects[number].clone());
        let batches = stream::once(object(state.clone(), number)).try_flatten();
        let finish = stream::once(async move { state.finish(number) }).filter_map(|()| std::future::ready(None));
        let table = table.clone();
        batches.chain(finish).map_err(move |error| error.with_field("table", &table).with_field("object", &id.0)).boxed()
    };
    let batches = stream::iter(numbers).map(move |number| Ok(read(number))).try_flatten();
    let applied = schema.clone();
    let batches = batches.and_then(move |batch| std::future::ready(choice.apply(&batch, &applied)));
    let batches = batches.map_err(DataFusionError::from);
    Box::pin(RecordBatchStreamAdapter::new(schema, batches))
}

async fn object(state: Arc<ScanState>, number: usize) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let id = state.job.objects[number].clone();
    match state.job.query.format {
        Format::Parquet => parquet(state, number, id).await,
        format => text(state, number, id, format),
    }
}

fn options(state: &ScanState, number: usize, id: &ObjectId) -> Result<DecodeOptions> {
    let object_number = u32::try_from(number)
        .ok()
        .filter(|number| *number < 1 << 24)
        .ok_or_else(|| Error::new(Kind::Unsupported, "The job has more than 16 million objects"))?;
    Ok(DecodeOptions {
        object_number,
        object_name: id.0.clone(),
        batch_rows: state.options.batch_rows,
        batch_bytes: state.options.batch_bytes,
        max_line: state.options.max_line,
        max_page: (state.options.memory_limit as u64).max(MIN_PAGE_LIMIT),
        nested: state.options.nested,
        bad_rows: (state.bad_rows)(id),
        out_of_range: state.options.out_of_range,
        names_keys: state.choice.record().hashed.is_empty(),
        needs_action: state.job.query.window != Window::Snapshot,
        // A newer schema may have columns that the job's files cannot have.
        needs_required: state.job.schema_version >= state.choice.read().version,
    })
}

fn text(state: Arc<ScanState>, number: usize, id: ObjectId, format: Format) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let decoder = TextDecoder::new(state.choice.read().clone(), format, options(&state, number, &id)?)?;
    let unpacked = fetch::unpacked_within(fetch::open(&state.urls, &id), format, state.options.unpack.clone());
    let bytes = prefetch(unpacked, CHUNKS_AHEAD, progress::download(&id.0)).boxed();
    let reading = (bytes, Some(decoder), state);
    let batches = stream::try_unfold(reading, |(mut bytes, mut decoder, state)| async move {
        let Some(running) = decoder.as_mut() else { return Ok(None) };
        let mut out = Vec::new();
        while out.is_empty() {
            match bytes.next().await {
                Some(chunk) => running.push(&chunk?, &mut out)?,
                None => {
                    running.finish(&mut out)?;
                    decoded(&state, running.counts());
                    decoder = None;
                    break;
                }
            }
        }
        Ok(Some((stream::iter(out.into_iter().map(Ok)), (bytes, decoder, state))))
    });
    let batches = batches.try_flatten().inspect_ok(|batch: &RecordBatch| progress::moved_rows(batch.num_rows() as u64));
    Ok(prefetch(batches, 1, Span::current()).boxed())
}

/// A Parquet reader needs the footer first, so the object is downloaded to a folder that is removed after the last batch.
async fn parquet(state: Arc<ScanState>, number: usize, id: ObjectId) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let options = options(&state, number, &id)?;
    let folder = private_folder(&state.options.temp_dir)?;
    let name = format!("object-{number}.parquet");
    let spooling = SpoolOptions { limits: state.options.unpack.clone(), private: true };
    let staging = fetch::spool_within(&state.urls, &id, Format::Parquet, folder.path(), &name, &spooling);
    let staged = staging.instrument(progress::download(&id.0)).await?;
    let file = std::fs::File::open(&staged.path).context(Kind::Io, "Cannot read a downloaded object")?;
    let schema = state.choice.read().clone();
    let max_bytes = state.options.unpack.max_bytes;
    let batches = channel::from_thread(BATCHES_AHEAD, Span::current(), move |sender| {
        let _kept = folder;
        let mut bytes = 0;
        let mut batches = decode::parquet(file, schema, options)?;
        for batch in batches.by_ref() {
            let batch = batch?;
            bytes += batch.get_array_memory_size() as u64;
            if bytes > max_bytes {
                return Err(fetch::too_large(max_bytes).with_field("decoded_bytes", bytes));
            }
            sender.send_blocking(batch)?;
        }
        decoded(&state, batches.counts());
        Ok(())
    });
    Ok(batches.inspect_ok(|batch: &RecordBatch| progress::moved_rows(batch.num_rows() as u64)).boxed())
}

/// A folder in `parent` that other users cannot read.
fn private_folder(parent: &Path) -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("daplake-object-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    let made = builder.tempdir_in(parent);
    made.context(Kind::Io, format!("Cannot create a folder for downloaded objects in {}", parent.display()))
}

fn decoded(state: &ScanState, seen: &DecodeCounts) {
    state.add_counts(seen);
    progress::part_done();
}
