//! `init` and `check`.

use std::path::PathBuf;

use clap::Args;

#[cfg(feature = "sql")]
use crate::cli::args::database::DatabaseArgs;
use crate::cli::args::headings::OUTPUT;
use crate::cli::args::lake::LakeArgs;
use crate::cli::args::query::OutputFormat;
use crate::cli::args::selection::{SelectionArgs, TableArgs};
use crate::cli::args::sync::NotifyArgs;
use crate::cli::args::target::{EngineArgs, StateArgs, TargetArgs};

#[derive(Debug, Args)]
#[command(
    after_help = "Only you can read the file (mode 0600). It contains no secrets, only where to find them. An existing file is not overwritten.\n\nExamples:\n  daplake init --target ./lake\n  daplake init --target s3://bucket/canvas --name lake --namespace canvas,canvas_logs --secret-file /run/secrets/dap\n  daplake check && daplake sync"
)]
pub(in crate::cli) struct InitArgs {
    /// Where to keep the tables: a folder, or the URL of an object store or database.
    #[arg(long, default_value = "./lake", value_name = "TARGET")]
    pub(in crate::cli) target: String,
    /// Name of the target.
    #[arg(long, default_value = "lake", value_name = "NAME", value_parser = parse_name)]
    pub(in crate::cli) name: String,
    /// Namespaces: a comma list, or `all`.
    #[arg(long, value_delimiter = ',', default_value = "canvas", value_name = "NAMESPACE")]
    pub(in crate::cli) namespace: Vec<String>,
    /// Tables: `all`, or a comma list of names and patterns.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "TABLE")]
    pub(in crate::cli) table: Vec<String>,
    /// Tables to leave out: a comma list of names and patterns.
    #[arg(long, value_delimiter = ',', value_name = "TABLE")]
    pub(in crate::cli) exclude: Vec<String>,
    /// File that contains the client secret [default: refer to the variable DAP_CLIENT_SECRET].
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) secret_file: Option<PathBuf>,
}

fn parse_name(text: &str) -> Result<String, String> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    is_plain.then(|| text.to_owned()).ok_or_else(|| "use letters, digits, - and _".to_owned())
}

#[derive(Debug, Args)]
#[command(
    after_help = "Requests a token and lists of tables; starts no job. Targets are tested with the smallest part of a real load, which is undone: in a database, a schema and a table are created and dropped. Options for single tables are compared with the schemas. No notification is sent.\n\nExamples:\n  daplake check\n  daplake check --target ./lake\n\nExit codes: 0 all checks passed; 5 at least one failed."
)]
pub(in crate::cli) struct CheckArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    #[command(flatten)]
    pub(in crate::cli) selection: SelectionArgs,
    #[command(flatten)]
    pub(in crate::cli) tables: TableArgs,
    #[command(flatten)]
    pub(in crate::cli) lake: LakeArgs,
    #[cfg(feature = "sql")]
    #[command(flatten)]
    pub(in crate::cli) database: DatabaseArgs,
    #[command(flatten)]
    pub(in crate::cli) notifications: NotifyArgs,
    /// Format of the output.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT", help_heading = OUTPUT)]
    pub(in crate::cli) output: OutputFormat,
    #[command(flatten, next_help_heading = OUTPUT)]
    pub(in crate::cli) state: StateArgs,
    #[command(flatten)]
    pub(in crate::cli) engine: EngineArgs,
}
