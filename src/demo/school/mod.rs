//! The school: tables, rows and their history, generated from a seed. Any `since..until` has one right answer, and any test can
//! compute it from here without the code under test. No HTTP, no file formats.

use serde_json::Value;

use super::record::{Layout, Record};
use crate::model::{TableRef, Timestamp};

/// What kind of school.
#[derive(Debug, Clone, PartialEq)]
pub struct SchoolOptions {
    /// Same seed, same school.
    pub seed: u64,
    /// Rows of the largest ordinary table (`submissions`) at the first commit; other tables follow in realistic proportion,
    /// at least a few rows each. 100 to 10_000_000.
    pub rows: u64,
    /// Exact row counts for single tables, over the proportion (0 gives an empty table).
    pub table_rows: Vec<(TableRef, u64)>,
    /// Share of a table's rows that changes with each commit, such as 0.01.
    pub change_rate: f64,
    /// Commits there are at the start (at least 1; the first is the initial load). More are made by [`School::advance`].
    pub commits: u32,
    /// Time of the first commit. Commits are 4 h apart.
    pub start: Timestamp,
    /// Only these tables, when given (cheaper for tests).
    pub only: Option<Vec<TableRef>>,
    /// Schema versions change over time (column added, enum widened, required relaxed).
    pub evolving: bool,
}

/// A school with a history that grows by [`School::advance`]. All methods take `&self` and may be called from many threads.
#[derive(Debug)]
pub struct School {}

impl School {
    /// The school at its first commits.
    pub fn new(_options: SchoolOptions) -> Self {
        unimplemented!()
    }

    /// Namespaces, in the service's order.
    pub fn namespaces(&self) -> Vec<String> {
        unimplemented!()
    }

    /// Tables of a namespace; `None` if there is no such namespace.
    pub fn tables(&self, _namespace: &str) -> Option<Vec<String>> {
        unimplemented!()
    }

    /// Time of the newest commit.
    pub fn now(&self) -> Timestamp {
        unimplemented!()
    }

    /// Times of all commits so far, ascending.
    pub fn commits(&self) -> Vec<Timestamp> {
        unimplemented!()
    }

    /// Makes one more commit: every table gets its updates, inserts, deletes, re-inserts. Returns its time.
    pub fn advance(&self) -> Timestamp {
        unimplemented!()
    }

    /// Version of a table's schema at a moment. Versions change only at commits.
    pub fn schema_version(&self, _table: &TableRef, _at: Timestamp) -> Option<i64> {
        unimplemented!()
    }

    /// The service's JSON Schema of a table at a version.
    pub fn schema(&self, _table: &TableRef, _version: i64) -> Option<Value> {
        unimplemented!()
    }

    /// Column names at a version.
    pub fn layout(&self, _table: &TableRef, _version: i64) -> Option<Layout> {
        unimplemented!()
    }

    /// Live rows at the commit `at`, as the service's snapshot gives them (order unspecified but repeatable; `web_logs` repeats
    /// some keys, with equal content or with an older `ts`). Columns follow the schema version at `at`.
    pub fn snapshot(&self, _table: &TableRef, _at: Timestamp) -> Option<Box<dyn Iterator<Item = Record> + Send + '_>> {
        unimplemented!()
    }

    /// Net changes with `since < ts <= until`: one record per key (but for `web_logs`), deletes of never-seen keys included.
    pub fn changes(
        &self,
        _table: &TableRef,
        _since: Timestamp,
        _until: Timestamp,
    ) -> Option<Box<dyn Iterator<Item = Record> + Send + '_>> {
        unimplemented!()
    }

    /// The one right table at `at`: live rows, each key once, in key order. What a test compares with.
    pub fn expected(&self, _table: &TableRef, _at: Timestamp) -> Option<Vec<Record>> {
        unimplemented!()
    }
}
