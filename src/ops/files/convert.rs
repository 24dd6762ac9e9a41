//! Conversion of text objects to Parquet with the schema of the table, in one pass and bounded memory. Every row of the object becomes a row
//! of the file; nothing is deduplicated.

use std::fs::File;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::api::Query;
use crate::decode::{BadRows, DecodeOptions, OutOfRange, TextDecoder};
use crate::error::{Kind, Result, ResultExt};
use crate::model::{Mode, Window};
use crate::progress;
use crate::schema::{ACTION, Nested, SEQ, TableSchema, change_schema};

/// Decompressed bytes that are decoded at a time.
const INPUT_BYTES: usize = 1 << 20;
/// Maximum number of rows of a batch.
const BATCH_ROWS: usize = 8192;
/// Size of a row group in memory, bytes.
const ROW_GROUP_BYTES: usize = 32 << 20;
const ZSTD_LEVEL: i32 = 3;

/// The object to convert.
pub(super) struct Source<'a> {
    pub(super) query: &'a Query,
    /// Position of the object in the job.
    pub(super) number: usize,
    /// Name of the object, for errors.
    pub(super) name: &'a str,
}

/// Writes all rows to `file` and returns their number. Columns: `_action` (increments only), `_ts`, then key and value columns in the order of
/// the schema, with their names in the lake.
///
/// # Errors
/// Kind `Data` with line and column for an unreadable row.
pub(super) async fn to_parquet<S>(mut bytes: S, source: Source<'_>, schema: Arc<TableSchema>, file: File) -> Result<u64>
where
    S: Stream<Item = Result<Bytes>> + Unpin,
{
    let mut converter = Box::new(Converter::new(&source, schema, file)?);
    loop {
        let mut chunks = Vec::new();
        let mut gathered = 0;
        while gathered < INPUT_BYTES
            && let Some(chunk) = bytes.try_next().await?
        {
            gathered += chunk.len();
            chunks.push(chunk);
        }
        if chunks.is_empty() {
            return blocking(move || converter.finish()).await;
        }
        converter = blocking(move || converter.push(&chunks).map(|()| converter)).await?;
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context(Kind::Bug, "Converting a file failed")?
}

struct Converter {
    decoder: TextDecoder,
    writer: ArrowWriter<File>,
    columns: Vec<usize>,
    batches: Vec<RecordBatch>,
    rows: u64,
}

impl Converter {
    fn new(source: &Source<'_>, schema: Arc<TableSchema>, file: File) -> Result<Self> {
        // In condensed mode, nested objects are JSON strings already.
        let nested = match source.query.mode {
            Some(Mode::Condensed) | Some(Mode::Expanded) | None => Nested::Typed,
        };
        let options = DecodeOptions {
            object_number: u32::try_from(source.number).unwrap_or(u32::MAX),
            object_name: source.name.to_owned(),
            batch_rows: BATCH_ROWS,
            batch_bytes: 2 << 20,
            max_line: 256 << 20,
            max_page: 1 << 30,
            nested,
            bad_rows: BadRows::Fail,
            out_of_range: OutOfRange::Fail,
            names_keys: true,
            needs_action: source.query.window != Window::Snapshot,
            // The schema may be newer than the file.
            needs_required: false,
        };
        let full = change_schema(&schema, nested);
        let is_snapshot = source.query.window == Window::Snapshot;
        let wanted = |name: &str| name != SEQ && !(is_snapshot && name == ACTION);
        let columns: Vec<usize> = (0..full.fields().len()).filter(|column| wanted(full.field(*column).name())).collect();
        let written: SchemaRef =
            Arc::new(full.project(&columns).context(Kind::Bug, "Cannot select the columns of a Parquet file")?);
        let level = ZstdLevel::try_new(ZSTD_LEVEL).context(Kind::Bug, "Unknown compression level")?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
        let writer = ArrowWriter::try_new(file, written, Some(properties)).context(Kind::Io, WRITING)?;
        let decoder = TextDecoder::new(schema, source.query.format, options)?;
        Ok(Self { decoder, writer, columns, batches: Vec::new(), rows: 0 })
    }

    fn push(&mut self, chunks: &[Bytes]) -> Result<()> {
        for chunk in chunks {
            self.decoder.push(chunk, &mut self.batches)?;
        }
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        for batch in self.batches.drain(..) {
            let batch = batch.project(&self.columns).context(Kind::Bug, "Cannot select the columns of a Parquet file")?;
            self.writer.write(&batch).context(Kind::Io, WRITING)?;
            self.rows += batch.num_rows() as u64;
            progress::moved_rows(batch.num_rows() as u64);
            if self.writer.memory_size() >= ROW_GROUP_BYTES {
                self.writer.flush().context(Kind::Io, WRITING)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<u64> {
        self.decoder.finish(&mut self.batches)?;
        self.write()?;
        let counts = self.decoder.counts();
        if counts.oversized > 0 || counts.cut_fractions > 0 || !counts.unknown_columns.is_empty() {
            tracing::warn!(
                oversized_values = counts.oversized,
                cut_fractions = counts.cut_fractions,
                unknown_columns = counts.unknown_columns.len(),
                "Some values were changed by the conversion"
            );
        }
        self.writer.close().context(Kind::Io, WRITING)?;
        Ok(self.rows)
    }
}

const WRITING: &str = "Cannot write a Parquet file";
