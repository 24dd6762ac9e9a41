//! A notification after a run, here by a command that prints it. A webhook works in the same way.

use daplake::Result;
use daplake::model::Timestamp;
use daplake::ops::{self, Notifier, NotifyForm, NotifyOn, RunRecord, SyncRequest, Target};

use super::practice;

pub async fn run() -> Result<()> {
    let (_school, _server, client) = practice::start().await?;
    let engine = practice::engine()?;
    let folder = practice::folder()?;
    let sink = ops::open_sink(&Target::Folder(folder.path().join("lake")), &engine)?;
    let command = Some("cut -c 1-120 >&2".to_owned());
    let http = |_: &_| Ok(Default::default());
    // No webhook. The command receives the outcome as JSON on its standard input.
    let notifier = Notifier::new(http, None, NotifyForm::Json, command, NotifyOn::Always)?;

    let request = SyncRequest::new(client, sink.clone(), engine, practice::selection());
    let record = RunRecord::begun(&request.run_id, Timestamp::now(), &sink.location().to_string());
    let result = ops::sync(request).await;
    let seconds = result.as_ref().map_or(0.0, |report| report.seconds);
    notifier.notify(&[record.ended(seconds, &result)]).await;
    result.map(|report| println!("{} tables, {} failed", report.tables.len(), report.failed().count()))
}
