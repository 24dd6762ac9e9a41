//! Notifications about the end of a run: a webhook and a command. They are repeated a few times; a failure is logged and does not affect
//! the run.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use url::Url;

use super::history::RunRecord;
use crate::child;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::redact::Secret;

/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between the attempts.
const WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// Timeout of a command, which is killed then.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Most failures that a message lists.
const MAX_FAILURES: usize = 10;

/// When to notify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NotifyOn {
    /// After every run.
    Always,
    /// If the failures differ from those of the previous run.
    Change,
    /// After runs with a failure.
    #[default]
    Failure,
}

impl NotifyOn {
    /// Whether to notify about this run; `before` is the previous run that ended.
    pub fn wants(self, run: &RunRecord, before: Option<&RunRecord>) -> bool {
        match self {
            NotifyOn::Always => true,
            NotifyOn::Change => run.trouble() != before.map(RunRecord::trouble).unwrap_or_default(),
            NotifyOn::Failure => run.has_failed(),
        }
    }
}

/// Format of the request to a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NotifyForm {
    /// A JSON object with the whole run.
    #[default]
    Json,
    /// A message for Slack and compatible services.
    Slack,
}

/// The recipients of notifications.
#[derive(Debug, Clone)]
pub struct Notifier {
    http: reqwest::Client,
    hook: Option<Url>,
    form: NotifyForm,
    command: Option<String>,
    on: NotifyOn,
}

/// Additional environment variables of the command, for an address or a token.
const FOR_COMMANDS: &[&str] = &["DAPLAKE_NOTIFY_*"];

impl Notifier {
    /// `hook` is a secret: everybody who knows it can post. `command` runs in a clean environment.
    ///
    /// # Errors
    /// Kind `Usage` for an invalid URL.
    pub fn new(
        http: impl Fn(&Url) -> Result<reqwest::Client>,
        hook: Option<&Secret>,
        form: NotifyForm,
        command: Option<String>,
        on: NotifyOn,
    ) -> Result<Self> {
        let hook = hook.map(|hook| Url::parse(hook.reveal()));
        // The cause would contain the URL.
        let hook = hook
            .transpose()
            .map_err(|_| Error::new(Kind::Usage, "The value of --notify is not a URL").hint("write it as https://host/path"))?;
        if hook.as_ref().is_some_and(|hook| !matches!(hook.scheme(), "http" | "https") || !hook.has_host()) {
            return Err(Error::new(Kind::Usage, "The value of --notify must start with https://"));
        }
        let http = match &hook {
            Some(hook) => http(hook)?,
            None => reqwest::Client::new(),
        };
        Ok(Self { http, hook, form, command, on })
    }

    /// Sends notifications about a run, if wanted.
    pub async fn notify(&self, run: &RunRecord, before: Option<&RunRecord>) {
        if !self.on.wants(run, before) {
            return;
        }
        if let Some(hook) = &self.hook {
            match self.post(hook, run).await {
                Ok(()) => tracing::info!(host = hook.host_str(), "Notification sent"),
                Err(error) => {
                    tracing::warn!(host = hook.host_str(), error = %in_one(&error), "The notification did not arrive")
                }
            }
        }
        if let Some(command) = &self.command {
            let (command, text) = (command.clone(), json_form(run).to_string());
            let ended = tokio::task::spawn_blocking(move || execute(&command, text.into_bytes())).await;
            if let Err(error) = ended.context(Kind::Bug, "Cannot wait for the notification command").flatten() {
                tracing::warn!(error = %in_one(&error), "The notification command failed");
            }
        }
    }

    async fn post(&self, hook: &Url, run: &RunRecord) -> Result<()> {
        let body = match self.form {
            NotifyForm::Json => json_form(run),
            NotifyForm::Slack => slack_form(run),
        };
        let mut waits = WAITS.iter();
        loop {
            let sent = self.http.post(hook.clone()).json(&body).timeout(REQUEST_TIMEOUT).send().await;
            let error = match sent {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => {
                    let status = answer.status();
                    let error = Error::new(Kind::Unavailable, "The webhook rejected the notification")
                        .with_field("status", status.as_u16());
                    if !status.is_server_error() && status.as_u16() != 429 {
                        return Err(error);
                    }
                    error
                }
                // The URL is a secret.
                Err(error) => Error::new(Kind::Unavailable, "The webhook did not respond").caused_by(error.without_url()),
            };
            match waits.next() {
                Some(wait) => tokio::time::sleep(*wait).await,
                None => return Err(error),
            }
        }
    }
}

fn in_one(error: &Error) -> String {
    std::iter::once(error.to_string()).chain(error.causes()).collect::<Vec<_>>().join("; caused by: ")
}

/// Runs a command in the system's shell, with the run as JSON on its standard input.
fn execute(command: &str, text: Vec<u8>) -> Result<()> {
    let mut shell = child::shell(command, FOR_COMMANDS);
    let mut child =
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context(Kind::Io, "Cannot start the notification command")?;
    let mut stdin = child.stdin.take();
    let writer = std::thread::spawn(move || {
        // The command need not read its input.
        let _ = stdin.as_mut().map(|stdin| stdin.write_all(&text));
    });
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().context(Kind::Io, "Cannot wait for the notification command")? {
            break status;
        }
        if begun.elapsed() > COMMAND_TIMEOUT {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::new(Kind::Io, "The notification command timed out and was killed")
                .with_field("seconds", COMMAND_TIMEOUT.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let _ = writer.join();
    match status.success() {
        true => Ok(()),
        false => Err(Error::new(Kind::Io, "The notification command returned an error").with_field("status", status)),
    }
}

/// The run in one sentence.
fn sentence(run: &RunRecord) -> String {
    let totals = run.totals();
    match (&run.failure, totals.failed) {
        (Some(failure), _) => format!("daplake: the run could not start: {}", failure.message),
        (None, 0) => format!(
            "daplake: {} tables are up to date: {} loaded, {} unchanged, {} deferred; {} rows upserted, {} deleted",
            totals.tables, totals.loaded, totals.unchanged, totals.skipped, totals.upserted, totals.deleted
        ),
        (None, failed) => format!("daplake: {failed} of {} tables failed", totals.tables),
    }
}

/// The JSON for `--notify` and `--notify-command`: summary, totals and the run.
fn json_form(run: &RunRecord) -> Value {
    json!({
        "text": sentence(run),
        "failed": run.has_failed(),
        "program": concat!("daplake ", env!("CARGO_PKG_VERSION")),
        "totals": run.totals(),
        "run": run,
    })
}

fn slack_form(run: &RunRecord) -> Value {
    // The three special characters of the markup.
    let plain = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mark = if run.has_failed() { ":x:" } else { ":white_check_mark:" };
    let sentence = plain(&sentence(run));
    let mut lines = vec![format!("{mark} *{sentence}*"), format!("{} (started {})", plain(&run.target), run.started)];
    let mut failures: Vec<String> = Vec::new();
    failures.extend(run.failure.iter().filter_map(|failure| failure.hint.as_deref()).map(|hint| format!("_{}_", plain(hint))));
    for table in &run.tables {
        let Some(failure) = &table.failure else { continue };
        let hint = failure.hint.as_deref().map(|hint| format!(" _{}_", plain(hint))).unwrap_or_default();
        failures.push(format!("\u{2022} `{}`: {}{hint}", plain(&table.table), plain(&failure.message)));
    }
    let more = failures.len().saturating_sub(MAX_FAILURES);
    failures.truncate(MAX_FAILURES);
    lines.extend(failures);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    let text = lines.join("\n");
    json!({"text": sentence, "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Failure, TableRun};

    fn run(failed: &[&str]) -> RunRecord {
        let failure = Some(Failure { kind: "data".into(), message: "A <row> cannot be read".into(), ..Failure::default() });
        let table = |name: &&str| TableRun {
            table: (*name).to_owned(),
            outcome: "failed".into(),
            failure: failure.clone(),
            ..TableRun::default()
        };
        RunRecord { seconds: Some(1.0), tables: failed.iter().map(table).collect(), ..RunRecord::default() }
    }

    #[test]
    fn changed_failures_are_reported() {
        let (good, bad, worse) = (run(&[]), run(&["a"]), run(&["a", "b"]));
        let wants = |on: NotifyOn, run: &RunRecord, before: Option<&RunRecord>| on.wants(run, before);
        assert!(wants(NotifyOn::Always, &good, Some(&good)) && !wants(NotifyOn::Failure, &good, Some(&bad)));
        assert!(wants(NotifyOn::Failure, &bad, Some(&bad)));
        assert!(wants(NotifyOn::Change, &bad, None) && wants(NotifyOn::Change, &bad, Some(&good)));
        assert!(wants(NotifyOn::Change, &worse, Some(&bad)) && wants(NotifyOn::Change, &good, Some(&bad)));
        assert!(!wants(NotifyOn::Change, &bad, Some(&bad)) && !wants(NotifyOn::Change, &good, None));
    }

    #[test]
    fn a_message_is_short_and_escapes_markup() {
        let names: Vec<String> = (0..15).map(|number| format!("canvas.t{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let message = slack_form(&run(&names));
        let text = message["blocks"][0]["text"]["text"].as_str().unwrap();
        assert!(text.contains("15 of 15 tables failed") && text.contains("A &lt;row&gt; cannot be read"), "{text}");
        assert!(text.ends_with("and 5 more"), "{text}");
        assert_eq!(json_form(&run(&["a"]))["totals"]["failed"], 1);
    }
}
