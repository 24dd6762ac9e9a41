//! A query over lake tables whose result is a stream of Arrow record batches.

use arrow::util::pretty::pretty_format_batches;
use daplake::ops::{self, SyncRequest, Target};
use daplake::{Error, Kind, Result};
use futures::TryStreamExt;

use super::practice;

pub async fn run() -> Result<()> {
    let (_school, _server, client) = practice::start().await?;
    let engine = practice::engine()?;
    let folder = practice::folder()?;
    let lake = ops::open_lake(&Target::Folder(folder.path().join("lake")), &engine)?;
    ops::sync(SyncRequest::new(client, lake.sink(), engine.clone(), practice::selection())).await?;

    let sql = "SELECT workflow_state, count(*) AS users FROM users GROUP BY 1 ORDER BY 2 DESC";
    let answer = ops::query(&lake, &engine, sql).await?;
    println!("columns: {:?}", answer.schema.fields().iter().map(|field| field.name()).collect::<Vec<_>>());
    let batches: Vec<_> = answer.batches.try_collect().await?;
    let text = pretty_format_batches(&batches);
    println!("{}", text.map_err(|error| Error::new(Kind::Bug, "The rows cannot be printed").caused_by(error))?);
    Ok(())
}
