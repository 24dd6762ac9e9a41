//! Notifications about the end of the runs of a process: a webhook, mail and a command. They are repeated a few times; a failure is logged
//! and does not affect the runs.

mod digest;
mod mail;
mod memory;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use url::Url;

use super::history::RunRecord;
use crate::child;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::redact::Secret;
use digest::{Digest, json_form};
pub use mail::{Mail, MailOptions};
use memory::{Memory, News};

/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between the attempts.
const WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// Timeout of a command, which is killed then.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// When to notify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NotifyOn {
    /// After every run.
    Always,
    /// If the failures differ from those that were reported: a new one, or the end of one.
    Change,
    /// After runs with a failure.
    #[default]
    Failure,
}

impl NotifyOn {
    fn wants(self, runs: &[RunRecord], news: &News) -> bool {
        match self {
            NotifyOn::Always => true,
            NotifyOn::Change => news.is_new,
            NotifyOn::Failure => runs.iter().any(RunRecord::has_failed),
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
    /// An adaptive card for a workflow of Microsoft Teams.
    Teams,
}

/// The recipients of notifications.
#[derive(Debug, Clone)]
pub struct Notifier {
    http: reqwest::Client,
    hook: Option<Url>,
    form: NotifyForm,
    command: Option<String>,
    mail: Option<Mail>,
    on: NotifyOn,
    memory: Arc<Memory>,
}

/// Additional environment variables of the command, for an address or a token.
const FOR_COMMANDS: &[&str] = &["DAPLAKE_NOTIFY_*"];

impl Notifier {
    /// `hook` is a secret: anyone who knows it can post. `command` runs in a clean environment.
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
        Ok(Self { http, hook, form, command, mail: None, on, memory: Arc::default() })
    }

    /// Sends mail as well.
    #[must_use]
    pub fn with_mail(self, mail: Mail) -> Self {
        Self { mail: Some(mail), ..self }
    }

    /// Remembers what was reported in a folder, so that the next process knows it, for [`NotifyOn::Change`]. `identity` tells the
    /// notifications of one set of targets from those of another.
    #[must_use]
    pub fn remembering(self, folder: &Path, identity: &str) -> Self {
        Self { memory: Arc::new(Memory::in_folder(folder, identity)), ..self }
    }

    /// Sends one message about the runs of a process, one run for each target, if it is wanted. JSON has a message for each run.
    pub async fn notify(&self, runs: &[RunRecord]) {
        let news = self.memory.news(runs);
        if !self.on.wants(runs, &news) {
            return self.memory.remember(news);
        }
        let digest = Digest::new(runs, &news.recovered);
        let hook = async {
            let Some(hook) = &self.hook else { return Vec::new() };
            let mut delivered = Vec::new();
            for body in self.bodies(runs, &digest, &news.recovered) {
                let sent = repeated(async || self.post(hook, &body).await).await;
                delivered.push(sent.is_ok());
                log_delivery(hook.host_str().unwrap_or_default(), sent);
            }
            delivered
        };
        let mail = async {
            let mail = self.mail.as_ref()?;
            let id = runs.iter().map(|run| run.run_id.as_str()).find(|id| !id.is_empty()).unwrap_or("daplake");
            let text = digest.text();
            let sent = repeated(async || mail.send(id, &digest.sentence, &text).await).await;
            let is_delivered = sent.is_ok();
            log_delivery(mail.host(), sent);
            Some(is_delivered)
        };
        let command = async {
            let command = self.command.as_ref()?;
            let mut is_delivered = true;
            for run in self.reported(runs) {
                let (command, text) = (command.clone(), json_form(run, &news.recovered).to_string());
                let ended = tokio::task::spawn_blocking(move || execute(&command, text.into_bytes())).await;
                if let Err(error) = ended.context(Kind::Bug, "Cannot wait for the notification command").flatten() {
                    tracing::warn!(error = %in_one(&error), "The notification command failed");
                    is_delivered = false;
                }
            }
            Some(is_delivered)
        };
        let (mut delivered, mail, command) = tokio::join!(hook, mail, command);
        delivered.extend(mail.into_iter().chain(command));
        // A message that reached no receiver is sent again after the next run.
        if delivered.contains(&true) {
            self.memory.remember(news);
        }
    }

    /// The runs that JSON is sent about.
    fn reported<'a>(&self, runs: &'a [RunRecord]) -> Vec<&'a RunRecord> {
        let wants = |run: &&RunRecord| self.on != NotifyOn::Failure || run.has_failed();
        runs.iter().filter(wants).collect()
    }

    fn bodies(&self, runs: &[RunRecord], digest: &Digest, recovered: &BTreeSet<String>) -> Vec<Value> {
        match self.form {
            NotifyForm::Json => self.reported(runs).into_iter().map(|run| json_form(run, recovered)).collect(),
            NotifyForm::Slack => vec![digest.slack()],
            NotifyForm::Teams => vec![digest.teams()],
        }
    }

    /// Posts a message once. Kind `Unavailable` if trying again can help, else `Target`.
    async fn post(&self, hook: &Url, body: &Value) -> Result<()> {
        let sent = self.http.post(hook.clone()).json(body).timeout(REQUEST_TIMEOUT).send().await;
        // The URL is a secret.
        let answer =
            sent.map_err(|error| Error::new(Kind::Unavailable, "The webhook did not respond").caused_by(error.without_url()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let can_pass = status.is_server_error() || status.as_u16() == 429;
        let kind = if can_pass { Kind::Unavailable } else { Kind::Target };
        Err(Error::new(kind, "The webhook rejected the notification").with_field("status", status.as_u16()))
    }
}

/// Sends a message, again after failures that can pass.
async fn repeated(send: impl AsyncFn() -> Result<()>) -> Result<()> {
    let mut waits = WAITS.iter();
    loop {
        match (send().await, waits.next()) {
            (Err(error), Some(wait)) if error.kind() == Kind::Unavailable => {
                tracing::debug!(error = %in_one(&error), "Sending the notification again");
                tokio::time::sleep(*wait).await;
            }
            (result, _) => return result,
        }
    }
}

fn log_delivery(host: &str, sent: Result<()>) {
    match sent {
        Ok(()) => tracing::info!(host, "Notification sent"),
        Err(error) => {
            tracing::warn!(host, error = %in_one(&error), hint = error.hint_text(), "The notification could not be delivered");
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
    let ended = child::wait_until(&mut child, Instant::now() + COMMAND_TIMEOUT);
    let Some(status) = ended.context(Kind::Io, "Cannot wait for the notification command")? else {
        return Err(Error::new(Kind::Io, "The notification command timed out and was killed")
            .with_field("seconds", COMMAND_TIMEOUT.as_secs()));
    };
    let _ = writer.join();
    match status.success() {
        true => Ok(()),
        false => Err(Error::new(Kind::Io, "The notification command returned an error").with_field("status", status)),
    }
}
