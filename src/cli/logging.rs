//! One subscriber of two layers, each with its own filter: log lines, and plain progress lines from the progress target.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::sync::Mutex;
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use super::args::{GlobalArgs, LogFormat, LogLevel};
use super::output::{grouped, note, size};
use crate::error::{Kind, Result, ResultExt};
use crate::progress;

/// Installs the subscriber of the process. Log lines go to the log file when there is one; warnings and errors also to
/// standard error.
pub(super) fn init(global: &GlobalArgs) -> Result<()> {
    let level = match global.loglevel {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = vec![Box::new(PlainProgress.with_filter(progress_only()))];
    match &global.logfile {
        Some(path) => {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .or_fail(Kind::Usage, format!("The log file cannot be written: {}", path.display()))?;
            layers.push(lines(global.logformat, Mutex::new(file), false, level));
        }
        // Without a file the progress lines tell the story; only what needs attention is added.
        None => layers.push(lines(global.logformat, std::io::stderr, true, level.min(LevelFilter::WARN))),
    }
    if global.loglevel == LogLevel::Debug && global.logfile.is_none() {
        layers.push(lines(global.logformat, std::io::stderr, true, LevelFilter::DEBUG));
    }
    // A second call in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    Ok(())
}

/// Ours at the wished level, everybody else's warnings only; progress has its own layer.
fn log_filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("daplake", level)
        .with_target(progress::TARGET, LevelFilter::OFF)
        // Their warnings are about our own retries and closing connections, and may name URLs.
        .with_target("hyper", LevelFilter::ERROR)
        .with_target("reqwest", LevelFilter::ERROR)
}

fn progress_only() -> Targets {
    Targets::new().with_target(progress::TARGET, LevelFilter::INFO)
}

fn lines<W>(format: LogFormat, writer: W, terminal: bool, level: LevelFilter) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let filter = log_filter(level);
    match (format, terminal) {
        (LogFormat::Json, _) => Box::new(layer.json().with_filter(filter)),
        (LogFormat::Plain, true) => Box::new(layer.without_time().with_target(false).with_filter(filter)),
        (LogFormat::Plain, false) => Box::new(layer.with_filter(filter)),
    }
}

/// One line on standard error per table: what was done, rows, bytes, time.
struct PlainProgress;

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
            let seconds = step.begun.elapsed().as_secs_f64();
            let mut line = String::new();
            if let Some(done) = &fields.done {
                let _ = write!(line, "{:<44} {done}", step.table);
                if step.rows > 0 {
                    let _ = write!(line, " ({} rows, {} received, {seconds:.1} s)", grouped(step.rows), size(step.bytes));
                }
            } else if let Some(failed) = &fields.failed {
                let _ = write!(line, "{:<44} FAILED: {failed}", step.table);
            }
            if !line.is_empty() {
                note(&line);
            }
        }
    }
}
