//! The command line: arguments, settings, output, exit codes. It holds no logic that a library user would miss.

mod args;
mod exit;
#[cfg(feature = "lake")]
mod lake;
mod logging;
mod output;
mod report;
#[cfg(feature = "demo")]
mod school;
mod settings;

use std::process::ExitCode;

use clap::Parser;

use crate::error::{Error, Kind, Result, ResultExt};
use args::{Cli, Command};

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::error(&error);
            exit::code(&error)
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    logging::init(&cli.global)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().or_fail(Kind::Io, "The runtime cannot be started")?;
    let Cli { global, command } = cli;
    // For a server an interruption is the ordinary end.
    #[cfg(feature = "demo")]
    let serves = matches!(command, Command::Serve(_));
    #[cfg(not(feature = "demo"))]
    let serves = false;
    runtime.block_on(async move {
        // Dropping the work at an await is safe by design: every table is at its old or its new bookmark.
        tokio::select! {
            result = Box::pin(dispatch(&global, command)) => result,
            () = interrupted() => if serves { Ok(()) } else { Err(Error::new(Kind::Cancelled, "Interrupted; every table is as it was or up to date").hint("run the same command again to go on")) },
        }
    })
}

async fn dispatch(global: &args::GlobalArgs, command: Command) -> Result<()> {
    match command {
        #[cfg(feature = "lake")]
        Command::Sync(args) => lake::sync(global, args).await,
        #[cfg(feature = "lake")]
        Command::Status(args) => lake::status(args).await,
        #[cfg(feature = "lake")]
        Command::Query(args) => lake::query(args).await,
        #[cfg(all(feature = "lake", feature = "demo"))]
        Command::Demo(args) => school::demo(args).await,
        #[cfg(feature = "demo")]
        Command::Serve(args) => school::serve(args).await,
    }
}

/// Resolves at ctrl-c, and at SIGTERM where there is one.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    // Without a handler there is nothing to wait for.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
