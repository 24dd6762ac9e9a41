//! The school: tables, rows and their history, generated from a seed. Every snapshot and every window `since..until` has one expected
//! result, which tests compute here without the code under test. No HTTP, no file formats.
//!
//! Rows are not stored. The content of a row is a function of the seed, the table, the row number, the revision and the schema version of its
//! write. Memory grows only with the number of changed rows.

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

/// Size and history of a school.
#[derive(Debug, Clone, PartialEq)]
pub struct SchoolOptions {
    /// Equal options with equal seeds give equal schools.
    pub seed: u64,
    /// Rows of `submissions` at the first commit, 100 to 10,000,000. Other tables have realistic proportions, with at least a few rows each.
    pub rows: u64,
    /// Exact numbers of rows for single tables, in place of the proportion. A table with 0 rows stays empty.
    pub table_rows: Vec<(TableRef, u64)>,
    /// Share of a table's rows that each commit changes, such as 0.01. Above 0, at least one row of each non-empty table changes.
    pub change_rate: f64,
    /// Number of commits at the start (at least 1; the first is the initial load). [`School::advance`] adds more.
    pub commits: u32,
    /// Time of the first commit. Commits are 4 hours apart.
    pub start: Timestamp,
    /// Only these tables; all tables if `None`.
    pub only: Option<Vec<TableRef>>,
    /// Whether schemas change over time, as planned by [`evolution`].
    pub evolving: bool,
}

impl Default for SchoolOptions {
    /// 1,000 submissions, three commits from 2024-09-02, of which each changes one percent.
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

/// A school with a history that [`School::advance`] extends. All methods take `&self` and can be called concurrently.
#[derive(Debug)]
pub struct School {
    options: SchoolOptions,
    world: World,
    tables: HashMap<TableRef, Table>,
    commits: AtomicU32,
}

impl School {
    /// Creates a school. Cheap: schemas and histories are computed on first use.
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

    /// The options of the school.
    pub fn options(&self) -> &SchoolOptions {
        &self.options
    }

    /// Namespaces, in the service's order.
    pub fn namespaces(&self) -> Vec<String> {
        crate::demo::school::catalogue::namespaces().iter().map(|name| (*name).to_owned()).collect()
    }

    /// Tables of a namespace, sorted by name; `None` for an unknown namespace.
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

    /// Adds a commit with updates, inserts, deletes and re-inserts in every table. Returns its time.
    pub fn advance(&self) -> Timestamp {
        self.commit_time(self.commits.fetch_add(1, Ordering::SeqCst))
    }

    /// Schema version of a table at a time. Versions change only at commits.
    pub fn schema_version(&self, table: &TableRef, at: Timestamp) -> Option<i64> {
        Some(self.tables.get(table)?.version(self.commit_at(at)))
    }

    /// JSON Schema of a table in a version, as the service returns it.
    pub fn schema(&self, table: &TableRef, version: i64) -> Option<Value> {
        self.tables.get(table)?.schema(&self.world, version)
    }

    /// Column names of a schema version.
    pub fn layout(&self, table: &TableRef, version: i64) -> Option<Layout> {
        self.tables.get(table)?.layout(&self.world, version)
    }

    /// The planned schema changes of a table. They occur only with [`SchoolOptions::evolving`].
    pub fn evolution(table: &TableRef) -> &'static [evolution::Step] {
        evolution::evolution(table)
    }

    /// The rows of a snapshot at `at`, in an unspecified but repeatable order. `web_logs` repeats some keys, with equal content or with an
    /// older `ts`. Columns follow the schema version at `at`. Times between two commits are possible, without the columns of a schema version
    /// that starts with the second commit.
    pub fn snapshot(&self, table: &TableRef, at: Timestamp) -> Option<Box<dyn Iterator<Item = Record> + Send + '_>> {
        let commits = (self.newest(), self.commit_at(at));
        Some(self.tables.get(table)?.snapshot(&self.world, at.micros(), commits))
    }

    /// Net changes with `since < ts <= until`: one record per key (except in `web_logs`), including deletes of keys that were never inserted.
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

    /// The expected content of a table at `at`: one row per live key, in key order.
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

    /// Number of the newest commit at a time.
    fn commit_at(&self, at: Timestamp) -> u32 {
        let passed = (at.micros().saturating_sub(self.options.start.micros())).div_euclid(INTERVAL);
        passed.clamp(0, i64::from(self.newest())) as u32
    }
}

/// Whether a table has nulls in required columns: a few tables have some, as in the real service, and in an evolving school so do the old rows
/// of a table that gets a required column without a rewrite. All other tables conform to their schemas.
pub fn required_nulls_in(table: &TableRef) -> bool {
    let unfilled =
        |change: &evolution::Change| matches!(change, evolution::Change::ColumnAdded { required: true, backfilled: false, .. });
    let listed = |&&(namespace, name, _): &&(&str, &str, &str)| namespace == table.namespace.as_str() && name == table.table;
    REQUIRED_NULLS.iter().find(listed).is_some()
        || evolution::evolution(table).iter().flat_map(|step| step.changes).any(unfilled)
}
