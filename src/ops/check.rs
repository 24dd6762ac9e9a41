//! `check`: whether the service, the targets and the folders of this machine can do what a sync will ask of them, by the cheapest real
//! action each. It changes nothing.

use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use serde::Serialize;

use super::sync::{NameOptions, Names, choose, layout};
use super::{KNOWN_NAMESPACES, Listing, Selection};
use crate::api::Client;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::{Namespace, TableRef, Timestamp};
use crate::schema::{ColumnRecord, TableOptions, TableRules, TableSchema};
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
/// namespace that is known, of which an account may have fewer. Gives what was listed as well; nothing without a login.
pub async fn check_service(client: &Client, namespaces: &[String]) -> (Vec<Finding>, Listing) {
    let everywhere = namespaces.iter().any(|name| name == "all");
    let names: Vec<&str> = match everywhere {
        true => KNOWN_NAMESPACES.to_vec(),
        false => namespaces.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect(),
    };
    let mut findings = Vec::new();
    let mut listing = Listing::default();
    let mut has_token = false;
    for name in names {
        let answer = client.tables(&Namespace::new(name)).await;
        match &answer {
            // Without a login, no other namespace would answer.
            Err(error) if error.get("call") == Some("login") || error.kind() == Kind::Usage => {
                let subject = if error.kind() == Kind::Auth { "credentials" } else { "service" };
                findings.extend(answer.err().map(|error| Finding::bad(subject, error)));
                return (findings, Listing::default());
            }
            _ => {}
        }
        if !std::mem::replace(&mut has_token, true) {
            findings.push(Finding::good("credentials", "the service gave a token"));
            findings.push(clock(client));
        }
        findings.push(match answer {
            Ok(tables) => {
                listing.answered.push(name.to_owned());
                listing.tables.extend(tables.iter().map(|table| TableRef::new(name, table.clone())));
                Finding::good(format!("namespace {name}"), format!("{} tables", tables.len()))
            }
            Err(error) if everywhere && matches!(error.kind(), Kind::NotFound | Kind::Account) => {
                Finding::good(format!("namespace {name}"), "this account does not have it")
            }
            Err(error) => {
                listing.failed.push(name.to_owned());
                Finding::bad(format!("namespace {name}"), error)
            }
        });
    }
    if everywhere && listing.answered.is_empty() {
        let error = Error::new(Kind::Account, "The account has none of the known namespaces");
        findings.push(Finding::bad(
            "account",
            error.hint("new institutions wait some days until they are onboarded: ask the vendor"),
        ));
    }
    (findings, listing)
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

/// Does the cheapest part of a real load, and makes what a load of these namespaces would make; leaves nothing behind.
pub async fn check_target(subject: &str, sink: &dyn Sink, namespaces: &[String]) -> Finding {
    let namespaces: Vec<Namespace> = match namespaces.iter().any(|name| name == "all") {
        true => vec![Namespace::new("canvas")],
        false => namespaces.iter().map(|name| Namespace::new(name.trim())).collect(),
    };
    let tried = async {
        sink.check().await?;
        sink.check_rights(&namespaces).await
    };
    match tried.await {
        Ok(()) => Finding::good(subject, format!("{} can be written", sink.location())),
        Err(error) => Finding::bad(subject, error.with_field("target", sink.location())),
    }
}

/// What a run is about, for [`check_options`].
#[derive(Clone, Copy)]
pub struct OptionsCheck<'a> {
    /// The target.
    pub sink: &'a dyn Sink,
    /// What the service has.
    pub listing: &'a Listing,
    /// Which tables.
    pub selection: &'a Selection,
    /// What is chosen for single tables.
    pub rules: &'a TableRules,
    /// See [`NameOptions`].
    pub names: &'a NameOptions,
}

/// Tables whose options are looked at together.
const TABLES_AT_ONCE: usize = 8;

/// Whether tables and columns that are named exist, the key for hashes is there, and the target can keep the tables as they are chosen.
/// Starts no job.
pub async fn check_options(subject: &str, client: &Client, of: OptionsCheck<'_>) -> Vec<Finding> {
    match options_of_tables(client, &of).await {
        Ok((tables, failures)) if failures.is_empty() => {
            let noun = if tables == 1 { "table" } else { "tables" };
            vec![Finding::good(subject, format!("{tables} {noun}, and all that is said of single ones can be done"))]
        }
        Ok((_, failures)) => failures.into_iter().map(|error| Finding::bad(subject, error)).collect(),
        Err(error) => vec![Finding::bad(subject, error)],
    }
}

async fn options_of_tables(client: &Client, of: &OptionsCheck<'_>) -> Result<(usize, Vec<Error>)> {
    of.rules.check()?;
    let listing = of.listing.of(of.selection);
    let tables = of.selection.resolve_among(&listing.tables)?;
    Names::new(client, of.sink, &listing, of.names).check(of.rules, &of.selection.exclude).await?;
    let chosen = tables.iter().filter(|table| of.rules.of(table) != TableOptions::default());
    let look = |table: &'_ TableRef| {
        let table = table.clone();
        async move { options_of_table(client, of, &table).await.with_field("table", &table) }
    };
    let looked: Vec<Result<()>> = futures::stream::iter(chosen).map(look).buffered(TABLES_AT_ONCE).collect().await;
    Ok((tables.len(), looked.into_iter().filter_map(Result::err).collect()))
}

async fn options_of_table(client: &Client, of: &OptionsCheck<'_>, table: &TableRef) -> Result<()> {
    of.sink.accepts(table, &layout(of.rules, table, ColumnRecord::default())).await?;
    let held = of.sink.held(table).await?;
    let answer = client.table_schema(table).await?;
    let schema = Arc::new(TableSchema::read(table, answer.version, answer.schema)?);
    let choice = choose(of.rules, table, held.as_ref(), &schema)?;
    if let Some(held) = &held {
        held.check_columns(choice.record(), choice.kept())?;
    }
    let options = of.rules.of(table);
    let column = options.partition_by.as_ref().and_then(|partitions| partitions.by()).map(|by| by.column.as_str());
    match column.filter(|name| !choice.kept().columns().any(|column| column.name == *name)) {
        None => Ok(()),
        Some(name) => Err(Error::new(Kind::Schema, "The table is to be partitioned by a column that it does not have")
            .with_field("column", name)
            .hint("see the names with `daplake schema --table ...`")),
    }
}

/// Makes a file in a folder and removes it; the folder itself is made when absent, as a run would do it.
pub fn check_folder(subject: &str, folder: &Path) -> Finding {
    let tried = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder).map(drop));
    match tried.context(Kind::Io, "The folder cannot be written") {
        Ok(()) => Finding::good(subject, format!("{} can be written{}", folder.display(), free(folder))),
        Err(error) => {
            Finding::bad(subject, error.with_field("folder", folder.display()).hint("name another one, or change its rights"))
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
