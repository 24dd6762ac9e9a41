//! `list`, `snapshot`, `incremental`: build requests, and print their steps.

use std::future::Future;
use std::process::ExitCode;

use crate::cli::args::downloads::{ConvertTo, DownloadArgs, IncrementalArgs, ListArgs};
use crate::cli::args::global::GlobalArgs;
use crate::cli::commands::context;
use crate::cli::exit;
use crate::cli::settings::paths::state_dir;
use crate::cli::signals::interrupted;
use crate::cli::terminal::console::{Console, Mark};
use crate::cli::terminal::output::{counted, size};
use crate::cli::values::moment::Moment;
use crate::error::{Error, Kind, Result};
use crate::model::{Namespace, Window};
use crate::ops::files::{self, DownloadRequest, FilesReport, Journal, Shape, Step, TableChoice, TableEvent};

pub(in crate::cli) async fn list(global: &GlobalArgs, console: Console, args: ListArgs) -> Result<ExitCode> {
    let client = context::client(global, context::pacing(global, 0))?;
    context::check_tracking(global)?;
    let namespace = args.namespace.namespace;
    console.say(Mark::Title, |bold| format!("Tables of the namespace {}", bold(&namespace)))?;
    console.say(Mark::Progress, |_| "Asking the service for its list".to_owned())?;
    let named = Namespace::new(namespace.clone());
    let tables = tokio::select! {
        biased;
        () = interrupted() => Err(Error::new(Kind::Cancelled, "Interrupted")),
        tables = client.tables(&named) => tables,
    }?;
    let lines: Vec<String> = tables.iter().map(|table| format!("{table}\n")).collect();
    console.data(&lines.concat())?;
    console.say(Mark::Success, |bold| {
        let names: Vec<String> = tables.iter().map(|table| bold(table)).collect();
        let noun = if tables.len() == 1 { "table" } else { "tables" };
        if names.is_empty() {
            format!("The namespace {} has no tables", bold(&namespace))
        } else {
            format!("{} {noun} in {}: {}", bold(&tables.len().to_string()), bold(&namespace), names.join(", "))
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

pub(in crate::cli) async fn incremental(global: &GlobalArgs, console: Console, args: IncrementalArgs) -> Result<ExitCode> {
    for (name, moment) in [("--since", Some(args.since)), ("--until", args.until)] {
        if let Some(Moment { at, was_local: true }) = moment {
            console.say(Mark::Warning, |_| {
                format!("{name} has no offset and is interpreted in the time zone of this machine ({at} in UTC); append Z or an offset")
            })?;
        }
    }
    let window = Window::Increment { since: args.since.at, until: args.until.map(|until| until.at) };
    download(global, console, args.download, window, "Changes of").await
}

pub(in crate::cli) async fn download(
    global: &GlobalArgs,
    console: Console,
    args: DownloadArgs,
    window: Window,
    title: &'static str,
) -> Result<ExitCode> {
    let client = context::client(global, context::pacing(global, args.jobs_per_minute))?;
    context::check_tracking(global)?;
    let state_dir = state_dir(args.state_dir);
    let request = DownloadRequest {
        client,
        namespace: Namespace::new(args.namespace.namespace),
        tables: args.tables.table.parse::<TableChoice>()?,
        window,
        format: args.format,
        shape: match (args.decompress, args.convert) {
            (_, Some(ConvertTo::Parquet)) => Shape::Parquet,
            (true, None) => Shape::Unpacked,
            (false, None) => Shape::AsSent,
        },
        folder: args.output.output_directory,
        objects_at_once: usize::from(args.concurrency),
        journal: state_dir.map(|folder| Journal::new(folder.join("files"), &context::account(global))),
        fresh: args.fresh,
    };
    let observe = |event: &TableEvent| print_step(console, title, event);
    finish(console, files::download_with(request, &observe, interrupted())).await
}

/// Prints a step of a table. A failure to print, such as a closed pipe, must not stop the work.
pub(in crate::cli) fn print_step(console: Console, title: &str, event: &TableEvent) {
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
            let kept = if *kept > 0 { format!("; {kept} from an earlier run") } else { String::new() };
            format!("{} in {} ({}{kept})", bold(&counted(*files as u64, "file")), folder.display(), size(*bytes))
        }),
        Step::SchemaSaved { path } => console.say(Mark::Progress, |_| format!("Saved as {}", path.display())),
        Step::Done => console.say(Mark::Success, |bold| format!("{} is complete", bold(&table))),
        Step::Failed(error) => console.error(error),
        _ => Ok(()),
    };
}

/// Prints how many tables failed.
pub(in crate::cli) fn say_failed(console: Console, failed: usize, skipped: usize, total: usize) -> Result<()> {
    let skipped = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
    console
        .say(Mark::Error, |bold| format!("{} of {} failed{skipped}", bold(&failed.to_string()), counted(total as u64, "table")))
}

/// Waits for the tables and prints how many failed. The last failure decides the exit code, as in the official client; an interruption
/// has precedence.
pub(in crate::cli) async fn finish(console: Console, report: impl Future<Output = Result<FilesReport>>) -> Result<ExitCode> {
    let report = report.await?;
    let failed = report.errors().count();
    let cancelled = report.errors().find(|error| error.kind() == Kind::Cancelled);
    let Some(decisive) = cancelled.or_else(|| report.errors().next_back()) else { return Ok(ExitCode::SUCCESS) };
    say_failed(console, failed, report.skipped(), report.tables.len())?;
    Ok(exit::code(decisive))
}
