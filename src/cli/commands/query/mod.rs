//! `query`: statements over the tables of a lake.

use std::io::{IsTerminal, Read};
use std::path::Path;

mod answer;
mod completion;
#[cfg(feature = "prompt")]
mod prompt;

use crate::cli::args::global::GlobalArgs;
use crate::cli::args::query::QueryArgs;
use crate::cli::commands::context;
#[cfg(feature = "demo")]
use crate::cli::commands::query::answer::Form;
use crate::cli::commands::query::answer::{Writing, parse_at, write_answer};
use crate::cli::commands::query::completion::statements;
#[cfg(feature = "prompt")]
use crate::cli::settings::paths::state_dir;
use crate::cli::terminal::output::{StandardOutput, file_beside};
#[cfg(feature = "demo")]
use crate::engine::Engine;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::ops::{self, Answer, Querier};
#[cfg(feature = "demo")]
use crate::sink::Lake;

/// Whether the command opens a prompt.
pub(in crate::cli) fn is_prompt(args: &QueryArgs) -> bool {
    args.sql.is_none() && std::io::stdin().is_terminal()
}

pub(in crate::cli) async fn query(global: &GlobalArgs, args: QueryArgs) -> Result<()> {
    let writing = Writing::new(&args)?;
    let target = context::target(global, &args.target).await?;
    let engine = context::engine(&args.engine)?;
    let lake = ops::open_lake(&target, &engine).hint("use the client of the database itself")?;
    let at = args.at.as_deref().map(parse_at).transpose()?;
    let querier = Querier::open(&lake, &engine, at).await?;
    let statements = match args.sql.as_deref() {
        None if std::io::stdin().is_terminal() => {
            return at_terminal(querier, writing, args).await;
        }
        None | Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context(Kind::Io, "Standard input cannot be read")?;
            statements(&text)
        }
        Some(sql) => vec![sql.to_owned()],
    };
    if statements.is_empty() {
        return Err(Error::new(Kind::Usage, "No statement was given").hint("give it as an argument or on standard input"));
    }
    if let Some(path) = &args.output_file {
        let [statement] = &statements[..] else {
            return Err(Error::new(Kind::Usage, "--output-file accepts the result of a single statement"));
        };
        return to_file(querier.run(statement).await?, writing, path).await;
    }
    for statement in &statements {
        write_answer(querier.run(statement).await?, writing, &mut StandardOutput::new()).await?;
    }
    Ok(())
}

#[cfg(feature = "prompt")]
async fn at_terminal(querier: Querier, writing: Writing, args: QueryArgs) -> Result<()> {
    prompt::prompt(querier, writing, state_dir(args.state.state_dir)).await
}

#[cfg(not(feature = "prompt"))]
async fn at_terminal(_querier: Querier, _writing: Writing, _args: QueryArgs) -> Result<()> {
    let hint = "give it as an argument or on standard input; this build has no prompt (feature `prompt`)";
    Err(Error::new(Kind::Usage, "No statement was given").hint(hint))
}

/// Writes the whole file, or nothing.
async fn to_file(answer: Answer, writing: Writing, path: &Path) -> Result<()> {
    let failed = || format!("The result cannot be written: {}", path.display());
    let file = file_beside(path).context(Kind::Io, failed())?;
    let mut writer = std::io::BufWriter::new(file);
    write_answer(answer, writing, &mut writer).await?;
    let file = writer.into_inner().map_err(std::io::IntoInnerError::into_error).context(Kind::Io, failed())?;
    file.persist(path).map(drop).context(Kind::Io, failed())
}

/// Runs a query and prints a table.
#[cfg(feature = "demo")]
pub(in crate::cli) async fn print_query(lake: &Lake, engine: &Engine, sql: &str) -> Result<()> {
    let answer = ops::query(lake, engine, sql).await?;
    write_answer(answer, Writing::whole(Form::Table), &mut StandardOutput::new()).await
}
