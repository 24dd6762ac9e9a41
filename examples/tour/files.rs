//! Downloading a snapshot as Parquet files, in the layout of the official client.

use daplake::Result;
use daplake::model::{Format, Namespace, Window};
use daplake::ops::files::{DownloadRequest, Shape, Step, TableChoice, download};

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
    // Called for each step of a table, in the order of the tables.
    let observer = |event: &daplake::ops::files::TableEvent| {
        if let Step::Downloaded { files, bytes, folder, .. } = &event.step {
            println!("{}: {files} files, {bytes} bytes in {}", event.table, folder.display());
        }
    };
    // The download is cancelled when the last argument completes, which this one never does.
    let report = download(request, &observer, std::future::pending()).await?;
    println!("{} tables, {} failed", report.tables.len(), report.errors().count());
    Ok(())
}
