//! One table of the school: combines schema versions, rules and history into records. Other tables are reached only through `World`.

use std::collections::HashMap;
use std::sync::OnceLock;

use parking_lot::Mutex;
use serde_json::Value;

use super::evolution::{self, Change, Step};
use super::history::{Delivery, Event, Habits, History, INTERVAL, Past};
use super::world::World;
use crate::demo::record::{Cell, Layout, Record};
use crate::demo::school::catalogue::entry::Entry;
use crate::demo::school::columns::row::{Row, Writing};
use crate::demo::school::columns::rule::Rule;
use crate::demo::school::columns::rules::rules;
use crate::demo::school::columns::shape::{Column, Kind, Shape};
use crate::demo::school::values::random::{RowMap, mix, salt, scattered};
use crate::model::{Op, TableRef, Timestamp};

#[derive(Debug)]
pub(super) struct Table {
    pub(super) reference: TableRef,
    entry: &'static Entry,
    steps: &'static [Step],
    space: usize,
    habits: Habits,
    history: Mutex<History>,
    versions: OnceLock<Vec<Version>>,
}

/// A schema version with the rules for its rows.
#[derive(Debug)]
struct Version {
    number: i64,
    schema: Value,
    shape: Shape,
    rules: Vec<Rule>,
    /// For each older version, where the columns of this version come from.
    from: Vec<Vec<Origin>>,
}

/// Where a column of a newer version comes from.
#[derive(Debug, Clone)]
enum Origin {
    /// The older version has no such column.
    Nowhere,
    Column(usize),
    /// An object whose members have changed.
    Object(usize, Vec<(&'static str, Option<usize>)>),
}

impl Table {
    pub(super) fn new(
        entry: &'static Entry,
        world: &World,
        evolving: bool,
        change_rate: f64,
        start: i64,
        rows: u64,
    ) -> Option<Self> {
        let reference = TableRef::new(entry.namespace, entry.table);
        let space = world.find(&entry.full_name())?;
        let steps = if evolving { evolution::evolution(&reference) } else { &[] };
        let rewrites = |change: &Change| matches!(change, Change::ColumnAdded { backfilled: true, .. });
        let habits = Habits {
            seed: mix(world.space(space).salt ^ salt(entry.table)),
            rows,
            change_rate,
            is_log: reference.is_log(),
            marked: steps.iter().map(|step| (step.commit - 1, step.changes.iter().any(rewrites))).collect(),
            start,
        };
        let history = Mutex::new(History::new(habits.clone()));
        Some(Self { reference, entry, steps, space, habits, history, versions: OnceLock::new() })
    }

    fn versions(&self, world: &World) -> &[Version] {
        self.versions.get_or_init(|| {
            let mut versions: Vec<Version> = Vec::with_capacity(self.steps.len() + 1);
            let mut schema = self.entry.schema();
            for step in std::iter::once(None).chain(self.steps.iter().map(Some)) {
                if let Some(step) = step {
                    schema = evolution::apply(&schema, step);
                }
                let shape = Shape::read(&schema);
                versions.push(Version {
                    number: step.map_or(1, |step| step.version),
                    schema: schema.clone(),
                    rules: rules(self.entry, &shape.value, world),
                    from: versions.iter().map(|older| origins(&older.shape.value, &shape.value)).collect(),
                    shape,
                });
            }
            versions
        })
    }

    /// Index of the version after a commit.
    fn version_at(&self, commit: u32) -> usize {
        self.steps.iter().filter(|step| step.commit <= commit + 1).count()
    }

    pub(super) fn version(&self, commit: u32) -> i64 {
        match self.version_at(commit) {
            0 => 1,
            steps => self.steps[steps - 1].version,
        }
    }

    pub(super) fn schema(&self, world: &World, number: i64) -> Option<Value> {
        self.versions(world).iter().find(|version| version.number == number).map(|version| version.schema.clone())
    }

    pub(super) fn layout(&self, world: &World, number: i64) -> Option<Layout> {
        self.versions(world).iter().find(|version| version.number == number).map(|version| version.shape.layout())
    }

    fn past(&self, commit: u32) -> Past {
        self.history.lock().past(commit)
    }

    /// Rows of a snapshot at `at`. `commits`: the newest commit, and the newest at `at`.
    pub(super) fn snapshot<'a>(
        &'a self,
        world: &'a World,
        at: i64,
        commits: (u32, u32),
    ) -> Box<dyn Iterator<Item = Record> + Send + 'a> {
        let reader = self.reader(world, at, commits);
        if self.habits.is_log {
            return reader.log(i64::MIN);
        }
        let last = reader.last_events(at);
        let rows = reader.born_after(i64::MIN).flat_map(block_order(self.habits.seed));
        Box::new(rows.filter_map(move |row| match last.get(&row) {
            Some(event) => event.alive.then(|| reader.record(event)),
            None => reader.first(row, i64::MIN),
        }))
    }

    pub(super) fn changes<'a>(
        &'a self,
        world: &'a World,
        since: i64,
        until: i64,
        commits: (u32, u32),
    ) -> Box<dyn Iterator<Item = Record> + Send + 'a> {
        let reader = self.reader(world, until, commits);
        if self.habits.is_log {
            return reader.log(since);
        }
        let last = reader.last_events(until);
        let mut events: Vec<Event> = last.values().filter(|event| event.ts > since).copied().collect();
        events.sort_unstable_by_key(|event| mix(event.row ^ self.habits.seed));
        let seed = self.habits.seed;
        let reader_of_events = self.reader(world, until, commits);
        let rows = reader.born_after(since).flat_map(block_order(seed));
        let new = rows.filter_map(move |row| if last.contains_key(&row) { None } else { reader.first(row, since) });
        Box::new(new.chain(events.into_iter().map(move |event| reader_of_events.record(&event))))
    }

    /// Live rows at `at`, one per key, in key order.
    pub(super) fn expected(&self, world: &World, at: i64, commits: (u32, u32)) -> Vec<Record> {
        let mut records: Vec<Record> = self.snapshot(world, at, commits).collect();
        // Among equal keys (in a log), the newest comes first and is kept.
        records.sort_by(|a, b| by_key(&a.key, &b.key).then(b.ts.cmp(&a.ts)));
        records.dedup_by(|later, kept| later.key == kept.key);
        records
    }

    fn reader<'a>(&'a self, world: &'a World, until: i64, (newest, at): (u32, u32)) -> Reader<'a> {
        let versions = self.versions(world);
        // `until` can be between the newest commit at that time and the next one.
        let past = self.past(newest.min(at + 1));
        Reader { table: self, world, versions, version: self.version_at(at), until, past }
    }
}

fn by_key(a: &[Cell], b: &[Cell]) -> std::cmp::Ordering {
    let pairs = a.iter().zip(b).map(|pair| match pair {
        (Cell::Int(a), Cell::Int(b)) => a.cmp(b),
        (Cell::Text(a), Cell::Text(b)) => a.cmp(b),
        _ => std::cmp::Ordering::Equal,
    });
    pairs.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
}

/// Rows in blocks in random order: clients must not depend on the order of a result, but neighbours mostly stay together, as in a store that is
/// written in parts.
fn block_order(seed: u64) -> impl FnMut(std::ops::Range<u64>) -> Box<dyn Iterator<Item = u64> + Send> + Send {
    move |rows| {
        let count = rows.end - rows.start;
        let block = (count / 64).clamp(1, 4_096);
        let blocks = scattered(count.div_ceil(block), seed ^ rows.start);
        Box::new(blocks.flat_map(move |number| {
            let start = rows.start + number * block;
            start..(start + block).min(rows.end)
        }))
    }
}

/// Reads one state of a table.
#[derive(Debug)]
struct Reader<'a> {
    table: &'a Table,
    world: &'a World,
    versions: &'a [Version],
    /// Index of the version whose columns are returned.
    version: usize,
    until: i64,
    past: Past,
}

impl<'a> Reader<'a> {
    /// The last change of each changed row up to `until`.
    fn last_events(&self, until: i64) -> RowMap<Event> {
        let mut last = RowMap::default();
        for event in self.past.events.iter().flat_map(|events| events.iter()) {
            if event.ts <= until {
                last.insert(event.row, *event);
            }
        }
        last
    }

    /// Rows inserted after `since`, one range per commit (a superset).
    fn born_after(&self, since: i64) -> impl Iterator<Item = std::ops::Range<u64>> + Send + use<> {
        let habits = &self.table.habits;
        let mut ranges = Vec::new();
        let mut start = 0;
        for (commit, end) in self.past.born.iter().enumerate() {
            let time = habits.commit_time(commit as u32);
            if time > since && time - INTERVAL < self.until && *end > start {
                ranges.push(start..*end);
            }
            start = *end;
        }
        ranges.into_iter()
    }

    /// The insert of a row, if it is in the window.
    fn first(&self, row: u64, since: i64) -> Option<Record> {
        let born = self.table.habits.birth_ts(&self.past.born, row);
        let revision = u32::from(self.table.habits.is_log);
        (since < born && born <= self.until).then(|| self.upsert(row, revision, born, born))
    }

    fn record(&self, event: &Event) -> Record {
        if event.alive {
            let born = self.table.habits.birth_ts(&self.past.born, event.row);
            return self.upsert(event.row, event.revision, event.ts, born);
        }
        let key = vec![self.world.space(self.table.space).key(event.row)];
        Record { ts: Timestamp::from_micros(event.ts), op: Op::Delete, key, value: None }
    }

    fn upsert(&self, row: u64, revision: u32, ts: i64, born: i64) -> Record {
        let habits = &self.table.habits;
        // The commit of the write selects the rules; the columns are those of the requested version.
        let commit = (ts - habits.start + INTERVAL - 1).div_euclid(INTERVAL).max(0);
        let written = self.table.version_at(commit as u32).min(self.version);
        let old = row < habits.rows;
        let made = Row::new(self.world, self.table.space, row, Writing { revision, ts, born, old });
        let cells = made.cells(&self.versions[written].rules);
        let value = match self.versions[self.version].from.get(written) {
            Some(origins) => reshaped(cells, origins),
            None => cells,
        };
        let key = vec![self.world.space(self.table.space).key(row)];
        Record { ts: Timestamp::from_micros(ts), op: Op::Upsert, key, value: Some(value) }
    }

    /// All records of a log in the window, including repeated ones.
    fn log(self, since: i64) -> Box<dyn Iterator<Item = Record> + Send + 'a> {
        let seed = self.table.habits.seed;
        let events: Vec<Event> = self.past.events.iter().flat_map(|events| events.iter().copied()).collect();
        let events: Vec<Event> = events.into_iter().filter(|event| since < event.ts && event.ts <= self.until).collect();
        let (first, late): (Vec<_>, Vec<_>) = (self.born_after(since).collect(), self.born_after(since).collect());
        let reader = std::sync::Arc::new(self);
        let (again, of_events) = (reader.clone(), reader.clone());
        let once = first.into_iter().flat_map(block_order(seed)).flat_map(move |row| reader.deliveries(row, since));
        let changed = events.into_iter().map(move |event| of_events.record(&event));
        let repeats = late.into_iter().flat_map(block_order(seed)).filter_map(move |row| again.late_repeat(row, since));
        Box::new(once.chain(changed).chain(repeats))
    }

    fn delivery(&self, row: u64) -> (i64, Delivery) {
        let habits = &self.table.habits;
        let commit = habits.birth(&self.past.born, row);
        let ts = habits.birth_ts(&self.past.born, row);
        (ts, habits.delivery(row, ts, commit))
    }

    fn deliveries(&self, row: u64, since: i64) -> impl Iterator<Item = Record> + use<> {
        let (ts, delivery) = self.delivery(row);
        let first = self.first(row, since);
        let second = match delivery {
            Delivery::Twice { late: false } => first.clone(),
            Delivery::Corrected(before) if since < before && before <= self.until => Some(self.upsert(row, 0, before, ts)),
            _ => None,
        };
        first.into_iter().chain(second)
    }

    fn late_repeat(&self, row: u64, since: i64) -> Option<Record> {
        match self.delivery(row) {
            (_, Delivery::Twice { late: true }) => self.first(row, since),
            _ => None,
        }
    }
}

fn origins(older: &[Column], newer: &[Column]) -> Vec<Origin> {
    let places: HashMap<&str, usize> = older.iter().enumerate().map(|(place, column)| (column.name, place)).collect();
    let origin = |column: &Column| match places.get(column.name) {
        None => Origin::Nowhere,
        Some(&place) => match (&older[place].kind, &column.kind) {
            (Kind::Object(before), Kind::Object(after)) if before.len() != after.len() => {
                let member = |name: &'static str| (name, before.iter().position(|old| old.name == name));
                Origin::Object(place, after.iter().map(|new| member(new.name)).collect())
            }
            _ => Origin::Column(place),
        },
    };
    newer.iter().map(origin).collect()
}

fn reshaped(mut cells: Vec<Cell>, origins: &[Origin]) -> Vec<Cell> {
    let mut take = |place: usize| std::mem::replace(&mut cells[place], Cell::Null);
    let cell = |origin: &Origin| match origin {
        Origin::Nowhere => Cell::Null,
        Origin::Column(place) => take(*place),
        Origin::Object(place, members) => match take(*place) {
            Cell::Object(mut old) => {
                let mut member =
                    |from: Option<usize>| from.map_or(Cell::Null, |from| std::mem::replace(&mut old[from].1, Cell::Null));
                Cell::Object(members.iter().map(|&(name, from)| (name.into(), member(from))).collect())
            }
            other => other,
        },
    };
    origins.iter().map(cell).collect()
}
