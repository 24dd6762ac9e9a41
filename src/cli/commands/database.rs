//! `initdb`, `syncdb`, `dropdb`, `listdb`: build requests, and print reports.

use std::process::ExitCode;
use std::sync::Arc;

use chrono::{Local, SecondsFormat, TimeZone};
use serde_json::json;

use crate::cli::args::database::{ConnectionArgs, DbLoadArgs, DropdbArgs, ListdbArgs};
use crate::cli::args::global::GlobalArgs;
use crate::cli::commands::context;
use crate::cli::commands::downloads::say_failed;
use crate::cli::exit;
use crate::cli::signals::interrupted;
use crate::cli::terminal::console::{Console, Mark};
use crate::cli::terminal::output;
use crate::cli::terminal::output::{Grid, counted, grouped};
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::{Namespace, Timestamp};
use crate::ops::databases;
use crate::ops::databases::DbLine;
use crate::ops::{self, Outcome, Precondition, Selection, SyncEvent, SyncRequest, SyncStep, Target, UnknownTables};
use crate::sink::Sink;
use crate::sink::sql::{SqlOptions, SqlSink};

fn open(connection: &ConnectionArgs, options: SqlOptions) -> Result<SqlSink> {
    let hint = "write it as postgresql://user:password@host:port/database";
    let Some(text) = &connection.connection_string else {
        return Err(Error::new(
            Kind::Usage,
            "No connection string was given: use --connection-string or DAP_CONNECTION_STRING",
        )
        .hint(hint));
    };
    match context::database(text.reveal()).hint(hint)? {
        Target::Database(url) => SqlSink::open(url.reveal(), options),
        Target::Folder(_) | Target::Store(..) | Target::Parquet(_) => {
            Err(Error::new(Kind::Usage, "The connection string does not name a database").hint(hint))
        }
    }
}

/// Runs work that Ctrl-C can end: each table is then unchanged or up to date.
async fn or_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        () = interrupted() => Err(Error::new(Kind::Cancelled, "Interrupted; each table is unchanged or up to date")),
        result = work => result,
    }
}

pub(in crate::cli) async fn load(
    global: &GlobalArgs,
    console: Console,
    args: DbLoadArgs,
    precondition: Precondition,
) -> Result<ExitCode> {
    let sink = open(&args.connection, context::database_options(&args.values))?;
    let client = context::client(global, context::pacing(global, args.jobs_per_minute))?;
    context::check_tracking(global)?;
    let namespace = args.namespace.namespace;
    let verb = if precondition == Precondition::Absent { "Initialising" } else { "Synchronising" };
    console.say(Mark::Title, |bold| format!("{verb} tables of {}", bold(&namespace)))?;
    let selection = Selection {
        namespaces: vec![namespace],
        tables: args.tables.table.split(',').map(|name| name.trim().to_owned()).collect(),
        exclude: args.exclude,
    };
    if let Some(warning) = or_interrupted(sink.charset_warning()).await? {
        console.say(Mark::Warning, |_| warning.clone())?;
    }
    let sink: Arc<dyn Sink> = Arc::new(sink);
    let engine = context::database_engine(&args.engine)?;
    let observer: ops::SyncObserver = Arc::new(move |event: &SyncEvent<'_>| print_step(console, verb, event));
    let request = SyncRequest {
        precondition,
        unknown_tables: UnknownTables::Try,
        on_snapshot_required: args.on_snapshot_required,
        on_schema_change: args.columns.schema_changes,
        observer: Some(observer),
        out_of_range: args.times.out_of_range_times,
        ..SyncRequest::new(client, sink, engine, selection)
    };
    let report = or_interrupted(Box::pin(ops::sync(request))).await?;
    let errors: Vec<&Error> = report.tables.iter().filter_map(|table| table.error.as_ref()).collect();
    let skipped = report.tables.iter().filter(|table| table.outcome == Outcome::Skipped).count();
    ended(console, &errors, skipped, report.tables.len())
}

/// Prints a step of a table. A failure to print, such as a closed pipe, must not stop the work.
fn print_step(console: Console, verb: &str, event: &SyncEvent<'_>) {
    let name = event.table.to_string();
    let report = match event.step {
        SyncStep::Started => {
            let _ = console.say(Mark::Title, |bold| format!("{verb} {}", bold(&name)));
            return;
        }
        SyncStep::Ended(report) => report,
    };
    // Tables start and end in any order, so only their ends are numbered.
    let number = if event.of > 1 { format!(" ({} of {})", event.ended, event.of) } else { String::new() };
    for warning in &report.warnings {
        let _ = console.say(Mark::Warning, |bold| format!("{}: {warning}", bold(&name)));
    }
    if let Outcome::Loaded { schema_changes, .. } = &report.outcome {
        for change in schema_changes {
            let _ = console.say(Mark::Progress, |bold| format!("{}: {change}", bold(&name)));
        }
    }
    let _ = match (&report.outcome, &report.error) {
        (_, Some(error)) => console.error(error),
        (Outcome::Loaded { upserted, deleted, bookmark, .. }, _) => console.say(Mark::Success, |bold| {
            format!("{}: {}, data as of {bookmark}{number}", bold(&name), bold(&counted(upserted + deleted, "row")))
        }),
        (Outcome::Unchanged { by_another_run: true, .. }, _) => {
            console.say(Mark::Success, |bold| format!("{}: brought up to date by another run{number}", bold(&name)))
        }
        (Outcome::Unchanged { .. } | Outcome::Recent { .. }, _) => {
            console.say(Mark::Success, |bold| format!("{}: nothing new{number}", bold(&name)))
        }
        _ => Ok(()),
    };
}

/// Ends after failures. The last one decides the exit code, as in the official client.
fn ended(console: Console, errors: &[&Error], skipped: usize, total: usize) -> Result<ExitCode> {
    let Some(last) = errors.last() else { return Ok(ExitCode::SUCCESS) };
    say_failed(console, errors.len(), skipped, total)?;
    Ok(exit::code(last))
}

pub(in crate::cli) async fn drop(console: Console, args: DropdbArgs) -> Result<ExitCode> {
    let sink = open(&args.connection, SqlOptions::default())?;
    let namespace = Namespace::new(args.namespace.namespace);
    let done = or_interrupted(databases::drop(&sink, &namespace, &args.tables.table)).await?;
    if done.is_empty() {
        console.say(Mark::Warning, |_| format!("The database has no tables of {namespace}; nothing to drop"))?;
        return Ok(ExitCode::SUCCESS);
    }
    console.say(Mark::Title, |bold| format!("Dropping {}", bold(&counted(done.len() as u64, "table"))))?;
    for (table, error) in &done {
        match error {
            None => console.say(Mark::Success, |bold| format!("{}: dropped", bold(&table.to_string())))?,
            Some(error) => console.error(error)?,
        }
    }
    let errors: Vec<&Error> = done.iter().filter_map(|(_, error)| error.as_ref()).collect();
    ended(console, &errors, 0, done.len())
}

pub(in crate::cli) async fn list(global: &GlobalArgs, console: Console, args: ListdbArgs) -> Result<ExitCode> {
    let sink = open(&args.connection, SqlOptions::default())?;
    let client = context::client(global, context::pacing(global, 0))?;
    context::check_tracking(global)?;
    let namespace = Namespace::new(args.namespace.namespace);
    console.say(Mark::Progress, |_| "Listing the tables of the service and of the database".to_owned())?;
    let count = !args.omit_record_count;
    let client = (!args.omit_not_replicated).then_some(&client);
    let lines = or_interrupted(databases::list(&sink, client, &namespace, count)).await?;
    for line in lines.iter().filter(|line| line.is_missing) {
        console.say(Mark::Warning, |bold| {
            format!("{} was dropped by another program; run dropdb for it, then initdb", bold(&line.name))
        })?;
    }
    let now = Timestamp::now();
    let age = |line: &DbLine| line.timestamp.map(|at| output::age((now.micros() - at.micros()) / 1_000_000));
    let command = |line: &DbLine| if line.timestamp.is_some() { "syncdb" } else { "initdb" };
    let local = |at: Timestamp| match Local.timestamp_micros(at.micros()).single() {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::AutoSi, false),
        None => at.to_string(),
    };
    if !console.is_interactive() {
        let objects: Vec<serde_json::Value> = lines
            .iter()
            .map(|line| {
                let mut object = json!({
                    "name": line.name,
                    "timestamp": line.timestamp.map(local),
                    "staleness": age(line),
                    "schema": line.schema,
                    "command": command(line),
                });
                if count {
                    object["records"] = json!(line.records);
                }
                object
            })
            .collect();
        let text = serde_json::to_string_pretty(&objects).context(Kind::Bug, "The list cannot be written as JSON")?;
        console.data(&format!("{text}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut grid = Grid::new(&["Name", ">Records", "Data as of", "Staleness", ">Schema", "Use command"]);
    let missing = || "-".to_owned();
    for line in &lines {
        grid.row(vec![
            line.name.clone(),
            line.records.map_or_else(missing, grouped),
            line.timestamp.map_or("not replicated".to_owned(), local),
            age(line).unwrap_or_else(missing),
            line.schema.map_or_else(missing, |schema| schema.to_string()),
            command(line).to_owned(),
        ]);
    }
    output::out(&format!("{namespace}\n{}", grid.render()))?;
    Ok(ExitCode::SUCCESS)
}
