//! The content of a message about the runs of a process, and its forms for chats and mail.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::model::{counted, grouped};
use crate::ops::runs::history::{RunRecord, Totals};
use crate::redact::shortened;

/// Maximum number of failures that a message lists.
const MAX_FAILURES: usize = 10;
/// Longest text of a failure in a message, characters: chats limit the size of a message.
const MAX_TEXT: usize = 500;

/// The content of a message.
pub(super) struct Digest {
    /// All of it in one sentence.
    pub(super) sentence: String,
    pub(super) has_failed: bool,
    /// Target, start and counts of each run.
    runs: Vec<RunLine>,
    failures: Vec<FailureLine>,
    /// Failures that are not listed.
    more: usize,
    recovered: Vec<String>,
}

struct RunLine {
    target: String,
    started: String,
    counts: String,
}

struct FailureLine {
    /// The table; `None` for the whole run.
    name: Option<String>,
    message: String,
    hint: Option<String>,
}

impl Digest {
    /// About one run or several, one for each target.
    pub(super) fn new(runs: &[RunRecord], recovered: &BTreeSet<String>) -> Self {
        let short = |text: &str| shortened(text, MAX_TEXT).into_owned();
        let several = runs.len() > 1;
        let mut failures: Vec<FailureLine> = Vec::new();
        for run in runs {
            let place = if several && !run.target.is_empty() { format!(" in {}", run.target) } else { String::new() };
            let line = |name: Option<String>, failure: &crate::ops::Failure| FailureLine {
                name,
                message: short(&failure.message),
                hint: failure.hint.as_deref().map(short),
            };
            failures.extend(run.failure.iter().map(|failure| line(several.then(|| run.target.clone()), failure)));
            let tables = run.tables.iter().filter_map(|table| Some((table, table.failure.as_ref()?)));
            failures.extend(tables.map(|(table, failure)| line(Some(format!("{}{place}", table.table)), failure)));
        }
        let more = failures.len().saturating_sub(MAX_FAILURES);
        failures.truncate(MAX_FAILURES);
        Self {
            sentence: sentence(runs),
            has_failed: runs.iter().any(RunRecord::has_failed),
            runs: runs.iter().map(run_line).collect(),
            failures,
            more,
            recovered: recovered.iter().cloned().collect(),
        }
    }

    fn recovered(&self) -> Option<String> {
        (!self.recovered.is_empty()).then(|| format!("recovered: {}", self.recovered.join(", ")))
    }

    fn rest(&self) -> Option<String> {
        (self.more > 0).then(|| format!("and {} more", self.more))
    }

    /// A message for Slack and compatible chats.
    pub(super) fn slack(&self) -> Value {
        // The three special characters of the markup.
        let plain = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let mark = if self.has_failed { ":x:" } else { ":white_check_mark:" };
        let sentence = plain(&self.sentence);
        let mut lines = vec![format!("{mark} *{sentence}*")];
        lines.extend(self.runs.iter().map(|run| format!("{} (started {})", plain(&run.target), run.started)));
        for FailureLine { name, message, hint } in &self.failures {
            let hint = hint.as_deref().map(|hint| format!("_{}_", plain(hint)));
            match (name, hint) {
                (Some(name), hint) => {
                    let hint = hint.map(|hint| format!(" {hint}")).unwrap_or_default();
                    lines.push(format!("\u{2022} `{}`: {}{hint}", plain(name), plain(message)));
                }
                // The sentence has the message.
                (None, hint) => lines.extend(hint),
            }
        }
        lines.extend(self.rest());
        lines.extend(self.recovered().map(|text| plain(&text)));
        let text = lines.join("\n");
        json!({"text": sentence, "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": text}}]})
    }

    /// A message with an adaptive card, as workflows of Microsoft Teams accept it. Text runs are not interpreted as Markdown, so names
    /// with `_` and `*` stay as they are.
    pub(super) fn teams(&self) -> Value {
        let text = |text: &str| json!({"type": "TextBlock", "wrap": true, "text": markdown_escaped(text)});
        let colour = if self.has_failed { "attention" } else { "good" };
        let mut title = text(&self.sentence);
        title["weight"] = "bolder".into();
        title["size"] = "medium".into();
        title["color"] = colour.into();
        let mut body = vec![title];
        for run in &self.runs {
            let mut facts = vec![json!({"title": "Started", "value": run.started})];
            if !run.target.is_empty() {
                facts.insert(0, json!({"title": "Target", "value": run.target}));
            }
            if !run.counts.is_empty() {
                facts.push(json!({"title": "Tables", "value": run.counts}));
            }
            body.push(json!({"type": "FactSet", "facts": facts}));
        }
        for FailureLine { name, message, hint } in &self.failures {
            let mut inlines = Vec::new();
            inlines.extend(name.iter().map(|name| json!({"type": "TextRun", "text": format!("{name}: "), "weight": "bolder"})));
            inlines.push(json!({"type": "TextRun", "text": message}));
            inlines.extend(
                hint.iter().map(|hint| json!({"type": "TextRun", "text": format!(" What to do: {hint}"), "isSubtle": true})),
            );
            body.push(json!({"type": "RichTextBlock", "inlines": inlines}));
        }
        body.extend(self.rest().iter().chain(&self.recovered()).map(|line| text(line)));
        json!({"type": "message", "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "msteams": {"width": "Full"},
                "body": body,
            },
        }]})
    }

    /// The body of a mail.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n", self.sentence);
        for run in &self.runs {
            text.push('\n');
            for (name, value) in [("Target", &run.target), ("Started", &run.started), ("Tables", &run.counts)] {
                if !value.is_empty() {
                    text.push_str(&format!("{name:<8} {value}\n"));
                }
            }
        }
        for FailureLine { name, message, hint } in &self.failures {
            let name = name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
            text.push_str(&format!("\n{name}{message}\n"));
            text.push_str(&hint.as_ref().map(|hint| format!("  What to do: {hint}\n")).unwrap_or_default());
        }
        for line in self.rest().iter().chain(&self.recovered()) {
            text.push_str(&format!("\n{line}\n"));
        }
        text.push_str("\n`daplake status` shows all tables and the last runs.\n");
        text
    }
}

/// Text blocks of a card are Markdown.
fn markdown_escaped(text: &str) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        if matches!(letter, '\\' | '*' | '_' | '[' | ']' | '`' | '#') {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

fn run_line(run: &RunRecord) -> RunLine {
    let Totals { tables, loaded, unchanged, failed, skipped, .. } = run.totals();
    let mut counts = format!("{tables}: {loaded} loaded, {unchanged} unchanged, {failed} failed");
    if skipped > 0 {
        counts.push_str(&format!(", {skipped} deferred"));
    }
    let counts = if tables == 0 { String::new() } else { counts };
    RunLine { target: run.target.clone(), started: run.started.clone(), counts }
}

/// The runs in one sentence.
pub(super) fn sentence(runs: &[RunRecord]) -> String {
    let place = if runs.len() > 1 { format!(" in {} targets", runs.len()) } else { String::new() };
    let not_started: Vec<&str> =
        runs.iter().filter_map(|run| run.failure.as_ref()).map(|failure| failure.message.as_str()).collect();
    let sum = |of: fn(Totals) -> u64| runs.iter().map(|run| of(run.totals())).sum::<u64>();
    let (tables, failed) = (sum(|totals| totals.tables), sum(|totals| totals.failed));
    match (&not_started[..], failed) {
        ([message, ..], _) if not_started.len() == runs.len() => format!("daplake: the run could not start: {message}"),
        ([_, ..], _) => format!(
            "daplake: {} of {} targets could not be updated; {failed} of {tables} tables failed in the others",
            not_started.len(),
            runs.len()
        ),
        ([], 0) => format!(
            "daplake: {}{place} {} up to date: {} loaded, {} unchanged, {} deferred; {} upserted, {} deleted",
            counted(tables, "table"),
            if tables == 1 { "is" } else { "are" },
            sum(|totals| totals.loaded),
            sum(|totals| totals.unchanged),
            sum(|totals| totals.skipped),
            counted(sum(|totals| totals.upserted), "row"),
            grouped(sum(|totals| totals.deleted))
        ),
        ([], failed) => format!("daplake: {failed} of {tables} tables{place} failed"),
    }
}

/// The JSON for `--notify` and `--notify-command`: summary, totals and the run.
pub(super) fn json_form(run: &RunRecord, recovered: &BTreeSet<String>) -> Value {
    let mut value = json!({
        "text": sentence(std::slice::from_ref(run)),
        "failed": run.has_failed(),
        "program": concat!("daplake ", env!("CARGO_PKG_VERSION")),
        "totals": run.totals(),
        "run": run,
    });
    if !recovered.is_empty() {
        value["recovered"] = json!(recovered);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Failure, TableRun};

    fn run(target: &str, failed: &[String]) -> RunRecord {
        let hint = Some("fix the *row*".to_owned());
        let failure =
            Some(Failure { kind: "data".into(), message: "A <row> cannot be read".into(), hint, ..Failure::default() });
        let table = |name: &String| TableRun {
            table: name.clone(),
            outcome: "failed".into(),
            failure: failure.clone(),
            ..TableRun::default()
        };
        RunRecord { target: target.into(), tables: failed.iter().map(table).collect(), ..RunRecord::default() }
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("canvas.t_{number}")).collect()
    }

    #[test]
    fn messages_are_short_and_escape_markup() {
        let runs = [run("lake", &names(15))];
        let digest = Digest::new(&runs, &BTreeSet::new());
        let message = digest.slack();
        let text = message["blocks"][0]["text"]["text"].as_str().unwrap();
        assert!(text.contains("15 of 15 tables failed") && text.contains("A &lt;row&gt; cannot be read"), "{text}");
        assert!(text.ends_with("and 5 more"), "{text}");
        assert_eq!(json_form(&runs[0], &BTreeSet::new())["totals"]["failed"], 1 + 14);
        let text = digest.text();
        assert!(text.contains("canvas.t_3: A <row> cannot be read\n  What to do: fix the *row*\n"), "{text}");
        let long = "x".repeat(5000);
        let runs = [RunRecord {
            failure: Some(Failure { message: long.clone(), hint: Some(long), ..Failure::default() }),
            ..RunRecord::default()
        }];
        assert!(Digest::new(&runs, &BTreeSet::new()).text().len() < 8000);
    }

    #[test]
    fn a_card_for_teams_is_small_and_has_what_to_do() {
        let runs = [run("lake", &names(40)), run("postgresql://h/d", &names(1))];
        let message = Digest::new(&runs, &BTreeSet::from(["canvas.courses".to_owned()])).teams();
        let card = &message["attachments"][0]["content"];
        assert_eq!((&card["type"], &card["version"]), (&"AdaptiveCard".into(), &"1.4".into()));
        // The limit of Teams is 28 KB.
        let text = message.to_string();
        assert!(text.len() < 20_000, "{}", text.len());
        for part in [
            "41 of 41 tables in 2 targets failed",
            "canvas.t_0 in lake: ",
            "What to do: fix the *row*",
            "recovered: canvas.courses",
            "and 31 more",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn one_sentence_is_about_all_targets() {
        let stopped =
            RunRecord { failure: Some(Failure { message: "No login".into(), ..Failure::default() }), ..RunRecord::default() };
        assert_eq!(sentence(std::slice::from_ref(&stopped)), "daplake: the run could not start: No login");
        let both = [stopped, run("lake", &names(1))];
        assert_eq!(sentence(&both), "daplake: 1 of 2 targets could not be updated; 1 of 1 tables failed in the others");
    }
}
