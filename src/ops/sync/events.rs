//! Tells an observer when the tables of a run start and end, at the moment it happens. It changes nothing in the run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::TableRef;
use crate::ops::runs::{Outcome, TableReport};

/// What a table of a run did.
#[derive(Debug, Clone, Copy)]
pub enum SyncStep<'a> {
    /// Its job was started at the service, or found alive, or it failed before that.
    Started,
    /// It has ended. One that was left alone (too recent, put off, not tried) ends without a start.
    Ended(&'a TableReport),
}

/// A step of one table.
#[derive(Debug, Clone, Copy)]
pub struct SyncEvent<'a> {
    /// Which table.
    pub table: &'a TableRef,
    /// Its place among the tables of the run, from 1.
    pub place: usize,
    /// Number of tables.
    pub of: usize,
    /// What happened.
    pub step: SyncStep<'a>,
}

/// Called for each step as it happens; must not block for long.
pub type SyncObserver = Arc<dyn Fn(&SyncEvent<'_>) + Send + Sync>;

/// The steps of a run's tables.
pub(super) struct Steps {
    observer: Option<SyncObserver>,
    /// Place of each table, and whether it has started.
    tables: BTreeMap<TableRef, (usize, AtomicBool)>,
}

impl Steps {
    pub(super) fn new<'a>(observer: Option<SyncObserver>, tables: impl Iterator<Item = &'a TableRef>) -> Self {
        let places = tables.enumerate().map(|(place, table)| (table.clone(), (place + 1, AtomicBool::new(false))));
        Self { tables: if observer.is_some() { places.collect() } else { BTreeMap::new() }, observer }
    }

    /// The table has started. A second call changes nothing.
    pub(super) fn started(&self, table: &TableRef) {
        if let Some((_, has_started)) = self.tables.get(table)
            && !has_started.swap(true, Ordering::Relaxed)
        {
            self.tell(table, SyncStep::Started);
        }
    }

    /// The table has ended.
    pub(super) fn ended(&self, report: &TableReport) {
        let was_tried = !matches!(report.outcome, Outcome::Skipped | Outcome::PutOff { .. } | Outcome::Recent { .. });
        if was_tried {
            self.started(&report.table);
        }
        self.tell(&report.table, SyncStep::Ended(report));
    }

    fn tell(&self, table: &TableRef, step: SyncStep<'_>) {
        if let (Some(observer), Some((place, _))) = (&self.observer, self.tables.get(table)) {
            observer(&SyncEvent { table, place: *place, of: self.tables.len(), step });
        }
    }
}
