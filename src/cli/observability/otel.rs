//! Traces and metrics of `sync` for OpenTelemetry, by its own crates: OTLP over HTTP, configured by the standard `OTEL_*` variables.
//! Traces come from the progress target, metrics are those of [`crate::cli::observability::metrics`]. What goes wrong here changes no run, and neither
//! headers nor addresses are told, as both may hold secrets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use opentelemetry::metrics::{AsyncInstrument, MeterProvider};
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Key, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::Metadata;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;

use crate::api::hook_http;
use crate::cli::observability::logging::BoxedLayer;
use crate::cli::observability::metrics;
use crate::cli::observability::metrics::Metrics;
use crate::cli::settings::environment::{OtelSignal, otel};
use crate::error::{Error, Kind, Result};
use crate::progress;

/// What a collector may answer; the rest is not read.
const LONGEST_ANSWER: usize = 64 << 10;
/// Progress that is worth a mark in a trace; bytes and rows come too often.
const MARKS: [&str; 4] = ["job_started", "retried", "done", "failed"];

/// What was switched on. Without [`Telemetry::finish`] the last of it is lost.
#[derive(Debug, Default)]
pub(in crate::cli) struct Telemetry {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
    /// What could not be switched on, once somebody can be told.
    pub(in crate::cli) warnings: Vec<Error>,
}

impl Telemetry {
    /// As the variables say; without them nothing is switched on. Requests are made on `runtime`.
    pub(in crate::cli) fn start(ca_bundle: Option<&std::path::Path>, runtime: &Handle) -> Self {
        let mut telemetry = Self::default();
        let sender = |signal: OtelSignal| -> Result<Option<Sender>> {
            let Some(settings) = otel(signal)? else { return Ok(None) };
            let http = hook_http(&settings.endpoint, ca_bundle)?;
            let (runtime, timeout) = (runtime.clone(), settings.timeout);
            Ok(Some(Sender(Arc::new(Line { signal, http, runtime, timeout, is_down: AtomicBool::new(false) }))))
        };
        match sender(OtelSignal::Traces).and_then(|sender| sender.map(traces).transpose()) {
            Ok(traces) => telemetry.traces = traces,
            Err(error) => telemetry.warnings.push(error),
        }
        match sender(OtelSignal::Metrics)
            .and_then(|sender| sender.map(|sender| figures(sender, metrics::switch_on())).transpose())
        {
            Ok(metrics) => telemetry.metrics = metrics,
            Err(error) => telemetry.warnings.push(error),
        }
        telemetry
    }

    /// What listens to progress, if traces are wanted.
    pub(in crate::cli) fn layer(&self) -> Option<BoxedLayer> {
        let tracer = self.traces.as_ref()?.tracer("daplake");
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        Some(Box::new(layer.with_filter(filter_fn(is_of_traces))))
    }

    /// Sends what is left; takes some seconds at most when nobody answers. Must not be called on a thread of the runtime, which must
    /// still be there.
    pub(in crate::cli) fn finish(self) {
        // The sender has told what did not arrive.
        if let Some(traces) = self.traces {
            let _ = traces.shutdown();
        }
        if let Some(metrics) = self.metrics {
            let _ = metrics.shutdown();
        }
    }
}

fn is_of_traces(metadata: &Metadata<'_>) -> bool {
    metadata.target() == progress::TARGET
        && (metadata.is_span() || MARKS.iter().any(|mark| metadata.fields().field(mark).is_some()))
}

fn traces(sender: Sender) -> Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder().with_http().with_http_client(sender).build().map_err(|_| refused("traces"))?;
    Ok(SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(exporter).build())
}

fn figures(sender: Sender, metrics: &'static Metrics) -> Result<SdkMeterProvider> {
    let exporter = MetricExporter::builder().with_http().with_http_client(sender).build().map_err(|_| refused("metrics"))?;
    let provider = SdkMeterProvider::builder().with_resource(resource()).with_periodic_exporter(exporter).build();
    let meter = provider.meter("daplake");
    for (name, kind, help) in metrics::FAMILIES {
        let observe = move |instrument: &dyn AsyncInstrument<f64>| {
            for (label, value) in metrics.of(name) {
                let label = label.map(|(label, of)| KeyValue::new(label, of));
                instrument.observe(value, label.as_slice());
            }
        };
        let (name, unit) = otel_name(name);
        match *kind {
            "counter" => {
                let counter = meter.f64_observable_counter(name).with_description(*help).with_unit(unit);
                counter.with_callback(observe).build();
            }
            _ => {
                let gauge = meter.f64_observable_gauge(name).with_description(*help).with_unit(unit);
                gauge.with_callback(observe).build();
            }
        }
    }
    Ok(provider)
}

/// The cause may repeat the address, which may hold a secret.
fn refused(signal: &str) -> Error {
    Error::new(Kind::Usage, format!("OpenTelemetry's {signal} cannot be set up; the run goes on without them"))
        .hint("see the OTEL_EXPORTER_OTLP_* variables")
}

/// Name and unit by OpenTelemetry's habits: what turns them into Prometheus's names gets ours again.
fn otel_name(name: &'static str) -> (String, &'static str) {
    let stem = name.strip_suffix("_total").unwrap_or(name);
    let (stem, unit) = match (stem.strip_suffix("_seconds"), stem.strip_suffix("_bytes")) {
        (Some(stem), _) => (stem, "s"),
        (_, Some(stem)) => (stem, "By"),
        _ => (stem, ""),
    };
    (stem.replacen('_', ".", 1), unit)
}

/// Ours, unless the variables name another.
fn resource() -> Resource {
    let told = Resource::builder().build();
    let name = told.get(&Key::from_static_str("service.name")).map(|name| name.to_string()).unwrap_or_default();
    let builder = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    match name.is_empty() || name.starts_with("unknown_service") {
        true => builder.with_service_name("daplake").build(),
        false => builder.build(),
    }
}

/// Our HTTP client as the exporters want it. They call it on threads of their own.
#[derive(Debug, Clone)]
struct Sender(Arc<Line>);

#[derive(Debug)]
struct Line {
    signal: OtelSignal,
    http: reqwest::Client,
    runtime: Handle,
    timeout: Duration,
    is_down: AtomicBool,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let line = Arc::clone(&self.0);
        let answer = self.0.runtime.spawn(async move { line.exchange(request).await }).await?;
        self.0.tell(answer.as_ref().map(Response::status).map_err(ToString::to_string));
        answer.map_err(Into::into)
    }
}

impl Line {
    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, reqwest::Error> {
        let mut request = reqwest::Request::try_from(request)?;
        *request.timeout_mut() = Some(self.timeout);
        let mut answer = self.http.execute(request).await.map_err(reqwest::Error::without_url)?;
        let mut body = BytesMut::new();
        while body.len() < LONGEST_ANSWER {
            let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? else { break };
            body.extend_from_slice(&chunk);
        }
        let mut response = Response::new(body.freeze());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(response)
    }

    /// Trouble is told when it begins and when it ends, not every time.
    fn tell(&self, outcome: Result<reqwest::StatusCode, String>) {
        let trouble = match outcome {
            Ok(status) if status.is_success() => None,
            Ok(status) => Some(status.to_string()),
            Err(error) => Some(error),
        };
        let was_down = self.is_down.swap(trouble.is_some(), Ordering::Relaxed);
        let signal = self.signal.name();
        match trouble {
            Some(error) if !was_down => tracing::warn!(signal, error, "OpenTelemetry's data do not arrive; the run goes on"),
            None if was_down => tracing::info!(signal, "OpenTelemetry's data arrive again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_units_give_the_names_of_prometheus_again() {
        assert_eq!(otel_name("daplake_received_bytes_total"), ("daplake.received".to_owned(), "By"));
        for (name, kind, _) in metrics::FAMILIES {
            let (stem, unit) = otel_name(name);
            let unit = match unit {
                "s" => "_seconds",
                "By" => "_bytes",
                _ => "",
            };
            let total = if *kind == "counter" { "_total" } else { "" };
            assert_eq!(*name, format!("{}{unit}{total}", stem.replace('.', "_")));
        }
    }
}
