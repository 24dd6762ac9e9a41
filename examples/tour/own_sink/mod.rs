//! A sink of your own, which counts changes and discards the rows: `sink.rs` lists its tables, `load.rs` loads one of them.

mod load;
mod sink;

use std::collections::BTreeMap;
use std::sync::Arc;

use daplake::ops::{self, SyncRequest};
use daplake::{Bookmark, Error, Kind, Result, SafeUrl, TableRef};
use parking_lot::Mutex;

use super::practice;

type Bookmarks = Arc<Mutex<BTreeMap<TableRef, Bookmark>>>;

pub async fn run() -> Result<()> {
    let (_school, _server, client) = practice::start().await?;
    let url = "counting://here".parse().map(SafeUrl::new).map_err(|_| Error::new(Kind::Usage, "The URL is invalid"))?;
    let sink = Arc::new(sink::CountingSink { url, bookmarks: Bookmarks::default() });
    let report = ops::sync(SyncRequest::new(client, sink, practice::engine()?, practice::selection())).await?;
    report.tables.iter().for_each(|table| println!("{}: {:?}", table.table, table.outcome));
    Ok(())
}
