//! `sync`: from arguments to requests, one run for each target, from reports to text.

mod watch;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;

use crate::api::Client;
use crate::cli::args::Command;
use crate::cli::args::global::GlobalArgs;
use crate::cli::args::selection::{NestedArg, OnSnapshotRequired};
use crate::cli::args::sync::SyncArgs;
#[cfg(feature = "cluster")]
use crate::cli::commands::cluster;
use crate::cli::commands::context;
use crate::cli::observability::run_reporting::Teller;
use crate::cli::settings::paths::state_dir;
use crate::cli::settings::resolve;
use crate::cli::signals;
use crate::cli::signals::{cancelled, interruptible};
use crate::cli::terminal::output::{aside, out, write_whole};
use crate::cli::terminal::report;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::Timestamp;
use crate::ops::{self, Journal, NameOptions, Reason, Report, Selection, Stop, SyncRequest, UnpackLimits};
use crate::schema::Nested;

/// What a notification may take after the process was asked to end.
const LAST_NOTICE: Duration = Duration::from_secs(2);

/// One run for each target, one after the other: the service's pace is shared by all of them.
pub(in crate::cli) async fn sync(global: &GlobalArgs, runs: Vec<SyncArgs>) -> Result<()> {
    let Some(first) = runs.first() else { return Ok(()) };
    let started = Timestamp::now();
    let schedule = watch::Schedule::of(&first.schedule);
    let report = first.report.clone();
    let state_dir = state_dir(first.schedule.state.state_dir.clone());
    // Shared by all runs: what was warned of once is not said again.
    let names = NameOptions::new(first.tables.elsewhere.clone());
    let targets = runs.len();
    let telling = first.notifications.clone();
    let prepared = interruptible(async {
        let teller = Teller::new(global, state_dir, &telling).await?;
        match prepare(global, runs, &names).await {
            Ok(prepared) => Ok((prepared, teller)),
            Err(error) => {
                teller.not_started(&new_run_id(), started, &error).await;
                Err(error)
            }
        }
    });
    let (Prepared { client, helpers, requests }, teller) = match prepared.await {
        Ok(prepared) => prepared,
        // The ordinary end of a service, even before its first run.
        Err(error) if error.kind() == Kind::Cancelled && schedule.is_some() => return Ok(()),
        Err(error) => {
            // No target has begun: each has the same failure.
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
                    match read_again(&client, helpers.as_ref(), &names).await {
                        Ok(requests) => drop(latest.replace(requests)),
                        Err(error) => {
                            tracing::warn!(%error, "The settings cannot be read again; those of the last run are used")
                        }
                    }
                }
                let requests = latest.borrow().clone();
                finish(Box::pin(all(&requests, &teller, stop)).await, report.as_deref())
            };
            watch::watch(schedule, work).await
        }
        None => {
            let ended = watch::once(async |stop| Box::pin(all(&requests, &teller, stop)).await).await?;
            let is_stopped = |run: &Run| run.report.ended_early == Some(Reason::Stopped);
            let stopped = ended.iter().any(is_stopped);
            match finish(ended, report.as_deref()) {
                // Failures have been told; what the program was asked for decides the exit code.
                Ok(()) | Err(_) if stopped => Err(cancelled()),
                other => other,
            }
        }
    }
}

/// What the settings ask for now: secrets and credentials may have been rotated since the last run.
async fn read_again(client: &Client, helpers: Option<&Arc<dyn ops::Helpers>>, names: &NameOptions) -> Result<Vec<SyncRequest>> {
    client.reload_credentials()?;
    let mut requests = Vec::new();
    for cli in resolve::resolve_again()?.runs {
        if let Some(Command::Sync(args)) = cli.command {
            let request = request(&cli.global, client, *args).await?;
            requests.push(SyncRequest { helpers: helpers.cloned(), names: names.clone(), ..request });
        }
    }
    Ok(requests)
}

/// What all runs of a process use.
struct Prepared {
    client: Client,
    helpers: Option<Arc<dyn ops::Helpers>>,
    requests: Vec<SyncRequest>,
}

/// The service, the cluster if there is one, and a request for each target.
async fn prepare(global: &GlobalArgs, runs: Vec<SyncArgs>, names: &NameOptions) -> Result<Prepared> {
    let jobs_per_minute = runs.first().map_or(0, |first| first.jobs_per_minute);
    let client = context::client(global, context::pacing(global, jobs_per_minute))?;
    client.set_credentials_source(context::credentials_again);
    #[cfg(feature = "cluster")]
    let helpers = match runs.first() {
        Some(first) => cluster::connect(&first.cluster).await?,
        None => None,
    };
    #[cfg(not(feature = "cluster"))]
    let helpers = None;
    let mut requests = Vec::new();
    for args in runs {
        let request = request(global, &client, args).await?;
        requests.push(SyncRequest { helpers: helpers.clone(), names: names.clone(), ..request });
    }
    Ok(Prepared { client, helpers, requests })
}

async fn request(global: &GlobalArgs, client: &Client, args: SyncArgs) -> Result<SyncRequest> {
    let target = context::target(global, &args.target).await?;
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
    let state = state_dir(args.schedule.state.state_dir);
    if state.is_none() {
        tracing::warn!("There is no folder for notes: an interrupted run cannot be continued (see --state-dir)");
    }
    Ok(SyncRequest {
        format: args.download_format,
        resnapshot: args.resnapshot,
        on_snapshot_required: match args.on_snapshot_required {
            OnSnapshotRequired::Fail => ops::OnSnapshotRequired::Fail,
            OnSnapshotRequired::Resnapshot => ops::OnSnapshotRequired::Resnapshot,
        },
        nested: match args.nested {
            NestedArg::Typed => Nested::Typed,
            NestedArg::Json => Nested::Json,
        },
        rules: context::table_rules(&args.tables)?,
        bad_rows: args.bad_rows,
        out_of_range: args.times.policy(),
        concurrency: args.concurrency,
        max_line: usize::try_from(args.limits.max_line).unwrap_or(usize::MAX),
        unpack: UnpackLimits {
            max_ratio: args.limits.max_unpack_ratio,
            max_bytes: args.limits.max_object,
            ..UnpackLimits::default()
        },
        journal: state.map(|folder| Journal::new(folder, &context::account(global))),
        fresh: args.schedule.fresh,
        time_budget: args.schedule.time_budget,
        skip_recent,
        observer: Some(Arc::new(report::log_step)),
        ..SyncRequest::new(client.clone(), sink, engine, selection)
    })
}

fn new_run_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A run of one target that has ended.
struct Run {
    report: Report,
    /// Why it could not start; the report says it, too.
    error: Option<Error>,
}

/// The runs of all targets; the time of the later ones is what the earlier ones have left.
async fn all(requests: &[SyncRequest], teller: &Teller, stop: Stop) -> Vec<Run> {
    let begun = Instant::now();
    let mut ended = Vec::new();
    for request in requests {
        let time_budget = request.time_budget.map(|budget| budget.saturating_sub(begun.elapsed()));
        let request = SyncRequest { time_budget, stop: stop.clone(), run_id: new_run_id(), ..request.clone() };
        let (run_id, started, target) = (request.run_id.clone(), Timestamp::now(), request.sink.location().to_string());
        let told = teller.begin(&request);
        let result = ops::sync(request).await;
        tokio::select! {
            biased;
            () = told.end(&result) => {}
            // A webhook that does not answer must not cost the report of a run that was interrupted.
            () = signals::asked(1).then(|()| tokio::time::sleep(LAST_NOTICE)) => {}
        }
        ended.push(match result {
            Ok(report) => Run { report, error: None },
            Err(error) => Run { report: Report::not_started(&run_id, started, &target, &error), error: Some(error) },
        });
    }
    ended
}

/// Tells what the runs did: reports to the file and to standard output, failures to standard error, the first one as an error.
fn finish(ended: Vec<Run>, path: Option<&Path>) -> Result<()> {
    let several = ended.len() > 1;
    let (reports, errors): (Vec<Report>, Vec<Option<Error>>) = ended.into_iter().map(|run| (run.report, run.error)).unzip();
    write_reports(&reports, path)?;
    let mut failures = Vec::new();
    for (report, error) in reports.into_iter().zip(errors) {
        match error {
            None => {
                report::log_sum(&report);
                let target = if several { format!("{}: ", report.target) } else { String::new() };
                let summary = format!("{target}{}", report::summary(&report));
                if is_standard_output(path) {
                    aside(summary.trim_end())
                } else {
                    out(&summary)?
                }
                failures.extend(report::finish_one(report).err());
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

/// Whether the report goes to standard output, which then has nothing else.
fn is_standard_output(path: Option<&Path>) -> bool {
    path == Some(Path::new("-"))
}

/// One report as an object, several as a list.
fn write_reports(reports: &[Report], path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let value = match reports {
        [only] => serde_json::to_value(only),
        several => serde_json::to_value(several),
    };
    let value = value.context(Kind::Bug, "The report cannot be written as JSON")?;
    if is_standard_output(Some(path)) {
        // One line a run, for those who read one after the other.
        return out(&format!("{value}\n"));
    }
    let failed = || format!("The report cannot be written: {}", path.display());
    write_whole(path, format!("{value:#}\n").as_bytes()).context(Kind::Io, failed())
}
