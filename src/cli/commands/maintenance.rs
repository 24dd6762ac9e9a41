//! `optimize`, `vacuum`, `verify`, `history`: build requests, and print results as text or JSON.

use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::args::global::GlobalArgs;
use crate::cli::args::lake::{HistoryArgs, OptimizeArgs, VacuumArgs, VerifyArgs};
use crate::cli::args::query::OutputFormat;
use crate::cli::args::selection::HeldTablesArgs;
use crate::cli::commands::context;
use crate::cli::terminal::output::{Grid, counted, grouped, out, result, size};
use crate::cli::terminal::report;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::TableRef;
use crate::ops::{self, Removal, Selection, TableResult, VerifyRequest};
use crate::sink::delta::{Commit, Optimized, Scope};

pub(in crate::cli) async fn optimize(global: &GlobalArgs, args: OptimizeArgs) -> Result<()> {
    let target = context::target(global, &args.target).await?;
    let lake = ops::open_lake(&target, &context::engine(&args.engine)?).hint("databases manage their files themselves")?;
    let scope = if args.sort_by_key { Scope::SortByKey } else { Scope::Compact };
    let done = ops::optimize(&lake, &selection(args.tables), scope).await?;
    let mut grid = Grid::new(&["table", ">files before", ">after", ">bytes before", ">after", ">deleted rows purged"]);
    let mut sum = Optimized::default();
    for TableResult { table, result } in &done {
        let Ok(done) = result else { continue };
        if done.commits == 0 {
            continue;
        }
        sum.files_removed += done.files_removed;
        sum.files_added += done.files_added;
        sum.bytes_removed += done.bytes_removed;
        sum.bytes_added += done.bytes_added;
        grid.row(vec![
            table.to_string(),
            grouped(done.files_removed),
            grouped(done.files_added),
            size(done.bytes_removed),
            size(done.bytes_added),
            grouped(done.rows_purged),
        ]);
    }
    let (before, after) = (counted(sum.files_removed, "file"), grouped(sum.files_added));
    let (bytes_before, bytes_after) = (size(sum.bytes_removed), size(sum.bytes_added));
    let text = changed(&grid, &done, &format!("{before} ({bytes_before}) replaced by {after} ({bytes_after})"));
    print(args.output, text, &done)
}

pub(in crate::cli) async fn vacuum(global: &GlobalArgs, args: VacuumArgs) -> Result<()> {
    let target = context::target(global, &args.target).await?;
    let lake = ops::open_lake(&target, &context::default_engine()?).hint("databases manage their files themselves")?;
    let removal = if args.dry_run { Removal::Preview } else { Removal::Real };
    let done = ops::vacuum(&lake, &selection(args.tables), args.retention, removal).await?;
    let mut grid = Grid::new(&["table", if args.dry_run { ">files to remove" } else { ">files removed" }, ">size"]);
    let (mut files, mut bytes) = (0, 0);
    for TableResult { table, result } in &done {
        let Ok(done) = result else { continue };
        if done.files.is_empty() {
            continue;
        }
        files += done.files.len() as u64;
        bytes += done.bytes;
        grid.row(vec![table.to_string(), grouped(done.files.len() as u64), size(done.bytes)]);
    }
    let what = if args.dry_run { "to remove" } else { "removed" };
    let text = changed(&grid, &done, &format!("{} ({}) {what}", counted(files, "file"), size(bytes)));
    print(args.output, text, &done)
}

pub(in crate::cli) async fn verify(global: &GlobalArgs, args: VerifyArgs) -> Result<()> {
    let target = context::target(global, &args.target).await?;
    let client = context::client(global, context::pacing(global, args.jobs_per_minute))?;
    let engine = context::engine(&args.engine)?;
    let request = VerifyRequest {
        client,
        lake: ops::open_lake(&target, &engine).hint("for a database, `daplake sync --resnapshot` reloads the tables")?,
        engine,
        selection: selection(args.tables),
        format: args.download_format,
        keys: args.keys,
        hash_key: context::hash_key(&args.key)?,
    };
    let done = ops::verify(&request).await?;
    let mut grid = Grid::new(&["table", ">rows at the service", ">missing", ">surplus", ">different"]);
    let mut keys = String::new();
    for TableResult { table, result } in &done {
        let Ok(found) = result else { continue };
        let counts = [found.rows, found.missing, found.surplus, found.different].map(grouped);
        grid.row(std::iter::once(table.to_string()).chain(counts).collect());
        for differing in &found.keys {
            keys.push_str(&format!("{table}: key {} is {}\n", differing.key, differing.what));
        }
    }
    let differing = done.iter().filter(|compared| compared.result.as_ref().is_ok_and(|found| !found.is_none()));
    let differing: Vec<String> = differing.map(|compared| compared.table.to_string()).collect();
    print(args.output, grid.render() + &keys, &done)?;
    if differing.is_empty() {
        return Ok(());
    }
    let namespaces: std::collections::BTreeSet<&str> =
        differing.iter().filter_map(|table| table.split_once('.')).map(|(namespace, _)| namespace).collect();
    Err(Error::new(Kind::Data, format!("{} of {} tables differ from the service", differing.len(), done.len())).hint(format!(
        "repair them with `daplake sync --resnapshot --namespace {} --table {}` and the same --target",
        Vec::from_iter(namespaces).join(","),
        differing.join(",")
    )))
}

pub(in crate::cli) async fn history(global: &GlobalArgs, args: HistoryArgs) -> Result<()> {
    let target = context::target(global, &args.target).await?;
    let lake = ops::open_lake(&target, &context::default_engine()?)
        .hint("tables of a database have no versions; `daplake status` shows its runs")?;
    let table = match args.table.split_once('.') {
        Some((namespace, table)) => TableRef::new(namespace, table),
        None => TableRef::new("canvas", args.table.as_str()),
    };
    let commits = lake.tables().history(&table, args.limit).await?;
    out(&match args.output {
        OutputFormat::Text => history_text(&commits),
        OutputFormat::Json => pretty(&json!(commits))?,
    })
}

fn history_text(commits: &[Commit]) -> String {
    let known = |number: Option<u64>| number.map_or("-".to_owned(), grouped);
    let given = |text: &Option<String>| text.clone().unwrap_or("-".to_owned());
    let mut grid = Grid::new(&[
        ">version",
        "time",
        "operation",
        ">upserted",
        ">deleted",
        ">files added",
        ">removed",
        ">with deletions",
        "data as of",
        "by",
    ]);
    for commit in commits {
        grid.row(vec![
            commit.version.to_string(),
            given(&commit.time),
            commit.operation.clone(),
            known(commit.upserted),
            known(commit.deleted),
            known(commit.files_added),
            known(commit.files_removed),
            known(commit.files_marked),
            given(&commit.bookmark),
            given(&commit.program),
        ]);
    }
    grid.render()
}

/// The tables that changed, and the totals.
fn changed<T>(grid: &Grid, done: &[TableResult<T>], sum: &str) -> String {
    let tables = counted(done.iter().filter(|cared| cared.result.is_ok()).count() as u64, "table");
    match grid.len() {
        0 => format!("Nothing to do in {tables}.\n"),
        count => format!("{}\n{count} of {tables}: {sum}\n", grid.render()),
    }
}

fn selection(args: HeldTablesArgs) -> Selection {
    Selection { namespaces: args.namespace, tables: args.table, exclude: args.exclude }
}

/// Prints the results, and the failures to standard error. The first failure decides the error of the command.
fn print<T: Serialize>(output: OutputFormat, text: String, done: &[TableResult<T>]) -> Result<()> {
    match output {
        OutputFormat::Text => result(&text)?,
        OutputFormat::Json => {
            let lines: Vec<Value> = done
                .iter()
                .map(|cared| match &cared.result {
                    Ok(done) => json!({"table": cared.table.to_string(), "done": done}),
                    Err(error) => json!({"table": cared.table.to_string(), "error": error.message()}),
                })
                .collect();
            out(&pretty(&json!(lines))?)?;
        }
    }
    let failed: Vec<&Error> = done.iter().filter_map(|cared| cared.result.as_ref().err()).collect();
    failed.iter().for_each(|error| report::error(error));
    match failed.first() {
        None => Ok(()),
        Some(first) => Err(Error::new(first.kind(), format!("{} of {} tables failed; see above", failed.len(), done.len()))),
    }
}

fn pretty(value: &Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(value).context(Kind::Bug, "The result cannot be written as JSON")? + "\n")
}
