//! What the environment says of the service manager and of OpenTelemetry.

use std::time::Duration;

use crate::cli::settings::paths::variable;
#[cfg(feature = "otel")]
use crate::error::{Error, Kind, Result};

/// What systemd tells a service: the socket to notify, and how often it wants to hear that we live.
#[cfg(feature = "lake")]
pub(in crate::cli) fn systemd() -> (Option<String>, Option<Duration>) {
    let is_ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
    let watchdog = variable("WATCHDOG_USEC").filter(|_| is_ours).and_then(|text| text.parse().ok()).map(Duration::from_micros);
    (variable("NOTIFY_SOCKET"), watchdog.filter(|time| !time.is_zero()))
}

/// What OpenTelemetry is told.
#[cfg(feature = "otel")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum OtelSignal {
    Traces,
    Metrics,
}

#[cfg(feature = "otel")]
impl OtelSignal {
    /// As people write it.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            OtelSignal::Traces => "traces",
            OtelSignal::Metrics => "metrics",
        }
    }
}

/// Where a signal goes. Its headers are read by the exporter itself.
#[cfg(feature = "otel")]
pub(in crate::cli) struct OtelSettings {
    pub(in crate::cli) endpoint: url::Url,
    /// Of one request.
    pub(in crate::cli) timeout: Duration,
}

/// By OpenTelemetry's own variables; `None`: not wanted. Wanted is what has an endpoint, or was asked for by name. No value of a
/// variable is part of an error: an endpoint may hold a secret.
#[cfg(feature = "otel")]
pub(in crate::cli) fn otel(signal: OtelSignal) -> Result<Option<OtelSettings>> {
    let word = signal.name().to_ascii_uppercase();
    let told = |what: &str| {
        variable(&format!("OTEL_EXPORTER_OTLP_{word}_{what}")).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{what}")))
    };
    let endpoint = told("ENDPOINT");
    let is_disabled = variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let is_wanted = match variable(&format!("OTEL_{word}_EXPORTER")) {
        Some(exporter) => exporter == "otlp",
        None => endpoint.is_some(),
    };
    if is_disabled || !is_wanted {
        return Ok(None);
    }
    let wrong = |what: &str, hint: &'static str| {
        let message = format!("OpenTelemetry's {} cannot be sent: OTEL_EXPORTER_OTLP_{what}", signal.name());
        Err(Error::new(Kind::Usage, message).hint(hint))
    };
    if told("PROTOCOL").is_some_and(|protocol| protocol != "http/protobuf") {
        return wrong("PROTOCOL is not http/protobuf", "collectors take http/protobuf on port 4318");
    }
    let endpoint = endpoint.as_deref().unwrap_or("http://localhost:4318").parse::<url::Url>();
    let Some(endpoint) = endpoint.ok().filter(|url| matches!(url.scheme(), "http" | "https")) else {
        return wrong("ENDPOINT is not a URL", "write it as http://collector.example.org:4318");
    };
    let timeout = told("TIMEOUT").and_then(|text| text.parse().ok()).map_or(Duration::from_secs(10), Duration::from_millis);
    Ok(Some(OtelSettings { endpoint, timeout }))
}
