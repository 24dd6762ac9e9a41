//! The log subscriber, in layers with their own filters: log lines to the file and to standard error, warnings for people, and from the
//! progress target the progress line of a terminal or a line for each table.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Instant;

use chrono::{Local, SecondsFormat, Utc};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::cli::args::global::{GlobalArgs, LogFormat, LogLevel, Theme};
#[cfg(feature = "lake")]
use crate::cli::observability::metrics;
use crate::cli::terminal::console::{Console, Mark, terminal_theme};
use crate::cli::terminal::output::{aside, aside_marked, be_quiet, counted, hide_warning, note, reserve_for_log_lines, size};
use crate::cli::terminal::progress::LiveLine;
use crate::cli::terminal::report;
use crate::progress;
use crate::redact::{shortened, visible};

/// Who reads the output of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Audience {
    /// Users of the official client's commands: lines on standard output, nothing on standard error.
    People,
    /// Scripts that use these commands: data on standard output, log lines on standard error.
    Scripts,
    /// Users of all other commands: progress and warnings on standard error.
    Own,
    /// The same, without a line for each table.
    #[cfg_attr(not(feature = "lake"), expect(dead_code, reason = "used by the lake feature only"))]
    Brief,
}

/// Members of each JSON line.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Subject {
    pub(in crate::cli) namespace: Option<String>,
    pub(in crate::cli) table: Option<String>,
    pub(in crate::cli) client_id: Option<String>,
}

/// Initialises the log for a program that ends before its command starts, so that the failure is written to the log file, and to standard
/// error in the requested format.
pub(in crate::cli) fn init_for_failure(global: Option<GlobalArgs>) {
    let Some(global) = global.filter(|global| global.logfile.is_some() || global.logformat == LogFormat::Json) else { return };
    // A log file that cannot be opened must not hide the failure.
    let file = global.logfile.as_deref().and_then(|path| open(path).ok());
    init(&global, Audience::Own, file, Subject::default(), None);
}

/// A layer of the subscriber.
pub(in crate::cli) type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Installs the subscriber of the process, with `more` as an additional layer.
pub(in crate::cli) fn init(
    global: &GlobalArgs,
    audience: Audience,
    file: Option<File>,
    subject: Subject,
    more: Option<BoxedLayer>,
) {
    let level = match global.loglevel {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let has_file = file.is_some();
    let lines = |sink: Sink, brief: bool, level: LevelFilter| -> BoxedLayer {
        let lines = Lines { sink, format: global.logformat, brief, subject: subject.clone() };
        Box::new(lines.with_filter(log_filter(level)))
    };
    let mut layers: Vec<BoxedLayer> = more.into_iter().collect();
    if let Some(file) = file {
        layers.push(lines(Sink::File(Mutex::new(file)), false, level));
    }
    let (out_is_terminal, err_is_terminal) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
    if global.quiet {
        be_quiet();
        layers.push(Box::new(HiddenWarnings.with_filter(log_filter(LevelFilter::WARN))));
    }
    match audience {
        // Failures alone, as log lines, because these commands print marked lines otherwise.
        Audience::People | Audience::Scripts if global.quiet => {
            reserve_for_log_lines();
            layers.push(lines(Sink::StandardError, false, LevelFilter::ERROR));
        }
        // Failures are printed as text, or as log lines in JSON.
        Audience::Own | Audience::Brief if global.quiet => {
            if global.logformat == LogFormat::Json && !(has_file && err_is_terminal) {
                reserve_for_log_lines();
                layers.push(failures_only(global, subject));
            }
        }
        Audience::People => {
            let warnings = Warnings(Console::new(global));
            layers.push(Box::new(warnings.with_filter(log_filter(LevelFilter::WARN))));
            if out_is_terminal && err_is_terminal {
                layers.push(Box::new(LiveLine::new().with_filter(progress_only())));
            }
        }
        Audience::Scripts => {
            reserve_for_log_lines();
            if !global.no_log_to_console {
                layers.push(lines(Sink::StandardError, false, level));
            }
        }
        Audience::Own | Audience::Brief => {
            let is_json = global.logformat == LogFormat::Json;
            // JSON is for programs. With a log file in JSON, a terminal still gets text.
            let wants_objects = is_json && !(has_file && err_is_terminal);
            let wants_lines = global.non_interactive || wants_objects || (level == LevelFilter::DEBUG && !has_file);
            if global.non_interactive && global.no_log_to_console {
                // Failures are still written, as text or as JSON.
                if is_json {
                    reserve_for_log_lines();
                    layers.push(failures_only(global, subject));
                }
            } else if wants_lines {
                reserve_for_log_lines();
                layers.push(lines(Sink::StandardError, false, level));
            } else {
                // Progress lines, and in addition only warnings and errors.
                if audience == Audience::Own {
                    let theme = if err_is_terminal { terminal_theme(global) } else { None };
                    let progress = PlainProgress { is_terminal: err_is_terminal, theme };
                    layers.push(Box::new(progress.with_filter(progress_only())));
                }
                let brief = Lines { sink: Sink::StandardError, format: LogFormat::Plain, brief: true, subject };
                let filter = log_filter(level.min(LevelFilter::WARN)).with_target(report::FAILURES, LevelFilter::OFF);
                layers.push(Box::new(brief.with_filter(filter)));
                if err_is_terminal {
                    layers.push(Box::new(LiveLine::new().with_filter(progress_only())));
                }
            }
        }
    }
    #[cfg(feature = "lake")]
    if let Some(metrics) = metrics::installed() {
        layers.push(Box::new(metrics::MetricsLayer(metrics).with_filter(progress_only())));
    }
    // In tests, a second call in the same process keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    tracing::info!("daplake {}", env!("CARGO_PKG_VERSION"));
    tracing::info!("Platform: {} on {}", std::env::consts::OS, std::env::consts::ARCH);
    let features = [
        ("lake", cfg!(feature = "lake")),
        ("postgres", cfg!(feature = "postgres")),
        ("mysql", cfg!(feature = "mysql")),
        ("mssql", cfg!(feature = "mssql")),
        ("demo", cfg!(feature = "demo")),
    ];
    let features: Vec<&str> = features.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    tracing::info!("Features: {}", if features.is_empty() { "none".to_owned() } else { features.join(", ") });
}

/// The layer that writes failures to standard error.
fn failures_only(global: &GlobalArgs, subject: Subject) -> BoxedLayer {
    let failures = Lines { sink: Sink::StandardError, format: global.logformat, brief: false, subject };
    Box::new(failures.with_filter(Targets::new().with_target(report::FAILURES, LevelFilter::ERROR)))
}

/// The layer that counts the warnings of a run that prints none.
struct HiddenWarnings;

impl<S: Subscriber> Layer<S> for HiddenWarnings {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if level_of(event.metadata()) == Level::WARN {
            hide_warning();
        }
    }
}

/// Opens the log file for appending.
pub(in crate::cli) fn open(path: &Path) -> std::io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// Records of daplake at the level, those of libraries from warnings on. The progress target has its own layers.
fn log_filter(level: LevelFilter) -> Targets {
    // Errors of libraries count as warnings, see `level_of`.
    let libraries = if level < LevelFilter::WARN { LevelFilter::OFF } else { LevelFilter::WARN };
    Targets::new()
        .with_default(libraries)
        .with_target("daplake", level)
        .with_target(progress::TARGET, LevelFilter::OFF)
        // Their warnings are about retries and closed connections, and can contain URLs.
        .with_target("hyper", LevelFilter::ERROR.min(libraries))
        .with_target("reqwest", LevelFilter::ERROR.min(libraries))
        // Its records are about commits that another run came before, which a sync handles; failures are returned as well.
        .with_target("deltalake_core::kernel::transaction", LevelFilter::OFF)
        // It records each error that it returns, such as that a new table has no log yet.
        .with_target("buoyant_kernel", LevelFilter::OFF)
}

/// The level of a record. daplake can recover from an error of a library, such as a commit that is retried, so these are warnings.
fn level_of(metadata: &Metadata<'_>) -> Level {
    let is_daplake = metadata.target().split("::").next() == Some("daplake");
    if is_daplake { *metadata.level() } else { (*metadata.level()).max(Level::WARN) }
}

fn progress_only() -> Targets {
    Targets::new().with_target(progress::TARGET, LevelFilter::INFO)
}

/// Where log lines go.
enum Sink {
    StandardError,
    File(Mutex<File>),
}

/// Log lines in the two formats of the official client.
struct Lines {
    sink: Sink,
    format: LogFormat,
    /// Only level and text, for people.
    brief: bool,
    subject: Subject,
}

/// The field with a failure as JSON. The message has the same content as text.
const FAILURE: &str = "failure";

/// The message of an event, followed by its fields.
#[derive(Default)]
struct Message {
    text: String,
    fields: String,
}

impl Message {
    fn of(event: &Event<'_>) -> String {
        let mut message = Self::default();
        event.record(&mut message);
        let Self { mut text, fields } = message;
        if !fields.is_empty() {
            let _ = write!(text, " ({fields})");
        }
        // One line per record, with control characters escaped.
        visible(&text.replace(['\n', '\r'], " ")).into_owned()
    }

    fn field(&mut self, field: &Field, value: &dyn std::fmt::Display) {
        if field.name() == "message" {
            let _ = write!(self.text, "{value}");
        } else if field.name() != FAILURE {
            let separator = if self.fields.is_empty() { "" } else { ", " };
            let _ = write!(self.fields, "{separator}{}: {value}", field.name());
        }
    }
}

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.field(field, &format_args!("{value:?}"));
    }
}

/// The fields of an event as JSON.
#[derive(Default)]
struct Members(serde_json::Map<String, serde_json::Value>);

impl Members {
    fn of(event: &Event<'_>) -> serde_json::Map<String, serde_json::Value> {
        let mut members = Self::default();
        event.record(&mut members);
        members.0
    }

    fn member(&mut self, field: &Field, value: serde_json::Value) {
        if field.name() != "message" {
            self.0.insert(field.name().to_owned(), value);
        }
    }
}

impl Visit for Members {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match serde_json::from_str(value) {
            Ok(serde_json::Value::Object(failure)) if field.name() == FAILURE => self.0.extend(failure),
            _ => self.member(field, value.into()),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.member(field, format!("{value:?}").into());
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

impl Lines {
    fn line(&self, event: &Event<'_>) -> String {
        let metadata = event.metadata();
        let level = level_name(level_of(metadata));
        let text = Message::of(event);
        let path = metadata.file().unwrap_or_default();
        let file = path.rsplit(['/', '\\']).next().unwrap_or_default();
        let number = metadata.line().unwrap_or(0);
        match self.format {
            _ if self.brief => format!("{}: {text}", level.to_ascii_lowercase()),
            LogFormat::Plain => {
                let time = Local::now().format("%Y-%m-%d %H:%M:%S,%3f");
                let place = if level == "DEBUG" { format!(" ({file}:{number})") } else { String::new() };
                format!("{time} - {level} - {text}{place}")
            }
            LogFormat::Json => {
                let module = metadata.module_path().unwrap_or(metadata.target());
                serde_json::json!({
                    "level": level,
                    "message": text,
                    "timestamp": Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
                    "logger_name": metadata.target(),
                    "filename": file,
                    "module": module.rsplit("::").next(),
                    "lineno": number,
                    // Readers of the official client's log expect this member.
                    "funcName": "",
                    "dap_namespace": self.subject.namespace,
                    "dap_table": self.subject.table,
                    "dap_client_id": self.subject.client_id,
                    // The fields of the message by name.
                    "fields": Members::of(event),
                })
                .to_string()
            }
        }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let line = self.line(event);
        match &self.sink {
            Sink::StandardError => note(&line),
            // One write per line, so that lines of several processes do not mix. A full disk must not stop the run.
            Sink::File(file) => {
                let _ = file.lock().write_all(format!("{line}\n").as_bytes());
            }
        }
    }
}

/// The layer that prints warnings for people.
struct Warnings(Console);

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if *event.metadata().level() == Level::WARN {
            let _ = self.0.show(Mark::Warning, |_| Message::of(event));
        }
    }
}

/// The layer that prints a line on standard error for each table: what was done, rows, bytes, time. On a terminal the line is short.
struct PlainProgress {
    is_terminal: bool,
    /// Colours; `None` without.
    theme: Option<Theme>,
}

impl PlainProgress {
    fn print(&self, mark: Mark, table: &str, done: &str, step: &Step) {
        let seconds = step.begun.elapsed().as_secs_f64();
        if self.is_terminal {
            return aside_marked(&short_line(mark, self.theme, table, done, seconds));
        }
        let mut line = format!("{table:<44} {done}");
        if mark == Mark::Success && step.rows > 0 {
            let _ = write!(line, " ({}, {} received, {seconds:.1} s)", counted(step.rows, "row"), size(step.bytes));
        }
        aside(&line);
    }
}

/// Characters of a failure on a short line; the whole text is printed at the end.
const SHORT_FAILURE: usize = 60;

/// A line of a terminal, without the time of the data and the bytes.
fn short_line(mark: Mark, theme: Option<Theme>, table: &str, done: &str, seconds: f64) -> String {
    let done = done.split(", data as of").next().unwrap_or_default().trim_start_matches("FAILED: ");
    let done = shortened(done, SHORT_FAILURE);
    let table = table.strip_prefix("canvas.").unwrap_or(table);
    format!("{} {}  {}  {seconds:.1} s", mark.painted(theme), visible(&format!("{table:<30}")), visible(&done))
}

struct Step {
    table: String,
    is_table: bool,
    begun: Instant,
    rows: u64,
    bytes: u64,
}

#[derive(Default)]
struct Fields {
    step: Option<String>,
    table: Option<String>,
    done: Option<String>,
    failed: Option<String>,
    rows: u64,
    bytes: u64,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "rows" => self.rows = value,
            "bytes" => self.bytes = value,
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "step" => self.step = Some(value.to_owned()),
            "done" => self.done = Some(value.to_owned()),
            "failed" => self.failed = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "table" {
            self.table = Some(format!("{value:?}"));
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for PlainProgress {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let (Some(span), Some(table)) = (context.span(id), fields.table) {
            let is_table = fields.step.as_deref() == Some("table");
            span.extensions_mut().insert(Step { table, is_table, begun: Instant::now(), rows: 0, bytes: 0 });
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Some(scope) = context.event_scope(event) else { return };
        for span in scope {
            let mut extensions = span.extensions_mut();
            let Some(step) = extensions.get_mut::<Step>() else { continue };
            step.rows += fields.rows;
            step.bytes += fields.bytes;
            if !step.is_table {
                continue;
            }
            match (&fields.done, &fields.failed) {
                (Some(done), _) => self.print(Mark::Success, &step.table, done, step),
                (None, Some(failed)) => self.print(Mark::Error, &step.table, &format!("FAILED: {failed}"), step),
                (None, None) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_terminal_fits_and_has_no_control_characters() {
        let done = "snapshot: 1,200 upserted, 0 deleted, data as of 2026-11-28T20:00:00Z";
        let line = short_line(Mark::Success, None, "canvas.assignment_overrides", done, 12.34);
        assert_eq!(line, "✓ assignment_overrides            snapshot: 1,200 upserted, 0 deleted  12.3 s");
        let failed = format!("FAILED: \u{1b}[2J{}", "x".repeat(500));
        let line = short_line(Mark::Error, None, "catalog.users", &failed, 0.0);
        assert!(line.starts_with("✗ catalog.users ") && line.len() < 130 && !line.contains('\u{1b}'), "{line}");
        assert!(short_line(Mark::Error, Some(Theme::Dark), "a", "b", 0.0).starts_with("\u{1b}[91m✗\u{1b}[0m a"));
    }
}
