//! The status of a target as a page that a person without any knowledge of databases can read: is it up to date, what needs
//! attention, how it grew, how the last runs ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::chart::{self, Series};
use super::figures::{age, grouped, size};
use super::{document, escape};
use crate::model::Timestamp;
use crate::ops::{Failure, Freshness, Overview, Point, RunRecord, StatusLine};

const STYLE: &str = include_str!("status.css");
const SCRIPT: &str = include_str!("status.js");
/// A longer list of runs or troubles is cut.
const MOST_TROUBLES: usize = 30;
/// Bars in a chart.
const MOST_BARS: i64 = 60;
/// Points of the line of all tables.
const MOST_POINTS: usize = 400;

/// The whole page.
pub fn status_page(overview: &Overview) -> String {
    let body = [
        "<main>".to_owned(),
        head(overview),
        verdict(overview),
        cards(overview),
        troubles(overview),
        charts(overview),
        runs(&overview.runs),
        tables(overview),
        format!(
            "<footer><p>Made by {} at {}. Times are in UTC. The service renews its data about every four hours; a table counts as \
             behind when its data are older than {}.</p></footer>\n</main>",
            escape(overview.program),
            when(&overview.made),
            age(i64::try_from(overview.current_for_seconds).unwrap_or(i64::MAX)),
        ),
    ];
    document("Status of the data copy", STYLE, &body.join("\n"), SCRIPT)
}

fn head(overview: &Overview) -> String {
    format!(
        "<header class=\"top\"><div><h1>Is our data copy up to date?</h1><p>{}</p></div><p>As of {} UTC</p></header>",
        escape(&overview.target),
        when(&overview.made)
    )
}

fn verdict(overview: &Overview) -> String {
    let count = |state| overview.tables.iter().filter(|line| line.state == state).count();
    let (behind, failing) = (count(Freshness::Behind), count(Freshness::Failing) + overview.never_loaded.len());
    let all = overview.tables.len() + overview.never_loaded.len();
    let last_failed = overview.runs.first().and_then(|run| run.failure.as_ref());
    let (class, mark, title, text) = match (all, failing, behind) {
        (0, ..) => {
            ("warn", "?", "There are no tables yet".to_owned(), "Nothing was loaded into this target so far.".to_owned())
        }
        (_, 0, 0) if last_failed.is_some() => (
            "warn",
            "!",
            "The last run could not start".to_owned(),
            "All tables are still young enough, but will grow old if this stays so.".to_owned(),
        ),
        (_, 0, 0) => ("good", "\u{2713}", format!("Yes: all {all} tables are up to date"), youngest_and_oldest(overview)),
        (_, 0, _) => (
            "warn",
            "!",
            format!("{behind} of {all} tables {} behind", are(behind)),
            format!("The others are up to date. {}", youngest_and_oldest(overview)),
        ),
        _ => (
            "bad",
            "!",
            format!("{failing} of {all} tables could not be updated"),
            "Rows that were there before are still there and right; they are only older than they should be.".to_owned(),
        ),
    };
    format!(
        "<div class=\"verdict {class}\"><span class=\"mark\" aria-hidden=\"true\">{mark}</span><p><strong>{}</strong><br>{}</p></div>",
        escape(&title),
        escape(&text)
    )
}

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

fn youngest_and_oldest(overview: &Overview) -> String {
    let ages = || overview.tables.iter().map(|line| line.age_seconds);
    match (ages().min(), ages().max()) {
        (Some(least), Some(most)) if age(least) == age(most) => format!("All data are {} old.", age(most)),
        (Some(least), Some(most)) => format!("The newest data are {} old, the oldest {}.", age(least), age(most)),
        _ => String::new(),
    }
}

fn cards(overview: &Overview) -> String {
    let mut cards = Vec::new();
    let namespaces: BTreeSet<&str> = overview.tables.iter().map(|line| line.namespace.as_str()).collect();
    let names = escape(&namespaces.into_iter().collect::<Vec<_>>().join(", "));
    cards.push(("Tables", grouped(overview.tables.len() as u64), names));
    if let Some(rows) = total(overview, |line| line.rows) {
        cards.push(("Rows", grouped(rows), "in all tables".to_owned()));
    }
    if let Some(bytes) = total(overview, |line| line.bytes) {
        let files = total(overview, |line| line.files).map(|files| format!("in {} files", grouped(files)));
        cards.push(("Size", size(bytes), files.unwrap_or_default()));
    }
    if let Some(newest) = overview.tables.iter().min_by_key(|line| line.age_seconds) {
        cards.push(("Newest data", format!("{} old", age(newest.age_seconds)), format!("as of {}", when(&newest.data_as_of))));
    }
    if let Some(run) = overview.runs.first() {
        let (_, word) = result_of(run);
        cards.push(("Last run", word.to_owned(), format!("began {}", when(&run.started))));
    }
    let mut text = String::from("<dl class=\"cards\">");
    for (name, figure, more) in cards {
        let _ = write!(text, "<div class=\"card\"><dt>{name}</dt><dd>{}<small>{}</small></dd></div>", escape(&figure), more);
    }
    text + "</dl>"
}

/// The sum, if any table knows its share.
fn total(overview: &Overview, of: impl Fn(&StatusLine) -> Option<u64>) -> Option<u64> {
    let known: Vec<u64> = overview.tables.iter().filter_map(of).collect();
    (!known.is_empty()).then(|| known.into_iter().sum())
}

fn troubles(overview: &Overview) -> String {
    let mut items = Vec::new();
    if let Some(failure) = overview.runs.first().and_then(|run| run.failure.as_ref()) {
        items.push(trouble("failing", "The whole run", failure, ""));
    }
    for run in &overview.never_loaded {
        if let Some(failure) = &run.failure {
            items.push(trouble("failing", &run.table, failure, "Never loaded so far."));
        }
    }
    for line in &overview.tables {
        if let Some(failure) = &line.failure {
            items.push(trouble("failing", &line.name(), failure, &format!("Its data are {} old.", age(line.age_seconds))));
        }
    }
    for line in overview.tables.iter().filter(|line| line.state == Freshness::Behind) {
        items.push(format!(
            "<li class=\"behind\"><strong>{}</strong><p>Its data are {} old (as of {}).</p></li>",
            escape(&line.name()),
            age(line.age_seconds),
            when(&line.data_as_of)
        ));
    }
    if items.is_empty() {
        return String::new();
    }
    let more = items.len().saturating_sub(MOST_TROUBLES);
    items.truncate(MOST_TROUBLES);
    if more > 0 {
        items.push(format!("<li class=\"behind\">and {more} more; see the tables below</li>"));
    }
    format!("<section><h2>What needs attention</h2><ul class=\"trouble\">{}</ul></section>", items.concat())
}

fn trouble(class: &str, name: &str, failure: &Failure, more: &str) -> String {
    let context: Vec<String> = failure
        .context
        .iter()
        .filter(|(name, _)| *name != "table")
        .map(|(name, value)| format!("{}: {}", escape(name), escape(value)))
        .collect();
    let mut text = format!("<li class=\"{class}\"><strong>{}</strong>", escape(name));
    let _ = write!(text, "<p>{}. {}</p>", escape(&failure.message), escape(more));
    if let Some(hint) = &failure.hint {
        let _ = write!(text, "<p class=\"hint\">What to do: {}</p>", escape(hint));
    }
    if !context.is_empty() {
        let _ = write!(text, "<p class=\"hint mono\">{}</p>", context.join(" \u{b7} "));
    }
    text + "</li>"
}

fn micros(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::micros)
}

fn charts(overview: &Overview) -> String {
    let made = micros(&overview.made).unwrap_or_default();
    let growth = growth(overview, made);
    let (changes, span) = changes(overview, made);
    let mut figures = String::new();
    if let (Some(first), Some(last)) = (growth.first(), growth.last())
        && growth.len() > 1
    {
        let words = format!(
            "Rows of all tables together: {} on {}, {} now.",
            grouped(first.1 as u64),
            when_micros(first.0),
            grouped(last.1 as u64)
        );
        let _ = write!(
            figures,
            "<section><h2>Growth</h2><figure>{}<figcaption>{}</figcaption></figure></section>",
            chart::line(&growth, &words),
            escape(&words)
        );
    }
    if !changes.is_empty() {
        let (up, down) = changes.iter().fold((0.0, 0.0), |(up, down), bar| (up + bar.1, down + bar.2));
        let words =
            format!("{} rows added or changed, {} deleted, besides first loads.", grouped(up as u64), grouped(down as u64));
        let _ = write!(
            figures,
            "<section><h2>Changes</h2><figure>{}<figcaption><span class=\"key up first\"></span>added or changed \
             <span class=\"key down\"></span>deleted, per {}. {}</figcaption></figure></section>",
            chart::bars(&changes, span, &words),
            age(span / 1_000_000),
            escape(&words)
        );
    }
    if figures.is_empty() { figures } else { format!("<div class=\"pair\">{figures}</div>") }
}

fn rows_of(past: &[Point]) -> Series {
    past.iter().filter_map(|point| Some((micros(&point.at)?, point.rows? as f64))).collect()
}

/// Rows of all tables together. A table counts from its first load on; before what is remembered of it, as much as at the first
/// moment that is.
fn growth(overview: &Overview, made: i64) -> Series {
    let mut steps: BTreeMap<i64, f64> = BTreeMap::new();
    let mut sum = 0.0;
    for line in &overview.tables {
        let Some(rows) = line.rows else { continue };
        let mut past = rows_of(&line.past);
        past.retain(|point| point.0 <= made);
        past.push((made, rows as f64));
        let is_whole = line.past.first().is_some_and(|first| first.upserted.is_some() && first.upserted == first.rows);
        let mut before = if is_whole { 0.0 } else { past[0].1 };
        sum += before;
        for (at, rows) in past {
            *steps.entry(at).or_default() += rows - before;
            before = rows;
        }
    }
    let mut series: Series = Vec::new();
    for (at, change) in steps {
        sum += change;
        series.push((at, sum));
    }
    if series.len() > MOST_POINTS {
        let every = series.len().div_ceil(MOST_POINTS);
        let last = series.last().copied();
        series = series.into_iter().step_by(every).collect();
        series.extend(last);
    }
    series
}

/// Bars of a round span of time. Loads of whole tables are no changes.
fn changes(overview: &Overview, made: i64) -> (Vec<(i64, f64, f64)>, i64) {
    const HOUR: i64 = 3_600_000_000;
    let loads: Vec<(i64, u64, u64)> = overview
        .tables
        .iter()
        .flat_map(|line| &line.past)
        .filter(|point| point.upserted != point.rows)
        .filter_map(|point| Some((micros(&point.at)?, point.upserted?, point.deleted?)))
        .collect();
    let first = loads.iter().map(|load| load.0).min().unwrap_or(made);
    let spans = [HOUR / 60, HOUR / 12, HOUR, 4 * HOUR, 24 * HOUR, 7 * 24 * HOUR, 28 * 24 * HOUR];
    let span = spans.into_iter().find(|span| (made - first) / span < MOST_BARS).unwrap_or(28 * 24 * HOUR);
    let mut bars: BTreeMap<i64, (f64, f64)> = BTreeMap::new();
    for (at, up, down) in loads {
        let bar = bars.entry(at.div_euclid(span) * span).or_default();
        bar.0 += up as f64;
        bar.1 += down as f64;
    }
    (bars.into_iter().map(|(at, (up, down))| (at, up, down)).collect(), span)
}

/// Class of the mark and words.
fn result_of(run: &RunRecord) -> (&'static str, &'static str) {
    match (run.seconds, run.has_failed()) {
        (None, _) => ("behind", "not ended"),
        (_, true) if run.failure.is_some() => ("failing", "failed"),
        (_, true) => ("failing", "with failures"),
        (_, false) => ("current", "all right"),
    }
}

fn runs(runs: &[RunRecord]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let mut rows = String::new();
    for run in runs {
        let totals = run.totals();
        let (class, word) = result_of(run);
        let tables = match (run.seconds, &run.failure) {
            (None, _) => "It still runs, or was stopped.".to_owned(),
            (_, Some(failure)) => escape(&failure.message),
            _ => {
                let failed =
                    if totals.failed > 0 { format!(", <strong>{} failed</strong>", totals.failed) } else { String::new() };
                let skipped = if totals.skipped > 0 { format!(", {} not tried", totals.skipped) } else { String::new() };
                format!("{} loaded, {} unchanged{failed}{skipped}", totals.loaded, totals.unchanged)
            }
        };
        let took = run.seconds.map_or("\u{2013}".to_owned(), |seconds| age(seconds.ceil() as i64));
        let _ = write!(
            rows,
            "<tr><td>{}</td><td><span class=\"state {class}\">{word}</span></td><td class=\"text\">{tables}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{took}</td></tr>",
            when(&run.started),
            grouped(totals.upserted),
            grouped(totals.deleted),
            size(totals.bytes_written),
        );
    }
    format!(
        "<section><h2>Last runs</h2><p class=\"note\">Those that were started on this machine.</p><div class=\"wide\"><table><thead><tr>\
         <th scope=\"col\">Began</th><th scope=\"col\">Result</th><th scope=\"col\">Tables</th><th scope=\"col\" class=\"n\">Added or changed</th>\
         <th scope=\"col\" class=\"n\">Deleted</th><th scope=\"col\" class=\"n\">Written</th><th scope=\"col\" class=\"n\">Took</th></tr></thead>\
         <tbody>{rows}</tbody></table></div></section>"
    )
}

fn tables(overview: &Overview) -> String {
    if overview.tables.is_empty() {
        return String::new();
    }
    let has_past = overview.tables.iter().any(|line| line.past.len() > 1);
    let has_files = overview.tables.iter().any(|line| line.files.is_some());
    let mut heads = vec![("Table", ""), ("State", ""), ("Data as of", ""), ("Age", "n"), ("Rows", "n")];
    if has_past {
        heads.push(("Growth", ""));
    }
    if has_files {
        heads.extend([("Files", "n"), ("Size", "n")]);
    }
    heads.push(("Schema", "n"));
    let heads: String = heads
        .iter()
        .map(|(name, class)| format!("<th scope=\"col\" class=\"{class}\"><button type=\"button\">{name}</button></th>"))
        .collect();
    let rows: String = overview.tables.iter().map(|line| table_row(line, has_past, has_files)).collect();
    format!(
        "<section class=\"long\"><h2>Tables</h2><div class=\"bar needs-script\"><label class=\"hidden-label\" for=\"filter\">Show tables whose \
         name has</label><input id=\"filter\" type=\"search\" placeholder=\"Find a table\"><label><input id=\"only\" type=\"checkbox\"> only \
         those behind or failing</label><span id=\"shown\" class=\"quiet\" role=\"status\"></span></div>\
         <div class=\"wide\"><table id=\"tables\"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )
}

fn table_row(line: &StatusLine, has_past: bool, has_files: bool) -> String {
    let known = |number: Option<u64>| number.map_or("\u{2013}".to_owned(), grouped);
    let sort = |number: Option<u64>| number.map_or("-1".to_owned(), |number| number.to_string());
    let word = line.state.name();
    let mut row = format!(
        "<tr data-state=\"{word}\" data-words=\"{name} {word}\"><td data-sort=\"{name}\"><span class=\"ns\">{}.</span><strong>{}</strong></td>\
         <td><span class=\"state {word}\">{word}</span></td><td data-sort=\"{}\">{}</td><td class=\"n\" data-sort=\"{}\">{}</td>\
         <td class=\"n\" data-sort=\"{}\">{}</td>",
        escape(&line.namespace),
        escape(&line.table),
        escape(&line.data_as_of),
        when(&line.data_as_of),
        line.age_seconds,
        age(line.age_seconds),
        sort(line.rows),
        known(line.rows),
        name = escape(&line.name()),
    );
    if has_past {
        let series = rows_of(&line.past);
        let (words, change) = match (series.first(), series.last()) {
            (Some(first), Some(last)) if series.len() > 1 => (growth_words(first.1, last.1), last.1 - first.1),
            _ => (String::new(), 0.0),
        };
        let label = format!("Rows of {} over time: {words}", line.name());
        let _ = write!(row, "<td data-sort=\"{change}\">{} {words}</td>", chart::spark(&series, &label));
    }
    if has_files {
        let size = line.bytes.map_or("\u{2013}".to_owned(), size);
        let _ = write!(
            row,
            "<td class=\"n\" data-sort=\"{}\">{}</td><td class=\"n\" data-sort=\"{}\">{size}</td>",
            sort(line.files),
            known(line.files),
            sort(line.bytes)
        );
    }
    let _ = write!(row, "<td class=\"n\">{}</td></tr>", line.schema_version);
    row
}

/// `+1,234`, `-3`, `same`.
fn growth_words(before: f64, after: f64) -> String {
    match after - before {
        0.0 => "same".to_owned(),
        more if more > 0.0 => format!("+{}", grouped(more as u64)),
        less => format!("\u{2212}{}", grouped(-less as u64)),
    }
}

fn when_micros(at: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(at).unwrap_or_default();
    time.format("%-d %b %Y, %H:%M").to_string()
}

/// RFC 3339 as people write it, with the machine's form behind it.
fn when(text: &str) -> String {
    match micros(text) {
        Some(at) => format!("<time datetime=\"{}\">{}</time>", escape(text), when_micros(at)),
        None => escape(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::TableRun;

    fn point(at: &str, rows: u64, upserted: u64, deleted: u64) -> Point {
        Point { at: at.into(), rows: Some(rows), bytes: None, upserted: Some(upserted), deleted: Some(deleted) }
    }

    fn overview() -> Overview {
        let line = |table: &str, state, past: Vec<Point>| StatusLine {
            namespace: "canvas".into(),
            table: table.into(),
            state,
            rows: past.last().and_then(|point| point.rows),
            data_as_of: "2026-01-02T00:00:00Z".into(),
            age_seconds: 7200,
            schema_version: 1,
            files: Some(3),
            bytes: Some(5000),
            last_run: None,
            version: Some(4),
            protocol: None,
            kept_as: None,
            failure: None,
            past,
        };
        let users = vec![point("2026-01-01T00:00:00Z", 100, 100, 0), point("2026-01-01T12:00:00Z", 130, 40, 5)];
        let courses = vec![point("2026-01-01T06:00:00Z", 10, 10, 0)];
        Overview {
            made: "2026-01-02T02:00:00Z".into(),
            program: "daplake",
            target: "file:///lake/".into(),
            current_for_seconds: 43_200,
            tables: vec![line("courses", Freshness::Current, courses), line("users", Freshness::Current, users)],
            never_loaded: Vec::new(),
            runs: vec![RunRecord { seconds: Some(3.0), ..RunRecord::default() }],
        }
    }

    #[test]
    fn growth_is_the_sum_of_known_row_counts() {
        let overview = overview();
        let rows: Vec<f64> = growth(&overview, micros(&overview.made).unwrap()).iter().map(|point| point.1).collect();
        assert_eq!(rows, [100.0, 110.0, 140.0, 140.0]);
        let (changes, _) = changes(&overview, micros(&overview.made).unwrap());
        assert_eq!(changes.iter().map(|bar| (bar.1, bar.2)).collect::<Vec<_>>(), [(40.0, 5.0)], "first loads are no changes");
    }

    #[test]
    fn the_first_sentence_gives_the_state() {
        let mut overview = overview();
        let says = |overview: &Overview, words: &str| {
            let page = status_page(overview);
            assert!(page.contains(words), "{words} is not in {page}");
        };
        says(&overview, "Yes: all 2 tables are up to date");
        overview.tables[0].state = Freshness::Behind;
        says(&overview, "1 of 2 tables is behind");
        overview.tables[1].state = Freshness::Failing;
        overview.tables[1].failure = Some(Failure {
            message: "A <script>alert(1)</script> came".into(),
            hint: Some("wait".into()),
            ..Failure::default()
        });
        says(&overview, "1 of 2 tables could not be updated");
        says(&overview, "What to do: wait");
        says(&overview, "A &lt;script&gt;alert(1)&lt;/script&gt; came");
        overview.never_loaded.push(TableRun {
            table: "canvas.x".into(),
            failure: Some(Failure::default()),
            ..TableRun::default()
        });
        says(&overview, "2 of 3 tables could not be updated");
        overview.tables.clear();
        overview.never_loaded.clear();
        says(&overview, "There are no tables yet");
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let page = status_page(&overview());
        for word in ["http://", "https://", " src=", "@import", "url("] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
