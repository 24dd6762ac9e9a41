//! Text objects as Parquet files, by the table's schema, in one pass and bounded memory. It reduces nothing: every row of the object
//! is a row of the file.

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

/// Unpacked bytes decoded at once.
const INPUT_BYTES: usize = 1 << 20;
/// Rows of a batch at most.
const BATCH_ROWS: usize = 8192;
/// A row group is closed when the writer holds so much.
const ROW_GROUP_BYTES: usize = 32 << 20;
const ZSTD_LEVEL: i32 = 3;

/// What is converted.
pub(super) struct Source<'a> {
    pub(super) query: &'a Query,
    /// Place of the object in the job.
    pub(super) number: usize,
    /// Its name, for errors.
    pub(super) name: &'a str,
}

/// Writes all rows to `file`; returns how many. Columns: `_action` (increments only), `_ts`, then key and value columns in the
/// schema's order, named as in the lake. Kind `Data` names line and column of a row that cannot be read.
pub(super) async fn to_parquet<S>(mut bytes: S, source: Source<'_>, schema: Arc<TableSchema>, file: File) -> Result<u64>
where
    S: Stream<Item = Result<Bytes>> + Unpin,
{
    let mut work = Box::new(Work::new(&source, schema, file)?);
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
            return blocking(move || work.finish()).await;
        }
        work = blocking(move || work.push(&chunks).map(|()| work)).await?;
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context(Kind::Bug, "Converting a file failed")?
}

struct Work {
    decoder: TextDecoder,
    writer: ArrowWriter<File>,
    columns: Vec<usize>,
    batches: Vec<RecordBatch>,
    rows: u64,
}

impl Work {
    fn new(source: &Source<'_>, schema: Arc<TableSchema>, file: File) -> Result<Self> {
        // In condensed mode nested objects come as JSON text already.
        let nested = match source.query.mode {
            Some(Mode::Condensed) | Some(Mode::Expanded) | None => Nested::Typed,
        };
        let options = DecodeOptions {
            object_number: u32::try_from(source.number).unwrap_or(u32::MAX),
            object_name: source.name.to_owned(),
            batch_rows: BATCH_ROWS,
            batch_bytes: 2 << 20,
            max_line: 256 << 20,
            nested,
            bad_rows: BadRows::Fail,
            out_of_range: OutOfRange::Fail,
            names_keys: true,
        };
        let full = change_schema(&schema, nested);
        let is_snapshot = source.query.window == Window::Snapshot;
        let wanted = |name: &str| name != SEQ && !(is_snapshot && name == ACTION);
        let columns: Vec<usize> = (0..full.fields().len()).filter(|column| wanted(full.field(*column).name())).collect();
        let written: SchemaRef =
            Arc::new(full.project(&columns).context(Kind::Bug, "The columns of a Parquet file cannot be chosen")?);
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
            let batch = batch.project(&self.columns).context(Kind::Bug, "The columns of a Parquet file cannot be chosen")?;
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
                "Some values could not be taken over as they are"
            );
        }
        self.writer.close().context(Kind::Io, WRITING)?;
        Ok(self.rows)
    }
}

const WRITING: &str = "A Parquet file cannot be written";
