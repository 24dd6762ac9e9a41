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

use clap::builder::Resettable;
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
use crate::cli::args::setup::{CheckArgs, InitArgs};
#[cfg(feature = "lake")]
use crate::cli::args::sync::SyncArgs;

/// What `--version` says under the name `dap`: scripts look for the version of the official client that we stand in for.
const DAP_VERSION: &str = "2.3.1";

/// daplake: keeps a copy of your DAP (Canvas Data 2) tables right.
#[derive(Debug, Parser)]
#[command(name = "daplake", version, about, long_about = None, max_term_width = 110, disable_version_flag = true)]
#[command(
    after_help = "First steps, without an account:  daplake demo\nWith an API key:  DAP_CLIENT_ID=... DAP_CLIENT_SECRET=... daplake sync --target ./lake --table accounts,users\nAll commands of the official client `dap` work as they do there, also through a link of that name."
)]
pub(in crate::cli) struct Cli {
    #[command(flatten)]
    pub(in crate::cli) global: GlobalArgs,
    /// Prints the version.
    #[arg(long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    pub(in crate::cli) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Write a settings file to begin with.
    #[cfg(feature = "lake")]
    Init(InitArgs),
    /// Try credentials, targets, folders and the clock without changing anything.
    #[cfg(feature = "lake")]
    Check(Box<CheckArgs>),
    /// Create or update tables at a target.
    #[cfg(feature = "lake")]
    Sync(Box<SyncArgs>),
    /// Show what a target holds: rows, data as of, age, schema version, files, bytes.
    #[cfg(feature = "lake")]
    Status(StatusArgs),
    /// Run SQL over the tables of a target.
    #[cfg(feature = "lake")]
    Query(QueryArgs),
    /// Merge small files of lake tables and drop rows that are marked as deleted.
    #[cfg(feature = "lake")]
    Optimize(OptimizeArgs),
    /// Remove files of lake tables that are no longer needed.
    #[cfg(feature = "lake")]
    Vacuum(VacuumArgs),
    /// Compare lake tables with fresh snapshots and name the keys that differ.
    #[cfg(feature = "lake")]
    Verify(VerifyArgs),
    /// Show what happened to a lake table, commit by commit.
    #[cfg(feature = "lake")]
    History(HistoryArgs),
    /// Download the present state of tables as files.
    Snapshot(SnapshotArgs),
    /// Download the changes of tables since a time as files.
    Incremental(IncrementalArgs),
    /// List the tables of a namespace.
    List(ListArgs),
    /// Load tables into a database for the first time.
    #[cfg(feature = "sql")]
    Initdb(DbLoadArgs),
    /// Bring tables of a database up to date.
    #[cfg(feature = "sql")]
    Syncdb(SyncdbArgs),
    /// Remove tables from a database.
    #[cfg(feature = "sql")]
    Dropdb(DropdbArgs),
    /// List what a database holds of a namespace.
    #[cfg(feature = "sql")]
    Listdb(ListdbArgs),
    /// Save the schemas of tables as JSON files.
    Schema(SchemaArgs),
    /// Try everything with a made-up school: no account, no network.
    #[cfg(all(feature = "lake", feature = "demo"))]
    Demo(DemoArgs),
    /// Run the embedded DAP server alone.
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
    /// The options for single tables.
    pub(in crate::cli) fn table_args(&mut self) -> Option<&mut TableArgs> {
        match self {
            Command::Sync(args) => Some(&mut args.tables),
            Command::Check(args) => Some(&mut args.tables),
            _ => None,
        }
    }

    /// The address of the target, as it was given.
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

/// The definition of the command line, as it is called here and now: under which name, and with which variables. An empty
/// variable counts as unset.
pub(in crate::cli) fn definition(name: &'static str) -> clap::Command {
    let version = if name == "dap" { DAP_VERSION } else { env!("CARGO_PKG_VERSION") };
    // As in the official client, the last of several values of an option counts.
    Cli::command()
        .name(name)
        .bin_name(name)
        .version(version)
        .args_override_self(true)
        .mut_args(without_empty)
        .mut_subcommands(|command| command.args_override_self(true).mut_args(without_empty))
}

fn without_empty(arg: Arg) -> Arg {
    let is_empty = arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
    if is_empty { arg.env(Resettable::<clap::builder::OsStr>::Reset) } else { arg }
}
