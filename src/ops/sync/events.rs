//! Reports the start and end of each table to an observer, when they happen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::model::TableRef;
use crate::ops::runs::{Outcome, TableReport};

/// A step of the work on a table.
#[derive(Debug, Clone, Copy)]
pub enum SyncStep<'a> {
    /// Its job was started or resumed, or it failed before that.
    Started,
    /// It has ended. A table that was not tried (too recent, deferred, skipped) ends without a start.
    Ended(&'a TableReport),
}

/// A step of one table of a run.
#[derive(Debug, Clone, Copy)]
pub struct SyncEvent<'a> {
    /// The table.
    pub table: &'a TableRef,
    /// Number of tables of the run that have ended, including this one at its end.
    pub ended: usize,
    /// Number of tables of the run.
    pub of: usize,
    /// The step.
    pub step: SyncStep<'a>,
}

/// Called for each step when it happens; must not block for long.
pub type SyncObserver = Arc<dyn Fn(&SyncEvent<'_>) + Send + Sync>;

/// Reports the steps of a run's tables.
pub(super) struct EventReporter {
    observer: Option<SyncObserver>,
    /// Whether each table has started.
    tables: BTreeMap<TableRef, AtomicBool>,
    ended: AtomicUsize,
}

impl EventReporter {
    pub(super) fn new<'a>(observer: Option<SyncObserver>, tables: impl Iterator<Item = &'a TableRef>) -> Self {
        let tables = tables.map(|table| (table.clone(), AtomicBool::new(false)));
        let tables = if observer.is_some() { tables.collect() } else { BTreeMap::new() };
        Self { observer, tables, ended: AtomicUsize::new(0) }
    }

    /// Reports that the table has started, once.
    pub(super) fn started(&self, table: &TableRef) {
        if let Some(has_started) = self.tables.get(table)
            && !has_started.swap(true, Ordering::Relaxed)
        {
            self.notify(table, SyncStep::Started);
        }
    }

    /// Reports that the table has ended.
    pub(super) fn ended(&self, report: &TableReport) {
        let was_tried = !matches!(report.outcome, Outcome::Skipped | Outcome::Deferred { .. } | Outcome::Recent { .. });
        if was_tried {
            self.started(&report.table);
        }
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.notify(&report.table, SyncStep::Ended(report));
    }

    fn notify(&self, table: &TableRef, step: SyncStep<'_>) {
        if let Some(observer) = &self.observer {
            observer(&SyncEvent { table, ended: self.ended.load(Ordering::Relaxed), of: self.tables.len(), step });
        }
    }
}
