//! `sync` and `status`: from arguments to requests, from answers to text.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;

use crate::api::Client;
#[cfg(feature = "sql")]
use crate::cli::args::DatabaseArgs;
use crate::cli::args::{
    Command, DeletionVectorsArg, EngineArgs, ForeignChangesArg, GlobalArgs, LakeArgs, NestedArg, OnSnapshotRequired,
    StatusArgs, StatusOutput, SwitchArg, SyncArgs, TableArgs,
};
use crate::cli::observability::run_reporting;
use crate::cli::observability::run_reporting::Teller;
use crate::cli::observability::watch;
use crate::cli::settings::{memory, resolve};
use crate::cli::terminal::output::{Grid, age, aside, file_beside, grouped, out, size};
use crate::cli::terminal::report;
use crate::cli::{interruptible, signals};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::Timestamp;
use crate::ops::{
    self, Journal, NameOptions, Overview, OverviewRequest, Reason, Report, Selection, StatusLine, Stop, SyncRequest, Target,
    UnpackLimits,
};
use crate::page::status_page;
use crate::schema::{Nested, TableOptions, TableRules};
use crate::sink::Sink;
use crate::sink::delta::{ChangeDataFeed, DeletionVectors, DeltaOptions, OnForeignChanges};
use crate::stage::{Engine, EngineOptions};

/// What a notification may take after the process was asked to end.
const LAST_NOTICE: Duration = Duration::from_secs(2);

/// One run for each target, one after the other: the service's pace is shared by all of them.
pub(in crate::cli) async fn sync(global: &GlobalArgs, runs: Vec<SyncArgs>) -> Result<()> {
    let Some(first) = runs.first() else { return Ok(()) };
    let started = Timestamp::now();
    let schedule = first.unattended.schedule();
    let report = first.report.clone();
    let state_dir = resolve::state_dir(first.unattended.state.state_dir.clone());
    // Shared by all runs: what was warned of once is not said again.
    let names = NameOptions::new(first.tables.elsewhere.clone());
    let targets = runs.len();
    let telling = first.telling.clone();
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
                Ok(()) | Err(_) if stopped => Err(watch::cancelled()),
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
    let client = resolve::client(global, resolve::pacing(global, jobs_per_minute))?;
    client.set_credentials_source(resolve::credentials_again);
    #[cfg(feature = "cluster")]
    let helpers = match runs.first() {
        Some(first) => crate::cli::commands::cluster::connect(&first.cluster).await?,
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
    let target = resolve::target(global, &args.target).await?;
    let engine = engine_for(&target, &args.engine)?;
    let sink = open_sink(
        &target,
        &engine,
        &args.lake,
        #[cfg(feature = "sql")]
        &args.database,
    )?;
    let selection =
        Selection { namespaces: args.selection.namespace, tables: args.selection.table, exclude: args.selection.exclude };
    let skip_recent = args.unattended.skip_recent();
    let state = resolve::state_dir(args.unattended.state.state_dir);
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
        rules: table_rules(&args.tables)?,
        bad_rows: args.bad_rows,
        out_of_range: args.times.policy(),
        concurrency: args.concurrency,
        max_line: usize::try_from(args.limits.max_line).unwrap_or(usize::MAX),
        unpack: UnpackLimits {
            max_ratio: args.limits.max_unpack_ratio,
            max_bytes: args.limits.max_object,
            ..UnpackLimits::default()
        },
        journal: state.map(|folder| Journal::new(folder, &resolve::account(global))),
        fresh: args.unattended.fresh,
        time_budget: args.unattended.time_budget,
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
                failures.extend(finish_one(report).err());
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

/// The sink of a target, with the choices of its kind.
pub(in crate::cli) fn open_sink(
    target: &Target,
    engine: &Engine,
    lake: &LakeArgs,
    #[cfg(feature = "sql")] database: &DatabaseArgs,
) -> Result<Arc<dyn Sink>> {
    match target {
        #[cfg(feature = "sql")]
        Target::Database(_) => ops::open_sink_with(target, engine, crate::cli::commands::database::options(database)),
        _ => ops::open_lake(target, delta_options(engine, lake)),
    }
}

/// `table=word`, or a word for all tables.
fn of_tables(rule: &str) -> (&str, &str) {
    rule.split_once('=').map_or(("all", rule), |(tables, word)| (tables.trim(), word.trim()))
}

/// What the options say of single tables.
pub(in crate::cli) fn table_rules(args: &TableArgs) -> Result<TableRules> {
    let mut rules = TableRules::default();
    for rule in &args.deletes {
        let (tables, word) = of_tables(rule);
        rules.add(tables, TableOptions { deletes: Some(word.parse()?), ..TableOptions::default() });
    }
    for rule in &args.mode {
        let (tables, word) = of_tables(rule);
        rules.add(tables, TableOptions { mode: Some(word.parse()?), ..TableOptions::default() });
    }
    for rule in &args.partition_by {
        let (tables, by) = rule.split_once('=').ok_or_else(|| {
            Error::new(Kind::Usage, "--partition-by names no table").hint("write it as 'submissions=month(submitted_at)'")
        })?;
        let partition_by = Some(by.trim().parse()?);
        rules.add(tables.trim(), TableOptions { partition_by, ..TableOptions::default() });
    }
    for rule in &args.column {
        rules.add_column(rule, |columns| &mut columns.keep)?;
    }
    for rule in &args.drop_column {
        rules.add_column(rule, |columns| &mut columns.drop)?;
    }
    for rule in &args.hash_column {
        rules.add_column(rule, |columns| &mut columns.hash)?;
    }
    if let Some(key) = resolve::hash_key(&args.key)? {
        rules.set_hash_key(key);
    }
    Ok(rules)
}

/// The failures on standard error, and the first one for the exit code.
pub(in crate::cli) fn finish_one(report: Report) -> Result<()> {
    report::failures(&report);
    let (failed, total) = (report.failed().count(), report.tables.len());
    let Some(first) = report.first_error() else { return Ok(()) };
    let error = Error::new(first.kind(), format!("{failed} of {total} tables failed; see above"));
    // To repeat the command helps against what passes by itself. Anything else has a hint of its own, at its table.
    let all_pass = report.tables.iter().filter_map(|table| table.error.as_ref()).all(|error| error.kind().is_transient());
    Err(if all_pass {
        error.hint("such faults often pass: run the same command again, it continues with these tables")
    } else {
        error
    })
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
    write_file(path, format!("{value:#}\n").as_bytes()).context(Kind::Io, failed())
}

/// The whole file or nothing of it.
fn write_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = file_beside(path)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.persist(path)?;
    Ok(())
}

fn engine_for(target: &Target, args: &EngineArgs) -> Result<Engine> {
    match target {
        #[cfg(feature = "sql")]
        Target::Database(_) => database_engine(args),
        _ => engine(args),
    }
}

/// For loads into databases, which need little memory.
#[cfg(feature = "sql")]
pub(in crate::cli) fn database_engine(args: &EngineArgs) -> Result<Engine> {
    engine_of(args, args.memory_limit.unwrap_or(resolve::DATABASE_MEMORY_LIMIT), cores())
}

pub(in crate::cli) fn engine(args: &EngineArgs) -> Result<Engine> {
    engine_of_parts(args, cores())
}

/// For so many parts at once.
pub(in crate::cli) fn engine_of_parts(args: &EngineArgs, partitions: usize) -> Result<Engine> {
    engine_of(args, args.memory_limit.unwrap_or_else(memory::default_limit), partitions)
}

fn engine_of(args: &EngineArgs, limit: u64, partitions: usize) -> Result<Engine> {
    let memory_limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Engine::new(EngineOptions { memory_limit, temp_dir: args.temp_dir.clone(), partitions })
}

pub(in crate::cli) fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

pub(in crate::cli) fn temp_dir(args: &EngineArgs) -> PathBuf {
    args.temp_dir.clone().unwrap_or_else(std::env::temp_dir)
}

/// How lake tables are written, as the options say.
pub(in crate::cli) fn delta_options(engine: &Engine, args: &LakeArgs) -> DeltaOptions {
    DeltaOptions {
        deletion_vectors: match args.deletion_vectors {
            DeletionVectorsArg::Auto => DeletionVectors::Auto,
            DeletionVectorsArg::On => DeletionVectors::On,
            DeletionVectorsArg::Off => DeletionVectors::Off,
        },
        change_data_feed: match args.change_data_feed {
            None => ChangeDataFeed::AsBefore,
            Some(SwitchArg::On) => ChangeDataFeed::On,
            Some(SwitchArg::Off) => ChangeDataFeed::Off,
        },
        on_foreign_changes: match args.foreign_changes {
            ForeignChangesArg::Fail => OnForeignChanges::Fail,
            ForeignChangesArg::Warn => OnForeignChanges::Warn,
        },
        compact_after: args.compact_after,
        ..DeltaOptions::new(engine.clone())
    }
}

pub(in crate::cli) fn small_engine() -> Result<Engine> {
    engine(&EngineArgs { memory_limit: None, temp_dir: None })
}

pub(in crate::cli) async fn status(global: &GlobalArgs, args: StatusArgs) -> Result<()> {
    let target = resolve::target(global, &args.target).await?;
    let sink = ops::open_sink(&target, &small_engine()?)?;
    let (runs, past) = if args.html.is_some() { (20, 100) } else { (5, 0) };
    let request = OverviewRequest {
        namespaces: args.namespace,
        runs: run_reporting::log(resolve::state_dir(args.state.state_dir).as_deref(), sink.as_ref()),
        run_limit: args.runs.unwrap_or(runs),
        current_for: args.current_for,
        past_limit: args.past.unwrap_or(past),
        ..OverviewRequest::new(sink)
    };
    let overview = ops::overview(&request).await?;
    if let Some(path) = &args.html {
        let page = status_page(&overview);
        write_file(path, page.as_bytes()).context(Kind::Io, format!("The page cannot be written: {}", path.display()))?;
    }
    out(&match args.output {
        StatusOutput::Text => overview_text(&overview),
        StatusOutput::Json => {
            serde_json::to_string_pretty(&overview).context(Kind::Bug, "The status cannot be written as JSON")? + "\n"
        }
    })
}

fn overview_text(overview: &Overview) -> String {
    let mut text = match overview.tables.is_empty() {
        true => format!("No tables at {}.\n", overview.target),
        false => status_text(&overview.tables),
    };
    text.push_str(&report::runs(overview));
    text
}

pub(in crate::cli) fn status_text(lines: &[StatusLine]) -> String {
    let known = |number: Option<u64>| number.map_or("-".to_owned(), grouped);
    let mut grid =
        Grid::new(&["table", ">rows", "data as of", ">age", "state", ">schema", ">files", ">size", "protocol", "kept as"]);
    for line in lines {
        grid.row(vec![
            format!("{}.{}", line.namespace, line.table),
            known(line.rows),
            line.data_as_of.clone(),
            age(line.age_seconds),
            line.state.word().to_owned(),
            line.schema_version.to_string(),
            known(line.files),
            line.bytes.map_or("-".to_owned(), size),
            line.protocol.clone().unwrap_or("-".to_owned()),
            line.kept_as.clone().unwrap_or("-".to_owned()),
        ]);
    }
    grid.render()
}
