//! `query`: from arguments to statements, from answers to a table, CSV, JSON lines or Parquet.

use std::io::{IsTerminal, Read, Write};
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

use crate::cli::args::{GlobalArgs, QueryArgs, QueryOutput};
use crate::cli::commands::sql_completion;
use crate::cli::commands::sync::engine;
use crate::cli::settings::resolve;
use crate::cli::terminal::output::{StandardOutput, file_beside, grouped};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::ops::{self, Answer, Querier};
use crate::sink::delta::At;

/// Whether statements come from a person at a terminal.
pub(in crate::cli) fn is_prompt(args: &QueryArgs) -> bool {
    args.sql.is_none() && std::io::stdin().is_terminal()
}

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
    /// As the arguments and the stream ask for.
    fn of(args: &QueryArgs) -> Result<Self> {
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

pub(in crate::cli) async fn query(global: &GlobalArgs, args: QueryArgs) -> Result<()> {
    let writing = Writing::of(&args)?;
    let target = resolve::target(global, &args.target).await?;
    let engine = engine(&args.engine)?;
    let sink = ops::open_target(&target, &engine).hint("ask the database itself, by its own client")?;
    let at = args.at.as_deref().map(parse_at).transpose()?;
    let querier = Querier::open(&sink, &engine, at).await?;
    let statements = match args.sql.as_deref() {
        None if std::io::stdin().is_terminal() => {
            return at_terminal(querier, writing, args).await;
        }
        None | Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context(Kind::Io, "Standard input cannot be read")?;
            sql_completion::statements(&text)
        }
        Some(sql) => vec![sql.to_owned()],
    };
    if statements.is_empty() {
        return Err(Error::new(Kind::Usage, "There is no statement").hint("give it as argument or on standard input"));
    }
    if let Some(path) = &args.output_file {
        let [statement] = &statements[..] else {
            return Err(Error::new(Kind::Usage, "--output-file takes the answer of one statement"));
        };
        return to_file(querier.run(statement).await?, writing, path).await;
    }
    for statement in &statements {
        write_answer(querier.run(statement).await?, writing, &mut StandardOutput).await?;
    }
    Ok(())
}

#[cfg(feature = "prompt")]
async fn at_terminal(querier: Querier, writing: Writing, args: QueryArgs) -> Result<()> {
    crate::cli::commands::prompt::prompt(querier, writing, resolve::state_dir(args.state.state_dir)).await
}

#[cfg(not(feature = "prompt"))]
async fn at_terminal(_querier: Querier, _writing: Writing, _args: QueryArgs) -> Result<()> {
    let hint =
        "give it as argument or on standard input; `cargo install --path . --features prompt` makes a program with a prompt";
    Err(Error::new(Kind::Usage, "There is no statement").hint(hint))
}

/// The whole file or nothing of it.
async fn to_file(answer: Answer, writing: Writing, path: &Path) -> Result<()> {
    let failed = || format!("The answer cannot be written: {}", path.display());
    let file = file_beside(path).context(Kind::Io, failed())?;
    let mut writer = std::io::BufWriter::new(file);
    write_answer(answer, writing, &mut writer).await?;
    let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error).context(Kind::Io, failed())?;
    file.persist(path).map(drop).context(Kind::Io, failed())
}

/// A version by its number, or a time.
pub(in crate::cli) fn parse_at(text: &str) -> Result<At> {
    match text.parse() {
        Ok(version) => Ok(At::Version(version)),
        Err(_) => {
            let moment = crate::cli::values::moment::parse_moment(text);
            let moment = moment.map_err(|_| {
                Error::new(Kind::Usage, "--at is neither a version nor a time").hint("write it as 12 or 2026-01-31T09:30:00Z")
            })?;
            Ok(At::Time(moment.at))
        }
    }
}

/// Runs a query and prints a table.
#[cfg(feature = "demo")]
pub(in crate::cli) async fn print_query(
    sink: &std::sync::Arc<crate::sink::delta::DeltaSink>,
    engine: &crate::stage::Engine,
    sql: &str,
) -> Result<()> {
    let answer = ops::query_at(sink, engine, sql, None).await?;
    write_answer(answer, Writing { form: Form::Table, limit: None, shown: None }, &mut StandardOutput).await
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
