//! Traces and metrics of `sync` for OpenTelemetry: OTLP over HTTP with the crates of the project, configured by the standard `OTEL_*`
//! variables. Traces come from the progress target, metrics from [`crate::cli::observability::metrics`]. Errors never change the result of
//! a run. Headers and addresses are never printed, since both can contain secrets.

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

/// Largest response of a collector that is read, in bytes.
const MAX_RESPONSE: usize = 64 << 10;
/// Events of the progress target that are added to traces. Bytes and rows are too frequent.
const TRACED_EVENTS: [&str; 4] = ["job_started", "retried", "done", "failed"];

/// The enabled signals. Without [`Telemetry::finish`] the latest data is lost.
#[derive(Debug, Default)]
pub(in crate::cli) struct Telemetry {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
    /// Signals that could not be enabled, to be logged once there is a log.
    pub(in crate::cli) warnings: Vec<Error>,
}

impl Telemetry {
    /// Enables the signals that the variables select. Requests run on `runtime`.
    pub(in crate::cli) fn start(ca_bundle: Option<&std::path::Path>, runtime: &Handle) -> Self {
        let mut telemetry = Self::default();
        let sender = |signal: OtelSignal| -> Result<Option<Sender>> {
            let Some(settings) = otel(signal)? else { return Ok(None) };
            let http = hook_http(&settings.endpoint, ca_bundle)?;
            let (runtime, timeout) = (runtime.clone(), settings.timeout);
            Ok(Some(Sender(Arc::new(Exporter { signal, http, runtime, timeout, is_down: AtomicBool::new(false) }))))
        };
        match sender(OtelSignal::Traces).and_then(|sender| sender.map(traces).transpose()) {
            Ok(traces) => telemetry.traces = traces,
            Err(error) => telemetry.warnings.push(error),
        }
        match sender(OtelSignal::Metrics)
            .and_then(|sender| sender.map(|sender| meters(sender, metrics::switch_on())).transpose())
        {
            Ok(metrics) => telemetry.metrics = metrics,
            Err(error) => telemetry.warnings.push(error),
        }
        telemetry
    }

    /// The layer that records traces, if they are enabled.
    pub(in crate::cli) fn layer(&self) -> Option<BoxedLayer> {
        let tracer = self.traces.as_ref()?.tracer("daplake");
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        Some(Box::new(layer.with_filter(filter_fn(is_traced))))
    }

    /// Sends the remaining data; takes a few seconds at most if the collector does not respond. Must not be called on a thread of the
    /// runtime, which must still exist.
    pub(in crate::cli) fn finish(self) {
        // The sender has logged errors.
        if let Some(traces) = self.traces {
            let _ = traces.shutdown();
        }
        if let Some(metrics) = self.metrics {
            let _ = metrics.shutdown();
        }
    }
}

fn is_traced(metadata: &Metadata<'_>) -> bool {
    metadata.target() == progress::TARGET
        && (metadata.is_span() || TRACED_EVENTS.iter().any(|event| metadata.fields().field(event).is_some()))
}

fn traces(sender: Sender) -> Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder().with_http().with_http_client(sender).build().map_err(|_| setup_failed("traces"))?;
    Ok(SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(exporter).build())
}

fn meters(sender: Sender, metrics: &'static Metrics) -> Result<SdkMeterProvider> {
    let exporter =
        MetricExporter::builder().with_http().with_http_client(sender).build().map_err(|_| setup_failed("metrics"))?;
    let provider = SdkMeterProvider::builder().with_resource(resource()).with_periodic_exporter(exporter).build();
    let meter = provider.meter("daplake");
    for (name, kind, help) in metrics::FAMILIES {
        let observe = move |instrument: &dyn AsyncInstrument<f64>| {
            for (label, value) in metrics.values(name) {
                let label = label.map(|(label, value_of)| KeyValue::new(label, value_of));
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

/// An error without its cause, which can repeat the address and its secrets.
fn setup_failed(signal: &str) -> Error {
    Error::new(Kind::Usage, format!("OpenTelemetry {signal} cannot be set up; the run continues without them"))
        .hint("see the OTEL_EXPORTER_OTLP_* variables")
}

/// Name and unit by the conventions of OpenTelemetry. The usual conversion to Prometheus gives the original name.
fn otel_name(name: &'static str) -> (String, &'static str) {
    let stem = name.strip_suffix("_total").unwrap_or(name);
    let (stem, unit) = match (stem.strip_suffix("_seconds"), stem.strip_suffix("_bytes")) {
        (Some(stem), _) => (stem, "s"),
        (_, Some(stem)) => (stem, "By"),
        _ => (stem, ""),
    };
    (stem.replacen('_', ".", 1), unit)
}

/// The resource: service `daplake`, unless the variables name another.
fn resource() -> Resource {
    let given = Resource::builder().build();
    let name = given.get(&Key::from_static_str("service.name")).map(|name| name.to_string()).unwrap_or_default();
    let builder = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let has_name = !name.is_empty() && !name.starts_with("unknown_service");
    if has_name { builder.build() } else { builder.with_service_name("daplake").build() }
}

/// An HTTP client for the exporters, which call it on threads of their own.
#[derive(Debug, Clone)]
struct Sender(Arc<Exporter>);

#[derive(Debug)]
struct Exporter {
    signal: OtelSignal,
    http: reqwest::Client,
    runtime: Handle,
    timeout: Duration,
    is_down: AtomicBool,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exporter = Arc::clone(&self.0);
        let response = self.0.runtime.spawn(async move { exporter.exchange(request).await }).await?;
        self.0.report(response.as_ref().map(Response::status).map_err(ToString::to_string));
        response.map_err(Into::into)
    }
}

impl Exporter {
    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, reqwest::Error> {
        let mut request = reqwest::Request::try_from(request)?;
        *request.timeout_mut() = Some(self.timeout);
        let mut answer = self.http.execute(request).await.map_err(reqwest::Error::without_url)?;
        let mut body = BytesMut::new();
        while body.len() < MAX_RESPONSE {
            let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? else { break };
            body.extend_from_slice(&chunk);
        }
        let mut response = Response::new(body.freeze());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(response)
    }

    /// Logs when requests start to fail, and when they succeed again.
    fn report(&self, outcome: Result<reqwest::StatusCode, String>) {
        let failure = match outcome {
            Ok(status) if status.is_success() => None,
            Ok(status) => Some(status.to_string()),
            Err(error) => Some(error),
        };
        let was_down = self.is_down.swap(failure.is_some(), Ordering::Relaxed);
        let signal = self.signal.name();
        match failure {
            Some(error) if !was_down => tracing::warn!(signal, error, "OpenTelemetry data cannot be sent; the run continues"),
            None if was_down => tracing::info!(signal, "OpenTelemetry data is being sent again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_units_convert_to_those_of_prometheus() {
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
