//! `check`: tests the service, the targets and the folders of this machine with the cheapest calls that a sync needs. It changes nothing.

use std::path::Path;
use std::sync::Arc;

use futures::StreamExt;
use serde::Serialize;

use super::catalog::require_delta_tables;
use super::disk_space::{free_bytes, local_folder};
use super::sync::{NameOptions, Names, choose, layout};
use super::{KNOWN_NAMESPACES, Listing, Selection};
use crate::api::Client;
use crate::catalog::Catalog;
use crate::error::{Error, ErrorContext, Kind, Result, ResultExt};
use crate::model::{Namespace, TableRef, Timestamp, counted};
use crate::schema::{ColumnRecord, Nested, TableRules, TableSchema};
use crate::sink::{LoadKind, LoadPlan, OnSchemaChange, Sink, TableProblems};

/// The result of one check.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// What was checked, such as `credentials` or `target lake`.
    pub subject: String,
    /// The verdict.
    pub verdict: Verdict,
    /// A short description.
    pub text: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The error.
    #[serde(skip)]
    pub error: Option<Error>,
}

/// Verdict of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No problem.
    Good,
    /// A sync works, but a person should know.
    Doubtful,
    /// A sync would fail.
    Bad,
}

impl Finding {
    /// A finding without a problem.
    pub fn good(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { subject: subject.into(), verdict: Verdict::Good, text: text.into(), hint: None, error: None }
    }

    /// A finding that does not prevent a sync.
    pub fn doubtful(subject: impl Into<String>, text: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = Some(hint.into());
        Self { subject: subject.into(), verdict: Verdict::Doubtful, text: text.into(), hint, error: None }
    }

    /// A finding that prevents a sync.
    pub fn bad(subject: impl Into<String>, error: Error) -> Self {
        Self { verdict: Verdict::Bad, ..Self::warning(subject, error) }
    }

    /// A finding about an error that a sync need not meet.
    fn warning(subject: impl Into<String>, error: Error) -> Self {
        let hint = error.hint_text().map(str::to_owned);
        let mut text = error.to_string();
        for cause in error.causes() {
            text.push_str(": ");
            text.push_str(&cause);
        }
        Self { subject: subject.into(), verdict: Verdict::Doubtful, text, hint, error: Some(error) }
    }
}

/// Difference between two clocks that is not reported, seconds.
const CLOCK_TOLERANCE_S: i64 = 60;

/// Logs in, lists the tables of each namespace and compares the clocks, without starting a job. `all` means all known namespaces; an account
/// may not have all of them. Returns the listing as well, which is empty if the login failed.
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
            // If the login failed, other namespaces fail alike.
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
                Finding::good(format!("namespace {name}"), counted(tables.len() as u64, "table"))
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
            error.hint("onboarding a new institution takes some days; ask the vendor's support"),
        ));
    }
    (findings, listing)
}

fn clock(client: &Client) -> Finding {
    // The Date header is in whole seconds.
    let ahead = (Timestamp::now().micros() - client.server_now().micros()) / 1_000_000;
    match ahead.abs() <= CLOCK_TOLERANCE_S {
        true => Finding::good("clock", "agrees with the service"),
        false => Finding::doubtful(
            "clock",
            format!("this machine is {} s {} the service", ahead.abs(), if ahead > 0 { "ahead of" } else { "behind" }),
            "synchronise the clock with a time server: object stores reject signatures that are 15 minutes off",
        ),
    }
}

/// Tests the connection to a catalog, and whether it can list the tables of a target.
pub async fn check_catalog(subject: &str, catalog: &Catalog, sink: &dyn Sink) -> Finding {
    let checked = match require_delta_tables(sink) {
        Ok(()) => catalog.check().await,
        refused => refused,
    };
    match checked {
        Ok(()) => Finding::good(subject, "can be read; the right to change it is not tested"),
        Err(error) => Finding::bad(subject, error),
    }
}

/// Tests the connection to a target and the rights to create tables in these namespaces, and warns if a local target has little free space.
/// `tables`: the selected tables, if they are known. If the target has all of them, the rights to create others are not required.
pub async fn check_target(subject: &str, sink: &dyn Sink, namespaces: &[String], tables: Option<&[TableRef]>) -> Finding {
    let namespaces: Vec<Namespace> = match namespaces.iter().any(|name| name == "all") {
        true => vec![Namespace::new("canvas")],
        false => namespaces.iter().map(|name| Namespace::new(name.trim())).collect(),
    };
    if let Err(error) = sink.check().await {
        return Finding::bad(subject, error.with_field("target", sink.location()));
    }
    match sink.check_rights(&namespaces).await {
        Ok(()) => match local_folder(sink).and_then(|folder| free_bytes(&folder)) {
            Some(free) if free < LITTLE_SPACE => Finding::doubtful(
                subject,
                format!("{} can be written, but has only {:.1} GiB free", sink.location(), gib(free)),
                "free some space, or move the target to a larger disk: a load needs space for new files before old ones are removed",
            ),
            _ => Finding::good(subject, format!("{} can be written", sink.location())),
        },
        Err(error) => {
            let error = error.with_field("target", sink.location());
            let kept = sink.list(None).await.unwrap_or_default();
            match tables {
                Some(tables) if !tables.is_empty() && tables.iter().all(|table| kept.contains(table)) => {
                    let finding = Finding::warning(subject, error);
                    Finding {
                        text: format!("tables that exist can be updated, but none can be created: {}", finding.text),
                        ..finding
                    }
                }
                _ => Finding::bad(subject, error),
            }
        }
    }
}

/// The options of a run, for [`check_options`].
#[derive(Clone, Copy)]
pub struct OptionsCheck<'a> {
    /// The target.
    pub sink: &'a dyn Sink,
    /// The tables of the service.
    pub listing: &'a Listing,
    /// The selected tables.
    pub selection: &'a Selection,
    /// Options of single tables.
    pub rules: &'a TableRules,
    /// See [`NameOptions`].
    pub names: &'a NameOptions,
}

/// Tables whose options are checked at the same time.
const TABLES_AT_ONCE: usize = 8;

/// Checks that tables and columns in options exist, that the key for hashed columns is set, that the target supports the schema and the options
/// of each table, and that loads can write to the tables that it has. Starts no job.
pub async fn check_options(subject: &str, client: &Client, of: OptionsCheck<'_>) -> Vec<Finding> {
    match options_of_tables(client, &of).await {
        Ok((tables, TableProblems { failures, warnings })) => {
            let mut findings: Vec<Finding> = warnings.into_iter().map(|error| Finding::warning(subject, error)).collect();
            if failures.is_empty() {
                let tables = counted(tables as u64, "table");
                findings.push(Finding::good(subject, format!("{tables} selected; all options of tables are valid")));
            }
            findings.extend(failures.into_iter().map(|error| Finding::bad(subject, error)));
            findings
        }
        Err(error) => vec![Finding::bad(subject, error)],
    }
}

async fn options_of_tables(client: &Client, of: &OptionsCheck<'_>) -> Result<(usize, TableProblems)> {
    of.rules.check()?;
    let listing = of.listing.of(of.selection);
    let tables = of.selection.resolve_among(&listing.tables)?;
    Names::new(client, of.sink, &listing, of.names).check(of.rules, &of.selection.exclude).await?;
    let look = |table: TableRef| async move { plan_of_table(client, of, &table).await.with_field("table", &table) };
    let looked: Vec<Result<()>> = futures::stream::iter(tables.clone()).map(look).buffered(TABLES_AT_ONCE).collect().await;
    let mut problems = of.sink.check_tables(&tables).await?;
    for error in looked.into_iter().filter_map(Result::err) {
        // Both checks may find the same problem.
        let is_known = |known: &Error| known.to_string() == error.to_string();
        if !problems.failures.iter().any(is_known) {
            problems.failures.push(error);
        }
    }
    Ok((tables.len(), problems))
}

/// Checks the load that a run would begin with, as far as it is known without a job.
async fn plan_of_table(client: &Client, of: &OptionsCheck<'_>, table: &TableRef) -> Result<()> {
    let wanted = layout(of.rules, table, ColumnRecord::default(), OnSchemaChange::Apply);
    of.sink.validate_layout(table, &wanted).await?;
    let committed = of.sink.inspect(table).await?;
    let answer = client.table_schema(table).await?;
    let schema = Arc::new(TableSchema::read(table, answer.version, answer.schema)?);
    let choice = choose(of.rules, table, committed.as_ref(), &schema, OnSchemaChange::Apply)?;
    if let Some(state) = &committed {
        state.check_columns(choice.record(), choice.kept())?;
    }
    let exists = committed.is_some();
    let plan = LoadPlan {
        table: table.clone(),
        schema: choice.kept().clone(),
        nested: Nested::Typed,
        kind: if exists { LoadKind::Merge } else { LoadKind::Replace },
        expected: committed.map(|state| state.bookmark),
        run_id: String::new(),
        job_id: String::new(),
        layout: layout(of.rules, table, choice.record().clone(), OnSchemaChange::Apply),
        is_snapshot: !exists,
        as_of: client.server_now(),
    };
    of.sink.check_plan(plan).await
}

/// Tests a folder by creating and removing a file. A folder that does not exist is created for that, as a run would do, and removed again.
pub fn check_folder(subject: &str, folder: &Path) -> Finding {
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    let tried = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder).map(drop));
    let space = free(folder);
    for folder in missing {
        // Another run may use it by now.
        let _ = std::fs::remove_dir(folder);
    }
    match tried.context(Kind::Io, "Cannot write to the folder") {
        Ok(()) => Finding::good(subject, format!("{} can be written{space}", folder.display())),
        Err(error) => Finding::bad(
            subject,
            error.with_field("folder", folder.display()).hint("use another folder, or change its permissions"),
        ),
    }
}

/// Free space below which a local target is reported, bytes.
const LITTLE_SPACE: u64 = 1 << 30;

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// The free space of a folder's disk, for people.
fn free(folder: &Path) -> String {
    free_bytes(folder).map_or_else(String::new, |bytes| format!(", {:.1} GiB free", gib(bytes)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::testing::{Reply, Server};
    use crate::engine::{Engine, EngineOptions};
    use crate::sink::delta::{DeltaOptions, DeltaSink};

    /// A service whose tables have one text column each, named after the table.
    async fn service(tables: &'static [&'static str]) -> Server {
        Server::dap(move |request| match request.path().split('/').nth(5) {
            None => Reply::json(200, json!({"tables": tables}).to_string()),
            Some(table) => {
                let schema = json!({"properties": {
                    "key": {"properties": {"id": {"type": "integer", "format": "int64"}}, "required": ["id"]},
                    "value": {"properties": {table: {"type": "string"}}},
                }});
                Reply::json(200, json!({"schema": schema, "version": 1}).to_string())
            }
        })
        .await
    }

    #[tokio::test]
    async fn tables_without_options_are_checked() {
        let server = service(&["_action", "_TS", "name"]).await;
        let client = server.client();
        let (folder, temporary) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let options = EngineOptions { temp_dir: Some(temporary.path().to_owned()), ..EngineOptions::default() };
        let sink = DeltaSink::at_path(folder.path(), DeltaOptions::new(Engine::new(options).unwrap())).unwrap();
        let (_, listing) = check_service(&client, &["canvas".to_owned()]).await;
        let (names, rules) = (NameOptions::new(Vec::new()), TableRules::default());
        for (tables, bad) in [(&["*"][..], &["canvas._TS", "canvas._action"][..]), (&["name"], &[])] {
            let tables = tables.iter().map(|name| (*name).to_owned()).collect();
            let selection = Selection { namespaces: vec!["canvas".to_owned()], tables, exclude: Vec::new() };
            let of = OptionsCheck { sink: &sink, listing: &listing, selection: &selection, rules: &rules, names: &names };
            let findings = check_options("tables", &client, of).await;
            let mut refused: Vec<&str> = findings.iter().filter_map(|finding| finding.error.as_ref()?.get("table")).collect();
            refused.sort_unstable();
            assert_eq!(refused, bad, "{findings:?}");
            let has_hint = |finding: &Finding| finding.verdict == Verdict::Good || finding.hint.is_some();
            assert!(findings.iter().all(has_hint), "{findings:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_folder_is_not_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let finding = check_folder("state", &folder.path().join("a/b"));
        assert_eq!(finding.verdict, Verdict::Good, "{}", finding.text);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
