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
use crate::ops::{Failure, Mail, MailOptions, Notifier, Report, RunLog, RunRecord, SyncRequest};
use crate::sink::Sink;

/// The run history of a target; `None` without a state folder.
pub(in crate::cli) fn log(state_dir: Option<&Path>, sink: &dyn Sink) -> Option<RunLog> {
    Some(RunLog::new(&state_dir?.join("runs"), &sink.location().to_string()))
}

/// The notifier of the options, if they name a webhook, a mail address or a command. Kind `Usage` for an invalid URL or address.
pub(in crate::cli) fn notifier(global: &GlobalArgs, args: &NotifyArgs) -> Result<Option<Notifier>> {
    if args.notify.is_none() && args.notify_command.is_none() && args.notify_email.is_empty() {
        return Ok(None);
    }
    let ca_bundle = global.ca_bundle.as_deref();
    let http = |url: &url::Url| hook_http(url, ca_bundle);
    let notifier = Notifier::new(http, args.notify.as_ref(), args.notify_form, args.notify_command.clone(), args.notify_on)?;
    if args.notify_email.is_empty() {
        return Ok(Some(notifier));
    }
    let mail = Mail::new(&MailOptions {
        to: &args.notify_email,
        from: args.notify_email_from.as_deref(),
        server: args.notify_smtp.as_ref(),
        password: args.notify_smtp_password.as_ref(),
        ca_bundle,
    })?;
    Ok(Some(notifier.with_mail(mail)))
}

/// Reports the runs of a process.
pub(in crate::cli) struct RunReporter {
    state_dir: Option<PathBuf>,
    notifier: Option<Notifier>,
}

impl RunReporter {
    /// Checks the URLs and starts to serve metrics. `identity` names the targets.
    pub(in crate::cli) async fn new(
        global: &GlobalArgs,
        state_dir: Option<PathBuf>,
        args: &NotifyArgs,
        identity: &str,
    ) -> Result<Self> {
        if let (Some(address), Some(metrics)) = (args.metrics_listen, metrics::installed()) {
            metrics::serve(metrics, address).await?;
        }
        let notifier = notifier(global, args)?.map(|notifier| match &state_dir {
            Some(folder) => notifier.remembering(&folder.join("runs"), identity),
            None => notifier,
        });
        Ok(Self { state_dir, notifier })
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
            notifier.notify(&[record]).await;
        }
    }

    /// Reports the start of a run.
    pub(in crate::cli) fn begin(&self, request: &SyncRequest) -> RunningReport {
        let log = log(self.state_dir.as_deref(), request.sink.as_ref());
        let record = RunRecord::begun(&request.run_id, Timestamp::now(), &request.sink.location().to_string());
        if let Some(log) = &log {
            log.begun(&record);
        }
        if let Some(metrics) = metrics::installed() {
            metrics.run_began();
        }
        RunningReport { log, record, begun: Instant::now() }
    }

    /// Sends notifications about the ended runs of all targets.
    pub(in crate::cli) async fn notify(&self, runs: &[RunRecord]) {
        if let Some(notifier) = &self.notifier {
            notifier.notify(runs).await;
        }
    }
}

/// The report of a running run.
pub(in crate::cli) struct RunningReport {
    log: Option<RunLog>,
    record: RunRecord,
    begun: Instant,
}

impl RunningReport {
    /// Reports the end of the run to the history and the metrics.
    pub(in crate::cli) fn end(self, result: &Result<Report>) -> RunRecord {
        let record = self.record.ended(self.begun.elapsed().as_secs_f64(), result);
        if let Some(log) = &self.log {
            log.ended(&record);
        }
        if let Some(metrics) = metrics::installed() {
            metrics.run_ended(&record);
        }
        record
    }
}
