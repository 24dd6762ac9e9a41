//! The answer of a statement as a table, CSV, JSON, Parquet or Arrow.

use std::io::{IsTerminal, Write};
use std::path::Path;

#[cfg(feature = "prompt")]
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::cli::args::query::{QueryArgs, QueryOutput};
use crate::cli::terminal::output::grouped;
use crate::cli::values::moment::parse_moment;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::ops::Answer;
use crate::sink::delta::At;

/// Rows of a table that a terminal shows by default.
const ROWS_ON_TERMINAL: usize = 40;

/// How an answer is written.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Writing {
    pub(in crate::cli) form: Form,
    /// So many rows, in any form; `None`: all.
    limit: Option<usize>,
    /// So many rows of a table, if there is no other limit; `None`: all.
    shown: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Form {
    Table,
    Csv,
    /// An object per line.
    JsonLines,
    /// One array of objects, nulls included.
    JsonArray,
    Parquet,
    Arrow,
}

impl From<QueryOutput> for Form {
    fn from(output: QueryOutput) -> Self {
        match output {
            QueryOutput::Table => Form::Table,
            QueryOutput::Csv => Form::Csv,
            QueryOutput::Json => Form::JsonLines,
            QueryOutput::Parquet => Form::Parquet,
            QueryOutput::Arrow => Form::Arrow,
        }
    }
}

impl Form {
    /// That of a file by its ending.
    fn of_file(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "txt" => Form::Table,
            "csv" => Form::Csv,
            "jsonl" | "ndjson" => Form::JsonLines,
            "json" => Form::JsonArray,
            "parquet" => Form::Parquet,
            "arrow" | "feather" | "ipc" => Form::Arrow,
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

    /// As the arguments and the stream ask for.
    pub(in crate::cli) fn of(args: &QueryArgs) -> Result<Self> {
        let told = args.output.map(Form::from);
        let form = match &args.output_file {
            None => told.unwrap_or(Form::Table),
            Some(path) => match (told, Form::of_file(path)) {
                (None, Some(form)) | (Some(Form::JsonLines), Some(form @ Form::JsonArray)) => form,
                (Some(told), Some(form)) if told != form => {
                    return Err(Error::new(Kind::Usage, "The ending of --output-file says another form than --output")
                        .with_field("file", path.display())
                        .hint("leave --output out, or give the file another ending"));
                }
                (Some(told), _) => told,
                (None, None) => {
                    return Err(Error::new(Kind::Usage, "The ending of --output-file says no form")
                        .with_field("file", path.display())
                        .hint("end it in .csv, .json, .jsonl, .parquet, .arrow or .txt, or say the form with --output"));
                }
            },
        };
        let is_terminal = args.output_file.is_none() && std::io::stdout().is_terminal();
        if is_terminal && matches!(form, Form::Parquet | Form::Arrow) {
            return Err(Error::new(Kind::Usage, "Parquet and Arrow files are not for terminals")
                .hint("name a file with --output-file, or send it to one with `>`"));
        }
        let shown = (is_terminal && args.limit.is_none()).then_some(ROWS_ON_TERMINAL);
        Ok(Self { form, limit: args.limit.filter(|limit| *limit > 0), shown })
    }
}

/// A version by its number, or a time.
pub(in crate::cli) fn parse_at(text: &str) -> Result<At> {
    match text.parse() {
        Ok(version) => Ok(At::Version(version)),
        Err(_) => {
            let moment = parse_moment(text);
            let moment = moment.map_err(|_| {
                Error::new(Kind::Usage, "--at is neither a version nor a time").hint("write it as 12 or 2026-01-31T09:30:00Z")
            })?;
            Ok(At::Time(moment.at))
        }
    }
}

/// The rows of an answer up to a limit. Those beyond it are counted where the count is shown, and else not even made.
struct Rows {
    batches: SendableRecordBatchStream,
    left: Option<usize>,
}

impl Rows {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if self.left == Some(0) {
            return Ok(None);
        }
        let Some(batch) = self.batches.try_next().await.context(Kind::Target, QUERY_FAILED)? else { return Ok(None) };
        let rows = self.left.map_or(batch.num_rows(), |left| left.min(batch.num_rows()));
        self.left = self.left.map(|left| left - rows);
        Ok(Some(batch.slice(0, rows)))
    }
}

const QUERY_FAILED: &str = "The query failed";

/// A table needs its widest cell first, so its answer is collected; the other forms stream.
pub(in crate::cli) async fn write_answer(answer: Answer, writing: Writing, to: &mut (dyn Write + Send)) -> Result<()> {
    let Answer { schema, batches } = answer;
    let failed = "The answer cannot be written";
    let Writing { form, limit, shown } = writing;
    if form == Form::Table {
        to.write_all(table(&schema, batches, limit.or(shown)).await?.as_bytes()).context(Kind::Io, failed)?;
        return to.flush().context(Kind::Io, failed);
    }
    let mut rows = Rows { batches, left: limit };
    match form {
        Form::Table => {}
        Form::Csv => {
            let unfit = "The answer cannot be written as CSV (nested columns: use --output json, or pick their members)";
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(&mut *to);
            writer.write(&RecordBatch::new_empty(schema)).context(Kind::Unsupported, unfit)?;
            while let Some(batch) = rows.next().await? {
                writer.write(&batch).context(Kind::Unsupported, unfit)?;
            }
        }
        Form::JsonLines => {
            let unfit = "The answer cannot be written as JSON";
            let mut writer = arrow::json::LineDelimitedWriter::new(&mut *to);
            while let Some(batch) = rows.next().await? {
                writer.write(&batch).context(Kind::Data, unfit)?;
            }
            writer.finish().context(Kind::Data, unfit)?;
        }
        Form::JsonArray => {
            let unfit = "The answer cannot be written as JSON";
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
            let unfit = "The answer cannot be written as Parquet";
            let writer = ArrowWriter::try_new(&mut *to, schema, Some(properties));
            let mut writer = writer.context(Kind::Unsupported, unfit)?;
            while let Some(batch) = rows.next().await? {
                writer.write(&batch).context(Kind::Io, unfit)?;
            }
            writer.close().context(Kind::Io, unfit)?;
        }
        Form::Arrow => {
            let unfit = "The answer cannot be written as an Arrow file";
            let writer = arrow::ipc::writer::FileWriter::try_new(&mut *to, &schema);
            let mut writer = writer.context(Kind::Unsupported, unfit)?;
            while let Some(batch) = rows.next().await? {
                writer.write(&batch).context(Kind::Io, unfit)?;
            }
            writer.finish().context(Kind::Io, unfit)?;
        }
    }
    to.flush().context(Kind::Io, failed)
}

async fn table(schema: &SchemaRef, mut batches: SendableRecordBatchStream, limit: Option<usize>) -> Result<String> {
    let (mut rows, mut held, mut count) = (Vec::new(), 0, 0);
    while let Some(batch) = batches.try_next().await.context(Kind::Target, QUERY_FAILED)? {
        count += batch.num_rows();
        let wanted = limit.map_or(batch.num_rows(), |limit| batch.num_rows().min(limit - held));
        if wanted > 0 {
            held += wanted;
            rows.push(batch.slice(0, wanted));
        }
    }
    let options = arrow::util::display::FormatOptions::default().with_null("NULL");
    if rows.is_empty() {
        rows.push(RecordBatch::new_empty(schema.clone()));
    }
    let table = arrow::util::pretty::pretty_format_batches_with_options(&rows, &options);
    let table = table.context(Kind::Data, "The answer cannot be shown as a table")?;
    let noun = |count: usize| if count == 1 { "row" } else { "rows" };
    Ok(match count - held {
        0 => format!("{table}\n{count} {}\n", noun(count)),
        more => format!("{table}\n{} {} more; use --output csv or --limit 0 for all\n", grouped(more as u64), noun(more)),
    })
}

#[cfg(feature = "prompt")]
/// Columns of a table, one a line.
pub(in crate::cli) fn columns_text(schema: &Schema) -> String {
    let widest = schema.fields().iter().map(|field| field.name().chars().count()).max().unwrap_or(0);
    let line = |field: &arrow::datatypes::FieldRef| {
        let null = if field.is_nullable() { "" } else { "  not null" };
        format!("{:<widest$}  {}{null}\n", field.name(), field.data_type())
    };
    schema.fields().iter().map(line).collect()
}
