//! Settings that come from the environment alone: those of systemd and OpenTelemetry.

#[cfg(feature = "lake")]
use std::time::Duration;

#[cfg(feature = "lake")]
use crate::cli::settings::paths::variable;
#[cfg(feature = "otel")]
use crate::error::{Error, Kind, Result};

/// The notification socket of systemd, and the interval of its watchdog.
#[cfg(feature = "lake")]
pub(in crate::cli) fn systemd() -> (Option<String>, Option<Duration>) {
    let is_ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
    let watchdog = variable("WATCHDOG_USEC").filter(|_| is_ours).and_then(|text| text.parse().ok()).map(Duration::from_micros);
    (variable("NOTIFY_SOCKET"), watchdog.filter(|time| !time.is_zero()))
}

/// A signal of OpenTelemetry.
#[cfg(feature = "otel")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum OtelSignal {
    Traces,
    Metrics,
}

#[cfg(feature = "otel")]
impl OtelSignal {
    /// The name in messages and variables, in lower case.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            OtelSignal::Traces => "traces",
            OtelSignal::Metrics => "metrics",
        }
    }
}

/// Where a signal is sent. The exporter reads the headers itself.
#[cfg(feature = "otel")]
pub(in crate::cli) struct OtelSettings {
    pub(in crate::cli) endpoint: url::Url,
    /// Time limit of a request.
    pub(in crate::cli) timeout: Duration,
}

/// Reads OpenTelemetry's own variables. `None` if the signal is not enabled: it has no endpoint and no exporter by name. Errors do not
/// repeat values of variables, since an endpoint can contain a secret.
#[cfg(feature = "otel")]
pub(in crate::cli) fn otel(signal: OtelSignal) -> Result<Option<OtelSettings>> {
    let name = signal.name().to_ascii_uppercase();
    let setting = |what: &str| {
        variable(&format!("OTEL_EXPORTER_OTLP_{name}_{what}")).or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{what}")))
    };
    let endpoint = setting("ENDPOINT");
    let is_disabled = variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let is_enabled = match variable(&format!("OTEL_{name}_EXPORTER")) {
        Some(exporter) => exporter == "otlp",
        None => endpoint.is_some(),
    };
    if is_disabled || !is_enabled {
        return Ok(None);
    }
    let wrong = |what: &str, hint: &'static str| {
        let message = format!("OpenTelemetry {} cannot be sent: OTEL_EXPORTER_OTLP_{what}", signal.name());
        Err(Error::new(Kind::Usage, message).hint(hint))
    };
    if setting("PROTOCOL").is_some_and(|protocol| protocol != "http/protobuf") {
        return wrong("PROTOCOL is not http/protobuf", "collectors accept http/protobuf on port 4318");
    }
    let endpoint = endpoint.as_deref().unwrap_or("http://localhost:4318").parse::<url::Url>();
    let Some(endpoint) = endpoint.ok().filter(|url| matches!(url.scheme(), "http" | "https")) else {
        return wrong("ENDPOINT is not a URL", "write it as http://collector.example.org:4318");
    };
    let timeout = setting("TIMEOUT").and_then(|text| text.parse().ok()).map_or(Duration::from_secs(10), Duration::from_millis);
    Ok(Some(OtelSettings { endpoint, timeout }))
}
