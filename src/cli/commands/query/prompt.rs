//! The prompt of `query`: statements over several lines, history, completion of tables and columns, and a few commands of its own.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::StreamExt;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::{History, MemHistory};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Editor, Helper};

use crate::cli::commands::query::answer::{Form, Writing, columns_text, parse_at, write_answer};
use crate::cli::commands::query::completion;
use crate::cli::commands::query::completion::Place;
use crate::cli::terminal::output::{note, out};
use crate::cli::terminal::report;
use crate::error::{Kind, Result, ResultExt};
use crate::ops::Querier;
use crate::sink::delta::At;

const HELP: &str = "Statements end with a semicolon and may go over several lines. Tab completes tables and columns.\n\
    \\d           tables\n\
    \\d TABLE     columns of a table\n\
    \\o FORM      answers as table, csv or json\n\
    \\at WHEN     the tables as they were at a version or a time; without WHEN as they are\n\
    \\q           the end (also ctrl-d)\n";
const PROMPT: &str = "daplake> ";
/// Statements that are remembered.
const REMEMBERED: usize = 1000;
/// Tables whose columns are read at once.
const AT_ONCE: usize = 4;

/// What is known of names, for completion.
#[derive(Debug, Default)]
struct Known {
    tables: Vec<String>,
    columns: Mutex<BTreeMap<String, Vec<String>>>,
}

/// Runs the prompt until its end.
pub(in crate::cli) async fn prompt(mut querier: Querier, mut writing: Writing, state_dir: Option<PathBuf>) -> Result<()> {
    let known =
        Arc::new(Known { tables: querier.tables().iter().map(ToString::to_string).collect(), columns: Mutex::default() });
    let reading = tokio::spawn(read_columns(querier.clone(), Arc::clone(&known)));
    let memory = state_dir.map(|folder| folder.join("query_history"));
    let failed = "The terminal cannot be used";
    let config =
        Config::builder().completion_type(CompletionType::List).max_history_size(REMEMBERED).context(Kind::Io, failed)?;
    let mut history = MemHistory::with_config(&config.build());
    for statement in memory.as_deref().map(remembered).unwrap_or_default() {
        let _ = history.add(&statement);
    }
    let config = Config::builder().completion_type(CompletionType::List).build();
    let mut editor: Editor<Names, MemHistory> = Editor::with_history(config, history).context(Kind::Io, failed)?;
    editor.set_helper(Some(Names(known)));
    out(&format!("{} tables. \\? for help, \\q for the end.\n", querier.tables().len()))?;
    loop {
        // The editor waits for keys and must not hold up the runtime.
        let (back, line) = tokio::task::spawn_blocking(move || {
            let line = editor.readline(PROMPT);
            (editor, line)
        })
        .await
        .context(Kind::Bug, "The editor ended unexpectedly")?;
        editor = back;
        let line = match line {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).context(Kind::Io, failed),
        };
        let text = line.trim();
        if text.is_empty() {
            continue;
        }
        let _ = editor.add_history_entry(text);
        if let Some(memory) = &memory
            && let Err(error) = remember(memory, text)
        {
            tracing::warn!(file = %memory.display(), %error, "The history of statements cannot be written");
        }
        let ended = tokio::select! {
            ended = Box::pin(obey(&mut querier, &mut writing, text)) => ended,
            _ = tokio::signal::ctrl_c() => { note("interrupted"); Ok(Next::Goes) }
        };
        match ended {
            Ok(Next::Goes) => {}
            Ok(Next::Ends) => break,
            Err(error) => report::error(&error),
        }
    }
    reading.abort();
    Ok(())
}

enum Next {
    Goes,
    Ends,
}

async fn obey(querier: &mut Querier, writing: &mut Writing, text: &str) -> Result<Next> {
    let Some(command) = text.strip_prefix('\\') else {
        for statement in completion::statements(text) {
            let begun = Instant::now();
            let answer = querier.run(&statement).await?;
            let mut bytes = Vec::new();
            write_answer(answer, *writing, &mut bytes).await?;
            out(&String::from_utf8_lossy(&bytes))?;
            if writing.form == Form::Table {
                out(&format!("in {:.3} s\n", begun.elapsed().as_secs_f64()))?;
            }
        }
        return Ok(Next::Goes);
    };
    let command = command.trim_end_matches(';').trim();
    let (name, rest) = command.split_once(char::is_whitespace).map_or((command, ""), |(name, rest)| (name, rest.trim()));
    match name {
        "q" | "quit" => return Ok(Next::Ends),
        "?" | "h" | "help" => out(HELP)?,
        "d" if rest.is_empty() => {
            let names: Vec<String> = querier.tables().iter().map(|table| format!("{table}\n")).collect();
            out(&names.concat())?;
        }
        "d" => out(&columns_text(querier.columns(rest).await?.as_ref()))?,
        "o" => match rest {
            "table" => writing.form = Form::Table,
            "csv" => writing.form = Form::Csv,
            "json" => writing.form = Form::JsonLines,
            _ => note("the forms are table, csv and json; for Parquet use `daplake query --output parquet --output-file FILE`"),
        },
        "at" => {
            let at: Option<At> = if rest.is_empty() { None } else { Some(parse_at(rest)?) };
            *querier = querier.reopened(at).await?;
        }
        other => note(&format!("there is no command \\{other}; see \\?")),
    }
    Ok(Next::Goes)
}

/// In the background: a lake far away must not hold up the first statement.
async fn read_columns(querier: Querier, known: Arc<Known>) {
    let querier = &querier;
    let read = |table: &String| {
        let table = table.clone();
        async move { (querier.columns(&table).await, table) }
    };
    let mut found = futures::stream::iter(&known.tables).map(read).buffer_unordered(AT_ONCE);
    while let Some((schema, table)) = found.next().await {
        // A table that cannot be read says so when it is asked for.
        let Ok(schema) = schema else { continue };
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        known.columns.lock().unwrap_or_else(PoisonError::into_inner).insert(table, names);
    }
}

/// Statements of earlier prompts, oldest first; lines that cannot be read are passed by.
fn remembered(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<String> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let older = all.len().saturating_sub(REMEMBERED);
    all[older..].to_vec()
}

/// Statements may hold what nobody else should read.
fn remember(path: &Path, statement: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(format!("{}\n", serde_json::to_string(statement)?).as_bytes())
}

/// What the editor asks while somebody types.
struct Names(Arc<Known>);

impl Helper for Names {}
impl Highlighter for Names {}
impl Hinter for Names {
    type Hint = String;
}

impl Validator for Names {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match completion::is_complete(context.input()) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

impl Completer for Names {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &rustyline::Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let columns = self.0.columns.lock().unwrap_or_else(PoisonError::into_inner);
        let Place { start, words } = completion::complete(line, at, &self.0.tables, &columns);
        let pair = |word: String| Pair { display: word.clone(), replacement: word };
        Ok((start, words.into_iter().map(pair).collect()))
    }
}
