//! A notification after a run: the report as JSON on the standard input of a command.

use std::process::{Command, Stdio};

use daplake::ops::{self, SyncRequest, Target};
use daplake::{Error, Kind, Result};

use super::practice;

pub async fn run() -> Result<()> {
    let (_school, _server, client) = practice::start().await?;
    let engine = practice::engine()?;
    let folder = practice::folder()?;
    let sink = ops::open_sink(&Target::Folder(folder.path().join("lake")), &engine)?;
    let report = ops::sync(SyncRequest::new(client, sink, engine, practice::selection())).await?;

    // This command prints the start of the report. Another one could send a message if `report.failed()` has a table.
    let failed = |error: std::io::Error| Error::new(Kind::Io, "Cannot run the command").caused_by(error);
    let mut command = Command::new("sh").args(["-c", "cut -c 1-120 >&2"]).stdin(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(input) = command.stdin.take() {
        serde_json::to_writer(input, &report).map_err(|error| failed(error.into()))?;
    }
    command.wait().map_err(failed)?;
    println!("{} tables, {} failed", report.tables.len(), report.failed().count());
    Ok(())
}
