//! The command line: arguments, settings, output, exit codes. It contains no logic that a user of the library needs.

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
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;

use crate::error::{Error, Kind, Result, ResultExt};
use args::global::GlobalArgs;
use args::{Command, Settings};
use observability::logging::{Audience, Subject};
use settings::resolve::{Resolved, Unresolved};
use signals::Catch;

/// How long work on other threads may take after the command has ended.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the program with the arguments of the process.
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

/// Raises the limit of open files as far as the system allows; shells of macOS start programs with 256. If it cannot be raised, runs
/// manage with the current limit.
#[cfg(unix)]
fn raise_file_limit() {
    const WANTED: u64 = 10_240;
    let _ = rlimit::increase_nofile_limit(WANTED);
}

/// Runs the command. Returns usage errors; other errors have been printed.
fn run(definition: clap::Command, resolved: Resolved) -> Result<ExitCode, clap::Error> {
    let Resolved { runs, warnings } = resolved;
    let mut runs = runs.into_iter();
    let Some(Settings { global, command, .. }) = runs.next() else { return Ok(ExitCode::SUCCESS) };
    let more: Vec<Command> = runs.filter_map(|settings| settings.command).collect();
    // Commands that only print need no threads, certificates or runtime, which take time to start.
    if let Some(ended) = print_only(definition.clone(), command.as_ref()) {
        return ended;
    }
    let Some(command) = command else { return Ok(ExitCode::SUCCESS) };
    let file = open_files(definition, &global, &command)?;
    Ok(run_async(global, command, more, file, &warnings).unwrap_or_else(|error| ended(Err(error))))
}

/// Runs a command that needs no runtime; `None` if it needs one.
fn print_only(mut definition: clap::Command, command: Option<&Command>) -> Option<Result<ExitCode, clap::Error>> {
    Some(match command {
        None => Ok(ended(terminal::output::out(&definition.render_help().to_string()))),
        Some(Command::Completions(args)) => Ok(ended(commands::completions::completions(definition, args))),
        Some(Command::Man(args)) => match commands::completions::man(definition, args) {
            Ok(Ok(())) => Ok(ExitCode::SUCCESS),
            Ok(Err(usage)) => Err(usage),
            Err(error) => Ok(ended(Err(error))),
        },
        Some(_) => return None,
    })
}

/// Prints the error of a command, and returns its exit code.
fn ended(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::report::error(&error);
            exit::code(&error)
        }
    }
}

/// Opens the log file, and checks that the folder for downloads can be written to. An error is one of usage, as in the official client.
fn open_files(mut definition: clap::Command, global: &GlobalArgs, command: &Command) -> Result<Option<File>, clap::Error> {
    let mut not_writable = |option: &str, path: &Path, error: std::io::Error| {
        let message = format!("the path of '{option}' cannot be written to: {} ({error})", path.display());
        definition.error(ErrorKind::ValueValidation, message)
    };
    if let Some(folder) = commands::drop_in::output_folder(command) {
        check_folder(folder).map_err(|error| not_writable("--output-directory", folder, error))?;
    }
    // `schedule` only passes the name on.
    #[cfg(feature = "lake")]
    if matches!(command, Command::Schedule(_)) {
        return Ok(None);
    }
    let open = |path: &PathBuf| observability::logging::open(path).map_err(|error| not_writable("--logfile", path, error));
    global.logfile.as_ref().map(open).transpose()
}

/// Starts signals, runtime and logging, and runs the command.
fn run_async(
    global: GlobalArgs,
    command: Command,
    more: Vec<Command>,
    file: Option<File>,
    warnings: &[String],
) -> Result<ExitCode> {
    let (namespace, table) = commands::drop_in::subject(&command);
    let is_drop_in = namespace.is_some();
    let subject = Subject {
        namespace: namespace.map(str::to_owned),
        table: table.map(str::to_owned),
        client_id: global.client_id.clone(),
    };
    #[cfg(feature = "lake")]
    if matches!(&command, Command::Sync(args) if args.notifications.metrics_listen.is_some()) {
        observability::metrics::switch_on();
    }
    signals::listen(catch(&command))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context(Kind::Io, "The runtime cannot be started")?;
    #[cfg(feature = "otel")]
    let telemetry = match &command {
        Command::Sync(_) => observability::otel::Telemetry::start(global.ca_bundle.as_deref(), runtime.handle()),
        _ => observability::otel::Telemetry::default(),
    };
    #[cfg(feature = "otel")]
    let listener = telemetry.layer();
    #[cfg(not(feature = "otel"))]
    let listener = None;
    observability::logging::init(&global, audience(&global, &command, is_drop_in), file, subject, listener);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    #[cfg(feature = "otel")]
    for warning in &telemetry.warnings {
        tracing::warn!(hint = warning.hint_text(), "{warning}");
    }
    let code = if is_drop_in {
        runtime.block_on(Box::pin(commands::drop_in::run(&global, command)))
    } else {
        ended(runtime.block_on(own(&global, command, more)))
    };
    #[cfg(feature = "otel")]
    telemetry.finish();
    if signals::is_asked() {
        // Abandoned tasks can meet a runtime without timers, where libraries panic. The command has ended and reported its result, so
        // these panics are not printed.
        std::panic::set_hook(Box::new(|_| {}));
    }
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    terminal::progress::finish();
    Ok(code)
}

/// Who reads the output of a command.
fn audience(global: &GlobalArgs, command: &Command, is_drop_in: bool) -> Audience {
    match command {
        _ if is_drop_in && global.non_interactive => Audience::Scripts,
        _ if is_drop_in => Audience::People,
        #[cfg(all(feature = "lake", feature = "demo"))]
        Command::Demo(args) if !args.verbose => Audience::Brief,
        _ => Audience::Own,
    }
}

/// Which signals a command handles.
fn catch(command: &Command) -> Catch {
    match command {
        Command::Schema(args) if args.prints() => Catch::All,
        // Other signals end the process at once, as they do the official client; the same command resumes.
        Command::Snapshot(_) | Command::Incremental(_) | Command::List(_) | Command::Schema(_) => Catch::Interrupt,
        #[cfg(feature = "sql")]
        Command::Dropdb(_) | Command::Listdb(_) => Catch::Interrupt,
        // At the prompt, Ctrl-C ends a statement, not the program.
        #[cfg(feature = "lake")]
        Command::Query(args) if commands::query::is_prompt(args) => Catch::AllButInterrupt,
        // The executor handles signals itself, to deregister from its scheduler.
        #[cfg(feature = "cluster")]
        Command::Executor(_) => Catch::Nothing,
        // Questions block, and nothing is written before the last one is answered.
        #[cfg(feature = "lake")]
        Command::Init(_) => Catch::Nothing,
        _ => Catch::All,
    }
}

/// Checks that an existing folder accepts files. A missing folder is created when it is needed.
fn check_folder(folder: &Path) -> std::io::Result<()> {
    match folder.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => tempfile::tempfile_in(folder).map(drop),
        Ok(_) => Err(std::io::ErrorKind::NotADirectory.into()),
    }
}

/// Runs a command that the official client does not have. `more` is the same command for further targets.
async fn own(global: &GlobalArgs, command: Command, more: Vec<Command>) -> Result<()> {
    #[cfg(feature = "lake")]
    if let Command::Sync(args) = command {
        // It handles interruptions itself.
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
    #[cfg(feature = "cluster")]
    if let Command::Executor(args) = &command {
        return commands::cluster::executor(global, args).await;
    }
    let is_server = is_server(&command);
    // Dropping the work at any await is safe: each table has its old or its new bookmark.
    let ended = tokio::select! {
        result = Box::pin(dispatch(global, command, more)) => result,
        () = signals::asked(1) => if is_server { Ok(()) } else { Err(signals::cancelled()) },
    };
    terminal::progress::finish();
    ended
}

/// Whether an interruption is the normal end of a command.
fn is_server(command: &Command) -> bool {
    match command {
        #[cfg(feature = "demo")]
        Command::Serve(_) => true,
        #[cfg(feature = "lake")]
        Command::Status(args) => args.watch,
        #[cfg(feature = "cluster")]
        Command::Scheduler(_) => true,
        _ => false,
    }
}

#[cfg_attr(not(feature = "lake"), expect(unused_variables, reason = "only commands of the feature `lake` use them"))]
async fn dispatch(global: &GlobalArgs, command: Command, more: Vec<Command>) -> Result<()> {
    match command {
        Command::Schema(args) => commands::schema::print(global, &args).await,
        #[cfg(feature = "lake")]
        Command::Init(args) => Box::pin(commands::init::init(global, &args)).await,
        #[cfg(feature = "lake")]
        Command::Check(args) => {
            let more = more.into_iter().filter_map(|command| match command {
                Command::Check(args) => Some(*args),
                _ => None,
            });
            commands::check::check(global, std::iter::once(*args).chain(more).collect()).await
        }
        #[cfg(feature = "lake")]
        Command::Schedule(args) => commands::schedule::schedule(global, &args),
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
        _ => Err(Error::new(Kind::Bug, "The command is not implemented")),
    }
}
