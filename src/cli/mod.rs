//! The command line: arguments, settings, output, exit codes. It holds no logic that a library user would miss.

mod args;
mod commands;
mod exit;
mod observability;
mod settings;
mod signals;
mod terminal;
mod values;
mod version;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;

use crate::error::{Error, Kind, Result, ResultExt};
use args::global::GlobalArgs;
use args::{Cli, Command};
use observability::logging::{Audience, Subject};
use settings::resolve::{Resolved, Unresolved};
use signals::Catch;

/// What work on other threads may take to end tidily after the command itself has ended.
const LAST_WORK: Duration = Duration::from_secs(5);

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    #[cfg(unix)]
    raise_file_limit();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let name = version::program_name(&arguments);
    match settings::resolve::resolve(name, &arguments) {
        Ok(resolved) => {
            run(args::definition(name), resolved).unwrap_or_else(|error| exit::usage(error, &args::definition(name)))
        }
        Err(Unresolved::Usage(error)) => exit::usage(error, &args::definition(name)),
        Err(Unresolved::File(error)) => {
            observability::logging::init_for_failure(settings::resolve::logging_of(name, &arguments));
            terminal::report::error(&error);
            exit::wrong_settings()
        }
    }
}

/// Raises the limit of open files as far as the system allows: a shell of macOS starts programs with 256. Where that is refused, the limit
/// stays, and a run makes do with it.
#[cfg(unix)]
fn raise_file_limit() {
    const WANTED: u64 = 10_240;
    let _ = rlimit::increase_nofile_limit(WANTED);
}

/// The error is one of usage; everything else has been told.
fn run(mut definition: clap::Command, resolved: Resolved) -> Result<ExitCode, clap::Error> {
    let Resolved { runs, warnings } = resolved;
    let mut runs = runs.into_iter();
    let Some(Cli { global, command, .. }) = runs.next() else { return Ok(ExitCode::SUCCESS) };
    let more: Vec<Command> = runs.filter_map(|cli| cli.command).collect();
    // Nothing that costs time (threads, certificates, a runtime) before it is needed.
    let told = |done: Result<()>| match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::report::error(&error);
            exit::code(&error)
        }
    };
    let command = match command {
        None => return Ok(told(terminal::output::out(&definition.render_help().to_string()))),
        Some(Command::Completions(args)) => return Ok(told(commands::completions::completions(definition, &args))),
        Some(Command::Man(args)) => {
            return match commands::completions::man(definition, &args) {
                Ok(Ok(())) => Ok(ExitCode::SUCCESS),
                Ok(Err(usage)) => Err(usage),
                Err(error) => Ok(told(Err(error))),
            };
        }
        Some(command) => command,
    };
    let (namespace, table) = commands::drop_in::subject(&command);
    let is_drop_in = namespace.is_some();
    let audience = match (is_drop_in, global.non_interactive) {
        (true, false) => Audience::People,
        (true, true) => Audience::Scripts,
        (false, _) => Audience::Own,
    };
    let subject = Subject {
        namespace: namespace.map(str::to_owned),
        table: table.map(str::to_owned),
        client_id: global.client_id.clone(),
    };
    let mut unwritable = |option: &str, path: &Path, error: std::io::Error| {
        let message = format!("the path of '{option}' cannot be written to: {} ({error})", path.display());
        definition.error(ErrorKind::ValueValidation, message)
    };
    if let Some(folder) = commands::drop_in::output_folder(&command) {
        check_folder(folder).map_err(|error| unwritable("--output-directory", folder, error))?;
    }
    let file = match &global.logfile {
        Some(path) => Some(observability::logging::open(path).map_err(|error| unwritable("--logfile", path, error))?),
        None => None,
    };
    #[cfg(feature = "lake")]
    if matches!(&command, Command::Sync(args) if args.notifications.metrics_listen.is_some()) {
        observability::metrics::switch_on();
    }
    if let Err(error) = signals::listen(catch(&command)) {
        return Ok(told(Err(error)));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Ok(told(Err(error).context(Kind::Io, "The runtime cannot be started"))),
    };
    #[cfg(feature = "otel")]
    let telemetry = match &command {
        Command::Sync(_) => observability::otel::Telemetry::start(global.ca_bundle.as_deref(), runtime.handle()),
        _ => observability::otel::Telemetry::default(),
    };
    #[cfg(feature = "otel")]
    let listener = telemetry.layer();
    #[cfg(not(feature = "otel"))]
    let listener = None;
    observability::logging::init(&global, audience, file, subject, listener);
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    #[cfg(feature = "otel")]
    for warning in &telemetry.warnings {
        tracing::warn!(hint = warning.hint_text(), "{warning}");
    }
    let code = match is_drop_in {
        true => runtime.block_on(Box::pin(commands::drop_in::run(&global, command))),
        false => told(runtime.block_on(own(&global, command, more))),
    };
    #[cfg(feature = "otel")]
    telemetry.finish();
    if signals::is_asked() {
        // The command has ended and said how. Tasks that it has left behind may find a runtime without timers, where libraries panic;
        // nothing depends on them any more.
        std::panic::set_hook(Box::new(|_| {}));
    }
    runtime.shutdown_timeout(LAST_WORK);
    terminal::progress::finish();
    Ok(code)
}

/// Which signals a command handles.
fn catch(command: &Command) -> Catch {
    match command {
        // Any other signal ends the process at once, as it does the official client; what they have written can be continued.
        Command::Snapshot(_) | Command::Incremental(_) | Command::List(_) | Command::Schema(_) => Catch::Interrupt,
        #[cfg(feature = "sql")]
        Command::Dropdb(_) | Command::Listdb(_) => Catch::Interrupt,
        // At the prompt an interruption ends a statement, not the program.
        #[cfg(feature = "lake")]
        Command::Query(args) if commands::query::is_prompt(args) => Catch::AllButInterrupt,
        // It takes leave of its scheduler by itself.
        #[cfg(feature = "cluster")]
        Command::Executor(_) => Catch::Nothing,
        _ => Catch::All,
    }
}

/// A folder that is there must be one, and take files; one that is not there is made when it is needed.
fn check_folder(folder: &Path) -> std::io::Result<()> {
    match folder.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => tempfile::tempfile_in(folder).map(drop),
        Ok(_) => Err(std::io::ErrorKind::NotADirectory.into()),
    }
}

/// The commands that the official client does not have. `more`: the same command for further targets.
async fn own(global: &GlobalArgs, command: Command, more: Vec<Command>) -> Result<()> {
    #[cfg(feature = "lake")]
    if let Command::Sync(args) = command {
        // It has its own way to end.
        let more = more.into_iter().filter_map(|command| match command {
            Command::Sync(args) => Some(*args),
            _ => None,
        });
        let ended = Box::pin(commands::sync::sync(global, std::iter::once(*args).chain(more).collect())).await;
        terminal::progress::finish();
        return ended;
    }
    #[cfg(feature = "lake")]
    if let Command::Query(args) = command {
        return signals::interruptible(commands::query::query(global, args)).await;
    }
    // For a server an interruption is the ordinary end.
    #[cfg(feature = "demo")]
    let serves = matches!(command, Command::Serve(_));
    #[cfg(not(feature = "demo"))]
    let serves = false;
    #[cfg(feature = "cluster")]
    let serves = serves || matches!(command, Command::Scheduler(_));
    #[cfg(feature = "cluster")]
    if let Command::Executor(args) = &command {
        return commands::cluster::executor(global, args).await;
    }
    // Dropping the work at an await is safe by design: every table is at its old or its new bookmark.
    let ended = tokio::select! {
        result = Box::pin(dispatch(global, command, more)) => result,
        () = signals::asked(1) => match serves {
            true => Ok(()),
            false => Err(signals::cancelled()),
        },
    };
    terminal::progress::finish();
    ended
}

#[cfg_attr(not(feature = "lake"), expect(unused_variables, reason = "`serve` needs no options of others"))]
async fn dispatch(global: &GlobalArgs, command: Command, more: Vec<Command>) -> Result<()> {
    match command {
        #[cfg(feature = "lake")]
        Command::Init(args) => commands::init::init(global, &args),
        #[cfg(feature = "lake")]
        Command::Check(args) => {
            let more = more.into_iter().filter_map(|command| match command {
                Command::Check(args) => Some(*args),
                _ => None,
            });
            commands::check::check(global, std::iter::once(*args).chain(more).collect()).await
        }
        #[cfg(feature = "lake")]
        Command::Status(args) => commands::status::status(global, args).await,
        #[cfg(feature = "lake")]
        Command::Optimize(args) => commands::maintenance::optimize(global, args).await,
        #[cfg(feature = "lake")]
        Command::Vacuum(args) => commands::maintenance::vacuum(global, args).await,
        #[cfg(feature = "lake")]
        Command::Verify(args) => commands::maintenance::verify(global, args).await,
        #[cfg(feature = "lake")]
        Command::History(args) => commands::maintenance::history(global, args).await,
        #[cfg(all(feature = "lake", feature = "demo"))]
        Command::Demo(args) => commands::demo::demo(args).await,
        #[cfg(feature = "demo")]
        Command::Serve(args) => commands::demo::serve(args).await,
        #[cfg(feature = "cluster")]
        Command::Scheduler(args) => commands::cluster::scheduler(&args).await,
        _ => Err(Error::new(Kind::Bug, "A command has no home")),
    }
}
