//! The library in thirty lines: a made-up school, one sync, one query. Needs no account and no network.
//!
//!     cargo run --example first_sync

#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::sync::Arc;
use std::time::Duration;

use daplake::api::{Client, ClientOptions, Credentials, Pacing, RetryPolicy};
use daplake::demo::school::{School, SchoolOptions};
use daplake::demo::serve::{ServeOptions, Server};
use daplake::ops::{self, Selection, SyncRequest, Target};
use daplake::redact::Secret;
use daplake::stage::{Engine, EngineOptions};
use futures::TryStreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let school = School::new(SchoolOptions { commits: 1, ..SchoolOptions::default() });
    let serving = ServeOptions { credentials: ("example#client".into(), "example-secret".into()), ..ServeOptions::instant() };
    let server = Server::start(Arc::new(school), serving).await?;

    let folder = tempfile::tempdir()?;
    let engine = Engine::new(EngineOptions { memory_limit: 256 << 20, temp_dir: None, partitions: 2 })?;
    let sink = ops::open_target(&Target::Folder(folder.path().to_owned()), &engine)?;
    let client = Client::new(ClientOptions {
        base_url: server.url(),
        credentials: Credentials { client_id: "example#client".into(), client_secret: Secret::new("example-secret") },
        pacing: Pacing { job_starts: 0, ..Pacing::default() },
        retry: RetryPolicy::default(),
        ca_bundle: None,
        poll: (Duration::from_millis(20), Duration::from_secs(1)),
        idle_timeout: Duration::from_secs(60),
    })?;
    let selection =
        Selection { namespaces: vec!["canvas".into()], tables: vec!["users".into(), "accounts".into()], exclude: Vec::new() };
    let report = ops::sync(SyncRequest::new(client, sink.clone(), engine.clone(), selection)).await?;
    println!("{}", serde_json::to_string_pretty(&report)?);

    let answer =
        ops::query(&sink, &engine, "SELECT workflow_state, count(*) AS people FROM users GROUP BY 1 ORDER BY 2 DESC").await?;
    let rows: Vec<_> = answer.batches.try_collect().await?;
    println!("{}", arrow::util::pretty::pretty_format_batches(&rows)?);
    Ok(())
}
