//! The library in thirty lines: a made-up school, one sync, one query. Needs no account and no network.
//!
//!     cargo run --example first_sync

use std::sync::Arc;
use std::time::Duration;

use daplake::api::{Client, ClientOptions, Credentials, Pacing, RetryPolicy};
use daplake::demo::school::{School, SchoolOptions};
use daplake::demo::serve::{ServeOptions, Server};
use daplake::model::{Format, Timestamp};
use daplake::ops::{self, OnSnapshotRequired, Selection, SyncRequest, Target};
use daplake::redact::Secret;
use daplake::schema::Nested;
use daplake::stage::{Engine, EngineOptions};
use futures::TryStreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let school = School::new(SchoolOptions {
        seed: 1,
        rows: 500,
        table_rows: Vec::new(),
        change_rate: 0.05,
        commits: 1,
        start: "2026-01-01T00:00:00Z".parse::<Timestamp>()?,
        only: None,
        evolving: false,
    });
    let server = Server::start(
        Arc::new(school),
        ServeOptions {
            listen: ([127, 0, 0, 1], 0).into(),
            credentials: ("example#client".into(), "example-secret".into()),
            rows_per_object: 10_000,
            job_delay: (Duration::ZERO, Duration::ZERO),
            job_life: Duration::from_secs(3600),
            url_life: Duration::from_secs(900),
            token_life: Duration::from_secs(3600),
            limits: [0; 5],
            limit_window: Duration::from_secs(60),
            cache: None,
            commit_every: None,
        },
    )
    .await?;

    let folder = tempfile::tempdir()?;
    let engine = Engine::new(EngineOptions { memory_limit: 256 << 20, temp_dir: None, partitions: 2 })?;
    let sink = ops::open_target(&Target::Folder(folder.path().to_owned()), &engine)?;
    let report = ops::sync(SyncRequest {
        client: Client::new(ClientOptions {
            base_url: server.url(),
            credentials: Credentials { client_id: "example#client".into(), client_secret: Secret::new("example-secret") },
            pacing: Pacing { job_starts: 0, ..Pacing::default() },
            retry: RetryPolicy::default(),
            ca_bundle: None,
            poll: (Duration::from_millis(20), Duration::from_secs(1)),
            idle_timeout: Duration::from_secs(60),
        })?,
        sink: sink.clone(),
        engine: engine.clone(),
        selection: Selection { namespaces: vec!["canvas".into()], tables: vec!["users".into(), "accounts".into()], exclude: vec![] },
        format: Format::Jsonl,
        mode: None,
        resnapshot: false,
        on_snapshot_required: OnSnapshotRequired::Resnapshot,
        nested: Nested::Typed,
        bad_rows: None,
        concurrency: 2,
        object_concurrency: 2,
        temp_dir: std::env::temp_dir(),
    })
    .await?;
    println!("{}", serde_json::to_string_pretty(&report)?);

    let answer = ops::query(&sink, &engine, "SELECT workflow_state, count(*) AS people FROM users GROUP BY 1 ORDER BY 2 DESC").await?;
    let rows: Vec<_> = answer.batches.try_collect().await?;
    println!("{}", arrow::util::pretty::pretty_format_batches(&rows)?);
    Ok(())
}
