//! A load of one table. Nothing may be visible before `commit`, which must make rows and bookmark durable together.

use async_trait::async_trait;
use daplake::sink::{ChangeSet, Load, LoadSummary, WriteError, deletes};
use daplake::{Bookmark, Result, TableRef};
use futures::TryStreamExt;

use super::Bookmarks;

pub struct CountingLoad {
    pub table: TableRef,
    pub bookmarks: Bookmarks,
    pub counted: LoadSummary,
}

#[async_trait]
impl Load for CountingLoad {
    async fn write(&mut self, changes: ChangeSet) -> Result<(), WriteError> {
        for mut stream in changes.into_streams() {
            while let Some(batch) = stream.try_next().await? {
                let deleted = deletes(&batch)?.true_count();
                self.counted.deleted += deleted as u64;
                self.counted.upserted += (batch.num_rows() - deleted) as u64;
            }
        }
        Ok(())
    }
    async fn commit(self: Box<Self>, reached: Bookmark) -> Result<LoadSummary> {
        self.bookmarks.lock().insert(self.table, reached);
        Ok(self.counted)
    }
    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
