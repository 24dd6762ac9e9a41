//! Incremental sync into Delta tables: a snapshot, then only what changed.

use daplake::Result;
use daplake::ops::{self, Outcome, SyncRequest, Target};

use super::practice;

pub async fn run() -> Result<()> {
    let (school, _server, client) = practice::start().await?;
    let engine = practice::engine()?;
    let folder = practice::folder()?;
    let sink = ops::open_sink(&Target::Folder(folder.path().join("lake")), &engine)?;

    for round in ["snapshot", "increment"] {
        // Tables fail on their own: an error here means that nothing could be started.
        let report = ops::sync(SyncRequest::new(client.clone(), sink.clone(), engine.clone(), practice::selection())).await?;
        for table in &report.tables {
            if let Outcome::Loaded { upserted, deleted, rows, .. } = &table.outcome {
                println!("{round} of {}: {upserted} upserted, {deleted} deleted, {rows:?} rows", table.table);
            }
        }
        // Four hours pass at the school.
        school.advance();
    }
    for line in ops::status(sink.as_ref(), &[]).await? {
        println!("{} is as of {}", line.name(), line.data_as_of);
    }
    Ok(())
}
