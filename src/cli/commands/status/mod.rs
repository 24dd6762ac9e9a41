//! `status`: the tables of a target, why they are behind, and what comes next, as text, JSON, a web page or a live view.

mod text;
mod watch;

use std::io::IsTerminal;

use crate::cli::args::global::GlobalArgs;
use crate::cli::args::query::{FailIf, OutputFormat, StatusArgs};
use crate::cli::commands::context::{default_engine, target};
use crate::cli::observability::run_reporting;
use crate::cli::settings::paths::state_dir;
use crate::cli::terminal::output::{counted, out, write_whole};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::ops::{self, Overview, OverviewRequest};
use crate::page::status_page;

pub(in crate::cli) use text::status_text;

/// Runs and earlier loads of a table that the page shows.
const RUNS_OF_PAGE: usize = 20;
const PAST_OF_PAGE: usize = 100;
/// Runs of the other outputs.
const RUNS: usize = 5;

pub(in crate::cli) async fn status(global: &GlobalArgs, args: StatusArgs) -> Result<()> {
    if args.watch && !std::io::stdout().is_terminal() {
        return Err(Error::new(Kind::Usage, "--watch needs a terminal")
            .hint("omit --watch, or repeat the command: `watch -n 10 daplake status ...`"));
    }
    let target = target(global, &args.target).await?;
    let sink = ops::open_sink(&target, &default_engine()?)?;
    let is_page = args.html.is_some();
    let (runs, past) = if is_page { (RUNS_OF_PAGE, PAST_OF_PAGE) } else { (RUNS, 0) };
    let state_dir = state_dir(args.folders.state_dir.clone());
    let request = OverviewRequest {
        namespaces: args.namespace.clone(),
        tables: args.table.clone(),
        states: args.state.clone(),
        runs: run_reporting::log(state_dir.as_deref(), sink.as_ref()),
        jobs: state_dir,
        run_limit: args.runs.unwrap_or(runs),
        current_for: args.current_for,
        past_limit: args.past.unwrap_or(past),
        has_columns: is_page,
        ..OverviewRequest::new(sink)
    };
    if args.watch {
        return watch::watch(args.interval, async || overview(&request, &args).await).await;
    }
    let overview = overview(&request, &args).await?;
    out(&match args.output {
        OutputFormat::Text => text::overview_text(&overview, text::Layout::of_output()),
        OutputFormat::Json => {
            serde_json::to_string_pretty(&overview).context(Kind::Bug, "The status cannot be written as JSON")? + "\n"
        }
    })?;
    args.fail_if.map_or(Ok(()), |case| check(&overview, case))
}

/// The overview; also writes the page.
async fn overview(request: &OverviewRequest, args: &StatusArgs) -> Result<Overview> {
    let overview = ops::overview(request).await?;
    if let Some(path) = &args.html {
        let page = status_page(&overview);
        write_whole(path, page.as_bytes()).context(Kind::Io, format!("The page cannot be written: {}", path.display()))?;
    }
    Ok(overview)
}

/// Fails if the condition of `--fail-if` holds.
fn check(overview: &Overview, case: FailIf) -> Result<()> {
    let counts = overview.counts;
    let is_bad = overview.is_failing() || (case == FailIf::Behind && overview.is_behind());
    if !is_bad {
        return Ok(());
    }
    let tables = counted(counts.all() as u64, "table");
    let message = match (counts.all(), overview.failure_of_last_run()) {
        (_, Some(failure)) => format!("The last run could not start: {}", failure.message),
        (0, None) => "The target has no tables".to_owned(),
        _ if counts.behind == 0 || case == FailIf::Failing => format!("{} of {tables} failing", counts.failing),
        _ if counts.failing == 0 => format!("{} of {tables} behind", counts.behind),
        _ => format!("{} of {tables} failing, {} behind", counts.failing, counts.behind),
    };
    Err(Error::new(Kind::Data, message).hint("the output above has the reasons; `daplake sync` updates the tables"))
}
