//! `query`: from arguments to statements, from answers to a table, CSV, JSON lines or Parquet.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;

#[cfg(feature = "prompt")]
use arrow::datatypes::Schema;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::args::{GlobalArgs, QueryArgs, QueryOutput};
use super::lake::engine;
use super::output::{StandardOutput, file_beside};
use super::{settings, words};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::ops::{self, Answer, Querier};
use crate::sink::delta::At;

/// Whether statements come from a person at a terminal.
pub(super) fn is_prompt(args: &QueryArgs) -> bool {
    args.sql.is_none() && std::io::stdin().is_terminal()
}

pub(super) async fn query(global: &GlobalArgs, args: QueryArgs) -> Result<()> {
    let target = settings::target(global, &args.target).await?;
    let engine = engine(&args.engine)?;
    let sink = ops::open_target(&target, &engine).hint("ask the database itself, by its own client")?;
    let at = args.at.as_deref().map(parse_at).transpose()?;
    let querier = Querier::open(&sink, &engine, at).await?;
    let statements = match args.sql.as_deref() {
        None if std::io::stdin().is_terminal() => {
            return at_terminal(querier, args).await;
        }
        None | Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).or_fail(Kind::Io, "Standard input cannot be read")?;
            words::statements(&text)
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
        return to_file(querier.run(statement).await?, args.output, path).await;
    }
    if args.output == QueryOutput::Parquet && std::io::stdout().is_terminal() {
        return Err(
            Error::new(Kind::Usage, "Parquet is not for terminals").hint("name a file with --to, or send it to one with `>`")
        );
    }
    for statement in &statements {
        write_answer(querier.run(statement).await?, args.output, &mut StandardOutput).await?;
    }
    Ok(())
}

#[cfg(feature = "prompt")]
async fn at_terminal(querier: Querier, args: QueryArgs) -> Result<()> {
    super::prompt::prompt(querier, args.output, settings::state_dir(args.state.state_dir)).await
}

#[cfg(not(feature = "prompt"))]
async fn at_terminal(_querier: Querier, _args: QueryArgs) -> Result<()> {
    let hint =
        "give it as argument or on standard input; `cargo install --path . --features prompt` makes a program with a prompt";
    Err(Error::new(Kind::Usage, "There is no statement").hint(hint))
}

/// The whole file or nothing of it.
async fn to_file(answer: Answer, form: QueryOutput, path: &Path) -> Result<()> {
    let failed = || format!("The answer cannot be written: {}", path.display());
    let file = file_beside(path).or_fail(Kind::Io, failed())?;
    let mut writer = std::io::BufWriter::new(file);
    write_answer(answer, form, &mut writer).await?;
    let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error).or_fail(Kind::Io, failed())?;
    file.persist(path).map(drop).or_fail(Kind::Io, failed())
}

/// A version by its number, or a time.
pub(super) fn parse_at(text: &str) -> Result<At> {
    match text.parse() {
        Ok(version) => Ok(At::Version(version)),
        Err(_) => {
            let moment = super::iso::parse_moment(text);
            let moment = moment.map_err(|_| {
                Error::new(Kind::Usage, "--at is neither a version nor a time").hint("write it as 12 or 2026-01-31T09:30:00Z")
            })?;
            Ok(At::Time(moment.at))
        }
    }
}

/// Runs a query and prints a table.
#[cfg(feature = "demo")]
pub(super) async fn print_query(
    sink: &std::sync::Arc<crate::sink::delta::DeltaSink>,
    engine: &crate::stage::Engine,
    sql: &str,
) -> Result<()> {
    let answer = ops::query_at(sink, engine, sql, None).await?;
    write_answer(answer, QueryOutput::Table, &mut StandardOutput).await
}

/// A table needs its widest cell first, so its answer is collected; the other forms stream.
pub(super) async fn write_answer(answer: Answer, form: QueryOutput, to: &mut (dyn Write + Send)) -> Result<()> {
    let Answer { schema, mut batches } = answer;
    let failed = "The answer cannot be written";
    let query_failed = "The query failed";
    match form {
        QueryOutput::Table => {
            let rows: Vec<RecordBatch> = batches.try_collect().await.or_fail(Kind::Target, query_failed)?;
            to.write_all(table_text(&schema, &rows)?.as_bytes()).or_fail(Kind::Io, failed)?;
        }
        QueryOutput::Csv => {
            let unfit = "The answer cannot be written as CSV (nested columns: use --output json, or pick their members)";
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(&mut *to);
            writer.write(&RecordBatch::new_empty(schema)).or_fail(Kind::Unsupported, unfit)?;
            while let Some(batch) = batches.try_next().await.or_fail(Kind::Target, query_failed)? {
                writer.write(&batch).or_fail(Kind::Unsupported, unfit)?;
            }
        }
        QueryOutput::Json => {
            let mut writer = arrow::json::LineDelimitedWriter::new(&mut *to);
            while let Some(batch) = batches.try_next().await.or_fail(Kind::Target, query_failed)? {
                writer.write(&batch).or_fail(Kind::Data, "The answer cannot be written as JSON")?;
            }
            writer.finish().or_fail(Kind::Data, "The answer cannot be written as JSON")?;
        }
        QueryOutput::Parquet => {
            let compression = Compression::ZSTD(ZstdLevel::default());
            let properties = WriterProperties::builder().set_compression(compression).build();
            let unfit = "The answer cannot be written as Parquet";
            let writer = ArrowWriter::try_new(&mut *to, schema, Some(properties));
            let mut writer = writer.or_fail(Kind::Unsupported, unfit)?;
            while let Some(batch) = batches.try_next().await.or_fail(Kind::Target, query_failed)? {
                writer.write(&batch).or_fail(Kind::Io, unfit)?;
            }
            writer.close().or_fail(Kind::Io, unfit)?;
        }
    }
    to.flush().or_fail(Kind::Io, failed)
}

fn table_text(schema: &SchemaRef, rows: &[RecordBatch]) -> Result<String> {
    let options = arrow::util::display::FormatOptions::default().with_null("NULL");
    let rows = if rows.is_empty() { vec![RecordBatch::new_empty(schema.clone())] } else { rows.to_vec() };
    let table = arrow::util::pretty::pretty_format_batches_with_options(&rows, &options);
    let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
    let rows = if count == 1 { "row" } else { "rows" };
    Ok(format!("{}\n{count} {rows}\n", table.or_fail(Kind::Data, "The answer cannot be shown as a table")?))
}

#[cfg(feature = "prompt")]
/// Columns of a table, one a line.
pub(super) fn columns_text(schema: &Schema) -> String {
    let widest = schema.fields().iter().map(|field| field.name().chars().count()).max().unwrap_or(0);
    let line = |field: &arrow::datatypes::FieldRef| {
        let null = if field.is_nullable() { "" } else { "  not null" };
        format!("{:<widest$}  {}{null}\n", field.name(), field.data_type())
    };
    schema.fields().iter().map(line).collect()
}
