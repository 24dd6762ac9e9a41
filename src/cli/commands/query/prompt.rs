//! The prompt of `query`: statements over several lines, history, completion of tables and columns, and commands such as `\\d`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use parking_lot::Mutex;
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
use crate::cli::terminal::output::{counted, note, out};
use crate::cli::terminal::report;
use crate::error::{Kind, Result, ResultExt};
use crate::ops::Querier;
use crate::sink::delta::At;

const HELP: &str = "Statements end with a semicolon and can span several lines. Tab completes tables and columns.\n\
    \\d           tables\n\
    \\d TABLE     columns of a table\n\
    \\o FORM      format of results: table, csv or json\n\
    \\at WHEN     read the tables as of a version or time; without WHEN, the current ones\n\
    \\q           quit (also Ctrl-D)\n";
const PROMPT: &str = "daplake> ";
/// Number of statements in the history.
const HISTORY_SIZE: usize = 1000;
/// Number of tables whose columns are read at the same time.
const AT_ONCE: usize = 4;

/// Names for completion.
#[derive(Debug, Default)]
struct Known {
    tables: Vec<String>,
    columns: Mutex<BTreeMap<String, Vec<String>>>,
}

/// Runs the prompt until the user quits.
pub(in crate::cli) async fn prompt(mut querier: Querier, mut writing: Writing, state_dir: Option<PathBuf>) -> Result<()> {
    let known =
        Arc::new(Known { tables: querier.tables().iter().map(ToString::to_string).collect(), columns: Mutex::default() });
    let reading = tokio::spawn(read_columns(querier.clone(), Arc::clone(&known)));
    let memory = state_dir.map(|folder| folder.join("query_history"));
    let failed = "The terminal cannot be used";
    let config =
        Config::builder().completion_type(CompletionType::List).max_history_size(HISTORY_SIZE).context(Kind::Io, failed)?;
    let mut history = MemHistory::with_config(&config.build());
    for statement in memory.as_deref().map(history_of).unwrap_or_default() {
        let _ = history.add(&statement);
    }
    let config = Config::builder().completion_type(CompletionType::List).build();
    let mut editor: Editor<Names, MemHistory> = Editor::with_history(config, history).context(Kind::Io, failed)?;
    editor.set_helper(Some(Names(known)));
    out(&format!("{}. \\? for help, \\q to quit.\n", counted(querier.tables().len() as u64, "table")))?;
    loop {
        // The editor blocks until a key is pressed, so it must not run on a thread of the runtime.
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
            && let Err(error) = append_to_history(memory, text)
        {
            tracing::warn!(file = %memory.display(), %error, "The history of statements cannot be saved");
        }
        let ended = tokio::select! {
            ended = Box::pin(execute(&mut querier, &mut writing, text)) => ended,
            _ = tokio::signal::ctrl_c() => { note("interrupted"); Ok(Next::Continue) }
        };
        match ended {
            Ok(Next::Continue) => {}
            Ok(Next::Quit) => break,
            Err(error) => report::error(&error),
        }
    }
    reading.abort();
    Ok(())
}

enum Next {
    Continue,
    Quit,
}

/// Runs statements, or a command of the prompt.
async fn execute(querier: &mut Querier, writing: &mut Writing, text: &str) -> Result<Next> {
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
        return Ok(Next::Continue);
    };
    let command = command.trim_end_matches(';').trim();
    let (name, rest) = command.split_once(char::is_whitespace).map_or((command, ""), |(name, rest)| (name, rest.trim()));
    match name {
        "q" | "quit" => return Ok(Next::Quit),
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
            _ => note("the formats are table, csv and json; for Parquet use `daplake query --output-file FILE.parquet`"),
        },
        "at" => {
            let at: Option<At> = if rest.is_empty() { None } else { Some(parse_at(rest)?) };
            *querier = querier.reopened(at).await?;
        }
        other => note(&format!("unknown command \\{other}; see \\?")),
    }
    Ok(Next::Continue)
}

/// Reads the columns of all tables in the background, so that a slow lake does not delay the first statement.
async fn read_columns(querier: Querier, known: Arc<Known>) {
    let querier = &querier;
    let read = |table: &String| {
        let table = table.clone();
        async move { (querier.columns(&table).await, table) }
    };
    let mut found = futures::stream::iter(&known.tables).map(read).buffer_unordered(AT_ONCE);
    while let Some((schema, table)) = found.next().await {
        // A table that cannot be read fails when it is queried.
        let Ok(schema) = schema else { continue };
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        known.columns.lock().insert(table, names);
    }
}

/// Statements of earlier prompts, oldest first. Invalid lines are skipped.
fn history_of(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<String> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let older = all.len().saturating_sub(HISTORY_SIZE);
    all[older..].to_vec()
}

/// Appends a statement to the history, which only the user can read: statements can contain personal data.
fn append_to_history(path: &Path, statement: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(format!("{}\n", serde_json::to_string(statement)?).as_bytes())
}

/// The editor's helper: completion, and whether a statement is complete.
struct Names(Arc<Known>);

impl Helper for Names {}
impl Highlighter for Names {}
impl Hinter for Names {
    type Hint = String;
}

impl Validator for Names {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let is_complete = completion::is_complete(context.input());
        Ok(if is_complete { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Completer for Names {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &rustyline::Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let columns = self.0.columns.lock();
        let Place { start, words } = completion::complete(line, at, &self.0.tables, &columns);
        let pair = |word: String| Pair { display: word.clone(), replacement: word };
        Ok((start, words.into_iter().map(pair).collect()))
    }
}
