//! `sync`: builds a request for each target, runs them, and prints and writes their reports.

mod watch;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use futures::FutureExt;

use crate::api::Client;
use crate::cli::args::Command;
use crate::cli::args::global::GlobalArgs;
use crate::cli::args::sync::SyncArgs;
#[cfg(feature = "cluster")]
use crate::cli::commands::cluster;
use crate::cli::commands::context;
use crate::cli::observability::run_reporting::RunReporter;
use crate::cli::settings::paths::state_dir;
use crate::cli::settings::resolve;
use crate::cli::signals;
use crate::cli::signals::{cancelled, interruptible};
use crate::cli::terminal::output::{aside, counted, failure, is_quiet, out, result, take_hidden_warnings, write_whole};
use crate::cli::terminal::progress::Milestones;
use crate::cli::terminal::report;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::Timestamp;
use crate::ops::{
    self, Cancellation, DeferReason, Journal, NameOptions, Report, Selection, SyncEvent, SyncObserver, SyncRequest,
    UnpackLimits,
};
use crate::redact::{visible, visible_lines};

/// How long a notification may take after the process was asked to end.
const LAST_NOTIFICATION: Duration = Duration::from_secs(2);

/// Runs once for each target, one after the other, since they share the limits of the service.
pub(in crate::cli) async fn sync(global: &GlobalArgs, runs: Vec<SyncArgs>) -> Result<()> {
    let Some(first) = runs.first() else { return Ok(()) };
    let started = Timestamp::now();
    let schedule = watch::Schedule::of(&first.schedule);
    let report = first.report.clone();
    let state_dir = state_dir(first.state.state_dir.clone());
    // Shared by all runs, so that a warning is not repeated.
    let names = NameOptions::new(first.tables.elsewhere.clone());
    let targets = runs.len();
    let notifications = first.notifications.clone();
    let identity = identity(global, &runs);
    let prepared = interruptible(async {
        let reporter = RunReporter::new(global, state_dir, &notifications, &identity).await?;
        match prepare(global, runs, &names).await {
            Ok(prepared) => Ok((prepared, reporter)),
            Err(error) => {
                reporter.not_started(&new_run_id(), started, &error).await;
                Err(error)
            }
        }
    });
    let (Prepared { client, executors, requests }, reporter) = match prepared.await {
        Ok(prepared) => prepared,
        // The normal end of a service, even before its first run.
        Err(error) if error.kind() == Kind::Cancelled && schedule.is_some() => return Ok(()),
        Err(error) => {
            // No target was started: all have the same failure.
            let failed = || Report::not_started(&new_run_id(), started, "", &error);
            write_reports(&std::iter::repeat_with(failed).take(targets).collect::<Vec<_>>(), report.as_deref())?;
            return Err(error);
        }
    };
    match schedule {
        Some(schedule) => {
            let latest = RefCell::new(requests);
            let is_first = Cell::new(true);
            let work = async |stop| {
                if !is_first.replace(false) {
                    match read_again(&client, executors.as_ref(), &names).await {
                        Ok(requests) => drop(latest.replace(requests)),
                        Err(error) => {
                            tracing::warn!(%error, "The settings cannot be read again; using those of the last run")
                        }
                    }
                }
                let requests = latest.borrow().clone();
                finish(Box::pin(all(&requests, &reporter, stop)).await, report.as_deref())
            };
            watch::watch(schedule, work).await
        }
        None => {
            let ended = watch::once(async |stop| Box::pin(all(&requests, &reporter, stop)).await).await?;
            let is_stopped = |run: &Run| run.report.ended_early == Some(DeferReason::Stopped);
            let stopped = ended.iter().any(is_stopped);
            match finish(ended, report.as_deref()) {
                // Failures have been printed; the interruption decides the exit code.
                Ok(()) | Err(_) if stopped => Err(cancelled()),
                other => other,
            }
        }
    }
}

/// Identifies the targets of a process, without passwords, so that reported failures are remembered per set of targets.
fn identity(global: &GlobalArgs, runs: &[SyncArgs]) -> String {
    let targets = runs.iter().filter_map(|run| run.target.target.as_deref());
    // The rest of a URL behind the user, and before the parameters.
    let places = targets.map(|text| text.rsplit('@').next().unwrap_or_default().split('?').next().unwrap_or_default());
    let account = global.client_id.as_deref().unwrap_or_default();
    std::iter::once(account).chain(places).collect::<Vec<_>>().join("\n")
}

/// The requests of the current settings: secrets and credentials may have been rotated since the last run.
async fn read_again(
    client: &Client,
    executors: Option<&Arc<dyn ops::ExecutorProvider>>,
    names: &NameOptions,
) -> Result<Vec<SyncRequest>> {
    // Once for everything: each reading runs the credential commands.
    let runs = resolve::resolve_again()?.runs;
    if let Some(first) = runs.first() {
        client.replace_credentials(context::credentials(&first.global)?);
    }
    let mut requests = Vec::new();
    for settings in runs {
        if let Some(Command::Sync(args)) = settings.command {
            let request = request(&settings.global, client, *args).await?;
            requests.push(SyncRequest { executors: executors.cloned(), names: names.clone(), ..request });
        }
    }
    Ok(requests)
}

/// State that the runs of a process share.
struct Prepared {
    client: Client,
    executors: Option<Arc<dyn ops::ExecutorProvider>>,
    requests: Vec<SyncRequest>,
}

/// Connects to the service and the cluster, and builds a request for each target.
async fn prepare(global: &GlobalArgs, runs: Vec<SyncArgs>, names: &NameOptions) -> Result<Prepared> {
    let jobs_per_minute = runs.first().map_or(0, |first| first.jobs_per_minute);
    let client = context::client(global, context::pacing(global, jobs_per_minute))?;
    client.set_credentials_source(context::credentials_again);
    #[cfg(feature = "cluster")]
    let executors = match runs.first() {
        Some(first) => cluster::connect(&first.cluster).await?,
        None => None,
    };
    #[cfg(not(feature = "cluster"))]
    let executors = None;
    let mut requests = Vec::new();
    for args in runs {
        let request = request(global, &client, args).await?;
        requests.push(SyncRequest { executors: executors.clone(), names: names.clone(), ..request });
    }
    Ok(Prepared { client, executors, requests })
}

async fn request(global: &GlobalArgs, client: &Client, args: SyncArgs) -> Result<SyncRequest> {
    let target = context::target(global, &args.target).await?;
    let catalog = context::catalog(&args.catalog, &target)?;
    let engine = context::engine_for(&target, &args.engine)?;
    let sink = context::open_sink(
        &target,
        &engine,
        &args.lake,
        #[cfg(feature = "sql")]
        &args.database,
    )?;
    let selection =
        Selection { namespaces: args.selection.namespace, tables: args.selection.table, exclude: args.selection.exclude };
    let skip_recent = watch::skip_recent(&args.schedule);
    let rules = context::table_rules(
        &args.tables,
        #[cfg(feature = "sql")]
        &args.database,
    )?;
    let state = state_dir(args.state.state_dir);
    if state.is_none() {
        tracing::warn!("There is no state folder: an interrupted run cannot be resumed (see --state-dir)");
    }
    Ok(SyncRequest {
        format: args.download_format,
        resnapshot: args.resnapshot,
        on_snapshot_required: args.on_snapshot_required,
        on_schema_change: args.columns.schema_changes,
        nested: args.nested,
        rules,
        bad_rows: args.bad_rows,
        out_of_range: args.times.out_of_range_times,
        concurrency: args.concurrency,
        max_line: usize::try_from(args.limits.max_line).unwrap_or(usize::MAX),
        unpack: UnpackLimits {
            max_ratio: args.limits.max_unpack_ratio,
            max_bytes: args.limits.max_object,
            ..UnpackLimits::default()
        },
        journal: state.map(|folder| Journal::new(folder, &context::account(global))),
        catalog: catalog.map(Arc::new),
        fresh: args.fresh,
        time_budget: args.schedule.time_budget,
        skip_recent,
        observer: Some(observer(args.jobs_per_minute)),
        ..SyncRequest::new(client.clone(), sink, engine, selection)
    })
}

/// Logs the steps of tables. Before the first one, it prints how long the job starts take if that is minutes.
fn observer(jobs_per_minute: u32) -> SyncObserver {
    let announced = Once::new();
    let milestones = Milestones::default();
    Arc::new(move |event: &SyncEvent<'_>| {
        announced.call_once(|| {
            let minutes = (event.of as u64).checked_div(u64::from(jobs_per_minute)).unwrap_or(0);
            if minutes >= 2 {
                let tables = counted(event.of as u64, "table");
                aside(&format!("{tables} at {jobs_per_minute} job starts per minute: up to about {minutes} minutes"));
            }
        });
        report::log_step(event);
        milestones.reach(event.ended, event.of);
    })
}

fn new_run_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The result of a run.
struct Run {
    report: Report,
    /// Why it could not start; also part of the report.
    error: Option<Error>,
}

/// Runs all targets. The time budget is shared.
async fn all(requests: &[SyncRequest], reporter: &RunReporter, stop: Cancellation) -> Vec<Run> {
    let begun = Instant::now();
    let mut ended = Vec::new();
    let mut records = Vec::new();
    for request in requests {
        let time_budget = request.time_budget.map(|budget| budget.saturating_sub(begun.elapsed()));
        let request = SyncRequest { time_budget, cancellation: stop.clone(), run_id: new_run_id(), ..request.clone() };
        let (run_id, started, target) = (request.run_id.clone(), Timestamp::now(), request.sink.location().to_string());
        let running = reporter.begin(&request);
        let result = ops::sync(request).await;
        records.push(running.end(&result));
        ended.push(match result {
            Ok(report) => Run { report, error: None },
            Err(error) => Run { report: Report::not_started(&run_id, started, &target, &error), error: Some(error) },
        });
    }
    tokio::select! {
        biased;
        () = reporter.notify(&records) => {}
        // A webhook that does not respond must not delay the report of an interrupted run.
        () = signals::asked(1).then(|()| tokio::time::sleep(LAST_NOTIFICATION)) => {}
    }
    ended
}

/// Writes the reports to the file, summaries to standard output, failures to standard error. Returns the first failure.
fn finish(ended: Vec<Run>, path: Option<&Path>) -> Result<()> {
    let several = ended.len() > 1;
    let (reports, errors): (Vec<Report>, Vec<Option<Error>>) = ended.into_iter().map(|run| (run.report, run.error)).unzip();
    write_reports(&reports, path)?;
    let mut failures = Vec::new();
    for (report, error) in reports.into_iter().zip(errors) {
        match error {
            None => {
                report::log_totals(&report);
                let target = if several { format!("{}: ", report.target) } else { String::new() };
                let summary = format!("{target}{}", report::summary(&report));
                if is_standard_output(path) {
                    aside(summary.trim_end())
                } else {
                    result(&summary)?
                }
                let notes = report::summed_notes(&report, take_hidden_warnings()).filter(|_| is_quiet());
                if let Err(error) = report::finish_one(report) {
                    failures.push(error);
                    notes.iter().for_each(|notes| failure(notes));
                }
            }
            Some(error) => {
                if several {
                    report::error(&error);
                }
                failures.push(error);
            }
        }
    }
    let count = failures.len();
    match failures.into_iter().next() {
        None => Ok(()),
        Some(first) if count == 1 => Err(first),
        Some(first) => Err(Error::new(first.kind(), format!("{count} targets had failures; see above"))),
    }
}

/// Whether the report is written to standard output, which then contains nothing else.
fn is_standard_output(path: Option<&Path>) -> bool {
    path == Some(Path::new("-"))
}

/// Writes one report as an object, several as a list.
fn write_reports(reports: &[Report], path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let value = match reports {
        [only] => serde_json::to_value(only),
        several => serde_json::to_value(several),
    };
    let value = value.context(Kind::Bug, "The report cannot be written as JSON")?;
    // JSON leaves some control characters and all that change the direction of text as they are. They occur in strings only.
    if is_standard_output(Some(path)) {
        // One line per run, so that a reader can process runs one by one.
        return out(&format!("{}\n", visible(&value.to_string())));
    }
    let failed = || format!("The report cannot be written: {}", path.display());
    write_whole(path, format!("{}\n", visible_lines(&format!("{value:#}"))).as_bytes()).context(Kind::Io, failed())
}
