//! The failures last reported for each target, so that each failure is reported once, and its end as well.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::ops::runs::history::RunRecord;
use crate::ops::state_file;

/// Failures by subject: `run` or a table. The value describes the failure.
type Trouble = BTreeMap<String, String>;

/// The failure of a whole run.
const RUN: &str = "run";

/// Reported failures by target. With a file, they are known to later processes.
#[derive(Debug, Default)]
pub(super) struct Memory {
    path: Option<PathBuf>,
    known: Mutex<BTreeMap<String, Trouble>>,
}

/// How the runs of a process differ from what was reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Whether anything differs.
    pub(super) is_new: bool,
    /// Names of what failed and does not fail any more.
    pub(super) recovered: BTreeSet<String>,
    after: BTreeMap<String, Trouble>,
}

impl Memory {
    /// A file in `folder` for the notifications of `identity`.
    pub(super) fn in_folder(folder: &Path, identity: &str) -> Self {
        Self { path: Some(state_file::path_of(folder, identity, "notified")), known: Mutex::default() }
    }

    /// Compares runs with what was reported. A table that a run did not try has neither recovered nor failed again.
    pub(super) fn news(&self, runs: &[RunRecord]) -> News {
        let before = self.read();
        let mut after = before.clone();
        for run in runs {
            let known = before.get(&run.target).cloned().unwrap_or_default();
            after.insert(run.target.clone(), trouble_after(&known, run));
        }
        // A failure before the targets were known has ended when a run of a target has begun.
        if runs.iter().any(|run| !run.target.is_empty()) {
            after.remove("");
        }
        after.retain(|_, trouble| !trouble.is_empty());
        let names = |known: &BTreeMap<String, Trouble>| {
            known.values().flat_map(|trouble| trouble.keys().cloned()).collect::<BTreeSet<String>>()
        };
        let recovered = names(&before).difference(&names(&after)).filter(|name| *name != RUN).cloned().collect();
        News { is_new: before != after, recovered, after }
    }

    /// Remembers what was reported. A failure to write is only logged: the report is repeated then.
    pub(super) fn remember(&self, news: News) {
        if let Some(path) = self.path.as_deref().filter(|_| news.is_new)
            && let Err(error) = state_file::write(path, &news.after)
        {
            tracing::warn!(file = %path.display(), %error, "Cannot record which failures were reported");
        }
        *self.known.lock() = news.after;
    }

    fn read(&self) -> BTreeMap<String, Trouble> {
        self.path.as_deref().map_or_else(|| self.known.lock().clone(), state_file::read)
    }
}

/// The failures of a target after a run.
fn trouble_after(known: &Trouble, run: &RunRecord) -> Trouble {
    let mut trouble = Trouble::new();
    let was_tried = |name: &str| {
        let tried = |outcome: &str| !matches!(outcome, "put_off" | "skipped" | "recent");
        run.tables.iter().any(|table| table.table == name && tried(&table.outcome))
    };
    trouble.extend(
        known.iter().filter(|(name, _)| *name != RUN && !was_tried(name)).map(|(name, how)| (name.clone(), how.clone())),
    );
    let tables = run.tables.iter().filter_map(|table| Some((table.table.as_str(), table.failure.as_ref()?)));
    let whole = run.failure.iter().map(|failure| (RUN, failure));
    trouble
        .extend(whole.chain(tables).map(|(name, failure)| (name.to_owned(), format!("{}: {}", failure.kind, failure.message))));
    trouble
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Failure, TableRun};

    fn run(tables: &[(&str, &str, Option<&str>)]) -> RunRecord {
        let table = |(name, outcome, message): &(&str, &str, Option<&str>)| TableRun {
            table: (*name).to_owned(),
            outcome: (*outcome).to_owned(),
            failure: message.map(|message| Failure { kind: "data".into(), message: message.into(), ..Failure::default() }),
            ..TableRun::default()
        };
        RunRecord { target: "lake".into(), tables: tables.iter().map(table).collect(), ..RunRecord::default() }
    }

    #[test]
    fn a_failure_and_its_end_are_reported_once() {
        let folder = tempfile::tempdir().unwrap();
        let heard = |runs: &[RunRecord]| {
            // As in another process.
            let memory = Memory::in_folder(folder.path(), "settings");
            let news = memory.news(runs);
            let (is_new, recovered) = (news.is_new, news.recovered.iter().cloned().collect::<Vec<_>>().join(","));
            memory.remember(news);
            (is_new, recovered)
        };
        let (none, bad) = (String::new(), run(&[("a", "failed", Some("x")), ("b", "loaded", None)]));
        assert_eq!(heard(&[run(&[("a", "loaded", None)])]), (false, none.clone()), "nothing has failed yet");
        assert_eq!(heard(std::slice::from_ref(&bad)), (true, none.clone()));
        assert_eq!(heard(std::slice::from_ref(&bad)), (false, none.clone()), "the same failure");
        assert_eq!(heard(&[run(&[("a", "failed", Some("y"))])]), (true, none.clone()), "the same table for another reason");
        for outcome in ["put_off", "skipped", "recent"] {
            assert_eq!(heard(&[run(&[("a", outcome, None)])]), (false, none.clone()), "{outcome}: it was not tried");
        }
        assert_eq!(heard(&[run(&[("b", "loaded", None)])]), (false, none.clone()), "it was not part of the run");
        assert_eq!(heard(&[run(&[("a", "unchanged", None)])]), (true, "a".to_owned()));
        assert_eq!(heard(&[run(&[("a", "loaded", None)])]), (false, none.clone()));
        // A run that cannot start, with and without a known target.
        let failure = Some(Failure { kind: "auth".into(), message: "rejected".into(), ..Failure::default() });
        for target in ["", "lake"] {
            let stopped = RunRecord { target: target.into(), failure: failure.clone(), ..RunRecord::default() };
            assert_eq!(heard(std::slice::from_ref(&stopped)), (true, none.clone()));
            assert_eq!(heard(std::slice::from_ref(&stopped)), (false, none.clone()));
            assert_eq!(heard(&[run(&[("a", "loaded", None)])]), (true, none.clone()), "the end of it");
        }
    }
}
