//! What the server needs to know of the data it serves. The school is the real one; tests bring a tiny one of their own.

use serde_json::Value;

use crate::demo::record::{Layout, Record};
use crate::demo::school::School;
use crate::model::{TableRef, Timestamp};

/// Records in the order they are served.
pub(super) type Records<'a> = Box<dyn Iterator<Item = Record> + Send + 'a>;

/// Tables with a history. The methods mean what those of [`School`] mean.
pub(super) trait Source: Send + Sync + 'static {
    /// A text that two sources share only if they give the same records for the same question, in any process; `None` if that
    /// cannot be told, and then encoded objects are never reused by another server.
    fn fingerprint(&self) -> Option<String>;
    fn tables(&self, namespace: &str) -> Option<Vec<String>>;
    fn commits(&self) -> Vec<Timestamp>;
    fn advance(&self) -> Timestamp;
    fn schema_version(&self, table: &TableRef, at: Timestamp) -> Option<i64>;
    fn schema(&self, table: &TableRef, version: i64) -> Option<Value>;
    fn layout(&self, table: &TableRef, version: i64) -> Option<Layout>;
    fn snapshot(&self, table: &TableRef, at: Timestamp) -> Option<Records<'_>>;
    fn changes(&self, table: &TableRef, since: Timestamp, until: Timestamp) -> Option<Records<'_>>;
}

impl Source for School {
    fn fingerprint(&self) -> Option<String> {
        // Another version may make other rows of the same seed.
        Some(format!("{} {:?}", env!("CARGO_PKG_VERSION"), self.options()))
    }

    fn tables(&self, namespace: &str) -> Option<Vec<String>> {
        School::tables(self, namespace)
    }

    fn commits(&self) -> Vec<Timestamp> {
        School::commits(self)
    }

    fn advance(&self) -> Timestamp {
        School::advance(self)
    }

    fn schema_version(&self, table: &TableRef, at: Timestamp) -> Option<i64> {
        School::schema_version(self, table, at)
    }

    fn schema(&self, table: &TableRef, version: i64) -> Option<Value> {
        School::schema(self, table, version)
    }

    fn layout(&self, table: &TableRef, version: i64) -> Option<Layout> {
        School::layout(self, table, version)
    }

    fn snapshot(&self, table: &TableRef, at: Timestamp) -> Option<Records<'_>> {
        School::snapshot(self, table, at)
    }

    fn changes(&self, table: &TableRef, since: Timestamp, until: Timestamp) -> Option<Records<'_>> {
        School::changes(self, table, since, until)
    }
}
