//! The status as text: totals and failures first, then the tables, those that need attention first.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use crate::cli::terminal::output::{Grid, age, counted, grouped, size};
use crate::cli::terminal::report;
use crate::ops::{Counts, DiskUse, Freshness, Growth, Overview, ReaderGroup, StatusLine};

/// Maximum number of tables to name per reason; if there are more, only their number is printed.
const NAMED: usize = 4;

/// Which columns the table of tables has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Those that fit into 80 to 100 characters.
    Narrow,
    /// All.
    Wide,
}

impl Layout {
    /// Narrow on a terminal, else wide.
    pub(super) fn of_output() -> Self {
        if std::io::stdout().is_terminal() { Layout::Narrow } else { Layout::Wide }
    }
}

/// Everything that the status has.
pub(super) fn overview_text(overview: &Overview, layout: Layout) -> String {
    if overview.counts.all() == 0 {
        return format!("No tables at {}.\n{}", overview.target, report::runs(overview));
    }
    let mut text = totals(overview);
    text.push_str(&reasons(overview));
    text.push_str(&unregistered(overview));
    text.push_str(&report::failing(overview));
    if !overview.tables.is_empty() {
        let mut lines: Vec<&StatusLine> = overview.tables.iter().collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.state));
        text.push('\n');
        text.push_str(&grid(&lines, layout));
    }
    text.push_str(&report::runs(overview));
    text
}

/// The tables, in the given order.
pub(in crate::cli) fn status_text(lines: &[StatusLine]) -> String {
    grid(&lines.iter().collect::<Vec<_>>(), Layout::Wide)
}

fn grid(lines: &[&StatusLine], layout: Layout) -> String {
    let known = |number: Option<u64>| number.map_or("-".to_owned(), grouped);
    let bytes = |line: &StatusLine| line.bytes.map_or("-".to_owned(), size);
    if layout == Layout::Narrow {
        let mut grid = Grid::new(&["table", ">rows", ">size", ">age", "state"]);
        for line in lines {
            let state = line.state.name().to_owned();
            grid.row(vec![line.name(), known(line.rows), bytes(line), age(line.age_seconds), state]);
        }
        return grid.render();
    }
    // A database has no files, protocol and mode.
    let is_lake = lines.iter().any(|line| line.protocol.is_some());
    let heads = ["table", ">rows", "data as of", ">age", "state", ">schema", ">size", ">files", "protocol", "kept as"];
    let mut grid = Grid::new(if is_lake { &heads } else { &heads[..7] });
    for line in lines {
        let mut row = vec![
            line.name(),
            known(line.rows),
            line.data_as_of.clone(),
            age(line.age_seconds),
            line.state.name().to_owned(),
            line.schema_version.to_string(),
            bytes(line),
        ];
        if is_lake {
            row.push(known(line.files));
            row.extend([&line.protocol, &line.kept_as].map(|text| text.clone().unwrap_or_default()));
        }
        grid.row(row);
    }
    grid.render()
}

/// Lines with a name and a value.
fn totals(overview: &Overview) -> String {
    let Counts { current, behind, failing } = overview.counts;
    let states: Vec<String> = [(failing, "failing"), (behind, "behind"), (current, "current")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, state)| format!("{count} {state}"))
        .collect();
    let mut text = format!("{}: {}", counted(overview.counts.all() as u64, "table"), states.join(", "));
    let shown = overview.tables.len() + overview.never_loaded.len();
    if shown < overview.counts.all() {
        text.push_str(&format!("; {shown} shown"));
    }
    text.push('\n');
    for line in [disk(&overview.disk), readers(&overview.readers), next_job(overview)].into_iter().flatten() {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

fn disk(disk: &DiskUse) -> Option<String> {
    let mut parts = Vec::new();
    parts.extend(disk.bytes.map(|bytes| format!("{} of data{}", size(bytes), growth(disk.growth.as_ref()))));
    parts.extend(disk.stored_bytes.map(|bytes| format!("{} with older versions", size(bytes))));
    parts.extend(disk.free_bytes.map(|bytes| format!("{} free", size(bytes))));
    (!parts.is_empty()).then(|| format!("disk: {}", parts.join(", ")))
}

/// ` (+1.2 MiB and +300 rows since 2026-01-01)`.
fn growth(growth: Option<&Growth>) -> String {
    let Some(growth) = growth else { return String::new() };
    let sign = |change: i64| if change < 0 { "-" } else { "+" };
    let bytes = growth.bytes.map(|change| format!("{}{}", sign(change), size(change.unsigned_abs())));
    let rows = growth.rows.map(|change| format!("{}{}", sign(change), counted(change.unsigned_abs(), "row")));
    let parts: Vec<String> = bytes.into_iter().chain(rows).collect();
    format!(" ({} since {})", parts.join(" and "), growth.since.get(..10).unwrap_or(&growth.since))
}

/// `readers: any Delta reader for 120 tables; reader version 3 with deletionVectors for canvas.users`.
fn readers(groups: &[ReaderGroup]) -> Option<String> {
    let part = |group: &ReaderGroup| {
        let needs = match (&group.reader.features[..], group.reader.version) {
            ([], ..=1) => "any Delta reader".to_owned(),
            ([], version) => format!("reader version {version}"),
            (features, version) => format!("reader version {version} with {}", features.join(", ")),
        };
        format!("{needs} for {}", named(&group.tables))
    };
    (!groups.is_empty()).then(|| format!("readers: {}", groups.iter().map(part).collect::<Vec<_>>().join("; ")))
}

/// The names of a few tables, else their number.
fn named(tables: &[String]) -> String {
    if tables.len() <= NAMED { tables.join(", ") } else { counted(tables.len() as u64, "table") }
}

/// When the next job may start, and when the service has newer data.
fn next_job(overview: &Overview) -> Option<String> {
    let starts = &overview.job_starts;
    overview.newer_data_at()?;
    let resumed = overview.resumed_jobs();
    let start =
        if starts.next_at <= overview.made { "possible now".to_owned() } else { format!("possible at {}", starts.next_at) };
    let mut text = format!("next job: {start}");
    if let Some(first) = overview.waits_for_newer_data() {
        text.push_str(&format!(", but the service has no newer data before {first}"));
    }
    if starts.seconds_for_all > 0 {
        let (least, limit) = (age(i64::try_from(starts.seconds_for_all).unwrap_or(i64::MAX)), starts.per_minute);
        text.push_str(&format!("; a run of all tables takes at least {least} ({limit} job starts per minute)"));
    }
    if resumed > 0 {
        text.push_str(&format!("; {} resumed", counted(resumed as u64, "unfinished job")));
    }
    Some(text)
}

/// Why tables are behind, one line for each reason.
fn reasons(overview: &Overview) -> String {
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in overview.tables.iter().filter(|line| line.state == Freshness::Behind) {
        groups.entry(line.reason.as_deref().unwrap_or_default()).or_default().push(line.name());
    }
    let line = |(reason, tables): (&str, Vec<String>)| format!("behind: {}: {reason}\n", named(&tables));
    groups.into_iter().map(line).collect()
}

/// Why tables are not registered in the catalog, one line for each reason.
fn unregistered(overview: &Overview) -> String {
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for line in &overview.tables {
        if let Some(reason) = &line.catalog_failure {
            groups.entry(reason).or_default().push(line.name());
        }
    }
    let line = |(reason, tables): (&str, Vec<String>)| format!("not registered in the catalog: {}: {reason}\n", named(&tables));
    groups.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::ReaderRequirement;

    #[test]
    fn disk_use_has_growth_and_free_space() {
        let growth = Growth { since: "2026-01-01T00:00:00Z".into(), rows: Some(-3), bytes: Some(2048) };
        let disk_use = DiskUse { bytes: Some(5000), stored_bytes: Some(9000), free_bytes: Some(1 << 30), growth: Some(growth) };
        assert_eq!(
            disk(&disk_use).unwrap(),
            "disk: 4.9 KiB of data (+2.0 KiB and -3 rows since 2026-01-01), 8.8 KiB with older versions, 1.0 GiB free"
        );
        assert_eq!(disk(&DiskUse::default()), None);
    }

    #[test]
    fn readers_are_listed_by_requirement() {
        let group = |version, features: &[&str], tables: &[&str]| {
            let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
            ReaderGroup { reader: ReaderRequirement { version, features: words(features) }, tables: words(tables) }
        };
        let groups = [group(3, &["deletionVectors"], &["canvas.a"]), group(1, &[], &["b", "c", "d", "e", "f"])];
        assert_eq!(
            readers(&groups).unwrap(),
            "readers: reader version 3 with deletionVectors for canvas.a; any Delta reader for 5 tables"
        );
    }
}
