//! `init` and `check`.

use std::path::PathBuf;

use clap::Args;

#[cfg(feature = "sql")]
use crate::cli::args::database::DatabaseArgs;
use crate::cli::args::lake::LakeArgs;
use crate::cli::args::query::StatusOutput;
use crate::cli::args::selection::{SelectionArgs, TableArgs};
use crate::cli::args::sync::NotifyArgs;
use crate::cli::args::target::{EngineArgs, StateArgs, TargetArgs};

#[derive(Debug, Args)]
#[command(
    after_help = "The file is written for you alone (0600) and holds no secret, only where to find them. An existing file is never touched.\n\nExamples:\n  daplake init --target ./lake\n  daplake init --target s3://bucket/canvas --name lake --namespace canvas,canvas_logs --secret-file /run/secrets/dap\n  daplake check && daplake sync"
)]
pub(in crate::cli) struct InitArgs {
    /// Where the tables shall be kept: a folder, or the URL of an object store or a database.
    #[arg(long, default_value = "./lake", value_name = "TARGET")]
    pub(in crate::cli) target: String,
    /// A name for the target.
    #[arg(long, default_value = "lake", value_name = "NAME", value_parser = parse_name)]
    pub(in crate::cli) name: String,
    /// Namespaces, a comma list, or `all` that the account has.
    #[arg(long, value_delimiter = ',', default_value = "canvas", value_name = "NAMESPACE")]
    pub(in crate::cli) namespace: Vec<String>,
    /// Tables: `all`, a comma list, patterns with `*` and `?`.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "TABLE")]
    pub(in crate::cli) table: Vec<String>,
    /// Tables to leave out.
    #[arg(long, value_delimiter = ',', value_name = "TABLE")]
    pub(in crate::cli) exclude: Vec<String>,
    /// A file that holds the client secret [default: the variable DAP_CLIENT_SECRET is named].
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) secret_file: Option<PathBuf>,
}

fn parse_name(text: &str) -> Result<String, String> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    is_plain.then(|| text.to_owned()).ok_or_else(|| "use letters, digits, - and _".to_owned())
}

#[derive(Debug, Args)]
#[command(
    after_help = "The service is asked for a token and for lists of tables; no job is started. Targets are tried by the cheapest part of a real load, which leaves nothing behind; in a database, schemas and tables are made and taken back. Options for single tables are compared with the schemas. Nothing is sent to --notify.\n\nExit codes: 0 all is well; 5 something would fail."
)]
pub(in crate::cli) struct CheckArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    #[command(flatten)]
    pub(in crate::cli) selection: SelectionArgs,
    #[command(flatten)]
    pub(in crate::cli) engine: EngineArgs,
    #[command(flatten)]
    pub(in crate::cli) lake: LakeArgs,
    #[cfg(feature = "sql")]
    #[command(flatten)]
    pub(in crate::cli) database: DatabaseArgs,
    #[command(flatten)]
    pub(in crate::cli) tables: TableArgs,
    #[command(flatten)]
    pub(in crate::cli) notifications: NotifyArgs,
    #[command(flatten)]
    pub(in crate::cli) state: StateArgs,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t = StatusOutput::Text)]
    pub(in crate::cli) output: StatusOutput,
}
