//! The data that the server serves: the school, or a small source in tests.

use serde_json::Value;

use crate::demo::record::{Layout, Record};
use crate::demo::school::School;
use crate::model::{TableRef, Timestamp};

/// Records in the order in which they are served.
pub(super) type Records<'a> = Box<dyn Iterator<Item = Record> + Send + 'a>;

/// Tables with a history. The methods correspond to those of [`School`].
pub(super) trait Source: Send + Sync + 'static {
    /// A string that is equal only for sources with the same records for every query, in any process. `None` if that is unknown; encoded
    /// objects are then not reused by other servers.
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
        // Another version of the program may generate other rows from the same seed.
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
