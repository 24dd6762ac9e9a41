//! The result of a statement as a table, CSV, JSON, Parquet or Arrow.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use arrow::record_batch::{RecordBatch, RecordBatchOptions, RecordBatchWriter};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::cli::args::query::{QueryArgs, QueryOutput};
use crate::cli::terminal::output::counted;
use crate::cli::values::moment::parse_moment;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::ops::Answer;
use crate::redact::{visible, visible_lines};
use crate::sink::delta::At;

/// Rows of a table that are printed to a terminal by default.
const ROWS_ON_TERMINAL: usize = 40;

/// How a result is written.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Writing {
    pub(in crate::cli) form: Form,
    /// Largest number of rows, in any form; `None` for all.
    limit: Option<usize>,
    /// Largest number of rows of a table if there is no other limit; `None` for all.
    shown: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Form {
    Table,
    Csv,
    /// One object per line.
    JsonLines,
    /// One array of objects, nulls included.
    JsonArray,
    Parquet,
    /// An Arrow IPC file, which readers can seek in.
    Arrow,
    /// An Arrow IPC stream, which readers can take from a pipe.
    ArrowStream,
}

impl From<QueryOutput> for Form {
    fn from(output: QueryOutput) -> Self {
        match output {
            QueryOutput::Table => Form::Table,
            QueryOutput::Csv => Form::Csv,
            QueryOutput::Json => Form::JsonLines,
            QueryOutput::Parquet => Form::Parquet,
            QueryOutput::Arrow => Form::Arrow,
            QueryOutput::ArrowStream => Form::ArrowStream,
        }
    }
}

impl Form {
    /// The format of a file by its extension.
    fn from_extension(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "txt" => Form::Table,
            "csv" => Form::Csv,
            "jsonl" | "ndjson" => Form::JsonLines,
            "json" => Form::JsonArray,
            "parquet" => Form::Parquet,
            "arrow" | "feather" | "ipc" => Form::Arrow,
            "arrows" => Form::ArrowStream,
            _ => return None,
        })
    }
}

impl Writing {
    /// All rows in one form.
    #[cfg(feature = "demo")]
    pub(in crate::cli) fn whole(form: Form) -> Self {
        Self { form, limit: None, shown: None }
    }

    /// From the arguments, and whether standard output is a terminal.
    pub(in crate::cli) fn new(args: &QueryArgs) -> Result<Self> {
        let given = args.output.map(Form::from);
        let form = match &args.output_file {
            None => given.unwrap_or(Form::Table),
            Some(path) => match (given, Form::from_extension(path)) {
                (None, Some(form)) | (Some(Form::JsonLines), Some(form @ Form::JsonArray)) => form,
                (Some(given), Some(form)) if given != form => {
                    return Err(Error::new(Kind::Usage, "The extension of --output-file contradicts --output")
                        .with_field("file", path.display())
                        .hint("omit --output, or use another file extension"));
                }
                (Some(given), _) => given,
                (None, None) => {
                    return Err(Error::new(Kind::Usage, "The extension of --output-file selects no format")
                        .with_field("file", path.display())
                        .hint("use .csv, .json, .jsonl, .parquet, .arrow, .arrows or .txt, or give the format with --output"));
                }
            },
        };
        let is_terminal = args.output_file.is_none() && std::io::stdout().is_terminal();
        if is_terminal && matches!(form, Form::Parquet | Form::Arrow | Form::ArrowStream) {
            return Err(Error::new(Kind::Usage, "Parquet and Arrow files cannot be written to a terminal")
                .hint("name a file with --output-file, or redirect the output with `>`"));
        }
        let shown = (is_terminal && args.limit.is_none()).then_some(ROWS_ON_TERMINAL);
        Ok(Self { form, limit: args.limit.filter(|limit| *limit > 0), shown })
    }
}

/// A version number, or a time.
pub(in crate::cli) fn parse_at(text: &str) -> Result<At> {
    match text.parse() {
        Ok(version) => Ok(At::Version(version)),
        Err(_) => {
            let moment = parse_moment(text);
            let moment = moment.map_err(|_| {
                Error::new(Kind::Usage, "The value of --at is neither a version nor a time")
                    .hint("write it as 12 or 2026-01-31T09:30:00Z")
            })?;
            Ok(At::Time(moment.at))
        }
    }
}

/// The rows of a result up to a limit. The query stops there.
struct Rows {
    batches: BoxStream<'static, Result<RecordBatch>>,
    left: Option<usize>,
}

impl Rows {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let Some(batch) = self.batches.try_next().await? else { return Ok(None) };
        let rows = self.left.map_or(batch.num_rows(), |left| left.min(batch.num_rows()));
        self.left = self.left.map(|left| left - rows);
        Ok(Some(batch.slice(0, rows)))
    }
}

/// Writes a result. Kind `Io` if `to` fails, another one for values that the form cannot hold.
pub(in crate::cli) async fn write_answer(answer: Answer, writing: Writing, to: &mut (dyn Write + Send)) -> Result<()> {
    let mut to = Watched { to, failure: None };
    let written = write_form(answer, writing, &mut to).await;
    match to.failure {
        // Some writers report a full disk like values that do not fit.
        Some(failure) if written.is_err() => Err(Error::new(Kind::Io, FAILED).caused_by(failure)),
        _ => written,
    }
}

/// A writer that remembers its last error.
struct Watched<'w> {
    to: &'w mut (dyn Write + Send),
    failure: Option<String>,
}

impl Watched<'_> {
    fn noted<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        result.inspect_err(|error| self.failure = Some(error.to_string()))
    }
}

impl Write for Watched<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes);
        self.noted(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let flushed = self.to.flush();
        self.noted(flushed)
    }
}

/// Tables are collected first, as the widest cells decide the layout; the other forms stream.
async fn write_form(answer: Answer, writing: Writing, to: &mut (dyn Write + Send)) -> Result<()> {
    let Answer { schema, batches } = answer;
    let Writing { form, limit, shown } = writing;
    if form == Form::Table {
        to.write_all(table(&schema, batches, limit.or(shown)).await?.as_bytes()).context(Kind::Io, FAILED)?;
        return to.flush().context(Kind::Io, FAILED);
    }
    let mut rows = Rows { batches, left: limit };
    match form {
        Form::Table => {}
        Form::Csv => {
            let unfit = "The result cannot be written as CSV (nested columns: use --output json, or select their fields)";
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(&mut *to);
            writer.write(&RecordBatch::new_empty(schema)).context(Kind::Unsupported, unfit)?;
            while let Some(batch) = rows.next().await? {
                writer.write(&batch).context(Kind::Unsupported, unfit)?;
            }
        }
        Form::JsonLines => {
            let unfit = "The result cannot be written as JSON";
            let mut writer = arrow::json::LineDelimitedWriter::new(&mut *to);
            while let Some(batch) = rows.next().await? {
                writer.write(&batch).context(Kind::Data, unfit)?;
            }
            writer.finish().context(Kind::Data, unfit)?;
        }
        Form::JsonArray => {
            let unfit = "The result cannot be written as JSON";
            let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
            let mut writer = builder.build::<_, arrow::json::writer::JsonArray>(&mut *to);
            while let Some(batch) = rows.next().await? {
                writer.write(&batch).context(Kind::Data, unfit)?;
            }
            writer.finish().context(Kind::Data, unfit)?;
        }
        Form::Parquet => {
            let compression = Compression::ZSTD(ZstdLevel::default());
            let properties = WriterProperties::builder().set_compression(compression).build();
            let unfit = "The result cannot be written as Parquet";
            let writer = ArrowWriter::try_new(&mut *to, schema, Some(properties));
            let mut writer = writer.context(Kind::Unsupported, unfit)?;
            while let Some(batch) = rows.next().await? {
                writer.write(&batch).context(Kind::Io, unfit)?;
            }
            writer.close().context(Kind::Io, unfit)?;
        }
        Form::Arrow => {
            let schema = without_views(&schema);
            write_arrow(rows, &schema, FileWriter::try_new(&mut *to, &schema)).await?;
        }
        Form::ArrowStream => {
            let schema = without_views(&schema);
            write_arrow(rows, &schema, StreamWriter::try_new(&mut *to, &schema)).await?;
        }
    }
    to.flush().context(Kind::Io, FAILED)
}

const FAILED: &str = "The result cannot be written";

/// Writes rows in one of the Arrow formats.
async fn write_arrow<W: RecordBatchWriter>(mut rows: Rows, schema: &SchemaRef, writer: Result<W, ArrowError>) -> Result<()> {
    let mut writer = writer.context(Kind::Unsupported, NOT_ARROW)?;
    while let Some(batch) = rows.next().await? {
        writer.write(&with_schema(&batch, schema)?).context(Kind::Io, NOT_ARROW)?;
    }
    writer.close().context(Kind::Io, NOT_ARROW)
}

const NOT_ARROW: &str = "The result cannot be written in the Arrow format";

/// The schema with `Utf8` and `Binary` in place of the view types. Many readers of Arrow lack functions for views.
fn without_views(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema.fields().iter().map(|field| field_without_views(field)).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn field_without_views(field: &Field) -> Field {
    let inner = |field: &Arc<Field>| Arc::new(field_without_views(field));
    let data_type = match field.data_type() {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) => DataType::List(inner(item)),
        DataType::LargeList(item) => DataType::LargeList(inner(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(inner(item), *length),
        DataType::Map(entries, is_sorted) => DataType::Map(inner(entries), *is_sorted),
        DataType::Struct(members) => DataType::Struct(members.iter().map(inner).collect()),
        other => other.clone(),
    };
    field.clone().with_data_type(data_type)
}

/// The batch with its columns cast to the types of `schema`, which has the same columns.
fn with_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, ArrowError>>().context(Kind::Unsupported, NOT_ARROW)?;
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &rows).context(Kind::Unsupported, NOT_ARROW)
}

async fn table(
    schema: &SchemaRef,
    mut batches: BoxStream<'static, Result<RecordBatch>>,
    limit: Option<usize>,
) -> Result<String> {
    let (mut rows, mut held, mut count) = (Vec::new(), 0, 0);
    while let Some(batch) = batches.try_next().await? {
        count += batch.num_rows();
        let wanted = limit.map_or(batch.num_rows(), |limit| batch.num_rows().min(limit - held));
        if wanted > 0 {
            held += wanted;
            rows.push(batch.slice(0, wanted));
        }
    }
    if rows.is_empty() {
        rows.push(RecordBatch::new_empty(schema.clone()));
    }
    let rows: Result<Vec<RecordBatch>, ArrowError> = rows.iter().map(printable).collect();
    let table = rows.and_then(|rows| pretty_format_batches(&rows));
    let table = table.context(Kind::Data, "The result cannot be formatted as a table")?;
    Ok(match count - held {
        0 => format!("{table}\n{}\n", counted(count as u64, "row")),
        more => format!("{table}\n{} more; use --output csv or --limit 0 for all\n", counted(more as u64, "row")),
    })
}

/// All cells as text without control characters, which could change the terminal. Line ends stay.
fn printable(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let options = FormatOptions::default().with_null("NULL");
    let mut columns: Vec<ArrayRef> = Vec::new();
    let mut fields = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let formatter = ArrayFormatter::try_new(column, &options)?;
        let cells = (0..column.len()).map(|row| Ok(visible_lines(&formatter.value(row).try_to_string()?).into_owned()));
        columns.push(Arc::new(StringArray::from(cells.collect::<Result<Vec<String>, ArrowError>>()?)));
        fields.push(Field::new(visible(field.name()), DataType::Utf8, false));
    }
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows)
}

/// The columns of a table, one per line.
#[cfg(feature = "prompt")]
pub(in crate::cli) fn columns_text(schema: &Schema) -> String {
    let widest = schema.fields().iter().map(|field| field.name().chars().count()).max().unwrap_or(0);
    let line = |field: &arrow::datatypes::FieldRef| {
        let null = if field.is_nullable() { "" } else { "  not null" };
        format!("{:<widest$}  {}{null}\n", field.name(), field.data_type())
    };
    schema.fields().iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, BinaryViewArray, Int64Array, ListArray, StringViewArray, StructArray};
    use arrow::buffer::OffsetBuffer;

    use super::*;

    #[test]
    fn view_types_become_plain_types_at_every_depth() {
        let text = StringViewArray::from(vec![Some("a"), None]);
        let bytes = BinaryViewArray::from(vec![Some(&b"x"[..]), Some(&b"y"[..])]);
        let member = Arc::new(Field::new("name", DataType::Utf8View, true));
        let members = StructArray::from(vec![(Arc::clone(&member), Arc::new(text.clone()) as ArrayRef)]);
        let offsets = OffsetBuffer::from_lengths([1, 1]);
        let item = Arc::new(Field::new("item", members.data_type().clone(), true));
        let list = ListArray::new(item, offsets, Arc::new(members), None);
        let columns: [(&str, ArrayRef); 3] = [("text", Arc::new(text)), ("bytes", Arc::new(bytes)), ("list", Arc::new(list))];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();

        let schema = without_views(&batch.schema());
        let plain = with_schema(&batch, &schema).unwrap();
        let types = schema.fields().iter().map(|field| field.data_type().to_string()).collect::<Vec<_>>().join("; ");
        assert!(!types.contains("View") && types.starts_with("Utf8; Binary; List("), "{types}");
        let shown = |batch: &RecordBatch| pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string();
        assert_eq!(shown(&plain), shown(&batch));
    }

    #[test]
    fn values_cannot_change_the_terminal() {
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a\u{1b}[2J\u{7}"), Some("two\nlines"), None]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 22, 333]));
        let batch = RecordBatch::try_from_iter([("na\u{9b}me", names), ("n", numbers)]).unwrap();
        let text = pretty_format_batches(&[printable(&batch).unwrap()]).unwrap().to_string();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        for line in ["| na\\u009bme       | n   |", "| a\\u001b[2J\\u0007 | 1   |", "| NULL             | 333 |"] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
