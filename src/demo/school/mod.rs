//! The school: tables, rows and their history, generated from a seed. Any `since..until` has one right answer, and any test can
//! compute it from here without the code under test. No HTTP, no file formats.
//!
//! Rows are not stored. A row's content is a function of the seed, the table, the row's number, its revision and the schema
//! version it was written with; memory grows with the number of changed rows only.

pub mod catalogue;
mod columns;
pub mod evolution;
mod history;
mod scale;
mod table;
#[cfg(test)]
mod tests;
mod values;
mod world;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use self::history::INTERVAL;
use self::table::Table;
use self::world::World;
use super::record::{Layout, Record};
use crate::demo::school::catalogue::index::ENTRIES;
use crate::demo::school::columns::rules::REQUIRED_NULLS;
use crate::model::{TableRef, Timestamp};

/// What kind of school.
#[derive(Debug, Clone, PartialEq)]
pub struct SchoolOptions {
    /// Same seed, same school.
    pub seed: u64,
    /// Rows of the largest ordinary table (`submissions`) at the first commit; other tables follow in realistic proportion,
    /// at least a few rows each. 100 to 10_000_000.
    pub rows: u64,
    /// Exact row counts for single tables, over the proportion (0 gives an empty table, which stays empty).
    pub table_rows: Vec<(TableRef, u64)>,
    /// Share of a table's rows that changes with each commit, such as 0.01; at least one row of a table with rows, none at all
    /// at 0.
    pub change_rate: f64,
    /// Commits there are at the start (at least 1; the first is the initial load). More are made by [`School::advance`].
    pub commits: u32,
    /// Time of the first commit. Commits are 4 h apart.
    pub start: Timestamp,
    /// Only these tables, when given (cheaper for tests).
    pub only: Option<Vec<TableRef>>,
    /// Schema versions change over time, as [`evolution`] plans.
    pub evolving: bool,
}

impl Default for SchoolOptions {
    /// A thousand submissions, three commits from 2024-09-02, one percent of change.
    fn default() -> Self {
        Self {
            seed: 1,
            rows: 1_000,
            table_rows: Vec::new(),
            change_rate: 0.01,
            commits: 3,
            start: Timestamp::from_micros(1_725_235_200_000_000),
            only: None,
            evolving: false,
        }
    }
}

/// A school with a history that grows by [`School::advance`]. All methods take `&self` and may be called from many threads.
#[derive(Debug)]
pub struct School {
    options: SchoolOptions,
    world: World,
    tables: HashMap<TableRef, Table>,
    commits: AtomicU32,
}

impl School {
    /// The school at its first commits. Cheap: schemas and histories are made when first asked for.
    pub fn new(options: SchoolOptions) -> Self {
        let exact: HashMap<String, u64> = options.table_rows.iter().map(|(table, rows)| (table.to_string(), *rows)).collect();
        let rows_of = |name: &str| exact.get(name).copied();
        let world = World::new(options.seed, options.rows.max(1), rows_of);
        let mut tables = HashMap::new();
        for entry in ENTRIES {
            let rows = rows_of(&entry.full_name()).unwrap_or_else(|| scale::rows(&entry.full_name(), options.rows.max(1)));
            let table = Table::new(entry, &world, options.evolving, options.change_rate, options.start.micros(), rows);
            if let Some(table) = table
                && options.only.as_ref().is_none_or(|only| only.contains(&table.reference))
            {
                tables.insert(table.reference.clone(), table);
            }
        }
        let commits = AtomicU32::new(options.commits.max(1));
        Self { options, world, tables, commits }
    }

    /// What it was made from. Equal options make equal schools.
    pub fn options(&self) -> &SchoolOptions {
        &self.options
    }

    /// Namespaces, in the service's order.
    pub fn namespaces(&self) -> Vec<String> {
        crate::demo::school::catalogue::namespaces().iter().map(|name| (*name).to_owned()).collect()
    }

    /// Tables of a namespace, by name; `None` if there is no such namespace.
    pub fn tables(&self, namespace: &str) -> Option<Vec<String>> {
        crate::demo::school::catalogue::namespaces().iter().find(|known| **known == namespace)?;
        let listed = self.tables.keys().filter(|table| table.namespace.as_str() == namespace);
        let mut names: Vec<String> = listed.map(|table| table.table.clone()).collect();
        names.sort_unstable();
        Some(names)
    }

    /// Time of the newest commit.
    pub fn now(&self) -> Timestamp {
        self.commit_time(self.newest())
    }

    /// Times of all commits so far, ascending.
    pub fn commits(&self) -> Vec<Timestamp> {
        (0..=self.newest()).map(|commit| self.commit_time(commit)).collect()
    }

    /// Makes one more commit: every table gets its updates, inserts, deletes, re-inserts. Returns its time.
    pub fn advance(&self) -> Timestamp {
        self.commit_time(self.commits.fetch_add(1, Ordering::SeqCst))
    }

    /// Version of a table's schema at a moment. Versions change only at commits.
    pub fn schema_version(&self, table: &TableRef, at: Timestamp) -> Option<i64> {
        Some(self.tables.get(table)?.version(self.commit_at(at)))
    }

    /// The service's JSON Schema of a table at a version.
    pub fn schema(&self, table: &TableRef, version: i64) -> Option<Value> {
        self.tables.get(table)?.schema(&self.world, version)
    }

    /// Column names at a version.
    pub fn layout(&self, table: &TableRef, version: i64) -> Option<Layout> {
        self.tables.get(table)?.layout(&self.world, version)
    }

    /// The planned schema changes of a table; they happen in an evolving school only.
    pub fn evolution(table: &TableRef) -> &'static [evolution::Step] {
        evolution::evolution(table)
    }

    /// Live rows at the commit `at` (moments between two commits work as well, but for the columns of a schema version that is
    /// only coming with the second), as the service's snapshot gives them (order unspecified but repeatable; `web_logs` repeats
    /// some keys, with equal content or with an older `ts`). Columns follow the schema version at `at`.
    pub fn snapshot(&self, table: &TableRef, at: Timestamp) -> Option<Box<dyn Iterator<Item = Record> + Send + '_>> {
        let commits = (self.newest(), self.commit_at(at));
        Some(self.tables.get(table)?.snapshot(&self.world, at.micros(), commits))
    }

    /// Net changes with `since < ts <= until`: one record per key (but for `web_logs`), deletes of never-seen keys included.
    /// Columns follow the schema version at `until`.
    pub fn changes(
        &self,
        table: &TableRef,
        since: Timestamp,
        until: Timestamp,
    ) -> Option<Box<dyn Iterator<Item = Record> + Send + '_>> {
        let commits = (self.newest(), self.commit_at(until));
        Some(self.tables.get(table)?.changes(&self.world, since.micros(), until.micros(), commits))
    }

    /// The one right table at `at`: live rows, each key once, in key order. What a test compares with.
    pub fn expected(&self, table: &TableRef, at: Timestamp) -> Option<Vec<Record>> {
        let commits = (self.newest(), self.commit_at(at));
        Some(self.tables.get(table)?.expected(&self.world, at.micros(), commits))
    }

    /// Number of the newest commit, from 0.
    fn newest(&self) -> u32 {
        self.commits.load(Ordering::SeqCst) - 1
    }

    fn commit_time(&self, commit: u32) -> Timestamp {
        Timestamp::from_micros(self.options.start.micros() + i64::from(commit) * INTERVAL)
    }

    /// Number of the newest commit not after a moment.
    fn commit_at(&self, at: Timestamp) -> u32 {
        let passed = (at.micros().saturating_sub(self.options.start.micros())).div_euclid(INTERVAL);
        passed.clamp(0, i64::from(self.newest())) as u32
    }
}

/// Whether nulls are found in required columns of a table: rarely in a few tables, as at the real service, and in an evolving
/// school also in the old rows of a table that gets a required column without rewriting them. All other tables keep to their
/// schemas.
pub fn required_nulls_in(table: &TableRef) -> bool {
    let unfilled =
        |change: &evolution::Change| matches!(change, evolution::Change::ColumnAdded { required: true, backfilled: false, .. });
    let listed = |&&(namespace, name, _): &&(&str, &str, &str)| namespace == table.namespace.as_str() && name == table.table;
    REQUIRED_NULLS.iter().find(listed).is_some()
        || evolution::evolution(table).iter().flat_map(|step| step.changes).any(unfilled)
}
