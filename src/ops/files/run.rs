//! Work on many tables concurrently, reported as if they were handled one after another in the given order.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::Instrument;

use crate::error::{Error, Kind, Result};
use crate::model::TableRef;
use crate::progress;

/// A step of the work on a table.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Step {
    /// The work has started.
    Begun,
    /// The job has finished.
    JobFinished {
        /// Id of the job.
        job: String,
        /// Whether it was not finished already.
        waited: bool,
    },
    /// All files are complete.
    Downloaded {
        /// Number of files.
        files: usize,
        /// Number of files that an earlier run downloaded.
        kept: usize,
        /// Bytes of all files.
        bytes: u64,
        /// Folder of the files.
        folder: PathBuf,
    },
    /// The schema was saved.
    SchemaSaved {
        /// Path of the file.
        path: PathBuf,
    },
    /// The table is done.
    Done,
    /// The table failed.
    Failed(Arc<Error>),
}

/// A step of one table.
#[derive(Debug, Clone)]
pub struct TableEvent {
    /// The table.
    pub table: TableRef,
    /// Position of the table, from 1.
    pub place: usize,
    /// Number of tables.
    pub of: usize,
    /// The step.
    pub step: Step,
}

/// Called for every step; must not block for long. Steps are reported in table order, whatever order they happen in.
pub type Observer<'a> = &'a (dyn Fn(&TableEvent) + Send + Sync);

/// Result of a table.
#[derive(Debug, Clone)]
pub enum FilesOutcome {
    /// Done.
    Done,
    /// With an error.
    Failed(Arc<Error>),
    /// Not done, because an earlier table failed with an error that all tables would meet, or the run was interrupted.
    Skipped,
}

/// Results of all tables, in the given order.
#[derive(Debug, Clone)]
pub struct FilesReport {
    /// Each table with its result.
    pub tables: Vec<(TableRef, FilesOutcome)>,
}

impl FilesReport {
    /// Errors in table order.
    pub fn errors(&self) -> impl DoubleEndedIterator<Item = &Error> {
        self.tables.iter().filter_map(|(_, outcome)| match outcome {
            FilesOutcome::Failed(error) => Some(error.as_ref()),
            FilesOutcome::Done | FilesOutcome::Skipped => None,
        })
    }

    /// Number of tables that were not tried or not finished.
    pub fn skipped(&self) -> usize {
        self.tables.iter().filter(|(_, outcome)| matches!(outcome, FilesOutcome::Skipped)).count()
    }
}

/// Whether the following tables would fail with the same error.
pub(super) fn stops_the_run(error: &Error) -> bool {
    error.kind().is_fatal_for_run() || error.kind() == Kind::Unsupported
}

/// Reports steps in table order: those of the first unfinished table at once, those of later tables when the earlier ones are finished.
pub(super) struct OrderedReporter<'a> {
    observer: Observer<'a>,
    of: usize,
    state: Mutex<ReporterState>,
}

struct ReporterState {
    turn: usize,
    waiting: Vec<VecDeque<TableEvent>>,
}

impl fmt::Debug for OrderedReporter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OrderedReporter").field("of", &self.of).finish_non_exhaustive()
    }
}

impl<'a> OrderedReporter<'a> {
    fn new(observer: Observer<'a>, of: usize) -> Self {
        let waiting = std::iter::repeat_with(VecDeque::new).take(of).collect();
        Self { observer, of, state: Mutex::new(ReporterState { turn: 0, waiting }) }
    }

    pub(super) fn report(&self, table: &TableRef, index: usize, step: Step) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.waiting[index].push_back(TableEvent { table: table.clone(), place: index + 1, of: self.of, step });
        while let Some(event) = state.waiting.get_mut(state.turn).and_then(VecDeque::pop_front) {
            (self.observer)(&event);
            match &event.step {
                Step::Done => state.turn += 1,
                Step::Failed(error) => {
                    state.turn += 1;
                    if stops_the_run(error) {
                        // Of later tables, only those that are done are reported.
                        for events in &mut state.waiting[state.turn..] {
                            if matches!(events.back().map(|event| &event.step), Some(Step::Done)) {
                                events.drain(..).for_each(|event| (self.observer)(&event));
                            }
                        }
                        state.turn = state.waiting.len();
                    }
                }
                _ => {}
            }
        }
    }
}

/// Reports the steps of one table.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableReporter<'a> {
    reporter: &'a OrderedReporter<'a>,
    table: &'a TableRef,
    index: usize,
}

impl TableReporter<'_> {
    pub(super) fn report(&self, step: Step) {
        self.reporter.report(self.table, self.index, step);
    }
}

/// Does `work` for all tables concurrently, with the result of a sequential loop: tables before one whose error stops the run are finished,
/// later ones are dropped. When `interrupted` resolves, the first unfinished table fails with kind `Cancelled` and the others are skipped.
pub(super) async fn each_table(
    tables: Vec<TableRef>,
    observer: Observer<'_>,
    mut interrupted: Pin<&mut impl Future<Output = ()>>,
    work: impl AsyncFn(&TableRef, TableReporter<'_>) -> Result<()>,
) -> FilesReport {
    let reporter = OrderedReporter::new(observer, tables.len());
    // Tables after this position are dropped.
    let last = watch::Sender::new(usize::MAX);
    let mut outcomes: Vec<Option<FilesOutcome>> = vec![None; tables.len()];
    let one = |index: usize, table| {
        let mut stop = last.subscribe();
        let tell = TableReporter { reporter: &reporter, table, index };
        let work = &work;
        let span = progress::step("table", table);
        let going = async move {
            tell.report(Step::Begun);
            tokio::select! {
                biased;
                _ = stop.wait_for(|last| index > *last) => (index, None),
                result = work(table, tell) => (index, Some(result)),
            }
        };
        going.instrument(span)
    };
    let mut running: FuturesUnordered<_> = tables.iter().enumerate().map(|(index, table)| one(index, table)).collect();
    loop {
        let (index, result) = tokio::select! {
            biased;
            () = &mut interrupted => break,
            ended = running.next() => match ended {
                Some(ended) => ended,
                None => break,
            },
        };
        let table = &tables[index];
        outcomes[index] = Some(match result {
            Some(Ok(())) => {
                reporter.report(table, index, Step::Done);
                FilesOutcome::Done
            }
            Some(Err(error)) => {
                let error = Arc::new(error.with_field("table", table));
                if stops_the_run(&error) {
                    last.send_if_modified(|last| std::mem::replace(last, index.min(*last)) > index);
                }
                reporter.report(table, index, Step::Failed(error.clone()));
                FilesOutcome::Failed(error)
            }
            None => FilesOutcome::Skipped,
        });
    }
    drop(running);
    if let Some(index) = outcomes.iter().position(Option::is_none) {
        let error = Arc::new(
            Error::new(Kind::Cancelled, "Interrupted")
                .with_field("table", &tables[index])
                .hint("run the same command again to continue"),
        );
        reporter.report(&tables[index], index, Step::Failed(error.clone()));
        outcomes[index] = Some(FilesOutcome::Failed(error));
    }
    let stopped_at = outcomes
        .iter()
        .position(|outcome| matches!(outcome, Some(FilesOutcome::Failed(error)) if stops_the_run(error)))
        .unwrap_or(usize::MAX);
    let outcomes = outcomes.into_iter().enumerate().map(|(index, outcome)| match outcome {
        Some(FilesOutcome::Failed(_)) | None if index > stopped_at => FilesOutcome::Skipped,
        outcome => outcome.unwrap_or(FilesOutcome::Skipped),
    });
    FilesReport { tables: tables.clone().into_iter().zip(outcomes).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(index: usize) -> TableRef {
        TableRef::new("canvas", format!("t{index}"))
    }

    /// Reports the ends of four tables in the order of `ends`; returns what the observer got.
    fn reported(ends: &[(usize, Option<Kind>)]) -> Vec<String> {
        let steps = Mutex::new(Vec::new());
        let observer = |event: &TableEvent| {
            let word = match &event.step {
                Step::Begun => "begun",
                Step::Done => "done",
                Step::Failed(_) => "failed",
                _ => "other",
            };
            steps.lock().push(format!("{} {word}", event.table.table));
        };
        let reporter = OrderedReporter::new(&observer, 4);
        for index in 0..4 {
            reporter.report(&table(index), index, Step::Begun);
        }
        for (index, kind) in ends {
            let step = kind.map_or(Step::Done, |kind| Step::Failed(Arc::new(Error::new(kind, "No"))));
            reporter.report(&table(*index), *index, step);
        }
        steps.into_inner()
    }

    #[test]
    fn steps_are_reported_in_table_order() {
        let steps = reported(&[(3, None), (1, Some(Kind::NotFound)), (0, None), (2, None)]);
        assert_eq!(steps, ["t0 begun", "t0 done", "t1 begun", "t1 failed", "t2 begun", "t2 done", "t3 begun", "t3 done"]);
    }

    #[test]
    fn after_an_error_that_stops_the_run_only_finished_tables_are_reported() {
        let steps = reported(&[(3, None), (2, Some(Kind::Auth)), (1, Some(Kind::Auth)), (0, None)]);
        assert_eq!(steps, ["t0 begun", "t0 done", "t1 begun", "t1 failed", "t3 begun", "t3 done"]);
    }

    #[tokio::test]
    async fn the_result_is_that_of_a_loop() {
        let tables: Vec<TableRef> = (0..4).map(table).collect();
        // Later tables fail sooner.
        let never = std::pin::pin!(std::future::pending());
        let report = each_table(tables, &|_| (), never, async |table, _| {
            let index = table.table[1..].parse::<u32>().unwrap();
            for _ in 0..(4 - index) {
                tokio::task::yield_now().await;
            }
            if index == 0 { Ok(()) } else { Err(Error::new(Kind::Account, "No")) }
        });
        let words: Vec<&str> = report
            .await
            .tables
            .iter()
            .map(|(_, outcome)| match outcome {
                FilesOutcome::Done => "done",
                FilesOutcome::Failed(_) => "failed",
                FilesOutcome::Skipped => "skipped",
            })
            .collect();
        assert_eq!(words, ["done", "failed", "skipped", "skipped"]);
    }
}
