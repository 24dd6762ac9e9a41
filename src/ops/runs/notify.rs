//! Tells others how a run ended: a webhook, a command. Whatever happens to a notification, the run is what it was; it is tried a
//! few times, and then the log says that it did not arrive. It decides nothing about the run.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use url::Url;

use super::history::RunRecord;
use crate::child;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::redact::Secret;

/// One attempt may take so long.
const PATIENCE: Duration = Duration::from_secs(10);
const WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// A command may take so long, then it is ended.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);
/// So many failures are told in words.
const MOST_WORDS: usize = 10;

/// When to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NotifyOn {
    /// After every run.
    Always,
    /// When other things fail than after the run before: trouble that begins, changes or ends.
    Change,
    /// After runs that failed in part or in whole.
    #[default]
    Failure,
}

impl NotifyOn {
    /// Whether this run is worth telling; `before` is the last one that ended.
    pub fn wants(self, run: &RunRecord, before: Option<&RunRecord>) -> bool {
        match self {
            NotifyOn::Always => true,
            NotifyOn::Change => run.trouble() != before.map(RunRecord::trouble).unwrap_or_default(),
            NotifyOn::Failure => run.has_failed(),
        }
    }
}

/// What a webhook understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NotifyForm {
    /// A JSON object with all that is known of the run.
    #[default]
    Json,
    /// A message as Slack and its kin take them.
    Slack,
}

/// Where to tell.
#[derive(Debug, Clone)]
pub struct Notifier {
    http: reqwest::Client,
    hook: Option<Url>,
    form: NotifyForm,
    command: Option<String>,
    on: NotifyOn,
}

/// Variables that a command gets besides those that any command gets: the place for an address or a token of its own.
const FOR_COMMANDS: &[&str] = &["DAPLAKE_NOTIFY_*"];

impl Notifier {
    /// `hook` is a secret: whoever knows it can post. `command` runs in a clean environment. Kind `Usage` for an address that is
    /// none.
    pub fn new(
        http: impl Fn(&Url) -> Result<reqwest::Client>,
        hook: Option<&Secret>,
        form: NotifyForm,
        command: Option<String>,
        on: NotifyOn,
    ) -> Result<Self> {
        let hook = hook.map(|hook| Url::parse(hook.reveal()));
        // The cause would repeat the address.
        let hook = hook.transpose().map_err(|_| {
            Error::new(Kind::Usage, "The address of --notify is not a URL").hint("write it as https://host/path")
        })?;
        if hook.as_ref().is_some_and(|hook| !matches!(hook.scheme(), "http" | "https") || !hook.has_host()) {
            return Err(Error::new(Kind::Usage, "The address of --notify must begin with https://"));
        }
        let http = match &hook {
            Some(hook) => http(hook)?,
            None => reqwest::Client::new(),
        };
        Ok(Self { http, hook, form, command, on })
    }

    /// Tells of a run if it is worth it.
    pub async fn tell(&self, run: &RunRecord, before: Option<&RunRecord>) {
        if !self.on.wants(run, before) {
            return;
        }
        if let Some(hook) = &self.hook {
            match self.post(hook, run).await {
                Ok(()) => tracing::info!(host = hook.host_str(), "Told of the run"),
                Err(error) => {
                    tracing::warn!(host = hook.host_str(), error = %in_one(&error), "The notification did not arrive")
                }
            }
        }
        if let Some(command) = &self.command {
            let (command, text) = (command.clone(), json_form(run).to_string());
            let ended = tokio::task::spawn_blocking(move || execute(&command, text.into_bytes())).await;
            if let Err(error) = ended.context(Kind::Bug, "The command could not be waited for").flatten() {
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
            let sent = self.http.post(hook.clone()).json(&body).timeout(PATIENCE).send().await;
            let error = match sent {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => {
                    let status = answer.status();
                    let error = Error::new(Kind::Unavailable, "The webhook refused it").with_field("status", status.as_u16());
                    if !status.is_server_error() && status.as_u16() != 429 {
                        return Err(error);
                    }
                    error
                }
                // The address is a secret.
                Err(error) => Error::new(Kind::Unavailable, "The webhook does not answer").caused_by(error.without_url()),
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

/// By the system's shell, with the run as JSON on its standard input.
fn execute(command: &str, text: Vec<u8>) -> Result<()> {
    let mut shell = child::shell(command, FOR_COMMANDS);
    let mut child =
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context(Kind::Io, "The command cannot be started")?;
    let mut stdin = child.stdin.take();
    let writer = std::thread::spawn(move || {
        // Who does not want to read it need not.
        let _ = stdin.as_mut().map(|stdin| stdin.write_all(&text));
    });
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().context(Kind::Io, "The command cannot be waited for")? {
            break status;
        }
        if begun.elapsed() > COMMAND_PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::new(Kind::Io, "The command took too long and was ended")
                .with_field("seconds", COMMAND_PATIENCE.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let _ = writer.join();
    match status.success() {
        true => Ok(()),
        false => Err(Error::new(Kind::Io, "The command failed").with_field("status", status)),
    }
}

/// The run in one sentence.
fn sentence(run: &RunRecord) -> String {
    let totals = run.totals();
    match (&run.failure, totals.failed) {
        (Some(failure), _) => format!("daplake: the run could not start: {}", failure.message),
        (None, 0) => format!(
            "daplake: {} tables are right: {} loaded, {} unchanged, {} put off; {} rows upserted, {} deleted",
            totals.tables, totals.loaded, totals.unchanged, totals.skipped, totals.upserted, totals.deleted
        ),
        (None, failed) => format!("daplake: {failed} of {} tables failed", totals.tables),
    }
}

/// What `--notify` and `--notify-command` give: the sentence, the sums, and the run.
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
    // The three characters that mean something in its markup.
    let plain = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mark = if run.has_failed() { ":x:" } else { ":white_check_mark:" };
    let sentence = plain(&sentence(run));
    let mut lines = vec![format!("{mark} *{sentence}*"), format!("{} (began {})", plain(&run.target), run.started)];
    let mut failures: Vec<String> = Vec::new();
    failures.extend(run.failure.iter().filter_map(|failure| failure.hint.as_deref()).map(|hint| format!("_{}_", plain(hint))));
    for table in &run.tables {
        let Some(failure) = &table.failure else { continue };
        let hint = failure.hint.as_deref().map(|hint| format!(" _{}_", plain(hint))).unwrap_or_default();
        failures.push(format!("\u{2022} `{}`: {}{hint}", plain(&table.table), plain(&failure.message)));
    }
    let more = failures.len().saturating_sub(MOST_WORDS);
    failures.truncate(MOST_WORDS);
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
    fn trouble_is_told_when_it_is_new() {
        let (good, bad, worse) = (run(&[]), run(&["a"]), run(&["a", "b"]));
        let wants = |on: NotifyOn, run: &RunRecord, before: Option<&RunRecord>| on.wants(run, before);
        assert!(wants(NotifyOn::Always, &good, Some(&good)) && !wants(NotifyOn::Failure, &good, Some(&bad)));
        assert!(wants(NotifyOn::Failure, &bad, Some(&bad)));
        assert!(wants(NotifyOn::Change, &bad, None) && wants(NotifyOn::Change, &bad, Some(&good)));
        assert!(wants(NotifyOn::Change, &worse, Some(&bad)) && wants(NotifyOn::Change, &good, Some(&bad)));
        assert!(!wants(NotifyOn::Change, &bad, Some(&bad)) && !wants(NotifyOn::Change, &good, None));
    }

    #[test]
    fn a_message_is_short_and_keeps_texts_as_texts() {
        let names: Vec<String> = (0..15).map(|number| format!("canvas.t{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let message = slack_form(&run(&names));
        let text = message["blocks"][0]["text"]["text"].as_str().unwrap();
        assert!(text.contains("15 of 15 tables failed") && text.contains("A &lt;row&gt; cannot be read"), "{text}");
        assert!(text.ends_with("and 5 more"), "{text}");
        assert_eq!(json_form(&run(&["a"]))["totals"]["failed"], 1);
    }
}
