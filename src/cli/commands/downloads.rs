//! `list`, `schema`, `snapshot`, `incremental`: from arguments to requests, from steps to lines.

use std::future::Future;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::args::{Command, DownloadArgs, GlobalArgs, IncrementalArgs, ListArgs, SchemaArgs};
#[cfg(feature = "lake")]
use crate::cli::args::{DdlEngine, DdlFormat, NestedArg};
#[cfg(feature = "sql")]
use crate::cli::commands::database;
use crate::cli::settings::resolve;
use crate::cli::terminal::console::{Console, Mark};
use crate::cli::terminal::output::size;
use crate::cli::values::moment::Moment;
use crate::cli::{exit, signals};
use crate::error::{Error, Kind, Result};
use crate::model::{Namespace, Window};
#[cfg(feature = "lake")]
use crate::ops;
#[cfg(feature = "sql")]
use crate::ops::Demand;
use crate::ops::files::{self, DownloadRequest, FilesReport, Journal, SchemaRequest, Shape, Step, TableChoice, TableEvent};

#[cfg(feature = "lake")]
use crate::schema::{LakeEngine, LakeFormat, LakePlace, Nested};

/// What the log says of a command, whatever it does: namespace and tables as typed.
pub(in crate::cli) fn subject(command: &Command) -> (Option<&str>, Option<&str>) {
    match command {
        Command::List(args) => (Some(&args.namespace.namespace), None),
        Command::Schema(args) => (Some(&args.namespace.namespace), Some(&args.tables.table)),
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

/// The folder that a command will write to.
pub(in crate::cli) fn output_folder(command: &Command) -> Option<&Path> {
    match command {
        Command::Schema(args) => Some(&args.output.output_directory),
        Command::Snapshot(args) => Some(&args.download.output.output_directory),
        Command::Incremental(args) => Some(&args.download.output.output_directory),
        _ => None,
    }
}

/// Ends as the official client does: all is said on `console`, the exit code is left.
pub(in crate::cli) async fn run(global: &GlobalArgs, command: Command) -> ExitCode {
    let console = Console::new(global);
    let ended = match command {
        Command::List(args) => list(global, console, args).await,
        Command::Schema(args) => schema(global, console, args).await,
        Command::Snapshot(args) => download(global, console, args.download, Window::Snapshot, "Snapshot of").await,
        Command::Incremental(args) => incremental(global, console, args).await,
        #[cfg(feature = "sql")]
        Command::Initdb(args) => database::load(global, console, args, Demand::Absent).await,
        #[cfg(feature = "sql")]
        Command::Syncdb(args) => {
            let demand = if args.init_missing { Demand::Nothing } else { Demand::Present };
            database::load(global, console, args.load, demand).await
        }
        #[cfg(feature = "sql")]
        Command::Dropdb(args) => database::drop(console, args).await,
        #[cfg(feature = "sql")]
        Command::Listdb(args) => database::list(global, console, args).await,
        _ => Err(Error::new(Kind::Bug, "Not a command for files")),
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            // If nothing can be said, the exit code says it.
            let _ = console.error(&error);
            match error.kind() {
                Kind::Cancelled if signals::is_asked() => signals::exit_code(),
                _ => exit::code(&error),
            }
        }
    }
}

/// Resolves when the process was asked to end. What is done at that moment is safe.
pub(in crate::cli) async fn interrupted() {
    signals::asked(1).await;
}

async fn list(global: &GlobalArgs, console: Console, args: ListArgs) -> Result<ExitCode> {
    let client = resolve::client(global, resolve::pacing(global, 0))?;
    resolve::check_tracking(global)?;
    let namespace = args.namespace.namespace;
    console.say(Mark::Title, |bold| format!("Tables of the namespace {}", bold(&namespace)))?;
    console.say(Mark::Progress, |_| "Asking the service for its list".to_owned())?;
    let named = Namespace::new(namespace.clone());
    let tables = tokio::select! {
        biased;
        () = interrupted() => Err(Error::new(Kind::Cancelled, "Interrupted")),
        tables = files::list(&client, &named) => tables,
    }?;
    let lines: Vec<String> = tables.iter().map(|table| format!("{table}\n")).collect();
    console.data(&lines.concat())?;
    console.say(Mark::Success, |bold| {
        let names: Vec<String> = tables.iter().map(|table| bold(table)).collect();
        let noun = if tables.len() == 1 { "table" } else { "tables" };
        match names.is_empty() {
            true => format!("The namespace {} has no tables", bold(&namespace)),
            false => format!("{} {noun} in {}: {}", bold(&tables.len().to_string()), bold(&namespace), names.join(", ")),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Statements go to standard output, whoever reads them.
#[cfg(feature = "lake")]
async fn ddl(global: &GlobalArgs, args: &SchemaArgs, engine: DdlEngine) -> Result<ExitCode> {
    let lake = |engine| -> Result<ops::DdlFor> {
        let target = args.ddl.target.as_deref().ok_or_else(|| {
            Error::new(Kind::Usage, "Views need to know where the tables are").hint("name the folder or URL with --target")
        })?;
        let format = match args.ddl.table_format {
            DdlFormat::Delta => LakeFormat::Delta,
            DdlFormat::Parquet => LakeFormat::Parquet,
        };
        let nested = match args.ddl.nested {
            NestedArg::Typed => Nested::Typed,
            NestedArg::Json => Nested::Json,
        };
        let url = match resolve::database(target)? {
            ops::Target::Folder(folder) => folder.display().to_string(),
            ops::Target::Store(url, _) => url.reveal().to_string(),
            ops::Target::Parquet(_) | ops::Target::Database(_) => {
                return Err(Error::new(Kind::Usage, "Views are over the files of a folder or an object store")
                    .hint("name that with --target; the tables of a database need no views"));
            }
        };
        Ok(ops::DdlFor::Lake(engine, LakePlace { url, format, nested }))
    };
    let of = match engine {
        DdlEngine::Duckdb => lake(LakeEngine::DuckDb)?,
        DdlEngine::Athena => lake(LakeEngine::Athena)?,
        DdlEngine::Spark => lake(LakeEngine::Spark)?,
        DdlEngine::Snowflake => lake(LakeEngine::Snowflake)?,
        #[cfg(feature = "sql")]
        DdlEngine::Postgresql => ops::DdlFor::Database("postgresql"),
        #[cfg(feature = "sql")]
        DdlEngine::Mysql => ops::DdlFor::Database("mysql"),
        #[cfg(feature = "sql")]
        DdlEngine::Mssql => ops::DdlFor::Database("mssql"),
    };
    let client = resolve::client(global, resolve::pacing(global, 0))?;
    let namespace = Namespace::new(args.namespace.namespace.clone());
    let tables = args.tables.table.parse::<TableChoice>()?;
    let text = tokio::select! {
        biased;
        () = interrupted() => Err(Error::new(Kind::Cancelled, "Interrupted")),
        text = ops::ddl(&client, &namespace, &tables, &of) => text,
    }?;
    crate::cli::terminal::output::out(&text)?;
    Ok(ExitCode::SUCCESS)
}

async fn schema(global: &GlobalArgs, console: Console, args: SchemaArgs) -> Result<ExitCode> {
    if let Some(form) = args.erd.erd {
        return crate::cli::commands::erd::erd(global, &args, form).await;
    }
    #[cfg(feature = "lake")]
    if let Some(engine) = args.ddl.ddl {
        return ddl(global, &args, engine).await;
    }
    let request = SchemaRequest {
        client: resolve::client(global, resolve::pacing(global, 0))?,
        namespace: Namespace::new(args.namespace.namespace),
        tables: args.tables.table.parse::<TableChoice>()?,
        folder: args.output.output_directory,
    };
    resolve::check_tracking(global)?;
    let observe = |event: &TableEvent| tell(console, "Schema of", event);
    finish(console, files::save_schemas(request, &observe, interrupted())).await
}

async fn incremental(global: &GlobalArgs, console: Console, args: IncrementalArgs) -> Result<ExitCode> {
    for (name, moment) in [("--since", Some(args.since)), ("--until", args.until)] {
        if let Some(Moment { at, was_local: true }) = moment {
            console.say(Mark::Warning, |_| {
                format!("{name} has no offset and is taken in the time zone of this machine: {at} in UTC; write Z or an offset")
            })?;
        }
    }
    let window = Window::Increment { since: args.since.at, until: args.until.map(|until| until.at) };
    download(global, console, args.download, window, "Changes of").await
}

async fn download(
    global: &GlobalArgs,
    console: Console,
    args: DownloadArgs,
    window: Window,
    title: &'static str,
) -> Result<ExitCode> {
    let client = resolve::client(global, resolve::pacing(global, args.jobs_per_minute))?;
    resolve::check_tracking(global)?;
    let state_dir = resolve::state_dir(args.state_dir);
    let request = DownloadRequest {
        client,
        namespace: Namespace::new(args.namespace.namespace),
        tables: args.tables.table.parse::<TableChoice>()?,
        window,
        format: args.format,
        shape: match (args.decompress, args.convert) {
            (_, Some(crate::cli::args::ConvertTo::Parquet)) => Shape::Parquet,
            (true, None) => Shape::Unpacked,
            (false, None) => Shape::AsSent,
        },
        folder: args.output.output_directory,
        objects_at_once: usize::from(args.concurrency),
        journal: state_dir.map(|folder| Journal::new(folder.join("files"), &resolve::account(global))),
        fresh: args.fresh,
    };
    let observe = |event: &TableEvent| tell(console, title, event);
    finish(console, files::download(request, &observe, interrupted())).await
}

/// One step of one table. What cannot be said (a closed pipe, say) must not stop the work.
fn tell(console: Console, title: &str, event: &TableEvent) {
    let table = event.table.to_string();
    let _ = match &event.step {
        Step::Begun if event.of > 1 => {
            console.say(Mark::Title, |bold| format!("{title} {} ({} of {})", bold(&table), event.place, event.of))
        }
        Step::Begun => console.say(Mark::Title, |bold| format!("{title} {}", bold(&table))),
        Step::JobFinished { job, waited: true } => {
            console.say(Mark::Progress, |bold| format!("Job {} finished with status {}", bold(job), bold("complete")))
        }
        Step::Downloaded { files, kept, bytes, folder } => console.say(Mark::Progress, |bold| {
            let noun = if *files == 1 { "file" } else { "files" };
            let kept = if *kept > 0 { format!("; {kept} of them from an earlier run") } else { String::new() };
            format!("{} {noun} in {} ({}{kept})", bold(&files.to_string()), folder.display(), size(*bytes))
        }),
        Step::SchemaSaved { path } => console.say(Mark::Progress, |_| format!("Saved as {}", path.display())),
        Step::Done => console.say(Mark::Success, |bold| format!("{} is complete", bold(&table))),
        Step::Failed(error) => console.error(error),
        _ => Ok(()),
    };
}

/// Waits for the tables, then says how they ended. The last failure decides the exit code, as in the official client; an
/// interruption comes before all.
async fn finish(console: Console, report: impl Future<Output = Result<FilesReport>>) -> Result<ExitCode> {
    let report = report.await?;
    let failed = report.errors().count();
    let cancelled = report.errors().find(|error| error.kind() == Kind::Cancelled);
    let Some(decisive) = cancelled.or_else(|| report.errors().next_back()) else { return Ok(ExitCode::SUCCESS) };
    console.say(Mark::Error, |bold| {
        format!(
            "{} failed, {} skipped, of {} in all",
            bold(&failed.to_string()),
            bold(&report.skipped().to_string()),
            bold(&report.tables.len().to_string())
        )
    })?;
    Ok(exit::code(decisive))
}
