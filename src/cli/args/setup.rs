//! `init`, `check` and `schedule`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

#[cfg(feature = "sql")]
use crate::cli::args::database::DatabaseArgs;
use crate::cli::args::headings::OUTPUT;
use crate::cli::args::lake::{CatalogArgs, LakeArgs};
use crate::cli::args::query::OutputFormat;
use crate::cli::args::selection::{SelectionArgs, TableArgs};
use crate::cli::args::sync::NotifyArgs;
use crate::cli::args::target::{EngineArgs, StateArgs, TargetArgs};
use crate::cli::values::choices::choice;
use crate::cli::values::duration::parse_duration;
use crate::schema::LakeFormat;

#[derive(Debug, Args)]
#[command(
    after_help = "On a terminal, `init` asks for everything that no option sets: the API key, the tables, the target and the schedule. It tests each answer, shows the file, and asks before it writes anything. With --yes, or without a terminal, it asks no questions and uses the options.\n\nOnly you can read the file (mode 0600). It refers to secrets but contains none. An existing file is replaced only if you agree.\n\nExamples:\n  daplake init\n  daplake init --yes --target ./lake\n  daplake init --yes --target s3://bucket/canvas --name lake --namespace canvas,canvas_logs --secret-file /run/secrets/dap\n  daplake init --yes --credential-command 'pass show daplake' --every 4h"
)]
pub(in crate::cli) struct InitArgs {
    /// Location of the tables: a folder, or the URL of an object store or database [default: ./lake].
    #[arg(long, value_name = "TARGET")]
    pub(in crate::cli) target: Option<String>,
    /// Format of the tables in a folder or object store [default: delta].
    #[arg(long, value_parser = choice::<LakeFormat>(), value_name = "FORMAT")]
    pub(in crate::cli) format: Option<LakeFormat>,
    /// Name of the target.
    #[arg(long, default_value = "lake", value_name = "NAME", value_parser = parse_name)]
    pub(in crate::cli) name: String,
    /// Comma-separated namespaces, or `all` [default: canvas].
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACE")]
    pub(in crate::cli) namespace: Vec<String>,
    /// Comma-separated tables or patterns, or `all` [default: all].
    #[arg(long, value_delimiter = ',', value_name = "TABLE")]
    pub(in crate::cli) table: Vec<String>,
    /// Comma-separated tables or patterns to exclude.
    #[arg(long, value_delimiter = ',', value_name = "TABLE")]
    pub(in crate::cli) exclude: Vec<String>,
    /// File with the client secret [default: use the variable DAP_CLIENT_SECRET].
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) secret_file: Option<PathBuf>,
    /// Command that prints the client secret on its first line, such as that of a password manager.
    ///
    /// It is split at spaces outside of quotes, and runs without a shell.
    #[arg(long, value_name = "COMMAND", conflicts_with = "secret_file")]
    pub(in crate::cli) credential_command: Option<String>,
    /// Install a schedule with this time between two runs, such as 4h (see `daplake schedule`).
    #[arg(long = "every", value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) interval: Option<Duration>,
    /// Do not ask questions: use the options and their defaults. Existing files are not overwritten.
    #[arg(long)]
    pub(in crate::cli) yes: bool,
}

fn parse_name(text: &str) -> Result<String, String> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    is_plain.then(|| text.to_owned()).ok_or_else(|| "use letters, digits, - and _".to_owned())
}

#[derive(Debug, Args)]
#[command(
    after_help = "Requests a token and the lists of tables, but starts no job. Each target is tested with a minimal load that is rolled back: in a database, a schema and a table are created and dropped. The schema and the options of each selected table are compared with what the target supports. Existing tables must have been created by daplake, and it must have the right to change them; they stay as they are. No notification is sent.\n\nExamples:\n  daplake check\n  daplake check --target ./lake\n\nExit codes: 0 all checks passed; 5 at least one failed."
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
    #[command(flatten)]
    pub(in crate::cli) catalog: CatalogArgs,
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
    after_help = "`install` needs a settings file (see `daplake init`). It prints every file it will write and every program it will run, and asks for confirmation. Secrets appear neither in units and crontabs nor on command lines: the scheduled run reads the settings file, and a file (mode 0600) with the variables of your shell that daplake uses. Run `install` again when such a variable changes. `remove` deletes only what `install` created. `status` ends with exit code 5 if no schedule is installed.\n\nExamples:\n  daplake schedule install --dry-run\n  daplake schedule install --yes\n  daplake schedule install --every 6h --system cron\n  daplake schedule status\n  daplake schedule remove --yes"
)]
pub(in crate::cli) struct ScheduledSyncArgs {
    /// Action.
    #[arg(value_enum, value_name = "ACTION")]
    pub(in crate::cli) action: ScheduleAction,
    /// Scheduler to use.
    ///
    /// `auto` selects launchd on macOS, the Task Scheduler on Windows, and elsewhere a timer of your systemd user manager, or your
    /// crontab if there is none. With `status` and `remove` it selects every scheduler of this machine.
    #[arg(long, value_enum, default_value_t = SchedulerChoice::Auto, value_name = "SYSTEM")]
    pub(in crate::cli) system: SchedulerChoice,
    /// Time between two runs; it must divide a day evenly, such as 30m, 4h or 24h.
    #[arg(long = "every", id = "interval", default_value = "4h", value_name = "TIME", value_parser = parse_duration)]
    pub(in crate::cli) interval: Duration,
    /// Comma-separated names of the targets to update [default: all targets of the settings file].
    #[arg(long = "to", id = "only", value_delimiter = ',', value_name = "NAME")]
    pub(in crate::cli) only: Vec<String>,
    /// Name of the schedule, so that a machine can have several.
    #[arg(long, default_value = "daplake", value_name = "NAME", value_parser = parse_name)]
    pub(in crate::cli) name: String,
    /// Print the steps without carrying them out.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    pub(in crate::cli) yes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ScheduleAction {
    /// Create the schedule, or change it.
    Install,
    /// Show the schedule and the time of its next run.
    Status,
    /// Remove the schedule.
    Remove,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum SchedulerChoice {
    /// The default scheduler of this machine.
    Auto,
    /// A timer of your systemd user manager.
    Systemd,
    /// A macOS launch agent.
    Launchd,
    /// A task in the Windows Task Scheduler.
    Windows,
    /// An entry in your crontab.
    Cron,
}
