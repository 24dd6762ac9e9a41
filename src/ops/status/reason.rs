//! Why a table is behind: from the runs of this machine.

use std::collections::BTreeMap;

use super::types::StatusLine;
use crate::model::Timestamp;
use crate::ops::Refresh;
use crate::ops::runs::{RunHistory, RunRecord, TableRun};

/// The newest run that tried a table, and its result.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastTry<'a> {
    pub(super) run: &'a RunRecord,
    pub(super) table: &'a TableRun,
}

/// The newest run of the history that tried each table, by the table's name.
pub(super) fn last_tries(history: &RunHistory) -> BTreeMap<&str, LastTry<'_>> {
    let mut tries = BTreeMap::new();
    for run in &history.runs {
        for table in run.tables.iter().filter(|table| !matches!(table.outcome.as_str(), "skipped" | "put_off")) {
            tries.entry(table.table.as_str()).or_insert(LastTry { run, table });
        }
    }
    tries
}

/// One sentence without a full stop that says why a table is behind. `tried` is its last try.
pub(super) fn why_behind(line: &StatusLine, history: &RunHistory, tried: Option<LastTry<'_>>, now: Timestamp) -> String {
    let name = line.name();
    let Some(last) = history.runs.first() else { return "no run of this machine is recorded".to_owned() };
    let last_started = last.start();
    if let Some(tried) = tried
        && tried.run.run_id == last.run_id
    {
        return why_behind_after(tried, line, now);
    }
    let before = tried.map_or(String::new(), |tried| format!("; last tried at {}", tried.run.start()));
    let in_last = last.tables.iter().find(|table| table.table == name).map(|table| table.outcome.as_str());
    match (&last.failure, last.seconds, in_last) {
        (Some(failure), ..) => format!("the last run ({last_started}) could not start: {}{before}", failure.message),
        (None, None, _) => format!("the last run ({last_started}) has not finished{before}"),
        (None, _, Some("put_off")) => format!("the last run ({last_started}) deferred the table{before}"),
        (None, _, Some(_)) => format!("the last run ({last_started}) ended before it tried the table{before}"),
        (None, _, None) => format!("the last run ({last_started}) did not include the table{before}"),
    }
}

/// The reason for a table that the newest run tried.
fn why_behind_after(tried: LastTry<'_>, line: &StatusLine, now: Timestamp) -> String {
    let started = tried.run.start();
    let interval = Refresh::AsDocumented.interval(&line.table_ref()).as_micros() as i64;
    let is_long_ago = tried.run.started.parse::<Timestamp>().is_ok_and(|at| now.micros() - at.micros() > interval);
    match tried.table.outcome.as_str() {
        _ if is_long_ago => format!("no run since {started}"),
        "unchanged" => format!("the service had no newer data at {started}"),
        _ => format!("the run of {started} got the newest data that the service had"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Failure;

    fn run(started: &str, tables: &[(&str, &str)]) -> RunRecord {
        let table = |(table, outcome): &(&str, &str)| TableRun {
            table: (*table).to_owned(),
            outcome: (*outcome).to_owned(),
            ..TableRun::default()
        };
        RunRecord {
            run_id: started.to_owned(),
            started: started.to_owned(),
            seconds: Some(1.0),
            tables: tables.iter().map(table).collect(),
            ..RunRecord::default()
        }
    }

    fn why(runs: Vec<RunRecord>) -> String {
        let now = "2026-01-02T12:00:00Z".parse().unwrap();
        let (line, history) = (StatusLine::example("users"), RunHistory { runs, counted: Vec::new() });
        why_behind(&line, &history, last_tries(&history).get(line.name().as_str()).copied(), now)
    }

    #[test]
    fn each_reason_names_the_run() {
        let users = "canvas.users";
        assert_eq!(why(vec![]), "no run of this machine is recorded");
        let early = || run("2026-01-01T00:00:00.123456Z", &[(users, "loaded")]);
        assert_eq!(why(vec![early()]), "no run since 2026-01-01T00:00:00Z");
        let last = "2026-01-02T11:00:00Z";
        let after = |tables: &[(&str, &str)]| why(vec![run(last, tables), early()]);
        assert_eq!(after(&[(users, "unchanged")]), format!("the service had no newer data at {last}"));
        assert_eq!(after(&[(users, "loaded")]), format!("the run of {last} got the newest data that the service had"));
        let before = "; last tried at 2026-01-01T00:00:00Z";
        assert_eq!(after(&[]), format!("the last run ({last}) did not include the table{before}"));
        assert_eq!(after(&[(users, "put_off")]), format!("the last run ({last}) deferred the table{before}"));
        assert_eq!(after(&[(users, "skipped")]), format!("the last run ({last}) ended before it tried the table{before}"));
        let unfinished = RunRecord { seconds: None, ..run(last, &[]) };
        assert_eq!(why(vec![unfinished]), format!("the last run ({last}) has not finished"));
        let failure = Failure { message: "The service rejected the login".to_owned(), ..Failure::default() };
        let failed = RunRecord { failure: Some(failure), ..run(last, &[]) };
        assert_eq!(
            why(vec![failed, early()]),
            format!("the last run ({last}) could not start: The service rejected the login{before}")
        );
    }
}
