//! The history of the rows of one table, by commit. Inserts are implied by row numbers; only later changes are stored. Columns are unknown here.

use std::sync::Arc;

use crate::demo::school::values::keys::GHOST;
use crate::demo::school::values::random::{Dice, RowMap, RowSet, mix, part_of, salt, scattered};

const SECOND: u64 = 1_000_000;

/// Time between two commits, in microseconds.
pub(super) const INTERVAL: i64 = 4 * 3_600 * 1_000_000;

/// A later change of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) row: u64,
    pub(super) ts: i64,
    pub(super) revision: u32,
    pub(super) alive: bool,
}

/// How the rows of a table change over time.
#[derive(Debug, Clone)]
pub(super) struct Habits {
    pub(super) seed: u64,
    pub(super) rows: u64,
    pub(super) change_rate: f64,
    /// Rows are only appended; some are delivered repeatedly.
    pub(super) is_log: bool,
    /// Commits (the first is 0) that change at least one row, and whether they rewrite all rows.
    pub(super) marked: Vec<(u32, bool)>,
    pub(super) start: i64,
}

/// Rows and changes up to a commit. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Past {
    /// For each commit, the number of rows ever inserted up to it.
    pub(super) born: Arc<[u64]>,
    /// For each commit, its changes, ordered by row.
    pub(super) events: Vec<Arc<[Event]>>,
}

#[derive(Debug)]
pub(super) struct History {
    habits: Habits,
    born: Vec<u64>,
    events: Vec<Arc<[Event]>>,
    /// Revision of each row that has changed, and whether the row is alive.
    current: RowMap<(u32, bool)>,
    /// Deleted rows that can be inserted again, in the order of their deletion.
    dead: Vec<u64>,
    ghosts: u64,
}

impl Habits {
    pub(super) fn commit_time(&self, commit: u32) -> i64 {
        self.start + i64::from(commit) * INTERVAL
    }

    /// Timestamp of a change in a commit: within the interval that ends with the commit.
    fn ts(&self, row: u64, commit: u32) -> i64 {
        let mut dice = Dice::new(mix(self.seed ^ mix(row ^ (u64::from(commit) << 40))));
        let end = self.commit_time(commit);
        let ts = end - dice.below(INTERVAL as u64) as i64;
        let whole = ts - ts.rem_euclid(SECOND as i64);
        if dice.below(8) == 0 && whole > end - INTERVAL { whole } else { ts }
    }

    /// The commit that inserts a row.
    pub(super) fn birth(&self, born: &[u64], row: u64) -> u32 {
        born.partition_point(|end| *end <= row) as u32
    }

    /// Timestamp of the insert of a row. The first new row of a commit has the timestamp of the commit.
    pub(super) fn birth_ts(&self, born: &[u64], row: u64) -> i64 {
        let commit = self.birth(born, row);
        let first = if commit == 0 { 0 } else { born[commit as usize - 1] };
        if row == first { self.commit_time(commit) } else { self.ts(row, commit) }
    }

    /// How a row of a log is delivered first: usually once, sometimes twice with equal content, sometimes after an older version with
    /// different content.
    pub(super) fn delivery(&self, row: u64, ts: i64, commit: u32) -> Delivery {
        let lot = mix(self.seed ^ mix(row) ^ 0xDE11);
        let since = self.commit_time(commit) - INTERVAL;
        match lot % 64 {
            0 if ts - since > 1 => Delivery::Corrected(since + 1 + part_of(mix(lot), (ts - since - 1) as u64) as i64),
            1 => Delivery::Twice { late: lot & 64 == 0 },
            _ => Delivery::Once,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    Once,
    /// The same record twice: the second directly after the first, or at the end of the result.
    Twice {
        late: bool,
    },
    /// An older version with other content, with this timestamp.
    Corrected(i64),
}

impl History {
    pub(super) fn new(habits: Habits) -> Self {
        let born = vec![habits.rows];
        Self { habits, born, events: vec![Arc::new([])], current: RowMap::default(), dead: Vec::new(), ghosts: 0 }
    }

    /// The history up to a commit (the first is 0).
    pub(super) fn past(&mut self, commit: u32) -> Past {
        let end = commit as usize + 1;
        while self.born.len() < end {
            self.make_commit();
        }
        Past { born: self.born[..end].into(), events: self.events[..end].to_vec() }
    }

    fn make_commit(&mut self) {
        let commit = self.born.len() as u32;
        let seed = mix(self.habits.seed ^ salt("commit") ^ mix(u64::from(commit)));
        let marked = self.habits.marked.iter().find(|(marked, _)| *marked == commit).map(|(_, all)| *all);
        let is_quiet = seed.is_multiple_of(8) && marked.is_none();
        let (mut events, mut born) = (Vec::new(), 0);
        if self.habits.rows > 0 && self.habits.change_rate > 0.0 && !is_quiet {
            if self.habits.is_log {
                born = self.log_on(commit, seed, &mut events);
            } else {
                born = self.change(commit, seed, marked == Some(true), &mut events);
            }
        }
        if born == 0
            && let Some(first) = events.first_mut()
        {
            first.ts = self.habits.commit_time(commit);
        }
        events.sort_unstable_by_key(|event| event.row);
        for event in &events {
            self.current.insert(event.row, (event.revision, event.alive));
        }
        self.events.push(events.into());
        self.born.push(self.rows() + born);
    }

    /// Number of rows ever inserted.
    fn rows(&self) -> u64 {
        self.born.last().copied().unwrap_or_default()
    }

    fn share(&self, of: u64) -> u64 {
        ((of as f64 * self.habits.change_rate).round() as u64).clamp(1, of.max(1))
    }

    fn log_on(&self, commit: u32, seed: u64, events: &mut Vec<Event>) -> u64 {
        let added = self.share(self.habits.rows);
        for row in scattered(self.rows(), seed).take((added / 50).max(1) as usize) {
            // A new revision is a correction; the same revision is a repeated delivery.
            let (known, _) = self.current.get(&row).copied().unwrap_or((1, true));
            let revision = known + (mix(row ^ seed) % 2) as u32;
            events.push(Event { row, ts: self.habits.ts(row, commit), revision, alive: true });
        }
        added
    }

    fn change(&mut self, commit: u32, seed: u64, everything: bool, events: &mut Vec<Event>) -> u64 {
        let mut dice = Dice::new(seed);
        let (update_seed, delete_seed) = (dice.next(), dice.next());
        let rows = self.rows();
        let live = rows - self.dead.len() as u64;
        let updates = if everything { live } else { self.share(live) };
        let mut touched = RowSet::default();
        let mut touch = |history: &Self, row: u64, alive: bool| {
            if touched.insert(row) {
                let revision = history.current.get(&row).map_or(0, |(revision, _)| *revision) + 1;
                events.push(Event { row, ts: history.habits.ts(row, commit), revision, alive });
                return true;
            }
            false
        };

        // Inserted again with their old keys.
        for _ in 0..(updates / 80).max(dice.below(2)).min(self.dead.len() as u64) {
            let place = dice.below(self.dead.len() as u64) as usize;
            let row = self.dead.swap_remove(place);
            touch(self, row, true);
        }
        // Deleted again, because the service may report a delete twice.
        if !self.dead.is_empty() && dice.below(3) == 0 {
            touch(self, self.dead[dice.below(self.dead.len() as u64) as usize], false);
        }
        // Deletes of keys that were never inserted.
        if dice.below(3) == 0 {
            if self.ghosts == 0 || dice.below(4) > 0 {
                self.ghosts += 1;
            }
            touch(self, GHOST | (self.ghosts - 1), false);
        }
        // Most updates are to recent rows, as long as there are enough of them.
        let young = rows / 5;
        let recent = if young > updates { updates * 7 / 10 } else { 0 };
        let recent = scattered(young, update_seed).map(|row| rows - young + row).take(recent as usize);
        let mut left = updates;
        for row in recent.chain(scattered(rows, update_seed)) {
            if left == 0 {
                break;
            }
            if self.is_alive(row) && touch(self, row, true) {
                left -= 1;
            }
        }
        let deletes = if live > 3 && !everything { (updates / 40).max(dice.below(2)) } else { 0 };
        let mut left = deletes;
        for row in scattered(rows, delete_seed) {
            if left == 0 {
                break;
            }
            if self.is_alive(row) && touch(self, row, false) {
                self.dead.push(row);
                left -= 1;
            }
        }
        (updates / 4).max(dice.below(3).min(1))
    }

    fn is_alive(&self, row: u64) -> bool {
        self.current.get(&row).is_none_or(|(_, alive)| *alive)
    }
}
