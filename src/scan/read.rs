//! One partition: its objects one after the other, each as a stream of batches.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tracing::{Instrument, Span};

use super::Inner;
use super::ahead::ahead;
use crate::api::ObjectId;
use crate::channel;
use crate::decode::{self, DecodeCounts, DecodeOptions, TextDecoder};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::fetch::{self, SpoolOptions};
use crate::model::Format;
use crate::progress;

/// Unpacked chunks (of half a MiB at most) that wait for the decoder.
const CHUNKS_AHEAD: usize = 4;
/// Batches of a Parquet object that wait for their reader.
const BATCHES_AHEAD: usize = 2;

/// The objects of these numbers, one after the other. An object counts as read when the reader of this stream has passed its end.
pub(super) fn objects(inner: Arc<Inner>, numbers: impl Iterator<Item = usize> + Send + 'static) -> SendableRecordBatchStream {
    let (arrow, choice) = (inner.arrow.clone(), inner.choice.clone());
    let table = choice.kept().table.clone();
    let read = move |number: usize| {
        let (inner, id) = (inner.clone(), inner.job.objects[number].clone());
        let batches = stream::once(object(inner.clone(), number)).try_flatten();
        let passed = stream::once(async move { inner.passed(number) }).filter_map(|()| std::future::ready(None));
        let table = table.clone();
        batches.chain(passed).map_err(move |error| error.with_field("table", &table).with_field("object", &id.0)).boxed()
    };
    let batches = stream::iter(numbers).map(move |number| Ok(read(number))).try_flatten();
    let schema = arrow.clone();
    let batches = batches.and_then(move |batch| std::future::ready(choice.apply(&batch, &schema)));
    let batches = batches.map_err(|error: Error| DataFusionError::External(Box::new(error)));
    Box::pin(RecordBatchStreamAdapter::new(arrow, batches))
}

async fn object(inner: Arc<Inner>, number: usize) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let id = inner.job.objects[number].clone();
    match inner.job.query.format {
        Format::Parquet => parquet(inner, number, id).await,
        format => text(inner, number, id, format),
    }
}

fn options(inner: &Inner, number: usize, id: &ObjectId) -> Result<DecodeOptions> {
    let object_number = u32::try_from(number)
        .ok()
        .filter(|number| *number < 1 << 24)
        .ok_or_else(|| Error::new(Kind::Unsupported, "A job has more than 16 million objects"))?;
    Ok(DecodeOptions {
        object_number,
        object_name: id.0.clone(),
        batch_rows: inner.options.batch_rows,
        batch_bytes: inner.options.batch_bytes,
        max_line: inner.options.max_line,
        nested: inner.options.nested,
        bad_rows: (inner.bad_rows)(id),
        out_of_range: inner.options.out_of_range,
        names_keys: inner.choice.record().hashed.is_empty(),
    })
}

fn text(inner: Arc<Inner>, number: usize, id: ObjectId, format: Format) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let decoder = TextDecoder::new(inner.choice.read().clone(), format, options(&inner, number, &id)?)?;
    let unpacked = fetch::unpacked_within(fetch::open(&inner.urls, &id), format, inner.options.unpack.clone());
    let bytes = ahead(unpacked, CHUNKS_AHEAD, progress::download(&id.0)).boxed();
    let state = (bytes, Some(decoder), inner);
    let batches = stream::try_unfold(state, |(mut bytes, mut decoder, inner)| async move {
        let Some(running) = decoder.as_mut() else { return Ok(None) };
        let mut out = Vec::new();
        while out.is_empty() {
            match bytes.next().await {
                Some(chunk) => running.push(&chunk?, &mut out)?,
                None => {
                    running.finish(&mut out)?;
                    decoded(&inner, running.counts());
                    decoder = None;
                    break;
                }
            }
        }
        Ok(Some((stream::iter(out.into_iter().map(Ok)), (bytes, decoder, inner))))
    });
    let batches = batches.try_flatten().inspect_ok(|batch: &RecordBatch| progress::moved_rows(batch.num_rows() as u64));
    Ok(ahead(batches, 1, Span::current()).boxed())
}

/// Parquet needs its footer first, so the object is staged as a file in a folder that goes when the reader is done.
async fn parquet(inner: Arc<Inner>, number: usize, id: ObjectId) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let options = options(&inner, number, &id)?;
    let folder = private_folder(&inner.options.temp_dir)?;
    let name = format!("object-{number}.parquet");
    let spooling = SpoolOptions { limits: inner.options.unpack.clone(), private: true };
    let staging = fetch::spool_within(&inner.urls, &id, Format::Parquet, folder.path(), &name, &spooling);
    let staged = staging.instrument(progress::download(&id.0)).await?;
    let file = std::fs::File::open(&staged.path).context(Kind::Io, "A staged object cannot be read")?;
    let schema = inner.choice.read().clone();
    let max_bytes = inner.options.unpack.max_bytes;
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
        decoded(&inner, batches.counts());
        Ok(())
    });
    Ok(batches.inspect_ok(|batch: &RecordBatch| progress::moved_rows(batch.num_rows() as u64)).boxed())
}

/// A folder in `parent` that only this user can look into.
fn private_folder(parent: &Path) -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("daplake-object-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    let made = builder.tempdir_in(parent);
    made.context(Kind::Io, format!("No folder can be made for staged objects in {}", parent.display()))
}

fn decoded(inner: &Inner, seen: &DecodeCounts) {
    let mut counts = inner.counts.lock().unwrap_or_else(PoisonError::into_inner);
    counts.add(seen);
    drop(counts);
    progress::part_done();
}
