//! The commands of the official client: dispatch, subject of log lines, exit codes.

use std::path::Path;
use std::process::ExitCode;

use crate::cli::args::Command;
use crate::cli::args::global::GlobalArgs;
#[cfg(feature = "sql")]
use crate::cli::commands::database;
use crate::cli::commands::{downloads, schema};
use crate::cli::terminal::console::Console;
use crate::cli::{exit, signals};
use crate::error::{Error, Kind};
use crate::model::Window;
#[cfg(feature = "sql")]
use crate::ops::Precondition;

/// Namespace and tables of a command as given, for log lines. `(None, None)` for commands that the official client does not have.
pub(in crate::cli) fn subject(command: &Command) -> (Option<&str>, Option<&str>) {
    match command {
        Command::List(args) => (Some(&args.namespace.namespace), None),
        Command::Schema(args) if !args.prints() => (Some(&args.namespace.namespace), Some(&args.tables.table)),
        Command::Snapshot(args) => (Some(&args.download.namespace.namespace), Some(&args.download.tables.table)),
        Command::Incremental(args) => (Some(&args.download.namespace.namespace), Some(&args.download.tables.table)),
        #[cfg(feature = "sql")]
        Command::Initdb(args) => (Some(&args.namespace.namespace), Some(&args.tables.table)),
        #[cfg(feature = "sql")]
        Command::Syncdb(args) => (Some(&args.load.namespace.namespace), Some(&args.load.tables.table)),
        #[cfg(feature = "sql")]
        Command::Dropdb(args) => (Some(&args.namespace.namespace), Some(&args.tables.table)),
        #[cfg(feature = "sql")]
        Command::Listdb(args) => (Some(&args.namespace.namespace), None),
        _ => (None, None),
    }
}

/// The folder to which a command writes.
pub(in crate::cli) fn output_folder(command: &Command) -> Option<&Path> {
    match command {
        Command::Schema(args) if !args.prints() => Some(&args.output.output_directory),
        Command::Snapshot(args) => Some(&args.download.output.output_directory),
        Command::Incremental(args) => Some(&args.download.output.output_directory),
        _ => None,
    }
}

/// Runs a command. Everything is printed to the console; the result is the exit code.
pub(in crate::cli) async fn run(global: &GlobalArgs, command: Command) -> ExitCode {
    let console = Console::new(global);
    let ended = match command {
        Command::List(args) => downloads::list(global, console, args).await,
        Command::Schema(args) => schema::schema(global, console, args).await,
        Command::Snapshot(args) => downloads::download(global, console, args.download, Window::Snapshot, "Snapshot of").await,
        Command::Incremental(args) => downloads::incremental(global, console, args).await,
        #[cfg(feature = "sql")]
        Command::Initdb(args) => database::load(global, console, args, Precondition::Absent).await,
        #[cfg(feature = "sql")]
        Command::Syncdb(args) => {
            let precondition = if args.init_missing { Precondition::Nothing } else { Precondition::Present };
            database::load(global, console, args.load, precondition).await
        }
        #[cfg(feature = "sql")]
        Command::Dropdb(args) => database::drop(console, args).await,
        #[cfg(feature = "sql")]
        Command::Listdb(args) => database::list(global, console, args).await,
        _ => Err(Error::new(Kind::Bug, "The command is not one of the official client")),
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            // If the error cannot be printed, the exit code remains.
            let _ = console.error(&error);
            match error.kind() {
                Kind::Cancelled if signals::is_asked() => signals::exit_code(),
                _ => exit::code(&error),
            }
        }
    }
}
