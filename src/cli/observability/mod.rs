//! What other programs see: logs, metrics, traces, notifications, service manager, reports of runs.

pub(in crate::cli) mod logging;
#[cfg(feature = "lake")]
pub(in crate::cli) mod metrics;
#[cfg(feature = "otel")]
pub(in crate::cli) mod otel;
#[cfg(feature = "lake")]
pub(in crate::cli) mod run_reporting;
#[cfg(feature = "lake")]
pub(in crate::cli) mod systemd;
