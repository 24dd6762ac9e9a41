//! Incremental sync into Delta tables: a snapshot, then the changes only.

use daplake::Result;
use daplake::ops::{self, Outcome, SyncRequest, Target};

use super::practice;

pub async fn run() -> Result<()> {
    let (school, _server, client) = practice::start().await?;
    let engine = practice::engine()?;
    let folder = practice::folder()?;
    let sink = ops::open_sink(&Target::Folder(folder.path().join("lake")), &engine)?;

    for round in ["snapshot", "increment"] {
        // A table that fails is part of the report. An error means that the run could not start.
        let report = ops::sync(SyncRequest::new(client.clone(), sink.clone(), engine.clone(), practice::selection())).await?;
        for table in &report.tables {
            if let Outcome::Loaded { upserted, deleted, rows, .. } = &table.outcome {
                println!("{round} of {}: {upserted} upserted, {deleted} deleted, {rows:?} rows", table.table);
            }
        }
        // Four hours of changes at the school.
        school.advance();
    }
    for line in ops::status(sink.as_ref(), &[]).await? {
        println!("{} is as of {}", line.name(), line.data_as_of);
    }
    Ok(())
}
