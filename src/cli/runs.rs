//! What outlives a run: its place in the history under the state folder. It runs nothing.

use std::path::PathBuf;
use std::time::Instant;

use super::settings;
use crate::error::Result;
use crate::model::Timestamp;
use crate::ops::{Report, RunLog, RunRecord, SyncRequest};
use crate::sink::Sink;

/// The history of a target's runs. `None`: there is no place for it.
pub(super) fn log(state_dir: Option<PathBuf>, sink: &dyn Sink) -> Option<RunLog> {
    Some(RunLog::new(&settings::state_dir(state_dir)?.join("runs"), &sink.location().to_string()))
}

/// A run that has begun.
pub(super) struct Watched {
    log: Option<RunLog>,
    record: RunRecord,
    begun: Instant,
}

impl Watched {
    /// Notes the beginning.
    pub(super) fn begin(state_dir: Option<PathBuf>, request: &SyncRequest) -> Self {
        let log = log(state_dir, request.sink.as_ref());
        let record = RunRecord::begun(&request.run_id, Timestamp::now(), &request.sink.location().to_string());
        if let Some(log) = &log {
            log.begun(&record);
        }
        Self { log, record, begun: Instant::now() }
    }

    /// Notes the end.
    pub(super) fn end(self, result: &Result<Report>) {
        let record = self.record.ended(self.begun.elapsed().as_secs_f64(), result);
        if let Some(log) = &self.log {
            log.ended(&record);
        }
    }
}
