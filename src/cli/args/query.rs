//! `status` and `query`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::args::target::{EngineArgs, StateArgs, TargetArgs};
use crate::cli::values::choices::choice;
use crate::cli::values::duration::parse_duration;
use crate::ops::Freshness;

/// Format of the output of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum OutputFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daplake status --target ./lake\n  daplake status --target ./lake --state behind,failing\n  daplake status --target ./lake --fail-if behind\n  daplake status --target ./lake --html status.html\n\nA table is current, behind (older than --current-for) or failing (the last run that tried it failed). Runs and failures come from the state folder of the machine that ran them. The growth of lake tables comes from their logs, the growth of databases from runs and earlier calls of this command.\n\nExit codes: 0 success; 2 wrong usage; 5 the status is unknown, or the condition of --fail-if holds."
)]
pub(in crate::cli) struct StatusArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    /// Comma-separated namespaces [default: all].
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE")]
    pub(in crate::cli) namespace: Vec<String>,
    /// Comma-separated tables or patterns, such as 'user*' [default: all].
    #[arg(long, value_delimiter = ',', value_name = "TABLE")]
    pub(in crate::cli) table: Vec<String>,
    /// Show only tables in these comma-separated states [default: all].
    ///
    /// The totals and --fail-if still cover all selected tables.
    #[arg(long, value_delimiter = ',', value_parser = choice::<Freshness>(), value_name = "STATE")]
    pub(in crate::cli) state: Vec<Freshness>,
    /// For monitoring: exit with code 5 if this condition holds.
    ///
    /// `failing`: a table is failing, or the last run could not start. `behind`: also if a table is behind, or if there are no tables.
    #[arg(long, value_enum, value_name = "CONDITION")]
    pub(in crate::cli) fail_if: Option<FailIf>,
    /// On a terminal: refresh the output until Ctrl-C.
    #[arg(long, conflicts_with_all = ["fail_if", "output"])]
    pub(in crate::cli) watch: bool,
    /// With --watch: refresh interval.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_duration, hide_short_help = true)]
    pub(in crate::cli) interval: Duration,
    /// Format of the output.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT")]
    pub(in crate::cli) output: OutputFormat,
    /// Write an HTML page with freshness, failures, growth, runs and a section for each table to this file.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) html: Option<PathBuf>,
    /// Age at which the data of a table counts as behind.
    #[arg(long, default_value = "12h", value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) current_for: Duration,
    /// Maximum number of runs to show, newest first [default: 5, with --html 20].
    #[arg(long, value_name = "N")]
    pub(in crate::cli) runs: Option<usize>,
    /// Maximum number of earlier loads per table in --output json and --html [default: 0, with --html 100].
    #[arg(long, value_name = "N")]
    pub(in crate::cli) past: Option<usize>,
    #[command(flatten)]
    pub(in crate::cli) folders: StateArgs,
}

/// When `status` fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum FailIf {
    Behind,
    Failing,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  daplake query --target ./lake \"SELECT workflow_state, count(*) FROM canvas.users GROUP BY 1\"\n  daplake query --target ./lake --output-file users.parquet \"SELECT id, name FROM users\"\n  daplake query --target ./lake          (a prompt, with the feature `prompt`)"
)]
pub(in crate::cli) struct QueryArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    /// SQL statement; without it, or with `-`, statements are read from standard input.
    ///
    /// Tables are named namespace.table; the namespace defaults to `canvas`. Builds with the feature `prompt` start a prompt on a
    /// terminal.
    pub(in crate::cli) sql: Option<String>,
    /// Read the tables as of a version (see `daplake history`) or a time, such as 2026-01-31T09:30:00Z.
    #[arg(long, value_name = "VERSION|TIME")]
    pub(in crate::cli) at: Option<String>,
    /// Format of the result [default: by the extension of --output-file, or else `table`].
    ///
    /// `json` is one object per line, `arrow` an Arrow IPC file, `arrow-stream` an Arrow IPC stream for pipes.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(in crate::cli) output: Option<QueryOutput>,
    /// Write the result to this file: .csv, .json (one array), .jsonl, .parquet, .arrow, .arrows or .txt.
    ///
    /// The extension selects the format. The file appears only when it is complete.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) output_file: Option<PathBuf>,
    /// Maximum number of rows to write; 0 means all [default: 40 for a table on a terminal, or else all].
    #[arg(long, value_name = "N")]
    pub(in crate::cli) limit: Option<usize>,
    #[command(flatten)]
    pub(in crate::cli) state: StateArgs,
    #[command(flatten)]
    pub(in crate::cli) engine: EngineArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum QueryOutput {
    Table,
    Csv,
    #[value(alias = "jsonl")]
    Json,
    Parquet,
    Arrow,
    ArrowStream,
}
