//! `init`, `check` and `schedule`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

#[cfg(feature = "sql")]
use crate::cli::args::database::DatabaseArgs;
use crate::cli::args::headings::OUTPUT;
use crate::cli::args::lake::LakeArgs;
use crate::cli::args::query::OutputFormat;
use crate::cli::args::selection::{SelectionArgs, TableArgs};
use crate::cli::args::sync::NotifyArgs;
use crate::cli::args::target::{EngineArgs, StateArgs, TargetArgs};
use crate::cli::values::duration::parse_duration;

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
    /// Tables: `all`, or a comma-separated list of names and patterns.
    #[arg(long, value_delimiter = ',', default_value = "all", value_name = "TABLE")]
    pub(in crate::cli) table: Vec<String>,
    /// Tables to leave out: a comma-separated list of names and patterns.
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

#[derive(Debug, Clone, Args)]
#[command(
    after_help = "`install` needs a settings file (see `daplake init`). It prints every file that it writes and every program that it runs, and asks before it starts. Secrets are written neither to units and crontabs nor to command lines: the scheduled run reads the settings file, and a file with the variables of your shell that daplake uses (mode 0600). Run `install` again after such a variable has changed. `remove` deletes only what `install` created.\n\nExamples:\n  daplake schedule install --dry-run\n  daplake schedule install --yes\n  daplake schedule install --every 6h --system cron\n  daplake schedule status\n  daplake schedule remove --yes"
)]
pub(in crate::cli) struct ScheduledSyncArgs {
    /// What to do.
    #[arg(value_enum, value_name = "ACTION")]
    pub(in crate::cli) action: ScheduleAction,
    /// Scheduler of the operating system.
    ///
    /// `auto` is launchd on macOS and the Task Scheduler on Windows. Elsewhere it is a timer of your systemd user manager, or else
    /// your crontab. For `status` and `remove` it is every scheduler of this machine.
    #[arg(long, value_enum, default_value_t = SchedulerChoice::Auto, value_name = "SYSTEM")]
    pub(in crate::cli) system: SchedulerChoice,
    /// Time between two runs: a part of a day without remainder, such as 30m, 4h or 24h.
    #[arg(long = "every", id = "interval", default_value = "4h", value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) interval: Duration,
    /// Update only these targets of the settings file, as a comma list [default: all].
    #[arg(long = "to", id = "only", value_delimiter = ',', value_name = "NAME")]
    pub(in crate::cli) only: Vec<String>,
    /// Name of the schedule. With several names, a machine can have several schedules.
    #[arg(long, default_value = "daplake", value_name = "NAME", value_parser = parse_name)]
    pub(in crate::cli) name: String,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    pub(in crate::cli) yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ScheduleAction {
    /// Run `sync` regularly, or change how it is run.
    Install,
    /// Show what is installed, and when it runs next.
    Status,
    /// Remove what `install` created.
    Remove,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum SchedulerChoice {
    /// The usual one of this machine.
    Auto,
    /// A timer of your systemd user manager.
    Systemd,
    /// A launch agent of macOS.
    Launchd,
    /// A task of the Windows Task Scheduler.
    Windows,
    /// An entry of your crontab.
    Cron,
}
