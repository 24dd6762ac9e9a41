//! `status` and `query`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::args::target::{EngineArgs, StateArgs, TargetArgs};
use crate::cli::values::duration::parse_duration;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daplake status --target ./lake\n  daplake status --target ./lake --html status.html\n\nRuns, and the failures of tables, are known from the state folder of the machine that ran them; the growth of lake tables from the lake itself, that of a database from the runs and from earlier calls of this command."
)]
pub(in crate::cli) struct StatusArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    /// Only these namespaces.
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE")]
    pub(in crate::cli) namespace: Vec<String>,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = StatusOutput::Text)]
    pub(in crate::cli) output: StatusOutput,
    /// Writes a page for people to this file: freshness, growth, runs, errors. It needs nothing but a browser.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) html: Option<PathBuf>,
    /// Data older than this count as behind.
    #[arg(long, default_value = "12h", value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) current_for: Duration,
    /// Tells of so many runs, newest first [default: 5, for --html 20].
    #[arg(long, value_name = "N")]
    pub(in crate::cli) runs: Option<usize>,
    /// Tells of so many loads of each table's past [default: 0, for --html 100].
    #[arg(long, value_name = "N")]
    pub(in crate::cli) past: Option<usize>,
    #[command(flatten)]
    pub(in crate::cli) state: StateArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum StatusOutput {
    Text,
    Json,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daplake query --target ./lake \"SELECT workflow_state, count(*) FROM canvas.users GROUP BY 1\"\n  daplake query --target ./lake --output parquet --output-file users.parquet \"SELECT id, name FROM users\"\n  daplake query --target ./lake          (a prompt, where it is built in)"
)]
pub(in crate::cli) struct QueryArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    /// The statement. Tables are `namespace.table`; those of `canvas` also go by their bare names. `-` reads statements from standard
    /// input, as does no statement at all; on a terminal that begins a prompt, where it is built in.
    pub(in crate::cli) sql: Option<String>,
    /// Reads the tables as they were: a version of the log (see `daplake history`), or a time such as 2026-01-31T09:30:00Z.
    #[arg(long, value_name = "VERSION|TIME")]
    pub(in crate::cli) at: Option<String>,
    /// Form of the output: a table for people, CSV, JSON with one object per line, Parquet, or an Arrow file [default: by the ending of
    /// --output-file; else a table].
    #[arg(long, value_enum, value_name = "FORM")]
    pub(in crate::cli) output: Option<QueryOutput>,
    /// Writes the answer to this file, whole or not at all, in the form of its ending: .csv, .json (one array), .jsonl, .parquet,
    /// .arrow, .txt.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) output_file: Option<PathBuf>,
    /// Writes so many rows of the answer; 0 for all [default: 40 of a table on a terminal, else all].
    #[arg(long, value_name = "N")]
    pub(in crate::cli) limit: Option<usize>,
    #[command(flatten)]
    pub(in crate::cli) engine: EngineArgs,
    #[command(flatten)]
    pub(in crate::cli) state: StateArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum QueryOutput {
    Table,
    Csv,
    #[value(alias = "jsonl")]
    Json,
    Parquet,
    Arrow,
}
