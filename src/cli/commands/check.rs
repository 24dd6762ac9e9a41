//! `check`: tests credentials, targets, folders and options.

use crate::api::Client;
use crate::cli::args::global::GlobalArgs;
use crate::cli::args::query::OutputFormat;
use crate::cli::args::selection::SelectionArgs;
use crate::cli::args::setup::CheckArgs;
use crate::cli::commands::context;
use crate::cli::observability::run_reporting;
use crate::cli::settings::paths::state_dir;
use crate::cli::terminal::output::{is_quiet, out};
use crate::cli::version::version_text;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::ops::{self, Finding, Listing, NameOptions, OptionsCheck, Selection, Verdict};

/// Tests everything that `sync` needs, for each target.
pub(in crate::cli) async fn check(global: &GlobalArgs, runs: Vec<CheckArgs>) -> Result<()> {
    let Some(first) = runs.first() else { return Ok(()) };
    let mut findings = vec![Finding::good("version", version_text())];
    let mut namespaces: Vec<String> = Vec::new();
    for run in &runs {
        namespaces
            .extend(run.selection.namespace.iter().filter(|name| !namespaces.contains(name)).cloned().collect::<Vec<_>>());
    }
    let client = match context::client(global, context::pacing(global, 0)) {
        Ok(client) => Some(client),
        Err(error) => {
            findings.push(Finding::bad("credentials", error));
            None
        }
    };
    let mut listed = None;
    if let Some(client) = &client {
        let (found, listing) = ops::check_service(client, &namespaces).await;
        findings.extend(found);
        // Options can be compared only with listed tables.
        listed = (!listing.tables.is_empty()).then_some((client, listing));
    }
    for run in &runs {
        check_target(global, run, listed.as_ref().map(|(client, listing)| (*client, listing)), &mut findings).await;
    }
    match run_reporting::notifier(global, &first.notifications) {
        Ok(None) => {}
        Ok(Some(_)) => findings.push(Finding::good("notifications", "are configured; none was sent")),
        Err(error) => findings.push(Finding::bad("notifications", error)),
    }
    findings.push(ops::check_folder("temporary files", &context::temp_dir(&first.engine)));
    match state_dir(first.state.state_dir.clone()) {
        Some(folder) => findings.push(ops::check_folder("state", &folder)),
        None => findings.push(Finding::doubtful("state", "there is no state folder", "give one with --state-dir")),
    }
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    if is_quiet() && bad == 0 {
        return Ok(());
    }
    out(&match first.output {
        OutputFormat::Text if is_quiet() => text(findings.iter().filter(|finding| finding.verdict == Verdict::Bad)),
        OutputFormat::Text => text(findings.iter()),
        OutputFormat::Json => {
            serde_json::to_string_pretty(&findings).context(Kind::Bug, "The findings cannot be written as JSON")? + "\n"
        }
    })?;
    let mut failed = findings.iter().filter(|finding| finding.verdict == Verdict::Bad);
    match failed.find_map(|finding| finding.error.as_ref()) {
        None => Ok(()),
        Some(first) => Err(Error::new(first.kind(), format!("{bad} of {} checks failed; see above", findings.len()))),
    }
}

/// Tests the target of a run, if it has one, and the options for its tables.
async fn check_target(global: &GlobalArgs, run: &CheckArgs, listed: Option<(&Client, &Listing)>, findings: &mut Vec<Finding>) {
    if run.target.target.is_none() {
        return;
    }
    let opened = context::target(global, &run.target).await.and_then(|target| {
        let engine = context::engine(&run.engine)?;
        let sink = context::open_sink(
            &target,
            &engine,
            &run.lake,
            #[cfg(feature = "sql")]
            &run.database,
        )?;
        Ok((target, sink))
    });
    let (target, sink) = match opened {
        Ok(opened) => opened,
        Err(error) => return findings.push(Finding::bad("target", error)),
    };
    match context::catalog(&run.catalog, &target) {
        Ok(None) => {}
        Ok(Some(catalog)) => findings.push(ops::check_catalog("catalog", &catalog, sink.as_ref()).await),
        Err(error) => findings.push(Finding::bad("catalog", error)),
    }
    let SelectionArgs { namespace, table, exclude } = &run.selection;
    let selection = Selection { namespaces: namespace.clone(), tables: table.clone(), exclude: exclude.clone() };
    let selected = listed.and_then(|(_, listing)| selection.resolve_among(&listing.tables).ok());
    findings.push(ops::check_target("target", sink.as_ref(), namespace, selected.as_deref()).await);
    let rules = context::table_rules(
        &run.tables,
        #[cfg(feature = "sql")]
        &run.database,
    );
    let rules = match rules {
        Ok(rules) => rules,
        Err(error) => return findings.push(Finding::bad("tables", error)),
    };
    let is_usable = findings.last().is_some_and(|finding| finding.verdict != Verdict::Bad);
    if let (Some((client, listing)), true) = (listed, is_usable) {
        let names = NameOptions::new(run.tables.elsewhere.clone());
        let check = OptionsCheck { sink: sink.as_ref(), listing, selection: &selection, rules: &rules, names: &names };
        findings.extend(ops::check_options("tables", client, check).await);
    }
}

/// Findings as lines with their hints.
pub(in crate::cli) fn text<'a>(findings: impl Iterator<Item = &'a Finding> + Clone) -> String {
    let width = findings.clone().map(|finding| finding.subject.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { subject, verdict, text: found, hint, .. } in findings {
        let mark = match verdict {
            Verdict::Good => "ok  ",
            Verdict::Doubtful => "warn",
            Verdict::Bad => "FAIL",
        };
        text.push_str(&format!("{mark}  {subject:width$}  {found}\n"));
        if let Some(hint) = hint {
            text.push_str(&format!("      {:width$}  hint: {hint}\n", ""));
        }
    }
    text
}
