//! `status`: the tables of a target and their age, as text, JSON or a web page.

use crate::cli::args::global::GlobalArgs;
use crate::cli::args::query::{OutputFormat, StatusArgs};
use crate::cli::commands::context::{default_engine, target};
use crate::cli::observability::run_reporting;
use crate::cli::settings::paths::state_dir;
use crate::cli::terminal::output::{Grid, age, grouped, out, size, write_whole};
use crate::cli::terminal::report;
use crate::error::{Kind, Result, ResultExt};
use crate::ops::{self, Overview, OverviewRequest, StatusLine};
use crate::page::status_page;

pub(in crate::cli) async fn status(global: &GlobalArgs, args: StatusArgs) -> Result<()> {
    let target = target(global, &args.target).await?;
    let sink = ops::open_sink(&target, &default_engine()?)?;
    let (runs, past) = if args.html.is_some() { (20, 100) } else { (5, 0) };
    let request = OverviewRequest {
        namespaces: args.namespace,
        runs: run_reporting::log(state_dir(args.state.state_dir).as_deref(), sink.as_ref()),
        run_limit: args.runs.unwrap_or(runs),
        current_for: args.current_for,
        past_limit: args.past.unwrap_or(past),
        ..OverviewRequest::new(sink)
    };
    let overview = ops::overview(&request).await?;
    if let Some(path) = &args.html {
        let page = status_page(&overview);
        write_whole(path, page.as_bytes()).context(Kind::Io, format!("The page cannot be written: {}", path.display()))?;
    }
    out(&match args.output {
        OutputFormat::Text => overview_text(&overview),
        OutputFormat::Json => {
            serde_json::to_string_pretty(&overview).context(Kind::Bug, "The status cannot be written as JSON")? + "\n"
        }
    })
}

fn overview_text(overview: &Overview) -> String {
    let mut text =
        if overview.tables.is_empty() { format!("No tables at {}.\n", overview.target) } else { status_text(&overview.tables) };
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
            line.state.name().to_owned(),
            line.schema_version.to_string(),
            known(line.files),
            line.bytes.map_or("-".to_owned(), size),
            line.protocol.clone().unwrap_or("-".to_owned()),
            line.kept_as.clone().unwrap_or("-".to_owned()),
        ]);
    }
    grid.render()
}
