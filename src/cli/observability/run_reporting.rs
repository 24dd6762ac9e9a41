//! Reports runs to the run history in the state folder, to webhook and command, and to the metrics. Errors here never change the result
//! of a run.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::api::hook_http;
use crate::cli::args::global::GlobalArgs;
use crate::cli::args::sync::NotifyArgs;
use crate::cli::observability::metrics;
use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::ops::{Failure, Notifier, Report, RunLog, RunRecord, SyncRequest};
use crate::sink::Sink;

/// The run history of a target; `None` without a state folder.
pub(in crate::cli) fn log(state_dir: Option<&Path>, sink: &dyn Sink) -> Option<RunLog> {
    Some(RunLog::new(&state_dir?.join("runs"), &sink.location().to_string()))
}

/// The notifier of the options, if they name a webhook or command. Kind `Usage` for an invalid URL.
pub(in crate::cli) fn notifier(global: &GlobalArgs, args: &NotifyArgs) -> Result<Option<Notifier>> {
    let is_wanted = args.notify.is_some() || args.notify_command.is_some();
    let notifier = is_wanted.then(|| {
        Notifier::new(
            |url| hook_http(url, global.ca_bundle.as_deref()),
            args.notify.as_ref(),
            args.notify_form,
            args.notify_command.clone(),
            args.notify_on,
        )
    });
    notifier.transpose()
}

/// Reports the runs of a process.
pub(in crate::cli) struct RunReporter {
    state_dir: Option<PathBuf>,
    notifier: Option<Notifier>,
}

impl RunReporter {
    /// Checks the URLs and starts to serve metrics.
    pub(in crate::cli) async fn new(global: &GlobalArgs, state_dir: Option<PathBuf>, args: &NotifyArgs) -> Result<Self> {
        if let (Some(address), Some(metrics)) = (args.metrics_listen, metrics::installed()) {
            metrics::serve(metrics, address).await?;
        }
        Ok(Self { state_dir, notifier: notifier(global, args)? })
    }

    /// Reports a run that could not start, before its target was known.
    pub(in crate::cli) async fn not_started(&self, run_id: &str, started: Timestamp, error: &Error) {
        let record =
            RunRecord { failure: Some(Failure::of(error)), seconds: Some(0.0), ..RunRecord::begun(run_id, started, "") };
        if let Some(metrics) = metrics::installed() {
            metrics.run_began();
            metrics.run_ended(&record);
        }
        if let Some(notifier) = &self.notifier {
            notifier.notify(&record, None).await;
        }
    }

    /// Reports the start of a run.
    pub(in crate::cli) fn begin(&self, request: &SyncRequest) -> RunningReport<'_> {
        let log = log(self.state_dir.as_deref(), request.sink.as_ref());
        let record = RunRecord::begun(&request.run_id, Timestamp::now(), &request.sink.location().to_string());
        if let Some(log) = &log {
            log.begun(&record);
        }
        if let Some(metrics) = metrics::installed() {
            metrics.run_began();
        }
        RunningReport { log, record, notifier: self.notifier.as_ref(), begun: Instant::now() }
    }
}

/// The report of a running run.
pub(in crate::cli) struct RunningReport<'a> {
    log: Option<RunLog>,
    record: RunRecord,
    notifier: Option<&'a Notifier>,
    begun: Instant,
}

impl RunningReport<'_> {
    /// Reports the end of the run.
    pub(in crate::cli) async fn end(self, result: &Result<Report>) {
        let record = self.record.ended(self.begun.elapsed().as_secs_f64(), result);
        if let Some(log) = &self.log {
            log.ended(&record);
        }
        if let Some(metrics) = metrics::installed() {
            metrics.run_ended(&record);
        }
        if let Some(notifier) = self.notifier {
            let history = self.log.as_ref().and_then(|log| log.read().ok()).unwrap_or_default();
            let before = history.runs.into_iter().find(|run| run.run_id != record.run_id && run.seconds.is_some());
            notifier.notify(&record, before.as_ref()).await;
        }
    }
}
