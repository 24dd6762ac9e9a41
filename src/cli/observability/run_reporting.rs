//! What others are told of runs: the history under the state folder, a webhook, a command, the metrics. It runs nothing, and what goes
//! wrong here changes no run.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::api::hook_http;
use crate::cli::args::global::GlobalArgs;
use crate::cli::args::sync::{NotifyArgs, NotifyFormArg, NotifyOnArg};
use crate::cli::observability::metrics;
use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::ops::{Failure, Notifier, NotifyForm, NotifyOn, Report, RunLog, RunRecord, SyncRequest};
use crate::sink::Sink;

/// The history of a target's runs. `None`: there is no place for it.
pub(in crate::cli) fn log(state_dir: Option<&Path>, sink: &dyn Sink) -> Option<RunLog> {
    Some(RunLog::new(&state_dir?.join("runs"), &sink.location().to_string()))
}

/// Whom the options want to be told, if anyone. Tells nothing yet; kind `Usage` for an address that is none.
pub(in crate::cli) fn notifier(global: &GlobalArgs, args: &NotifyArgs) -> Result<Option<Notifier>> {
    let is_told = args.notify.is_some() || args.notify_command.is_some();
    let notifier = is_told.then(|| {
        Notifier::new(
            |url| hook_http(url, global.ca_bundle.as_deref()),
            args.notify.as_ref(),
            match args.notify_form {
                NotifyFormArg::Json => NotifyForm::Json,
                NotifyFormArg::Slack => NotifyForm::Slack,
            },
            args.notify_command.clone(),
            match args.notify_on {
                NotifyOnArg::Always => NotifyOn::Always,
                NotifyOnArg::Change => NotifyOn::Change,
                NotifyOnArg::Failure => NotifyOn::Failure,
            },
        )
    });
    notifier.transpose()
}

/// Who is told of runs.
pub(in crate::cli) struct Teller {
    state_dir: Option<PathBuf>,
    notifier: Option<Notifier>,
}

impl Teller {
    /// Checks the addresses and begins to serve metrics.
    pub(in crate::cli) async fn new(global: &GlobalArgs, state_dir: Option<PathBuf>, args: &NotifyArgs) -> Result<Self> {
        if let (Some(address), Some(metrics)) = (args.metrics_listen, metrics::installed()) {
            metrics::serve(metrics, address).await?;
        }
        Ok(Self { state_dir, notifier: notifier(global, args)? })
    }

    /// A run could not start, before it was known where its target is.
    pub(in crate::cli) async fn not_started(&self, run_id: &str, started: Timestamp, error: &Error) {
        let record =
            RunRecord { failure: Some(Failure::of(error)), seconds: Some(0.0), ..RunRecord::begun(run_id, started, "") };
        if let Some(metrics) = metrics::installed() {
            metrics.run_began();
            metrics.run_ended(&record);
        }
        if let Some(notifier) = &self.notifier {
            notifier.tell(&record, None).await;
        }
    }

    /// A run begins.
    pub(in crate::cli) fn begin(&self, request: &SyncRequest) -> Told<'_> {
        let log = log(self.state_dir.as_deref(), request.sink.as_ref());
        let record = RunRecord::begun(&request.run_id, Timestamp::now(), &request.sink.location().to_string());
        if let Some(log) = &log {
            log.begun(&record);
        }
        if let Some(metrics) = metrics::installed() {
            metrics.run_began();
        }
        Told { log, record, notifier: self.notifier.as_ref(), begun: Instant::now() }
    }
}

/// A run that has begun.
pub(in crate::cli) struct Told<'a> {
    log: Option<RunLog>,
    record: RunRecord,
    notifier: Option<&'a Notifier>,
    begun: Instant,
}

impl Told<'_> {
    /// It ends.
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
            notifier.tell(&record, before.as_ref()).await;
        }
    }
}
