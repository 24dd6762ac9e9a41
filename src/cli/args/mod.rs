//! The command line, for clap: commands, options, variables, help texts. It does not interpret values.

#[cfg(feature = "cluster")]
pub(in crate::cli) mod cluster;
pub(in crate::cli) mod completions;
#[cfg(feature = "sql")]
pub(in crate::cli) mod database;
#[cfg(feature = "demo")]
pub(in crate::cli) mod demo;
pub(in crate::cli) mod downloads;
pub(in crate::cli) mod global;
mod headings;
#[cfg(feature = "lake")]
pub(in crate::cli) mod lake;
#[cfg(feature = "lake")]
pub(in crate::cli) mod query;
pub(in crate::cli) mod schema;
pub(in crate::cli) mod selection;
#[cfg(feature = "lake")]
pub(in crate::cli) mod setup;
#[cfg(feature = "lake")]
pub(in crate::cli) mod sync;
#[cfg(feature = "lake")]
pub(in crate::cli) mod target;

use clap::builder::{OsStr, Resettable};
use clap::{Arg, CommandFactory, Parser, Subcommand};

#[cfg(feature = "cluster")]
use crate::cli::args::cluster::{ExecutorArgs, SchedulerArgs};
use crate::cli::args::completions::{CompletionsArgs, ManArgs};
#[cfg(feature = "sql")]
use crate::cli::args::database::{DbLoadArgs, DropdbArgs, ListdbArgs, SyncdbArgs};
#[cfg(all(feature = "lake", feature = "demo"))]
use crate::cli::args::demo::DemoArgs;
#[cfg(feature = "demo")]
use crate::cli::args::demo::ServeArgs;
use crate::cli::args::downloads::{IncrementalArgs, ListArgs, SnapshotArgs};
use crate::cli::args::global::GlobalArgs;
#[cfg(feature = "lake")]
use crate::cli::args::lake::{HistoryArgs, OptimizeArgs, VacuumArgs, VerifyArgs};
#[cfg(feature = "lake")]
use crate::cli::args::query::{QueryArgs, StatusArgs};
use crate::cli::args::schema::SchemaArgs;
#[cfg(feature = "lake")]
use crate::cli::args::selection::TableArgs;
#[cfg(feature = "lake")]
use crate::cli::args::setup::{CheckArgs, InitArgs, ScheduledSyncArgs};
#[cfg(feature = "lake")]
use crate::cli::args::sync::SyncArgs;

/// The version that `--version` prints under the name `dap`: scripts check the version of the official client, which daplake
/// replaces there.
const DAP_VERSION: &str = "2.3.1";

/// All settings of one run of the program, parsed and checked. The values come from the command line, else from the environment, else
/// from the settings file, else from the defaults (see `settings::resolve`).
#[derive(Debug, Parser)]
#[command(
    name = "daplake",
    version,
    about = "Copies your institution's DAP (Canvas Data 2) data into your own tables and keeps them up to date",
    long_about = None,
    max_term_width = 110,
    disable_version_flag = true
)]
#[command(
    after_help = "`daplake COMMAND -h` shows the main options of a command; `daplake --help` shows all options.",
    after_long_help = "First steps, without an account:  daplake demo\nWith an API key:  DAP_CLIENT_ID=... DAP_CLIENT_SECRET=... daplake sync --target ./lake --table accounts,users\nAll commands of the official client `dap` are here with the same options, also through a link named `dap`."
)]
pub(in crate::cli) struct Settings {
    #[command(flatten)]
    pub(in crate::cli) global: GlobalArgs,
    /// Print the version.
    #[arg(long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    pub(in crate::cli) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Write a commented settings file.
    #[cfg(feature = "lake")]
    Init(InitArgs),
    /// Test credentials, targets, folders and options without changing anything.
    #[cfg(feature = "lake")]
    Check(Box<CheckArgs>),
    /// Create or update the tables of a target.
    #[cfg(feature = "lake")]
    Sync(Box<SyncArgs>),
    /// Run `sync` regularly with the scheduler of this machine.
    #[cfg(feature = "lake")]
    Schedule(ScheduledSyncArgs),
    /// Show rows, age and size of the tables of a target.
    #[cfg(feature = "lake")]
    Status(StatusArgs),
    /// Run SQL over the tables of a lake.
    #[cfg(feature = "lake")]
    Query(QueryArgs),
    /// Compact small files of lake tables and purge deleted rows.
    #[cfg(feature = "lake")]
    Optimize(OptimizeArgs),
    /// Remove files that lake tables no longer need.
    #[cfg(feature = "lake")]
    Vacuum(VacuumArgs),
    /// Compare lake tables with the service and print the keys that differ.
    #[cfg(feature = "lake")]
    Verify(VerifyArgs),
    /// List the commits of a lake table.
    #[cfg(feature = "lake")]
    History(HistoryArgs),
    /// Download the current rows of tables as files.
    Snapshot(SnapshotArgs),
    /// Download the changes of tables since a given time as files.
    Incremental(IncrementalArgs),
    /// List the tables of a namespace.
    List(ListArgs),
    /// Load tables into a database for the first time.
    #[cfg(feature = "sql")]
    Initdb(DbLoadArgs),
    /// Update the tables of a database.
    #[cfg(feature = "sql")]
    Syncdb(SyncdbArgs),
    /// Drop tables of a database.
    #[cfg(feature = "sql")]
    Dropdb(DropdbArgs),
    /// List the tables of a namespace in a database.
    #[cfg(feature = "sql")]
    Listdb(ListdbArgs),
    /// Save or print the schemas of tables.
    Schema(SchemaArgs),
    /// Try daplake with generated data: no account, no network.
    #[cfg(all(feature = "lake", feature = "demo"))]
    Demo(DemoArgs),
    /// Run the demo's DAP server on its own.
    #[cfg(feature = "demo")]
    Serve(ServeArgs),
    /// Run the scheduler of a cluster.
    #[cfg(feature = "cluster")]
    Scheduler(SchedulerArgs),
    /// Run an executor of a cluster.
    #[cfg(feature = "cluster")]
    Executor(ExecutorArgs),
    /// Print the completion script of a shell.
    Completions(CompletionsArgs),
    /// Print a manual page.
    Man(ManArgs),
}

#[cfg(feature = "lake")]
impl Command {
    /// The options that apply to single tables.
    pub(in crate::cli) fn table_args(&mut self) -> Option<&mut TableArgs> {
        match self {
            Command::Sync(args) => Some(&mut args.tables),
            Command::Check(args) => Some(&mut args.tables),
            _ => None,
        }
    }

    /// The address of the target, as given.
    pub(in crate::cli) fn address(&self) -> Option<&str> {
        match self {
            Command::Check(args) => args.target.target.as_deref(),
            Command::Sync(args) => args.target.target.as_deref(),
            Command::Status(args) => args.target.target.as_deref(),
            Command::Query(args) => args.target.target.as_deref(),
            Command::Optimize(args) => args.target.target.as_deref(),
            Command::Vacuum(args) => args.target.target.as_deref(),
            Command::Verify(args) => args.target.target.as_deref(),
            Command::History(args) => args.target.target.as_deref(),
            Command::Schema(args) => args.ddl.target.as_deref().filter(|_| args.ddl.ddl.is_some()),
            #[cfg(feature = "sql")]
            Command::Initdb(args) => args.connection.address(),
            #[cfg(feature = "sql")]
            Command::Syncdb(args) => args.load.connection.address(),
            #[cfg(feature = "sql")]
            Command::Dropdb(args) => args.connection.address(),
            #[cfg(feature = "sql")]
            Command::Listdb(args) => args.connection.address(),
            _ => None,
        }
    }
}

/// The definition of the command line under a name. A variable that is set to an empty value counts as unset.
pub(in crate::cli) fn definition(name: &'static str) -> clap::Command {
    let version = if name == "dap" { DAP_VERSION } else { env!("CARGO_PKG_VERSION") };
    // As in the official client, the last value of a repeated option wins.
    Settings::command()
        .name(name)
        .bin_name(name)
        .version(version)
        .args_override_self(true)
        .mut_args(without_empty)
        .mut_subcommands(|command| short_and_long_help(command, name).args_override_self(true).mut_args(without_empty))
}

fn without_empty(arg: Arg) -> Arg {
    let is_empty = arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
    if is_empty { arg.env(Resettable::<OsStr>::Reset) } else { arg.hide_env_values(true) }
}

/// `-h` ends with an example and a reference to `--help`, which ends with all notes and examples.
fn short_and_long_help(command: clap::Command, name: &str) -> clap::Command {
    let Some(notes) = command.get_after_help().map(ToString::to_string) else { return command };
    let example = notes.split("\n\n").find(|part| part.starts_with("Example")).and_then(|part| part.lines().nth(1));
    let example = example.map_or(String::new(), |line| format!("Example:\n{line}\n\n"));
    let more = format!("{example}`{name} {} --help` shows all options, with notes and examples.", command.get_name());
    command.after_help(more).after_long_help(notes)
}
