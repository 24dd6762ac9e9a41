//! What outlives a run: its place in the history under the state folder. It runs nothing.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::error::Result;
use crate::model::Timestamp;
use crate::ops::{Report, RunLog, RunRecord, SyncRequest};
use crate::sink::Sink;

/// The history of a target's runs. `None`: there is no place for it.
pub(super) fn log(state_dir: Option<&Path>, sink: &dyn Sink) -> Option<RunLog> {
    Some(RunLog::new(&state_dir?.join("runs"), &sink.location().to_string()))
}

/// Who is told of runs.
pub(super) struct Teller {
    state_dir: Option<PathBuf>,
}

impl Teller {
    pub(super) fn new(state_dir: Option<PathBuf>) -> Self {
        Self { state_dir }
    }

    /// A run begins.
    pub(super) fn begin(&self, request: &SyncRequest) -> Told {
        let log = log(self.state_dir.as_deref(), request.sink.as_ref());
        let record = RunRecord::begun(&request.run_id, Timestamp::now(), &request.sink.location().to_string());
        if let Some(log) = &log {
            log.begun(&record);
        }
        Told { log, record, begun: Instant::now() }
    }
}

/// A run that has begun.
pub(super) struct Told {
    log: Option<RunLog>,
    record: RunRecord,
    begun: Instant,
}

impl Told {
    /// It ends.
    #[expect(clippy::unused_async, reason = "notifications are sent from here")]
    pub(super) async fn end(self, result: &Result<Report>) {
        let record = self.record.ended(self.begun.elapsed().as_secs_f64(), result);
        if let Some(log) = &self.log {
            log.ended(&record);
        }
    }
}
