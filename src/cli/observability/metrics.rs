//! Metrics of a long run for Prometheus, in its text format, at an address of the user's choice. They come from the progress target and
//! from the records of runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::error::{Error, Kind, Result, ResultExt};
use crate::model::Timestamp;
use crate::ops::RunRecord;

// Not `hyper`: its server is only in builds with the feature `demo`, and one path with one method needs little.

/// Time and size limits of a request, and the number of simultaneous connections.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_REQUEST: usize = 8 << 10;
const MAX_CONNECTIONS: usize = 16;

/// Name, type and help of each metric, in the order of the output.
pub(in crate::cli) const FAMILIES: &[(&str, &str, &str)] = &[
    ("daplake_build_info", "gauge", "Version of the program."),
    ("daplake_runs_total", "counter", "Runs that ended, by result."),
    ("daplake_run_in_progress", "gauge", "Whether a run is in progress."),
    ("daplake_run_last_start_timestamp_seconds", "gauge", "Start of the last run."),
    ("daplake_run_last_end_timestamp_seconds", "gauge", "End of the last run."),
    ("daplake_run_last_success_timestamp_seconds", "gauge", "End of the last run without failures."),
    ("daplake_run_last_duration_seconds", "gauge", "Duration of the last run."),
    ("daplake_job_starts_total", "counter", "Jobs that were started or joined at the service."),
    ("daplake_retries_total", "counter", "Calls and downloads that were retried."),
    ("daplake_received_bytes_total", "counter", "Received bytes of objects."),
    ("daplake_decoded_rows_total", "counter", "Decoded rows."),
    ("daplake_upserted_rows_total", "counter", "Upserted rows."),
    ("daplake_deleted_rows_total", "counter", "Deleted rows."),
    ("daplake_written_bytes_total", "counter", "Bytes written to the target."),
    ("daplake_table_failures_total", "counter", "Runs in which the table failed."),
    ("daplake_table_rows", "gauge", "Rows of the table, if the target counts them."),
    ("daplake_table_load_seconds", "gauge", "Duration of the last load of the table."),
    ("daplake_table_last_success_timestamp_seconds", "gauge", "Last time at which the table was up to date."),
    ("daplake_table_data_timestamp_seconds", "gauge", "Time up to which the data of the table is loaded."),
];

/// Name and value of a label.
type Label = Option<(&'static str, String)>;

/// Values by name and label.
type Values = BTreeMap<(&'static str, Label), f64>;

/// All metrics. Clones share their values.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Metrics(Arc<Mutex<Values>>);

static METRICS: OnceLock<Metrics> = OnceLock::new();

/// The metrics of this process, after [`switch_on`].
pub(in crate::cli) fn installed() -> Option<&'static Metrics> {
    METRICS.get()
}

/// Enables the metrics of this process.
pub(in crate::cli) fn switch_on() -> &'static Metrics {
    METRICS.get_or_init(|| {
        let metrics = Metrics::default();
        metrics.set("daplake_build_info", &label("version", env!("CARGO_PKG_VERSION")), 1.0);
        for name in ["daplake_job_starts_total", "daplake_retries_total", "daplake_run_in_progress"] {
            metrics.set(name, &None, 0.0);
        }
        metrics
    })
}

fn label(name: &'static str, value: &str) -> Label {
    Some((name, value.to_owned()))
}

fn set(values: &mut Values, name: &'static str, label: &Label, value: f64) {
    values.insert((name, label.clone()), value);
}

fn add(values: &mut Values, name: &'static str, label: &Label, value: u64) {
    *values.entry((name, label.clone())).or_default() += value as f64;
}

impl Metrics {
    fn change(&self, work: impl FnOnce(&mut Values)) {
        work(&mut self.0.lock());
    }

    fn set(&self, name: &'static str, label: &Label, value: f64) {
        self.change(|values| set(values, name, label, value));
    }

    fn add(&self, name: &'static str, label: &Label, value: u64) {
        self.change(|values| add(values, name, label, value));
    }

    /// The values of a metric.
    #[cfg(feature = "otel")]
    pub(in crate::cli) fn values(&self, name: &str) -> Vec<(Label, f64)> {
        let values = self.0.lock();
        values.iter().filter(|((of, _), _)| *of == name).map(|((_, label), value)| (label.clone(), *value)).collect()
    }

    /// Records the start of a run.
    pub(in crate::cli) fn run_began(&self) {
        self.set("daplake_run_in_progress", &None, 1.0);
        self.set("daplake_run_last_start_timestamp_seconds", &None, now());
    }

    /// Records the end of a run, all values at once.
    pub(in crate::cli) fn run_ended(&self, run: &RunRecord) {
        self.change(|values| Self::add_run(values, run));
    }

    fn add_run(values: &mut Values, run: &RunRecord) {
        let now = now();
        let result = if run.has_failed() { "failure" } else { "success" };
        set(values, "daplake_run_in_progress", &None, 0.0);
        add(values, "daplake_runs_total", &label("result", result), 1);
        set(values, "daplake_run_last_end_timestamp_seconds", &None, now);
        set(values, "daplake_run_last_duration_seconds", &None, run.seconds.unwrap_or_default());
        if !run.has_failed() {
            set(values, "daplake_run_last_success_timestamp_seconds", &None, now);
        }
        for table in &run.tables {
            let name = label("table", &table.table);
            add(values, "daplake_upserted_rows_total", &name, table.upserted);
            add(values, "daplake_deleted_rows_total", &name, table.deleted);
            add(values, "daplake_written_bytes_total", &name, table.bytes_written);
            add(values, "daplake_table_failures_total", &name, u64::from(table.failure.is_some()));
            if table.outcome == "loaded" {
                set(values, "daplake_table_load_seconds", &name, table.seconds);
            }
            if let Some(rows) = table.rows {
                set(values, "daplake_table_rows", &name, rows as f64);
            }
            if let Some(at) = table.data_as_of.as_deref().and_then(|at| at.parse::<Timestamp>().ok()) {
                set(values, "daplake_table_data_timestamp_seconds", &name, at.micros() as f64 / 1e6);
                set(values, "daplake_table_last_success_timestamp_seconds", &name, now);
            }
        }
    }

    /// All metrics in the text format.
    fn text(&self) -> String {
        let values = self.0.lock();
        let mut text = String::new();
        for (name, kind, help) in FAMILIES {
            let mut lines = values.iter().filter(|((of, _), _)| of == name).peekable();
            if lines.peek().is_some() {
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            }
            for ((_, label), value) in lines {
                let _ = match label {
                    Some((label, of)) => writeln!(text, "{name}{{{label}=\"{}\"}} {value}", escaped(of)),
                    None => writeln!(text, "{name} {value}"),
                };
            }
        }
        text
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn now() -> f64 {
    Timestamp::now().micros() as f64 / 1e6
}

/// Serves the metrics at `address` until the process ends. Kind `Usage` if the address cannot be used.
pub(in crate::cli) async fn serve(metrics: &'static Metrics, address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Error::new(Kind::Usage, "The address of --metrics-listen cannot be used")
            .with_field("address", address)
            .caused_by(error)
            .hint("another program may be using it; choose another port")
    })?;
    let address = listener.local_addr().context(Kind::Io, "The address of the metrics is unknown")?;
    tracing::info!(%address, "Serving metrics");
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let Ok((connection, _)) = listener.accept().await else {
                // A temporary failure, such as too many open files.
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            tokio::spawn(async move {
                // A client that disconnects is not an error.
                let _ = tokio::time::timeout(REQUEST_TIMEOUT, respond(metrics, connection)).await;
                drop(permit);
            });
        }
    });
    Ok(())
}

async fn respond(metrics: &Metrics, mut connection: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = connection.read_buf(&mut request).await?;
        if read == 0 || request.len() > MAX_REQUEST {
            return Ok(());
        }
    }
    let first = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let (status, body) = match String::from_utf8_lossy(first).split(' ').collect::<Vec<_>>()[..] {
        ["GET", path, _] if path.split('?').next() == Some("/metrics") => ("200 OK", metrics.text()),
        ["GET", ..] => ("404 Not Found", "metrics are at /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(format!("{head}{body}").as_bytes()).await?;
    connection.shutdown().await
}

/// The layer that collects metrics from the progress target.
pub(in crate::cli) struct MetricsLayer(pub(in crate::cli) &'static Metrics);

/// The table of a span, as a label.
struct TableLabel(Label);

#[derive(Default)]
struct Fields {
    table: Option<String>,
    bytes: u64,
    rows: u64,
    job_started: u64,
    retried: u64,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "bytes" => self.bytes = value,
            "rows" => self.rows = value,
            "job_started" => self.job_started = value,
            "retried" => self.retried = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "table" {
            self.table = Some(format!("{value:?}"));
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for MetricsLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let (Some(span), Some(table)) = (context.span(id), fields.table) {
            span.extensions_mut().insert(TableLabel(label("table", &table)));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if fields.job_started > 0 {
            self.0.add("daplake_job_starts_total", &None, fields.job_started);
        }
        if fields.retried > 0 {
            self.0.add("daplake_retries_total", &None, fields.retried);
        }
        if fields.bytes + fields.rows == 0 {
            return;
        }
        let table_label = context.event_scope(event).and_then(|scope| {
            scope.into_iter().find_map(|span| span.extensions().get::<TableLabel>().map(|table| table.0.clone()))
        });
        let label = table_label.unwrap_or_default();
        for (name, value) in [("daplake_received_bytes_total", fields.bytes), ("daplake_decoded_rows_total", fields.rows)] {
            if value > 0 {
                self.0.add(name, &label, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::TableRun;

    #[test]
    fn metrics_are_in_the_text_format_of_prometheus() {
        let metrics = Metrics::default();
        metrics.run_began();
        let table = TableRun {
            table: "canvas.\"odd\\".into(),
            outcome: "loaded".into(),
            upserted: 5,
            rows: Some(7),
            data_as_of: Some("2026-01-01T00:00:00Z".into()),
            ..TableRun::default()
        };
        metrics.run_ended(&RunRecord { seconds: Some(2.5), tables: vec![table], ..RunRecord::default() });
        let text = metrics.text();
        for line in [
            "# TYPE daplake_runs_total counter\ndaplake_runs_total{result=\"success\"} 1\n",
            "daplake_table_rows{table=\"canvas.\\\"odd\\\\\"} 7\n",
            "daplake_table_data_timestamp_seconds{table=\"canvas.\\\"odd\\\\\"} 1767225600\n",
            "daplake_run_last_duration_seconds 2.5\n",
            "daplake_run_in_progress 0\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let written = text.lines().filter(|line| !line.starts_with('#'));
        assert!(written.into_iter().all(|line| FAMILIES.iter().any(|family| line.starts_with(family.0))));
    }
}
