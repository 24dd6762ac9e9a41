//! `check`: whether the service, the targets and the folders of this machine can do what a sync will ask of them, by the cheapest real
//! action each. It changes nothing.

use std::path::Path;

use serde::Serialize;

use super::KNOWN_NAMESPACES;
use crate::api::Client;
use crate::error::{Error, Kind, ResultExt};
use crate::model::{Namespace, Timestamp};
use crate::sink::Sink;

/// What was found about one thing.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// Such as `credentials` or `target lake`.
    pub subject: String,
    /// How it stands.
    pub verdict: Verdict,
    /// One sentence or name.
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The failure itself.
    #[serde(skip)]
    pub error: Option<Error>,
}

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, but a person should know.
    Doubtful,
    /// A sync would fail.
    Bad,
}

impl Finding {
    /// As it should be.
    pub fn good(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { subject: subject.into(), verdict: Verdict::Good, text: text.into(), hint: None, error: None }
    }

    /// It works, but.
    pub fn doubtful(subject: impl Into<String>, text: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = Some(hint.into());
        Self { subject: subject.into(), verdict: Verdict::Doubtful, text: text.into(), hint, error: None }
    }

    /// It does not work.
    pub fn bad(subject: impl Into<String>, error: Error) -> Self {
        let hint = error.hint_text().map(str::to_owned);
        let mut text = error.to_string();
        for cause in error.causes() {
            text.push_str(": ");
            text.push_str(&cause);
        }
        Self { subject: subject.into(), verdict: Verdict::Bad, text, hint, error: Some(error) }
    }
}

/// Seconds of difference between two clocks that nobody needs to hear of.
const CLOCK_TOLERANCE_S: i64 = 60;

/// Logs in, lists the tables of each namespace (a few calls; no job is started) and compares the clocks. `all` stands for every
/// namespace that is known, of which an account may have fewer.
pub async fn check_service(client: &Client, namespaces: &[String]) -> Vec<Finding> {
    let everywhere = namespaces.iter().any(|name| name == "all");
    let names: Vec<&str> = match everywhere {
        true => KNOWN_NAMESPACES.to_vec(),
        false => namespaces.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect(),
    };
    let mut findings = Vec::new();
    let mut has_token = false;
    let mut found = 0;
    for name in names {
        let answer = client.tables(&Namespace::new(name)).await;
        match &answer {
            // Without a login, no other namespace would answer.
            Err(error) if error.get("call") == Some("login") || error.kind() == Kind::Usage => {
                let subject = if error.kind() == Kind::Auth { "credentials" } else { "service" };
                findings.extend(answer.err().map(|error| Finding::bad(subject, error)));
                return findings;
            }
            _ => {}
        }
        if !std::mem::replace(&mut has_token, true) {
            findings.push(Finding::good("credentials", "the service gave a token"));
            findings.push(clock(client));
        }
        findings.push(match answer {
            Ok(tables) => {
                found += 1;
                Finding::good(format!("namespace {name}"), format!("{} tables", tables.len()))
            }
            Err(error) if everywhere && matches!(error.kind(), Kind::NotFound | Kind::Account) => {
                Finding::good(format!("namespace {name}"), "this account does not have it")
            }
            Err(error) => Finding::bad(format!("namespace {name}"), error),
        });
    }
    if everywhere && found == 0 {
        let error = Error::new(Kind::Account, "The account has none of the known namespaces");
        findings.push(Finding::bad(
            "account",
            error.hint("new institutions wait some days until they are onboarded: ask the vendor"),
        ));
    }
    findings
}

fn clock(client: &Client) -> Finding {
    // The Date header has whole seconds.
    let ahead = (Timestamp::now().micros() - client.server_now().micros()) / 1_000_000;
    match ahead.abs() <= CLOCK_TOLERANCE_S {
        true => Finding::good("clock", "agrees with that of the service"),
        false => Finding::doubtful(
            "clock",
            format!("this machine is {} s {} the service", ahead.abs(), if ahead > 0 { "ahead of" } else { "behind" }),
            "let it follow a time server: signatures of object stores fail from 15 minutes on",
        ),
    }
}

/// Does the cheapest part of a real load, which leaves nothing behind.
pub async fn check_target(subject: &str, sink: &dyn Sink) -> Finding {
    let checked = async {
        sink.check().await?;
        sink.check_rights().await
    };
    match checked.await {
        Ok(()) => Finding::good(subject, format!("{} can be written", sink.location())),
        Err(error) => Finding::bad(subject, error.with("target", sink.location())),
    }
}

/// Makes a file in a folder and removes it; the folder itself is made when absent, as a run would do it.
pub fn check_folder(subject: &str, folder: &Path) -> Finding {
    let tried = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder).map(drop));
    match tried.or_fail(Kind::Io, "The folder cannot be written") {
        Ok(()) => Finding::good(subject, format!("{} can be written{}", folder.display(), free(folder))),
        Err(error) => {
            Finding::bad(subject, error.with("folder", folder.display()).hint("name another one, or change its rights"))
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn free(folder: &Path) -> String {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    rustix::fs::statvfs(folder)
        .map_or_else(|_| String::new(), |stat| format!(", {:.1} GiB free", gib(stat.f_bavail * stat.f_frsize)))
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn free(_: &Path) -> String {
    String::new()
}
