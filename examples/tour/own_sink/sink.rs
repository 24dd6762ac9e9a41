//! The sink: which tables it has, up to which time, and how a load begins. A real sink keeps the bookmarks with the rows.

use async_trait::async_trait;
use daplake::sink::{CommittedState, Load, LoadPlan, LoadSummary, Sink, TableStatus};
use daplake::{Namespace, Result, SafeUrl, TableRef};

use super::Bookmarks;
use super::load::CountingLoad;

#[derive(Debug)]
pub struct CountingSink {
    pub url: SafeUrl,
    pub bookmarks: Bookmarks,
}

#[async_trait]
impl Sink for CountingSink {
    fn location(&self) -> &SafeUrl {
        &self.url
    }
    async fn check(&self) -> Result<()> {
        Ok(())
    }
    async fn committed(&self, table: &TableRef) -> Result<Option<CommittedState>> {
        Ok(self.bookmarks.lock().get(table).map(|bookmark| CommittedState::new(*bookmark, Default::default())))
    }
    async fn list(&self, _namespace: Option<&Namespace>) -> Result<Vec<TableRef>> {
        Ok(self.bookmarks.lock().keys().cloned().collect())
    }
    async fn status(&self, _table: &TableRef) -> Result<Option<TableStatus>> {
        Ok(None)
    }
    async fn begin(&self, plan: LoadPlan) -> Result<Box<dyn Load>> {
        let bookmarks = self.bookmarks.clone();
        Ok(Box::new(CountingLoad { table: plan.table, bookmarks, counted: LoadSummary::default() }))
    }
}
