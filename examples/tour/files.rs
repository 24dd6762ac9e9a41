//! Downloading a snapshot as Parquet files, in the layout of the official client.

use daplake::ops::{DownloadRequest, FilesOutcome, Shape, TableChoice, download};
use daplake::{Format, Namespace, Result, Window};

use super::practice;

pub async fn run() -> Result<()> {
    let (_school, _server, client) = practice::start().await?;
    let folder = practice::folder()?;
    let request = DownloadRequest {
        client,
        namespace: Namespace::new("canvas"),
        tables: TableChoice::Names(vec!["users".into(), "accounts".into()]),
        window: Window::Snapshot,
        format: Format::Jsonl,
        shape: Shape::Parquet,
        folder: folder.path().to_owned(),
        objects_at_once: 4,
        journal: None,
        fresh: false,
    };
    // A table that fails is part of the report. An error means that no table was tried.
    let report = download(request).await?;
    for (table, outcome) in &report.tables {
        match outcome {
            FilesOutcome::Done => println!("{table}: downloaded"),
            FilesOutcome::Failed(error) => println!("{table}: {error}"),
            FilesOutcome::Skipped => println!("{table}: not tried"),
        }
    }
    println!("{} tables, {} failed", report.tables.len(), report.errors().count());
    Ok(())
}
