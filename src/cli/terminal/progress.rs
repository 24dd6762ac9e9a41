//! The progress line on a terminal: tables, waiting jobs, objects, bytes, rate, time left. A layer that sums up the events of the progress
//! target. The log has a record of the progress every minute.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::cli::terminal::output;
use crate::cli::terminal::output::size;

const REDRAW: Duration = Duration::from_millis(150);
/// Tables that must be done before the remaining time is estimated.
const TABLES_TO_ESTIMATE: u64 = 3;
/// Time between two log records of the progress.
#[cfg(feature = "lake")]
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Period over which the rate is measured.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// The layer; only for terminals.
pub(in crate::cli) struct LiveLine {
    bar: ProgressBar,
    /// The line appears with the first event, since many commands have none.
    shown: Once,
    state: Arc<Mutex<State>>,
}

impl LiveLine {
    pub(in crate::cli) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let state = Arc::new(Mutex::new(State::new(Instant::now())));
        let drawn = Arc::clone(&state);
        let line = move |_: &ProgressState, to: &mut dyn Write| {
            let _ = to.write_str(&drawn.lock().line(Instant::now()));
        };
        // The template is valid; otherwise the default would be used.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {line}") {
            bar.set_style(style.with_key("line", line));
        }
        Self { bar, shown: Once::new(), state }
    }

    fn show(&self) {
        self.shown.call_once(|| {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.enable_steady_tick(REDRAW);
            output::draw_around(&self.bar);
        });
    }

    /// Changes the totals. The line is redrawn by a timer.
    fn update(&self, change: impl FnOnce(&mut Totals)) {
        change(&mut self.state.lock().totals);
        self.show();
    }
}

/// Removes the progress line.
pub(in crate::cli) fn finish() {
    output::stop_drawing();
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Totals {
    /// Tables of the run; 0 if unknown.
    tables: u64,
    tables_done: u64,
    jobs_waiting: u64,
    objects: u64,
    objects_done: u64,
    bytes: u64,
    /// When the pacing allows the next call.
    next_call: Option<Instant>,
}

#[derive(Debug)]
struct State {
    totals: Totals,
    /// Time and total bytes, oldest first.
    samples: VecDeque<(Instant, u64)>,
    first_object: Option<Instant>,
    begun: Instant,
}

impl State {
    fn new(now: Instant) -> Self {
        Self { totals: Totals::default(), samples: VecDeque::from([(now, 0)]), first_object: None, begun: now }
    }

    fn line(&mut self, now: Instant) -> String {
        let totals = self.totals;
        if totals.bytes > 0 && self.first_object.is_none() {
            self.first_object = Some(now);
        }
        self.samples.push_back((now, totals.bytes));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > RATE_WINDOW) {
            self.samples.pop_front();
        }
        let mut parts = Vec::new();
        if totals.tables > 1 {
            parts.push(format!("{} of {} tables", totals.tables_done, totals.tables));
        }
        let paced = totals.next_call.map(|at| at.saturating_duration_since(now)).filter(|wait| !wait.is_zero());
        let paced = paced.map_or(String::new(), |wait| format!(" (next in {} s)", wait.as_secs() + 1));
        // The sizes of the remaining objects are unknown; objects of a job are similar.
        if totals.tables > 1 {
            parts.extend(self.tables_left(now).map(|left| format!("about {left} left")));
        }
        match totals.jobs_waiting {
            0 => {}
            1 => parts.push(format!("1 job waiting{paced}")),
            jobs => parts.push(format!("{jobs} jobs waiting{paced}")),
        }
        // With several tables the number of objects grows with each, and is not informative.
        if totals.objects > 0 && totals.tables <= 1 {
            parts.push(format!("{}/{} objects", totals.objects_done, totals.objects));
        }
        if totals.bytes > 0 {
            parts.push(size(totals.bytes));
            if let Some((at, before)) = self.samples.front().filter(|(_, before)| *before < totals.bytes) {
                let seconds = now.duration_since(*at).as_secs_f64();
                if seconds > 0.0 {
                    parts.push(format!("{}/s", size(((totals.bytes - before) as f64 / seconds) as u64)));
                }
            }
        }
        if totals.tables <= 1
            && let Some(first) = self.first_object
            && totals.jobs_waiting == 0
            && totals.objects_done > 0
            && totals.objects > totals.objects_done
        {
            let each = now.duration_since(first).as_secs_f64() / totals.objects_done as f64;
            let left = each * (totals.objects - totals.objects_done) as f64;
            parts.push(format!("about {} left", in_words(left)));
        }
        parts.join(", ")
    }

    /// Time for the remaining tables.
    fn tables_left(&self, now: Instant) -> Option<String> {
        let Totals { tables, tables_done, .. } = self.totals;
        time_left(now.duration_since(self.begun), tables_done, tables)
    }
}

/// Estimated time for the remaining tables at the current rate, after enough tables are done.
fn time_left(elapsed: Duration, done: u64, tables: u64) -> Option<String> {
    let rest = tables.checked_sub(done).filter(|rest| *rest > 0 && done >= TABLES_TO_ESTIMATE)?;
    Some(in_words(elapsed.as_secs_f64() / done as f64 * rest as f64))
}

/// Log records of how far a run is, such as `12 of 93 tables, about 17 min left`: at most one a minute, for runs without a terminal.
#[cfg(feature = "lake")]
#[derive(Debug, Default)]
pub(in crate::cli) struct Milestones {
    /// When the first table started, and the time of the last record.
    times: Mutex<Option<(Instant, Instant)>>,
}

#[cfg(feature = "lake")]
impl Milestones {
    /// Called for each step of a table: `done` of `tables` tables have ended.
    pub(in crate::cli) fn reach(&self, done: usize, tables: usize) {
        let (done, tables) = (done as u64, tables as u64);
        if let Some(text) = self.record(Instant::now(), done, tables) {
            tracing::info!(done, tables, "{text}");
        }
    }

    fn record(&self, now: Instant, done: u64, tables: u64) -> Option<String> {
        let mut times = self.times.lock();
        let (begun, last) = times.get_or_insert((now, now));
        if now.duration_since(*last) < LOG_INTERVAL || done >= tables {
            return None;
        }
        *last = now;
        let left = time_left(now.duration_since(*begun), done, tables);
        let left = left.map_or_else(String::new, |left| format!(", about {left} left"));
        Some(format!("{done} of {tables} tables{left}"))
    }
}

/// A time in one unit, or in hours and minutes.
fn in_words(seconds: f64) -> String {
    let seconds = seconds.ceil().max(1.0) as u64;
    match seconds.div_ceil(60) {
        _ if seconds < 60 => format!("{seconds} s"),
        minutes if minutes < 60 => format!("{minutes} min"),
        minutes => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

/// Marks a span that waits for a job.
struct Waiting;

#[derive(Default)]
struct Fields {
    is_job: bool,
    tables: u64,
    tables_done: u64,
    parts: u64,
    part_done: u64,
    bytes: u64,
    paced_ms: Option<u64>,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "tables" => self.tables = value,
            "tables_done" => self.tables_done = value,
            "parts" => self.parts = value,
            "part_done" => self.part_done = value,
            "bytes" => self.bytes = value,
            "paced_ms" => self.paced_ms = Some(value),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "step" {
            self.is_job = value == "job";
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn std::fmt::Debug) {}
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LiveLine {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().name() == "run" {
            *self.state.lock() = State::new(Instant::now());
        }
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let (true, Some(span)) = (fields.is_job, context.span(id)) {
            span.extensions_mut().insert(Waiting);
            self.update(|totals| totals.jobs_waiting += 1);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if context.span(&id).is_some_and(|span| span.extensions().get::<Waiting>().is_some()) {
            self.update(|totals| totals.jobs_waiting = totals.jobs_waiting.saturating_sub(1));
        }
    }

    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.update(|totals| {
            totals.tables = totals.tables.max(fields.tables);
            totals.tables_done += fields.tables_done;
            totals.objects += fields.parts;
            totals.objects_done += fields.part_done;
            totals.bytes += fields.bytes;
            if let Some(wait) = fields.paced_ms {
                totals.next_call = Some(Instant::now() + Duration::from_millis(wait));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_what_is_known() {
        let begun = Instant::now();
        let mut state = State::new(begun);
        let mut at = |seconds: u64, totals: Totals| {
            state.totals = totals;
            state.line(begun + Duration::from_secs(seconds))
        };
        assert_eq!(at(1, Totals { jobs_waiting: 3, ..Totals::default() }), "3 jobs waiting");
        let paced = Totals { jobs_waiting: 2, next_call: Some(begun + Duration::from_secs(42)), ..Totals::default() };
        assert_eq!(at(1, paced), "2 jobs waiting (next in 42 s)");
        assert_eq!(at(1, Totals { next_call: Some(begun), ..paced }), "2 jobs waiting");
        let some = Totals { objects: 10, bytes: 2 << 20, ..Totals::default() };
        assert_eq!(at(2, some), "0/10 objects, 2.0 MiB, 1.0 MiB/s");
        let half = Totals { objects: 10, objects_done: 5, bytes: 6 << 20, ..Totals::default() };
        assert_eq!(at(4, half), "5/10 objects, 6.0 MiB, 1.5 MiB/s, about 2 s left");
        let tables = Totals { tables: 93, tables_done: 2, jobs_waiting: 8, ..Totals::default() };
        assert_eq!(at(4, tables), "2 of 93 tables, 8 jobs waiting");
        let more = Totals { tables_done: 3, jobs_waiting: 0, ..tables };
        assert_eq!(at(6, more), "3 of 93 tables, about 3 min left");
        let long = Totals {
            tables_done: 12,
            jobs_waiting: 8,
            objects: 40,
            next_call: Some(begun + Duration::from_secs(200)),
            ..tables
        };
        assert_eq!(at(152, long), "12 of 93 tables, about 18 min left, 8 jobs waiting (next in 49 s)");
        assert_eq!(in_words(7261.0), "2 h 2 min");
        let still = Totals { jobs_waiting: 1, objects: 10, objects_done: 10, bytes: 6 << 20, ..Totals::default() };
        at(5, still);
        assert_eq!(at(60, still), "1 job waiting, 10/10 objects, 6.0 MiB", "no rate without new bytes");
    }
    #[cfg(feature = "lake")]
    #[test]
    fn the_log_has_the_progress_once_a_minute() {
        let begun = Instant::now();
        let milestones = Milestones::default();
        let at = |seconds: u64, done: u64| milestones.record(begun + Duration::from_secs(seconds), done, 93);
        assert_eq!(at(0, 0), None);
        assert_eq!(at(59, 2), None);
        assert_eq!(at(61, 2).as_deref(), Some("2 of 93 tables"), "too few for an estimate");
        assert_eq!(at(90, 8), None);
        assert_eq!(at(151, 12).as_deref(), Some("12 of 93 tables, about 17 min left"));
        assert_eq!(at(900, 93), None, "the end of the run has a record of its own");
    }
}
