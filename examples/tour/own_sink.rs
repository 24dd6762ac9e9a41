//! A sink of your own: it counts changes and forgets them. A real one makes rows and bookmark durable together in `commit`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use daplake::Result;
use daplake::engine::engine_error;
use daplake::model::{Bookmark, Namespace, TableRef};
use daplake::ops::{self, SyncRequest};
use daplake::redact::SafeUrl;
use daplake::reduce::{ChangeSet, deletes};
use daplake::sink::{Held, Load, LoadPlan, Loaded, Sink, TableStatus};
use futures::TryStreamExt;

use super::practice;

type Bookmarks = Arc<Mutex<HashMap<TableRef, Bookmark>>>;

#[derive(Debug)]
struct CountingSink {
    url: SafeUrl,
    bookmarks: Bookmarks,
}

struct CountingLoad {
    table: TableRef,
    bookmarks: Bookmarks,
    counted: Loaded,
}

#[async_trait]
impl Sink for CountingSink {
    fn location(&self) -> &SafeUrl {
        &self.url
    }
    async fn check(&self) -> Result<()> {
        Ok(())
    }
    async fn held(&self, table: &TableRef) -> Result<Option<Held>> {
        let bookmarks = self.bookmarks.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(bookmarks.get(table).map(|bookmark| Held::new(*bookmark, Default::default())))
    }
    async fn list(&self, _namespace: Option<&Namespace>) -> Result<Vec<TableRef>> {
        Ok(Vec::new())
    }
    async fn status(&self, _table: &TableRef) -> Result<Option<TableStatus>> {
        Ok(None)
    }
    async fn begin(&self, plan: LoadPlan) -> Result<Box<dyn Load>> {
        Ok(Box::new(CountingLoad { table: plan.table, bookmarks: self.bookmarks.clone(), counted: Loaded::default() }))
    }
}

#[async_trait]
impl Load for CountingLoad {
    async fn write(&mut self, changes: ChangeSet) -> Result<()> {
        for mut stream in changes.streams {
            while let Some(batch) = stream.try_next().await.map_err(engine_error)? {
                let deleted = deletes(&batch)?.true_count();
                self.counted.deleted += deleted as u64;
                self.counted.upserted += (batch.num_rows() - deleted) as u64;
            }
        }
        Ok(())
    }
    async fn commit(self: Box<Self>, reached: Bookmark) -> Result<Loaded> {
        self.bookmarks.lock().unwrap_or_else(PoisonError::into_inner).insert(self.table, reached);
        Ok(self.counted)
    }
    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

pub async fn run() -> Result<()> {
    let (_school, _server, client) = practice::start().await?;
    let url = "counting://here".parse().map(SafeUrl::new).unwrap_or_else(|_| unreachable!("a URL"));
    let sink = Arc::new(CountingSink { url, bookmarks: Bookmarks::default() });
    let report = ops::sync(SyncRequest::new(client, sink, practice::engine()?, practice::selection())).await?;
    report.tables.iter().for_each(|table| println!("{}: {:?}", table.table, table.outcome));
    Ok(())
}
